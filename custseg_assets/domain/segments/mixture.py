"""Fitting Gaussian mixtures: the sweep over k, measured and limited as K-means is.

A component has a full covariance, so clusters may be long, small or large. Everybody is in the most probable component.
What a mixture is as a value, and how customers are assigned, belongs in ``model``; what is common to all kinds in
``clustering``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from custseg_assets.domain.segments.clustering import (
    FIT_SAMPLE,
    SCIKIT_LEARN,
    SILHOUETTE_SAMPLE,
    Candidate,
    Distances,
    Limits,
    draw_rows,
    judge_fit,
    measure_clusters,
    try_every_k,
)
from custseg_assets.domain.segments.model import Clusters, Labels, Matrix, Mixture, nearest
from custseg_assets.domain.threads import one_thread

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

MIN_VARIANCE = 0.05
"""Added to every variance, in squared standard deviations of the reference. Most customers of many shops have ordered
once: a component of theirs has no variance in the number of orders, and would be infinitely dense."""
REFIT_INITIALISATIONS = 3
"""Starts of a bootstrap refit."""
START = "random_from_data"
"""Where a fit starts: from customers drawn by chance. From a K-means, scikit-learn's default, it stays with what that
finds: of two long groups side by side, which K-means cuts across, ten starts miss the right ones for every seed, and
three random ones find them for every seed."""
WARM_START_SLACK = 0.01
"""By how much the mean log-likelihood of a customer may be lower where the fit starts from the model in force."""
WARM_START_STEPS = 100
_MAX_STEPS = 200


def sweep_mixtures(
    matrix: Matrix,
    k_range: tuple[int, int],
    limits: Limits,
    *,
    n_bootstraps: int,
    n_initialisations: int,
    seed: int,
    start: Clusters | None = None,
    everybody: Matrix | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Candidate, ...]:
    """Try every number of components; as ``clustering.sweep`` does for K-means.

    Args:
        matrix: shape (customers, features), on the model's scale.
        k_range: lowest and highest k.
        limits: those that an eligible k keeps.
        n_bootstraps: refits per k.
        n_initialisations: starts of the fit that is measured.
        seed: of everything that depends on chance.
        start: of the model in force, on the same scale; of no use unless it is a mixture.
        everybody: the customers that ``matrix`` is a sample of; without it ``matrix`` is everybody.
        progress: gets one line per k.
    """
    rows = matrix[np.lexsort(matrix.T)]
    distances = Distances(rows)

    def measure(k: int) -> Candidate:
        warm = start if start is not None and start.mixture and len(start.centroids) == k else None
        return _measure_k(rows, everybody, distances, k, limits, n_bootstraps, n_initialisations, seed, warm)

    return try_every_k(rows, k_range, limits, measure, len(rows if everybody is None else everybody), progress)


def _measure_k(
    rows: Matrix,
    everybody: Matrix | None,
    distances: Distances,
    k: int,
    limits: Limits,
    n_bootstraps: int,
    n_initialisations: int,
    seed: int,
    start: Clusters | None,
) -> Candidate:
    rng = np.random.default_rng([seed, k])
    with one_thread(SCIKIT_LEARN):
        sample = draw_rows(rows, FIT_SAMPLE, rng)
        fitted = _fit(rows[sample], k, n_initialisations, rng)
        if start is not None:
            fitted = _fit_from_start(rows[sample], start, fitted.lower_bound_ - WARM_START_SLACK) or fitted
        found = _clusters_of(fitted)
        labels = _labels(rows, found)
        subset = draw_rows(rows, SILHOUETTE_SAMPLE, rng)
        sizes, inertia = measure_clusters(rows if everybody is None else everybody, found)
        refits = _refit_on_resamples(rows[sample], k, n_bootstraps, rng)
        return judge_fit(rows, labels, found, limits, distances, subset, labels[sample], refits, sizes, inertia)


def _labels(rows: Matrix, clusters: Clusters) -> Labels:
    return nearest(rows, np.array(clusters.centroids), clusters.mixture).cluster


def _fit(rows: Matrix, k: int, n_init: int, rng: np.random.Generator) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    estimator = GaussianMixture(
        k,
        reg_covar=MIN_VARIANCE,
        n_init=n_init,
        init_params=START,
        max_iter=_MAX_STEPS,
        random_state=int(rng.integers(2**32)),
    )
    with warnings.catch_warnings():
        # A resample that does not settle is instability, and is counted as such.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(rows)


def _fit_from_start(rows: Matrix, start: Clusters, lower_bound: float) -> GaussianMixture | None:
    """The mixture in force, taken on step by step until it is likely enough; ``None`` where it never is."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    weights, precisions = _parameters_of(start)
    estimator = GaussianMixture(
        len(start.centroids),
        reg_covar=MIN_VARIANCE,
        max_iter=1,
        warm_start=True,
        weights_init=weights,
        means_init=np.array(start.centroids),
        precisions_init=precisions,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(WARM_START_STEPS):
            if estimator.fit(rows).lower_bound_ >= lower_bound:
                return estimator
    return None


def _refit_on_resamples(rows: Matrix, k: int, n_bootstraps: int, rng: np.random.Generator) -> Iterator[Labels]:
    for _ in range(n_bootstraps):
        resample = rows[rng.integers(len(rows), size=len(rows))]
        yield _labels(rows, _clusters_of(_fit(resample, k, REFIT_INITIALISATIONS, rng)))


def _clusters_of(fitted: GaussianMixture) -> Clusters:
    """A fitted mixture as plain numbers, its components by descending last feature, then the one before it."""
    order = np.lexsort(-fitted.means_.T)
    # The precisions' Cholesky factors are upper triangular: a row times one of them has the identity as covariance.
    whitening = fitted.precisions_cholesky_[order].transpose(0, 2, 1)
    log_determinants = -2 * np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(axis=1)
    offsets = log_determinants - 2 * np.log(fitted.weights_[order])
    return Clusters(
        centroids=_tuples(fitted.means_[order]),
        mixture=Mixture(tuple(_tuples(one) for one in whitening), tuple((offsets - offsets.min()).tolist())),
    )


def _tuples(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def _parameters_of(clusters: Clusters) -> tuple[Matrix, Matrix]:
    """Weights and precisions of the components, from ``Clusters`` of a mixture."""
    if clusters.mixture is None:
        raise ValueError("these clusters are of no mixture")
    whitening, offsets = np.array(clusters.mixture.whitening), np.array(clusters.mixture.offsets)
    log_determinants = -2 * np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(axis=1)
    weights = np.exp((log_determinants - offsets) / 2 - ((log_determinants - offsets) / 2).max())
    return weights / weights.sum(), whitening.transpose(0, 2, 1) @ whitening
