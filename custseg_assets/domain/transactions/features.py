"""RFM features of the customers with a line in an observation window.

Transaction-sized work (``lines_within``, ``order_parts``, ``bought_products``, ``customer_totals``,
``spend_by_period``) is Narwhals over lazy frames, on every engine. Customer-sized work (``customer_features``) is
NumPy and Polars. Scaling for K-means belongs in ``segments.training_tables``.

Money and quantities are summed as whole millionths: integer sums do not depend on the order in which threads add them,
so the same data give the same features, byte for byte.
"""

from __future__ import annotations

import narwhals as nw
import numpy as np
import polars as pl

from custseg_assets.domain.periods import Window, midnight, start_of
from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.domain.transactions.cleaning import Lines

MICRO = 1_000_000
"""Millionths of a unit of currency, or of a quantity, in one."""
_DAYS_A_WEEK, _HOURS_A_DAY = 7, 24
_AT, _N = pl.Datetime("us"), pl.Int64()
TOTALS = pl.Schema(
    {
        "customer_id": pl.String(),
        "first_period": pl.String(),
        "frequency_orders": _N,
        "first_at": _AT,
        "last_at": _AT,
        "gross_micro": _N,
        "units_micro": _N,
        "n_order_dates": _N,
        "first_order_date": _AT,
        "last_order_date": _AT,
        "n_cancelled_orders": _N,
        "cancelled_micro": _N,
        "n_products": _N,
        "favourite_weekday": _N,
        "favourite_hour": _N,
        "main_country": pl.String(),
    }
)
"""Columns of ``customer_totals`` when it is collected: every backend has types of its own for counts."""
SPEND = pl.Schema({"customer_id": pl.String(), "period": pl.String(), "net_micro": _N})
"""Columns of ``spend_by_period`` when it is collected."""
_MICROSECONDS_A_DAY = 86_400_000_000


def lines_within(clean: Lines, window: Window) -> Lines:
    """The lines that an open window observes, each with the span that it lies in as its period.

    Everything below counts by ``period``, so it counts the spans of an open window as it counts the periods of a
    closed one.

    Args:
        clean: lines with the columns of ``clean_transactions``, of the window's periods at least.
        window: the observation window.
    """
    at = nw.col("invoiced_at")
    span = nw.lit(window.span_keys[0])
    for key in window.span_keys[1:]:
        span = nw.when(at >= midnight(start_of(key))).then(nw.lit(key)).otherwise(span)
    return clean.filter(at >= window.start, at < window.as_of).with_columns(span.alias("period"))


def order_parts(clean: Lines) -> Lines:
    """Invoices by period: one row per customer, invoice, kind and period.

    An invoice that spans a period's end has two parts, so that a window that cuts it counts only its own lines.

    Args:
        clean: lines with the columns of ``clean_transactions``.
    """
    return (
        clean.with_columns(_micro("line_amount"), _micro("quantity"))
        .group_by("customer_id", "invoice_id", "is_cancellation", "period")
        .agg(
            nw.col("invoiced_at").min().alias("first_line_at"),
            nw.col("invoiced_at").max().alias("last_line_at"),
            nw.col("line_amount").sum().alias("amount_micro"),
            nw.col("quantity").sum().alias("units_micro"),
            nw.col("country").min().alias("country"),
        )
    )


def bought_products(clean: Lines) -> Lines:
    """Which customer ordered which product in which period, each once."""
    return (
        clean.filter(~nw.col("is_cancellation"), ~nw.col("product_id").is_null())
        .group_by("customer_id", "product_id", "period")
        .agg(nw.len().alias("n_lines"))
        .select("customer_id", "product_id", "period")
    )


def _micro(name: str) -> nw.Expr:
    """Whole millionths, halves to the even one: libraries' own rounding differs in what they do with halves."""
    micro = nw.col(name) * MICRO
    below = micro.floor()
    is_odd = (below / 2).floor() * 2 != below
    is_above = (micro - below > 0.5) | ((micro - below == 0.5) & is_odd)
    return nw.when(is_above).then(below + 1).otherwise(below).cast(nw.Int64)


def _in(window: Window) -> nw.Expr:
    return (nw.col("period") >= window.span_keys[0]) & (nw.col("period") <= window.span_keys[-1])


def customer_totals(parts: Lines, products: Lines, window: Window) -> Lines:
    """Per customer with a line in the window: counts, sums in millionths, and first and last instants.

    Args:
        parts: from ``order_parts``, of the window's periods at least; where it is open, of ``lines_within``.
        products: from ``bought_products``, of the same periods.
        window: the observation window.
    """
    return join_totals(parts, count_products(products, window), window)


def count_products(products: Lines, window: Window) -> Lines:
    """How many different products each customer ordered in the window; see ``customer_totals``."""
    pairs = products.filter(_in(window)).group_by("customer_id", "product_id").agg(nw.len().alias("n_periods"))
    return pairs.group_by("customer_id").agg(nw.len().alias("n_products"))


def join_totals(parts: Lines, n_products: Lines, window: Window) -> Lines:
    """The same as ``customer_totals``, with products that have been counted.

    Args:
        parts: as there.
        n_products: from ``count_products``.
        window: the observation window.
    """
    observed = parts.filter(_in(window))
    orders = (
        observed.filter(~nw.col("is_cancellation"))
        .group_by("customer_id", "invoice_id")
        .agg(
            nw.col("first_line_at").min(),
            nw.col("last_line_at").max(),
            nw.col("amount_micro").sum(),
            nw.col("units_micro").sum(),
            nw.col("country").min(),
        )
        .with_columns(nw.col("first_line_at").dt.truncate("1d").alias("order_date"))
    )
    per_customer = orders.group_by("customer_id").agg(
        nw.len().alias("frequency_orders"),
        nw.col("first_line_at").min().alias("first_at"),
        nw.col("last_line_at").max().alias("last_at"),
        nw.col("amount_micro").sum().alias("gross_micro"),
        nw.col("units_micro").sum().alias("units_micro"),
        nw.col("order_date").n_unique().alias("n_order_dates"),
        nw.col("order_date").min().alias("first_order_date"),
        nw.col("order_date").max().alias("last_order_date"),
    )
    cancelled = (
        observed.filter(nw.col("is_cancellation"))
        .group_by("customer_id")
        .agg(
            nw.col("invoice_id").n_unique().alias("n_cancelled_orders"),
            nw.col("amount_micro").sum().alias("cancelled_micro"),
        )
    )
    totals = observed.group_by("customer_id").agg(nw.col("period").min().alias("first_period"))
    # Sunday is 7 on some backends and 0 on others; Monday is 1 on all.
    weekday = (nw.col("first_line_at").dt.weekday() % _DAYS_A_WEEK + _DAYS_A_WEEK - 1) % _DAYS_A_WEEK
    hour = nw.col("first_line_at").dt.hour()
    favourites = (
        _favourite(orders, weekday, _DAYS_A_WEEK, "favourite_weekday"),
        _favourite(orders, hour, _HOURS_A_DAY, "favourite_hour"),
    )
    for part in (per_customer, cancelled, n_products, *favourites, _main_country(orders)):
        totals = totals.join(part, on="customer_id", how="left")
    return totals


def _favourite(orders: Lines, value: nw.Expr, n_values: int, name: str) -> Lines:
    """The value of most orders, the smallest of equals: the maximum of (count, −value) packed in one number."""
    packed = nw.col("n") * n_values + (n_values - 1 - nw.col("value"))
    best = nw.col("packed").max()
    return (
        orders.with_columns(value.cast(nw.Int64).alias("value"))
        .group_by("customer_id", "value")
        .agg(nw.len().cast(nw.Int64).alias("n"))
        .with_columns(packed.alias("packed"))
        .group_by("customer_id")
        .agg(best)
        .select("customer_id", (n_values - 1 - nw.col("packed") % n_values).alias(name))
    )


def _main_country(orders: Lines) -> Lines:
    """The country of most orders; of equals, the one of the most recent order."""
    return (
        orders.filter(~nw.col("country").is_null())
        .group_by("customer_id", "country")
        .agg(nw.len().alias("n"), nw.col("first_line_at").max().alias("last_at"))
        .filter(nw.col("n") == nw.col("n").max().over("customer_id"))
        .filter(nw.col("last_at") == nw.col("last_at").max().over("customer_id"))
        .group_by("customer_id")
        .agg(nw.col("country").min().alias("main_country"))
    )


def spend_by_period(parts: Lines, window: Window) -> Lines:
    """Net spend of each customer in each span of the window with a line of it, in millionths of the currency."""
    return (
        parts.filter(_in(window)).group_by("customer_id", "period").agg(nw.col("amount_micro").sum().alias("net_micro"))
    )


def customer_features(totals: pl.DataFrame, spend: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The features of one snapshot, with the columns of ``customer_features``, sorted by customer.

    Each is defined, with its unit, in ``domain.schemas``.

    Args:
        totals: ``customer_totals``, collected.
        spend: ``spend_by_period``, collected.
        window: the observation window.
    """
    as_of = pl.lit(window.as_of)
    gross, orders = pl.col("gross_micro").fill_null(0), pl.col("frequency_orders").fill_null(0)
    cancelled = pl.col("n_cancelled_orders").fill_null(0)
    date_span_days = (pl.col("last_order_date") - pl.col("first_order_date")).dt.total_days()
    n_gaps = pl.col("n_order_dates").cast(pl.Int64) - 1
    has_products = pl.col("n_products").is_not_null().any()
    has_units = pl.col("units_micro").fill_null(0).ne(0).any()
    totals = totals.sort("customer_id")
    return (
        totals.with_columns(_spend_statistics(totals, spend, window))
        .select(
            pl.lit(window.key).alias("period"),
            "customer_id",
            _whole_days(as_of - pl.col("last_at")).alias("recency_days"),
            orders.cast(pl.Int64).alias("frequency_orders"),
            (gross / MICRO).alias("monetary_gross"),
            ((gross + pl.col("cancelled_micro").fill_null(0)) / MICRO).alias("monetary_net"),
            (pl.col("gross_micro") / MICRO / pl.col("frequency_orders")).alias("avg_order_value"),
            pl.when(has_products).then(pl.col("n_products").fill_null(0)).cast(pl.Int64).alias("n_products"),
            pl.when(has_units).then(pl.col("units_micro").fill_null(0) / MICRO).alias("n_units"),
            cancelled.cast(pl.Int64).alias("n_cancelled_orders"),
            (cancelled / (cancelled + orders)).alias("cancellation_rate"),
            _whole_days(as_of - pl.col("first_at")).alias("tenure_days"),
            pl.when(n_gaps > 0).then(date_span_days / n_gaps).alias("days_between_orders"),
            pl.col("favourite_weekday", "favourite_hour").cast(pl.Int64),
            "main_country",
            "monthly_spend_mean",
            "monthly_spend_std",
            "monthly_spend_slope",
        )
        .cast(CUSTOMER_FEATURES.schema)
    )


def _whole_days(span: pl.Expr) -> pl.Expr:
    return span.dt.total_microseconds() // _MICROSECONDS_A_DAY


def _spend_statistics(totals: pl.DataFrame, spend: pl.DataFrame, window: Window) -> list[pl.Series]:
    """Mean, sample standard deviation and least-squares slope of net spend per period, or span of an open window.

    Periods without a line count as zero from the customer's first period on, so they need no rows: with ``n`` periods
    and the sums over those that have rows, mean = Σx / n, Σ(x − mean)² gains mean² for each period without one, and
    slope = (Σtx − mean(t) Σx) / (n (n² − 1) / 12) for t = 0 … n − 1.
    """
    index = {key: position for position, key in enumerate(window.span_keys)}
    rows = (
        spend.join(totals.select("customer_id", "first_period").with_row_index("row"), on="customer_id")
        .sort("row", "period")
        .with_columns(pl.col("period", "first_period").replace_strict(index, return_dtype=pl.Int64))
    )
    row = rows["row"].to_numpy()
    x = rows["net_micro"].to_numpy() / MICRO
    t = (rows["period"] - rows["first_period"]).to_numpy()
    n_customers = len(totals)
    first = totals["first_period"].replace_strict(index, return_dtype=pl.Int64).to_numpy()
    n = len(window.span_keys) - first
    total = np.bincount(row, x, n_customers)
    mean = total / n
    n_present = np.bincount(row, minlength=n_customers)
    squares = np.bincount(row, (x - mean[row]) ** 2, n_customers) + (n - n_present) * mean**2
    several = n > 1
    std = np.sqrt(np.divide(squares, n - 1, out=np.zeros(n_customers), where=several))
    around_middle = np.bincount(row, t * x, n_customers) - (n - 1) / 2 * total
    slope = np.divide(around_middle, n * (n**2 - 1) / 12, out=np.zeros(n_customers), where=several)
    has_one = pl.Series(~several)
    return [
        pl.Series("monthly_spend_mean", mean),
        pl.Series("monthly_spend_std", std).set(has_one, None),
        pl.Series("monthly_spend_slope", slope).set(has_one, None),
    ]
