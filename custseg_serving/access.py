"""Access control for each request: API key, scope, rate limit, dashboard session. Keys are stored by ``keys``."""

from __future__ import annotations

import hashlib
import logging
import mmap
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.http import parse_cookie

from custseg_assets.errors import BadInputError
from custseg_serving.digests import file_state
from custseg_serving.errors import ApiError
from custseg_serving.keys import MAX_KEYS, ApiKey, KeyFile, Scope, matching_key
from custseg_serving.settings import ServingSettings, is_loopback

log = logging.getLogger(__name__)

Environ = Mapping[str, Any]

SESSION_COOKIE = "custseg_session"
SESSION_SECONDS = 12 * 3600
KEY_ID = "custseg.key_id"
_RELOAD_SECONDS = 0.25
_PROXY_HEADERS = frozenset(
    {"HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP"}
)


class RequestCounts:
    """Counts each key's requests in the current second, over all workers.

    Create it before the workers are forked. Every worker counts in a column of its own in shared memory; a key's
    requests are the sum of its row. A cell is the second and the count in one 64-bit number, written at once, so that
    there is no lock that a killed worker would keep.

    Args:
        n_columns: more than there will be workers at a time.
    """

    def __init__(self, n_columns: int) -> None:
        self._n_columns = n_columns
        self._cells = memoryview(mmap.mmap(-1, 8 * (MAX_KEYS + 1) * n_columns)).cast("Q")

    def count(self, slot: int, column: int, second: int, n: int = 1) -> int:
        """Count what a request asks for; return how much the key has asked for this second."""
        start = slot * self._n_columns
        own = start + column % self._n_columns
        cell = self._cells[own]
        self._cells[own] = (second << 32 | (cell & 0xFFFFFFFF) + n) if cell >> 32 == second else second << 32 | n
        return sum(cell & 0xFFFFFFFF for cell in self._cells[start : start + self._n_columns] if cell >> 32 == second)


class EndedSessions:
    """Sessions that were logged out of, an empty file each, so that all workers see them.

    Args:
        folder: of the files; private to the server and removed with it. In memory of this process where none is given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: set[str] = set()

    def end(self, session_id: str) -> None:
        """End a session."""
        self._known.add(session_id)
        if self._folder is not None:
            self._path(self._folder, session_id).touch(0o600)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._known or (self._folder is not None and self._path(self._folder, session_id).exists())

    @staticmethod
    def _path(folder: Path, session_id: str) -> Path:
        return folder / f"ended-{hashlib.sha256(session_id.encode()).hexdigest()}"


class AccessControl:
    """Authorises requests by their API key or session cookie.

    A server that was started as an open one, on loopback and without any key, allows everything. The ``Host`` header
    must then name this machine, or any web page could send requests through the user's browser (DNS rebinding), and
    no header may say that a proxy passed the request on.

    Args:
        settings: of the server.
        counts: requests of each key, shared by all workers.
        worker: number of this worker.
        clock: seconds since the epoch.
        ended_sessions: shared by all workers.

    Raises:
        BadInputError: the file of keys is damaged, or missing although it was named or had keys.
    """

    def __init__(
        self,
        settings: ServingSettings,
        counts: RequestCounts | None = None,
        worker: int = 0,
        clock: Callable[[], float] = time.time,
        ended_sessions: EndedSessions | None = None,
    ) -> None:
        self._ended_sessions = ended_sessions or EndedSessions()
        self._settings, self._worker, self._clock = settings, worker, clock
        self._counts = counts or RequestCounts(1)
        self._file = KeyFile(settings.keys, is_named=settings.keys_file is not None)
        self._sessions = URLSafeTimedSerializer(settings.session_secret, salt="custseg-session")
        # A damaged file is an error here, or the server would start as if no key had ever been created.
        self._keys = self._known(self._file.read())
        self._matched: dict[str, ApiKey] = {}
        self._file_state: tuple[int, int] | None = None
        self._checked_at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return self._settings.is_open and self._settings.is_loopback and not self._keys

    @property
    def needs_key(self) -> bool:
        """Whether there are requests that need a key; Vertex AI's own do not, nor any where the service is open."""
        return self._settings.vertex is None and not self.is_open

    def find_key(self, tokens: Iterable[str], cookies: Iterable[str]) -> ApiKey | None:
        """The key of a request by its headers alone: the first valid token, or session; nothing is counted."""
        self._reload_keys()
        for token in tokens:
            if key := self._match(token):
                return key
        for cookie in cookies:
            if key := self._find_session_key({"HTTP_COOKIE": cookie}):
                return key
        return None

    def can_afford(self, key: ApiKey, n_customers: int) -> bool:
        """Whether a key may ask for so many customers now; nothing is counted."""
        return self._counts.count(key.slot, self._worker, int(self._clock()), 0) + n_customers <= key.per_second

    def check_affordable(self, key: ApiKey, n_customers: int) -> None:
        """Check that a key may ask for so many customers now, without counting them.

        Raises:
            ApiError: 422 for more than the key may ever ask for in a second, 429 over the limit.
        """
        _check_limit(key, n_customers)
        if not self.can_afford(key, n_customers):
            raise _rate_limited(key)

    def authorise(self, environ: Environ, scope: Scope) -> str | None:
        """Check that a request may be answered, and count it for its key.

        Args:
            environ: the WSGI environment of the request.
            scope: the key must have it.

        Returns:
            id of the request's key; ``None`` where no key is needed.

        Raises:
            ApiError: 401 without a valid key, 403 without the scope, 429 over the limit.
        """
        self._reload_keys()
        if self.is_open:
            self._check_host(environ)
            return None
        key = self._find_key(environ)
        if key is None:
            raise key_required()
        if scope not in key.scopes:
            raise ApiError(403, "scope_missing", f"The key lacks the scope {scope!r}.", {"scopes": list(key.scopes)})
        self._count(key, 1)
        return key.key_id

    def charge(self, key_id: str | None, n_customers: int, n_paid: int = 1) -> None:
        """Count a request for many customers as so many.

        Args:
            key_id: of the request's key.
            n_customers: that the request has.
            n_paid: as how many it was counted so far; ``authorise`` counts the first.

        Raises:
            ApiError: 422 for more than the key may ever ask for in a second, 429 over the limit.
        """
        key = self._keys.get(key_id) if key_id else None
        if key is None or n_customers <= n_paid:
            return
        _check_limit(key, n_customers)
        self._count(key, n_customers - n_paid)

    def _count(self, key: ApiKey, n: int) -> None:
        if self._counts.count(key.slot, self._worker, int(self._clock()), n) > key.per_second:
            raise _rate_limited(key)

    def log_in(self, token: str) -> str:
        """Check an API key and return the content of its session cookie.

        Raises:
            ApiError: 401 without a valid key, 403 without the scope ``lookup``.
        """
        self._reload_keys()
        key = self._match(token)
        if key is None:
            raise ApiError(401, "key_required", "This is not a valid API key.")
        if "lookup" not in key.scopes:
            raise ApiError(403, "scope_missing", "The key lacks the scope 'lookup'.", {"scopes": list(key.scopes)})
        return self.session_of(key.key_id)

    def session_of(self, key_id: str) -> str:
        """Content of a new session cookie of a key; it is worth nothing after a log-out or once the key is revoked."""
        content = self._sessions.dumps([key_id, secrets.token_hex(8)])
        return content if isinstance(content, str) else content.decode()

    def has_session(self, environ: Environ) -> bool:
        """Whether a request comes from a browser that is logged in, or needs no log-in."""
        self._reload_keys()
        return self.is_open or self._find_session_key(environ) is not None

    def end_session(self, environ: Environ) -> None:
        """End the session that a request's cookie names, in all workers."""
        if session := self._find_session(environ):
            self._ended_sessions.end(session[1])

    def _find_key(self, environ: Environ) -> ApiKey | None:
        # First, because a platform such as Cloud Run has the other header for its own access control.
        if "HTTP_X_API_KEY" in environ:
            return self._match(environ["HTTP_X_API_KEY"])
        if "HTTP_AUTHORIZATION" in environ:
            kind, _, token = environ["HTTP_AUTHORIZATION"].partition(" ")
            return self._match(token) if kind.lower() == "bearer" else None
        # Browsers add the cookie to requests that other sites start, so it gives permission to read only.
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._find_session_key(environ)
        return None

    def _match(self, token: str) -> ApiKey | None:
        """The key that a token belongs to; that of a token that was right before is known until keys change."""
        # Before the keys, so that none is remembered that another thread sees revoked meanwhile.
        matched, token = self._matched, token.strip()
        key = matched.get(token)
        if key is None and (key := matching_key(token, self._keys)):
            matched[token] = key
        return key

    def _find_session_key(self, environ: Environ) -> ApiKey | None:
        session = self._find_session(environ)
        if session is None or session[1] in self._ended_sessions:
            return None
        key = self._keys.get(session[0])
        return key if key is not None and key.revoked_at is None else None

    def _find_session(self, environ: Environ) -> tuple[str, str] | None:
        """Id of the key and of the session in a request's cookie; ``None`` where this server did not write it."""
        cookie = parse_cookie(environ.get("HTTP_COOKIE", "")).get(SESSION_COOKIE)
        if not cookie:
            return None
        try:
            key_id, session_id = self._sessions.loads(cookie, max_age=SESSION_SECONDS)
        except BadSignature:
            return None
        return key_id, session_id

    def _known(self, keys: Iterable[ApiKey]) -> dict[str, ApiKey]:
        own = self._settings.own_key
        return {key.key_id: key for key in (*keys, *([own] if own else []))}

    def _check_host(self, environ: Environ) -> None:
        host = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
        if not is_loopback(host) or not _PROXY_HEADERS.isdisjoint(environ):
            raise ApiError(403, "host_not_allowed", "Without API keys only requests from this machine are answered.")

    def _reload_keys(self) -> None:
        """Read the file of keys again if it has changed."""
        now = time.monotonic()
        if now - self._checked_at < _RELOAD_SECONDS:
            return
        self._checked_at = now
        state = file_state(self._file.path)
        if state == self._file_state:
            return
        # Removing or damaging the file while the server runs must not open the server: the known keys stay valid.
        try:
            keys = self._file.read()
        except BadInputError as error:
            log.error("%s", error)
            gone = self._file.revoked_ids()
            self._keys = {
                key_id: key.model_copy(update={"revoked_at": datetime.now(UTC)}) if key_id in gone else key
                for key_id, key in self._keys.items()
            }
        else:
            if keys:
                self._keys = self._known(keys)
        self._matched = {}
        self._file_state = state


def key_required() -> ApiError:
    """Error for a request without a valid API key."""
    return ApiError(
        401,
        "key_required",
        "A valid API key is needed: send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
        headers={"WWW-Authenticate": 'Bearer realm="custseg"'},
    )


def _check_limit(key: ApiKey, n_customers: int) -> None:
    if n_customers > key.per_second:
        raise ApiError(
            422,
            "batch_too_large",
            f"The request has, or by its size counts as, {n_customers} customers; the key may ask for "
            f"{key.per_second} in a second. Send fewer at once.",
            {"max_batch": key.per_second},
        )


def _rate_limited(key: ApiKey) -> ApiError:
    return ApiError(
        429,
        "rate_limited",
        f"More than {key.per_second} customers in a second.",
        {"per_second": key.per_second},
        {"Retry-After": "1"},
    )
