"""A query over several files as a source: what it sees, what it may do, and what it answers."""

from __future__ import annotations

import gzip
import zipfile
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter

from custseg_assets.errors import BadInputError
from custseg_assets.stores.sql_files import DuckDb
from tests.support.databases import SourceReader

ORDERS = "order_id,client,day\n0017,A1,31/01/2024\n0018,A2,13/02/2024\n\n0019,,03/02/2024\n"
ITEMS = 'order_id;sku;qty;price\n0017;X;2;"1,50"\n0017;Y;1;"0,75"\n0018;X;1;"1.001,50"\n'
QUERY = "select client, day, sku, qty, price, order_id from orders join items using (order_id)"
COLUMNS = {
    "customer_id": "client",
    "invoiced_at": "day",
    "product_id": "sku",
    "quantity": "qty",
    "unit_price": "price",
    "invoice_id": "order_id",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "exports"
    path.mkdir()
    (path / "orders.csv").write_text(ORDERS)
    (path / "items.csv.gz").write_bytes(gzip.compress(ITEMS.encode()))
    return path


@pytest.fixture
def reader(tmp_path: Path) -> SourceReader:
    return SourceReader(tmp_path / "deliveries")


def read(reader: SourceReader, path: Path, query: str = QUERY, **source: object) -> list[tuple[object, ...]]:
    reader.read_file(path, query=query, **{"columns": COLUMNS, **source})
    columns = ("source_row", "customer_id", "invoiced_at", "product_id", "quantity", "unit_price", "invoice_id")
    return reader.lines().select(columns).rows()


JOINED = [
    # Ids keep their zeros, and what the dates and the decimal commas mean is told by the whole column.
    (1, "A1", datetime(2024, 1, 31), "X", 2.0, 1.5, "0017"),
    (2, "A1", datetime(2024, 1, 31), "Y", 1.0, 0.75, "0017"),
    (3, "A2", datetime(2024, 2, 13), "X", 1.0, 1001.5, "0018"),
]


def in_order(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Rows by invoice and product, without their number."""
    return sorted((row[1:] for row in rows), key=lambda row: (row[5], row[2]))


def test_the_files_of_a_folder_are_joined_as_text(reader: SourceReader, folder: Path) -> None:
    found = read(reader, folder)
    assert in_order(found) == [row[1:] for row in JOINED]
    assert sorted(row[0] for row in found) == [1, 2, 3]
    assert reader.said[0] == "[source] query: the tables are items, orders"


def test_the_answer_has_the_same_order_whatever_the_files_have(reader: SourceReader, folder: Path) -> None:
    before = read(reader, folder)
    header, *rows = ITEMS.splitlines(keepends=True)
    (folder / "items.csv.gz").write_bytes(gzip.compress((header + "".join(reversed(rows))).encode()))
    assert read(reader, folder) == before


def test_the_members_of_a_zip_and_the_sheets_of_a_workbook_are_tables(reader: SourceReader, tmp_path: Path) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("shop/orders.csv", ORDERS)
        packed.writestr("shop/items.csv", ITEMS)
        packed.writestr("shop/readme.md", "read me")
        packed.writestr("__MACOSX/shop/._orders.csv", "x")
    assert in_order(read(reader, archive)) == [row[1:] for row in JOINED]
    book = tmp_path / "export.xlsx"
    with xlsxwriter.Workbook(book) as workbook:
        for name, text, delimiter in (("orders", ORDERS, ","), ("items", ITEMS, ";")):
            sheet = workbook.add_worksheet(name)
            for number, line in enumerate(text.splitlines()):
                sheet.write_row(number, 0, line.replace('"', "").split(delimiter))
    assert in_order(read(reader, book)) == [row[1:] for row in JOINED]


def test_types_of_parquet_and_of_the_query_are_kept(reader: SourceReader, folder: Path) -> None:
    (folder / "items.csv.gz").unlink()
    items = pl.DataFrame({"order_id": ["0017", "0018"], "qty": [2, 3], "price": [1.234, 2.345]})
    items.write_parquet(folder / "items.parquet")
    query = "select client, day, order_id, cast(sum(qty * price) as decimal(18, 3)) as paid from orders join items"
    columns = {"customer_id": "client", "invoiced_at": "day", "invoice_id": "order_id", "line_amount": "paid"}
    reader.read_file(folder, query=f"{query} using (order_id) group by all", columns=columns)
    assert sorted(reader.lines()["line_amount"]) == [2.468, 7.035]


def test_the_same_files_and_query_are_read_once(reader: SourceReader, folder: Path) -> None:
    read(reader, folder)
    (first,) = reader.read_file(folder, query=QUERY, columns=COLUMNS)
    assert reader.said == []
    (folder / "orders.csv").write_text(ORDERS.replace("0019,,", "0019,A3,"))
    (second,) = reader.read_file(folder, query=QUERY, columns=COLUMNS)
    (third,) = reader.read_file(folder, query=QUERY + " where qty > '1'", columns=COLUMNS)
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (
            "select * from oders",
            'Table with name oders does not exist! Did you mean "orders".* a query of the tables items, o',
        ),
        ("select nix from orders", 'Referenced column "nix" not found'),
        ("select * from", "Parser Error"),
        ("-- nothing", "no statement|Parser Error"),
        ("select 1; select 2", "has SELECT, SELECT; expected one SELECT"),
        ("drop view orders", "has DROP; expected one SELECT"),
        ("create table x as select 1", "has CREATE; expected one SELECT"),
        ("copy orders to 'out.csv'", "has COPY; expected one SELECT"),
        ("select * from read_csv('/etc/passwd')", "Permission Error"),
        ("select * from '/etc/passwd.csv'", "Permission Error|does not exist"),
        ("select * from read_text('https://example.org/')", "Permission Error"),
        ("select * from glob('/*')", "Permission Error"),
        ("select * from folder", "Table with name folder does not exist"),
        ("set threads = 4", "has SET; expected one SELECT"),
        (f"{QUERY} where false", "answers without a row"),
        ("select client, day, qty * price as paid from orders join items using (order_id)", "Binder Error"),
        (
            "select * replace (cast(client as int) as client) from orders join items using (order_id)",
            "Could not convert string 'A1'",
        ),
    ],
)
def test_a_query_that_is_not_one_that_reads_is_refused(
    reader: SourceReader, folder: Path, query: str, found: str
) -> None:
    with pytest.raises(BadInputError, match=found) as refused:
        read(reader, folder, query)
    assert "\n" not in str(refused.value)
    assert not reader.root.exists()


def test_what_keeps_a_query_in_is_needed(tmp_path: Path) -> None:
    """Without it the same query reads any file: the guard is what refuses."""
    import duckdb

    (tmp_path / "secret.csv").write_text("a\n1\n")
    query = f"select * from read_csv('{tmp_path / 'secret.csv'}')"  # noqa: S608
    with duckdb.connect(":memory:", config=dict(DuckDb.locked)) as connection:
        assert connection.execute(query).fetchall() == [(1,)]
        connection.execute("SET enable_external_access = false")
        with pytest.raises(duckdb.PermissionException):
            connection.execute(query)
    frame = pl.DataFrame({"a": [1]})
    with duckdb.connect(":memory:") as connection:
        assert connection.execute("select * from frame").fetchall() == frame.rows()
    with (
        duckdb.connect(":memory:", config=dict(DuckDb.locked)) as connection,
        pytest.raises(duckdb.CatalogException, match="frame does not exist"),
    ):
        connection.execute("select * from frame")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("orders.tsv", "order_id\tx\n1\t2\n", "orders.csv and orders.tsv would both be the table 'orders'"),
        ("Orders.tsv", "order_id\tx\n1\t2\n", "would both be the table 'orders'|would both be the table 'Orders'"),
        ("more.csv", "a,A\n1,2\n", "more.csv has more than one column 'A'"),
        (
            "more.csv",
            "a,b\n1,2\n3,4,5\n",
            "more.csv has 1 rows with more fields than the header, the first of them row 2",
        ),
        ("more.zip", "PK", "more.zip cannot be unpacked"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    reader: SourceReader, folder: Path, name: str, content: str, found: str
) -> None:
    (folder / name).write_text(content)
    with pytest.raises(BadInputError, match=found):
        read(reader, folder)


def test_without_a_query_the_files_are_one_log_as_before(reader: SourceReader, folder: Path) -> None:
    with pytest.raises(BadInputError, match=r"items.csv.gz has no column 'client'|has no column 'day'"):
        reader.read_file(folder, columns=COLUMNS)


@pytest.mark.parametrize("key", ["table", "cursor"])
def test_what_only_a_database_has_is_refused_for_files(reader: SourceReader, folder: Path, key: str) -> None:
    with pytest.raises(
        BadInputError, match=rf"\[source\] {key} for source .*exports; expected the address of a database"
    ):
        reader.read_file(folder, **{key: "orders"})
