"""``bq://`` as a source, by the real client on a fake that speaks BigQuery's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.gcp.bigquery import BigQuery, BigQueryError, table_name
from custseg_assets.gcp.bigquery_source import accept_table
from custseg_assets.settings import Settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import Delivery
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.homes import take_in

pytestmark = pytest.mark.gcp

ORDERS = pl.DataFrame(
    {
        "Buyer": ["7", "7", "8"],
        "ordered": [datetime(2024, 1, 30, 23, 30), datetime(2024, 2, 1), datetime(2024, 3, 2, 12)],
        "Sales": [10.5, 20.0, 4.25],
        "note": ["a long text that nobody asked for"] * 3,
    }
)
COLUMNS = {"customer_id": "Buyer", "invoiced_at": "ordered", "line_amount": "Sales"}
SOURCE = "bq://shop.sales.orders"


@pytest.fixture
def service() -> Iterator[FakeBigQuery]:
    with FakeBigQuery("shop") as fake:
        fake.add_table("sales.orders", ORDERS)
        yield fake


def settings_for(fake: FakeBigQuery, columns: dict[str, str] | None = None, **bigquery: Any) -> Settings:
    gcp = {"project": "shop", "bigquery": bigquery, "endpoints": {"bigquery": fake.url}}
    return Settings.model_validate({"source": {"columns": COLUMNS if columns is None else columns}, "gcp": gcp})


def take(store: DeliveryStore, settings: Settings, source: str = SOURCE, said: list[str] | None = None) -> Delivery:
    heard: list[str] = [] if said is None else said
    return accept_table(store, source, settings, heard.append, BigQuery(settings.gcp, patience_seconds=0.5))


@pytest.fixture
def store(tmp_path: Path) -> DeliveryStore:
    return DeliveryStore(tmp_path / "deliveries")


def lines(store: DeliveryStore, delivery: Delivery) -> pl.DataFrame:
    return store.scan([delivery]).collect()


def test_a_table_becomes_lines_with_the_mapped_columns(service: FakeBigQuery, store: DeliveryStore) -> None:
    delivery = take(store, settings_for(service))
    read = lines(store, delivery)
    assert read["customer_id"].to_list() == ["7", "7", "8"]
    assert read["invoiced_at"].to_list() == ORDERS["ordered"].to_list()
    assert read["line_amount"].to_list() == [10.5, 20.0, 4.25]
    assert read["source_file"].unique().to_list() == ["shop.sales.orders"]
    assert (delivery.first_date, delivery.last_date) == (date(2024, 1, 30), date(2024, 3, 2))


def test_only_the_mapped_columns_are_read_and_the_estimate_is_said_first(
    service: FakeBigQuery, store: DeliveryStore
) -> None:
    said: list[str] = []
    take(store, settings_for(service), said=said)
    # Three customers of 2 + 1 bytes, three instants and three amounts of 8: 57 bytes, below the least that is billed.
    assert service.billed == [10 << 20]
    assert said[0] == "shop.sales.orders: the query reads 0.0 MiB; 100.00 GiB may be billed"
    assert said[1].startswith("shop.sales.orders: own columns: customer_id from 'Buyer'")
    posted = [job.resource["configuration"]["query"] for job in service.jobs.values()]
    assert ["note" in one["query"] for one in posted] == [False]


def test_pages_are_put_together(service: FakeBigQuery, store: DeliveryStore) -> None:
    service.page_rows = 2
    assert lines(store, take(store, settings_for(service))).height == 3
    assert sum("GET" in one and "/queries/" in one for one in service.requests) >= 2


def test_a_running_query_is_waited_for(service: FakeBigQuery, store: DeliveryStore) -> None:
    service.polls_until_done = 2
    assert lines(store, take(store, settings_for(service))).height == 3


def test_a_table_that_has_not_changed_is_not_read_again(service: FakeBigQuery, store: DeliveryStore) -> None:
    first = take(store, settings_for(service))
    assert take(store, settings_for(service)) == first
    assert len(service.billed) == 1
    service.datasets["sales"].clear()
    service.add_table("sales.orders", ORDERS.head(2))
    assert take(store, settings_for(service)).n_rows == 2
    assert len(service.billed) == 2


def test_a_view_is_read_every_time_and_equal_lines_have_equal_digests(
    service: FakeBigQuery, store: DeliveryStore
) -> None:
    service.add_table("sales.orders_view", ORDERS, type="VIEW")
    first, second = (take(store, settings_for(service), "bq://shop.sales.orders_view") for _ in range(2))
    assert first.id != second.id
    assert first.days == second.days


def test_a_table_with_a_line_far_apart_is_refused_as_a_file_is(service: FakeBigQuery, tmp_path: Path) -> None:
    busy = [*(datetime(2024, 1, 1 + n % 31, 12) for n in range(310)), datetime(2025, 1, 31, 12)]
    service.datasets["sales"].clear()
    service.add_table("sales.orders", pl.DataFrame({"Buyer": "7", "ordered": busy, "Sales": 1.0}))
    settings = settings_for(service).model_copy(update={"home": tmp_path / "home"})
    settings = settings.model_copy(update={"source": settings.source.model_copy(update={"path": SOURCE})})
    with pytest.raises(BadInputError, match=r"1 line of 2025-01-31, 366 days after .*row 311 of shop\.sales\.orders;"):
        take_in(settings)
    assert not (tmp_path / "home" / "deliveries").exists()


def test_whether_stray_days_are_kept_does_not_have_a_table_read_again(
    service: FakeBigQuery, store: DeliveryStore
) -> None:
    settings = settings_for(service)
    first = take(store, settings)
    source = settings.source.model_copy(update={"keep_stray_days": True})
    assert take(store, settings.model_copy(update={"source": source})) == first
    assert len(service.billed) == 1


def test_since_is_pushed_down(service: FakeBigQuery, store: DeliveryStore) -> None:
    delivery = take(store, settings_for(service, since="2024-02-01"))
    assert lines(store, delivery)["line_amount"].to_list() == [20.0, 4.25]
    (job,) = service.jobs.values()
    assert "WHERE `ordered` >= DATETIME '2024-02-01'" in job.resource["configuration"]["query"]["query"]


def test_timestamps_become_the_shops_own_clock(service: FakeBigQuery, store: DeliveryStore) -> None:
    at = [datetime(2024, 6, 30, 22, 30, tzinfo=UTC)]
    service.add_table("sales.utc", pl.DataFrame({"customer_id": ["7"], "invoiced_at": at, "line_amount": [1.0]}))
    settings = settings_for(service, {}, time_zone="Europe/Berlin")
    read = lines(store, take(store, settings, "bq://shop.sales.utc"))
    assert read["invoiced_at"].to_list() == [datetime(2024, 7, 1, 0, 30)]
    source = settings.source.model_copy(update={"time_zone": "Asia/Tokyo"})
    read = lines(store, take(store, settings.model_copy(update={"source": source}), "bq://shop.sales.utc"))
    assert read["invoiced_at"].to_list() == [datetime(2024, 7, 1, 7, 30)]


@pytest.mark.parametrize(
    ("values", "first_kept"),
    [
        ([date(2024, 1, 31), date(2024, 2, 1)], datetime(2024, 2, 1)),
        # In Berlin it is the first of February from 23:00 on.
        (
            [datetime(2024, 1, 31, 22, 59, tzinfo=UTC), datetime(2024, 1, 31, 23, tzinfo=UTC)],
            datetime(2024, 2, 1),
        ),
    ],
)
def test_since_means_the_shops_own_day(
    service: FakeBigQuery, store: DeliveryStore, values: list[Any], first_kept: datetime
) -> None:
    rows = {"customer_id": ["7", "8"], "invoiced_at": values, "line_amount": [1.0, 2.0]}
    service.add_table("sales.dated", pl.DataFrame(rows))
    settings = settings_for(service, {}, since="2024-02-01", time_zone="Europe/Berlin")
    assert lines(store, take(store, settings, "bq://shop.sales.dated"))["invoiced_at"].to_list() == [first_kept]


def test_dates_decimals_and_whole_numbers_are_read(service: FakeBigQuery, store: DeliveryStore) -> None:
    frame = pl.DataFrame(
        {
            "customer_id": [7, 8],
            "invoiced_at": [date(2024, 1, 2), date(2024, 1, 3)],
            "quantity": [2, 3],
            "unit_price": [Decimal("1.25"), Decimal("2.5")],
        },
        schema_overrides={"unit_price": pl.Decimal(38, 9)},
    )
    service.add_table("sales.plain", frame)
    read = lines(store, take(store, settings_for(service, {}), "bq://shop.sales.plain"))
    assert read["customer_id"].to_list() == ["7", "8"]
    assert read["unit_price"].to_list() == [1.25, 2.5]
    assert read["invoiced_at"].to_list() == [datetime(2024, 1, 2), datetime(2024, 1, 3)]


def test_a_column_that_is_not_there_is_named_with_its_nearest(service: FakeBigQuery, store: DeliveryStore) -> None:
    with pytest.raises(BadInputError, match=r"no column 'Saless'.*nearest being 'Sales'"):
        take(store, settings_for(service, {**COLUMNS, "line_amount": "Saless"}))
    assert not store.root.exists()


def test_a_query_over_the_limit_is_refused_before_anything_is_billed(
    service: FakeBigQuery, store: DeliveryStore
) -> None:
    with pytest.raises(BadInputError, match=r"would bill 0\.0 MiB; expected at most 0\.0 MiB.*maximum_gib_billed"):
        take(store, settings_for(service, maximum_gib_billed=50 / (1 << 30)))
    assert (service.billed, dict(service.jobs), store.root.exists()) == ([], {}, False)


def test_the_service_itself_refuses_what_would_bill_more(service: FakeBigQuery, store: DeliveryStore) -> None:
    # The estimate, 57 bytes, is within a limit of 1 MiB; the least a query is billed, 10 MiB, is not.
    with pytest.raises(BigQueryError, match=r"exceeded limit for bytes billed.*Raise \[gcp.bigquery\] maximum_gib"):
        take(store, settings_for(service, maximum_gib_billed=1 / 1024))
    assert service.billed == []


@pytest.mark.parametrize(
    ("denied", "todo"),
    [("bigquery.tables.get", "docs/gcp.md"), ("bigquery.jobs.create", "docs/gcp.md")],
)
def test_a_missing_permission_is_named(service: FakeBigQuery, store: DeliveryStore, denied: str, todo: str) -> None:
    service.denied.add(denied)
    with pytest.raises(BigQueryError, match=f"Permission {denied} denied.*{todo}"):
        take(store, settings_for(service))
    assert not store.root.exists()


def test_a_table_that_is_not_there_and_a_name_that_is_none(service: FakeBigQuery, store: DeliveryStore) -> None:
    with pytest.raises(BigQueryError, match=r"Not found: Table shop:sales\.order was not found"):
        take(store, settings_for(service), "bq://shop.sales.order")
    with pytest.raises(BadInputError, match=r"expected bq://project.dataset.table"):
        table_name("bq://sales.orders")


def test_a_service_that_is_busy_is_asked_again_and_one_that_stays_so_is_an_error(
    service: FakeBigQuery, store: DeliveryStore
) -> None:
    service.n_unavailable = 1
    settings = settings_for(service)
    patient = BigQuery(settings.gcp, patience_seconds=30)
    assert accept_table(store, SOURCE, settings, lambda _: None, patient).n_rows == 3
    service.n_unavailable = 1_000
    with pytest.raises(BigQueryError, match="run it again later"):
        take(store, settings)


def test_nested_columns_are_refused(service: FakeBigQuery, store: DeliveryStore) -> None:
    service.add_table("sales.nested", ORDERS)
    service.datasets["sales"]["nested"].fields[2]["mode"] = "REPEATED"
    with pytest.raises(BadInputError, match="column 'Sales' for line_amount is ARRAY"):
        take(store, settings_for(service), "bq://shop.sales.nested")
