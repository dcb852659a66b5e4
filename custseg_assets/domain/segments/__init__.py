"""Segments: the model, how it is trained and chosen, and how segments and their customers are described."""
