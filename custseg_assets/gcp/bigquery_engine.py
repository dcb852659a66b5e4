"""BigQuery as the engine of a ``bq://`` source: what groups the log is done there, by the same Narwhals functions.

The rows of the tables' files are loaded into tables that are this engine's own and gone at its end. What comes back is
as small as the customers and the repeated lines, and holds no fractions, which services write as text. Every query is
tried without being run first: what it reads is said, and over the limit it is not run. How the functions become
BigQuery's SQL is in ``bigquery_sql``; reading a source, in ``bigquery_source``.
"""

from __future__ import annotations

import contextlib
import io
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import narwhals as nw
import polars as pl
import pyarrow as pa
from google.api_core import exceptions
from google.cloud import bigquery
from google.cloud.bigquery.table import RowIterator

from custseg_assets.domain.periods import Window
from custseg_assets.domain.transactions import cleaning
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.domain.transactions.cleaning import CleaningRules, Lines
from custseg_assets.engines.engine import ClassifiedLines, MeasuredCustomers
from custseg_assets.engines.polars_engine import classify_in_slices
from custseg_assets.errors import RunFailedError
from custseg_assets.gcp.bigquery import (
    BUSY,
    GIB,
    PAGE_ROWS,
    BigQuery,
    BigQueryError,
    advise,
    explain_errors,
    format_size,
    waits_when_busy,
)
from custseg_assets.gcp.bigquery_results import fetch_batches
from custseg_assets.gcp.bigquery_sql import TYPES, NotTheSameError, to_bigquery
from custseg_assets.settings import GcpSettings
from custseg_assets.stores.sources import Progress
from custseg_assets.stores.staged import MAX_ROWS_AT_ONCE, ROWS_OF_A_SLICE, key_batches
from custseg_assets.stores.table_files import TableFiles

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

USD_PER_TIB = 6.25
"""List price of what on-demand queries read."""
LIFETIME = timedelta(days=1)
"""After which BigQuery itself removes the tables of a run that was killed."""
_TIB = 1 << 40
_FROM_POLARS: Mapping[pl.DataType, str] = {
    pl.String(): "VARCHAR",
    pl.Float64(): "DOUBLE",
    pl.Int64(): "BIGINT",
    pl.Boolean(): "BOOLEAN",
    pl.Datetime("us"): "TIMESTAMP",
}
_WHOLE = {"HUGEINT": "BIGINT", "INTEGER": "BIGINT"}
"""DuckDB's types of sums and counts, of which BigQuery has one only."""


class BigQueryEngine:
    """The engine that works where the source is.

    Args:
        connection: to the project that is billed.
        dataset: of it, for tables of the engine's own.
        planner: DuckDB with nothing in it, which is never asked for rows.
        progress: takes a line for each query.
        sleep: waits; for tests.
    """

    name = "bigquery"

    def __init__(
        self,
        connection: BigQuery,
        dataset: str,
        planner: DuckDBPyConnection,
        progress: Progress,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bq, self._dataset, self._planner = connection, dataset, planner
        self._progress, self._sleep = progress, sleep
        self._run = uuid.uuid4().hex[:16]
        self._columns: dict[str, dict[str, str]] = {}

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, settings: GcpSettings, dataset: str, progress: Progress, connection: BigQuery | None = None
    ) -> Iterator[BigQueryEngine]:
        """The engine; at the end its tables are removed.

        Raises:
            RunFailedError: there are no credentials.
        """
        import duckdb

        with _said():
            bq = connection or BigQuery(settings)
        with contextlib.closing(duckdb.connect()) as planner:
            engine = cls(bq, dataset, planner, progress)
            try:
                yield engine
            finally:
                engine.remove_tables()

    def classify(self, raw: TableFiles, rules: CleaningRules, staging: Path) -> Iterator[ClassifiedLines]:
        """See ``Engine``; which lines repeat others is found there, the rest as the lines are written here."""
        if not raw.files:
            return
        repeats = self._collect(cleaning.find_repeats(self.scan(raw), rules), "looking for repeated lines")
        for number, keys in enumerate(key_batches(raw.sizes)):
            yield classify_in_slices(raw.of(keys), rules, repeats, staging / f"{number:06}")

    def measure(self, clean: TableFiles, windows: Sequence[Window]) -> Iterator[MeasuredCustomers]:
        """See ``Engine``; lines are loaded once, and what closed windows count is grouped once for all of them."""
        if not windows:
            return
        lines = self.scan(clean.of({key for window in windows for key in window.keys}))
        closed = [window for window in windows if not window.is_open]
        if closed:
            parts = self._group(lines.filter(nw.col("period").is_in(sorted({k for one in closed for k in one.keys}))))
            for window in closed:
                yield self._measure(*parts, window)
        for window in windows:
            if window.is_open:
                of_window = lines.filter(nw.col("period").is_in(list(window.keys)))
                yield self._measure(*self._group(rfm.lines_within(of_window, window)), window)

    def _measure(self, parts: Lines, products: Lines, window: Window) -> MeasuredCustomers:
        totals = self._collect(rfm.customer_totals(parts, products, window), f"totals of {window.key}")
        spend = self._collect(rfm.spend_by_period(parts, window), f"spend of {window.key}")
        return MeasuredCustomers(window, totals.select(*rfm.TOTALS).cast(rfm.TOTALS), spend.cast(rfm.SPEND))

    def _group(self, lines: Lines) -> tuple[Lines, Lines]:
        return self._keep("parts", rfm.order_parts(lines)), self._keep("products", rfm.bought_products(lines))

    def scan(self, files: TableFiles) -> Lines:
        """See ``Engine``; the rows are loaded into a table of the engine's own.

        Raises:
            RunFailedError: they cannot be loaded, or BigQuery would compare their texts in another way.
        """
        columns = {name: _FROM_POLARS[dtype] for name, dtype in files.table.schema.items()}
        lines, table = self._make_table(files.table.name, columns)
        for rows in _gather(files.slices(ROWS_OF_A_SLICE)):
            _require_finite(rows, files.table.name)
            self._load(rows, table)
        with _said(f"looking at {table}"):
            found = self._bq.client.get_table(table.reference, retry=self._bq.retry).num_rows
        if found != files.n_rows:
            raise RunFailedError(
                f"BigQuery: {files.n_rows:,} rows were loaded into {table}, and {found:,} are in it; expected nobody "
                "else to write there",
                todo="Run it again. Nothing is lost.",
            )
        return lines

    def collect(self, lines: Lines) -> pl.DataFrame:
        """See ``Engine``."""
        return self._collect(lines, "a query")

    def _collect(self, lines: Lines, doing: str) -> pl.DataFrame:
        job, rows = self._query(self._compile(lines), doing)
        with _said("reading results"):
            batches = list(fetch_batches(self._bq, job, rows, self._progress))
        return cast("pl.DataFrame", pl.from_arrow(pa.Table.from_batches(batches)))

    def remove_tables(self) -> None:
        """Remove the engine's own tables; one that cannot be removed now is gone after ``LIFETIME``."""
        for name in self._columns:
            try:
                with _said(f"removing {name}"):
                    self._bq.client.delete_table(self._address(name), not_found_ok=True, retry=self._bq.retry)
            except RunFailedError as error:
                self._progress(f"{error}; it is removed by itself within {LIFETIME.days} day")
        self._columns.clear()

    def _keep(self, name: str, lines: Lines) -> Lines:
        """Work something out once, into a table of the engine's own."""
        relation = lines.to_native()
        kinds = [_WHOLE.get(str(kind), str(kind)) for kind in relation.types]
        sql = self._compile(lines)
        kept, table = self._make_table(name, dict(zip(relation.columns, kinds, strict=True)))
        self._query(sql, f"grouping into {name}", table)
        return kept

    def _make_table(self, name: str, columns: Mapping[str, str]) -> tuple[Lines, bigquery.Table]:
        """An empty table on BigQuery, and the same for the planner."""
        own = f"custseg_{self._run}_{len(self._columns)}_{name}"
        wanted = bigquery.Table(
            self._address(own), schema=[bigquery.SchemaField(one, TYPES[kind]) for one, kind in columns.items()]
        )
        wanted.expires = datetime.now(UTC) + LIFETIME
        wanted.labels = {"app": "custseg"}
        self._columns[own] = dict(columns)
        with _said(f"making {self._dataset}.{own}"):
            table = self._bq.client.create_table(wanted, exists_ok=True, retry=self._bq.retry)
        if collation := table.to_api_repr().get("defaultCollation"):
            raise RunFailedError(
                f"BigQuery: texts in {self._bq.project}.{self._dataset} are compared by {collation!r}, in which "
                "customers that differ are one; expected a dataset without a default collation",
                todo="Name another [engine] dataset. Nothing is lost.",
            )
        declared = ", ".join(f'"{one}" {kind}' for one, kind in columns.items())
        self._planner.execute(f'CREATE TABLE "{own}" ({declared})')
        lines: Lines = nw.from_native(self._planner.table(own))
        return lines, table

    def _address(self, name: str) -> str:
        return f"{self._bq.project}.{self._dataset}.{name}"

    def _compile(self, lines: Lines) -> str:
        try:
            return to_bigquery(
                lines.to_native().sql_query(), self._columns, {name: self._address(name) for name in self._columns}
            )
        except NotTheSameError as error:
            raise RunFailedError(
                f"BigQuery: no SQL is known that gives the same there ({error}); expected what the tables need",
                todo="Take engine polars, duckdb or spark. Nothing is lost.",
            ) from error

    def _query(self, sql: str, doing: str, into: bigquery.Table | None = None) -> tuple[bigquery.QueryJob, RowIterator]:
        """Run a query, after what it reads was said and found to be allowed; its rows are yet to be fetched.

        Raises:
            RunFailedError: it would bill more than is allowed, or failed.
        """
        limit = int(self._bq.settings.bigquery.maximum_gib_billed * GIB)
        with _said(doing):
            tried = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
            estimate = self._bq.client.query(sql, tried, retry=self._bq.retry).total_bytes_processed
        price = estimate / _TIB * USD_PER_TIB
        size = format_size(estimate)
        self._progress(
            f"BigQuery: {doing} reads {size}, {price:.2f} USD by list price; {format_size(limit)} may be billed"
        )
        if estimate > limit:
            raise RunFailedError(
                f"BigQuery: {doing} would bill {size}; expected at most {format_size(limit)}, as [gcp.bigquery] "
                "maximum_gib_billed says",
                todo="Raise it, or take engine polars, duckdb or spark. Nothing is lost.",
            )
        config = bigquery.QueryJobConfig(maximum_bytes_billed=limit, labels={"app": "custseg"})
        if into is not None:
            config.destination = into.reference
            config.create_disposition = bigquery.CreateDisposition.CREATE_NEVER
            config.write_disposition = bigquery.WriteDisposition.WRITE_TRUNCATE
        with _said(doing):
            job = self._bq.client.query(sql, config, retry=self._bq.retry)
            return job, job.result(page_size=PAGE_ROWS, retry=self._bq.retry)

    def _load(self, rows: pl.DataFrame, table: bigquery.Table) -> None:
        """Add rows to a table of the engine's own, all of them once or none.

        Raises:
            RunFailedError: they are refused, or BigQuery is busy for too long.
        """
        content = io.BytesIO()
        rows.write_parquet(content)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=table.schema,
            labels={"app": "custseg"},
        )
        waits = waits_when_busy()
        while error := self._load_once(content, table, config):
            wait = next(waits, None) if error.get("reason") in BUSY else None
            if wait is None:
                raise RunFailedError(f"BigQuery: loading {table}: {error['message']} {advise(error['reason'])}")
            self._sleep(wait)

    def _load_once(
        self, content: io.BytesIO, table: bigquery.Table, config: bigquery.LoadJobConfig
    ) -> Mapping[str, Any] | None:
        """Run one load job; returns the error that it ended with."""
        # The same request that is sent again is refused, so no row is in the table twice.
        job_id = f"custseg-{uuid.uuid4().hex}"
        with _said(f"loading {table}"):
            try:
                job = self._bq.client.load_table_from_file(
                    content,
                    table.reference,
                    rewind=True,
                    size=content.getbuffer().nbytes,
                    job_config=config,
                    job_id=job_id,
                    location=table.location,
                )
            except exceptions.Conflict:
                job = self._bq.client.get_job(job_id, location=table.location, retry=self._bq.retry)
            try:
                job.result(retry=self._bq.retry)
            except exceptions.GoogleAPICallError:
                if job.error_result is None:
                    raise
        return cast("Mapping[str, Any] | None", job.error_result)


def _gather(slices: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put slices together, up to what memory allows: BigQuery limits how often a table is changed."""
    waiting: list[pl.DataFrame] = []
    for rows in slices:
        if waiting and sum(one.height for one in waiting) + rows.height > MAX_ROWS_AT_ONCE:
            yield pl.concat(waiting)
            waiting = []
        waiting.append(rows)
    if waiting:
        yield pl.concat(waiting)


def _require_finite(rows: pl.DataFrame, name: str) -> None:
    """Refuse what BigQuery compares in another way than the other engines."""
    if not rows.select(pl.all_horizontal(pl.col(pl.Float64).is_finite().fill_null(True).all())).item():
        raise RunFailedError(
            f"BigQuery: {name} has amounts that are no numbers, which it would compare otherwise",
            todo="Take engine polars, duckdb or spark. Nothing is lost.",
        )


@contextlib.contextmanager
def _said(doing: str = "connecting") -> Iterator[None]:
    """Say what Google's client could not do.

    Raises:
        RunFailedError: a request was refused, or the service cannot be reached.
    """
    try:
        with explain_errors(doing):
            yield
    except BigQueryError as error:
        raise RunFailedError(f"BigQuery: {error}") from None
