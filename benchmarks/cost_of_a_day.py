"""What a day costs, from its file to its release: in a process that has imported everything, or under the pages.

usage: python -m benchmarks.cost_of_a_day --log online_retail.csv.gz [--ui] [--profile 2011-11-17]

A home takes the log in up to the first day that is measured. Then the days come in order, each as a file in the landing
folder; those between two measured days come together and are not measured. The cost is the CPU time of this process,
with all its threads, and of the one that it starts to read the file; its own imports, some five CPU seconds, are paid
before. ``benchmarks.day_by_day`` measures processes as they are started, imports and all.

With ``--ui`` the home is under ``custseg ui``, whose sensors start the runs of a day. The cost is the CPU time of all
its processes, those included that were started and have ended meanwhile, less what they take in as long a time when
nothing lands. Linux only.
"""

from __future__ import annotations

import argparse
import cProfile
import ctypes
import os
import pstats
import resource
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from custseg_assets import no_telemetry

no_telemetry.switch_off()

from custseg_assets.commands.run import Runner  # noqa: E402  (Dagster reads its telemetry switch when it is imported)
from custseg_assets.domain.periods import midnight  # noqa: E402
from custseg_assets.home.open import OpenHome  # noqa: E402
from custseg_assets.settings import load_settings  # noqa: E402
from custseg_assets.stores import releases  # noqa: E402
from tests.support.daily_files import DroppedFile, daily_files  # noqa: E402
from tests.support.live import QUICK_SENSORS, UNFINISHED, LiveHome  # noqa: E402
from tests.support.measured_runs import speed  # noqa: E402

DAYS = (date(2011, 11, 16), date(2011, 11, 17), date(2011, 11, 30), date(2011, 12, 1))
"""Two in the middle of a month, its last, which closes the snapshot, and the first of the next."""
_SECONDS_IDLE = 60.0
_SECONDS_PATIENCE = 600.0
_PR_SET_CHILD_SUBREAPER = 36


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each day."""
    parser = argparse.ArgumentParser(description="Measure what a day costs after start-up.")
    parser.add_argument("--log", type=Path, required=True, help="Online Retail as csv or csv.gz")
    parser.add_argument("--days", type=date.fromisoformat, nargs="+", default=[*DAYS])
    parser.add_argument("--ui", action="store_true", help="measure all processes of custseg ui")
    parser.add_argument("--profile", type=date.fromisoformat, help="a day to profile instead of only measuring it")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    files = daily_files(pl.read_csv(arguments.log, infer_schema=False))
    with tempfile.TemporaryDirectory(prefix="cost-of-a-day-") as folder:
        home = Path(folder) / "home"
        print(speed(Path(folder)), flush=True)
        if arguments.ui:
            _measure_under_ui(home, files, arguments.days)
        else:
            _measure_here(home, files, arguments.days, arguments.profile)
    return 0


def _measure_here(home: Path, files: Mapping[date, DroppedFile], days: Sequence[date], profiled: date | None) -> None:
    for before, day in zip([None, *days], days, strict=False):
        if waiting := _between(files, before, day):
            _together(waiting).write_to(home / "landing")
            _run(home)
        files[day].write_to(home / "landing")
        profile = cProfile.Profile() if day == profiled else None
        started, wall = _spent_here(), time.monotonic()
        if profile:
            profile.runcall(_run, home)
        else:
            _run(home)
        print(f"{day}  {_spent_here() - started:.2f} CPU s, {time.monotonic() - wall:.2f} s", flush=True)
        if profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(90)


def _spent_here() -> float:
    """CPU seconds of this process and of what it started and has ended, such as the process that reads files."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in (own, ended))


def _measure_under_ui(home: Path, files: Mapping[date, DroppedFile], days: Sequence[date]) -> None:
    # Orphans become children of this process, so that nothing that was started can leave its tree.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    config = home.with_name("custseg.toml")
    config.write_text(f"{QUICK_SENSORS}present_hours = 0\n", encoding="utf-8")
    _together(_between(files, None, days[0])).write_to(home / "landing")
    live = LiveHome(home, config, [sys.executable, "-m", "custseg_assets.cli"])
    live.start()
    try:
        _wait_until_released(live, days[0] - timedelta(days=1))
        for before, day in zip([None, *days], days, strict=False):
            if before and (waiting := _between(files, before, day)):
                _together(waiting).write_to(home / "landing")
                _wait_until_released(live, day - timedelta(days=1))
            idle = _idle_rate()
            n_runs, before_s, wall = len(live.runs()), _cpu_of_children(), time.monotonic()
            files[day].write_to(home / "landing")
            _wait_until_released(live, day)
            after_s, wall = _cpu_of_children(), time.monotonic() - wall
            spent = sum(after_s.values()) - sum(before_s.values())
            own = sum(after_s.get((pid, "own"), 0) - before_s[pid, "own"] for pid, what in before_s if what == "own")
            jobs = ", ".join(run.job_name for run in live.runs()[n_runs:])
            print(
                f"{day}  {spent - idle * wall:.2f} CPU s, {spent - own:.2f} of them in processes that were started; "
                f"{wall:.0f} s, idle {idle:.3f} CPU s a second; {jobs}",
                flush=True,
            )
    finally:
        live.stop()


def _wait_until_released(live: LiveHome, day: date) -> None:
    """Wait until the release is as of the end of a day, and no run is going on."""
    root = live.home / "releases"

    def is_released() -> bool:
        release_id = releases.current(root)
        if release_id is None or releases.read_manifest(root, release_id).as_of < midnight(day + timedelta(days=1)):
            return False
        return not live.runs(*UNFINISHED) and live.due() is None

    if not live.wait(is_released, _SECONDS_PATIENCE):
        raise SystemExit(f"no release as of {day}:\n{live.log.read_text(encoding='utf-8')[-3000:]}")
    # The processes of runs end a moment after them.
    time.sleep(5)


def _idle_rate() -> float:
    """CPU seconds in a second in which nothing lands."""
    before_s, wall = _cpu_of_children(), time.monotonic()
    time.sleep(_SECONDS_IDLE)
    return (sum(_cpu_of_children().values()) - sum(before_s.values())) / (time.monotonic() - wall)


def _cpu_of_children() -> dict[tuple[int, str], float]:
    """CPU seconds of all processes below this one: their own, and those of their children that have ended."""
    children, ticks = defaultdict(list), {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(stat.parent.name)
        children[int(fields[1])].append(pid)
        ticks[pid] = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:15]]
    found, spent = [*children[os.getpid()]], {}
    while found:
        pid = found.pop()
        spent[pid, "own"], spent[pid, "ended"] = sum(ticks[pid][:2]), sum(ticks[pid][2:])
        found += children[pid]
    return spent


def _run(home: Path) -> None:
    """As ``custseg run`` does it."""
    settings = load_settings(home=home, environment={})
    settings = settings.model_copy(update={"landing": settings.landing.model_copy(update={"settle_seconds": 0})})
    Runner(OpenHome(settings), lambda _: None).run()


def _between(files: Mapping[date, DroppedFile], after: date | None, before: date) -> list[DroppedFile]:
    return [file for day, file in files.items() if (after is None or day > after) and day < before]


def _together(files: Sequence[DroppedFile]) -> DroppedFile:
    return DroppedFile(f"until {files[-1].name}", pl.concat([file.lines for file in files]))


if __name__ == "__main__":
    sys.exit(main())
