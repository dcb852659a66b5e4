"""Tables and queries of real databases as sources: what is read, what is new, and what is refused."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from custseg_assets.errors import BadInputError
from tests.support.databases import Database, SourceReader, duckdb_in, mysql_on, postgres_on, sqlite_in

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
    query = "select customer_id, invoiced_at as day, quantity * unit_price as paid from orders where quantity > 0 -- all;"
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
    database.insert((None, at, 3, 0.1, "1003", 4), ("C4", at, 1, 1.0, "1006", 5))
    reader.read(database, cursor="invoiced_at")
    assert "2 new rows" in reader.said[0]
    database.insert((None, at, 3, 0.1, "1003", 6))
    found = reader.read(database, cursor="invoiced_at")
    assert "1 new rows" in reader.said[0]
    # Equal lines happened three times, so they count three times, though two increments are equal.
    assert ids(reader) == ["1001", "1002", "1003", "1003", "1003", "1006"]
    assert len(found) == 3
    assert len(reader.read(database, cursor="invoiced_at")) == 3


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("INSERT INTO orders VALUES ('C9', '2024-01-05 10:00:00', 1, 1, '0999', 0, '', 0.5)", ["0999", "1001", "1002", "1003"]),
        ("INSERT INTO orders VALUES ('C9', '2024-01-05 10:00:00', 1, 1, '0999', NULL, '', 0.5)", ["0999", "1001", "1002", "1003"]),
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
