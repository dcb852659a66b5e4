"""Runs on a landing folder whose CPU time is measured, and how fast the machine is meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from custseg_assets.settings import CONFIG_VARIABLE
from tests.support.killed_runs import environment_of

_IMPORTS = "import dagster, great_expectations, matplotlib.figure"
"""What every day's run needs; that of a day with a training needs MLflow and scikit-learn too."""


def write_config(folder: Path) -> None:
    """Have every command read a configuration with which no run waits for a file that was just dropped."""
    config = folder / "custseg.toml"
    config.write_text("[landing]\nsettle_seconds = 0\n", encoding="utf-8")
    os.environ[CONFIG_VARIABLE] = str(config)


def run(command: Sequence[str], home: Path) -> float:
    """Run a command on a home; the CPU seconds of its process and of all that it started.

    Raises:
        SystemExit: it failed.
    """
    log = home.with_name(f"{home.name}.log")
    with log.open("wb") as progress:
        process = subprocess.Popen(command, env=environment_of(home), stdout=progress, stderr=progress)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}:\n{log.read_text(encoding='utf-8', errors='replace')}")
    return usage.ru_utime + usage.ru_stime


def speed(folder: Path) -> str:
    """What a short loop costs, and what the imports of a run alone: how fast the machine is, as busy as it is."""
    started, product = time.process_time(), 7
    for _ in range(5_000_000):
        product = (product * 31) % 1000003
    loop_s = time.process_time() - started
    imports_s = run([sys.executable, "-W", "ignore", "-c", _IMPORTS], folder / "imports")
    return f"a loop of 5 million steps {loop_s:.2f} CPU s, imports alone {imports_s:.2f} CPU s"
