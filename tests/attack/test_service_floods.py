"""Floods, hostile batches and silent clients leave the service to those who have a key."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from custseg_serving import worker
from custseg_serving.errors import ApiError
from custseg_serving.keys import KeyFile
from custseg_serving.worker import GuardedWorker
from tests.support.releases import make_release
from tests.support.server import LOOKUP, ROW, RunningServer, StartApp, is_error, serving
from tests.support.waiting import wait_until

# Every field is wrong, which takes a hundred times longer to refuse than to send.
WRONG_ROW = {f"f{number:05d}_{'x' * 36}": 1 for number in range(38)}
HOSTILE = json.dumps({"customers": [WRONG_ROW] * 900}, separators=(",", ":"))
HOSTILE_CUSTOMERS = len(HOSTILE) * 1_000 // (2 << 20)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home: Path = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    return home


@pytest.fixture(scope="module")
def tokens(home: Path) -> Mapping[str, str]:
    """Keys of a customer, and of an attacker, who may ask for little more than one hostile batch in a second."""
    keys = KeyFile(home / "keys.json")
    return {
        "customer": keys.create("customer", ["lookup", "score"], 1_000_000),
        "attacker": keys.create("attacker", ["lookup", "score"], HOSTILE_CUSTOMERS + 50),
        "none": "csk_0123456789ab_none",
    }


@pytest.fixture(scope="module")
def server(home: Path, tokens: Mapping[str, str]) -> Iterator[RunningServer]:
    assert tokens
    with serving(home, "--no-prediction-log") as running:
        yield running


class Attacker(threading.Thread):
    """Sends the same request again and again, each on a connection of its own, until it is stopped."""

    def __init__(self, server: RunningServer, token: str, method: str, path: str, body: str | None = None) -> None:
        super().__init__(daemon=True)
        self._server, self._request = server, (method, path, body)
        self._headers = {"X-API-Key": token, "Content-Type": "application/json"}
        self._is_over = threading.Event()
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException), self._server.connect() as connection:
                connection.request(*self._request, headers=self._headers)
                self.statuses[connection.getresponse().status] += 1

    def stop(self) -> None:
        self._is_over.set()
        self.join()


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "statuses"),
    [
        ("none", "POST", "/v1/score", HOSTILE, {401}),
        ("attacker", "POST", "/v1/score", HOSTILE, {422, 429}),
        ("none", "GET", "/v1/model", None, {401}),
        ("none", "GET", "/docs/swagger-ui-bundle.js", None, {200}),
    ],
    ids=["batches without a key", "batches with a key", "refused", "a large file"],
)
def test_eight_attackers_stop_no_lookup(
    server: RunningServer,
    tokens: Mapping[str, str],
    who: str,
    method: str,
    path: str,
    body: str | None,
    statuses: set[int],
) -> None:
    attackers = [Attacker(server, tokens[who], method, path, body) for _ in range(8)]
    for attacker in attackers:
        attacker.start()
    try:
        for _ in range(50):
            # The connection of the test gives a lookup ten seconds.
            status, content = server.get(LOOKUP, {"X-API-Key": tokens["customer"]})
            assert (status, json.loads(content)["customer_id"]) == (200, "12347")
    finally:
        for attacker in attackers:
            attacker.stop()
    answered = sum((attacker.statuses for attacker in attackers), Counter())
    assert answered
    assert set(answered) <= statuses


def test_a_large_body_without_a_key_is_refused_before_it_is_sent(
    server: RunningServer, tokens: Mapping[str, str]
) -> None:
    for who, code in (("none", b"401 key_required"), ("customer", b"100 Continue")):
        head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {tokens[who]}\r\nExpect: 100-continue\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(f"{head}Content-Length: 2000000\r\n\r\n".encode())
            assert connection.recv(4_096).startswith(b"HTTP/1.1 " + code)


def test_a_large_body_beyond_the_keys_limit_is_refused_before_it_is_sent(server: RunningServer, home: Path) -> None:
    token = KeyFile(home / "keys.json").create("small", ["score"], 10)
    head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {token}\r\nContent-Length: 2000000\r\n\r\n"

    def answer() -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(head.encode())
            return connection.recv(4_096)

    # Each worker looks at the file of keys four times a second, and knows no key before.
    wait_until(lambda: answer().startswith(b"HTTP/1.1 422 batch_too_large"))


@pytest.mark.parametrize("n_bytes", [0, 1, 1_023, 8_192, 70_000, 2 << 20])
def test_a_body_of_any_size_arrives_as_it_was_sent(
    server: RunningServer, tokens: Mapping[str, str], n_bytes: int
) -> None:
    content = json.dumps({"customers": [ROW] * 3}).ljust(n_bytes)
    headers = {"X-API-Key": tokens["customer"], "Content-Type": "application/json"}
    with server.connect() as connection:
        for path in ("/v1/score", "/v1/score?through=flask"):
            connection.request("POST", path, content, headers)
            response = connection.getresponse()
            assert (response.status, len(json.loads(response.read())["customers"])) == (200, 3)


def test_three_hundred_idle_connections_stop_no_lookup(server: RunningServer, tokens: Mapping[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        assert all(server.get(LOOKUP, {"X-API-Key": tokens["customer"]})[0] == 200 for _ in range(20))


class Access:
    """Access control that knows one key, which can afford this many customers."""

    def __init__(self, n_affordable: int, *, needs_key: bool = True) -> None:
        self._n_affordable, self.needs_key = n_affordable, needs_key

    def find_key(self, tokens: list[str], _: list[str]) -> str | None:
        return "key" if "right" in tokens else None

    def can_afford(self, _: str, n_customers: int) -> bool:
        return n_customers <= self._n_affordable

    def check_affordable(self, *_: object) -> None:
        """Everything is."""


HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


def worker_with(access: Access) -> Any:
    """What ``GuardedWorker._check`` looks at of a worker."""
    service = SimpleNamespace(extensions={"custseg": SimpleNamespace(access=access)})
    settings = SimpleNamespace(max_body_bytes=2 << 20, max_batch=1_000)
    return SimpleNamespace(app=SimpleNamespace(settings=settings), wsgi=service, _large=set())


@pytest.mark.parametrize(
    ("headers", "access", "is_throttled"),
    [
        (b"X-API-Key: right\r\n", Access(10), False),
        (b"x-api-key:right\r\n", Access(10), False),
        (b"Authorization: Bearer of-the-platform\r\nX-API-Key: right\r\n", Access(10), False),
        (b"Authorization: bearer right\r\n", Access(10), False),
        (b"X-API-Key: right\r\n", Access(0), True),
        (b"X-API-Key: wrong\r\n", Access(10), True),
        (b"", Access(10), True),
        (b"X-API-Key: wrong\r\n" * worker.MAX_TOKENS + b"X-API-Key: right\r\n", Access(10), True),
        (b"", Access(0, needs_key=False), False),
    ],
)
def test_requests_without_a_key_or_over_its_limit_get_threads_that_rest(
    headers: bytes, access: Access, is_throttled: bool
) -> None:
    found: Any = SimpleNamespace()
    GuardedWorker._check(worker_with(access), found, HEAD + headers, 0)
    assert found.is_throttled is is_throttled


class Connection:
    """Whatever a worker notes about a connection."""

    is_throttled: bool


LOOKUP_LINE = b"GET /v1/customers/12347/segment HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("content", "is_throttled", "has_room", "where"),
    [
        (LOOKUP_LINE, False, True, "at once"),
        (LOOKUP_LINE, True, True, "in a thread"),
        (LOOKUP_LINE, False, False, "in a thread"),
        (LOOKUP_LINE.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"), False, True, "at once"),
        (b"GET /v1/customers/12347/history HTTP/1.1\r\n\r\n", False, True, "in a thread"),
        (b"GET /v1/segments?of=/v1/customers/12347/segment HTTP/1.1\r\n\r\n", False, True, "in a thread"),
        (b"GET /v1/customers/12347/segment?through=flask HTTP/1.1\r\n\r\n", False, True, "in a thread"),
        (b"POST /v1/customers/12347/segment HTTP/1.1\r\n\r\n", False, True, "in a thread"),
    ],
)
def test_the_main_loop_answers_only_what_makes_nobody_wait(
    content: bytes, is_throttled: bool, has_room: bool, where: str
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        if not has_room:
            with contextlib.suppress(BlockingIOError):
                while True:
                    ours.send(bytes(65_536))
        theirs.send(content)
        connection = SimpleNamespace(received=bytearray(), n_missing=0, is_throttled=is_throttled)
        assert where_answered(connection, ours) == [where]


def test_lookups_behind_a_lookup_are_not_answered_within_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = SimpleNamespace(received=bytearray(2 * LOOKUP_LINE), n_missing=0, is_throttled=False)
        # Or each would be some frames deeper than the one before.
        assert where_answered(connection, ours, is_early=True) == ["in a thread"]


def where_answered(connection: Any, client: socket.socket, *, is_early: bool = False) -> list[str]:
    """Where a worker answers what a connection has sent."""
    answered: list[str] = []
    guarded: Any = SimpleNamespace(
        _check=lambda *_: None,
        _stop_waiting=lambda _: None,
        _answer_at_once=lambda _: answered.append("at once"),
        enqueue_req=lambda _: answered.append("in a thread"),
    )
    guarded._is_complete = lambda connection: GuardedWorker._is_complete(guarded, connection)
    GuardedWorker._receive(guarded, connection, client, is_early=is_early)
    return answered


def test_a_worker_that_reads_many_large_bodies_asks_for_patience() -> None:
    head, n_bytes = HEAD + b"X-API-Key: right\r\n", worker.MAX_HEAD_BYTES + 1
    guarded = worker_with(Access(10))
    for _ in range(worker.MAX_LARGE_BODIES):
        GuardedWorker._check(guarded, Connection(), head, n_bytes)
    with pytest.raises(ApiError) as refusal:
        GuardedWorker._check(guarded, Connection(), head, n_bytes)
    assert (refusal.value.status, refusal.value.code) == (503, "busy")
    GuardedWorker._check(guarded, Connection(), head, worker.MAX_HEAD_BYTES)


@pytest.mark.parametrize(("seconds", "rest"), [(0.01, 0.15), (0.02, 0.3), (30.0, worker.MAX_REST_SECONDS)])
def test_a_thread_for_requests_without_a_key_rests_for_a_multiple_of_the_time_it_took(
    seconds: float, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, rests = [100.0], list[float]()

    def handle(_: object) -> str:
        now[0] += seconds
        return "handled"

    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=rests.append))
    # Four threads, which together may use a quarter of the worker's time.
    guarded: Any = SimpleNamespace(handle=handle, _rest=4 / worker.THROTTLED_SHARE)
    assert GuardedWorker._handle_and_rest(guarded, SimpleNamespace()) == "handled"
    assert rests == [pytest.approx(rest)]


def test_a_wrong_batch_costs_a_key_what_its_size_could_hold(
    start_app: StartApp, served_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"X-API-Key": KeyFile(served_home / "keys.json").create("shop", ["score"], 2_000)}
    application = start_app()
    monkeypatch.setattr(application.extensions["custseg"].access, "_clock", lambda: 100.0)
    client = application.test_client()
    size = {"content_type": "application/json", "headers": headers}
    assert client.post("/v1/score", data=HOSTILE, **size).status_code == 422
    assert client.post("/v1/score", data=HOSTILE, **size).status_code == 422
    assert is_error(client.post("/v1/score", data=HOSTILE, **size), 429, "rate_limited")


def test_many_fields_count_as_many_customers(start_app: StartApp, served_home: Path) -> None:
    headers = {"X-API-Key": KeyFile(served_home / "keys.json").create("shop", ["score"], 100)}
    body = '{"customers":[' + "1," * 8_000 + "1]}"
    answer = start_app().test_client().post("/v1/score", data=body, content_type="application/json", headers=headers)
    assert is_error(answer, 422, "batch_too_large")
    assert answer.get_json()["error"]["details"] == {"max_batch": 100}
