"""What a lapse is: the change that a drift report states its power for, and that a fire drill makes."""

from __future__ import annotations

import polars as pl

_ACTIVE_DAYS = 28
_SHRINK_WITH_ORDERS = ("monetary_net", "monetary_gross", "n_units", "n_products")


def active_days_of(period_days: float, window_days: float) -> float:
    """How many days back an order makes an active customer: those whose lapse a report should see.

    The last period; where that is short, four weeks, but no more than half of the window. In a day or a week too few
    customers order for their lapse to be seen.

    Args:
        period_days: length of a period.
        window_days: length of the observation window.

    >>> active_days_of(31, 182), active_days_of(7, 182), active_days_of(1, 30)
    (31, 28, 15.0)
    """
    return max(period_days, min(_ACTIVE_DAYS, window_days / 2))


def stop_ordering(customers: pl.DataFrame, who: pl.Expr, days: float, window_days: float) -> pl.DataFrame:
    """Make some customers lapse: the snapshot as it would be, had they stopped ordering some days earlier.

    Their last order is so many days older. The orders of those days never happened: a customer loses the share
    ``days / window_days`` of the orders, rounded, at least one, but keeps the last one; what adds up over orders
    (spend, units) shrinks in proportion. Customers who thereby leave the observation window are removed.

    Args:
        customers: at least ``recency_days``; other features are changed where they are present.
        who: true for the customers who stopped.
        days: how much earlier; see ``active_days_of``.
        window_days: length of the observation window.
    """
    changed = [pl.when(who).then(pl.col("recency_days") + days).otherwise("recency_days").alias("recency_days")]
    if "frequency_orders" in customers.columns:
        orders = pl.col("frequency_orders")
        lost = (orders * (days / window_days)).round().clip(lower_bound=1)
        kept = pl.when(who).then((orders - lost).clip(lower_bound=1)).otherwise(orders)
        changed += keep_orders(customers, kept)
    return customers.with_columns(changed).filter(pl.col("recency_days") < window_days)


def keep_orders(customers: pl.DataFrame, kept: pl.Expr) -> list[pl.Expr]:
    """What fewer orders change: their number, and in proportion what adds up over them.

    Args:
        customers: with ``frequency_orders``; what adds up is changed where it is present.
        kept: how many orders each customer keeps.
    """
    orders = pl.col("frequency_orders")
    shrunk = [
        pl.when(orders > 0).then(pl.col(name) * kept / orders).otherwise(name).alias(name)
        for name in _SHRINK_WITH_ORDERS
        if name in customers.columns
    ]
    return [kept.alias("frequency_orders"), *shrunk]
