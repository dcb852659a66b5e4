"""Limits at the door: values that no business has are set aside while a source is read.

What such a value is belongs in ``domain.transactions.limits``, how many of them a source may have in ``unreadable``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from custseg_assets.domain.transactions.limits import (
    BARCODE_LENGTHS,
    MAX_AMOUNT,
    MAX_LINE_SHARE,
    MIN_BARCODE_RATIO,
    MIN_LINE_RATIO,
    MIN_LINES,
    USUAL_QUANTILE,
    is_barcode,
)
from custseg_assets.errors import BadInputError
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.raw_table import SOURCE_ROW

_SMALLEST_BARCODE = 10.0 ** (min(BARCODE_LENGTHS) - 1)
_N_EXAMPLES = 3


@dataclass(frozen=True)
class SetAside:
    """Values that are set aside.

    Attributes:
        numbers: the columns in which some are → their numbers, null where they are set aside.
        words: how many lines have them, why, and examples; ``""`` where there are none.
    """

    numbers: Mapping[str, pl.Expr]
    words: str


def set_impossible_aside(
    lines: pl.LazyFrame,
    numbers: Mapping[str, pl.Expr],
    mapping: ColumnMapping,
    max_line_amount: float | None,
    where: str,
    sizes: Mapping[str, float] | None = None,
) -> SetAside:
    """Set aside values beyond every amount, and barcodes among much smaller numbers.

    Args:
        lines: the mapped columns, as they are written.
        numbers: number column → its numbers, made of those.
        mapping: where the columns come from.
        max_line_amount: the largest amount of a line, if it is set; nothing else is then judged by its size.
        where: the file, for the messages.
        sizes: what ``measure_sizes`` found; without it that is measured here.

    Raises:
        BadInputError: one line has most of the money, and no limit is set.
    """
    limit = MAX_AMOUNT if max_line_amount is None else max_line_amount
    facts = sizes or _measure(lines, numbers)
    suspects = [name for name in numbers if max_line_amount is None and (facts[name] or 0) >= _SMALLEST_BARCODE]
    barcodes = {name: found for name in suspects if (found := _find_barcodes(lines, numbers[name]))}
    aside = SetAside({}, "")
    if barcodes or (facts["amount"] or 0) > limit or any((facts[name] or 0) > MAX_AMOUNT for name in numbers):
        flags = _flags(numbers, barcodes, limit)
        aside = SetAside(
            {name: pl.when(~flags[name]).then(values) for name, values in numbers.items()},
            _describe(lines, numbers, flags, mapping, max_line_amount),
        )
        numbers = aside.numbers
        facts = _measure(lines, numbers)
    if max_line_amount is None and facts["n"] >= MIN_LINES and facts["largest"] > MAX_LINE_SHARE * facts["total"]:
        _refuse_giant(lines, numbers, facts, where)
    return aside


def _amount(numbers: Mapping[str, pl.Expr]) -> pl.Expr:
    """The absolute amount of a line, as cleaning has it."""
    amounts = [numbers[name] for name in ("line_amount", "order_amount") if name in numbers]
    if {"quantity", "unit_price"} <= numbers.keys():
        amounts.append(numbers["quantity"] * numbers["unit_price"])
    return pl.coalesce(amounts).abs()


def measure_sizes(numbers: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    """The largest value of each column and of the amounts; and count, sum and largest of those of known customers.

    Aggregates, so that a pass over the lines that is made anyway can measure them.

    Args:
        numbers: number column → its numbers.
    """
    amount = _amount(numbers)
    of_customers = pl.when(pl.col("customer_id").is_not_null()).then(amount)
    return [
        *(values.abs().max().alias(name) for name, values in numbers.items()),
        amount.max().alias("amount"),
        of_customers.count().alias("n"),
        of_customers.sum().alias("total"),
        of_customers.max().alias("largest"),
    ]


def _measure(lines: pl.LazyFrame, numbers: Mapping[str, pl.Expr]) -> dict[str, float]:
    return lines.select(measure_sizes(numbers)).collect(engine="streaming").row(0, named=True)


def _find_barcodes(lines: pl.LazyFrame, values: pl.Expr) -> list[float]:
    """The different barcodes in a column of much smaller numbers."""
    sizes = lines.select(values.alias("value")).drop_nulls().collect(engine="streaming")["value"]
    large = sizes.filter(sizes.abs() >= _SMALLEST_BARCODE).unique()
    found = [value for value in large.to_list() if is_barcode(value)]
    usual = sizes.filter(~sizes.is_in(found)).abs().quantile(USUAL_QUANTILE)
    return [] if usual is None else [value for value in found if abs(value) >= MIN_BARCODE_RATIO * usual]


def _flags(numbers: Mapping[str, pl.Expr], barcodes: Mapping[str, list[float]], limit: float) -> dict[str, pl.Expr]:
    """Column → whether its value is set aside: for itself, or with all others of a line whose amount is too large."""
    own = {name: (values.abs() > MAX_AMOUNT) | values.is_in(barcodes.get(name, [])) for name, values in numbers.items()}
    possible = {name: pl.when(~own[name]).then(values) for name, values in numbers.items()}
    is_beyond = _amount(possible) > limit
    return {name: (own[name] | is_beyond).fill_null(value=False) for name in numbers}


def _describe(
    lines: pl.LazyFrame,
    numbers: Mapping[str, pl.Expr],
    flags: Mapping[str, pl.Expr],
    mapping: ColumnMapping,
    max_line_amount: float | None,
) -> str:
    shown = [pl.when(flags[name]).then(values).alias(name) for name, values in numbers.items()]
    bad = lines.filter(pl.any_horizontal(flags.values())).select(SOURCE_ROW, *shown).collect(engine="streaming")
    examples = "; ".join(
        f"row {row[SOURCE_ROW]:,}, "
        + ", ".join(f"{mapping.columns[name]!r} {row[name]:.15g}" for name in numbers if row[name] is not None)
        for row in bad.sort(SOURCE_ROW).head(_N_EXAMPLES).iter_rows(named=True)
    )
    what = f"more than {MAX_AMOUNT:,.0f}, or barcodes among much smaller numbers"
    if max_line_amount is not None:
        what = f"more than [source] max_line_amount = {max_line_amount:g}"
    has = "line has" if bad.height == 1 else "lines have"
    return f"{bad.height:,} {has} numbers that are set aside ({what}): {examples}"


def _refuse_giant(lines: pl.LazyFrame, numbers: Mapping[str, pl.Expr], facts: Mapping[str, float], where: str) -> None:
    """Refuse a line that has most of the money and is far larger than every other: nothing says whether it is right."""
    known = lines.filter(pl.col("customer_id").is_not_null()).select(SOURCE_ROW, _amount(numbers).alias("amount"))
    [giant, second] = known.drop_nulls().top_k(2, by="amount").collect(engine="streaming").iter_rows(named=True)
    if giant["amount"] < MIN_LINE_RATIO * second["amount"]:
        return
    raise BadInputError(
        f"{where}: row {giant[SOURCE_ROW]:,} alone has {giant['amount'] / facts['total']:.1%} of the money of"
        f" {facts['n']:,.0f} lines, {giant['amount']:,.2f}; the next largest has {second['amount']:,.2f}",
        f"no line with more than {MAX_LINE_SHARE:.0%} of the money and {MIN_LINE_RATIO} times every other",
        "If it is a slip, correct it, or have larger lines set aside: write max_line_amount ="
        f" {_round_up(second['amount'] or giant['amount'] / 2)} under [source] in custseg.toml; if it is right, write"
        f" max_line_amount = {_round_up(giant['amount'])} there.",
    )


def _round_up(value: float) -> str:
    """The next number of two digits and noughts that is not smaller."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / step, 9)) * step:.12g}"
