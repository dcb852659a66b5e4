"""Lines that a source's filter leaves out: they stay in the log, with the column and the value that excluded them."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from custseg_assets.domain.transactions.presets import RowFilter
from custseg_assets.errors import BadInputError
from custseg_assets.stores.columns import ColumnMapping, filter_column

EXCLUDED_BY = "excluded_by"
_N_SHOWN = 6


def normalised(text: pl.Expr) -> pl.Expr:
    """A text as it is compared with a filter's values: without case, and with one space for spaces, ``_`` and ``-``."""
    bare = text.str.strip_chars().str.to_lowercase().str.replace_all(r"[\s_-]+", " ")
    return bare.str.replace(r"^(\d+)\.0+$", "$1").fill_null("")


def exclude_lines(lines: pl.LazyFrame, mapping: ColumnMapping) -> pl.LazyFrame:
    """Add ``excluded_by``: the first filter's column and value that leave a line out, null for lines that count.

    An order whose status stands on one of its lines only has it on all of them.

    Args:
        lines: with the columns of the filters, as trimmed text, and ``invoice_id`` where the shop has it.
        mapping: with the filters.
    """
    has_orders = "invoice_id" in mapping.headers
    for i in range(len(mapping.filters)):
        name = filter_column(i)
        is_partly_empty = pl.col(name).null_count() > 0
        if has_orders and lines.select(is_partly_empty).collect(engine="streaming").item():
            known = pl.col(name).drop_nulls()
            of_order = pl.when(known.n_unique() == 1).then(known.first()).over("invoice_id")
            is_of_order = pl.col(name).is_null() & pl.col("invoice_id").is_not_null()
            lines = lines.with_columns(pl.when(is_of_order).then(of_order).otherwise(pl.col(name)).alias(name))
    excluding = [
        pl.when(_is_excluded(pl.col(filter_column(i)), rule)).then(
            pl.concat_str(pl.lit(f"{header} = "), pl.col(filter_column(i)).fill_null('""'))
        )
        for i, (header, rule) in enumerate(mapping.filters.items())
    ]
    return lines.with_columns(pl.coalesce(*excluding, pl.lit(None, pl.String)).alias(EXCLUDED_BY))


def describe_filters(lines: pl.LazyFrame, mapping: ColumnMapping, where: str) -> list[str]:
    """How many lines have each value of the filters' columns, and whether they count.

    Raises:
        BadInputError: no line is left.
    """
    said, n_left = [], None
    for i, (header, rule) in enumerate(mapping.filters.items()):
        name = filter_column(i)
        counted = (
            lines.group_by(pl.col(name).fill_null('""').alias("value"))
            .agg(
                pl.len().alias("n"),
                _is_excluded(pl.col(name), rule).first().alias("is_out"),
                pl.col(EXCLUDED_BY).is_null().sum().alias("n_left"),
            )
            .sort("n", "value", descending=[True, False])
            .collect(engine="streaming")
        )
        n_left = int(counted["n_left"].sum())
        if not n_left:
            raise BadInputError(
                f"{where}: the filters leave none of {counted['n'].sum():,} lines; {header!r} has"
                f" {_list(counted.select('value', 'n').iter_rows())}",
                "lines that count",
                "Correct the values under [source.filter]; they are compared without case.",
            )
        kept, left_out = (counted.filter(pl.col("is_out") == is_out) for is_out in (False, True))
        parts = [
            f"{words} {_list(rows.select('value', 'n').iter_rows())}"
            for words, rows in (("counts", kept), ("left out", left_out))
            if rows.height
        ]
        said.append(f"{header}: {'; '.join(parts)}")
    return said


def _is_excluded(value: pl.Expr, rule: RowFilter) -> pl.Expr:
    values = pl.Series([*rule.only, *rule.exclude], dtype=pl.String)
    listed = pl.DataFrame({"v": values}).select(normalised(pl.col("v")))["v"].to_list()
    is_listed = normalised(value).is_in(listed)
    return ~is_listed if rule.only else is_listed


def _list(values: Iterable[tuple[str, int]]) -> str:
    rows = list(values)
    shown = ", ".join(f"{value} ({n:,})" for value, n in rows[:_N_SHOWN])
    return f"{shown} and {len(rows) - _N_SHOWN} more" if len(rows) > _N_SHOWN else shown
