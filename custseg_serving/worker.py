"""gunicorn's worker with threads, whose threads only get requests that have arrived completely.

gunicorn's own gives a connection to a thread before its request is read, so a few slow or silent clients hold all
threads. Here the main loop reads requests without waiting, each within a time and a size, and refuses unread what is
too large, of no declared length, or large and not allowed. Only one thread at a time can run Python, so what requests
without a valid key, or of a key over its limit, may cost is bounded: they have threads of their own, which rest. The
lookup of one customer takes less time than giving it to a thread, so the main loop answers it itself.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Any

from gunicorn.http.wsgi import create  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from custseg_serving.access import key_required
from custseg_serving.errors import ApiError

MAX_CONNECTIONS = 4_000
"""Of each worker; at the limit the one that has waited longest for its request is closed."""
REQUEST_SECONDS = 10.0
"""A request has to arrive completely within this time after its connection, or its first byte where that is open."""
SEND_SECONDS = 10
"""A client that takes nothing of an answer for so long is given up."""
MAX_HEAD_BYTES = 64 << 10
MAX_LARGE_BODIES = 32
"""Of each worker at a time, so that they do not fill its memory; a body is large that is larger than a head may be."""

MAX_DRAINED = 256
"""Refused connections of a worker that are still read; beyond, the oldest are closed."""
THROTTLED_SHARE = 0.25
"""Of a worker's time, for requests without a key or over its limit; and as much for those that are refused unread."""
MAX_REST_SECONDS = 0.5
MAX_TOKENS = 4
"""As many headers of a request are looked at for a key, or for a session's cookie."""

_END_OF_HEAD = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_TOKEN = re.compile(rb"\r\n(?:x-api-key:|authorization:[ \t]*bearer )[ \t]*([^\r\n]*)", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\ncookie:[ \t]*([^\r\n]*)", re.IGNORECASE)
_LOOKUP = re.compile(rb"GET /v1/customers/[^ ?]+/segment HTTP/")
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)


def allow_connections() -> None:
    """Raise this process' limit of open files, and that of its workers, as far as all connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 1_000
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class GuardedWorker(ThreadWorker):  # type: ignore[misc]
    """Reads requests in its main loop and answers them in threads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # In the order of their deadlines, since each has the same time.
        self._waiting: dict[Any, float] = {}
        self._large: set[Any] = set()
        self._resting: ThreadPoolExecutor
        self._drainer: _Drainer
        self._rest: float = self.cfg.threads / THROTTLED_SHARE

    def init_process(self) -> None:
        """Make the threads; runs in the worker's own process."""
        self._resting = self.get_thread_pool()
        self._drainer = _Drainer()
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """Give a request to the threads, or to those that rest."""
        pool, handle = (self._resting, self._handle_and_rest) if conn.is_throttled else (self.tpool, self.handle)
        future = pool.submit(handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _answer_at_once(self, conn: Any) -> None:
        """Answer a request here; it neither waits nor takes long, and its client has room for the answer."""
        done: Future[Any] = Future()
        done.set_result(self.handle(conn))
        self.finish_request(conn, done)

    def accept(self, listener: Any) -> None:
        """Accept a connection and wait for its request."""
        if self.nr_conns >= self.worker_connections - 1:
            self._close_longest_waiting()
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._close_longest_waiting()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        connection = TConn(self.cfg, client, address, listener.getsockname())
        self._wait_for_request(connection, b"")

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """Read the next request of a connection that is kept alive."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._wait_for_request(conn, b"")

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """Keep a connection alive, with what its client has sent of the next request already, or close it."""
        self._large.discard(conn)
        if self.alive and not fs.cancelled() and fs.exception() is None and fs.result():
            early = conn.parser.unreader.take_buffered()
            if early:
                conn.sock.setblocking(False)
                self._wait_for_request(conn, early)
                return
        super().finish_request(conn, fs)

    def handle(self, conn: Any) -> Any:
        """Answer a request that has arrived; runs in a thread."""
        conn.init()
        received = conn.received
        conn.parser.unreader.unread(bytes(received[: conn.n_head] + received[conn.n_bytes :]))
        conn.body = bytes(received[conn.n_head : conn.n_bytes])
        conn.received = bytearray()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head is parsed."""
        if conn.body:
            # gunicorn's own reads a kilobyte at a time and copies all that is left each time: seconds for 2 MiB.
            req.body = io.BytesIO(conn.body)
            conn.body = b""
        return self._answer_lookup(req, conn) if conn.is_lookup else super().handle_request(req, conn)

    def _answer_lookup(self, req: Any, conn: Any) -> bool:
        """Answer a lookup in one packet, where gunicorn's own sends a head and a body; return whether to keep alive."""
        response, environ = create(req, conn.sock, conn.client, conn.server, self.cfg)
        environ["wsgi.multithread"] = True
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        body = b"".join(self.wsgi(environ, response.start_response))
        head = "".join([*response.default_headers(), *(f"{name}: {value}\r\n" for name, value in response.headers)])
        conn.sock.sendall(f"{head}\r\n".encode("latin-1") + body)
        return not response.should_close()

    def _handle_and_rest(self, conn: Any) -> Any:
        """Answer a request without a key, or of one that is over its limit, then rest."""
        started = time.monotonic()
        try:
            return self.handle(conn)
        finally:
            _rest(started, self._rest)

    def murder_pending(self) -> None:
        """Close the connections whose requests have not arrived in time; all that wait where the worker ends."""
        super().murder_pending()
        now = time.monotonic()
        while self._waiting:
            connection, deadline = next(iter(self._waiting.items()))
            if deadline > now and self.alive:
                return
            self._close(connection)

    def _wait_for_request(self, connection: Any, early: bytes) -> None:
        connection.received = bytearray(early)
        connection.n_missing, connection.is_throttled, connection.is_polled = 0, True, False
        self._waiting[connection] = time.monotonic() + REQUEST_SECONDS
        # Most requests are there already, and need no place among those that the system is asked about.
        self._receive(connection, connection.sock, is_early=bool(early))
        if connection in self._waiting:
            connection.is_polled = True
            self.poller.register(connection.sock, EVENT_READ, partial(self._receive, connection))

    def _stop_waiting(self, connection: Any) -> float:
        """Wait no more for what a connection sends; return when it would have been too late."""
        if connection.is_polled:
            connection.is_polled = False
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.unregister(connection.sock)
        return self._waiting.pop(connection)

    def _receive(self, connection: Any, client: Any, *, is_early: bool = False) -> None:
        try:
            content = b"" if is_early else client.recv(max(MAX_HEAD_BYTES, connection.n_missing))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close(connection)
            return
        if not (content or is_early):
            self._close(connection)
            return
        connection.received += content
        try:
            is_complete = self._is_complete(connection)
        except ApiError as error:
            self._refuse(connection, error)
            return
        if is_complete:
            self._stop_waiting(connection)
            # Not the requests behind another one, or each would be answered within the one before.
            if connection.is_lookup and not (is_early or connection.is_throttled) and _takes_answer(client):
                self._answer_at_once(connection)
            else:
                self.enqueue_req(connection)

    def _is_complete(self, connection: Any) -> bool:
        """Whether a request has arrived; raises ``ApiError`` where it is not going to be read."""
        received: bytearray = connection.received
        if connection.n_missing:
            connection.n_missing = max(0, connection.n_bytes - len(received))
            return bool(connection.n_missing == 0)
        end = received.find(_END_OF_HEAD, 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(received) >= MAX_HEAD_BYTES:
                raise ApiError(431, "head_too_large", f"At most {MAX_HEAD_BYTES} bytes of headers.")
            return False
        head = bytes(received[: end + 2])
        if _TRANSFER_ENCODING.search(head):
            raise ApiError(
                411, "length_required", "A body in chunks is not read; declare its length by Content-Length."
            )
        lengths = _CONTENT_LENGTH.findall(head)
        # Without a body, or with contradictory lengths, which gunicorn refuses.
        n_bytes = int(lengths[0]) if len(lengths) == 1 else 0
        self._check(connection, head, n_bytes)
        connection.is_lookup = n_bytes == 0 and _LOOKUP.match(head) is not None
        connection.n_head = end + len(_END_OF_HEAD)
        connection.n_bytes = connection.n_head + n_bytes
        connection.n_missing = max(0, connection.n_bytes - len(received))
        if connection.n_missing and _EXPECT.search(head):
            _send(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
        return bool(connection.n_missing == 0)

    def _check(self, connection: Any, head: bytes, n_bytes: int) -> None:
        """See whose request it is, and check that a body of this size is to be read."""
        settings, access = self.app.settings, self.wsgi.extensions["custseg"].access
        if n_bytes > settings.max_body_bytes:
            message = f"The body has {n_bytes} bytes; expected at most {settings.max_body_bytes}."
            raise ApiError(413, "request_entity_too_large", message)
        key = access.find_key(_values(_TOKEN, head), _values(_COOKIE, head))
        connection.is_throttled = access.needs_key if key is None else not access.can_afford(key, 1)
        if n_bytes <= MAX_HEAD_BYTES:
            return
        if key is not None:
            access.check_affordable(key, n_bytes * settings.max_batch // settings.max_body_bytes)
        elif access.needs_key:
            raise key_required()
        if len(self._large) >= MAX_LARGE_BODIES:
            message = f"{MAX_LARGE_BODIES} large bodies are being read already; send this one again."
            raise ApiError(503, "busy", message, headers={"Retry-After": "1"})
        self._large.add(connection)

    def _refuse(self, connection: Any, error: ApiError) -> None:
        """Leave a request that is not read to the drainer, which answers it."""
        body = error.body()
        own = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
        head = (
            f"HTTP/1.1 {error.status} {error.code}\r\nContent-Type: application/json\r\nConnection: close\r\n{own}"
            f"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        deadline = self._stop_waiting(connection)
        connection.received = bytearray()
        self.nr_conns -= 1
        self._drainer.add(connection, head.encode() + body, deadline)

    def _close(self, connection: Any) -> None:
        self._stop_waiting(connection)
        self._large.discard(connection)
        self.nr_conns -= 1
        connection.close()

    def _close_longest_waiting(self) -> None:
        if self._waiting:
            self._close(next(iter(self._waiting)))


class _Drainer(threading.Thread):
    """Thread that answers refused requests and reads what their clients still send, or no client would see the answer.

    Apart from the main loop, and resting, because a client can send as fast as the worker reads.
    """

    def __init__(self) -> None:
        super().__init__(name="drainer", daemon=True)
        self._selector = DefaultSelector()
        self._deadlines: dict[Any, float] = {}
        self._buffer = bytearray(1 << 20)
        self.start()

    def add(self, connection: Any, answer: bytes, deadline: float) -> None:
        """Send an answer, then read what arrives until the client closes the connection, or its deadline."""
        connection.answer = answer
        self._selector.register(connection.sock, EVENT_READ | EVENT_WRITE, connection)
        self._deadlines[connection] = deadline

    def run(self) -> None:
        """Answer and read until the process ends."""
        while True:
            events = self._selector.select(1.0)
            started = time.monotonic()
            for key, _ in events:
                self._advance(key.data)
            deadlines = list(self._deadlines.items())
            for number, (connection, deadline) in enumerate(deadlines):
                if deadline <= started or number < len(deadlines) - MAX_DRAINED:
                    self._close(connection)
            _rest(started, 1 / THROTTLED_SHARE)

    def _advance(self, connection: Any) -> None:
        if connection.answer:
            _send(connection, connection.answer)
            connection.answer = b""
            self._selector.modify(connection.sock, EVENT_READ, connection)
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)
            return
        try:
            is_over = connection.sock.recv_into(self._buffer) == 0
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            is_over = True
        if is_over:
            self._close(connection)

    def _close(self, connection: Any) -> None:
        self._deadlines.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.close()


def _values(header: re.Pattern[bytes], head: bytes) -> Iterator[str]:
    """What a request's headers of a kind say."""
    return (match[1].decode("latin-1") for match in islice(header.finditer(head), MAX_TOKENS))


def _takes_answer(client: socket.socket) -> bool:
    """Whether a client has read so much of the answers before that sending another one does not wait."""
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    return bool(poll.poll(0))


def _send(connection: Any, content: bytes) -> None:
    """Send a few bytes without waiting, which a client that reads has room for."""
    with contextlib.suppress(OSError):
        connection.sock.send(content)


def _rest(started: float, factor: float) -> None:
    """Rest so long that the time since the start is one part in so many; a slow client makes nobody rest for long."""
    time.sleep(min(MAX_REST_SECONDS, (factor - 1) * (time.monotonic() - started)))
