"""The steps of a training: try every k on a snapshot, then make the challenger of the one that was chosen.

The assets take them in one process, a trainer in one of its own. What the figures mean belongs in ``domain.segments``;
the network of a deep model is trained in ``networks``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from custseg_assets.domain.segments import clustering, mixture, sampling, training_tables
from custseg_assets.domain.segments.embedding import Embedding
from custseg_assets.domain.segments.model import Clusters, Matrix, SegmentationModel, nearest
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


def settings_of_training(settings: ModelSettings, champion: SegmentationModel | None) -> ModelSettings:
    """The settings that a model is trained with: a first one is K-means, since it is compared with nothing."""
    return settings if champion else settings.model_copy(update={"kind": "kmeans"})


def weeks_seen(settings: ModelSettings, champion: SegmentationModel | None) -> int:
    """Of how many weeks a training has to be shown the orders; 0 where neither model looks at them."""
    return max(settings.deep_weeks if settings.kind == "deep" else 0, champion.n_weeks if champion else 0)


def kept_embedding(settings: ModelSettings, champion: SegmentationModel | None) -> Embedding | None:
    """The embedding of the model in force, which its deep challengers keep unless the settings want another shape."""
    kept = champion.embedding if champion else None
    shape = settings.deep_weeks, settings.deep_dimensions
    return kept if kept is not None and (kept.n_weeks, kept.n_dimensions) == shape else None


def fit_snapshot(
    features: pl.DataFrame,
    settings: ModelSettings,
    progress: Callable[[str], None],
    champion: SegmentationModel | None = None,
) -> Fit:
    """Take all steps of a training.

    Args:
        features: ``customer_features`` of one snapshot; with orders by week where ``weeks_seen`` says so.
        settings: kind, range of k, limits, seed, features.
        progress: told one line per k.
        champion: the model in force, if there is one.
    """
    key = features["period"][0]
    scaled, _ = training_tables.scale_snapshot(features, settings.features, champion.reference if champion else None)
    is_deep = settings.kind == "deep"
    orders = training_tables.orders_of(features, settings.features, settings.deep_weeks) if is_deep else None
    candidates, choice = sweep_snapshot(scaled, key, settings, progress, champion, orders)
    return Fit(candidates, choice, train_snapshot(features, candidates, key, settings, champion))


def sweep_snapshot(
    scaled: pl.DataFrame,
    key: str,
    settings: ModelSettings,
    progress: Callable[[str], None],
    champion: SegmentationModel | None = None,
    orders: Matrix | None = None,
) -> tuple[pl.DataFrame, clustering.KChoice]:
    """Try every k on a snapshot: the rows of ``model_candidates``, and what was chosen.

    Args:
        scaled: ``scaled_features`` of the snapshot.
        key: of the snapshot.
        settings: range of k, limits, seed.
        progress: told one line per k.
        champion: the model in force, from whose clusters as many start where they are of the same kind.
        orders: by week, of the same customers; needed for a deep model, and then shape (customers, weeks).

    Raises:
        BadInputError: a network has to be trained, and TensorFlow is not installed here.
    """
    matrix, limits = training_tables.matrix_of(scaled, settings.features), settings.limits()
    if settings.kind == "deep":
        if orders is None:
            raise ValueError("a deep model needs orders by week")
        candidates, choice = _sweep_embedded(matrix, orders, settings, progress, champion)
        return training_tables.candidate_table(key, candidates, choice), choice
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
    if settings.kind == "gaussian_mixture":
        return _sweep_mixtures(matrix, settings, progress, champion)
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
        start = _start_of(champion)
        error = clustering.measure_sampling_error(strata, n_sampled, chosen, settings.seed, start)
        progress(error.sentence())
        if error.is_small:
            return candidates, replace(choice, reasons=(*choice.reasons, error.sentence()))
        n_sampled *= sampling.GROWTH
    candidates = _sweep_rows(matrix, settings, progress, champion)
    return candidates, clustering.choose_k(candidates, settings.limits())


def _start_of(champion: SegmentationModel | None) -> Matrix | None:
    """Centroids that K-means in the features starts from."""
    return np.array(champion.centroids) if champion and champion.kind == "kmeans" else None


def _sweep_embedded(
    matrix: Matrix,
    orders: Matrix,
    settings: ModelSettings,
    progress: Callable[[str], None],
    champion: SegmentationModel | None,
) -> tuple[tuple[clustering.Candidate, ...], clustering.KChoice]:
    """Try every k in an embedding: that of the model in force, which goes on as its scale does, or a new one.

    In a new one stability is that of networks that were trained on resamples, in one that goes on that of K-means.
    """
    kept = kept_embedding(settings, champion)
    if kept is not None:
        embedding, refits = kept, None
        progress("the embedding of the model in force goes on")
    else:
        from custseg_assets.training.networks import train_networks

        embedding, refits = train_networks(matrix, orders, settings, progress)
    places = embedding.embed(matrix, orders)
    is_sampled, rows = len(places) > sampling.FITTED_WHOLE, np.arange(len(places))
    if is_sampled:
        rows = clustering.draw_rows(places, sampling.SAMPLE, np.random.default_rng(settings.seed))
    found = clustering.sweep(
        places[rows],
        settings.k_range,
        settings.limits(),
        n_bootstraps=settings.n_bootstraps,
        n_initialisations=settings.n_initialisations,
        seed=settings.seed,
        start=np.array(kept.centroids) if kept else None,
        everybody=places if is_sampled else None,
        refits=refits and [one[rows] for one in refits],
        progress=progress,
    )
    candidates = tuple(_describe_in_features(one, matrix, places, embedding) for one in found)
    return candidates, clustering.choose_k(candidates, settings.limits())


def _describe_in_features(
    candidate: clustering.Candidate, matrix: Matrix, places: Matrix, embedding: Embedding
) -> clustering.Candidate:
    """A candidate from an embedding with the means of its customers as centroids, and all of the embedding."""
    if candidate.centroids is None:
        return candidate
    labels = nearest(places, np.array(candidate.centroids)).cluster
    means = tuple(tuple(matrix[labels == cluster].mean(axis=0).tolist()) for cluster in range(candidate.k))
    clusters = Clusters(means, embedding=replace(embedding, centroids=candidate.centroids))
    return replace(candidate, centroids=means, clusters=clusters)


def _sweep_mixtures(
    matrix: Matrix, settings: ModelSettings, progress: Callable[[str], None], champion: SegmentationModel | None
) -> tuple[tuple[clustering.Candidate, ...], clustering.KChoice]:
    """Try every number of components on everybody or, in a large shop, on one stratified sample."""
    rows, is_sampled = matrix, len(matrix) > sampling.FITTED_WHOLE
    if is_sampled:
        rows = sampling.Strata(matrix).draw(sampling.SAMPLE, np.random.default_rng(settings.seed))
    candidates = mixture.sweep_mixtures(
        rows,
        settings.k_range,
        settings.limits(),
        n_bootstraps=settings.n_bootstraps,
        n_initialisations=settings.n_initialisations,
        seed=settings.seed,
        start=champion.clusters if champion else None,
        everybody=matrix if is_sampled else None,
        progress=progress,
    )
    choice = clustering.choose_k(candidates, settings.limits())
    if is_sampled and choice.k is not None:
        sentence = (
            f"fitted on a stratified sample of {sampling.SAMPLE:,} of {len(matrix):,} customers; how much another "
            "sample would change is not measured for a mixture"
        )
        choice = replace(choice, reasons=(*choice.reasons, sentence))
    return candidates, choice


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
        start=_start_of(champion),
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
        features: ``customer_features`` of the snapshot; with orders by week for a deep model or champion.
        candidates: ``model_candidates`` of it.
        key: of the snapshot.
        settings: the segmentation features.
        champion: the model in force, on whose scale the candidates were fitted and whose segments go on.
    """
    clusters = training_tables.chosen_clusters(candidates)
    if clusters is None:
        return None
    used = champion.reference if champion else training_tables.measure_snapshot(features, settings.features)
    return clustering.train_model(features, clusters.centroids, used, key, champion, clusters)
