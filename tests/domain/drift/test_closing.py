"""A closing: what counts as one, what is compared instead, and that it is no drift while a lapse beside it is."""

from __future__ import annotations

import json
from datetime import datetime

import narwhals as nw
import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.drift.closing import Closing, count_closed_days, leave_out_closing, shorten_window
from custseg_assets.domain.drift.lapse import active_days_of, stop_ordering
from custseg_assets.domain.drift.reference import (
    DriftReference,
    fit_reference,
    reference_from_json,
    reference_of_model,
    reference_to_compare,
)
from custseg_assets.domain.drift.report import DriftReport
from custseg_assets.domain.drift.scores import measure_drift
from custseg_assets.domain.periods import keys_between, window_of
from custseg_assets.domain.transactions.features import (
    bought_products,
    customer_features,
    customer_totals,
    order_parts,
    spend_by_period,
)
from tests.support.drift import MODEL, shop_customers
from tests.support.real_tables import RealTables

WINDOW_DAYS = 182


def recency_of(*last_orders: int) -> pl.Series:
    """Recency of a shop with so many customers whose last order is 0, 1, 2 … days old."""
    return pl.Series([day for day, n in enumerate(last_orders) for _ in range(n)], dtype=pl.Int64)


ORDINARY = (10,) * 14
SUNDAYS_OFF = (*(10, 10, 10, 10, 10, 10, 0) * 2, 10)


@pytest.mark.parametrize(
    ("last_orders", "n_days"),
    [
        ((), 0),
        (ORDINARY, 0),
        ((0, *ORDINARY), 1),
        ((0,) * 7 + ORDINARY, 7),
        # Longer than a week: no closing, nothing of it is left out.
        ((0,) * 8 + ORDINARY, 0),
        # Days of the week on which the shop is always closed do not count among the seven.
        ((0,) * 8 + SUNDAYS_OFF, 8),
        ((0,) * 9 + SUNDAYS_OFF, 9),
        ((0,) * 10 + SUNDAYS_OFF, 0),
        # A tenth of ordinary days still counts as closed, two tenths do not.
        ((1, 0, 1, *ORDINARY), 3),
        ((1, 2, 1, *ORDINARY), 1),
        # An empty day further back, as of a shop that is closed on Saturdays, is no closing.
        ((10, 10, 0, *ORDINARY), 0),
        ((0, *(10, 10, 0, 10, 10, 10, 10) * 2), 1),
        # Under five customers a day an empty day tells nothing, and neither does it with less than 14 days before.
        ((0, 0, *(4,) * 14), 0),
        ((0, 0, *(5,) * 14), 2),
        ((0, *ORDINARY[1:]), 0),
    ],
)
def test_closed_days_are_the_run_of_days_without_customers_up_to_the_end(
    last_orders: tuple[int, ...], n_days: int
) -> None:
    assert count_closed_days(recency_of(*last_orders)) == n_days


def test_customers_without_an_order_are_no_reason_to_see_a_closing_or_none() -> None:
    recency = pl.concat([recency_of(0, 0, *ORDINARY), pl.Series([None] * 50, dtype=pl.Int64)])
    assert count_closed_days(recency) == 2


FIVE = pl.DataFrame(
    {
        "customer_id": ["a", "b", "c", "d", "e"],
        "recency_days": [3, 176, 175, 40, None],
        "tenure_days": [180, 176, 181, 100, None],
        "frequency_orders": [1, 1, 40, 1, 0],
        "monetary_net": [50.0, 10.0, 800.0, 20.0, -5.0],
    }
)


def test_a_shorter_window_loses_its_oldest_customers_and_a_part_of_earlier_orders() -> None:
    short = shorten_window(FIVE, 6, WINDOW_DAYS, np.random.default_rng(1))
    # b ordered last 176 days ago, before a window of 176 days; who has no order at all stays.
    assert short["customer_id"].to_list() == ["a", "c", "d", "e"]
    # Each of c's 39 earlier orders is in the 7 days before the last, and so in the 6 that are lost, 6 times in 7.
    orders = dict(short.select("customer_id", "frequency_orders").iter_rows())
    assert (orders["a"], orders["d"], orders["e"]) == (1, 1, 0)
    assert 1 <= orders["c"] <= 16
    assert short["monetary_net"].to_list() == [50.0, pytest.approx(800 * orders["c"] / 40), 20.0, -5.0]
    # Who was there before the shorter window began is as much younger, but not than the last order.
    assert short["tenure_days"].to_list() == [174, 175, 100, None]


def test_earlier_orders_are_lost_in_proportion_to_the_days() -> None:
    many = pl.DataFrame({"recency_days": [82] * 20_000, "frequency_orders": [11] * 20_000})
    short = shorten_window(many, 5, WINDOW_DAYS, np.random.default_rng(1))
    # Of 10 earlier orders within 100 days, 5 days lose half a one.
    assert short["frequency_orders"].mean() == pytest.approx(10.5, abs=0.02)


def closed(customers: pl.DataFrame, n_days: int) -> pl.DataFrame:
    """The customers of a shop that was then closed for some days."""
    left = shorten_window(customers, n_days, WINDOW_DAYS, np.random.default_rng(9))
    return left.with_columns(pl.col("recency_days") + n_days)


def left_out(reference: pl.DataFrame, current: pl.DataFrame, window_days: float = WINDOW_DAYS) -> Closing:
    return leave_out_closing(reference, current, reference_window_days=WINDOW_DAYS, window_days=window_days, seed=3)


def test_without_a_closing_or_with_the_same_one_nothing_is_changed() -> None:
    one, other = shop_customers(3000, seed=1), shop_customers(3000, seed=2)
    closing = left_out(one, other)
    assert closing.reference is one
    assert closing.current is other
    assert (closing.n_days_left_out, closing.remarks(datetime(2011, 6, 1), datetime(2011, 7, 1))) == (0, ())
    both = left_out(closed(one, 3), closed(other, 3))
    assert (both.reference_days, both.current_days, both.n_days_left_out) == (3, 3, 0)
    assert both.current.equals(closed(other, 3))


@pytest.mark.parametrize(("before", "now"), [(0, 4), (4, 0), (2, 6), (6, 2)])
def test_the_longer_closing_is_taken_off_and_the_other_window_is_made_shorter(before: int, now: int) -> None:
    one, other = closed(shop_customers(3000, seed=1), before), closed(shop_customers(3000, seed=2), now)
    closing = left_out(one, other)
    assert (closing.reference_days, closing.current_days, closing.n_days_left_out) == (before, now, 4)
    seen_earlier, shortened = (
        (closing.current, closing.reference) if now > before else (closing.reference, closing.current)
    )
    longer, shorter = (other, one) if now > before else (one, other)
    assert seen_earlier["recency_days"].equals(longer["recency_days"] - 4)
    assert shortened["recency_days"].max() < WINDOW_DAYS - 4
    assert shortened["frequency_orders"].sum() < shorter["frequency_orders"].sum()
    # What is then compared ends alike.
    assert count_closed_days(closing.reference["recency_days"]) == count_closed_days(closing.current["recency_days"])


def test_whom_a_closing_cannot_be_left_out_of_stays_as_it_was() -> None:
    one, other = shop_customers(3000, seed=1), closed(shop_customers(3000, seed=2), 7)
    nobody = left_out(one.clear(), other)
    assert (nobody.n_days_left_out, nobody.current is other) == (0, True)
    short = leave_out_closing(one, other, reference_window_days=6, window_days=WINDOW_DAYS, seed=3)
    assert (short.n_days_left_out, short.reference is one) == (0, True)


def test_which_orders_are_lost_depends_on_the_seed_and_not_on_the_order_of_customers() -> None:
    one, other = shop_customers(3000, seed=1), closed(shop_customers(3000, seed=2), 7)
    assert left_out(one, other).reference.equals(left_out(one.reverse(), other).reference)
    another = leave_out_closing(one, other, reference_window_days=182, window_days=182, seed=4)
    assert not left_out(one, other).reference.equals(another.reference)


def test_the_remark_names_the_closed_days_of_both_snapshots() -> None:
    reference_as_of, as_of = datetime(2024, 2, 1), datetime(2024, 7, 1)

    def said(before: int, now: int) -> str:
        return Closing(FIVE, FIVE, before, now, abs(now - before)).remarks(reference_as_of, as_of)[0]

    end = "or the lines of these days are missing; compared as of the day it closed"
    assert said(0, 7) == f"the shop was closed the last 7 days before 2024-07-01, {end}"
    assert said(1, 0) == f"the shop was closed the last day before 2024-02-01, in the reference, {end}"
    assert "the last 5 days before 2024-07-01 and the last 2 days before 2024-02-01" in said(2, 5)


def matrix(customers: pl.DataFrame) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return MODEL.reference.scale(customers.select(MODEL.features).to_numpy().astype(np.float64))


def fitted(customers: pl.DataFrame, period_days: float = 30, window_days: float = WINDOW_DAYS) -> DriftReference:
    return fit_reference(
        MODEL, matrix(customers), period="2011-05-01", period_days=period_days, window_days=window_days
    )


def report_on(reference: pl.DataFrame, current: pl.DataFrame, *, is_left_out: bool) -> DriftReport:
    if is_left_out:
        closing = left_out(reference, current)
        reference, current = closing.reference, closing.current
    return measure_drift(fitted(reference), matrix(current), period="2011-06-01", seed=1)


@pytest.mark.parametrize("n_days", [2, 7])
def test_a_closing_alarms_unless_it_is_left_out_and_a_lapse_before_it_is_seen(n_days: int) -> None:
    then, now = shop_customers(20_000, seed=1), shop_customers(20_000, seed=2)
    assert report_on(then, closed(now, n_days), is_left_out=False).alerts
    assert not report_on(then, closed(now, n_days), is_left_out=True).alerts
    assert not report_on(closed(then, n_days), now, is_left_out=True).alerts
    stopped = pl.col("recency_days") % 10 == 3
    lapsed = stop_ordering(now, stopped & (pl.col("recency_days") < 30), 30, WINDOW_DAYS)
    assert report_on(
        then, closed(lapsed.with_columns(pl.col("recency_days").cast(pl.Int64)), n_days), is_left_out=True
    ).alerts


def test_to_take_the_days_off_alone_is_not_enough() -> None:
    then, now = shop_customers(20_000, seed=1), closed(shop_customers(20_000, seed=2), 7)
    aged_back = now.with_columns(pl.col("recency_days") - 7)
    alone, both = (report_on(one, aged_back, is_left_out=False) for one in (then, left_out(then, now).reference))
    assert sum(one.excess for one in alone.scores) > sum(one.excess for one in both.scores)


WINDOW = window_of("2011-05-01", "2010-12-01", 6, "monthly")


def full(n: int, seed: int) -> pl.DataFrame:
    return shop_customers(n, seed).with_columns(period=pl.lit("2011-05-01"))


def test_a_reference_that_fits_is_used_as_it_was_stored_and_another_is_fitted_anew() -> None:
    customers, now = full(3000, seed=1), shop_customers(3000, seed=2)
    stored = reference_of_model(MODEL, customers, WINDOW)
    usual = left_out(customers, now)
    assert reference_to_compare(stored, MODEL, usual, WINDOW) is stored
    anew = reference_to_compare(stored, MODEL, left_out(customers, closed(now, 5)), WINDOW)
    assert anew.window_days == stored.window_days - 5
    assert anew.n_customers < stored.n_customers
    # A weekly one of before spoke of those who had ordered in the last seven days.
    weekly = window_of("2011-05-23", "2010-12-06", 24, "weekly")
    fields = json.loads(reference_of_model(MODEL, customers, weekly).to_json())
    assert fields.pop("active_days") == 28
    old = reference_from_json(json.dumps(fields))
    assert old.active_days == 7
    assert reference_to_compare(old, MODEL, usual, weekly).active_days == 28
    # Nothing can be fitted where the training snapshot is gone.
    assert reference_to_compare(old, MODEL, left_out(customers.clear(), now), weekly) is old


def test_active_customers_are_those_of_the_last_period_or_of_four_weeks_or_of_half_a_window() -> None:
    assert [active_days_of(days, 182) for days in (1, 7, 28, 31)] == [28, 28, 28, 31]
    assert [active_days_of(days, 30) for days in (1, 7, 31)] == [15, 15, 31]


def test_the_json_of_monthly_references_is_as_it_always_was_and_a_weekly_one_says_its_span() -> None:
    monthly, weekly = (fitted(shop_customers(500, seed=1), days) for days in (31, 7))
    assert "active_days" not in json.loads(monthly.to_json())
    assert json.loads(weekly.to_json())["active_days"] == 28
    assert [reference_from_json(one.to_json()) for one in (monthly, weekly)] == [monthly, weekly]


@pytest.mark.parametrize("period_days", [1, 7])
def test_a_weekly_or_daily_report_sees_a_lapse_of_active_customers(period_days: int) -> None:
    reference = fitted(shop_customers(2000, seed=1), period_days)
    report = measure_drift(reference, matrix(shop_customers(2000, seed=2)), period="2011-06-01", seed=1)
    assert report.smallest_lapse is not None
    assert report.smallest_lapse <= 0.3
    assert "of those who ordered in the last 28 days" in report.reasons[-1]


def test_remarks_stand_after_the_verdict() -> None:
    report = measure_drift(
        fitted(shop_customers(2000, seed=1)), matrix(shop_customers(2000, seed=2)),
        period="2011-06-01", seed=1, remarks=("the shop was closed",),
    )  # fmt: skip
    assert report.reasons[1] == "the shop was closed"
    assert len(report.reasons) == 3


def test_no_month_of_the_real_shop_ends_with_a_closing_so_its_reports_are_as_they_were(real_tables: RealTables) -> None:
    lines = nw.from_native(real_tables.clean.lazy())
    parts, products = order_parts(lines), bought_products(lines)
    found = {}
    for key in keys_between(datetime(2011, 5, 1), datetime(2011, 11, 1), "monthly"):
        window = window_of(key, "2010-12-01", 6, "monthly")
        totals, spend = customer_totals(parts, products, window), spend_by_period(parts, window)
        features = customer_features(totals.to_native().collect(), spend.to_native().collect(), window)
        found[key] = count_closed_days(features["recency_days"])
        assert count_closed_days(features["recency_days"] + 7) == 7
    assert set(found.values()) == {0}
