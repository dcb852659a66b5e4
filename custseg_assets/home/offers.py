"""What to offer to the customers of a home: purchases of a window, from the log to the rules in the domain.

A large shop's purchases are first put into a scratch folder, by slices of customers, in one pass over the log; what is
done after that reads a slice at a time. How products are ranked belongs in ``domain.recommendations``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from custseg_assets.domain import recommendations
from custseg_assets.domain.periods import Window
from custseg_assets.domain.recommendations import Buyers, RecommendationEvaluation, TestedSlice
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, SEGMENT_ASSIGNMENTS
from custseg_assets.domain.slices import IdRange
from custseg_assets.domain.tastes import Tastes
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.stores.files import scratch_folder

_SCRATCH = ".purchases-"
_PLACED = ("customer_id", "segment_id")
_LINE_COLUMNS = ("customer_id", "product_id", "invoiced_at", "is_cancellation")


class PurchasesInMemory:
    """Lines of the window at hand; a window that moves on reads only the periods it did not have.

    Args:
        home: whose log it is.
    """

    def __init__(self, home: OpenHome) -> None:
        self._home = home
        self._periods: dict[str, pl.DataFrame] = {}

    def within(self, window: Window) -> pl.DataFrame:
        """The lines of a window."""
        keys = window.keys
        kept = {key: self._periods[key] for key in keys if key in self._periods}
        # Joined in two thirds of the time that text takes.
        ids = pl.col("customer_id", "product_id").cast(pl.Categorical)
        columns = [ids, "description", "invoiced_at", "is_cancellation"]
        for key in keys:
            if key not in kept:
                kept[key] = self._home.tables.scan(CLEAN_TRANSACTIONS, [key]).select(columns).collect()
        self._periods = kept
        return pl.concat([kept[key] for key in keys]).filter(_is_within(window))


def _is_within(window: Window) -> pl.Expr:
    """Whether a line is in a window; that of an open snapshot begins in the middle of a period."""
    return pl.col("invoiced_at") >= window.start if window.is_open else pl.lit(value=True)


def offer_to_all(home: OpenHome, key: str, purchases: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The offers of a snapshot, by the method that would have done best on its period, so far as that goes.

    Args:
        home: whose customers they are.
        key: of the snapshot.
        purchases: lines of its window.

    Returns:
        What ``domain.recommendations.recommend`` returns, and how the method was chosen, in words.
    """
    window, configured = home.calendar.window(key), home.settings.recommendations
    outcome = recommendations.evaluate(
        purchases,
        home.tables.read(SEGMENT_ASSIGNMENTS, home.snapshots_before(key)[-1:], _PLACED),
        as_of=window.as_of,
        horizon_days=(window.as_of - datetime.fromisoformat(key)).days,
        half_life_days=configured.half_life_days,
        n_items=configured.n_items,
    )
    offers = recommendations.recommend(
        purchases,
        home.tables.read(SEGMENT_ASSIGNMENTS, [key], _PLACED),
        as_of=window.as_of,
        n_items=configured.n_items,
        method=outcome.winner,
        half_life_days=configured.half_life_days,
    )
    return offers, outcome.sentence


class PurchasesInSlices:
    """Lines of a window, by slices of customers, in a scratch folder.

    Args:
        home: whose log it is.
        window: of the snapshot.
        ranges: of ids, which cover every id.
        folder: empty.
    """

    def __init__(self, home: OpenHome, window: Window, ranges: Sequence[IdRange], folder: Path) -> None:
        self._ranges, self._folder = ranges, folder
        lines = home.tables.scan(CLEAN_TRANSACTIONS, window.keys).filter(_is_within(window))
        starts = pl.Series([one.start for one in ranges[1:]], dtype=pl.String)

        def number_of(ids: pl.Series) -> pl.Series:
            return starts.search_sorted(ids, side="right").cast(pl.UInt32)

        number = pl.col("customer_id").map_batches(number_of, return_dtype=pl.UInt32, is_elementwise=True)
        lines.select(*_LINE_COLUMNS, slice=number).sink_parquet(pl.PartitionBy(folder, key="slice", include_key=False))
        self.descriptions = recommendations.list_descriptions(lines, until=window.as_of)

    def __iter__(self) -> Iterator[tuple[IdRange, pl.DataFrame]]:
        """The ranges, each with the lines of its customers."""
        nothing = CLEAN_TRANSACTIONS.schema.to_frame().select(_LINE_COLUMNS)
        for number, one in enumerate(self._ranges):
            files = sorted((self._folder / f"slice={number}").glob("*.parquet"))
            yield one, pl.read_parquet(files, glob=False, hive_partitioning=False) if files else nothing


def offer_in_slices(
    home: LockedHome, key: str, ranges: Sequence[IdRange], outcomes: dict[str, str]
) -> Iterator[pl.DataFrame]:
    """What ``offer_to_all`` returns, a slice of customers at a time.

    Args:
        home: whose customers they are.
        key: of the snapshot.
        ranges: of ids, which cover every id.
        outcomes: gets how the method was chosen, in words, by the snapshot's key.
    """
    window, configured = home.calendar.window(key), home.settings.recommendations
    with scratch_folder(home.paths.root, _SCRATCH) as folder:
        purchases = PurchasesInSlices(home, window, ranges, folder)
        outcome = _choose_method(home, key, purchases)
        outcomes[key] = outcome.sentence
        buyers = _count_buyers(home, [key], purchases, window.as_of)
        is_personal = outcome.winner == "personal"
        tastes = _learn_tastes(buyers, purchases, window.as_of) if is_personal else None
        ranking = buyers.rank(outcome.winner, tastes)
        for one, lines in purchases:
            yield recommendations.offer_products(
                _placed(home, [key], one),
                recommendations.list_pairs(lines, until=window.as_of),
                ranking,
                purchases.descriptions,
                configured.n_items,
                outcome.winner,
            )


def _count_buyers(home: OpenHome, keys: Sequence[str], purchases: PurchasesInSlices, until: datetime) -> Buyers:
    """Count what everybody bought until an instant, by the segments at a snapshot."""
    half_life_days = home.settings.recommendations.half_life_days
    return recommendations.add_buyers(
        recommendations.count_buyers(
            recommendations.list_pairs(lines, until=until), _placed(home, keys, one), until, half_life_days
        )
        for one, lines in purchases
    )


def _learn_tastes(buyers: Buyers, purchases: PurchasesInSlices, until: datetime) -> Tastes:
    """What goes with what, by all purchases until an instant."""
    parts = (buyers.bought_together(recommendations.list_pairs(lines, until=until)) for _, lines in purchases)
    return buyers.learn_tastes(functools.reduce(np.add, parts), until)


def _choose_method(home: OpenHome, key: str, purchases: PurchasesInSlices) -> RecommendationEvaluation:
    window, configured = home.calendar.window(key), home.settings.recommendations
    cut, before = datetime.fromisoformat(key), home.snapshots_before(key)[-1:]
    n_before = sum(home.tables.sizes(SEGMENT_ASSIGNMENTS).get(one, 0) for one in before)
    buyers = _count_buyers(home, before, purchases, cut)

    def tested() -> Iterator[TestedSlice]:
        for one, lines in purchases:
            placed = recommendations.tested_customers(_placed(home, before, one), n_before)
            own = lines.join(placed, on="customer_id", how="semi")
            later = own.filter(pl.col("invoiced_at") >= cut)
            yield TestedSlice(
                recommendations.list_pairs(own, until=cut),
                recommendations.list_pairs(later, until=window.as_of),
                placed,
            )

    tastes = _learn_tastes(buyers, purchases, cut)
    return recommendations.choose_method(
        tested(), buyers, tastes, cut=cut, as_of=window.as_of, n_items=configured.n_items
    )


def _placed(home: OpenHome, keys: Sequence[str], within: IdRange) -> pl.DataFrame:
    """``customer_id`` and ``segment_id`` of some customers at a snapshot, or at none."""
    return home.tables.read(SEGMENT_ASSIGNMENTS, keys, _PLACED, within)
