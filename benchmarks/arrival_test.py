"""Drop a log into a landing folder, file by file and out of order, and see that the home ends as with the whole log.

usage: python -m benchmarks.arrival_test --log online_retail.csv.gz --command .venv/bin/custseg [--kills 20] [--daemon]

The log is cut into daily files. They come in shuffled order and in batches, ten of them twice, some of those under
another name, and five with wrong lines first. After every batch ``custseg run`` makes what is out of date; runs are
killed at moments spread over the arrival, and the next run goes on. The truth is one run on the whole log.

With ``--daemon`` nobody runs anything: ``custseg ui`` is there all the time and its sensors do the work. It is killed
and started again, in turn the daemon alone and everything with it, pages, code servers and runs.
"""

from __future__ import annotations

import argparse
import random
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from custseg_assets.defs.abandoned import ABANDONED_TAG
from tests.support.comparison import differing_partitions
from tests.support.daily_files import DroppedFile, shuffle_in_batches
from tests.support.killed_runs import environment_of, kill_run
from tests.support.live import QUICK_SENSORS, UNFINISHED, LiveHome

_SECONDS_FOR_A_BATCH = 1200.0
_BEING_RUN = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole test; 0 where the home ended as with the whole log."""
    arguments = _arguments(argv)
    command = [*shlex.split(arguments.command), "run"]
    with tempfile.TemporaryDirectory(prefix="arrival-test-") as folder:
        truth, home = Path(folder) / "whole", Path(folder) / "landed"
        started = time.monotonic()
        _run([*command, "--source", str(arguments.log.absolute())], truth)
        duration = time.monotonic() - started
        print(f"a whole run takes {duration:.1f} s", flush=True)
        arriving = shuffle_in_batches(pl.read_csv(arguments.log, infer_schema=False), arguments.batches, arguments.seed)
        kills = [
            (number + 1) * arguments.kills // len(arriving) - number * arguments.kills // len(arriving)
            for number in range(len(arriving))
        ]
        if arguments.daemon:
            _arrive_at_daemon(arriving, kills, home, arguments)
        else:
            _arrive_between_runs(arriving, kills, home, command, duration, arguments.seed)
        every = sorted(path.name for path in (truth / "tables").iterdir())
        found = differing_partitions(home, truth, every)
        print(*(f"FAIL {one}" for one in found), sep="\n")
        print(f"{len(found)} differences in {len(every)} tables; {_cpu_seconds():.0f} CPU s")
    return int(bool(found))


def _arrive_between_runs(
    arriving: Sequence[Sequence[DroppedFile]],
    kills: Sequence[int],
    home: Path,
    command: Sequence[str],
    duration: float,
    seed: int,
) -> None:
    """After every batch a run that is killed, as often as asked for, and one that is not."""
    rng = random.Random(seed)
    for number, (batch, n_kills) in enumerate(zip(arriving, kills, strict=True), 1):
        for file in batch:
            file.write_to(home / "landing")
        for _ in range(n_kills):
            seconds = rng.uniform(0.5, duration)
            said = kill_run(command, home, seconds)
            print(f"  batch {number}: killed after {seconds:.1f} s: {said}")
        started = time.monotonic()
        _run(command, home)
        print(f"batch {number}: {len(batch)} files, taken in and made in {time.monotonic() - started:.1f} s")


def _arrive_at_daemon(
    arriving: Sequence[Sequence[DroppedFile]], kills: Sequence[int], home: Path, arguments: argparse.Namespace
) -> None:
    """``custseg ui`` is killed in the middle of the work on a batch; the next one finishes it."""
    rng, is_alone = random.Random(arguments.seed), True
    config = home.with_name("custseg.toml")
    config.write_text(QUICK_SENSORS, encoding="utf-8")
    live = LiveHome(home, config, shlex.split(arguments.command))
    try:
        for number, (batch, n_kills) in enumerate(zip(arriving, kills, strict=True), 1):
            for file in batch:
                file.write_to(home / "landing")
            started = time.monotonic()
            for _ in range(n_kills):
                if not live.is_running():
                    live.start()
                print(f"  batch {number}: {_kill(live, rng, is_alone=is_alone)}", flush=True)
                is_alone = not is_alone
            if not live.is_running():
                live.start()
            if not live.wait(lambda: live.due() is None, _SECONDS_FOR_A_BATCH):
                raise SystemExit(f"batch {number}: still {live.due()} after {_SECONDS_FOR_A_BATCH:.0f} s")
            print(f"batch {number}: {len(batch)} files, made after {time.monotonic() - started:.0f} s", flush=True)
        ended = Counter((run.status.value, ABANDONED_TAG in run.tags) for run in live.runs())
        for (status, is_abandoned), n_runs in sorted(ended.items()):
            print(f"{n_runs} runs {status}{', their process killed' if is_abandoned else ''}")
    finally:
        live.stop()


def _kill(live: LiveHome, rng: random.Random, *, is_alone: bool) -> str:
    """Kill a moment after some run has been started; a quarter of the times, whatever is going on."""
    begun, has_to_run = time.monotonic(), rng.random() < 3 / 4
    live.wait(live.answers, _SECONDS_FOR_A_BATCH)
    live.wait(lambda: not has_to_run or bool(live.runs(*_BEING_RUN)) or live.due() is None, _SECONDS_FOR_A_BATCH)
    time.sleep(rng.uniform(0, 8))
    going_on = [f"{run.job_name} {run.status.value}" for run in live.runs(*UNFINISHED)]
    was_alone = is_alone and live.kill_daemon()
    if not was_alone:
        live.kill()
    what = "the daemon" if was_alone else "everything"
    return f"killed {what} after {time.monotonic() - begun:.0f} s: {', '.join(going_on) or 'between runs'}"


def _run(command: Sequence[str], home: Path) -> None:
    subprocess.run(command, env=environment_of(home), check=True, capture_output=True)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Drop a log into a landing folder file by file, and compare.")
    parser.add_argument("--log", type=Path, required=True, help="Online Retail as csv or csv.gz")
    parser.add_argument("--command", required=True, help="the custseg command")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=20111209)
    parser.add_argument("--daemon", action="store_true", help="let custseg ui do the work, and kill that")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
