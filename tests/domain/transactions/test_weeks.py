"""Orders by week: counted back from the end of the snapshot, and of nothing that lies after it."""

from __future__ import annotations

from datetime import datetime

import narwhals as nw
import polars as pl
import pytest

from custseg_assets.domain.periods import window_of
from custseg_assets.domain.transactions.weeks import count_orders_by_week

WINDOW = window_of("2024-03-01", "2024-01-01", 2, "monthly")
"""February and March 2024; as of 1 April."""


def weeks_of(*orders: tuple[str, str], is_cancellation: bool = False, n_weeks: int = 4) -> dict[int, int]:
    """Week → orders, of one customer's lines: invoice and instant."""
    lines = pl.DataFrame(
        [("c", invoice, datetime.fromisoformat(at), is_cancellation) for invoice, at in orders],
        schema=["customer_id", "invoice_id", "invoiced_at", "is_cancellation"],
        orient="row",
    ).with_columns(pl.col("invoiced_at").cast(pl.Datetime("us")))
    counted = count_orders_by_week(nw.from_native(lines.lazy()), WINDOW, n_weeks).to_native().collect()
    return dict(counted.sort("week").select("week", "n_orders").iter_rows())


@pytest.mark.parametrize(
    ("at", "week"),
    [
        ("2024-03-31 23:59:59", 0),
        ("2024-03-25 00:00:00", 0),
        ("2024-03-24 23:59:59", 1),
        ("2024-03-18 00:00:00", 1),
        ("2024-03-04 00:00:00", 3),
    ],
)
def test_a_week_is_seven_days_back_from_as_of_its_first_instant_included(at: str, week: int) -> None:
    assert weeks_of(("1", at)) == {week: 1}


@pytest.mark.parametrize("at", ["2024-04-01 00:00:00", "2024-01-31 23:59:59", "2024-03-03 23:59:59"])
def test_what_lies_after_the_snapshot_or_before_the_window_or_the_weeks_does_not_count(at: str) -> None:
    assert weeks_of(("1", at)) == {}


def test_an_order_counts_once_in_the_week_of_its_first_line_and_a_cancellation_never() -> None:
    assert weeks_of(("1", "2024-03-24 23:00:00"), ("1", "2024-03-25 01:00:00"), ("2", "2024-03-20")) == {1: 2}
    assert weeks_of(("C1", "2024-03-30"), is_cancellation=True) == {}
