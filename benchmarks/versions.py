"""Replay a log in which customers change twice, promote three models, lose the home, and get everything back by DVC.

usage: python -m benchmarks.versions --source LOG.csv.gz --dvc .venv-dvc/bin/dvc

Prices double, later a third of the customers stop ordering. Sensors do what they do by themselves; where they promote
no model after a change, a person trains and promotes one. Then each model is exported to a repository with a remote on
this disk, everything that was replaced is cleaned up, the home is removed, the repository cloned, and a home made of
each model.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from custseg_assets.commands.decide import Decider, promote
from custseg_assets.commands.replay import Replay
from custseg_assets.commands.run import Runner
from custseg_assets.domain.schemas import PROMOTION_DECISION
from custseg_assets.home.kept_models import clean_up, disk_use, kept_models
from custseg_assets.home.model_exports import write_export
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from tests.support.model_repositories import NAMES, bytes_of, call, git, isolated, make_repository

CHANGES = ("2011-07-01", "2011-10-01")
"""When prices double, and when a third of the customers stop ordering."""
TRAINED = ("2011-08-01", "2011-10-01")
"""Snapshots by which there is another model: a person promotes one where the sensors have not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print what each step took; 0 where everything came back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, metavar="LOG.csv.gz", help="Online Retail")
    parser.add_argument("--dvc", type=Path, required=True, help="the command")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        os.environ.update(isolated(Path(folder)))
        for name in NAMES:
            os.environ.pop(name, None)
        return _measure(arguments.source, arguments.dvc.absolute(), Path(folder))


def _measure(source: Path, dvc: Path, folder: Path) -> int:
    home = folder / "home"
    with _timed("replay"):
        _replay(_with_changes(source, folder / "log.csv"), folder / "source", home)
    opened = OpenHome(load_settings(home=home, environment={}))
    models = [version for _, version in opened.champions.promotions]
    decisions = opened.tables.read(PROMOTION_DECISION).filter(decision="PROMOTE")
    for model, who in decisions["model_version", "decided_by"].rows():
        print(f"promoted: {model} by {who}")
    before = {one: _digests(home, one, folder / "before" / one) for one in models}
    repository, remote = make_repository(folder / "place" / "models"), folder / "place" / "remote"
    os.environ["PATH"] = f"{dvc.parent}:{os.environ['PATH']}"
    for one in models:
        with _timed(f"export {one}"):
            _custseg(home, "dvc", "export", one, "--repo", repository)
        print(f"  remote {_size(remote)}")
    print(next(line for line in _custseg(home, "status").splitlines() if line.startswith("disk")))
    with opened.locked() as locked:
        freed = clean_up(locked, retention_hours=0)
    use = disk_use(opened)
    print(f"clean-up freed {freed / 1e6:.1f} MB; of models {use.of_models / 1e6:.1f} MB, of {use.total / 1e6:.1f} MB")
    sent = bytes_of(remote)
    for one in models:
        with _timed(f"second export {one}"):
            _custseg(home, "dvc", "export", one, "--repo", repository)
    print(f"  remote {_size(remote)}; {'nothing' if bytes_of(remote) == sent else 'SOMETHING'} was added")
    shutil.rmtree(home)
    clone = folder / "place" / "clone"
    git(folder, "clone", "-q", str(repository), str(clone))
    with _timed("dvc pull"):
        call(dvc, clone, "pull", "-q")
    is_equal = bytes_of(remote) == sent
    for one in models:
        restored = folder / f"restored {one}"
        with _timed(f"restore {one}"):
            _custseg(restored, "dvc", "restore", one, "--repo", clone)
        is_same = _digests(restored, one, folder / "after" / one) == before[one]
        print(f"  {len(before[one])} files {'as they were' if is_same else 'DIFFER'}")
        with _timed(f"verify {one}"):
            said = _custseg(restored, "dvc", "verify", one, "--repo", clone, "--refit")
        print(f"  {said.splitlines()[-1]}")
        is_equal = is_equal and is_same and "!" not in said
    print(call(dvc, clone, "status").strip())
    return int(not (is_equal and len(models) == 1 + len(TRAINED)))


def _with_changes(source: Path, path: Path) -> Path:
    """The log with two changes."""
    at = pl.col("InvoiceDate").str.slice(0, 10)
    stops = pl.col("CustomerID").str.strip_suffix(".0").cast(pl.Int64, strict=False) % 3 == 0
    price = pl.col("UnitPrice").cast(pl.Float64)
    lines = pl.read_csv(source, infer_schema=False).filter(~((at >= CHANGES[1]) & stops.fill_null(value=False)))
    lines.with_columns(UnitPrice=pl.when(at >= CHANGES[0]).then(price * 2).otherwise(price)).write_csv(path)
    return path


def _replay(log: Path, source: Path, home: Path) -> None:
    """Play the log's months through the sensors, and have a person promote a model where they have not."""
    _custseg(source, "run", "--source", log)
    filled = OpenHome(load_settings(home=source, environment={}))
    replay = Replay(filled, home, is_kept=True)
    closed = filled.calendar.closed_keys
    for outcome in replay.play(closed[0], closed[-1]):
        by_sensors = len(replay.home.champions.promotions)
        wanted = 1 + sum(outcome.snapshot >= key for key in TRAINED)
        if by_sensors < wanted:
            runner = Runner(replay.home, lambda _: None)
            runner.retrain()
            if len(replay.home.champions.promotions) == by_sensors:
                waiting = kept_models(replay.home)
                (version,) = [one for one, model in waiting.items() if model.facts.trained_on == outcome.snapshot]
                promote(runner, version, Decider("benchmark", "customers have changed"))
        print(f"  {outcome.snapshot} {outcome.verdict}: {replay.home.champions.promotions[-1][1]}", flush=True)


def _digests(home: Path, model: str, folder: Path) -> dict[str, str]:
    """File → digest, of an export that is written anew."""
    opened = OpenHome(load_settings(home=home, environment={}))
    manifest = write_export(opened, kept_models(opened)[model], folder)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest.files}


def _custseg(home: Path, *arguments: object) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "custseg_assets.cli", *map(str, arguments)],
        env={**os.environ, "CUSTSEG_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return ended.stdout


def _size(remote: Path) -> str:
    sizes = bytes_of(remote)
    return f"{sum(sizes.values()) / 1e6:.2f} MB in {len(sizes)} files"


@contextmanager
def _timed(what: str) -> Iterator[None]:
    before, started = os.times(), time.monotonic()
    yield
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(f"{what}: {cpu:.1f} CPU s, {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
