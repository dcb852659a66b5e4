"""Totals: a row at the end of a report that sums the others, and would be counted as a sale."""

from __future__ import annotations

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.exclusion import EXCLUDED_BY
from custseg_assets.stores.raw_table import SOURCE_ROW

_N_LAST = 3
_FEWEST = 20
"""Rows that a total must be of; of a few rows one may be the sum of the others by chance."""
_TOLERANCE = 0.011


def refuse_totals(lines: pl.LazyFrame, mapping: ColumnMapping, where: str) -> None:
    """Refuse a table whose last rows are the total of those before and have a customer and a date, as sales do.

    Totals without one of them need no refusal: they are rejected like other lines without.

    Args:
        lines: typed lines of one table.
        mapping: where the columns come from.
        where: the file, for the messages.

    Raises:
        BadInputError: there is such a row.
    """
    if "line_amount" not in mapping.headers:
        return
    is_sale = pl.all_horizontal(pl.col("customer_id", "invoiced_at").is_not_null(), pl.col(EXCLUDED_BY).is_null())
    last = lines.tail(_N_LAST).filter(is_sale, pl.col("line_amount") != 0)
    for row in last.select(SOURCE_ROW, "customer_id", "line_amount").collect().iter_rows(named=True):
        before = lines.filter(pl.col(SOURCE_ROW) < row[SOURCE_ROW]).select(pl.len(), pl.col("line_amount").sum())
        n_rows, total = before.collect().row(0)
        if n_rows >= _FEWEST and abs(total - row["line_amount"]) < max(_TOLERANCE, abs(total) * 1e-9):
            column = mapping.columns["customer_id"]
            raise BadInputError(
                f"{where}, row {row[SOURCE_ROW]:,}: {row['line_amount']:,.2f} of {column} {row['customer_id']!r} is the"
                f" total of the {n_rows:,} rows before",
                "only lines of the log",
                f"Remove that row{_filter_for(lines, row[SOURCE_ROW], mapping)}.",
            )


def _filter_for(lines: pl.LazyFrame, row: int, mapping: ColumnMapping) -> str:
    """How to leave out one row and no other; ``""`` where none of its texts is only there."""
    for name in ("product_id", "description", "invoice_id", "customer_id"):
        if name not in mapping.headers or " " in mapping.columns[name].replace(mapping.headers[name][0], ""):
            continue
        value = pl.col(name).filter(pl.col(SOURCE_ROW) == row).first()
        text, n = lines.select(value.alias("text"), (pl.col(name) == value).sum()).collect().row(0)
        if text is not None and n == 1:
            return (
                f', or leave it out: under [source.filter] write "{mapping.columns[name]}" = {{ exclude = ["{text}"] }}'
            )
    return ""
