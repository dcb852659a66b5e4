"""Drift: the reference, the scores, the report, and the drill that shows what a report sees."""
