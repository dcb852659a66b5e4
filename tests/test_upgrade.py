"""A home that an earlier version filled is as good as new: everything goes on from it.

What is made again is what means something else now: segments since a move has to be clear or to last, and so what is
made from them.

``tests/data/home-0.1.tar.xz`` was made by the commit before the package was put into rooms: ``custseg run`` on the log
beside it, then ``custseg retrain``; logs of single Dagster runs and the pages of Data Docs were left out for size.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import dagster as dg
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.definitions import build_defs
from custseg_assets.domain.schemas import SEGMENTATION_MODEL
from custseg_assets.home.open import INGESTED, OpenHome
from custseg_assets.home.plan import SEGMENTED, TABLES_OF_JOB
from custseg_assets.settings import load_settings
from custseg_assets.stores.tables import TableStore
from custseg_serving.app import create_app
from custseg_serving.settings import ServingSettings
from tests.support.files import DATA
from tests.support.shops import Outcome, custseg, quiet

FILLED = DATA / "home-0.1.tar.xz"
SNAPSHOTS = ["2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01"]
RELEASE, CHAMPION, CHALLENGER = "r-2024-05-01-26c492b3", "m-2024-02-01-802ca29b", "m-2024-05-01-9a78a408"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the filled ``home``, its ``log.csv`` and its ``custseg.toml``."""
    with tarfile.open(FILLED) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(shop: Path, *arguments: str) -> Outcome:
    return custseg(shop / "home", *arguments, config=shop / "custseg.toml")


def fingerprints_of(shop: Path) -> dict[tuple[str, str], int | None]:
    """What every partition of a snapshot or a period was made from, by table and key."""
    home = OpenHome(load_settings(shop / "custseg.toml", home=shop / "home"))
    return {
        (name, key): home.tables.fingerprint_of(name, key)
        for name in (*INGESTED, *TABLES_OF_JOB["snapshot"])
        for key in home.calendar.period_keys
    }


def stages_of(outcome: Outcome) -> list[str]:
    """The runs that a command says it made."""
    assert outcome.status == 0, outcome.err
    said = [line for line in outcome.err.splitlines() if not line.startswith(" ")]
    return [line for line in said if "2024" in line and not line.startswith("log.csv")]


def test_segments_and_what_is_made_from_them_are_made_again_and_nothing_else(shop: Path) -> None:
    before = fingerprints_of(shop)
    models = TableStore(shop / "home" / "tables").read(SEGMENTATION_MODEL)
    assert stages_of(command(shop, "run")) == [f"segment {SNAPSHOTS[0]} … {SNAPSHOTS[-1]}"]
    after = fingerprints_of(shop)
    assert {where for where in before if before[where] != after[where]} == {
        (name, key) for name in SEGMENTED for key in SNAPSHOTS
    }
    assert_frame_equal(TableStore(shop / "home" / "tables").read(SEGMENTATION_MODEL), models)
    state = json.loads(command(shop, "status", "--json").out)
    assert (state["stale"], state["champion"]["model_version"]) == ({}, CHAMPION)
    assert state["release"] != RELEASE
    assert "Nothing has changed: every table is up to date." in command(shop, "run").out


def test_the_status_is_as_it_was_left_but_for_what_has_to_be_made_again(shop: Path) -> None:
    state = json.loads(command(shop, "status", "--json").out)
    assert state["stale"] == dict.fromkeys(SEGMENTED, SNAPSHOTS)
    assert (state["release"], state["champion"]["model_version"]) == (RELEASE, CHAMPION)
    assert state["rows"]["clean"] == 1666


@pytest.mark.parametrize(
    ("sensor", "requested"),
    [("landing", []), ("stale_partitions", ["segment"]), ("retrain_on_drift", []), ("prediction_log", [])],
)
def test_the_sensors_ask_for_the_segments_and_for_nothing_else(shop: Path, sensor: str, requested: list[str]) -> None:
    settings = load_settings(shop / "custseg.toml", home=shop / "home")
    with quiet(), dg.DagsterInstance.from_config(str(shop / "home" / "dagster")) as instance:
        repository = build_defs(settings=settings).get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        tick = repository.get_sensor_def(sensor).evaluate_tick(context)
    assert [str(request.run_key).split()[0] for request in tick.run_requests or []] == requested
    assert requested or tick.skip_message


def test_the_release_is_served(shop: Path) -> None:
    application = create_app(ServingSettings(shop / "home", is_open=True))
    try:
        answer = application.test_client().get("/v1/customers/A000/segment")
    finally:
        application.extensions["custseg"].stop()
    assert answer.status_code == 200
    assert (answer.json["release_id"], answer.json["model_version"]) == (RELEASE, CHAMPION)


def test_a_later_month_goes_on_from_it(shop: Path) -> None:
    log = shop / "log.csv"
    header, *lines = log.read_text().splitlines()
    may = [line for line in lines if "2024-05-" in line]
    june = [line.replace("2024-05-", "2024-06-").replace(",2405", ",2406") for line in may if "-31 " not in line]
    log.write_text("\n".join([header, *lines, *june]) + "\n")
    # The segments of May, on which a challenger was trained, are made with the others; nothing is trained on it again.
    assert stages_of(command(shop, "run")) == [
        "ingest 2024-06-01",
        "features 2024-06-01",
        "scale 2024-06-01",
        "hold 2024-06-01",
        "segment 2024-02-01 … 2024-06-01",
    ]
    assert "Nothing has changed: every table is up to date." in command(shop, "run").out


def test_a_person_may_still_promote_the_challenger(shop: Path) -> None:
    outcome = command(shop, "promote", CHALLENGER, "--why", "It covers enough.")
    assert outcome.status == 0, outcome.err
    state = json.loads(command(shop, "status", "--json").out)
    assert state["champion"] == {"trained_on": "2024-05-01", "model_version": CHALLENGER}
    assert state["stale"] == {}
