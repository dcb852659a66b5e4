"""Databases of every kind that a test can write to, and what a source in one was read as."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from custseg_assets.home.intake import take_in_source
from custseg_assets.settings import Settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource, Delivery
from tests.support.mariadb import MariaDb
from tests.support.postgres import PASSWORD, Postgres

LINES = (
    "customer_id VARCHAR(20), invoiced_at {instant}, quantity INTEGER, unit_price NUMERIC(10, 3), "
    "invoice_id VARCHAR(20), id INTEGER, note VARCHAR(20), ratio FLOAT"
)


@dataclass(frozen=True)
class Database:
    """A database that a test can write to.

    Attributes:
        kind: scheme of its address.
        address: as ``[source] path``.
        do: runs statements.
        instant: what instants are there.
    """

    kind: str
    address: str
    do: Callable[..., None]
    instant: str = "TIMESTAMP"

    def make_table(self, name: str = "orders") -> None:
        """Make an empty table of lines."""
        self.do(f"DROP TABLE IF EXISTS {name}", f"CREATE TABLE {name} ({LINES.format(instant=self.instant)})")

    def insert(self, *rows: tuple[Any, ...], table: str = "orders") -> None:
        """Add lines: customer, instant, quantity, price, invoice, id."""
        for row in rows:
            values = ", ".join("NULL" if value is None else repr(value) for value in row)
            self.do(f"INSERT INTO {table} VALUES ({values}, 'ignored', 0.5)")  # noqa: S608


def duckdb_in(folder: Path) -> Database:
    """A DuckDB file."""
    path = folder / "shop.duckdb"

    def do(*statements: str) -> None:
        with duckdb.connect(str(path)) as connection:
            for statement in statements:
                connection.execute(statement)

    return Database("duckdb", f"duckdb://{path}", do)


def sqlite_in(folder: Path) -> Database:
    """An SQLite file."""
    path = folder / "shop.sqlite"

    def do(*statements: str) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return Database("sqlite", f"sqlite://{path}", do, "TEXT")


def postgres_on(server: Postgres) -> Database:
    """The database of a PostgreSQL server."""
    return Database("postgresql", server.address, server.do)


def mysql_on(server: MariaDb) -> Database:
    """The database of a MariaDB server."""
    return Database("mysql", server.address, server.do, "DATETIME")


@dataclass
class SourceReader:
    """Reads a source again and again into one store, as runs do.

    Attributes:
        root: of the store.
        said: the lines of progress of the last time.
    """

    root: Path
    said: list[str] = field(default_factory=list)

    def read(self, database: Database, **source: Any) -> tuple[Delivery, ...]:
        """Read what a database has; returns what the source, the store's current one, consists of then."""
        return self._read(database.address, settings_for(database, **source))

    def read_file(self, path: Path, **source: Any) -> tuple[Delivery, ...]:
        """Read a file or folder in the same way."""
        return self._read(str(path), Settings.model_validate({"source": {"path": str(path), **source}}))

    def _read(self, path: str, settings: Settings) -> tuple[Delivery, ...]:
        self.said.clear()
        deliveries = DeliveryStore(self.root)
        with deliveries.unchanged_if_refused():
            accepted = take_in_source(deliveries, path, settings, self.said.append)
        current = (deliveries.current() or CurrentSource()).with_source(accepted, path)
        deliveries.set_current(current)
        return current.deliveries

    def lines(self) -> pl.DataFrame:
        """The lines that a pipeline reads now."""
        deliveries = DeliveryStore(self.root)
        current = deliveries.current()
        assert current is not None
        return deliveries.scan(current.deliveries).collect()


def settings_for(database: Database, **source: Any) -> Settings:
    """Settings for a source in a database; the table is ``orders`` unless something else is named."""
    if "query" not in source:
        source.setdefault("table", "orders")
    return Settings.model_validate({"source": {"path": database.address, **source}, "source_password": PASSWORD})
