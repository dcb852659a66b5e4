"""Databases in a file: DuckDB and SQLite. What is asked of them is in ``sql_source`` and ``several_tables``."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from custseg_assets.stores.sql_addresses import SqlAddress
from custseg_assets.stores.sql_databases import BATCH_ROWS, RowDatabase, SqlDatabase


class DuckDb(SqlDatabase):
    """A DuckDB file, or a connection to DuckDB that is open already.

    Args:
        address: of the file.
        connection: an open connection to use instead.
    """

    driver = "duckdb"
    locked: Mapping[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        # Variables of this program are no tables.
        "python_enable_replacements": False,
        # With several threads the last digit of a sum of floats would not be the same every time.
        "threads": 1,
    }
    """With these nothing is fetched from a network, and the same query on the same data has the same answer."""

    def __init__(self, address: SqlAddress, password: str = "", connection: Any = None) -> None:
        self._given = connection
        self._types: dict[str, pa.DataType] = {}
        super().__init__(address, password)

    def _connect(self) -> Any:
        connection = self._given or self._driver.connect(
            self.address.database,
            read_only=True,
            # What a large sort does not keep in memory goes there, not beside the user's file.
            config={**self.locked, "temp_directory": tempfile.gettempdir()},
        )
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        connection.execute("BEGIN TRANSACTION READ ONLY")
        return connection

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        # After the first batch it is Arrow that finds out.
        return (self._driver.Error, pa.ArrowException)

    def header_of(self, relation: str) -> tuple[str, ...]:
        """Names of the columns, whose types are kept."""
        with self.explained("query"):
            schema = self._connection.sql(f"SELECT * FROM {relation} LIMIT 0").to_arrow_reader(1).schema  # noqa: S608
        self._types = {field.name: field.type for field in schema}
        return tuple(schema.names)

    def expression(self, header: str, *, is_number: bool) -> str:
        """A column without loss."""
        column, kind = self.column(header), self._types[header]
        if pa.types.is_decimal(kind) and is_number:
            return f"CAST({column} AS DOUBLE)"
        is_strange = pa.types.is_dictionary(kind) or pa.types.is_time(kind) or pa.types.is_interval(kind)
        return f"CAST({column} AS VARCHAR)" if is_strange else column

    def statements_of(self, sql: str) -> list[str]:
        """What kinds of statements a text has, such as ``SELECT``.

        Raises:
            BadInputError: it is no SQL.
        """
        with self.explained("query"):
            return [statement.type.name for statement in self._connection.extract_statements(sql)]

    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        yield from self._connection.sql(sql).to_arrow_reader(BATCH_ROWS)

    def _message_of(self, error: Exception) -> str:
        # After an empty line it shows the query again.
        return str(error).partition("\n\n")[0]


class Sqlite(RowDatabase):
    """An SQLite file, with Python's own driver."""

    driver = "sqlite3"
    tables_query = "SELECT name AS table_name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY 1"

    def header_of(self, relation: str) -> tuple[str, ...]:
        """Names of the columns, whose types are kept."""
        with self.explained("query"), contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(f"SELECT * FROM {relation} LIMIT 0")  # noqa: S608
            return tuple(column[0] for column in cursor.description)

    def _connect(self) -> Any:
        connection = sqlite3.connect(f"file:{quote(self.address.database)}?mode=ro", uri=True, isolation_level=None)
        connection.execute("BEGIN")
        # A file that is no database is noticed with the first statement that reads it.
        connection.execute("SELECT count(*) FROM sqlite_master")
        return connection

    def _types_of(self, sql: str, description: Sequence[Sequence[Any]]) -> list[pa.DataType]:
        """The types of what is there: in SQLite every value has one of its own."""
        found = [
            f"max(typeof({self.quote(column[0])}) = '{kind}')"
            for column in description
            for kind in ("blob", "text", "real")
        ]
        (facts,) = self._connection.execute(f"SELECT {', '.join(found)} FROM ({sql})")  # noqa: S608
        types = []
        for blob, text, real in zip(facts[::3], facts[1::3], facts[2::3], strict=True):
            types.append(pa.binary() if blob else pa.string() if text else pa.float64() if real else pa.int64())
        return types
