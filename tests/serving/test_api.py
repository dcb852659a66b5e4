"""Requests and answers over HTTP: lookups, scores, segments, model, errors and hostile input."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from flask.testing import FlaskClient

from custseg_assets.domain.periods import window_of
from custseg_assets.domain.schemas import SCALABLE_FEATURES
from custseg_assets.domain.segments.explain import BY_WEEK, FEATURES, Explainer, segments_of
from custseg_assets.domain.segments.model import LineageEvent
from custseg_assets.stores.releases import current, open_release
from custseg_serving import schemas
from custseg_serving.answers import Answers
from custseg_serving.settings import VertexRoutes
from tests.support.releases import CUSTOMERS, LAPSED_CUSTOMER, make_content, make_model, make_release
from tests.support.server import LOOKUP, ROW, StartApp, is_error


def test_a_lookup_says_where_a_customer_stands_and_why(client: FlaskClient) -> None:
    answer = client.get("/v1/customers/12348/segment").get_json()
    assert (answer["segment_id"], answer["segment_name"]) == ("S2", "Promising")
    assert answer["since"] == "2011-11-01"
    assert answer["previous"] == {"segment_id": "S1", "segment_name": "Champions"}
    assert answer["rfm"] == ROW
    assert answer["recommendations"][0] == {"product_id": "22423", "description": "REGENCY CAKESTAND 3 TIER"}
    assert answer["as_of"] == "2011-12-01T00:00:00"
    assert answer["staleness"]["is_stale"]
    schemas.LookupAnswer.model_validate(answer, strict=True, extra="forbid")


def test_lookups_of_a_period_that_is_not_over_say_so(
    served_home: Path, start_app: StartApp, client: FlaskClient
) -> None:
    assert client.get("/v1/customers/12347/segment").get_json()["is_open"] is False
    content = make_content()
    window = window_of(content.window.key, "2011-06-01", 6, "monthly", datetime(2011, 11, 10))
    make_release(served_home / "releases", replace(content, window=window))
    opened = start_app().test_client()
    for route in ("/v1/customers/12347/segment", "/v1/segments", "/v1/model", "/dashboard/data"):
        answer = opened.get(route).get_json()
        assert (answer["as_of"], answer["is_open"]) == ("2011-11-10T00:00:00", True), route


def test_a_reason_compares_the_customer_with_what_is_typical_of_the_runner_up() -> None:
    # Worked out by hand: recency scaled is (ln 63 - 3.6) / 1.2 = 0.4526, frequency (ln 4 - 1.1) / 0.6 = 0.4772.
    # Against S3 (1.2, -0.7, -1.2) and S2 (-0.2, 0.5, 0.4) the pulls are 0.5586 - 0.4259 = 0.133 and 1.386 - 0.001.
    # S3's typical customer: exp(1.2 * 1.2 + 3.6) - 1 = 153 days, exp(-0.7 * 0.6 + 1.1) - 1 = 1 order.
    reasons = Explainer(make_model()).reasons(
        "S2", "S3", {"recency_days": 62, "frequency_orders": 3, "monetary_net": 1}
    )
    assert [reason.text for reason in reasons] == [
        "3 orders; At risk: 1",
        "62 days since the last order; At risk: 153",
    ]


def test_a_held_customer_is_told_so_and_by_what_still_speaks_for_the_segment(
    served_home: Path, start_app: StartApp
) -> None:
    content = make_content()
    held = pl.col("customer_id") == "12348"
    # 12348 is nearest to S2; here the margin rule holds it in S3, which its recency is typical of.
    changed = content.assignments.with_columns(
        segment_id=pl.when(held).then(pl.lit("S3")).otherwise("segment_id"),
        runner_up_segment_id=pl.when(held).then(pl.lit("S2")).otherwise("runner_up_segment_id"),
        margin=pl.when(held).then(-0.05).otherwise("margin"),
        is_held=held,
    )
    make_release(served_home / "releases", replace(content, assignments=changed))
    answer = start_app().test_client().get("/v1/customers/12348/segment").get_json()
    assert (answer["segment_id"], answer["is_held"], answer["margin"]) == ("S3", True, -0.05)
    assert answer["reasons"][0] == {
        "feature": "margin",
        "text": "kept in At risk: nearer to Promising now, but not clearly, and not for two snapshots",
    }
    schemas.LookupAnswer.model_validate(answer, strict=True, extra="forbid")


def test_a_segments_lineage_is_told(served_home: Path, start_app: StartApp) -> None:
    born = LineageEvent("born", (), ("S3",), "At risk (S3) is new.")
    make_release(served_home / "releases", make_content(replace(make_model(), lineage=(born,))))
    client = start_app().test_client()
    assert client.get("/v1/segments/S3").get_json()["segment"]["lineage"] == [
        {"kind": "born", "before": [], "after": ["S3"], "words": "At risk (S3) is new."}
    ]
    assert client.get("/v1/segments/S1").get_json()["segment"]["lineage"] == []


@pytest.mark.parametrize("customer", [name for name, *_ in CUSTOMERS[:5]])
def test_lookup_score_and_pipeline_agree_bit_for_bit(client: FlaskClient, customer: str) -> None:
    values = next(row[1:] for row in CUSTOMERS if row[0] == customer)
    looked_up = client.get(f"/v1/customers/{quote(customer, safe='')}/segment").get_json()
    scored = client.post("/v1/score", json={"customers": [dict(zip(ROW, values, strict=True))]}).get_json()[
        "customers"
    ][0]
    scores = make_model().score(np.array([values], dtype=float))
    segment = make_model().segments[scores.cluster[0]]
    assert looked_up["customer_id"] == customer
    for answer in (looked_up, scored):
        assert (answer["segment_id"], answer["margin"]) == (segment.segment_id, float(scores.margin[0]))
    assert looked_up["reasons"] == scored["reasons"]


@pytest.mark.parametrize(
    ("customer", "segment", "reason"),
    [
        ("14000", "Refunded", "-12.50 spent after cancellations"),
        ("14001", "Refunded", "no orders, only cancellations"),
        (LAPSED_CUSTOMER, "Lapsed", "nothing in the observation window"),
    ],
)
def test_rule_segments_are_told_apart_and_explained(
    client: FlaskClient, customer: str, segment: str, reason: str
) -> None:
    answer = client.get(f"/v1/customers/{customer}/segment").get_json()
    assert (answer["segment_name"], answer["is_rule_segment"], answer["margin"]) == (segment, True, None)
    assert [one["text"] for one in answer["reasons"]] == [reason]


def test_unknown_and_too_new_are_different_errors(client: FlaskClient) -> None:
    assert is_error(client.get("/v1/customers/nobody/segment"), 404, "customer_unknown")
    too_new = client.get("/v1/customers/19999/segment")
    assert is_error(too_new, 404, "customer_too_new")
    assert too_new.get_json()["error"]["details"]["first_seen_at"].startswith("2011-12-05T09:30")


def test_many_lookups_put_every_id_in_exactly_one_list(client: FlaskClient) -> None:
    asked = ["12347", "nobody", "19999", "12347", LAPSED_CUSTOMER]
    answer = client.post("/v1/customers/segments", json={"customer_ids": asked}).get_json()
    schemas.LookupsAnswer.model_validate(answer, strict=True, extra="forbid")
    assert [one["customer_id"] for one in answer["customers"]] == ["12347", LAPSED_CUSTOMER]
    assert answer["unknown"] == ["nobody"]
    assert [one["customer_id"] for one in answer["too_new"]] == ["19999"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/customers/12348/segment", None),
        ("GET", "/v1/customers/nobody/segment", None),
        ("POST", "/v1/score", {"customers": [ROW]}),
        ("POST", "/v1/score", {"customers": [{}]}),
        ("POST", "/v1/score", {"customers": 1}),
    ],
)
def test_what_is_answered_in_front_of_flask_is_what_flask_answers(
    client: FlaskClient, method: str, path: str, body: object
) -> None:
    fast = client.open(path, method=method, json=body)
    own = {"custseg.request_id": "x", "custseg.started": 0.0}
    with client.application.test_request_context(path, method=method, json=body, environ_base=own):
        slow = client.application.full_dispatch_request()
    assert (fast.status_code, fast.data, fast.mimetype) == (slow.status_code, slow.data, slow.mimetype)


def test_head_is_get_without_the_body(client: FlaskClient) -> None:
    path = "/v1/customers/12348/segment"
    assert client.head(path).headers["Content-Length"] == client.get(path).headers["Content-Length"]
    assert client.head(path).data == b""


def test_a_score_in_chunks_or_with_a_charset_is_answered_as_well(client: FlaskClient) -> None:
    content = json.dumps({"customers": [ROW]})
    answer = client.post("/v1/score", data=content, content_type="application/json; charset=utf-8")
    assert answer.data == client.post("/v1/score", json={"customers": [ROW]}).data


def test_score_names_what_is_missing(client: FlaskClient) -> None:
    response = client.post("/v1/score", json={"customers": [ROW, {"recency_days": 3}]})
    assert is_error(response, 422, "features_missing")
    missing = [(one["row"], one["feature"]) for one in response.get_json()["error"]["details"]["problems"]]
    assert missing == [(1, "frequency_orders"), (1, "monetary_net")]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"recency_days": -1}, "customers.0.recency_days"),
        ({"recency_days": "62"}, "customers.0.recency_days"),
        ({"frequency_orders": True}, "customers.0.frequency_orders"),
        ({"monetary_net": 1e300}, "customers.0.monetary_net"),
        ({"monetary_nett": 1}, "customers.0.monetary_nett"),
        ({"customer_id": ""}, "customers.0.customer_id"),
        ({"pca_1": 0.5}, "customers.0.pca_1"),
    ],
)
def test_score_names_what_is_out_of_range(client: FlaskClient, change: dict[str, Any], where: str) -> None:
    response = client.post("/v1/score", json={"customers": [{**ROW, **change}]})
    assert is_error(response, 422, "invalid_request")
    assert response.get_json()["error"]["details"]["problems"][0]["where"] == where


def test_segments_and_model_tell_where_they_come_from(client: FlaskClient) -> None:
    segments = client.get("/v1/segments").get_json()
    assert [one["segment_id"] for one in segments["segments"]] == ["R1", "R2", "S1", "S2", "S3"]
    assert sum(one["n_customers"] for one in segments["segments"]) == len(CUSTOMERS) + 1
    one = client.get("/v1/segments/S1").get_json()
    assert one["segment"] == segments["segments"][2]
    assert is_error(client.get("/v1/segments/S9"), 404, "segment_unknown")
    model = client.get("/v1/model").get_json()
    schemas.ModelAnswer.model_validate(model, strict=True, extra="forbid")
    assert model["required_features"] == ["recency_days", "frequency_orders", "monetary_net"]


HOSTILE_BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"[" * 100_000,
    b'{"customers":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"customers": []}',
    b'{"customers": [{"recency_days": NaN, "frequency_orders": 1, "monetary_net": 1}]}',
    b'{"customers": [{"recency_days": 1, "frequency_orders": Infinity, "monetary_net": 1}]}',
    b'{"customers": [{"recency_days": 1, "frequency_orders": 1, "monetary_net": -1e999}]}',
    b'{"customers": [{"recency_days": 1, "frequency_orders": 1, "monetary_net": null}]}',
    b'{"customers": [{"recency_days": ' + b"9" * 5_000 + b', "frequency_orders": 1, "monetary_net": 1}]}',
    b'{"customers": {"0": {}}}',
    b'{"customers": [1]}',
    b'{"customers": [{}], "more": 1}',
    b'{"customers": [{"customer_id": "\\ud800", "recency_days": 1}]}',
    b'{"customers": [{"customer_id": {"$ne": ""}}]}',
    b"\xff\xfe",
    b"\x00" * 1_000,
]


@pytest.mark.parametrize("route", ["/v1/score", "/v1/customers/segments"])
@pytest.mark.parametrize("number", range(len(HOSTILE_BODIES)))
def test_hostile_bodies_are_refused_in_the_one_shape(client: FlaskClient, route: str, number: int) -> None:
    response = client.post(route, data=HOSTILE_BODIES[number], content_type="application/json")
    assert response.status_code in (400, 422)
    assert is_error(response, response.status_code, response.get_json()["error"]["code"])
    assert len(response.data) < 10_000


def test_too_large_too_many_and_not_json_are_refused(start_app: StartApp) -> None:
    client = start_app(max_body_bytes=1_000, max_batch=2).test_client()
    large = client.post("/v1/score", data=b" " * 1_001, content_type="application/json")
    assert is_error(large, 413, "request_entity_too_large")
    assert is_error(client.post("/v1/customers/segments", json={"customer_ids": list("abc")}), 422, "batch_too_large")
    assert is_error(client.post("/v1/score", json={"customers": [ROW] * 3}), 422, "batch_too_large")
    assert is_error(client.post("/v1/score", data=b"{}", content_type="text/plain"), 415, "not_json")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/customers/%2e%2e%2f%2e%2e%2fetc%2fpasswd/segment",
        "/v1/customers/..%2f..%2fkeys.json/segment",
        "/v1/customers//segment",
        "/v1/customers/%00/segment",
        "/v1/customers/%ff%fe/segment",
        "/v1/customers/" + "x" * 5_000 + "/segment",
        "/v1/customers/segment",
        "/v1/segments/%2e%2e",
        "/v1/nothing",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "//v1/model",
        "/.env",
    ],
)
def test_path_tricks_find_nothing(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert is_error(response, 404, response.get_json()["error"]["code"])


def test_other_methods_are_refused_with_the_allowed_one(client: FlaskClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        response = client.open(LOOKUP, method=method)
        assert is_error(response, 405, "method_not_allowed"), method
        assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_every_answer_carries_security_headers_and_a_request_id(client: FlaskClient) -> None:
    for path in ("/", "/v1/model", LOOKUP, "/v1/nothing"):
        with client.get(path, headers={"Origin": "https://elsewhere.example"}) as response:
            headers = response.headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers
    assert client.get("/healthz", headers={"X-Request-ID": "a-1"}).headers["X-Request-ID"] == "a-1"
    forged = client.get("/healthz", headers={"X-Request-ID": "a b<script>"}).headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", forged)


def test_an_answer_goes_stale_two_periods_after_its_snapshot(served_home: Path) -> None:
    release_id = current(served_home / "releases")
    assert release_id is not None
    release = open_release(served_home / "releases", release_id)
    # The snapshot is November's, so its period has 30 days and 2011-12-01 + 60 days is 2012-01-30.
    assert Answers(release, lambda: date(2012, 1, 30)).staleness == {"age_days": 60, "is_stale": False}
    assert Answers(release, lambda: date(2012, 1, 31)).staleness == {"age_days": 61, "is_stale": True}


def test_without_a_release_the_service_lives_but_is_not_ready(start_app: StartApp, served_home: Path) -> None:
    (served_home / "releases" / "CURRENT").unlink()
    client = start_app().test_client()
    assert client.get("/healthz").status_code == 200
    for path in ("/readyz", LOOKUP, "/v1/model", "/dashboard/data"):
        assert is_error(client.get(path), 503, "not_ready")


def test_vertex_asks_for_instances_and_gets_predictions(start_app: StartApp) -> None:
    client = start_app(vertex=VertexRoutes("/v1/endpoints/1", "/v1/endpoints/1:predict")).test_client()
    assert client.get("/v1/endpoints/1").status_code == 200
    answer = client.post("/v1/endpoints/1:predict", json={"instances": [ROW, ROW], "parameters": None}).get_json()
    scored = client.post("/v1/score", json={"customers": [ROW]}).get_json()["customers"][0]
    assert answer == {"predictions": [scored, scored]}


def test_every_feature_a_model_may_use_can_be_scored_and_said() -> None:
    assert set(SCALABLE_FEATURES) <= set(schemas.FeatureRow.model_fields) - {"customer_id", BY_WEEK} == set(FEATURES)


def test_openapi_describes_every_route_and_refers_only_to_what_it_defines(client: FlaskClient) -> None:
    text = client.get("/openapi.json").get_data(as_text=True)
    document = json.loads(text)
    assert document["openapi"] == "3.1.0"
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r'"\$ref":"([^"]+)"', text)) <= defined
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    routed = {
        (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in client.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.startswith("api.")
    }
    assert described == routed


def test_segments_of_a_model_include_the_rule_segments() -> None:
    assert list(segments_of(make_model())) == ["S1", "S2", "S3", "R1", "R2"]
