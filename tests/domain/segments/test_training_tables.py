"""Scaled values against the reference they should be on, and equal values, which are on none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.segments.clustering import Limits, usual_rows
from custseg_assets.domain.segments.model import ScalingReference, measure_reference
from custseg_assets.domain.segments.training_tables import measure_off_reference

NAMES = ("recency_days", "frequency_orders")
# On a scale of mean 1 and std 2, log1p(0) is −0.5, and log1p(e⁵ − 1) = 5 is 2.
REFERENCE = ScalingReference(NAMES, (1.0, 1.0), (2.0, 2.0), 3)
FEATURES = pl.DataFrame(
    {
        "period": ["2024-01-01"] * 3,
        "customer_id": ["a", "b", "c"],
        "recency_days": [0.0, np.expm1(5.0), np.expm1(401.0)],
        "frequency_orders": [-3.0, 0.0, np.expm1(5.0)],
    }
)
SCALED = FEATURES.with_columns(
    recency_days=pl.Series([-0.5, 2.0, 200.0]), frequency_orders=pl.Series([-0.5, -0.5, 2.0])
)


def off(scaled: pl.DataFrame, reference: ScalingReference = REFERENCE) -> list[tuple[float, ...]]:
    measured = measure_off_reference(scaled, FEATURES, {"2024-01-01": reference}, NAMES)
    assert measured.columns == ["recency_days_off_reference", "frequency_orders_off_reference"]
    return measured.rows()


def test_values_on_the_reference_are_off_by_nothing_however_far_they_lie_and_in_any_order() -> None:
    assert off(SCALED) == [pytest.approx((0.0, 0.0), abs=1e-9)] * 3
    assert off(SCALED.reverse()) == [pytest.approx((0.0, 0.0), abs=1e-9)] * 3


def test_another_reference_or_none_is_seen_in_every_feature_that_differs() -> None:
    shifted = ScalingReference(NAMES, (1.0, 1.5), (2.0, 2.0), 3)
    assert off(SCALED, shifted) == [pytest.approx((0.0, 0.5), abs=1e-9)] * 3
    # Without a reference b's log1p is 5, which on the scale would be 5 · 2 + 1.
    logged = SCALED.with_columns(recency_days=pl.Series([0.0, 5.0, 401.0]))
    assert off(logged)[1] == pytest.approx((6.0, 0.0), abs=1e-9)


def test_a_customer_or_a_snapshot_without_features_is_infinitely_off() -> None:
    stranger = SCALED.with_columns(customer_id=pl.Series(["a", "z", "c"]))
    assert [row[0] for row in off(stranger)] == [pytest.approx(0.0, abs=1e-9), np.inf, pytest.approx(0.0, abs=1e-9)]
    assert off(SCALED.with_columns(period=pl.lit("2024-02-01"))) == [(np.inf, np.inf)] * 3


def test_equal_values_do_not_vary_whatever_rounding_makes_of_their_mean() -> None:
    for n in range(2, 400):
        reference = measure_reference(np.full((n, 1), 199.0), ["monetary_net"])
        assert reference.std == (1.0,)


def test_a_few_extreme_customers_are_left_out_of_a_fit_and_a_segment_of_them_is_not() -> None:
    limits = Limits(0.8, 0.6, min_share=0.02, min_customers=50)
    matrix = np.zeros((100, 2))
    assert usual_rows(matrix, limits) is None
    matrix[7, 1] = 24.6
    is_usual = usual_rows(matrix, limits)
    assert is_usual is not None
    assert np.flatnonzero(~is_usual).tolist() == [7]
    matrix[8, 0] = -7.0
    assert usual_rows(matrix, limits) is None
    assert usual_rows(matrix[:0], limits) is None
