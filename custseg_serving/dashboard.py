"""The dashboard: its page, its data, and log-in with an API key. Page, style and scripts are in ``static/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request, send_from_directory

from custseg_serving import api
from custseg_serving.access import SESSION_COOKIE, SESSION_SECONDS
from custseg_serving.errors import ApiError

STATIC = Path(__file__).with_name("static")
ADDRESSES = ("/", "/customers", "/customer")
"""Addresses of the page; its script shows the overview, a list of customers, or one customer."""


def page() -> Response:
    """The dashboard's page, the same at each of its addresses; it contains no data, so it needs no key."""
    response = send_from_directory(STATIC, "index.html", max_age=0)
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


def static_file(name: str) -> Response:
    """The dashboard's style, scripts and icon."""
    return send_from_directory(STATIC, name, max_age=0)


def data() -> Response:
    """What the dashboard shows of the release."""
    answers = api.service().answers()
    release, refusal = answers.release, api.service().active.refusal
    shown: dict[str, Any] = {
        **answers.release_info,
        "is_demo": release.manifest.is_demo,
        "manifest": release.manifest.model_dump(mode="json", exclude={"files"}),
        "segments": answers.segments(),
        "migrations": release.migrations,
        "drift": release.drift["reports"],
        "history": release.history,
        "model_card": release.model_card,
        "refused": refusal.reason if refusal else None,
        "currency": release.manifest.currency,
        "has_session": not api.service().access.is_open,
    }
    return api.json_response(shown)


def traffic() -> Response:
    """Number of answers so far by route, over all workers; the page computes rates from differences."""
    return api.json_response({"routes": api.service().metrics.traffic()})


def log_in() -> Response:
    """Open a session with an API key."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise ApiError(403, "cross_site", "Log in from this site's own page.")
    return _open_session(api.service().access.log_in(request.form.get("key", "")))


def use_login_link(token: str) -> Response:
    """Open a session by a link that ``custseg-serving demo`` shows and that is good for once."""
    serving = api.service()
    # Programs that only look at a link before a person follows it must not use it up.
    key_id = serving.login_links.use(token) if serving.login_links and request.method == "GET" else None
    if key_id is not None:
        return _open_session(serving.access.session_of(key_id))
    if serving.access.has_session(request.environ):
        return _redirect_to_page()
    if "text/html" in request.headers.get("Accept", ""):
        # The page asks for a key, and says why the link does not do.
        return Response(status=303, headers={"Location": "/?login=used"})
    raise ApiError(
        410,
        "login_link_used",
        "This link was used before, is older than ten minutes, or was never made. Open / and log in with an API key.",
    )


def _open_session(cookie: str) -> Response:
    response = _redirect_to_page()
    response.set_cookie(
        SESSION_COOKIE,
        cookie,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="Strict",
        # On loopback the dashboard is plain HTTP; everywhere else browsers send the cookie over TLS only.
        secure=not api.service().settings.is_loopback,
    )
    return response


def log_out() -> Response:
    """End the dashboard session, here and in the browser."""
    api.service().access.end_session(request.environ)
    response = _redirect_to_page()
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="Strict")
    return response


def _redirect_to_page() -> Response:
    return Response(status=303, headers={"Location": "/"})


def make_blueprint() -> Blueprint:
    """Routes of the dashboard."""
    blueprint = Blueprint("dashboard", __name__)
    for rule in ADDRESSES:
        blueprint.add_url_rule(rule, page.__name__, page, methods=["GET"])
    blueprint.add_url_rule("/static/<name>", static_file.__name__, static_file, methods=["GET"])
    for rule, view in (("/dashboard/data", data), ("/dashboard/traffic", traffic)):
        blueprint.add_url_rule(rule, view.__name__, api.require_scope(view, "lookup"), methods=["GET"])
    blueprint.add_url_rule("/login/<token>", use_login_link.__name__, use_login_link, methods=["GET"])
    for rule, view in (("/login", log_in), ("/logout", log_out)):
        blueprint.add_url_rule(rule, view.__name__, view, methods=["POST"])
    return blueprint
