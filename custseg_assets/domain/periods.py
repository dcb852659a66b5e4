"""Calendar periods, snapshots and observation windows.

A *period* is a calendar day, week (Monday first) or month, named by the date of its first day: ``2011-06-01`` names
June 2011. A *snapshot* is the state at the end of a period; its ``as_of`` is the first instant that was not observed.
Everything is half-open and naive: the log's own clock is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Cadence = Literal["daily", "weekly", "monthly"]
Lookback = int | Literal["all"]

EARLIEST_DATE = date(1990, 1, 1)
"""Web shops have no older lines; the zero dates of spreadsheets and Unix are older."""


def period_start(moment: date, cadence: Cadence) -> date:
    """The first day of the period that holds ``moment``.

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


def key_of(start: date) -> str:
    """The partition key of the period that starts at ``start``."""
    return start.isoformat()


def start_of(key: str) -> date:
    """The first day of the period that ``key`` names."""
    return date.fromisoformat(key)


def as_of(key: str, cadence: Cadence) -> datetime:
    """The first instant that the snapshot ``key`` does not observe.

    >>> as_of("2011-06-01", "monthly")
    datetime.datetime(2011, 7, 1, 0, 0)
    """
    return datetime.combine(shift(start_of(key), 1, cadence), datetime.min.time())


def keys_between(first: date, last: date, cadence: Cadence) -> tuple[str, ...]:
    """The keys of every period from the one that holds ``first`` to the one that holds ``last``."""
    keys, start, end = [], period_start(first, cadence), period_start(last, cadence)
    while start <= end:
        keys.append(key_of(start))
        start = shift(start, 1, cadence)
    return tuple(keys)


@dataclass(frozen=True)
class Window:
    """What a snapshot looks at: ``[start, as_of)``, made of whole periods.

    Attributes:
        key: partition key of the snapshot, which is the window's last period.
        keys: partition keys of its periods, oldest first.
        start: first instant observed.
        as_of: first instant not observed.
    """

    key: str
    keys: tuple[str, ...]
    start: datetime
    as_of: datetime


def window_of(key: str, first_key: str, lookback: Lookback, cadence: Cadence) -> Window:
    """The observation window of a snapshot.

    Args:
        key: partition key of the snapshot.
        first_key: key of the first period there are data of; the window never reaches behind it.
        lookback: how many periods, or ``"all"``.
        cadence: how long a period is.

    >>> window_of("2011-06-01", "2010-12-01", 6, "monthly").keys[0]
    '2011-01-01'
    """
    earliest = start_of(first_key)
    start = earliest if lookback == "all" else max(earliest, shift(start_of(key), 1 - lookback, cadence))
    return Window(
        key=key,
        keys=keys_between(start, start_of(key), cadence),
        start=datetime.combine(start, datetime.min.time()),
        as_of=as_of(key, cadence),
    )


FIRST_SNAPSHOT_PERIODS_WHEN_ALL = 6


def snapshot_keys(period_keys: tuple[str, ...], lookback: Lookback) -> tuple[str, ...]:
    """The periods whose snapshot is taken: those with a full observation window.

    A snapshot with half a window is not comparable with the others, so it is not taken; a log that is shorter than
    one window still gets one snapshot, its last. With ``lookback="all"`` snapshots start at the sixth period.

    >>> snapshot_keys(("2011-01-01", "2011-02-01", "2011-03-01"), 2)
    ('2011-02-01', '2011-03-01')
    """
    needed = FIRST_SNAPSHOT_PERIODS_WHEN_ALL if lookback == "all" else lookback
    return period_keys[min(needed, len(period_keys)) - 1 :]
