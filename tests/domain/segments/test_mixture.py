"""Gaussian mixtures: what they find, and that they are used as every other model is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.mixture import GaussianMixture

from custseg_assets.domain.segments import mixture
from custseg_assets.domain.segments.clustering import Candidate, Limits, adjusted_rand, feature_values, sweep
from custseg_assets.domain.segments.explain import DENSITY, Explainer, _parts_of_distance
from custseg_assets.domain.segments.model import (
    Clusters,
    Matrix,
    SegmentationModel,
    model_from_json,
    nearest,
)
from custseg_assets.domain.segments.training_tables import choice_in_words, measure_snapshot, scale_snapshot
from custseg_assets.settings import ModelSettings
from custseg_assets.training.steps import sweep_snapshot, train_snapshot
from tests.support.trainings import KEY, features_of

ANY = Limits(min_bootstrap_ari=0.0, min_jaccard=0.0, min_share=0.0, min_customers=1)
SETTINGS = ModelSettings(kind="gaussian_mixture", k_range=(3, 3), n_bootstraps=3, n_initialisations=2)


def stripes(n: int = 600) -> tuple[Matrix, np.ndarray]:
    """Two long groups side by side, which K-means cuts across, and the group of each customer."""
    rng = np.random.default_rng(5)
    group = np.arange(n) % 2
    return np.column_stack([rng.normal(0, 2, n), group * 2.5 + rng.normal(0, 0.3, n)]), group


def swept(matrix: Matrix, k: int, start: Clusters | None = None, seed: int = 1) -> Candidate:
    found = mixture.sweep_mixtures(matrix, (k, k), ANY, n_bootstraps=3, n_initialisations=3, seed=seed, start=start)
    return found[0]


def labels_of(matrix: Matrix, clusters: Clusters | None) -> np.ndarray:
    assert clusters is not None
    return nearest(matrix, np.array(clusters.centroids), clusters.mixture).cluster


def trained(features: pl.DataFrame, champion: SegmentationModel | None = None) -> SegmentationModel:
    reference = champion.reference if champion else measure_snapshot(features, SETTINGS.features)
    scaled, _ = scale_snapshot(features, SETTINGS.features, reference)
    candidates, _ = sweep_snapshot(scaled, KEY, SETTINGS, lambda _: None, champion)
    model = train_snapshot(features, candidates, KEY, SETTINGS, champion)
    assert model is not None, choice_in_words(candidates)
    return model


def test_a_mixture_finds_long_groups_that_kmeans_cuts_across() -> None:
    matrix, group = stripes()
    found = swept(matrix, 2)
    assert adjusted_rand(labels_of(matrix, found.clusters), group) > 0.95
    assert found.bootstrap_ari is not None
    assert found.bootstrap_ari > 0.9
    kmeans = sweep(matrix, (2, 2), ANY, n_bootstraps=3, n_initialisations=3, seed=1)[0]
    assert kmeans.centroids is not None
    assert adjusted_rand(nearest(matrix, np.array(kmeans.centroids)).cluster, group) < 0.2


def test_everybody_is_in_the_most_probable_component() -> None:
    """The plain numbers say what scikit-learn's own estimator says of the same fit."""
    matrix, _ = stripes()
    fitted = GaussianMixture(3, reg_covar=mixture.MIN_VARIANCE, random_state=0).fit(matrix)
    clusters = mixture._clusters_of(fitted)
    order = np.lexsort(-fitted.means_.T)
    assert np.array_equal(order[labels_of(matrix, clusters)], fitted.predict(matrix))
    assert clusters.mixture is not None
    assert min(clusters.mixture.offsets) == 0
    weights, precisions = mixture._parameters_of(clusters)
    assert np.allclose(weights, fitted.weights_[order])
    assert np.allclose(precisions, fitted.precisions_[order])


def test_neither_the_order_of_the_customers_nor_the_ones_around_them_change_an_answer() -> None:
    matrix, _ = stripes()
    assert swept(matrix, 2) == swept(matrix[::-1], 2)
    clusters = swept(matrix, 2).clusters
    assert clusters is not None
    together = nearest(matrix, np.array(clusters.centroids), clusters.mixture)
    alone = [nearest(matrix[[row]], np.array(clusters.centroids), clusters.mixture) for row in range(50)]
    assert [one.distance.item() for one in alone] == together.distance[:50].tolist()


def test_a_fit_that_starts_from_the_model_in_force_stays_where_that_is_likely_enough() -> None:
    matrix, _ = stripes()
    first = swept(matrix, 2).clusters
    assert first is not None
    rng = np.random.default_rng(2)
    resample = matrix[rng.integers(len(matrix), size=len(matrix))]
    again = swept(resample, 2, first, seed=9).clusters
    assert (labels_of(matrix, again) != labels_of(matrix, first)).mean() <= 0.01
    # From a place where nothing is likely it does not stay.
    nowhere = replace(first, centroids=tuple((row[0], row[1] * 0 + 1.25) for row in first.centroids))
    assert adjusted_rand(labels_of(matrix, swept(matrix, 2, nowhere).clusters), labels_of(matrix, first)) > 0.95


def test_a_model_keeps_all_of_it_in_its_json_and_its_name() -> None:
    features = features_of(600)
    model = trained(features)
    assert model.kind == "gaussian_mixture"
    again = model_from_json(model.to_json())
    assert again == model
    values = feature_values(features, model.inputs)
    assert np.array_equal(again.score(values).margin, model.score(values).margin)
    assert '"format": 2' in model.to_json()
    assert trained(features).model_version == model.model_version


def test_a_challenger_keeps_the_segments_of_the_mixture_in_force() -> None:
    features = features_of(600)
    champion = trained(features)
    rng = np.random.default_rng(3)
    challenger = trained(
        features[rng.integers(600, size=600)]
        .with_row_index()
        .with_columns(customer_id=pl.format("{}-{}", "customer_id", "index"))
        .drop("index"),
        champion,
    )
    assert [event.kind for event in challenger.lineage] == ["continued"] * 3
    assert challenger.predecessor == champion.model_version


def test_customers_beside_a_border_are_kept_as_under_kmeans() -> None:
    features = features_of(600)
    model = trained(features)
    rows = feature_values(features, model.inputs)
    fresh = model.score(rows)
    held = model.score(rows, fresh.runner_up, margin_rule=0.999)
    assert held.is_held.any()
    assert np.array_equal(held.cluster[held.is_held], fresh.runner_up[held.is_held])
    assert np.allclose(held.distance[held.is_held], fresh.runner_up_distance[held.is_held])
    assert not model.score(rows, fresh.runner_up, margin_rule=0.0).is_held.any()


def test_the_parts_of_a_reason_add_up_to_the_difference_of_the_distances() -> None:
    features = features_of(600)
    model = trained(features)
    explainer = Explainer(model)
    values = feature_values(features, model.inputs)
    scores, places = model.score(values), model.reference.scale(values)
    for row in range(0, 600, 60):
        own, other = scores.cluster[row], scores.runner_up[row]
        parts = [
            sum(_parts_of_distance(places[row].tolist(), model.centroids[one], *explainer._shapes[id_]))
            for one, id_ in ((cluster, model.segments[cluster].segment_id) for cluster in (own, other))
        ]
        assert parts == pytest.approx([scores.distance[row] ** 2, scores.runner_up_distance[row] ** 2])
        reasons = explainer.reasons(
            model.segments[own].segment_id,
            model.segments[other].segment_id,
            features.row(row, named=True),
        )
        assert reasons
        assert {reason.feature for reason in reasons} <= {*model.features, DENSITY}


def test_the_larger_of_two_equal_components_gets_who_is_as_near_to_both_and_it_is_said() -> None:
    unit = ((1.0,),)
    shape = mixture.Mixture((unit, unit), (2.0, 0.0))
    centroids = np.array([[1.0], [-1.0]])
    assert nearest(np.array([[0.0]]), centroids, shape).cluster.tolist() == [1]
    model = trained(features_of(600))
    small = replace(
        model,
        reference=replace(model.reference, features=("monetary_net",), mean=(0.0,), std=(1.0,)),
        centroids=((2.0,), (0.0,)),
        segments=model.segments[:2],
        mixture=shape,
    )
    ids = [segment.segment_id for segment in small.segments]
    reasons = Explainer(small).reasons(ids[1], ids[0], {"monetary_net": float(np.expm1(1.2))})
    assert [reason.feature for reason in reasons] == [DENSITY]
