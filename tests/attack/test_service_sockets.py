"""Slow, silent, chunked, pipelined and oversized requests: refused or answered, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import LOOKUP, RunningServer, serving

REQUEST = f"GET {LOOKUP} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    from tests.support.releases import make_release

    home: Path = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    with serving(home, "--no-prediction-log") as running:
        yield running


@contextlib.contextmanager
def connections(server: RunningServer, n: int, content: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that have sent this and send nothing more."""
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(n)
        ]
        for one in opened:
            one.sendall(content)
        yield opened


def said(connection: socket.socket) -> bytes:
    """All that the server says until it closes the connection."""
    content = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            content += part
    return content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GET / HT",
        REQUEST[:-2],
        b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["silent", "in the line", "in the head", "in the body"],
)
def test_clients_that_are_slow_make_nobody_wait(server: RunningServer, content: bytes) -> None:
    with connections(server, 64, content):
        seconds = []
        for _ in range(20):
            started = time.perf_counter()
            assert server.get(LOOKUP)[0] == 200
            seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds) < 0.5
    assert max(seconds) < 3


def test_many_idle_connections_make_nobody_wait_and_are_closed(server: RunningServer) -> None:
    with connections(server, 400, b"") as opened:
        started = time.perf_counter()
        assert all(server.get(LOOKUP)[0] == 200 for _ in range(20))
        assert time.perf_counter() - started < 5
        assert said(opened[0]) == b""
        assert time.perf_counter() - started < 15


def test_a_request_in_pieces_is_answered(server: RunningServer) -> None:
    with connections(server, 1, REQUEST[:10]) as [connection]:
        for part in (REQUEST[10:20], REQUEST[20:-3], REQUEST[-3:]):
            time.sleep(0.05)
            connection.sendall(part)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_all_answered(server: RunningServer) -> None:
    with connections(server, 1, REQUEST * 5 + REQUEST[:20]) as [connection]:
        time.sleep(0.2)
        connection.sendall(REQUEST[20:].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert said(connection).count(b"HTTP/1.1 200") == 6


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"411"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"Content-Length: 3000000\r\n\r\n" + b"x" * 100_000, b"413"),
        (b"X-Long: " + b"x" * 70_000, b"431"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", b"400"),
    ],
    ids=["chunked", "chunked and slow", "too large", "endless head", "two lengths"],
)
def test_what_is_not_read_is_refused_at_once_and_clearly(server: RunningServer, headers: bytes, status: bytes) -> None:
    started = time.perf_counter()
    head = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with connections(server, 1, head + headers) as [connection]:
        assert connection.recv(65_536).startswith(b"HTTP/1.1 " + status)
    assert time.perf_counter() - started < 2


def test_a_client_that_waits_to_be_told_to_go_on_is_told(server: RunningServer) -> None:
    body = b'{"customer_ids": ["12347"]}'
    head = (
        b"POST /v1/customers/segments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n"
    )
    with connections(server, 1, head) as [connection]:
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert b"HTTP/1.1 200" in said(connection)
