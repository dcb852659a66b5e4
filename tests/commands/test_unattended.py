"""A file lands under the real ``custseg ui``, and by itself a better model is trained, promoted, released and shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import dagster as dg
import pytest

from custseg_assets.domain import schemas
from custseg_assets.stores import releases
from tests.support.browser import open_page
from tests.support.dagster_history import newest_metadata
from tests.support.live import LiveHome, started_by
from tests.support.monthly_files import CONFIG, drop_file, monthly_files
from tests.support.shops import custseg

SEED, N_CUSTOMERS = 2, 2_000
NEWEST = "2025-01-01"
PATIENCE_SECONDS = 600


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveHome]:
    """The demo shop in the month after its change, and its next month's file dropped while ``custseg ui`` runs."""
    folder = tmp_path_factory.mktemp("unattended")
    home, config = folder / "home", folder / "custseg.toml"
    config.write_text(CONFIG, encoding="utf-8")
    files = dict(monthly_files(SEED, N_CUSTOMERS))
    newest = files.pop(NEWEST)
    for key, lines in files.items():
        drop_file(lines, home / "landing", key)
    outcome = custseg(home, "run", config=config)
    assert outcome.status == 0, outcome.err
    live = LiveHome(home, config, [sys.executable, "-m", "custseg_assets.cli"])
    assert served(live).model_version.startswith("m-2024-06-01-")
    try:
        live.start()
        assert live.wait(live.answers, PATIENCE_SECONDS), live.log.read_text()
        drop_file(newest, home / "landing", NEWEST)
        assert live.wait(lambda: served(live).model_version.startswith(f"m-{NEWEST}-"), PATIENCE_SECONDS), said(live)
        assert live.wait(lambda: live.due() is None, PATIENCE_SECONDS), said(live)
        yield live
    finally:
        live.stop()


def test_each_step_from_the_file_to_the_release_is_a_run_that_a_sensor_started(live: LiveHome) -> None:
    chain = [(run.job_name, started_by(run), run.status) for run in live.runs() if started_by(run) != "unknown"]
    assert chain == [
        ("take_in", "sensor landing", dg.DagsterRunStatus.SUCCESS),
        ("ingest", "sensor stale_partitions", dg.DagsterRunStatus.SUCCESS),
        ("snapshot", "sensor stale_partitions", dg.DagsterRunStatus.SUCCESS),
        ("retrain", "sensor retrain_on_drift", dg.DagsterRunStatus.SUCCESS),
        ("segment", "sensor stale_partitions", dg.DagsterRunStatus.SUCCESS),
    ]


def test_lasting_drift_led_to_a_challenger_that_the_gate_promoted(live: LiveHome) -> None:
    tables = live.opened.tables
    drift = tables.read(schemas.DRIFT_REPORT)
    assert drift.filter(period=NEWEST)["verdict"].unique().to_list() == ["breach"]
    decisions = dict(tables.read(schemas.RETRAIN_DECISION).select("period", "decision").iter_rows())
    assert [key for key, decision in decisions.items() if decision == "RETRAIN"] == [NEWEST]
    assert codes_of(live, "retrain_decision") == ["breaches_repeated", "cooldown_over", "budget_left", "sound_data"]
    row = tables.read(schemas.PROMOTION_DECISION, [NEWEST]).row(0, named=True)
    assert (row["decision"], row["decided_by"]) == ("PROMOTE", "gate")
    assert row["champion_before"].startswith("m-2024-06-01-")
    # What made it better comes first; the rest are figures.
    codes = codes_of(live, "promotion_decision")
    assert (codes[:2], set(codes[2:])) == (["better_fit", "covers_more"], {"figure"})
    assert len(codes) == len(json.loads(row["reasons"]))
    assert served(live).model_version == row["model_version"]
    assert served(live).period == NEWEST


def test_the_promoted_model_says_where_it_comes_from_and_what_it_replaced(live: LiveHome) -> None:
    first, promoted = (version for _, version in live.opened.champions.promotions)
    tables, settings = live.opened.tables, live.opened.settings
    origin = newest_metadata(live.home, "promotion_decision")["origin"].value
    assert {name: origin[name] for name in ("model", "decision", "decided_by", "replaces")} == {
        "model": promoted,
        "decision": "PROMOTE",
        "decided_by": "gate",
        "replaces": first,
    }
    window = ["2024-08-01", "2024-09-01", "2024-10-01", "2024-11-01", "2024-12-01", NEWEST]
    assert list(origin["data_versions"]["clean_transactions"]) == window
    assert f"{NEWEST}.csv" in origin["files"]
    made_from = f"{tables.fingerprint_of('customer_features', NEWEST):x}"
    assert origin["data_versions"]["customer_features"] == {NEWEST: made_from}
    assert origin["code"] == served(live).git_revision
    assert origin["settings"]["model"] == settings.model.model_dump(mode="json")
    assert origin["settings"]["promotion"] == asdict(settings.promotion)
    assert origin["checks_held"]["customer_features"]
    assert origin["warnings"] == {}
    registry = live.opened.registry
    version = registry.client().get_model_version_by_alias(registry.registered_model, "champion")
    run = registry.client().get_run(version.run_id)
    assert version.tags["custseg.model_version"] == promoted
    assert run.info.status == "FINISHED"
    told = {name: run.data.tags[name] for name in ("decision", "decided_by", "replaces")}
    assert told == {"decision": "PROMOTE", "decided_by": "gate", "replaces": first}
    assert run.data.params["data.customer_features"] == made_from
    assert run.data.params["trained_on"] == NEWEST


def test_dagsters_timeline_shows_the_runs(live: LiveHome) -> None:
    with open_page() as (page, errors):
        page.goto(live.address("/overview/activity/timeline"))
        for job in ("take_in", "ingest", "snapshot", "retrain", "segment"):
            page.get_by_text(job, exact=True).first.wait_for(timeout=PATIENCE_SECONDS * 1000)
        assert errors == []


def served(live: LiveHome) -> releases.ReleaseManifest:
    root = live.home / "releases"
    return releases.read_manifest(root, str(releases.current(root)))


def codes_of(live: LiveHome, decision: str) -> list[str]:
    """Codes of the reasons of the newest decision."""
    codes: list[str] = newest_metadata(live.home, decision)["reason_codes"].value
    return codes


def said(live: LiveHome) -> str:
    """What is left to do, and the end of what ``custseg ui`` wrote."""
    return json.dumps({"due": str(live.due()), "log": live.log.read_text()[-3000:]}, indent=1)
