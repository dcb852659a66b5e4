"""What a line amounts to: its share of an order's total, less what was given back, in one currency."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping, equal_column
from custseg_assets.stores.exclusion import EXCLUDED_BY, is_repeat_of_join
from custseg_assets.stores.orders import only_value_of_order
from custseg_assets.stores.unreadable import says_something, text_of

_LONG_AGO = date(1900, 1, 1)
_ORDER = "order of the line"
_CENT = 0.005
_RATES = {"date": pl.Date, "currency": pl.String, "rate": pl.Float64}


def settle_amounts(
    lines: pl.LazyFrame, mapping: ColumnMapping, settings: SourceSettings, where: str
) -> tuple[pl.LazyFrame, list[str]]:
    """Fill in ``line_amount`` from order totals, refunds and rates, where the source has such columns.

    Args:
        lines: typed lines with ``excluded_by`` and those of ``READ_NAMES`` that are mapped.
        mapping: where the columns come from.
        settings: the currency and its rates.
        where: the file, for the messages.

    Returns:
        The lines, and sentences that say what was done.

    Raises:
        BadInputError: an order has two totals, or amounts are in several currencies without a rate for each.
    """
    notes: list[str] = []
    headers = mapping.columns
    if "order_amount" in headers:
        names = [name for name in ("order_amount", "refunded_amount") if name in headers]
        lines = _share_out(lines, {name: headers[name] for name in names}, where)
        lines = lines.with_columns(pl.col("order_amount").alias("line_amount"))
        notes.append(f"{where}: the total {headers['order_amount']!r} of an order is shared out to its lines")
    elif {"line_amount", "invoice_id"} <= headers.keys():
        _refuse_totals_of_orders(lines, headers["line_amount"], where)
    if "refunded_amount" in headers:
        if "order_amount" not in headers:
            _refuse_repeated_refunds(lines, headers["refunded_amount"], where)
        amount = pl.coalesce("line_amount", pl.col("quantity") * pl.col("unit_price"))
        refund = pl.col("refunded_amount").fill_null(0.0).abs()
        lines = lines.with_columns((amount - refund).alias("line_amount"))
        refunded = lines.filter(pl.col(EXCLUDED_BY).is_null()).select(refund.sum()).collect(engine="streaming")
        notes.append(f"{where}: {refunded.item():,.2f} of {headers['refunded_amount']!r} are taken off")
    if "currency" in headers:
        lines, said = _convert(lines, settings, f"{where}, column {headers['currency']!r}", headers["currency"])
        notes += said
    return lines, notes


def refuse_unequal_amounts(lines: pl.LazyFrame, mapping: ColumnMapping, where: str) -> None:
    """Refuse amounts that stand in two currencies, where an export has no column that names them.

    Args:
        lines: with the two columns of ``mapping.equal_amounts`` as texts or numbers, and ``excluded_by``.
        mapping: with the columns, if there are any.
        where: the file, for the messages.

    Raises:
        BadInputError: the two differ on a line that counts.
    """
    if not mapping.equal_amounts:
        return
    one, other = (pl.col(equal_column(i)) for i in range(2))
    is_near = (one.cast(pl.Float64, strict=False) - other.cast(pl.Float64, strict=False)).abs() < _CENT
    unequal = lines.filter(pl.col(EXCLUDED_BY).is_null() & ~one.eq_missing(other) & ~is_near.fill_null(value=False))
    first = unequal.select(pl.len(), one.first(), other.first().alias("other"))
    n, shown, shown_other = first.collect(engine="streaming").row(0)
    if n:
        first_header, second_header = mapping.equal_amounts
        raise BadInputError(
            f"{where}: {first_header!r} and {second_header!r} differ in {n:,} lines, such as {shown} and {shown_other}:"
            " customers paid in several currencies",
            "amounts in one currency, because they are summed",
            "Export the orders of one currency at a time, or keep those of one with a column that tells them apart,"
            " under [source.filter].",
        )


def _share_out(lines: pl.LazyFrame, headers: Mapping[str, str], where: str) -> pl.LazyFrame:
    """Each line's share of its order's totals, by what its goods cost; equal shares where that is not known."""
    day = pl.concat_str(pl.col("customer_id"), pl.col("invoiced_at").dt.date().cast(pl.String), separator=" ")
    lines = lines.with_columns(pl.coalesce("invoice_id", day).alias(_ORDER))
    # Gifts and notes have a 0 where the others have the total.
    known = {name: pl.col(name).drop_nulls() for name in headers}
    known["order_amount"] = known["order_amount"].filter(known["order_amount"] != 0)
    for name, header in headers.items():
        _refuse_several_totals(lines, known[name], f"{where}, column {header!r}")
    is_first = ~is_repeat_of_join()
    cost = (pl.col("quantity") * pl.col("unit_price")).clip(0) * is_first
    is_priced = (cost.null_count() == 0) & (cost.sum() > 0)
    equal = is_first / is_first.sum().over(_ORDER)
    share = pl.when(is_priced.over(_ORDER)).then(cost / cost.sum().over(_ORDER)).otherwise(equal)
    # A total or a refund that cannot be read must not count as none, nor the goods' prices instead of it.
    is_lost = pl.any_horizontal(says_something(text_of(name)) for name in headers).any().over(_ORDER)
    first = {name: pl.coalesce(values.first(), pl.col(name).drop_nulls().first()) for name, values in known.items()}
    totals = [pl.when(~is_lost).then(first[name].over(_ORDER) * share).alias(name) for name in headers]
    prices = [pl.when(~is_lost).then(pl.col("unit_price")).alias("unit_price")]
    return lines.with_columns(*totals, *prices).drop(_ORDER)


def _refuse_several_totals(lines: pl.LazyFrame, total: pl.Expr, where: str) -> None:
    orders = lines.group_by(_ORDER).agg(total.min().alias("low"), total.max().alias("high"))
    clashes = orders.filter((pl.col("low") != pl.col("high")) & pl.col(_ORDER).is_not_null()).sort(_ORDER)
    found = clashes.select(pl.len().alias("n"), pl.all().first()).collect(engine="streaming").row(0, named=True)
    if found["n"]:
        raise BadInputError(
            f"{where}: {found['n']:,} orders have several totals, such as {found[_ORDER]} with {found['low']:g} and"
            f" {found['high']:g}",
            "one total for an order, on its first line or on each",
            "If they are the lines' own, map the amounts as line_amount.",
        )


def _refuse_totals_of_orders(lines: pl.LazyFrame, header: str, where: str) -> None:
    """An amount that only one line of each order has is the order's; the others must not count by their price too."""
    has_amount = pl.col("line_amount").is_not_null().sum()
    orders = lines.filter(pl.col("invoice_id").is_not_null()).group_by("invoice_id")
    several = orders.agg(pl.len().alias("n"), has_amount.alias("amounts")).filter(pl.col("n") > 1)
    once = (pl.col("amounts") == 1).sum().alias("once")
    n, n_once = several.select(pl.len(), once).collect(engine="streaming").row(0)
    if n_once * 2 > n:
        raise BadInputError(
            f"{where}, column {header!r} is filled on one line only of {n_once:,} of {n:,} orders with several lines",
            "the amount of each line, or the total of the order",
            f'If it is the total of the order, write order_amount = "{header}" instead of line_amount under'
            " [source.columns].",
        )


def _refuse_repeated_refunds(lines: pl.LazyFrame, header: str, where: str) -> None:
    """A refund that is equal on every line of an order is the order's, and must not be taken off several times."""
    refund = pl.col("refunded_amount").fill_null(0.0)
    orders = lines.filter(pl.col("invoice_id").is_not_null()).group_by("invoice_id")
    several = orders.agg(pl.len().alias("n"), refund.min().alias("low"), refund.max().alias("high"))
    several = several.filter((pl.col("n") > 1) & (pl.col("high").abs() > 0))
    is_repeated = pl.col("low") == pl.col("high")
    found = several.select(pl.len().alias("n"), is_repeated.sum().alias("repeated")).collect(engine="streaming")
    n, n_repeated = found.row(0)
    if n_repeated * 2 > n:
        raise BadInputError(
            f"{where}, column {header!r} is equal on every line of {n_repeated:,} of the {n:,} orders with refunds and"
            " several lines",
            "what was given back of a line, or of an order on its first line",
            "If it is the order's, map the order's total as order_amount instead of the lines' amounts.",
        )


def _convert(lines: pl.LazyFrame, settings: SourceSettings, where: str, header: str) -> tuple[pl.LazyFrame, list[str]]:
    """Convert amounts and prices to the one currency, by the rate in force on the line's day."""
    lines = lines.with_columns(pl.col("currency").str.to_uppercase())
    lines = lines.with_columns(pl.coalesce("currency", only_value_of_order("currency")))
    counted = lines.filter(pl.col(EXCLUDED_BY).is_null()).group_by("currency").agg(pl.len().alias("n"))
    found = counted.sort("n", "currency", descending=[True, False]).collect(engine="streaming")
    currencies = [one for one in found["currency"] if one is not None]
    shown = ", ".join(f"{one or 'none'} ({n:,})" for one, n in found.iter_rows())
    if settings.currency is None or settings.rates is None:
        if len(currencies) > 1:
            raise BadInputError(
                f"{where} has amounts in several currencies: {shown}",
                "amounts in one currency, because they are summed",
                f'Keep one of them with "{header}" = "{currencies[0]}" under [source.filter], or convert all with'
                f' currency = "{currencies[0]}" and rates = "rates.csv" (date,currency,rate) under [source].',
            )
        if settings.currency is not None and currencies not in ([], [settings.currency]):
            raise BadInputError(
                f"{where} has amounts in {currencies[0]}",
                f'amounts in {settings.currency}, as [source] currency = "{settings.currency}" says',
                'Correct it, or convert them with rates = "rates.csv" (date,currency,rate) under [source].',
            )
        return lines, []
    if len(found) > len(currencies):
        raise BadInputError(f"{where} is empty in some orders: {shown}", "a currency for each", "Complete the column.")
    rates = _read_rates(settings.rates, settings.currency)
    day = pl.col("invoiced_at").dt.date()
    dated = lines.with_columns(day.alias("day of the rate")).sort("day of the rate", maintain_order=True)
    converted = dated.join_asof(
        rates.lazy(), left_on="day of the rate", right_on="date", by="currency", check_sortedness=False
    )
    lacking = converted.filter(pl.col("rate").is_null() & pl.col("day of the rate").is_not_null())
    first = lacking.select(pl.len().alias("n"), pl.col("currency", "day of the rate").first())
    missing = first.collect(engine="streaming").row(0, named=True)
    if missing["n"]:
        raise BadInputError(
            f"{settings.rates} has no rate for {missing['currency']} on {missing['day of the rate']}, nor before it;"
            f" {missing['n']:,} lines need one",
            f"for each currency ({', '.join(currencies)}) a rate from the first day on",
            "Add a row with date, currency and rate.",
        )
    amounts = [(pl.col(name) * pl.col("rate")).alias(name) for name in ("line_amount", "unit_price")]
    done = converted.with_columns(amounts).sort("source_row").drop("rate", "day of the rate")
    return done, [f"{where}: {shown} converted to {settings.currency} by {settings.rates}"]


def _read_rates(path: Path, currency: str) -> pl.DataFrame:
    try:
        rates = (
            pl.read_csv(path, schema_overrides=_RATES)
            .select(*_RATES)
            .with_columns(pl.col("currency").str.to_uppercase())
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadInputError(
            f"[source] rates {path}: {str(error).splitlines()[0]}",
            "a csv file with the columns date (2024-01-31), currency and rate",
            "Correct it.",
        ) from None
    bad = rates.filter(pl.any_horizontal(pl.all().is_null()) | ~(pl.col("rate") > 0) | pl.col("rate").is_infinite())
    if bad.height:
        raise BadInputError(
            f"[source] rates {path} has {bad.row(0)}", "a day, a currency and a rate above 0", "Correct it."
        )
    twice = rates.filter(rates.select("date", "currency").is_duplicated()).sort("date", "currency")
    if twice.height:
        raise BadInputError(
            f"[source] rates {path} has several rates for {twice['currency'][0]} on {twice['date'][0]}",
            "one rate for a currency and a day",
            "Remove the others.",
        )
    own = pl.DataFrame({"date": [_LONG_AGO], "currency": [currency], "rate": [1.0]}, schema=_RATES)
    return pl.concat([rates.filter(pl.col("currency") != currency), own]).sort("date")
