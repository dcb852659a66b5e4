"""Periods, snapshots and observation windows."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from custseg_assets.domain.periods import Cadence, end_of, keys_between, period_start, snapshot_keys, window_of


@pytest.mark.parametrize(
    ("cadence", "key"), [("daily", "2011-06-17"), ("weekly", "2011-06-13"), ("monthly", "2011-06-01")]
)
def test_a_day_belongs_to_the_period_that_contains_it(cadence: Cadence, key: str) -> None:
    assert period_start(date(2011, 6, 17), cadence).isoformat() == key


def test_a_snapshot_observes_up_to_the_first_instant_of_the_next_period() -> None:
    assert end_of("2011-12-01", "monthly") == datetime(2012, 1, 1)
    assert end_of("2011-06-13", "weekly") == datetime(2011, 6, 20)


def test_a_window_holds_whole_periods_and_ends_at_as_of() -> None:
    window = window_of("2011-11-01", "2010-12-01", 6, "monthly")
    assert (window.start, window.as_of) == (datetime(2011, 6, 1), datetime(2011, 12, 1))
    assert window.keys == ("2011-06-01", "2011-07-01", "2011-08-01", "2011-09-01", "2011-10-01", "2011-11-01")


def test_a_window_never_begins_before_the_first_period() -> None:
    assert window_of("2011-01-01", "2010-12-01", 6, "monthly").keys == ("2010-12-01", "2011-01-01")


def test_all_history_starts_at_the_first_period() -> None:
    assert len(window_of("2011-12-01", "2010-12-01", "all", "monthly").keys) == 13


def test_snapshots_are_taken_from_the_first_full_window_on() -> None:
    keys = keys_between(date(2010, 12, 1), date(2011, 12, 9), "monthly")
    assert snapshot_keys(keys, 6)[0] == "2011-05-01"
    assert snapshot_keys(keys, 6)[-1] == "2011-12-01"


def test_a_log_shorter_than_a_window_whose_last_period_is_not_over_has_that_of_the_last_closed_one_too() -> None:
    keys = keys_between(date(2011, 1, 1), date(2011, 6, 9), "monthly")
    assert snapshot_keys(keys, 6, is_open=True) == ("2011-05-01", "2011-06-01")
    assert snapshot_keys(keys, 6) == ("2011-06-01",)
    assert snapshot_keys(keys[:1], 6, is_open=True) == ("2011-01-01",)
    assert snapshot_keys(keys, 2, is_open=True) == snapshot_keys(keys, 2) == keys[1:]


def test_a_log_shorter_than_a_window_gets_one_snapshot() -> None:
    assert snapshot_keys(("2011-01-01",), 6) == ("2011-01-01",)
    assert snapshot_keys(("2011-01-01", "2011-02-01"), "all") == ("2011-02-01",)
