"""Shops whose customers lie far from each other, or not apart at all: whole runs end well, or say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.home.failure import last_failure
from custseg_assets.stores.home import Home
from tests.support.shops import QUICK, Outcome, custseg, shop_log, write_log

Order = tuple[str, datetime, float]
COLUMNS = """
[source.columns]
customer_id = "customer"
invoiced_at = "at"
line_amount = "amount"
"""


def once_each(n: int, start: datetime, n_days: int, price: float = 199.0) -> list[Order]:
    """Customers who buy once, at any time of some days, at the same price."""
    minutes = np.random.default_rng(n).integers(n_days * 1440, size=n)
    return [(f"c{i}", start + timedelta(minutes=int(at)), price) for i, at in enumerate(minutes)]


def season(start: datetime, n_days: int, n_customers: int = 120) -> list[Order]:
    """Customers who buy one to five times in a season, of amounts that differ."""
    rng = np.random.default_rng(start.toordinal())
    return [
        (
            f"c{i}",
            start + timedelta(minutes=int(rng.integers(n_days * 1440))),
            round(float(rng.gamma(2, 10 + 30 * (i % 3))), 2),
        )
        for i in range(n_customers)
        for _ in range(1 + i % 5)
    ]


def run(folder: Path, orders: Iterable[Order], config: str = QUICK) -> tuple[Outcome, dict[str, Any]]:
    """A run that ends well, and the status after it."""
    source = folder / "orders.csv"
    pl.DataFrame(list(orders), schema=["customer", "at", "amount"], orient="row").sort("at").write_csv(
        source, datetime_format="%Y-%m-%d %H:%M:%S"
    )
    outcome = custseg(folder / "home", "run", "--source", source, config=config + COLUMNS)
    assert outcome.status == 0, outcome.err
    status: dict[str, Any] = json.loads(custseg(folder / "home", "status", "--json", config=config + COLUMNS).out)
    assert (status["stale"], status["last_failure"]) == ({}, None)
    return outcome, status


def test_courses_that_everybody_buys_once_give_segments_by_recency_alone(tmp_path: Path) -> None:
    _, status = run(tmp_path, once_each(800, datetime(2023, 7, 1), 121))
    assert status["champion"] is not None, status["no_model_because"]
    clustered = [one for one in status["segments"] if one["segment_id"].startswith("S")]
    assert len(clustered) >= 3
    assert sum(one["n_customers"] for one in status["segments"]) == 800


def test_one_customer_who_buys_again_and_again_takes_nobody_s_segment_away(tmp_path: Path) -> None:
    """Among those who buy once it is a cluster of its own for every k; left out of the fit, all have a segment."""
    heavy = [("heavy", datetime(2023, 7, 1) + timedelta(days=2 * i), 199.0) for i in range(60)]
    outcome, status = run(tmp_path, once_each(800, datetime(2023, 7, 1), 121) + heavy, QUICK.replace("= 2", "= 3", 1))
    assert "no k is eligible; again without 1 extreme of" in outcome.err
    assert status["champion"] is not None, status["no_model_because"]
    out = tmp_path / "segments.csv"
    assert custseg(tmp_path / "home", "export", "segment_assignments", "--all", "--out", out, config=QUICK).status == 0
    of_heavy = pl.read_csv(out).filter(pl.col("customer_id") == "heavy")
    assert not of_heavy["is_rule_segment"].any()
    assert of_heavy.height == pl.read_csv(out)["period"].n_unique()


def test_a_launch_with_all_sales_in_three_days_gives_segments(tmp_path: Path) -> None:
    _, status = run(tmp_path, once_each(400, datetime(2024, 3, 1), 3, 49.0))
    assert status["champion"] is not None, status["no_model_because"]
    assert (status["as_of"], status["last_snapshot"]) == ("2024-03-04", "2024-03-01")


def test_a_shop_that_sells_in_a_season_and_is_shut_for_months_ends_well(tmp_path: Path) -> None:
    """The model is of the end of a season, and everybody of the next lies tens of standard deviations away."""
    seasons = [order for year in (2022, 2023) for order in season(datetime(year, 11, 1), 50)]
    outcome, status = run(tmp_path, seasons)
    assert "check scaled_features.on_reference_scale" not in outcome.err
    assert sum(one["n_customers"] for one in status["segments"]) == 120


@pytest.mark.parametrize(
    ("case", "toml"),
    [("14-one-time-buyers", "default"), ("16-seasonal-shop", "custseg"), ("28-barcode-in-quantity", "custseg")],
)
def test_examples_of_extremes_end_with_the_right_values(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, toml: str
) -> None:
    folder = shared / "field" / case
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    monkeypatch.chdir(folder)
    outcome = custseg(tmp_path / "home", "run", config=folder / f"{toml}.toml")
    assert outcome.status == 0, outcome.err
    out = tmp_path / "clean.parquet"
    assert custseg(tmp_path / "home", "export", "clean_transactions", "--out", out).status == 0
    lines = pl.read_parquet(out)
    assert (lines["customer_id"].n_unique(), round(lines["line_amount"].sum(), 2)) == {
        "14-one-time-buyers": (3601, 264209.45),
        "16-seasonal-shop": (322, 143920.7),
        "28-barcode-in-quantity": (272, 211201.0),
    }[case]


@pytest.mark.parametrize(("name", "day"), [("typo", "2033-01-15"), ("epoch", "1970-01-01")])
def test_examples_of_a_stray_date_are_refused_with_its_row(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, day: str
) -> None:
    folder = shared / "field" / "11-one-stray-date"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    monkeypatch.chdir(folder)
    outcome = custseg(tmp_path / "home", "run", config=folder / f"{name}.toml")
    assert outcome.status == 2
    assert f"has 1 line of {day}" in outcome.err
    assert f"row 2,204 of {name}.csv" in outcome.err
    assert "keep_stray_days = true" in outcome.err


def test_the_status_says_why_a_run_failed_until_one_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from custseg_assets.defs.assets import features
    from custseg_assets.domain.segments.model import ScalingReference

    source, home = write_log(shop_log(3), tmp_path / "log.csv"), tmp_path / "home"
    scale = features.scale_snapshot

    def with_no_reference(frame: pl.DataFrame, names: tuple[str, ...], reference: ScalingReference | None) -> Any:
        """The fault that the check is for: values on no scale at all."""
        unit = ScalingReference(names, (0.0,) * len(names), (1.0,) * len(names), 1)
        return scale(frame, names, reference and unit)

    with monkeypatch.context() as patch:
        patch.setattr(features, "scale_snapshot", with_no_reference)
        assert custseg(home, "run", "--source", source, config=QUICK).status == 1
    failure = json.loads(custseg(home, "status", "--json", config=QUICK).out)["last_failure"]
    assert (failure["command"], failure["check"], failure["step"]) == (
        "run",
        "scaled_features.on_reference_scale",
        None,
    )
    assert "on_reference_scale failed: not so in 128 of 128 rows" in failure["reason"]
    assert "for example period 2024-03-01, customer_id A000" in failure["reason"]
    said = custseg(home, "status", config=QUICK).out.splitlines()
    assert said[0] == f"failed      'custseg run' of {failure['at']}: {failure['reason']}"
    assert said[1] == f"  to do     {failure['todo']}"
    # A refusal changes nothing, and a run that ends well ends it.
    assert custseg(home, "run", "--source", tmp_path / "nothing.csv", config=QUICK).status == 2
    assert last_failure(Home(home)) is not None
    assert custseg(home, "run", "--source", source, config=QUICK).status == 0
    assert not custseg(home, "status", config=QUICK).out.startswith("failed")


def test_a_retrain_that_is_refused_again_and_again_leaves_the_home_as_it_was(tmp_path: Path) -> None:
    source, home = write_log(shop_log(3), tmp_path / "log.csv"), tmp_path / "home"
    assert custseg(home, "run", "--source", source, "--through", "2024-02-29", config=QUICK).status == 0
    for _ in range(2):
        outcome = custseg(home, "retrain", config=QUICK)
        assert outcome.status == 2
        assert "a retrain on 2024-02-01: the model in force came with 2024-02-01 itself; expected" in outcome.err
    assert not Home(home).unfinished_stage.exists()
    outcome = custseg(home, "run", config=QUICK)
    assert outcome.status == 0
    assert "an earlier run ended" not in outcome.err
    # A training that fails has written nothing, and is not done again by the next run.
    outcome = custseg(home, "retrain", "--reconfigure", config=QUICK + "[training]\ntimeout_minutes = 0.001\n")
    assert outcome.status == 1
    failure = last_failure(Home(home))
    assert failure is not None
    assert (failure.command, failure.step) == ("retrain", "model_candidates")
    assert "The champion stays" in failure.reason
    assert not Home(home).unfinished_stage.exists()
    assert custseg(home, "run").status == 0
    assert last_failure(Home(home)) is None
