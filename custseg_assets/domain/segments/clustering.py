"""Fitting and using clusters: the sweep over k, the choice of k, the model it makes, and the assignment of customers.

The sweep measures every k and says which limits it misses; the choice follows one rule; training names the clusters of
the chosen k. Features are scaled in ``training_tables``; the model as a value, and scoring, belong in ``model``; a
Gaussian mixture is fitted in ``mixture``.

Everything that depends on chance has its own generator per k, rows are put in one order first, and libraries run on
one thread, so neither the order of customers, nor the other k, nor the number of cores changes a result.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.bounds import CountFromOne, Share
from custseg_assets.domain.segments.identity import count_overlaps, inherit_segments
from custseg_assets.domain.segments.model import (
    LAPSED,
    NO_CLUSTER,
    REFUNDED,
    RFM,
    Clusters,
    Labels,
    Matrix,
    ScalingReference,
    SegmentationModel,
    nearest,
    version_of,
)
from custseg_assets.domain.segments.naming import name_segments
from custseg_assets.domain.segments.sampling import N_OTHER_SAMPLES, SamplingError, Strata, compare_fits
from custseg_assets.domain.threads import one_thread
from custseg_assets.errors import BadInputError

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

SCIKIT_LEARN = "sklearn.cluster"
"""Its libraries have one thread while clusters are fitted, so that sums do not depend on the number of cores."""
FIT_SAMPLE = 20_000
"""Customers that clusters are fitted and refitted on; of more a random sample is taken, and then all of them move the
centroids to their final place. A sweep over six k then costs a million customers as much as 20,000: 13 CPU s."""
FEWEST_ADVISED = 10
"""Customers in a segment below which nobody is advised to go."""
SILHOUETTE_SAMPLE = 5_000
"""Customers that the silhouette, which compares all pairs, is computed on; of more a random sample is taken."""
REFIT_INITIALISATIONS = 3
"""Starts of a bootstrap refit. With one, a poor start looks like an unstable cluster: at k = 7 on July 2011 of
Online Retail the mean ARI is 0.73 with one start and 0.85 with three."""
SILHOUETTE_SLACK = 0.05
"""The share of the best silhouette that may be given up for more segments. On eight monthly snapshots of Online Retail
5 % chooses four every time; 0 % would twice choose three, and 10 % once five and once six."""
WARM_START_SLACK = 0.01
"""The share of inertia that a fit which starts from the model in force may have more than a fit from scratch; it stops
as soon as it has no more, and where it never comes so low, the fit from scratch is taken. K-means' optima are flat: on
resamples of the unchanged customers of Online Retail the centroids in force have 0.4 % more inertia than the best,
and going all the way to it would move up to 6 % of the customers, also with the margin rule."""
WARM_START_STEPS = 100
USUAL_STOP: Mapping[str, Any] = MappingProxyType({"tol": 1e-4, "max_iter": 300})
"""When K-means stops. Its steps are small before it is at an optimum: with 1.3 million invented customers and k = 4,
0.1 % of them would still change their cluster."""
SETTLED: Mapping[str, Any] = MappingProxyType({"tol": 1e-8, "max_iter": 2_000})
"""When it stops on a sample, where another sample, or everybody, must give the same; it takes seconds there."""
RULE = (
    f"the largest eligible k whose silhouette is at least {1 - SILHOUETTE_SLACK:.0%} of the best eligible one: more "
    "segments tell a marketer more as long as customers lie as well in them"
)
ELIGIBLE = "keeps every limit"

EXTREME = 6.0
"""Standard deviations from the median beyond which a customer may be left out of a fit, see ``usual_rows``. One among n
that are alike lies at √(n − 1); two in a hundred lie at 7."""

LASTING_SHARE = 0.5
"""How much of its period an open snapshot must have observed for a move to last. The day after a snapshot everybody is
where it was, and all who are held would move: in Online Retail's November a segment's share then jumps by 7 points."""

_ROWS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Limits:
    """The limits that make a number of clusters eligible; a value equal to its limit keeps it.

    Attributes:
        min_bootstrap_ari: lowest mean adjusted Rand index against the bootstrap refits.
        min_jaccard: lowest mean Jaccard index of the least stable cluster.
        min_share: smallest share of a cluster, among the customers that K-means sees.
        min_customers: smallest number of customers in a cluster.
    """

    min_bootstrap_ari: Share
    min_jaccard: Share
    min_share: Share
    min_customers: CountFromOne


@dataclass(frozen=True)
class Candidate:
    """A number of clusters that was tried; the measures are ``None`` where it could not be fitted.

    Attributes:
        k: number of clusters.
        silhouette: mean, −1 to 1 (Rousseeuw 1987); on a sample of more than ``SILHOUETTE_SAMPLE`` customers.
        davies_bouldin: lower is better.
        calinski_harabasz: higher is better.
        inertia: within-cluster sum of squares.
        bootstrap_ari: mean adjusted Rand index against the refits.
        worst_jaccard: the least of ``cluster_jaccards``.
        cluster_jaccards: per cluster, mean over the refits of its Jaccard index with the most alike cluster of the
            refit (Hennig 2007, *Cluster-wise assessment of cluster stability*), counted on all customers.
        smallest_cluster: its number of customers.
        smallest_share: its share of the customers.
        centroids: on the matrix' scale, by descending last feature.
        clusters: all that there is about them, where that is more than the centroids.
        is_eligible: whether every limit is kept.
        reason: why it is, or is not, eligible.
    """

    k: int
    is_eligible: bool
    reason: str
    silhouette: float | None = None
    davies_bouldin: float | None = None
    calinski_harabasz: float | None = None
    inertia: float | None = None
    bootstrap_ari: float | None = None
    worst_jaccard: float | None = None
    cluster_jaccards: tuple[float, ...] | None = None
    smallest_cluster: int | None = None
    smallest_share: float | None = None
    centroids: tuple[tuple[float, ...], ...] | None = None
    clusters: Clusters | None = None


@dataclass(frozen=True)
class KChoice:
    """The chosen number of clusters, with the reasons.

    Attributes:
        k: the number of clusters; ``None`` where none is eligible.
        rule: the rule of the choice, in words.
        reasons: one sentence each, the choice first.
    """

    k: int | None
    rule: str
    reasons: tuple[str, ...]


class _Check(NamedTuple):
    """A measure with its limit, the setting that says the limit, and how many decimals matter."""

    measure: str
    limit: str
    setting: str
    words: str
    decimals: int

    def value(self, candidate: Candidate) -> float:
        return float(getattr(candidate, self.measure))

    def describe(self, candidate: Candidate, limits: Limits) -> str:
        return f"{self.words} {self.value(candidate):.{self.decimals}f} is below {getattr(limits, self.limit):g}"

    def loosen(self, candidate: Candidate) -> str:
        steps = 10**self.decimals
        return f"{self.setting} = {math.floor(self.value(candidate) * steps) / steps:g}"


_CHECKS = (
    _Check("bootstrap_ari", "min_bootstrap_ari", "min_bootstrap_ari", "mean bootstrap ARI", 3),
    _Check("worst_jaccard", "min_jaccard", "min_jaccard", "least stable cluster's Jaccard", 3),
    _Check("smallest_share", "min_share", "min_segment_share", "smallest cluster's share", 4),
    _Check("smallest_cluster", "min_customers", "min_segment_customers", "smallest cluster's number of customers", 0),
)


def _missed_checks(candidate: Candidate, limits: Limits) -> list[_Check]:
    return [check for check in _CHECKS if check.value(candidate) < getattr(limits, check.limit)]


def sweep(
    matrix: Matrix,
    k_range: tuple[int, int],
    limits: Limits,
    *,
    n_bootstraps: int,
    n_initialisations: int,
    seed: int,
    start: Matrix | None = None,
    everybody: Matrix | None = None,
    refits: Sequence[Matrix] | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Candidate, ...]:
    """Try every number of clusters by K-means, and measure how good and how stable it is.

    Stability is that of refits from scratch on bootstrap resamples of the customers, compared on all customers.
    For the k of the model in force the fit starts from that model's centroids and stops as soon as it is almost as good
    as a fit from scratch, so that few customers change their cluster.

    Args:
        matrix: shape (customers, features), on the model's scale.
        k_range: lowest and highest k.
        limits: those that an eligible k keeps.
        n_bootstraps: refits per k.
        n_initialisations: k-means++ starts of the fit that is measured.
        seed: of everything that depends on chance.
        start: centroids of the model in force, on the same scale; shape (its k, features).
        everybody: the customers that ``matrix`` is a sample of, whose clusters' sizes and inertia are measured and who
            are assigned to clusters in slices; shape (more customers, features). Without it ``matrix`` is everybody.
        refits: the same customers in other embeddings, each trained on a resample; where they are given, stability is
            that of K-means in these, instead of on resamples of ``matrix``.
        progress: gets one line per k.

    Returns:
        One candidate per k, lowest first, whether it could be fitted or not.
    """
    order = np.lexsort(matrix.T)
    rows = matrix[order]
    distances = Distances(rows)
    others = None if refits is None else [one[order] for one in refits]

    def measure(k: int) -> Candidate:
        warm = start if start is not None and len(start) == k else None
        return _measure_k(rows, everybody, distances, k, limits, n_bootstraps, n_initialisations, seed, warm, others)

    return try_every_k(rows, k_range, limits, measure, len(rows if everybody is None else everybody), progress)


def try_every_k(
    rows: Matrix,
    k_range: tuple[int, int],
    limits: Limits,
    measure: Callable[[int], Candidate],
    n_customers: int,
    progress: Callable[[str], None] | None = None,
) -> tuple[Candidate, ...]:
    """A candidate for each number of clusters, lowest first: measured where there are customers enough, else refused.

    Args:
        rows: shape (customers, features), in an order that puts equal rows together.
        k_range: lowest and highest k.
        limits: those that an eligible k keeps.
        measure: fits a k and measures it.
        n_customers: of all, where ``rows`` are a sample.
        progress: gets one line per k.
    """
    n_distinct = int(np.any(np.diff(rows, axis=0) != 0, axis=1).sum()) + 1 if len(rows) else 0
    candidates = []
    for k in range(k_range[0], k_range[1] + 1):
        obstacle = _why_not_tried(k, n_customers, n_distinct, limits)
        candidates.append(Candidate(k, is_eligible=False, reason=obstacle) if obstacle else measure(k))
        if progress:
            progress(f"k = {k}: {candidates[-1].reason}")
    return tuple(candidates)


def usual_rows(matrix: Matrix, limits: Limits) -> NDArray[np.bool_] | None:
    """Which customers to fit on where no k was eligible: all but a few extreme ones; ``None`` if there are none such.

    One customer who buys a hundred times as much as all others, who are alike, is a cluster of its own for every k, and
    nobody would get a segment. Left out of the fit, such customers are in the nearest segment.

    Args:
        matrix: shape (customers, features), on the model's scale.
        limits: their smallest share; as many could be a segment of their own.
    """
    if not len(matrix):
        return None
    is_usual: NDArray[np.bool_] = np.all(np.abs(matrix - np.median(matrix, axis=0)) <= EXTREME, axis=1)
    share = 1 - is_usual.mean()
    return is_usual if 0 < share < limits.min_share else None


def _why_not_tried(k: int, n_customers: int, n_distinct: int, limits: Limits) -> str | None:
    """Why k clusters cannot be tried, in words; ``None`` where they can."""
    needed = max(k * limits.min_customers, k + 1)
    if n_customers < needed:
        allowed = n_customers // k
        loosened = f"; [model] min_segment_customers = {allowed} would allow smaller ones"
        return (
            f"{n_customers:,} customers are too few: {k} clusters of at least {limits.min_customers:,} need {needed:,}"
            + loosened * (allowed >= FEWEST_ADVISED)
        )
    if n_distinct < k:
        return f"customers differ too little: {n_distinct:,} distinct feature rows cannot make {k} clusters"
    return None


class Distances:
    """Distances between the customers that silhouettes are computed on: measured once where all k have the same."""

    def __init__(self, rows: Matrix) -> None:
        self._rows = rows
        self._of_all: Matrix | None = None

    def silhouette(self, subset: NDArray[np.int64], labels: Labels) -> float:
        """The mean silhouette of some of the rows.

        Args:
            subset: row numbers in order, of all rows or of a sample.
            labels: cluster number of each of them.
        """
        from sklearn.metrics import pairwise_distances, silhouette_score

        if len(subset) < len(self._rows):
            return float(silhouette_score(self._rows[subset], labels))
        if self._of_all is None:
            self._of_all = pairwise_distances(self._rows)
        return float(silhouette_score(self._of_all, labels, metric="precomputed"))


def _measure_k(
    rows: Matrix,
    everybody: Matrix | None,
    distances: Distances,
    k: int,
    limits: Limits,
    n_bootstraps: int,
    n_initialisations: int,
    seed: int,
    start: Matrix | None,
    others: Sequence[Matrix] | None,
) -> Candidate:
    rng = np.random.default_rng([seed, k])
    with one_thread(SCIKIT_LEARN):
        sample = draw_rows(rows, FIT_SAMPLE, rng)
        fitted = _fit(rows[sample], k, n_initialisations, rng)
        if len(sample) < len(rows):
            stop = USUAL_STOP if everybody is None else SETTLED
            fitted = _fit(rows, k, 1, rng, start=fitted.cluster_centers_, stop=stop)
        if start is not None:
            fitted = _fit_from_start(rows, start, (1 + WARM_START_SLACK) * fitted.inertia_) or fitted
        centroids, labels = _sort_clusters(fitted)
        subset = draw_rows(rows, SILHOUETTE_SAMPLE, rng)
        found = Clusters(tuple(tuple(row) for row in centroids.tolist()))
        sizes, inertia = np.bincount(labels, minlength=k), float(fitted.inertia_)
        if everybody is not None:
            sizes, inertia = measure_clusters(everybody, found)
        refits = (
            _refit_on_resamples(rows[sample], k, n_bootstraps, rng)
            if others is None
            else _refit_in_embeddings([one[sample] for one in others], k, rng)
        )
        return judge_fit(rows, labels, found, limits, distances, subset, labels[sample], refits, sizes, inertia)


def judge_fit(
    rows: Matrix,
    labels: Labels,
    found: Clusters,
    limits: Limits,
    distances: Distances,
    subset: NDArray[np.int64],
    refitted: Labels,
    refits: Iterator[Labels],
    sizes: NDArray[np.int64],
    inertia: float,
) -> Candidate:
    """The candidate of a fit: its measures, and which limits it misses.

    Args:
        rows: shape (customers, features).
        labels: cluster of each of them.
        found: where the clusters are.
        limits: those that an eligible k keeps.
        distances: between the rows.
        subset: numbers of the rows that the silhouette is computed on.
        refitted: clusters of the customers that refits are compared on.
        refits: their clusters in each refit; none is made where a cluster is too small to measure.
        sizes: customers of each cluster, of everybody.
        inertia: of everybody.
    """
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

    k = len(found.centroids)
    if len(np.unique(labels[subset])) < k:
        reason = f"the smallest cluster holds {sizes.min():,} of {sizes.sum():,} customers, too few to measure"
        return Candidate(k, is_eligible=False, reason=reason)
    aris, jaccards = _measure_stability(refitted, k, refits)
    measured = Candidate(
        k=k,
        is_eligible=True,
        reason=ELIGIBLE,
        silhouette=distances.silhouette(subset, labels[subset]),
        davies_bouldin=float(davies_bouldin_score(rows, labels)),
        calinski_harabasz=float(calinski_harabasz_score(rows, labels)),
        inertia=inertia,
        bootstrap_ari=float(aris.mean()),
        worst_jaccard=float(jaccards.mean(axis=0).min()),
        cluster_jaccards=tuple(jaccards.mean(axis=0).tolist()),
        smallest_cluster=int(sizes.min()),
        smallest_share=float(sizes.min() / sizes.sum()),
        centroids=found.centroids,
        clusters=None if found.mixture is None else found,
    )
    missed = [check.describe(measured, limits) for check in _missed_checks(measured, limits)]
    return replace(measured, is_eligible=False, reason="; ".join(missed)) if missed else measured


def measure_clusters(everybody: Matrix, found: Clusters) -> tuple[NDArray[np.int64], float]:
    """Number of customers by nearest cluster, and the sum of squared distances to its centroid.

    Args:
        everybody: shape (customers, features).
        found: where the clusters are, in the same space.
    """
    centroids = np.array(found.centroids)
    sizes, inertia = np.zeros(len(centroids), np.int64), 0.0
    for begin in range(0, len(everybody), _ROWS_AT_ONCE):
        rows = everybody[begin : begin + _ROWS_AT_ONCE]
        scores = nearest(rows, centroids, found.mixture)
        sizes += np.bincount(scores.cluster, minlength=len(centroids))
        away = rows - centroids[scores.cluster]
        inertia += float((scores.distance**2 if found.mixture is None else away**2).sum())
    return sizes, inertia


def measure_sampling_error(
    strata: Strata, n_sampled: int, candidate: Candidate, seed: int, start: Matrix | None = None
) -> SamplingError:
    """How much centroids, shares and assignments change where K-means is repeated on other samples of the same size.

    Each fit goes on from the candidate's centroids until it settles or, where it began with those of the model in
    force, from there until it is as good as the candidate. Customers are compared on another sample still.

    Args:
        strata: everybody.
        n_sampled: customers in a sample.
        candidate: that was fitted on a sample and measured on everybody.
        seed: of the other samples.
        start: centroids of the model in force, shape (its k, features).

    Raises:
        ValueError: the candidate could not be fitted.
    """
    if candidate.centroids is None or candidate.inertia is None:
        raise ValueError(f"k = {candidate.k} has no centroids: {candidate.reason}")
    rng, worst = np.random.default_rng([seed, n_sampled, candidate.k]), np.zeros(3)
    centroids, inertia = np.array(candidate.centroids), candidate.inertia * n_sampled / len(strata)
    warm = start if start is not None and len(start) == candidate.k else None
    judged = strata.draw(n_sampled, rng)
    labels = nearest(judged, centroids).cluster
    for _ in range(N_OTHER_SAMPLES):
        other = strata.draw(n_sampled, rng)
        with one_thread(SCIKIT_LEARN):
            fitted = None if warm is None else _fit_from_start(other, warm, inertia)
            fitted = fitted or _fit(other, candidate.k, 1, rng, start=centroids, stop=SETTLED)
        others = _match_centroids(fitted.cluster_centers_, judged, labels)
        worst = np.maximum(worst, compare_fits(centroids, labels, others, nearest(judged, others).cluster))
    return SamplingError(n_sampled, len(strata), N_OTHER_SAMPLES, *worst.tolist())


def _match_centroids(centroids: Matrix, rows: Matrix, labels: Labels) -> Matrix:
    """The centroids of a fit, in the order of the clusters of another one with which they share most customers."""
    from scipy.optimize import linear_sum_assignment

    shape = len(centroids), len(centroids)
    _, order = linear_sum_assignment(count_overlaps(labels, nearest(rows, centroids).cluster, shape), maximize=True)
    matched: Matrix = centroids[order]
    return matched


def draw_rows(rows: Matrix, at_most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Row numbers of all customers, or of a random sample of them, in their order."""
    if len(rows) <= at_most:
        return np.arange(len(rows))
    return np.sort(rng.choice(len(rows), at_most, replace=False, shuffle=False))


def _fit(
    rows: Matrix,
    k: int,
    n_init: int,
    rng: np.random.Generator,
    start: Matrix | None = None,
    stop: Mapping[str, Any] = USUAL_STOP,
) -> KMeans:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    estimator = KMeans(
        k, init="k-means++" if start is None else start, n_init=n_init, random_state=int(rng.integers(2**32)), **stop
    )
    with warnings.catch_warnings():
        # A resample with fewer distinct rows than k leaves clusters empty: that is instability, and is counted as such.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(rows)


def _fit_from_start(rows: Matrix, start: Matrix, inertia: float) -> KMeans | None:
    """K-means from a start, stopped at the first step that reaches an inertia; ``None`` where it ends above it."""
    from sklearn.cluster import KMeans

    for _ in range(WARM_START_STEPS):
        fitted = KMeans(len(start), init=start, n_init=1, max_iter=1, random_state=0).fit(rows)
        if fitted.inertia_ <= inertia:
            return fitted
        if np.array_equal(fitted.cluster_centers_, start):
            return None
        start = fitted.cluster_centers_
    return None


def _sort_clusters(fitted: KMeans) -> tuple[Matrix, Labels]:
    """Centroids by descending last feature, then the one before it, and labels to match, whatever the start was."""
    order = np.lexsort(-fitted.cluster_centers_.T)
    return fitted.cluster_centers_[order], np.argsort(order)[fitted.labels_]


def _refit_on_resamples(rows: Matrix, k: int, n_bootstraps: int, rng: np.random.Generator) -> Iterator[Labels]:
    """Clusters of the rows by K-means fitted from scratch on each of some resamples."""
    for _ in range(n_bootstraps):
        resample = rows[rng.integers(len(rows), size=len(rows))]
        yield _fit(resample, k, REFIT_INITIALISATIONS, rng).predict(rows)


def _refit_in_embeddings(embedded: Sequence[Matrix], k: int, rng: np.random.Generator) -> Iterator[Labels]:
    """Clusters of the same customers by K-means in each of some embeddings."""
    for places in embedded:
        yield _fit(places, k, REFIT_INITIALISATIONS, rng).labels_


def _measure_stability(labels: Labels, k: int, refits: Iterator[Labels]) -> tuple[Matrix, Matrix]:
    """Adjusted Rand index of each refit, and Jaccard index of each cluster in it, shape (refits, k)."""
    measured = [(adjusted_rand(labels, others), cluster_jaccards(labels, others, k)) for others in refits]
    return np.array([ari for ari, _ in measured]), np.array([jaccards for _, jaccards in measured])


def adjusted_rand(labels: Labels, others: Labels) -> float:
    """How alike two clusterings of the same customers are: 1 if equal, about 0 if independent.

    Pairs of customers that are together in both, corrected for chance (Hubert and Arabie 1985, *Comparing
    partitions*, equation 5).

    Args:
        labels: cluster number of each customer.
        others: the same in the other clustering; numbers need not agree.

    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    1.0
    """
    overlaps = count_overlaps(labels, others, (int(labels.max()) + 1, int(others.max()) + 1))

    def pairs(counts: NDArray[np.int64]) -> float:
        return float((counts * (counts - 1.0) / 2).sum())

    in_both, in_first, in_second = pairs(overlaps), pairs(overlaps.sum(axis=1)), pairs(overlaps.sum(axis=0))
    all_pairs = len(labels) * (len(labels) - 1) / 2
    expected, most = in_first * in_second / all_pairs if all_pairs else 0.0, (in_first + in_second) / 2
    # Where both have one cluster, or both one customer in each, they cannot differ.
    return 1.0 if most == expected else (in_both - expected) / (most - expected)


def cluster_jaccards(labels: Labels, others: Labels, k: int) -> Matrix:
    """Per cluster, the Jaccard index with the most alike cluster of another clustering, shape (k,).

    Args:
        labels: cluster number of each customer, 0 to k − 1.
        others: the same in the other clustering.
        k: number of clusters in ``labels``.
    """
    overlaps = count_overlaps(labels, others, (k, int(others.max()) + 1))
    either = overlaps.sum(axis=1, keepdims=True) + overlaps.sum(axis=0) - overlaps
    jaccards: Matrix = np.divide(overlaps, either, out=np.zeros(overlaps.shape), where=either > 0).max(axis=1)
    return jaccards


def choose_k(candidates: Sequence[Candidate], limits: Limits) -> KChoice:
    """The number of clusters, by ``RULE``.

    Args:
        candidates: from ``sweep``.
        limits: those that the sweep applied.
    """
    silhouettes = {one.k: one.silhouette for one in candidates if one.is_eligible and one.silhouette is not None}
    if not silhouettes:
        reasons = [f"k = {one.k}: {one.reason}" for one in candidates]
        return KChoice(None, RULE, ("no k is eligible", *reasons, *_suggest_settings(candidates, limits)))
    best = max(silhouettes, key=lambda k: silhouettes[k])
    needed = silhouettes[best] - SILHOUETTE_SLACK * abs(silhouettes[best])
    chosen = max(k for k, silhouette in silhouettes.items() if silhouette >= needed)
    eligible = ", ".join(map(str, sorted(silhouettes)))
    why = (
        f"k = {chosen} is the largest of the eligible {eligible} with a silhouette of at least {needed:.3f}: "
        f"it has {silhouettes[chosen]:.3f}, the best is {silhouettes[best]:.3f} at k = {best}"
    )
    others = [f"k = {one.k}: {_why_not(one, chosen, needed)}" for one in candidates if one.k != chosen]
    return KChoice(chosen, RULE, (why, *others))


def _why_not(candidate: Candidate, chosen: int, needed: float) -> str:
    if not candidate.is_eligible:
        return candidate.reason
    if candidate.k < chosen:
        return f"eligible, but has fewer segments than k = {chosen}"
    return f"eligible, but its silhouette {candidate.silhouette:.3f} is below {needed:.3f}"


def _suggest_settings(candidates: Sequence[Candidate], limits: Limits) -> Iterator[str]:
    """The settings that would make the k eligible that misses the fewest limits, and those by least."""

    def distance(candidate: Candidate) -> tuple[int, float]:
        ratios = [check.value(candidate) / getattr(limits, check.limit) for check in _missed_checks(candidate, limits)]
        return len(ratios), 1 - min(ratios)

    measured = [one for one in candidates if one.silhouette is not None]
    if measured:
        nearest_miss = min(measured, key=distance)
        settings = ", ".join(check.loosen(nearest_miss) for check in _missed_checks(nearest_miss, limits))
        yield f"k = {nearest_miss.k} comes nearest: it would be eligible with [model] {settings}"


def visible_to_kmeans(customer_features: pl.DataFrame, feature_names: Sequence[str]) -> pl.Series:
    """Which customers K-means sees: those with an order in the window and a positive net spend; one flag per row.

    Args:
        customer_features: of one snapshot.
        feature_names: the segmentation features.

    Raises:
        BadInputError: a segmentation feature has no value for a customer with orders, so it cannot place everybody.
    """
    ordered = (pl.col("frequency_orders") > 0) & (pl.col("monetary_net") > 0)
    is_visible = customer_features.select(is_visible=ordered.fill_null(value=False)).to_series()
    missing = customer_features.filter(is_visible).select(pl.col(feature_names).null_count()).row(0)
    for name, n_missing in zip(feature_names, missing, strict=True):
        if n_missing:
            raise BadInputError(
                f"model feature {name}, without a value for {n_missing:,} of {is_visible.sum():,} customers",
                "features that every customer with an order has",
                "Choose other features in [model] of the configuration.",
            )
    return is_visible


def kmeans_columns(feature_names: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of ``customer_features`` that say who is visible to K-means and where, and the id."""
    return tuple(dict.fromkeys(("customer_id", "frequency_orders", "monetary_net", *feature_names)))


def feature_values(customer_features: pl.DataFrame, names: Sequence[str]) -> Matrix:
    """Raw feature values in business units, shape (customers, features)."""
    return customer_features.select(names).cast(pl.Float64).to_numpy()


def train_model(
    customer_features: pl.DataFrame,
    centroids: Sequence[Sequence[float]],
    reference: ScalingReference,
    trained_on: str,
    champion: SegmentationModel | None = None,
    clusters: Clusters | None = None,
) -> SegmentationModel:
    """The model of the chosen candidate, with its segments named by the customers in them.

    Args:
        customer_features: of the snapshot it was fitted on; with orders by week for clusters in an embedding.
        centroids: of the chosen candidate.
        reference: the scaling the candidate was fitted on.
        trained_on: key of the snapshot.
        champion: the model in force, of the same features, whose segments it continues; see ``identity``.
        clusters: all that there is about them, where that is more than the centroids.

    Raises:
        BadInputError: a segmentation feature has no value for a customer with orders.
    """
    fixed = tuple(tuple(float(value) for value in row) for row in centroids)
    unnamed = SegmentationModel(
        trained_on=trained_on,
        reference=reference,
        centroids=fixed,
        segments=(),
        model_version=version_of(trained_on, reference, fixed, clusters=clusters),
        mixture=clusters.mixture if clusters else None,
        embedding=clusters.embedding if clusters else None,
    )
    visible = customer_features.filter(visible_to_kmeans(customer_features, reference.features))
    values, rfm = feature_values(visible, unnamed.inputs), feature_values(visible, RFM)
    numbers = unnamed.score(values).cluster
    model = replace(unnamed, segments=name_segments(rfm, numbers, len(fixed)))
    if champion is None:
        return model
    before = champion.score(feature_values(visible, champion.inputs)).cluster
    return inherit_segments(model, champion, before, numbers, rfm)


def assign_customers(
    customer_features: pl.DataFrame,
    known_customers: pl.Series,
    model: SegmentationModel,
    before: pl.DataFrame | None = None,
    earlier_model: SegmentationModel | None = None,
    margin_rule: float = 0.0,
    *,
    observed_share: float = 1.0,
) -> pl.DataFrame:
    """The segment of every known customer, each exactly once, sorted by customer.

    A customer stays in the segment of the snapshot before until a move is clear or lasts, see
    ``model.apply_margin_rule``. Where the model has changed since, the customer stays in the segment that the earlier
    model, by the same rule, gives it now. Who comes from a rule segment, and who is new, is in the nearest.

    Args:
        customer_features: of one snapshot.
        known_customers: ids of everybody with a line before the snapshot's end, repeats allowed.
        model: the model in force.
        before: ``segment_assignments`` of the snapshot before; without it everybody is in the nearest segment.
        earlier_model: the model that was in force there; of the same features.
        margin_rule: see ``model.apply_margin_rule``; with 0 everybody is in the nearest segment.
        observed_share: how much of the snapshot's period is observed; see ``LASTING_SHARE``.

    Returns:
        The content of ``segment_assignments``.

    Raises:
        BadInputError: a segmentation feature has no value for a customer with orders.
    """
    visible = customer_features.filter(visible_to_kmeans(customer_features, model.features))
    everybody = pl.concat([known_customers.cast(pl.String), customer_features["customer_id"]]).unique()
    earlier = _clusters_before(customer_features, model, before, earlier_model, margin_rule, observed_share)
    scores = _score_customers(visible, model, earlier, margin_rule)

    def of_segment(field: str, clusters: pl.Expr) -> pl.Expr:
        fields = {number: getattr(segment, field) for number, segment in enumerate(model.segments)}
        return clusters.replace_strict(fields, default=None, return_dtype=pl.String)

    def or_rule(field: str) -> pl.Expr:
        refunded, lapsed = (pl.lit(getattr(segment, field)) for segment in (REFUNDED, LAPSED))
        by_rule = pl.when("is_in_window").then(refunded).otherwise(lapsed)
        return pl.coalesce(of_segment(field, pl.col("cluster")), by_rule)

    return (
        everybody.to_frame("customer_id")
        .join(customer_features.select("customer_id", is_in_window=True), on="customer_id", how="left")
        .join(scores, on="customer_id", how="left")
        .select(
            "customer_id",
            or_rule("segment_id").alias("segment_id"),
            or_rule("name").alias("segment_name"),
            pl.col("cluster").is_null().alias("is_rule_segment"),
            "cluster",
            "distance",
            of_segment("segment_id", pl.col("runner_up")).alias("runner_up_segment_id"),
            "margin",
            pl.col("is_held").fill_null(value=False),
            pl.lit(model.model_version).alias("model_version"),
        )
        .sort("customer_id")
    )


def nearest_segment() -> pl.Expr:
    """The segment whose centroid is nearest, of rows of ``segment_assignments``; a rule segment is its own."""
    return pl.when("is_held").then("runner_up_segment_id").otherwise("segment_id").alias("segment_id")


def _clusters_before(
    customer_features: pl.DataFrame,
    model: SegmentationModel,
    before: pl.DataFrame | None,
    earlier_model: SegmentationModel | None,
    margin_rule: float,
    observed_share: float,
) -> pl.DataFrame:
    """``customer_id``, ``own``, the cluster to stay in, and ``nearest_before``, by which a move lasts; null for none.

    Of the customers that K-means saw there; the clusters are those of the segments' ids under ``model``.
    """
    if before is None or earlier_model is None:
        return pl.DataFrame(schema={"customer_id": pl.String, "own": pl.Int64, "nearest_before": pl.Int64})
    clustered = before.filter(~pl.col("is_rule_segment"))
    stay = clustered
    if earlier_model.model_version != model.model_version:
        ids = clustered["customer_id"]
        stay = assign_customers(
            customer_features, ids, earlier_model, before, earlier_model, margin_rule, observed_share=observed_share
        )
    clusters = pl.exclude("customer_id").replace_strict(model.cluster_of, default=None, return_dtype=pl.Int64)
    nearest_before = nearest_segment() if observed_share >= LASTING_SHARE else pl.lit(None, pl.String)
    return (
        clustered.select("customer_id", nearest_before=nearest_before)
        .join(stay.select("customer_id", own="segment_id"), on="customer_id")
        .with_columns(clusters)
    )


def _score_customers(
    visible: pl.DataFrame, model: SegmentationModel, earlier: pl.DataFrame, margin_rule: float
) -> pl.DataFrame:
    """Cluster, distance, runner-up, margin and ``is_held`` of customers that K-means sees; slices bound the memory."""
    clusters = pl.col("own", "nearest_before").fill_null(NO_CLUSTER)
    customers = visible.join(earlier, on="customer_id", how="left", maintain_order="left").with_columns(clusters)
    slices = customers.iter_slices(_ROWS_AT_ONCE) if len(customers) else [customers]
    scores = [
        model.score(
            feature_values(part, model.inputs), part["own"].to_numpy(), part["nearest_before"].to_numpy(), margin_rule
        )
        for part in slices
    ]
    return visible.select("customer_id").with_columns(
        pl.Series(name, np.concatenate([getattr(part, name) for part in scores]))
        for name in ("cluster", "distance", "runner_up", "margin", "is_held")
    )
