"""Who bought what, as numbers: every customer and product once, however often it was bought.

Ids are numbered once, so that whatever is counted afterwards needs no look at a text. What is offered because of it
belongs in ``recommendations``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Each customer and product once, of all customers or of a slice of them.

    Attributes:
        customers: ids of who may be in a pair, each once.
        products: ids of what may be, each once.
        bought: ``who`` and ``what``, places in the two as ``UInt32``; ``first_at`` and ``last_at``, instants of the
            first and the last purchase; and, where there is a test, ``last_before_cut``, of the last one before it.
            Sorted by ``who`` and ``what``.
    """

    customers: pl.Series
    products: pl.Series
    bought: pl.DataFrame

    @property
    def who(self) -> Numbers:
        """Place of the customer of each pair, ascending."""
        return self._numbers("who")

    @property
    def what(self) -> Numbers:
        """Place of the product of each pair."""
        return self._numbers("what")

    @property
    def last_at(self) -> NDArray[np.datetime64]:
        """Instant of the last purchase of each pair."""
        return self.bought["last_at"].to_numpy()

    def _numbers(self, name: str) -> Numbers:
        return self.bought[name].to_numpy().astype(np.int64)

    def buyers(self) -> pl.Series:
        """Ids of the customers who are in a pair."""
        return self.customers.gather(present(self.who))

    def before(self, cut: datetime) -> Pairs:
        """The pairs as they were at the begin of a test, if they were listed with one."""
        known = self.bought.filter(pl.col("first_at") < cut)
        return replace(self, bought=known.select("who", "what", "first_at", last_at="last_before_cut"))

    def since(self, cut: datetime) -> Pairs:
        """The pairs whose first purchase is at or after the begin of a test."""
        return replace(self, bought=self.bought.filter(pl.col("first_at") >= cut))

    def places_of(self, members: pl.Series, products: pl.Series) -> tuple[Numbers, Numbers, NDArray[np.datetime64]]:
        """Of the pairs of some customers and products, their places in these, ascending by customer.

        Args:
            members: ids of customers, each once.
            products: ids, each once.

        Returns:
            of each pair the place of the customer, the place of the product, and the instant of the last purchase.
        """
        who = place_in(self.customers, members)[self.who]
        what = place_in(self.products, products)[self.what]
        is_wanted, last_at = (who >= 0) & (what >= 0), self.last_at
        if not is_wanted.all():
            who, what, last_at = who[is_wanted], what[is_wanted], last_at[is_wanted]
        if np.any(np.diff(who) < 0):
            order = np.argsort(who, kind="stable")
            who, what, last_at = who[order], what[order], last_at[order]
        return who, what, last_at


def present(places: NDArray[np.integer]) -> Numbers:
    """The places that occur, ascending and each once."""
    is_there = np.zeros(int(places.max()) + 1 if len(places) else 0, np.bool_)
    is_there[places] = True
    return np.flatnonzero(is_there)


def place_in(ids: pl.Series, others: pl.Series) -> Numbers:
    """The place of each id among others, −1 where it is not among them."""
    places = others.cast(pl.String).to_frame("id").with_row_index("place")
    found = ids.cast(pl.String).to_frame("id").join(places, on="id", how="left", maintain_order="left")["place"]
    return found.cast(pl.Int64).fill_null(-1).to_numpy()


def orders(purchases: pl.DataFrame | pl.LazyFrame, *, until: datetime) -> pl.LazyFrame:
    """The lines that are purchases of products.

    Args:
        purchases: columns of ``clean_transactions``.
        until: first instant that does not count.
    """
    is_order = ~pl.col("is_cancellation") & pl.col("product_id").is_not_null()
    return purchases.lazy().filter(is_order, pl.col("invoiced_at") < until)


def list_pairs(purchases: pl.DataFrame | pl.LazyFrame, *, until: datetime, cut: datetime | None = None) -> Pairs:
    """Each customer and product once.

    Args:
        purchases: columns of ``clean_transactions``; of some customers, or of some of the time.
        until: first instant that does not count.
        cut: begin of a test; without one, there is none.
    """
    ids = orders(purchases, until=until).select(pl.col("customer_id", "product_id").cast(pl.String), "invoiced_at")
    lines = ids.collect()
    customers, products = lines["customer_id"].unique().sort(), lines["product_id"].unique().sort()
    numbered = lines.lazy().select(
        pl.Series("who", place_in(lines["customer_id"], customers), pl.UInt32),
        pl.Series("what", place_in(lines["product_id"], products), pl.UInt32),
        at="invoiced_at",
    )
    if cut is None:
        return Pairs(customers, products, pair_up(numbered))
    parts = [pair_up(numbered.filter(is_in)) for is_in in (pl.col("at") < cut, pl.col("at") >= cut)]
    return Pairs(customers, products, merge_pairs(parts))


def pair_up(numbered: pl.LazyFrame) -> pl.DataFrame:
    """Pairs as ``Pairs.bought`` has them without a test.

    Args:
        numbered: ``who``, ``what`` and ``at`` of every purchase, in any order.
    """
    # One number for both is grouped by and sorted in a fraction of the time that two take.
    pair = (pl.col("who").cast(pl.UInt64) * (1 << 32) + pl.col("what")).alias("pair")
    paired = numbered.group_by(pair).agg(first_at=pl.col("at").min(), last_at=pl.col("at").max()).sort("pair").collect()
    who, what = pl.col("pair") // (1 << 32), pl.col("pair") % (1 << 32)
    return paired.select(who.cast(pl.UInt32).alias("who"), what.cast(pl.UInt32).alias("what"), "first_at", "last_at")


def merge_pairs(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Pairs as ``Pairs.bought`` has them with a test, of those of consecutive parts of the time.

    Args:
        parts: what ``pair_up`` returns of each, the earliest first and the test last.
    """
    columns = {name: np.concatenate([part[name].to_numpy() for part in parts]) for name in parts[0].columns}
    pair = columns["who"].astype(np.uint64) << 32 | columns["what"]
    # Stable, so that the rows of a pair stay in the order of time; and quick, because each part is sorted.
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    begins = np.append(True, pair[1:] != pair[:-1])[: len(pair)]
    first_row = np.flatnonzero(begins)
    last_row = np.append(first_row[1:], len(pair))[: len(first_row)] - 1
    first, last = order[first_row], order[last_row]
    # A part has a pair once, so the row before that of the test is the last one before it.
    is_tested = last >= len(pair) - len(parts[-1])
    was_bought = ~is_tested | (last_row > first_row)
    before = columns["last_at"][order[np.maximum(last_row - is_tested, 0)]]
    merged = pl.DataFrame(
        {
            "who": columns["who"][first],
            "what": columns["what"][first],
            "first_at": columns["first_at"][first],
            "last_at": columns["last_at"][last],
            "last_before_cut": before,
        }
    )
    return merged.with_columns(pl.when(pl.Series(was_bought)).then("last_before_cut"))


def list_descriptions(purchases: pl.DataFrame | pl.LazyFrame, *, until: datetime) -> pl.DataFrame:
    """Each product's most recent text; of several at the same instant, the first in the alphabet.

    Args:
        purchases: as in ``list_pairs``.
        until: first instant that does not count.

    Returns:
        ``product_id``, ``invoiced_at`` (when it had that text last) and ``description``.
    """
    columns = (pl.col("product_id").cast(pl.String), "invoiced_at", "description")
    described = orders(purchases, until=until).filter(pl.col("description").is_not_null()).select(columns)
    return _newest(described).collect(engine="streaming")


def merge_descriptions(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """What ``list_descriptions`` returns of all the time, of what it returned of its parts."""
    return _newest(pl.concat(parts).lazy()).collect()


def _newest(described: pl.LazyFrame) -> pl.LazyFrame:
    newest = described.group_by("product_id").agg(pl.col("invoiced_at").max())
    texts = described.join(newest, on=["product_id", "invoiced_at"]).group_by("product_id", "invoiced_at")
    return texts.agg(pl.col("description").min())
