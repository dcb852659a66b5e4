"""What a doubt about a log is, and what doubts depend on besides its lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from custseg_assets.domain.transactions.cleaning import CleaningRules

Code = Literal[
    "invoice_numbers", "order_totals", "customer_ids", "service_codes", "cancellation_prefix", "equal_lines",
    "one_customer", "single_orders", "changed_orders", "total_lines", "signs", "prices", "file_amounts", "gaps",
]  # fmt: skip
"""Names of the doubts, as in ``[source] accepted_doubts``."""

MIN_CASES = 10
"""Orders, ids or lines that have to look wrong before anything is said."""


@dataclass(frozen=True)
class Doubt:
    """Something about the log that makes its figures doubtful.

    Attributes:
        code: its name.
        words: what was found, with figures.
        advice: what to do, with the line to write.
        is_refused: whether the log is not read before somebody has said what it means.
        line: the line to write under ``[source]``, where the advice has one.
    """

    code: Code
    words: str
    advice: str
    is_refused: bool
    line: str | None = None

    def __str__(self) -> str:
        return f"{self.words}. {self.advice}"


@dataclass(frozen=True)
class LogFacts:
    """What doubts depend on besides the lines.

    Attributes:
        headers: mapped column → the files' own name for it.
        rules: the cleaning rules in force.
        configured: keys of ``[cleaning]`` that somebody wrote; what they say is not doubted.
        says_case: whether somebody wrote what case means in customers' ids.
        says_form: whether somebody wrote what zeros mean in them.
        says_key: whether somebody wrote what an order's id is made of.
    """

    headers: Mapping[str, str]
    rules: CleaningRules
    configured: frozenset[str]
    says_case: bool
    says_form: bool
    says_key: bool
