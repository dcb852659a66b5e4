"""A container as Vertex AI runs it: it is probed, and started anew where nothing listens in time."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Self

from tests.support.files import REPOSITORY
from tests.support.ports import free_port

PROBES = 4
"""How many probes in a row may fail; they are ten seconds apart there, and whenever a test says so here."""


class ProbedContainer:
    """A program that is to listen on a port; ``with`` starts and ends it, and what it has started.

    Args:
        command: of the program; ``PORT`` in it is replaced by the port.
        environment: added to that of this process.

    Attributes:
        n_restarts: how often the platform has started it anew.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._port = free_port()
        self._command = [word.replace("PORT", str(self._port)) for word in command]
        self._environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
        self._n_failed = 0
        self.n_restarts = 0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def probe(self) -> None:
        """Connect once; kill the container and start it anew if that is one failure too many."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=5):
            self._n_failed = 0
            return
        self._n_failed += 1
        if self._n_failed == PROBES:
            self._n_failed = 0
            self.n_restarts += 1
            self._end()
            self._start()

    def status(self, route: str) -> int | None:
        """Status of the answer of a route; ``None`` if there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", route)
            return connection.getresponse().status
        return None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, so that its workers can be ended with it
        )

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
