"""Who may use Dagster's pages: this machine's user, who has the address that ``custseg ui`` printed, and nobody else.

Dagster answers whoever reaches its port, and takes a plain GET for a change. Any web page that is open in a browser on
this machine reaches the port, and by a name that it points to 127.0.0.1 reads the answers, too. The guard looks before
Dagster sees anything: at the host that was asked for, the page that asks, and a token that is new at every start.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from custseg_assets.settings import UI_TOKEN_HEADER

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_POLICY_VIOLATION = 1008
_MUTATING = ("/graphql", "/report_asset")
"""How the paths begin of what changes something."""


class Guard:
    """ASGI middleware that answers only who may be answered.

    Args:
        app: what is guarded.
        port: that the pages are on.
        token: of this start; without one nothing is asked but where a request comes from.
    """

    def __init__(self, app: App, port: int, token: str) -> None:
        self._app, self._token = app, token
        self._hosts = frozenset(f"{host}:{port}" for host in _LOOPBACK)
        self._cookie = f"custseg_ui_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if why := self._foreign(scope, headers):
            await _refuse(scope, send, 403, why)
        elif self._equals(given.get("token")) and scope["type"] == "http":
            await self._log_in(scope, given, send)
        elif not self._is_known(headers):
            await _refuse(scope, send, 401, "Open the address that 'custseg ui' printed: it has the token in it.")
        elif why := _wrong_form(scope, headers):
            await _refuse(scope, send, 405, why)
        else:
            await self._app(scope, receive, _without_frames(send))

    def _foreign(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        """Why a request comes from elsewhere, if so."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return f"This is the host {host!r} to nobody; expected one of {', '.join(sorted(self._hosts))}."
        if origin is not None and origin.partition("://")[2] not in self._hosts:
            return f"Another site's page, of {origin}, asked for this."
        site = headers.get("sec-fetch-site", "none")
        is_link = scope.get("method") == "GET" and headers.get("sec-fetch-dest") == "document"
        if site not in ("same-origin", "none") and not (is_link and not scope["path"].startswith(_MUTATING)):
            return "Another site's page asked for this."
        return None

    def _is_known(self, headers: Mapping[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            cookie = None
        return self._equals(headers.get(UI_TOKEN_HEADER.lower())) or self._equals(cookie.value if cookie else None)

    def _equals(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self._token.encode())

    async def _log_in(self, scope: Scope, given: Mapping[str, str], send: Send) -> None:
        """Keep the token in a cookie that no other site can send, and show the same page without it in the address."""
        rest = urlencode({name: value for name, value in given.items() if name != "token"})
        # One slash: two would be another host's address.
        target = "/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else "")
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", target.encode()), (b"set-cookie", cookie.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _wrong_form(scope: Scope, headers: Mapping[str, str]) -> str | None:
    """Why a question has a form that the pages never use, if so: a GET must not be able to change anything."""
    if scope["type"] == "websocket" or not scope["path"].startswith("/graphql"):
        return None
    if scope["method"] != "POST":
        return "GraphQL is answered by POST only."
    if not headers.get("content-type", "").startswith(("application/json", "multipart/form-data")):
        return "GraphQL is answered as application/json only."
    return None


def _without_frames(send: Send) -> Send:
    """Answers that no other page can show inside itself, where its visitors would click on them unknowingly."""

    async def send_so(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-frame-options", b"DENY")]
        await send(message)

    return send_so


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": why[:120]})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
