"""Dagster in this process: the instance that lives in a home, its event log, and the runs that are executed on it.

What is run belongs in ``defs``.
"""
