"""Reject shares: which period is unlike the others. Stray days: which lie apart from the rest of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.demo import DEFAULT_SEED, generate_demo
from custseg_assets.domain.periods import Cadence, period_start, shift
from custseg_assets.domain.transactions.quality import (
    reject_share_outliers,
    reject_shares,
    stray_days,
    unusual_periods,
)

USUAL = {"2011-01-01": 0.10, "2011-02-01": 0.12, "2011-03-01": 0.14, "2011-04-01": 0.12, "2011-05-01": 0.11}


@pytest.mark.parametrize("shares", [{}, {"2011-01-01": 0.0, "2011-02-01": 1.0, "2011-03-01": 0.5}])
def test_fewer_than_four_periods_are_not_judged(shares: dict[str, float]) -> None:
    judged = reject_share_outliers(shares)
    assert not judged.is_judged
    assert judged.outliers == {}
    assert judged.summary == f"Not judged: {len(shares)} periods, 4 are needed."


def test_periods_like_each_other_are_no_outliers() -> None:
    judged = reject_share_outliers(USUAL)
    assert judged.is_judged
    assert judged.outliers == {}


def test_equal_periods_may_still_differ_by_the_least_spread() -> None:
    shares = dict.fromkeys(USUAL, 0.2)
    assert reject_share_outliers(shares | {"2011-06-01": 0.29}).outliers == {}
    assert list(reject_share_outliers(shares | {"2011-06-01": 0.31}).outliers) == ["2011-06-01"]


def test_the_usual_range_is_five_deviations_around_the_others_median() -> None:
    """Others 10 to 14 %: median 12, absolute deviations 2, 0, 2, 0, 1 %, median 1 %, below the floor."""
    assert reject_share_outliers(USUAL | {"2011-06-01": 0.9}).outliers == {
        "2011-06-01": "90.0% of its lines were rejected; usual for the others is 2.0% to 22.0%"
    }


def test_a_period_that_rejects_suddenly_nothing_is_an_outlier_too() -> None:
    shares = {key: share + 0.3 for key, share in USUAL.items()}
    assert list(reject_share_outliers(shares | {"2011-06-01": 0.0}).outliers) == ["2011-06-01"]


def test_the_order_of_the_periods_does_not_matter() -> None:
    shares = USUAL | {"2011-06-01": 0.9}
    assert reject_share_outliers(shares) == reject_share_outliers(dict(reversed(shares.items())))


def test_the_holiday_months_of_a_real_shop_are_usual() -> None:
    """Reject shares of Online Retail by month; December and January buy without an account more often."""
    percent = (38.2, 38.7, 27.7, 25.6, 23.5, 23.0, 25.6, 31.4, 22.7, 19.9, 18.2, 24.6, 32.2)
    shares = {f"month {number:02}": share / 100 for number, share in enumerate(percent)}
    assert reject_share_outliers(shares).outliers == {}
    assert list(reject_share_outliers(shares | {"month 13": 0.75}).outliers) == ["month 13"]


def test_data_are_unsound_where_a_period_of_the_window_rejects_as_never_before() -> None:
    months = [f"2011-{month:02}-01" for month in range(1, 9)]
    shares = reject_shares(dict.fromkeys(months, 10), dict.fromkeys(months, 90)) | {"2011-05-01": 0.9}
    assert list(unusual_periods(shares, months[3:7])) == ["2011-05-01"]
    assert unusual_periods(shares, months[5:7]) == {}
    assert unusual_periods(shares, months[1:4]) == {}, "what comes after the window is not known yet"


def test_a_period_with_nothing_but_rejected_lines_has_a_share() -> None:
    assert reject_shares({"2011-01-01": 4}, {"2011-02-01": 4}) == {"2011-01-01": 1.0, "2011-02-01": 0.0}


def test_what_was_broken_when_it_came_stays_so_when_later_periods_are_no_better() -> None:
    shares = {f"2011-{month:02}-01": 0.1 if month < 5 else 0.5 for month in range(1, 13)}
    assert list(unusual_periods(shares, ["2011-04-01", "2011-05-01"])) == ["2011-05-01"]


FIRST, LAST = date(2011, 1, 1), date(2011, 4, 10)
DAILY = {FIRST + timedelta(days): 20 for days in range(100)}
"""A hundred days with 20 lines each."""


def found(n_lines: Mapping[date, int], known: tuple[date, ...] = ()) -> list[date]:
    """All stray days of a log."""
    return [day for end in stray_days(n_lines, known) for day in end.n_lines]


@pytest.mark.parametrize("n_lines", [{}, {FIRST: 1}, {FIRST: 5000}, DAILY])
def test_a_log_without_gaps_has_no_stray_days(n_lines: dict[date, int]) -> None:
    assert stray_days(n_lines) == ()


@pytest.mark.parametrize(
    ("lines_a_day", "n_lines", "gap_days", "is_found"),
    [
        (250, 1, 8, True),
        (250, 2, 8, True),
        (250, 3, 8, False),
        (250, 1, 7, False),
        (90, 1, 8, False),
        (90, 1, 31, True),
    ],
)
def test_days_with_hardly_a_line_are_stray_from_a_week_on(
    lines_a_day: int, n_lines: int, gap_days: int, is_found: bool
) -> None:
    """The shop was shut for eleven days once: as long a pause is no surprise, but nobody opens with one line then."""
    log = {day: lines_a_day for day in DAILY if not date(2011, 2, 1) <= day <= date(2011, 2, 10)}
    log |= {FIRST - timedelta(days): lines_a_day for days in range(20)}
    for slip in (LAST + timedelta(gap_days), FIRST - timedelta(19 + gap_days)):
        assert found(log | {slip: n_lines}) == [slip] * is_found
    assert found(log | {LAST + timedelta(gap_days): n_lines}, (LAST + timedelta(gap_days - 2),)) == []


def test_a_slip_of_the_year_is_told_with_its_figures() -> None:
    [after] = stray_days(DAILY | {date(2012, 4, 9): 2, date(2012, 4, 10): 1})
    # From 10 April to 9 April: 365 days, each with 20 lines.
    assert (after.gap_days, after.longest_gap_days, after.n_usual) == (365, 1, 7300)
    assert str(after) == (
        "3 lines of 2012-04-09, 2012-04-10, 365 days after the rest of the log "
        "(2011-01-01 to 2011-04-10; longest gap: 1 day; usual in 365 days: 7,300 lines)"
    )
    [before] = stray_days(DAILY | {date(2010, 1, 1): 1})
    assert str(before).startswith("1 line of 2010-01-01, 365 days before the rest of the log (2011-01-01 to")


def test_a_line_of_next_month_is_stray() -> None:
    assert found(DAILY | {date(2011, 5, 10): 1}) == [date(2011, 5, 10)]


def test_slips_at_both_ends_do_not_hide_each_other() -> None:
    slips = {date(2010, 2, 1): 1, date(2011, 5, 10): 1, date(2012, 2, 1): 1}
    assert found(DAILY | slips) == sorted(slips)


def test_a_day_between_others_is_never_stray() -> None:
    later = {day + timedelta(365): n for day, n in DAILY.items()}
    assert found(DAILY | {date(2011, 9, 1): 1} | later) == []


@pytest.mark.parametrize(("days", "is_stray"), [(14, False), (15, True)])
def test_any_shop_may_close_for_two_weeks(days: int, is_stray: bool) -> None:
    assert bool(found(DAILY | {LAST + timedelta(days): 1})) == is_stray


@pytest.mark.parametrize(("days", "is_stray"), [(30, False), (31, True)])
def test_a_gap_must_be_half_as_long_again_as_every_other(days: int, is_stray: bool) -> None:
    with_pause = DAILY | {LAST + timedelta(20 + days): 20 for days in range(100)}
    assert bool(found(with_pause | {max(with_pause) + timedelta(days): 1})) == is_stray


@pytest.mark.parametrize(("n", "is_stray"), [(9, True), (10, False), (20, False)])
def test_half_a_usual_day_after_three_months_may_be_the_shop_opening_again(n: int, is_stray: bool) -> None:
    # In 90 days there are usually 1,800 lines, and 0.5 % of them are 9.
    assert bool(found(DAILY | {LAST + timedelta(90): n})) == is_stray


def test_a_whole_day_that_is_a_year_late_is_stray_and_a_week_is_not() -> None:
    week = {LAST + timedelta(365 + days): 20 for days in range(7)}
    assert found(DAILY | {LAST + timedelta(365): 20}) == [LAST + timedelta(365)]
    assert found(DAILY | week) == []


@pytest.mark.parametrize(("n", "is_stray"), [(99, False), (100, True)])
def test_nothing_lies_apart_from_a_few_lines(n: int, is_stray: bool) -> None:
    assert bool(found({FIRST: n, date(2012, 1, 1): 1})) == is_stray


@pytest.mark.parametrize(("n", "is_stray"), [(64, True), (65, False)])
def test_the_first_day_of_a_home_stands_for_four_weeks(n: int, is_stray: bool) -> None:
    # 1,800 lines in 28 days are 12,857 in 200 days, and 0.5 % of them 64.3.
    assert bool(found({FIRST: 1800, FIRST + timedelta(200): n})) == is_stray


def test_of_a_shop_with_few_lines_a_year_is_stray_and_a_month_is_not() -> None:
    two_a_day = dict.fromkeys(DAILY, 2)
    assert found(two_a_day | {date(2012, 4, 10): 1}) == [date(2012, 4, 10)]
    assert found(two_a_day | {date(2011, 5, 10): 1}) == []


def test_days_that_the_home_has_are_not_judged_again_nor_those_after_them() -> None:
    kept = date(2012, 4, 10)
    log = DAILY | {kept: 1, kept + timedelta(14): 1}
    assert found(log, (*DAILY, kept)) == []
    assert found(log, tuple(DAILY)) == [kept, kept + timedelta(14)]
    # Further away, and before the log, days still are; the gap is to the nearest day that stays.
    [before, after] = stray_days(log | {date(2009, 1, 1): 1, date(2013, 4, 10): 1}, (*DAILY, kept))
    assert (list(before.n_lines), list(after.n_lines)) == ([date(2009, 1, 1)], [date(2013, 4, 10)])
    assert after.gap_days == 365


def test_the_order_of_days_does_not_matter() -> None:
    log = DAILY | {date(2010, 1, 1): 1, date(2012, 4, 10): 1}
    assert stray_days(log) == stray_days(dict(reversed(log.items())))


def test_what_one_file_has_of_them_is_told_apart() -> None:
    [stray] = stray_days(DAILY | {date(2012, 4, 9): 2, date(2012, 4, 10): 1})
    assert str(stray.of({LAST: 20, date(2012, 4, 10): 1})).startswith("1 line of 2012-04-10, 366 days after")


NEAR = timedelta(18)
"""The real log's longest gap has 12 days; one and a half of it are not a longer one."""


@pytest.fixture(scope="module", params=["demo", "real log"])
def days_of_a_shop(request: pytest.FixtureRequest) -> dict[date, int]:
    """Number of lines by day."""
    if request.param == "demo":
        days = generate_demo(DEFAULT_SEED)["invoiced_at"].dt.date()
    else:
        path: Path = request.getfixturevalue("real_log")
        days = pl.read_csv(path, columns=["InvoiceDate"], infer_schema=False).to_series().str.slice(0, 10).str.to_date()
    return dict(days.drop_nulls().rename("day").value_counts(name="n").sort("day").iter_rows())


@pytest.mark.parametrize("cadence", ["daily", "weekly", "monthly"])
def test_no_day_of_a_real_shop_is_stray_while_it_arrives(days_of_a_shop: dict[date, int], cadence: Cadence) -> None:
    so_far: dict[date, int] = {}
    for batch in _batches(days_of_a_shop, cadence):
        assert found(so_far | batch, tuple(so_far)) == []
        assert found(so_far | batch) == []
        so_far |= batch


@pytest.mark.parametrize("years", [-1, 1])
def test_every_slip_of_the_year_is_found_while_a_real_shop_arrives(days_of_a_shop: dict[date, int], years: int) -> None:
    """A line of each day in turn, in its daily file; a slip to a day of the log or near its first is not apart."""
    so_far: dict[date, int] = {}
    n_found = 0
    for day, n in days_of_a_shop.items():
        slip = shift(day.replace(day=1), 12 * years, "monthly") + timedelta(day.day - 1)
        if not so_far or not min(so_far) - NEAR <= slip <= day:
            assert found({**so_far, day: n - 1, slip: 1}, tuple(so_far)) == [slip]
            n_found += 1
        so_far[day] = n
    assert n_found > 250


def test_every_line_of_next_month_is_found_while_a_real_shop_arrives(days_of_a_shop: dict[date, int]) -> None:
    so_far: dict[date, int] = {}
    for day, n in days_of_a_shop.items():
        slip = shift(day.replace(day=1), 1, "monthly") + timedelta(day.day - 1)
        assert found({**so_far, day: n - 1, slip: 1}, tuple(so_far)) == [slip]
        so_far[day] = n


@pytest.mark.parametrize("years", [-1, 1])
def test_every_slip_of_the_year_is_found_in_a_whole_log(days_of_a_shop: dict[date, int], years: int) -> None:
    first, last = min(days_of_a_shop), max(days_of_a_shop)
    for day, n in days_of_a_shop.items():
        slip = shift(day.replace(day=1), 12 * years, "monthly") + timedelta(day.day - 1)
        if slip - last > NEAR or first - slip > NEAR:
            assert found({**days_of_a_shop, day: n - 1, slip: 1}) == [slip]


def _batches(days: Mapping[date, int], cadence: Cadence) -> Iterator[dict[date, int]]:
    for start in sorted({period_start(day, cadence) for day in days}):
        yield {day: n for day, n in days.items() if period_start(day, cadence) == start}
