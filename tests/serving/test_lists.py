"""Lists over HTTP: pages and cursors, filters, CSV that a spreadsheet does not run, and a customer over time."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from flask.testing import FlaskClient

from custseg_assets.domain import schemas as tables
from custseg_assets.domain.spreadsheets import CUSTOMER_COLUMNS, FORMULA
from custseg_assets.stores.customer_lists import LIST_FILES, PREDICTION_FILES
from custseg_serving import schemas
from custseg_serving.list_parameters import ListParameters
from custseg_serving.lists import CSV_ROWS, safe_text
from tests.support.releases import (
    CUSTOMERS,
    LAPSED_CUSTOMER,
    PERIODS,
    make_content,
    make_other_content,
    make_release,
    rewrite_files,
    rows_of,
)
from tests.support.server import StartApp, is_error
from tests.support.service_fixtures import get

SORTS = ListParameters.model_json_schema()["properties"]["sort"]["enum"]
LISTS = ("/v1/customers", "/v1/segments/S2/customers", "/v1/moves")


def rows_of_csv(client: FlaskClient, path: str) -> list[dict[str, str]]:
    response = client.get(path)
    assert (response.status_code, response.mimetype) == (200, "text/csv"), response.data
    return list(csv.DictReader(io.StringIO(response.get_data(as_text=True), newline="")))


def walk(client: FlaskClient, path: str) -> list[dict[str, Any]]:
    """All customers of a list, page by page."""
    customers: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        answer = get(client, f"{path}&cursor={cursor}" if cursor else path)
        customers += answer["customers"]
        cursor = answer["next"]
    return customers


def test_a_list_says_where_each_customer_comes_from_and_what_is_at_stake(client: FlaskClient) -> None:
    answer = get(client, "/v1/customers?moved=true")
    schemas.ListAnswer.model_validate(answer, strict=True, extra="forbid")
    assert answer["customers"] == [
        {
            "customer_id": "12348",
            "segment_id": "S2",
            "segment_name": "Promising",
            "since": "2011-11-01",
            "previous": {"segment_id": "S1", "segment_name": "Champions"},
            "moved_from": {"segment_id": "S1", "segment_name": "Champions"},
            "cause": "behaviour",
            "recency_days": 62,
            "frequency_orders": 3,
            "monetary_net": 512.3,
            "spend_change": pytest.approx(512.3 - 2500.0),
            "value_at_stake": 2500.0,
            "is_at_risk": True,
            "p_order_30d": 0.25,
            "expected_spend_90d": 50.0,
            "advice": "Do something for Promising.",
            "recommendations": [
                {"product_id": "22423", "description": "REGENCY CAKESTAND 3 TIER"},
                {"product_id": "85123A", "description": None},
            ],
        }
    ]
    assert (answer["n_customers"], answer["value_at_stake"], answer["next"]) == (1, 2500.0, None)
    assert answer["release_id"].startswith("r-2011-11-01-")


def test_the_first_in_a_list_is_who_most_could_be_lost_with(client: FlaskClient) -> None:
    answer = get(client, "/v1/customers")
    values = [one["value_at_stake"] for one in answer["customers"]]
    assert values == sorted(values, reverse=True)
    assert (answer["n_customers"], answer["value_at_stake"]) == (len(CUSTOMERS) + 1, pytest.approx(sum(values)))


def test_what_is_not_known_is_null(client: FlaskClient) -> None:
    (lapsed,) = get(client, f"/v1/customers?contains={LAPSED_CUSTOMER}")["customers"]
    assert [lapsed[name] for name in ("recency_days", "frequency_orders", "monetary_net")] == [None] * 3
    assert (lapsed["recommendations"], lapsed["cause"], lapsed["moved_from"]) == ([], None, None)
    (new,) = get(client, "/v1/customers?moved_from=none")["customers"]
    assert (new["customer_id"], new["spend_change"], new["moved_from"]) == ("14001", None, None)


def test_one_segment_and_the_moves_are_lists_of_customers(client: FlaskClient) -> None:
    for own, general in (
        ("/v1/segments/S2/customers", "/v1/customers?segment=S2"),
        ("/v1/segments/S2/customers?moved=true", "/v1/customers?segment=S2&moved=true"),
        ("/v1/moves", "/v1/customers?moved=true"),
        ("/v1/moves?from=S1&to=S2&cause=behaviour", "/v1/customers?moved_from=S1&segment=S2&cause=behaviour"),
        ("/v1/moves?from=S2", "/v1/customers?moved_from=S2"),
    ):
        assert get(client, own) == get(client, general), own


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [1, 3, 500])
def test_pages_give_every_customer_exactly_once_in_the_order_of_the_file(
    client: FlaskClient, sort: str, limit: int
) -> None:
    paged = [one["customer_id"] for one in walk(client, f"/v1/customers?sort={sort}&limit={limit}")]
    assert sorted(paged) == sorted([*(name for name, *_ in CUSTOMERS), LAPSED_CUSTOMER])
    assert paged == [row["customer_id"] for row in rows_of_csv(client, f"/v1/customers.csv?sort={sort}")]


def test_a_cursor_goes_on_with_its_own_query_only(client: FlaskClient) -> None:
    cursor = get(client, "/v1/customers?limit=2")["next"]
    get(client, f"/v1/customers?limit=5&cursor={cursor}")
    for path in (f"/v1/customers?sort=since&cursor={cursor}", f"/v1/moves?cursor={cursor}"):
        assert is_error(client.get(path), 400, "invalid_cursor")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'["a", "b", "c"]', b'["a", "b", -1]', b"{}", b"\xff", b"[" * 400, b"[1, 2, 99]"]
)
def test_a_cursor_that_no_page_gave_is_refused(client: FlaskClient, content: bytes) -> None:
    cursor = base64.urlsafe_b64encode(content).decode() or "%"
    assert is_error(client.get(f"/v1/customers?cursor={quote(cursor)}"), 400, "invalid_cursor")


def test_a_cursor_with_a_release_that_is_no_text_is_of_another_one(client: FlaskClient) -> None:
    for content in (b'["\\ud800", "x", 1]', b"[1, 2, 0]"):
        cursor = base64.urlsafe_b64encode(content).decode()
        assert is_error(client.get(f"/v1/customers?cursor={quote(cursor)}"), 409, "release_changed")


def test_a_cursor_of_another_release_says_to_begin_again(served_home: Path, start_app: StartApp) -> None:
    cursor = get(start_app().test_client(), "/v1/customers?limit=2")["next"]
    other = make_release(served_home / "releases", make_other_content())
    response = start_app().test_client().get(f"/v1/customers?limit=2&cursor={cursor}")
    assert is_error(response, 409, "release_changed")
    assert response.get_json()["error"]["details"] == {"release_id": other}
    assert "Begin again without cursor" in response.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("segmnt=S1", "unknown_parameter", "did you mean 'segment'? Accepted are"),
        ("limit=0", "invalid_parameter", "limit: got '0'"),
        ("limit=501", "invalid_parameter", "limit: got '501'"),
        ("limit=ten", "invalid_parameter", "limit: got 'ten'"),
        ("limit=1&limit=2", "invalid_parameter", "limit: was given 2 times"),
        ("sort=spend", "invalid_parameter", "'-value_at_stake'"),
        ("moved=yes", "invalid_parameter", "'true' or 'false'"),
        ("cause=weather", "invalid_parameter", "'model change'"),
        ("min_spend=nan", "invalid_parameter", "min_spend: got 'nan'"),
        ("min_orders=-1", "invalid_parameter", "min_orders: got '-1'"),
        ("min_spend=5&max_spend=4", "invalid_parameter", "min_spend: is 5, more than max_spend, which is 4"),
        ("contains=", "invalid_parameter", "contains: got ''"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_with_what_would(
    client: FlaskClient, query: str, code: str, words: str
) -> None:
    for path in ("/v1/customers", "/v1/customers.csv"):
        if path.endswith(".csv") and query.startswith("limit"):
            continue
        response = client.get(f"{path}?{query}")
        assert is_error(response, 400, code)
        assert words in response.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/customers?segment=s1", "S1"),
        ("/v1/customers?segment=Champion", "S1"),
        ("/v1/customers?previous=S9", None),
        ("/v1/segments/Lapse/customers", "R2"),
        ("/v1/segments/Lapse/customers.csv", "R2"),
        ("/v1/moves?to=refund", "R1"),
        ("/v1/moves?from=none", None),
        ("/v1/customers?segment=none", None),
    ],
)
def test_an_unknown_segment_is_answered_with_the_nearest(client: FlaskClient, path: str, nearest: str | None) -> None:
    response = client.get(path)
    assert is_error(response, 404, "segment_unknown")
    error = response.get_json()["error"]
    assert error["details"] == {"segment_ids": ["R1", "R2", "S1", "S2", "S3"], "nearest": nearest}
    assert "S1 (Champions)" in error["message"]


@pytest.mark.parametrize("path", LISTS)
def test_a_file_says_what_the_pages_say(client: FlaskClient, path: str) -> None:
    pages, rows = get(client, f"{path}?limit=500")["customers"], rows_of_csv(client, f"{path}.csv")
    assert [*rows[0]] == list(CUSTOMER_COLUMNS)
    for one, row in zip(pages, rows, strict=True):
        for name in ("customer_id", "segment_id", "since", "cause", "advice"):
            assert row[name] == (one[name] or ""), name
        for column, name in (("change", "spend_change"), ("at_stake", "value_at_stake"), ("recency", "recency_days")):
            assert (float(row[column]) if row[column] else None) == one[name], name
        for column, name in (("orders", "frequency_orders"), ("spend", "monetary_net")):
            assert float(row[column]) == (one[name] or 0), name
        assert row["segment"] == one["segment_name"]
        for name in ("previous", "moved_from"):
            assert row[name] == (one[name] or {"segment_name": ""})["segment_name"]
        assert row["at_risk"] == json.dumps(one["is_at_risk"])
        offers = [" ".join(filter(None, offer.values())) for offer in one["recommendations"]]
        assert row["offers"] == "; ".join(offers)


def test_numbers_have_a_comma_where_that_is_asked_for(client: FlaskClient) -> None:
    usual = rows_of_csv(client, "/v1/customers.csv")
    response = client.get("/v1/customers.csv?decimal_comma=true")
    rows = list(csv.DictReader(io.StringIO(response.text), delimiter=";"))
    amounts = {"spend", "change", "at_stake", "p_order_30d", "expected_spend"}
    assert any("," in row["spend"] for row in rows)
    for one, other in zip(usual, rows, strict=True):
        assert other == {name: text.replace(".", ",") if name in amounts else text for name, text in one.items()}


def make_evil_content() -> Any:
    """Content with ids and texts that a spreadsheet would run, and an id with everything that CSV has to quote."""
    evil = ["=1+1", "+49 30", "-5", "@SUM(A1)", "\tx", "\rx", 'a,"b"\nc', "plain", "1=2"]
    content = make_content()
    lapsed = {"segment_id": "R2", "segment_name": "Lapsed", "is_rule_segment": True, "is_held": False}
    added = rows_of(
        tables.SEGMENT_ASSIGNMENTS,
        {
            "period": [PERIODS[1]] * len(evil),
            "customer_id": evil,
            **{name: [one] * len(evil) for name, one in lapsed.items()},
        },
    )
    offered = content.product_recommendations.with_columns(
        product_id=pl.when(pl.col("rank") == 1).then(pl.lit("=cmd")).otherwise("product_id")
    )
    profiles = content.segment_profiles.with_columns(advice=pl.lit("@now"))
    return evil, replace(
        content,
        assignments=pl.concat([content.assignments.collect(), added]).lazy(),
        product_recommendations=offered,
        segment_profiles=profiles,
    )


def test_no_cell_of_a_file_is_a_formula_and_numbers_stay_numbers(served_home: Path, start_app: StartApp) -> None:
    evil, content = make_evil_content()
    make_release(served_home / "releases", content)
    client = start_app().test_client()
    rows = rows_of_csv(client, "/v1/customers.csv?sort=customer_id")
    found = {row["customer_id"] for row in rows}
    assert {f"'{one}" for one in evil[:6]} | set(evil[6:]) <= found
    assert {row["advice"] for row in rows} == {"'@now"}
    assert {row["offers"][:5] for row in rows if row["offers"]} == {"'=cmd"}
    (moved,) = rows_of_csv(client, "/v1/moves.csv")
    assert float(moved["change"]) < 0
    # JSON is for programs: there ids are as the shop writes them.
    assert set(evil) <= {one["customer_id"] for one in get(client, "/v1/customers?limit=500")["customers"]}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/customers.csv", "customers_2011-12-01.csv"),
        ("/v1/customers.csv?at_risk=true", "customers_2011-12-01.csv"),
        ("/v1/customers.csv?segment=S3", "customers_S3-At-risk_2011-12-01.csv"),
        ("/v1/segments/S3/customers.csv", "customers_S3-At-risk_2011-12-01.csv"),
        ("/v1/moves.csv?from=S1", "moves_S1-Champions_2011-12-01.csv"),
        ("/v1/customers.csv?moved_from=none&segment=S2", "customers_none_S2-Promising_2011-12-01.csv"),
    ],
)
def test_a_file_is_named_by_segment_and_day(client: FlaskClient, path: str, name: str) -> None:
    assert client.get(path).headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_a_file_for_excel_begins_with_a_byte_order_mark_and_others_do_not(client: FlaskClient) -> None:
    assert client.get("/v1/moves.csv?bom=true").data[:3] == b"\xef\xbb\xbf"
    assert client.get("/v1/moves.csv").data[:3] == b"cus"


def test_a_file_is_streamed_part_by_part(served_home: Path, start_app: StartApp) -> None:
    content, n_customers = make_content(), 2 * CSV_ROWS + 10
    ids = [f"x{number:05}" for number in range(n_customers)]
    added = rows_of(
        tables.SEGMENT_ASSIGNMENTS,
        {
            "period": [PERIODS[1]] * n_customers,
            "customer_id": ids,
            "segment_id": ["R2"] * n_customers,
            "segment_name": ["Lapsed"] * n_customers,
            "is_rule_segment": [True] * n_customers,
            "is_held": [False] * n_customers,
        },
    )
    assignments = pl.concat([content.assignments.collect(), added]).lazy()
    make_release(served_home / "releases", replace(content, assignments=assignments))
    response = start_app().test_client().get("/v1/customers.csv?contains=x0&sort=customer_id")
    parts = list(response.iter_encoded())
    assert [part.count(b"\r\n") for part in parts] == [1, CSV_ROWS, CSV_ROWS, 10]
    assert [line.split(",")[0] for line in b"".join(parts).decode().splitlines()[1:]] == ids


@pytest.mark.parametrize("customer", [name for name, *_ in CUSTOMERS])
def test_history_is_told_of_every_kind_of_id(client: FlaskClient, customer: str) -> None:
    answer = get(client, f"/v1/customers/{quote(customer, safe='')}/history")
    schemas.HistoryAnswer.model_validate(answer, strict=True, extra="forbid")
    assert answer["customer_id"] == customer
    assert answer["snapshots"][0]["period"] == PERIODS[1]


def test_history_is_the_newest_first_with_the_figures_of_each_snapshot(client: FlaskClient) -> None:
    now, before = get(client, "/v1/customers/12348/history")["snapshots"]
    assert now == {
        "period": "2011-11-01",
        "as_of": "2011-12-01T00:00:00",
        "is_open": False,
        "segment_id": "S2",
        "segment_name": "Promising",
        "recency_days": 62,
        "frequency_orders": 3,
        "monetary_net": 512.3,
    }
    assert (before["as_of"], before["segment_name"], before["monetary_net"]) == (
        "2011-11-01T00:00:00",
        "Champions",
        2500.0,
    )
    (only,) = get(client, "/v1/customers/14001/history")["snapshots"]
    assert (only["period"], only["recency_days"], only["monetary_net"]) == (PERIODS[1], None, -80.0)


def test_who_has_no_history_is_unknown_or_too_new(client: FlaskClient) -> None:
    assert is_error(client.get("/v1/customers/nobody/history"), 404, "customer_unknown")
    assert is_error(client.get("/v1/customers/19999/history"), 404, "customer_too_new")


def test_a_release_that_was_made_before_lists_says_what_to_do_and_answers_lookups(
    served_home: Path, start_app: StartApp
) -> None:
    root = served_home / "releases"
    release_id = rewrite_files(root, make_release(root), dict.fromkeys(LIST_FILES | PREDICTION_FILES))
    (root / "CURRENT").write_text(release_id)
    client = start_app().test_client()
    for path in (*LISTS, *(f"{path}.csv" for path in LISTS), "/v1/customers/12348/history"):
        response = client.get(path)
        assert is_error(response, 503, "no_lists")
        assert "`custseg run`" in response.get_json()["error"]["message"]
    assert client.get("/v1/customers/12348/segment").status_code == 200


def test_a_list_that_was_begun_is_finished_from_its_release(served_home: Path, start_app: StartApp) -> None:
    application = start_app()
    response = application.test_client().get("/v1/customers.csv")
    parts = response.iter_encoded()
    first = next(parts)
    make_release(served_home / "releases", make_other_content())
    application.extensions["custseg"].active.refresh()
    text = (first + b"".join(parts)).decode()
    assert "22423" in text
    assert "99999" not in text


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", " =1", "\n=1", "\uff1d1", "\uff201"])
def test_no_text_of_a_file_is_computed_by_a_spreadsheet(text: str) -> None:
    assert safe_text(text) == f"'{text}"
    assert pl.select(pl.lit(text).str.contains(FORMULA)).item()
    assert safe_text(f"x{text}") == f"x{text}"
