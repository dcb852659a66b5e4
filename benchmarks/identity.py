"""How many customers change segment when nothing changed but the model: phantom moves, by what keeps them low.

``python benchmarks/identity.py HOME 2011-06-01`` takes the customers of one snapshot of a home that ``custseg run``
filled. A first model is trained on them; then, again and again, one on a bootstrap resample of the same customers, by
the functions that the pipeline trains and assigns with. Whoever is then in another segment moved for no reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.domain.segments.clustering import Limits, assign_customers, sweep, train_model, visible_to_kmeans
from custseg_assets.domain.segments.model import Matrix, SegmentationModel, measure_reference
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import ModelSettings, load_settings

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
    now = assign_customers(seen, seen["customer_id"], model, before, earlier_model)
    return float((now["segment_id"] != before["segment_id"]).mean())


def table(moves: pl.DataFrame) -> str:
    """Mean and worst of every way, as Markdown."""
    rows = [f"| {way} | {moves[way].mean():.2%} | {moves[way].max():.2%} |" for way in WAYS]
    return "\n".join(["| | mean | worst |", "|---|---|---|", *rows])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("snapshot", metavar="KEY")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--refits", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    features = OpenHome(load_settings(home=given.home)).tables.read(CUSTOMER_FEATURES, [given.snapshot])
    if features.is_empty():
        raise SystemExit(f"home {given.home} has no snapshot {given.snapshot}; fill it with 'custseg run' first")
    moves = phantom_moves(features, given.k, given.refits, given.seed, print)
    print(f"\n{features.height:,} customers, k = {given.k}, {given.refits} refits\n\n{table(moves)}")


if __name__ == "__main__":
    main()
