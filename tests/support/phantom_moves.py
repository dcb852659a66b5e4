"""Phantom moves: customers who change segment when nothing changed but the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from custseg_assets.domain.segments.clustering import Limits, assign_customers, sweep, train_model, visible_to_kmeans
from custseg_assets.domain.segments.model import Matrix, SegmentationModel, measure_reference
from custseg_assets.settings import ModelSettings

NUMBERS, MATCHED, WARM, HELD = (
    "cluster numbers as they come",
    "segments matched",
    "matched, warm start",
    "matched, warm start, margin rule",
)
WAYS = (NUMBERS, MATCHED, WARM, HELD)
ANY = Limits(min_bootstrap_ari=0.0, min_jaccard=0.0, min_share=0.0, min_customers=1)


def phantom_moves(
    features: pl.DataFrame, k: int, n_refits: int, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> pl.DataFrame:
    """Share of the customers that K-means sees who are in another segment after a refit.

    Args:
        features: ``customer_features`` of one snapshot.
        k: number of clusters.
        n_refits: models trained on bootstrap resamples.
        seed: of the resamples.
        say: told one line per refit.

    Returns:
        one row per refit, one column per entry of ``WAYS``.
    """
    names = ModelSettings().features
    seen = features.filter(visible_to_kmeans(features, names))
    values = seen.select(names).cast(pl.Float64).to_numpy()
    reference = measure_reference(values, names)
    matrix = reference.scale(values)
    champion = train_model(seen, _centroids(matrix, k, None), reference, "first")
    before = assign_customers(seen, seen["customer_id"], champion)
    numbers = _labels(matrix, matrix, k, seed)
    rng = np.random.default_rng(seed)
    rows = []
    for refit in range(n_refits):
        sample = rng.integers(len(seen), size=len(seen))
        after = {}
        for way, start in ((MATCHED, None), (WARM, np.array(champion.centroids))):
            centroids = _centroids(matrix[sample], k, start)
            after[way] = train_model(seen[sample], centroids, reference, f"refit {refit}", champion)
        moved = {
            NUMBERS: float((_labels(matrix[sample], matrix, k, seed + 1 + refit) != numbers).mean()),
            **{way: _share_moved(seen, before, model) for way, model in after.items()},
            HELD: _share_moved(seen, before, after[WARM], champion),
        }
        say(", ".join(f"{way} {share:.2%}" for way, share in moved.items()))
        rows.append(moved)
    return pl.DataFrame(rows).select(WAYS)


def _centroids(matrix: Matrix, k: int, start: Matrix | None) -> Sequence[Sequence[float]]:
    configured = ModelSettings()
    found = sweep(
        matrix,
        (k, k),
        ANY,
        # How stable a fit is plays no part here, and does not change it.
        n_bootstraps=1,
        n_initialisations=configured.n_initialisations,
        seed=configured.seed,
        start=start,
    )[0].centroids
    if found is None:
        raise SystemExit(f"k = {k} cannot be fitted on {len(matrix):,} customers")
    return found


def _labels(fitted_on: Matrix, matrix: Matrix, k: int, seed: int) -> np.ndarray:
    """Cluster numbers as K-means gives them when it is started anew each time: what the pipeline does not do."""
    with threadpool_limits(1):
        return KMeans(k, n_init=ModelSettings().n_initialisations, random_state=seed).fit(fitted_on).predict(matrix)


def _share_moved(
    seen: pl.DataFrame, before: pl.DataFrame, model: SegmentationModel, earlier_model: SegmentationModel | None = None
) -> float:
    now = assign_customers(seen, seen["customer_id"], model, before, earlier_model, ModelSettings().margin_rule)
    return float((now["segment_id"] != before["segment_id"]).mean())
