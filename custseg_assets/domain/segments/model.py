"""The segmentation model as a value: scaling, centroids and segments, scoring, the margin rule, and its JSON.

The pipeline and the service both score through this module, with the same arithmetic in the same order, so their
answers are equal bit for bit. It needs NumPy only, whatever a model was trained with. Clusters are fitted in
``clustering`` and ``mixture``; where they lie in an embedding, that is in ``embedding``. The model file is kept by
``stores.registry``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.segments.embedding import Embedding, Layer, week_columns

ModelKind = Literal["kmeans", "gaussian_mixture", "deep"]
"""How the clusters of a model are found."""

MODEL_FORMAT = 1
OTHER_KINDS_FORMAT = 2
"""Format of models of other kinds than K-means, so that versions that know no others refuse them."""
RFM = ("recency_days", "frequency_orders", "monetary_net")
"""Features that name segments and stand in answers, also where a model was fitted on others."""

NO_CLUSTER = -1
"""Stands for "no cluster" in an array of clusters' numbers."""

MIN_STD = 1e-9
"""A feature that varies less does not vary: the rounding of equal values, over itself, would be standard deviations."""

_ROWS_AT_ONCE = 500_000
_OF_KINDS = ("mixture", "embedding")
"""Fields that a model has only where it is of another kind than K-means."""

Matrix = NDArray[np.float64]
Labels = NDArray[np.integer]
"""The number of each customer's cluster."""
LineageKind = Literal["continued", "split", "merged", "born", "retired"]


@dataclass(frozen=True)
class ScalingReference:
    """Mean and standard deviation that put features on the model's scale.

    Attributes:
        features: names, in the order of the matrix' columns.
        mean: of ``log1p(max(value, 0))``, per feature.
        std: population standard deviation of the same, per feature; 1 where it is no more than ``MIN_STD``.
        n_customers: how many customers it was measured on.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_customers: int

    def scale(self, values: Matrix) -> Matrix:
        """Raw feature values, shape (customers, features), as the matrix K-means sees."""
        logged = np.log1p(np.maximum(values, 0.0))
        scaled: Matrix = (logged - np.array(self.mean)) / np.array(self.std)
        return scaled


def measure_reference(values: Matrix, features: Sequence[str]) -> ScalingReference:
    """The reference of a training snapshot.

    Args:
        values: raw feature values, shape (customers, features), no missing values.
        features: names of the columns.
    """
    logged = np.log1p(np.maximum(values, 0.0))
    std = logged.std(axis=0)
    return ScalingReference(
        features=tuple(features),
        mean=tuple(float(value) for value in logged.mean(axis=0)),
        std=tuple(float(value) if value > MIN_STD else 1.0 for value in std),
        n_customers=len(values),
    )


@dataclass(frozen=True)
class Segment:
    """A business group of a model.

    Attributes:
        segment_id: stable id, ``S1`` … or, for a rule segment, ``R1`` …
        name: from the RFM vocabulary, unique within the model.
        naming_rule: the rule that gave the name, in words.
        advice: one sentence of what to do.
        cluster: the model's number; ``None`` for a rule segment.
    """

    segment_id: str
    name: str
    naming_rule: str
    advice: str
    cluster: int | None = None


REFUNDED = Segment(
    "R1",
    "Refunded",
    "orders in the window but nothing left of them: net spend is zero or less, or there are only cancellations",
    "Ask what went wrong before offering anything else.",
)
LAPSED = Segment(
    "R2", "Lapsed", "known from before, nothing in the window", "Include in a rare, cheap win-back; expect little."
)


@dataclass(frozen=True)
class LineageEvent:
    """A change of segments from one model to its successor.

    Attributes:
        kind: continued, split, merged, born or retired.
        before: ids of the segments of the earlier model; none for one that was born.
        after: ids of the segments of the later model, the one that kept the id first; none for one that was retired.
        words: the change in a sentence.
    """

    kind: LineageKind
    before: tuple[str, ...]
    after: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class Mixture:
    """What a Gaussian mixture has beside the means of its components, as plain numbers.

    The squared distance of a customer to a component is −2 log(weight × density), less what is the same for all
    components: the squared Mahalanobis distance and an offset. So the nearest component is the most probable one, and
    the margin rule applies as it does to K-means, whose components all have the identity and no offset.

    Attributes:
        whitening: per component a lower triangular matrix, the inverse of the Cholesky factor of its covariance.
        offsets: per component log det(covariance) − 2 log(weight), less the smallest of all.
    """

    whitening: tuple[tuple[tuple[float, ...], ...], ...]
    offsets: tuple[float, ...]


@dataclass(frozen=True)
class Clusters:
    """Where the clusters of a model are.

    Attributes:
        centroids: one tuple per cluster, on the reference's scale; where there is an embedding, the mean of the
            cluster's customers, by which it is described, and drift measured.
        mixture: shapes and sizes of the clusters of a Gaussian mixture.
        embedding: where the clusters lie that are found in an embedding.
    """

    centroids: tuple[tuple[float, ...], ...]
    mixture: Mixture | None = None
    embedding: Embedding | None = None

    def to_json(self) -> str:
        """The clusters as JSON; of K-means the list of the centroids."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(fields["centroids"] if len(fields) == 1 else fields)


def clusters_from_json(text: str) -> Clusters:
    """The clusters that ``Clusters.to_json`` wrote."""
    return _clusters_of(json.loads(text))


def _clusters_of(fields: Any) -> Clusters:
    """Clusters from parsed JSON: a list of centroids, or an object with more."""
    given: Any = _as_tuples(fields)
    if not isinstance(given, dict):
        return Clusters(given)
    mixture, embedding = given.get("mixture"), given.get("embedding")
    return Clusters(
        centroids=given["centroids"],
        mixture=Mixture(**mixture) if mixture else None,
        embedding=(
            Embedding(**embedding | {"layers": tuple(Layer(**layer) for layer in embedding["layers"])})
            if embedding
            else None
        ),
    )


@dataclass(frozen=True)
class Scores:
    """The clusters of customers, and the nearest others; each array has one entry per customer.

    Attributes:
        cluster: number of the nearest centroid.
        distance: to it, in standard deviations of the reference; of other kinds than K-means, see ``Mixture`` and
            ``Embedding``.
        runner_up: number of the second nearest centroid.
        runner_up_distance: to that, in the same unit.
        margin: (second − first) / second distance; 0 at the border, 1 on a centroid.
        is_held: whether ``apply_margin_rule`` kept the customer. Then cluster and distance are those of the cluster it
            was in, the runner-up is the nearest, and the margin is −(own − nearest) / own distance.
    """

    cluster: NDArray[np.int64]
    distance: Matrix
    runner_up: NDArray[np.int64]
    runner_up_distance: Matrix
    margin: Matrix
    is_held: NDArray[np.bool_]


def nearest(matrix: Matrix, centroids: Matrix, mixture: Mixture | None = None) -> Scores:
    """Nearest and second nearest centroid of every row.

    Distances are summed feature by feature, so a row's answer does not depend on the rows around it
    (a matrix product's would, in the last bits). At least two centroids are needed.

    Args:
        matrix: shape (customers, features), on the model's scale.
        centroids: shape (k, features).
        mixture: shapes and sizes of the clusters, where they have any.

    >>> scores = nearest(np.array([[1.0]]), np.array([[0.0], [5.0]]))
    >>> scores.cluster[0].item(), scores.runner_up_distance[0].item(), scores.margin[0].item()
    (0, 4.0, 0.75)
    """
    scores = _empty_scores(len(matrix))
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        _write_nearest(matrix[start : start + _ROWS_AT_ONCE], centroids, mixture, scores, start)
    return scores


def _empty_scores(n_rows: int) -> Scores:
    numbers, lengths = (np.empty((2, n_rows), np.int64), np.empty((3, n_rows)))
    return Scores(numbers[0], lengths[0], numbers[1], lengths[1], lengths[2], np.zeros(n_rows, dtype=np.bool_))


def _write_nearest(matrix: Matrix, centroids: Matrix, mixture: Mixture | None, scores: Scores, start: int) -> None:
    """Score some rows; the memory needed besides does not grow with all of them."""
    squared = (
        _squared_distances(matrix[:, None], centroids[None])
        if mixture is None
        else _mixture_distances(matrix, centroids, mixture)
    )
    rows, place = np.arange(len(matrix)), slice(start, start + len(matrix))
    first = squared.argmin(axis=1)
    nearest_of_all = squared[rows, first]
    # Of equal distances the cluster with the smaller number comes first, here and below.
    squared[rows, first] = np.inf
    second = squared.argmin(axis=1)
    distance, next_distance = np.sqrt(nearest_of_all), np.sqrt(squared[rows, second])
    scores.cluster[place], scores.runner_up[place] = first, second
    scores.distance[place], scores.runner_up_distance[place] = distance, next_distance
    scores.margin[place] = np.divide(
        next_distance - distance, next_distance, out=np.zeros_like(next_distance), where=next_distance > 0
    )


def _squared_distances(places: Matrix, others: Matrix) -> Matrix:
    """Between places whose last axis are features, summed feature by feature; the other axes are broadcast."""
    squared: Matrix = np.zeros(np.broadcast_shapes(places.shape[:-1], others.shape[:-1]))
    for feature in range(places.shape[-1]):
        squared += (places[..., feature] - others[..., feature]) ** 2
    return squared


def _mixture_distances(matrix: Matrix, centroids: Matrix, mixture: Mixture) -> Matrix:
    """Squared distances to every component, shape (customers, k); summed feature by feature, as above."""
    squared: Matrix = np.empty((len(matrix), len(centroids)))
    for component, (whitening, offset) in enumerate(zip(mixture.whitening, mixture.offsets, strict=True)):
        from_mean = matrix - centroids[component]
        squared[:, component] = offset
        for row, factors in enumerate(whitening):
            place = np.zeros(len(matrix))
            for feature in range(row + 1):
                place += factors[feature] * from_mean[:, feature]
            squared[:, component] += place**2
    return squared


def apply_margin_rule(
    fresh: Scores,
    matrix: Matrix,
    centroids: Matrix,
    own: Labels,
    nearest_before: Labels,
    margin_rule: float,
    mixture: Mixture | None = None,
) -> Scores:
    """Keep customers in the cluster they were in until a move is clear or lasts.

    A move is clear where another centroid is nearer than the own one by at least the share ``margin_rule`` of the
    distance to the own one. It lasts where the cluster that is nearest now was nearest at the snapshot before, too.

    Args:
        fresh: from ``nearest``, of the same matrix and centroids.
        matrix: shape (customers, features), on the model's scale.
        centroids: shape (k, features).
        own: number of the cluster each customer was in, in the same model; ``NO_CLUSTER`` for none.
        nearest_before: number of the cluster that was nearest to it then; ``NO_CLUSTER`` where no move can last.
        margin_rule: a share from 0, with which everybody is in the nearest cluster, up to, but without, 1.
        mixture: shapes and sizes of the clusters, where they have any.
    """
    squared = (
        _squared_distances(matrix, centroids[own])
        if mixture is None
        else _mixture_distances(matrix, centroids, mixture)[np.arange(len(matrix)), own]
    )
    distance = np.sqrt(squared)
    nearer_by = np.divide(distance - fresh.distance, distance, out=np.zeros_like(distance), where=distance > 0)
    is_away = (own != NO_CLUSTER) & (own != fresh.cluster)
    is_held = is_away & (nearest_before != fresh.cluster) & (nearer_by < margin_rule)
    return Scores(
        cluster=np.where(is_held, own, fresh.cluster),
        distance=np.where(is_held, distance, fresh.distance),
        runner_up=np.where(is_held, fresh.cluster, fresh.runner_up),
        runner_up_distance=np.where(is_held, fresh.distance, fresh.runner_up_distance),
        margin=np.where(is_held, 0.0 - nearer_by, fresh.margin),
        is_held=is_held,
    )


@dataclass(frozen=True)
class SegmentationModel:
    """A trained segmentation: features, reference, clusters and what each cluster is called.

    Attributes:
        trained_on: key of the snapshot it was trained on.
        reference: the scaling that travels with the model.
        centroids: one tuple per cluster, on the reference's scale; see ``Clusters``.
        segments: one per cluster, in the clusters' order.
        model_version: name made from the content; see ``version_of``.
        predecessor: version of the model whose segments it continues; ``None`` for a first model.
        lineage: the changes from the predecessor's segments to its own; each segment of either is in one event.
        n_segment_ids: how many ``S`` numbers were used up to now, also by segments that no longer exist.
        mixture: of a Gaussian mixture; see ``Clusters``.
        embedding: of a deep model; see ``Clusters``.
    """

    trained_on: str
    reference: ScalingReference
    centroids: tuple[tuple[float, ...], ...]
    segments: tuple[Segment, ...]
    model_version: str
    predecessor: str | None = None
    lineage: tuple[LineageEvent, ...] = ()
    n_segment_ids: int = 0
    mixture: Mixture | None = None
    embedding: Embedding | None = None

    def __post_init__(self) -> None:
        # A model without predecessor, and one written before there were any, numbers its clusters from S1 on.
        object.__setattr__(self, "n_segment_ids", max(self.n_segment_ids, len(self.segments)))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the segmentation features, in the matrix' order."""
        return self.reference.features

    @property
    def kind(self) -> ModelKind:
        """How its clusters were found."""
        if self.embedding is not None:
            return "deep"
        return "kmeans" if self.mixture is None else "gaussian_mixture"

    @property
    def clusters(self) -> Clusters:
        """Where its clusters are."""
        return Clusters(self.centroids, self.mixture, self.embedding)

    @property
    def n_weeks(self) -> int:
        """Weeks whose orders it looks at besides the features."""
        return 0 if self.embedding is None else self.embedding.n_weeks

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the columns that ``score`` takes: the features, then orders by week."""
        return (*self.features, *week_columns(self.n_weeks))

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centroids)

    @property
    def cluster_of(self) -> dict[str, int]:
        """Number of the cluster of each segment, by the segment's id."""
        return {segment.segment_id: cluster for cluster, segment in enumerate(self.segments)}

    def score(
        self,
        values: Matrix,
        own: Labels | None = None,
        nearest_before: Labels | None = None,
        margin_rule: float = 0.0,
    ) -> Scores:
        """The clusters of raw feature rows: the nearest, or, by ``apply_margin_rule``, those they are kept in.

        Args:
            values: shape (customers, inputs), business units.
            own: number of the cluster that each was in; without it everybody is in the nearest.
            nearest_before: number of the cluster that was nearest then; without it no move can last.
            margin_rule: see ``apply_margin_rule``.
        """
        matrix, centroids = self._place(values)
        fresh = nearest(matrix, centroids, self.mixture)
        if own is None:
            return fresh
        before = np.full_like(own, NO_CLUSTER) if nearest_before is None else nearest_before
        return apply_margin_rule(fresh, matrix, centroids, own, before, margin_rule, self.mixture)

    def _place(self, values: Matrix) -> tuple[Matrix, Matrix]:
        """Where customers are, and the centroids, in the space that the clusters were found in."""
        n_features = len(self.features)
        scaled = self.reference.scale(values[:, :n_features])
        if self.embedding is None:
            return scaled, np.array(self.centroids)
        return self.embedding.embed(scaled, values[:, n_features:]), np.array(self.embedding.centroids)

    def distances_in_features(self, values: Matrix) -> Matrix:
        """How far customers are from the centroid of their cluster, on the reference's scale; a measure for all kinds.

        Args:
            values: as ``score`` takes them.
        """
        scores = self.score(values)
        if self.kind == "kmeans":
            return scores.distance
        scaled = self.reference.scale(values[:, : len(self.features)])
        distances: Matrix = np.sqrt(_squared_distances(scaled, np.array(self.centroids)[scores.cluster]))
        return distances

    def to_json(self) -> str:
        """The whole model as one line of canonical JSON."""
        fields = {name: value for name, value in asdict(self).items() if name not in _OF_KINDS or value is not None}
        known = MODEL_FORMAT if self.kind == "kmeans" else OTHER_KINDS_FORMAT
        return json.dumps({"format": known, **fields}, sort_keys=True, ensure_ascii=False)


def version_of(
    trained_on: str,
    reference: ScalingReference,
    centroids: Sequence[Sequence[float]],
    predecessor: str | None = None,
    clusters: Clusters | None = None,
) -> str:
    """A model's name: its snapshot and a digest of its content, so that equal models have equal names.

    Args:
        trained_on: key of the snapshot.
        reference: the model's scaling.
        centroids: one row per cluster.
        predecessor: version of the model whose segments it continues.
        clusters: all that there is about them, where that is more than the centroids.
    """
    content: list[Any] = [trained_on, asdict(reference), [list(row) for row in centroids]]
    if clusters is not None and (clusters.mixture or clusters.embedding):
        content.append(json.loads(clusters.to_json()))
    if predecessor is not None:
        content.append(predecessor)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"m-{trained_on}-{digest[:8]}"


def fields_of(text: str, kind: str, *known_formats: int) -> dict[str, Any]:
    """The fields of a JSON object that names its format, without that, and with tuples in place of lists.

    Raises:
        ValueError: the text is no object of the format.
    """
    fields: Any = json.loads(text)
    found = fields.pop("format", None) if isinstance(fields, dict) else type(fields).__name__
    if found not in known_formats:
        known = " and ".join(map(str, known_formats))
        raise ValueError(f"{kind} format {found!r}; this version reads format {known}")
    return {name: _as_tuples(item) for name, item in fields.items()}


def _as_tuples(value: Any) -> Any:
    """Parsed JSON with tuples in place of its lists, however deep."""
    if isinstance(value, dict):
        return {name: _as_tuples(item) for name, item in value.items()}
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


def model_from_json(text: str) -> SegmentationModel:
    """The model that ``to_json`` wrote, also before models had predecessors.

    Raises:
        ValueError: the text is no model of a format this version reads.
    """
    fields = fields_of(text, "model", MODEL_FORMAT, OTHER_KINDS_FORMAT)
    clusters = _clusters_of({name: fields.get(name) for name in ("centroids", *_OF_KINDS)})
    return SegmentationModel(
        trained_on=fields["trained_on"],
        reference=ScalingReference(**fields["reference"]),
        centroids=fields["centroids"],
        segments=tuple(Segment(**segment) for segment in fields["segments"]),
        model_version=fields["model_version"],
        predecessor=fields.get("predecessor"),
        lineage=tuple(LineageEvent(**event) for event in fields.get("lineage", ())),
        n_segment_ids=fields.get("n_segment_ids", 0),
        mixture=clusters.mixture,
        embedding=clusters.embedding,
    )
