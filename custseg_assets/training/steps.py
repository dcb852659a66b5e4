"""The steps of a training: try every k on a snapshot, then make the challenger of the one that was chosen.

The assets take them in one process, a trainer in one of its own. What the figures mean belongs in ``domain.segments``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from custseg_assets.domain.segments import clustering, sampling, training_tables
from custseg_assets.domain.segments.model import Matrix, SegmentationModel
from custseg_assets.settings import ModelSettings


@dataclass(frozen=True)
class Fit:
    """What a training on a snapshot gave.

    Attributes:
        candidates: rows of ``model_candidates``.
        choice: of the number of clusters.
        model: the challenger; ``None`` where no k was eligible.
    """

    candidates: pl.DataFrame
    choice: clustering.KChoice
    model: SegmentationModel | None


def fit_snapshot(
    features: pl.DataFrame,
    settings: ModelSettings,
    progress: Callable[[str], None],
    champion: SegmentationModel | None = None,
) -> Fit:
    """Take all steps of a training.

    Args:
        features: ``customer_features`` of one snapshot.
        settings: range of k, limits, seed, features.
        progress: told one line per k.
        champion: the model in force, if there is one.
    """
    key = features["period"][0]
    scaled, _ = training_tables.scale_snapshot(features, settings.features, champion.reference if champion else None)
    candidates, choice = sweep_snapshot(scaled, key, settings, progress, champion)
    return Fit(candidates, choice, train_snapshot(features, candidates, key, settings, champion))


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
    candidates, choice = _sweep(matrix, settings, progress, champion)
    is_usual = clustering.usual_rows(matrix, limits) if choice.k is None else None
    if is_usual is not None:
        n_extreme = len(matrix) - int(is_usual.sum())
        progress(f"no k is eligible; again without {n_extreme:,} extreme of {len(matrix):,} customers")
        others, again = _sweep(matrix[is_usual], settings, progress, champion)
        if again.k is not None:
            left_out = (
                f"fitted without {n_extreme:,} of {len(matrix):,} customers, who lie more than {clustering.EXTREME:g} "
                "standard deviations from the median and leave no k eligible; they are in the nearest segment"
            )
            candidates, choice = others, replace(again, reasons=(*again.reasons, left_out))
    return training_tables.candidate_table(key, candidates, choice), choice


def _sweep(
    matrix: Matrix, settings: ModelSettings, progress: Callable[[str], None], champion: SegmentationModel | None
) -> tuple[tuple[clustering.Candidate, ...], clustering.KChoice]:
    """Try every k on everybody or, in a large shop, on a sample that is made larger until another one says the same."""
    strata, n_sampled = (
        sampling.Strata(matrix),
        len(matrix) if len(matrix) <= sampling.FITTED_WHOLE else sampling.SAMPLE,
    )
    while n_sampled < len(matrix):
        sample = strata.draw(n_sampled, np.random.default_rng(settings.seed))
        candidates = _sweep_rows(sample, settings, progress, champion, everybody=matrix)
        choice = clustering.choose_k(candidates, settings.limits())
        if choice.k is None:
            return candidates, choice
        chosen = next(one for one in candidates if one.k == choice.k)
        start = np.array(champion.centroids) if champion else None
        error = clustering.measure_sampling_error(strata, n_sampled, chosen, settings.seed, start)
        progress(error.sentence())
        if error.is_small:
            return candidates, replace(choice, reasons=(*choice.reasons, error.sentence()))
        n_sampled *= sampling.GROWTH
    candidates = _sweep_rows(matrix, settings, progress, champion)
    return candidates, clustering.choose_k(candidates, settings.limits())


def _sweep_rows(
    rows: Matrix,
    settings: ModelSettings,
    progress: Callable[[str], None],
    champion: SegmentationModel | None,
    everybody: Matrix | None = None,
) -> tuple[clustering.Candidate, ...]:
    return clustering.sweep(
        rows,
        settings.k_range,
        settings.limits(),
        n_bootstraps=settings.n_bootstraps,
        n_initialisations=settings.n_initialisations,
        seed=settings.seed,
        start=np.array(champion.centroids) if champion else None,
        everybody=everybody,
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
    used = champion.reference if champion else training_tables.measure_snapshot(features, settings.features)
    return clustering.train_model(features, centroids, used, key, champion)
