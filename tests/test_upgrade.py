"""A home that an earlier version filled is as good as new: nothing is made again, and everything goes on from it.

``tests/data/home-0.1.tar.xz`` was made by the commit before the package was put into rooms: ``custseg run`` on the log
beside it, then ``custseg retrain``; logs of single Dagster runs and the pages of Data Docs were left out for size.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import dagster as dg
import pytest

from custseg_assets.definitions import build_defs
from custseg_assets.settings import load_settings
from custseg_serving.app import create_app
from custseg_serving.settings import ServingSettings
from tests.support.files import DATA
from tests.support.shops import Outcome, custseg, quiet

FILLED = DATA / "home-0.1.tar.xz"
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


def test_a_run_finds_nothing_to_do(shop: Path) -> None:
    outcome = command(shop, "run")
    assert outcome.status == 0, outcome.err
    assert "Nothing has changed: every table is up to date." in outcome.out


def test_the_status_is_as_it_was_left(shop: Path) -> None:
    state = json.loads(command(shop, "status", "--json").out)
    assert state["stale"] == {}
    assert (state["release"], state["champion"]["model_version"]) == (RELEASE, CHAMPION)
    assert state["rows"]["clean"] == 1666


@pytest.mark.parametrize("sensor", ["landing", "stale_partitions", "retrain_on_drift", "prediction_log"])
def test_the_sensors_find_nothing_to_do(shop: Path, sensor: str) -> None:
    settings = load_settings(shop / "custseg.toml", home=shop / "home")
    with quiet(), dg.DagsterInstance.from_config(str(shop / "home" / "dagster")) as instance:
        repository = build_defs(settings=settings).get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        tick = repository.get_sensor_def(sensor).evaluate_tick(context)
    assert tick.run_requests == []
    assert tick.skip_message


def test_the_release_is_served(shop: Path) -> None:
    application = create_app(ServingSettings(shop / "home"))
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
    outcome = command(shop, "run")
    assert outcome.status == 0, outcome.err
    made = [line for line in outcome.err.splitlines() if not line.startswith(" ")]
    assert [line for line in made if "2024" in line and not line.startswith("log.csv")] == [
        "ingest 2024-06-01",
        "snapshot 2024-06-01",
    ]


def test_a_person_may_still_promote_the_challenger(shop: Path) -> None:
    outcome = command(shop, "promote", CHALLENGER, "--why", "It covers enough.")
    assert outcome.status == 0, outcome.err
    state = json.loads(command(shop, "status", "--json").out)
    assert state["champion"] == {"trained_on": "2024-05-01", "model_version": CHALLENGER}
    assert state["stale"] == {}
