"""Campaigns with a holdout: who is held out, what can be seen, and what was seen."""
