"""Dagster's daemon without most of its waiting, where this folder is on the path.

It looks at backfills each half minute, and each five seconds for sensors whose time has come: one with an interval of
five is then looked at each ten, or each five where the clock is kind.
"""

import sys

if "dagster._daemon" in sys.orig_argv:
    import dagster._daemon.controller as daemon
    import dagster._daemon.sensor as sensors

    daemon.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
    sensors.MIN_INTERVAL_LOOP_TIME = 1
