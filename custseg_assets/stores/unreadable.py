"""Unreadable lines: how many a source may have, in lines and in money, before it is refused."""

from __future__ import annotations

import json
import math
from collections import Counter

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.stores.columns import NOBODY, ColumnMapping
from custseg_assets.stores.exclusion import EXCLUDED_BY
from custseg_assets.stores.raw_table import SOURCE_ROW

UNREADABLE = "unreadable_values"
_REACH_DAYS = 31
"""Days before the first and after the last line that counts which lines that are left out may have, as events do."""
_N_EXAMPLES = 3
_USUAL = 0.99
"""Quantile of a column's values that an unreadable one counts as at most: one slip must not outweigh a whole log."""
_NUMBERS = ("line_amount", "quantity", "unit_price")
_CAUSES = {
    "beyond the header": "Most rows have more fields than the header, as where a value holds the delimiter.",
    "invoiced_at": "Most are dates that are not written like the others of their column.",
    "too large": "Most are numbers that no business has, as where a barcode was scanned into another column.",
}
_OTHER_CAUSE = "Most are no numbers, or not written like the others of their column."


def keep_days_near(lines: pl.LazyFrame) -> pl.LazyFrame:
    """Lines that are left out, without dates far from those that count: they must not decide which periods there are.

    Args:
        lines: typed, with ``excluded_by`` and ``unreadable_values``, which keeps such a date.
    """
    at, is_out = pl.col("invoiced_at"), pl.col(EXCLUDED_BY).is_not_null()
    counted, reach = at.filter(~is_out), pl.duration(days=_REACH_DAYS)
    is_far = is_out & ~at.is_between(counted.min() - reach, counted.max() + reach)
    text = pl.concat_str(pl.lit('{"invoiced_at": "'), at.cast(pl.String), pl.lit('"}'))
    return lines.with_columns(
        pl.when(is_far).then(pl.coalesce(UNREADABLE, text)).otherwise(pl.col(UNREADABLE)).alias(UNREADABLE),
        pl.when(~is_far.fill_null(value=False)).then(at).alias("invoiced_at"),
    )


def refuse_unreadable(lines: pl.LazyFrame, mapping: ColumnMapping, limit: float, where: str) -> None:
    """Refuse lines of which too many, or too much of the money, would be rejected because they cannot be read.

    What the money of a line is that cannot be read is estimated: its digits are taken for the number, up to what
    one value in a hundred of the column is above, and a text without digits for that much.

    Args:
        lines: typed lines with ``unreadable_values``; those without a customer or left out do not count.
        mapping: where the columns come from.
        limit: the largest share of lines, and of money, that may be unreadable.
        where: the file, for the messages.

    Raises:
        BadInputError: they are more.
    """
    lines = lines.filter(pl.col(EXCLUDED_BY).is_null())
    lines = lines.filter(pl.col("customer_id").is_not_null() | text_of("customer_id").is_not_null())
    amount = pl.coalesce("line_amount", pl.col("quantity") * pl.col("unit_price"))
    is_unreadable = pl.col(UNREADABLE).is_not_null() & (pl.col("invoiced_at").is_null() | amount.is_null())
    usual = [pl.col(name).abs().quantile(_USUAL).fill_null(0.0).alias(name) for name in _NUMBERS]
    known = amount.filter(~is_unreadable).abs().sum().alias("known")
    facts = lines.select(pl.len().alias("n"), known, *usual).collect(engine="streaming").row(0, named=True)
    bad = lines.filter(is_unreadable).sort(SOURCE_ROW).collect(engine="streaming")
    amounts, quantities, prices = (_estimate(name, facts[name]) for name in _NUMBERS)
    lost = bad.select(pl.coalesce(amounts, quantities * prices).sum()).item()
    share_lines, share_money = bad.height / max(facts["n"], 1), lost / ((lost + facts["known"]) or 1.0)
    if max(share_lines, share_money) > limit:
        found = [json.loads(text) for text in bad[UNREADABLE]]
        examples = "; ".join(
            f"row {row:,}, {_quote(texts, mapping)}"
            for row, texts in zip(bad[SOURCE_ROW][:_N_EXAMPLES], found[:_N_EXAMPLES], strict=True)
        )
        raise BadInputError(
            f"{where}: {bad.height:,} of {facts['n']:,} lines with a customer ({share_lines:.1%}), with about"
            f" {share_money:.1%} of the money, have values that cannot be read: {examples}",
            f"at most {limit:.1%} of the lines and of the money",
            f"{_likely_cause(found)} Correct them; if they may be left out, write max_unreadable_share ="
            f" {math.ceil(max(share_lines, share_money) * 100) / 100:g} under [source] in custseg.toml.",
        )


def _likely_cause(found: list[dict[str, str]]) -> str:
    kinds = Counter(next((kind for kind in _CAUSES if kind in texts), _kind_of(texts)) for texts in found)
    return _CAUSES.get(kinds.most_common(1)[0][0], _OTHER_CAUSE)


def _kind_of(texts: dict[str, str]) -> str:
    """A plain number can be read, and was set aside for its size; see ``limits``."""
    is_plain = any(texts.get(name, "").replace(".", "", 1).lstrip("-").isdecimal() for name in _NUMBERS)
    return "too large" if is_plain else ""


def text_of(name: str) -> pl.Expr:
    """The text of a column's value that cannot be read, null where it can or is empty."""
    return pl.col(UNREADABLE).str.json_path_match(f"$.{name}")


def says_something(text: pl.Expr) -> pl.Expr:
    """Whether a text that is no number may have been one, unlike ``NULL`` and its like, which are as good as empty."""
    return text.is_not_null() & ~text.str.to_lowercase().is_in(NOBODY)


def _estimate(name: str, usual: float) -> pl.Expr:
    """The size of a number, where it cannot be read what its text lets expect, null where it is empty."""
    text = text_of(name)
    digits = text.str.extract(r"([0-9][0-9.,'\x{2019}\s]*)").str.strip_chars()
    bare = digits.str.replace(r"[.,]([0-9]{1,2})$", "d$1").str.replace_all("[^0-9d]", "").str.replace("d", ".")
    guess = pl.min_horizontal(bare.cast(pl.Float64, strict=False).fill_null(usual), pl.lit(usual))
    return pl.coalesce(pl.col(name).abs(), pl.when(text.is_not_null()).then(guess))


def _quote(found: dict[str, str], mapping: ColumnMapping) -> str:
    return ", ".join(f"{mapping.columns.get(name, name)} {text!r}" for name, text in found.items())
