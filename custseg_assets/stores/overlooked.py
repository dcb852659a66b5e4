"""Columns that nothing is read from, although they say that a line is no sale or not worth what it seems.

A status, a test flag, a refund or a currency in a column that nobody mapped would make figures wrong without a word.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import polars as pl

from custseg_assets.domain.transactions.presets import Headers
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.exclusion import EXCLUDED_BY, normalised
from custseg_assets.stores.numbers import CURRENCY_CODES, Decimal, are_amounts, plain_number, recognise_numbers
from custseg_assets.stores.raw_table import RawTable, non_empty
from custseg_assets.stores.status_words import (
    NO,
    NO_STATUS_NAME,
    SALE_FLAG_NAME,
    STATUS_NAME,
    UNCERTAIN_NAME,
    YES,
    is_in_part,
    is_no_sale_word,
    says_no_sale,
    says_paid_back,
    says_sale,
    words_of,
)

Kind = Literal["status", "flag", "sale_flag", "mark", "refund", "discount", "total", "quantity", "currency", "filtered"]


class Finding(NamedTuple):
    """What a column says of lines that would count as sales.

    Attributes:
        got: it, with figures.
        advice: what to do, with the line to write.
        filter: that line, where it is one of ``[source.filter]``.
        column: that line, where it is one of ``[source.columns]``.
    """

    got: str
    advice: str
    filter: str | None = None
    column: str | None = None


SAMPLE_ROWS = 2000
_MAX_VALUES = 40
"""Different values that a status may have in the sample."""

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
_DISCOUNT_NAME = re.compile(
    r"discount|rabatt|nachlass|remise|réduction|descuento|sconto|korting|rebate|voucher|gutschein|coupon|promotion",
    re.IGNORECASE,
)
_QUANTITY_NAME = re.compile(
    r"\b(qty|quantity|quantit[éàa]|qt[éey]|menge|anzahl|stück|stueck|stk|units|unités|unidades|pieces|pièces|pcs|count"
    r"|cantidad|aantal|hoeveelheid|antal|ilość)\b",
    re.IGNORECASE,
)
_NOTHING = ("-", "none", "n/a", "na", "null", "nan", *NO)
_MOST_MARKED = 0.5
"""Share of the lines from which on a mark is on most of them, and says nothing of a few."""
_MIN_PRODUCTS, _MOST_PRODUCTS = 10, 0.9
_MIN_SHARE_OF_MORE = 0.01
"""Share of the lines from which on the quantities above the usual one say something."""
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
        # Who wrote which values do not count may have misspelt one.
        filtered = [header for header, rule in mapping.filters.items() if rule.exclude]
        headers = [
            header for header in (*dict.fromkeys(mapping.ignored), *filtered) if header not in settings.ignored_columns
        ]
        places = [(header, nth, at) for header in headers for nth, at in enumerate(_positions(table, header))]
        if mapping.preset or not places:
            continue
        # What stands beside a label or a total below a report is not a value of the column.
        is_line = [_is_filled(table, mapping.headers[name]) for name in ("customer_id", "invoiced_at")]
        first = table.lines.head(SAMPLE_ROWS).filter(is_line)
        sample = first.select(_text(at).alias(at) for _, _, at in places).collect()
        has_amount = bool({"line_amount", "order_amount"} & mapping.headers.keys())
        is_price = "quantity" not in mapping.headers and "line_amount" in mapping.headers
        kinds = {
            (header, nth): _kind_of(header, sample[at], has_amount=has_amount, may_be_price=is_price)
            for header, nth, at in places
        }
        kinds |= {(header, 0): "filtered" for header in filtered if (header, 0) in kinds}
        found = {key: OverlookedColumn(*key, kind) for key, kind in kinds.items() if kind} | found
    return list(found.values())


def _kind_of(header: str, sample: pl.Series, *, has_amount: bool, may_be_price: bool) -> Kind | None:
    values = sample.drop_nulls()
    if values.is_empty():
        # A rare status may not be in the sample at all.
        return "status"
    name = words_of(header)
    is_date = _is_most(values.str.contains(_DATE_LIKE))
    is_number = not is_date and _is_most(values.str.contains(r"^[^A-Za-z]*\d[^A-Za-z]*$") | are_amounts(values))
    may_be_money = is_number and not _NO_AMOUNT_NAME.search(header)
    # An amount that was given back is also written as yes or no; and one of 1 cannot be told from a yes.
    is_no_sale = bool(_NO_SALE_NAME.search(header) or _REFUND_NAME.search(header))
    is_yes_or_no = values.str.to_lowercase().is_in([*YES, *NO])
    # Of an amount that is 0 on most lines, the others are what counts.
    is_flag = _is_most(is_yes_or_no) and not values.filter(~is_yes_or_no).str.contains("[0-9]").any()
    n_marked = int((~values.str.to_lowercase().is_in(_NOTHING)).sum())
    kinds: dict[Kind, bool] = {
        "currency": _is_most(values.str.to_uppercase().is_in(CURRENCY_CODES)),
        "refund": may_be_money and not is_flag and bool(_REFUND_NAME.search(header)),
        "discount": may_be_money and not is_flag and bool(_DISCOUNT_NAME.search(header)) and not has_amount,
        "total": may_be_money and bool(_TOTAL_NAME.search(header)) and not has_amount,
        "flag": is_no_sale and is_flag,
        "sale_flag": is_flag and bool(SALE_FLAG_NAME.search(name)),
        "mark": is_no_sale and n_marked < _MOST_MARKED * len(sample),
        "quantity": is_number and may_be_price and bool(_QUANTITY_NAME.search(name)),
        "status": values.n_unique() <= _MAX_VALUES and (not is_number or bool(STATUS_NAME.search(name))),
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
            f"{where}: {'; '.join(finding.got for finding in findings.values())}",
            "every line to be a sale, worth its amount",
            f"{' '.join(finding.advice for finding in findings.values())} Columns that change nothing go into"
            f" ignored_columns = [{ignored}] under [source].",
            {
                "source.columns": [finding.column for finding in findings.values() if finding.column],
                "source.filter": [finding.filter for finding in findings.values() if finding.filter],
            },
        )


def _finding(counted: pl.LazyFrame, column: OverlookedColumn, total: pl.DataFrame) -> Finding | None:
    """What a column says of lines that count as sales, and the line to write; ``None`` where it says nothing."""
    text = pl.col(column.name)
    looks = {"refund": _refund, "discount": _discount, "quantity": _quantity, "total": _other_total}
    if look := looks.get(column.kind):
        return look(counted, text, column.header, total)
    values = (
        counted.group_by(text.alias("value"))
        .agg(pl.len().alias("n"), pl.col("amount").sum())
        .sort("n", "value", descending=[True, False], nulls_last=True)
        .collect(engine="streaming")
    )
    if column.kind == "currency":
        known = values.drop_nulls("value")
        return _several_currencies(column.header, known) if known.height > 1 else None
    if column.kind in ("status", "filtered"):
        return _statuses(counted, column, values, total)
    return _marks(column, values, total)


def _marks(column: OverlookedColumn, values: pl.DataFrame, total: pl.DataFrame) -> Finding | None:
    """Flags and other marks of lines that are no sale."""
    header, lower = column.header, pl.col("value").str.to_lowercase()
    is_meant = {"flag": lower.is_in(YES), "sale_flag": lower.is_in(NO)}.get(column.kind, ~lower.is_in(_NOTHING))
    found = values.drop_nulls("value").filter(is_meant)
    if found.is_empty() or (column.kind != "flag" and found.height == values.height):
        return None
    if column.kind == "mark" and _QUANTITY_NAME.search(words_of(header)):
        return _returned(found, header, total)
    rule, words = f"{{ exclude = [{_shown(found)}] }}", f"{header!r} is {_shown(found)}"
    if column.kind == "mark":
        rule = '""' if values["value"].null_count() else rule
        words = f"{header!r} is filled (such as {found['value'][0]!r})"
    line = f'"{header}" = {rule}'
    advice = f"If they are none, write {line} under [source.filter]."
    if column.kind == "flag" and _REFUND_NAME.search(header) and found["value"].str.contains("[0-9]").any():
        advice += f' If it is an amount that was given back: refunded_amount = "{header}" under [source.columns].'
    return Finding(f"{words} on {_measured(found, total)}", advice, line)


def _refund(counted: pl.LazyFrame, text: pl.Expr, header: str, total: pl.DataFrame) -> Finding | None:
    n = counted.select(text.str.contains("[1-9]").sum()).collect(engine="streaming").item()
    if not n:
        return None
    sums = [_sum_of(counted.with_columns(amounts.abs())) for amounts in _ways_to_read(counted, text)]
    given_back = " or ".join(f"{one:,.2f}" for one in sums) or "amounts"
    got = f"nothing is read from {header!r}, which has {given_back} on {n:,} {_of(total)}"
    line = f'refunded_amount = "{header}"'
    return Finding(got, f"If that was given back, write {line} under [source.columns].", column=line)


def _of(total: pl.DataFrame) -> str:
    return f"of {total['n'].item():,} lines that would count as sales"


def _quantity(counted: pl.LazyFrame, text: pl.Expr, header: str, total: pl.DataFrame) -> Finding | None:
    """A quantity that nobody mapped: negative, or with amounts of products that are equal for any: these are prices."""
    number = plain_number(text)
    back, amount = (
        counted.filter(number < 0).select(pl.len(), pl.col("amount").sum()).collect(engine="streaming").row(0)
    )
    if back:
        advice = (
            f'If these came back, write quantity = "{header}" and, instead of line_amount, unit_price under'
            " [source.columns]; or export amounts with their sign."
        )
        return Finding(
            f"nothing is read from {header!r}, which is negative on {back:,} {_of(total)}, with {amount:,.2f}",
            advice,
        )
    each = (
        counted.filter(number > 0)
        .group_by("product_id")
        .agg(
            number.n_unique().alias("quantities"),
            pl.col("amount").min().alias("low"),
            pl.col("amount").max().alias("high"),
        )
    )
    several = each.filter(pl.col("quantities") > 1, pl.col("product_id").is_not_null())
    is_price = pl.col("high") - pl.col("low") < 0.01 * pl.col("high")  # a price may change by a trifle
    n, n_equal = several.select(pl.len(), is_price.sum()).collect(engine="streaming").row(0)
    if n_equal < _MIN_PRODUCTS or n_equal < _MOST_PRODUCTS * n:
        return _amounts_that_do_not_grow(counted, number, header, total)
    got = f"amounts of {n_equal:,} of the {n:,} products sold in several quantities are equal for any {header!r}"
    return Finding(
        got, f'They are prices: write quantity = "{header}" and unit_price, not line_amount, under [source.columns].'
    )


def _amounts_that_do_not_grow(
    counted: pl.LazyFrame, number: pl.Expr, header: str, total: pl.DataFrame
) -> Finding | None:
    """A quantity that nobody mapped, with amounts that do not grow with it: these are prices of one unit, or may be.

    Amounts of lines grow with the quantity, though less than it where much is bought of what is cheap: the median
    amount of the lines above the usual quantity is held against that of the others.
    """
    lines = counted.filter(number > 0).select(number.alias("number"), "amount")
    usual = lines.select(pl.col("number").median()).collect(engine="streaming").item()
    is_more = pl.col("number") > (usual or 0)
    medians = (
        lines.group_by(is_more.alias("is_more"))
        .agg(pl.len().alias("n"), pl.col("number").median(), pl.col("amount").median())
        .sort("is_more")
        .collect(engine="streaming")
    )
    n_lines = int(medians["n"].sum())
    if medians.height < 2 or medians["n"][1] < _MIN_SHARE_OF_MORE * n_lines:
        return None
    low, high = (float(medians["number"][i]) for i in range(2))
    of_low, of_high = (float(medians["amount"][i]) for i in range(2))
    if of_high >= of_low * math.sqrt(high / low):
        return None
    times = lines.select((pl.col("number") * pl.col("amount")).sum()).collect(engine="streaming").item()
    got = (
        f"nothing is read from {header!r}, which differs among the lines that would count as sales, and amounts do not"
        f" grow with it: they come to {total['amount'].item():,.2f} as they are, and to {times:,.2f} times {header!r}"
    )
    advice = (
        f'If they are prices of one unit, write quantity = "{header}" and unit_price, not line_amount, under'
        " [source.columns]."
    )
    return Finding(got, advice)


def _returned(found: pl.DataFrame, header: str, total: pl.DataFrame) -> Finding:
    """Units that came back."""
    example, n = found["value"][0], found["n"].sum()
    got = f"nothing is read from {header!r}, which is filled (such as {example!r}) on {n:,} {_of(total)}"
    advice = "If so many were given back, add a column with what was paid back for them, and map it as refunded_amount."
    return Finding(got, advice)


def _statuses(
    counted: pl.LazyFrame, column: OverlookedColumn, values: pl.DataFrame, total: pl.DataFrame
) -> Finding | None:
    """Values that say that a line is no sale; and in a column of statuses, those of which nothing is known."""
    header, value, known = column.header, normalised(pl.col("value")), values.drop_nulls("value")
    is_status = bool(STATUS_NAME.search(words_of(header))) and not NO_STATUS_NAME.search(words_of(header))
    is_bad = is_no_sale_word(value) if NO_STATUS_NAME.search(words_of(header)) else says_no_sale(value)
    if column.kind == "filtered":
        is_bad &= ~is_in_part(value)
    bad, others = known.filter(is_bad), known.filter(~is_bad)
    unknown = others.filter(~says_sale(value)) if is_status and column.kind == "status" else others.clear()
    if unknown.height and (
        values.height == 1
        or (UNCERTAIN_NAME.search(words_of(header)) and bad.is_empty() and unknown.height == others.height)
        or _is_of("customer_id", counted, column)
    ):
        unknown = unknown.clear()
    if (bad.is_empty() and unknown.is_empty()) or _is_of("product_id", counted, column):
        return None
    got = [f"{header!r} is {_shown(bad)} on {_measured(bad, total)}"] if bad.height else []
    if unknown.height:
        got.append(f"nobody said whether {header!r} {_shown(unknown)}, on {_measured(unknown, total)}, is a sale")
    line = f'"{header}" = {{ exclude = [{_shown(pl.concat([bad, unknown]))}] }}'
    advice = f"Write {line} under [source.filter]," + (
        " with those of them that are none." if unknown.height else " if they are none."
    )
    paid_back = pl.concat([bad.filter(says_paid_back(value) & ~is_in_part(value)), unknown])
    if paid_back.height:
        advice += (
            f' If they are lines of their own for what was paid back, write "{header}" = [{_shown(paid_back)}] under'
            " [source.refunds] instead."
        )
    return Finding(", and ".join(got), advice, line)


def _is_of(key: str, counted: pl.LazyFrame, column: OverlookedColumn) -> bool:
    """Whether every customer, or product, has one value on all lines, so that it says nothing of sales."""
    of_one = (
        counted.drop_nulls(key).group_by(key).agg(pl.len().alias("n"), pl.col(column.name).n_unique().alias("values"))
    )
    several = of_one.filter(pl.col("n") > 1).select(pl.len(), (pl.col("values") > 1).sum().alias("mixed"))
    n, n_mixed = several.collect(engine="streaming").row(0)
    return bool(n) and n_mixed == 0


def _shown(values: pl.DataFrame) -> str:
    return ", ".join(f'"{value}"' for value in values["value"])


def _measured(values: pl.DataFrame, total: pl.DataFrame) -> str:
    share = float(values["amount"].sum()) / (total["amount"].item() or 1.0)
    return f"{values['n'].sum():,} {_of(total)}, with {share:.1%} of the money"


def _discount(counted: pl.LazyFrame, text: pl.Expr, header: str, total: pl.DataFrame) -> Finding | None:
    """A discount that quantity times price may not know of."""
    size = plain_number(text.str.replace_all(r"[^0-9.,\-]", "").str.replace(",", ".", literal=True)).abs()
    facts = counted.select(
        (size > 0).sum().alias("n"), size.max().alias("most"), text.str.contains("%", literal=True).any().alias("share")
    )
    n, most, has_percent = facts.collect(engine="streaming").row(0)
    if not n:
        return None
    is_amount = not has_percent and "%" not in header and most > 1
    line = f'refunded_amount = "{header}", if it is an amount of the line, or ' if is_amount else ""
    got = f"amounts are quantity times price, and {header!r}, which is not read, is not 0 on {n:,} {_of(total)}"
    advice = f"If prices do not have it taken off, write {line}what was paid as line_amount or order_amount"
    return Finding(got, f"{advice} under [source.columns].")


def _other_total(counted: pl.LazyFrame, text: pl.Expr, header: str, total: pl.DataFrame) -> Finding | None:
    """A total, of lines or of orders, that is not what quantity times price comes to."""
    amount = total["amount"].item() or 0.0
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
    return Finding(got, advice)


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


def _several_currencies(header: str, values: pl.DataFrame) -> Finding:
    shown = ", ".join(f"{code} ({n:,})" for code, n in values.select("value", "n").iter_rows())
    usual = values["value"][0]
    line = f'"{header}" = "{usual}"'
    advice = (
        f'Write {line} under [source.filter] to keep one; or currency = "{header}" under'
        f' [source.columns], with currency = "{usual}" and rates = "rates.csv" (date,currency,rate) under [source].'
    )
    return Finding(f"amounts are in several currencies by {header!r}: {shown}", advice, line)
