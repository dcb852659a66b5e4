"""What to offer to a customer: products that it will take to or that are popular lately, and that it has not bought.

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
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.purchases import Numbers, Pairs, list_descriptions, list_pairs, place_in, present
from custseg_assets.domain.rates import wilson_interval
from custseg_assets.domain.schemas import PRODUCT_RECOMMENDATIONS
from custseg_assets.domain.tastes import LEARNT_FROM_AT_MOST, MOST_BOUGHT, Tastes, count_together, learn
from custseg_assets.domain.transactions.features import MICRO

Method = Literal["global_all", "global_recent", "segment_recent", "personal"]
METHODS: tuple[Method, ...] = get_args(Method)
"""The ways to rank products, simplest first.

* ``global_all``: customers of the whole shop who bought the product.
* ``global_recent``: of those, the ones who did in the last 30 days.
* ``segment_recent``: share of the customer's segment who bought the product for the first time, each first purchase
  counting half as much every half-life, smoothed towards the whole shop's share. A segment with few or no purchases
  (Lapsed, Refunded) is therefore offered what the whole shop began to buy lately.
* ``personal``: what customers bought who bought the same, mixed with who bought the product lately, of the 600
  products with most buyers, see ``tastes``; after those, as ``segment_recent``.
"""
DEFAULT_METHOD: Method = "personal"
"""With few purchases to learn from it is little else than what is popular lately."""

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
        half_life_days: after which a purchase counts half; used by ``segment_recent`` and ``personal``.

    Returns:
        Columns of ``product_recommendations`` without ``period``, sorted by customer and rank; no rows for a shop that
        has no product ids. ``score`` is a number of customers, for ``segment_recent`` a decayed share of them, and for
        ``personal`` standard deviations.
    """
    pairs, descriptions = list_pairs(purchases, until=as_of), list_descriptions(purchases, until=as_of)
    buyers = count_buyers(pairs, assignments, as_of, half_life_days)
    return offer_new(pairs, descriptions, assignments, buyers, as_of, n_items, method)


def offer_new(
    pairs: Pairs,
    descriptions: pl.DataFrame,
    assignments: pl.DataFrame,
    buyers: Buyers,
    as_of: datetime,
    n_items: int,
    method: Method,
) -> pl.DataFrame:
    """What ``recommend`` returns, of everybody's pairs, and of buyers and descriptions that are known already."""
    tastes = buyers.learn_tastes(buyers.bought_together(pairs), as_of) if method == "personal" else None
    ranking = buyers.rank(method, tastes)
    return offer_products(assignments, pairs, ranking, descriptions, n_items, method)


@dataclass(frozen=True)
class Buyers:
    """How many customers bought what; adds up over slices of customers.

    Attributes:
        products: ``product_id``, and over everybody ``n_buyers``, ``n_recent``, ``shop_weight`` of first purchases and
            ``last_weight`` of last ones.
        in_segments: ``segment_id``, ``product_id``, ``segment_weight`` and ``n_buyers`` of the segment.
        segments: ``segment_id`` of every segment that somebody is in, and ``n_segment``, how many of its customers
            bought anything.
        n_customers: who bought anything.
    """

    products: pl.DataFrame
    in_segments: pl.DataFrame
    segments: pl.DataFrame
    n_customers: int

    def most_bought(self) -> pl.Series:
        """Ids of the products with most buyers that tastes are learnt of, in their own order."""
        most = self.products.sort("n_buyers", "product_id", descending=[True, False]).head(MOST_BOUGHT)
        return most["product_id"].sort()

    def bought_together(self, pairs: Pairs) -> NDArray[np.int64]:
        """How many customers bought two of the most bought products both; adds up over slices of customers.

        Args:
            pairs: of some customers; of many, those of a part that a digest of the ids decides.
        """
        products, customers = self.most_bought(), pairs.buyers().to_frame("customer_id")
        learnt_from = _part_of(customers, self.n_customers, LEARNT_FROM_AT_MOST)
        who, what, _ = pairs.places_of(learnt_from["customer_id"], products)
        return count_together(who, what, len(products))

    def learn_tastes(self, n_both: NDArray[np.int64], as_of: datetime) -> Tastes:
        """What goes with what among the most bought products.

        Args:
            n_both: sum of ``bought_together`` over all customers.
            as_of: as in ``count_buyers``.
        """
        products = self.products.sort("product_id")
        numbers = products["product_id"].search_sorted(self.most_bought()).to_numpy().astype(np.int64)
        of_most = products[numbers]
        n_customers = min(self.n_customers, LEARNT_FROM_AT_MOST)
        lately = of_most["last_weight"].to_numpy() / MICRO
        return learn(numbers, n_both, n_customers, of_most["n_buyers"].to_numpy(), lately, as_of)

    def rank(self, method: Method, tastes: Tastes | None = None) -> Ranking:
        """Every product's score in every segment, best first; equal ones by buyers, then by id.

        Args:
            method: how.
            tastes: see ``learn_tastes``; they come first where the method is ``personal``.
        """
        segments, products = self.segments.sort("segment_id"), self.products.sort("product_id")
        scores = self._scores(method, segments, products)
        n_buyers = np.broadcast_to(products["n_buyers"].to_numpy(), scores.shape)
        # A stable sort, and products are in the order of their ids.
        order = np.lexsort((-n_buyers, -scores), axis=1)
        in_order = np.take_along_axis(scores, order, axis=1)
        own = tastes if method == "personal" else None
        return Ranking(segments["segment_id"], products["product_id"], order, in_order, own)

    def _scores(self, method: Method, segments: pl.DataFrame, products: pl.DataFrame) -> NDArray[np.float64]:
        """Of each product in each segment, shape (segments, products)."""
        shape = segments.height, products.height
        if method in ("global_all", "global_recent"):
            counted = products["n_buyers" if method == "global_all" else "n_recent"].to_numpy()
            return np.broadcast_to(counted.astype(np.float64), shape)
        weight = np.zeros(shape)
        segment = segments["segment_id"].search_sorted(self.in_segments["segment_id"]).to_numpy()
        product = products["product_id"].search_sorted(self.in_segments["product_id"]).to_numpy()
        weight[segment, product] = self.in_segments["segment_weight"].to_numpy()
        # Times the reciprocal, which differs from a division in the last digit: published scores stay what they were.
        shop_share = products["shop_weight"].to_numpy() * (1 / max(self.n_customers, 1))
        n_segment = segments["n_segment"].to_numpy()[:, np.newaxis]
        scores: NDArray[np.float64] = (weight + PRIOR_CUSTOMERS * shop_share) / (n_segment + PRIOR_CUSTOMERS)
        return scores * (1 / MICRO)


def count_buyers(pairs: Pairs, assignments: pl.DataFrame, as_of: datetime, half_life_days: float) -> Buyers:
    """Count what some customers bought, all or a slice of them.

    Args:
        pairs: of these customers; who has no segment counts for the whole shop only.
        assignments: ``customer_id`` and ``segment_id`` of these customers.
        as_of: first instant not observed.
        half_life_days: after which a first purchase counts half.
    """
    placed = _segments(assignments)
    segment_ids = placed["segment_id"].unique().sort()
    of_member = segment_ids.search_sorted(placed["segment_id"]).to_numpy().astype(np.int64)
    member = place_in(pairs.customers, placed["customer_id"])
    # Those without a segment are a group of their own, which counts for the whole shop only.
    group = np.where(member >= 0, of_member[member] if len(of_member) else 0, len(segment_ids))
    shape = len(segment_ids) + 1, len(pairs.products)
    who = pairs.who
    cell = group[who] * len(pairs.products) + pairs.what

    def add_up(weight: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """The sum over the pairs of each group and product; whole numbers below 2⁵³, so it is exact."""
        return np.bincount(cell, weight, shape[0] * shape[1]).astype(np.int64).reshape(shape)

    is_recent = pairs.bought["last_at"] >= as_of - timedelta(days=RECENT_DAYS)
    n_buyers = add_up()
    weight, last_weight = (
        add_up(_weights(pairs.bought[name], as_of, half_life_days)) for name in ("first_at", "last_at")
    )
    n_recent = add_up(is_recent.to_numpy())
    is_bought = n_buyers.any(axis=0)
    products = pl.DataFrame(
        {
            "product_id": pairs.products,
            "n_buyers": n_buyers.sum(axis=0),
            "n_recent": n_recent.sum(axis=0),
            "shop_weight": weight.sum(axis=0),
            "last_weight": last_weight.sum(axis=0),
        }
    ).filter(pl.Series(is_bought))
    segment, product = np.nonzero(n_buyers[:-1])
    in_segments = pl.DataFrame(
        {
            "segment_id": segment_ids.gather(segment),
            "product_id": pairs.products.gather(product),
            "n_buyers": n_buyers[segment, product],
            "segment_weight": weight[segment, product],
        }
    )
    buyers = present(who)
    n_segment = np.bincount(group[buyers], minlength=shape[0])[:-1]
    segments = pl.DataFrame(
        {"segment_id": segment_ids, "n_segment": n_segment}, schema_overrides={"n_segment": pl.Int64}
    )
    return Buyers(products, in_segments, segments, len(buyers))


def _weights(instants: pl.Series, as_of: datetime, half_life_days: float) -> Numbers:
    """What purchases count that are halved every half-life, in whole millionths."""
    days_ago: Numbers = (as_of - instants).dt.total_days().to_numpy()
    of_day = pl.int_range(int(days_ago.max(initial=0)) + 1, eager=True)
    weights = ((of_day * (-math.log(2) / half_life_days)).exp() * MICRO).round().cast(pl.Int64)
    weight: Numbers = weights.to_numpy()[days_ago]
    return weight


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
        tastes: of single customers, which come first where they are known.
    """

    segments: pl.Series
    products: pl.Series
    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    tastes: Tastes | None = None


def offer_products(
    assignments: pl.DataFrame,
    pairs: Pairs,
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
    members = _segments(assignments)
    member, rank, product, score = _pick_new(_Members.find(members, pairs, ranking), ranking, n_items)
    offered = pl.DataFrame(
        {
            "customer_id": members["customer_id"].gather(member),
            "product_id": ranking.products.gather(product),
            "score": score,
            "rank": rank + 1,
        },
        schema_overrides={"rank": pl.Int64},
    )
    return (
        offered.join(descriptions.select("product_id", "description"), on="product_id", how="left")
        .with_columns(pl.lit(method).alias("method"))
        .select(column.name for column in PRODUCT_RECOMMENDATIONS.content)
        .sort("customer_id", "rank")
    )


@dataclass(frozen=True)
class _Members:
    """Customers by their places in a frame, and what they bought by the numbers of a ranking's products.

    Attributes:
        segment: number of each member's segment.
        who: place of the member of each pair, ascending.
        what: number of the product of each pair.
        last_at: instant of the last purchase of each pair.
    """

    segment: NDArray[np.int64]
    who: NDArray[np.int64]
    what: NDArray[np.int64]
    last_at: NDArray[np.datetime64]

    @classmethod
    def find(cls, members: pl.DataFrame, pairs: Pairs, ranking: Ranking) -> _Members:
        """Look up ``customer_id`` and ``segment_id`` of the members, and of all pairs theirs."""
        codes = {segment_id: code for code, segment_id in enumerate(ranking.segments)}
        segment = members["segment_id"].replace_strict(codes, return_dtype=pl.Int64).to_numpy().astype(np.int64)
        return cls(segment, *pairs.places_of(members["customer_id"], ranking.products))

    def only(self, places: NDArray[np.int64], new_number: NDArray[np.int64]) -> _Members:
        """Some of the members, by ascending places, with those products only that have a new number from 0 on."""
        place = np.full(len(self.segment), -1)
        place[places] = np.arange(len(places))
        is_kept = (place[self.who] >= 0) & (new_number[self.what] >= 0)
        who, what = place[self.who[is_kept]], new_number[self.what[is_kept]]
        return _Members(self.segment[places], who, what, self.last_at[is_kept])


def _pick_new(
    members: _Members, ranking: Ranking, n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """What each member has not bought and is offered: member, rank from 0, product, score; sorted by nothing."""
    if ranking.tastes is None:
        return _pick_popular(members, ranking, n_items)
    tastes, n_members = ranking.tastes, len(members.segment)
    place = np.full(len(ranking.products), -1)
    place[tastes.products] = np.arange(len(tastes.products))
    known = members.only(np.arange(n_members), place)
    product, score = tastes.pick(known.who, known.what, known.last_at, n_members, n_items)
    member, rank = np.nonzero(np.isfinite(score))
    product, score = product[member, rank], score[member, rank]
    n_picked = np.bincount(member, minlength=n_members)
    # Who has bought nearly all of those that tastes are known of is a wholesaler, and there are few.
    short = np.flatnonzero(n_picked < n_items)
    if not len(short) or len(tastes.products) == len(ranking.products):
        return member, rank, product, score
    others, numbers = _without_tastes(ranking, place < 0)
    new_number = np.full(len(ranking.products), -1)
    new_number[numbers] = np.arange(len(numbers))
    who, place_in_rest, what, of_rest = _pick_popular(members.only(short, new_number), others, n_items)
    who = short[who]
    rank_in_all = n_picked[who] + place_in_rest
    is_wanted = rank_in_all < n_items
    return (
        np.concatenate([member, who[is_wanted]]),
        np.concatenate([rank, rank_in_all[is_wanted]]),
        np.concatenate([product, numbers[what[is_wanted]]]),
        np.concatenate([score, of_rest[is_wanted]]),
    )


def _without_tastes(ranking: Ranking, is_other: NDArray[np.bool_]) -> tuple[Ranking, NDArray[np.int64]]:
    """The ranking of the products that no tastes are known of, and their numbers in the whole one."""
    others, is_kept = np.flatnonzero(is_other), is_other[ranking.order]
    shape = len(ranking.segments), len(others)
    order = (np.cumsum(is_other) - 1)[ranking.order[is_kept]].reshape(shape)
    scores = ranking.scores[is_kept].reshape(shape)
    return Ranking(ranking.segments, ranking.products.gather(others), order, scores), others


def _pick_popular(
    members: _Members, ranking: Ranking, n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The first ``n_items`` of each member's segment that it has not bought, as ``_pick_new`` returns them.

    Of the products that a member bought, the j-th in the order of its ranking has (position − j) others before it.
    Those with fewer than r others before them stand before the r-th that is new, which is at the position r plus their
    number. So a member costs ``n_items`` numbers and its purchases, whatever the size of the catalogue.
    """
    others_before = _count_others_before(members, ranking, n_items)
    # Positions count from 0 here.
    positions = np.arange(n_items) + np.cumsum(others_before, axis=1)
    member, rank = np.nonzero(positions < len(ranking.products))
    found = positions[member, rank]
    segment = members.segment[member]
    return member, rank, ranking.order[segment, found], ranking.scores[segment, found]


def _count_others_before(members: _Members, ranking: Ranking, n_items: int) -> NDArray[np.int64]:
    """Of each member, how many bought products have 0, 1 … ``n_items`` − 1 others before them: (members, n_items)."""
    n_members = len(members.segment)
    n_bought = np.bincount(members.who, minlength=n_members)
    position = np.argsort(ranking.order, axis=1)[members.segment[members.who], members.what]
    # One further down has n_items others before it, even if all else that was bought stands before it.
    is_near = position < n_items + n_bought[members.who]
    member, position = members.who[is_near], position[is_near]
    by_position = np.lexsort([position, member])
    member, position = member[by_position], position[by_position]
    n_near = np.bincount(member, minlength=n_members)
    place = np.arange(len(member)) - np.repeat(np.cumsum(n_near) - n_near, n_near)
    others = position - place
    is_in_way = others < n_items
    counted = np.bincount(member[is_in_way] * n_items + others[is_in_way], minlength=n_members * n_items)
    return counted.reshape(n_members, n_items)


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
    pairs = list_pairs(purchases, until=as_of, cut=cut)
    return evaluate_pairs(pairs, assignments, cut, as_of, n_items, half_life_days)


def evaluate_pairs(
    pairs: Pairs,
    assignments: pl.DataFrame,
    cut: datetime,
    as_of: datetime,
    n_items: int,
    half_life_days: float,
) -> RecommendationEvaluation:
    """What ``evaluate`` returns, of everybody's pairs, listed with the cut."""
    before = pairs.before(cut)
    buyers = count_buyers(before, assignments, cut, half_life_days)
    tastes = buyers.learn_tastes(buyers.bought_together(before), cut)
    one = TestedSlice(pairs, assignments)
    return choose_method([one], buyers, tastes, cut=cut, as_of=as_of, n_items=n_items)


@dataclass(frozen=True)
class TestedSlice:
    """Customers that methods are tried on.

    Attributes:
        pairs: what they bought until the end of the test, listed with its begin.
        assignments: ``customer_id`` and ``segment_id`` at its begin.
    """

    pairs: Pairs
    assignments: pl.DataFrame

    __test__ = False


def choose_method(
    slices: Iterable[TestedSlice],
    buyers: Buyers,
    tastes: Tastes,
    *,
    cut: datetime,
    as_of: datetime,
    n_items: int,
) -> RecommendationEvaluation:
    """Which method predicts best what customers buy next, by a split in time.

    Methods are given the purchases before the cut. A hit is a customer who in the test buys at least one of the offered
    products for the first time in the window. Customers who buy nothing new are not tested.

    Args:
        slices: the customers to try the methods on, each in one of them; see ``tested_customers``.
        buyers: what everybody bought before the cut.
        tastes: learnt from the same.
        cut: first instant of the test.
        as_of: first instant after it.
        n_items: products offered to each customer.
    """
    rankings = {method: buyers.rank(method, tastes) for method in METHODS}
    n_tested, n_hits = 0, dict.fromkeys(METHODS, 0)
    for one in slices:
        # Customer and product of what was bought for the first time in the test.
        new = one.pairs.since(cut)
        test = _segments(one.assignments).filter(pl.col("customer_id").is_in(new.buyers().implode()))
        n_tested += test.height
        # Products have the same numbers in all rankings.
        any_ranking = rankings[DEFAULT_METHOD]
        members = _Members.find(test, one.pairs.before(cut), any_ranking)
        who, what, _ = new.places_of(test["customer_id"], any_ranking.products)
        bought = np.sort(_as_one_number(who, what, any_ranking))
        for method, ranking in rankings.items():
            member, _, product, _ = _pick_new(members, ranking, n_items)
            offered = _as_one_number(member, product, ranking)
            place = np.searchsorted(bought, offered).clip(max=max(len(bought) - 1, 0))
            is_hit = bought[place] == offered if len(bought) else np.zeros(len(offered), bool)
            n_hits[method] += int(np.count_nonzero(np.bincount(member[is_hit], minlength=1)))
    if n_tested < MIN_TEST_CUSTOMERS or not buyers.n_customers:
        sentence = (
            f"Not enough data to compare recommendation methods: {n_tested} customers bought something new between "
            f"{cut:%Y-%m-%d} and {as_of:%Y-%m-%d}, {MIN_TEST_CUSTOMERS} are needed; {DEFAULT_METHOD} is used."
        )
        return RecommendationEvaluation(cut, as_of, n_items, n_tested, (), DEFAULT_METHOD, sentence)

    scores = []
    for method in METHODS:
        hits = n_hits[method]
        scores.append(MethodScore(method, hits, hits / n_tested, *wilson_interval(hits, n_tested)))
    # max() keeps the first of equals, and METHODS has the simplest first.
    winner = max(scores, key=lambda score: score.n_hits)
    sentence = _sentence(winner, scores, n_tested, n_items)
    return RecommendationEvaluation(cut, as_of, n_items, n_tested, tuple(scores), winner.method, sentence)


def _as_one_number(member: NDArray[np.int64], product: NDArray[np.int64], ranking: Ranking) -> NDArray[np.int64]:
    return member * len(ranking.products) + product


def tested_customers(assignments: pl.DataFrame, n_customers: int) -> pl.DataFrame:
    """The customers to try methods on: all, or of more than ``TESTED_AT_MOST`` a part that a digest of the ids decides.

    Args:
        assignments: of all customers or of a slice of them.
        n_customers: how many there are in all.
    """
    return _part_of(assignments, n_customers, TESTED_AT_MOST)


def _part_of(customers: pl.DataFrame, n_customers: int, at_most: int) -> pl.DataFrame:
    share = at_most / max(n_customers, 1)
    if share >= 1:
        return customers
    # The same everywhere and for ever, unlike the hashes of Python and Polars.
    ids = customers["customer_id"].cast(pl.String).to_list()
    return customers.filter(pl.Series([zlib.crc32(one.encode()) < share * 2**32 for one in ids], dtype=pl.Boolean))


def _sentence(winner: MethodScore, scores: list[MethodScore], n_customers: int, n_items: int) -> str:
    others = sorted((score for score in scores if score is not winner), key=lambda score: -score.n_hits)
    *first, last = (f"{score.hit_rate:.1%} ({score.method})" for score in others)
    against = f"{', '.join(first)} and {last}"
    caveat = "" if others[0].hit_rate < winner.low else "; the lead is within its 95 % interval"
    return (
        f"{winner.method} won: {winner.hit_rate:.1%} of {n_customers} customers bought one of the {n_items} products "
        f"it would have offered ({winner.low:.1%} to {winner.high:.1%}), against {against}{caveat}."
    )
