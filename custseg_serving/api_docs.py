"""The page for people who read about the API: ``/openapi.json`` shown by Swagger UI, from this host only."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, send_from_directory

from custseg_serving.errors import ApiError

PAGE = Path(__file__).with_name("docs_page")
SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
"""What is taken from the package ``flask-swagger-ui``, which contains the files of Swagger UI as they are published."""
OWN = ("docs.js", "docs.css")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The policy of this page only: Swagger UI has images in its style sheet and styles in its elements."""


def docs() -> Response:
    """The page; it contains no data, so it needs no key."""
    response = send_from_directory(PAGE, "index.html", max_age=0)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def docs_file(name: str) -> Response:
    """The page's scripts and styles.

    Raises:
        ApiError: 404 for any other file.
    """
    if name in OWN:
        return send_from_directory(PAGE, name, max_age=0)
    if name in SWAGGER_UI:
        return send_from_directory(str(files("flask_swagger_ui") / "dist"), name, max_age=3600)
    raise ApiError(404, "not_found", f"The page has no file {name[:100]!r}; it is at /docs.", {"nearest": "/docs"})


def make_blueprint() -> Blueprint:
    """Routes of the page."""
    blueprint = Blueprint("docs", __name__)
    for rule, view in (("/docs", docs), ("/docs/<name>", docs_file)):
        blueprint.add_url_rule(rule, view.__name__, view, methods=["GET"])
    return blueprint
