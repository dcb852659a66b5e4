"""Lines of one order: what stands on its first line only holds for all of them."""

from __future__ import annotations

import polars as pl

from custseg_assets.stores.columns import ColumnMapping

_OF_ORDERS = ("customer_id", "invoiced_at")


def only_value_of_order(name: str) -> pl.Expr:
    """The one value that a column has on the lines of an order; null where there are several, or no order."""
    known = pl.col(name).drop_nulls()
    one = pl.when(known.n_unique() == 1).then(known.first()).over("invoice_id")
    return pl.when(pl.col("invoice_id").is_not_null()).then(one)


def complete_orders(lines: pl.LazyFrame, mapping: ColumnMapping) -> pl.LazyFrame:
    """Fill in an order's customer and date on its further lines, where the export has totals of orders.

    Such exports write what is the order's on its first line. A line without a customer would lose its share of a total.

    Args:
        lines: with the mapped columns.
        mapping: which columns there are.
    """
    if not {"order_amount", "invoice_id"} <= mapping.headers.keys() or mapping.invoice_key:
        return lines
    gaps = lines.select(pl.col(_OF_ORDERS).null_count()).collect(engine="streaming").row(0, named=True)
    return lines.with_columns(pl.coalesce(name, only_value_of_order(name)).alias(name) for name, n in gaps.items() if n)
