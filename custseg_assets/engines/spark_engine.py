"""Spark: on this machine, on a cluster, or behind Spark Connect.

Spark reads the parquet files of a table's version by name and never Delta's log. Results as small as the customers are
collected. Lines are written by the executors into the staging folder, where they and this process see the same files;
``stores.tables`` commits those as they are.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import narwhals as nw
import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS
from custseg_assets.domain.transactions import cleaning
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.domain.transactions.cleaning import LINE, CleaningRules, Lines
from custseg_assets.engines.engine import ClassifiedLines, MeasuredCustomers
from custseg_assets.engines.spark_session import is_sail, open_session
from custseg_assets.errors import RunFailedError
from custseg_assets.settings import EngineSettings
from custseg_assets.stores.staged import StagedRows, StagedWriter
from custseg_assets.stores.table_files import TableFiles

T = TypeVar("T")
_TYPES = {
    pl.String(): "string",
    pl.Float64(): "double",
    pl.Int64(): "bigint",
    pl.Boolean(): "boolean",
    pl.Datetime("us"): "timestamp_ntz",
}
_ROWS_PER_FILE = 1 << 20
_ROWS_OF_A_PARTITION = 500_000
_LONGEST_REASON = 300


class SparkEngine:
    """The engine for logs that no single machine takes.

    Args:
        session: of Spark, classic or Connect; see ``spark_session``.
        is_local: whether tables and staging are in folders, which executors are to see, too.
    """

    name = "spark"

    def __init__(self, session: Any, *, is_local: bool = True) -> None:
        self._session, self._is_local = session, is_local
        self._is_sail = is_sail(session)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, settings: EngineSettings, *, is_local: bool = True) -> Iterator[SparkEngine]:
        """The engine with a session of its own, which ends with the block.

        Raises:
            BadInputError: Spark cannot be reached or used.
        """
        with open_session(settings) as session:
            yield cls(session, is_local=is_local)

    def classify(self, raw: TableFiles, rules: CleaningRules, staging: Path) -> Iterator[ClassifiedLines]:
        """See ``Engine``; all periods at once, and each file of the result has rows of one period."""
        if not raw.files:
            return
        self.set_partitions(raw.n_rows)
        with self.classified(raw, rules) as (clean, rejected):
            # Sail writes rows in no order.
            is_shared = self._is_local and not self._is_sail
            stage = self._stage if is_shared else partial(self._stage_here, keys=list(raw.sizes))
            # Executors of a run that was killed may be writing yet, into the folder of that run.
            folder = staging / secrets.token_hex(8)
            staged = (
                stage(clean, StagedRows(CLEAN_TRANSACTIONS, folder / CLEAN_TRANSACTIONS.name)),
                stage(rejected, StagedRows(REJECTED_TRANSACTIONS, folder / REJECTED_TRANSACTIONS.name)),
            )
        _require_all(raw, staged, staging)
        yield ClassifiedLines(list(raw.sizes), *staged)

    def measure(self, clean: TableFiles, windows: Sequence[Window]) -> Iterator[MeasuredCustomers]:
        """See ``Engine``; what closed windows count is grouped once for all of them."""
        self.set_partitions(clean.n_rows)
        closed = [window for window in windows if not window.is_open]
        if closed:
            lines = self.scan(clean.of({key for window in closed for key in window.keys}))
            with self._kept(rfm.order_parts(lines)) as parts, self._kept(rfm.bought_products(lines)) as products:
                yield from (self._measure(parts, products, window) for window in closed)
        for window in windows:
            if window.is_open:
                lines = rfm.lines_within(self.scan(clean.of(window.keys)), window)
                yield self._measure(rfm.order_parts(lines), rfm.bought_products(lines), window)

    def set_partitions(self, n_rows: int) -> None:
        """Have so many rows shuffled in parts of a size that suits them: Spark's own 200 suit neither few nor many."""
        self._session.conf.set("spark.sql.shuffle.partitions", str(1 + n_rows // _ROWS_OF_A_PARTITION))

    @contextlib.contextmanager
    def classified(self, raw: TableFiles, rules: CleaningRules) -> Iterator[tuple[Lines, Lines]]:
        """Clean and rejected lines, as ``classify`` has them written."""
        with self._kept(cleaning.classify(self.scan(raw), rules)) as lines:
            yield cleaning.clean_lines(lines, rules), cleaning.rejected_lines(lines)

    def scan(self, files: TableFiles) -> Lines:
        """The rows of files with all columns of their table, in no particular order."""
        types = {name: _TYPES[dtype] for name, dtype in files.table.schema.items()}
        if not files.files:
            return _lines(self._session.createDataFrame([], _declare(types)))
        # A column that the files lack is null in them.
        period = types.pop("period")
        if self._is_sail:
            rows = reduce(lambda one, other: one.union(other), self._scan_periods(files, _declare(types)))
        else:
            # What lies between the table's folder and a file says the file's period.
            base = files.files[0].path.rpartition("/")[0].rpartition("/")[0]
            reader = self._session.read.schema(f"{_declare(types)}, period {period}").option("basePath", base)
            rows = self._call(lambda: reader.parquet(*(_escape(file.path) for file in files.files)))
        return _lines(rows.select(*files.table.schema))

    def _scan_periods(self, files: TableFiles, schema: str) -> Iterator[Any]:
        """The rows of each period: Sail does not read from the names of folders what period a file is of."""
        from pyspark.sql import functions

        for key in files.sizes:
            paths = [_quote(file.path) for file in files.of([key]).files]
            yield self._session.read.schema(schema).parquet(*paths).withColumn("period", functions.lit(key))

    def _measure(self, parts: Lines, products: Lines, window: Window) -> MeasuredCustomers:
        totals = self._collect(rfm.customer_totals(parts, products, window), rfm.TOTALS)
        spend = self._collect(rfm.spend_by_period(parts, window), rfm.SPEND)
        return MeasuredCustomers(window, totals, spend)

    def collect(self, lines: Lines) -> pl.DataFrame:
        """Rows that fit into this process' memory."""
        return self._call(lambda: pl.DataFrame(lines.to_native().toArrow()))

    def _collect(self, lines: Lines, schema: pl.Schema) -> pl.DataFrame:
        return self.collect(lines).select(*schema).cast(schema)

    @contextlib.contextmanager
    def _kept(self, lines: Lines) -> Iterator[Lines]:
        """Lines that are worked out once and used several times; executors that are lost work them out again."""
        native = lines.to_native()
        kept = native.persist()
        try:
            yield _lines(kept)
        finally:
            with contextlib.suppress(Exception):
                kept.unpersist()

    def _stage(self, lines: Lines, rows: StagedRows) -> StagedRows:
        self.write(lines, str(rows.folder))
        return rows

    def write(self, lines: Lines, folder: str) -> None:
        """Have the executors write lines as staged rows, those of a period in the order of source files and rows.

        Args:
            lines: with ``period`` and the columns of ``cleaning.LINE``.
            folder: a path or an address that all of them reach; what is there is replaced.
        """
        ordered = lines.to_native().repartition("period").sortWithinPartitions("period", *LINE)
        writer = ordered.write.mode("overwrite").partitionBy("period").option("compression", "zstd")
        self._call(lambda: writer.option("maxRecordsPerFile", _ROWS_PER_FILE).parquet(folder))

    def _stage_here(self, lines: Lines, rows: StagedRows, keys: Sequence[str]) -> StagedRows:
        """Write lines in this process, a period in memory at a time, where the executors share no folder with it."""
        writer = StagedWriter(rows.table, rows.folder)
        for key in keys:
            writer.write(self._collect(lines.filter(nw.col("period") == key).sort(*LINE), rows.table.schema))
        return writer.rows

    def _call(self, call: Callable[[], T]) -> T:
        """Make a call of Spark, and say in one line what went wrong.

        Raises:
            RunFailedError: it failed.
        """
        try:
            return call()
        except _spark_errors() as error:
            raise RunFailedError(f"Spark: {_reason_of(error)}") from error


def _spark_errors() -> tuple[type[Exception], ...]:
    """Errors of Spark: its own, and those of Java as its classic driver passes them on."""
    from pyspark.errors import PySparkException

    if find_spec("py4j") is None:
        return (PySparkException,)
    from py4j.protocol import Py4JError

    return PySparkException, Py4JError


def _require_all(raw: TableFiles, staged: Sequence[StagedRows], staging: Path) -> None:
    """Refuse results that lack lines, as where executors write into a folder of their own."""
    found = sum(rows.files.n_rows for rows in staged)
    if found != raw.n_rows:
        raise RunFailedError(
            f"Spark was given {raw.n_rows:,} lines, and {found:,} of them are in {staging}: its executors write into "
            "another folder than this process reads. Put CUSTSEG_HOME into a folder that all of them share."
        )


def _declare(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {one}" for name, one in types.items())


def _escape(path: str) -> str:
    """A path as Spark takes it: there it is a pattern."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", path)


def _quote(path: str) -> str:
    """A path as Sail takes it: there it is a pattern, and an address is none."""
    return f"file://{quote(path)}" if path.startswith("/") else path


def _lines(native: Any) -> Lines:
    lines: Lines = nw.from_native(native)
    return lines


def _reason_of(error: Exception) -> str:
    """The reason in one line: without the frames of Java, and what Spark says about itself."""
    text = str(error).split("\n\tat ")[0].split("JVM stacktrace")[0]
    return " ".join(text.split())[:_LONGEST_REASON]
