"""Kill a run at moments spread over it, and see that nothing half-written shows and that the next run mends the rest.

usage: python benchmarks/kill_test.py --source PATH --command .venv/bin/custseg [--moments 20] [--acceptance SCRIPT]

One whole run is measured first, and what it made is the truth that every killed and mended home is held against.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import mlflow
import polars as pl
from deltalake import DeltaTable

from custseg_assets.settings import TrackingSettings
from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from custseg_assets.stores.registry import ModelRegistry


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole test; 0 where every moment went well."""
    arguments = _arguments(argv)
    command = [*shlex.split(arguments.command), "run", "--source", str(Path(arguments.source).absolute())]
    n_failed = 0
    with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
        truth = Path(folder) / "whole"
        started = time.monotonic()
        subprocess.run(command, env=_environment(truth), check=True, capture_output=True)
        duration = time.monotonic() - started
        print(f"a whole run takes {duration:.1f} s\n\n{'killed at':>9}  {'mended in':>9}  in the middle of")
        for moment in range(arguments.moments):
            home = Path(folder) / f"killed-{moment}"
            seconds = (moment + 0.5) / arguments.moments * duration
            said = killed_run(command, home, seconds)
            found = flaws(home, truth)
            started = time.monotonic()
            mended = subprocess.run(command, env=_environment(home), check=False, capture_output=True, text=True)
            took = time.monotonic() - started
            if mended.returncode:
                found.append(f"the next run ended with {mended.returncode}: {mended.stderr.splitlines()[-1:]}")
            found += flaws(home, truth) + differences(home, truth) + _accepted(arguments, home)
            print(
                f"{seconds:7.1f} s  {took:7.1f} s  {said or 'starting'}", *(f"  FAIL {one}" for one in found), sep="\n"
            )
            n_failed += bool(found)
            shutil.rmtree(home, ignore_errors=True)
    print(f"\n{arguments.moments - n_failed} of {arguments.moments} moments went well")
    return int(n_failed > 0)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill runs at moments spread over them, and mend them.")
    parser.add_argument("--source", required=True, help="what is run on")
    parser.add_argument("--command", required=True, help="the custseg command")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--acceptance", type=Path, help="a script that takes the command and a home")
    return parser.parse_args(argv)


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "CUSTSEG_HOME": str(home)}


def killed_run(command: Sequence[str], home: Path, seconds: float, until: str | None = None) -> str:
    """Start a run and kill it, and every process it started, with a signal that cannot be caught.

    Args:
        command: the run.
        home: its home.
        seconds: when.
        until: kill it when a line of its progress begins so instead; ``seconds`` later at the latest.

    Returns:
        The last line it said.
    """
    said = home.with_name(f"{home.name}.log")
    with said.open("wb") as log:
        process = subprocess.Popen(
            command, env=_environment(home), stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            if until and any(line.strip().startswith(until) for line in _lines(said)):
                break
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return next(iter(_lines(said)[-1:]), "").strip()


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def flaws(home: Path, truth: Path) -> list[str]:
    """What in a home is half-written, damaged or not as a whole run makes it; a home may lack what is not made yet."""
    found = [flaw for table in _tables(home) for flaw in _table_flaws(table, truth / "tables" / table.name)]
    root = home / "releases"
    try:
        serving = releases.current(root)
        if serving:
            releases.verify(root, serving)
    except releases.DamagedReleaseError as error:
        found.append(str(error))
    return found + _registry_flaws(home)


def _tables(home: Path) -> list[Path]:
    folders = sorted((home / "tables").glob("*"))
    return [folder for folder in folders if DeltaTable.is_deltatable(str(folder))]


def partitions(folder: Path) -> dict[str, pl.DataFrame]:
    """The partitions of a Delta table, the rows of each in one order."""
    parts = pl.read_delta(str(folder)).partition_by("period", as_dict=True)
    return {str(key): part.sort(part.columns) for (key,), part in parts.items()}


def _table_flaws(folder: Path, truth: Path) -> list[str]:
    try:
        found = partitions(folder)
    except (OSError, pl.exceptions.PolarsError) as error:
        return [f"table {folder.name} cannot be read: {error}"]
    expected = partitions(truth)
    wrong = [key for key, rows in found.items() if key not in expected or not rows.equals(expected[key])]
    return [f"table {folder.name}: partition {key} is not as a whole run makes it" for key in wrong]


def _registry_flaws(home: Path) -> list[str]:
    if not (home / "mlflow" / "mlflow.db").exists():
        return []
    registry = ModelRegistry(TrackingSettings(), Home(home).mlflow)
    mlflow.set_tracking_uri(registry.uri)
    mlflow.set_registry_uri(registry.uri)
    found = []
    for model in registry.client().search_registered_models():
        for alias in model.aliases:
            try:
                mlflow.pyfunc.load_model(f"models:/{model.name}@{alias}")
            except (mlflow.exceptions.MlflowException, OSError, ValueError) as error:
                found.append(f"model {model.name}@{alias} does not load: {error}")
    return found


def differences(home: Path, truth: Path) -> list[str]:
    """What a finished home lacks of, or has beside, what a whole run makes."""
    tables = {folder.name: set(partitions(folder)) for folder in _tables(home)}
    expected = {folder.name: set(partitions(folder)) for folder in _tables(truth)}
    found = [f"table {name} has other partitions" for name in expected if tables.get(name) != expected[name]]
    released = releases.current(home / "releases"), releases.current(truth / "releases")
    return found if released[0] == released[1] else [*found, f"release {released[0]}, not {released[1]}"]


def _accepted(arguments: argparse.Namespace, home: Path) -> list[str]:
    if arguments.acceptance is None:
        return []
    checked = subprocess.run(
        [sys.executable, arguments.acceptance, arguments.command, home], check=False, capture_output=True, text=True
    )
    failed = [line for line in checked.stdout.splitlines() if line.startswith("FAIL")]
    return failed or ([checked.stderr[-300:]] if checked.returncode else [])


if __name__ == "__main__":
    sys.exit(main())
