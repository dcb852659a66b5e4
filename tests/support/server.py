"""The service for tests: as an application in this process, or as the command with its workers; and what to ask it.

Releases to serve are in ``tests.support.releases``.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from custseg_serving.app import create_app
from custseg_serving.service import SharedState
from custseg_serving.settings import ServingSettings
from tests.support.files import REPOSITORY
from tests.support.ports import free_port

LOOKUP = "/v1/customers/12347/segment"
ROW = {"recency_days": 62, "frequency_orders": 3, "monetary_net": 512.3}
"""Features of customer 12348 of ``tests.support.releases``, as a row to score."""

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

StartApp = Callable[..., Flask]
"""Creates an application on a test's home from settings; the fixture ``start_app`` stops it."""


@contextlib.contextmanager
def open_app(settings: ServingSettings, shared: SharedState | None = None) -> Iterator[Flask]:
    """Create an application in this process, and stop its threads afterwards."""
    application = create_app(settings, shared)
    try:
        yield application
    finally:
        stop_app(application)


def stop_app(application: Flask) -> None:
    """Stop an application's threads and write its logs."""
    application.extensions["custseg"].stop()


def is_error(response: TestResponse, status: int, code: str) -> bool:
    """Whether an error has this status and code; asserts that its body is the one that every error has."""
    body = response.get_json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message", "details"}, body
    assert response.headers["X-Request-ID"]
    return (response.status_code, body["error"]["code"]) == (status, code)


def readiness(client: FlaskClient) -> dict[str, Any]:
    """The answer of ``/readyz``."""
    body: dict[str, Any] = client.get("/readyz").get_json()
    return body


def metric(client: FlaskClient, name: str) -> float:
    """Value of the first metric in ``/metrics`` whose line starts with a name."""
    lines = client.get("/metrics").get_data(as_text=True).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def prediction_records(folder: Path) -> list[dict[str, Any]]:
    """Records in the finished files of a prediction log."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class RunningServer:
    """The command ``custseg-serving``, running."""

    process: subprocess.Popen[bytes]
    port: int

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        with self.connect() as connection:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()

    def post(self, path: str, content: Any) -> Any:
        """JSON of the answer to JSON."""
        with self.connect() as connection:
            connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

    def connect(self) -> contextlib.closing[http.client.HTTPConnection]:
        """A connection, closed by its context."""
        return contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10))

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def _die_with_parent() -> None:
    """Have Linux kill this process when the one that started it is gone; elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def serving(home: Path, *arguments: str, ready_status: int = 200) -> Iterator[RunningServer]:
    """Start ``custseg-serving``, wait until it is ready, and kill it and its workers afterwards.

    Where this process is killed, the server dies with it, and its workers when they see that.

    Args:
        home: of the server.
        arguments: of the command.
        ready_status: what ``/readyz`` answers when it has been waited for long enough.
    """
    port, log = free_port(), home / "server.log"
    has_access = "demo" in arguments or (home / "keys.json").exists() or "AIP_HTTP_PORT" in os.environ
    command = [sys.executable, "-m", "custseg_serving.cli", "--home", str(home), "--port", str(port)]
    if not has_access:
        command.append("--open")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *arguments],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # a group of its own, so that its workers can be ended with it
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (one system call, and nothing that a thread could have locked)
        )
    server = RunningServer(process, port)
    try:
        # A release has some thirty files, and where answers are lost each is asked for twice, a second apart.
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                if server.get("/readyz")[0] == ready_status:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
