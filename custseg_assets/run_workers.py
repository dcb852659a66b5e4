"""Runs whose process is gone: found, marked as failed, and not held against the data they worked on.

Dagster's own launcher cannot tell whether a run's process still lives, so a run that was killed together with the
processes around it would stay "started" for hours, and every sensor would wait for it. Here the home's lock tells: a
run has it from its first step to its last, and the system lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

from custseg_assets.stores.home import Home

ABANDONED_TAG = "custseg/abandoned"
"""On runs that ended with their process, not by themselves."""
_SECONDS_WITHOUT_LOCK = 5.0
"""Longer than a run needs from its start to its first step, and from its last step to its end."""
_SECONDS_BETWEEN_LOOKS = 0.2
_GONE = "the process that ran it ended before it did"


class HomeRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher, which also knows whether a run that was started is still being worked on.

    ``dagster.yaml`` names it; Dagster's run monitoring asks it.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: the health of a run can be asked for."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a run in progress has a process.

        Args:
            run: its status is STARTED.
        """
        home = Home(Path(self._instance.root_directory).parent)
        give_up = time.monotonic() + _SECONDS_WITHOUT_LOCK
        while time.monotonic() < give_up:
            if home.is_locked():
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        now = self._instance.get_run_by_id(run.run_id)
        if now and now.status == dg.DagsterRunStatus.STARTED:
            self._instance.add_run_tags(run.run_id, {ABANDONED_TAG: "true"})
            return CheckRunHealthResult(WorkerStatus.FAILED, _GONE)
        return CheckRunHealthResult(WorkerStatus.SUCCESS)


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
        instance.report_run_failed(run, _GONE)
        closed.append(run.run_id)
    return closed
