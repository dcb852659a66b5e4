r"""Cleaning: every raw line is either clean or rejected for one reason.

Narwhals expressions over a lazy frame, so that the same rules run on every engine. They use only what means the same on
each: regular expressions without ``\d`` and ``$``, which differ between libraries beyond ASCII and before a line's end.
Reading files belongs in
``stores.sources``, the rules that a known export needs in ``presets``, unusual shares of rejected lines in ``quality``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from custseg_assets.domain.bounds import Count
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, MAPPED_NAMES, REJECTED_TRANSACTIONS

REASONS = (
    "excluded",
    "unreadable",
    "missing_customer",
    "duplicate",
    "service_code",
    "service_description",
    "non_positive_price",
)
"""Why a line is rejected, in the order in which the reasons are tried; the first that matches wins."""

Lines = nw.LazyFrame[Any]
"""Rows of the log, or of what is grouped from them, in Polars, DuckDB, Spark or another backend."""
LINE = ("source_file", "source_row")
"""What identifies a line, and puts the lines of a period in their order."""


@dataclass(frozen=True)
class CleaningRules:
    """The rules that depend on the shop.

    Attributes:
        service_code_max_digits: a product code with at most so many digits is a service; ``None``: no such rule.
        service_descriptions: descriptions that name a service.
        cancellation_prefix: the start of the id of a cancelling invoice; ``None``: a negative line is a cancellation.
        keeps_equal_lines: whether equal lines of one file all count, as where a line is one unit. Lines that come
            again in another file never do.
        keeps_negative_prices: whether a negative price is money given back, not an entry of the bookkeeping.
    """

    service_code_max_digits: Count | None = None
    service_descriptions: tuple[str, ...] = ()
    cancellation_prefix: str | None = None
    keeps_equal_lines: bool = False
    keeps_negative_prices: bool = False

    def in_fingerprint(self) -> dict[str, Any]:
        """The rules as what partitions depend on; what was added later counts only where it is in force."""
        return {name: value for name, value in vars(self).items() if value is not False}


def classify(raw: Lines, rules: CleaningRules, repeats: Lines | None = None) -> Lines:
    """Add ``reason``, why the line is rejected (null for a clean line), and fill in ``line_amount``, in currency.

    The lines are returned in no particular order, with all their other columns.

    Args:
        raw: lines with the columns of ``raw_transactions``.
        rules: the shop's own rules.
        repeats: from ``find_repeats``, of at least these lines' periods; found among the lines themselves without it.
    """
    amount = nw.coalesce(nw.col("line_amount"), nw.col("quantity") * nw.col("unit_price"))
    repeats = find_repeats(raw, rules) if repeats is None else repeats
    repeats = repeats.with_columns(nw.lit(True).alias("is_repeat"))
    lines = raw.join(repeats, on=list(LINE), how="left").with_columns(amount.alias("line_amount"))
    price = nw.col("unit_price")
    conditions = {
        "excluded": ~nw.col("excluded_by").is_null(),
        "unreadable": nw.col("invoiced_at").is_null() | nw.col("line_amount").is_null(),
        "missing_customer": nw.col("customer_id").is_null(),
        "duplicate": nw.col("is_repeat"),
        "service_code": _is_service_code(rules),
        "service_description": _is_service_description(rules),
        # A free line may have a share of its order's total, such as the shipping.
        "non_positive_price": (price == 0) & (nw.col("line_amount") == 0)
        if rules.keeps_negative_prices
        else price <= 0,
    }
    reason = nw.lit(None, dtype=nw.String)
    for name in reversed(REASONS):
        reason = nw.when(conditions[name]).then(nw.lit(name)).otherwise(reason)
    return lines.with_columns(reason.alias("reason")).drop("is_repeat")


def find_repeats(raw: Lines, rules: CleaningRules, keys: Lines | None = None) -> Lines:
    """The lines of known customers that are equal in all mapped columns to an earlier one: source file and row.

    Where equal lines of one file all count, the second of a file is a repeat of the second of an earlier file only.
    Comparing nine columns of every line costs ten times what comparing three does, and few lines share those three.
    Lines without a customer are left out: many would share them, and they are rejected for another reason. So are lines
    without a date.

    Args:
        raw: lines with the columns of ``raw_transactions``, all of their periods.
        rules: the shop's own rules.
        keys: from ``shared_keys`` of these lines; found here without it.
    """
    keys = shared_keys(raw) if keys is None else keys
    suspects, content = _known(raw).join(keys, on=list(_KEY), how="semi").drop("product_key"), MAPPED_NAMES
    if rules.keeps_equal_lines:
        nth_in_file = nw.col("source_row").cum_count().over(*MAPPED_NAMES, "source_file", order_by="source_row")
        suspects, content = suspects.with_columns(nth_in_file.alias("nth_in_file")), (*MAPPED_NAMES, "nth_in_file")
    nth_copy = nw.col("source_row").cum_count().over(*content, order_by=LINE)
    return suspects.with_columns(nth_copy.alias("nth_copy")).filter(nw.col("nth_copy") > 1).select(*LINE)


def shared_keys(raw: Lines) -> Lines:
    """Customer, instant and product of lines that share them with another; equal lines do.

    Args:
        raw: lines with ``customer_id``, ``invoiced_at``, ``product_id`` and ``excluded_by``.
    """
    counts = _known(raw).group_by(*_KEY).agg(nw.len().alias("n_lines"))
    return counts.filter(nw.col("n_lines") > 1).select(*_KEY)


_KEY = ("customer_id", "invoiced_at", "product_key")


def _known(raw: Lines) -> Lines:
    """The lines that may repeat others, with a product's key that is never null, as no join finds null."""
    known = ~nw.col("customer_id").is_null() & ~nw.col("invoiced_at").is_null() & nw.col("excluded_by").is_null()
    return raw.filter(known).with_columns(nw.coalesce(nw.col("product_id"), nw.lit("")).alias("product_key"))


def _is_service_code(rules: CleaningRules) -> nw.Expr:
    if rules.service_code_max_digits is None:
        return nw.lit(False)
    return nw.col("product_id").str.contains(rf"^\P{{Nd}}*(?:\p{{Nd}}\P{{Nd}}*){{0,{rules.service_code_max_digits}}}\z")


def _is_service_description(rules: CleaningRules) -> nw.Expr:
    if not rules.service_descriptions:
        return nw.lit(False)
    return nw.col("description").is_in(list(rules.service_descriptions))


def clean_lines(classified: Lines, rules: CleaningRules, also: Sequence[str] = ()) -> Lines:
    """The clean lines, with the columns of ``clean_transactions``.

    All lines of a customer on one day that have no invoice id are one order.

    Args:
        classified: from ``classify``.
        rules: the rules that it applied.
        also: further columns to keep.
    """
    day_order = nw.concat_str(nw.col("customer_id"), nw.col("invoiced_at").dt.to_string("%Y-%m-%d"), separator=" ")
    is_negative = (nw.col("line_amount") < 0) | (nw.col("quantity") < 0).fill_null(False)
    is_cancellation = is_negative
    if rules.cancellation_prefix is not None:
        has_mark = nw.col("invoice_id").str.starts_with(rules.cancellation_prefix)
        is_cancellation = nw.when(nw.col("invoice_id").is_null()).then(is_negative).otherwise(has_mark)
    return (
        classified.filter(nw.col("reason").is_null())
        .with_columns(
            is_cancellation.alias("is_cancellation"), nw.coalesce(nw.col("invoice_id"), day_order).alias("invoice_id")
        )
        .select(*CLEAN_TRANSACTIONS.schema.names(), *also)
    )


def rejected_lines(classified: Lines) -> Lines:
    """The rejected lines of ``classify``, unchanged, with the columns of ``rejected_transactions``."""
    return classified.filter(~nw.col("reason").is_null()).select(REJECTED_TRANSACTIONS.schema.names())
