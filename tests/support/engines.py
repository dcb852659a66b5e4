"""Engines on made-up and real lines: what each gives, and what plain Polars in memory gives, in one order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import narwhals as nw
import polars as pl
import pytest

from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS, Table
from custseg_assets.domain.transactions import cleaning
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.engines.engine import Engine
from custseg_assets.engines.polars_engine import PolarsEngine
from custseg_assets.stores.staged import Rows, StagedRows, StagedWriter
from custseg_assets.stores.table_files import TableFiles

if TYPE_CHECKING:
    from tests.support.fakes.bigquery import FakeBigQuery

OpenEngine = Callable[[Path], AbstractContextManager[Engine]]
"""Opens an engine that may use an empty folder."""


@contextlib.contextmanager
def open_polars(_: Path) -> Iterator[Engine]:
    """Polars; tests make what it holds at a time smaller for slices."""
    yield PolarsEngine()


@contextlib.contextmanager
def open_duckdb(folder: Path) -> Iterator[Engine]:
    """DuckDB with little memory."""
    from custseg_assets.engines.duckdb_engine import DuckDBEngine

    with DuckDBEngine.opened(folder, "500MB") as engine:
        yield engine


@contextlib.contextmanager
def open_spark(_: Path) -> Iterator[Engine]:
    """Spark in a Java process, which all tests share: it takes seconds to start."""
    from custseg_assets.engines.spark_engine import SparkEngine
    from tests.support.spark_servers import shared_session

    session = shared_session("local[1]")
    # Code that is made for each query and runs once: whole runs on a cluster have it.
    session.conf.set("spark.sql.codegen.wholeStage", "false")
    session.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    yield SparkEngine(session)


@contextlib.contextmanager
def open_sail(_: Path) -> Iterator[Engine]:
    """Spark Connect on a server of Sail, which all tests share."""
    from custseg_assets.engines.spark_engine import SparkEngine
    from tests.support.spark_servers import shared_sail, shared_session

    yield SparkEngine(shared_session(shared_sail()))


@contextlib.contextmanager
def open_bigquery(_: Path) -> Iterator[Engine]:
    """BigQuery by Google's own client on the fake, which all that one engine does has for itself."""
    with _open_bigquery() as engine:
        yield engine


@contextlib.contextmanager
def open_bigquery_storage(_: Path) -> Iterator[Engine]:
    """The same, with every result of more than one row through the Storage Read API."""
    from tests.support.fakes.bigquery_storage import FakeBigQueryStorage

    with contextlib.ExitStack() as stack:
        reads: list[tuple[str, int]] = []

        def storage_of(fake: FakeBigQuery) -> str:
            storage = stack.enter_context(FakeBigQueryStorage(fake))
            storage.reads, storage.message_rows = reads, 50
            return storage.address

        with _open_bigquery(storage_of, rows_over_rest=1) as engine:
            yield engine
        assert reads


@contextlib.contextmanager
def _open_bigquery(storage_of: Callable[[FakeBigQuery], str | None] = lambda _: None, **more: int) -> Iterator[Engine]:
    from custseg_assets.gcp.bigquery import BigQuery
    from custseg_assets.gcp.bigquery_engine import BigQueryEngine
    from custseg_assets.settings import GcpSettings
    from tests.support.fakes.bigquery import FakeBigQuery
    from tests.support.fakes.clock import wait_on_this_clock

    with FakeBigQuery("shop") as fake, pytest.MonkeyPatch.context() as patch:
        wait_on_this_clock(patch)
        fake.add_dataset("scratch")
        endpoints = {"bigquery": fake.url, "bigquery_storage": storage_of(fake)}
        settings = GcpSettings.model_validate({"project": "shop", "endpoints": endpoints})
        connection = BigQuery(settings, patience_seconds=0.5, **more)
        with BigQueryEngine.opened(settings, "scratch", lambda _: None, connection) as engine:
            yield engine
        assert fake.datasets["scratch"] == {}


@dataclass(frozen=True)
class Results:
    """What an engine gives, each frame in its one order."""

    frames: dict[str, pl.DataFrame]

    def differing(self, other: Results) -> list[str]:
        """Names of the frames that are not equal byte for byte."""
        if self.frames.keys() != other.frames.keys():
            return sorted(self.frames.keys() ^ other.frames.keys())
        return [name for name, frame in self.frames.items() if _bytes(frame) != _bytes(other.frames[name])]


def _bytes(frame: pl.DataFrame) -> tuple[pl.Schema, bytes]:
    """A frame's types and the parquet file of it: −0.0 is another number there, and nothing is rounded."""
    file = BytesIO()
    frame.rechunk().write_parquet(file, statistics=False, compression="uncompressed")
    return frame.schema, file.getvalue()


def write_files(table: Table, frame: pl.DataFrame, folder: Path, n_files: int = 3) -> TableFiles:
    """The rows of a table as its files would have them, several for a period."""
    writer = StagedWriter(table, folder)
    for (_,), part in sorted(frame.partition_by("period", as_dict=True, maintain_order=True).items()):
        for piece in part.iter_slices(max(1, -(-part.height // n_files))):
            writer.write(piece)
    return writer.rows.files


def run_engine(
    engine: Engine, raw: pl.DataFrame, rules: CleaningRules, windows: Sequence[Window], folder: Path
) -> Results:
    """Everything that an engine gives for a log.

    Args:
        engine: opened.
        raw: lines with the columns of ``raw_transactions``.
        rules: of the shop.
        windows: whose customers are measured.
        folder: for files; it is made.
    """
    lines = classify_with(engine, raw, rules, folder)
    customers = measure_with(engine, lines.frames["clean"], windows, folder)
    return Results(lines.frames | customers.frames)


def classify_with(engine: Engine, raw: pl.DataFrame, rules: CleaningRules, folder: Path) -> Results:
    """Clean and rejected lines; see ``run_engine``."""
    files = write_files(RAW_TRANSACTIONS, raw.sort("period", *cleaning.LINE), folder / "raw")
    classified = list(engine.classify(files, rules, folder / "staging"))
    assert sorted(key for lines in classified for key in lines.keys) == sorted(files.sizes)
    clean = pl.concat([in_memory(lines.clean) for lines in classified])
    rejected = pl.concat([in_memory(lines.rejected) for lines in classified])
    return Results({"clean": clean, "rejected": rejected})


def measure_with(engine: Engine, clean: pl.DataFrame, windows: Sequence[Window], folder: Path) -> Results:
    """What is measured of clean lines; see ``run_engine``."""
    files = write_files(CLEAN_TRANSACTIONS, clean, folder / "clean")
    frames: dict[str, pl.DataFrame] = {}
    for found in engine.measure(files, windows):
        frames |= _measured(found.window, found.totals, found.spend)
    lines = engine.scan(files)
    for name, group in _GROUPS.items():
        frames[name] = _in_order(engine.collect(getattr(rfm, group)(lines)))
    return Results(frames)


_GROUPS = {"order parts": "order_parts", "products": "bought_products"}
"""Functions by name: tests put others in their place."""


def classify_in_memory(raw: pl.DataFrame, rules: CleaningRules) -> Results:
    """The same as ``classify_with`` by the functions of the domain, in one go."""
    classified = cleaning.classify(nw.from_native(raw.lazy()), rules).collect().sort("period", *cleaning.LINE).lazy()
    clean: pl.DataFrame = cleaning.clean_lines(classified, rules).collect("polars").to_native()
    rejected: pl.DataFrame = cleaning.rejected_lines(classified).collect("polars").to_native()
    return Results({"clean": clean, "rejected": rejected})


def measure_in_memory(clean: pl.DataFrame, windows: Sequence[Window]) -> Results:
    """The same as ``measure_with`` by the functions of the domain, each window in one go."""
    frames: dict[str, pl.DataFrame] = {}
    for window in windows:
        lines = nw.from_native(clean.filter(pl.col("period").is_in(window.keys)).lazy())
        lines = rfm.lines_within(lines, window) if window.is_open else lines
        parts, products = rfm.order_parts(lines), rfm.bought_products(lines)
        totals = rfm.customer_totals(parts, products, window).collect("polars").to_native()
        spend = rfm.spend_by_period(parts, window).collect("polars").to_native()
        frames |= _measured(window, totals.select(*rfm.TOTALS).cast(rfm.TOTALS), spend.cast(rfm.SPEND))
    for name, group in _GROUPS.items():
        frames[name] = _in_order(getattr(rfm, group)(nw.from_native(clean.lazy())).collect("polars").to_native())
    return Results(frames)


def run_in_memory(raw: pl.DataFrame, rules: CleaningRules, windows: Sequence[Window]) -> Results:
    """The same as ``run_engine`` by the functions of the domain on whole frames."""
    lines = classify_in_memory(raw, rules)
    return Results(lines.frames | measure_in_memory(lines.frames["clean"], windows).frames)


def in_memory(rows: Rows) -> pl.DataFrame:
    """Rows in one frame, in their order."""
    if isinstance(rows, StagedRows):
        return pl.concat([rows.table.schema.to_frame(), *rows.slices()])
    return rows


def _measured(window: Window, totals: pl.DataFrame, spend: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {
        f"totals {window.key}": totals.sort("customer_id"),
        f"spend {window.key}": spend.sort("customer_id", "period"),
        f"features {window.key}": rfm.customer_features(totals, spend, window),
    }


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(frame.columns)
