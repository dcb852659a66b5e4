"""Lookups, scores and segment profiles from one release, as plain values. HTTP is in ``api`` and ``gateway``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np

from custseg_assets.domain.segments.explain import (
    BY_WEEK,
    RULE_FEATURES,
    Explainer,
    Reason,
    is_visible_to_kmeans,
    segments_of,
)
from custseg_assets.domain.segments.model import NO_CLUSTER, REFUNDED, RFM
from custseg_assets.stores.releases import VALUES, Release
from custseg_serving.errors import to_json

OLD_MARGIN_RULE = 0.1
"""The margin rule of releases that name none: it keeps only whom it kept in the release, and only beside the border."""
STALE_AFTER_PERIODS = 2
"""The next snapshot is due one period after ``as_of``; a snapshot is stale when one more period has passed."""


def utc_today() -> date:
    """Today, in UTC."""
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class LookupResult:
    """Result of a lookup. At most one attribute is set; none is for an unknown id.

    Attributes:
        answer: the customer's segment and what explains it.
        first_seen_at: when a customer who is too new for the release was first seen.
    """

    answer: Mapping[str, Any] | None = None
    first_seen_at: str | None = None


class _Placement(NamedTuple):
    """A customer's segment, as in the table ``segment_assignments``."""

    segment_id: str
    runner_up_id: str | None
    margin: float | None
    is_held: bool


_REFUNDED = _Placement(REFUNDED.segment_id, None, None, is_held=False)


def _placement_of(record: Mapping[str, Any]) -> _Placement:
    # Releases written before there was a margin rule have no ``is_held``.
    is_held = record.get("is_held", False)
    return _Placement(record["segment_id"], record["runner_up_segment_id"], record["margin"], is_held)


_NOTHING_EXPECTED: Mapping[str, Any] = {**dict.fromkeys(VALUES), "intervals": None}


def _expected_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the customer will probably do; nothing in releases that predict nothing."""
    values = record.get("value")
    if values is None:
        return _NOTHING_EXPECTED
    # Each prediction with its two ends.
    return {
        **dict(zip(VALUES, values[::3], strict=True)),
        "intervals": {name: values[3 * at + 1 : 3 * at + 3] for at, name in enumerate(VALUES)},
    }


class Answers:
    """Answers from one release. No answer mixes two releases, because one object makes all of it.

    Args:
        release: open and verified.
        today: clock that staleness is measured with.
    """

    def __init__(self, release: Release, today: Callable[[], date] = utc_today) -> None:
        self.release = release
        self._today = today
        self._explainer = Explainer(release.model)
        self._segments = segments_of(release.model)
        self._clusters = release.model.cluster_of
        self._margin_rule: float | None = release.migrations.get("margin_rule")
        self._as_of = release.manifest.as_of.date()
        self._stale_after_days = STALE_AFTER_PERIODS * release.manifest.period_days
        self._fixed = {
            "model_version": release.model.model_version,
            "period": release.manifest.period,
            "as_of": release.manifest.as_of.isoformat(),
            "is_open": release.manifest.is_open,
            "release_id": release.release_id,
        }
        self.n_weeks = release.model.n_weeks
        by_week = (BY_WEEK,) if self.n_weeks else ()
        self.required_features = tuple(dict.fromkeys((*release.model.features, *RULE_FEATURES, *by_week)))
        self._rendered_info: tuple[date | None, bytes] = (None, b"")
        self._other_features = tuple(name for name in release.model.features if name not in RFM)

    @property
    def segment_names(self) -> dict[str, str]:
        """Name of every segment that a customer can be in under the model, by id."""
        return {segment_id: segment.name for segment_id, segment in self._segments.items()}

    @property
    def release_info(self) -> dict[str, Any]:
        """Model, snapshot and release that answers come from, and how old the snapshot is."""
        return {**self._fixed, "staleness": self.staleness}

    def with_release_info(self, rendered: bytes) -> bytes:
        """Add the release's information to a JSON object that is rendered and not empty."""
        today = self._today()
        if self._rendered_info[0] != today:
            self._rendered_info = today, to_json(self.release_info)
        return rendered[:-1] + b"," + self._rendered_info[1][1:]

    @property
    def staleness(self) -> dict[str, Any]:
        """Days since ``as_of``, and whether a newer snapshot is overdue."""
        age = (self._today() - self._as_of).days
        return {"age_days": age, "is_stale": age > self._stale_after_days}

    def lookup(self, customer_id: str) -> LookupResult:
        """Look up a customer's segment in the release."""
        record = self.release.record_of(customer_id)
        if record is None:
            return LookupResult()
        if "first_seen_at" in record:
            return LookupResult(first_seen_at=record["first_seen_at"])
        features = record["features"]
        answer = {
            "customer_id": customer_id,
            **self._describe(_placement_of(record), features),
            "since": record["since"],
            "previous": record["previous"],
            **_expected_of(record),
            "recommendations": [
                {"product_id": product, "description": self.release.products[product]} for product in record["products"]
            ],
        }
        return LookupResult(answer=answer)

    def score(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Assign segments to feature rows, with the same arithmetic as the pipeline.

        Args:
            rows: each with at least ``required_features``; other features are passed on. A row with the
                ``customer_id`` of a customer of the release stays in its segment there until a move is clear. That a
                move lasts takes another snapshot, which a score is not.
        """
        is_seen = [is_visible_to_kmeans(row) for row in rows]
        kmeans_rows = [row for row, is_in in zip(rows, is_seen, strict=True) if is_in]
        placements = iter(self._place_rows(kmeans_rows) if kmeans_rows else ())
        answers = []
        for row, is_in in zip(rows, is_seen, strict=True):
            placement = next(placements) if is_in else _REFUNDED
            answers.append({"customer_id": row.get("customer_id"), **self._describe(placement, row)})
        return answers

    def _place_rows(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Placement]:
        """Assign clusters to rows that K-means sees."""
        model = self.release.model
        values = np.array(
            [
                [*(float(row[name]) for name in model.features), *map(float, row[BY_WEEK] if self.n_weeks else ())]
                for row in rows
            ]
        )
        own = np.array([self._cluster_in_release(row.get("customer_id")) for row in rows])
        if self._margin_rule is None:
            own = np.where(model.score(values).runner_up == own, own, NO_CLUSTER)
        scores = model.score(
            values, own, margin_rule=OLD_MARGIN_RULE if self._margin_rule is None else self._margin_rule
        )
        columns = (scores.cluster, scores.runner_up, scores.margin, scores.is_held)
        for cluster, runner_up, margin, is_held in zip(*(column.tolist() for column in columns), strict=True):
            yield _Placement(model.segments[cluster].segment_id, model.segments[runner_up].segment_id, margin, is_held)

    def _cluster_in_release(self, customer_id: str | None) -> int:
        """Cluster that a row with a customer's id may be kept in, else ``NO_CLUSTER``."""
        record = None if customer_id is None else self.release.record_of(customer_id)
        if record is None or (self._margin_rule is None and not record.get("is_held")):
            return NO_CLUSTER
        return self._clusters.get(record.get("segment_id", ""), NO_CLUSTER)

    def _describe(self, placement: _Placement, features: Mapping[str, Any] | None) -> dict[str, Any]:
        """Fields that the answers to lookups and scores share."""
        segment = self._segments[placement.segment_id]
        values = features or {}
        reasons: Sequence[Reason] = self._explainer.reasons(
            placement.segment_id, placement.runner_up_id, features, is_held=placement.is_held
        )
        return {
            "segment_id": placement.segment_id,
            "segment_name": segment.name,
            "is_rule_segment": segment.cluster is None,
            "margin": placement.margin,
            "is_held": placement.is_held,
            "runner_up_segment_id": placement.runner_up_id,
            "reasons": [{"feature": reason.feature, "text": reason.text} for reason in reasons],
            "rfm": {name: values.get(name) for name in RFM},
            "other_features": {name: values.get(name) for name in self._other_features},
        }

    def segments(self) -> list[dict[str, Any]]:
        """Profiles of all segments with their lineage; without the columns that are in ``release_info``."""
        shared = ("period", "model_version")
        return [
            {
                **{key: value for key, value in row.items() if key not in shared},
                "lineage": [asdict(event) for event in self.release.model.lineage if row["segment_id"] in event.after],
            }
            for row in self.release.profiles
        ]
