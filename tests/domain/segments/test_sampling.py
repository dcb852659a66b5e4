"""Fits on a sample: who is drawn, how far another sample would be off, and that everybody gets the same segments."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.schemas import scaled_features_table
from custseg_assets.domain.segments import sampling, training_tables
from custseg_assets.domain.segments.clustering import (
    Limits,
    assign_customers,
    measure_sampling_error,
    sweep,
    train_model,
)
from custseg_assets.domain.segments.model import RFM, Matrix, SegmentationModel
from custseg_assets.domain.segments.sampling import Strata
from custseg_assets.domain.segments.training_tables import choice_in_words, chosen_centroids, scale_snapshot
from custseg_assets.settings import ModelSettings
from custseg_assets.training.steps import sweep_snapshot

KEY = "2011-06-01"


def some_customers(n: int, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=n), rng.geometric(0.5, n).astype(float), rng.exponential(size=n)])


def draw(matrix: Matrix, n: int, seed: int = 1) -> Matrix:
    return Strata(matrix).draw(n, np.random.default_rng(seed))


def test_of_ten_customers_in_a_row_every_other_is_drawn() -> None:
    found = draw(np.arange(10.0)[:, None], 5)
    assert np.diff(found[:, 0]).tolist() == [2, 2, 2, 2]


def test_the_same_customers_give_the_same_sample_in_whatever_order_they_come() -> None:
    matrix = some_customers(5_000)
    shuffled = np.random.default_rng(9).permutation(matrix)
    assert np.array_equal(draw(matrix, 700), draw(shuffled, 700))
    assert not np.array_equal(draw(matrix, 700), draw(matrix, 700, seed=2))


def test_everybody_is_a_sample_of_everybody() -> None:
    matrix = some_customers(500)
    assert np.array_equal(np.sort(draw(matrix, 500), axis=0), np.sort(matrix, axis=0))


def test_each_stratum_is_drawn_by_its_share_to_within_one() -> None:
    matrix = some_customers(40_000)
    # Tenths of each of three features.
    cuts = np.quantile(matrix, np.arange(1, 10) / 10, axis=0, method="inverted_cdf")

    def strata_of(rows: Matrix) -> list[int]:
        tenths = [np.searchsorted(cuts[:, column], rows[:, column], side="left") for column in range(3)]
        return np.bincount(tenths[0] * 100 + tenths[1] * 10 + tenths[2], minlength=1_000).tolist()

    expected, drawn = np.array(strata_of(matrix)) / 10, strata_of(draw(matrix, 4_000))
    assert np.abs(expected - drawn).max() <= 1
    # At random they would be off by more.
    at_random = strata_of(np.random.default_rng(0).permutation(matrix)[:4_000])
    assert np.abs(expected - at_random).max() > 3


def test_a_group_that_is_rare_is_in_the_sample_by_its_share() -> None:
    # One in a thousand spends a hundred times as much as all others.
    matrix = np.vstack([some_customers(49_950), some_customers(50) + 20])
    n_rare = [int((draw(matrix, 5_000, seed)[:, 0] > 10).sum()) for seed in range(20)]
    assert set(n_rare) <= {4, 5, 6}


def a_shop(n: int, seed: int = 3) -> pl.DataFrame:
    """``customer_features`` of four kinds of customers who differ as those of shops do."""
    rng = np.random.default_rng(seed)
    kinds = np.array([[8.0, 2.2, 7.6], [35, 1.2, 6.6], [15, 0.4, 5.2], [120, 0.2, 4.6]])
    kind = rng.choice(4, n, p=[0.1, 0.25, 0.3, 0.35])
    recency, orders, spend = kinds[kind].T
    return pl.DataFrame(
        {
            "period": pl.repeat(KEY, n, eager=True),
            "customer_id": [f"c{number:06}" for number in range(n)],
            "recency_days": np.floor(recency * rng.lognormal(0, 0.4, n)),
            "frequency_orders": np.floor(np.exp(orders + 0.3 * rng.normal(size=n))).clip(1),
            "monetary_net": np.exp(spend + 0.5 * rng.normal(size=n)),
        }
    )


SETTINGS = ModelSettings(k_range=(3, 5), n_bootstraps=4, n_initialisations=4)


def train(features: pl.DataFrame) -> tuple[SegmentationModel, tuple[str, ...], pl.DataFrame]:
    """The model of a snapshot, why its k was chosen, and its candidates."""
    scaled, reference = scale_snapshot(features, RFM, None)
    assert scaled.schema == scaled_features_table(RFM).schema
    candidates, _ = sweep_snapshot(scaled, KEY, SETTINGS, lambda _: None)
    centroids = chosen_centroids(candidates)
    assert centroids is not None
    return train_model(features, centroids, reference, KEY), choice_in_words(candidates), candidates


def test_a_shop_just_above_the_limit_gets_the_segments_of_the_whole_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    features = a_shop(60_001)
    whole, whole_reasons, of_whole = train(features)
    monkeypatch.setattr(sampling, "FITTED_WHOLE", 60_000)
    monkeypatch.setattr(sampling, "SAMPLE", 30_000)
    sampled, reasons, of_sample = train(features)

    assert not any("sample" in reason for reason in whole_reasons)
    assert "fitted on a stratified sample of 30,000 of 60,001 customers" in reasons[-1]
    assert [segment.name for segment in sampled.segments] == [segment.name for segment in whole.segments]
    now, before = (
        assign_customers(features, features["customer_id"], model)["segment_name"] for model in (sampled, whole)
    )
    assert sampled.centroids != whole.centroids
    assert (now == before).mean() >= 0.99
    for name in before.unique():
        assert (now == name).mean() == pytest.approx((before == name).mean(), abs=0.01)
    # Sizes and inertia are everybody's.
    assert of_sample["smallest_cluster"][1] == pytest.approx(of_whole["smallest_cluster"][1], rel=0.02)
    assert of_sample["inertia"][1] == pytest.approx(of_whole["inertia"][1], rel=0.001)


def test_a_fit_on_a_sample_is_the_same_whatever_the_order_of_the_customers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "FITTED_WHOLE", 10_000)
    monkeypatch.setattr(sampling, "SAMPLE", 5_000)
    features = a_shop(12_000)
    one, other = (train(rows)[2] for rows in (features, features.sample(fraction=1, shuffle=True, seed=1)))
    # What K-means is given is the same row by row; sums over everybody may differ in the last bits.
    assert one.drop("inertia").equals(other.drop("inertia"))
    assert one["inertia"].to_numpy() == pytest.approx(other["inertia"].to_numpy())


def test_a_sample_that_another_one_contradicts_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "FITTED_WHOLE", 10_000)
    monkeypatch.setattr(sampling, "SAMPLE", 500)
    # A limit that nothing keeps: everybody is fitted on in the end, as in a smaller shop.
    monkeypatch.setattr(sampling, "MAX_MOVED", -1.0)
    lines = list[str]()
    scaled, _ = scale_snapshot(a_shop(12_000), RFM, None)
    grown, choice = sweep_snapshot(scaled, KEY, SETTINGS, lines.append)
    assert [line.split(" of ")[1] for line in lines if "sample" in line] == ["500", "2,000", "8,000"]
    assert not any("sample" in reason for reason in choice.reasons)
    monkeypatch.setattr(sampling, "FITTED_WHOLE", 20_000)
    assert grown.equals(sweep_snapshot(scaled, KEY, SETTINGS, lambda _: None)[0])


def test_few_of_those_who_are_alike_are_too_few_and_few_of_those_who_differ_are_not() -> None:
    rng, places = np.random.default_rng(5), np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    noise = rng.random((20_000, 2))
    groups = places[rng.choice(3, 20_000)] + rng.random((20_000, 2))
    found = {}
    for name, matrix in (("noise", noise), ("groups", groups)):
        strata = Strata(matrix)
        sample = strata.draw(400, np.random.default_rng(0))
        [candidate] = sweep(sample, (3, 3), LIMITS, n_bootstraps=2, n_initialisations=5, seed=1, everybody=matrix)
        found[name] = measure_sampling_error(strata, 400, candidate, seed=1)
    assert found["groups"].is_small
    assert found["groups"].moved == 0
    assert not found["noise"].is_small
    assert found["noise"].moved > 0.01


LIMITS = Limits(min_bootstrap_ari=0, min_jaccard=0, min_share=0, min_customers=1)


def test_a_retrain_on_a_sample_starts_from_the_model_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    champion = train(a_shop(12_000))[0]
    monkeypatch.setattr(sampling, "FITTED_WHOLE", 10_000)
    monkeypatch.setattr(sampling, "SAMPLE", 6_000)
    scaled, _ = scale_snapshot(a_shop(12_000, seed=4), RFM, champion.reference)
    candidates, choice = sweep_snapshot(scaled, KEY, SETTINGS, lambda _: None, champion)
    assert choice.k == champion.k
    assert "sample of 6,000" in choice.reasons[-1]
    fitted = np.array(chosen_centroids(candidates))
    assert np.abs(fitted - np.array(champion.centroids)).max() < 0.1


def test_fits_that_differ_are_told_apart() -> None:
    centroids = np.array([[0.0, 0.0], [3.0, 4.0]])
    labels, others = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert sampling.compare_fits(centroids, labels, centroids, labels) == (0.0, 0.0, 0.0)
    assert sampling.compare_fits(centroids, labels, np.array([[3.0, 4.0], [3.0, 4.0]]), others) == (5.0, 0.25, 0.25)


def test_the_reference_is_that_of_the_matrix() -> None:
    features = a_shop(1_000)
    assert training_tables.measure_snapshot(features.reverse(), RFM) == scale_snapshot(features, RFM, None)[1]
