"""Snowflake's driver as it is called: there is no server here, so DuckDB answers in its place."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import duckdb
import pyarrow as pa
import pytest

from tests.support.databases import Database, SourceReader


@pytest.fixture
def reader(tmp_path: Path) -> SourceReader:
    return SourceReader(tmp_path / "deliveries")


class FakeCursor:
    """What custseg uses of an ADBC cursor."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection, self._sql = connection, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, sql: str) -> None:
        self._sql = sql
        self._connection.execute(f"EXPLAIN {sql}")

    def fetch_record_batch(self) -> pa.RecordBatchReader:
        return self._connection.sql(self._sql).to_arrow_reader(1000)


class FakeConnection:
    """A connection to a warehouse with one table."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database

    def cursor(self) -> FakeCursor:
        return FakeCursor(self._database)

    def close(self) -> None:
        pass


def test_snowflake_is_asked_with_its_own_names_and_options(
    monkeypatch: pytest.MonkeyPatch, reader: SourceReader
) -> None:
    given: dict[str, str] = {}
    warehouse = duckdb.connect(":memory:")
    warehouse.execute('CREATE SCHEMA "SALES"')
    warehouse.execute(
        'CREATE TABLE "SALES"."ORDERS" AS SELECT 12::decimal(38, 0) AS "CUSTOMER_ID", '
        '\'2024-01-31 23:30:00\'::timestamp_ns AS "INVOICED_AT", 1.50::decimal(10, 2) AS "LINE_AMOUNT"'
    )

    def connect(db_kwargs: dict[str, str]) -> FakeConnection:
        given.update(db_kwargs)
        return FakeConnection(warehouse)

    module: Any = ModuleType("adbc_driver_snowflake.dbapi")
    module.connect, module.Error = connect, duckdb.Error
    monkeypatch.setitem(sys.modules, module.__name__, module)
    database = Database("snowflake", "snowflake://shop@account/db/public?warehouse=small&role=reader", lambda: None)
    reader.read(database, table="sales.orders", cursor="INVOICED_AT")
    assert reader.lines().select("customer_id", "line_amount").rows() == [("12", 1.5)]
    assert given == {
        "username": "shop",
        "password": "s3cret/p@ss word",
        "adbc.snowflake.sql.account": "account",
        "adbc.snowflake.sql.db": "db",
        "adbc.snowflake.sql.schema": "public",
        "adbc.snowflake.sql.client_option.use_high_precision": "true",
        "adbc.snowflake.sql.client_option.disable_telemetry": "true",
        "adbc.snowflake.sql.client_option.login_timeout": "15s",
        "adbc.snowflake.sql.warehouse": "small",
        "adbc.snowflake.sql.role": "reader",
    }
    warehouse.execute('INSERT INTO "SALES"."ORDERS" VALUES (13, \'2024-02-01\', 2)')
    reader.read(database, table="sales.orders", cursor="INVOICED_AT")
    assert "1 new rows from INVOICED_AT 2024-01-31 23:30:00.000000000 on" in reader.said[0]
    warehouse.close()
