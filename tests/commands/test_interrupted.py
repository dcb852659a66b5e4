"""No command, refused, failed or killed, leaves a home that the next run cannot finish; the status says what is up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.domain.transactions import features
from custseg_assets.errors import BadInputError
from custseg_assets.home.failure import last_failure
from custseg_assets.home.plan import Stage
from custseg_assets.home.unfinished import mark_unfinished
from custseg_assets.instance.execute import JobRunner
from custseg_assets.stores.home import Home
from tests.support.comparison import missing_or_extra
from tests.support.homes import open_quick
from tests.support.shops import QUICK, FilledShop, custseg, shop_log, write_log

SNAPSHOTS = ["2024-02-01", "2024-03-01", "2024-04-01"]


def mark(home: Path, job: str, first: str | None = None, last: str | None = None) -> None:
    """Leave the home as a command does that is killed before its stage has written anything."""
    marker = {"job": job, "first_key": first, "last_key": last or first}
    Home(home).unfinished_stage.write_text(json.dumps(marker), encoding="utf-8")


@pytest.mark.parametrize(
    ("job", "first", "last"),
    [
        # None of these is what the plan would do now: they were begun before something else was done or landed.
        ("retrain", SNAPSHOTS[0], SNAPSHOTS[0]),
        ("retrain", SNAPSHOTS[1], SNAPSHOTS[1]),
        ("train", SNAPSHOTS[2], SNAPSHOTS[2]),
        ("hold", SNAPSHOTS[0], SNAPSHOTS[2]),
        ("snapshot", SNAPSHOTS[0], "2024-09-01"),
        ("prediction_log", None, None),
        ("a job of another version", SNAPSHOTS[0], SNAPSHOTS[0]),
        ("ingest", "2019-01-01", "2019-01-01"),
    ],
)
def test_whatever_a_command_was_killed_in_the_next_run_finishes(
    job: str, first: str | None, last: str | None, filled_shop: FilledShop, shop_home: Path
) -> None:
    mark(shop_home, job, first, last)
    said = custseg(shop_home, "status").out
    assert (
        f"unfinished  an earlier command ended in the middle of {Stage(job, first, last)}: the next 'custseg run'"
        in said
    )
    outcome = custseg(shop_home, "run")
    assert outcome.status == 0, outcome.err
    assert not Home(shop_home).unfinished_stage.exists()
    assert json.loads(custseg(shop_home, "status", "--json").out)["stale"] == {}
    assert missing_or_extra(shop_home, filled_shop.home) == []
    assert custseg(shop_home, "run").out.startswith("\nNothing has changed")


@pytest.mark.parametrize("command", [["retrain"], ["promote", "m", "--why", "x"], ["rollback", "--why", "x"]])
def test_what_is_refused_changes_nothing_of_what_is_unfinished(command: list[str], shop_home: Path) -> None:
    mark(shop_home, "retrain", SNAPSHOTS[0])
    assert custseg(shop_home, *command).status in ((0,) if command == ["retrain"] else (2,))
    assert custseg(shop_home, "run").status == 0


def test_a_run_that_failed_on_the_data_is_finished_once_they_are_corrected(
    shop_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = features.customer_features

    def nonsense_for_bad_lines(*arguments: Any) -> pl.DataFrame:
        frame: pl.DataFrame = measure(*arguments)
        spoiled = pl.when(pl.col("customer_id") == "BAD").then(-5).otherwise("recency_days")
        return frame.with_columns(spoiled.cast(pl.Int64).alias("recency_days"))

    monkeypatch.setattr(features, "customer_features", nonsense_for_bad_lines)
    good = shop_log(5)
    is_last = pl.col("invoiced_at") == pl.col("invoiced_at").max()
    bad = good.with_columns(customer_id=pl.when(is_last).then(pl.lit("BAD")).otherwise("customer_id"))
    source = write_log(bad, tmp_path / "log.csv")
    failed = custseg(shop_home, "run", "--source", source)
    assert failed.status == 1
    said = custseg(shop_home, "status").out
    assert "failed      'custseg run' of" in said
    assert "unfinished  an earlier command ended in the middle of snapshot 2024-05-01" in said
    write_log(good, source)
    outcome = custseg(shop_home, "run")
    assert outcome.status == 0, outcome.err
    assert last_failure(Home(shop_home)) is None


def test_a_retrain_that_fails_after_it_has_written_is_put_right_and_not_done_again(
    filled_shop: FilledShop, shop_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from custseg_assets.defs.assets import model

    def fail(*_: Any) -> None:
        raise RuntimeError("no model today")

    with monkeypatch.context() as patch:
        patch.setattr(model, "_model_row", fail)
        assert custseg(shop_home, "retrain").status == 1
    assert "an earlier command ended in the middle of retrain 2024-04-01" in custseg(shop_home, "status").out
    outcome = custseg(shop_home, "run")
    assert outcome.status == 0, outcome.err
    assert missing_or_extra(shop_home, filled_shop.home) == []
    assert open_quick(shop_home).champions.trainings == (SNAPSHOTS[0],)


def test_what_cannot_even_begin_leaves_no_mark(shop_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise BadInputError("no credentials", "some", "Log in.")

    monkeypatch.setattr(JobRunner, "execute", refuse)
    assert custseg(shop_home, "retrain").status == 2
    assert not Home(shop_home).unfinished_stage.exists()


def test_a_retrain_brings_what_it_is_about_up_to_date_first(shop_home: Path) -> None:
    outcome = custseg(shop_home, "retrain", "--reconfigure", config=QUICK + "margin_rule = 0.4\n")
    assert outcome.status == 0, outcome.err
    assert "margin_rule = 0.4" in (shop_home / "custseg.toml").read_text()
    stages = [line for line in outcome.err.splitlines() if not line.startswith((" ", "["))]
    assert stages[:2] == ["segment 2024-02-01 … 2024-04-01", "retrain 2024-04-01"]


def test_a_stage_that_is_being_made_now_is_not_called_unfinished(shop_home: Path) -> None:
    with open_quick(shop_home).locked() as home, mark_unfinished(home, Stage("segment", *SNAPSHOTS[:2])):
        state = json.loads(custseg(shop_home, "status", "--json").out)
    assert state["unfinished"] == "segment 2024-02-01 … 2024-03-01 is being made now"
