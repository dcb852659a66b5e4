"""The drift reference: what the customers looked like when the model in force was trained.

Everything kept is a mean over customers: shares of bins and clusters, and moments of the scaled features. Means add
up under mixtures and have a known sampling error, so one covariance matrix is all that calibration needs, however
many customers there are. Scores against it are in ``scores.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.drift.closing import Closing
from custseg_assets.domain.drift.lapse import active_days_of, stop_ordering
from custseg_assets.domain.periods import Window
from custseg_assets.domain.segments.model import (
    Matrix,
    Mixture,
    ScalingReference,
    Scores,
    SegmentationModel,
    fields_of,
    nearest,
)
from custseg_assets.domain.segments.training_tables import matrix_of, scale_snapshot
from custseg_assets.errors import BadInputError

REFERENCE_FORMAT = 1
DISTANCE = "centroid_distance"

_GRID = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
_PSI_CUTS = (0.2, 0.4, 0.6, 0.8)
_CHUNK = 100_000
_MOMENTS_AT_ONCE = 2_000_000
_DIGITS = 9


@dataclass(frozen=True)
class Binning:
    """Bins of one column on the model's scale; bin b is of values in ``(edges[b-1], edges[b]]``.

    Attributes:
        name: the feature, or ``centroid_distance``.
        edges: ascending; the first is below every value of the reference, the last is its largest.
        centres: the reference's mean in each bin, a standard deviation beyond the extremes for the two outer ones.
        groups: the coarse bin, used for PSI, that each bin belongs to.
        median: of the reference.
    """

    name: str
    edges: tuple[float, ...]
    centres: tuple[float, ...]
    groups: tuple[int, ...]
    median: float

    @property
    def n_bins(self) -> int:
        """Number of bins, the two outer ones included."""
        return len(self.edges) + 1

    @property
    def group_starts(self) -> NDArray[np.intp]:
        """First bin of every coarse bin."""
        return np.flatnonzero(np.diff(self.groups, prepend=-1))

    def codes(self, values: Matrix) -> NDArray[np.int64]:
        """Number of the bin each value falls into."""
        return np.searchsorted(np.array(self.edges), values, side="left").astype(np.int64)


def fit_binning(name: str, values: Matrix) -> Binning:
    """Quantile bins of one column, and its mean in each.

    The edges are values that occur, so a value shared by many customers (one order) is an edge, and these customers
    are never split.

    Args:
        name: the column's.
        values: shape (customers,), at least one.
    """
    quantiles = np.quantile(values, _GRID, method="inverted_cdf")
    lowest, highest = values.min(), values.max()
    edges = np.unique(np.concatenate([[np.nextafter(lowest, -np.inf)], quantiles, [highest]]))
    codes = np.searchsorted(edges, values, side="left")
    counts = np.bincount(codes, minlength=len(edges) + 1)
    centres = np.bincount(codes, weights=values, minlength=len(edges) + 1) / np.maximum(counts, 1)
    centres[0], centres[-1] = lowest - 1, highest + 1
    cuts = np.unique(np.quantile(values, _PSI_CUTS, method="inverted_cdf"))
    groups = np.searchsorted(cuts, np.append(edges, np.inf), side="left")
    return Binning(
        name,
        tuple(edges.tolist()),
        tuple(centres.tolist()),
        tuple(groups.tolist()),
        float(np.quantile(values, 0.5, method="inverted_cdf")),
    )


@dataclass(frozen=True)
class DriftReference:
    """A population as drift measures it; travels with the model and the release.

    Attributes:
        period: key of the snapshot it was fitted on.
        model_version: the model it belongs to.
        scaling: puts the model's scale back into business units.
        centroids: of the model, in the features; customers count for the nearest, also under a deep model, whose
            clusters are found elsewhere.
        segment_names: one per cluster.
        binnings: one per feature, in the model's order, then one for the distance to the own centroid.
        means: shares of each binning's bins, shares of the clusters, then means and second moments of the features.
        covariance: of one customer's contribution to ``means``; lower triangle, row by row.
        means_all_lapsed: the same as ``means`` per customer of before, had every active customer lapsed; empty where
            recency is no feature. See ``lapse.stop_ordering``.
        n_customers: customers that K-means saw.
        n_refunded: customers of the rule segment Refunded.
        period_days, window_days: length of a period and of the observation window.
        active_days: how many days back an order makes an active customer; see ``lapse.active_days_of``.
        mixture: shapes and sizes of the clusters of a Gaussian mixture.
    """

    period: str
    model_version: str
    scaling: ScalingReference
    centroids: tuple[tuple[float, ...], ...]
    segment_names: tuple[str, ...]
    binnings: tuple[Binning, ...]
    means: tuple[float, ...]
    covariance: tuple[float, ...]
    means_all_lapsed: tuple[float, ...]
    n_customers: int
    n_refunded: int
    period_days: float
    window_days: float
    active_days: float
    mixture: Mixture | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the segmentation features, in the matrix' order."""
        return self.scaling.features

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the binned columns: the features, then the distance to the own centroid."""
        return tuple(binning.name for binning in self.binnings)

    def bin_slice(self, column: int) -> slice:
        """Position in ``means`` of the shares of a column's bins."""
        sizes = [binning.n_bins for binning in self.binnings]
        return slice(sum(sizes[:column]), sum(sizes[: column + 1]))

    @property
    def cluster_slice(self) -> slice:
        """Position in ``means`` of the shares of the clusters."""
        start = self.bin_slice(len(self.binnings)).start
        return slice(start, start + len(self.centroids))

    @property
    def share_refunded(self) -> float:
        """Share of the customers seen in the window who are Refunded."""
        return share_refunded(self.n_customers, self.n_refunded)

    def nearest(self, matrix: Matrix) -> Scores:
        """The clusters that customers are nearest to, and how far from them.

        Args:
            matrix: shape (customers, features), on the model's scale.
        """
        return nearest(matrix, np.array(self.centroids), self.mixture)

    def correlations(self, means: Matrix) -> Matrix:
        """Pearson's correlations of the features, for every row of ``means``; 0 where a feature does not vary.

        Args:
            means: shape (rows, means).

        Returns:
            Shape (rows, pairs of different features), in the order of ``itertools.combinations``.
        """
        size = len(self.features)
        moments = means[:, self.cluster_slice.stop :]
        first, second = np.triu_indices(size)
        covariance = np.zeros((len(means), size, size))
        covariance[:, first, second] = moments[:, size:] - moments[:, first] * moments[:, second]
        variance = np.einsum("rii->ri", covariance)
        one, other = np.triu_indices(size, 1)
        both = np.sqrt(np.maximum(variance[:, one] * variance[:, other], 0.0))
        return np.asarray(np.divide(covariance[:, one, other], both, out=np.zeros_like(both), where=both > 1e-9))

    def to_json(self) -> str:
        """The whole reference as one line of canonical JSON."""
        fields = asdict(self)
        # As it was before there was such a number, when active customers were always those of the last period.
        if self.active_days == self.period_days:
            del fields["active_days"]
        if self.mixture is None:
            del fields["mixture"]
        return json.dumps({"format": REFERENCE_FORMAT, **fields}, sort_keys=True, ensure_ascii=False)

    def covariance_factor(self) -> Matrix:
        """Lower triangular factor of the covariance: ``normals @ factor.T`` varies as one customer does."""
        size = len(self.means)
        lower = np.zeros((size, size))
        lower[np.tril_indices(size)] = self.covariance
        full = lower + np.tril(lower, -1).T
        # Shares that add up to one make it singular; the ridge is far below any sampling error.
        return np.asarray(np.linalg.cholesky(full + 1e-7 * np.eye(size)), dtype=np.float64)


def share_refunded(n_customers: int, n_refunded: int) -> float:
    """Share Refunded among the customers seen in the window, those in the matrix and those Refunded."""
    return n_refunded / max(n_customers + n_refunded, 1)


def reference_from_json(text: str) -> DriftReference:
    """The reference that ``to_json`` wrote.

    Raises:
        ValueError: the text is no reference of a format this version reads.
    """
    fields = fields_of(text, "drift reference", REFERENCE_FORMAT)
    scaling = ScalingReference(**fields.pop("scaling"))
    binnings = tuple(Binning(**binning) for binning in fields.pop("binnings"))
    active_days = fields.pop("active_days", fields["period_days"])
    mixture = fields.pop("mixture", None)
    return DriftReference(
        scaling=scaling,
        binnings=binnings,
        active_days=active_days,
        mixture=Mixture(**mixture) if mixture else None,
        **fields,
    )


def fit_reference(
    model: SegmentationModel,
    matrix: Matrix,
    *,
    period: str,
    period_days: float,
    window_days: float,
    n_refunded: int = 0,
) -> DriftReference:
    """The drift reference of a model, from the snapshot that it was trained on.

    Every customer counts for the nearest cluster, also where the margin rule kept the previous segment: drift is about
    the customers, not about the rule.

    Args:
        model: the model in force.
        matrix: shape (customers, features), on the model's scale; customers that K-means sees.
        period: key of the snapshot.
        period_days: length of its last period.
        window_days: length of its observation window.
        n_refunded: customers of the rule segment Refunded, who are not in the matrix.

    Raises:
        BadInputError: there are no customers, or the matrix does not fit the model.
    """
    check_matrix(matrix, model.features)
    if not len(matrix):
        raise BadInputError("a drift reference of 0 customers", "at least one", "Train on a snapshot with orders.")
    centroids, mixture = np.array(model.centroids), model.mixture
    scores = nearest(matrix, centroids, mixture)
    binnings = tuple(
        fit_binning(name, values)
        for name, values in zip((*model.features, DISTANCE), (*matrix.T, scores.distance), strict=True)
    )
    means, covariance = _means_and_covariance(binnings, centroids, matrix, mixture)
    active_days = active_days_of(period_days, window_days)
    return DriftReference(
        period=period,
        model_version=model.model_version,
        scaling=model.reference,
        centroids=model.centroids,
        segment_names=tuple(segment.name for segment in model.segments),
        binnings=binnings,
        means=tuple(means.tolist()),
        covariance=tuple(float(f"{value:.{_DIGITS}g}") for value in covariance[np.tril_indices(len(means))]),
        means_all_lapsed=_means_all_lapsed(
            binnings, centroids, matrix, model.reference, active_days, window_days, mixture
        ),
        n_customers=len(matrix),
        n_refunded=n_refunded,
        period_days=period_days,
        window_days=window_days,
        active_days=active_days,
        mixture=mixture,
    )


def reference_of_model(
    model: SegmentationModel, features: pl.DataFrame, window: Window, n_days_left_out: int = 0
) -> DriftReference:
    """The reference that drift is measured against: the snapshot the model was trained on.

    Args:
        model: the model.
        features: ``customer_features`` of that snapshot.
        window: its observation window.
        n_days_left_out: closed days by which that window was made shorter; see ``closing.leave_out_closing``.
    """
    scaled, _ = scale_snapshot(features, model.features, model.reference)
    return fit_reference(
        model,
        matrix_of(scaled, model.features),
        period=window.key,
        period_days=window.last_span / timedelta(days=1),
        window_days=(window.as_of - window.start) / timedelta(days=1) - n_days_left_out,
        n_refunded=features.height - scaled.height,
    )


def reference_to_compare(
    stored: DriftReference, model: SegmentationModel, closing: Closing, window: Window
) -> DriftReference:
    """The reference that was stored with a model, fitted anew where it is not to be compared with as it is.

    That is where closed days are left out, and where active customers were those of a short last period, as in all
    weekly and daily references once.

    Args:
        stored: the reference.
        model: the model it belongs to.
        closing: with the customers that the model was trained on.
        window: their observation window.
    """
    is_usual = stored.active_days == active_days_of(stored.period_days, stored.window_days)
    if closing.reference.is_empty() or (is_usual and not closing.n_days_left_out):
        return stored
    return reference_of_model(model, closing.reference, window, closing.n_days_left_out)


def check_matrix(matrix: Matrix, features: tuple[str, ...]) -> None:
    """Refuse a matrix that is not of finite values in the shape (customers, features).

    Raises:
        BadInputError: another shape, or a value that is missing or infinite.
    """
    if matrix.ndim != 2 or matrix.shape[1] != len(features):
        raise BadInputError(
            f"a matrix of shape {matrix.shape}",
            f"one column for each of {', '.join(features)}",
            "Scale with this model.",
        )
    if not np.isfinite(matrix).all():
        raise BadInputError("missing or infinite scaled features", "finite numbers", "Check customer_features first.")


def means_of(
    binnings: tuple[Binning, ...], centroids: Matrix, matrix: Matrix, mixture: Mixture | None = None
) -> Matrix:
    """The vector of ``DriftReference.means``, of any customers.

    Args:
        binnings: of the reference.
        centroids: shape (k, features).
        matrix: shape (customers, features), at least one row.
        mixture: shapes and sizes of the clusters, where they have any.
    """
    scores = nearest(matrix, centroids, mixture)
    columns = (*matrix.T, scores.distance)
    counts = [
        np.bincount(binning.codes(column), minlength=binning.n_bins)
        for binning, column in zip(binnings, columns, strict=True)
    ]
    counts.append(np.bincount(scores.cluster, minlength=len(centroids)))
    return np.concatenate([np.concatenate(counts) / len(matrix), _mean_moments(matrix)])


def _mean_moments(matrix: Matrix) -> Matrix:
    """The mean of every moment; of many customers one after the other, since all of them are several matrices."""
    if len(matrix) <= _MOMENTS_AT_ONCE:
        means: Matrix = _moments(matrix).mean(axis=0)
        return means
    pairs = zip(*np.triu_indices(matrix.shape[1]), strict=True)
    second = [float(np.mean(matrix[:, one] * matrix[:, other])) for one, other in pairs]
    return np.array([*(float(np.mean(column)) for column in matrix.T), *second])


def _moments(matrix: Matrix) -> Matrix:
    first, second = np.triu_indices(matrix.shape[1])
    return np.hstack([matrix, matrix[:, first] * matrix[:, second]])


def _means_and_covariance(
    binnings: tuple[Binning, ...], centroids: Matrix, matrix: Matrix, mixture: Mixture | None
) -> tuple[Matrix, Matrix]:
    """Mean and covariance of the customers' contributions; chunked, so memory does not grow with customers."""
    means = means_of(binnings, centroids, matrix, mixture)
    products = np.zeros((len(means), len(means)))
    for indicators, moments in _contributions(binnings, centroids, matrix, mixture):
        n_indicators = indicators.shape[1]
        # Sums of zeros and ones are exact in any order; the moments' are not, and einsum never splits over threads.
        products[:n_indicators, :n_indicators] += indicators.T @ indicators
        products[n_indicators:, :n_indicators] += np.einsum("ni,nj->ij", moments, indicators)
        products[n_indicators:, n_indicators:] += np.einsum("ni,nj->ij", moments, moments)
    lower = np.tril(products) / len(matrix) - np.tril(np.outer(means, means))
    return means, lower


def _contributions(
    binnings: tuple[Binning, ...], centroids: Matrix, matrix: Matrix, mixture: Mixture | None
) -> Iterator[tuple[Matrix, Matrix]]:
    """Per chunk: which bin and cluster each customer is in, as zeros and ones, and the customer's moments."""
    for start in range(0, len(matrix), _CHUNK):
        rows = matrix[start : start + _CHUNK]
        scores = nearest(rows, centroids, mixture)
        codes = [binning.codes(column) for binning, column in zip(binnings, (*rows.T, scores.distance), strict=True)]
        blocks = [np.eye(binning.n_bins)[code] for binning, code in zip(binnings, codes, strict=True)]
        yield np.hstack([*blocks, np.eye(len(centroids))[scores.cluster]]), _moments(rows)


def _means_all_lapsed(
    binnings: tuple[Binning, ...],
    centroids: Matrix,
    matrix: Matrix,
    scaling: ScalingReference,
    active_days: float,
    window_days: float,
    mixture: Mixture | None,
) -> tuple[float, ...]:
    if "recency_days" not in scaling.features:
        return ()
    raw = np.expm1(matrix * np.array(scaling.std) + np.array(scaling.mean))
    customers = pl.DataFrame(raw, schema=list(scaling.features), orient="row")
    left = stop_ordering(customers, pl.col("recency_days") < active_days, active_days, window_days)
    if not left.height:
        return tuple(np.zeros(len(means_of(binnings, centroids, matrix[:1], mixture))).tolist())
    means = means_of(binnings, centroids, scaling.scale(left.to_numpy()), mixture)
    return tuple((means * left.height / customers.height).tolist())
