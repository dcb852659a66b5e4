"""``custseg retrain``, and a person's word about a challenger: ``promote`` and ``rollback``."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.commands.run import Runner
from custseg_assets.domain import schemas
from custseg_assets.domain.segments.clustering import visible_to_kmeans
from custseg_assets.domain.segments.model import RFM, model_from_json
from custseg_assets.home.plan import due_retrain
from custseg_assets.stores import releases
from tests.support.dagster_history import newest_metadata
from tests.support.homes import open_quick
from tests.support.shops import QUICK, FilledShop, custseg, shop_log, write_log

SNAPSHOTS = ["2024-02-01", "2024-03-01", "2024-04-01"]
KEY = SNAPSHOTS[-1]


def test_a_retrain_out_of_process_is_judged_and_stays_in_the_history(shop_home: Path) -> None:
    outcome = custseg(shop_home, "retrain", config=QUICK)
    assert outcome.status == 0, outcome.err
    made = open_quick(shop_home)
    row = decision_of(shop_home)
    assert row["model_version"].startswith(f"m-{KEY}-")
    reasons = json.loads(row["reasons"])
    assert outcome.out == "\n  ".join([f"HOLD {row['model_version']}", *reasons]) + "\n"
    assert reasons[0] == "there is no snapshot yet that could tell what its segments foresee"
    assert reasons[1].startswith("it covers more customers: ")
    codes = newest_metadata(shop_home, "promotion_decision")["reason_codes"].value
    assert codes == ["validity_unknown", "covers_more"]
    assert "k = 3" in outcome.err  # the trainer's own lines
    assert made.champions.is_retrained(KEY)
    # What was trained is history: the next run leaves it alone.
    again = custseg(shop_home, "run", config=QUICK)
    assert "Nothing has changed" in again.out
    due = due_retrain(made, pl.DataFrame([{"period": KEY, "decision": "RETRAIN", "reasons": "[]"}]))
    assert due == f"a challenger was trained on {KEY} and decided about already"


def test_the_card_and_the_rules_of_a_retrained_model_are_of_the_customers_it_was_trained_on(shop_home: Path) -> None:
    assert custseg(shop_home, "retrain").status == 0
    home = open_quick(shop_home)
    trained = home.tables.read(schemas.SEGMENTATION_MODEL, [KEY]).row(0, named=True)
    model, first = model_from_json(trained["model_json"]), home.champions.model_before(KEY)
    features = home.tables.read(schemas.CUSTOMER_FEATURES, [KEY])
    seen = features.filter(visible_to_kmeans(features, model.features))
    assert seen.height != first.reference.n_customers
    assert f" {seen.height:,} customers; those whose net spend" in trained["model_card"]
    assert (
        f"Measured on {first.reference.n_customers:,} customers of the first model's snapshot." in trained["model_card"]
    )
    clusters = model.score(seen.select(model.features).cast(pl.Float64).to_numpy()).cluster
    kept = [segment for segment in model.segments if segment.segment_id in first.cluster_of]
    assert kept
    for segment in kept:
        own = seen.filter(pl.Series(clusters == segment.cluster))
        recency, orders, spend = (own[name].median() for name in RFM)
        medians = f"(medians: recency {recency:,.0f} days, orders {orders:g}, net spend {spend:,.0f})"
        assert medians in segment.naming_rule
        assert f"| {segment.name} | {segment.naming_rule} |" in trained["model_card"]


def test_a_retrain_in_an_open_period_is_of_the_closed_snapshot_and_tells_what_was_decided_about_it(
    filled_shop: FilledShop, tmp_path: Path
) -> None:
    home = shutil.copytree(filled_shop.home, tmp_path / "home")
    longer = shop_log(5).filter(pl.col("invoiced_at") < datetime(2024, 5, 9))
    ran = custseg(home, "run", "--source", write_log(longer, tmp_path / "longer.csv"), config=QUICK)
    assert ran.status == 0, ran.err
    outcome = custseg(home, "retrain", config=QUICK)
    assert outcome.status == 0, outcome.err
    row = open_quick(home).tables.read(schemas.PROMOTION_DECISION, [KEY]).row(0, named=True)
    assert row["model_version"].startswith(f"m-{KEY}-")
    assert outcome.out.splitlines()[0] == f"{row['decision']} {row['model_version']}"
    assert open_quick(home).newest_snapshot() == "2024-05-01"
    assert custseg(home, "run", config=QUICK).out.startswith("\nNothing has changed")


def test_a_person_puts_a_challenger_in_force_and_takes_it_back(
    shop_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, before = open_quick(shop_home).champions.promotions[-1][1], served(shop_home)
    assert custseg(shop_home, "retrain", config=QUICK).status == 0
    version = open_quick(shop_home).tables.read(schemas.SEGMENTATION_MODEL, [KEY])["model_version"].item()
    # The gate does not promote it.
    assert open_quick(shop_home).champions.promotions[-1][1] == first != version
    promoted = custseg(shop_home, "promote", version, "--by", "Ada", "--why", "I want it", config=QUICK)
    assert promoted.status == 0, promoted.err
    assert promoted.out == f"{version} is in force instead of {first}\n"
    row = decision_of(shop_home)
    assert (row["decision"], row["decided_by"]) == ("PROMOTE", "Ada")
    assert json.loads(row["reasons"])[:2] == ["I want it", "Before that, gate decided HOLD:"]
    assert decided_in_registry(shop_home) == {"decision": "PROMOTE", "decided_by": "Ada", "replaces": first}
    shown = newest_metadata(shop_home, "promotion_decision")
    assert (shown["decision"].value, shown["decided_by"].value, shown["why"].value) == ("PROMOTE", "Ada", "I want it")
    # Codes are for what the gate finds; a person gives a sentence.
    assert "reason_codes" not in shown
    origin = shown["origin"].value
    assert (origin["model"], origin["decided_by"], origin["replaces"]) == (version, "Ada", first)
    assert list(origin["data_versions"]["clean_transactions"]) == SNAPSHOTS[1:]
    assert origin["settings"]["model"]["k_range"] == [3, 4]
    assert served(shop_home).model_version == version
    assert champion_in_registry(shop_home) == version
    follow = Runner.follow
    at_once: list[str] = []

    def note_release_and_follow(*arguments: Any) -> Any:
        at_once.append(served(shop_home).release_id)
        return follow(*arguments)

    monkeypatch.setattr(Runner, "follow", note_release_and_follow)
    back = custseg(shop_home, "rollback", "--by", "Ada", "--why", "worse after all", config=QUICK)
    assert back.status == 0, back.err
    put_back = f"release {before.release_id} was put back, then remade"
    assert back.out == f"{first} is in force again instead of {version}; {put_back}\n"
    # The release that was kept is served before anything is made anew.
    assert at_once == [before.release_id]
    after = served(shop_home)
    assert after.model_version == first
    assert champion_in_registry(shop_home) == first
    # It is the release of before, but for the history, which now has the training of the challenger.
    assert (after.period, after.data_versions) == (before.period, before.data_versions)
    changed = {name for name in {*after.files, *before.files} if after.files.get(name) != before.files.get(name)}
    assert changed == {releases.HISTORY}
    assert "Nothing has changed" in custseg(shop_home, "run", config=QUICK).out
    row = decision_of(shop_home)
    assert (row["decision"], row["decided_by"]) == ("ROLLBACK", "Ada")


def test_without_a_champion_before_there_is_nothing_to_roll_back_to(shop_home: Path) -> None:
    outcome = custseg(shop_home, "rollback", "--why", "no reason", config=QUICK)
    assert outcome.status == 2
    assert "expected a champion before the present one" in outcome.err


def test_a_challenger_that_is_not_there_cannot_be_promoted(shop_home: Path) -> None:
    outcome = custseg(shop_home, "promote", "m-2024-04-01-00000000", "--why", "no reason", config=QUICK)
    assert outcome.status == 2
    assert "there is none" in outcome.err


def test_a_trainer_that_takes_too_long_is_stopped_and_the_champion_stays(shop_home: Path) -> None:
    before = open_quick(shop_home).champions.promotions
    outcome = custseg(shop_home, "retrain", "--reconfigure", config=QUICK + "[training]\ntimeout_minutes = 0.001\n")
    assert outcome.status == 1
    assert "the trainer of 2024-04-01 was stopped after 0.001 minutes. The champion stays." in outcome.err
    assert open_quick(shop_home).champions.promotions == before
    # The record of the snapshot is put right by the next run, and nothing else was touched.
    after = custseg(shop_home, "run")
    assert after.status == 0, after.err
    assert open_quick(shop_home).champions.promotions == before


def decision_of(home: Path) -> dict[str, Any]:
    """The decision about the challenger of the newest snapshot."""
    return open_quick(home).tables.read(schemas.PROMOTION_DECISION, [KEY]).row(0, named=True)


def served(home: Path) -> releases.ReleaseManifest:
    return releases.verify(home / "releases", str(releases.current(home / "releases")))


def champion_in_registry(home: Path) -> str:
    registry = open_quick(home).registry
    version = registry.client().get_model_version_by_alias(registry.registered_model, "champion")
    return str(version.tags["custseg.model_version"])


def decided_in_registry(home: Path) -> dict[str, str]:
    """What MLflow's run of the champion says was decided about it, by whom, and what it replaced."""
    registry = open_quick(home).registry
    version = registry.client().get_model_version_by_alias(registry.registered_model, "champion")
    tags = registry.client().get_run(version.run_id).data.tags
    return {name: tags[name] for name in ("decision", "decided_by", "replaces")}
