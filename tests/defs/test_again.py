"""Every job and every check of a filled home, started again in one process: nothing fails, and no table changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from custseg_assets.definitions import build_defs
from custseg_assets.defs.automation import RANGE_END, RANGE_START
from custseg_assets.domain import schemas
from custseg_assets.errors import RunFailedError
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import TABLES_OF_JOB
from tests.support.comparison import differing_partitions
from tests.support.homes import open_quick, quick_settings
from tests.support.shops import KINDS, QUICK, custseg, fill_shop, quiet, shop_log

DECIDED, OPEN = "2024-03-01", "2024-04-01"
JOBS = (
    "take_in",
    "ingest",
    "features",
    "train",
    "scale",
    "hold",
    "segment",
    "snapshot",
    "retrain",
    "prediction_log",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a first model, a challenger that a person promoted, and a snapshot still open."""
    log = shop_log(4).filter(pl.col("invoiced_at") < datetime(2024, 4, 20))
    home = fill_shop(tmp_path_factory.mktemp("again"), log).home
    retrained = custseg(home, "retrain", config=QUICK)
    assert retrained.status == 0, retrained.err
    version = retrained.out.split()[1]
    promoted = custseg(home, "promote", version, "--why", "To see that it stays.", config=QUICK)
    assert promoted.status == 0, promoted.err
    return home


@pytest.fixture(scope="module")
def before(home: Path) -> Path:
    """The home as it was before anything was started again."""
    return shutil.copytree(home, home.with_name("before"))


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def start(home: Path, job: str, instance: dg.DagsterInstance, partitions: str) -> dg.ExecuteInProcessResult:
    """Start a job as the pages do, over all of its partitions, the newest, or one by its key."""
    with quiet():
        definitions = build_defs(settings=quick_settings(home)).resolve_job_def(job)
        keys = definitions.partitions_def.get_partition_keys() if definitions.partitions_def else []
        span = {RANGE_START: keys[0], RANGE_END: keys[-1]} if partitions == "all" and keys else {}
        one = keys[-1] if partitions == "newest" and keys else partitions if partitions in keys else None
        return definitions.execute_in_process(instance=instance, tags=span, partition_key=one)


def unchanged(home: Path, before: Path) -> None:
    """No row and no fingerprint is another than before."""
    was, now = open_quick(before), open_quick(home)
    tables = [name for name in schemas.tables(now.settings.model.features) if was.tables.version_of(name) is not None]
    assert len(tables) > 10
    assert differing_partitions(home, before, tables) == []
    for name in tables:
        assert [made_from(now, name)] == [made_from(was, name)], name


def made_from(home: OpenHome, name: str) -> dict[str, Any]:
    return {key: home.tables.fingerprint_of(name, key) for key in home.calendar.period_keys}


@pytest.mark.parametrize("partitions", ["newest", "all"])
@pytest.mark.parametrize("job", JOBS)
def test_a_job_started_again_succeeds_and_changes_nothing(
    home: Path, before: Path, instance: dg.DagsterInstance, job: str, partitions: str
) -> None:
    assert start(home, job, instance, partitions).success
    unchanged(home, before)


def test_what_a_person_decided_stays_and_the_partition_says_so(
    home: Path, before: Path, instance: dg.DagsterInstance
) -> None:
    result = start(home, "snapshot", instance, "all")
    [told] = {made.metadata["unchanged"].value for made in result.asset_materializations_for_node("promotion_decision")}
    assert told == (
        "2024-02-01 stays as it is: a training on the same data with the same settings would give the same. "
        f"{DECIDED} stays as it is: a challenger was trained on it, and what was decided about it stays."
    )
    row = open_quick(home).tables.read(schemas.PROMOTION_DECISION, [DECIDED]).row(0, named=True)
    assert (row["decision"], row["reasons"].split('"')[1]) == ("PROMOTE", "To see that it stays.")
    unchanged(home, before)


def test_every_check_runs_by_itself_on_what_is_stored(home: Path, before: Path, instance: dg.DagsterInstance) -> None:
    with quiet():
        definitions = build_defs(settings=quick_settings(home))
        checks = sorted(definitions.resolve_asset_graph().asset_check_keys)
        job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*checks))
        defs = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job]))
        result = defs.resolve_job_def("checks").execute_in_process(instance=instance)
    evaluated = result.get_asset_check_evaluations()
    assert sorted(one.asset_check_key for one in evaluated) == checks
    assert [one.check_name for one in evaluated if not one.passed] == []
    assert result.get_asset_materialization_events() == []
    [rows] = {one.metadata["n_rows"].value for one in evaluated if one.asset_key == dg.AssetKey("customer_features")}
    assert rows == open_quick(home).tables.scan(schemas.CUSTOMER_FEATURES).collect().height
    unchanged(home, before)


def test_a_check_by_itself_fails_on_stored_rows_that_break_it(home: Path, tmp_path: Path) -> None:
    spoiled = shutil.copytree(home, tmp_path / "home")
    with open_quick(spoiled).locked() as locked:
        rows = locked.tables.read(schemas.CUSTOMER_FEATURES, [OPEN]).with_columns(n_products=pl.lit(-1, pl.Int64))
        made = locked.tables.fingerprint_of("customer_features", OPEN)
        locked.tables.write(schemas.CUSTOMER_FEATURES, rows, {OPEN: made or 0})
    check = dg.AssetCheckKey(dg.AssetKey("customer_features"), "counts_and_shares_in_range")
    with quiet(), dg.DagsterInstance.ephemeral() as instance:
        job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(check))
        defs = dg.Definitions.merge(build_defs(settings=quick_settings(spoiled)), dg.Definitions(jobs=[job]))
        result = defs.resolve_job_def("check").execute_in_process(instance=instance, raise_on_error=False)
    [evaluated] = result.get_asset_check_evaluations()
    assert not evaluated.passed
    assert evaluated.metadata["n_unexpected"].value == rows.height


def test_snapshots_before_the_first_model_are_left_out_of_a_range(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """At first the shop has too few customers for any number of segments; the second snapshot has the first model."""
    few = tuple(replace(kind, n_customers=5) for kind in KINDS)
    log = pl.concat([shop_log(2, kinds=few), shop_log(2, first_month=date(2024, 3, 1))])
    home = fill_shop(tmp_path, log).home
    before = shutil.copytree(home, tmp_path / "before")
    assert open_quick(home).champions.promotions[0][0] == "2024-03-01"
    result = start(home, "segment", instance, "all")
    for name in TABLES_OF_JOB["segment"]:
        # By table: a step may make several.
        made = [event.materialization for event in result.get_asset_materialization_events()]
        assert {one.metadata["unchanged"].value for one in made if one.asset_key == dg.AssetKey(name)} == {
            "2024-02-01 stays as it is: no model is in force yet."
        }
    unchanged(home, before)
    with pytest.raises(RunFailedError, match="no model is in force at 2024-02-01; train and promote one first"):
        start(home, "segment", instance, "2024-02-01")
