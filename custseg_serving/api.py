"""The HTTP interface: one table of operations that routes, permissions and OpenAPI are made from.

The first line of a view's docstring is the operation's summary in ``/openapi.json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flask import Blueprint, Response, current_app, request
from pydantic import BaseModel, ValidationError

from custseg_assets.stores.customer_lists import ListQuery
from custseg_serving import list_parameters, schemas
from custseg_serving.access import KEY_ID
from custseg_serving.errors import MAX_PROBLEMS_SHOWN, ApiError, to_json
from custseg_serving.keys import Scope
from custseg_serving.list_parameters import customers_query, moves_query, parse_parameters, segment_query
from custseg_serving.lists import Lists, file_name, unknown_segment
from custseg_serving.service import RequestInfo, Service, not_ready

EXTENSION = "custseg"
JSON, CSV = "application/json", "text/csv"
HELD_OUT_HEADER = "X-Held-Out"
"""Of a CSV file: how many customers are left out of it, because a running campaign holds them out."""
REQUEST_ID, CLIENT_REQUEST_ID, STARTED = "custseg.request_id", "custseg.client_request_id", "custseg.started"

MAX_FIELDS = 40
"""Twice as many as a row of features has."""
# A string that does not end is matched as well, so that no text is looked at twice.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)

Body = TypeVar("Body", bound=schemas.CustomersRequest)


def service() -> Service:
    """The service of the application that handles the request."""
    return cast("Service", current_app.extensions[EXTENSION])


def request_info() -> RequestInfo:
    """What the prediction log records of the current request."""
    return RequestInfo(request.environ[REQUEST_ID], request.environ.get(KEY_ID), request.environ[STARTED])


def parse_body(model: type[Body]) -> Body:
    """Read and validate the current request's body, and charge its key for the customers in it.

    Raises:
        ApiError: 415 for another content type than JSON, otherwise as ``validate_body``.
    """
    if request.mimetype != JSON:
        raise ApiError(415, "not_json", f"Got content type {request.mimetype[:100]!r}; expected {JSON}.")
    return validate_body(model, request.get_data(cache=False), service(), request.environ.get(KEY_ID))


def validate_body(model: type[Body], content: bytes, service: Service, key_id: str | None) -> Body:
    """Validate a request's body, and charge its key for the customers in it.

    A body is paid for before it is parsed, or one that is large and wrong would cost a key nothing and the server a
    tenth of a second.

    Raises:
        ApiError: 400 for malformed JSON, 422 where it does not fit the model or has too much, 429 over the key's limit.
    """
    max_batch = service.settings.max_batch
    n_paid = _least_customers(content, max_batch, service.settings.max_body_bytes)
    service.access.charge(key_id, n_paid)
    _check_amount(content, max_batch)
    try:
        body = model.model_validate_json(content)
    except ValidationError as error:
        raise _validation_error(error) from None
    _check_batch(body.n_customers, max_batch)
    service.access.charge(key_id, body.n_customers, n_paid)
    return body


def _least_customers(content: bytes, max_batch: int, max_body_bytes: int) -> int:
    """Customers that a body of this size and with so many fields has at least, or it could not have ``max_batch``."""
    return max(1, len(content) * max_batch // max_body_bytes, content.count(b",") // MAX_FIELDS)


def _check_amount(content: bytes, max_batch: int) -> None:
    """Refuse a body before it is parsed where it must have too many customers; parsing millions takes seconds."""
    if _has_too_much(content, max_batch) and _has_too_much(_STRINGS.sub(b"", content), max_batch):
        raise ApiError(
            422,
            "batch_too_large",
            f"Got more than {max_batch} customers, or far too many fields; send them in several requests.",
            {"max_batch": max_batch},
        )


def _has_too_much(content: bytes, max_batch: int) -> bool:
    return content.count(b"{") > max_batch + 1 or content.count(b",") > MAX_FIELDS * max_batch


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


def _check_batch(n_customers: int, limit: int) -> None:
    """Refuse a request for too many customers at once."""
    if n_customers > limit:
        raise ApiError(
            422,
            "batch_too_large",
            f"Got {n_customers} customers; expected at most {limit}. Send them in several requests.",
            {"max_batch": limit},
        )


def feature_rows(customers: Sequence[schemas.FeatureRow]) -> list[dict[str, Any]]:
    """Feature rows of a request, each with the features that it gives only."""
    return [row.model_dump(exclude_unset=True) for row in customers]


def json_response(value: Any) -> Response:
    """An answer with status 200; bytes are JSON that is rendered already."""
    return Response(value if isinstance(value, bytes) else to_json(value), mimetype=JSON)


def lookup(customer_id: str) -> Response:
    """Segment of one customer, and why."""
    # The gateway answers the same, without Flask, where the request is a plain one; so it does for scores.
    return json_response(service().lookup(customer_id, request_info()))


def lookup_many() -> Response:
    """Segments of many customers, and why."""
    body = parse_body(schemas.LookupRequest)
    return json_response(service().lookup_many(body.customer_ids, request_info()))


def score() -> Response:
    """Segment of customers who are not in the release, from their recency, orders and spend."""
    rows = feature_rows(parse_body(schemas.ScoreRequest).customers)
    return json_response(service().score_with_release_info(rows, request_info()))


def segments() -> Response:
    """Every segment: size, money, what is typical, what to do."""
    answers = service().answers()
    return json_response({"segments": answers.segments(), **answers.release_info})


def segment(segment_id: str) -> Response:
    """One segment: size, money, what is typical, what to do."""
    answers = service().answers()
    profile = next((row for row in answers.segments() if row["segment_id"] == segment_id), None)
    if profile is None:
        raise unknown_segment(segment_id, {row["segment_id"]: row["segment_name"] for row in answers.segments()})
    return json_response({"segment": profile, **answers.release_info})


def customers() -> Response:
    """Customers: filtered, sorted, a page at a time."""
    parameters = parse_parameters(list_parameters.CustomersPage, request.args)
    return _page(customers_query(parameters), parameters)


def customers_csv() -> Response:
    """Customers as CSV: all that fit."""
    parameters = parse_parameters(list_parameters.CustomersFile, request.args)
    return _file(customers_query(parameters), parameters, "customers")


def segment_customers(segment_id: str) -> Response:
    """One segment's customers: filtered, sorted, a page at a time."""
    parameters = parse_parameters(list_parameters.SegmentPage, request.args)
    return _page(segment_query(parameters, segment_id), parameters)


def segment_customers_csv(segment_id: str) -> Response:
    """One segment's customers as CSV: all that fit."""
    parameters = parse_parameters(list_parameters.SegmentFile, request.args)
    return _file(segment_query(parameters, segment_id), parameters, "customers")


def moves() -> Response:
    """Who moved to another segment since the snapshot before: filtered, sorted, a page at a time."""
    parameters = parse_parameters(list_parameters.MovesPage, request.args)
    return _page(moves_query(parameters), parameters)


def moves_csv() -> Response:
    """Who moved, as CSV: all that fit."""
    parameters = parse_parameters(list_parameters.MovesFile, request.args)
    return _file(moves_query(parameters), parameters, "moves")


def _page(query: ListQuery, parameters: list_parameters.Page) -> Response:
    answers = service().answers()
    page = Lists(answers).page(query, parameters.limit, parameters.cursor)
    return json_response({**page, **answers.release_info})


def _file(query: ListQuery, parameters: list_parameters.File, what: str) -> Response:
    answers = service().answers()
    found = Lists(answers).csv(
        query, has_mark=parameters.bom == "true", has_decimal_comma=parameters.decimal_comma == "true"
    )
    name = file_name(answers, what, (*query.moved_from, *query.segment))
    headers = {"Content-Disposition": f'attachment; filename="{name}"', HELD_OUT_HEADER: str(found.n_held_out)}
    return Response(found.lines, mimetype=CSV, headers=headers)


def history(customer_id: str) -> Response:
    """One customer at the snapshots so far, the newest first."""
    return json_response(service().history(customer_id))


def model() -> Response:
    """The model that answers, where it comes from, and its card."""
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
            "currency": manifest.currency,
            "is_demo": manifest.is_demo,
            "model_card": answers.release.model_card,
        }
    )


def healthz() -> Response:
    """Whether the process answers at all."""
    return json_response({"status": "ok"})


def readyz() -> Response:
    """Whether customers can be looked up; degraded says that somebody should look."""
    serving = service()
    answers, refusal = serving.active.answers, serving.active.refusal
    refused = {"release_id": refusal.release_id, "reason": refusal.reason} if refusal else None
    if answers is None:
        raise not_ready(refused)
    if not answers.release.is_intact():
        reason = "customers cannot be looked up any more"
        raise not_ready(refused or {"release_id": answers.release.release_id, "reason": reason})
    predictions = serving.predictions
    return json_response(
        {
            "status": "degraded" if refused or predictions.is_losing else "ready",
            "release_id": answers.release.release_id,
            "refused": refused,
            "n_predictions_dropped": predictions.n_dropped,
            "prediction_log": predictions.problem,
        }
    )


def metrics() -> Response:
    """Requests, latency and releases, for Prometheus."""
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
        parameters: model of what may be in the query.
        media_type: of an answer without a model.
    """

    method: str
    path: str
    view: Callable[..., Response]
    scope: Scope | None
    answer: type[BaseModel] | None
    body: type[BaseModel] | None = None
    rule: str | None = None
    errors: tuple[int, ...] = ()
    parameters: type[BaseModel] | None = None
    media_type: str = "text/plain"

    @property
    def operation_id(self) -> str:
        """Name of the operation."""
        return self.view.__name__

    @property
    def tag(self) -> str:
        """What operations are grouped by for readers: the first part of the path below the version."""
        return self.path.removeprefix("/v1").split("/")[1].removesuffix(".csv") if "/v1/" in self.path else "service"


def _list(
    path: str,
    page: Callable[..., Response],
    file: Callable[..., Response],
    page_parameters: type[BaseModel],
    file_parameters: type[BaseModel],
) -> tuple[Operation, Operation]:
    """A list a page at a time, and the same list as a file."""
    rule = path.replace("{", "<").replace("}", ">")
    return (
        Operation("GET", path, page, "lookup", schemas.ListAnswer, None, rule, (400, 404, 409, 503), page_parameters),
        Operation(
            "GET", f"{path}.csv", file, "lookup", None, None, f"{rule}.csv", (400, 404, 503), file_parameters, CSV
        ),
    )


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
    *_list("/v1/customers", customers, customers_csv, list_parameters.CustomersPage, list_parameters.CustomersFile),
    *_list(
        "/v1/segments/{segment_id}/customers",
        segment_customers,
        segment_customers_csv,
        list_parameters.SegmentPage,
        list_parameters.SegmentFile,
    ),
    *_list("/v1/moves", moves, moves_csv, list_parameters.MovesPage, list_parameters.MovesFile),
    Operation(
        "GET",
        "/v1/customers/{customer_id}/history",
        history,
        "lookup",
        schemas.HistoryAnswer,
        rule="/v1/customers/<path:customer_id>/history",
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
