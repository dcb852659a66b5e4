"""The same application as a Vertex AI prediction container: its health and its predict route.

The platform asks without an API key and lets in only whom Google's access control allows; nobody else can reach the
container. Every other route keeps asking for keys.
"""

from __future__ import annotations

from flask import Blueprint, Response

from custseg_serving import api, schemas
from custseg_serving.settings import VertexRoutes


def predict() -> Response:
    """One prediction per instance."""
    rows = api.rows_of(api.parsed(schemas.PredictRequest).instances, api.service().settings.max_batch)
    return api.json_response(b'{"predictions":' + api.service().score(rows, api.asked()) + b"}")


def make_blueprint(routes: VertexRoutes) -> Blueprint:
    """The two routes, where the platform wants them."""
    blueprint = Blueprint("vertex", __name__)
    blueprint.add_url_rule(routes.health, "health", api.readyz, methods=["GET"])
    blueprint.add_url_rule(routes.predict, "predict", predict, methods=["POST"])
    return blueprint
