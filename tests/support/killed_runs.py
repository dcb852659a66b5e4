"""Runs that are killed in their middle."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def kill_run(command: Sequence[str], home: Path, seconds: float, until: str | None = None) -> str:
    """Start a run and kill it, and every process it started, with a signal that cannot be caught.

    Args:
        command: the run.
        home: its home.
        seconds: when.
        until: kill it when a line of its progress begins so instead; ``seconds`` later at the latest.

    Returns:
        The last line of its progress.
    """
    progress = home.with_name(f"{home.name}.log")
    with progress.open("wb") as log:
        process = subprocess.Popen(
            command, env=environment_of(home), stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            if until and any(line.strip().startswith(until) for line in _lines(progress)):
                break
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return next(iter(_lines(progress)[-1:]), "").strip()


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a command on a home."""
    return {**os.environ, "CUSTSEG_HOME": str(home)}


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()
