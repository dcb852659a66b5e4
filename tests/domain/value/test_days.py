"""Days of customers: what is counted, and what is known at a day."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.value import days as days_module
from custseg_assets.domain.value.days import (
    CustomerDays,
    count_days,
    day_number,
    known_at,
    learning_days,
    sampled,
    seen_within,
)
from tests.support.customer_days import FIRST, customer_days
from tests.support.lines import clean_rows

_RETURN = {"is_cancellation": True, "invoiced_at": "2011-05-11 10:00"}
LINES = clean_rows(
    {"customer_id": "a", "invoice_id": "1", "invoiced_at": "2011-05-01 09:00", "line_amount": 3.0},
    {"customer_id": "a", "invoice_id": "1", "invoiced_at": "2011-05-01 23:59", "line_amount": 4.5},
    {"customer_id": "a", "invoice_id": "2", "invoiced_at": "2011-05-01 12:00", "line_amount": 1.0},
    {"customer_id": "a", "invoice_id": "C3", "line_amount": -2.0, **_RETURN},
    {"customer_id": "a", "invoice_id": "4", "invoiced_at": "2011-05-21 10:00", "line_amount": 6.0},
    {"customer_id": "b", "invoice_id": "C5", "line_amount": -7.0, **_RETURN},
    {"customer_id": "c", "invoice_id": "6", "invoiced_at": "2011-05-30 00:00", "line_amount": 9.0},
)
MAY_1 = day_number(date(2011, 5, 1))
COUNTED = CustomerDays.of(count_days(LINES.lazy()).collect())


def test_a_day_has_distinct_orders_and_what_is_left_of_the_money() -> None:
    assert COUNTED.ids.to_list() == ["a", "b", "c"]
    assert COUNTED.who.tolist() == [0, 0, 0, 1, 2]
    assert (COUNTED.day - MAY_1).tolist() == [0, 10, 20, 10, 29]
    assert COUNTED.n_orders.tolist() == [2, 0, 1, 0, 1]
    assert COUNTED.net.tolist() == [8.5, -2.0, 6.0, -7.0, 9.0]


def test_the_order_of_lines_does_not_matter() -> None:
    other = CustomerDays.of(count_days(LINES.reverse().lazy()).collect())
    assert other.ids.equals(COUNTED.ids)
    for name in ("who", "day", "n_orders", "net"):
        assert (getattr(other, name) == getattr(COUNTED, name)).all()


def test_only_earlier_days_are_known() -> None:
    known = known_at(COUNTED, MAY_1 + 21)
    assert known.customers.tolist() == [0, 1]
    assert known.n_days.tolist() == [2, 0]
    # Who has only returned counts from the first line on.
    assert known.recency.tolist() == [1, 11]
    assert known.tenure.tolist() == [21, 11]
    assert known.net.tolist() == [12.5, -7.0]
    assert known.n_recent[0].tolist() == [2, 2, 2, 2]
    assert known_at(COUNTED, MAY_1).customers.tolist() == []


def test_an_order_of_the_day_itself_is_seen_and_not_known() -> None:
    known = known_at(COUNTED, MAY_1 + 20)
    seen = seen_within(COUNTED, known, 30)
    assert known.n_days.tolist() == [1, 0]
    assert seen.n_orders.tolist() == [1, 0]
    assert seen.net.tolist() == [6.0, 0.0]


def test_what_is_seen_ends_with_the_horizon() -> None:
    known = known_at(COUNTED, MAY_1 + 1)
    assert seen_within(COUNTED, known, 19).n_orders.tolist() == [0]
    assert seen_within(COUNTED, known, 20).n_orders.tolist() == [1]


def test_later_days_change_nothing_of_what_is_known() -> None:
    all_days = customer_days()
    at = FIRST + 120
    cut = all_days.day < at
    before = CustomerDays(all_days.ids, all_days.who[cut], all_days.day[cut], all_days.n_orders[cut], all_days.net[cut])
    ours, theirs = known_at(all_days, at), known_at(before, at)
    for name in ("customers", "n_days", "recency", "tenure", "net", "n_recent"):
        assert (getattr(ours, name) == getattr(theirs, name)).all(), name


def test_one_day_later_is_one_day_more() -> None:
    at = FIRST + 150
    quiet = CustomerDays(*(getattr(COUNTED, name) for name in ("ids", "who", "day", "n_orders", "net")))
    now, later = known_at(quiet, at), known_at(quiet, at + 1)
    assert (later.recency - now.recency == 1).all()
    assert (later.tenure - now.tenure == 1).all()


def test_days_to_learn_from_are_the_first_of_months_with_two_months_before_them() -> None:
    found = learning_days(day_number(date(2011, 1, 1)), day_number(date(2011, 5, 1)))
    assert found == tuple(day_number(date(2011, month, 1)) for month in (3, 4, 5))
    assert learning_days(day_number(date(2011, 1, 2)), day_number(date(2011, 5, 1)))[0] == day_number(date(2011, 4, 1))
    assert learning_days(FIRST, FIRST + 20) == ()


def test_of_many_customers_a_part_is_learnt_from_the_same_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days_module, "LEARNT_FROM_AT_MOST", 200)
    ids = pl.Series([f"c{number}" for number in range(1000)])
    part = sampled(ids, 1000)
    assert 150 < part.sum() < 250
    assert (sampled(ids[500:], 1000) == part[500:]).all()
    # With more customers it is a part of that part.
    assert not (sampled(ids, 4000) & ~part).any()
    assert sampled(ids, 200).all()


def test_first_days() -> None:
    assert (COUNTED.first_days() - MAY_1).tolist() == [0, 10, 29]
    assert np.array_equal(
        customer_days(50).first_days(), [customer_days(50).day[customer_days(50).who == n].min() for n in range(50)]
    )
