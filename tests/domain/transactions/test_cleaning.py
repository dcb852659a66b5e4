"""Cleaning: which lines are clean, and why the others are rejected."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS, REJECTED_TRANSACTIONS
from custseg_assets.domain.transactions.cleaning import REASONS, CleaningRules, classify, clean_lines, rejected_lines
from tests.support.lines import raw_lines

RETAIL = CleaningRules(1, ("Next Day Carriage", "High Resolution Image"), "C")


def split(raw: pl.DataFrame, rules: CleaningRules = RETAIL) -> tuple[pl.DataFrame, pl.DataFrame]:
    classified = classify(nw.from_native(raw.lazy()), rules).sort("source_file", "source_row")
    clean = clean_lines(classified, rules).collect().to_native()
    return clean, rejected_lines(classified).collect().to_native()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"invoiced_at": None}, "unreadable"),
        ({"excluded_by": "Status = void", "invoiced_at": None}, "excluded"),
        ({"quantity": None}, "unreadable"),
        ({"customer_id": None}, "missing_customer"),
        ({"customer_id": None, "unit_price": None}, "unreadable"),
        ({"product_id": "POST"}, "service_code"),
        ({"product_id": "C2"}, "service_code"),
        ({"product_id": "BANK CHARGES"}, "service_code"),
        ({"product_id": "POST", "unit_price": 0.0}, "service_code"),
        ({"description": "Next Day Carriage"}, "service_description"),
        ({"unit_price": 0.0}, "non_positive_price"),
        ({"unit_price": -1.0}, "non_positive_price"),
    ],
)
def test_the_first_matching_reason_wins(line: dict[str, Any], reason: str) -> None:
    clean, rejected = split(raw_lines(line))
    assert clean.is_empty()
    assert rejected["reason"].to_list() == [reason]


@pytest.mark.parametrize("code", ["85123A", "22", "A1B2", "15056BL"])
def test_a_code_with_two_digits_is_a_product(code: str) -> None:
    clean, _ = split(raw_lines({"product_id": code}))
    assert clean["product_id"].to_list() == [code]


def test_a_negative_price_is_money_given_back_where_the_shop_means_that() -> None:
    rules = CleaningRules(keeps_negative_prices=True)
    clean, rejected = split(raw_lines({"unit_price": -1.5}, {"unit_price": 0.0}), rules)
    assert clean.select("line_amount", "is_cancellation").rows() == [(-3.0, True)]
    assert rejected["reason"].to_list() == ["non_positive_price"]


def test_where_equal_lines_count_those_of_another_file_do_not() -> None:
    later = {"source_file": "later.csv"}
    raw = raw_lines({}, {}, later, later, later, {**later, "quantity": 9.0})
    clean, rejected = split(raw, CleaningRules(keeps_equal_lines=True))
    # Files are compared in the order of their names.
    assert clean["quantity"].to_list() == [2.0, 2.0, 2.0, 9.0]
    assert rejected.select("source_file", "source_row").rows() == [("log.csv", 1), ("log.csv", 2)]


def test_a_line_that_is_left_out_makes_no_other_a_duplicate() -> None:
    clean, rejected = split(raw_lines({"excluded_by": "Status = void"}, {}))
    assert clean.height == 1
    assert rejected["reason"].to_list() == ["excluded"]


def test_the_first_of_equal_lines_stays_and_the_later_ones_are_duplicates() -> None:
    raw = raw_lines({}, {"quantity": 7.0}, {}, {})
    clean, rejected = split(raw)
    assert clean["quantity"].to_list() == [2.0, 7.0]
    assert sorted(rejected["source_row"]) == [3, 4]
    assert set(rejected["reason"]) == {"duplicate"}


def test_lines_that_differ_only_in_a_missing_value_are_no_duplicates() -> None:
    clean, _ = split(raw_lines({"country": None}, {"country": "France"}, {"country": None}))
    assert clean.height == 2


def test_an_equal_line_in_a_later_file_is_the_duplicate() -> None:
    raw = raw_lines({"source_file": "b.csv"}, {"source_file": "a.csv", "source_row": 9})
    _, rejected = split(raw)
    assert rejected["source_file"].to_list() == ["b.csv"]


def test_without_a_mark_a_negative_line_is_a_cancellation() -> None:
    clean, _ = split(raw_lines({"quantity": -1.0}, {"quantity": 1.0}), CleaningRules())
    assert clean["is_cancellation"].to_list() == [True, False]


def test_with_a_mark_only_the_mark_makes_a_cancellation() -> None:
    clean, _ = split(raw_lines({"invoice_id": "C1", "quantity": -1.0}, {"quantity": -1.0}))
    assert clean["is_cancellation"].to_list() == [True, False]


def test_without_invoices_a_customers_day_is_one_order() -> None:
    raw = raw_lines(
        {"invoice_id": None, "invoiced_at": "2011-05-02 09:00"},
        {"invoice_id": None, "invoiced_at": "2011-05-02 17:00"},
        {"invoice_id": None, "invoiced_at": "2011-05-03 09:00"},
    )
    clean, _ = split(raw)
    assert clean["invoice_id"].to_list() == ["12347 2011-05-02", "12347 2011-05-02", "12347 2011-05-03"]


def test_a_shop_with_line_totals_needs_neither_quantity_nor_price() -> None:
    clean, rejected = split(raw_lines({"quantity": None, "unit_price": None, "line_amount": 9.5}))
    assert clean["line_amount"].to_list() == [9.5]
    assert rejected.is_empty()


def test_amounts_are_quantity_times_price() -> None:
    clean, _ = split(raw_lines({"quantity": 3.0, "unit_price": 2.55}))
    assert clean["line_amount"].to_list() == [pytest.approx(7.65)]


def test_no_lines_give_two_empty_tables_with_their_columns() -> None:
    clean, rejected = split(pl.DataFrame(schema=RAW_TRANSACTIONS.schema))
    assert clean.schema == CLEAN_TRANSACTIONS.schema
    assert rejected.schema == REJECTED_TRANSACTIONS.schema


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "customer_id": st.sampled_from([None, "1", "2"]),
                "product_id": st.sampled_from(["22222", "POST", None]),
                "quantity": st.sampled_from([None, -1.0, 1.0]),
                "unit_price": st.sampled_from([None, 0.0, 5.0]),
            }
        ),
        max_size=12,
    )
)
def test_every_raw_line_is_in_exactly_one_of_the_two_tables(lines: list[dict[str, Any]]) -> None:
    raw = raw_lines(*lines)
    clean, rejected = split(raw)
    assert clean.height + rejected.height == raw.height
    assert set(rejected["reason"]) <= set(REASONS)
