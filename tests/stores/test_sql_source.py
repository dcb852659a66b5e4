"""Tables and queries of real databases as sources: what is read, what is new, and what is refused."""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime
from pathlib import Path

import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.stores.sql_addresses import parse_address
from custseg_assets.stores.sql_files import Sqlite
from custseg_assets.stores.sql_source import DATABASES
from tests.support.databases import Database, SourceReader, duckdb_in, mysql_on, postgres_on, sqlite_in
from tests.support.mariadb import MariaDb
from tests.support.postgres import PASSWORD, Postgres

ROWS = (
    ("C1", "2024-01-31 23:30:00", 2, 1.234, "1001", 1),
    ("C2", "2024-02-01 00:15:00", -1, 12.5, "1002", 2),
    (None, "2024-02-03 10:00:00", 3, 0.1, "1003", 3),
)


@pytest.fixture(params=["postgresql", "mysql", "duckdb", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    kinds = {
        "postgresql": lambda: postgres_on(request.getfixturevalue("postgres")),
        "mysql": lambda: mysql_on(request.getfixturevalue("mariadb")),
        "duckdb": lambda: duckdb_in(tmp_path),
        "sqlite": lambda: sqlite_in(tmp_path),
    }
    made = kinds[request.param]()
    made.make_table()
    made.insert(*ROWS)
    return made


@pytest.fixture
def reader(tmp_path: Path) -> SourceReader:
    return SourceReader(tmp_path / "deliveries")


def ids(reader: SourceReader) -> list[str]:
    """The invoices that were read, with repetitions."""
    return sorted(reader.lines()["invoice_id"])


def test_a_table_is_read_with_its_own_types(database: Database, reader: SourceReader) -> None:
    (delivery,) = reader.read(database)
    assert (delivery.name, delivery.n_rows) == ("orders", 3)
    columns = ("customer_id", "invoiced_at", "quantity", "unit_price", "invoice_id")
    assert reader.lines().sort("invoice_id").select(columns).rows() == [
        # 1.234 is one and a bit: a number of a database has no thousands separator.
        ("C1", datetime(2024, 1, 31, 23, 30), 2.0, 1.234, "1001"),
        ("C2", datetime(2024, 2, 1, 0, 15), -1.0, 12.5, "1002"),
        (None, datetime(2024, 2, 3, 10), 3.0, 0.1, "1003"),
    ]


def test_only_the_columns_that_are_used_are_read(database: Database, reader: SourceReader) -> None:
    reader.read(database)
    (said,) = reader.said
    assert said.endswith("ignored 'id', 'note', 'ratio'")
    assert database.address.split("@")[-1].split("/")[0] in said


def test_a_query_is_read_as_a_table_is(database: Database, reader: SourceReader) -> None:
    query = (
        "select customer_id, invoiced_at as day, quantity * unit_price as paid from orders where quantity > 0 -- all;"
    )
    (delivery,) = reader.read(database, query=query, columns={"invoiced_at": "day", "line_amount": "paid"})
    assert sorted(reader.lines()["line_amount"]) == pytest.approx([0.3, 2.468])
    assert delivery.name.startswith("query on ")


def test_a_table_that_did_not_change_is_the_delivery_that_is_there(database: Database, reader: SourceReader) -> None:
    first = reader.read(database)
    # Where the rows are on its disk is the database's own business.
    database.do("CREATE TABLE copy AS SELECT * FROM orders ORDER BY id DESC", "DELETE FROM orders")
    database.do("INSERT INTO orders SELECT * FROM copy", "DROP TABLE copy")
    assert reader.read(database) == first
    database.insert(("C3", "2024-02-04 10:00:00", 1, 1.0, "1004", 4))
    assert reader.read(database) != first
    assert ids(reader) == ["1001", "1002", "1003", "1004"]


@pytest.mark.parametrize("cursor", ["id", "invoiced_at"])
def test_with_a_cursor_only_new_rows_are_read(database: Database, reader: SourceReader, cursor: str) -> None:
    first = reader.read(database, cursor=cursor)
    assert reader.read(database, cursor=cursor) == first
    assert "0 new rows from" in reader.said[0]
    database.insert(("C3", "2024-02-04 10:00:00", 1, 1.0, "1004", 4), ("C3", "2024-02-05 10:00:00", 1, 1.0, "1005", 5))
    second = reader.read(database, cursor=cursor)
    assert "2 new rows from" in reader.said[0]
    assert [one.n_rows for one in second] == [3, 2]
    assert second[:1] == first
    assert reader.read(database, cursor=cursor) == second
    assert ids(reader) == ["1001", "1002", "1003", "1004", "1005"]


def test_rows_that_tie_with_the_last_one_are_taken_in_once(database: Database, reader: SourceReader) -> None:
    at = "2024-02-03 10:00:00"
    reader.read(database, cursor="invoiced_at")
    for number in (4, 5):
        # Equal lines that happened again count again, though the two increments are equal.
        database.insert((None, at, 3, 0.1, "1003", number))
        reader.read(database, cursor="invoiced_at")
        assert ": 1 new rows" in reader.said[0]
    database.insert(("C4", at, 1, 1.0, "1006", 6), ("C5", "2024-02-04 10:00:00", 1, 1.0, "1007", 7))
    found = reader.read(database, cursor="invoiced_at")
    assert ": 2 new rows" in reader.said[0]
    assert ids(reader) == ["1001", "1002", "1003", "1003", "1003", "1006", "1007"]
    assert sorted(one.n_rows for one in found) == [1, 1, 2, 3]
    assert reader.read(database, cursor="invoiced_at") == found


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        (
            "INSERT INTO orders VALUES ('C9', '2024-01-05 10:00:00', 1, 1, '0999', 0, '', 0.5)",
            ["0999", "1001", "1002", "1003"],
        ),
        (
            "INSERT INTO orders VALUES ('C9', '2024-01-05 10:00:00', 1, 1, '0999', NULL, '', 0.5)",
            ["0999", "1001", "1002", "1003"],
        ),
        ("DELETE FROM orders WHERE id = 1", ["1002", "1003"]),
        ("UPDATE orders SET id = 7 WHERE id = 1", ["1001", "1002", "1003"]),
        ("UPDATE orders SET invoice_id = '1009' WHERE id = 3", ["1001", "1002", "1009"]),
        ("DELETE FROM orders WHERE id > 1", ["1001"]),
    ],
    ids=["late", "without a cursor", "removed", "updated", "last changed", "backwards"],
)
def test_where_older_rows_changed_all_rows_are_read(
    database: Database, reader: SourceReader, statement: str, left: list[str]
) -> None:
    reader.read(database, cursor="id")
    database.do(statement)
    assert len(reader.read(database, cursor="id")) == 1
    assert "reading all rows" in reader.said[0]
    assert ids(reader) == left
    reader.read(database, cursor="id")
    assert "0 new rows" in reader.said[0]


def test_an_increment_that_did_not_become_the_source_is_read_again(database: Database, reader: SourceReader) -> None:
    reader.read(database, cursor="id")
    before = (reader.root / "current.json").read_bytes()
    database.insert(("C3", "2024-02-04 10:00:00", 1, 1.0, "1004", 4))
    reader.read(database, cursor="id")
    # As after a kill between the delivery and the pointer to it.
    (reader.root / "current.json").write_bytes(before)
    reader.read(database, cursor="id")
    assert ids(reader) == ["1001", "1002", "1003", "1004"]
    assert len(list(reader.root.glob("*.json"))) == 3


def test_rows_without_a_date_wait_for_the_next_run(database: Database, reader: SourceReader) -> None:
    reader.read(database, cursor="id")
    database.insert(("C3", None, 1, 1.0, "1004", 4))
    assert len(reader.read(database, cursor="id")) == 1
    assert "wait for the next run" in reader.said[1]
    database.insert(("C3", "2024-02-05 10:00:00", 1, 1.0, "1005", 5))
    reader.read(database, cursor="id")
    assert ids(reader) == ["1001", "1002", "1003", "1004", "1005"]


CURSORS = {
    "BIGINT": ("9", "10", "11"),
    "NUMERIC(12, 2)": ("9.50", "10.00", "10.25"),
    "DATE": ("'2024-01-31'", "'2024-02-01'", "'2024-02-02'"),
    "TIMESTAMP": ("'2024-01-31 10:00:00'", "'2024-01-31 10:00:01'", "'2024-02-01 00:00:00'"),
    "VARCHAR(20)": ("'a''b'", "'a\\c'", "'b'"),
    "TIMESTAMPTZ": ("'2024-01-31 10:00:00+02'", "'2024-01-31 10:00:00.5+02'", "'2024-02-01 00:00:00+00'"),
    "UUID": tuple(f"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{n}'" for n in range(3)),
}


NOT_THERE = {"mysql": {"TIMESTAMPTZ", "UUID"}, "sqlite": {"TIMESTAMPTZ", "UUID", "NUMERIC(12, 2)"}}


def test_a_cursor_of_any_type_goes_on_where_it_was(database: Database, tmp_path: Path) -> None:
    for number, (kind, values) in enumerate(CURSORS.items()):
        if kind not in NOT_THERE.get(database.kind, ()):
            reader = SourceReader(tmp_path / f"deliveries-{number}")
            require_that_it_goes_on(database, reader, kind, values)


def require_that_it_goes_on(database: Database, reader: SourceReader, kind: str, values: tuple[str, ...]) -> None:
    # Without NULL, the first column of that type in MySQL is set to the present time.
    there = "TIMESTAMP NULL" if (database.kind, kind) == ("mysql", "TIMESTAMP") else kind
    database.do(
        "DROP TABLE IF EXISTS steps",
        f"CREATE TABLE steps (step {there}, customer_id TEXT, invoiced_at {database.instant}, line_amount INT)",
    )
    if database.kind == "mysql":
        values = tuple(value.replace("\\", "\\\\") for value in values)
    first, second, third = values

    def add(value: str, customer: str) -> None:
        database.do(f"INSERT INTO steps VALUES ({value}, '{customer}', '2024-01-31 10:00:00', 1)")  # noqa: S608

    for customer, value in enumerate(("NULL", first, second)):
        add(value, f"C{customer}")
    reader.read(database, table="steps", cursor="step")
    add(second, "C3")
    add(third, "C4")
    reader.read(database, table="steps", cursor="step")
    assert ": 2 new rows from step" in reader.said[0], kind
    add(third, "C5")
    reader.read(database, table="steps", cursor="step")
    assert ": 1 new rows from step" in reader.said[0], kind
    assert sorted(reader.lines()["customer_id"]) == ["C0", "C1", "C2", "C3", "C4", "C5"]


def test_another_mapping_reads_all_rows_anew(database: Database, reader: SourceReader) -> None:
    reader.read(database, cursor="id")
    database.insert(("C3", "2024-02-04 10:00:00", 1, 1.0, "1004", 4))
    (whole,) = reader.read(database, cursor="id", columns={"description": "note"})
    assert whole.n_rows == 4


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ({"table": "orderz"}, "orderz"),
        ({"table": None}, "with neither table nor query; expected one of them under .source.; its tables are .*orders"),
        ({"table": "orders", "query": "select 1"}, "with a table and a query"),
        ({"query": "select nix from orders"}, "nix"),
        ({"query": "delete from orders"}, "(?i)syntax|delete|parser"),
        ({"columns": {"customer_id": "buyer"}}, "has no column 'buyer', which .source.columns. names"),
        ({"query": "select customer_id, quantity from orders"}, "has no column for invoiced_at"),
        ({"cursor": "nix"}, "has no column 'nix', which .source. cursor names; expected one of 'customer_id'"),
        ({"cursor": "ratio"}, "has 'ratio', which .source. cursor names, as Float"),
        ({"query": "select orders.*, nullif(1, 1) as f from orders", "cursor": "f"}, "empty in every row"),
        ({"query": "select * from orders where id > 9"}, "has no rows"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_changes_nothing(
    database: Database, reader: SourceReader, source: dict[str, str | None], found: str
) -> None:
    reader.read(database)
    before = {path: path.read_bytes() for path in reader.root.iterdir()}
    with pytest.raises(BadInputError, match=found) as refused:
        reader.read(database, **source)
    assert "\n" not in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert {path: path.read_bytes() for path in reader.root.iterdir()} == before


def test_the_types_of_postgresql_lose_nothing(postgres: Postgres, reader: SourceReader) -> None:
    database = postgres_on(postgres)
    (rows,) = (
        """
        SELECT '2024-01-31 23:30:00.123456'::timestamp AS invoiced_at, 12345678901234567890.500::numeric AS customer_id,
            '$1,234.56'::money AS line_amount, 1.1::real AS quantity, 0.1::numeric(20, 10) AS unit_price,
            'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS product_id, 17850.00::numeric AS invoice_id,
            '{"a": 1}'::jsonb AS description, 'DE'::char(5) AS country
        """,
    )
    reader.read(database, query=rows)
    assert reader.lines().drop("source_file", "source_row", "unreadable_values", "excluded_by").row(0, named=True) == {
        "invoiced_at": datetime(2024, 1, 31, 23, 30, 0, 123456),
        "customer_id": "12345678901234567890.5",
        "line_amount": 1234.56,
        "quantity": 1.1,
        "unit_price": 0.1,
        "product_id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "invoice_id": "17850",
        "description": '{"a": 1}',
        "country": "DE",
    }


def test_the_types_of_duckdb_lose_nothing(tmp_path: Path, reader: SourceReader) -> None:
    database = duckdb_in(tmp_path)
    database.do("CREATE TYPE land AS ENUM ('DE', 'FR')")
    rows = """
        SELECT '2024-01-31 23:30:00'::timestamp_ns AS invoiced_at, 12345678901234567890123456::hugeint AS customer_id,
            0.1::decimal(38, 20) AS unit_price, 1.1::float AS quantity, 'FR'::land AS country,
            17850.00::decimal(10, 2) AS invoice_id, 18446744073709551615::ubigint AS product_id,
            '10:00'::time AS description
    """
    reader.read(database, query=rows)
    columns = ("customer_id", "unit_price", "quantity", "country", "invoice_id", "product_id", "description")
    (row,) = reader.lines().select(columns).rows()
    assert row == ("12345678901234567890123456", 0.1, 1.1, "FR", "17850", "18446744073709551615", "10:00:00")


def test_the_types_of_mysql_lose_nothing(mariadb: MariaDb, reader: SourceReader) -> None:
    database = mysql_on(mariadb)
    database.do(
        "CREATE OR REPLACE TABLE kinds (invoiced_at DATETIME(6), customer_id BIGINT UNSIGNED,"
        " unit_price DECIMAL(30, 12), quantity FLOAT, invoice_id DECIMAL(10, 2), description TEXT)",
        "INSERT INTO kinds VALUES ('2024-01-31 23:30:00.5', 18446744073709551615, 0.1, 1.1, 17850, 'a')",
    )
    reader.read(database, table="kinds")
    columns = ("invoiced_at", "customer_id", "unit_price", "quantity", "invoice_id", "description")
    (row,) = reader.lines().select(columns).rows()
    at = datetime(2024, 1, 31, 23, 30, 0, 500000)
    assert row == (at, "18446744073709551615", 0.1, 1.1, "17850", "a")


@pytest.mark.parametrize("infinity", ["'infinity'::timestamp", "'-infinity'::timestamp"])
def test_an_infinite_instant_is_a_line_that_cannot_be_read(
    infinity: str, postgres: Postgres, reader: SourceReader
) -> None:
    rows = f"select 'C1' as customer_id, {infinity} as invoiced_at, 1 as line_amount"
    query = f"{rows} union all select 'C2', '2024-01-31', 2"
    reader.read(postgres_on(postgres), query=query, max_unreadable_share=1, cursor="invoiced_at")
    unreadable = reader.lines()["unreadable_values"].drop_nulls().to_list()
    assert len(unreadable) == 1
    assert unreadable[0].startswith(
        '{"invoiced_at": "9999-12-31' if infinity[1] == "i" else '{"invoiced_at": "0001-01-01'
    )


def test_a_zero_date_of_mysql_keeps_its_text(mariadb: MariaDb, reader: SourceReader) -> None:
    database = mysql_on(mariadb)
    database.make_table()
    database.insert(*ROWS, ("C9", "0000-00-00 00:00:00", 1, 1.0, "1009", 9))
    reader.read(database, max_unreadable_share=1)
    assert reader.lines()["unreadable_values"].drop_nulls().to_list() == ['{"invoiced_at": "0000-00-00 00:00:00"}']


def test_bytes_in_sqlite_are_refused(tmp_path: Path, reader: SourceReader) -> None:
    database = sqlite_in(tmp_path)
    database.make_table()
    database.insert(*ROWS)
    database.do("UPDATE orders SET customer_id = x'00ff'")
    with pytest.raises(BadInputError, match="holds Binary values for customer_id"):
        reader.read(database)


def test_a_column_that_nobody_mapped_but_that_says_a_line_is_no_sale_is_seen(
    database: Database, reader: SourceReader
) -> None:
    database.do("UPDATE orders SET note = 'refunded' WHERE id = 1")
    with pytest.raises(BadInputError, match=r"'note'.*refunded"):
        reader.read(database)
    assert not reader.root.exists()
    reader.read(database, filter={"note": {"exclude": ["refunded"]}})
    assert sorted(reader.lines()["excluded_by"].is_null()) == [False, True, True]


def test_an_instant_of_the_world_is_put_on_the_shops_clock(database: Database, reader: SourceReader) -> None:
    instant = {"postgresql": "TIMESTAMPTZ", "duckdb": "TIMESTAMPTZ", "mysql": "TIMESTAMP"}.get(database.kind, "TEXT")
    offset = "" if database.kind == "mysql" else "+00:00"
    session = "SET time_zone = '+00:00'" if database.kind == "mysql" else "SELECT 1"
    database.do(
        "DROP TABLE IF EXISTS world",
        f"CREATE TABLE world (customer_id VARCHAR(9), invoiced_at {instant}, line_amount INT)",
        session,
        f"INSERT INTO world VALUES ('C1', '2024-01-31 23:30:00{offset}', 1)",  # noqa: S608
        f"INSERT INTO world VALUES ('C2', '2024-07-31 21:30:00{offset}', 1)",  # noqa: S608
    )
    reader.read(database, table="world", time_zone="Europe/Berlin")
    assert sorted(reader.lines()["invoiced_at"]) == [datetime(2024, 2, 1, 0, 30), datetime(2024, 7, 31, 23, 30)]


def test_bytes_of_mysql_are_text_in_hexadecimal_and_bits_are_numbers(mariadb: MariaDb, reader: SourceReader) -> None:
    database = mysql_on(mariadb)
    database.do(
        "CREATE OR REPLACE TABLE kinds (invoiced_at DATETIME, customer_id BINARY(2), line_amount INT, is_test BIT(1))",
        "INSERT INTO kinds VALUES ('2024-01-31 23:30:00', x'00ff', 1, b'0'), ('2024-01-31 23:30:00', x'01ff', 1, b'1')",
    )
    with pytest.raises(BadInputError, match="is_test"):
        reader.read(database, table="kinds")
    reader.read(database, table="kinds", filter={"is_test": {"exclude": ["1"]}})
    assert sorted(reader.lines()["customer_id"]) == ["0x00ff", "0x01ff"]


def test_a_connection_cannot_write(database: Database, reader: SourceReader) -> None:
    reader.read(database)
    address = parse_address(database.address)
    with (
        contextlib.closing(DATABASES[address.scheme](address, PASSWORD)) as connection,
        pytest.raises(BadInputError, match=r"(?i)read.?only|denied"),
    ):
        list(connection.read("DELETE FROM orders"))
    reader.read(database)
    assert len(ids(reader)) == 3


def test_a_password_that_a_driver_shows_is_taken_out(tmp_path: Path) -> None:
    database = sqlite_in(tmp_path)
    database.make_table()
    with (
        contextlib.closing(Sqlite(parse_address(database.address), "hunter2")) as connection,
        pytest.raises(BadInputError, match=r"no such table: \*\*\*; expected"),
    ):
        list(connection.read("SELECT * FROM hunter2"))


def test_a_driver_that_is_not_installed_is_one_sentence(reader: SourceReader, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("adbc_driver_postgresql.dbapi", "adbc_driver_snowflake.dbapi", "pymysql"):
        monkeypatch.setitem(sys.modules, name, None)
    for address, extra in [
        ("postgresql://shop@127.0.0.1/shop", "sql"),
        ("mysql://shop@127.0.0.1/shop", "sql"),
        ("snowflake://shop@account/shop", "snowflake"),
    ]:
        with pytest.raises(BadInputError, match=f"which is not installed; .* Do pip install 'custseg\\[{extra}\\]'"):
            reader.read(Database("", address, lambda: None))
    assert not reader.root.exists()
