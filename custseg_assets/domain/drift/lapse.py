"""What a lapse is: the change that a drift report states its power for, and that a fire drill makes."""

from __future__ import annotations

import polars as pl

_SHRINK_WITH_ORDERS = ("monetary_net", "monetary_gross", "n_units", "n_products")


def stop_ordering(customers: pl.DataFrame, who: pl.Expr, period_days: float, window_days: float) -> pl.DataFrame:
    """Make some customers lapse: the snapshot as it would be, had they stopped ordering one period earlier.

    Their last order is one period older. The orders of that period never happened: a customer loses the share
    ``period_days / window_days`` of the orders, rounded, at least one, but keeps the last one; what adds up over
    orders (spend, units) shrinks in proportion. Customers who thereby leave the observation window are removed.

    Args:
        customers: at least ``recency_days``; other features are changed where they are present.
        who: true for the customers who stopped.
        period_days: length of a period.
        window_days: length of the observation window.
    """
    changed = [pl.when(who).then(pl.col("recency_days") + period_days).otherwise("recency_days").alias("recency_days")]
    if "frequency_orders" in customers.columns:
        orders = pl.col("frequency_orders")
        lost = (orders * (period_days / window_days)).round().clip(lower_bound=1)
        kept = pl.when(who).then((orders - lost).clip(lower_bound=1)).otherwise(orders)
        changed.append(kept.alias("frequency_orders"))
        changed += [
            (pl.col(name) * kept / orders).alias(name) for name in _SHRINK_WITH_ORDERS if name in customers.columns
        ]
    return customers.with_columns(changed).filter(pl.col("recency_days") < window_days)
