"""Polars on this machine: whatever is as large as the log is streamed, or taken in slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import narwhals as nw
import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS
from custseg_assets.domain.transactions import cleaning
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.domain.transactions.cleaning import CleaningRules, Lines
from custseg_assets.engines.engine import ClassifiedLines, MeasuredCustomers
from custseg_assets.stores.staged import MAX_ROWS_AT_ONCE, ROWS_OF_A_SLICE, StagedWriter, key_batches
from custseg_assets.stores.table_files import TableFiles

_CODES = 1 << 32
"""How many customers, or products, can have a code."""


class PolarsEngine:
    """The engine that every installation has."""

    name = "polars"

    def classify(self, raw: TableFiles, rules: CleaningRules, staging: Path) -> Iterator[ClassifiedLines]:
        """See ``Engine``; a log that fits into memory is one batch of frames."""
        if raw.n_rows <= MAX_ROWS_AT_ONCE:
            if raw.files:
                yield ClassifiedLines(list(raw.sizes), *_classify(raw.scan().collect(), rules))
            return
        for number, keys in enumerate(key_batches(raw.sizes)):
            of_keys = raw.of(keys)
            yield classify_in_slices(of_keys, rules, _find_repeats(of_keys, rules), staging / f"{number:06}")

    def measure(self, clean: TableFiles, windows: Sequence[Window]) -> Iterator[MeasuredCustomers]:
        """See ``Engine``; what closed windows count is grouped once for all of them."""
        closed = [window for window in windows if not window.is_open]
        if closed:
            observed = clean.of({key for window in closed for key in window.keys})
            orders = _collect(rfm.order_parts(_lazy(observed.scan())))
            products = _Products()
            for key in observed.sizes:
                products.add(observed.of([key]).scan())
            yield from (_measure(orders, products, window) for window in closed)
        for window in windows:
            if window.is_open:
                lines = rfm.lines_within(_lazy(clean.of(window.keys).scan()), window).to_native()
                products = _Products()
                products.add(lines)
                yield _measure(_collect(rfm.order_parts(_lazy(lines))), products, window)

    def scan(self, files: TableFiles) -> Lines:
        """The rows of files, with all columns of their table."""
        return _lazy(files.scan())

    def collect(self, lines: Lines) -> pl.DataFrame:
        """What was worked out, in memory."""
        return _collect(lines)


def _classify(
    raw: pl.DataFrame, rules: CleaningRules, repeats: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Clean and rejected lines, in the order of the raw ones."""
    # Cleaning promises no order; the tables are the same every time only if their rows have one.
    lines = _lazy(raw.lazy().with_row_index("line"))
    found = None if repeats is None else _lazy(repeats.lazy())
    classified = cleaning.classify(lines, rules, found).collect().sort("line").lazy()
    clean: pl.DataFrame = cleaning.clean_lines(classified, rules).collect("polars").to_native()
    rejected: pl.DataFrame = cleaning.rejected_lines(classified).collect("polars").to_native()
    return clean, rejected


def _find_repeats(raw: TableFiles, rules: CleaningRules) -> pl.DataFrame:
    lines = _lazy(raw.scan())
    keys = _lazy(_collect(cleaning.shared_keys(lines)).lazy())
    return _collect(cleaning.find_repeats(lines, rules, keys))


def classify_in_slices(raw: TableFiles, rules: CleaningRules, repeats: pl.DataFrame, staging: Path) -> ClassifiedLines:
    """Classify lines so many at a time: but for repeats, each line's reason is in the line itself.

    Args:
        raw: files of ``raw_transactions``.
        rules: of the shop.
        repeats: from ``cleaning.find_repeats``, of these files' periods at least.
        staging: a folder for the results; it is made.
    """
    clean = StagedWriter(CLEAN_TRANSACTIONS, staging / CLEAN_TRANSACTIONS.name)
    rejected = StagedWriter(REJECTED_TRANSACTIONS, staging / REJECTED_TRANSACTIONS.name)
    for part in raw.slices(ROWS_OF_A_SLICE):
        of_part = _classify(part, rules, repeats)
        clean.write(of_part[0])
        rejected.write(of_part[1])
    return ClassifiedLines([*raw.sizes], clean.rows, rejected.rows)


class _Products:
    """Which customer ordered which product in which period, as pairs of numbers: text takes six times as much."""

    def __init__(self) -> None:
        self._codes: dict[str, pl.DataFrame] = {name: _no_codes(name) for name in ("customer_id", "product_id")}
        self._pairs: dict[str, list[pl.Series]] = {}

    def add(self, lines: pl.LazyFrame) -> None:
        """Add lines with the columns of ``clean_transactions``."""
        bought = _collect(rfm.bought_products(_lazy(lines)))
        for name in self._codes:
            bought = self._encode(bought, name)
        pair = pl.col("customer_id").cast(pl.UInt64) * _CODES + pl.col("product_id").cast(pl.UInt64)
        for (period,), part in bought.partition_by("period", as_dict=True).items():
            self._pairs.setdefault(str(period), []).append(part.select(pair.alias("pair")).to_series())

    def count(self, window: Window) -> pl.DataFrame:
        """What ``rfm.count_products`` counts."""
        found = [pairs for key in window.span_keys for pairs in self._pairs.get(key, [])]
        every = pl.concat(found) if found else pl.Series("pair", [], pl.UInt64)
        code = (pl.col("pair") // _CODES).cast(pl.UInt32).alias("code")
        counted = every.unique().to_frame().group_by(code).len("n_products")
        return counted.join(self._codes["customer_id"], on="code").select("customer_id", "n_products")

    def _encode(self, bought: pl.DataFrame, name: str) -> pl.DataFrame:
        known = self._codes[name]
        new = bought.select(name).unique().join(known, on=name, how="anti")
        code = pl.int_range(known.height, known.height + new.height, dtype=pl.UInt32)
        self._codes[name] = pl.concat([known, new.with_columns(code=code)])
        return bought.join(self._codes[name], on=name).drop(name).rename({"code": name})


def _no_codes(name: str) -> pl.DataFrame:
    return pl.DataFrame(schema={name: pl.String, "code": pl.UInt32})


def _measure(orders: pl.DataFrame, products: _Products, window: Window) -> MeasuredCustomers:
    parts = _lazy(orders.lazy())
    totals = rfm.join_totals(parts, _lazy(products.count(window).lazy()), window)
    spend = rfm.spend_by_period(parts, window)
    of_totals: pl.DataFrame = totals.collect("polars").to_native()
    of_spend: pl.DataFrame = spend.collect("polars").to_native()
    return MeasuredCustomers(window, of_totals.select(*rfm.TOTALS).cast(rfm.TOTALS), of_spend.cast(rfm.SPEND))


def _lazy(frame: pl.LazyFrame) -> Lines:
    return nw.from_native(frame)


def _collect(lines: Lines) -> pl.DataFrame:
    frame: pl.DataFrame = lines.to_native().collect(engine="streaming")
    return frame
