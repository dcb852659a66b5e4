"""What a day costs, from its file to its release, in a process that has imported everything already.

usage: python -m benchmarks.cost_of_a_day --log online_retail.csv.gz [--profile 2011-11-17]

A home takes the log in up to the first day that is measured. Then the days come in order, each as a file in the landing
folder; those between two measured days come together and are not measured. The cost is the CPU time of this process,
with all its threads; imports, some five CPU seconds, are paid before. ``benchmarks.day_by_day`` measures processes as
they are started, imports and all.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from custseg_assets import no_telemetry

no_telemetry.switch_off()

from custseg_assets.commands.run import Runner  # noqa: E402  (Dagster reads its telemetry switch when it is imported)
from custseg_assets.home.open import OpenHome  # noqa: E402
from custseg_assets.settings import load_settings  # noqa: E402
from tests.support.daily_files import DroppedFile, daily_files  # noqa: E402

DAYS = (date(2011, 11, 16), date(2011, 11, 17), date(2011, 11, 30), date(2011, 12, 1))
"""Two in the middle of a month, its last, which closes the snapshot, and the first of the next."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each day."""
    parser = argparse.ArgumentParser(description="Measure what a day costs after start-up.")
    parser.add_argument("--log", type=Path, required=True, help="Online Retail as csv or csv.gz")
    parser.add_argument("--days", type=date.fromisoformat, nargs="+", default=[*DAYS])
    parser.add_argument("--profile", type=date.fromisoformat, help="a day to profile instead of only measuring it")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    files = daily_files(pl.read_csv(arguments.log, infer_schema=False))
    with tempfile.TemporaryDirectory(prefix="cost-of-a-day-") as folder:
        home = Path(folder) / "home"
        waiting = [file for day, file in files.items() if day < arguments.days[0]]
        for day in arguments.days:
            if waiting:
                _together(waiting).write_to(home / "landing")
                _run(home)
            files[day].write_to(home / "landing")
            profile = cProfile.Profile() if day == arguments.profile else None
            started, wall = time.process_time(), time.monotonic()
            if profile:
                profile.runcall(_run, home)
            else:
                _run(home)
            print(f"{day}  {time.process_time() - started:.2f} CPU s, {time.monotonic() - wall:.2f} s", flush=True)
            if profile:
                pstats.Stats(profile).sort_stats("cumulative").print_stats(90)
            later = [one for one in arguments.days if one > day]
            waiting = [file for one, file in files.items() if later and day < one < later[0]]
    return 0


def _run(home: Path) -> None:
    """As ``custseg run`` does it."""
    settings = load_settings(home=home, environment={})
    settings = settings.model_copy(update={"landing": settings.landing.model_copy(update={"settle_seconds": 0})})
    Runner(OpenHome(settings), lambda _: None).run()


def _together(files: Sequence[DroppedFile]) -> DroppedFile:
    return DroppedFile(f"until {files[-1].name}", pl.concat([file.lines for file in files]))


if __name__ == "__main__":
    sys.exit(main())
