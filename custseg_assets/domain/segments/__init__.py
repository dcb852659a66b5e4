"""Segments: the model, how it is trained and chosen, and what is said of segments and of customers in them."""
