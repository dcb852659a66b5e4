"""Training outside Dagster gives what the assets give."""

import json
import subprocess
import sys

import numpy as np
import polars as pl

from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.domain.segments.model import model_from_json
from custseg_assets.settings import ModelSettings
from custseg_assets.training.exchange import FEATURES, SETTINGS
from custseg_assets.training.steps import train_snapshot

KEY = "2011-05-01"


def features_of(n_customers: int) -> pl.DataFrame:
    """Three well separated kinds of customers."""
    rng = np.random.default_rng(7)
    kind = np.arange(n_customers) % 3
    values = {
        "period": pl.Series([KEY] * n_customers),
        "customer_id": pl.Series([f"c{n:04}" for n in range(n_customers)]),
        "recency_days": pl.Series(np.array([5, 60, 150])[kind] + rng.integers(0, 5, n_customers)),
        "frequency_orders": pl.Series(np.array([20, 5, 1])[kind] + rng.integers(0, 2, n_customers)),
        "monetary_net": pl.Series(np.array([5000.0, 600.0, 40.0])[kind] * rng.uniform(0.9, 1.1, n_customers)),
    }
    frame = pl.DataFrame({name: values.get(name) for name in CUSTOMER_FEATURES.schema if name in values})
    missing = [name for name in CUSTOMER_FEATURES.schema if name not in values]
    return (
        frame.with_columns(pl.lit(None).alias(name) for name in missing)
        .select(CUSTOMER_FEATURES.schema.names())
        .cast(CUSTOMER_FEATURES.schema)
    )


def trainer(folder, features, settings=None):
    """Run the trainer on a folder that has been filled; where it left its files, and how it ended."""
    given, out = folder / "in", folder / "out"
    given.mkdir()
    features.write_parquet(given / FEATURES)
    (given / SETTINGS).write_text((settings or ModelSettings()).model_dump_json(), encoding="utf-8")
    return out, run(given, out)


def run(given, out):
    command = [sys.executable, "-m", "custseg_assets.trainer", "--in", str(given), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_snapshot_gives_a_model_in_a_process_of_its_own(tmp_path):
    features = features_of(600)
    out, ended = trainer(tmp_path, features)
    assert ended.returncode == 0, ended.stderr
    model = model_from_json((out / "model.json").read_text(encoding="utf-8"))
    candidates = pl.read_parquet(out / "candidates.parquet")
    assert model.k == candidates.filter("is_chosen")["k"].item()
    assert model == train_snapshot(features, candidates, KEY, ModelSettings())
    assert model.model_version in ended.stderr


def test_without_an_eligible_k_there_is_no_model_and_it_says_why(tmp_path):
    out, ended = trainer(tmp_path, features_of(40))
    assert ended.returncode == 3
    assert "no k is eligible" in ended.stderr
    assert not (out / "model.json").exists()
    reasons = pl.read_parquet(out / "candidates.parquet")["choice"]
    assert "too few" in json.loads(reasons[0])[1]


def test_a_folder_without_features_is_refused(tmp_path):
    ended = run(tmp_path, tmp_path / "out")
    assert ended.returncode == 2
    assert "expected a folder with features.parquet, settings.json" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_features_of_two_snapshots_are_refused(tmp_path):
    both = pl.concat([features_of(60), features_of(60).with_columns(period=pl.lit("2011-06-01"))])
    _, ended = trainer(tmp_path, both)
    assert ended.returncode == 2
    assert "expected customer_features of one snapshot" in ended.stderr
