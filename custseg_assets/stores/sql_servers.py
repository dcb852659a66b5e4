"""Database servers: PostgreSQL, MySQL and Snowflake, each by its driver. What is asked of them is in ``sql_source``."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa

from custseg_assets.errors import BadInputError
from custseg_assets.stores.sql_addresses import SqlAddress
from custseg_assets.stores.sql_databases import RowDatabase, SqlDatabase

_PREFIX = re.compile(
    r"^(?:[A-Z_]+: )?(?:\[libpq\] )?(?:Failed to connect: |PQ\w+\(\) failed: |Execution error \[\w+\]: )?"
)
"""What the driver says before what the server or its library said."""


class _AdbcDatabase(SqlDatabase):
    """A database with a driver of Arrow Database Connectivity."""

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        # After the first batch it is Arrow that finds out.
        return (self._driver.Error, pa.ArrowException, OSError)

    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            # The driver allocates what it returns, so a batch that was read is free.
            yield from map(_stored, cursor.fetch_record_batch())

    def _is_lost(self, error: Exception) -> bool:
        if not isinstance(error, self._driver.Error):
            return isinstance(error, OSError) and "ERROR: " not in str(error)
        state = getattr(error, "sqlstate", None) or ""
        return state[:2] in {"08", "53", "57"} or (not state and getattr(error, "status_code", None) in self._lost)

    @property
    def _lost(self) -> tuple[Any, ...]:
        status = importlib.import_module("adbc_driver_manager").AdbcStatusCode
        return status.IO, status.CANCELLED, status.TIMEOUT


def _stored(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch without what only says how a type is called in the database."""
    arrays = [array.storage if isinstance(array, pa.ExtensionArray) else array for array in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


class Postgres(_AdbcDatabase):
    """PostgreSQL, by COPY in binary through libpq."""

    driver = "adbc_driver_postgresql.dbapi"
    own_passwords = ", PGPASSWORD or ~/.pgpass"
    _plain = frozenset({"int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "name", "bool"})

    def _connect(self) -> Any:
        address = self.address
        own = {
            "host": address.host,
            "port": address.port and str(address.port),
            "user": address.user,
            "password": self._password,
        }
        options = {"application_name": "custseg", "connect_timeout": "15"} | dict(address.options)
        options |= {name: value for name, value in own.items() if value}
        uri = f"postgresql:///{quote(address.database, safe='')}?{urlencode(options, quote_via=quote)}"
        connection = self._driver.connect(uri)
        with connection.cursor() as cursor:
            # One moment for everything that is read, also for counting what was there before.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        self._types: dict[str, str] = {}
        return connection

    def header_of(self, relation: str) -> tuple[str, ...]:
        """Names of the columns, whose types are kept."""
        with self.explained("query"), self._connection.cursor() as cursor:
            schema = cursor.adbc_execute_schema(f"SELECT * FROM {relation}")  # noqa: S608
        self._types = {field.name: (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode() for field in schema}
        return tuple(schema.names)

    def expression(self, header: str, *, is_number: bool) -> str:
        """A column without loss."""
        column, kind = self.column(header), self._types[header]
        if kind in {"numeric", "money"}:
            # The driver hands money over in cents.
            exact = column if kind == "numeric" else f"{column}::numeric"
            return f"{exact}::float8" if is_number else f"trim_scale({exact})::text"
        if kind in {"date", "timestamp", "timestamptz"}:
            # The driver hands infinity over as some other instant.
            first, last = "'0001-01-01'", "'9999-12-31'"
            return f"CASE WHEN {column} > {last} THEN {last} WHEN {column} < {first} THEN {first} ELSE {column} END"
        # Arrays have a name that begins so; they are refused with their type.
        return column if kind in self._plain or kind.startswith("_") else f"{column}::text"

    def _message_of(self, error: Exception) -> str:
        details = dict(getattr(error, "details", None) or ())
        if primary := details.get("PG_DIAG_MESSAGE_PRIMARY") or details.get(b"PG_DIAG_MESSAGE_PRIMARY"):
            return primary.decode(errors="replace") if isinstance(primary, bytes) else str(primary)
        return _PREFIX.sub("", str(error).partition("Query was:")[0])


class Snowflake(_AdbcDatabase):
    """Snowflake."""

    driver = "adbc_driver_snowflake.dbapi"
    _options: Mapping[str, str] = {
        "warehouse": "adbc.snowflake.sql.warehouse",
        "role": "adbc.snowflake.sql.role",
        "authenticator": "adbc.snowflake.sql.auth_type",
    }

    def _connect(self) -> Any:
        address = self.address
        database, _, schema = address.database.partition("/")
        _refuse_options(address, self._options)
        options = {
            "username": address.user,
            "password": self._password,
            "adbc.snowflake.sql.account": address.host,
            "adbc.snowflake.sql.db": database,
            "adbc.snowflake.sql.schema": schema,
            "adbc.snowflake.sql.client_option.use_high_precision": "true",
            "adbc.snowflake.sql.client_option.disable_telemetry": "true",
            # Otherwise it tries for minutes to reach an account that is not there.
            "adbc.snowflake.sql.client_option.login_timeout": "15s",
            **{self._options[name]: value for name, value in address.options.items()},
        }
        return self._driver.connect(db_kwargs={name: value for name, value in options.items() if value})

    def header_of(self, relation: str) -> tuple[str, ...]:
        """Names of the columns, whose types are kept."""
        with self.explained("query"), self._connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {relation} LIMIT 0")  # noqa: S608
            return tuple(cursor.fetch_record_batch().schema.names)

    def relation(self, table: str | None, query: str | None) -> str:
        """A table or a query after ``FROM``."""
        # A name that was made without quotes is in capitals.
        is_lower = table is not None and table == table.lower()
        return super().relation(table.upper() if table and is_lower else table, query)


class MySql(RowDatabase):
    """MySQL or MariaDB."""

    driver = "pymysql"
    quote_mark = "`"
    _options = ("charset", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket")

    def _connect(self) -> Any:
        address = self.address
        _refuse_options(address, self._options)
        types = self._driver.constants.FIELD_TYPE
        self._decimals = (types.DECIMAL, types.NEWDECIMAL, types.LONGLONG)
        self._whole = (types.TINY, types.SHORT, types.LONG, types.INT24, types.YEAR, types.BIT)
        self._floats = (types.FLOAT, types.DOUBLE)
        self._zoned_type, self._zoned = types.TIMESTAMP, frozenset[str]()
        cursors = importlib.import_module("pymysql.cursors")
        connection = self._driver.connect(
            host=address.host or "localhost",
            port=address.port or 3306,
            user=address.user or None,
            password=self._password,
            database=address.database or None,
            cursorclass=cursors.SSCursor,
            connect_timeout=15,
            # Dates stay text: one such as 0000-00-00 has no other form.
            conv={
                **self._driver.converters.encoders,
                **dict.fromkeys(self._decimals, Decimal),
                **dict.fromkeys(set(self._whole) - {types.BIT}, int),
                **dict.fromkeys(self._floats, float),
            },
            **address.options,
        )
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return connection

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        return (self._driver.Error, OSError)

    def _types_of(self, sql: str, description: Sequence[Sequence[Any]]) -> list[pa.DataType]:
        del sql
        return [self._type_of(column[1], column[5] or 0) for column in description]

    def _type_of(self, code: int, scale: int) -> pa.DataType:
        if code in self._decimals:
            return pa.decimal128(38, scale)
        if code in self._whole:
            return pa.int64()
        return pa.float64() if code in self._floats else pa.string()

    def header_of(self, relation: str) -> tuple[str, ...]:
        """Names of the columns, whose types are kept."""
        with self.explained("query"), contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(f"SELECT * FROM {relation} LIMIT 0")  # noqa: S608
            self._zoned = frozenset(column[0] for column in cursor.description if column[1] == self._zoned_type)
            return tuple(column[0] for column in cursor.description)

    def expression(self, header: str, *, is_number: bool) -> str:
        """A column without loss."""
        column = super().expression(header, is_number=is_number)
        # The one type that is an instant of the world; in this session they are shown in UTC.
        return f"CONCAT({column}, '+00:00')" if header in self._zoned else column

    def cursor_expression(self, header: str) -> str:
        """An instant as this session shows it: not every server takes an offset."""
        return self.column(header)

    def literal(self, value: str, *, is_number: bool) -> str:
        """A value; a backslash is an escape there."""
        return super().literal(value.replace("\\", "\\\\"), is_number=is_number)

    def _message_of(self, error: Exception) -> str:
        return str(error.args[-1]) if error.args else str(error)

    def _is_lost(self, error: Exception) -> bool:
        return isinstance(error, OSError) or (bool(error.args) and error.args[0] in {0, 1053, 2006, 2013, 2055})


def _refuse_options(address: SqlAddress, accepted: Sequence[str] | Mapping[str, str]) -> None:
    if unknown := [name for name in address.options if name not in accepted]:
        raise BadInputError(
            f"{address.place} with {unknown[0]!r}", f"one of {', '.join(accepted)}", "Correct [source] path."
        )
