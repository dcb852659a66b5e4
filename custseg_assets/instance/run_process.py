"""What the process of a run does that the daemon started. Which process that is belongs in ``run_workers``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster._cli.api import _execute_run_command_body
from dagster._utils import send_interrupt
from dagster._utils.interrupts import capture_interrupts

from custseg_assets.instance.event_log import open_instance, stay_connected

_SECONDS_BETWEEN_LOOKS = 1.0
_TO_INTERRUPT = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)


def execute_run(folder: Path, run_id: str) -> None:
    """Execute a run that was launched, as ``dagster api execute_run`` does.

    Args:
        folder: of the Dagster instance.
        run_id: of the run.
    """
    with (
        capture_interrupts(),
        open_instance(folder) as instance,
        stay_connected(instance),
        _interrupted_when_canceled(instance, run_id),
    ):
        _execute_run_command_body(run_id, instance, lambda _: None, set_exit_code_on_failure=False)


@contextlib.contextmanager
def _interrupted_when_canceled(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """A block that is interrupted when the run is canceled, or marked as failed, by another process."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_LOOKS):
            run = instance.get_run_by_id(run_id)
            if run is None or run.status in _TO_INTERRUPT:
                send_interrupt()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
