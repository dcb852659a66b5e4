"""Numbers of a source: how a column writes them is decided from all its values, and never guessed.

Lines that still cannot be read are limited in ``unreadable``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.stores.lookups import look_up

Decimal = Literal[".", ","]

_CODES = (
    "AED|ARS|AUD|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|HKD|HUF|IDR|ILS|INR|ISK|JPY|KES|KRW|MAD|MXN|MYR|NGN"
    "|NOK|NZD|PEN|PHP|PKR|PLN|QAR|RON|RSD|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR"
)
CURRENCY_CODES = tuple(_CODES.split("|"))
"""ISO 4217 codes of the currencies that are recognised."""

_CURRENCY = rf"(?i:(?:AU|CA|HK|MX|NZ|US|A|C|R|S)?\$|\p{{Sc}}|{_CODES}|kr\.?|zł|kč|ft|fr\.|lei|rs\.?)"
_MINUS = r"[-\x{2212}\x{2013}+]"
_WRITTEN = (
    rf"^(?<mark_1>{_CURRENCY})?\s*(?<open>\()?\s*(?<sign_1>{_MINUS})?\s*(?<mark_2>{_CURRENCY})?\s*(?<sign_2>{_MINUS})?"
    r"\s*(?<digits>[0-9][0-9.,'\x{2019}\s]*?|[.,][0-9]+)"
    rf"\s*(?<mark_3>{_CURRENCY})?\s*(?<sign_3>{_MINUS})?\s*(?<mark_4>{_CURRENCY})?\s*(?<close>\))?\s*(?<mark_5>{_CURRENCY})?$"
)
_SAME_CURRENCY = {
    "€": "EUR",
    "£": "GBP",
    "US$": "USD",
    "R$": "BRL",
    "ZŁ": "PLN",
    "KČ": "CZK",
    "FT": "HUF",
    "FR.": "CHF",
    "KR.": "KR",
    "RS.": "RS",
}
"""Other ways to write a mark; ``$``, ``¥`` and ``kr`` are several countries' and stay what they are."""
_GROUPED_POINT = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
_FEW = 0.01
"""Up to this share of the values that prove a convention may prove the other one: slips, which are set aside."""


@dataclass(frozen=True)
class NumberReading:
    """How the texts of a column become numbers.

    Attributes:
        odd: ``text`` and ``value`` of the texts that do not mean what a plain conversion makes of them.
        convention: what was decided, in words; ``""`` for plain numbers.
    """

    odd: pl.DataFrame
    convention: str

    def numbers(self, text: pl.Expr) -> pl.Expr:
        """The numbers of a text column, null where they cannot be read."""
        plain = plain_number(text)
        if self.odd.is_empty():
            return plain
        return look_up(text, self.odd, plain)


def plain_number(values: pl.Expr) -> pl.Expr:
    """Numbers, or text such as ``-1234.5``, as floats, null where they are something else."""
    numbers = values.cast(pl.Float64, strict=False)
    return pl.when(numbers.is_finite()).then(numbers)


def may_be_grouped(text: pl.Expr) -> pl.Expr:
    """Whether any text, such as ``1.234``, is a plain number that may have a point between its thousands."""
    return text.str.contains(_GROUPED_POINT).any()


def are_amounts(texts: pl.Series) -> bool:
    """Whether all texts are numbers, with or without a currency, by either decimal mark."""
    different = texts.drop_nulls().unique().alias("text").to_frame().with_columns(pl.lit(1).alias("n"))
    parsed = _parse(different, is_money=True)
    return not parsed.is_empty() and bool(parsed.select(pl.any_horizontal(pl.col(".", ",").is_not_null()).all()).item())


def recognise_numbers(texts: pl.DataFrame, decimal: Decimal | None, where: str, *, is_money: bool) -> NumberReading:
    """Recognise how to read the texts of a number column.

    A text that only one decimal mark can explain proves it; one such as ``1,234`` proves nothing.

    Args:
        texts: the different texts of the column, ``text``, and how many rows have each, ``n``.
        decimal: the mark in the settings, which is then used.
        where: file and column, for the messages.
        is_money: whether the numbers may have a currency.

    Raises:
        BadInputError: the decimal mark is ambiguous, or the amounts are in several currencies.
    """
    parsed = _parse(texts, is_money=is_money)
    if decimal is None:
        decimal, parsed = _find_decimal(parsed, where)
    read = parsed.select("text", "n", "currency", "plain", pl.col(decimal).alias("value"))
    currency, read = _find_currency(read, where)
    odd = read.filter(pl.col("value").ne_missing(pl.col("plain")))
    return NumberReading(odd.select("text", "value"), _describe(odd, decimal, currency))


def _parse(texts: pl.DataFrame, *, is_money: bool) -> pl.DataFrame:
    """Add what each text is with a decimal point, ``.``, and with a decimal comma, ``,``, and its currency."""
    marks = pl.concat_list(f"mark_{i}" for i in range(1, 6)).list.drop_nulls()
    signs = pl.concat_list("open", "sign_1", "sign_2", "sign_3").list.drop_nulls()
    currency = marks.list.first().str.to_uppercase()
    # 12,- is twelve and no cents, not minus twelve.
    is_price_dash = pl.col("sign_3").is_not_null() & pl.col("digits").str.contains(r"[.,]$")
    is_one_number = (
        (marks.list.len() <= int(is_money))
        & (signs.list.len() <= 1)
        & (pl.col("open").is_null() == pl.col("close").is_null())
        & ~is_price_dash
    )
    digits = pl.col("digits").str.replace_all("\u2019", "'").str.replace_all(r"\s", " ")
    factor = pl.when(signs.list.first().fill_null("+") == "+").then(1.0).otherwise(-1.0)
    with_comma = pl.when(~pl.col("text").str.contains(".", literal=True)).then(
        pl.col("text").str.replace(",", ".", literal=True)
    )
    return (
        _split(texts)
        .with_columns(pl.when(is_one_number).then(digits).alias("digits"), plain_number(pl.col("text")).alias("plain"))
        .select(
            "text",
            "n",
            "plain",
            pl.coalesce("plain", _value_of_digits(".", ",") * factor).alias("."),
            pl.coalesce(_value_of_digits(",", ".") * factor, plain_number(with_comma)).alias(","),
            pl.when(pl.col("digits").is_not_null()).then(currency.replace(_SAME_CURRENCY)).alias("currency"),
        )
    )


def _split(texts: pl.DataFrame) -> pl.DataFrame:
    """Add the groups of ``_WRITTEN``; matching them costs much more than digits with at most a sign need."""
    text = pl.col("text")
    is_bare = text.str.contains(r"^[-+]?[0-9][0-9.,]*$")
    bare = texts.filter(is_bare).with_columns(
        text.str.extract("^([-+])").alias("sign_1"), text.str.strip_chars_start("-+").alias("digits")
    )
    others = texts.filter(~is_bare).with_columns(text.str.extract_groups(_WRITTEN).alias("parts")).unnest("parts")
    return pl.concat([others, bare], how="diagonal")


def _value_of_digits(decimal: str, other: str) -> pl.Expr:
    """The number that digits are with a decimal mark, with groups of thousands of one kind, or null."""
    groups = "|".join(f"(?:[{mark}][0-9]{{3}})+" for mark in (other, "'", " "))
    shape = rf"^(?:(?:[0-9]+|[1-9][0-9]{{0,2}}(?:{groups}))(?:[{decimal}][0-9]*)?|[{decimal}][0-9]+)$"
    digits = pl.col("digits")
    bare = digits.str.replace_all(f"[{other}' ]", "").str.replace(decimal, ".", literal=True)
    return pl.when(digits.str.contains(shape)).then(plain_number(bare))


def _find_decimal(parsed: pl.DataFrame, where: str) -> tuple[Decimal, pl.DataFrame]:
    """The decimal mark, and the texts without the values of those that it leaves in doubt."""
    point, comma = pl.col("."), pl.col(",")
    proofs = {
        ".": parsed.filter(point.is_not_null() & comma.is_null()),
        ",": parsed.filter(comma.is_not_null() & point.is_null()),
    }
    is_doubtful = (point != comma).fill_null(False)
    counts = {mark: int(rows["n"].sum()) for mark, rows in proofs.items()}
    doubtful = parsed.filter(is_doubtful)
    if not any(counts.values()):
        if doubtful.height:
            raise _ambiguous_error(doubtful, where)
        return ".", parsed
    decimal: Decimal = "." if counts["."] >= counts[","] else ","
    if min(counts.values()) > _FEW * sum(counts.values()):
        points, commas = (f"{_example(rows)!r} and {counts[mark] - 1:,} more" for mark, rows in proofs.items())
        raise BadInputError(
            f"{where} holds numbers with a decimal point ({points}) and with a decimal comma ({commas})",
            "one decimal mark in a column",
            'Export them in one form; [source] decimal = "." or "," sets the others aside, as far as'
            " max_unreadable_share allows.",
        )
    if min(counts.values()):
        parsed = parsed.with_columns(pl.when(~is_doubtful).then(pl.col(mark)).alias(mark) for mark in (".", ","))
    return decimal, parsed


def _ambiguous_error(doubtful: pl.DataFrame, where: str) -> BadInputError:
    text = _example(doubtful)
    row = doubtful.filter(pl.col("text") == text).row(0, named=True)
    return BadInputError(
        f"{where} is ambiguous: {text!r} is {row['.']:.12g} with a decimal point and {row[',']:.12g} with a decimal"
        f" comma; it has {doubtful['n'].sum():,} values like that, and none that proves either",
        "numbers that can only be read one way",
        'Set [source] decimal = "." or decimal = ",".',
    )


def _find_currency(read: pl.DataFrame, where: str) -> tuple[str | None, pl.DataFrame]:
    """The currency that the amounts are in, and the texts without the values of those that may be in another.

    Nought has no currency. Of amounts with a mark and amounts without, the rarer ones may be in another currency.
    """
    amounts = read.filter(pl.col("value") != 0)
    n_rows = dict(amounts.group_by("currency").agg(pl.col("n").sum()).sort("n", descending=True).iter_rows())
    marks = sorted(mark for mark in n_rows if mark is not None)
    if len(marks) > 1:
        raise BadInputError(
            f"{where} holds amounts in several currencies: {', '.join(f'{mark} ({n_rows[mark]:,})' for mark in marks)}",
            "amounts in one currency, because they are summed",
            "Filter the file to one currency, or convert the amounts.",
        )
    usual = next(iter(n_rows), None)
    is_usual = (pl.col("value") == 0) | pl.col("currency").eq_missing(pl.lit(usual, pl.String))
    return usual, read.with_columns(pl.when(is_usual).then(pl.col("value")).alias("value"))


def _describe(odd: pl.DataFrame, decimal: Decimal, currency: str | None) -> str:
    shown = odd.drop_nulls("value")
    if shown.is_empty():
        return ""
    example = shown.sort(pl.col("text").str.len_chars(), "text", descending=[True, False]).row(0, named=True)
    name = {".": "point", ",": "comma"}[decimal]
    in_currency = f", in {currency}" if currency else ""
    return f"decimal {name}{in_currency}: {example['text']!r} is {example['value']:.12g}"


def _example(rows: pl.DataFrame) -> str:
    return str(rows.sort("n", "text", descending=[True, False])["text"][0])
