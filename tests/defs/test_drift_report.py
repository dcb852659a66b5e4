"""The drift report of whole runs: a closing at the end is named and is no drift; other reports come out equal."""

from __future__ import annotations

import json
import tarfile
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.domain.schemas import DRIFT_REPORT
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from custseg_assets.stores.tables import TableStore
from tests.support.files import DATA
from tests.support.shops import QUICK, Kind, custseg, shop_log, write_log

EVEN = (Kind(400, 8, 1, 12), Kind(600, 1.1, 1, 4), Kind(600, 1 / 3, 1, 1))
"""Customers whose orders fall on any day alike, so that no month's end is like another day of it."""


@pytest.mark.parametrize("n_closed", [0, 5])
def test_a_log_that_ends_with_a_closing_is_stable_and_the_report_names_the_days(tmp_path: Path, n_closed: int) -> None:
    """The first day of the next month closes the period; without it the snapshot would be as of the day it closed."""
    closed, end = datetime(2024, 5, 1) - timedelta(days=n_closed), datetime(2024, 5, 1)
    at = pl.col("invoiced_at")
    log = shop_log(5, kinds=EVEN).filter((at < closed) | (at >= end), at < datetime(2024, 5, 2))
    home, source = tmp_path / "home", write_log(log, tmp_path / "log.csv")
    outcome = custseg(home, "run", "--source", source, config=QUICK)
    assert outcome.status == 0, outcome.err
    report = TableStore(home / "tables").read(DRIFT_REPORT, ["2024-04-01"])
    reasons = json.loads(report["reasons"][0])
    assert (report["is_open"][0], report["verdict"].unique().to_list()) == (False, ["stable"]), reasons
    assert report["score"].null_count() == 0
    named = [reason for reason in reasons if "the shop was closed the last 5 days before 2024-05-01" in reason]
    assert len(named) == bool(n_closed)


def test_a_model_of_less_than_a_whole_window_is_compared_with_nothing(tmp_path: Path) -> None:
    """The windows of the first months grow with the log, and so does all that is counted in them."""
    log = shop_log(2, kinds=EVEN).filter(pl.col("invoiced_at") < datetime(2024, 2, 10))
    home, source = tmp_path / "home", write_log(log, tmp_path / "log.csv")
    config = QUICK.replace("lookback = 2", "lookback = 6")
    outcome = custseg(home, "run", "--source", source, config=config)
    assert outcome.status == 0, outcome.err
    report = TableStore(home / "tables").read(DRIFT_REPORT, ["2024-02-01"])
    assert report["verdict"].unique().to_list() == ["not enough data"]
    [reason] = json.loads(report["reasons"][0])
    assert reason.startswith("the model was trained on 31 days, less than a whole window")


def test_reports_of_an_earlier_version_come_out_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(DATA / "home-0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    home, config = tmp_path / "home", tmp_path / "custseg.toml"
    before = TableStore(home / "tables").read(DRIFT_REPORT)
    keys = before["period"].unique().to_list()
    assert len(keys) > 1
    with OpenHome(load_settings(config, home=home)).locked() as locked:
        locked.tables.write(DRIFT_REPORT, before.clear(), dict.fromkeys(keys, 1))
    assert TableStore(home / "tables").read(DRIFT_REPORT).is_empty()
    assert custseg(home, "run", config=config).status == 0
    stamps = "as_of", "is_open"
    assert_frame_equal(TableStore(home / "tables").read(DRIFT_REPORT).drop(stamps), before.drop(stamps))
