"""Quality of the log as a whole: periods that reject an unusual share of their lines, and days apart from the rest.

Why a single line is rejected belongs in ``cleaning``; checks of tables belong in ``expectations``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
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

MIN_STRAY_GAP_DAYS = 14
"""Days without a line that any shop may have: the longest of the real log, over Christmas, has 12."""

MIN_STRAY_GAP_RATIO = 1.5
"""How much longer than every gap of the rest a gap must be: a shop may close a little longer than a year before."""

MAX_STRAY_SHARE = 0.005
"""Share of the lines that the rest has in as long a time as the gap; stray days have at most as many. After a pause of
three months that is half a usual day, so a shop that opens again is seen as such; after a year, nearly two days."""

MIN_LOG_LINES = 100
"""Lines that the rest needs before anything can be called apart from it."""

ALMOST_EMPTY_SHARE = 0.01
"""Share of the lines of a usual day of the rest. With so few no shop opens again, however short the pause;
it takes a usual day of 100 lines for a day with one line to be so."""

MIN_ALMOST_EMPTY_GAP_DAYS = 7
"""Days that almost empty days must lie apart: an export may end early on the first day after a long weekend."""

_MIN_SPAN_DAYS = 28
"""Days over which the rest's lines are spread at least: one busy day says little about a usual month."""


@dataclass(frozen=True)
class StrayDays:
    """Days at one end of the log that lie apart from the rest, with too few lines to be the shop opening again.

    Attributes:
        n_lines: number of lines by day.
        first_day: first day of the rest.
        last_day: last day of the rest.
        longest_gap_days: days from one day with lines to the next, within the rest, at most.
        lines_per_day: of the rest, closed days included.
    """

    n_lines: Mapping[date, int]
    first_day: date
    last_day: date
    longest_gap_days: int
    lines_per_day: float

    @property
    def gap_days(self) -> int:
        """Days from the nearest of them to the rest."""
        return max((min(self.n_lines) - self.last_day).days, (self.first_day - max(self.n_lines)).days)

    @property
    def n_usual(self) -> int:
        """Lines that the rest has in as long a time as the gap."""
        return round(self.gap_days * self.lines_per_day)

    def of(self, n_lines: Mapping[date, int]) -> StrayDays:
        """The part of them that one file has.

        Args:
            n_lines: the file's lines by day; other days are left out.
        """
        return replace(self, n_lines={day: n for day, n in n_lines.items() if day in self.n_lines})

    def __str__(self) -> str:
        days = [str(day) for day in sorted(self.n_lines)]
        of = f"{count_of(sum(self.n_lines.values()), 'line')} of {', '.join(days[:3])}{' …' if len(days) > 3 else ''}"
        gap, side = count_of(self.gap_days, "day"), "after" if min(self.n_lines) > self.last_day else "before"
        return (
            f"{of}, {gap} {side} the rest of the log ({self.first_day} to {self.last_day}; longest gap: "
            f"{count_of(self.longest_gap_days, 'day')}; usual in {gap}: {count_of(self.n_usual, 'line')})"
        )


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


def stray_days(n_lines: Mapping[date, int], known: Collection[date] = ()) -> tuple[StrayDays, ...]:
    """Days at either end of the log that lie apart from the rest, as slips of the year and of the month do.

    The log falls into stretches, wherever there is no line for more than ``MIN_ALMOST_EMPTY_GAP_DAYS``. The rest is the
    stretch with the most lines, and grows by the next stretch until what lies beyond is stray at both ends: the gap is
    longer than ``MIN_STRAY_GAP_DAYS`` and than ``MIN_STRAY_GAP_RATIO`` times every gap of the rest, and there are at
    most ``MAX_STRAY_SHARE`` of the lines that the rest has in as long a time as the gap. So the fewer the lines, the
    shorter the gap that is enough; for days that are almost empty, ``MIN_ALMOST_EMPTY_GAP_DAYS`` are.
    Nothing is stray between other days, nor where the rest has fewer than ``MIN_LOG_LINES`` lines.

    Args:
        n_lines: number of lines by day.
        known: days that the home has already; they are not judged again, nor is a day between them or so near to them
            that the gap would be too short.

    Returns:
        One for each end that has stray days, the earlier first.

    >>> log = {date(2011, 5, day): 40 for day in range(1, 29)} | {date(2012, 5, 9): 1}
    >>> [found] = stray_days(log)
    >>> found.n_lines, found.gap_days, found.longest_gap_days, found.n_usual
    ({datetime.date(2012, 5, 9): 1}, 347, 1, 13880)
    >>> stray_days(log | {date(2012, 5, 9): 100})
    ()
    """
    days = sorted(day for day, n in n_lines.items() if n)
    rest = _rest_of(days, n_lines)
    if not rest:
        return ()
    first, last = min([rest[0], *known]), max([rest[-1], *known])
    early, late = [day for day in days if day < rest[0]], [day for day in days if day > rest[-1]]
    ends = (
        [day for day in early if (first - day).days > _min_gap(early, rest, n_lines)],
        [day for day in late if (day - last).days > _min_gap(late, rest, n_lines)],
    )
    return tuple(
        StrayDays({day: n_lines[day] for day in end}, first, last, _longest_gap(rest), _lines_per_day(rest, n_lines))
        for end in ends
        if end
    )


def _rest_of(days: Sequence[date], n_lines: Mapping[date, int]) -> Sequence[date]:
    """The days that are not stray; none where nothing can be called stray."""
    gaps = [(later - earlier).days for earlier, later in pairwise(days)]
    starts = [0, *(at for at, gap in enumerate(gaps, start=1) if gap > MIN_ALMOST_EMPTY_GAP_DAYS), len(days)]
    start, end = max(pairwise(starts), key=lambda one: sum(n_lines[day] for day in days[one[0] : one[1]]))
    while True:
        if start and not _is_stray(days[:start], days[start:end], n_lines):
            start = max(at for at in starts if at < start)
        elif end < len(days) and not _is_stray(days[end:], days[start:end], n_lines):
            end = min(at for at in starts if at > end)
        else:
            return days[start:end]


def _is_stray(beyond: Sequence[date], rest: Sequence[date], n_lines: Mapping[date, int]) -> bool:
    gap = max((beyond[0] - rest[-1]).days, (rest[0] - beyond[-1]).days)
    return gap > _min_gap(beyond, rest, n_lines) and (
        _is_almost_empty(beyond, rest, n_lines)
        or (
            sum(n_lines[day] for day in rest) >= MIN_LOG_LINES
            and gap > MIN_STRAY_GAP_RATIO * _longest_gap(rest)
            and sum(n_lines[day] for day in beyond) <= MAX_STRAY_SHARE * gap * _lines_per_day(rest, n_lines)
        )
    )


def _min_gap(beyond: Sequence[date], rest: Sequence[date], n_lines: Mapping[date, int]) -> int:
    return MIN_ALMOST_EMPTY_GAP_DAYS if _is_almost_empty(beyond, rest, n_lines) else MIN_STRAY_GAP_DAYS


def _is_almost_empty(days: Sequence[date], rest: Sequence[date], n_lines: Mapping[date, int]) -> bool:
    return sum(n_lines[day] for day in days) <= ALMOST_EMPTY_SHARE * len(days) * _lines_per_day(rest, n_lines)


def _lines_per_day(days: Sequence[date], n_lines: Mapping[date, int]) -> float:
    """Lines of a usual day, closed ones included."""
    span = max((days[-1] - days[0]).days + 1, _MIN_SPAN_DAYS)
    return sum(n_lines[day] for day in days) / span


def _longest_gap(days: Sequence[date]) -> int:
    return max(((later - earlier).days for earlier, later in pairwise(days)), default=0)


def count_of(n: int, noun: str) -> str:
    """A number of things in words, such as ``1 day`` and ``2 days``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _usual_range(shares: list[float]) -> tuple[float, float]:
    middle = median(shares)
    deviation = median(abs(share - middle) for share in shares)
    reach = MAX_SPREADS * max(_MAD_TO_STD * deviation, MIN_SPREAD)
    return max(0.0, middle - reach), min(1.0, middle + reach)
