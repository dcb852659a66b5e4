"""Who bought what in the windows of a home's snapshots: each period of the log is read once, whatever windows it is in.

What is kept of a period are numbers: in memory, or of a large shop in a scratch folder, by slices of customers. What is
made of it belongs in ``offers``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.purchases import (
    Pairs,
    list_descriptions,
    merge_descriptions,
    merge_pairs,
    orders,
    pair_up,
)
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS
from custseg_assets.domain.slices import IdRange
from custseg_assets.home.open import OpenHome

SCRATCH = ".purchases-"
"""Begin of the name of the scratch folder in the home."""
_Piece = pl.DataFrame | Path
"""Pairs of a period and a slice, as ``domain.purchases.pair_up`` returns them, in memory or in a file."""


@dataclass(frozen=True)
class _Period:
    """What is kept of a period: pairs by slice, and the texts of its products."""

    pieces: Sequence[_Piece]
    descriptions: pl.DataFrame


class _Ids:
    """Numbers of ids: at first the places of known ones, then in the order in which others come up."""

    def __init__(self, known: pl.Series) -> None:
        self._kind = pl.Categorical(pl.Categories.random())
        # Polars forgets the ids as soon as no column has the type.
        self._known = known.cast(self._kind)

    def numbers(self, ids: pl.Expr) -> pl.Expr:
        """The number of each id."""
        return ids.cast(self._kind).to_physical()

    def ids(self, start: int, stop: int) -> pl.Series:
        """The ids of the numbers from one up to another."""
        return pl.Series(range(start, stop), dtype=pl.UInt32).cat.to(self._kind).cast(pl.String)


class Purchases:
    """Purchases of the windows of snapshots, oldest first.

    Args:
        home: whose log it is.
        customers: ids of everybody who is known at the newest snapshot, ascending; who came in with lines that were
            late counts for the shop, and is offered nothing before it has a segment.
        ranges: of ids, which cover every id; one where all is kept in memory.
        folder: empty, for the rest.
    """

    def __init__(self, home: OpenHome, customers: pl.Series, ranges: Sequence[IdRange], folder: Path) -> None:
        self._home, self._folder, self._ranges = home, folder, tuple(ranges)
        # Each slice has the numbers from one of these up to the next, the last one also those of unknown customers.
        self._starts = [0, *(int(customers.search_sorted(one.start)) for one in ranges[1:])]
        self._who, self._what = _Ids(customers), _Ids(pl.Series(dtype=pl.String))
        self._n_customers, self._n_products = len(customers), 0
        self._periods: dict[tuple[str, datetime | None], _Period] = {}

    def within(self, window: Window) -> PurchasesInWindow:
        """The purchases of a window, its last period as the test of methods; those of the window before are gone then.

        Args:
            window: not older than that of the call before.
        """
        # The window of an open snapshot begins in the middle of a period.
        begins = {window.keys[0]: window.start} if window.is_open else {}
        wanted = [(key, begins.get(key)) for key in window.keys]
        for period in self._periods.keys() - set(wanted):
            for piece in self._periods.pop(period).pieces:
                _remove(piece)
        for key, start in wanted:
            if (key, start) not in self._periods:
                self._periods[key, start] = self._read(key, start, window.as_of)
        kept = [self._periods[one] for one in wanted]
        products = self._what.ids(0, self._n_products)
        slices = []
        for place, (within, first, end) in enumerate(self._numbered_ranges()):
            bought = merge_pairs([_load(period.pieces[place]) for period in kept])
            customers = self._who.ids(first, end)
            slices.append(_Slice(within, customers, products, self._keep(bought, f"window-{place}")))
        return PurchasesInWindow(slices, merge_descriptions([period.descriptions for period in kept]))

    def _numbered_ranges(self) -> Iterator[tuple[IdRange, int, int]]:
        """The ranges, each with the first number of its customers and the first after them."""
        return zip(self._ranges, self._starts, [*self._starts[1:], self._n_customers], strict=True)

    def _read(self, key: str, start: datetime | None, until: datetime) -> _Period:
        lines = self._home.tables.scan(CLEAN_TRANSACTIONS, [key])
        if start is not None:
            lines = lines.filter(pl.col("invoiced_at") >= start)
        numbered = orders(lines, until=until).select(
            self._who.numbers(pl.col("customer_id")).alias("who"),
            self._what.numbers(pl.col("product_id")).alias("what"),
            at="invoiced_at",
        )
        name = f"{key}-{'whole' if start is None else 'part'}"
        pieces = [self._keep(pairs, f"{name}-{place}") for place, pairs in enumerate(self._pair_up(numbered, name))]
        return _Period(pieces, list_descriptions(lines, until=until))

    def _pair_up(self, numbered: pl.LazyFrame, name: str) -> Iterator[pl.DataFrame]:
        """The pairs of each slice, with places among its customers."""
        if len(self._ranges) == 1:
            yield self._counted(pair_up(numbered), 0)
            return
        folder = self._folder / name
        number = pl.sum_horizontal((pl.col("who") >= start).cast(pl.UInt32) for start in self._starts[1:])
        by_slice = pl.PartitionBy(folder, key="slice", include_key=False)
        numbered.with_columns(slice=number).sink_parquet(by_slice, mkdir=True, compression="lz4")
        nothing = numbered.collect_schema().to_frame().lazy()
        for place, start in enumerate(self._starts):
            files = sorted((folder / f"slice={place}").glob("*.parquet"))
            own = pl.scan_parquet(files, glob=False, hive_partitioning=False) if files else nothing
            yield self._counted(pair_up(own.with_columns(pl.col("who") - start)), start)
        shutil.rmtree(folder, ignore_errors=True)

    def _counted(self, pairs: pl.DataFrame, start: int) -> pl.DataFrame:
        """The pairs, whose numbers are known from now on."""
        if len(pairs):
            who, what = (int(pairs[name].to_numpy().max()) for name in ("who", "what"))
            self._n_customers = max(self._n_customers, start + who + 1)
            self._n_products = max(self._n_products, what + 1)
        return pairs

    def _keep(self, rows: pl.DataFrame, name: str) -> _Piece:
        if len(self._ranges) == 1:
            return rows
        path = self._folder / f"{name}.parquet"
        rows.write_parquet(path, compression="lz4")
        return path


@dataclass(frozen=True)
class _Slice:
    """Pairs of a slice of customers in a window: their ids, those of products, and ``Pairs.bought``."""

    within: IdRange
    customers: pl.Series
    products: pl.Series
    bought: _Piece


@dataclass(frozen=True)
class PurchasesInWindow:
    """Who bought what in a window, a slice of customers at a time.

    Attributes:
        slices: in the order of the ids.
        descriptions: see ``domain.purchases.list_descriptions``.
    """

    slices: Sequence[_Slice]
    descriptions: pl.DataFrame

    def __iter__(self) -> Iterator[tuple[IdRange, Pairs]]:
        """The ranges of ids, each with the pairs of its customers."""
        for one in self.slices:
            yield one.within, Pairs(one.customers, one.products, _load(one.bought))


def _load(piece: _Piece) -> pl.DataFrame:
    return piece if isinstance(piece, pl.DataFrame) else pl.read_parquet(piece, glob=False)


def _remove(piece: _Piece) -> None:
    if isinstance(piece, Path):
        piece.unlink()
