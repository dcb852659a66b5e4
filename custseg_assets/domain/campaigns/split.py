"""Whether a campaign's groups are as planned, and stayed so: the check of the sample ratio.

Figures of a split that is not as planned say nothing about the campaign, however narrow their intervals are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from custseg_assets.domain.campaigns.assignment import assign_holdout
from custseg_assets.domain.transactions.quality import count_of

MISMATCH_LEVEL = 0.001
"""How rarely vanished customers may lie so unevenly by chance; the level usual for this check."""


@dataclass(frozen=True)
class SplitCheck:
    """What the check found.

    Attributes:
        is_as_planned: whether figures can be relied on.
        words: what was found, in a sentence.
        n_vanished: customers of both groups who are known no more.
    """

    is_as_planned: bool
    words: str
    n_vanished: int


def check_split(groups: pl.DataFrame, salt: str, share: float, known: pl.Series) -> SplitCheck:
    """Compare recorded groups with what salt and share give, and with who is still known.

    Args:
        groups: ``customer_id``, ``segment_id`` and ``is_holdout``.
        salt: of the campaign.
        share: of the customers held out.
        known: ids of the customers known now.
    """
    ids, segments = groups["customer_id"].to_list(), groups["segment_id"].to_list()
    is_held = groups["is_holdout"].to_numpy()
    n_other = int(np.count_nonzero(assign_holdout(ids, segments, salt, share) != is_held))
    is_gone = ~groups["customer_id"].is_in(known.implode()).to_numpy()
    n_vanished, n_of_holdout = int(is_gone.sum()), int((is_gone & is_held).sum())
    if n_other:
        words = f"{_customers_are(n_other)} in another group than salt and share say"
        return SplitCheck(is_as_planned=False, words=words, n_vanished=n_vanished)
    p_value = _chance_of_imbalance(groups["segment_id"].to_numpy(), is_held, is_gone)
    gone = ""
    if n_vanished:
        gone = (
            f"; {_customers_are(n_vanished)} in the log no more ({n_of_holdout:,} of the holdout) and "
            f"{'counts' if n_vanished == 1 else 'count'} as without an order: lines were corrected, or they have other "
            "ids now"
        )
    if p_value < MISMATCH_LEVEL:
        words = f"the groups lost customers unevenly, which chance does in {p_value:.1g} of the cases{gone}"
        return SplitCheck(is_as_planned=False, words=words, n_vanished=n_vanished)
    words = f"{int(is_held.sum()):,} of {count_of(len(is_held), 'customer')} held out, as planned{gone}"
    return SplitCheck(is_as_planned=True, words=words, n_vanished=n_vanished)


def _customers_are(n: int) -> str:
    return f"{count_of(n, 'customer')} {'is' if n == 1 else 'are'}"


def _chance_of_imbalance(segments: np.ndarray, is_held: np.ndarray, is_gone: np.ndarray) -> float:
    """How often as many vanish in one of the groups by chance (Cochran, Mantel and Haenszel, over segments)."""
    codes = np.unique(segments.astype(np.str_), return_inverse=True)[1]
    n = np.bincount(codes).astype(np.float64)
    held, gone = (np.bincount(codes, weights=flag) for flag in (is_held, is_gone))
    both = float((is_held & is_gone).sum())
    expected = float((held * gone / n).sum())
    variance = float((held * gone * (n - held) * (n - gone) / (n**2 * np.maximum(n - 1, 1))).sum())
    if variance <= 0:
        return 1.0
    distance = max(abs(both - expected) - 0.5, 0.0) / math.sqrt(variance)
    return math.erfc(distance / math.sqrt(2))
