"""The OpenAPI 3.1 document, generated from the operations and the models that validate their requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from custseg_assets.domain.segments.explain import BY_WEEK, RULE_FEATURES
from custseg_serving import examples
from custseg_serving.api import OPERATIONS, Operation
from custseg_serving.schemas import ErrorAnswer

_REFERENCES = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The body is no JSON, or a parameter does not fit.",
    401: "No valid key.",
    403: "The key lacks the scope, or the host is not allowed.",
    404: "There is no such thing.",
    409: "The cursor is of another release: begin again.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The body does not fit, or names too many customers; the details say where.",
    429: "The key's limit is reached.",
    503: "There is no release to answer from yet.",
}


def openapi_document(version: str, max_batch: int, required_features: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        version: of the service.
        max_batch: limit of customers in one request.
        required_features: features that the served model needs in every row; empty without a release.
    """
    models: set[type[BaseModel]] = {ErrorAnswer}
    for operation in OPERATIONS:
        models.update(model for model in (operation.body, operation.answer) if model is not None)
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        (model, "validation") for model in sorted(models, key=lambda model: model.__name__)
    ]
    _, definitions = models_json_schema(modes, ref_template=_REFERENCES)
    _add_limits(definitions["$defs"], max_batch, required_features)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "custseg",
            "version": version,
            "description": "Which segment is this customer in, and why? Who is at risk, and who moved?\n\n"
            "Send an API key as `Authorization: Bearer …` or `X-API-Key: …`; `custseg-serving keys create NAME` makes "
            "one. Every answer names the release it comes from, every "
            "error has one shape.\n\n"
            f"A request names at most {max_batch} customers; lists have up to 500 on a page and go on with `next`.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _add_limits(definitions: dict[str, Any], max_batch: int, required_features: Sequence[str]) -> None:
    """Add limits that depend on the settings and on the release, which the pydantic models cannot contain."""
    for model, field in (("LookupRequest", "customer_ids"), ("ScoreRequest", "customers")):
        definitions[model]["properties"][field]["maxItems"] = max_batch
    if not required_features:
        return
    row = definitions["FeatureRow"]
    row["required"] = list(required_features)
    for name in RULE_FEATURES:
        row["properties"][name] = {"description": row["properties"][name]["description"], **_number(row, name)}
    # Only a customer without orders or net spend may lack a feature: a rule assigns their segment.
    others = [name for name in required_features if name not in RULE_FEATURES]
    row["if"] = {"properties": {name: {"type": "number", "exclusiveMinimum": 0} for name in RULE_FEATURES}}
    row["then"] = {"properties": {name: {"type": "array" if name == BY_WEEK else "number"} for name in others}}


def _number(row: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a feature, without null."""
    number: dict[str, Any] = next(one for one in row["properties"][name]["anyOf"] if one["type"] == "number")
    return number


def _describe(operation: Operation) -> dict[str, Any]:
    shared = (() if operation.scope is None else (401, 403, 429)) + (
        () if operation.body is None else (400, 413, 415, 422)
    )
    description: dict[str, Any] = {
        "operationId": operation.operation_id,
        "summary": (operation.view.__doc__ or "").strip().splitlines()[0],
        "tags": [operation.tag],
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
                "example": examples.PATHS[name],
            }
            for name in re.findall(r"{(\w+)}", operation.path)
        ]
        + _query_parameters(operation.parameters),
        "responses": {
            "200": {
                "description": "The answer.",
                "content": _content(operation.answer, examples.ANSWERS[operation.operation_id], operation.media_type),
            },
            **{
                str(status): {"description": _MEANINGS[status], "content": _content(ErrorAnswer, _error(status))}
                for status in sorted((*shared, *operation.errors))
            },
        },
        "security": [] if operation.scope is None else [{"bearer": []}, {"header": []}],
    }
    if operation.body is not None:
        body = _content(operation.body, examples.BODIES[operation.operation_id])
        description["requestBody"] = {"required": True, "content": body}
    return description


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    """The parameters of a query, from the model that validates them."""
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=_REFERENCES)
    return [_query_parameter(name, dict(field)) for name, field in schema["properties"].items()]


def _query_parameter(name: str, field: dict[str, Any]) -> dict[str, Any]:
    described = {"name": name, "in": "query", "required": False, "description": field.pop("description")}
    # A parameter that is left out is null to the model, but nobody can send null in a query.
    options = [one for one in field.pop("anyOf", []) if one.get("type") != "null"]
    if not field.get("default"):
        field.pop("default", None)
    field.pop("title", None)
    described["schema"] = {**field, **(options[0] if options else {})}
    return described


def _error(status: int) -> dict[str, Any]:
    code, message, details = examples.ERRORS[status]
    return {"error": {"code": code, "message": message, "details": details}}


def _content(model: type[BaseModel] | None, example: Any, media_type: str = "text/plain") -> dict[str, Any]:
    if model is None:
        return {media_type: {"schema": {"type": "string"}, "example": example}}
    reference = {"$ref": _REFERENCES.format(model=model.__name__)}
    return {"application/json": {"schema": reference, "example": example}}
