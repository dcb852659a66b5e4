"""Dagster's daemon without its half minute between two looks at backfills, where this folder is on the path."""

import sys

if "dagster._daemon" in sys.orig_argv:
    import dagster._daemon.controller as daemon

    daemon.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
