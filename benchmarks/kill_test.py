"""Kill a run at moments spread over it, and see that nothing half-written shows and that the next run mends the rest.

usage: python benchmarks/kill_test.py --source PATH --command .venv/bin/custseg
                                      [--engine NAME] [--moments 20] [--acceptance SCRIPT]

One whole run is measured first, and what it made is the truth that every killed and mended home is held against. Where
an engine is named, the truth is made by Polars, and a run of the engine is measured beside it.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from custseg_assets.stores.home import Home
from tests.support.comparison import flaws, missing_or_extra
from tests.support.killed_runs import environment_of, kill_run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole test; 0 where every moment went well."""
    arguments = _arguments(argv)
    source = arguments.source if "://" in arguments.source else str(Path(arguments.source).absolute())
    command = [*shlex.split(arguments.command), "run", "--source", source]
    n_failed = 0
    with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
        truth = Path(folder) / "whole"
        duration = _seconds_of([*command, "--engine", "polars"] if arguments.engine else command, truth)
        if arguments.engine:
            command += ["--engine", arguments.engine]
            duration = _seconds_of(command, Path(folder) / "by-engine")
        print(f"a whole run takes {duration:.1f} s\n\n{'killed at':>9}  {'mended in':>9}  in the middle of")
        for moment in range(arguments.moments):
            home = Path(folder) / f"killed-{moment}"
            seconds = (moment + 0.5) / arguments.moments * duration
            said = kill_run(command, home, seconds)
            found = flaws(home, truth)
            started = time.monotonic()
            mended = subprocess.run(command, env=environment_of(home), check=False, capture_output=True, text=True)
            took = time.monotonic() - started
            if mended.returncode:
                found.append(f"the next run ended with {mended.returncode}: {mended.stderr.splitlines()[-1:]}")
            found += flaws(home, truth) + missing_or_extra(home, truth) + _accepted(arguments, home)
            found += [f"{path} is left" for path in Home(home).staging.glob("*")]
            print(
                f"{seconds:7.1f} s  {took:7.1f} s  {said or 'starting'}", *(f"  FAIL {one}" for one in found), sep="\n"
            )
            n_failed += bool(found)
            shutil.rmtree(home, ignore_errors=True)
    print(f"\n{arguments.moments - n_failed} of {arguments.moments} moments went well")
    return int(n_failed > 0)


def _seconds_of(command: Sequence[str], home: Path) -> float:
    started = time.monotonic()
    subprocess.run(command, env=environment_of(home), check=True, capture_output=True)
    return time.monotonic() - started


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill runs at moments spread over them, and mend them.")
    parser.add_argument("--source", required=True, help="what is run on")
    parser.add_argument("--command", required=True, help="the custseg command")
    parser.add_argument("--engine", help="that `custseg run` is given")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--acceptance", type=Path, help="a script that takes the command and a home")
    return parser.parse_args(argv)


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
