"""The Flask application factory. Nothing is opened at import."""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, NotFound

from custseg_serving import api, api_docs, dashboard, vertex
from custseg_serving.errors import ApiError, internal_error, to_json
from custseg_serving.gateway import ROUTE, Gateway
from custseg_serving.openapi import openapi_document
from custseg_serving.service import Service, SharedState
from custseg_serving.settings import ServingSettings

log = logging.getLogger(__name__)


def create_app(settings: ServingSettings, shared: SharedState | None = None, worker: int = 0) -> Flask:
    """Create the WSGI application, open the release and start the service's threads.

    Call it after forking. ``application.extensions["custseg"].stop()`` ends the threads and writes the logs' queues.

    Args:
        settings: of the server.
        shared: what the workers of a server share.
        worker: number of this worker.

    Raises:
        BadInputError: the file of keys is damaged.
    """
    service = Service(settings, shared, worker)
    application = Flask(__name__, static_folder=None)
    application.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    application.url_map.merge_slashes = False
    application.extensions[api.EXTENSION] = service
    application.register_blueprint(api.make_blueprint())
    application.register_blueprint(dashboard.make_blueprint())
    application.register_blueprint(api_docs.make_blueprint())
    if settings.vertex is not None:
        application.register_blueprint(vertex.make_blueprint(settings.vertex))
    application.add_url_rule("/openapi.json", "openapi", _openapi, methods=["GET"])
    application.before_request(_name_route)
    application.register_error_handler(Exception, _render_error)
    application.wsgi_app = Gateway(application.wsgi_app, service)  # type: ignore[method-assign]
    service.start()
    return application


def _openapi() -> Response:
    """The OpenAPI document, with the features that the served model needs."""
    service = api.service()
    answers = service.active.answers
    required = answers.required_features if answers else ()
    return api.json_response(_rendered_openapi(service.settings.max_batch, tuple(required)))


@functools.lru_cache(maxsize=8)
def _rendered_openapi(max_batch: int, required: tuple[str, ...]) -> bytes:
    # Making it takes as long as hundreds of lookups, and anybody may ask for it.
    return to_json(openapi_document(_version(), max_batch, required))


def _name_route() -> None:
    if request.url_rule is not None:
        request.environ[ROUTE] = request.url_rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")


def _render_error(error: Exception) -> Response:
    """Answer any error with the service's one error body."""
    if isinstance(error, ApiError):
        api_error = error
    elif isinstance(error, NotFound):
        api_error = unknown_path(request.path)
    elif isinstance(error, HTTPException) and error.code is not None and error.code >= 400:
        code = (error.name or "error").lower().replace(" ", "_")
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        api_error = ApiError(error.code, code, error.description or error.name, headers=headers)
    else:
        log.error("request %s failed", request.environ.get(api.REQUEST_ID), exc_info=error)
        api_error = internal_error()
    response = Response(api_error.body(), api_error.status, mimetype=api.JSON)
    response.headers.extend(api_error.headers)
    return response


def unknown_path(path: str) -> ApiError:
    """Error for a path that there is not, with the one that was probably meant."""
    # Comparing takes longer the longer a text is, and no path that is meant is so long.
    parts = path[:200].split("/")
    known = ("/", "/docs", "/openapi.json", *(_fill(operation.path, parts) for operation in api.OPERATIONS))
    nearest = difflib.get_close_matches("/".join(parts), known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return ApiError(
        404,
        "not_found",
        f"There is nothing at {path[:200]}; {hint}All paths are in /docs.",
        {"nearest": nearest[0] if nearest else None},
    )


def _fill(template: str, parts: Sequence[str]) -> str:
    """A path with parameters, with what a path of as many parts has in their places."""
    own = template.split("/")
    if len(own) != len(parts):
        return template
    return "/".join(given if name.startswith("{") else name for name, given in zip(own, parts, strict=True))


def _version() -> str:
    try:
        return version("custseg")
    except PackageNotFoundError:
        return "0"
