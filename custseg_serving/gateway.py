"""WSGI layer around Flask: request ids, security headers, timing, and the two most frequent routes without Flask.

Flask's routing, request and response objects cost as much as everything else in a lookup together, so plain lookups
and scores are answered here, by the same service and with the same errors (docs/adr/0011). Other routes are in ``api``.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from custseg_serving.access import KEY_ID
from custseg_serving.api import CLIENT_REQUEST_ID, JSON, REQUEST_ID, STARTED, feature_rows, validate_body
from custseg_serving.errors import ApiError, internal_error
from custseg_serving.keys import Scope
from custseg_serving.metrics import AccessLogEntry
from custseg_serving.schemas import ScoreRequest
from custseg_serving.service import RequestInfo, Service

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
Headers = list[tuple[str, str]]

ROUTE = "custseg.route"
LOOKUP_ROUTE, SCORE_ROUTE = "/v1/customers/{customer_id}/segment", "/v1/score"
_PREFIX, _SUFFIX = "/v1/customers/", "/segment"
_SHORTEST_LOOKUP = len(_PREFIX) + len(_SUFFIX)
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
)
_NOT_CACHED = ("Cache-Control", "no-store")
_FIXED_HEADERS = (("Content-Type", JSON), *SECURITY_HEADERS, _NOT_CACHED)
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Gateway:
    """WSGI application that wraps Flask's.

    Args:
        flask: the WSGI callable that is wrapped.
        service: of this worker.
    """

    def __init__(self, flask: WsgiApp, service: Service) -> None:
        self._flask, self._service = flask, service
        self._prefix, self._numbers = secrets.token_hex(6), itertools.count()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.perf_counter()
        environ[REQUEST_ID], environ[STARTED] = f"{self._prefix}-{next(self._numbers):x}", started
        given = environ.get("HTTP_X_REQUEST_ID")
        if given and _VALID_REQUEST_ID.fullmatch(given):
            # Clients choose it, so it is for them to find their requests by, and nothing is counted by it.
            environ[CLIENT_REQUEST_ID] = given
        view = self._direct_view(environ)
        if view is None:
            body, status = self._answer_with_flask(environ, start_response)
        else:
            body, status = self._answer(view, environ, start_response)
        self._record(environ, status, time.perf_counter() - started)
        return body

    def _record(self, environ: Environ, status: int, seconds: float) -> None:
        method, route = environ["REQUEST_METHOD"], environ.get(ROUTE, "unmatched")
        try:
            self._service.metrics.observe(route, status, seconds)
        except (OSError, ValueError) as error:
            # Where their files cannot grow, metrics are wrong and answers are not.
            log.debug("metrics: %s", error)
        self._service.access_log.put(
            AccessLogEntry(
                at=time.time(),
                request_id=environ[REQUEST_ID],
                client_request_id=environ.get(CLIENT_REQUEST_ID),
                method=method if method in _KNOWN_METHODS else "OTHER",
                route=route,
                status=status,
                seconds=seconds,
                key_id=environ.get(KEY_ID),
            )
        )

    def _answer_with_flask(self, environ: Environ, start_response: StartResponse) -> tuple[Iterable[bytes], int]:
        answer_status = 500

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            nonlocal answer_status
            answer_status = int(status[:3])
            own = {name for name, _ in headers}
            others = [header for header in (*SECURITY_HEADERS, _NOT_CACHED) if header[0] not in own]
            headers = [*headers, *others, ("X-Request-ID", _shown_id(environ))]
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        body = self._flask(environ, start)
        return body, answer_status

    def _direct_view(self, environ: Environ) -> Callable[[Environ], bytes] | None:
        """View that answers a request without Flask; ``None`` where Flask answers."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if method == "GET" and path.startswith(_PREFIX) and path.endswith(_SUFFIX) and len(path) > _SHORTEST_LOOKUP:
            environ[ROUTE] = LOOKUP_ROUTE
            return self._look_up
        if method == "POST" and path == SCORE_ROUTE and self._is_plain(environ):
            environ[ROUTE] = SCORE_ROUTE
            return self._score
        return None

    def _is_plain(self, environ: Environ) -> bool:
        """Whether a body is declared as JSON of an allowed size; Flask answers all others, with the right error."""
        length = environ.get("CONTENT_LENGTH", "")
        is_json = environ.get("CONTENT_TYPE", "").lower() == JSON
        return is_json and length.isdecimal() and int(length) <= self._service.settings.max_body_bytes

    def _answer(
        self, view: Callable[[Environ], bytes], environ: Environ, start_response: StartResponse
    ) -> tuple[Iterable[bytes], int]:
        error_headers: Mapping[str, str] = {}
        try:
            body, status = view(environ), 200
        except ApiError as error:
            body, status, error_headers = error.body(), error.status, error.headers
        except Exception:
            # Flask renders the errors of its own views; those of this layer are rendered here.
            log.exception("request %s failed", environ[REQUEST_ID])
            body, status = internal_error().body(), 500
        own_headers = (("Content-Length", str(len(body))), ("X-Request-ID", _shown_id(environ)))
        start_response(_STATUS_LINES[status], [*_FIXED_HEADERS, *own_headers, *error_headers.items()])
        return (body,), status

    def _look_up(self, environ: Environ) -> bytes:
        # WSGI decodes the path's bytes as Latin-1; bytes that are no UTF-8 match no customer's id.
        quoted = environ["PATH_INFO"][len(_PREFIX) : -len(_SUFFIX)]
        customer_id = quoted.encode("latin-1").decode("utf-8", "replace")
        return self._service.lookup(customer_id, self._authorise(environ, "lookup"))

    def _score(self, environ: Environ) -> bytes:
        request = self._authorise(environ, "score")
        content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        body = validate_body(ScoreRequest, content, self._service, request.key_id)
        return self._service.score_with_release_info(feature_rows(body.customers), request)

    def _authorise(self, environ: Environ, scope: Scope) -> RequestInfo:
        key_id = environ[KEY_ID] = self._service.access.authorise(environ, scope)
        return RequestInfo(environ[REQUEST_ID], key_id, environ[STARTED])


def _shown_id(environ: Environ) -> str:
    """The id that the answer carries: the client's own, where it sent one."""
    return str(environ.get(CLIENT_REQUEST_ID) or environ[REQUEST_ID])
