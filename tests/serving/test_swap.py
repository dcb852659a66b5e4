"""The service follows ``CURRENT`` to new releases and back, and refuses damaged ones."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from custseg_assets.stores.customer_lists import LIST_FILES, PREDICTION_FILES
from custseg_assets.stores.release_writer import write_release
from custseg_assets.stores.releases import CURRENT, REQUIRED_FILES, current, point_to, prune, sha256_of
from custseg_serving import digests
from custseg_serving.service import SharedState
from custseg_serving.settings import ServingSettings
from tests.support.releases import damage, make_content, make_other_content, make_release
from tests.support.server import LOOKUP, StartApp, metric, open_app, readiness
from tests.support.waiting import wait_until

FILES = REQUIRED_FILES | LIST_FILES | PREDICTION_FILES


def test_a_new_release_and_a_rollback_are_both_taken_over(start_app: StartApp, served_home: Path) -> None:
    root, client = served_home / "releases", start_app().test_client()
    first = current(root)
    second = make_release(root, make_other_content())
    wait_until(lambda: readiness(client)["release_id"] == second)
    answer = client.get(LOOKUP).get_json()
    assert (answer["release_id"], answer["recommendations"][0]["product_id"]) == (second, "99999")
    assert first is not None
    point_to(root, first)
    wait_until(lambda: readiness(client)["release_id"] == first)
    assert client.get(LOOKUP).get_json()["recommendations"][0]["product_id"] == "22423"


def test_a_damaged_release_is_refused_and_reported_while_the_old_one_answers(
    start_app: StartApp, served_home: Path
) -> None:
    root, client = served_home / "releases", start_app().test_client()
    first = current(root)
    second = write_release(root, make_other_content()).release_id
    damage(root / second / "customers.lmdb")
    (root / CURRENT).write_text(second)
    wait_until(lambda: readiness(client)["status"] == "degraded")
    refused = readiness(client)["refused"]
    assert refused["release_id"] == second
    assert "customers.lmdb is not as it was written" in refused["reason"]
    assert client.get(LOOKUP).get_json()["release_id"] == first
    assert metric(client, "custseg_release_is_refused") == 1

    # Written again it verifies, and is served without a change of CURRENT.
    write_release(root, make_other_content())
    wait_until(lambda: readiness(client)["status"] == "ready")
    assert readiness(client)["release_id"] == second
    assert metric(client, "custseg_release_is_refused") == 0


def test_nonsense_in_current_is_refused(start_app: StartApp, served_home: Path) -> None:
    root, client = served_home / "releases", start_app().test_client()
    for nonsense in (b"../../etc", b"\xff\xfe", b"r-2011-11-01-00000000", b"\x00"):
        (root / CURRENT).write_bytes(nonsense)
        wait_until(lambda: readiness(client)["status"] == "degraded")
        assert client.get(LOOKUP).status_code == 200


def test_the_first_release_makes_a_waiting_service_ready(start_app: StartApp, served_home: Path) -> None:
    shutil.rmtree(served_home / "releases")
    client = start_app().test_client()
    assert client.get("/readyz").status_code == 503
    make_release(served_home / "releases")
    wait_until(lambda: client.get("/readyz").status_code == 200)


def test_a_release_that_is_pruned_keeps_answering_until_it_is_replaced(start_app: StartApp, served_home: Path) -> None:
    root, client = served_home / "releases", start_app(poll_seconds=60).test_client()
    for number in range(3):
        make_release(root, replace(make_content(), model_card=str(number)))
    prune(root, keep=0)
    assert client.get(LOOKUP).status_code == 200


def record_hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have the service add every file that it hashes to a list."""
    hashed: list[Path] = []

    def hash_and_record(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(digests, "sha256_of", hash_and_record)
    return hashed


def test_a_shared_digest_is_worked_out_once_and_again_when_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = record_hashed(monkeypatch)
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    workers = [digests.SharedDigests(tmp_path) for _ in range(2)]
    # SHA-256 of "abc", from FIPS 180-2.
    assert {worker(path)[:16] for worker in workers} == {"ba7816bf8f01cfea"}
    assert len(hashed) == 1
    modified = path.stat().st_mtime_ns
    path.write_bytes(b"abd")
    os.utime(path, ns=(modified, modified))
    assert workers[1](path) == sha256_of(path)
    assert len(hashed) == 2


def test_a_digest_that_a_killed_worker_left_half_is_worked_out_again(tmp_path: Path) -> None:
    path, known = tmp_path / "file", tmp_path / "known"
    path.write_bytes(b"abc")
    known.mkdir()
    shared = digests.SharedDigests(known)
    assert shared(path) == sha256_of(path)
    [entry] = known.iterdir()
    entry.write_text("ba7816")
    assert shared(path) == sha256_of(path) == entry.read_text()


def test_a_release_is_hashed_when_it_appears_and_pointing_to_it_hashes_nothing(
    served_home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = record_hashed(monkeypatch)
    root, shared = served_home / "releases", digests.SharedDigests(tmp_path_factory.mktemp("known"))
    with open_app(
        ServingSettings(served_home, poll_seconds=0.02, is_open=True), SharedState(digest=shared, hashes_ahead=True)
    ) as app:
        client = app.test_client()
        hashed.clear()
        second = write_release(root, make_other_content()).release_id
        wait_until(lambda: len(hashed) == len(FILES))
        assert readiness(client)["release_id"] != second
        (root / CURRENT).write_text(second)
        wait_until(lambda: readiness(client)["release_id"] == second)
        assert len(hashed) == len(FILES)


def test_what_is_damaged_after_it_was_hashed_is_refused(served_home: Path, tmp_path: Path) -> None:
    root, shared = served_home / "releases", digests.SharedDigests(tmp_path)
    with open_app(
        ServingSettings(served_home, poll_seconds=0.02, is_open=True), SharedState(digest=shared, hashes_ahead=True)
    ) as app:
        client = app.test_client()
        second = write_release(root, make_other_content()).release_id
        assert len({shared(root / second / name) for name in FILES}) > 1
        damage(root / second / "customers.lmdb")
        (root / CURRENT).write_text(second)
        wait_until(lambda: readiness(client)["status"] == "degraded")
