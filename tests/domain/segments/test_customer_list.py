"""The list of customers: one row each, in words."""

from __future__ import annotations

import polars as pl
import pytest

from custseg_assets.domain.schemas import (
    CUSTOMER_FEATURES,
    PRODUCT_RECOMMENDATIONS,
    SEGMENT_ASSIGNMENTS,
    SEGMENT_PROFILES,
    Table,
)
from custseg_assets.domain.segments.customer_list import list_customers

MAY, JUNE, JULY = "2011-05-01", "2011-06-01", "2011-07-01"
NAMES = {"S1": "Champions", "S2": "At risk", "R2": "Lapsed"}


def rows_of(table: Table, *rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in table.schema} for row in rows], schema=table.schema)


def assigned(period: str, customer: str, segment: str) -> dict[str, object]:
    return {"period": period, "customer_id": customer, "segment_id": segment, "segment_name": NAMES[segment]}


@pytest.fixture
def listed() -> pl.DataFrame:
    history = rows_of(
        SEGMENT_ASSIGNMENTS,
        # Left Champions for June and July; 2 came in July; 3 was never anywhere else, and has nothing in the window.
        *(assigned(period, "1", segment) for period, segment in ((MAY, "S1"), (JUNE, "S2"), (JULY, "S2"))),
        assigned(JULY, "2", "S1"),
        *(assigned(period, "3", "R2") for period in (MAY, JUNE, JULY)),
    )
    features = rows_of(
        CUSTOMER_FEATURES,
        {"customer_id": "1", "recency_days": 40, "frequency_orders": 3, "monetary_net": 120.5},
        {"customer_id": "2", "recency_days": 2, "frequency_orders": 1, "monetary_net": -4.0},
    )
    profiles = rows_of(
        SEGMENT_PROFILES,
        *({"segment_id": id_, "segment_name": name, "advice": f"Write to {name}."} for id_, name in NAMES.items()),
    )
    products = rows_of(
        PRODUCT_RECOMMENDATIONS,
        {"customer_id": "1", "rank": 2, "product_id": "P9", "description": None},
        {"customer_id": "1", "rank": 1, "product_id": "P7", "description": "LANTERN"},
    )
    return list_customers(history, features, profiles, products, period=JULY)


def test_every_customer_has_one_row_with_segment_stay_figures_advice_and_offers(listed: pl.DataFrame) -> None:
    assert listed.columns == [
        "customer_id",
        "segment",
        "previous",
        "since",
        "recency",
        "orders",
        "spend",
        "advice",
        "offers",
    ]
    assert listed.rows() == [
        ("1", "At risk", "Champions", JUNE, 40, 3, 120.5, "Write to At risk.", "LANTERN; P9"),
        ("2", "Champions", None, JULY, 2, 1, -4.0, "Write to Champions.", None),
        ("3", "Lapsed", None, MAY, None, 0, 0.0, "Write to Lapsed.", None),
    ]
