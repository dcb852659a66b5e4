"""What is answered about customers from one release. Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np

from custseg_assets.domain.segments.explain import RULE_FEATURES, Explainer, Reason, is_seen_by_kmeans, segments_of
from custseg_assets.domain.segments.model import MARGIN_RULE, NOWHERE, REFUNDED, RFM, hold
from custseg_assets.stores.releases import Release
from custseg_serving.errors import to_json

STALE_AFTER_PERIODS = 2
"""A snapshot is replaced one period after its own; it is stale when a whole further period went by without."""


def utc_today() -> date:
    """Today, in UTC."""
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class Found:
    """What a lookup came to; of the two at most one is there, none for an id that is not known.

    Attributes:
        answer: the customer's standing.
        first_seen_at: when a customer who is too new for the release was first seen.
    """

    answer: Mapping[str, Any] | None = None
    first_seen_at: str | None = None


class _Place(NamedTuple):
    """Where a customer stands, as ``segment_assignments`` says it."""

    segment_id: str
    runner_up_id: str | None
    margin: float | None
    is_held: bool


_REFUNDED = _Place(REFUNDED.segment_id, None, None, is_held=False)


def _place_on_file(standing: Mapping[str, Any]) -> _Place:
    # A release that was written before there was a margin rule holds nobody.
    is_held = standing.get("is_held", False)
    return _Place(standing["segment_id"], standing["runner_up_segment_id"], standing["margin"], is_held)


class Answers:
    """Everything one release can say; an answer never mixes two releases, because one object makes all of it.

    Args:
        release: open and verified.
        today: the clock that staleness is told by.
    """

    def __init__(self, release: Release, today: Callable[[], date] = utc_today) -> None:
        self.release = release
        self._today = today
        self._explainer = Explainer(release.model)
        self._segments = segments_of(release.model)
        self._clusters = release.model.cluster_of
        self._as_of = release.manifest.as_of.date()
        self._stale_after_days = STALE_AFTER_PERIODS * release.manifest.period_days
        self._fixed = {
            "model_version": release.model.model_version,
            "period": release.manifest.period,
            "as_of": release.manifest.as_of.isoformat(),
            "release_id": release.release_id,
        }
        self.required_features = tuple(dict.fromkeys((*release.model.features, *RULE_FEATURES)))
        self._rendered_provenance: tuple[date | None, bytes] = (None, b"")
        self._more_features = tuple(name for name in release.model.features if name not in RFM)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which model, snapshot and release an answer comes from, and how old that is."""
        return {**self._fixed, "staleness": self.staleness}

    def with_provenance(self, rendered: bytes) -> bytes:
        """A rendered, not empty JSON object with the provenance added."""
        today = self._today()
        if self._rendered_provenance[0] != today:
            self._rendered_provenance = today, to_json(self.provenance)
        return rendered[:-1] + b"," + self._rendered_provenance[1][1:]

    @property
    def staleness(self) -> dict[str, Any]:
        """Days since ``as_of``, and whether a newer snapshot should long have been there."""
        age = (self._today() - self._as_of).days
        return {"age_days": age, "is_stale": age > self._stale_after_days}

    def lookup(self, customer_id: str) -> Found:
        """Where a customer stands in the release."""
        standing = self.release.record_of(customer_id)
        if standing is None:
            return Found()
        if "first_seen_at" in standing:
            return Found(first_seen_at=standing["first_seen_at"])
        features = standing["features"]
        answer = {
            "customer_id": customer_id,
            **self._said(_place_on_file(standing), features),
            "since": standing["since"],
            "previous": standing["previous"],
            "recommendations": [
                {"product_id": product, "description": self.release.products[product]}
                for product in standing["products"]
            ],
        }
        return Found(answer=answer)

    def score(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the pipeline would have assigned to feature rows, with the same arithmetic.

        Args:
            rows: each with at least ``required_features``; other features are passed on. With the ``customer_id`` of a
                customer whom the release holds, the same rule is applied to the row.
        """
        is_seen = [is_seen_by_kmeans(row) for row in rows]
        seen = [row for row, wanted in zip(rows, is_seen, strict=True) if wanted]
        placed = iter(self._placed(seen) if seen else ())
        answers = []
        for row, wanted in zip(rows, is_seen, strict=True):
            place = next(placed) if wanted else _REFUNDED
            answers.append({"customer_id": row.get("customer_id"), **self._said(place, row)})
        return answers

    def _placed(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Place]:
        """Where rows that K-means sees stand."""
        model = self.release.model
        scores = model.score(np.array([[float(row[name]) for name in model.features] for row in rows]))
        stays = [self._stay(row.get("customer_id"), margin) for row, margin in zip(rows, scores.margin, strict=True)]
        if max(stays) != NOWHERE:
            scores = hold(scores, np.array(stays))
        columns = (scores.cluster, scores.runner_up, scores.margin, scores.is_held)
        for cluster, runner_up, margin, is_held in zip(*(column.tolist() for column in columns), strict=True):
            yield _Place(model.segments[cluster].segment_id, model.segments[runner_up].segment_id, margin, is_held)

    def _stay(self, customer_id: str | None, margin: float) -> int:
        """The cluster a customer is held in; only near a border is it worth looking up."""
        if customer_id is None or margin >= MARGIN_RULE:
            return NOWHERE
        standing = self.release.record_of(customer_id)
        return self._clusters[standing["segment_id"]] if standing and standing.get("is_held") else NOWHERE

    def _said(self, place: _Place, features: Mapping[str, Any] | None) -> dict[str, Any]:
        """What a lookup and a score have in common."""
        segment = self._segments[place.segment_id]
        known = features or {}
        reasons: Sequence[Reason] = self._explainer.reasons(
            place.segment_id, place.runner_up_id, features, is_held=place.is_held
        )
        return {
            "segment_id": place.segment_id,
            "segment_name": segment.name,
            "is_rule_segment": segment.cluster is None,
            "margin": place.margin,
            "is_held": place.is_held,
            "runner_up_segment_id": place.runner_up_id,
            "reasons": [{"feature": reason.feature, "text": reason.text} for reason in reasons],
            "rfm": {name: known.get(name) for name in RFM},
            "other_features": {name: known.get(name) for name in self._more_features},
        }

    def segments(self) -> list[dict[str, Any]]:
        """Profiles of the segments, without what is the same for all, with what they come from."""
        shared = ("period", "model_version")
        return [
            {
                **{key: value for key, value in row.items() if key not in shared},
                "lineage": [asdict(event) for event in self.release.model.lineage if row["segment_id"] in event.after],
            }
            for row in self.release.profiles
        ]
