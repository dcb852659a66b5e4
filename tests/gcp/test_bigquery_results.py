"""Large results through the Storage Read API, by Google's client on a fake with gRPC: the same rows as over REST."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import polars as pl
import pyarrow as pa
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.bigquery_storage_v1 import BigQueryReadClient

from custseg_assets.gcp import bigquery_results
from custseg_assets.gcp.bigquery import BigQuery, BigQueryError, explain_errors, storage_read_client
from custseg_assets.gcp.bigquery_results import fetch_batches
from custseg_assets.gcp.bigquery_source import accept_table
from custseg_assets.settings import GcpSettings, Settings
from custseg_assets.stores.deliveries import DeliveryStore
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.fakes.bigquery_storage import FakeBigQueryStorage

pytestmark = pytest.mark.gcp

N_ROWS = 23
KINDS = pl.DataFrame(
    {
        "n": range(N_ROWS),
        "text": [None if n % 5 == 3 else f"Zoë {n}" for n in range(N_ROWS)],
        "fraction": [None if n % 7 == 2 else 0.1 * n for n in range(N_ROWS)],
        "is_even": [None if n % 6 == 1 else n % 2 == 0 for n in range(N_ROWS)],
        "day": [None if n % 8 == 4 else date(2024, 2, 27) + timedelta(days=n) for n in range(N_ROWS)],
        "local": [None if n % 9 == 0 else datetime(2024, 3, 31, 2, 30, 0, n) for n in range(N_ROWS)],
        "at": [None if n % 4 == 1 else datetime(1969, 12, 31, 23, 59, n, 999_999, tzinfo=UTC) for n in range(N_ROWS)],
        "amount": [None if n % 10 == 5 else Decimal(f"-12345678901234567.{n:09}") for n in range(N_ROWS)],
        "nothing": [None] * N_ROWS,
    },
    schema_overrides={"amount": pl.Decimal(38, 9), "nothing": pl.String},
)
SQL = "SELECT * FROM `shop.sales.kinds`"


@pytest.fixture
def service() -> Iterator[FakeBigQuery]:
    with FakeBigQuery("shop") as fake:
        fake.add_table("sales.kinds", KINDS)
        yield fake


@pytest.fixture
def storage(service: FakeBigQuery) -> Iterator[FakeBigQueryStorage]:
    with FakeBigQueryStorage(service) as fake:
        yield fake


def connect(service: FakeBigQuery, storage: FakeBigQueryStorage | None, rows_over_rest: int = 10) -> BigQuery:
    endpoints = {"bigquery": service.url, "bigquery_storage": storage and storage.address}
    settings = GcpSettings.model_validate({"project": "shop", "endpoints": endpoints})
    return BigQuery(settings, patience_seconds=2, rows_over_rest=rows_over_rest)


def fetch(bq: BigQuery, sql: str = SQL, said: list[str] | None = None) -> pa.Table:
    job = bq.client.query(sql)
    with explain_errors("reading"):
        heard: list[str] = [] if said is None else said
        return pa.Table.from_batches(list(fetch_batches(bq, job, job.result(), heard.append)))


def in_bytes(table: pa.Table) -> bytes:
    """Rows in the order of their numbers, as a file of Arrow: types, nulls and values."""
    sink = pa.BufferOutputStream()
    ordered = table.sort_by("n").combine_chunks()
    # What a null's place holds is no value.
    plain = pa.table({name: pa.array(ordered[name].to_pylist(), ordered[name].type) for name in ordered.column_names})
    with pa.ipc.new_file(sink, ordered.schema) as writer:
        writer.write_table(plain)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def test_rows_of_several_streams_are_those_of_rest_byte_for_byte(
    service: FakeBigQuery, storage: FakeBigQueryStorage
) -> None:
    over_rest, through_storage = fetch(connect(service, None)), fetch(connect(service, storage))
    assert storage.sessions == [3]
    assert over_rest.schema == through_storage.schema
    assert in_bytes(over_rest) == in_bytes(through_storage)
    assert through_storage["n"].to_pylist() != list(range(N_ROWS))
    assert through_storage["amount"].to_pylist().count(Decimal("-12345678901234567.000000007")) == 1
    assert pl.DataFrame(through_storage).sort("n").equals(KINDS)


@pytest.mark.parametrize(
    "sql", [f"{SQL} ORDER BY n DESC", f"{SQL}\norder  by n desc", f"{SQL} WHERE n < 100 Order\tBy n DESC LIMIT 100"]
)
def test_an_order_is_kept_by_reading_one_stream(sql: str, service: FakeBigQuery, storage: FakeBigQueryStorage) -> None:
    assert fetch(connect(service, storage), sql)["n"].to_pylist() == list(range(N_ROWS))[::-1]
    assert storage.sessions == [1]


def test_a_result_of_one_page_comes_over_rest_and_grpc_is_not_connected(
    service: FakeBigQuery, storage: FakeBigQueryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch(connect(service, storage, N_ROWS - 1)).num_rows == N_ROWS
    assert storage.sessions == [3]
    monkeypatch.delattr(bigquery_results, "storage_read_client")
    assert fetch(connect(service, storage, N_ROWS)).num_rows == N_ROWS
    empty = fetch(connect(service, storage, 0), f"{SQL} WHERE n < 0")
    assert (empty.num_rows, empty.column_names) == (0, KINDS.columns)


@pytest.mark.parametrize("breaks", [[0, 0, 0], [1, 1, 1], [3, 2, 2, 2, 0, 2, 2]])
def test_a_stream_that_breaks_is_read_on_from_where_it_was(
    breaks: list[int], service: FakeBigQuery, storage: FakeBigQueryStorage
) -> None:
    storage.breaks = list(breaks)
    found = fetch(connect(service, storage))
    assert sorted(found["n"].to_pylist()) == list(range(N_ROWS))
    assert storage.breaks == []
    assert storage.n_broken >= 3
    assert len(storage.reads) == 3 + storage.n_broken
    assert {offset % storage.message_rows for _, offset in storage.reads} == {0}
    assert (max(offset for _, offset in storage.reads) > 0) == (breaks[0] > 1)


def test_an_ordered_stream_that_breaks_stays_in_order(service: FakeBigQuery, storage: FakeBigQueryStorage) -> None:
    storage.breaks = [4, 1, 3]
    assert fetch(connect(service, storage), f"{SQL} ORDER BY n")["n"].to_pylist() == list(range(N_ROWS))
    assert [offset for _, offset in storage.reads] == [0, 6, 6, 10]


@pytest.mark.parametrize(("denied", "said"), [(True, "bigquery.readsessions.create"), (False, "it is disabled")])
def test_where_the_api_may_not_be_used_the_same_rows_come_over_rest_and_that_is_said_once(
    service: FakeBigQuery, storage: FakeBigQueryStorage, said: str, *, denied: bool
) -> None:
    if denied:
        service.denied.add("bigquery.readsessions.create")
    storage.is_disabled = not denied
    heard: list[str] = []
    bq = connect(service, storage)
    first, second = fetch(bq, said=heard), fetch(bq, said=heard)
    assert first == second == fetch(connect(service, None))
    assert storage.reads == []
    [line] = heard
    assert line.startswith("BigQuery: 23 rows come over REST, which is slower, because the Storage Read API cannot")
    assert said in line
    assert line.endswith("It needs roles/bigquery.readSessionUser on shop and bigquerystorage.googleapis.com")


def test_a_service_that_is_busy_is_asked_again_and_one_that_stays_so_is_done_without(
    service: FakeBigQuery, storage: FakeBigQueryStorage
) -> None:
    storage.n_unavailable = 2
    heard: list[str] = []
    assert fetch(connect(service, storage), said=heard).num_rows == N_ROWS
    assert (heard, storage.sessions) == ([], [3])
    storage.n_unavailable = 10_000
    assert fetch(connect(service, storage), said=heard) == fetch(connect(service, None))
    assert "cannot be used: The service is currently unavailable. It needs" in heard[0]


def test_streams_that_may_not_be_read_are_an_error_with_the_way_out(
    service: FakeBigQuery, storage: FakeBigQueryStorage
) -> None:
    service.denied.add("bigquery.readsessions.getData")
    with pytest.raises(BigQueryError, match=r"'bigquery\.readsessions\.getData' permission .*role that docs/gcp\.md"):
        fetch(connect(service, storage))


def test_a_service_that_goes_away_in_the_middle_and_stays_away_is_an_error(
    service: FakeBigQuery, storage: FakeBigQueryStorage
) -> None:
    storage.breaks, storage.most_reads = [3, 3, 3], 3
    batches = _batches(connect(service, storage), page_rows=1)
    next(batches)
    with pytest.raises(BigQueryError, match=r"currently unavailable\. BigQuery cannot be reached"), explain_errors("x"):
        list(batches)
    assert storage.n_broken == 3
    assert _threads() == []


def _batches(bq: BigQuery, page_rows: int) -> Generator[pa.RecordBatch]:
    job = bq.client.query(SQL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bigquery_results, "PAGE_ROWS", page_rows)
        yield from fetch_batches(bq, job, job.result(), lambda _: None)


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "bigquery-stream" in thread.name]


def test_rows_that_are_missing_are_noticed(service: FakeBigQuery, storage: FakeBigQueryStorage) -> None:
    deal_out = storage._deal_out
    storage._deal_out = lambda rows, most: deal_out(rows, most)[:-1]  # type: ignore[method-assign]
    with pytest.raises(BigQueryError, match=r"\d+ rows came of a result of 23\. Nothing was changed"):
        fetch(connect(service, storage))


def test_messages_are_put_together_into_pages_of_rows(service: FakeBigQuery, storage: FakeBigQueryStorage) -> None:
    sizes = [batch.num_rows for batch in _batches(connect(service, storage), page_rows=5)]
    assert sum(sizes) == N_ROWS
    assert all(5 <= size <= 6 for size in sizes[:-1]), sizes


class Counted:
    """A client whose streams have 100 messages of one row each, and which counts those that were taken."""

    def __init__(self) -> None:
        self.n_taken, self.n_cancelled = 0, 0
        self._batch = pa.record_batch({"n": [1]})

    @property
    def session(self) -> Any:
        schema = SimpleNamespace(serialized_schema=self._batch.schema.serialize().to_pybytes())
        streams = [SimpleNamespace(name=str(number)) for number in range(3)]
        return SimpleNamespace(arrow_schema=schema, streams=streams)

    def read_rows(self, _: str, **more: Any) -> Any:
        assert more.keys() == {"retry", "timeout"}
        return self

    def cancel(self) -> None:
        self.n_cancelled += 1

    def __iter__(self) -> Iterator[Any]:
        content = SimpleNamespace(serialized_record_batch=self._batch.serialize().to_pybytes())
        for _ in range(100):
            self.n_taken += 1
            yield SimpleNamespace(row_count=1, arrow_record_batch=content)


def test_of_each_stream_no_more_than_one_message_is_held() -> None:
    counted: Any = Counted()
    batches = bigquery_results._read_streams(counted, counted.session, bigquery_results.Retry())
    for n_given, _ in enumerate(batches, start=1):
        assert counted.n_taken <= n_given + 3
    assert (n_given, counted.n_taken, counted.n_cancelled) == (300, 300, 3)


def test_a_reader_that_stops_in_the_middle_leaves_no_thread_and_no_connection(
    service: FakeBigQuery, storage: FakeBigQueryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = []

    def make_client(settings: GcpSettings) -> Any:
        clients.append(storage_read_client(settings))
        return clients[-1]

    monkeypatch.setattr(bigquery_results, "storage_read_client", make_client)
    batches = _batches(connect(service, storage), page_rows=1)
    next(batches)
    assert _threads() != []
    batches.close()
    assert _threads() == []
    [client] = clients
    with pytest.raises(ValueError, match=r"[Cc]losed"):
        client.read_rows("projects/shop/locations/eu/sessions/session1/streams/stream0")


def test_a_table_as_a_source_has_the_same_lines_either_way(
    service: FakeBigQuery, storage: FakeBigQueryStorage, tmp_path: Path
) -> None:
    lines = {"customer_id": ["7", "8"] * 20, "invoiced_at": [datetime(2024, 1, 1 + n % 28) for n in range(40)]}
    service.add_table("sales.orders", pl.DataFrame({**lines, "line_amount": [0.1 * n for n in range(40)]}))
    found = {}
    for name, fake in (("rest", None), ("storage", storage)):
        bq = connect(service, fake)
        store = DeliveryStore(tmp_path / name)
        settings = Settings.model_validate({"gcp": bq.settings.model_dump()})
        delivery = accept_table(store, "bq://shop.sales.orders", settings, lambda _: None, bq)
        rows = store.scan([delivery]).collect()
        found[name] = (delivery.days, rows.drop("source_row").sort(pl.all().exclude("source_row")))
    assert storage.sessions == [3]
    assert found["rest"][0] == found["storage"][0]
    assert found["rest"][1].equals(found["storage"][1])


@pytest.mark.parametrize(("n_rows", "n_streams"), [(50_000, []), (50_001, [3])])
def test_up_to_fifty_thousand_rows_come_over_rest(
    n_rows: int, n_streams: list[int], service: FakeBigQuery, storage: FakeBigQueryStorage
) -> None:
    service.add_table("sales.many", pl.DataFrame({"n": range(n_rows)}))
    storage.message_rows = 9_000
    bq = BigQuery(connect(service, storage).settings)
    found = fetch(bq, "SELECT n FROM `shop.sales.many`")
    assert sorted(found["n"].to_pylist()) == list(range(n_rows))
    assert storage.sessions == n_streams


def test_the_real_service_gets_the_accounts_credentials_and_a_connection_that_notices_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = BigQueryReadClient.get_transport_class("grpc")
    made: list[tuple[Any, dict[str, Any]]] = []

    def make_channel(host: str, **more: Any) -> Any:
        made.append((host, more))
        return grpc.insecure_channel("127.0.0.1:9")

    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    monkeypatch.setattr("google.auth.default", lambda *_, **__: (credentials, "shop"))
    monkeypatch.setattr(kind, "create_channel", make_channel)
    with storage_read_client(GcpSettings(project="shop")):
        [(host, more)] = made
    assert host == "bigquerystorage.googleapis.com:443"
    assert more["credentials"] is credentials
    options = dict(more["options"])
    assert options["grpc.keepalive_time_ms"] == options["grpc.keepalive_timeout_ms"] == 60_000
    assert options["grpc.max_receive_message_length"] == -1
    assert BigQuery(GcpSettings(project="shop")).has_storage_api


def test_a_fake_without_the_storage_api_is_read_over_rest_alone(service: FakeBigQuery) -> None:
    assert not connect(service, None).has_storage_api
    assert fetch(connect(service, None)).num_rows == N_ROWS
