"""Days on which customers ordered or returned, and what can be counted from them at any day of the log.

All predictions of value are made from these days alone, so a day of the past can be predicted again from nothing but
what was known then. Features for segments belong in ``transactions.features``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.transactions.features import MICRO

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAYS = pl.Schema({"customer_id": pl.String(), "day": pl.Int32(), "n_orders": pl.Int64(), "net_micro": pl.Int64()})
"""Columns of ``count_days``; ``day`` counts days since 1970-01-01, ``net_micro`` millionths of the currency."""

RECENT = (30, 60, 90, 180)
"""Days back from a day that order days are counted in."""
MIN_HISTORY_DAYS = 59
"""A log must be so old at a day that anything is learnt from it: two months, the shorter of which have 59 days."""
LEARNT_FROM_AT_MOST = 50_000
"""Customers that are learnt from at a day; where there are more, a digest of their ids decides who."""

_EPOCH = date(1970, 1, 1)


def day_number(instant: date) -> int:
    """Days from 1970-01-01 to an instant's day.

    >>> day_number(date(1970, 1, 3))
    2
    """
    return (instant.date() if isinstance(instant, datetime) else instant).toordinal() - _EPOCH.toordinal()


def date_of(day: int) -> date:
    """The date of a day that is counted since 1970-01-01."""
    return _EPOCH + timedelta(days=int(day))


@lru_cache(maxsize=4096)
def learning_days(first: int, until: int) -> tuple[int, ...]:
    """The first days of months that something can be learnt from, oldest first, up to and with a day.

    They do not depend on the day that is predicted, nor on the length of periods, so every snapshot of a home learns
    from the same ones. With periods of a month they are the days of closed snapshots.

    Args:
        first: first day of the log.
        until: last day that may be among them.

    >>> [str(date_of(day)) for day in learning_days(day_number(date(2010, 12, 1)), day_number(date(2011, 3, 15)))]
    ['2011-02-01', '2011-03-01']
    """
    found, month = [], date_of(first + MIN_HISTORY_DAYS)
    if month.day > 1:
        month = (month.replace(day=1) + timedelta(days=32)).replace(day=1)
    while day_number(month) <= until:
        found.append(day_number(month))
        month = (month + timedelta(days=32)).replace(day=1)
    return tuple(found)


def count_days(lines: pl.LazyFrame) -> pl.LazyFrame:
    """One row per customer and day with a line: distinct orders of that day, and net spend. In no order.

    An order with lines on two days counts on both, so that no day knows of a later one.

    Args:
        lines: of ``clean_transactions``.
    """
    day = pl.col("invoiced_at").dt.date().cast(pl.Int32)
    micro = (pl.col("line_amount") * MICRO).round(mode="half_to_even").cast(pl.Int64)
    of_orders = lines.group_by("customer_id", "invoice_id", "is_cancellation", day.alias("day")).agg(
        micro.sum().alias("net_micro")
    )
    is_order = ~pl.col("is_cancellation")
    return of_orders.group_by("customer_id", "day").agg(
        is_order.sum().cast(pl.Int64).alias("n_orders"), pl.col("net_micro").sum()
    )


@dataclass(frozen=True)
class CustomerDays:
    """The days of customers, as arrays.

    Attributes:
        ids: every customer, ascending.
        who: number of the customer of each day, ascending.
        day: days since 1970-01-01; ascending for each customer.
        n_orders: orders of that day; 0 where there were only returns.
        net: spend of that day less returns, in currency.
    """

    ids: pl.Series
    who: Ints
    day: Ints
    n_orders: Ints
    net: Floats

    @classmethod
    def of(cls, days: pl.DataFrame) -> CustomerDays:
        """Rows of ``count_days``, in any order."""
        ordered = days.sort("customer_id", "day")
        ids = ordered["customer_id"].unique(maintain_order=True)
        who = ordered["customer_id"].rle_id().cast(pl.Int64).to_numpy()
        day, n_orders = (ordered[name].cast(pl.Int64).to_numpy() for name in ("day", "n_orders"))
        return cls(ids, who, day, n_orders, ordered["net_micro"].to_numpy() / MICRO)

    def first_days(self) -> Ints:
        """The first day of each customer."""
        return self.day[np.flatnonzero(np.diff(self.who, prepend=-1))]


def sampled(ids: pl.Series, n_known: int) -> NDArray[np.bool_]:
    """Which customers are learnt from at a day: all, or of too many a part that a digest of the ids decides.

    Args:
        ids: of customers.
        n_known: how many customers are known that day.
    """
    share = LEARNT_FROM_AT_MOST / max(n_known, 1)
    if share >= 1:
        return np.ones(len(ids), dtype=bool)
    # The same everywhere and for ever, unlike the hashes of Python and Polars.
    digests = np.fromiter((zlib.crc32(one.encode()) for one in ids), np.uint32, len(ids))
    return digests < share * 2**32


@dataclass(frozen=True)
class Known:
    """What is known of customers at a day: of each who had a line before it. Days are whole days before that day.

    Attributes:
        at: the day; nothing of it or later is known.
        customers: their numbers in ``CustomerDays.ids``, ascending.
        n_days: days with an order.
        recency: since the last of them; since the first line where there is none.
        tenure: since the first of them; since the first line where there is none.
        net: spend less returns, in currency.
        n_recent: days with an order in each of the last ``RECENT`` days, (customers, lengths).
    """

    at: int
    customers: Ints
    n_days: Floats
    recency: Floats
    tenure: Floats
    net: Floats
    n_recent: Floats

    def only(self, is_kept: NDArray[np.bool_]) -> Known:
        """Some of the customers."""
        parts = (self.n_days, self.recency, self.tenure, self.net, self.n_recent)
        return Known(self.at, self.customers[is_kept], *(part[is_kept] for part in parts))


def known_at(days: CustomerDays, at: int) -> Known:
    """What is known of every customer at a day."""
    n, before = len(days.ids), days.day < at
    is_order = before & (days.n_orders > 0)
    who, day = days.who[is_order], days.day[is_order]
    n_days = np.bincount(who, minlength=n)
    starts = np.flatnonzero(np.diff(who, prepend=-1))
    has_order = n_days > 0
    first = np.full(n, at)
    seen, places = days.who[before], np.flatnonzero(before)
    begins = np.flatnonzero(np.diff(seen, prepend=-1))
    first[seen[begins]] = days.day[places[begins]]
    is_known = first < at
    last = first.copy()
    first[has_order] = day[starts]
    last[has_order] = day[np.r_[starts[1:], len(who)] - 1] if len(who) else []
    recent = [np.bincount(who[day >= at - length], minlength=n) for length in RECENT]
    net = np.bincount(seen, days.net[before], n)
    customers = np.flatnonzero(is_known)

    def of_known(numbers: NDArray[Any]) -> Floats:
        return numbers[customers].astype(np.float64)

    return Known(
        at,
        customers,
        of_known(n_days),
        of_known(at - last),
        of_known(at - first),
        of_known(net),
        of_known(np.column_stack(recent)),
    )


@dataclass(frozen=True)
class Seen:
    """What customers did in a time.

    Attributes:
        n_orders: distinct orders, by day.
        net: spend less returns, in currency.
    """

    n_orders: Floats
    net: Floats


def seen_within(days: CustomerDays, known: Known, within: int) -> Seen:
    """What customers did in so many days from the day on that they are known at."""
    is_in = (days.day >= known.at) & (days.day < known.at + within)
    who, n = days.who[is_in], len(days.ids)
    n_orders = np.bincount(who, days.n_orders[is_in].astype(np.float64), n)
    net = np.bincount(who, days.net[is_in], n)
    return Seen(n_orders[known.customers].astype(np.float64), net[known.customers].astype(np.float64))
