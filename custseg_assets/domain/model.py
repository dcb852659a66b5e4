"""The segmentation model as a value: what is trained once, released, and used to score; nothing is fitted here.

The pipeline and the service both score through this module, with the same arithmetic in the same order, so their
answers are equal bit for bit. It needs NumPy only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

MODEL_FORMAT = 1
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class ScalingReference:
    """Mean and standard deviation that put features on the model's scale.

    Attributes:
        features: names, in the order of the matrix' columns.
        mean: of ``log1p(max(value, 0))``, per feature.
        std: population standard deviation of the same, per feature; 1 where a feature does not vary.
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
        std=tuple(float(value) if value > 0 else 1.0 for value in std),
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
        cluster: K-means' number; ``None`` for a rule segment.
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
    "R2",
    "Lapsed",
    "known from before, nothing in the window",
    "Include in a rare, cheap win-back; expect little.",
)


@dataclass(frozen=True)
class Scores:
    """Where customers stand among the clusters; each array has one entry per customer.

    Attributes:
        cluster: number of the nearest centroid.
        distance: to it, in standard deviations.
        runner_up: number of the second nearest centroid.
        margin: (second − first) / second distance; 0 at the border, 1 on a centroid.
    """

    cluster: NDArray[np.int64]
    distance: Matrix
    runner_up: NDArray[np.int64]
    margin: Matrix


def nearest(matrix: Matrix, centroids: Matrix) -> Scores:
    """Nearest and second nearest centroid of every row.

    Distances are summed feature by feature, so a row's answer does not depend on the rows around it
    (a matrix product's would, in the last bits). At least two centroids are needed.

    Args:
        matrix: shape (customers, features), on the model's scale.
        centroids: shape (k, features).
    """
    squared = np.zeros((len(matrix), len(centroids)))
    for feature in range(matrix.shape[1]):
        squared += (matrix[:, feature, None] - centroids[None, :, feature]) ** 2
    order = np.argsort(squared, axis=1, kind="stable")
    rows = np.arange(len(matrix))
    first, second = np.sqrt(squared[rows, order[:, 0]]), np.sqrt(squared[rows, order[:, 1]])
    margin = np.divide(second - first, second, out=np.zeros_like(second), where=second > 0)
    return Scores(order[:, 0], first, order[:, 1], margin)


@dataclass(frozen=True)
class SegmentationModel:
    """A trained segmentation: features, reference, centroids and what each cluster is called.

    Attributes:
        trained_on: key of the snapshot it was trained on.
        reference: the scaling that travels with the model.
        centroids: one tuple per cluster, on the reference's scale.
        segments: one per cluster, in the clusters' order.
        model_version: name made from the content; see ``version_of``.
    """

    trained_on: str
    reference: ScalingReference
    centroids: tuple[tuple[float, ...], ...]
    segments: tuple[Segment, ...]
    model_version: str

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the segmentation features, in the matrix' order."""
        return self.reference.features

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centroids)

    def score(self, values: Matrix) -> Scores:
        """Where raw feature rows stand; shape (customers, features), business units."""
        return nearest(self.reference.scale(values), np.array(self.centroids))

    def to_json(self) -> str:
        """The whole model as one line of canonical JSON."""
        return json.dumps({"format": MODEL_FORMAT, **asdict(self)}, sort_keys=True, ensure_ascii=False)


def version_of(trained_on: str, reference: ScalingReference, centroids: Sequence[Sequence[float]]) -> str:
    """A model's name: the snapshot and a digest of what it computes, so equal models have equal names."""
    content = json.dumps([trained_on, asdict(reference), [list(row) for row in centroids]], sort_keys=True)
    return f"m-{trained_on}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def model_from_json(text: str) -> SegmentationModel:
    """The model that ``to_json`` wrote.

    Raises:
        ValueError: the text is no model of a format this version reads.
    """
    fields: Mapping[str, object] = json.loads(text)
    if not isinstance(fields, dict) or fields.get("format") != MODEL_FORMAT:
        found = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
        raise ValueError(f"model format {found!r}; this version reads format {MODEL_FORMAT}")
    reference = fields["reference"]
    return SegmentationModel(
        trained_on=fields["trained_on"],
        reference=ScalingReference(
            tuple(reference["features"]), tuple(reference["mean"]), tuple(reference["std"]), reference["n_customers"]
        ),
        centroids=tuple(tuple(row) for row in fields["centroids"]),
        segments=tuple(Segment(**segment) for segment in fields["segments"]),
        model_version=fields["model_version"],
    )
