"""Drop a log into a landing folder day by day, and see that every day's release is as of that day.

usage: python -m benchmarks.day_by_day --log online_retail.csv.gz --command .venv/bin/custseg [--kills 20]
           [--from 2011-01-15] [--until 2011-02-28]

The log is cut into daily files, which come in order. After each of them ``custseg run`` makes what is out of date, and
the home's release must be as of the end of that day. When a month is over, the partitions of all months that are over
must be equal, row for row, to those of a home that loaded the whole log once. Runs are killed at moments spread over
the days and over their own length; the next run goes on. What a day costs is the CPU time of its run and of all that
it started, from the file to the release.
"""

from __future__ import annotations

import argparse
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from custseg_assets.domain.periods import end_of, key_of, midnight, period_start
from custseg_assets.domain.schemas import SEGMENT_ASSIGNMENTS
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import INGESTED
from custseg_assets.settings import load_settings
from custseg_assets.stores import releases
from tests.support.comparison import differing_partitions, partitions
from tests.support.daily_files import DroppedFile, daily_files
from tests.support.killed_runs import kill_run
from tests.support.measured_runs import run, speed, write_config


@dataclass
class Month:
    """What was seen in a month.

    Attributes:
        key: of the month.
        cpu_s: CPU seconds of each day's run, by day, but for those where one was killed.
        n_days: days with a file.
        n_kills: runs that were killed.
        n_without_model: days after which no model was in force: of too few data, no number of segments is eligible.
        differences: what was not as it should be.
    """

    key: str
    cpu_s: dict[date, float] = field(default_factory=dict)
    n_days: int = 0
    n_kills: int = 0
    n_without_model: int = 0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.n_days:4}  {self.n_kills:5}  {self.n_without_model:8}  {len(self.differences):11}"
        return f"{self.key}  {counts}  {costs([self])}"


def costs(months: Sequence[Month]) -> str:
    """The median and the worst day's cost, and which day that was."""
    by_day = {day: seconds for month in months for day, seconds in month.cpu_s.items()}
    if not by_day:
        return "-"
    worst = max(by_day, key=by_day.__getitem__)
    return f"median {statistics.median(by_day.values()):.2f}, worst {by_day[worst]:.2f} on {worst}"


HEADER = f"{'month':10}  days  kills  no model  differences  CPU seconds of a day"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole test; 0 where every day and every month was as it should be."""
    arguments = _arguments(argv)
    command = [*shlex.split(arguments.command), "run"]
    with tempfile.TemporaryDirectory(prefix="day-by-day-") as folder:
        write_config(Path(folder))
        truth = Path(folder) / "whole"
        print(speed(Path(folder)), HEADER, sep="\n", flush=True)
        log = pl.read_csv(arguments.log, infer_schema=False)
        if arguments.last:
            log = log.filter(pl.col("InvoiceDate").str.slice(0, 10) <= str(arguments.last))
        source = Path(folder) / "log.csv"
        log.write_csv(source)
        run([*command, "--source", str(source)], truth)
        files = _files_to_drop(log, arguments.first)
        months = _arrive(files, Path(folder) / "landed", truth, command, arguments.kills, arguments.seed)
        print(speed(Path(folder)))
    n_found = sum(len(month.differences) for month in months)
    print(f"{len(files)} days, {arguments.kills} kills, {n_found} differences; CPU seconds of a day: {costs(months)}")
    return int(n_found > 0)


def _arrive(
    files: Sequence[tuple[date, DroppedFile]], home: Path, truth: Path, command: Sequence[str], n_kills: int, seed: int
) -> list[Month]:
    """Let every file come and look after each; a line of the report at the end of a month's files."""
    rng, months, wall_s, n_over = random.Random(seed), dict[str, Month](), 5.0, 0
    every_month = sorted(partitions(truth / "tables" / "raw_transactions"))
    killed = {int((number + 0.5) * len(files) / n_kills) for number in range(n_kills)}
    for number, (day, file) in enumerate(files):
        month = months.setdefault(period_key(day), Month(period_key(day)))
        file.write_to(home / "landing")
        month.n_days += 1
        if number in killed:
            seconds = rng.uniform(0.3, wall_s)
            print(f"  {day}: killed after {seconds:.1f} s: {kill_run(command, home, seconds)}", flush=True)
            month.n_kills += 1
        started = time.monotonic()
        cpu_s = run(command, home)
        # Where the home begins with many days at once, their file is no day's.
        if number and number not in killed:
            wall_s, month.cpu_s[day] = time.monotonic() - started, cpu_s
        seen = look_at_release(home, day)
        month.n_without_model += seen is None
        found = seen or []
        over, is_end = months_over(every_month, day), number == len(files) - 1
        if len(over) > n_over or is_end:
            found += _look_at_closed(home, truth, over, is_end=is_end)
            n_over = len(over)
        month.differences += found
        print(*(f"FAIL {day}: {one}\n" for one in found), sep="", end="", flush=True)
        if is_end or period_key(files[number + 1][0]) != month.key:
            print(month, flush=True)
    return [*months.values()]


def period_key(day: date) -> str:
    """Key of a day's month."""
    return key_of(period_start(day, "monthly"))


def months_over(months: Iterable[str], day: date) -> list[str]:
    """Those of some months that are over at the end of a day."""
    return [key for key in months if end_of(key, "monthly") <= midnight(day + timedelta(days=1))]


def look_at_release(home: Path, day: date) -> list[str] | None:
    """What of the release is not as it should be after the file of a day; ``None`` where no model is in force yet."""
    key, root, opened = period_key(day), home / "releases", OpenHome(load_settings(home=home))
    release_id = releases.current(root)
    if not opened.champions.champion_at(key):
        return ["there are segments and no model"] if opened.tables.sizes(SEGMENT_ASSIGNMENTS) else None
    if release_id is None:
        return ["there is no release"]
    manifest = releases.verify(root, release_id)
    as_of = midnight(day + timedelta(days=1))
    expected = {"period": key, "as_of": as_of, "is_open": as_of < end_of(key, "monthly")}
    found = {name: getattr(manifest, name) for name in expected}
    return [] if found == expected else [f"the release is {found}, not {expected}"]


def _look_at_closed(home: Path, truth: Path, closed: Sequence[str], *, is_end: bool) -> list[str]:
    """What of the months that are over is not as the single load has it; at the end of the log, what of all months."""
    names = sorted(path.name for path in (truth / "tables").iterdir())
    first_snapshot = min(partitions(truth / "tables" / "customer_features"))
    # A log shorter than a window has a snapshot of a short one, which goes when the first whole one comes.
    is_whole = is_end or closed[-1] >= first_snapshot
    return differing_partitions(home, truth, names if is_whole else INGESTED, None if is_end else closed)


def _files_to_drop(log: pl.DataFrame, first: date | None) -> list[tuple[date, DroppedFile]]:
    """Days and their files, oldest first; the days before ``first`` in one file."""
    files = sorted(daily_files(log).items())
    before = [(day, file) for day, file in files if first and day < first]
    if not before:
        return files
    together = DroppedFile(f"until {before[-1][0]}.csv", pl.concat([file.lines for _, file in before]))
    return [(before[-1][0], together), *files[len(before) :]]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Drop a log into a landing folder day by day, and compare.")
    parser.add_argument("--log", type=Path, required=True, help="Online Retail as csv or csv.gz")
    parser.add_argument("--command", required=True, help="the custseg command")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--from", dest="first", type=date.fromisoformat, help="all days before come in one file")
    parser.add_argument("--until", dest="last", type=date.fromisoformat, help="last day of the log that is used")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
