"""What to offer to the customers of a home, and what segments buy: purchases of a window, for the rules in the domain.

A large shop's purchases are first put into a scratch folder, by slices of customers, in one pass over the log; what is
done after that reads a slice at a time. How products are ranked belongs in ``domain.recommendations``.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from custseg_assets.domain import recommendations
from custseg_assets.domain.periods import Window
from custseg_assets.domain.recommendations import Buyers, RecommendationEvaluation, TestedSlice
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, SEGMENT_ASSIGNMENTS
from custseg_assets.domain.segments.products import products_of_segments
from custseg_assets.domain.slices import IdRange
from custseg_assets.domain.tastes import Tastes
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.stores.files import scratch_folder

_SCRATCH = ".purchases-"
LINES_AT_ONCE = 4_000_000
"""Lines of a window, on average, that offers are made from in memory; they take some 250 bytes each."""
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


class Outcome(NamedTuple):
    """What becomes known of a snapshot besides its offers.

    Attributes:
        sentence: how the method was chosen, in words.
        segment_products: what ``domain.segments.products`` returns.
    """

    sentence: str
    segment_products: pl.DataFrame


def offer_to_all(home: OpenHome, key: str, purchases: pl.DataFrame) -> tuple[pl.DataFrame, Outcome]:
    """The offers of a snapshot, by the method that would have done best on its period, so far as that goes.

    Args:
        home: whose customers they are.
        key: of the snapshot.
        purchases: lines of its window.

    Returns:
        What ``domain.recommendations.recommend`` returns, and what else became known.
    """
    window, configured = home.calendar.window(key), home.settings.recommendations
    cut, half_life_days = datetime.fromisoformat(key), configured.half_life_days
    pairs = recommendations.list_pairs(purchases, until=window.as_of, cut=cut)
    descriptions = recommendations.list_descriptions(purchases, until=window.as_of)
    before = home.tables.read(SEGMENT_ASSIGNMENTS, home.snapshots_before(key)[-1:], _PLACED)
    outcome = recommendations.evaluate_pairs(pairs, before, cut, window.as_of, configured.n_items, half_life_days)
    now = home.tables.read(SEGMENT_ASSIGNMENTS, [key], _PLACED)
    buyers = recommendations.count_buyers(pairs, now, window.as_of, half_life_days)
    offers = recommendations.offer_new(
        pairs, descriptions, now, buyers, window.as_of, configured.n_items, outcome.winner
    )
    return offers, Outcome(outcome.sentence, _stand_out(buyers, descriptions))


def _stand_out(buyers: Buyers, descriptions: pl.DataFrame) -> pl.DataFrame:
    return products_of_segments(buyers.in_segments, buyers.products, descriptions)


class PairsInSlices:
    """Who bought what within a window, by slices of customers, in a scratch folder.

    Args:
        home: whose log it is.
        window: of the snapshot.
        cut: begin of the test of methods.
        ranges: of ids, which cover every id.
        folder: empty.
    """

    def __init__(self, home: OpenHome, window: Window, cut: datetime, ranges: Sequence[IdRange], folder: Path) -> None:
        self._ranges, self._folder = ranges, folder
        lines = home.tables.scan(CLEAN_TRANSACTIONS, window.keys).filter(_is_within(window))
        starts = pl.Series([one.start for one in ranges[1:]], dtype=pl.String)

        def number_of(ids: pl.Series) -> pl.Series:
            return starts.search_sorted(ids, side="right").cast(pl.UInt32)

        number = pl.col("customer_id").map_batches(number_of, return_dtype=pl.UInt32, is_elementwise=True)
        lines.select(*_LINE_COLUMNS, slice=number).sink_parquet(pl.PartitionBy(folder, key="slice", include_key=False))
        nothing = CLEAN_TRANSACTIONS.schema.to_frame().select(_LINE_COLUMNS).lazy()
        for place in range(len(ranges)):
            files = sorted((folder / f"slice={place}").glob("*.parquet"))
            own = pl.scan_parquet(files, glob=False, hive_partitioning=False) if files else nothing
            coded = own.with_columns(pl.col("customer_id", "product_id").cast(pl.Categorical))
            recommendations.list_pairs(coded, until=window.as_of, cut=cut).write_parquet(self._path_of(place))
            shutil.rmtree(folder / f"slice={place}", ignore_errors=True)
        self.descriptions = recommendations.list_descriptions(lines, until=window.as_of)

    def _path_of(self, place: int) -> Path:
        return self._folder / f"pairs-{place}.parquet"

    def __iter__(self) -> Iterator[tuple[IdRange, pl.DataFrame]]:
        """The ranges, each with the pairs of its customers."""
        for place, one in enumerate(self._ranges):
            yield one, pl.read_parquet(self._path_of(place), glob=False)


def offer_in_slices(
    home: LockedHome, key: str, ranges: Sequence[IdRange], outcomes: dict[str, Outcome]
) -> Iterator[pl.DataFrame]:
    """What ``offer_to_all`` returns, a slice of customers at a time.

    Args:
        home: whose customers they are.
        key: of the snapshot.
        ranges: of ids, which cover every id.
        outcomes: gets what else becomes known, by the snapshot's key.
    """
    window, configured = home.calendar.window(key), home.settings.recommendations
    cut, until = datetime.fromisoformat(key), window.as_of
    with scratch_folder(home.paths.root, _SCRATCH) as folder:
        slices = PairsInSlices(home, window, cut, ranges, folder)
        outcome = _choose_method(home, key, slices, cut, until)
        buyers = _count_buyers(home, [key], slices, until)
        outcomes[key] = Outcome(outcome.sentence, _stand_out(buyers, slices.descriptions))
        tastes = _learn_tastes(buyers, slices, until) if outcome.winner == "personal" else None
        ranking = buyers.rank(outcome.winner, tastes)
        for one, pairs in slices:
            placed = _placed(home, [key], one)
            yield recommendations.offer_products(
                placed, pairs, ranking, slices.descriptions, configured.n_items, outcome.winner
            )


_Slices = Iterable[tuple[IdRange, pl.DataFrame]]


def _count_buyers(home: OpenHome, keys: Sequence[str], slices: _Slices, until: datetime) -> Buyers:
    """Count what everybody bought until an instant, by the segments at a snapshot."""
    half_life_days = home.settings.recommendations.half_life_days
    return recommendations.add_buyers(
        recommendations.count_buyers(pairs, _placed(home, keys, one), until, half_life_days) for one, pairs in slices
    )


def _learn_tastes(buyers: Buyers, slices: _Slices, until: datetime) -> Tastes:
    """What goes with what, by all purchases until an instant."""
    parts = (buyers.bought_together(pairs) for _, pairs in slices)
    return buyers.learn_tastes(functools.reduce(np.add, parts), until)


def _choose_method(
    home: OpenHome, key: str, slices: PairsInSlices, cut: datetime, until: datetime
) -> RecommendationEvaluation:
    before = home.snapshots_before(key)[-1:]
    n_before = sum(home.tables.sizes(SEGMENT_ASSIGNMENTS).get(one, 0) for one in before)

    def known() -> Iterator[tuple[IdRange, pl.DataFrame]]:
        for one, pairs in slices:
            yield one, recommendations.pairs_before(pairs, cut)

    def tested() -> Iterator[TestedSlice]:
        for one, pairs in slices:
            yield TestedSlice(pairs, recommendations.tested_customers(_placed(home, before, one), n_before))

    buyers = _count_buyers(home, before, known(), cut)
    tastes = _learn_tastes(buyers, known(), cut)
    n_items = home.settings.recommendations.n_items
    return recommendations.choose_method(tested(), buyers, tastes, cut=cut, as_of=until, n_items=n_items)


def ranges_of_offers(home: OpenHome, key: str) -> tuple[IdRange, ...]:
    """Ranges of ids that a snapshot's offers are made by; one for all where its lines are few."""
    sizes = home.tables.sizes(CLEAN_TRANSACTIONS)
    n_lines = sum(sizes.get(period, 0) for period in home.calendar.window(key).keys)
    return home.tables.id_ranges(SEGMENT_ASSIGNMENTS, key, at_least=math.ceil(n_lines / LINES_AT_ONCE))


def _placed(home: OpenHome, keys: Sequence[str], within: IdRange) -> pl.DataFrame:
    """``customer_id`` and ``segment_id`` of some customers at a snapshot, or at none."""
    return home.tables.read(SEGMENT_ASSIGNMENTS, keys, _PLACED, within)
