"""Dagster only, and thin: assets, checks, partitions, jobs and resources."""
