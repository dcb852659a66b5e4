"""Training outside Dagster gives what the assets give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from custseg_assets.domain.segments.model import model_from_json
from custseg_assets.settings import ModelSettings
from custseg_assets.training.exchange import FEATURES, SETTINGS
from custseg_assets.training.steps import train_snapshot
from tests.support.trainings import KEY, features_of


def trainer(folder: Path, features: pl.DataFrame) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run the trainer on a folder that has been filled; where it left its files, and how it ended."""
    given, out = folder / "in", folder / "out"
    given.mkdir()
    features.write_parquet(given / FEATURES)
    (given / SETTINGS).write_text(ModelSettings().model_dump_json(), encoding="utf-8")
    return out, run(given, out)


def run(given: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "custseg_assets.trainer", "--in", str(given), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_snapshot_gives_a_model_in_a_process_of_its_own(tmp_path: Path) -> None:
    features = features_of(600)
    out, ended = trainer(tmp_path, features)
    assert ended.returncode == 0, ended.stderr
    model = model_from_json((out / "model.json").read_text(encoding="utf-8"))
    candidates = pl.read_parquet(out / "candidates.parquet")
    assert model.k == candidates.filter("is_chosen")["k"].item()
    assert model == train_snapshot(features, candidates, KEY, ModelSettings())
    assert model.model_version in ended.stderr


def test_without_an_eligible_k_there_is_no_model_and_it_says_why(tmp_path: Path) -> None:
    out, ended = trainer(tmp_path, features_of(40))
    assert ended.returncode == 3
    assert "no k is eligible" in ended.stderr
    assert not (out / "model.json").exists()
    reasons = pl.read_parquet(out / "candidates.parquet")["choice"]
    assert "too few" in json.loads(reasons[0])[1]


def test_a_folder_without_features_is_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, tmp_path / "out")
    assert ended.returncode == 2
    assert "expected a folder with features.parquet, settings.json" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_features_of_two_snapshots_are_refused(tmp_path: Path) -> None:
    both = pl.concat([features_of(60), features_of(60).with_columns(period=pl.lit("2011-06-01"))])
    _, ended = trainer(tmp_path, both)
    assert ended.returncode == 2
    assert "expected customer_features of one snapshot" in ended.stderr
