"""What a whole run costs in this checkout and in another one, in turns, and whether both make the same tables.

usage: python -m benchmarks.floor --log online_retail.csv.gz --before ../before [--rounds 5]

Each round runs ``custseg run`` into a fresh home with the code of either checkout, in changing order. The cost is the
user and system CPU time of the process and of all that it started. The verdict is the median of the rounds' ratios, for
a busy machine slows both runs of a round alike. Linux only.
"""

from __future__ import annotations

import argparse
import compileall
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from custseg_assets.stores.releases import MANIFEST, MODEL_CARD, current

HERE = Path(__file__).resolve().parents[1]
BEFORE, NOW = "before", "now"
_PR_SET_CHILD_SUBREAPER = 36
_SECONDS_PATIENCE = 30.0
_TELLS_THE_CODE = "Code: "
"""How the line of a model card begins that names the revision of the code."""


@dataclass(frozen=True)
class Run:
    """What a run took.

    Attributes:
        cpu_s: CPU seconds, user and system, of its process and of all that it started.
        wall_s: seconds that passed.
        peak_mib: largest resident memory of one of these processes.
    """

    cpu_s: float
    wall_s: float
    peak_mib: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and compare; 1 where the two did not make the same tables."""
    parser = argparse.ArgumentParser(description="Measure whole runs of two checkouts in turns, and compare tables.")
    parser.add_argument("--log", type=Path, required=True, help="what is run")
    parser.add_argument("--before", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    # Orphans become children of this process, so that nothing that was started can leave its tree.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    checkouts = {BEFORE: arguments.before.resolve(), NOW: HERE}
    with tempfile.TemporaryDirectory(prefix="floor-") as folder:
        for checkout in checkouts.values():
            compileall.compile_dir(checkout / "custseg_assets", quiet=2)
        rounds = []
        for number in range(arguments.rounds):
            order = [BEFORE, NOW] if number % 2 == 0 else [NOW, BEFORE]
            fresh = {name: Path(folder) / f"{name}-{number}" for name in order}
            rounds.append({name: measure_run(checkouts[name], arguments.log.resolve(), fresh[name]) for name in order})
            print(f"round {number + 1}: {_in_words(rounds[-1])}", flush=True)
        print(_verdict(rounds), flush=True)
        differences = compare_homes(Path(folder) / f"{BEFORE}-0", Path(folder) / f"{NOW}-0")
    print(*(f"FAIL {one}" for one in differences), sep="\n")
    return int(bool(differences))


def measure_run(checkout: Path, log: Path, home: Path) -> Run:
    """Run a log into a fresh home with the code of a checkout.

    Raises:
        SystemExit: it failed, or left a process that does not end.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUSTSEG_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {"CUSTSEG_HOME": str(home), "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "custseg_assets.cli", "run", "--source", str(log)]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=printed, stderr=printed)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - started
        if process.returncode:
            printed.seek(0)
            raise SystemExit(f"floor: exit code {process.returncode} in {checkout}:\n{printed.read()[-3000:]}")
    used = [usage, *_usage_of_orphans()]
    cpu_s = sum(one.ru_utime + one.ru_stime for one in used)
    return Run(cpu_s, wall_s, max(one.ru_maxrss for one in used) / 1024)


def _usage_of_orphans() -> list[os.struct_rusage]:  # type: ignore[name-defined]
    """What processes took that a run left behind, once they have ended."""
    used, give_up = [], time.monotonic() + _SECONDS_PATIENCE
    while time.monotonic() < give_up:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return used
        if pid:
            used.append(usage)
        else:
            time.sleep(0.05)
    raise SystemExit("floor: a run left a process that does not end")


def _in_words(one: Mapping[str, Run]) -> str:
    each = (f"{name} {one[name].cpu_s:.2f} CPU s, {one[name].peak_mib:,.0f} MiB" for name in (BEFORE, NOW))
    return f"{'; '.join(each)}; ratio {one[NOW].cpu_s / one[BEFORE].cpu_s:.3f}"


def _verdict(rounds: Sequence[Mapping[str, Run]]) -> str:
    """The medians over all rounds, of the costs and of the ratios."""
    ratios = [one[NOW].cpu_s / one[BEFORE].cpu_s for one in rounds]
    costs = (f"{name} {statistics.median(one[name].cpu_s for one in rounds):.2f} CPU s" for name in (BEFORE, NOW))
    return f"median {'; '.join(costs)}; ratio {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}"


def compare_homes(before: Path, now: Path) -> list[str]:
    """What two homes do not have alike: tables, partitions, rows with all their values, fingerprints, the release."""
    names = {home: {path.name for path in (home / "tables").iterdir()} for home in (before, now)}
    found = [f"table {name} is not in both" for name in sorted(names[before] ^ names[now])]
    for name in sorted(names[before] & names[now]):
        found += _compare_tables(name, before / "tables" / name, now / "tables" / name)
    released = [_files_of_release(home) for home in (before, now)]
    files = sorted({file for one in released for file in one if released[0].get(file) != released[1].get(file)})
    return found + [f"file {file} of the release differs" for file in files]


def _compare_tables(name: str, before: Path, now: Path) -> list[str]:
    left, right = _partitions(before), _partitions(now)
    found = [f"table {name}: partition {key} is not in both" for key in sorted(left.keys() ^ right.keys())]
    for key in sorted(left.keys() & right.keys()):
        (rows, made_from), (other_rows, other_made_from) = left[key], right[key]
        if rows.schema != other_rows.schema or not rows.equals(other_rows):
            found.append(f"table {name}: rows of {key} differ")
        if made_from != other_made_from:
            found.append(f"table {name}: fingerprint of {key} differs")
    return found


def _partitions(folder: Path) -> dict[str, tuple[pl.DataFrame, int | None]]:
    """The rows of each partition, in one order, and its fingerprint; without what names the revision of the code."""
    rows, table = pl.read_delta(str(folder)), DeltaTable(str(folder))
    if "model_card" in rows.columns:
        rows = rows.with_columns(pl.col("model_card").str.replace(f"(?m)^{_TELLS_THE_CODE}.*$", _TELLS_THE_CODE))
    parts = {str(key): part for (key,), part in rows.partition_by("period", as_dict=True).items()}
    return {key: (part.sort(part.columns), table.transaction_version(key)) for key, part in parts.items()}


def _files_of_release(home: Path) -> dict[str, bytes]:
    """The files of the release in force, by name, without those that name the revision of the code or its time."""
    if (release_id := current(home / "releases")) is None:
        return {}
    files = (home / "releases" / release_id).iterdir()
    return {file.name: file.read_bytes() for file in files if file.name not in (MANIFEST, MODEL_CARD)}


if __name__ == "__main__":
    sys.exit(main())
