"""One home, opened: what it holds, what partitions are made from, what has to be made next, and what is taken in.

Nothing here knows Dagster. How tables and files are stored belongs in ``stores``; what a number means, in ``domain``.
"""
