"""Reject shares: which period is unlike the others."""

from __future__ import annotations

import pytest

from custseg_assets.domain.transactions.quality import reject_share_outliers, reject_shares, unusual_periods

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
