"""Orders of each customer by week, counted back from the end of a snapshot: what a deep model sees besides features.

Point in time right, as all features: only lines of the observation window count, so weeks before it have no orders.
How a model uses them belongs in ``segments.embedding``.
"""

from __future__ import annotations

import narwhals as nw
import numpy as np
import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.transactions.cleaning import Lines

_MICROSECONDS_A_WEEK = 7 * 86_400_000_000


def count_orders_by_week(clean: Lines, window: Window, n_weeks: int) -> Lines:
    """How many orders each customer placed in each week with one: ``customer_id``, ``week``, ``n_orders``.

    Week 0 is the seven days before ``as_of``. An order counts in the week of its first line in the window.

    Args:
        clean: lines with the columns of ``clean_transactions``, of the window's periods at least.
        window: the observation window.
        n_weeks: weeks to count.
    """
    at = nw.col("invoiced_at")
    before_as_of = (nw.lit(window.as_of) - nw.col("first_line_at")).dt.total_microseconds() - 1
    return (
        clean.filter(at >= window.start, at < window.as_of, ~nw.col("is_cancellation"))
        .group_by("customer_id", "invoice_id")
        .agg(at.min().alias("first_line_at"))
        .select("customer_id", (before_as_of // _MICROSECONDS_A_WEEK).alias("week"))
        .filter(nw.col("week") < n_weeks)
        .group_by("customer_id", "week")
        .agg(nw.len().alias("n_orders"))
    )


def spread_weeks(customer_ids: pl.Series, counted: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """A row for each customer, in the order of the ids, and a column for each week, the newest first.

    Args:
        customer_ids: of the customers, each once.
        counted: from ``count_orders_by_week``, collected.
        columns: names of the weeks.

    >>> counted = pl.DataFrame({"customer_id": ["b"], "week": [1], "n_orders": [3]})
    >>> spread_weeks(pl.Series(["a", "b"]), counted, ("this", "last")).rows()
    [(0.0, 0.0), (0.0, 3.0)]
    """
    places = customer_ids.to_frame("customer_id").with_row_index("row")
    found = counted.join(places, on="customer_id")
    orders = np.zeros((len(customer_ids), len(columns)))
    orders[found["row"].to_numpy(), found["week"].to_numpy()] = found["n_orders"].to_numpy()
    return pl.DataFrame(orders, schema=dict.fromkeys(columns, pl.Float64), orient="row")
