"""Numbers of a source: every convention by hand, every ambiguity, and random columns in random conventions."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custseg_assets.errors import BadInputError
from custseg_assets.stores.numbers import Decimal, NumberReading, recognise_numbers


def recognise(*texts: str, decimal: Decimal | None = None, is_money: bool = True) -> NumberReading:
    counted = pl.Series("text", texts, pl.String).value_counts(name="n")
    return recognise_numbers(counted, decimal, "log.csv, column 'Amount'", is_money=is_money)


def numbers(*texts: str, decimal: Decimal | None = None, is_money: bool = True) -> list[float | None]:
    column = pl.DataFrame({"text": texts})
    reading = recognise(*texts, decimal=decimal, is_money=is_money)
    return column.select(reading.numbers(pl.col("text"))).to_series().to_list()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1,234.50", "80.00", "-1,234,567.5"], [1234.5, 80.0, -1234567.5]),
        (["1.234,50", "80,00", "-1.234.567,5"], [1234.5, 80.0, -1234567.5]),
        (["1 234,50", "1\u00a0234,50", "1\u202f234,50", "1\u2009234 567"], [1234.5, 1234.5, 1234.5, 1234567.0]),
        (["1'234.50", "1\u2019234.50", "7"], [1234.5, 1234.5, 7.0]),
        (["(12.00)", "( 1,234.50 )", "3.5"], [-12.0, -1234.5, 3.5]),
        (["12,00-", "1.234,50 -", "3,5"], [-12.0, -1234.5, 3.5]),
        (["\u221212.5", "\u201312.5", "+1.5", "- 2.5"], [-12.5, -12.5, 1.5, -2.5]),
        (["€ 1.234,50", "-€12,00", "€-12,00", "12,00 €", "1 EUR", "EUR 2"], [1234.5, -12.0, -12.0, 12.0, 1.0, 2.0]),
        (["$1,234.50", "$(12.00)", "($12.00)", "-$12.00", "12.00-$"], [1234.5, -12.0, -12.0, -12.0, -12.0]),
        (["R$ 1.234,50", "R$ 3"], [1234.5, 3.0]),
        (["£1,234", "£0.99"], [1234.0, 0.99]),
        (["1 234,50 kr", "kr. 12,50"], [1234.5, 12.5]),
        (["CHF 1'234.50", "chf 3"], [1234.5, 3.0]),
        (["1,234,567", "12"], [1234567.0, 12.0]),
        (["1.234.567", "1.234"], [1234567.0, 1234.0]),
        (["1,234", "0,5"], [1.234, 0.5]),
        (["1,234", "0.5"], [1234.0, 0.5]),
        ([".5", "1,000.25", "12."], [0.5, 1000.25, 12.0]),
        (["1e3", "2.5", "1,000.5"], [1000.0, 2.5, 1000.5]),
    ],
)
def test_every_convention_is_read(texts: list[str], expected: list[float]) -> None:
    assert numbers(*texts) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("12 pcs", "5%", "2011-06-01", "NaN", "inf", "-", "#####", "$"),
        *("1,23,4.5", "12,34.5", "1 23", "12 34.50", "1.234,567.8", "0,123.5"),
        *("(12.00", "12.00)", "(-12.00)", "-12.00-", "12,-", "12.-", "€ 5 USD"),
    ],
)
def test_what_would_be_a_guess_is_not_read(text: str) -> None:
    plain = [f"{i}.25" for i in range(200)]
    assert numbers(*plain, text) == [*map(float, plain), None]


def test_a_quantity_has_no_currency() -> None:
    assert numbers("1", "2", "€ 5", is_money=False) == [1.0, 2.0, None]


@pytest.mark.parametrize(
    ("texts", "point", "comma"),
    [
        (["1,234", "2,500", "7"], [1234.0, 2500.0, 7.0], [1.234, 2.5, 7.0]),
        (["1.234", "2.500", "-7"], [1.234, 2.5, -7.0], [1234.0, 2500.0, -7.0]),
        (["€ 1.234"], [1.234], [1234.0]),
        (["(1,234)", "5"], [-1234.0, 5.0], [-1.234, 5.0]),
    ],
)
def test_a_mark_that_no_value_proves_is_refused_until_it_is_named(
    texts: list[str], point: list[float], comma: list[float]
) -> None:
    with pytest.raises(BadInputError, match=r"is ambiguous: .* with a decimal point and .* decimal = "):
        numbers(*texts)
    assert numbers(*texts, decimal=".") == point
    assert numbers(*texts, decimal=",") == comma


def test_a_column_with_both_decimal_marks_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"decimal point \('2.5' and 0 more\) and with a decimal comma \('1,5' and"):
        numbers("1,5", "2.5")


def test_one_slip_in_the_other_convention_is_set_aside_with_what_it_leaves_in_doubt() -> None:
    plain = [f"{i}.25" for i in range(200)]
    assert numbers(*plain, "12,50", "1,234", "1.234", "1,234.5")[200:] == [None, None, None, 1234.5]
    assert numbers(*plain, "1,234", "1.234")[200:] == [1234.0, 1.234]
    assert numbers(*plain, "12,50", "1,234", decimal=".")[200:] == [None, 1234.0]


def test_amounts_in_two_currencies_are_refused_with_their_counts() -> None:
    with pytest.raises(BadInputError, match=r"several currencies: EUR \(2\), JPY \(1\); .* Filter the file"):
        numbers("€ 5", "5 EUR", "JPY 800")
    with pytest.raises(BadInputError, match=r"several currencies: \$ \(1\), USD \(1\)"):
        numbers("$5.50", "USD 5.50")
    assert numbers("€ 5", "$ 0") == [5.0, 0.0]


def test_where_few_amounts_have_a_mark_or_few_have_none_those_are_set_aside() -> None:
    assert numbers("5.5", "6.5", "0", "€ 7.5") == [5.5, 6.5, 0.0, None]
    assert numbers("€ 5.5", "€ 6.5", "0", "7.5") == [5.5, 6.5, 0.0, None]


def test_what_was_decided_is_said_and_plain_numbers_need_no_word() -> None:
    assert recognise("1.234,50 €", "7,00 €").convention == "decimal comma, in EUR: '1.234,50 €' is 1234.5"
    assert recognise("1,234.50", "7").convention == "decimal point: '1,234.50' is 1234.5"
    assert recognise("1234.50", "7", "n/a").convention == ""


def _written(cents: int, places: int, decimal: str, thousands: str, negative: str, mark: str) -> str:
    whole, part = divmod(abs(cents), 10**places)
    text = f"{whole:,}".replace(",", thousands) + (f"{decimal}{part:0{places}d}" if places else "")
    text = mark.format(text)
    return negative.format(text) if cents < 0 else text


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-(10**10), 10**10) | st.integers(-99_999, 99_999), min_size=1, max_size=30),
    st.integers(0, 4),
    st.sampled_from([".", ","]),
    st.sampled_from(["", ".", ",", "'", "\u2019", " ", "\u00a0", "\u202f", "\u2009"]),
    st.sampled_from(["-{}", "\u2212{}", "({})", "{}-"]),
    st.sampled_from(["{}", "€{}", "€ {}", "{} €", "R${}", "{} kr", "CHF {}", "{} USD"]),
)
def test_numbers_in_a_random_convention_are_read_to_the_same_or_refused(
    amounts: list[int], places: int, decimal: Decimal, thousands: str, negative: str, mark: str
) -> None:
    thousands = "" if thousands == decimal else thousands
    texts = [_written(one, places, decimal, thousands, negative, mark) for one in amounts]
    expected = [one / 10**places for one in amounts]
    assert numbers(*texts, decimal=decimal) == pytest.approx(expected, rel=1e-12)
    try:
        read = numbers(*texts)
    except BadInputError as error:
        assert "is ambiguous" in str(error)  # noqa: PT017  (that it may not be raised is the point)
    else:
        assert read == pytest.approx(expected, rel=1e-12)
