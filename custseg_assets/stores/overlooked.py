"""Columns that nothing is read from, although they say that a line is no sale or not worth what it seems.

A status, a test flag, a refund or a currency in a column that nobody mapped would make figures wrong without a word.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from custseg_assets.domain.transactions.presets import Headers
from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.exclusion import EXCLUDED_BY, normalised
from custseg_assets.stores.numbers import CURRENCY_CODES, Decimal, are_amounts, recognise_numbers
from custseg_assets.stores.raw_table import RawTable, non_empty

Kind = Literal["status", "flag", "instant", "refund", "total", "currency"]

SAMPLE_ROWS = 2000
_MAX_VALUES = 40
"""Different values that a status may have in the sample."""

# A list would take a line for each.
_NO_SALE = [
    " ".join(value.split())
    for value in """
    void, voided, failed, failure, declined, denied, rejected, refused, canceled, cancelled, cancelation,
    cancellation, cancel, refunded, fully refunded, refund, reversed, reversal, chargeback, charged back,
    expired, abandoned, draft, unpaid, payment failed, error, deleted, fraud, test, sandbox, quote, return,
    returned, view, product view, page view, viewed, cart, add to cart, remove from cart, addtocart, click,
    impression, wishlist, checkout started, storniert, storno, abgebrochen, erstattet, retoure, annulé, annulée,
    remboursé, remboursée, échoué, annullato, rimborsato, anulado, cancelado, cancelada, reembolsado,
    geannuleerd, teruggave, wc cancelled, wc failed, wc refunded, order cancelled, requires payment method
    """.split(",")  # noqa: SIM905
]
"""Values, normalised, of lines that are no sale; whole values only."""
_YES = ("true", "yes", "y", "1", "t", "x", "ja", "oui", "wahr", "si", "sí")
_NO = ("false", "no", "n", "0", "f", "nein", "non", "falsch")
_NO_SALE_NAME = re.compile(
    r"test|cancel|void|refund|return|fraud|delet|abandon|draft|storn|annul|chargeback", re.IGNORECASE
)
_REFUND_NAME = re.compile(
    r"refund|reimburs|rembours|erstatt|reembols|rimbors|devol|chargeback|teruggave", re.IGNORECASE
)
_TOTAL_NAME = re.compile(
    r"total|paid|revenue|turnover|net sales|montant|betrag|summe|importe|bezahlt|payé|pagado", re.IGNORECASE
)
_MAX_DIFFERENCE = 0.02
"""How much a total's sum may differ from quantity times price, a share, by rounding and single orders."""
_NO_AMOUNT_NAME = re.compile(r"\b(id|no|number|count|qty|quantity|reason|type)\b|_id$", re.IGNORECASE)
_MOST = 0.9
_DATE_LIKE = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"


@dataclass(frozen=True)
class OverlookedColumn:
    """A column that nothing is read from and that may say what lines are worth.

    Attributes:
        header: its name.
        nth: which of the columns with this name it is, from 0.
        kind: what it may say.
    """

    header: str
    nth: int
    kind: Kind

    @property
    def name(self) -> str:
        """What it is called among the lines."""
        return f"overlooked {self.header} {self.nth}"

    def text_in(self, table: RawTable) -> pl.Expr:
        """Its values in a table as trimmed text; null where the table has no such column."""
        at = _positions(table, self.header)[self.nth : self.nth + 1]
        return (_text(at[0]) if at else pl.lit(None, pl.String)).alias(self.name)


def _positions(table: RawTable, header: str) -> list[str]:
    schema = table.lines.collect_schema()
    at = [str(i) for i, name in enumerate(table.header.names) if name == header]
    return [position for position in at if not schema[position].is_nested() and schema[position] != pl.Binary]


def _is_filled(table: RawTable, headers: Headers) -> pl.Expr:
    at = [position for header in headers for position in _positions(table, header)]
    return pl.any_horizontal(_text(position).is_not_null() for position in at) if at else pl.lit(value=True)


def _text(position: str) -> pl.Expr:
    return non_empty(pl.col(position).cast(pl.String).str.strip_chars())


def find_overlooked(
    tables: Sequence[tuple[RawTable, ColumnMapping]], settings: SourceSettings
) -> list[OverlookedColumn]:
    """The columns of tables worth a look, by their names and the first rows; none of a known export."""
    found: dict[tuple[str, int], OverlookedColumn] = {}
    for table, mapping in tables:
        headers = [header for header in dict.fromkeys(mapping.ignored) if header not in settings.ignored_columns]
        places = [(header, nth, at) for header in headers for nth, at in enumerate(_positions(table, header))]
        if mapping.preset or not places:
            continue
        # What stands beside a label or a total below a report is not a value of the column.
        is_line = [_is_filled(table, mapping.headers[name]) for name in ("customer_id", "invoiced_at")]
        first = table.lines.head(SAMPLE_ROWS).filter(is_line)
        sample = first.select(_text(at).alias(at) for _, _, at in places).collect()
        has_amount = bool({"line_amount", "order_amount"} & mapping.headers.keys())
        kinds = {(header, nth): _kind_of(header, sample[at], has_amount=has_amount) for header, nth, at in places}
        found = {key: OverlookedColumn(*key, kind) for key, kind in kinds.items() if kind} | found
    return list(found.values())


def _kind_of(header: str, sample: pl.Series, *, has_amount: bool) -> Kind | None:
    values = sample.drop_nulls()
    if values.is_empty():
        # A rare status may not be in the sample at all.
        return "status"
    is_date = _is_most(values.str.contains(_DATE_LIKE))
    is_number = not is_date and _is_most(values.str.contains(r"^[^A-Za-z]*\d[^A-Za-z]*$") | are_amounts(values))
    may_be_money = is_number and not _NO_AMOUNT_NAME.search(header)
    is_no_sale = bool(_NO_SALE_NAME.search(header))
    kinds: dict[Kind, bool] = {
        "currency": _is_most(values.str.to_uppercase().is_in(CURRENCY_CODES)),
        "refund": may_be_money and bool(_REFUND_NAME.search(header)),
        "total": may_be_money and bool(_TOTAL_NAME.search(header)) and not has_amount,
        "instant": is_no_sale and is_date,
        "flag": is_no_sale and _is_most(values.str.to_lowercase().is_in([*_YES, *_NO])),
        "status": not is_number and values.n_unique() <= _MAX_VALUES,
    }
    return next((kind for kind, is_it in kinds.items() if is_it), None)


def _is_most(flags: pl.Series) -> bool:
    """Whether a column is what its values say, but for a label beside a total or another slip."""
    return bool(flags.mean() >= _MOST)  # type: ignore[operator]  # of booleans


def refuse_overlooked(lines: pl.LazyFrame, columns: list[OverlookedColumn], where: str) -> None:
    """Refuse lines that would count as sales although one of the columns says otherwise.

    Args:
        lines: typed lines with the columns' texts.
        columns: to look at.
        where: the file, for the messages.

    Raises:
        BadInputError: a column says that some lines are no sale, have refunds, or are in several currencies.
    """
    if not columns:
        return
    amount = pl.coalesce("line_amount", pl.col("quantity") * pl.col("unit_price")).alias("amount")
    counts = pl.col(EXCLUDED_BY).is_null() & pl.col("customer_id").is_not_null() & (pl.col("amount") != 0)
    counted = lines.with_columns(amount).filter(counts)
    # What was given back may be called returned or cancelled, and is no refund of itself; but it has a currency.
    sales = counted.filter(pl.col("amount") > 0)
    total = sales.select(pl.len().alias("n"), pl.col("amount").sum()).collect(engine="streaming")
    found = {
        column.header: _finding(counted if column.kind == "currency" else sales, column, total) for column in columns
    }
    findings = {header: finding for header, finding in found.items() if finding}
    if findings:
        ignored = ", ".join(f'"{header}"' for header in findings)
        raise BadInputError(
            f"{where}: {'; '.join(got for got, _ in findings.values())}",
            "every line to be a sale, worth its amount",
            f"{' '.join(advice for _, advice in findings.values())} Columns that change nothing go into"
            f" ignored_columns = [{ignored}] under [source].",
        )


def _finding(counted: pl.LazyFrame, column: OverlookedColumn, total: pl.DataFrame) -> tuple[str, str] | None:
    """What a column says of lines that count as sales, and the line to write; ``None`` where it says nothing."""
    text, header, of = pl.col(column.name), column.header, f"of {total['n'].item():,} lines that would count as sales"
    if column.kind == "refund":
        n = counted.select(text.str.contains("[1-9]").sum()).collect(engine="streaming").item()
        sums = [_sum_of(counted.with_columns(amounts.abs())) for amounts in _ways_to_read(counted, text)]
        given_back = " or ".join(f"{one:,.2f}" for one in sums) or "amounts"
        got = f"nothing is read from {header!r}, which has {given_back} on {n:,} {of}"
        return (
            (got, f'If that was given back, write refunded_amount = "{header}" under [source.columns].') if n else None
        )
    if column.kind == "total":
        return _other_total(counted, text, header, total["amount"].item() or 0.0)
    values = (
        counted.group_by(text.alias("value"))
        .agg(pl.len().alias("n"), pl.col("amount").sum())
        .drop_nulls("value")
        .sort("n", "value", descending=[True, False])
        .collect(engine="streaming")
    )
    if column.kind == "currency":
        return _several_currencies(header, values) if values.height > 1 else None
    if column.kind == "flag":
        values = values.filter(pl.col("value").str.to_lowercase().is_in(_YES))
    elif column.kind == "status":
        values = values.filter(normalised(pl.col("value")).is_in(_NO_SALE))
    if values.is_empty():
        return None
    shown = ", ".join(f'"{value}"' for value in values["value"])
    words, rule = f"{header!r} is {shown}", f"{{ exclude = [{shown}] }}"
    if column.kind == "instant":
        words, rule = f"{header!r} is filled", '""'
    share = float(values["amount"].sum()) / (total["amount"].item() or 1.0)
    return (
        f"{words} on {values['n'].sum():,} {of}, with {share:.1%} of the money",
        f'If they are none, write "{header}" = {rule} under [source.filter].',
    )


def _other_total(counted: pl.LazyFrame, text: pl.Expr, header: str, amount: float) -> tuple[str, str] | None:
    """A total, of lines or of orders, that is not what quantity times price comes to."""
    of_order = pl.when(pl.col("total").n_unique() > 1).then(pl.col("total").sum()).otherwise(pl.col("total").first())
    key = pl.coalesce("invoice_id", pl.col("source_row").cast(pl.String)).alias("order")
    ways = [counted.with_columns(amounts) for amounts in _ways_to_read(counted, text)]
    sums = [_sum_of(orders.group_by(key).agg(of_order)) for orders in ways]
    found = min(sums, key=lambda one: abs(one - amount), default=0.0)
    if found == 0 or abs(found - amount) <= _MAX_DIFFERENCE * amount:
        return None
    advice = (
        f'If that is what was paid, discounts and shipping included, write order_amount = "{header}" under'
        " [source.columns]."
    )
    got = f"quantity times price comes to {amount:,.2f}, but {header!r}, which is not read, to {found:,.2f}"
    return got, advice


def _ways_to_read(counted: pl.LazyFrame, text: pl.Expr) -> list[pl.Expr]:
    """The amounts of a column, ``total``: in one way, by either decimal mark where that is not clear, or in none."""
    texts = counted.group_by(text.alias("text")).agg(pl.len().alias("n")).drop_nulls().collect(engine="streaming")
    marks: list[Decimal | None] = [None, ".", ","]
    ways = []
    for mark in marks:
        with contextlib.suppress(BadInputError):
            ways.append(recognise_numbers(texts, mark, "", is_money=True).numbers(text).alias("total"))
            if mark is None:
                break
    return ways


def _sum_of(lines: pl.LazyFrame) -> float:
    return float(lines.select(pl.col("total").sum()).collect(engine="streaming").item())


def _several_currencies(header: str, values: pl.DataFrame) -> tuple[str, str]:
    shown = ", ".join(f"{code} ({n:,})" for code, n in values.select("value", "n").iter_rows())
    usual = values["value"][0]
    advice = (
        f'Write "{header}" = "{usual}" under [source.filter] to keep one; or currency = "{header}" under'
        f' [source.columns], with currency = "{usual}" and rates = "rates.csv" (date,currency,rate) under [source].'
    )
    return f"amounts are in several currencies by {header!r}: {shown}", advice
