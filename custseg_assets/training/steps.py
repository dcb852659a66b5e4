"""The steps of a training: try every k on a snapshot, then make the challenger of the one that was chosen.

The assets take them in one process, a trainer in one of its own. What the figures mean belongs in ``domain.segments``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from custseg_assets.domain.segments import clustering, training_tables
from custseg_assets.domain.segments.model import Matrix, SegmentationModel
from custseg_assets.settings import ModelSettings


def sweep_snapshot(
    scaled: pl.DataFrame,
    key: str,
    settings: ModelSettings,
    progress: Callable[[str], None],
    champion: SegmentationModel | None = None,
) -> tuple[pl.DataFrame, clustering.KChoice]:
    """Try every k on a snapshot: the rows of ``model_candidates``, and what was chosen.

    Args:
        scaled: ``scaled_features`` of the snapshot.
        key: of the snapshot.
        settings: range of k, limits, seed.
        progress: told one line per k.
        champion: the model in force, from whose centroids as many clusters start.
    """
    matrix, limits = training_tables.matrix_of(scaled, settings.features), settings.limits()
    candidates = _sweep(matrix, settings, progress, champion)
    choice = clustering.choose_k(candidates, limits)
    is_usual = clustering.usual_rows(matrix, limits) if choice.k is None else None
    if is_usual is not None:
        n_extreme = len(matrix) - int(is_usual.sum())
        progress(f"no k is eligible; again without {n_extreme:,} extreme of {len(matrix):,} customers")
        others = _sweep(matrix[is_usual], settings, progress, champion)
        again = clustering.choose_k(others, limits)
        if again.k is not None:
            left_out = (
                f"fitted without {n_extreme:,} of {len(matrix):,} customers, who lie more than {clustering.EXTREME:g} "
                "standard deviations from the median and leave no k eligible; they are in the nearest segment"
            )
            candidates, choice = others, replace(again, reasons=(*again.reasons, left_out))
    return training_tables.candidate_table(key, candidates, choice), choice


def _sweep(
    matrix: Matrix, settings: ModelSettings, progress: Callable[[str], None], champion: SegmentationModel | None
) -> tuple[clustering.Candidate, ...]:
    return clustering.sweep(
        matrix,
        settings.k_range,
        settings.limits(),
        n_bootstraps=settings.n_bootstraps,
        n_initialisations=settings.n_initialisations,
        seed=settings.seed,
        start=np.array(champion.centroids) if champion else None,
        progress=progress,
    )


def train_snapshot(
    features: pl.DataFrame,
    candidates: pl.DataFrame,
    key: str,
    settings: ModelSettings,
    champion: SegmentationModel | None = None,
) -> SegmentationModel | None:
    """The challenger of a snapshot; ``None`` where no k was chosen.

    Args:
        features: ``customer_features`` of the snapshot.
        candidates: ``model_candidates`` of it.
        key: of the snapshot.
        settings: the segmentation features.
        champion: the model in force, on whose scale the candidates were fitted and whose segments go on.
    """
    centroids = training_tables.chosen_centroids(candidates)
    if centroids is None:
        return None
    _, used = training_tables.scale_snapshot(features, settings.features, champion.reference if champion else None)
    return clustering.train_model(features, centroids, used, key, champion)
