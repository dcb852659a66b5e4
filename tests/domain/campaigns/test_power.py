"""What a campaign could see, said before it starts: by hand, and held against what it then sees."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.campaigns.covariates import covariates_of, weigh_features
from custseg_assets.domain.campaigns.estimate import Stratum, compare_splits, critical_quotient, draw_differences
from custseg_assets.domain.campaigns.outcomes import cap_of, cap_spend
from custseg_assets.domain.campaigns.power import Spread, foresee, measure_spread, pool_spreads


def test_the_smallest_uplift_is_that_of_two_means() -> None:
    # 80 % power at 5 %: 2.80 standard errors with many customers; √(0.25 (1/8000 + 1/2000)) is 0.0125.
    overall, single = foresee({"S1": (8_000, 2_000)}, {"S1": Spread(5_000, 0.5, 0.25)})
    assert overall.uplift == pytest.approx(2.8016 * 0.0125, rel=2e-3)
    assert single["S1"] == overall
    assert overall.relative_uplift == pytest.approx(0.07, rel=2e-3)


def test_what_is_said_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(1)
    prediction = random.beta(2, 3, 1_500)
    outcome = (random.random(1_500) < prediction).astype(np.float64)
    spread = measure_spread(outcome, prediction, ["S1"] * 1_500)
    uplift = foresee({"S1": (1_200, 300)}, spread)[0].uplift
    assert uplift is not None
    held = np.array([np.sort(random.permutation(1_500)[:300]) for _ in range(400)])
    stratum = Stratum(outcome, prediction, 300)
    limit = critical_quotient(draw_differences(stratum, 1_999, random))
    found = compare_splits(stratum, held)
    share = ((found.effect + uplift) / np.sqrt(found.variance) > limit).mean()
    assert share == pytest.approx(0.8, abs=0.07)


def test_a_covariate_that_says_something_makes_smaller_uplifts_seen() -> None:
    random = np.random.default_rng(2)
    prediction = random.normal(size=500)
    outcome = prediction + random.normal(size=500)
    without = measure_spread(outcome, np.zeros(500), ["S1"] * 500)["S1"]
    assert measure_spread(outcome, prediction, ["S1"] * 500)["S1"].variance == pytest.approx(
        without.variance / 2, rel=0.2
    )
    # The same for all but for rounding: it says nothing, and breaks nothing.
    assert measure_spread(outcome, np.full(500, 1 / 3), ["S1"] * 500)["S1"].variance == pytest.approx(without.variance)


def test_a_segment_too_small_says_so() -> None:
    spreads = {"S1": Spread(500, 0.3, 0.21), "S2": Spread(500, 0.02, 0.02)}
    overall, single = foresee({"S1": (76, 19), "S2": (100, 25), "S9": (1_000, 250)}, spreads)
    assert (single["S1"].uplift, single["S1"].is_too_small) == (None, True)
    # It would have to be seven times what it is.
    assert single["S2"].has_figures
    assert single["S2"].is_too_small
    # Of a segment that the past does not have nothing is said, though it counts as the others do over all.
    assert (single["S9"].uplift, single["S9"].is_too_small) == (None, False)
    assert overall.uplift is not None
    assert not overall.is_too_small


def test_without_a_past_nothing_is_said() -> None:
    overall, single = foresee({"S1": (800, 200)}, {})
    assert (overall.mean, overall.uplift, single["S1"].uplift) == (None, None, None)
    assert pool_spreads([]) == {}
    assert weigh_features([]) is None
    assert cap_of(np.zeros(5)) is None


def test_snapshots_count_by_their_customers() -> None:
    pooled = pool_spreads([{"S1": Spread(100, 0.2, 1.0)}, {"S1": Spread(300, 0.4, 2.0), "S2": Spread(30, 1.0, 1.0)}])
    assert pooled == {"S1": Spread(400, pytest.approx(0.35), pytest.approx(1.75)), "S2": Spread(30, 1.0, 1.0)}


def test_the_cap_is_above_most_who_spend() -> None:
    spend = np.array([0.0] * 50 + [float(one) for one in range(1, 101)])
    assert cap_of(spend) == pytest.approx(95.05)
    assert cap_spend(np.array([-500.0, 3.0, 500.0]), 95.05).tolist() == [-95.05, 3.0, 95.05]


FEATURES = pl.DataFrame(
    {
        "customer_id": ["a", "b"],
        "recency_days": [3, 40],
        "frequency_orders": [5, 1],
        "monetary_net": [300.0, -20.0],
        "tenure_days": [90, 40],
    }
)
IDS = pl.Series("customer_id", ["b", "lapsed", "a"])


def test_the_covariate_is_the_prediction_where_there_is_one() -> None:
    values = pl.DataFrame(
        {
            "customer_id": ["a", "b", "lapsed"],
            "p_order_30d": [0.7, 0.2, 0.1],
            "p_order_60d": [0.8, 0.3, 0.1],
            "p_order_90d": [0.9, 0.4, 0.2],
            "expected_spend_90d": [900.0, 90.0, 9.0],
        }
    )
    found = covariates_of(IDS, FEATURES, values, None, days=28, cap=250.0)
    assert found["return"].tolist() == [0.2, 0.1, 0.7]
    assert found["spend"].tolist() == pytest.approx([28.0, 2.8, 250.0])


def test_the_covariate_is_what_features_say_where_there_is_none() -> None:
    ordered = {"return": np.array([0.0, 0.0, 1.0]), "spend": np.array([0.0, 0.0, 80.0])}
    weights = weigh_features([(IDS, FEATURES, ordered)] * 3)
    found = covariates_of(IDS, FEATURES, None, weights, days=30, cap=None)
    assert found["return"] == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)
    assert found["spend"] == pytest.approx([0.0, 0.0, 80.0], abs=1e-4)
    # Without a past: how often, and how much; nothing of who has nothing in the window.
    alone = covariates_of(IDS, FEATURES, None, None, days=30, cap=None)
    assert alone["return"] == pytest.approx(np.log([2, 1, 6]))
    assert alone["spend"] == pytest.approx(np.log([1, 1, 301]))
