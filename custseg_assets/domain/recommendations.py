"""What to offer to a customer: products that are popular lately and that the customer has not bought.

Popularity counts customers, not units or lines, so one wholesaler does not decide what everybody is offered. Counts
and weights are summed as whole numbers, so the same data give the same scores for any number of threads. Customers are
handled in joins, a slice at a time, so memory does not grow with customers times products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import polars as pl

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

_CUSTOMERS_AT_ONCE = 50_000


def recommend(
    purchases: pl.DataFrame | pl.LazyFrame,
    assignments: pl.DataFrame,
    *,
    as_of: datetime,
    n_items: int,
    method: Method,
    half_life_days: float,
) -> pl.DataFrame:
    """The products to offer to every customer of a snapshot.

    A customer gets fewer than ``n_items`` only when nothing else is left in the catalogue. Equal scores are ordered by
    all-time buyers, then by product id.

    Args:
        purchases: lines of the window with customer_id, product_id, description, invoiced_at and is_cancellation. Ids
            that are categories instead of text are joined in two thirds of the time.
        assignments: one row per customer with customer_id and segment_id.
        as_of: first instant not observed; later lines are left out.
        n_items: products per customer.
        method: how products are ranked.
        half_life_days: after which a first purchase counts half; used by ``segment_recent`` only.

    Returns:
        Columns of ``product_recommendations`` without ``period``, sorted by customer and rank; no rows for a shop that
        has no product ids. ``score`` is a number of customers, or for ``segment_recent`` a decayed share of them.
    """
    observed = _orders(purchases, until=as_of)
    offers = _list_offers(_pairs(observed), assignments, assignments, as_of, n_items, method, half_life_days)
    return (
        offers.join(_descriptions(observed), on="product_id", how="left")
        .with_columns(pl.lit(method).alias("method"))
        .select(column.name for column in PRODUCT_RECOMMENDATIONS.content)
        .cast({"customer_id": pl.String, "product_id": pl.String, "rank": pl.Int64, "score": pl.Float64})
        .sort("customer_id", "rank")
    )


def _orders(purchases: pl.DataFrame | pl.LazyFrame, *, until: datetime) -> pl.LazyFrame:
    is_order = ~pl.col("is_cancellation") & pl.col("product_id").is_not_null()
    return purchases.lazy().filter(is_order, pl.col("invoiced_at") < until)


def _pairs(orders: pl.LazyFrame) -> pl.DataFrame:
    """Each customer and product once, with the instants of the first and the last purchase."""
    at = pl.col("invoiced_at")
    return orders.group_by("customer_id", "product_id").agg(first_at=at.min(), last_at=at.max()).collect()


def _descriptions(orders: pl.LazyFrame) -> pl.DataFrame:
    """Each product's most recent text; of several at the same instant, the first in the alphabet."""
    return (
        orders.filter(pl.col("description").is_not_null())
        .filter(pl.col("invoiced_at") == pl.col("invoiced_at").max().over("product_id"))
        .group_by("product_id")
        .agg(pl.col("description").min())
        .collect()
    )


def _list_offers(
    pairs: pl.DataFrame,
    assignments: pl.DataFrame,
    audience: pl.DataFrame,
    as_of: datetime,
    n_items: int,
    method: Method,
    half_life_days: float,
) -> pl.DataFrame:
    """The first products of each audience member's ranking that are new to it: customer_id, product_id, score, rank."""
    customer_id = pl.col("customer_id").cast(pairs.schema["customer_id"])
    segments = assignments.select(customer_id, pl.col("segment_id").fill_null(""))
    ranking = _rank_products(_score_products(pairs, segments, as_of, method, half_life_days))
    members = audience.select(customer_id).join(segments, on="customer_id")
    parts = [_pick_new(part, pairs, ranking, n_items) for part in members.iter_slices(_CUSTOMERS_AT_ONCE)]
    return pl.concat(parts) if parts else _pick_new(members, pairs, ranking, n_items)


def _score_products(
    pairs: pl.DataFrame, segments: pl.DataFrame, as_of: datetime, method: Method, half_life_days: float
) -> pl.DataFrame:
    """Every product's score in every segment: segment_id, product_id, score and n_buyers of the whole shop."""
    days_known = (pl.lit(as_of) - pl.col("first_at")).dt.total_days()
    weight = ((days_known * (-math.log(2) / half_life_days)).exp() * MICRO).round().cast(pl.Int64)
    is_recent = pl.col("last_at") >= as_of - timedelta(days=RECENT_DAYS)
    weighted = pairs.with_columns(weight.alias("weight"))
    shop = weighted.group_by("product_id").agg(
        n_buyers=pl.len(), n_recent=is_recent.sum(), shop_weight=pl.col("weight").sum()
    )
    every = segments.select("segment_id").unique().join(shop, how="cross")
    if method != "segment_recent":
        n_customers = pl.col("n_buyers" if method == "global_all" else "n_recent")
        return every.select("segment_id", "product_id", "n_buyers", n_customers.cast(pl.Float64).alias("score"))

    in_segment = weighted.join(segments, on="customer_id").group_by("segment_id", "product_id")
    buyers = pairs.select("customer_id").unique().join(segments, on="customer_id").group_by("segment_id")
    shop_share = pl.col("shop_weight") / pairs["customer_id"].n_unique()
    smoothed = pl.col("segment_weight").fill_null(0) + PRIOR_CUSTOMERS * shop_share
    share = smoothed / (pl.col("n_segment").fill_null(0) + PRIOR_CUSTOMERS) / MICRO
    return (
        every.join(in_segment.agg(segment_weight=pl.col("weight").sum()), on=["segment_id", "product_id"], how="left")
        .join(buyers.agg(n_segment=pl.len()), on="segment_id", how="left")
        .select("segment_id", "product_id", "n_buyers", share.alias("score"))
    )


def _rank_products(scores: pl.DataFrame) -> pl.DataFrame:
    """The scores with each product's position in its segment, from 1."""
    order = scores.sort("segment_id", "score", "n_buyers", "product_id", descending=[False, True, True, False])
    return order.with_columns(pl.int_range(1, pl.len() + 1).over("segment_id").alias("position")).drop("n_buyers")


def _pick_new(members: pl.DataFrame, pairs: pl.DataFrame, ranking: pl.DataFrame, n_items: int) -> pl.DataFrame:
    """The first ``n_items`` of each member's ranking that it has not bought.

    Who bought b products finds them among the first ``n_items + b``, so no more than that is looked at: the rows are
    ``n_items`` per customer plus one per pair, whatever the size of the catalogue.
    """
    bought = pairs.select("customer_id", "product_id").join(members, on="customer_id", how="semi")
    n_bought = bought.group_by("customer_id").agg(n_bought=pl.len().cast(pl.Int64))
    deep_enough = pl.int_ranges(1, n_items + 1 + pl.col("n_bought").fill_null(0))
    return (
        members.join(n_bought, on="customer_id", how="left")
        .select("customer_id", "segment_id", deep_enough.alias("position"))
        .explode("position", empty_as_null=False)
        .join(ranking, on=["segment_id", "position"])
        .join(bought, on=["customer_id", "product_id"], how="anti")
        .sort("customer_id", "position")
        .with_columns(pl.int_range(1, pl.len() + 1).over("customer_id").alias("rank"))
        .filter(pl.col("rank") <= n_items)
        .select("customer_id", "product_id", "score", "rank")
    )


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
    """Which method predicts best what customers buy next, by a split in time.

    Methods are given the purchases before ``as_of − horizon_days``. A hit is a customer who in the horizon buys at
    least one of the offered products for the first time in the window. Customers who buy nothing new are not tested.

    Args:
        purchases: as in ``recommend``.
        assignments: segments at ``as_of − horizon_days``; later ones would already depend on purchases in the test.
        as_of: first instant not observed.
        half_life_days: as in ``recommend``.
        horizon_days: length of the test.
        n_items: products offered to each customer.
    """
    cut = as_of - timedelta(days=horizon_days)
    train = _pairs(_orders(purchases, until=cut))
    later = _pairs(_orders(purchases, until=as_of).filter(pl.col("invoiced_at") >= cut))
    new = later.join(train, on=["customer_id", "product_id"], how="anti").select("customer_id", "product_id")
    customer_id = pl.col("customer_id").cast(new.schema["customer_id"])
    test = assignments.select(customer_id).join(new, on="customer_id", how="semi")
    if len(test) < MIN_TEST_CUSTOMERS or train.is_empty():
        sentence = (
            f"Not enough data to compare recommendation methods: {len(test)} customers bought something new between "
            f"{cut:%Y-%m-%d} and {as_of:%Y-%m-%d}, {MIN_TEST_CUSTOMERS} are needed; {DEFAULT_METHOD} is used."
        )
        return RecommendationEvaluation(cut, as_of, n_items, len(test), (), DEFAULT_METHOD, sentence)

    from scipy.stats import binomtest

    scores = []
    for method in METHODS:
        offers = _list_offers(train, assignments, test, cut, n_items, method, half_life_days)
        hits = offers.join(new, on=["customer_id", "product_id"], how="semi")["customer_id"].n_unique()
        interval = binomtest(hits, len(test)).proportion_ci(method="wilson")
        scores.append(MethodScore(method, hits, hits / len(test), *map(float, interval)))
    # max() keeps the first of equals, and METHODS has the simplest first.
    winner = max(scores, key=lambda score: score.n_hits)
    sentence = _sentence(winner, scores, len(test), n_items)
    return RecommendationEvaluation(cut, as_of, n_items, len(test), tuple(scores), winner.method, sentence)


def _sentence(winner: MethodScore, scores: list[MethodScore], n_customers: int, n_items: int) -> str:
    others = sorted((score for score in scores if score is not winner), key=lambda score: -score.n_hits)
    against = " and ".join(f"{score.hit_rate:.1%} ({score.method})" for score in others)
    caveat = "" if others[0].hit_rate < winner.low else "; the lead is within its 95 % interval"
    return (
        f"{winner.method} won: {winner.hit_rate:.1%} of {n_customers} customers bought one of the {n_items} products "
        f"it would have offered ({winner.low:.1%} to {winner.high:.1%}), against {against}{caveat}."
    )
