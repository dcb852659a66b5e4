"""Doubts about what lines amount to: totals among the lines, signs that contradict, prices, units of money and gaps.

One look each; called with all the others by ``doubts``.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from custseg_assets.domain.transactions.log_facts import MIN_CASES, Doubt, LogFacts

MIN_WITH_TOTALS = 0.9
"""Share of the orders of three lines or more of which one line is the sum of the others, from which it is the total."""

MIN_PROPORTIONAL = 0.9
"""Share of the products sold in several quantities whose amounts say that a column means something else."""

MIN_FILE_RATIO = 30.0
"""How many times larger or smaller than the others' the usual amount of a file is, where it is in another unit."""

MAX_GAPS = 0.01
"""Share of the lines with an amount that may have neither customer nor date, such as totals."""

MAX_EMPTY = 0.1
"""Share of the lines that may have no date, or no amount, as cancelled ones in some exports; from ``MAX_GAPS`` it is
said."""

_TOTAL_ID = r"(?i)(?:^|[\s:_-])(?:sub|grand|sous)?[\s-]?(?:total|totale|summe|zwischensumme|gesamt|suma)(?:[\s:_-]|$)"
_CENT = 0.011
_SAMPLE = 50_000
_NEAR = 0.01


def amount_doubts(lines: pl.LazyFrame, known: pl.LazyFrame, orders: pl.DataFrame, facts: LogFacts) -> Iterator[Doubt]:
    """What is doubtful about the amounts of a log.

    Args:
        lines: of all files.
        known: those that count, with ``amount``.
        orders: of those, with the number of their lines, ``high`` and ``total``.
        facts: how they were read and are cleaned.
    """
    yield from _total_lines(orders)
    yield from _subtotals(orders)
    yield from _signs(known, orders, facts)
    yield from _prices(known, facts)
    if orders["first_file"].n_unique() > 1:
        yield from _file_amounts(known)
    yield from _gaps(lines, facts)


def _total_lines(orders: pl.DataFrame) -> Iterator[Doubt]:
    """A line with the total of an order besides its items doubles the revenue."""
    several = orders.filter((pl.col("n") >= 3) & pl.col("invoice_id").is_not_null())
    with_total = several.filter((pl.col("total") - 2 * pl.col("high")).abs() < _CENT, pl.col("high") > 0)
    if with_total.height < MIN_CASES or with_total.height < MIN_WITH_TOTALS * several.height:
        return
    worst = with_total.sort("high", "invoice_id", descending=[True, False]).row(0, named=True)
    yield Doubt(
        "total_lines",
        f"in {with_total.height:,} of {several.height:,} orders with three lines or more one line is the sum of the"
        f" others ({worst['invoice_id']!r} has {worst['high']:,.2f}), so it is the order's total",
        "Leave these lines out by a column that tells them apart: under [source.filter] write its name ="
        ' { exclude = ["…"] }, with "" for an empty cell.',
        is_refused=True,
    )


def _subtotals(orders: pl.DataFrame) -> Iterator[Doubt]:
    """Lines that are the sum of all others of a customer, or of a day, double the revenue just as much."""
    for name, what in (("customer_id", "customers"), ("day", "days")):
        groups = orders.group_by(name).agg(pl.col("n", "total").sum(), pl.col("high").max()).filter(pl.col("n") >= 3)
        summed = groups.filter((pl.col("total") - 2 * pl.col("high")).abs() < _CENT, pl.col("high") > 0)
        if summed.height < MIN_CASES or summed.height < MIN_WITH_TOTALS * groups.height:
            continue
        worst = summed.sort("high", name, descending=[True, False]).row(0, named=True)
        yield Doubt(
            "total_lines",
            f"{summed.height:,} of {groups.height:,} {what} with three lines or more have one line that is the sum of"
            f" the others ({worst[name]} has {worst['high']:,.2f}), so it is a subtotal",
            "Export without subtotals, or leave these lines out by a column that tells them apart: under"
            ' [source.filter] write its name = { exclude = ["…"] }, with "" for an empty cell.',
            is_refused=True,
        )


def total_names(orders: pl.DataFrame, facts: LogFacts) -> Iterator[Doubt]:
    """Subtotals that are called so where the customer or the order is.

    Args:
        orders: of the log, with ``total``.
        facts: how they were read.
    """
    for name in ("customer_id", "invoice_id"):
        found = orders.filter(pl.col(name).str.contains(_TOTAL_ID))
        if found.height >= MIN_CASES:
            yield Doubt(
                "total_lines",
                f"{found.height:,} orders are called totals in {facts.headers[name]!r}, such as {found[name].min()!r},"
                f" with {found['total'].sum():,.2f} of {orders['total'].sum():,.2f}",
                "Export without subtotals, or leave these lines out by a column under [source.filter].",
                is_refused=True,
            )


def _signs(known: pl.LazyFrame, orders: pl.DataFrame, facts: LogFacts) -> Iterator[Doubt]:
    """Negative quantities with positive amounts, and a shop that gave back more than it took."""
    if "quantity" in facts.headers:
        is_odd = (pl.col("quantity") < 0) & (pl.col("amount") > 0)
        found = known.select(
            is_odd.sum().alias("n"), pl.col("amount").filter(is_odd).sum(), (pl.col("quantity") < 0).sum().alias("of")
        )
        n, amount, n_negative = found.collect(engine="streaming").row(0)
        if n >= MIN_CASES and n * 2 > n_negative:
            column = facts.headers.get("line_amount") or facts.headers["unit_price"]
            yield Doubt(
                "signs",
                f"{n:,} lines have a negative {facts.headers['quantity']!r} and a positive amount, {amount:,.2f}"
                f" together, because {column!r} is "
                + ("positive" if "line_amount" in facts.headers else "negative, too"),
                "If they are returns, write a column that tells them apart with its values under [source.refunds], or"
                " export them with one negative sign.",
                is_refused=True,
            )
    n_negative, n_orders = orders.filter(pl.col("total") < 0).height, orders.height
    if n_orders >= MIN_CASES and (orders["total"] == 0).all():
        yield Doubt(
            "signs",
            f"all {n_orders:,} orders amount to 0",
            "Map another column, or export again from a program that computes the formulas.",
            is_refused=True,
        )
    if n_negative >= MIN_CASES and orders["total"].sum() < 0 and n_negative * 2 > n_orders:
        yield Doubt(
            "signs",
            f"{n_negative:,} of {n_orders:,} orders have a negative amount, {orders['total'].sum():,.2f} together",
            "Map the column with what customers paid as line_amount, or export it with the other sign.",
            is_refused=True,
        )


def _prices(known: pl.LazyFrame, facts: LogFacts) -> Iterator[Doubt]:
    """A line's total taken for the price of a unit, or the other way round, as products in several quantities show."""
    is_known_export = facts.rules.service_code_max_digits is not None
    if is_known_export or not {"product_id", "quantity"} <= facts.headers.keys():
        return
    is_total = "line_amount" in facts.headers
    money = "line_amount" if is_total else "unit_price"
    if money not in facts.headers:
        return
    is_sold = (pl.col("quantity") > 0) & (pl.col(money) > 0)
    sample = known.head(_SAMPLE).filter(is_sold).select("product_id", "quantity", money)
    each = sample.group_by("product_id").agg(
        pl.col("quantity").n_unique().alias("n_quantities"),
        (pl.col(money).max() / pl.col(money).min() - 1).abs().alias("spread"),
        ((pl.col(money) / pl.col("quantity")).max() / (pl.col(money) / pl.col("quantity")).min() - 1).alias("per_unit"),
    )
    products = each.filter(pl.col("n_quantities") > 1).collect(engine="streaming")
    same, proportional = pl.col("spread") < _NEAR, pl.col("per_unit") < _NEAR
    odd = products.filter(same if is_total else proportional & ~same)
    if odd.height < MIN_CASES or odd.height < MIN_PROPORTIONAL * products.height:
        return
    header, quantity = facts.headers[money], facts.headers["quantity"]
    example = odd.sort("product_id")["product_id"][0]
    which = "equal for any" if is_total else "proportional to"
    words = "the price of a unit, not what a line amounts to" if is_total else "what a line amounts to, not a price"
    other = "unit_price" if is_total else "line_amount"
    yield Doubt(
        "prices",
        f"{header!r} of {odd.height:,} of the {products.height:,} products sold in several quantities is {which}"
        f" {quantity!r}, such as that of {example!r}, so it is {words}",
        f'Write {other} = "{header}" instead of {money} under [source.columns].',
        is_refused=True,
    )


def _file_amounts(known: pl.LazyFrame) -> Iterator[Doubt]:
    """A file in cents, or one that lost its decimal mark, among others that have it."""
    amount = pl.col("amount").filter(pl.col("amount") > 0)
    files = (
        known.group_by("source_file")
        .agg(amount.median(), (amount == amount.round(0)).mean().alias("whole"), amount.len().alias("n"))
        .filter(pl.col("n") >= MIN_CASES)
        .sort("source_file")
        .collect(engine="streaming")
    )
    if files.height < 2:
        return
    usual = float(files["amount"].sort()[(files.height - 1) // 2])
    far = files.filter((pl.col("amount") > MIN_FILE_RATIO * usual) | (pl.col("amount") * MIN_FILE_RATIO < usual))
    near = files.filter(~pl.col("source_file").is_in(far["source_file"].to_list()))
    # Whole numbers in one and decimals in the other tell another unit from another kind of shop.
    if far.is_empty() or abs(float(far["whole"].min()) - float(near["whole"].max())) < 1 / 2:  # type: ignore[arg-type]
        return
    first = far.row(0, named=True)
    yield Doubt(
        "file_amounts",
        f"the usual amount in {', '.join(far['source_file'].head(3))} is {first['amount']:,.2f}, and in the other"
        f" {near.height:,} files {usual:,.2f}, and not both have decimals, so it is in another unit, such as cents",
        "Export it again in the unit of the others.",
        is_refused=True,
    )


def _gaps(lines: pl.LazyFrame, facts: LogFacts) -> Iterator[Doubt]:
    """Empty cells where every line has something: cells that were merged, or formulas that came to nothing."""
    amount = pl.coalesce("line_amount", pl.col("quantity") * pl.col("unit_price"))
    customer, day = facts.headers["customer_id"], facts.headers["invoiced_at"]
    total = facts.headers.get("line_amount") or facts.headers.get("unit_price") or "the amount"
    has_customer, has_day = (pl.col(name).is_not_null() for name in ("customer_id", "invoiced_at"))
    kinds = (
        (~has_customer & ~has_day & (amount != 0), f"neither {customer!r} nor {day!r}", "an amount", MAX_GAPS),
        (has_customer & has_day & amount.is_null(), f"no {total!r}", "a customer and a date", MAX_EMPTY),
        (has_customer & ~has_day & (amount != 0), f"no {day!r}", "a customer and an amount", MAX_EMPTY),
    )
    is_read = pl.col("excluded_by").is_null() & pl.col("unreadable_values").is_null()
    counted = lines.filter(is_read & (has_customer | (amount != 0))).select(
        pl.len().alias("n"),
        *(is_gap.sum().alias(f"gaps {i}") for i, (is_gap, *_) in enumerate(kinds)),
        *(pl.col("source_row").filter(is_gap).min().alias(f"row {i}") for i, (is_gap, *_) in enumerate(kinds)),
    )
    found = counted.collect(engine="streaming").row(0, named=True)
    n = found["n"]
    for i, (_, lacks, has, most) in enumerate(kinds):
        n_gaps = found[f"gaps {i}"]
        if n_gaps >= MIN_CASES and n_gaps > MAX_GAPS * n:
            yield Doubt(
                "gaps",
                f"{n_gaps:,} of {n:,} lines with {has} have {lacks}, the first in row {found[f'row {i}']:,}",
                "If cells were merged, written once for several lines, or formulas that failed, fill them in on every"
                " line; if these lines do not count, leave them out under [source.filter].",
                is_refused=n_gaps > most * n,
            )
