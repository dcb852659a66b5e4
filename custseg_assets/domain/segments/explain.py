"""Why a customer is in a segment, in business units.

Used for the customers of a release and for rows scored by the service, so both are explained alike. Plain Python on
purpose: it runs once per answer, where NumPy's cost per call would be most of the work. The phrases belong in
``feature_words``; whole segments are described in ``profiles``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import expm1, log1p
from typing import NamedTuple

from custseg_assets.domain.segments.feature_words import FEATURE_WORDS
from custseg_assets.domain.segments.model import LAPSED, REFUNDED, Segment, SegmentationModel

RULE_FEATURES = ("frequency_orders", "monetary_net")
"""What decides, beside the model's features, whether K-means sees a customer at all."""
MAX_REASONS = 3
MARGIN = "margin"
"""Stands in a reason for the margin rule, where others name a feature."""
DENSITY = "density"
"""Stands in a reason for the size and the spread of a segment of a Gaussian mixture."""
BY_WEEK = "orders_by_week"
"""Stands in a reason for the embedding of a deep model."""
FEATURES = tuple(FEATURE_WORDS)
"""Every feature that can be explained."""


class Reason(NamedTuple):
    """A feature, or ``MARGIN`` and its like, and why it speaks for the segment.

    As ``62 days since the last order; Champions: 14``.
    """

    feature: str
    text: str


def is_visible_to_kmeans(features: Mapping[str, float | None]) -> bool:
    """Whether K-means decides about a customer: an order in the window and something left of it.

    The same rule for one row as ``clustering.visible_to_kmeans`` is for a frame.

    Args:
        features: at least ``RULE_FEATURES``; money in currency.

    >>> is_visible_to_kmeans({"frequency_orders": 2, "monetary_net": 0.0})
    False
    """
    orders, net = features["frequency_orders"], features["monetary_net"]
    return orders is not None and orders > 0 and net is not None and net > 0


def segments_of(model: SegmentationModel) -> dict[str, Segment]:
    """Every segment a customer can be in under a model, rule segments included, by id."""
    return {segment.segment_id: segment for segment in (*model.segments, REFUNDED, LAPSED)}


class Explainer:
    """Explains the segments of customers under one model; what its segments are compared by is computed once.

    Args:
        model: the model that assigned the segments.
    """

    def __init__(self, model: SegmentationModel) -> None:
        reference = model.reference
        self._scales = tuple(zip(reference.features, reference.mean, reference.std, strict=True))
        self._names = {segment.segment_id: segment.name for segment in model.segments}
        self._centroids = {
            segment.segment_id: centroid for segment, centroid in zip(model.segments, model.centroids, strict=True)
        }
        self._shapes = _shapes_of(model)
        self._n_weeks = model.n_weeks
        self._typical_values = {
            segment_id: tuple(
                f"; {self._names[segment_id]}: {format(expm1(value * std + mean), FEATURE_WORDS[feature].form)}"
                for value, (feature, mean, std) in zip(centroid, self._scales, strict=True)
            )
            for segment_id, centroid in self._centroids.items()
        }

    def reasons(
        self,
        segment_id: str,
        runner_up_segment_id: str | None,
        features: Mapping[str, float | None] | None,
        *,
        is_held: bool = False,
    ) -> tuple[Reason, ...]:
        """The reasons why a customer is in its segment and not in the runner-up, strongest first.

        A feature's pull is how much nearer it brings the customer to the own centroid than to the runner-up's, in
        squared standard deviations; the pulls of all features add up to the difference of the squared distances. In a
        Gaussian mixture distances are those of ``model.Mixture``, whose offset pulls as ``DENSITY``. A deep model
        decides by its embedding, which is said first; its features' pulls are those of the segments' means.
        The value after the runner-up's name is what is typical there: its centroid in business units.
        Where the margin rule decided, that comes first, and then the features that still speak for the segment.

        Args:
            segment_id: the customer's segment.
            runner_up_segment_id: segment of the second nearest centroid; ``None`` in a rule segment.
            features: raw values by name; ``None`` for a customer with nothing in the window.
            is_held: whether the margin rule keeps the customer in the segment.
        """
        if features is None or segment_id == LAPSED.segment_id:
            return (Reason("recency_days", "nothing in the observation window"),)
        if runner_up_segment_id is None:
            return (_explain_refunded(features),)
        pulls = self._pulls(segment_id, runner_up_segment_id, features)
        own, nearer = self._names[segment_id], self._names[runner_up_segment_id]
        if not is_held:
            if not self._n_weeks:
                return pulls
            text = f"orders of the last {self._n_weeks} weeks came more as in {own} than as in {nearer}"
            return (Reason(BY_WEEK, text), *pulls)[:MAX_REASONS]
        text = f"kept in {own}: nearer to {nearer} now, but not clearly, and not for two snapshots"
        return (Reason(MARGIN, text), *pulls)[:MAX_REASONS]

    def _pulls(
        self, segment_id: str, runner_up_segment_id: str, features: Mapping[str, float | None]
    ) -> tuple[Reason, ...]:
        if self._shapes:
            return self._mixture_pulls(segment_id, runner_up_segment_id, features)
        own, other = self._centroids[segment_id], self._centroids[runner_up_segment_id]
        pulls = []
        for index, (feature, mean, std) in enumerate(self._scales):
            value = features[feature] or 0.0
            place = (log1p(value) - mean) / std if value > 0 else -mean / std
            pull = (place - other[index]) ** 2 - (place - own[index]) ** 2
            if pull > 0:
                pulls.append((-pull, index, feature, value))
        pulls.sort()
        typical_values = self._typical_values[runner_up_segment_id]
        strongest = pulls[:MAX_REASONS]
        return tuple(
            [
                Reason(name, FEATURE_WORDS[name].describe(value) + typical_values[index])
                for _, index, name, value in strongest
            ]
        )

    def _mixture_pulls(
        self, segment_id: str, other_id: str, features: Mapping[str, float | None]
    ) -> tuple[Reason, ...]:
        values = [max(features[feature] or 0.0, 0.0) for feature, *_ in self._scales]
        places = [(log1p(value) - mean) / std for value, (_, mean, std) in zip(values, self._scales, strict=True)]
        own, other = (
            _parts_of_distance(places, self._centroids[one], *self._shapes[one]) for one in (segment_id, other_id)
        )
        pulls = sorted(
            (mine - theirs, index) for index, (mine, theirs) in enumerate(zip(own, other, strict=True)) if mine < theirs
        )
        name, other_name = self._names[segment_id], self._names[other_id]
        texts = [
            *(
                (feature, FEATURE_WORDS[feature].describe(value) + typical)
                for (feature, *_), value, typical in zip(
                    self._scales, values, self._typical_values[other_id], strict=True
                )
            ),
            (DENSITY, f"more of the customers like this one are in {name} than in {other_name}"),
        ]
        return tuple(Reason(*texts[index]) for _, index in pulls[:MAX_REASONS])


def _shapes_of(model: SegmentationModel) -> dict[str, tuple[tuple[tuple[float, ...], ...], float]]:
    """Precision matrix and offset of each segment of a Gaussian mixture, by the segment's id; else nothing."""
    if model.mixture is None:
        return {}
    shapes = zip(model.segments, model.mixture.whitening, model.mixture.offsets, strict=True)
    return {segment.segment_id: (_precision_of(whitening), offset) for segment, whitening, offset in shapes}


def _precision_of(whitening: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """The matrix of which a lower triangular one is a factor: the transpose times the matrix itself."""
    size = range(len(whitening))
    return tuple(tuple(sum(row[one] * row[other] for row in whitening) for other in size) for one in size)


def _parts_of_distance(
    place: Sequence[float], mean: Sequence[float], precision: Sequence[Sequence[float]], offset: float
) -> list[float]:
    """The squared distance to a component, by feature; the offset comes last."""
    away = [one - other for one, other in zip(place, mean, strict=True)]
    parts = [
        one * sum(factor * other for factor, other in zip(row, away, strict=True))
        for one, row in zip(away, precision, strict=True)
    ]
    return [*parts, offset]


def _explain_refunded(features: Mapping[str, float | None]) -> Reason:
    if not features["frequency_orders"]:
        return Reason("frequency_orders", "no orders, only cancellations")
    spent = FEATURE_WORDS["monetary_net"].describe(features["monetary_net"] or 0.0)
    return Reason("monetary_net", f"{spent} after cancellations")
