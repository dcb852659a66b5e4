"""Runs that ended with their process, not by themselves: marked as failed, and not held against their data."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

ABANDONED_TAG = "custseg/abandoned"
"""On runs that ended with their process, not by themselves."""
GONE = "the process that ran it ended before it did"


def close_abandoned(instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]) -> list[str]:
    """Mark runs as failed whose process is known to be gone.

    Args:
        instance: whose runs they are.
        runs: which.

    Returns:
        Their ids.
    """
    closed = []
    for run in runs:
        instance.add_run_tags(run.run_id, {ABANDONED_TAG: "true"})
        instance.report_run_failed(run, GONE)
        closed.append(run.run_id)
    return closed
