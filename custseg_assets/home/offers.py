"""What to offer to the customers of a home, and what its segments buy, by the rules in the domain.

Who bought what is read in ``purchases``; how products are ranked belongs in ``domain.recommendations``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from custseg_assets.domain import recommendations
from custseg_assets.domain.purchases import Pairs
from custseg_assets.domain.recommendations import Buyers, RecommendationEvaluation, TestedSlice
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, SEGMENT_ASSIGNMENTS
from custseg_assets.domain.segments.products import products_of_segments
from custseg_assets.domain.slices import IdRange
from custseg_assets.domain.tastes import Tastes
from custseg_assets.home.open import OpenHome
from custseg_assets.home.purchases import Purchases, PurchasesInWindow

LINES_AT_ONCE = 4_000_000
"""Lines of a window, on average, that offers are made from in memory; they take some 200 bytes each. More at once take
longer: the system has to find the memory anew for every step."""
_PLACED = ("customer_id", "segment_id")


class Outcome(NamedTuple):
    """What becomes known of a snapshot besides its offers.

    Attributes:
        sentence: how the method was chosen, in words.
        segment_products: what ``domain.segments.products`` returns.
    """

    sentence: str
    segment_products: pl.DataFrame


def offer(home: OpenHome, key: str, purchases: Purchases, outcomes: dict[str, Outcome]) -> Iterator[pl.DataFrame]:
    """The offers of a snapshot, by the method that would have done best on its period, so far as that goes.

    Args:
        home: whose customers they are.
        key: of the snapshot.
        purchases: of the home.
        outcomes: gets what else becomes known, by the snapshot's key.

    Yields:
        What ``domain.recommendations.recommend`` returns, a slice of customers at a time.
    """
    window, configured = home.calendar.window(key), home.settings.recommendations
    cut, until = datetime.fromisoformat(key), window.as_of
    within = purchases.within(window)
    outcome = _choose_method(home, key, within, cut, until)
    buyers = _count_buyers(home, [key], within, until)
    stand_out = products_of_segments(buyers.in_segments, buyers.products, within.descriptions)
    outcomes[key] = Outcome(outcome.sentence, stand_out)
    tastes = _learn_tastes(buyers, within, until) if outcome.winner == "personal" else None
    ranking = buyers.rank(outcome.winner, tastes)
    for one, pairs in within:
        placed = _placed(home, [key], one)
        yield recommendations.offer_products(
            placed, pairs, ranking, within.descriptions, configured.n_items, outcome.winner
        )


_Slices = Iterable[tuple[IdRange, Pairs]]


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
    home: OpenHome, key: str, slices: PurchasesInWindow, cut: datetime, until: datetime
) -> RecommendationEvaluation:
    before = home.snapshots_before(key)[-1:]
    n_before = sum(home.tables.sizes(SEGMENT_ASSIGNMENTS).get(one, 0) for one in before)

    def known() -> Iterator[tuple[IdRange, Pairs]]:
        for one, pairs in slices:
            yield one, pairs.before(cut)

    def tested() -> Iterator[TestedSlice]:
        for one, pairs in slices:
            yield TestedSlice(pairs, recommendations.tested_customers(_placed(home, before, one), n_before))

    buyers = _count_buyers(home, before, known(), cut)
    tastes = _learn_tastes(buyers, known(), cut)
    n_items = home.settings.recommendations.n_items
    return recommendations.choose_method(tested(), buyers, tastes, cut=cut, as_of=until, n_items=n_items)


def ranges_of_offers(home: OpenHome, keys: Sequence[str]) -> tuple[IdRange, ...]:
    """Ranges of ids that the offers of snapshots are made by; one for all where their lines are few."""
    sizes = home.tables.sizes(CLEAN_TRANSACTIONS)
    n_lines = max(sum(sizes.get(period, 0) for period in home.calendar.window(key).keys) for key in keys)
    return home.tables.id_ranges(SEGMENT_ASSIGNMENTS, keys[-1], at_least=math.ceil(n_lines / LINES_AT_ONCE))


def _placed(home: OpenHome, keys: Sequence[str], within: IdRange) -> pl.DataFrame:
    """``customer_id`` and ``segment_id`` of some customers at a snapshot, or at none."""
    return home.tables.read(SEGMENT_ASSIGNMENTS, keys, _PLACED, within)
