"""Calendar periods, snapshots and observation windows.

A *period* is a calendar day, week (Monday first) or month, named by the date of its first day: ``2011-06-01`` names
June 2011. A *snapshot* is the state at one instant, its ``as_of``, the first instant that was not observed. It is of a
period, and has the period's key: a *closed* snapshot is as of the period's end; an *open* one, of a period that is not
over, as of the end of the last day with data. Both look back equally far.
Ranges of time are half-open. Instants have no time zone: the log's own clock is the only one.

Only arithmetic belongs here. Which periods a home has is read in ``home``; Dagster's partitions are in ``defs``.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Cadence = Literal["daily", "weekly", "monthly"]
Lookback = int | Literal["all"]
FIRST_SNAPSHOT_PERIODS_WHEN_ALL = 6

EARLIEST_DATE = date(1990, 1, 1)
"""No web shop has older lines: an older date is the zero of a spreadsheet or of Unix, or a slip, and would give a home
decades of empty periods."""


def period_start(moment: date, cadence: Cadence) -> date:
    """The first day of the period that contains ``moment``.

    >>> period_start(date(2011, 6, 17), "monthly"), period_start(date(2011, 6, 17), "weekly")
    (datetime.date(2011, 6, 1), datetime.date(2011, 6, 13))
    """
    day = moment.date() if isinstance(moment, datetime) else moment
    if cadence == "monthly":
        return day.replace(day=1)
    if cadence == "weekly":
        return day - timedelta(days=day.weekday())
    return day


def shift(start: date, by: int, cadence: Cadence) -> date:
    """The first day of the period ``by`` periods after the one that starts at ``start``.

    >>> shift(date(2010, 12, 1), 13, "monthly")
    datetime.date(2012, 1, 1)
    """
    if cadence == "monthly":
        months = start.year * 12 + start.month - 1 + by
        return date(months // 12, months % 12 + 1, 1)
    return start + timedelta(days=by * (7 if cadence == "weekly" else 1))


def shift_back(day: date, by: int, cadence: Cadence) -> date:
    """The day ``by`` periods' lengths before another, of whatever day of a period; of a month too short, the last day.

    >>> shift_back(date(2011, 12, 10), 6, "monthly"), shift_back(date(2011, 8, 31), 6, "monthly")
    (datetime.date(2011, 6, 10), datetime.date(2011, 2, 28))
    """
    if cadence != "monthly":
        return shift(day, -by, cadence)
    month = shift(day.replace(day=1), -by, cadence)
    return month.replace(day=min(day.day, calendar.monthrange(month.year, month.month)[1]))


def key_of(start: date) -> str:
    """The partition key of the period that starts at ``start``."""
    return start.isoformat()


def start_of(key: str) -> date:
    """The first day of the period that ``key`` names."""
    return date.fromisoformat(key)


def end_of(key: str, cadence: Cadence) -> datetime:
    """The first instant after the period ``key``.

    >>> end_of("2011-06-01", "monthly")
    datetime.datetime(2011, 7, 1, 0, 0)
    """
    return midnight(shift(start_of(key), 1, cadence))


def midnight(day: date) -> datetime:
    """The first instant of a day."""
    return datetime.combine(day, datetime.min.time())


def keys_between(first: date, last: date, cadence: Cadence) -> tuple[str, ...]:
    """The keys of every period from the one that contains ``first`` to the one that contains ``last``.

    >>> keys_between(date(2011, 6, 17), date(2011, 7, 1), "monthly")
    ('2011-06-01', '2011-07-01')
    """
    keys, start, end = [], period_start(first, cadence), period_start(last, cadence)
    while start <= end:
        keys.append(key_of(start))
        start = shift(start, 1, cadence)
    return tuple(keys)


@dataclass(frozen=True)
class Window:
    """The observation window of a snapshot: ``[start, as_of)``.

    Attributes:
        key: partition key of the snapshot, which is the last period of the window.
        keys: partition keys of the periods that the window touches, oldest first.
        start: first instant observed.
        as_of: first instant not observed.
        period_end: first instant after the snapshot's period.
        is_full: whether it is as long as it should be; the first ones of a log begin with the log and are shorter.
        span_keys: first days of the spans that spend is counted by, oldest first, counted back from ``as_of``. They are
            as long as periods; those of a closed snapshot are its periods.
    """

    key: str
    keys: tuple[str, ...]
    start: datetime
    as_of: datetime
    period_end: datetime
    span_keys: tuple[str, ...]
    is_full: bool = True

    @property
    def is_open(self) -> bool:
        """Whether the snapshot's period is not over."""
        return self.as_of < self.period_end

    @property
    def observed_share(self) -> float:
        """How much of the snapshot's period lies before ``as_of``; 1 where it is closed."""
        start = midnight(start_of(self.key))
        return (self.as_of - start) / (self.period_end - start)

    @property
    def last_span(self) -> timedelta:
        """Length of the newest span, a period's."""
        return self.as_of - midnight(start_of(self.span_keys[-1]))


def window_of(
    key: str, first_key: str, lookback: Lookback, cadence: Cadence, observed_until: datetime | None = None
) -> Window:
    """The observation window of a snapshot.

    Args:
        key: partition key of the snapshot.
        first_key: key of the first period with data; the window never begins before it.
        lookback: length in periods, or ``"all"``.
        cadence: length of a period.
        observed_until: end of the last day with data, where the period is not over; an end beyond the period's counts
            as the period's.

    >>> window_of("2011-06-01", "2010-12-01", 6, "monthly").keys[0]
    '2011-01-01'
    >>> window_of("2011-12-01", "2010-12-01", 6, "monthly", datetime(2011, 12, 10)).start
    datetime.datetime(2011, 6, 10, 0, 0)
    """
    earliest, end = start_of(first_key), end_of(key, cadence)
    as_of = min(end, observed_until or end)
    wanted = earliest if lookback == "all" else shift_back(as_of.date(), lookback, cadence)
    start = max(earliest, wanted)
    spans = [shift_back(as_of.date(), 1, cadence)]
    while spans[-1] > start:
        spans.append(shift_back(as_of.date(), len(spans) + 1, cadence))
    return Window(
        key=key,
        keys=keys_between(start, start_of(key), cadence),
        start=midnight(start),
        as_of=as_of,
        period_end=end,
        span_keys=tuple(key_of(span) for span in reversed(spans)),
        is_full=earliest <= wanted,
    )


def snapshot_keys(period_keys: tuple[str, ...], lookback: Lookback, *, is_open: bool = False) -> tuple[str, ...]:
    """The periods that have a snapshot: those that end a full observation window, and the one that is not over.

    A snapshot with half a window would not be comparable with the others. A log that is shorter than one window still
    has the snapshot of its last closed period, so that a model has a period that is over to be trained on. With
    ``lookback="all"`` snapshots start at the sixth period.

    Args:
        period_keys: every period of the log, oldest first.
        lookback: length of a window in periods, or ``"all"``.
        is_open: whether the last period is not over.

    >>> snapshot_keys(("2011-01-01", "2011-02-01", "2011-03-01"), 2)
    ('2011-02-01', '2011-03-01')
    >>> snapshot_keys(("2011-01-01", "2011-02-01", "2011-03-01"), 6, is_open=True)
    ('2011-02-01', '2011-03-01')
    """
    needed = FIRST_SNAPSHOT_PERIODS_WHEN_ALL if lookback == "all" else lookback
    n_closed = max(len(period_keys) - is_open, 1)
    return period_keys[min(needed, n_closed) - 1 :]
