"""Features of a period that is not over: those of the golden, and of a second calculation on any day."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.periods import Cadence, Lookback, key_of, midnight, period_start, window_of
from tests.support.features import measure_features
from tests.support.features_in_sql import present_features
from tests.support.lines import clean_rows
from tests.support.real_tables import RealTables

_RNG = np.random.default_rng(20111209)
RANDOM_DAYS = [date(2011, 1, 3) + timedelta(days=int(day)) for day in _RNG.choice(335, 8, replace=False)]
EDGES = [
    date(2011, 6, 1),  # only the first day of a month
    date(2011, 10, 30),  # all but its last day
    date(2011, 8, 30),  # as of the 31st, six months before which February has ended
    date(2011, 3, 28),
    date(2010, 12, 20),  # less than one window of data
]


def as_of_last_day(clean: pl.DataFrame, lookback: Lookback, cadence: Cadence) -> pl.DataFrame:
    """The features of the snapshot that a home takes of lines."""
    keys = {day: key_of(period_start(day, cadence)) for day in clean["invoiced_at"].dt.date().unique()}
    lines = clean.with_columns(period=pl.col("invoiced_at").dt.date().replace_strict(keys, return_dtype=pl.String))
    last = max(keys)
    window = window_of(keys[last], min(keys.values()), lookback, cadence, midnight(last + timedelta(days=1)))
    return measure_features(lines, window)


def assert_equal_to_sql(clean: pl.DataFrame, lookback: Lookback = 6, cadence: Cadence = "monthly") -> None:
    measured, right = as_of_last_day(clean, lookback, cadence), present_features(clean, lookback, cadence)
    assert measured["customer_id"].to_list() == right["customer_id"].to_list()
    assert set(measured.columns) == {"period", *right.columns}
    for name in right.columns:
        got, want = measured[name], right[name]
        assert (got.is_null() == want.is_null()).all(), name
        if got.dtype == pl.String:
            assert got.equals(want), name
        else:
            worst = (got.cast(pl.Float64) - want.cast(pl.Float64)).abs().max()
            assert (worst or 0) <= 1e-6, f"{name}: {worst}"


def test_the_real_log_as_of_its_last_day_is_the_golden(real_tables: RealTables, shared: Path) -> None:
    window = window_of("2011-12-01", "2010-12-01", 6, "monthly", datetime(2011, 12, 10))
    assert (window.start, window.as_of, window.is_open) == (datetime(2011, 6, 10), datetime(2011, 12, 10), True)
    measured = measure_features(real_tables.clean, window)
    right = pl.read_parquet(shared / "goldens" / "customer_features_2011-12-10_6m.parquet").sort("customer_id")
    assert measured["customer_id"].to_list() == right["customer_id"].to_list()
    for name in set(right.columns) - {"customer_id"}:
        got, want = measured[name].cast(pl.Float64), right[name].cast(pl.Float64)
        assert (got.is_null() == want.is_null()).all(), name
        assert ((got - want).abs().max() or 0) <= 1e-6, name


@pytest.mark.parametrize("last_day", [*EDGES, *RANDOM_DAYS], ids=str)
def test_the_real_log_cut_off_after_any_day_has_the_features_of_a_second_calculation(
    real_tables: RealTables, last_day: date
) -> None:
    assert_equal_to_sql(real_tables.clean.filter(pl.col("invoiced_at").dt.date() <= last_day))


@pytest.mark.parametrize(
    ("last_day", "lookback", "cadence"),
    [
        (date(2011, 11, 16), "all", "monthly"),
        (date(2011, 2, 9), "all", "monthly"),
        (date(2011, 11, 15), 10, "weekly"),
        (date(2011, 11, 13), 10, "weekly"),  # a Sunday, so the week is over
        (date(2011, 9, 7), "all", "weekly"),
        (date(2011, 10, 5), 30, "daily"),
    ],
)
def test_so_in_every_cadence_and_with_all_history(
    real_tables: RealTables, last_day: date, lookback: Lookback, cadence: Cadence
) -> None:
    assert_equal_to_sql(real_tables.clean.filter(pl.col("invoiced_at").dt.date() <= last_day), lookback, cadence)


@pytest.mark.parametrize("last_day", [date(2012, 2, 28), date(2012, 2, 27), date(2012, 8, 28), date(2012, 8, 30)])
def test_so_around_the_29th_of_february(real_tables: RealTables, last_day: date) -> None:
    later = real_tables.clean.with_columns(pl.col("invoiced_at") + pl.duration(days=270))
    assert_equal_to_sql(later.filter(pl.col("invoiced_at").dt.date() <= last_day))


def test_spend_of_an_open_period_is_counted_in_spans_as_long_as_periods_by_hand() -> None:
    """As of 10 March: spans from 10 February, 10 January and 10 December; the line of 9 February is in the middle."""
    clean = clean_rows(
        {"invoice_id": "1", "invoiced_at": "2011-02-09 23:59", "quantity": 1.0, "unit_price": 4.0},
        {"invoice_id": "2", "invoiced_at": "2011-02-10 00:00", "quantity": 1.0, "unit_price": 7.0},
        {"invoice_id": "3", "invoiced_at": "2011-03-09 12:00", "quantity": 1.0, "unit_price": 3.0},
        {"invoice_id": "4", "invoiced_at": "2010-12-09 12:00", "quantity": 1.0, "unit_price": 99.0},
    )
    window = window_of("2011-03-01", "2010-12-01", 3, "monthly", datetime(2011, 3, 10))
    assert window.span_keys == ("2010-12-10", "2011-01-10", "2011-02-10")
    [row] = measure_features(clean, window).to_dicts()
    assert (row["frequency_orders"], row["monetary_net"], row["tenure_days"]) == (3, 14.0, 28)
    assert row["monthly_spend_mean"] == pytest.approx((4 + 10) / 2)
    assert row["monthly_spend_slope"] == pytest.approx(10 - 4)
