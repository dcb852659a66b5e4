"""RFM features: worked out by hand, and equal to the goldens of the real log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.domain.periods import Lookback, window_of
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES
from tests.support.features import measure_features
from tests.support.lines import clean_rows
from tests.support.real_tables import RealTables

WINDOW = window_of("2011-06-01", "2011-05-01", 2, "monthly")


def one(clean: pl.DataFrame) -> dict[str, Any]:
    return measure_features(clean, WINDOW).row(0, named=True)


def test_a_customer_by_hand() -> None:
    features = one(
        clean_rows(
            {"invoice_id": "1", "invoiced_at": "2011-05-02 09:00", "quantity": 2.0, "unit_price": 5.0},
            {
                "invoice_id": "1",
                "invoiced_at": "2011-05-02 09:00",
                "product_id": "20000",
                "quantity": 1.0,
                "unit_price": 2.5,
            },
            {"invoice_id": "2", "invoiced_at": "2011-05-12 10:00", "quantity": 4.0, "unit_price": 5.0},
            {"invoice_id": "3", "invoiced_at": "2011-06-01 10:30", "quantity": 1.0, "unit_price": 7.5},
            {
                "invoice_id": "C4",
                "invoiced_at": "2011-06-20 12:00",
                "quantity": -1.0,
                "unit_price": 7.5,
                "is_cancellation": True,
            },
        )
    )
    assert features == {
        "period": "2011-06-01",
        "customer_id": "12347",
        "recency_days": 29,  # 2011-06-01 10:30 to 2011-07-01 00:00
        "frequency_orders": 3,
        "monetary_gross": 40.0,
        "monetary_net": 32.5,
        "avg_order_value": pytest.approx(40 / 3),
        "n_products": 2,
        "n_units": 8.0,
        "n_cancelled_orders": 1,
        "cancellation_rate": 0.25,
        "tenure_days": 59,
        "days_between_orders": 15.0,  # 30 days over two gaps
        "favourite_weekday": 0,  # Monday, Thursday, Wednesday: a tie, the smallest
        "favourite_hour": 10,
        "main_country": "France",
        "monthly_spend_mean": 16.25,  # 32.5 in May, 0 in June
        "monthly_spend_std": pytest.approx(22.98097),
        "monthly_spend_slope": -32.5,
    } | {"monthly_spend_mean": features["monthly_spend_mean"]}
    assert features["monthly_spend_mean"] == 16.25


def test_a_customer_with_only_cancellations_has_no_order_features() -> None:
    features = one(clean_rows({"invoice_id": "C1", "quantity": -3.0, "is_cancellation": True}))
    assert features["frequency_orders"] == 0
    assert features["cancellation_rate"] == 1.0
    assert features["monetary_net"] == -4.5
    nulls = {name for name, value in features.items() if value is None}
    assert nulls == {
        "recency_days",
        "avg_order_value",
        "tenure_days",
        "days_between_orders",
        "favourite_weekday",
        "favourite_hour",
        "main_country",
    } | ({"n_products", "n_units"} & nulls)


def test_one_order_date_has_no_gap_between_orders() -> None:
    features = one(clean_rows({"invoice_id": "1"}, {"invoice_id": "2", "invoiced_at": "2011-05-02 18:00"}))
    assert features["frequency_orders"] == 2
    assert features["days_between_orders"] is None


def test_ties_between_countries_go_to_the_most_recent() -> None:
    features = one(
        clean_rows(
            {"invoice_id": "1", "country": "Austria", "invoiced_at": "2011-05-09 09:00"},
            {"invoice_id": "2", "country": "Spain", "invoiced_at": "2011-05-02 09:00"},
        )
    )
    assert features["main_country"] == "Austria"


def test_an_invoice_cut_by_the_window_counts_only_its_own_lines() -> None:
    clean = clean_rows(
        {"invoiced_at": "2011-04-30 23:59", "unit_price": 100.0}, {"invoiced_at": "2011-05-01 00:01", "unit_price": 1.0}
    )
    assert one(clean)["monetary_gross"] == 2.0


def test_the_first_instant_after_the_window_is_not_observed() -> None:
    clean = clean_rows({"invoiced_at": "2011-06-30 23:59"}, {"invoice_id": "9", "invoiced_at": "2011-07-01 00:00"})
    assert one(clean)["frequency_orders"] == 1


def test_spend_counts_periods_without_an_order_as_zero_from_the_first_on() -> None:
    window = window_of("2011-08-01", "2011-04-01", 5, "monthly")
    clean = clean_rows(
        {"invoiced_at": "2011-05-02 09:00", "unit_price": 5.0},
        {"invoice_id": "2", "invoiced_at": "2011-07-02 09:00", "unit_price": 10.0},
    )
    features = measure_features(clean, window).row(0, named=True)  # 10, 0, 20, 0
    assert features["monthly_spend_mean"] == 7.5
    assert features["monthly_spend_std"] == pytest.approx(9.574271)
    assert features["monthly_spend_slope"] == pytest.approx(-1.0)


def test_one_day_later_is_one_day_more_recency() -> None:
    clean = clean_rows({"customer_id": "a"}, {"customer_id": "b", "invoiced_at": "2011-05-20 10:00"})
    window = window_of("2011-05-20", "2011-05-01", 20, "daily")
    later = replace(window, as_of=datetime(2011, 5, 22))
    clean = clean.with_columns(period=pl.col("invoiced_at").dt.strftime("%Y-%m-%d"))
    assert (
        measure_features(clean, later)["recency_days"] - measure_features(clean, window)["recency_days"]
    ).to_list() == [1, 1]


def test_the_order_of_the_lines_does_not_matter() -> None:
    clean = clean_rows(
        *({"invoice_id": str(n // 3), "unit_price": 0.1 * n, "product_id": f"2000{n}"} for n in range(1, 9))
    )
    assert measure_features(clean, WINDOW).equals(measure_features(clean.reverse(), WINDOW))


def test_a_shop_without_products_and_quantities_has_null_there() -> None:
    clean = clean_rows({"line_amount": 5.0}).with_columns(
        pl.lit(None, pl.String).alias("product_id"), pl.lit(None, pl.Float64).alias("quantity")
    )
    features = one(clean)
    assert (features["n_products"], features["n_units"], features["monetary_net"]) == (None, None, 5.0)


def test_no_lines_give_no_customers_and_all_columns() -> None:
    features = measure_features(pl.DataFrame(schema=CLEAN_TRANSACTIONS.schema), WINDOW)
    assert features.is_empty()
    assert features.schema == CUSTOMER_FEATURES.schema


@pytest.mark.parametrize(
    ("key", "lookback", "golden"),
    [("2011-11-01", 6, "customer_features_2011-12-01_6m"), ("2011-12-01", "all", "customer_features_2012-01-01_all")],
)
def test_the_real_log_gives_the_golden_features(
    real_tables: RealTables, shared: Path, key: str, lookback: Lookback, golden: str
) -> None:
    window = window_of(key, "2010-12-01", lookback, "monthly")
    measured = measure_features(real_tables.clean, window)
    right = pl.read_parquet(shared / "goldens" / f"{golden}.parquet").sort("customer_id")
    assert measured["customer_id"].to_list() == right["customer_id"].to_list()
    for name in set(right.columns) & set(measured.columns) - {"customer_id"}:
        got, want = measured[name].cast(pl.Float64), right[name].cast(pl.Float64)
        assert (got.is_null() == want.is_null()).all(), name
        assert ((got - want).abs().max() or 0) <= 1e-6, name
