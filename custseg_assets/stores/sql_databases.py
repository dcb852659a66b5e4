"""Databases that are read with SQL: what all kinds have in common, and their errors in one sentence.

Rows come as Arrow batches, so that memory does not grow with a table. A driver is imported when a connection is opened,
and no error shows more of an address than where the database is. The kinds are in ``sql_servers`` and ``sql_files``;
what is asked for is in ``sql_source``.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from urllib.parse import quote

import pyarrow as pa

from custseg_assets.errors import BadInputError
from custseg_assets.settings import PASSWORD_VARIABLE
from custseg_assets.stores.sql_addresses import SqlAddress

Doing = Literal["connect", "query", "read"]

BATCH_ROWS = 1 << 16
_LONGEST_MESSAGE = 300


class SqlDatabase(abc.ABC):
    """A read-only connection to a database; everything that is read through one is of the same moment.

    Args:
        address: where it is.
        password: for it; ``""`` where the driver knows it.

    Attributes:
        where: the database, for the messages.
        readable: what can be read in it, for the messages.

    Raises:
        BadInputError: the driver is not installed, or the database cannot be reached.
    """

    driver: str
    quote_mark = '"'
    own_passwords = ""
    """How else the driver learns of a password, for the message."""

    def __init__(self, address: SqlAddress, password: str = "") -> None:
        self.address, self._password = address, password
        self.where, self.readable = address.place, "a table or query that can be read"
        self._driver = require_driver(self.driver, f"reading {address.kind}")
        with self.explained("connect"):
            self._connection = self._connect()

    @abc.abstractmethod
    def _connect(self) -> Any: ...

    @property
    @abc.abstractmethod
    def _errors(self) -> tuple[type[Exception], ...]: ...

    @abc.abstractmethod
    def header_of(self, relation: str) -> tuple[str, ...]:
        """Names of the columns of a table or query.

        Raises:
            BadInputError: it cannot be read.
        """

    @abc.abstractmethod
    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]: ...

    tables_query = (
        "SELECT table_name FROM information_schema.tables "
        "WHERE lower(table_schema) NOT IN ('information_schema', 'pg_catalog', 'mysql', 'performance_schema', 'sys') "
        "ORDER BY 1"
    )

    def tables(self) -> list[str]:
        """Names of the tables that can be read."""
        sql = f"SELECT table_name AS {self.quote('0')} FROM ({self.tables_query}) AS source"  # noqa: S608
        return [row["0"] for row in self.rows(sql)]

    def read(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows that a query gives, batch by batch.

        Raises:
            BadInputError: the query fails, or the connection is lost on the way.
        """
        with self.explained("read"):
            yield from self._batches(sql)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The few rows that a query gives."""
        return [row for batch in self.read(sql) for row in batch.to_pylist()]

    def expression(self, header: str, *, is_number: bool) -> str:
        """A column as text, a number or an instant, without loss.

        Args:
            header: name of the column.
            is_number: whether decimal numbers are needed as floats, as they are calculated with; otherwise as text.
        """
        del is_number
        return self.column(header)

    def cursor_expression(self, header: str) -> str:
        """A column as a value whose text, as a ``literal``, is that value again."""
        return self.expression(header, is_number=False)

    def column(self, header: str) -> str:
        """A column of the table or query; no other name that stands in a query is taken for it."""
        return f"source.{self.quote(header)}"

    def literal(self, value: str, *, is_number: bool) -> str:
        """A value as SQL writes it."""
        return value if is_number else "'" + value.replace("'", "''") + "'"

    def quote(self, name: str) -> str:
        """A name as SQL writes it."""
        mark = self.quote_mark
        return mark + name.replace(mark, 2 * mark) + mark

    def relation(self, table: str | None, query: str | None) -> str:
        """A table or a query as it stands after ``FROM``."""
        if query is not None:
            # A line of its own, for a query that ends with a comment.
            return f"({query.strip().rstrip(';')}\n) AS source"
        return f"{'.'.join(map(self.quote, (table or '').split('.')))} AS source"

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(*self._errors):
            self._connection.close()

    @contextlib.contextmanager
    def explained(self, doing: Doing) -> Iterator[None]:
        """Say what went wrong in one sentence, without anything secret."""
        try:
            yield
        except self._errors as error:
            raise self._explain(error, doing) from None

    def _explain(self, error: Exception, doing: Doing) -> BadInputError:
        message = " ".join(self._message_of(error).split()).strip(" .")
        for secret in filter(None, {self._password, quote(self._password, safe="")}):
            message = message.replace(secret, "***")
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[:_LONGEST_MESSAGE]}…"
        got = f"{self.where}: {message}"
        if doing == "connect":
            way = f", or the password in {PASSWORD_VARIABLE}{self.own_passwords}" if self.address.host else ""
            return BadInputError(
                got, f"a database that {self.address.kind} can open", f"Correct [source] path or --source{way}."
            )
        if self._is_lost(error):
            return BadInputError(
                got, "a connection that lasts until every row is read", "Nothing was changed; run it again."
            )
        return BadInputError(got, self.readable, "Correct [source] table, query or columns.")

    def _message_of(self, error: Exception) -> str:
        return str(error)

    def _is_lost(self, error: Exception) -> bool:
        del error
        return False


def require_driver(name: str, doing: str) -> Any:
    """Import a driver.

    Args:
        name: of its module.
        doing: what it is needed for, for the message.

    Raises:
        BadInputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        extra = "snowflake" if "snowflake" in name else "sql"
        raise BadInputError(
            f"{doing} needs the package {name.partition('.')[0].replace('_', '-')}, which is not installed",
            f"an installation with the extra {extra}",
            f"Do pip install 'custseg[{extra}]'.",
        ) from None


class RowDatabase(SqlDatabase):
    """A database whose driver returns rows of Python values."""

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        found: tuple[type[Exception], ...] = (self._driver.Error,)
        return found

    @abc.abstractmethod
    def _types_of(self, sql: str, description: Sequence[Sequence[Any]]) -> list[pa.DataType]: ...

    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(sql)
            names = [column[0] for column in cursor.description]
            types = self._types_of(sql, cursor.description)
            schema = pa.schema(list(zip(names, types, strict=True)))
            yield pa.RecordBatch.from_pylist([], schema=schema)
            while rows := cursor.fetchmany(BATCH_ROWS):
                columns = zip(zip(*rows, strict=True), types, strict=True)
                arrays = [pa.array(list(map(_maker_of(kind), values)), kind) for values, kind in columns]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _maker_of(kind: pa.DataType) -> Any:
    """What makes a value of a type out of what a driver returned."""
    if pa.types.is_binary(kind):
        return lambda value: value if value is None or isinstance(value, bytes) else str(value).encode()
    if pa.types.is_integer(kind):
        return lambda value: int.from_bytes(value, "big") if isinstance(value, bytes) else value
    if not pa.types.is_string(kind):
        return lambda value: value
    return _text_of


def _text_of(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
