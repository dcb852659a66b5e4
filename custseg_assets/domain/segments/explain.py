"""Why a customer is in a segment, in business units.

Used for the customers of a release and for rows scored by the service, so both are explained alike. Plain Python on
purpose: it runs once per answer, where NumPy's cost per call would be most of the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1, log1p
from typing import NamedTuple

from custseg_assets.domain.segments.model import LAPSED, REFUNDED, Segment, SegmentationModel

RULE_SEGMENTS = (REFUNDED, LAPSED)

RULE_FEATURES = ("frequency_orders", "monetary_net")
"""What decides, beside the model's features, whether K-means sees a customer at all."""

MAX_REASONS = 3

MARGIN = "margin"
"""What a reason is about that no feature gives."""

_PHRASES: Mapping[str, tuple[str, str]] = {
    "recency_days": ("{} days since the last order", ",.0f"),
    "frequency_orders": ("{} orders", ",.0f"),
    "monetary_gross": ("{} spent before cancellations", ",.2f"),
    "monetary_net": ("{} spent", ",.2f"),
    "avg_order_value": ("{} an order", ",.2f"),
    "n_products": ("{} different products", ",.0f"),
    "n_units": ("{} units", ",.0f"),
    "n_cancelled_orders": ("{} cancellations", ",.0f"),
    "cancellation_rate": ("{} of orders cancelled", ".1%"),
    "tenure_days": ("{} days since the first order", ",.0f"),
    "days_between_orders": ("{} days between orders", ",.1f"),
    "monthly_spend_mean": ("{} spent a period", ",.2f"),
    "monthly_spend_std": ("{} up or down a period", ",.2f"),
}
"""How a feature is said, and how its value is written; every feature a model may use is here."""

FEATURES = tuple(_PHRASES)
"""Every feature that can be explained."""


class Reason(NamedTuple):
    """What a reason is about, a feature or ``MARGIN``, and a text: ``62 days since the last order; Champions: 14``."""

    feature: str
    text: str


def is_visible_to_kmeans(features: Mapping[str, float | None]) -> bool:
    """Whether K-means decides about a customer: an order in the window and something left of it.

    The same rule for one row as ``clustering.visible_to_kmeans`` is for a frame.

    Args:
        features: at least ``RULE_FEATURES``.
    """
    orders, net = features["frequency_orders"], features["monetary_net"]
    return orders is not None and orders > 0 and net is not None and net > 0


def segments_of(model: SegmentationModel) -> dict[str, Segment]:
    """Every segment a customer can be in under a model, rule segments included, by id."""
    return {segment.segment_id: segment for segment in (*model.segments, *RULE_SEGMENTS)}


class Explainer:
    """What a model's segments are compared by, made ready once.

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
        self._compared = {
            segment_id: tuple(
                f"; {self._names[segment_id]}: {_written(feature, expm1(value * std + mean))}"
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
        """What puts a customer in the segment and not in the runner-up, strongest first.

        A feature's pull is how much nearer it brings the customer to the own centroid than to the runner-up's, in
        squared standard deviations; the pulls of all features add up to the difference of the squared distances.
        The value after the runner-up's name is what is typical there: its centroid in business units.
        Where the margin rule decided, that comes first, and then what still speaks for the segment.

        Args:
            segment_id: where the customer is.
            runner_up_segment_id: segment of the second nearest centroid; ``None`` in a rule segment.
            features: raw values by name; ``None`` for a customer with nothing in the window.
            is_held: whether the margin rule keeps the customer in the segment.
        """
        if features is None or segment_id == LAPSED.segment_id:
            return (Reason("recency_days", "nothing in the observation window"),)
        if runner_up_segment_id is None:
            return (_why_refunded(features),)
        if is_held:
            pulls = self._pulls(segment_id, runner_up_segment_id, features)
            return (self._why_held(segment_id, runner_up_segment_id), *pulls)[:MAX_REASONS]
        return self._pulls(segment_id, runner_up_segment_id, features)

    def _why_held(self, segment_id: str, nearer_segment_id: str) -> Reason:
        own, nearer = self._names[segment_id], self._names[nearer_segment_id]
        text = f"kept in {own}: nearer to {nearer} now, but by less than the margin rule asks for"
        return Reason(MARGIN, text)

    def _pulls(
        self, segment_id: str, runner_up_segment_id: str, features: Mapping[str, float | None]
    ) -> tuple[Reason, ...]:
        own, other = self._centroids[segment_id], self._centroids[runner_up_segment_id]
        pulls = []
        for index, (feature, mean, std) in enumerate(self._scales):
            value = features[feature] or 0.0
            place = (log1p(value) - mean) / std if value > 0 else -mean / std
            pull = (place - other[index]) ** 2 - (place - own[index]) ** 2
            if pull > 0:
                pulls.append((-pull, index, feature, value))
        pulls.sort()
        compared = self._compared[runner_up_segment_id]
        strongest = pulls[:MAX_REASONS]
        return tuple([Reason(name, _said(name, value) + compared[index]) for _, index, name, value in strongest])


def _why_refunded(features: Mapping[str, float | None]) -> Reason:
    if not features["frequency_orders"]:
        return Reason("frequency_orders", "no orders, only cancellations")
    return Reason("monetary_net", f"{_said('monetary_net', features['monetary_net'] or 0.0)} after cancellations")


def _written(feature: str, value: float) -> str:
    return format(value, _PHRASES[feature][1])


def _said(feature: str, value: float) -> str:
    phrase, form = _PHRASES[feature]
    return phrase.replace("{}", format(value, form))
