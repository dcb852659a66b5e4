"""Rows of a table or query: only the columns that are used, in one order, as a raw table on disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping, map_columns
from custseg_assets.stores.headers import Header
from custseg_assets.stores.overlooked import SAMPLE_ROWS, find_overlooked
from custseg_assets.stores.raw_table import SOURCE_ROW, RawTable
from custseg_assets.stores.sql_databases import SqlDatabase
from custseg_assets.stores.values import NUMBERS

CURSOR = "cursor"
_LARGE = 1 << 20
"""Number of rows above which they are not kept in memory; their size on disk says little, being compressed."""


@dataclass(frozen=True)
class Selection:
    """What is asked of a table or query.

    Attributes:
        header: the columns that are read.
        mapping: which of them are mapped.
        numbers: those that are calculated with.
        cursor: the column that only grows, if any.
        relation: the table or query, as it stands after ``FROM``.
    """

    header: tuple[str, ...]
    mapping: ColumnMapping
    numbers: frozenset[str]
    cursor: str | None
    relation: str


def select_columns(
    header: tuple[str, ...], relation: str, settings: SourceSettings, where: str, cursor: str | None = None
) -> Selection:
    """Find the columns to read: those that are mapped or that filters and keys need.

    Raises:
        BadInputError: a required column is missing.
    """
    mapping = map_columns(header, settings, where)
    wanted = {name for headers in mapping.sources.values() for name in headers}
    numbers = frozenset(name for column in NUMBERS for name in mapping.headers.get(column, ()))
    return Selection(tuple(name for name in header if name in wanted), mapping, numbers, cursor, relation)


def add_overlooked(database: SqlDatabase, selection: Selection, settings: SourceSettings, scratch: Path) -> Selection:
    """Add the columns that may say that a line is no sale; the first rows of the others tell which those are."""
    others = tuple(name for name in selection.mapping.ignored if name not in settings.ignored_columns)
    if selection.mapping.preset or not others:
        return selection
    all_columns = replace(selection, header=others, cursor=None)
    path = scratch / "sample.parquet"
    if not download(database.read(query_for(database, all_columns, n_rows=SAMPLE_ROWS)), path):
        return selection
    found = find_overlooked([(raw_table(path, all_columns), selection.mapping)], settings)
    return replace(selection, header=(*selection.header, *dict.fromkeys(column.header for column in found)))


def query_for(database: SqlDatabase, selection: Selection, since: str = "", n_rows: int | None = None) -> str:
    """The SQL query for the rows, in an order that does not depend on how the database stores them.

    Args:
        database: that is asked.
        selection: what it is asked for.
        since: value of the cursor that the rows begin at, as SQL; all rows without it.
        n_rows: how many rows are enough, in no order; all without it.
    """
    columns = [
        f"{database.expression(name, is_number=name in selection.numbers)} AS {database.quote(str(position))}"
        for position, name in enumerate(selection.header)
    ]
    order = [str(position + 1) for position in range(len(columns))]
    condition = ""
    if selection.cursor is not None:
        column = database.column(selection.cursor)
        columns.append(f"{database.cursor_expression(selection.cursor)} AS {database.quote(CURSOR)}")
        # Its own order: that of its text may be another.
        order.insert(0, column)
        condition = f" WHERE {column} >= {since}" if since else ""
    end = f" LIMIT {n_rows}" if n_rows else f" ORDER BY {', '.join(order)}"
    return f"SELECT {', '.join(columns)} FROM {selection.relation}{condition}{end}"  # noqa: S608


def download(batches: Iterator[pa.RecordBatch], path: Path) -> int:
    """Write batches to a Parquet file, one at a time; returns the number of rows.

    The same rows in the same order make the same bytes.
    """
    n_rows = 0
    first = next(batches, None)
    if first is None:
        return 0
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for batch in itertools.chain([first], batches):
            writer.write_batch(batch)
            n_rows += batch.num_rows
    return n_rows


def raw_table(path: Path, selection: Selection) -> RawTable:
    """Downloaded rows as a raw table, whose decimals and floats have lost nothing.

    Args:
        path: the Parquet file.
        selection: what was asked for.
    """
    rows = pl.scan_parquet(path, glob=False)
    schema = rows.collect_schema()
    plain = [
        _plain(str(position), schema[str(position)], is_number=name in selection.numbers)
        for position, name in enumerate(selection.header)
    ]
    lines = rows.select(plain).with_row_index(SOURCE_ROW, 1)
    return RawTable(Header(selection.header), lines, is_large=pq.read_metadata(path).num_rows > _LARGE)


def _plain(name: str, dtype: pl.DataType, *, is_number: bool) -> pl.Expr:
    values = pl.col(name)
    if dtype.is_decimal():
        return values.cast(pl.Float64) if is_number else text_of_decimal(values)
    if dtype == pl.Float32:
        # As it is written: 1.1, not 1.10000002384.
        return values.cast(pl.String).cast(pl.Float64)
    if dtype in (pl.Categorical, pl.Enum, pl.Time):
        return values.cast(pl.String)
    return within_calendar(values, dtype)


def within_calendar(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Dates and instants with ``infinity``, and others beyond what a calendar can write, as the last day of 9999."""
    if not isinstance(dtype, pl.Date | pl.Datetime) or getattr(dtype, "time_unit", "") == "ns":
        return values
    first, last = (pl.lit(day).cast(pl.Date).cast(dtype) for day in (date(1, 1, 1), date(9999, 12, 31)))
    return values.clip(first, last)


def text_of_decimal(values: pl.Expr) -> pl.Expr:
    """Decimals as text without zeros at the end: ``17850``, not ``17850.00``."""
    text = values.cast(pl.String)
    return (
        pl.when(text.str.contains(".", literal=True))
        .then(text.str.strip_chars_end("0").str.strip_chars_end("."))
        .otherwise(text)
    )
