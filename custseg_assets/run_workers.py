"""Processes of runs that nobody waits for: started as forks, interrupted, and missed when they are gone.

A process that imports what a run needs takes longer for it than for a day's work. So one process imports everything,
does nothing else, and each run is a fork of it.

A run that was killed together with the processes around it would stay "started" for hours, and every sensor would wait
for it. Here the home's lock tells: a run has it from its first step to its last, and the system lets go of it when the
process ends, however it ends.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._utils import get_run_crash_explanation

from custseg_assets.defs.abandoned import ABANDONED_TAG, GONE
from custseg_assets.instance.run_process import execute_run
from custseg_assets.stores.home import Home

_IMPORTS = "custseg_assets.instance.preloaded"
END_OF_RUN = "end of a run"
"""Name of the threads that wait for one."""
_SECONDS_WITHOUT_LOCK = 5.0
"""Longer than a run needs from its start to its first step, and from its last step to its end."""
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_VANISH = 5.0
_FORK_SERVER_GONE = 255
"""What ``multiprocessing`` says of a process that nobody can tell the end of any more."""


class HomeRunLauncher(DefaultRunLauncher):
    """Executes each run in a fork of a process that has imported everything, and knows whether it is worked on still.

    ``dagster.yaml`` names it. The daemon starts what is in the queue; the process that it forks comes with the first
    run and goes with the daemon and the last run.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run."""
        folder, run_id = Path(self._instance.root_directory), context.dagster_run.run_id
        # Forks of a process without threads of its own are safe on Linux; macOS' own libraries do not bear them.
        processes: ForkServerContext | SpawnContext = (
            multiprocessing.get_context("forkserver")
            if sys.platform == "linux"
            else multiprocessing.get_context("spawn")
        )
        processes.set_forkserver_preload([_IMPORTS])
        process = _start(processes, folder, run_id)
        self._run_ids.add(run_id)
        threading.Thread(
            target=_report_crash, args=(self._instance, run_id, process), name=END_OF_RUN, daemon=True
        ).start()

    def terminate(self, run_id: str) -> bool:
        """Ask for the end of a run: its process looks for that every second.

        Returns:
            Whether it was going on.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return True

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
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.SUCCESS)


def _start(processes: ForkServerContext | SpawnContext, folder: Path, run_id: str) -> BaseProcess:
    """Start the process of a run, if need be by a new process to fork.

    One that was killed takes requests until its last thread is gone, and forks nothing.
    """
    give_up = time.monotonic() + _SECONDS_TO_VANISH
    while True:
        process = processes.Process(target=execute_run, args=(folder, run_id))
        try:
            process.start()
        except (EOFError, ConnectionError):
            if time.monotonic() > give_up:
                raise
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        else:
            return process


def _report_crash(instance: dg.DagsterInstance, run_id: str, process: BaseProcess) -> None:
    """Wait for the end of a run's process, and mark the run as failed where it did not end before."""
    process.join()
    if process.exitcode in (None, _FORK_SERVER_GONE):
        return
    run = instance.get_run_by_id(run_id)
    if run and not run.is_finished:
        words = get_run_crash_explanation(f"Run execution process for {run_id}", process.exitcode)
        instance.report_engine_event(words, run)
        instance.report_run_failed(run)
