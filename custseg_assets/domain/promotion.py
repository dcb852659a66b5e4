"""Whether a challenger becomes the champion.

This gate judges a challenger on its own. Where a champion is in force it holds: comparing two models on the same data
(agreement, coverage, predictive validity) is a judgement of its own, and unknown means no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decision = Literal["PROMOTE", "HOLD", "REJECT"]


@dataclass(frozen=True)
class PromotionVerdict:
    """What was decided about a challenger, and why.

    Attributes:
        decision: PROMOTE, HOLD or REJECT.
        reasons: one sentence each.
    """

    decision: Decision
    reasons: tuple[str, ...]


def judge_challenger(challenger: str | None, choice: tuple[str, ...], champion: str | None) -> PromotionVerdict:
    """The verdict on a snapshot's challenger.

    Args:
        challenger: its model version; ``None`` where no k was eligible.
        choice: why its k was chosen, or why none was.
        champion: version of the model in force; ``None`` where there is none.
    """
    if challenger is None:
        return PromotionVerdict("REJECT", choice)
    if champion is None:
        return PromotionVerdict("PROMOTE", ("It is the first model that keeps every limit.", *choice))
    return PromotionVerdict(
        "HOLD", (f"{champion} is in force, and a challenger is not compared with it by this gate.", *choice)
    )
