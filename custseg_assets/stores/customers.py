"""Customers of a source: which texts mean nobody, and which are the same customer written in two ways.

Ids that may be one customer, over all files, are looked for in ``domain.transactions.doubts``.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import texts_for_nobody

_NOBODY_WORDS = (
    r"^[^\p{L}\p{N}]+$|^\(?(?:not set|no customer|no name|undefined|anonymous|anonym|anonyme|walk[ -]?in|cash|counter)"
    r"(?: (?:customer|sale|client|guest|buyer|user))?s?\)?$|^guest (?:customer|user|checkout|order|buyer)$"
    r"|^(?:laufkund(?:e|schaft)|barverkauf|barkunde|gast|unbekannt|client (?:comptoir|de passage)|consumidor final)$"
)
"""Words for whoever buys at a till, in lower case."""

_NO_WIDTH = r"[\x{200B}-\x{200F}\x{2060}\x{FEFF}\x{AD}]"
_UNSEEN = rf"\s\s|[\t\n\x{{A0}}]|\p{{M}}|{_NO_WIDTH}"
_FLOAT = r"^(\d+)\.0+$"
_ROUNDED = r"^\d(?:\.\d+)?[eE]\+\d+$"
"""A long number as a spreadsheet shows it: its last digits are lost."""
_LEADING_ZEROS = r"^0+(\d)"


@dataclass(frozen=True)
class CustomerReading:
    """How the texts of the customers' column become ids.

    Attributes:
        ids: of the column ``customer_id``; null for nobody.
        n_rounded: lines whose id lost its last digits, which becomes null.
        convention: how ids are written, ``""`` if nothing is unusual.
        notes: sentences for whoever reads the closing table.
    """

    ids: pl.Expr
    n_rounded: int
    convention: str
    notes: tuple[str, ...]


def recognise_customers(lines: pl.LazyFrame, settings: SourceSettings, where: str) -> CustomerReading:
    """Recognise nobody, e-mail addresses and numbers among the customers' ids.

    Args:
        lines: with ``customer_id`` as trimmed text, and ``invoiced_at``.
        settings: what means nobody, and which ids are the same.
        where: file and column, for the messages.

    Raises:
        BadInputError: too many ids lost digits.
    """
    text, tidied = pl.col("customer_id"), []
    has_date = pl.col("invoiced_at").is_not_null().any().alias("has_date")
    texts = lines.group_by(text).agg(pl.len().alias("n"), has_date).drop_nulls().collect(engine="streaming")
    if texts.select(text.str.contains(_UNSEEN).any()).item():
        text, tidied = _tidy(text), ["spaces and signs without width make no difference"]
        texts = texts.group_by(text).agg(pl.col("n").sum(), pl.col("has_date").any())
    nobody = texts_for_nobody(settings)
    lower = text.str.to_lowercase()
    is_nobody, is_rounded = lower.is_in(nobody), text.str.contains(_ROUNDED)
    if settings.customer_id_form != "text":
        is_nobody |= lower.str.contains(_NOBODY_WORDS)
    nobodies = texts.filter(is_nobody).sort("n", "customer_id", descending=[True, False])
    rounded = texts.filter(is_rounded & ~is_nobody)
    # Below a report may stand its totals or its number of records, which say nothing of what ids are like.
    known = texts.filter(~is_nobody & ~is_rounded & pl.col("has_date"))
    n_rounded = int(rounded["n"].sum()) if settings.customer_id_form != "text" else 0
    if n_rounded:
        _refuse_rounded(n_rounded, int(texts["n"].sum()), str(rounded["customer_id"].min()), settings, where)
    ids, conventions, notes = text, tidied, []
    if nobodies.height:
        ids = pl.when(~is_nobody).then(ids)
        shown = ", ".join(f"{value!r} ({n:,})" for value, n in nobodies.select("customer_id", "n").iter_rows())
        notes.append(f"{where}: no customer where it says {shown}")
    if n_rounded:
        ids = pl.when(~is_rounded).then(ids)
    if settings.customer_id_form == "number":
        ids = ids.str.replace(_FLOAT, "$1").str.replace(_LEADING_ZEROS, "$1")
        conventions.append("numbers")
    elif settings.customer_id_form is None and (floats := _floats_among_numbers(known)).height:
        ids = ids.str.replace(_FLOAT, "$1")
        if floats.height < known.height:
            example = str(floats["customer_id"].min())
            conventions.append(f"{example!r} is {example.partition('.')[0]!r}")
    if settings.customer_id_case == "lower" or (settings.customer_id_case is None and _are_addresses(known)):
        ids = ids.str.to_lowercase()
        conventions.append("upper and lower case are the same")
    return CustomerReading(ids, n_rounded, ", ".join(conventions), tuple(notes))


def _tidy(text: pl.Expr) -> pl.Expr:
    """Ids without what nobody sees: signs without width, several spaces, letters that are composed of two signs."""
    seen = text.str.replace_all(_NO_WIDTH, "").str.replace_all(r"\s+", " ")
    return seen.str.normalize("NFC").str.strip_chars()


def _refuse_rounded(n_rounded: int, n_lines: int, example: str, settings: SourceSettings, where: str) -> None:
    if n_rounded > settings.max_unreadable_share * n_lines:
        raise BadInputError(
            f"{where} has {n_rounded:,} of {n_lines:,} ids like {example!r}, whose last digits a spreadsheet cut off",
            "whole ids",
            "Export them again, and open the file in a spreadsheet only with that column as text; if these are the ids"
            ' themselves, write customer_id_form = "text" under [source].',
        )


def _floats_among_numbers(known: pl.DataFrame) -> pl.DataFrame:
    """The ids such as ``17850.0``, if all ids are numbers."""
    text = pl.col("customer_id")
    all_numbers = known.select(text.str.contains(r"^\d+(?:\.0+)?$").all()).item()
    return known.filter(text.str.contains(_FLOAT) & pl.lit(all_numbers))


def _are_addresses(known: pl.DataFrame) -> bool:
    """Whether most ids are e-mail addresses, which no provider tells apart by case."""
    n_addresses = known.filter(pl.col("customer_id").str.contains(r"^[^@\s]+@[^@\s]+$"))["n"].sum()
    return bool(n_addresses * 2 > known["n"].sum())
