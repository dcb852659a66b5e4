"""Choosing k, training and assigning: what the sweep says, which k is chosen, and that everybody gets one segment."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.schemas import SEGMENT_ASSIGNMENTS
from custseg_assets.domain.segments import clustering
from custseg_assets.domain.segments.clustering import (
    WARM_START_SLACK,
    Candidate,
    Limits,
    adjusted_rand,
    assign_customers,
    choose_k,
    cluster_jaccards,
    sweep,
    train_model,
    visible_to_kmeans,
)
from custseg_assets.domain.segments.model import RFM, Matrix, SegmentationModel, measure_reference
from custseg_assets.errors import BadInputError

LIMITS = Limits(min_bootstrap_ari=0.8, min_jaccard=0.6, min_share=0.02, min_customers=5)
ONCE: dict[str, Any] = {"n_bootstraps": 4, "n_initialisations": 3, "seed": 1}


def heaps(*sizes: int) -> Matrix:
    """Customers in well-separated heaps, the first at the origin."""
    rng = np.random.default_rng(0)
    return np.vstack([rng.normal(10 * heap, 0.5, (size, 2)) for heap, size in enumerate(sizes)])


def customers(rows: list[tuple[str, int | None, int, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema=dict(zip(("customer_id", *RFM), (pl.String, pl.Int64, pl.Int64, pl.Float64), strict=True)),
        orient="row",
    )


def candidate(k: int, silhouette: float, **measures: float) -> Candidate:
    return Candidate(k, is_eligible=True, reason="keeps every limit", silhouette=silhouette, **measures)  # type: ignore[arg-type]


def test_the_planted_number_of_heaps_is_eligible_and_stable_and_its_neighbours_are_not() -> None:
    found = {one.k: one for one in sweep(heaps(30, 30, 30), (2, 4), LIMITS, **ONCE)}
    assert found[3].is_eligible
    assert found[3].bootstrap_ari == found[3].worst_jaccard == 1
    assert found[3].cluster_jaccards == (1, 1, 1)
    assert not found[4].is_eligible
    assert "mean bootstrap ARI" in found[4].reason
    assert found[4].worst_jaccard < 0.8
    assert choose_k(tuple(found.values()), LIMITS).k == 3


def test_centroids_come_by_descending_last_feature_and_sizes_are_those_of_the_heaps() -> None:
    found = sweep(heaps(40, 20, 30), (3, 3), LIMITS, **ONCE)[0]
    assert [round(row[-1]) for row in found.centroids] == [20, 10, 0]
    assert found.smallest_cluster == 20
    assert found.smallest_share == pytest.approx(20 / 90)


def test_a_cluster_that_is_too_small_makes_k_ineligible_and_the_same_limit_lowered_does_not() -> None:
    matrix = heaps(60, 60, 4)
    assert sweep(matrix, (3, 3), replace(LIMITS, min_share=0.0, min_customers=5), **ONCE)[0].reason == (
        "smallest cluster's number of customers 4 is below 5"
    )
    assert sweep(matrix, (3, 3), replace(LIMITS, min_share=0.0, min_customers=4), **ONCE)[0].is_eligible


@pytest.mark.parametrize("n_customers", [0, 1, 14])
def test_too_few_customers_is_a_reason_and_no_crash(n_customers: int) -> None:
    found = sweep(heaps(20)[:n_customers], (3, 4), LIMITS, **ONCE)
    assert [one.is_eligible for one in found] == [False, False]
    assert found[0].reason == f"{n_customers} customers are too few: 3 clusters of at least 5 need 15"
    assert found[0].silhouette is found[0].centroids is None
    choice = choose_k(found, LIMITS)
    assert choice.k is None
    assert choice.reasons[1] == f"k = 3: {found[0].reason}"


def test_equal_customers_are_a_reason_and_no_warning() -> None:
    found = sweep(np.ones((40, 3)), (3, 3), LIMITS, **ONCE)[0]
    assert found.reason == "customers differ too little: 1 distinct feature rows cannot make 3 clusters"


def test_resamples_that_miss_a_distinct_row_count_as_instability_and_raise_no_warning() -> None:
    matrix = np.array([[0.0]] * 30 + [[1.0]] * 30 + [[9.0]])
    found = sweep(
        matrix, (3, 3), replace(LIMITS, min_customers=1, min_share=0.0), n_bootstraps=8, n_initialisations=3, seed=1
    )[0]
    assert found.smallest_cluster == 1
    assert found.worst_jaccard < 1


def test_a_constant_feature_changes_no_cluster() -> None:
    plain = sweep(heaps(20, 20, 20), (3, 3), LIMITS, **ONCE)[0]
    widened = sweep(
        np.column_stack([heaps(20, 20, 20)[:, :1], np.zeros(60), heaps(20, 20, 20)[:, 1:]]), (3, 3), LIMITS, **ONCE
    )[0]
    assert widened.is_eligible
    assert widened.inertia == pytest.approx(plain.inertia)


def test_the_order_of_customers_the_other_k_and_the_cores_do_not_change_a_candidate() -> None:
    from threadpoolctl import threadpool_limits

    # So many rows that scikit-learn shares them out to threads, whose sums would differ in the last bits.
    matrix = np.random.default_rng(3).normal(size=(2_000, 3))
    with threadpool_limits(1):
        there = sweep(matrix, (3, 5), LIMITS, **ONCE)
    with threadpool_limits(2):
        back = sweep(matrix[::-1], (4, 4), LIMITS, **ONCE)
    assert back[0] == there[1]
    assert sweep(matrix, (4, 4), LIMITS, **{**ONCE, "seed": 2})[0].bootstrap_ari != there[1].bootstrap_ari


def test_progress_is_told_one_line_per_k() -> None:
    lines: list[str] = []
    sweep(heaps(30, 30, 30), (3, 4), LIMITS, **ONCE, progress=lines.append)
    assert lines[0] == "k = 3: keeps every limit"
    assert len(lines) == 2


def test_of_many_customers_a_sample_finds_the_clusters_and_all_place_the_centroids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = heaps(400, 300, 300)
    exact = sweep(matrix, (3, 3), LIMITS, **ONCE)[0]
    monkeypatch.setattr(clustering, "FIT_SAMPLE", 100)
    monkeypatch.setattr(clustering, "SILHOUETTE_SAMPLE", 50)
    sampled = sweep(matrix, (3, 3), LIMITS, **ONCE)[0]
    assert np.allclose(sampled.centroids, exact.centroids)
    assert sampled.smallest_cluster == exact.smallest_cluster == 300
    assert sampled.silhouette != exact.silhouette
    assert sampled.silhouette == pytest.approx(exact.silhouette, abs=0.05)


def test_a_cluster_too_small_for_the_sample_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "SILHOUETTE_SAMPLE", 20)
    found = sweep(heaps(500, 500, 1), (3, 3), replace(LIMITS, min_customers=1), **ONCE)[0]
    assert found.reason == "the smallest cluster holds 1 of 1,001 customers, too few to measure"


def test_the_largest_k_within_5_percent_of_the_best_silhouette_is_chosen() -> None:
    # 95 % of 0.400 is 0.380: k = 4 keeps it exactly, k = 5 does not.
    choice = choose_k([candidate(3, 0.400), candidate(4, 0.380), candidate(5, 0.379)], LIMITS)
    assert choice.k == 4
    assert choice.reasons == (
        (
            "k = 4 is the largest of the eligible 3, 4, 5 with a silhouette of at least 0.380: "
            "it has 0.380, the best is 0.400 at k = 3"
        ),
        "k = 3: eligible, but has fewer segments than k = 4",
        "k = 5: eligible, but its silhouette 0.379 is below 0.380",
    )


def test_an_ineligible_k_is_neither_chosen_nor_the_best() -> None:
    better = replace(candidate(5, 0.9), is_eligible=False, reason="mean bootstrap ARI 0.500 is below 0.8")
    choice = choose_k([candidate(3, 0.30), better], LIMITS)
    assert choice.k == 3
    assert choice.reasons[1] == "k = 5: mean bootstrap ARI 0.500 is below 0.8"


def test_without_an_eligible_k_every_reason_is_given_and_the_settings_that_would_do() -> None:
    common = {"smallest_share": 0.1, "smallest_cluster": 100}
    tried = [
        replace(
            candidate(3, 0.3, bootstrap_ari=0.7567, worst_jaccard=0.7, **common), is_eligible=False, reason="unsteady"
        ),
        replace(candidate(4, 0.4, bootstrap_ari=0.5, worst_jaccard=0.1, **common), is_eligible=False, reason="worse"),
    ]
    choice = choose_k(tried, LIMITS)
    assert choice.k is None
    assert choice.reasons == (
        "no k is eligible",
        "k = 3: unsteady",
        "k = 4: worse",
        "k = 3 comes nearest: it would be eligible with [model] min_bootstrap_ari = 0.756",
    )


def test_the_settings_named_as_the_way_out_really_let_the_k_through() -> None:
    matrix = np.random.default_rng(5).normal(size=(300, 2))
    strict = Limits(min_bootstrap_ari=1.0, min_jaccard=1.0, min_share=0.5, min_customers=5)
    refused = choose_k(sweep(matrix, (3, 3), strict, **ONCE), strict)
    assert refused.k is None
    said = dict(pair.split(" = ") for pair in refused.reasons[-1].split("[model] ")[1].split(", "))
    loosened = replace(
        strict,
        min_bootstrap_ari=float(said["min_bootstrap_ari"]),
        min_jaccard=float(said["min_jaccard"]),
        min_share=float(said["min_segment_share"]),
    )
    assert choose_k(sweep(matrix, (3, 3), loosened, **ONCE), loosened).k == 3


def test_adjusted_rand_and_jaccard_by_hand() -> None:
    labels, others = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 1, 0, 0, 0, 0])
    # Pairs together in both: C(1,2) + C(2,2) + C(3,2) = 4; alone 6 and 7; expected 6·7/15 = 2.8; (4−2.8)/(6.5−2.8).
    assert adjusted_rand(labels, others) == pytest.approx(1.2 / 3.7)
    # {0,1,2} against {0,1}: 2/3; {3,4,5} against {2,3,4,5}: 3/4.
    assert cluster_jaccards(labels, others, 2) == pytest.approx([2 / 3, 3 / 4])


def test_adjusted_rand_is_scikit_learns() -> None:
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(0)
    labels, others = rng.integers(5, size=(2, 500))
    assert adjusted_rand(labels, others) == pytest.approx(adjusted_rand_score(labels, others), abs=1e-12)


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1, 2]])
def test_a_clustering_equals_itself_also_when_nothing_could_differ(labels: list[int]) -> None:
    assert adjusted_rand(np.array(labels), np.array(labels)) == 1


def test_labels_follow_their_centroids_into_order() -> None:
    fitted = SimpleNamespace(cluster_centers_=np.array([[5.0], [1.0], [9.0]]), labels_=np.array([0, 1, 2]))
    centroids, labels = clustering._sort_clusters(fitted)
    assert centroids.tolist() == [[9.0], [5.0], [1.0]]
    assert labels.tolist() == [1, 2, 0]


def test_a_cluster_that_is_gone_has_no_likeness() -> None:
    assert cluster_jaccards(np.array([0, 0]), np.array([0, 0]), 3).tolist() == [1, 0, 0]


def test_the_model_in_force_is_a_start_and_of_equally_good_fits_the_one_that_is_taken() -> None:
    # On a ring every third is as good a cluster as any other.
    angles = np.linspace(0, 2 * np.pi, 600, endpoint=False)
    matrix = np.column_stack([np.cos(angles), np.sin(angles)])
    scratch = sweep(matrix, (3, 3), LIMITS, **ONCE)[0]
    turned = np.array(scratch.centroids) @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    warm = sweep(matrix, (3, 3), LIMITS, **ONCE, start=turned)[0]
    assert np.allclose(np.sort(warm.centroids, axis=0), np.sort(turned, axis=0), atol=0.02)
    assert not np.allclose(np.sort(warm.centroids, axis=0), np.sort(scratch.centroids, axis=0), atol=0.2)
    assert warm.inertia == pytest.approx(scratch.inertia, rel=WARM_START_SLACK)


def test_from_a_start_the_fit_goes_no_further_than_to_almost_the_best() -> None:
    # Even from 0 to 1 the best centroids are 0.25 and 0.75. From 0.2 and 0.66 the border is 0.43, so a step leads to
    # 0.215 and 0.715, 2.9 % above the best inertia; the next, from the border 0.465, to 0.2325 and 0.7325, 0.7 % above.
    matrix = np.linspace(0, 1, 2_001)[:, None]
    found = sweep(matrix, (2, 2), LIMITS, **ONCE, start=np.array([[0.2], [0.66]]))[0]
    assert np.allclose(found.centroids, [[0.7325], [0.2325]], atol=0.003)
    assert np.allclose(sweep(matrix, (2, 2), LIMITS, **ONCE)[0].centroids, [[0.75], [0.25]], atol=0.003)


def test_a_start_that_is_stuck_with_more_than_a_hundredth_more_inertia_is_not_taken() -> None:
    matrix = heaps(60, 60, 60)
    # Two centroids share the first heap, and one has to do for the other two: K-means never gets out of that.
    stuck = np.array([[-0.5, 0.0], [0.5, 0.0], [15.0, 15.0]])
    assert sweep(matrix, (3, 3), LIMITS, **ONCE, start=stuck)[0] == sweep(matrix, (3, 3), LIMITS, **ONCE)[0]


def test_a_start_with_another_number_of_clusters_changes_nothing() -> None:
    matrix = np.random.default_rng(3).uniform(size=(300, 2))
    start = np.array([[0.1, 0.1], [0.2, 0.9], [0.9, 0.2]])
    assert sweep(matrix, (4, 4), LIMITS, **ONCE, start=start) == sweep(matrix, (4, 4), LIMITS, **ONCE)


FIVE = customers(
    [
        ("champion", 3, 9, 900.0),
        ("another", 4, 8, 800.0),
        ("sleeper", 90, 1, 20.0),
        ("refunded", 10, 1, 0.0),
        ("cancelled", None, 0, -5.0),
    ]
)


def five_model() -> SegmentationModel:
    seen = FIVE.head(3).select(RFM).cast(pl.Float64).to_numpy()
    reference = measure_reference(seen, RFM)
    scaled = reference.scale(seen)
    return train_model(FIVE, [scaled[:2].mean(axis=0).tolist(), scaled[2].tolist()], reference, "2011-06-01")


def test_kmeans_sees_customers_with_an_order_and_something_left_of_it() -> None:
    assert visible_to_kmeans(FIVE, RFM).to_list() == [True, True, True, False, False]


def test_every_known_customer_gets_exactly_one_segment() -> None:
    known = pl.Series("customer_id", ["gone", "champion", "champion", "cancelled", "refunded", "sleeper", "another"])
    assigned = assign_customers(FIVE, known, five_model())
    assert assigned.select("customer_id", "segment_id", "is_rule_segment", "cluster").rows() == [
        ("another", "S1", False, 0),
        ("cancelled", "R1", True, None),
        ("champion", "S1", False, 0),
        ("gone", "R2", True, None),
        ("refunded", "R1", True, None),
        ("sleeper", "S2", False, 1),
    ]
    assert assigned.schema == pl.Schema({c.name: c.dtype for c in SEGMENT_ASSIGNMENTS.content})
    by_kmeans = assigned.filter(~pl.col("is_rule_segment"))
    assert by_kmeans["runner_up_segment_id"].to_list() == ["S2", "S2", "S1"]
    assert by_kmeans["margin"][2] == 1
    assert assigned.filter("is_rule_segment").select("distance", "margin", "runner_up_segment_id").null_count().row(
        0
    ) == (3, 3, 3)


def test_a_customer_in_the_window_is_assigned_even_if_nobody_said_that_it_is_known() -> None:
    assert assign_customers(FIVE, pl.Series("customer_id", [], pl.String), five_model()).height == 5


def test_with_nobody_in_the_window_everybody_is_lapsed() -> None:
    assigned = assign_customers(FIVE.clear(), pl.Series("customer_id", ["a", "b"]), five_model())
    assert assigned["segment_name"].to_list() == ["Lapsed", "Lapsed"]


def test_the_order_of_rows_and_how_many_are_scored_at_once_do_not_change_who_is_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = five_model()
    expected = assign_customers(FIVE, FIVE["customer_id"], model)
    monkeypatch.setattr(clustering, "_ROWS_AT_ONCE", 2)
    assert assign_customers(FIVE.reverse(), FIVE["customer_id"].reverse(), model).equals(expected)


def test_a_feature_without_values_for_some_customers_is_refused_before_it_calls_them_refunded() -> None:
    features = FIVE.with_columns(n_products=pl.Series([3, None, 1, 1, None]))
    with pytest.raises(BadInputError, match="n_products, without a value for 1 of 3 customers"):
        visible_to_kmeans(features, (*RFM, "n_products"))


def test_a_model_is_the_candidates_centroids_and_its_name_follows_its_content() -> None:
    model = five_model()
    assert model == five_model()
    assert [segment.segment_id for segment in model.segments] == ["S1", "S2"]
    assert [segment.cluster for segment in model.segments] == [0, 1]
    assert model.model_version.startswith("m-2011-06-01-")


def test_on_the_real_log_four_segments_are_chosen_for_reasons(shared: Path) -> None:
    path = shared / "goldens" / "customer_features_2011-12-01_6m.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    features = pl.read_parquet(path)
    values = features.filter(visible_to_kmeans(features, RFM)).select(RFM).cast(pl.Float64).to_numpy()
    limits = Limits(min_bootstrap_ari=0.8, min_jaccard=0.6, min_share=0.02, min_customers=50)
    reference = measure_reference(values, RFM)
    found = sweep(reference.scale(values), (3, 6), limits, n_bootstraps=10, n_initialisations=10, seed=20101201)
    assert choose_k(found, limits).k == 4
    assert found[1].silhouette == pytest.approx(0.327, abs=0.005)
    model = train_model(features, found[1].centroids, reference, "2011-11-01")
    names = {segment.segment_id: segment.name for segment in model.segments}
    assert names == {"S1": "Champions", "S2": "Needs attention", "S3": "Promising", "S4": "Hibernating"}
    assigned = assign_customers(features, features["customer_id"], model)
    assert assigned["segment_name"].value_counts()["count"].sum() == features.height
    assert assigned.filter(segment_name="Refunded").height == features.height - len(values)


@pytest.mark.parametrize("sample", [clustering.SILHOUETTE_SAMPLE, 60])
def test_silhouettes_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, sample: int) -> None:
    from sklearn.metrics import silhouette_score

    monkeypatch.setattr(clustering, "SILHOUETTE_SAMPLE", sample)
    rng = np.random.default_rng(7)
    rows = np.sort(rng.normal(size=(90, 3)) + np.repeat([[0.0], [5.0], [10.0]], 30, axis=0), axis=0)
    distances = clustering.Distances(rows)
    for k in (2, 3):
        subset = clustering.draw_rows(rows, sample, rng)
        labels = np.arange(90)[subset] * k // 90
        assert distances.silhouette(subset, labels) == silhouette_score(rows[subset], labels)
    # Measured once for every k, or never.
    assert (distances._of_all is None) == (sample < len(rows))


def test_in_a_new_process_libraries_are_limited_to_one_thread_before_anything_is_fitted() -> None:
    """A limit that is set before they are loaded limits nothing, and sums differ in their last bits."""
    program = """
from threadpoolctl import threadpool_info
from custseg_assets.domain.segments.clustering import SCIKIT_LEARN
from custseg_assets.domain.threads import one_thread
with one_thread(SCIKIT_LEARN):
    print(*{pool["num_threads"] for pool in threadpool_info()}, len(threadpool_info()) > 1)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "1 True\n"
