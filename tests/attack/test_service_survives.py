"""The service goes on answering, right or not at all, when releases or its prediction log are damaged or removed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from custseg_assets.stores.customer_lists import IDS
from custseg_assets.stores.releases import CURRENT, MANIFEST
from custseg_serving import cli
from tests.support.releases import make_other_content, make_release
from tests.support.server import LOOKUP, StartApp, is_error, metric, prediction_records, readiness, serving, stop_app
from tests.support.waiting import wait_until


@pytest.fixture
def both(served_home: Path) -> tuple[str, str]:
    """Ids of the release before and of the one to serve."""
    root = served_home / "releases"
    first = (root / CURRENT).read_text().strip()
    os.utime(root / first / MANIFEST, (1, 1))
    return first, make_release(root, make_other_content())


def overwrite(path: Path) -> None:
    """Overwrite a file in place, with as many bytes of something else."""
    n_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xa5" * n_bytes)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def damage_last_release(root: Path, release_id: str) -> None:
    cut(root / release_id / "customers.lmdb")


def remove_last_release(root: Path, release_id: str) -> None:
    shutil.rmtree(root / release_id)


def write_nonsense(root: Path, release_id: str) -> None:
    assert release_id
    (root / CURRENT).write_bytes(b"../../evil\xff")


@pytest.mark.parametrize("damage", [damage_last_release, remove_last_release])
def test_a_starting_worker_serves_the_newest_release_that_verifies(
    start_app: StartApp, served_home: Path, both: tuple[str, str], damage: Callable[[Path, str], None]
) -> None:
    damage(served_home / "releases", both[1])
    client = start_app().test_client()
    assert client.get(LOOKUP).get_json()["release_id"] == both[0]
    found = readiness(client)
    assert (found["status"], found["release_id"], found["refused"]["release_id"]) == ("degraded", *both)


def test_a_starting_worker_serves_the_newest_release_where_current_is_nonsense(
    start_app: StartApp, served_home: Path, both: tuple[str, str]
) -> None:
    write_nonsense(served_home / "releases", both[1])
    client = start_app().test_client()
    assert readiness(client)["release_id"] == both[1]
    assert "no release id" in readiness(client)["refused"]["reason"]
    (served_home / "releases" / CURRENT).write_text(both[0])
    # What was refused is forgotten a moment after another release is served.
    wait_until(lambda: (readiness(client)["release_id"], readiness(client)["status"]) == (both[0], "ready"))


def test_readyz_looks_customers_up(start_app: StartApp, served_home: Path, both: tuple[str, str]) -> None:
    client = start_app(poll_seconds=60).test_client()
    assert readiness(client)["status"] == "ready"
    overwrite(served_home / "releases" / both[1] / "customers.lmdb")
    assert is_error(client.get("/readyz"), 503, "not_ready")


@pytest.mark.parametrize("name", ["customers.lmdb", IDS])
def test_an_overwritten_file_is_noticed_and_the_release_before_answers(
    start_app: StartApp, served_home: Path, both: tuple[str, str], name: str
) -> None:
    client = start_app().test_client()
    assert client.get(LOOKUP).get_json()["release_id"] == both[1]
    overwrite(served_home / "releases" / both[1] / name)
    wait_until(lambda: client.get("/readyz").status_code == 200 and readiness(client)["release_id"] == both[0])
    assert client.get(LOOKUP).get_json()["release_id"] == both[0]
    assert readiness(client)["status"] == "degraded"


def test_without_another_release_an_overwritten_one_makes_the_service_unready(
    start_app: StartApp, served_home: Path
) -> None:
    release_id = (served_home / "releases" / CURRENT).read_text().strip()
    client = start_app().test_client()
    overwrite(served_home / "releases" / release_id / "customers.lmdb")
    wait_until(lambda: client.get(LOOKUP).status_code == 503)
    assert is_error(client.get(LOOKUP), 503, "not_ready")

    def refused() -> Any:
        return client.get("/readyz").get_json()["error"]["details"]["refused"]

    wait_until(refused)
    assert refused()["release_id"] == release_id


def test_touching_a_file_of_the_served_release_interrupts_nothing(
    start_app: StartApp, served_home: Path, both: tuple[str, str]
) -> None:
    client = start_app().test_client()
    os.utime(served_home / "releases" / both[1] / "customers.lmdb")
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert client.get(LOOKUP).get_json()["release_id"] == both[1]
    assert readiness(client)["status"] == "ready"


def test_a_server_whose_release_is_cut_goes_on_with_the_one_before(served_home: Path, both: tuple[str, str]) -> None:
    with serving(served_home) as server:
        assert json.loads(server.get(LOOKUP)[1])["release_id"] == both[1]
        cut(served_home / "releases" / both[1] / "customers.lmdb")

        def is_served_before() -> bool:
            try:
                status, body = server.get(LOOKUP)
            except OSError:
                return False  # a worker that read beyond the file's end has died
            return status == 200 and json.loads(body)["release_id"] == both[0]

        wait_until(lambda: all(is_served_before() for _ in range(10)), seconds=20)


def test_a_removed_prediction_log_is_counted_said_and_begun_again(start_app: StartApp, served_home: Path) -> None:
    application = start_app()
    client, folder = application.test_client(), served_home / "prediction_log"
    for _ in range(36):
        client.get(LOOKUP)
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 36)
    shutil.rmtree(folder)
    wait_until(lambda: readiness(client)["n_predictions_dropped"] == 36)
    assert readiness(client)["status"] == "degraded"
    assert metric(client, 'custseg_predictions_dropped_total{reason="removed"}') == 36
    client.get(LOOKUP)
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 37)
    stop_app(application)
    assert [one["kind"] for one in prediction_records(folder)] == ["dropped", "lookup"]


def test_a_folder_that_cannot_be_written_is_said_before_the_first_request(
    start_app: StartApp, served_home: Path
) -> None:
    folder = served_home / "prediction_log"
    folder.write_text("no folder")
    application = start_app()
    client = application.test_client()
    found = readiness(client)
    assert (found["status"], found["n_predictions_dropped"]) == ("degraded", 0)
    assert "--prediction-log" in found["prediction_log"]
    client.get(LOOKUP)
    wait_until(lambda: readiness(client)["n_predictions_dropped"] == 1)
    folder.unlink()
    client.get(LOOKUP)
    wait_until(lambda: readiness(client)["prediction_log"] is None)
    stop_app(application)
    assert [one["kind"] for one in prediction_records(folder)] == ["dropped", "lookup"]


def test_the_prediction_log_may_be_elsewhere(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("log")
    options = cli._parser().parse_args(["--home", str(served_home), "--prediction-log", str(elsewhere)])
    assert cli.settings_from(options, {}).prediction_log == elsewhere
