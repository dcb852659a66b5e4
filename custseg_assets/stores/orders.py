"""Lines of one order: what stands on its first line only holds for all of them."""

from __future__ import annotations

import polars as pl

from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.raw_table import SOURCE_ROW

_FEWEST, _MOST = 10, 0.9
"""Orders, and their share, that must have a column on their first line only for it to hold for the others."""
_OF_ORDERS = ("customer_id", "invoiced_at")


def only_value_of_order(name: str) -> pl.Expr:
    """The one value that a column has on the lines of an order; null where there are several, or no order."""
    known = pl.col(name).drop_nulls()
    one = pl.when(known.n_unique() == 1).then(known.first()).over("invoice_id")
    return pl.when(pl.col("invoice_id").is_not_null()).then(one)


def complete_orders(lines: pl.LazyFrame, mapping: ColumnMapping, where: str) -> tuple[pl.LazyFrame, list[str]]:
    """Fill in an order's customer and date on its further lines, where the export writes them on the first one only.

    Such exports write what is the order's on its first line. A line without a customer would lose its share of a total.

    Args:
        lines: with the mapped columns.
        mapping: which columns there are.
        where: the file, for the sentences.

    Returns:
        The lines, and sentences that say what was filled in unasked.
    """
    if "invoice_id" not in mapping.headers or mapping.invoice_key or mapping.preset == "online_retail":
        return lines, []
    gaps = lines.select(pl.col(_OF_ORDERS).null_count()).collect(engine="streaming").row(0, named=True)
    names = [name for name, n in gaps.items() if n]
    if "order_amount" not in mapping.headers:
        names = [name for name in names if _is_on_first_lines(lines, name)]
    notes = [
        f"{where}: {mapping.columns[name]!r} stands on the first line of an order, and holds for its others"
        for name in names
        if "order_amount" not in mapping.headers
    ]
    return lines.with_columns(pl.coalesce(name, only_value_of_order(name)).alias(name) for name in names), notes


def _is_on_first_lines(lines: pl.LazyFrame, name: str) -> bool:
    """Whether a column is filled on the first line of nearly every order with several lines, and on no other."""
    is_there = pl.col(name).is_not_null()
    orders = (
        lines.filter(pl.col("invoice_id").is_not_null())
        .group_by("invoice_id")
        .agg(
            pl.len().alias("n"),
            is_there.sum().alias("n_there"),
            is_there.sort_by(SOURCE_ROW).first().alias("is_first"),
        )
    )
    several = orders.filter((pl.col("n") > 1) & (pl.col("n_there") > 0))
    is_once = (pl.col("n_there") == 1) & pl.col("is_first")
    n, n_once = several.select(pl.len(), is_once.sum()).collect(engine="streaming").row(0)
    return bool(n >= _FEWEST and n_once >= _MOST * n)
