"""The LookML project in ``deploy/lookml``: made from the declarations, and run on the fake of BigQuery."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest

from custseg_assets.domain import schemas
from custseg_assets.domain.schemas import PREDICTION_LOG, SEGMENT_PRODUCTS
from custseg_assets.home.plan import PUBLISHED
from custseg_assets.stores.publications import HELD_OUT
from custseg_assets.stores.tables import TableReader
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.files import REPOSITORY
from tests.support.looker import Project, is_true
from tests.support.shops import FilledShop

FOLDER = REPOSITORY / "deploy" / "lookml"
VIEWS = REPOSITORY / "custseg_assets" / "gcp" / "views"


@pytest.fixture(scope="module")
def make_files() -> Callable[[], dict[str, str]]:
    made: Callable[[], dict[str, str]] = runpy.run_path(str(REPOSITORY / "deploy" / "make_lookml.py"))["make_files"]
    return made


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(FOLDER, "shop.segments")


@pytest.fixture(scope="module")
def bigquery(filled_shop: FilledShop) -> Iterator[FakeBigQuery]:
    """BigQuery with what a home with three snapshots publishes, all of it announced, and a day of the service."""
    with FakeBigQuery("shop") as fake:
        fill(fake, filled_shop)
        yield fake


def fill(fake: FakeBigQuery, filled_shop: FilledShop) -> None:
    fake.add_dataset("segments")
    store, declared = TableReader(filled_shop.home / "tables"), schemas.tables(())
    for name in PUBLISHED:
        rows = store.read(declared[name])
        fake.add_table(f"segments.{name}", with_days(stood_out() if name == "segment_products" else rows))
    announced = fake.rows("segments.segment_profiles").select("period").unique()
    fake.add_table("segments.published_snapshots", announced)
    fake.add_table("segments.held_out_customers", with_days(HELD_OUT.schema.to_frame()))
    fake.add_table("segments.prediction_log", with_days(service_day()))
    for path in sorted(VIEWS.glob("*.sql")):
        newest = str(announced["period"].max())
        query = path.read_text(encoding="utf-8").replace("{dataset}", "shop.segments").replace("{newest}", newest)
        fake._insert_table("segments", {"tableReference": {"tableId": path.stem}, "view": {"query": query}})


def stood_out() -> pl.DataFrame:
    """A product that stands out; in a shop of 160 customers none does."""
    row = {"period": "2024-04-01", "as_of": datetime(2024, 5, 1), "is_open": False, "segment_id": "S1", "rank": 1}
    figures = {"n_buyers": 30, "share_of_segment": 0.2, "share_of_shop": 0.1, "lift": 1.9, "lift_low": 1.4}
    fields = {**row, **figures, "product_id": "10001", "description": "THING 10001"}
    return pl.DataFrame([fields], schema=SEGMENT_PRODUCTS.schema)


def with_days(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("period").str.to_date())


def service_day() -> pl.DataFrame:
    """Three lookups of 1, 2 and 3 milliseconds, one of them for two customers, and four lost records."""
    rows = [
        {"request_id": request, "kind": kind, "latency_ms": latency, "outcome": outcome, "n_dropped": lost}
        for request, kind, latency, outcome, lost in (
            ("r1", "lookup", 1.0, "found", None),
            ("r2", "lookup", 2.0, "found", None),
            ("r2", "lookup", 2.0, "unknown", None),
            ("r3", "lookup", 3.0, "found", None),
            (None, "dropped", None, "queue full", 4),
        )
    ]
    given = pl.DataFrame(rows).with_columns(
        period=pl.lit("2024-04-20"),
        at=pl.lit(datetime(2024, 4, 20)),
        model_version=pl.when(pl.col("kind") == "lookup").then(pl.lit("m1")),
    )
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in PREDICTION_LOG.schema.items() if name not in given]
    return given.with_columns(absent).select(PREDICTION_LOG.schema.names()).cast(dict(PREDICTION_LOG.schema))


def test_the_project_is_made_from_the_declarations(make_files: Callable[[], dict[str, str]]) -> None:
    written = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*") if path.is_file()}
    assert written == make_files(), "run `make docs`"


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        # A tile shows the first, a view passes the second on by name, a key has the third.
        ("SEGMENT_PROFILES", "share_revenue", "which there is not"),
        ("DRIFT_REPORT", "threshold", "drift_over_time.sql: "),
        ("SEGMENT_PROFILES", "segment_id", "segments_over_time.sql has no segment_id"),
    ],
)
def test_a_renamed_column_is_refused(
    make_files: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch, table: str, column: str, words: str
) -> None:
    before = getattr(schemas, table)
    columns = tuple(replace(one, name="renamed") if one.name == column else one for one in before.columns)
    monkeypatch.setattr(schemas, table, replace(before, columns=columns, reads=before.reads))
    with pytest.raises(LookupError, match=words):
        make_files()


def test_a_column_that_is_described_otherwise_makes_other_files(
    make_files: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schemas.SEGMENT_PROFILES
    columns = tuple(replace(one, description="Other.") if one.name == "advice" else one for one in before.columns)
    monkeypatch.setattr(schemas, "SEGMENT_PROFILES", replace(before, columns=columns))
    changed = make_files()["views/segments_over_time.view.lkml"]
    assert changed != (FOLDER / "views" / "segments_over_time.view.lkml").read_text(encoding="utf-8")


def test_every_column_of_every_view_is_there_and_described(project: Project, bigquery: FakeBigQuery) -> None:
    for view, columns in project.columns().items():
        assert columns == set(bigquery.fields(f"segments.{view}")), view
    fields = [
        one for view in project.views.values() for kind in ("dimensions", "measures") for one in view.get(kind, [])
    ]
    assert len(fields) > 80
    assert all(one["label"] and one["description"] for one in fields if one.get("name") != "key")


def test_there_are_one_explore_and_two_dashboards(project: Project) -> None:
    assert [*project.explores] == ["custseg"]
    assert {board["dashboard"] for board in project.dashboards.values()} == {"segments", "operations"}


@pytest.mark.parametrize("name", [*Project(FOLDER, "").tiles()])
def test_the_query_of_a_tile_returns_rows(project: Project, bigquery: FakeBigQuery, name: str) -> None:
    tile = project.tiles()[name]
    rows = bigquery.query(project.tile_sql(tile))
    assert rows.height > 0
    assert rows.columns == [field.replace(".", "__") for field in tile["fields"]]
    assert not [column for column in rows.columns if rows[column].is_null().all()]


@pytest.mark.parametrize("name", [*Project(FOLDER, "").tests])
def test_a_data_test_holds(project: Project, bigquery: FakeBigQuery, name: str) -> None:
    test = project.tests[name]
    rows = bigquery.query(project.test_sql(test))
    (asserted,) = test["asserts"]
    assert rows.height > 0
    assert all(is_true(asserted["expression"], row) for row in rows.iter_rows(named=True))


def test_a_data_test_finds_a_segment_that_is_there_twice(project: Project, bigquery: FakeBigQuery) -> None:
    table = bigquery.datasets["segments"]["segment_profiles"]
    test = project.tests["segments_are_there_once"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "rows", pl.concat([table.rows, table.rows.head(1)]))
        (row,) = bigquery.query(project.test_sql(test)).iter_rows(named=True)
    assert not is_true(test["asserts"][0]["expression"], row)


def test_customers_of_several_snapshots_are_not_added_up(project: Project, bigquery: FakeBigQuery) -> None:
    profiles = bigquery.rows("segments.segment_profiles")
    sql = project.sql("custseg", ["segments_over_time.customers"], {"segments_over_time.key": "-NULL"})
    expected = profiles["n_customers"].sum() / profiles["period"].n_unique()
    assert bigquery.query(sql).item() == pytest.approx(expected)


def test_a_request_for_two_customers_counts_once_and_a_persons_words_are_json(
    project: Project, bigquery: FakeBigQuery
) -> None:
    latency = bigquery.query("SELECT n_requests, latency_p50_ms, latency_p99_ms FROM segments.service_latency")
    assert latency.rows() == [(3, 2.0, pytest.approx(3.0, abs=0.05))]
    decisions = bigquery.query(project.tile_sql(project.tiles()["Decisions"]))
    assert {"RETRAIN", "WAIT", "PROMOTE"} & set(decisions["decisions__decision"])
    assert all(json.loads(text) for text in decisions["decisions__reasons"])
