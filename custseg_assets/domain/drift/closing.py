"""Closed days at the end of a snapshot, and how two snapshots are compared without them.

A shop that was closed for some days, over Christmas or a long weekend, makes every customer look so many days older.
That is the calendar, not drift. Customers who stop ordering are in ``lapse.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from custseg_assets.domain.drift.lapse import keep_orders

MAX_CLOSING_DAYS = 7
"""A longer run of days without customers, those apart on which the shop is always closed, is a lapse or missing data:
nothing of it is left out."""
_DAYS_A_WEEK = 7
_ORDINARY_DAYS = 14
_CLOSED_SHARE = 0.1
_MIN_ORDINARY_CUSTOMERS = 5


def count_closed_days(recency_days: pl.Series) -> int:
    """For how many days before a snapshot's end the shop was closed.

    The longest run of days up to the end of which each has at most a tenth of the customers of an ordinary day, the
    median of the 14 days before the run. Customers are counted on the day of their last order. Where an ordinary day
    has fewer than five, an empty day tells nothing. A weekday on which the shop is always closed, known by the last one
    before the run, belongs to the run but does not make it too long.

    Args:
        recency_days: of the snapshot's customers, in whole days; null without an order.

    Returns:
        0 without such a run, and where it has more than ``MAX_CLOSING_DAYS`` days on which the shop is usually open.

    >>> count_closed_days(pl.Series([day for day in range(3, 40) for _ in range(10)]))
    3
    """
    last_orders = np.bincount(recency_days.drop_nulls().cast(pl.Int64))
    longest = max((n for n in range(1, len(last_orders)) if _is_closed(last_orders, slice(n), n)), default=0)
    same_weekdays = [longest + (day - longest) % _DAYS_A_WEEK for day in range(longest)]
    n_usually_open = sum(not _is_closed(last_orders, slice(day, day + 1), longest) for day in same_weekdays)
    return longest if n_usually_open <= MAX_CLOSING_DAYS else 0


def _is_closed(last_orders: np.ndarray[tuple[int], np.dtype[np.int64]], days: slice, run: int) -> bool:
    """Whether some days have at most a tenth of the customers of an ordinary day before a run of days."""
    before = last_orders[run : run + _ORDINARY_DAYS]
    ordinary = float(np.median(before)) if len(before) == _ORDINARY_DAYS else 0.0
    return ordinary >= _MIN_ORDINARY_CUSTOMERS and bool(last_orders[days].max() <= _CLOSED_SHARE * ordinary)


@dataclass(frozen=True)
class Closing:
    """Two snapshots that can be compared, both as of the day the shop closed.

    Attributes:
        reference: customers of the snapshot that the model was trained on, with the columns of ``customer_features``.
        current: customers of the snapshot that is compared with it, with the same columns.
        reference_days: closed days at the end of the first.
        current_days: closed days at the end of the second.
        n_days_left_out: by which the two differ; 0 where the customers are as they were.
    """

    reference: pl.DataFrame
    current: pl.DataFrame
    reference_days: int
    current_days: int
    n_days_left_out: int

    def remarks(self, reference_as_of: datetime, current_as_of: datetime) -> tuple[str, ...]:
        """What a report says about it, in words; nothing where nothing was left out.

        Args:
            reference_as_of: first instant that the reference's snapshot did not observe.
            current_as_of: the same of the current one.
        """
        if not self.n_days_left_out:
            return ()
        ends = ((self.current_days, current_as_of, ""), (self.reference_days, reference_as_of, ", in the reference"))
        closed = " and ".join(
            f"the last {'day' if days == 1 else f'{days} days'} before {as_of:%Y-%m-%d}{where}"
            for days, as_of, where in ends
            if days
        )
        return (
            f"the shop was closed {closed}, or the lines of these days are missing; compared as of the day it closed",
        )


def leave_out_closing(
    reference: pl.DataFrame, current: pl.DataFrame, *, reference_window_days: float, window_days: float, seed: int
) -> Closing:
    """Make two snapshots comparable of which one ends with more closed days than the other.

    The one with more is seen as of the day the shop closed: its customers are so many days younger. That leaves it
    fewer open days, so the other one's window is made as much shorter, see ``shorten_window``. Both stay as they are
    where they have equally many closed days, or where nobody would be left.

    Args:
        reference: ``customer_features`` of the snapshot that the model was trained on.
        current: ``customer_features`` of the snapshot to be compared.
        reference_window_days: length of the observation window of the first.
        window_days: length of the observation window of the second.
        seed: decides whose earlier orders were in the days that a shorter window loses.
    """
    before, now = (count_closed_days(customers["recency_days"]) for customers in (reference, current))
    n_days, random = abs(now - before), np.random.default_rng(seed)
    if now > before:
        left = shorten_window(reference, n_days, reference_window_days, random), _see_earlier(current, n_days)
    elif before > now:
        left = _see_earlier(reference, n_days), shorten_window(current, n_days, window_days, random)
    else:
        left = reference, current
    if any(customers.is_empty() for customers in left):
        return Closing(reference, current, before, now, 0)
    return Closing(*left, before, now, n_days)


def _see_earlier(customers: pl.DataFrame, n_days: int) -> pl.DataFrame:
    """As of some days earlier, on which nobody ordered."""
    ages = [name for name in ("recency_days", "tenure_days") if name in customers.columns]
    return customers.with_columns((pl.col(ages) - n_days).clip(lower_bound=0))


def shorten_window(
    customers: pl.DataFrame, n_days: int, window_days: float, random: np.random.Generator
) -> pl.DataFrame:
    """The same customers, had their observation window begun some days later.

    Whose last order is in the days that are lost leaves. Of the others each earlier order is in them by chance, as if
    it lay anywhere between the window's begin and the last order; what adds up over orders shrinks in proportion.

    Args:
        customers: at least ``recency_days`` and ``frequency_orders``; others change where they are present.
        n_days: by which the window becomes shorter.
        window_days: its length before.
        random: decides which orders are lost.
    """
    ordered = customers.sort("customer_id") if "customer_id" in customers.columns else customers
    recency, tenure = pl.col("recency_days"), pl.col("tenure_days")
    left = ordered.filter(recency.fill_null(0) < window_days - n_days)
    n_earlier = left["frequency_orders"].to_numpy().astype(np.int64) - 1
    is_lost = n_days / (window_days - left["recency_days"].fill_null(0).to_numpy())
    lost = pl.Series(random.binomial(np.maximum(n_earlier, 0), is_lost))
    changed = keep_orders(left, pl.col("frequency_orders") - lost)
    if "tenure_days" in customers.columns:
        is_older = tenure >= window_days - n_days
        younger = pl.max_horizontal(recency, tenure - n_days)
        changed.append(pl.when(is_older).then(younger).otherwise(tenure).alias("tenure_days"))
    return left.with_columns(changed)
