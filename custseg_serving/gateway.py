"""The layer around Flask: request ids, security headers, timing, and the two routes that are asked all the time.

Flask's routing, request and response objects cost as much as everything else in a lookup together, so plain lookups
and scores are answered here, by the same service and with the same errors (docs/adr/0011).
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from custseg_serving.access import KEY_ID
from custseg_serving.api import JSON, REQUEST_ID, STARTED, rows_of, validated
from custseg_serving.errors import ApiError, internal_error
from custseg_serving.keys import Scope
from custseg_serving.schemas import ScoreRequest
from custseg_serving.service import Asked, Service
from custseg_serving.telemetry import Access

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
_GOOD_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

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


class Gateway:
    """Wraps the application's WSGI callable.

    Args:
        flask: what is wrapped.
        service: of this worker.
    """

    def __init__(self, flask: WsgiApp, service: Service) -> None:
        self._flask, self._service = flask, service
        self._prefix, self._numbers = secrets.token_hex(6), itertools.count()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.perf_counter()
        offered = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = offered if _GOOD_REQUEST_ID.fullmatch(offered) else f"{self._prefix}-{next(self._numbers):x}"
        environ[REQUEST_ID], environ[STARTED] = request_id, started
        status_of_answer = 500

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            nonlocal status_of_answer
            status_of_answer = int(status[:3])
            has_cache_rule = any(name == "Cache-Control" for name, _ in headers)
            caching = () if has_cache_rule else (("Cache-Control", "no-store"),)
            headers = [*headers, *SECURITY_HEADERS, *caching, ("X-Request-ID", request_id)]
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        answer = self._own_answer(environ)
        body = self._flask(environ, start) if answer is None else self._answered(answer, environ, start)
        seconds = time.perf_counter() - started
        method = environ["REQUEST_METHOD"]
        route = environ.get(ROUTE, "unmatched")
        self._service.metrics.observe(route, status_of_answer, seconds)
        self._service.access_log.put(
            Access(
                at=time.time(),
                request_id=request_id,
                method=method if method in _KNOWN_METHODS else "OTHER",
                route=route,
                status=status_of_answer,
                seconds=seconds,
                key_id=environ.get(KEY_ID),
            )
        )
        return body

    def _own_answer(self, environ: Environ) -> Callable[[Environ], bytes] | None:
        """What answers a request here; ``None`` where Flask does."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if method == "GET" and path.startswith(_PREFIX) and path.endswith(_SUFFIX) and len(path) > _SHORTEST_LOOKUP:
            environ[ROUTE] = LOOKUP_ROUTE
            return self._look_up
        if method == "POST" and path == SCORE_ROUTE and self._is_plain(environ):
            environ[ROUTE] = SCORE_ROUTE
            return self._score
        return None

    def _is_plain(self, environ: Environ) -> bool:
        """Whether a body is declared as JSON, with a size that is allowed; Flask knows what to say otherwise."""
        length = environ.get("CONTENT_LENGTH", "")
        is_json = environ.get("CONTENT_TYPE", "").lower() == JSON
        return is_json and length.isdecimal() and int(length) <= self._service.settings.max_body_bytes

    def _answered(self, answer: Callable[[Environ], bytes], environ: Environ, start: StartResponse) -> Iterable[bytes]:
        more: dict[str, str] = {}
        try:
            body, status = answer(environ), 200
        except ApiError as error:
            body, status, more = error.body(), error.status, error.headers
        except Exception:
            # Flask turns a fault of its views into the one shape of error; nothing outside does that for this layer.
            log.exception("request %s failed", environ[REQUEST_ID])
            body, status = internal_error().body(), 500
        headers = [("Content-Type", JSON), ("Content-Length", str(len(body))), *more.items()]
        start(f"{status} {HTTPStatus(status).phrase}", headers)
        return [body]

    def _look_up(self, environ: Environ) -> bytes:
        # WSGI hands over the path's bytes as Latin-1; bytes that are no UTF-8 are no customer's id.
        quoted = environ["PATH_INFO"][len(_PREFIX) : -len(_SUFFIX)]
        customer_id = quoted.encode("latin-1").decode("utf-8", "replace")
        return self._service.lookup(customer_id, self._authorised(environ, "lookup"))

    def _score(self, environ: Environ) -> bytes:
        asked = self._authorised(environ, "score")
        content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        rows = rows_of(validated(ScoreRequest, content).customers, self._service.settings.max_batch)
        return self._service.score_with_provenance(rows, asked)

    def _authorised(self, environ: Environ, scope: Scope) -> Asked:
        key_id = environ[KEY_ID] = self._service.access.authorise(environ, scope)
        return Asked(environ[REQUEST_ID], key_id, environ[STARTED])
