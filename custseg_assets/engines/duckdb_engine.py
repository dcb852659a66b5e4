"""DuckDB on this machine: what does not fit into its memory limit goes to the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals as nw
import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS, Table
from custseg_assets.domain.transactions import cleaning
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.domain.transactions.cleaning import LINE, CleaningRules, Lines
from custseg_assets.engines.engine import ClassifiedLines, MeasuredCustomers
from custseg_assets.errors import RunFailedError
from custseg_assets.stores.staged import StagedRows, key_batches
from custseg_assets.stores.table_files import TableFiles

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "2GB"
"""Without one DuckDB would take four fifths of the machine's memory."""
_DATABASE = "work.duckdb"
_TYPES = {pl.String(): "VARCHAR", pl.Float64(): "DOUBLE", pl.Int64(): "BIGINT", pl.Datetime("us"): "TIMESTAMP"}


class DuckDBEngine:
    """DuckDB with a database of its own for what it groups.

    Args:
        connection: of a database of its own.
        memory_limit: that it was opened with, for messages.
    """

    name = "duckdb"

    def __init__(self, connection: DuckDBPyConnection, memory_limit: str) -> None:
        self._connection, self._memory_limit = connection, memory_limit

    @classmethod
    @contextlib.contextmanager
    def opened(cls, scratch: Path, memory_limit: str | None = None) -> Iterator[DuckDBEngine]:
        """Open it; at the end its database is closed.

        Args:
            scratch: an empty folder for the database and for what does not fit into memory.
            memory_limit: as DuckDB takes it.

        Raises:
            RunFailedError: not even an empty database fits into the limit.
        """
        import duckdb

        limit = memory_limit or MEMORY_LIMIT
        with _explained(limit):
            connection = duckdb.connect(
                str(scratch / _DATABASE),
                config={
                    "memory_limit": limit,
                    "temp_directory": str(scratch / "spilled"),
                    # Nothing is fetched from anywhere.
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )
        with contextlib.closing(connection):
            yield cls(connection, limit)

    def classify(self, raw: TableFiles, rules: CleaningRules, staging: Path) -> Iterator[ClassifiedLines]:
        """See ``Engine``."""
        for number, keys in enumerate(key_batches(raw.sizes)):
            clean, rejected = (
                StagedRows(table, staging / f"{number:06}" / table.name)
                for table in (CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS)
            )
            for key in keys:
                # Equal lines have the same instant, so a period's repeat no others'.
                with _explained(self._memory_limit):
                    self._classify_period(raw.of([key]), rules, clean, rejected)
            yield ClassifiedLines(keys, clean, rejected)

    def _classify_period(self, raw: TableFiles, rules: CleaningRules, clean: StagedRows, rejected: StagedRows) -> None:
        lines = self.scan(raw)
        repeats = self._keep("repeats", cleaning.find_repeats(lines, rules))
        classified = cleaning.classify(lines, rules, repeats)
        (key,) = raw.sizes
        self._copy(cleaning.clean_lines(classified, rules, also=LINE), clean, key)
        self._copy(cleaning.rejected_lines(classified), rejected, key)

    def measure(self, clean: TableFiles, windows: Sequence[Window]) -> Iterator[MeasuredCustomers]:
        """See ``Engine``; what closed windows count is grouped once for all of them."""
        closed = [window for window in windows if not window.is_open]
        with _explained(self._memory_limit):
            if closed:
                parts = self._group(self.scan(clean.of({key for window in closed for key in window.keys})))
                for window in closed:
                    yield self._measure(*parts, window)
            for window in windows:
                if window.is_open:
                    lines = rfm.lines_within(self.scan(clean.of(window.keys)), window)
                    yield self._measure(*self._group(lines), window)

    def _measure(self, parts: Lines, products: Lines, window: Window) -> MeasuredCustomers:
        totals = self.collect(rfm.customer_totals(parts, products, window))
        spend = self.collect(rfm.spend_by_period(parts, window))
        return MeasuredCustomers(window, totals.select(*rfm.TOTALS).cast(rfm.TOTALS), spend.cast(rfm.SPEND))

    def _group(self, lines: Lines) -> tuple[Lines, Lines]:
        return self._keep("parts", rfm.order_parts(lines)), self._keep("products", rfm.bought_products(lines))

    def scan(self, files: TableFiles) -> Lines:
        """See ``Engine``."""
        whole: Any = None
        for key in files.sizes:
            # A name with such a sign in it would be taken for a pattern.
            paths = [_as_pattern(file.path) for file in files.of([key]).files]
            rows = self._connection.read_parquet(paths, hive_partitioning=False, union_by_name=True)
            part = rows.project(", ".join(_column(name, files, key) for name in files.table.schema))
            whole = part if whole is None else whole.union(part)
        if whole is None:
            columns = ", ".join(_column(name, files, "") for name in files.table.schema)
            whole = self._connection.sql(f"SELECT {columns} LIMIT 0")
        return nw.from_native(whole)

    def collect(self, lines: Lines) -> pl.DataFrame:
        """See ``Engine``."""
        frame: pl.DataFrame = lines.collect("polars").to_native()
        # Sums of whole numbers come as HUGEINT.
        return frame.cast({pl.Decimal(38, 0): pl.Int64})

    def _keep(self, name: str, lines: Lines) -> Lines:
        """Work something out once, into a table of the engine's own database."""
        self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS {lines.to_native().sql_query()}")
        return nw.from_native(self._connection.table(name))

    def _copy(self, lines: Lines, rows: StagedRows, key: str) -> None:
        """Write the lines of a period into a file, in their order."""
        path = rows.folder / f"period={key}" / "part-000000.parquet"
        path.parent.mkdir(parents=True)
        names = ", ".join(f'"{name}"' for name in rows.table.schema if name != "period")
        # Names are the tables' own, and the path is a parameter.
        self._connection.execute(
            f"COPY (SELECT {names} FROM ({lines.to_native().sql_query()}) ORDER BY {', '.join(LINE)}) TO ? "  # noqa: S608
            "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)",
            [str(path)],
        )


def _column(name: str, files: TableFiles, key: str) -> str:
    if name == "period":
        return f"'{key}' AS period"
    return f'"{name}"' if name in files.stored and files.files else f'NULL::{_type(files.table, name)} AS "{name}"'


def _type(table: Table, name: str) -> str:
    return _TYPES.get(table[name].dtype, "BOOLEAN")


def _as_pattern(path: str) -> str:
    """The pattern that only this path fits."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in path)


@contextlib.contextmanager
def _explained(memory_limit: str) -> Iterator[None]:
    """Say in words that help what DuckDB lacks.

    Raises:
        RunFailedError: memory, or room on the disk.
    """
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise RunFailedError(
            f"DuckDB ran out of memory with [engine] memory_limit = {memory_limit!r} "
            f"({str(error).splitlines()[0]}); expected a limit that the largest period fits into",
            todo="Raise [engine] memory_limit, or make room on the home's disk. Nothing is lost.",
        ) from None
