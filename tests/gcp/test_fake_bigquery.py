"""The fake of BigQuery refuses what the service refuses, asked by the real client; without that, tests prove little."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import polars as pl
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from tests.support.fakes.bigquery import FakeBigQuery

pytestmark = pytest.mark.gcp

ROWS = pl.DataFrame({"period": [date(2024, 2, 1)], "score": [0.5]})
PARTITIONED = {"timePartitioning": {"type": "DAY", "field": "period"}}


@pytest.fixture
def service() -> Iterator[FakeBigQuery]:
    with FakeBigQuery("shop") as fake:
        fake.add_table("segments.scores", ROWS, **PARTITIONED)
        fake.add_table("segments.plain", ROWS)
        yield fake


@pytest.fixture
def client(service: FakeBigQuery) -> bigquery.Client:
    return bigquery.Client("shop", AnonymousCredentials(), client_options={"api_endpoint": service.url})


def load(client: bigquery.Client, target: str, rows: pl.DataFrame | bytes = ROWS, **config: Any) -> None:
    content = io.BytesIO()
    if isinstance(rows, bytes):
        content.write(rows)
    else:
        rows.write_parquet(content)
    settings = {"source_format": "PARQUET", "write_disposition": "WRITE_TRUNCATE", **config}
    job_id = settings.pop("job_id", None)
    client.load_table_from_file(
        content, f"shop.segments.{target}", rewind=True, job_config=bigquery.LoadJobConfig(**settings), job_id=job_id
    ).result(retry=None)


def query(client: bigquery.Client, sql: str, **config: Any) -> list[Any]:
    return list(client.query(sql, bigquery.QueryJobConfig(**config)).result(retry=None, job_retry=None))


def table_partitioned_by(by: str) -> bigquery.Table:
    table = bigquery.Table("shop.segments.new", [bigquery.SchemaField("period", "DATE")])
    table.time_partitioning = bigquery.TimePartitioning(field=by)
    return table


def table_with_labels(labels: dict[str, str]) -> bigquery.Table:
    table = bigquery.Table("shop.segments.new")
    table.labels = labels
    return table


def results_of_a_failed_query(client: bigquery.Client) -> Any:
    with pytest.raises(exceptions.BadRequest):
        client.query("SELECT rate FROM segments.scores", job_id="failed", job_retry=None).result(retry=None)
    return client._connection.api_request("GET", "/projects/shop/queries/failed")


def resume(client: bigquery.Client) -> None:
    url = f"{client._connection.API_BASE_URL}/upload/bigquery/v2/projects/shop/jobs?uploadType=resumable&upload_id=none"
    answer = client._http.put(url, data=b"x", headers={"Content-Range": "bytes 0-0/1"})
    raise exceptions.from_http_response(answer)


REFUSED: list[tuple[str, Callable[[bigquery.Client], Any], type[Exception], str]] = [
    (
        "a table of another project",
        lambda client: client.get_table("other.segments.scores"),
        exceptions.Forbidden,
        "Access Denied: Project other",
    ),
    ("a dataset that is not there", lambda c: list(c.list_tables("shop.nowhere")), exceptions.NotFound, "Dataset"),
    ("a table that is not there", lambda c: c.get_table("shop.segments.nothing"), exceptions.NotFound, "Table"),
    (
        "a table that is there",
        lambda c: c.create_table(bigquery.Table("shop.segments.scores")),
        exceptions.Conflict,
        "Already Exists: Table",
    ),
    (
        "a table with a bad name",
        lambda c: c.create_table(bigquery.Table("shop.segments.a-b")),
        exceptions.BadRequest,
        "Invalid table ID",
    ),
    (
        "a column of no type",
        lambda c: c.create_table(bigquery.Table("shop.segments.new", [bigquery.SchemaField("a", "NUMBERS")])),
        exceptions.BadRequest,
        "is not a valid value",
    ),
    (
        "a partition that is no day",
        lambda c: load(c, "scores$20240230"),
        exceptions.BadRequest,
        "Invalid time partition",
    ),
    ("a partition of a plain table", lambda c: load(c, "plain$20240201"), exceptions.BadRequest, "not partitioned"),
    (
        "rows of another partition",
        lambda c: load(c, "scores$20240301"),
        exceptions.BadRequest,
        "Some rows belong to different partitions",
    ),
    (
        "a column the table does not have",
        lambda c: load(c, "scores$20240201", ROWS.with_columns(more=1)),
        exceptions.BadRequest,
        "No such field: more",
    ),
    (
        "a new column nobody allowed",
        lambda c: load(c, "scores$20240201", schema=[bigquery.SchemaField("more", "INT64")]),
        exceptions.BadRequest,
        "Cannot add fields",
    ),
    (
        "a new column that is required",
        lambda c: load(
            c,
            "scores$20240201",
            schema=[bigquery.SchemaField("more", "INT64", "REQUIRED")],
            schema_update_options=["ALLOW_FIELD_ADDITION"],
        ),
        exceptions.BadRequest,
        "Cannot add required fields",
    ),
    (
        "a column of another type",
        lambda c: load(c, "scores$20240201", schema=[bigquery.SchemaField("score", "STRING")]),
        exceptions.BadRequest,
        "has changed type from FLOAT to STRING",
    ),
    (
        "new columns of a whole table that is truncated",
        lambda c: load(c, "scores", schema_update_options=["ALLOW_FIELD_ADDITION"]),
        exceptions.BadRequest,
        "Schema update options should only be specified",
    ),
    (
        "values of another type",
        lambda c: load(c, "scores$20240201", ROWS.with_columns(score=pl.lit("high"))),
        exceptions.BadRequest,
        "does not match the target",
    ),
    (
        "a file that is no Parquet",
        lambda c: load(c, "scores$20240201", b"no parquet"),
        exceptions.BadRequest,
        "Error while reading data",
    ),
    ("a bad job id", lambda c: load(c, "scores$20240201", job_id="a job"), exceptions.BadRequest, "Invalid job ID"),
    ("SQL that is none", lambda c: query(c, "SELEKT 1 FROM"), exceptions.BadRequest, "Syntax error"),
    (
        "a column that is not there",
        lambda c: query(c, "SELECT rate FROM segments.scores"),
        exceptions.BadRequest,
        "Unrecognized name",
    ),
    ("a table without a dataset", lambda c: query(c, "SELECT 1 FROM scores"), exceptions.BadRequest, "qualified"),
    (
        "a query over its limit",
        lambda c: query(c, "SELECT score FROM segments.scores", maximum_bytes_billed=1),
        # The client knows no code for the service's reason.
        exceptions.InternalServerError,
        "10485760 or higher required",
    ),
    (
        "a table whose partitioning column is none",
        lambda c: c.create_table(table_partitioned_by("day")),
        exceptions.BadRequest,
        "cannot be found in the schema",
    ),
    (
        "a label that is none",
        lambda c: c.create_table(table_with_labels({"Team": "a"})),
        exceptions.BadRequest,
        "Invalid label Team=a",
    ),
    ("what nobody asks for here", lambda c: list(c.list_routines("segments")), exceptions.NotFound, "routines"),
    ("what is no API", lambda c: c._connection.api_request("GET", "/discovery"), exceptions.NotFound, "Not found"),
    ("a table id that is cut off", lambda c: load(c, "scores$2024"), exceptions.BadRequest, "Invalid table ID"),
    (
        "a table with rows that is to be empty",
        lambda c: load(c, "plain", write_disposition="WRITE_EMPTY"),
        exceptions.Conflict,
        "Already Exists: Table",
    ),
    ("a CSV", lambda c: load(c, "plain", source_format="CSV"), exceptions.BadRequest, "Unsupported source format CSV"),
    (
        "a load of nothing",
        lambda c: c.load_table_from_uri([], "shop.segments.plain").result(retry=None),
        exceptions.BadRequest,
        "at least one source URI",
    ),
    (
        "a job of a kind it does not know",
        lambda c: c.copy_table("shop.segments.plain", "shop.segments.copy").result(retry=None),
        exceptions.BadRequest,
        "exactly one job-specific configuration",
    ),
    (
        "DuckDB's cast",
        lambda c: query(c, "SELECT score::INT64 FROM segments.scores"),
        exceptions.BadRequest,
        "Unexpected",
    ),
    (
        "DuckDB's remainder",
        lambda c: query(c, "SELECT 7 % 2 FROM segments.scores"),
        exceptions.BadRequest,
        "Unexpected",
    ),
    (
        "a semi join",
        lambda c: query(c, "SELECT a.score FROM segments.scores a SEMI JOIN segments.plain b ON a.score = b.score"),
        exceptions.BadRequest,
        "Unexpected",
    ),
    (
        "a count of nothing",
        lambda c: query(c, "SELECT COUNT() FROM segments.scores"),
        exceptions.BadRequest,
        "No matching signature",
    ),
    (
        "DuckDB's concatenation",
        lambda c: query(c, "SELECT CONCAT_WS(' ', 'a', 'b') FROM segments.scores"),
        exceptions.BadRequest,
        "Function not found",
    ),
    (
        "a function that is none",
        lambda c: query(c, "SELECT ADD(1, 2) FROM segments.scores"),
        exceptions.BadRequest,
        "Function not found",
    ),
    (
        "a hint of DuckDB's",
        lambda c: query(c, "WITH a AS NOT MATERIALIZED (SELECT 1 AS b) SELECT b FROM a"),
        exceptions.BadRequest,
        "MATERIALIZED",
    ),
    (
        "windows by fractions",
        lambda c: query(c, "SELECT COUNT(*) OVER (PARTITION BY quantity) FROM segments.scores"),
        exceptions.BadRequest,
        "Partitioning by expressions of type FLOAT64",
    ),
    ("SQL of old", lambda c: query(c, "SELECT 1", use_legacy_sql=True), exceptions.BadRequest, "Legacy SQL"),
    (
        "values that cannot be cast",
        lambda c: query(c, "SELECT CAST('x' AS INT64)"),
        exceptions.BadRequest,
        "onversion",
    ),
    ("results of a query that failed", results_of_a_failed_query, exceptions.BadRequest, "Unrecognized"),
    ("an upload that was never begun", resume, exceptions.NotFound, "No such upload"),
    ("a job that is not there", lambda c: c.get_job("nothing"), exceptions.NotFound, "Not found: Job"),
]


@pytest.mark.usefixtures("undocumented_requests")
@pytest.mark.parametrize(("ask", "error", "said"), [pytest.param(*rest, id=name) for name, *rest in REFUSED])
def test_what_the_service_refuses_is_refused_and_changes_nothing(
    service: FakeBigQuery,
    client: bigquery.Client,
    ask: Callable[[bigquery.Client], Any],
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        ask(client)
    assert service.rows("segments.scores").equals(ROWS)
    assert service.fields("segments.scores") == {"period": "DATE", "score": "FLOAT"}
    assert set(service.datasets["segments"]) == {"scores", "plain"}


@pytest.mark.parametrize(
    ("permission", "attempt"),
    [
        ("bigquery.datasets.get", lambda c: c.get_dataset("segments")),
        ("bigquery.tables.list", lambda c: list(c.list_tables("segments"))),
        ("bigquery.tables.create", lambda c: c.create_table(bigquery.Table("shop.segments.new"))),
        ("bigquery.tables.get", lambda c: c.get_table("segments.scores")),
        ("bigquery.tables.update", lambda c: c.update_table(c.get_table("segments.scores"), ["description"])),
        ("bigquery.tables.delete", lambda c: c.delete_table("segments.plain")),
        ("bigquery.tables.getData", lambda c: list(c.list_rows("segments.scores"))),
        ("bigquery.tables.getData", lambda c: query(c, "SELECT score FROM segments.scores")),
        ("bigquery.tables.updateData", lambda c: load(c, "scores$20240201")),
        ("bigquery.jobs.create", lambda c: load(c, "scores$20240201")),
        ("bigquery.jobs.create", lambda c: query(c, "SELECT 1")),
        ("bigquery.jobs.get", lambda c: c.get_job("nothing")),
    ],
)
def test_what_the_caller_may_not_do_is_refused(
    service: FakeBigQuery, client: bigquery.Client, permission: str, attempt: Callable[[bigquery.Client], Any]
) -> None:
    service.denied.add(permission)
    with pytest.raises(exceptions.Forbidden, match=f"Permission {permission} denied"):
        attempt(client)
    assert service.rows("segments.scores").equals(ROWS)
    assert set(service.datasets["segments"]) == {"scores", "plain"}


def test_a_job_id_is_used_once(client: bigquery.Client) -> None:
    load(client, "scores$20240201", job_id="once")
    with pytest.raises(exceptions.Conflict, match="Already Exists: Job"):
        load(client, "scores$20240201", job_id="once")


def test_a_view_that_changed_meanwhile_is_not_replaced(client: bigquery.Client) -> None:
    view = bigquery.Table("shop.segments.view")
    view.view_query = "SELECT score FROM segments.scores"
    mine = client.create_table(view)
    other = client.get_table(view.reference)
    other.description = "changed"
    client.update_table(other, ["description"])
    mine.description = "mine"
    with pytest.raises(exceptions.PreconditionFailed):
        client.update_table(mine, ["description"])


def test_lists_and_rows_come_in_pages(service: FakeBigQuery, client: bigquery.Client) -> None:
    service.add_table("segments.many", pl.DataFrame({"n": range(7)}))
    assert [table.table_id for table in client.list_tables("segments", page_size=1)] == ["many", "plain", "scores"]
    rows = client.list_rows("shop.segments.many", page_size=3)
    assert [row["n"] for row in rows] == list(range(7))
    assert sum("/many/data" in request for request in service.requests) == 3


def test_the_rows_of_a_query_replace_those_of_a_table(client: bigquery.Client, service: FakeBigQuery) -> None:
    sql = "SELECT period, score * 2 AS score FROM segments.scores"
    query(client, sql, destination="shop.segments.plain", write_disposition="WRITE_TRUNCATE")
    assert service.rows("segments.plain")["score"].to_list() == [1.0]
    with pytest.raises(exceptions.Conflict):
        query(client, sql, destination="shop.segments.plain", write_disposition="WRITE_EMPTY")


def test_weeks_begin_on_sunday_with_1(client: bigquery.Client) -> None:
    # 1 February 2024 was a Thursday.
    assert [list(row) for row in query(client, "SELECT EXTRACT(DAYOFWEEK FROM period) FROM segments.scores")] == [[5]]
