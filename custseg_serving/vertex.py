"""Health and predict route of a Vertex AI prediction container.

Vertex AI sends requests without an API key: only clients that Google's access control allows can reach the container.
All other routes need a key as everywhere.
"""

from __future__ import annotations

from flask import Blueprint, Response

from custseg_serving import api, schemas
from custseg_serving.settings import VertexRoutes


def predict() -> Response:
    """Answer one prediction per instance, in Vertex AI's format."""
    rows = api.feature_rows(api.parse_body(schemas.PredictRequest).instances)
    return api.json_response(b'{"predictions":' + api.service().score(rows, api.request_info()) + b"}")


def make_blueprint(routes: VertexRoutes) -> Blueprint:
    """Health and predict route at the paths that Vertex AI requires."""
    blueprint = Blueprint("vertex", __name__)
    blueprint.add_url_rule(routes.health, "health", api.readyz, methods=["GET"])
    blueprint.add_url_rule(routes.predict, "predict", predict, methods=["POST"])
    return blueprint
