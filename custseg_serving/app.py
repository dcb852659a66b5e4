"""The application factory; nothing is opened before it is called."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from custseg_serving import api, dashboard, vertex
from custseg_serving.errors import ApiError, internal_error
from custseg_serving.gateway import ROUTE, Gateway
from custseg_serving.openapi import openapi_document
from custseg_serving.service import Service, Shared
from custseg_serving.settings import ServingSettings

log = logging.getLogger(__name__)


def create_app(settings: ServingSettings, shared: Shared | None = None, worker: int = 0) -> Flask:
    """The service as a WSGI application, its release open and its threads running.

    Call it after forking. ``stop`` of ``application.extensions["custseg"]`` ends the threads and writes what is
    waiting.

    Args:
        settings: of the server.
        shared: what the workers of a server have in common.
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
    if settings.vertex is not None:
        application.register_blueprint(vertex.make_blueprint(settings.vertex))
    application.add_url_rule("/openapi.json", "openapi", _openapi, methods=["GET"])
    application.before_request(_name_route)
    application.register_error_handler(Exception, _explain)
    application.wsgi_app = Gateway(application.wsgi_app, service)  # type: ignore[method-assign]
    service.start()
    return application


def _openapi() -> Response:
    """The interface as it is with the model that is served."""
    service = api.service()
    answers = service.active.answers
    required = answers.required_features if answers else ()
    return api.json_response(openapi_document(_version(), service.settings.max_batch, required))


def _name_route() -> None:
    if request.url_rule is not None:
        request.environ[ROUTE] = request.url_rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")


def _explain(error: Exception) -> Response:
    """Every error in the one shape."""
    if isinstance(error, ApiError):
        explained = error
    elif isinstance(error, HTTPException) and error.code is not None and error.code >= 400:
        code = (error.name or "error").lower().replace(" ", "_")
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        explained = ApiError(error.code, code, error.description or error.name, headers=headers)
    else:
        log.error("request %s failed", request.environ.get(api.REQUEST_ID), exc_info=error)
        explained = internal_error()
    response = Response(explained.body(), explained.status, mimetype="application/json")
    response.headers.extend(explained.headers)
    return response


def _version() -> str:
    try:
        return version("custseg")
    except PackageNotFoundError:
        return "0"
