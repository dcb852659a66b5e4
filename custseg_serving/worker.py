"""gunicorn's worker with threads, whose threads only get requests that have arrived completely.

gunicorn's own gives a connection to a thread before its request is read, so a few slow or silent clients hold all
threads. Here the main loop reads requests without waiting, each within a time and a size, and answers by itself what it
does not read: too large, or of no declared length. Requests without a valid key have threads of their own, which rest
in between, so that a flood of them leaves most of the worker to the others.
"""

from __future__ import annotations

import contextlib
import errno
import re
import resource
import socket
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from selectors import EVENT_READ
from typing import Any

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

KEYLESS_SHARE = 0.25
"""Of a worker's CPU time, for requests without a key."""
MAX_TOKENS = 4
"""As many headers of a request are looked at for a key, or for a session's cookie."""

_END_OF_HEAD = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_TOKEN = re.compile(rb"\r\n(?:x-api-key:|authorization:[ \t]*bearer )[ \t]*([^\r\n]*)", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\ncookie:[ \t]*([^\r\n]*)", re.IGNORECASE)
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
        self._max_body_bytes: int = self.app.settings.max_body_bytes
        # In the order of their deadlines, since each has the same time.
        self._waiting: dict[Any, float] = {}
        self._large: set[Any] = set()
        self._keyless: ThreadPoolExecutor
        self._rest = self.cfg.threads / KEYLESS_SHARE - 1

    def init_process(self) -> None:
        """Make the threads; runs in the worker's own process."""
        self._keyless = self.get_thread_pool()
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """Give a request to the threads, or to those for requests without a key."""
        pool, handle = (self.tpool, self.handle) if conn.has_key else (self._keyless, self._handle_keyless)
        future = pool.submit(handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

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
        conn.parser.unreader.unread(bytes(conn.received))
        conn.received = bytearray()
        return super().handle(conn)

    def _handle_keyless(self, conn: Any) -> Any:
        """Answer a request without a key, then rest: only one thread at a time can run Python, and others need it."""
        started = time.thread_time()
        try:
            return self.handle(conn)
        finally:
            time.sleep(self._rest * (time.thread_time() - started))

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
        connection.received, connection.is_refused, connection.is_expected = bytearray(early), False, False
        connection.has_key = None
        self._waiting[connection] = time.monotonic() + REQUEST_SECONDS
        self.poller.register(connection.sock, EVENT_READ, partial(self._receive, connection))
        # Most requests are there already.
        self._receive(connection, connection.sock, is_early=bool(early))

    def _receive(self, connection: Any, client: Any, *, is_early: bool = False) -> None:
        try:
            content = b"" if is_early else client.recv(MAX_HEAD_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close(connection)
            return
        if not (content or is_early):
            self._close(connection)
            return
        if connection.is_refused:
            return  # what a client still sends is read, or the system would reset the answer as well
        connection.received += content
        if self._is_complete(connection):
            del self._waiting[connection]
            self.poller.unregister(client)
            self.enqueue_req(connection)

    def _is_complete(self, connection: Any) -> bool:
        received = connection.received
        end = received.find(_END_OF_HEAD, 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(received) >= MAX_HEAD_BYTES:
                self._refuse(connection, ApiError(431, "head_too_large", f"At most {MAX_HEAD_BYTES} bytes of headers."))
            return False
        head = bytes(received[: end + 2])
        if connection.has_key is None:
            connection.has_key = self._has_key(head)
        if _TRANSFER_ENCODING.search(head):
            message = "A body in chunks is not read; declare its length by Content-Length."
            self._refuse(connection, ApiError(411, "length_required", message))
            return False
        lengths = _CONTENT_LENGTH.findall(head)
        if len(lengths) != 1:
            return True  # without a body, or contradictory, which gunicorn refuses
        n_bytes = int(lengths[0])
        if n_bytes > self._max_body_bytes:
            message = f"The body has {n_bytes} bytes; expected at most {self._max_body_bytes}."
            self._refuse(connection, ApiError(413, "request_entity_too_large", message))
            return False
        if n_bytes > MAX_HEAD_BYTES and connection not in self._large:
            if not connection.has_key:
                self._refuse(connection, key_required())
                return False
            if len(self._large) >= MAX_LARGE_BODIES:
                message = f"{MAX_LARGE_BODIES} large bodies are being read already; send this one again."
                self._refuse(connection, ApiError(503, "busy", message, headers={"Retry-After": "1"}))
                return False
            self._large.add(connection)
        is_complete: bool = len(received) >= end + len(_END_OF_HEAD) + n_bytes
        if not is_complete and not connection.is_expected and _EXPECT.search(head):
            connection.is_expected = True
            self._send(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
        return is_complete

    def _has_key(self, head: bytes) -> bool:
        """Whether a request has a valid key or session, or needs none; what it may do is checked when it is answered."""
        tokens, cookies = (
            [match[1].decode("latin-1") for match in islice(kind.finditer(head), MAX_TOKENS)]
            for kind in (_TOKEN, _COOKIE)
        )
        has_key: bool = self.wsgi.extensions["custseg"].access.has_key(tokens, cookies)
        return has_key

    def _refuse(self, connection: Any, error: ApiError) -> None:
        """Answer a request that is not read; the connection is closed when the client does, or at its deadline."""
        body = error.body()
        own = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
        head = (
            f"HTTP/1.1 {error.status} {error.code}\r\nContent-Type: application/json\r\nConnection: close\r\n{own}"
            f"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.is_refused, connection.received = True, bytearray()
        self._send(connection, head.encode() + body)
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)

    @staticmethod
    def _send(connection: Any, content: bytes) -> None:
        """Send a few bytes without waiting, which a client that reads has room for."""
        with contextlib.suppress(OSError):
            connection.sock.send(content)

    def _close(self, connection: Any) -> None:
        del self._waiting[connection]
        self._large.discard(connection)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(connection.sock)
        self.nr_conns -= 1
        connection.close()

    def _close_longest_waiting(self) -> None:
        if self._waiting:
            self._close(next(iter(self._waiting)))
