"""A small shop with everything in its log that engines take for different things."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from custseg_assets.domain.periods import Window, window_of
from custseg_assets.domain.transactions.cleaning import CleaningRules
from tests.support.lines import raw_lines

RULES = {
    "retail": CleaningRules(1, ("Next Day Carriage", "Très rapide"), "C"),
    "units": CleaningRules(keeps_equal_lines=True, keeps_negative_prices=True),
    "two digits": CleaningRules(2, (), "Zurück ", keeps_equal_lines=True),
}
WINDOWS: tuple[Window, ...] = (
    window_of("2012-02-01", "2012-01-01", 2, "monthly"),
    # The period is not over; spans are counted back from the middle of a month.
    window_of("2012-03-01", "2012-01-01", 2, "monthly", datetime(2012, 3, 19)),
)

_SUNDAY, _LEAP_DAY = "2012-01-08", "2012-02-29"
_COUNTRIES = ("Österreich", "Zypern", "Åland", "日本", "𐍈otland", "\uffeeland", "austria", None)
_FILES = ("log.csv", "Zoo.csv", "ärger.csv")
_PRODUCTS = ("85123A", "POST", "M", "C2", "٣٤", "٣", "A1\n", "1\nB", "22\n", "", None, "15056BL", "日本12")


def odd_shop() -> pl.DataFrame:
    """Lines with the columns of ``raw_transactions``, of three months and three files."""
    return raw_lines(*_by_hand(), *_by_chance(400))


def _by_hand() -> list[dict[str, Any]]:
    at = {"invoiced_at": f"{_SUNDAY} 10:00"}
    lines: list[dict[str, Any]] = [
        # Only Sundays; a tie of Sunday with Monday, of two hours, of two countries at one instant.
        *({"customer_id": "sunday", "invoice_id": f"s{n}", "invoiced_at": f"2012-01-{1 + 7 * n:02}"} for n in range(4)),
        {"customer_id": "tie", "invoice_id": "t1", "invoiced_at": "2012-01-08 23:59", "country": "\uffeeland"},
        {"customer_id": "tie", "invoice_id": "t2", "invoiced_at": "2012-01-09 00:00", "country": "𐍈otland"},
        {"customer_id": "same time", "invoice_id": "t3", **at, "country": "\uffeeland"},
        {"customer_id": "same time", "invoice_id": "t4", **at, "country": "𐍈otland"},
        *(
            {"customer_id": "nowhere", "invoice_id": f"n{n}", "invoiced_at": f"2012-02-1{n} 10:00", "country": country}
            for n, country in enumerate((None, None, "France"))
        ),
        # Ids that look like one number, and like one text.
        *({"customer_id": name, **at} for name in ("00123", "123", "0123", "123.0", "Ä", "ä", "a\u0308", " a", "1e3")),
        # Halves of a millionth, and what no binary fraction is.
        *(
            {"customer_id": f"half {number}", "line_amount": amount, **at}
            for number, amount in enumerate((5e-7, 1.5e-6, 2.5e-6, -5e-7, -1.5e-6, -2.5e-6, 1e-9, 0.1 + 0.2, 1.005))
        ),
        {"customer_id": "large", "line_amount": 999_999_999.99, **at},
        {"customer_id": "large", "line_amount": 999_999_999.98, "invoiced_at": f"{_LEAP_DAY} 12:00"},
        {"customer_id": "thirds", "quantity": 3.0, "unit_price": 0.1, **at},
        {"customer_id": "thirds", "quantity": 1 / 3, "unit_price": 1e7 / 3, **at},
        # The first and the last instants of a month, of a window, of a leap day.
        *(
            {"customer_id": "midnight", "invoice_id": f"m{number}", "invoiced_at": instant}
            for number, instant in enumerate(
                (
                    "2012-01-01 00:00",
                    "2012-01-18 23:59:59.999999",
                    "2012-01-19 00:00",
                    "2012-01-31 23:59:59.999999",
                    "2012-02-01 00:00",
                    "2012-02-19 00:00",
                    f"{_LEAP_DAY} 00:00",
                    f"{_LEAP_DAY} 23:59:59",
                    "2012-03-01 00:00",
                    "2012-03-18 23:59:59.999999",
                )
            )
        ),
        # One invoice over the end of a month; one of two customers; refunds alone.
        {"customer_id": "over", "invoice_id": "o1", "invoiced_at": "2012-01-31 23:59"},
        {"customer_id": "over", "invoice_id": "o1", "invoiced_at": "2012-02-01 00:01", "quantity": 5.0},
        {"customer_id": "other", "invoice_id": "o1", "invoiced_at": "2012-02-01 00:01"},
        {"customer_id": "refunded", "invoice_id": "C1", "quantity": -2.0, **at},
        {"customer_id": "refunded", "invoice_id": "Zurück 1", "quantity": -2.0, **at},
        # Without an invoice, a day's lines are an order.
        *({"customer_id": "no invoice", "invoice_id": None, "invoiced_at": f"{_LEAP_DAY} {h:02}:00"} for h in (8, 9)),
        {"customer_id": "no invoice", "invoice_id": None, "quantity": -1.0, "invoiced_at": f"{_LEAP_DAY} 10:00"},
        {"customer_id": "no invoice", "invoice_id": None, "line_amount": -3.0, "quantity": None, **at},
        # Reasons, and several at once, whose order counts.
        {"customer_id": "x", "excluded_by": "Status = void", "invoiced_at": None},
        {"customer_id": None, "invoiced_at": None, "product_id": "POST", "unit_price": 0.0},
        {"customer_id": None, "product_id": "POST", "unit_price": 0.0, **at},
        {"customer_id": "x", "quantity": None, "product_id": "M", **at},
        {"customer_id": "x", "product_id": "POST", "description": "Très rapide", "unit_price": 0.0, **at},
        {"customer_id": "x", "description": "Très rapide", "unit_price": 0.0, **at},
        {"customer_id": "x", "description": "très rapide", "unit_price": -1.0, "invoice_id": "x9", **at},
        {"customer_id": "x", "unit_price": -1.0, "quantity": 0.0, "invoice_id": "x7", **at},
        {"customer_id": "x", "unit_price": -2.0, "quantity": -1.0, "invoice_id": "x6", **at},
        {"customer_id": "x", "unit_price": 0.0, "line_amount": 4.0, "invoice_id": "x8", **at},
        *(
            {"customer_id": "codes", "product_id": code, "invoice_id": f"p{n}", **at}
            for n, code in enumerate(_PRODUCTS)
        ),
    ]
    equal = {"customer_id": "equal", "invoice_id": "e", "country": None, "description": None, **at}
    lines += [
        {**equal, "source_file": name, **more} for name in ("log.csv", "Zoo.csv", "ärger.csv") for more in _COPIES
    ]
    return lines


_COPIES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"quantity": 7.0},
    {"product_id": None},
    {"product_id": None},
    {"product_id": ""},
    {"product_id": "POST"},
    {"product_id": "POST"},
    {"unit_price": 0.0},
    {"unit_price": 0.0},
    {"excluded_by": "Status = void"},
    {"customer_id": None},
    {"customer_id": None},
    {"line_amount": 3.0},
    {"line_amount": 3.0},
)


def _by_chance(n_lines: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(20120229)

    def one_of(values: tuple[Any, ...]) -> Any:
        return values[random.integers(len(values))]

    return [
        {
            "customer_id": one_of(("a", "b", "00123", "ç", "日", None)),
            "invoice_id": one_of(("1", "2", "3", "C4", "C5", None)),
            "invoiced_at": f"2012-0{random.integers(1, 4)}-{random.integers(1, 29):02} {random.integers(8, 11):02}:00",
            "product_id": one_of(_PRODUCTS),
            "description": one_of(("LANTERN", "Next Day Carriage", None)),
            "quantity": one_of((1.0, 2.0, -1.0, 0.1)),
            "unit_price": one_of((0.1, 2.55, 1.005, 0.0)),
            "country": one_of(_COUNTRIES),
            "source_file": one_of(_FILES),
        }
        for _ in range(n_lines)
    ]
