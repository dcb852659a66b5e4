"""What the fakes of Google's services share: a server on loopback, its requests, and failures to simulate."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tests.support.fakes.discovery import find_faults


class Refused(Exception):  # noqa: N818  (a refusal is part of the service, not an error of the fake)
    """A service refuses a request.

    Args:
        code: of HTTP.
        status: Google's canonical name of it, or the reason of services older than those.
        message: for people.
        details: machine-readable, as the service would put them.
    """

    def __init__(self, code: int, status: str, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.code, self.status, self.message, self.details = code, status, message, details or []


@dataclass(frozen=True)
class Request:
    """A request of a client.

    Attributes:
        path: escaped, as it was sent.
        query: last value of each parameter.
        headers: names in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body.

        Raises:
            Refused: it is no JSON object.
        """
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(self.body or b"{}"), dict):
                return found
        raise Refused(400, "INVALID_ARGUMENT", "Invalid JSON payload received.")


@dataclass(frozen=True)
class Answer:
    """An answer to a request; without content its body is empty."""

    status: int = 200
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_json(content: object, status: int = 200) -> Answer:
    """An answer with a JSON body, over several lines as Google's services write it."""
    return Answer(status, json.dumps(content, indent=2).encode(), {"Content-Type": "application/json; charset=UTF-8"})


class FakeService:
    """A service on loopback; ``with`` starts and stops it. Subclasses implement ``answer``.

    Where it has a discovery document, every request is held against that; leaving ``with`` fails on one that the
    document does not know.

    Attributes:
        discovery: name and version of the discovery document.
        faults: what it does not know of the requests.
        denied: permissions that are refused, such as ``storage.objects.create``.
        checked: permissions that were checked.
        unchecked: requests that were answered although no permission was checked.
        has_rate_limits: whether clients that ask or change too often are refused, as the service would refuse them.
        n_unavailable: how many requests are answered with 503 before one is answered properly.
        n_cut: how many requests get no answer: they are executed, then the connection is closed.
        loses_answers: whether every other of equal requests is executed and gets no answer.
        n_lost: how many answers were lost so.
        troubles: what happens to a request, one after the other each time that it is sent, before it is executed: a
            status that is answered, or 0 for a connection that is closed.
        n_refused: how many requests had such a trouble.
        requests: method and path of every request.
        on_request: called with every request before it is executed; a ``Refused`` that it raises is the answer.
    """

    discovery: str | None = None

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.on_request: Callable[[Request], None] = lambda _: None
        self.denied: set[str] = set()
        self.checked: set[str] = set()
        self.unchecked: set[str] = set()
        self.has_rate_limits = True
        self.n_unavailable = 0
        self.n_cut = 0
        self.loses_answers = False
        self.n_lost = 0
        self._n_checks = 0
        self.troubles: Sequence[int] = ()
        self.n_refused = 0
        self._lost: set[tuple[str, ...]] = set()
        self._troubled: Counter[tuple[str, ...]] = Counter()
        self.requests: list[str] = []
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert self.faults == [], self.faults

    def is_documented(self, _: Request) -> bool:
        """Whether the discovery document is about a request."""
        return True

    def answer(self, request: Request) -> Answer:
        """The answer to a request.

        Raises:
            Refused: the real service would refuse it.
        """
        raise NotImplementedError

    def error_body(self, refusal: Refused, _: Request) -> Answer:
        """The answer for a refusal, in the format of Google's newer services unless overridden."""
        error = {"code": refusal.code, "message": refusal.message, "status": refusal.status}
        details = {"details": refusal.details} if refusal.details else {}
        return answer_json({"error": {**error, **details}}, refusal.code)

    def require(self, permission: str, resource: str) -> None:
        """Refuse the request if the permission is in ``denied``."""
        if self.is_denied(permission):
            message = f"Permission '{permission}' denied on resource '{resource}' (or it may not exist)."
            reason = {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "IAM_PERMISSION_DENIED",
                "metadata": {"permission": permission, "resource": resource},
            }
            raise Refused(403, "PERMISSION_DENIED", message, [reason])

    def is_denied(self, permission: str) -> bool:
        """Whether the caller lacks a permission; every check of one is noted."""
        self._n_checks += 1
        self.checked.add(permission)
        return permission in self.denied

    def respond(self, request: Request) -> Answer | None:
        """The answer, with the failures that are set; ``None`` if the connection is to be closed without one."""
        try:
            # Without the lock: it may send requests to this service, or wait for another thread that does.
            self.on_request(request)
        except Refused as refusal:
            return self.error_body(refusal, request)
        with self._lock:
            # How an upload goes on is no method of its own.
            if self.discovery and self.is_documented(request) and "upload_id" not in request.query:
                path = request.path.replace("/ui/", "/v1/", 1) if request.path.startswith("/ui/") else request.path
                self.faults += find_faults(self.discovery, request.method, path, request.query, request.body)
            self.requests.append(f"{request.method} {request.path}")
            if self.n_unavailable:
                self.n_unavailable -= 1
                return self.error_body(_busy(503), request)
            if (trouble := self._next_trouble(request)) is not None:
                self.n_refused += 1
                return self.error_body(_busy(trouble), request) if trouble else None
            n_checks = self._n_checks
            try:
                answer = self.answer(request)
                if self._n_checks == n_checks:
                    self.unchecked.add(f"{request.method} {request.path}")
            except Refused as refusal:
                answer = self.error_body(refusal, request)
            except Exception:  # noqa: BLE001  (an error in the fake is shown where the test fails)
                answer = self.error_body(Refused(501, "INTERNAL", traceback.format_exc()), request)
            if self.n_cut:
                self.n_cut -= 1
                return None
            return None if self._is_lost(request) else answer

    def _next_trouble(self, request: Request) -> int | None:
        """The next trouble of a request; ``None`` once it has had them all."""
        key = (*_identity(request), hashlib.sha256(request.body).hexdigest())
        self._troubled[key] += 1
        number = self._troubled[key] - 1
        return self.troubles[number] if number < len(self.troubles) else None

    def _is_lost(self, request: Request) -> bool:
        if not self.loses_answers:
            return False
        self._lost ^= {key := _identity(request)}
        self.n_lost += key in self._lost
        return key in self._lost


def _identity(request: Request) -> tuple[str, ...]:
    """What a request that is sent again has in common with the one before."""
    asked = (f"{name}={value}" for name, value in sorted(request.query.items()))
    return (
        request.method,
        request.path,
        *asked,
        request.headers.get("range", ""),
        request.headers.get("content-range", ""),
    )


def _busy(code: int) -> Refused:
    if code != 429:
        return Refused(code, "UNAVAILABLE", "The service is currently unavailable.")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "metadata": {}}
    message = "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute per region'."
    return Refused(429, "RESOURCE_EXHAUSTED", message, [info])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that close their connection."""


def _handler_of(service: FakeService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # An answer leaves in one piece: with Nagle's algorithm each would wait 40 ms for the client's acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length") or 0))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            answer = service.respond(Request(self.command, parts.path, query, headers, body))
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204 and "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle  # noqa: N815

    return Handler
