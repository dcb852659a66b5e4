"""The command ``custseg-serving`` with its workers: metrics, signals, swaps under load, and killed workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from custseg_assets.stores.release_writer import write_release
from custseg_assets.stores.releases import CURRENT, point_to
from custseg_serving.cli import _parser, main, settings_from
from tests.support.files import REPOSITORY
from tests.support.ports import free_port
from tests.support.releases import make_other_content, make_release
from tests.support.server import LOOKUP, RunningServer, prediction_records, serving
from tests.support.waiting import wait_until


def test_metrics_are_those_of_all_workers(served_home: Path) -> None:
    with serving(served_home) as server:
        for _ in range(50):
            assert server.get(LOOKUP)[0] == 200
        text = server.get("/metrics")[1].decode()
    counted = [
        float(line.split()[-1]) for line in text.splitlines() if "seconds_count" in line and "customer_id" in line
    ]
    assert counted == [50]


def test_a_stopped_server_answers_what_has_begun_and_writes_what_it_recorded(served_home: Path) -> None:
    with serving(served_home) as server:
        statuses: list[int] = []
        is_stopping = threading.Event()

        def ask() -> None:
            while not is_stopping.is_set():
                try:
                    statuses.append(server.get(LOOKUP)[0])
                except ConnectionError:
                    return

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=15) == 0
        is_stopping.set()
        for asker in askers:
            asker.join()
    assert set(statuses) == {200}
    assert len(prediction_records(served_home / "prediction_log")) == len(statuses)


def test_no_acknowledged_record_is_lost_when_workers_are_killed(served_home: Path) -> None:
    folder = served_home / "prediction_log"
    with serving(served_home) as server:
        for moment in range(20):
            for _ in range(5):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    server.get(LOOKUP)
            time.sleep(0.013 * moment)
            acknowledged = count_written(server)
            os.kill(server.workers()[moment % len(server.workers())], signal.SIGKILL)
            assert sum(len(path.read_bytes().splitlines()) for path in folder.glob("*.jsonl*")) >= acknowledged
        time.sleep(0.5)
        acknowledged = count_written(server)
        orphans = server.workers()
        server.process.kill()
        server.process.wait()
        for pid in orphans:
            # Workers end by themselves within a second or so when their server is gone.
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), seconds=20)  # type: ignore[misc]
    with serving(served_home) as server:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=15)
    assert not list(folder.glob("*.open"))
    assert len(prediction_records(folder)) >= acknowledged > 0


def count_written(server: RunningServer) -> int:
    """Records that the server says are on disk; asks again where a killed worker was to answer."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, text = server.get("/metrics")
            if status == 200:
                lines = [
                    line for line in text.decode().splitlines() if line.startswith("custseg_predictions_written_total")
                ]
                return int(float(lines[0].split()[-1])) if lines else 0


def test_swaps_under_load_give_no_failed_and_no_mixed_answer(served_home: Path) -> None:
    root = served_home / "releases"
    first = (root / CURRENT).read_text().strip()
    second = write_release(root, make_other_content()).release_id
    damaged = "r-2011-11-01-00000000"
    product_of = {first: "22423", second: "99999"}
    answers: list[tuple[int, bytes]] = []
    with serving(served_home, "--no-prediction-log") as server:
        is_over = threading.Event()

        def ask() -> None:
            with server.connect() as connection:
                while not is_over.is_set():
                    connection.request("GET", LOOKUP)
                    response = connection.getresponse()
                    answers.append((response.status, response.read()))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for _ in range(4):
            point_to(root, second)
            time.sleep(0.4)
            (root / CURRENT).write_text(damaged)
            time.sleep(0.4)
            point_to(root, first)
            time.sleep(0.4)
        is_over.set()
        for asker in askers:
            asker.join()
    release_ids: set[str] = set()
    for status, body in answers:
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        release_ids.add(answer["release_id"])
        assert answer["recommendations"][0]["product_id"] == product_of[answer["release_id"]]
    assert release_ids == {first, second}


def test_all_workers_take_a_new_release_over_within_two_seconds(served_home: Path) -> None:
    with serving(served_home, "--workers", "3") as server:
        second = make_release(served_home / "releases", make_other_content())
        time.sleep(2)
        for _ in range(30):
            assert json.loads(server.get(LOOKUP)[1])["release_id"] == second


def test_demo_shows_a_key_once_that_is_in_no_file(served_home: Path) -> None:
    with serving(served_home, "demo") as server:
        _, key = read_demo(server)
        token = key.split()[-1]
        assert server.get(LOOKUP)[0] == 401
        assert server.get(LOOKUP, {"X-API-Key": token})[0] == 200
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=15)
    assert not (served_home / "keys.json").exists()


def test_the_link_of_demo_logs_in_once_whichever_worker_is_asked(served_home: Path) -> None:
    with serving(served_home, "--workers", "3", "demo") as server:
        link, _ = read_demo(server)
        path = link.split()[-1].removeprefix(f"http://127.0.0.1:{server.port}")
        assert path.startswith("/login/")
        with server.connect() as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            assert (response.status, response.headers["Location"]) == (303, "/")
            cookie = response.headers["Set-Cookie"].partition(";")[0]
        for _ in range(10):
            assert server.get(path)[0] == 410
            assert server.get("/dashboard/data", {"Cookie": cookie})[0] == 200
            assert server.get("/dashboard/data")[0] == 401


def test_demo_of_an_empty_home_waits_for_a_release(tmp_path: Path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "custseg_serving.cli",
        "--home",
        str(tmp_path),
        "--port",
        str(free_port()),
        "demo",
    ]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().decode() for _ in range(5)]
        server = RunningServer(process, int(arguments[-2]))
        key = {"X-API-Key": said[-1].split()[-1]}
        try:
            wait_until(lambda: responds(server, "/", 200))
            assert "There is no release" in said[0]
            status, body = server.get("/dashboard/data", key)
            assert (status, json.loads(body)["error"]["code"]) == (503, "not_ready")
            assert "`custseg run` makes one" in json.loads(body)["error"]["message"]
            make_release(tmp_path / "releases")
            wait_until(lambda: responds(server, "/dashboard/data", 200, key))
        finally:
            process.send_signal(signal.SIGTERM)


def read_demo(server: RunningServer) -> tuple[str, str]:
    """The line of ``demo`` with the link to log in, and the one with the key."""
    assert server.process.stdout is not None
    lines = [server.process.stdout.readline().decode() for _ in range(4)]
    assert lines[0].startswith("Dashboard: http://127.0.0.1")
    assert lines[2] == f"API: http://127.0.0.1:{server.port}/docs\n"
    return lines[0], lines[3]


def responds(server: RunningServer, path: str, status: int, headers: dict[str, str] | None = None) -> bool:
    """Whether a path is answered with a status; not where no server listens yet."""
    try:
        return server.get(path, headers)[0] == status
    except OSError:
        return False


def test_a_vertex_container_is_reachable_but_only_for_predictions(
    served_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"AIP_HTTP_PORT": "8085", "AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/p"}
    settings = settings_from(_parser().parse_args(["--home", str(served_home)]), variables)
    assert not settings.is_loopback
    assert settings.port == 8085
    for name, value in {**variables, "AIP_HTTP_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with serving(served_home) as server:
        assert server.get("/h")[0] == 200
        assert server.get(LOOKUP)[0] == 401


def test_the_service_starts_light_and_without_the_pipeline() -> None:
    program = (
        "import sys, time; started = time.process_time(); import custseg_serving.app, custseg_serving.server\n"
        "print(time.process_time() - started); print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    forbidden = {"dagster", "mlflow", "great_expectations", "sklearn", "pandas", "polars", "matplotlib", "deltalake"}
    assert not forbidden & set(modules.split())
    assert float(seconds) < 1.5


@pytest.mark.parametrize("words", [["demo"], ["--open"]])
def test_a_port_that_is_taken_is_said_before_anything_else(
    words: list[str], served_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUSTSEG_HOME", str(served_home))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        options, verbs = (words, []) if words[0].startswith("-") else ([], words)
        assert main([*options, "--port", str(port), *verbs]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"custseg-serving: 127.0.0.1, port {port}, cannot be listened on (Address already in use); ")


def test_a_server_of_the_tests_ends_its_workers_with_their_master(served_home: Path) -> None:
    """Even those that cannot notice that their master is gone."""
    with serving(served_home) as server:
        wait_until(lambda: len(server.workers()) == 2, seconds=20)
        workers = server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
    for pid in workers:
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), seconds=20)  # type: ignore[misc]
