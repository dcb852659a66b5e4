"""Values of customers in whole runs: everybody is predicted, nothing of the future is known, and checks say no too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from custseg_assets.defs.assets import value
from custseg_assets.domain.schemas import CUSTOMER_VALUE, SEGMENT_ASSIGNMENTS, VALUE_MODEL
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from tests.support.files import REPOSITORY
from tests.support.shops import QUICK, FilledShop, custseg, fill_shop, shop_log, write_log

MONTHS = tuple(f"2024-0{month}-01" for month in range(2, 7))
"""The snapshots of six months with a lookback of two."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FilledShop:
    return fill_shop(tmp_path_factory.mktemp("value"), shop_log(6))


@pytest.fixture
def home(shop: FilledShop) -> OpenHome:
    return opened(shop.home)


def opened(folder: Path) -> OpenHome:
    return OpenHome(load_settings(folder.with_name("home.toml"), home=folder, environment={}))


def chosen(home: OpenHome) -> dict[str, dict[str, object]]:
    rows = home.tables.read(VALUE_MODEL).filter(pl.col("is_chosen"), pl.col("target") == "order_30d")
    return {row["period"]: row for row in rows.iter_rows(named=True)}


def test_every_customer_of_every_snapshot_is_predicted(home: OpenHome) -> None:
    for key in MONTHS:
        known = home.tables.read(SEGMENT_ASSIGNMENTS, [key])
        predicted = home.tables.read(CUSTOMER_VALUE, [key])
        assert predicted["customer_id"].equals(known["customer_id"])
        assert predicted.null_count().sum_horizontal().item() == 0
        assert predicted["as_of"].equals(known["as_of"])


def test_little_history_is_told_and_more_is_chosen_from(home: OpenHome) -> None:
    rows = chosen(home)
    assert str(rows[MONTHS[0]]["reason"]).startswith("Too little history: the log has 60 days")
    assert home.tables.read(CUSTOMER_VALUE, MONTHS[:1])["method"].unique().to_list() == ["segment_mean"]
    newest = rows[MONTHS[-1]]
    assert newest["method"] != "segment_mean"
    assert str(newest["reason"]).startswith(f"{newest['method']} won: log loss ")
    assert home.tables.read(CUSTOMER_VALUE, MONTHS[-1:])["method"].unique().to_list() == [newest["method"]]


def test_what_came_later_changes_no_snapshot_and_a_log_in_parts_gives_the_same(home: OpenHome, tmp_path: Path) -> None:
    """The first run has no June at all, so no snapshot up to May can have known anything of it."""
    other = tmp_path / "home"
    for n_months in (5, 6):
        outcome = custseg(other, "run", "--source", write_log(shop_log(n_months), tmp_path / "log.csv"), config=QUICK)
        assert outcome.status == 0, outcome.err
        there = opened(other)
        for table in (VALUE_MODEL, CUSTOMER_VALUE):
            keys = MONTHS[: n_months - 1]
            assert there.tables.read(table, keys).equals(home.tables.read(table, keys)), table.name
            assert [there.tables.fingerprint_of(table.name, key) for key in keys] == [
                home.tables.fingerprint_of(table.name, key) for key in keys
            ]


def test_checks_of_the_table_as_it_is_pass(home: OpenHome) -> None:
    assert all(check.evaluate(home).passed for check in value._CHECKS)


def test_a_customer_without_a_prediction_is_missed(shop: FilledShop, tmp_path: Path) -> None:
    there = copied(shop, tmp_path)
    rows = there.tables.read(CUSTOMER_VALUE, MONTHS[-1:])
    everybody, _ = value._CHECKS
    for wrong in (rows.head(-1), rows.with_columns(customer_id=pl.col("customer_id").replace("A001", "A999"))):
        with there.locked() as locked:
            locked.tables.write(CUSTOMER_VALUE, wrong, {MONTHS[-1]: 1})
        result = everybody.evaluate(there)
        assert not result.passed
        assert result.metadata["missing"].value == {MONTHS[-1]: 1}


def test_a_total_far_from_the_last_is_warned_of(shop: FilledShop, tmp_path: Path) -> None:
    there = copied(shop, tmp_path)
    rows = there.tables.read(CUSTOMER_VALUE, MONTHS[-1:])
    with there.locked() as locked:
        locked.tables.write(CUSTOMER_VALUE, rows.with_columns(pl.col("expected_spend_90d") * 9), {MONTHS[-1]: 1})
    _, total = value._CHECKS
    result = total.evaluate(there)
    assert (result.passed, result.severity.value) == (False, "WARN")
    assert "are expected of all customers in 90 days; they last spent" in str(result.metadata["summary"].value)


def test_mlflow_has_each_change_of_method_once(home: OpenHome) -> None:
    client = MlflowClient(tracking_uri=home.registry.uri)
    experiment = client.get_experiment_by_name(home.registry.experiment)
    assert experiment is not None

    def logged() -> dict[str, str]:
        runs = client.search_runs([experiment.experiment_id], "tags.`custseg.value` LIKE '%'")
        assert len({run.data.tags["custseg.value"] for run in runs}) == len(runs)
        return {run.data.tags["custseg.value"]: run.data.params["method"] for run in runs}

    methods = {key: row["method"] for key, row in chosen(home).items()}
    before = dict(zip(list(methods)[1:], methods.values(), strict=False))
    changes = {key: method for key, method in methods.items() if method != before.get(key)}
    assert logged() == changes
    with home.locked() as locked:
        value._record_choices(locked, MONTHS)
    assert logged() == changes


def test_pages_show_how_near_predictions_came(home: OpenHome) -> None:
    shown = value._show_model(home, MONTHS[-1])
    assert shown["calibration"].md_str.startswith("![predicted and seen by decile](data:image/png;base64,")
    assert "of the customers are expected to order within 30 days" in shown["shop"]
    assert "cannot know its season" in shown["shop"]
    # Before anything could be replayed the picture says so.
    assert value._show_model(home, MONTHS[0])["by_decile"] == "nothing to compare yet"


def test_the_benchmark_compares_released_figures_with_what_came(shop: FilledShop) -> None:
    command = [sys.executable, "-m", "benchmarks.value", str(shop.home)]
    printed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| 2024-")]
    # Of the last snapshot nothing has come yet, of the first two all 90 days; a target is printed by itself.
    assert [rows.count(key) for key in MONTHS] == [5, 5, 2, 1, 0]
    assert "mean calibration error of p_order_30d: 0." in printed


def copied(shop: FilledShop, folder: Path) -> OpenHome:
    """The same home, to be spoiled."""
    import shutil

    shutil.copytree(shop.home, folder / "home")
    (folder / "home.toml").write_text(QUICK)
    return opened(folder / "home")
