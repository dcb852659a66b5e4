"""Whole runs of the command: what a home has after the first, what the next leaves alone, and how it recovers."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dagster import AssetKey, DagsterInstance
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from custseg_assets.definitions import build_defs
from custseg_assets.domain.drift.reference import reference_of_model
from custseg_assets.domain.schemas import (
    CUSTOMER_FEATURES,
    MODEL_CANDIDATES,
    PROMOTION_DECISION,
    SEGMENT_ASSIGNMENTS,
    SEGMENTATION_MODEL,
    tables,
)
from custseg_assets.domain.segments.clustering import assign_customers, train_model
from custseg_assets.domain.segments.customer_history import count_moves
from custseg_assets.domain.segments.migrations import list_migrations, measure_moves
from custseg_assets.domain.segments.model import SegmentationModel, model_from_json
from custseg_assets.domain.transactions import features
from custseg_assets.home.evidence import gather_evidence
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import Stage
from custseg_assets.instance.execute import JobRunner
from custseg_assets.settings import ModelSettings, Settings, load_settings
from custseg_assets.stores import releases
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource
from custseg_assets.stores.home import Home
from custseg_assets.stores.registry import ModelRegistry
from custseg_assets.stores.tables import TableStore
from tests.support.comparison import flaws, missing_or_extra, partitions
from tests.support.dagster_history import newest_metadata
from tests.support.files import REPOSITORY
from tests.support.killed_runs import kill_run
from tests.support.shops import QUICK, FilledShop, Outcome, custseg, shop_log, write_log

PERIODS = ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01"]
SNAPSHOTS = PERIODS[1:]
BY_PERIOD = ("raw_transactions", "clean_transactions", "rejected_transactions")
TRAINED = ("model_candidates", "segmentation_model", "promotion_decision")
BY_SNAPSHOT = (
    "customer_features",
    "scaled_features",
    "segment_assignments",
    "segment_profiles",
    "segment_migrations",
    "product_recommendations",
    "segment_products",
    "value_model",
    "customer_value",
    "drift_report",
    "retrain_decision",
)
TABLES = (*BY_PERIOD, *BY_SNAPSHOT, *TRAINED)
WITHOUT_PARTITIONS = (
    "serving_release",
    "prediction_log",
    "rejected_predictions",
    "prediction_traffic",
    "campaign_groups",
    "campaign_report",
    "prediction_drift",
)


@pytest.fixture
def source(filled_shop: FilledShop) -> Path:
    """The log that the home was filled from."""
    return filled_shop.source


def test_a_run_from_nothing_fills_every_table(filled_shop: FilledShop) -> None:
    home = filled_shop.home
    partitions = {name: sorted(frames_of(home, name)) for name in TABLES}
    assert partitions == {
        **dict.fromkeys(BY_PERIOD, PERIODS),
        **dict.fromkeys(BY_SNAPSHOT, SNAPSHOTS),
        # Before the first snapshot there is none to have moved from.
        "segment_migrations": SNAPSHOTS[1:],
        # In a shop of so few customers nothing stands out.
        "segment_products": [],
        # One snapshot trains; for the others it is recorded that the model in force stays.
        "model_candidates": SNAPSHOTS[:1],
        "segmentation_model": SNAPSHOTS[:1],
        "promotion_decision": SNAPSHOTS,
    }


def test_snapshots_after_the_first_hold_the_model_in_force(filled_shop: FilledShop) -> None:
    decided = {key: rows.row(0, named=True) for key, rows in frames_of(filled_shop.home, "promotion_decision").items()}
    assert [decided[key]["decision"] for key in SNAPSHOTS] == ["PROMOTE", *["HOLD"] * (len(SNAPSHOTS) - 1)]
    champion = decided[SNAPSHOTS[0]]["model_version"]
    assert {decided[key]["champion_before"] for key in SNAPSHOTS[1:]} == {champion}
    assert champion in decided[SNAPSHOTS[-1]]["reasons"]
    assert newest_metadata(filled_shop.home, "promotion_decision")["reason_codes"].value == ["no_challenger"]


def test_a_challenger_is_held_against_the_champion_on_the_same_data(shop_home: Path) -> None:
    executed(shop_home, Stage("retrain", SNAPSHOTS[-1], SNAPSHOTS[-1]))
    decision = frames_of(shop_home, "promotion_decision")[SNAPSHOTS[-1]].row(0, named=True)
    champion = frames_of(shop_home, "promotion_decision")[SNAPSHOTS[0]]["model_version"].item()
    compared = json.loads(decision["comparison"])
    assert (decision["decision"], decision["decided_by"], decision["champion_before"]) == ("HOLD", "gate", champion)
    assert (compared["champion"], compared["challenger"]) == (champion, decision["model_version"])
    assert compared["inertia_champion"] > compared["inertia_challenger"] > 0
    reasons = json.loads(decision["reasons"])
    # Of this shop's 160 customers too few stay away for a month to tell.
    assert reasons[0] == "there is no snapshot yet that could tell what its segments foresee"
    codes = newest_metadata(shop_home, "promotion_decision")["reason_codes"].value
    assert (codes, len(codes)) == (["validity_unknown", "covers_more"], len(reasons))
    assert compared["measured_on"] == []


def test_evidence_is_every_snapshot_whose_next_period_is_known(filled_shop: FilledShop) -> None:
    evidence = list(gather_evidence(OpenHome(settings_of(filled_shop.home)), SNAPSHOTS[-1]))
    assert [one.period for one in evidence] == SNAPSHOTS[:-1]
    clean = frames_of(filled_shop.home, "clean_transactions")
    march = clean[SNAPSHOTS[1]]
    assert evidence[0].outcomes["net"].sum() == pytest.approx(march["line_amount"].sum())
    assert set(evidence[0].outcomes["customer_id"]) == set(march["customer_id"])
    known = {customer for key in PERIODS[:2] for customer in clean[key]["customer_id"]}
    assert sorted(evidence[0].known_ids) == sorted(known)
    assert list(gather_evidence(OpenHome(settings_of(filled_shop.home)), SNAPSHOTS[0])) == []


def test_where_nothing_is_compared_the_figures_are_missing(filled_shop: FilledShop) -> None:
    decided = frames_of(filled_shop.home, "promotion_decision")
    assert [decided[key].select("decided_by", "comparison").row(0) for key in SNAPSHOTS] == [("gate", None)] * 3


def test_every_snapshot_says_why_nothing_is_retrained(filled_shop: FilledShop) -> None:
    rows = frames_of(filled_shop.home, "retrain_decision")
    assert [rows[key].select("decision", "is_data_sound").row(0) for key in SNAPSHOTS] == [("WAIT", True)] * 3
    assert "was trained on this snapshot" in rows[SNAPSHOTS[0]]["reasons"].item()
    assert "the newest drift report says" in rows[SNAPSHOTS[-1]]["reasons"].item()
    assert newest_metadata(filled_shop.home, "retrain_decision")["reason_codes"].value == ["no_breach_now"]


def test_a_run_names_each_step_before_its_details_and_no_library_speaks_in_between(filled_shop: FilledShop) -> None:
    lines = filled_shop.outcome.err.splitlines()
    begins = lines.index("ingest 2024-01-01 … 2024-04-01")
    assert lines[begins + 1] == "  raw_transactions"
    assert lines[begins + 2].startswith("    raw_transactions: ")
    assert lines.index("  model_candidates") < lines.index("    k = 3: keeps every limit")
    assert [line for line in lines if "mlflow" in line or "pipes" in line] == []


def test_moves_are_those_that_the_assignments_show_and_only_behaviour_or_borders_cause_them(
    filled_shop: FilledShop, tmp_path: Path
) -> None:
    home = filled_shop.home
    assignments = pl.concat(frames_of(home, "segment_assignments").values())
    for before, period in pairwise(SNAPSHOTS):
        found = frames_of(home, "segment_migrations")[period]
        counted = count_moves(assignments, before=before, period=period)
        assert found.height == counted.filter(pl.col("from_segment_id") != pl.col("to_segment_id"))["n_customers"].sum()
        assert found.height > 0
        assert set(found["cause"]) <= {"behaviour", "border"}
    out = tmp_path / "movers.csv"
    exported = custseg(home, "export", "segment_migrations", "--partition", SNAPSHOTS[-1], "--out", out)
    assert exported.status == 0, exported.err
    assert pl.read_csv(out).height == frames_of(home, "segment_migrations")[SNAPSHOTS[-1]].height
    first = custseg(home, "export", "segment_migrations", "--partition", SNAPSHOTS[0], "--out", out)
    assert first.out.startswith(f"{out}: 0 rows of segment_migrations, snapshot {SNAPSHOTS[0]}")


def test_the_history_shows_the_moves_as_a_matrix_and_says_where_there_can_be_none(
    filled_shop: FilledShop, shop_home: Path
) -> None:
    shown = newest_metadata(filled_shop.home, "segment_migrations")
    assert shown["moves"].value.startswith(f"{SNAPSHOTS[-2]} → {SNAPSHOTS[-1]}: ")
    assert shown["phantom_moves"].value == 0
    now, before, earlier = (frames_of(filled_shop.home, "segment_assignments")[key] for key in reversed(SNAPSHOTS))
    rates = measure_moves(now, before, earlier)
    assert (shown["moved"].value, shown["to_and_fro"].value) == (rates.moved, rates.to_and_fro)
    assert 0 < shown["moved"].value < 1
    assert "| all moves |" in shown["by_cause"].md_str
    assert shown["matrix"].md_str.startswith("![customers by segment before and now](data:image/png;base64,")
    settings = settings_of(shop_home)
    with dg_instance(shop_home) as instance, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = build_defs(settings=settings).resolve_job_def("segment")
        made = job.execute_in_process(
            instance=instance, partition_key=SNAPSHOTS[0], asset_selection=[AssetKey("segment_migrations")]
        )
    [event] = made.asset_materializations_for_node("segment_migrations")
    said = str(event.metadata["moves"].value)
    assert said == f"{SNAPSHOTS[0]} is the first snapshot with segments: nobody can have moved yet."


def test_a_promotion_leaves_its_own_snapshots_drift_report_as_it_was(shop_home: Path, source: Path) -> None:
    before = frames_of(shop_home, "drift_report")
    promote_exchanged(shop_home, SNAPSHOTS[1])
    opened = home_with(shop_home, source)
    assert opened.fingerprints.stale(["drift_report"], SNAPSHOTS) == (SNAPSHOTS[2],)
    assert opened.fingerprints.stale(["segment_assignments"], SNAPSHOTS) == tuple(SNAPSHOTS[1:])
    outcome = custseg(shop_home, "run", "--source", source, config=QUICK)
    assert outcome.status == 0, outcome.err
    after = frames_of(shop_home, "drift_report")
    assert_same_partitions(*({key: reports[key] for key in SNAPSHOTS[:2]} for reports in (before, after)))
    assert set(after[SNAPSHOTS[2]].select("reference_period", "model_version").iter_rows()) == {
        (SNAPSHOTS[1], "m-exchanged")
    }
    # Two segments were exchanged and nobody else touched: the model moved whom it clearly has in the other, once.
    moves = frames_of(shop_home, "segment_migrations")
    assert moves[SNAPSHOTS[1]]["cause"].value_counts(sort=True)["cause"][0] == "model change"
    assert "model change" not in moves[SNAPSHOTS[2]]["cause"]
    earlier, now = (frames_of(shop_home, "segment_assignments")[key] for key in SNAPSHOTS[:2])
    features = frames_of(shop_home, "customer_features")[SNAPSHOTS[1]]
    first = OpenHome(settings_of(shop_home)).champions.model_at(SNAPSHOTS[0])
    stay = assign_customers(features, now["customer_id"], first, earlier, first, MARGIN_RULE)
    expected = list_migrations(earlier, now, stay, features.clear(), features)
    causes = [rows.select("customer_id", "cause").sort("customer_id") for rows in (moves[SNAPSHOTS[1]], expected)]
    assert_frame_equal(*causes)
    assert stay["is_held"].any()


def test_what_shapes_a_home_cannot_change_in_it(shop_home: Path, tmp_path: Path) -> None:
    before = state_of(shop_home)
    source = write_log(shop_log(4), tmp_path / "log.csv")
    for config, words in (
        ('[snapshots]\ncadence = "weekly"\nlookback = 2\n', "cadence = 'weekly'"),
        ("[snapshots]\nlookback = 3\n", "lookback = 3"),
        ('[snapshots]\nlookback = 2\n[model]\nfeatures = ["recency_days", "monetary_net"]\n', "features"),
    ):
        outcome = custseg(shop_home, "run", "--source", source, config=config)
        assert outcome.status == 2
        assert words in outcome.err
        assert "CUSTSEG_HOME" in outcome.err
    assert state_of(shop_home) == before


def test_what_a_run_says_at_the_end_is_what_was_in_the_log(filled_shop: FilledShop) -> None:
    lines = [line.split() for line in filled_shop.outcome.out.splitlines()]
    # One line without a customer and one service line a month.
    assert ["missing_customer", "4"] in lines
    assert ["service_code", "4"] in lines
    assert ["rejected", "8"] in lines
    assert ["rows", "in", f"{shop_log(4).height:,}"] in lines
    assert ["S1", "Champions"] in [words[:2] for words in lines]


def test_the_first_model_is_registered_as_challenger_and_champion_and_loads(filled_shop: FilledShop) -> None:
    import mlflow

    settings = settings_of(filled_shop.home)
    registry = ModelRegistry(settings.tracking, filled_shop.home / "mlflow")
    registered = registry.client().get_registered_model(registry.registered_model)
    assert {alias: str(version) for alias, version in registered.aliases.items()} == {
        "challenger": "1",
        "champion": "1",
    }
    mlflow.set_tracking_uri(registry.uri)
    mlflow.set_registry_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/{registry.registered_model}@champion")
    snapshot = frames_of(filled_shop.home, "customer_features")[SNAPSHOTS[0]].filter(pl.col("monetary_net") > 0)
    scored = model.predict(snapshot.select(pl.col(settings.model.features).cast(pl.Float64)).to_pandas())
    assigned = frames_of(filled_shop.home, "segment_assignments")[SNAPSHOTS[0]]
    both = assigned.join(
        snapshot.select("customer_id", scored=pl.Series(scored["segment_id"].to_list())), on="customer_id"
    )
    assert both.height == snapshot.height > 100
    assert both["segment_id"].to_list() == both["scored"].to_list()


def test_the_release_is_of_the_newest_snapshot_and_verifies(filled_shop: FilledShop) -> None:
    root = filled_shop.home / "releases"
    manifest = releases.verify(root, releases.current(root) or "")
    assert (manifest.period, manifest.n_customers) == (
        SNAPSHOTS[-1],
        frames_of(filled_shop.home, "segment_assignments")[SNAPSHOTS[-1]].height,
    )


def test_the_history_that_the_pages_show_has_every_asset_and_partition(filled_shop: FilledShop) -> None:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(filled_shop.home / "dagster")) as instance:
        made = {
            name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in [*tables(()), "serving_release"]
        }
        assert instance.get_latest_materialization_event(dg.AssetKey("serving_release")) is not None
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
    assert {name: sorted(keys) for name, keys in made.items() if name not in WITHOUT_PARTITIONS} == {
        **dict.fromkeys(BY_PERIOD, PERIODS),
        **dict.fromkeys(BY_SNAPSHOT, SNAPSHOTS),
        **dict.fromkeys(TRAINED, SNAPSHOTS),
    }


def test_a_second_run_changes_nothing_and_says_so(filled_shop: FilledShop, source: Path) -> None:
    home = filled_shop.home
    before = state_of(home)
    outcome = custseg(home, "run", "--source", source, config=QUICK)
    assert (outcome.status, outcome.err) == (0, "")
    assert "Nothing has changed: every table is up to date." in outcome.out
    assert state_of(home) == before


def test_the_status_as_json_has_what_a_program_needs(filled_shop: FilledShop) -> None:
    status = json.loads(custseg(filled_shop.home, "status", "--json", config=QUICK).out)
    assert status["periods"] == [PERIODS[0], PERIODS[-1]]
    assert status["rows"]["raw"] == status["rows"]["clean"] + sum(status["rows"]["rejected"].values())
    assert status["champion"]["trained_on"] == SNAPSHOTS[0]
    assert status["last_snapshot"] == SNAPSHOTS[-1]
    assert status["drift"]["verdict"] == "stable"
    assert status["release"] == releases.current(filled_shop.home / "releases")
    assert status["stale"] == {}
    assert sum(segment["share_customers"] for segment in status["segments"]) == pytest.approx(1)


def test_a_home_without_anything_has_a_status_too(home: Path) -> None:
    outcome = custseg(home, "status")
    assert outcome.status == 0
    assert outcome.out.startswith(
        f"home {home} is empty; 'custseg run --source FILE' fills it, and so do files dropped"
    )
    assert json.loads(custseg(home, "status", "--json").out)["source"] is None
    assert not home.exists()


@pytest.fixture(scope="module")
def grown(
    filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], Outcome, dict[str, Any], Outcome]:
    """A copy of the home whose source got a fifth month, of which the first run made nonsense and the second did not.

    Returns:
        the home; then, for the spoiled run and the run after it, the home's state and the outcome.
    """
    folder = tmp_path_factory.mktemp("grown")
    home = shutil.copytree(filled_shop.home, folder / "home")
    longer = write_log(shop_log(5), folder / "log.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "customer_features", spoiled(features.customer_features))
        failed = custseg(home, "run", "--source", longer, config=QUICK)
    after_failure = state_of(home)
    recovered = custseg(home, "run", "--source", longer, config=QUICK)
    return home, after_failure, failed, state_of(home), recovered


def test_a_failing_check_ends_the_run_and_names_itself_and_the_rows(grown: Any) -> None:
    _, _, failed, _, _ = grown
    assert failed.status == 1
    last = failed.err.splitlines()[-1]
    assert last.startswith("custseg: snapshot 2024-05-01: check customer_features.")
    assert "failed: not so in 1 of " in last
    assert "recency_days is at least 0; for example period 2024-05-01, customer_id A000, recency_days -5 (" in last
    assert "Traceback" not in failed.err


def test_what_a_failing_check_refuses_is_not_released(filled_shop: FilledShop, grown: Any) -> None:
    home, after_failure, *_ = grown
    assert after_failure["release"] == releases.current(filled_shop.home / "releases")
    for name in ("segment_assignments", "segment_profiles", "product_recommendations", "drift_report"):
        assert after_failure["tables"][name] == state_of(filled_shop.home)["tables"][name]
    # It is there to be looked at, but counts as not made.
    assert TableStore(home / "tables").fingerprint_of("customer_features", "2024-05-01") is not None
    assert after_failure["fingerprints"]["customer_features", "2024-05-01"] is None


def test_the_examples_of_a_failing_check_are_in_the_history(grown: Any) -> None:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(grown[0] / "dagster")) as instance:
        failed = next(run for run in instance.get_runs() if run.status == dg.DagsterRunStatus.FAILURE)
        entries = instance.all_logs(failed.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    checks = [entry.dagster_event.asset_check_evaluation_data for entry in entries]
    failing = [check for check in checks if not check.passed]
    assert len(failing) == 1
    examples = failing[0].metadata["examples"].value
    assert examples[0]["customer_id"] == "A000"
    assert failing[0].metadata["n_unexpected"].value == 1


def test_the_run_after_a_failing_check_makes_what_was_left(grown: Any) -> None:
    home, _, _, state, recovered = grown
    assert recovered.status == 0, recovered.err
    assert releases.verify(home / "releases", state["release"]).period == "2024-05-01"
    assert sorted(frames_of(home, "segment_assignments")) == [*SNAPSHOTS, "2024-05-01"]


def test_a_month_more_leaves_the_months_before_alone(filled_shop: FilledShop, grown: Any) -> None:
    before = state_of(filled_shop.home)
    _, _, _, after, _ = grown
    for name in TABLES:
        kept = {
            path: at for path, at in after["files"].items() if path.startswith(f"{name}/") and "2024-05-01" not in path
        }
        there = {path: at for path, at in before["files"].items() if path.startswith(f"{name}/")}
        assert kept == there
        # In a shop of so few customers no product stands out.
        assert there != {} or name == "segment_products"


def test_a_late_line_makes_exactly_the_snapshots_stale_that_look_at_it(shop_home: Path, tmp_path: Path) -> None:
    late = shop_log(4).head(1).with_columns(invoiced_at=pl.lit(datetime(2024, 2, 10)), invoice_id=pl.lit("late"))
    source = write_log(pl.concat([shop_log(4), late]), tmp_path / "log.csv")
    opened = home_with(shop_home, source)
    assert opened.fingerprints.stale(BY_PERIOD, PERIODS) == ("2024-02-01",)
    # The window has two periods: March's snapshot looks at February, April's does not.
    assert opened.fingerprints.stale(["customer_features"], SNAPSHOTS) == ("2024-02-01", "2024-03-01")


def test_the_same_lines_in_another_file_make_nothing_stale(shop_home: Path, tmp_path: Path) -> None:
    source = write_log(shop_log(4).reverse(), tmp_path / "other.csv")
    assert stale_in(home_with(shop_home, source)) == {}


@pytest.mark.parametrize(
    ("section", "first_stale"),
    [
        ('[cleaning]\nservice_descriptions = ["THING 10001"]', "clean_transactions"),
        ("[recommendations]\nn_items = 5", "product_recommendations"),
        ('[source]\nencoding = "utf-8"', None),
    ],
)
def test_a_setting_makes_stale_what_depends_on_it(
    shop_home: Path, source: Path, section: str, first_stale: str | None
) -> None:
    opened = home_with(shop_home, source, f"{QUICK}{section}\n")
    order = [*BY_PERIOD, *BY_SNAPSHOT]
    expected = order[order.index(first_stale) :] if first_stale else []
    if first_stale == "product_recommendations":
        expected = [first_stale]
    assert list(stale_in(opened)) == expected


def test_another_margin_rule_makes_segments_stale_and_no_model(shop_home: Path, source: Path) -> None:
    opened = home_with(shop_home, source, f"{QUICK}margin_rule = 0.4\n")
    assert list(stale_in(opened)) == [
        "segment_assignments",
        "segment_profiles",
        "segment_migrations",
        "product_recommendations",
        "segment_products",
        "value_model",
        "customer_value",
    ]
    assert opened.fingerprints.stale(TRAINED, SNAPSHOTS) == ()


def test_another_lookback_makes_every_snapshot_stale_and_no_period(shop_home: Path, source: Path) -> None:
    opened = home_with(shop_home, source, QUICK.replace("lookback = 2", "lookback = 3"))
    assert opened.fingerprints.stale(BY_PERIOD, PERIODS) == ()
    assert opened.calendar.snapshot_keys == ("2024-03-01", "2024-04-01")
    assert (
        opened.fingerprints.stale(["customer_features"], opened.calendar.snapshot_keys) == opened.calendar.snapshot_keys
    )


def test_other_features_than_the_model_in_force_has_are_refused(shop_home: Path, source: Path) -> None:
    before = state_of(shop_home)
    other = QUICK.replace("[model]", '[model]\nfeatures = ["recency_days", "monetary_net"]')
    outcome = custseg(shop_home, "run", "--source", source, config=other)
    assert outcome.status == 2
    assert "[model] features = ['recency_days', 'monetary_net']; expected" in outcome.err
    assert state_of(shop_home) == before


def test_a_source_that_lacks_periods_of_the_home_is_refused(shop_home: Path, tmp_path: Path) -> None:
    before, listing = state_of(shop_home), names_in(shop_home)
    outcome = custseg(shop_home, "run", "--source", write_log(shop_log(2), tmp_path / "log.csv"), config=QUICK)
    assert outcome.status == 2
    assert "and lacks 2 periods of the home, from 2024-03-01; home" in outcome.err
    assert (state_of(shop_home), names_in(shop_home)) == (before, listing)


def test_through_stops_at_the_period_that_holds_the_day_and_a_later_run_goes_on(tmp_path: Path, source: Path) -> None:
    home = tmp_path / "home"
    outcome = custseg(home, "run", "--source", source, "--through", "2024-01-15", config=QUICK)
    assert outcome.status == 0, outcome.err
    assert {*frames_of(home, "raw_transactions")} == {*frames_of(home, "clean_transactions")} == {"2024-01-01"}
    status = json.loads(custseg(home, "status", "--json", config=QUICK).out)
    assert status["stale"]["raw_transactions"] == PERIODS[1:]


def test_two_runs_make_the_same_whatever_the_number_of_threads(
    filled_shop: FilledShop, source: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    threads = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command(home, source), env={**environment(home), **threads}, check=True, capture_output=True)
    for name in TABLES:
        assert_same_partitions(frames_of(home, name), frames_of(filled_shop.home, name))
    assert manifest_of(home) == manifest_of(filled_shop.home)


def test_a_run_that_is_killed_again_and_again_is_mended(filled_shop: FilledShop, source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(home).items():
            patch.setenv(name, value)
        for until in ("raw_transactions:", "model_candidates:", "segment_assignments:"):
            kill_run(command(home, source), home, 600, until)
            assert Home(home).unfinished_stage.exists(), f"it was over, or never said {until!r}"
            assert flaws(home, filled_shop.home) == []
    outcome = custseg(home, "run", "--source", source, config=QUICK)
    assert outcome.status == 0, outcome.err
    assert outcome.err.startswith("an earlier run ended in the middle of segment 2024-02-01 … 2024-04-01")
    assert flaws(home, filled_shop.home) + missing_or_extra(home, filled_shop.home) == []
    assert unfinished_runs(home) == []


def test_a_home_with_a_table_half_there_or_rows_too_few_is_seen(filled_shop: FilledShop, shop_home: Path) -> None:
    clean = DeltaTable(str(shop_home / "tables" / "clean_transactions"))
    clean.delete("customer_id = 'A001' AND period = '2024-02-01'")
    missing = Path(DeltaTable(str(shop_home / "tables" / "segment_profiles")).file_uris()[0])
    missing.unlink()
    (shop_home / "releases" / manifest_of(shop_home).release_id / releases.MODEL_CARD).write_text("other")
    found = flaws(shop_home, filled_shop.home)
    # One table has too few rows; a second cannot be read; a file of the release is another.
    assert len(found) == 3
    assert found[0] == "table clean_transactions: partition 2024-02-01 is not as a whole run makes it"
    assert found[1].startswith("table segment_profiles cannot be read")
    assert "model_card.md is not as it was written" in found[2]


def spoiled(customer_features: Any) -> Any:
    """The same, but the first customer ordered last in the future."""

    def nonsense(*arguments: Any) -> pl.DataFrame:
        frame: pl.DataFrame = customer_features(*arguments)
        is_first = pl.col("customer_id") == pl.col("customer_id").min()
        return frame.with_columns(
            pl.when(is_first).then(pl.lit(-5)).otherwise("recency_days").cast(pl.Int64).alias("recency_days")
        )

    return nonsense


def promote_exchanged(home: Path, key: str) -> None:
    """Put a model in force that was trained on a snapshot, and differs in what it calls its first two clusters."""
    store, opened = TableStore(home / "tables"), OpenHome(settings_of(home))
    champion = opened.champions.model_at(key)
    one, other, *others = champion.segments
    segments = (replace(other, cluster=0), replace(one, cluster=1), *others)
    model = replace(champion, trained_on=key, segments=segments, model_version="m-exchanged")
    reference = reference_of_model(model, store.read(CUSTOMER_FEATURES, [key]), opened.calendar.window(key))
    row = store.read(SEGMENTATION_MODEL, [champion.trained_on]).with_columns(
        period=pl.lit(key),
        model_version=pl.lit(model.model_version),
        model_json=pl.lit(model.to_json()),
        drift_reference=pl.lit(reference.to_json()),
    )
    candidates = store.read(MODEL_CANDIDATES, [champion.trained_on]).with_columns(period=pl.lit(key))
    decision = store.read(PROMOTION_DECISION, [key]).with_columns(
        decision=pl.lit("PROMOTE"), model_version=pl.lit(model.model_version)
    )
    for table, rows in ((MODEL_CANDIDATES, candidates), (SEGMENTATION_MODEL, row), (PROMOTION_DECISION, decision)):
        store.write(table, rows, {key: 1})


def dg_instance(home: Path) -> DagsterInstance:
    return DagsterInstance.from_config(str(home / "dagster"))


def test_another_model_in_force_holds_whom_it_places_near_a_border_and_the_release_says_so(
    shop_home: Path, source: Path
) -> None:
    key, before_key = SNAPSHOTS[-1], SNAPSHOTS[-2]
    features = frames_of(shop_home, "customer_features")[key]
    champion, challenger = promote_a_neighbour(
        shop_home, key, features, frames_of(shop_home, "segment_assignments")[before_key]
    )
    outcome = custseg(shop_home, "run", "--source", source, config=QUICK)
    assert outcome.status == 0, outcome.err
    assigned = frames_of(shop_home, "segment_assignments")
    assert assigned[key]["model_version"].unique().to_list() == [challenger.model_version]
    expected = assign_customers(
        features, assigned[key]["customer_id"], challenger, assigned[before_key], champion, MARGIN_RULE
    )
    assert_frame_equal(assigned[key].drop("period").sort("customer_id").select(expected.columns), expected)
    held = expected.filter("is_held")
    assert held.height > 0
    root = shop_home / "releases"
    release = releases.open_release(root, releases.current(root) or "")
    assert (release.record_of(held["customer_id"][0]) or {})["is_held"]
    assert custseg(shop_home, "run", "--source", source, config=QUICK).status == 0
    assert_frame_equal(frames_of(shop_home, "segment_assignments")[key], assigned[key])


def promote_a_neighbour(
    home: Path, key: str, features: pl.DataFrame, before: pl.DataFrame
) -> tuple[SegmentationModel, SegmentationModel]:
    """Put a model in force with a centroid drawn to another until it alone holds somebody; returns the two models."""
    tables = TableStore(home / "tables")
    row = tables.read(SEGMENTATION_MODEL).row(0, named=True)
    champion = model_from_json(row["model_json"])
    centroids = np.array(champion.centroids)
    for own, other, share in itertools.product(range(champion.k), range(champion.k), np.linspace(0.02, 0.6, 30)):
        moved = centroids.copy()
        moved[own] += share * (centroids[other] - centroids[own])
        challenger = train_model(features, moved.tolist(), champion.reference, key, champion)
        now, without_it = (
            assign_customers(features, features["customer_id"], model, before, champion, MARGIN_RULE)
            for model in (challenger, champion)
        )
        if (now["is_held"] & ~without_it["is_held"]).any():
            break
    changed = {"period": key, "model_version": challenger.model_version, "model_json": challenger.to_json()}
    tables.write(SEGMENTATION_MODEL, pl.DataFrame([row | changed], schema=SEGMENTATION_MODEL.schema), {key: 1})
    decided = tables.read(PROMOTION_DECISION, [key]).with_columns(
        decision=pl.lit("PROMOTE"), model_version=pl.lit(challenger.model_version)
    )
    tables.write(PROMOTION_DECISION, decided, {key: 1})
    return champion, challenger


MARGIN_RULE = ModelSettings().margin_rule


def settings_of(home: Path, config: str = QUICK) -> Settings:
    path = home.with_name("settings.toml")
    path.write_text(config)
    return load_settings(path, home=home, environment={})


def home_with(home: Path, source: Path, config: str = QUICK) -> OpenHome:
    """What would have to be made if the home's source were this."""
    settings = settings_of(home, config)
    deliveries = DeliveryStore(home / "deliveries")
    delivery = deliveries.accept(source, settings.source, progress=lambda _: None)
    deliveries.set_current(CurrentSource((delivery,), description=str(source)))
    return OpenHome(settings)


def stale_in(opened: OpenHome) -> dict[str, tuple[str, ...]]:
    keys = {**dict.fromkeys(BY_PERIOD, PERIODS), **dict.fromkeys(BY_SNAPSHOT, SNAPSHOTS)}
    stale = {name: opened.fingerprints.stale([name], keys[name]) for name in keys}
    return {name: found for name, found in stale.items() if found}


def executed(home: Path, stage: Stage) -> None:
    """One job, as the command runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="custseg_")
        with OpenHome(settings_of(home)).locked() as locked:
            JobRunner(locked, lambda _: None).execute(stage, locked)


def frames_of(home: Path, name: str) -> dict[str, pl.DataFrame]:
    """The partitions of a table, the rows of each in one order; none where there is no table yet."""
    folder = home / "tables" / name
    return partitions(folder) if DeltaTable.is_deltatable(str(folder)) else {}


def state_of(home: Path) -> dict[str, Any]:
    """Everything by which a change of a home would show, but for the order of what is in it."""
    store = TableStore(home / "tables")
    files = {}
    for name in TABLES:
        if store.version_of(name) is not None:
            table = DeltaTable(str(home / "tables" / name))
            for path in table.file_uris():
                file = Path(path)
                files[f"{name}/{file.parent.name}/{file.name}"] = file.stat().st_size
    return {
        "tables": {name: store.version_of(name) for name in TABLES},
        "fingerprints": {
            (name, key): store.fingerprint_of(name, key) for name in TABLES for key in [*PERIODS, "2024-05-01"]
        },
        "files": files,
        "release": releases.current(home / "releases"),
        "runs": sorted(path.name for path in (home / "dagster").rglob("*.db")),
    }


def names_in(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.name != "lock")


def command(home: Path, source: Path) -> list[str]:
    """A run in a process of its own, settings as everywhere here."""
    config = home.with_name("quick.toml")
    config.write_text(QUICK)
    return [sys.executable, "-m", "custseg_assets.cli", "run", "--source", str(source), "--config", str(config)]


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join(part for part in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if part)
    return {**os.environ, "CUSTSEG_HOME": str(home), "PYTHONPATH": path}


def manifest_of(home: Path) -> releases.ReleaseManifest:
    return releases.read_manifest(home / "releases", releases.current(home / "releases") or "")


def assert_same_partitions(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> None:
    assert left.keys() == right.keys()
    for key, rows in left.items():
        assert_frame_equal(rows, right[key], check_exact=True)


def unfinished_runs(home: Path) -> list[str]:
    """What the history, and MLflow, still hold to be running."""
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        running = [run.run_id for run in instance.get_runs() if not run.is_finished]
    registry = ModelRegistry(settings_of(home).tracking, home / "mlflow")
    experiment = registry.client().get_experiment_by_name(registry.experiment)
    assert experiment is not None
    found = registry.client().search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    return running + [run.info.run_id for run in found]


def test_a_run_takes_in_what_the_service_recorded_and_says_what_was_asked(shop_home: Path) -> None:
    """Lookups and scores of a real service on the home, dated back to the week before last so that it is over."""
    from custseg_serving.app import create_app
    from custseg_serving.settings import ServingSettings

    application = create_app(ServingSettings(shop_home, is_open=True))
    client = application.test_client()
    assigned = TableStore(shop_home / "tables").read(SEGMENT_ASSIGNMENTS, SNAPSHOTS[-1:])
    for customer in [*assigned["customer_id"], "nobody"]:
        client.get(f"/v1/customers/{customer}/segment")
    row = {"recency_days": 3, "frequency_orders": 2, "monetary_net": 90.0}
    assert client.post("/v1/score", json={"customers": [row, row]}).status_code == 200
    application.extensions["custseg"].stop()
    folder = shop_home / "prediction_log"
    day = (datetime.now(UTC).date() - timedelta(days=14)).isoformat()
    for path in folder.glob("*.jsonl"):
        records = [{**json.loads(line), "at": f"{day}T10:00:00.000Z"} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(record) + "\n" for record in [*records, {"not": "a record"}]))

    outcome = custseg(shop_home, "run", config=QUICK)
    assert outcome.status == 0, outcome.err
    assert "check rejected_predictions.lines_readable failed" in outcome.err
    assert not list(folder.iterdir())
    n_asked = assigned.height + 1 + 2
    assert custseg(shop_home, "export", "prediction_log", "--out", shop_home / "log.csv").out.endswith(
        f": {n_asked} rows of prediction_log\n"
    )
    found = pl.read_csv(shop_home / "log.csv", infer_schema=False).filter(kind="lookup", outcome="found")
    both = found.join(assigned, on="customer_id")
    assert both.height == assigned.height
    assert both["segment_id"].to_list() == both["segment_id_right"].to_list()
    traffic = frames_of(shop_home, "prediction_traffic")[day].select("kind", "n_requests", "n_found", "n_unknown")
    assert traffic.rows() == [("lookup", assigned.height + 1, assigned.height, 1), ("score", 1, 2, 0)]
    [(week, drift)] = frames_of(shop_home, "prediction_drift").items()
    assert week <= day
    assert set(drift["model_version"]) == set(assigned["model_version"])
    assert drift["n_customers"][0] == assigned.filter(~pl.col("is_rule_segment")).height + 2
    assert len(frames_of(shop_home, "rejected_predictions")) == 1
    assert custseg(shop_home, "run", config=QUICK).out.startswith("\nNothing has changed")
