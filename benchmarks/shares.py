"""Cut a log at days of a month, and hold the segments' shares there against those of the closed months around it.

usage: python -m benchmarks.shares --log online_retail.csv.gz --command .venv/bin/custseg
           [--month 2011-11-01] [--cuts 10]

The home takes in everything before the month, then the month up to each cut, and at last all of it. The shares of the
open snapshot at a cut may differ from those of the closed month before, and from those of the month itself when it is
over, by as much as these two differ from each other and two points more. Shares are of all known customers; the largest
difference of any segment counts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import polars as pl

from custseg_assets.domain.periods import key_of, shift
from tests.support.comparison import partitions
from tests.support.daily_files import DroppedFile, daily_files
from tests.support.measured_runs import run, write_config

ALLOWANCE = 0.02
Shares = Mapping[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole test; 0 where no cut differs too much."""
    arguments = _arguments(argv)
    key, before = (key_of(shift(arguments.month, by, "monthly")) for by in (0, -1))
    files = daily_files(pl.read_csv(arguments.log, infer_schema=False))
    days = [day for day in files if key <= str(day) < key_of(shift(arguments.month, 1, "monthly"))]
    cuts = sorted({days[number * (len(days) - 1) // arguments.cuts] for number in range(arguments.cuts)})
    ends = [max(day for day in files if day < days[0]), *cuts, days[-1]]
    with tempfile.TemporaryDirectory(prefix="shares-") as folder:
        home, command = Path(folder) / "landed", [*shlex.split(arguments.command), "run"]
        write_config(Path(folder))
        found: dict[date, Shares] = {}
        for start, end in zip([date.min, *ends], ends, strict=False):
            between = [file.lines for day, file in files.items() if start < day <= end]
            DroppedFile(f"until {end}.csv", pl.concat(between)).write_to(home / "landing")
            run(command, home)
            found[end] = shares_of(home, key if end in days else before)
            print(f"{end}  {in_points(found[end])}", flush=True)
    first, last = (found.pop(end) for end in (ends[0], ends[-1]))
    allowed = largest_difference(first, last) + ALLOWANCE
    print(f"closed months apart: {in_points(differences(first, last))}; allowed are {allowed:.1%}")
    worst = 0.0
    for cut, shares in found.items():
        for name, other in (("month before", first), ("month itself", last)):
            worst = max(worst, largest_difference(shares, other))
            print(f"{cut} from the {name}: {in_points(differences(shares, other))}")
    print(f"{len(found)} cuts, the largest difference is {worst:.1%}, allowed are {allowed:.1%}")
    return int(worst > allowed)


def shares_of(home: Path, key: str) -> Shares:
    """The share of all known customers that each segment of a snapshot has."""
    profiles = partitions(home / "tables" / "segment_profiles")[key].sort("segment_id")
    return dict(profiles.select("segment_name", "share_customers").iter_rows())


def differences(left: Shares, right: Shares) -> Shares:
    """How far apart two snapshots' shares are, by segment."""
    return {name: abs(left.get(name, 0.0) - right.get(name, 0.0)) for name in {**left, **right}}


def largest_difference(left: Shares, right: Shares) -> float:
    """How far apart two snapshots' shares are in the segment where they are furthest."""
    return max(differences(left, right).values())


def in_points(shares: Shares) -> str:
    """Shares by segment, in percent."""
    return ", ".join(f"{name} {100 * share:.1f}" for name, share in shares.items())


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cut a log at days of a month, and compare the segments' shares.")
    parser.add_argument("--log", type=Path, required=True, help="Online Retail as csv or csv.gz")
    parser.add_argument("--command", required=True, help="the custseg command")
    parser.add_argument("--month", type=date.fromisoformat, default=date(2011, 11, 1), help="its first day")
    parser.add_argument("--cuts", type=int, default=10)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
