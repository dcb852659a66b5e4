"""A table or query of a database as a source: read whole, or what is new since the last run, into the store.

With a cursor column, each run adds a delivery with the rows that are new: those from the last value on, without those
of that value that are known. Before that it counts the rows below that value; where they are others than were taken in,
rows were changed or removed or came late, and the table is read whole. Connections are in ``sql_databases``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.settings import Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.choice import ChosenTable
from custseg_assets.stores.deliveries import DeliveryStore, identity_of
from custseg_assets.stores.delivery import Delivery
from custseg_assets.stores.sources import Progress, digest_of, read_chosen
from custseg_assets.stores.sql_addresses import parse_address
from custseg_assets.stores.sql_databases import SqlDatabase
from custseg_assets.stores.sql_files import DuckDb, Sqlite
from custseg_assets.stores.sql_rows import (
    CURSOR,
    add_overlooked,
    download,
    query_for,
    raw_table,
    select_columns,
    text_of_decimal,
    within_calendar,
)
from custseg_assets.stores.sql_servers import MySql, Postgres, Snowflake

_READER = 1
"""Version of this reader; another version reads every table anew."""

_N_SHOWN = 12
DATABASES: Mapping[str, type[SqlDatabase]] = {
    "postgresql": Postgres,
    "mysql": MySql,
    "snowflake": Snowflake,
    "duckdb": DuckDb,
    "sqlite": Sqlite,
}


def accept_table(deliveries: DeliveryStore, source: str, settings: Settings, progress: Progress) -> list[Delivery]:
    """Read a table or query into the store of deliveries, or only what is new in it.

    Args:
        deliveries: the store.
        source: address of the database.
        settings: which table or query, how it is read, and the password.
        progress: takes lines about the mapping and what is new.

    Returns:
        What the source now consists of.

    Raises:
        BadInputError: it cannot be read.
    """
    address = parse_address(source)
    password = settings.source_password.get_secret_value() if settings.source_password else ""
    with contextlib.closing(DATABASES[address.scheme](address, password)) as database:
        reader = _Reader(deliveries, database, settings.source, progress)
        return reader.read_whole() if settings.source.cursor is None else reader.read_new()


@dataclass(frozen=True)
class _Position:
    """How far the increments go that were taken in.

    Attributes:
        value: the last value of the cursor, as text.
        is_number: whether it stands in SQL without quotes.
        ties: digests of the rows with that value.
        n_rows: rows that were taken in altogether.
        number: of increments.
    """

    value: str
    is_number: bool
    ties: tuple[str, ...]
    n_rows: int
    number: int


_START = _Position("", False, (), 0, 0)


class _Reader:
    """Reads one table or query."""

    def __init__(
        self, deliveries: DeliveryStore, database: SqlDatabase, settings: SourceSettings, progress: Progress
    ) -> None:
        self._deliveries, self._database, self._settings, self._say = deliveries, database, settings, progress
        relation = _relation_of(database, settings)
        self._name = settings.table or f"query on {database.address.label}"
        self._where = f"{database.address.place}, {self._name}"
        header = database.header_of(relation)
        self._selection = select_columns(header, relation, settings, self._where, settings.cursor)
        self._refuse_absent_cursor(header)
        parts = [_READER, database.address.place, identity_of(settings), query_for(database, self._selection)]
        self._reading = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        with deliveries.scratch_folder() as scratch:
            self._selection = add_overlooked(database, self._selection, settings, scratch)

    def _refuse_absent_cursor(self, header: Sequence[str]) -> None:
        cursor = self._settings.cursor
        if cursor is not None and cursor not in header:
            raise BadInputError(
                f"{self._where} has no column {cursor!r}, which [source] cursor names",
                f"one of {', '.join(map(repr, header[:_N_SHOWN]))}",
                "Correct [source] cursor, or leave it out to read all rows every time.",
            )

    def read_whole(self) -> list[Delivery]:
        """Read all rows; equal rows are the delivery that is there already."""
        with self._deliveries.scratch_folder() as scratch:
            path = scratch / "rows.parquet"
            n_rows = download(self._database.read(query_for(self._database, self._selection)), path)
            if not n_rows:
                raise BadInputError(f"{self._where} has no rows", "data rows", "Correct [source] table or query.")
            cursor = None
            if self._settings.cursor is not None:
                cursor = self._cursor_after(_START, _Rows(path), n_rows)
            return [self._accept(path, self._name, cursor)]

    def read_new(self) -> list[Delivery]:
        """Read the rows that are new since the last time, or all where there was none or older rows changed."""
        known = self._known()
        if not known:
            return self.read_whole()
        position = _position_of(known)
        since = self._database.literal(position.value, is_number=position.is_number)
        n_below = self._count_below(since)
        with self._deliveries.scratch_folder() as scratch:
            path = scratch / "since.parquet"
            n_read = download(self._database.read(query_for(self._database, self._selection, since)), path)
            at_last = _Rows(path).digests_at(position.value) if n_read else {}
            repeated = _known_rows(at_last, position.ties)
            if repeated is not None and n_below == position.n_rows - len(position.ties):
                return [*known, *self._accept_new(position, path, repeated, n_read - len(repeated))]
        self._say(
            f"{self._where}: the rows up to {self._settings.cursor} {position.value} are not those that were taken in: "
            "some were changed or removed, or came late; reading all rows"
        )
        return self.read_whole()

    def _accept_new(self, position: _Position, path: Path, repeated: frozenset[int], n_new: int) -> list[Delivery]:
        """Take in what was read from the last value on, but for the rows that are known."""
        self._say(f"{self._where}: {n_new:,} new rows from {self._settings.cursor} {position.value} on")
        if not n_new:
            return []
        rows, new = _Rows(path), path.with_name("new.parquet")
        rows.write_without(repeated, new)
        dates = [str(self._selection.header.index(name)) for name in self._selection.mapping.headers["invoiced_at"]]
        has_date = pl.any_horizontal(pl.col(dates).is_not_null()).any()
        if not pl.scan_parquet(new, glob=False).select(has_date).collect().item():
            self._say(f"{self._where}: none of them has a date yet, so they wait for the next run")
            return []
        cursor = self._cursor_after(position, rows, n_new)
        return [self._accept(new, f"{self._name} from {position.value}", cursor)]

    def _accept(self, path: Path, name: str, cursor: Mapping[str, Any] | None) -> Delivery:
        digest, _ = digest_of(path)
        settings, mapping = self._settings, self._selection.mapping
        table = ChosenTable("", self._where, raw_table(path, self._selection), mapping)
        source = read_chosen([table], name, settings, self._say, path.parent)
        identity = json.dumps([self._reading, digest, cursor], sort_keys=True)
        return self._deliveries.accept_read(identity, source, cursor)

    def _known(self) -> list[Delivery]:
        """The increments of this very reading that the home's source consists of, in their order."""
        current = self._deliveries.current()
        cursors = [(one, one.cursor) for one in (current.source if current else ()) if one.cursor is not None]
        found = {cursor["number"]: one for one, cursor in cursors if cursor["reading"] == self._reading}
        return [found[number] for number in sorted(found)]

    def _count_below(self, since: str) -> int:
        """Number of rows before a value of the cursor; those without one were read with the first."""
        column = self._database.column(self._settings.cursor or "")
        (row,) = self._database.rows(
            f"SELECT count(*) AS {self._database.quote('0')} FROM {self._selection.relation} "  # noqa: S608
            f"WHERE {column} < {since} OR {column} IS NULL"
        )
        return int(row["0"])

    def _cursor_after(self, before: _Position, rows: _Rows, n_new: int) -> dict[str, Any]:
        """How to go on after rows.

        Args:
            before: how far it went before.
            rows: all from the last value on.
            n_new: how many of them are new.
        """
        what = f"{self._where} has {self._settings.cursor!r}, which [source] cursor names,"
        todo = "Name another column, or leave it out to read all rows every time."
        if not rows.has_order:
            raise BadInputError(f"{what} as {rows.dtype}", "whole numbers, dates, instants or text", todo)
        value = rows.last_value()
        if value is None:
            raise BadInputError(f"{what} empty in every row", "values that grow", todo)
        return {
            "reading": self._reading,
            "number": before.number + 1,
            "value": value,
            "is_number": rows.is_number,
            "ties": sorted(rows.digests_at(value).values()),
            "n_rows": n_new,
        }


class _Rows:
    """Downloaded rows with their cursor.

    Args:
        path: the Parquet file.
    """

    def __init__(self, path: Path) -> None:
        self._rows = pl.scan_parquet(path, glob=False).with_row_index("n")
        self._schema = self._rows.collect_schema()
        self.dtype = self._schema[CURSOR]

    @property
    def is_number(self) -> bool:
        """Whether the cursor stands in SQL without quotes."""
        return self.dtype.is_integer() or self.dtype.is_decimal()

    @property
    def has_order(self) -> bool:
        """Whether values of this type are exact."""
        return self.is_number or isinstance(self.dtype, pl.String | pl.Date | pl.Datetime)

    def last_value(self) -> str | None:
        """The last value of the cursor in the database's own order, as text that says it in full."""
        values = self._with_texts().filter(pl.col(CURSOR).is_not_null()).select(CURSOR).last().collect()
        return values.item() if values.height else None

    def digests_at(self, value: str) -> dict[int, str]:
        """Number → digest of the rows with that value of the cursor."""
        found = self._with_texts().filter(pl.col(CURSOR) == value).collect(engine="streaming")
        return {number: _digest_of(row) for number, *row in found.iter_rows()}

    def write_without(self, numbers: frozenset[int], path: Path) -> None:
        """Write the rows that do not have those numbers to another file."""
        self._rows.filter(~pl.col("n").is_in(sorted(numbers))).drop("n").sink_parquet(path, maintain_order=True)

    def _with_texts(self) -> pl.LazyFrame:
        rows = self._rows.with_columns(within_calendar(pl.col(name), dtype) for name, dtype in self._schema.items())
        values = pl.col(CURSOR)
        if isinstance(self.dtype, pl.Datetime):
            in_utc = values.dt.convert_time_zone("UTC") if self.dtype.time_zone else values
            text = in_utc.dt.to_string(f"%Y-%m-%d %H:%M:%S%.{9 if self.dtype.time_unit == 'ns' else 6}f")
            text = pl.concat_str(text, pl.lit("+00:00" if self.dtype.time_zone else ""))
        else:
            text = text_of_decimal(values) if self.dtype.is_decimal() else values.cast(pl.String)
        return rows.with_columns(text.alias(CURSOR))


def _digest_of(row: Sequence[Any]) -> str:
    # SQLite's 1 and 1.0 in one column become floats only where both are there.
    texts = [str(int(value) if isinstance(value, float) and value.is_integer() else value) for value in row]
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


def _relation_of(database: SqlDatabase, settings: SourceSettings) -> str:
    if (settings.table is None) == (settings.query is None):
        found = "a table and a query" if settings.table else "neither table nor query"
        raise BadInputError(
            f"source {database.address.place} with {found}",
            f"one of them under [source]; its tables are {', '.join(database.tables()[:_N_SHOWN]) or 'none'}",
            'Write table = "…" or query = "select …" there.',
        )
    return database.relation(settings.table, settings.query)


def _position_of(known: Sequence[Delivery]) -> _Position:
    cursors = [one.cursor for one in known if one.cursor is not None]
    last = cursors[-1]
    n_rows = sum(cursor["n_rows"] for cursor in cursors)
    return _Position(last["value"], last["is_number"], tuple(last["ties"]), n_rows, last["number"])


def _known_rows(at_last: Mapping[int, str], ties: Sequence[str]) -> frozenset[int] | None:
    """Which rows with the last value were taken in before; ``None`` where one of those is not there any more."""
    left = Counter(ties)
    known = set()
    for number, digest in at_last.items():
        if left[digest]:
            left[digest] -= 1
            known.add(number)
    return None if left.total() else frozenset(known)
