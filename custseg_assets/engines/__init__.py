"""Engines: where work as large as the log is done. What is worked out is in ``domain``, and the same on each."""
