"""Days on which customers ordered or returned, and what can be counted from them at any day of the log.

All predictions of value are made from these days alone, so a day of the past can be predicted again from nothing but
what was known then. Features for segments belong in ``transactions.features``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.transactions.features import MICRO

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAYS = pl.Schema({"customer_id": pl.String(), "day": pl.Int32(), "n_orders": pl.Int64(), "net_micro": pl.Int64()})
"""Columns of ``count_days``; ``day`` counts days since 1970-01-01, ``net_micro`` millionths of the currency."""
_EPOCH = date(1970, 1, 1)


def day_number(instant: date) -> int:
    """Days from 1970-01-01 to an instant's day.

    >>> day_number(date(1970, 1, 3))
    2
    """
    return (instant.date() if isinstance(instant, datetime) else instant).toordinal() - _EPOCH.toordinal()


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
