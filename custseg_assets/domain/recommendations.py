"""What to offer to a customer: products that are popular lately and that the customer has not bought.

Popularity counts customers, not units or lines, so one wholesaler does not decide what everybody is offered. Counts
and weights are summed as whole numbers, so the same data give the same scores for any number of threads, and for any
slices of customers: first the purchases of each slice are counted, then each slice is offered what all of them buy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.schemas import PRODUCT_RECOMMENDATIONS
from custseg_assets.domain.transactions.features import MICRO

Method = Literal["global_all", "global_recent", "segment_recent"]
METHODS: tuple[Method, ...] = get_args(Method)
"""The ways to rank products, simplest first.

* ``global_all``: customers of the whole shop who bought the product.
* ``global_recent``: of those, the ones who did in the last 30 days.
* ``segment_recent``: share of the customer's segment who bought the product for the first time, each first purchase
  counting half as much every half-life, smoothed towards the whole shop's share. A segment with few or no purchases
  (Lapsed, Refunded) is therefore offered what the whole shop began to buy lately.
"""
DEFAULT_METHOD: Method = "segment_recent"

RECENT_DAYS = 30
PRIOR_CUSTOMERS = 400
"""Customers of average taste that are added to every segment, to smooth its shares.

On Online Retail, hit rates at five cuts from June to October 2011 rise up to here and hardly beyond.
"""
MIN_TEST_CUSTOMERS = 30
"""With fewer, the 95 % interval of a hit rate of a quarter is 30 points wide or more: too wide to compare methods."""

TESTED_AT_MOST = 2_000_000
"""Of so many customers those who bought anything new are tested. Where there are more, some of them are, as many as if
there were no more: hit rates that differ by a fifth of a point can still be told apart."""


def recommend(
    purchases: pl.DataFrame | pl.LazyFrame,
    assignments: pl.DataFrame,
    *,
    as_of: datetime,
    n_items: int,
    method: Method,
    half_life_days: float,
) -> pl.DataFrame:
    """The products to offer to every customer of a snapshot, where the purchases of all of them are in memory.

    A customer gets fewer than ``n_items`` only when nothing else is left in the catalogue. Equal scores are ordered by
    all-time buyers, then by product id.

    Args:
        purchases: lines of the window with customer_id, product_id, description, invoiced_at and is_cancellation.
        assignments: one row per customer with customer_id and segment_id.
        as_of: first instant not observed; later lines are left out.
        n_items: products per customer.
        method: how products are ranked.
        half_life_days: after which a first purchase counts half; used by ``segment_recent`` only.

    Returns:
        Columns of ``product_recommendations`` without ``period``, sorted by customer and rank; no rows for a shop that
        has no product ids. ``score`` is a number of customers, or for ``segment_recent`` a decayed share of them.
    """
    pairs, descriptions = list_pairs(purchases, until=as_of), list_descriptions(purchases, until=as_of)
    ranking = count_buyers(pairs, assignments, as_of, half_life_days).rank(method)
    return offer_products(assignments, pairs, ranking, descriptions, n_items, method)


def _orders(purchases: pl.DataFrame | pl.LazyFrame, *, until: datetime) -> pl.LazyFrame:
    is_order = ~pl.col("is_cancellation") & pl.col("product_id").is_not_null()
    return purchases.lazy().filter(is_order, pl.col("invoiced_at") < until)


def list_pairs(purchases: pl.DataFrame | pl.LazyFrame, *, until: datetime) -> pl.DataFrame:
    """Each customer and product once, with the instants of the first and the last purchase.

    Args:
        purchases: as in ``recommend``; of some customers, or of some of the time.
        until: first instant that does not count.

    Returns:
        ``customer_id``, ``product_id``, ``first_at`` and ``last_at``, in any order.
    """
    at = pl.col("invoiced_at")
    orders = _orders(purchases, until=until)
    return orders.group_by("customer_id", "product_id").agg(first_at=at.min(), last_at=at.max()).collect()


def list_descriptions(purchases: pl.DataFrame | pl.LazyFrame, *, until: datetime) -> pl.DataFrame:
    """Each product's most recent text; of several at the same instant, the first in the alphabet.

    Args:
        purchases: as in ``recommend``.
        until: first instant that does not count.

    Returns:
        ``product_id`` and ``description``.
    """
    described = _orders(purchases, until=until).filter(pl.col("description").is_not_null())
    newest = described.group_by("product_id").agg(pl.col("invoiced_at").max())
    texts = described.join(newest, on=["product_id", "invoiced_at"]).group_by("product_id")
    return texts.agg(pl.col("description").min()).collect(engine="streaming")


@dataclass(frozen=True)
class Buyers:
    """How many customers bought what; adds up over slices of customers.

    Attributes:
        products: ``product_id``, and over everybody ``n_buyers``, ``n_recent`` and ``shop_weight``.
        in_segments: ``segment_id``, ``product_id`` and ``segment_weight``.
        segments: ``segment_id`` of every segment that somebody is in, and ``n_segment``, how many of its customers
            bought anything.
        n_customers: who bought anything.
    """

    products: pl.DataFrame
    in_segments: pl.DataFrame
    segments: pl.DataFrame
    n_customers: int

    def rank(self, method: Method) -> Ranking:
        """Every product's score in every segment, and its position there, from 1; equal ones by buyers, then by id."""
        every = self.segments.join(self.products, how="cross")
        order = every.join(self.in_segments, on=["segment_id", "product_id"], how="left").with_columns(
            self._score(method).alias("score")
        )
        order = order.sort("segment_id", "score", "n_buyers", "product_id", descending=[False, True, True, False])
        segments, products = (order[name].unique().sort() for name in ("segment_id", "product_id"))
        shape = len(segments), len(products)
        number = {product_id: code for code, product_id in enumerate(products)}
        codes = order["product_id"].replace_strict(number, return_dtype=pl.Int64).to_numpy().reshape(shape)
        return Ranking(segments, products, codes, order["score"].to_numpy().reshape(shape))

    def _score(self, method: Method) -> pl.Expr:
        if method != "segment_recent":
            return pl.col("n_buyers" if method == "global_all" else "n_recent").cast(pl.Float64)
        shop_share = pl.col("shop_weight") / self.n_customers
        smoothed = pl.col("segment_weight").fill_null(0) + PRIOR_CUSTOMERS * shop_share
        return smoothed / (pl.col("n_segment") + PRIOR_CUSTOMERS) / MICRO


def count_buyers(pairs: pl.DataFrame, assignments: pl.DataFrame, as_of: datetime, half_life_days: float) -> Buyers:
    """Count what some customers bought, all or a slice of them.

    Args:
        pairs: of these customers, see ``list_pairs``; who has no segment counts for the whole shop only.
        assignments: ``customer_id`` and ``segment_id`` of these customers.
        as_of: first instant not observed.
        half_life_days: after which a first purchase counts half.
    """
    days_known = (pl.lit(as_of) - pl.col("first_at")).dt.total_days()
    weight = ((days_known * (-math.log(2) / half_life_days)).exp() * MICRO).round().cast(pl.Int64)
    is_recent = pl.col("last_at") >= as_of - timedelta(days=RECENT_DAYS)
    weighted = pairs.select("customer_id", "product_id", is_recent.alias("is_recent"), weight.alias("weight"))
    products = weighted.group_by("product_id").agg(
        n_buyers=pl.len().cast(pl.Int64),
        n_recent=pl.col("is_recent").sum().cast(pl.Int64),
        shop_weight=pl.col("weight").sum(),
    )
    segments = _segments(assignments).cast({"customer_id": pairs.schema["customer_id"]})
    in_segments = weighted.join(segments, on="customer_id").group_by("segment_id", "product_id")
    buyers = pairs.select("customer_id").unique()
    n_segment = buyers.join(segments, on="customer_id").group_by("segment_id").agg(n_segment=pl.len().cast(pl.Int64))
    of_segments = segments.select("segment_id").unique().join(n_segment, on="segment_id", how="left")
    return Buyers(
        products.cast({"product_id": pl.String}),
        in_segments.agg(segment_weight=pl.col("weight").sum()).cast({"product_id": pl.String}),
        of_segments.with_columns(pl.col("n_segment").fill_null(0)),
        buyers.height,
    )


def _segments(assignments: pl.DataFrame) -> pl.DataFrame:
    return assignments.select("customer_id", pl.col("segment_id").fill_null(""))


def add_buyers(parts: Iterable[Buyers]) -> Buyers:
    """The sum of what slices of customers bought.

    Args:
        parts: at least one; no customer is in two.
    """
    total: Buyers | None = None
    for part in parts:
        total = part if total is None else _add_two(total, part)
    if total is None:
        raise ValueError("no slices to add up")
    return total


def _add_two(one: Buyers, other: Buyers) -> Buyers:
    def add(first: pl.DataFrame, second: pl.DataFrame, *by: str) -> pl.DataFrame:
        return pl.concat([first, second]).group_by(by).agg(pl.all().sum())

    return Buyers(
        add(one.products, other.products, "product_id"),
        add(one.in_segments, other.in_segments, "segment_id", "product_id"),
        add(one.segments, other.segments, "segment_id"),
        one.n_customers + other.n_customers,
    )


@dataclass(frozen=True)
class Ranking:
    """The products of each segment, the one to offer first at the begin.

    Attributes:
        segments: ids, one per row of the arrays.
        products: ids, in the order of their numbers.
        order: numbers of the products, shape (segments, products).
        scores: of the products in that order, the same shape.
    """

    segments: pl.Series
    products: pl.Series
    order: NDArray[np.int64]
    scores: NDArray[np.float64]


def offer_products(
    assignments: pl.DataFrame,
    pairs: pl.DataFrame,
    ranking: Ranking,
    descriptions: pl.DataFrame,
    n_items: int,
    method: Method,
) -> pl.DataFrame:
    """What ``recommend`` returns, of some customers.

    Args:
        assignments: ``customer_id`` and ``segment_id`` of the customers.
        pairs: what they bought.
        ranking: of the whole shop.
        descriptions: see ``list_descriptions``.
        n_items: products per customer.
        method: of the ranking.
    """
    return (
        _pick_new(_segments(assignments), pairs, ranking, n_items)
        .join(descriptions.cast({"product_id": pl.String}), on="product_id", how="left")
        .with_columns(pl.lit(method).alias("method"))
        .select(column.name for column in PRODUCT_RECOMMENDATIONS.content)
        .sort("customer_id", "rank")
    )


def _pick_new(members: pl.DataFrame, pairs: pl.DataFrame, ranking: Ranking, n_items: int) -> pl.DataFrame:
    """The first ``n_items`` of each member's ranking that it has not bought: customer_id, product_id, score, rank.

    Of the products that a member bought, the j-th in the order of its ranking has (position − j) others before it.
    Those with fewer than r others before them stand before the r-th that is new, which is at the position r plus their
    number. So a member costs ``n_items`` numbers and its purchases, whatever the size of the catalogue.
    """
    if not len(ranking.products) or members.is_empty():
        return pl.DataFrame(schema={**_OFFERED})
    codes = {segment_id: code for code, segment_id in enumerate(ranking.segments)}
    segment = members["segment_id"].replace_strict(codes, return_dtype=pl.Int64).to_numpy()
    others_before = _count_others_before(members, segment, pairs, ranking, n_items)
    # Positions count from 0 here.
    positions = np.arange(n_items) + np.cumsum(others_before, axis=1)
    member, rank = np.nonzero(positions < len(ranking.products))
    found = positions[member, rank]
    return pl.DataFrame(
        {
            "customer_id": members["customer_id"].gather(member),
            "product_id": ranking.products.gather(ranking.order[segment[member], found]),
            "score": ranking.scores[segment[member], found],
            "rank": rank + 1,
        }
    )


_OFFERED = {"customer_id": pl.String, "product_id": pl.String, "score": pl.Float64, "rank": pl.Int64}


def _count_others_before(
    members: pl.DataFrame, segment: NDArray[np.int64], pairs: pl.DataFrame, ranking: Ranking, n_items: int
) -> NDArray[np.int64]:
    """Of each member, how many bought products have 0, 1 … ``n_items`` − 1 others before them: (members, n_items)."""
    product_id, customer_id = (pairs.schema[name] for name in ("product_id", "customer_id"))
    numbers = ranking.products.cast(product_id).to_frame("product_id").with_row_index("product")
    rows = members.select(pl.col("customer_id").cast(customer_id)).with_row_index("member")
    bought = pairs.select("customer_id", "product_id").join(rows, on="customer_id").join(numbers, on="product_id")
    position_of = np.argsort(ranking.order, axis=1)
    member, product = (bought[name].to_numpy().astype(np.int64) for name in ("member", "product"))
    position = position_of[segment[member], product]
    by_position = np.lexsort([position, member])
    member, position = member[by_position], position[by_position]
    n_bought = np.bincount(member, minlength=members.height)
    place = np.arange(len(member)) - np.repeat(np.cumsum(n_bought) - n_bought, n_bought)
    others = position - place
    counts = np.zeros((members.height, n_items), np.int64)
    in_way = others < n_items
    np.add.at(counts, (member[in_way], others[in_way]), 1)
    return counts


@dataclass(frozen=True)
class MethodScore:
    """The hit rate of one method.

    Attributes:
        method: its name.
        n_hits: test customers who bought at least one of the offered products.
        hit_rate: their share of the test customers.
        low: lower end of its 95 % Wilson interval.
        high: upper end of that interval.
    """

    method: Method
    n_hits: int
    hit_rate: float
    low: float
    high: float


@dataclass(frozen=True)
class RecommendationEvaluation:
    """The comparison of the methods, and the one to use.

    Attributes:
        cut: first instant of the test; methods are given only what is before it.
        as_of: first instant after the test.
        n_items: products offered to each customer.
        n_customers: test customers, who bought something new between the two.
        scores: one per method, simplest first; empty without enough test customers.
        winner: method with the highest hit rate, the simpler one of equals; the default without enough customers.
        sentence: the outcome in words.
    """

    cut: datetime
    as_of: datetime
    n_items: int
    n_customers: int
    scores: tuple[MethodScore, ...]
    winner: Method
    sentence: str


def evaluate(
    purchases: pl.DataFrame | pl.LazyFrame,
    assignments: pl.DataFrame,
    *,
    as_of: datetime,
    half_life_days: float,
    horizon_days: int = 30,
    n_items: int = 3,
) -> RecommendationEvaluation:
    """Which method predicts best what customers buy next, where the purchases of all of them are in memory.

    See ``Evaluation``.

    Args:
        purchases: as in ``recommend``.
        assignments: segments at ``as_of − horizon_days``; later ones would already depend on purchases in the test.
        as_of: first instant not observed.
        half_life_days: as in ``recommend``.
        horizon_days: length of the test.
        n_items: products offered to each customer.
    """
    cut = as_of - timedelta(days=horizon_days)
    later = purchases.lazy().filter(pl.col("invoiced_at") >= cut)
    one = TestedSlice(list_pairs(purchases, until=cut), list_pairs(later, until=as_of), assignments)
    buyers = count_buyers(one.train, assignments, cut, half_life_days)
    return choose_method([one], buyers, cut=cut, as_of=as_of, n_items=n_items)


@dataclass(frozen=True)
class TestedSlice:
    """Customers that methods are tried on.

    Attributes:
        train: what they bought before the test, see ``list_pairs``.
        later: what they bought in it.
        assignments: ``customer_id`` and ``segment_id`` at its begin.
    """

    train: pl.DataFrame
    later: pl.DataFrame
    assignments: pl.DataFrame

    __test__ = False

    def new_purchases(self) -> pl.DataFrame:
        """Customer and product of what was bought for the first time in the test."""
        pairs = self.later.select("customer_id", "product_id")
        new = pairs.join(self.train, on=["customer_id", "product_id"], how="anti")
        return new.cast({"customer_id": pl.String, "product_id": pl.String})


def choose_method(
    slices: Iterable[TestedSlice], buyers: Buyers, *, cut: datetime, as_of: datetime, n_items: int
) -> RecommendationEvaluation:
    """Which method predicts best what customers buy next, by a split in time.

    Methods are given the purchases before the cut. A hit is a customer who in the test buys at least one of the offered
    products for the first time in the window. Customers who buy nothing new are not tested.

    Args:
        slices: the customers to try the methods on, each in one of them; see ``tested_customers``.
        buyers: what everybody bought before the cut.
        cut: first instant of the test.
        as_of: first instant after it.
        n_items: products offered to each customer.
    """
    rankings = {method: buyers.rank(method) for method in METHODS}
    n_tested, n_hits = 0, dict.fromkeys(METHODS, 0)
    for one in slices:
        new = one.new_purchases()
        test = _segments(one.assignments).join(new, on="customer_id", how="semi")
        n_tested += test.height
        for method, ranking in rankings.items():
            offers = _pick_new(test, one.train, ranking, n_items)
            who_hit = offers.join(new, on=["customer_id", "product_id"], how="semi")["customer_id"]
            n_hits[method] += who_hit.n_unique()
    if n_tested < MIN_TEST_CUSTOMERS or not buyers.n_customers:
        sentence = (
            f"Not enough data to compare recommendation methods: {n_tested} customers bought something new between "
            f"{cut:%Y-%m-%d} and {as_of:%Y-%m-%d}, {MIN_TEST_CUSTOMERS} are needed; {DEFAULT_METHOD} is used."
        )
        return RecommendationEvaluation(cut, as_of, n_items, n_tested, (), DEFAULT_METHOD, sentence)

    from scipy.stats import binomtest

    scores = []
    for method in METHODS:
        hits = n_hits[method]
        interval = binomtest(hits, n_tested).proportion_ci(method="wilson")
        scores.append(MethodScore(method, hits, hits / n_tested, *map(float, interval)))
    # max() keeps the first of equals, and METHODS has the simplest first.
    winner = max(scores, key=lambda score: score.n_hits)
    sentence = _sentence(winner, scores, n_tested, n_items)
    return RecommendationEvaluation(cut, as_of, n_items, n_tested, tuple(scores), winner.method, sentence)


def tested_customers(assignments: pl.DataFrame, n_customers: int) -> pl.DataFrame:
    """The customers to try methods on: all, or of more than ``TESTED_AT_MOST`` a part that a digest of the ids decides.

    Args:
        assignments: of all customers or of a slice of them.
        n_customers: how many there are in all.
    """
    share = TESTED_AT_MOST / max(n_customers, 1)
    if share >= 1:
        return assignments
    # The same everywhere and for ever, unlike the hashes of Python and Polars.
    is_in = [zlib.crc32(one.encode()) < share * 2**32 for one in assignments["customer_id"].to_list()]
    return assignments.filter(pl.Series(is_in, dtype=pl.Boolean))


def _sentence(winner: MethodScore, scores: list[MethodScore], n_customers: int, n_items: int) -> str:
    others = sorted((score for score in scores if score is not winner), key=lambda score: -score.n_hits)
    against = " and ".join(f"{score.hit_rate:.1%} ({score.method})" for score in others)
    caveat = "" if others[0].hit_rate < winner.low else "; the lead is within its 95 % interval"
    return (
        f"{winner.method} won: {winner.hit_rate:.1%} of {n_customers} customers bought one of the {n_items} products "
        f"it would have offered ({winner.low:.1%} to {winner.high:.1%}), against {against}{caveat}."
    )
