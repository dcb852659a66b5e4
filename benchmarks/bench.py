"""``make bench``: what a run costs, as a whole and by step, at several sizes of the log, written to ``RESULTS.md``.

Only the standard library is imported here: the system counts the memory of the process that starts another one towards
the peak of the one it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = "demo"
TIMES = "×"
OTHER_SNAPSHOTS = "features, other snapshots"
FLOOR = "import dagster, mlflow, great_expectations, sklearn.cluster, matplotlib.figure"
COMPILE = """
import compileall, sysconfig
for folder in (sysconfig.get_path("purelib"), "custseg_assets"):
    compileall.compile_dir(folder, quiet=2)
"""
"""`make` compiles what it installs; a run that has to do so pays for it once, and that is no part of any figure."""

_PIPELINE = ("-m", "custseg_assets.cli", "run", "--source")
_WORKLOAD = ("-m", "benchmarks.workloads")
_ONE, _ALL = "**with the last snapshot, CPU s**", "**with all snapshots, CPU s**"
_RATIO, _PEAK = "with all snapshots, over 1×", "peak MiB of the process"
_COMPARED = {
    _ONE: ("≤ 1.5 at 1×", "6.65 after loading; a plain Polars script 0.51"),
    _ALL: ("", "82–87 at 5×, with everything after it"),
    _RATIO: ("≤ 22 at 20×", "6.4 at 5×"),
    _PEAK: ("≤ 6,144 at 20×", "2,048 at 5×; a plain Polars script 358 at 1×"),
}
"""Target and earlier figure of a row."""


@dataclass(frozen=True)
class Measurement:
    """What a process and those it started took.

    Attributes:
        cpu_s: CPU seconds, user and system.
        wall_s: seconds that passed.
        peak_mib: largest resident memory of one process.
        loop_s: what ``calibrate`` took just before.
        output: the last line the process printed.
    """

    cpu_s: float
    wall_s: float
    peak_mib: float
    loop_s: float
    output: str

    @property
    def said(self) -> Any:
        """What a workload returned."""
        return json.loads(self.output)


@dataclass(frozen=True)
class Whole:
    """A whole process that was measured, and what it is compared with.

    Attributes:
        name: what it did.
        measured: what it took.
        target: what it should take.
        before: what the predecessor, or a plain program, takes.
    """

    name: str
    measured: Measurement
    target: str
    before: str


@dataclass(frozen=True)
class Steps:
    """Reading, cleaning and features of one log.

    Attributes:
        name: of the log.
        measured: the process that did them.
        scale: how many times the log it is; nothing for a file as it came.
    """

    name: str
    measured: Measurement
    scale: int | None = None

    @property
    def cpu_s(self) -> Mapping[str, float]:
        """CPU seconds by step."""
        steps: Mapping[str, float] = self.measured.said["cpu_s"]
        return steps

    @property
    def one_snapshot_cpu_s(self) -> float:
        """CPU seconds of all steps but the snapshots before the last."""
        return self.total_cpu_s - self.cpu_s.get(OTHER_SNAPSHOTS, 0.0)

    @property
    def total_cpu_s(self) -> float:
        """CPU seconds of all steps."""
        return sum(self.cpu_s.values())


def calibrate() -> float:
    """CPU seconds of ten million multiplications in plain Python: how fast this machine is, as busy as it is."""
    started = time.process_time()
    for number in range(10_000_000):
        number * number
    return time.process_time() - started


def measure(arguments: Sequence[str], home: Path | None = None) -> Measurement:
    """Run this Python with some arguments and take its measure.

    Args:
        arguments: of the interpreter.
        home: ``CUSTSEG_HOME`` of the process.

    Raises:
        SystemExit: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUSTSEG_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if home:
        environment["CUSTSEG_HOME"] = str(home)
    loop_s = calibrate()
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen([sys.executable, *arguments], cwd=REPOSITORY, env=environment, stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        output = printed.read()
    wall_s = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"bench: exit code {process.returncode} of python {' '.join(arguments)}")
    peak_mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    last_line = output.rstrip().rpartition("\n")[2]
    return Measurement(usage.ru_utime + usage.ru_stime, wall_s, peak_mib, loop_s, last_line)


def measure_wholes(source: str, xlsx: str | None, home: Path) -> list[Whole]:
    """The floor that imports set, and whole runs.

    Args:
        source: path, or ``demo``.
        xlsx: path of the same log as a workbook, or nothing.
        home: a folder to make homes in.
    """
    _say("imports")
    measure(["-c", COMPILE])
    floor = measure(["-c", FLOOR])
    wholes = [Whole("imports alone, the floor of a run", floor, "–", "parts: 0.7 + 1.5 + 2.8 + 1.3 or more")]
    for path, target, before in (
        (source, "≤ 30 CPU s, ≤ 1,536 MiB", "–"),
        (xlsx, "≤ 40 CPU s, ≤ 1,536 MiB", "42.6 CPU s, 821 MiB, without orchestration, checks or tracking"),
    ):
        if path:
            name, folder = _name_of(path), home / f"home-{len(wholes)}"
            _say(f"custseg run, {name}")
            wholes.append(Whole(f"`custseg run`, {name}", measure([*_PIPELINE, path], folder), target, before))
            _say("again")
            again = measure([*_PIPELINE, path], folder)
            wholes.append(Whole("the same command again", again, "≤ 15 CPU s", "–"))
    return wholes


def measure_steps(source: str, xlsx: str | None, scales: Sequence[int], folder: Path) -> list[Steps]:
    """Reading, cleaning and features, of the files as they are and of the log at each scale.

    Args:
        source: path, or ``demo``.
        xlsx: path of the same log as a workbook, or nothing.
        scales: how many times the log.
        folder: for the logs and what is made of them.
    """
    taken_in = measure([*_WORKLOAD, "take_in", source, str(folder)]).said

    def measured(name: str, path: Path, scale: int | None = None) -> Steps:
        _say(f"steps, {name}")
        with tempfile.TemporaryDirectory(dir=folder) as own:
            arguments = [*_WORKLOAD, "steps", str(path), taken_in["preset"], own]
            return Steps(name, measure(arguments), scale)

    steps = [measured(_name_of(path), Path(path)) for path in (source, xlsx) if path and path != DEMO]
    for scale in scales:
        log = folder / f"{scale}x.csv"
        if not log.exists():
            _say(f"writing the log {scale}{TIMES}")
            measure([*_WORKLOAD, "multiply", str(folder), str(scale)])
        steps.append(measured(f"{scale}{TIMES}", log, scale))
    return steps


def render(source: str, wholes: Sequence[Whole], steps: Sequence[Steps], history: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown.

    Args:
        source: what was measured.
        wholes: whole processes, or none.
        steps: reading, cleaning and features of each log.
        history: what Dagster recorded of the first whole run, or nothing.
    """
    every = [whole.measured for whole in wholes] + [one.measured for one in steps]
    loops_s = [measured.loop_s for measured in every]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    parts = [
        "# What a run costs",
        "",
        f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}; [README.md](README.md) says how to read it.",
        "",
        f"- Machine: {machine}",
        f"- Calibration loop: {min(loops_s):.2f} to {max(loops_s):.2f} CPU s while this ran",
        f"- Log: {_name_of(source)}; targets and figures from before are for Online Retail, 541,909 lines",
    ]
    if wholes:
        parts += ["", "## Whole processes", "", *_wholes_table(wholes)]
    parts += ["", "## Reading, cleaning and features", "", *_steps_table(steps)]
    if history:
        parts += ["", "## Steps of the first run, as Dagster recorded them", "", *_history_table(history)]
    return "\n".join([*parts, ""])


def _wholes_table(wholes: Sequence[Whole]) -> list[str]:
    rows = [
        (
            whole.name,
            f"{whole.measured.cpu_s:.1f}",
            f"{whole.measured.wall_s:.1f}",
            f"{whole.measured.peak_mib:,.0f}",
            f"{whole.measured.loop_s:.2f}",
            whole.target,
            whole.before,
        )
        for whole in wholes
    ]
    return _table(("", "CPU s", "wall s", "peak MiB", "loop s", "target", "before"), rows)


def _steps_table(steps: Sequence[Steps]) -> list[str]:
    names = dict.fromkeys(name for one in steps for name in one.cpu_s)
    ratio = cpu_ratio(steps)
    columns = [
        {
            "lines": f"{one.measured.said['n_rows']:,}",
            "customers, last snapshot": f"{one.measured.said['n_customers']:,}",
            "batches of periods": str(one.measured.said["n_batches"]),
            **{f"{name}, CPU s": f"{one.cpu_s.get(name, 0):.2f}" for name in names},
            _ONE: f"{one.one_snapshot_cpu_s:.2f}",
            _ALL: f"{one.total_cpu_s:.2f}",
            _RATIO: f"{ratio[one.name]:.1f}" if one.name in ratio else "",
            _PEAK: f"{one.measured.peak_mib:,.0f}",
            "calibration loop, CPU s": f"{one.measured.loop_s:.2f}",
        }
        for one in steps
    ]
    rows = [(name, *(column[name] for column in columns), *_COMPARED.get(name, ("", ""))) for name in columns[0]]
    return _table(("", *(one.name for one in steps), "target", "before"), rows)


def cpu_ratio(steps: Sequence[Steps]) -> dict[str, float]:
    """CPU seconds of each scale over those of the log itself."""
    costs = {one.scale: one.total_cpu_s for one in steps if one.scale}
    return {f"{scale}{TIMES}": cost / costs[1] for scale, cost in costs.items()} if 1 in costs else {}


def _history_table(history: Sequence[Mapping[str, Any]]) -> list[str]:
    return _table(("job", "step", "wall s"), [(one["job"], one["step"], f"{one['wall_s']:.1f}") for one in history])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _name_of(source: str) -> str:
    return source if source == DEMO else Path(source).name


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _scales(text: str) -> list[int]:
    """The numbers of a list; ``argparse`` makes a message of the error."""
    scales = [int(part) for part in text.split(",")]
    if min(scales) < 1:
        raise ValueError(text)
    return scales


BY_HAND = "## A day after start-up"
"""Where results of other benchmarks begin."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write the results.

    Args:
        argv: arguments, the process' own by default.
    """
    parser = argparse.ArgumentParser(description=main.__doc__.splitlines()[0] if main.__doc__ else None)
    parser.add_argument("--source", default=DEMO, help="a path, or the demo")
    parser.add_argument("--xlsx", help="the same log as a workbook, to measure that too")
    parser.add_argument("--scales", type=_scales, default=[1, 5, 20], help="how many times the log, such as 1,5,20")
    parser.add_argument("--quick", action="store_true", help="only the steps, only at 1×")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    arguments = parser.parse_args(argv)
    source = DEMO if arguments.source in {"", DEMO} else str(Path(arguments.source).absolute())
    xlsx = arguments.xlsx and str(Path(arguments.xlsx).absolute())
    with tempfile.TemporaryDirectory(prefix="custseg-bench-") as folder:
        wholes = [] if arguments.quick else measure_wholes(source, xlsx, Path(folder))
        history = measure([*_WORKLOAD, "history", str(Path(folder) / "home-1")]).said if wholes else []
        steps = measure_steps(source, xlsx, [1] if arguments.quick else arguments.scales, Path(folder))
    arguments.out.write_text(render(source, wholes, steps, history) + _by_hand(arguments.out), encoding="utf-8")
    _say(f"{arguments.out}")
    return 0


def _by_hand(out: Path) -> str:
    """What other benchmarks measured, which stands below this one's results and stays."""
    before = out.read_text(encoding="utf-8") if out.exists() else ""
    return "\n" + before[before.index(BY_HAND) :] if BY_HAND in before else ""


if __name__ == "__main__":
    sys.exit(main())
