"""Lines that a source's filter leaves out: they stay in the log, with the column and the value that excluded them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from custseg_assets.domain.transactions.presets import RowFilter
from custseg_assets.errors import BadInputError
from custseg_assets.stores.columns import ColumnMapping, filter_column, line_key_column, refund_column
from custseg_assets.stores.orders import only_value_of_order
from custseg_assets.stores.raw_table import SOURCE_ROW

EXCLUDED_BY = "excluded_by"
_AGAIN = "comes again"
_N_SHOWN = 6


def normalised(text: pl.Expr) -> pl.Expr:
    """A text as it is compared with a filter's values: without case, and with one space for spaces, ``_`` and ``-``."""
    bare = text.str.strip_chars().str.to_lowercase().str.replace_all(r"[\s_-]+", " ")
    return bare.str.replace(r"^(\d+)\.0+$", "$1").fill_null("")


def exclude_lines(lines: pl.LazyFrame, mapping: ColumnMapping) -> pl.LazyFrame:
    """Add ``excluded_by``: the first filter's column and value that leave a line out, null for lines that count.

    An order whose status stands on one of its lines only has it on all of them. Of the lines with the same key only the
    first counts.

    Args:
        lines: with the columns of the filters, as trimmed text, and ``invoice_id`` where the shop has it.
        mapping: with the filters.
    """
    has_orders = "invoice_id" in mapping.headers
    for i, rule in enumerate(mapping.filters.values()):
        name = filter_column(i)
        is_partly_empty = pl.col(name).null_count() > 0
        # Whoever leaves empty cells out means each line's own.
        if "" in rule.exclude:
            continue
        if has_orders and lines.select(is_partly_empty).collect(engine="streaming").item():
            lines = lines.with_columns(pl.coalesce(name, only_value_of_order(name)).alias(name))
    excluding = [
        pl.when(_is_excluded(pl.col(filter_column(i)), rule)).then(
            pl.concat_str(pl.lit(f"{header} = "), pl.col(filter_column(i)).fill_null('""'))
        )
        for i, (header, rule) in enumerate(mapping.filters.items())
    ]
    if mapping.line_key:
        excluding.append(pl.when(_comes_again(len(mapping.line_key))).then(pl.lit(_again(mapping))))
    return lines.with_columns(pl.coalesce(*excluding, pl.lit(None, pl.String)).alias(EXCLUDED_BY))


def take_back(numbers: Mapping[str, pl.Expr], mapping: ColumnMapping) -> dict[str, pl.Expr]:
    """The number columns with lines for what was paid back as negative ones, whatever their sign.

    Args:
        numbers: mapped column → its numbers.
        mapping: with the values of such lines.
    """
    is_back = pl.any_horizontal(
        _is_in(pl.col(refund_column(i)), values) for i, values in enumerate(mapping.refunds.values())
    )
    signs = {"quantity": -1, "line_amount": -1, "order_amount": -1, "unit_price": 1}
    if "quantity" not in numbers:
        signs["unit_price"] = -1
    return {
        name: pl.when(is_back).then(values.abs() * signs[name]).otherwise(values)
        for name, values in numbers.items()
        if name in signs
    }


def is_repeat_of_join() -> pl.Expr:
    """Whether a line is left out because an earlier one has its key."""
    return pl.col(EXCLUDED_BY).str.ends_with(_AGAIN).fill_null(value=False)


def _comes_again(n_parts: int) -> pl.Expr:
    parts = [pl.col(line_key_column(i)) for i in range(n_parts)]
    has_key = pl.all_horizontal(part.is_not_null() for part in parts)
    return has_key & (pl.col(SOURCE_ROW) > pl.col(SOURCE_ROW).min().over(parts))


def _again(mapping: ColumnMapping) -> str:
    return f"{' + '.join(mapping.line_key)} {_AGAIN}"


def describe_filters(lines: pl.LazyFrame, mapping: ColumnMapping, where: str) -> list[str]:
    """How many lines have each value of the filters' columns, and whether they count.

    Raises:
        BadInputError: no line is left, or a known export has a value of which custseg does not know what it means.
    """
    said: list[str] = []
    for i, (header, rule) in enumerate(mapping.filters.items()):
        name = filter_column(i)
        is_excluded_here = pl.col(EXCLUDED_BY).is_null() | pl.col(EXCLUDED_BY).str.starts_with(f"{header} = ")
        counted = (
            lines.group_by(pl.col(name).fill_null('""').alias("value"))
            .agg(
                pl.len().alias("n"),
                _is_excluded(pl.col(name), rule).first().alias("is_out"),
                pl.col(EXCLUDED_BY).is_null().sum().alias("n_left"),
                (_is_unknown(pl.col(name), rule) & is_excluded_here).sum().alias("n_unknown"),
            )
            .sort("n", "value", descending=[True, False])
            .collect(engine="streaming")
        )
        if rule.refuses_others:
            _refuse_unknown(counted.filter(pl.col("n_unknown") > 0), rule, header, where)
        if not counted["n_left"].sum():
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
    for i, (header, values) in enumerate(mapping.refunds.items()):
        value = pl.col(refund_column(i)).fill_null('""').alias("value")
        counted = (
            lines.filter(pl.col(EXCLUDED_BY).is_null())
            .group_by(value, _is_in(pl.col(refund_column(i)), values).alias("is_back"))
            .agg(pl.len().alias("n"))
            .sort("n", "value", descending=[True, False])
            .collect(engine="streaming")
        )
        back, others = (_list(counted.filter(is_back=flag).select("value", "n").iter_rows()) for flag in (True, False))
        said.append(f"{header}: refunds {back or 'none'}; counts {others or 'none'}")
    if mapping.line_key:
        n_again = lines.select(is_repeat_of_join().sum()).collect(engine="streaming").item()
        said += [f"{n_again:,} lines left out: {_again(mapping)}"] if n_again else []
    return said


def _is_excluded(value: pl.Expr, rule: RowFilter) -> pl.Expr:
    is_excluded = _is_in(value, rule.exclude)
    return ~_is_in(value, rule.only) | is_excluded if rule.only else is_excluded


def _is_unknown(value: pl.Expr, rule: RowFilter) -> pl.Expr:
    return ~_is_in(value, (*rule.only, *rule.exclude))


def _is_in(value: pl.Expr, values: Iterable[str]) -> pl.Expr:
    listed = pl.DataFrame({"v": pl.Series([*values], dtype=pl.String)}).select(normalised(pl.col("v")))["v"].to_list()
    return normalised(value).is_in(listed)


def _refuse_unknown(unknown: pl.DataFrame, rule: RowFilter, header: str, where: str) -> None:
    if unknown.height:
        only, exclude = (", ".join(f'"{value}"' for value in values) for values in (rule.only, rule.exclude))
        known = f"one of {only}, which count" + (f", or {exclude}, which do not" if exclude else "")
        excluded = exclude or f'"{unknown["value"][0]}"'
        line = f'"{header}" = {{ exclude = [{excluded}] }}'
        raise BadInputError(
            f"{where}, column {header!r} has values that the preset does not know:"
            f" {_list(unknown.select('value', 'n_unknown').iter_rows())}",
            known,
            f"Under [source.filter] write {line} with those that do not count, or"
            f' "{header}" = [{only}] with those that do.',
            {"source.filter": [line]},
        )


def _list(values: Iterable[tuple[str, int]]) -> str:
    rows = list(values)
    shown = ", ".join(f"{value} ({n:,})" for value, n in rows[:_N_SHOWN])
    return f"{shown} and {len(rows) - _N_SHOWN} more" if len(rows) > _N_SHOWN else shown
