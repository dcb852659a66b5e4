"""The HTTP interface: one table of operations that routes, permissions and OpenAPI are made from.

The first line of a view's docstring is the operation's summary in ``/openapi.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flask import Blueprint, Response, current_app, request
from pydantic import BaseModel, ValidationError

from custseg_serving import schemas
from custseg_serving.access import KEY_ID
from custseg_serving.errors import MAX_PROBLEMS_SHOWN, ApiError, to_json
from custseg_serving.keys import Scope
from custseg_serving.service import RequestInfo, Service

EXTENSION = "custseg"
JSON = "application/json"
REQUEST_ID, STARTED = "custseg.request_id", "custseg.started"

Body = TypeVar("Body", bound=BaseModel)


def service() -> Service:
    """The service of the application that handles the request."""
    return cast("Service", current_app.extensions[EXTENSION])


def request_info() -> RequestInfo:
    """What the prediction log records of the current request."""
    return RequestInfo(request.environ[REQUEST_ID], request.environ.get(KEY_ID), request.environ[STARTED])


def parse_body(model: type[Body]) -> Body:
    """Read and validate the current request's body.

    Raises:
        ApiError: 415 for another content type than JSON, 400 for malformed JSON, 422 where it does not fit the model.
    """
    if request.mimetype != JSON:
        raise ApiError(415, "not_json", f"Got content type {request.mimetype[:100]!r}; expected {JSON}.")
    return validate_body(model, request.get_data(cache=False))


def validate_body(model: type[Body], content: bytes) -> Body:
    """Validate a request's body.

    Raises:
        ApiError: 400 for malformed JSON, 422 where it does not fit the model.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise _validation_error(error) from None


def _validation_error(error: ValidationError) -> ApiError:
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        return ApiError(400, "malformed_json", f"The body is no JSON: {errors[0]['msg']}.")
    problems = [
        {"where": ".".join(str(part) for part in one["loc"])[:200], "problem": one["msg"]}
        for one in errors[:MAX_PROBLEMS_SHOWN]
    ]
    first = problems[0]
    return ApiError(
        422,
        "invalid_request",
        f"{first['where'] or 'body'}: {first['problem']}.",
        {"problems": problems, "n_problems": len(errors)},
    )


def check_batch(n_customers: int, limit: int) -> None:
    """Refuse a request for too many customers at once.

    Raises:
        ApiError: 422 where there are more than the limit.
    """
    if n_customers > limit:
        raise ApiError(
            422,
            "batch_too_large",
            f"Got {n_customers} customers; expected at most {limit}. Send them in several requests.",
            {"max_batch": limit},
        )


def feature_rows(customers: Sequence[schemas.FeatureRow], limit: int) -> list[dict[str, Any]]:
    """Feature rows of a request, each with the features that it gives only.

    Raises:
        ApiError: 422 for too many rows.
    """
    check_batch(len(customers), limit)
    return [row.model_dump(exclude_unset=True) for row in customers]


def json_response(value: Any) -> Response:
    """An answer with status 200; bytes are JSON that is rendered already."""
    return Response(value if isinstance(value, bytes) else to_json(value), mimetype=JSON)


def lookup(customer_id: str) -> Response:
    """One customer; the gateway answers the same, without Flask, for a plain GET."""
    return json_response(service().lookup(customer_id, request_info()))


def lookup_many() -> Response:
    """Many customers."""
    body = parse_body(schemas.LookupRequest)
    check_batch(len(body.customer_ids), service().settings.max_batch)
    return json_response(service().lookup_many(body.customer_ids, request_info()))


def score() -> Response:
    """Feature rows; the gateway answers the same, without Flask, where the request is a plain one."""
    rows = feature_rows(parse_body(schemas.ScoreRequest).customers, service().settings.max_batch)
    return json_response(service().score_with_release_info(rows, request_info()))


def segments() -> Response:
    """Every segment's profile."""
    answers = service().answers()
    return json_response({"segments": answers.segments(), **answers.release_info})


def segment(segment_id: str) -> Response:
    """One segment's profile."""
    answers = service().answers()
    profile = next((row for row in answers.segments() if row["segment_id"] == segment_id), None)
    if profile is None:
        known = [row["segment_id"] for row in answers.segments()]
        raise ApiError(404, "segment_unknown", f"There is no such segment; there are {', '.join(known)}.")
    return json_response({"segment": profile, **answers.release_info})


def model() -> Response:
    """The model, where it comes from and its card."""
    answers = service().answers()
    manifest = answers.release.manifest
    return json_response(
        {
            **answers.release_info,
            "trained_on": manifest.trained_on,
            "features": manifest.features,
            "required_features": answers.required_features,
            "k": answers.release.model.k,
            "metrics": manifest.metrics,
            "git_revision": manifest.git_revision,
            "data_versions": manifest.data_versions,
            "n_customers": manifest.n_customers,
            "is_demo": manifest.is_demo,
            "model_card": answers.release.model_card,
        }
    )


def healthz() -> Response:
    """Whether the process answers at all."""
    return json_response({"status": "ok"})


def readyz() -> Response:
    """Whether customers can be looked up; ``degraded`` says that somebody should look."""
    serving = service()
    answers, refusal = serving.active.answers, serving.active.refusal
    refused = {"release_id": refusal.release_id, "reason": refusal.reason} if refusal else None
    if answers is None:
        raise ApiError(503, "not_ready", "There is no release to answer from yet.", {"refused": refused})
    n_dropped = serving.predictions.n_dropped
    return json_response(
        {
            "status": "degraded" if refused or n_dropped else "ready",
            "release_id": answers.release.release_id,
            "refused": refused,
            "n_predictions_dropped": n_dropped,
        }
    )


def metrics() -> Response:
    """All workers' metrics, for Prometheus."""
    return Response(service().metrics.exposition(), mimetype="text/plain; version=0.0.4")


@dataclass(frozen=True)
class Operation:
    """One operation of the interface.

    Attributes:
        method: HTTP method.
        path: as OpenAPI writes it.
        view: answers it; its name is the operation's id, its docstring the summary.
        scope: the key must have it; ``None`` where no key is needed.
        answer: model of an answer with status 200; ``None`` for text.
        body: model of the request's body.
        rule: path as Flask writes it, where that differs.
        errors: statuses besides those that every operation shares.
    """

    method: str
    path: str
    view: Callable[..., Response]
    scope: Scope | None
    answer: type[BaseModel] | None
    body: type[BaseModel] | None = None
    rule: str | None = None
    errors: tuple[int, ...] = ()

    @property
    def operation_id(self) -> str:
        """Name of the operation."""
        return self.view.__name__


OPERATIONS = (
    Operation(
        "GET",
        "/v1/customers/{customer_id}/segment",
        lookup,
        "lookup",
        schemas.LookupAnswer,
        # Ids are the shop's own, and some shops write slashes in them.
        rule="/v1/customers/<path:customer_id>/segment",
        errors=(404, 503),
    ),
    Operation(
        "POST",
        "/v1/customers/segments",
        lookup_many,
        "lookup",
        schemas.LookupsAnswer,
        body=schemas.LookupRequest,
        errors=(503,),
    ),
    Operation("POST", "/v1/score", score, "score", schemas.ScoreAnswer, body=schemas.ScoreRequest, errors=(503,)),
    Operation("GET", "/v1/segments", segments, "lookup", schemas.SegmentsAnswer, errors=(503,)),
    Operation(
        "GET",
        "/v1/segments/{segment_id}",
        segment,
        "lookup",
        schemas.SegmentAnswer,
        rule="/v1/segments/<segment_id>",
        errors=(404, 503),
    ),
    Operation("GET", "/v1/model", model, "lookup", schemas.ModelAnswer, errors=(503,)),
    Operation("GET", "/healthz", healthz, None, schemas.Health),
    Operation("GET", "/readyz", readyz, None, schemas.Readiness, errors=(503,)),
    Operation("GET", "/metrics", metrics, "admin", None),
)


def require_scope(view: Callable[..., Response], scope: Scope | None) -> Callable[..., Response]:
    """Wrap a view so that it needs a scope; the key is checked before anything of the body is read."""

    def guard(**arguments: str) -> Response:
        if scope is not None:
            request.environ[KEY_ID] = service().access.authorise(request.environ, scope)
        return view(**arguments)

    return guard


def make_blueprint() -> Blueprint:
    """Routes of all operations."""
    blueprint = Blueprint("api", __name__)
    for operation in OPERATIONS:
        blueprint.add_url_rule(
            operation.rule or operation.path,
            operation.operation_id,
            require_scope(operation.view, operation.scope),
            methods=[operation.method],
            provide_automatic_options=False,
        )
    return blueprint
