"""Nothing that lookups need lies in a shared temporary folder, and what is shared neither grows nor stops answers."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from custseg_assets.stores.releases import sha256_of
from custseg_serving import cli
from custseg_serving.digests import SharedDigests
from tests.support.releases import make_release
from tests.support.server import LOOKUP, StartApp, is_error, serving
from tests.support.waiting import wait_until


def run_folders(home: Path) -> list[Path]:
    return sorted((home / ".serving").glob("server-*"))


def test_killed_workers_leave_no_more_files(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(elsewhere))
        with serving(served_home) as server:
            [folder] = run_folders(served_home)
            before: set[str] = set()
            for number in range(6):
                for _ in range(20):
                    server.get(LOOKUP)
                if number == 1:
                    before = {path.name for path in folder.glob("*.db")}
                victim = server.workers()[0]
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda victim=victim: victim not in server.workers() and len(server.workers()) == 2)  # type: ignore[misc]
                wait_until(lambda: server.get("/readyz")[0] == 200)
            # A worker makes its files as it measures something.
            wait_until(lambda: {path.name for path in folder.glob("*.db")} == before)
            text = server.get("/metrics")[1].decode()
            counted = [
                float(line.split()[-1]) for line in text.splitlines() if "seconds_count" in line and "/segment" in line
            ]
            assert sum(counted) == 120, "a worker goes on counting where the one before it was killed"
            assert list(elsewhere.iterdir()) == []


def test_the_files_of_metrics_have_their_space_before_they_are_written(served_home: Path) -> None:
    with serving(served_home) as server:
        server.get(LOOKUP)
        files = list(run_folders(served_home)[0].glob("*.db"))
        assert files
        for path in files:
            assert path.stat().st_blocks * 512 >= path.stat().st_size, "a sparse file kills who writes to it"


def test_what_a_killed_server_left_is_removed_by_the_next(served_home: Path) -> None:
    with serving(served_home) as server:
        [left] = run_folders(served_home)
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        for pid in workers:
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), seconds=20)  # type: ignore[misc]
    assert left.exists()
    with serving(served_home):
        [folder] = run_folders(served_home)
        assert folder != left
        with serving(served_home):
            assert len(run_folders(served_home)) == 2, "that of a running server stays"


def test_a_removed_run_folder_stops_neither_answers_nor_new_releases(served_home: Path) -> None:
    with serving(served_home) as server:
        # Moved first: a server that writes into the folder while it is being removed would keep it from going.
        (served_home / ".serving").rename(served_home / "removed")
        shutil.rmtree(served_home / "removed")
        second = make_release(served_home / "releases", None)
        time.sleep(1)
        os.kill(server.workers()[0], signal.SIGKILL)
        time.sleep(2)
        for _ in range(20):
            status, body = server.get(LOOKUP)
            assert status == 200
            assert second.encode() in body


def test_a_folder_that_is_gone_or_cannot_be_made_is_an_error_only_where_it_was_named(
    served_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = SharedDigests(tmp_path / "gone")
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert digest(path) == sha256_of(path)
    with pytest.raises(FileNotFoundError):
        digest(tmp_path / "nothing")
    monkeypatch.setenv("CUSTSEG_HOME", str(served_home))
    assert cli.main(["--open", "--run-dir", "/dev/null/x"]) == 2


def test_openapi_is_made_once(start_app: StartApp, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start_app(max_batch=777).test_client()
    first = client.get("/openapi.json").data
    monkeypatch.setattr("custseg_serving.app.openapi_document", lambda *_: pytest.fail("made again"))
    assert client.get("/openapi.json").data == first


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", b'{"customers": [' + b"{}," * 690_000 + b"{}]}"),
        ("/v1/customers/segments", b'{"customer_ids": [' + b"{}," * 690_000 + b"{}]}"),
        ("/v1/customers/segments", b'{"customer_ids": [' + b"1," * 1_000_000 + b"1]}"),
        ("/v1/score", b'{"customers": [{' + b'"x":1,' * 300_000 + b'"x":1}]}'),
    ],
)
def test_a_body_with_far_too_much_is_refused_before_it_is_parsed(start_app: StartApp, path: str, body: bytes) -> None:
    client = start_app().test_client()
    started = time.process_time()
    answer = client.post(path, data=body, content_type="application/json")
    assert time.process_time() - started < 0.5
    assert is_error(answer, 422, "batch_too_large")


def test_quotes_that_do_not_end_are_looked_at_once(start_app: StartApp) -> None:
    body = b'{"customers": [' + b'\\"{},' * 400_000
    started = time.process_time()
    assert start_app().test_client().post("/v1/score", data=body, content_type="application/json").status_code == 400
    assert time.process_time() - started < 1


def test_ids_with_brackets_and_commas_are_not_taken_for_too_many(start_app: StartApp) -> None:
    client = start_app(max_batch=3).test_client()
    ids = ['{{{{"{{{{\\{{' + "," * 200] * 3
    assert client.post("/v1/customers/segments", json={"customer_ids": ids}).status_code == 200
