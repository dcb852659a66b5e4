"""Quality of periods: which of them have an unusually large or small share of rejected lines.

Why a single line is rejected belongs in ``cleaning``; checks of tables belong in ``expectations``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MIN_PERIODS = 4
"""Periods needed to tell a usual range."""

MAX_SPREADS = 5.0
"""Spreads from the others' median that still count as usual. The first and last months of a real log, which differ
because of the season and because the export cuts a month, lie within 4."""

MIN_SPREAD = 0.02
"""The least spread, two percentage points, also for periods that all have the same share."""

_MAD_TO_STD = 1.4826
"""Standard deviation / median absolute deviation of a normal distribution."""


@dataclass(frozen=True)
class RejectShareOutliers:
    """The periods whose reject share is unlike the others'.

    Attributes:
        outliers: reason in words by partition key, for the periods far outside the others' range.
        is_judged: whether there were enough periods to tell.
        summary: the result in one sentence.
    """

    outliers: Mapping[str, str]
    is_judged: bool
    summary: str


def reject_share_outliers(shares: Mapping[str, float]) -> RejectShareOutliers:
    """Which periods' reject share is far outside the range of the other periods.

    Each period is compared with the median and the median absolute deviation of the others, without itself.

    Args:
        shares: rejected lines / raw lines, by partition key.

    >>> reject_share_outliers({"2011-01-01": 0.2, "2011-02-01": 0.21, "2011-03-01": 0.2, "2011-04-01": 0.9}).outliers
    {'2011-04-01': '90.0% of its lines were rejected; usual for the others is 10.0% to 30.0%'}
    """
    if len(shares) < MIN_PERIODS:
        return RejectShareOutliers({}, False, f"Not judged: {len(shares)} periods, {MIN_PERIODS} are needed.")
    outliers = {}
    for key in sorted(shares):
        low, high = _usual_range([share for other, share in shares.items() if other != key])
        if not low <= shares[key] <= high:
            usual = f"usual for the others is {low:.1%} to {high:.1%}"
            outliers[key] = f"{shares[key]:.1%} of its lines were rejected; {usual}"
    found = f"{len(outliers)} of {len(shares)} periods reject an unusual share of their lines" if outliers else ""
    return RejectShareOutliers(
        outliers, True, f"{found or f'All {len(shares)} periods reject a usual share of their lines'}."
    )


def reject_shares(n_rejected: Mapping[str, int], n_kept: Mapping[str, int]) -> dict[str, float]:
    """Rejected lines / raw lines of every period that has lines.

    Args:
        n_rejected: rejected lines, by partition key; a period without any may be missing.
        n_kept: clean lines, likewise.

    >>> reject_shares({"2011-01-01": 1}, {"2011-01-01": 3, "2011-02-01": 5})
    {'2011-01-01': 0.25, '2011-02-01': 0.0}
    """
    n_raw = {key: n_rejected.get(key, 0) + n_kept.get(key, 0) for key in sorted(n_rejected.keys() | n_kept.keys())}
    return {key: n_rejected.get(key, 0) / n_lines for key, n_lines in n_raw.items() if n_lines}


def unusual_periods(shares: Mapping[str, float], window: Sequence[str]) -> Mapping[str, str]:
    """The window's periods with an unusual reject share, each with the reason in words, which speaks against training.

    Every period of the window counts, not only the newest: a model would be trained on all of them.

    Args:
        shares: rejected lines / raw lines, by partition key; periods after the window are left out.
        window: partition keys of the window's periods, oldest first.
    """
    found = reject_share_outliers({key: share for key, share in shares.items() if key <= window[-1]})
    return {key: words for key, words in found.outliers.items() if key in window}


def _usual_range(shares: list[float]) -> tuple[float, float]:
    middle = median(shares)
    deviation = median(abs(share - middle) for share in shares)
    reach = MAX_SPREADS * max(_MAD_TO_STD * deviation, MIN_SPREAD)
    return max(0.0, middle - reach), min(1.0, middle + reach)
