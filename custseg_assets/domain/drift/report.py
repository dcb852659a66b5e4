"""The drift report of a snapshot: its scores, the verdict, and the reasons in words.

How scores and thresholds are measured is in ``scores.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Annotated, Literal

import numpy as np
import polars as pl
from annotated_types import Ge, Interval

from custseg_assets.domain.bounds import EffectSize, Share
from custseg_assets.domain.drift.reference import DISTANCE, DriftReference
from custseg_assets.domain.schemas import DRIFT_REPORT
from custseg_assets.domain.segments.model import REFUNDED, Matrix

Verdict = Literal["stable", "watch", "breach", "not enough data"]
Kind = Literal["psi", "wasserstein", "share_shift", "correlation_shift"]


@dataclass(frozen=True)
class Effects:
    """One effect size per kind of score.

    Attributes:
        psi: population stability index of a feature, or of the distance to the centroids.
        wasserstein: Wasserstein distance of a feature, in standard deviations of the reference.
        share_shift: change of a segment's share of the customers.
        correlation_shift: change of the correlation of two features.
    """

    psi: EffectSize
    wasserstein: EffectSize
    share_shift: EffectSize
    correlation_shift: EffectSize

    def of(self, kind: Kind) -> float:
        """The effect size of one kind of score."""
        return float(getattr(self, kind))


@dataclass(frozen=True)
class DriftSettings:
    """What counts as drift.

    Attributes:
        false_alarm_rate: share of reports that may alert although nothing changed, over all scores together. The
            resamples that calibrate it cannot tell less than one in a thousand from none.
        min_effect: smaller scores never alert, however many customers there are.
        large_effect: from here on an alert is a breach, whatever is usual for this shop; never below ``min_effect``.
        min_history: snapshots after which the shop's own movement counts as known.
        max_unobserved_share: share of the last period that may be missing; with more missing, drift is not measured.
        max_blind_lapse: share of the active customers; a report without alerts that would miss the lapse of so many
            says "not enough data" instead of "stable".

    Raises:
        ValueError: a minimum effect is above the large one.
    """

    false_alarm_rate: Annotated[float, Interval(ge=0.001, le=0.5)] = 0.01
    min_effect: Effects = Effects(psi=0.005, wasserstein=0.04, share_shift=0.015, correlation_shift=0.05)
    large_effect: Effects = Effects(psi=0.2, wasserstein=0.5, share_shift=0.15, correlation_shift=0.3)
    min_history: Annotated[int, Ge(2)] = 6
    max_unobserved_share: Share = 1 / 3
    max_blind_lapse: Share = 0.5

    def __post_init__(self) -> None:
        for kind, smallest in vars(self.min_effect).items():
            large = getattr(self.large_effect, kind)
            if smallest > large:
                raise ValueError(f"min_effect.{kind} {smallest:g} must not be above large_effect.{kind} {large:g}")


@dataclass(frozen=True)
class DriftScore:
    """One score and how to read it; all but the names are missing where nothing could be measured.

    Attributes:
        score_name: the kind.
        subject: feature, segment, or pair of features.
        score: the drift score.
        threshold: the score from which on it alerts: the largest of the next three.
        chance_threshold: what chance reaches, over all scores together, at the false-alarm rate.
        min_effect: the smallest score worth knowing.
        own_threshold: what this shop does anyway; missing until that is known.
        large_effect: the score from which on an alert is a breach.
        is_alert: whether the score reaches the threshold.
        smallest_lapse: the power: the smallest share of active customers whose lapse this score would catch 9 times
            in 10; missing where it would catch none.
    """

    score_name: Kind
    subject: str
    score: float | None = None
    threshold: float | None = None
    chance_threshold: float | None = None
    min_effect: float | None = None
    own_threshold: float | None = None
    large_effect: float | None = None
    is_alert: bool = False
    smallest_lapse: float | None = None

    @property
    def excess(self) -> float:
        """Score divided by threshold; 0 where nothing was measured."""
        return self.score / self.threshold if self.score is not None and self.threshold else 0.0

    @property
    def is_large(self) -> bool:
        """Whether it alerts and is large by any measure."""
        return self.is_alert and (self.score or 0.0) >= (self.large_effect or np.inf)

    @property
    def is_beyond_own(self) -> bool:
        """Whether it alerts although this shop's own movement is known and allowed for."""
        return self.is_alert and self.own_threshold is not None


@dataclass(frozen=True)
class Distribution:
    """What a score compares, part by part; one value per part.

    Attributes:
        name: the feature, ``segment`` or ``correlation``.
        parts: names of the parts: a bin by its upper end, in business units, a segment, or a pair of features.
        reference: share of the customers in each part, or the pair's correlation, when the model was trained.
        current: the same at the snapshot.
        is_share: whether the values are shares.
    """

    name: str
    parts: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    is_share: bool = True


@dataclass(frozen=True)
class Change:
    """What alerted about one subject.

    Attributes:
        sentence: what changed, in business units.
        figures: its scores that alert, and from where on they do.
        distribution: to look at.
    """

    sentence: str
    figures: str
    distribution: Distribution


@dataclass(frozen=True)
class DriftReport:
    """What was found about one snapshot.

    Attributes:
        period: key of the snapshot.
        reference_period: key of the snapshot that the model in force was trained on.
        model_version: the model in force.
        n_customers: customers measured.
        verdict: of the whole report.
        reasons: for it, in words, the most important first.
        scores: every score, by name and subject.
        smallest_lapse: the smallest share of active customers whose lapse this report would catch 9 times in 10.
        changes: one per subject that alerts, the one furthest over its threshold first.
    """

    period: str
    reference_period: str
    model_version: str
    n_customers: int
    verdict: Verdict
    reasons: tuple[str, ...]
    scores: tuple[DriftScore, ...]
    smallest_lapse: float | None = None
    changes: tuple[Change, ...] = ()

    @property
    def alerts(self) -> tuple[DriftScore, ...]:
        """The scores that alert."""
        return tuple(score for score in self.scores if score.is_alert)

    def table(self) -> pl.DataFrame:
        """One row per score, with the period and the content of ``drift_report``."""
        about = {
            "period": self.period,
            "verdict": self.verdict,
            "reasons": json.dumps(self.reasons, ensure_ascii=False),
            "reference_period": self.reference_period,
            "model_version": self.model_version,
            "n_customers": self.n_customers,
        }
        rows = pl.DataFrame([{**asdict(score), **about} for score in self.scores], infer_schema_length=None)
        columns = [pl.col(column.name).cast(column.dtype) for column in DRIFT_REPORT.content]
        return rows.select("period", *columns).sort(DRIFT_REPORT.sort_by)


def report_without_scores(
    reference: DriftReference, period: str, n_customers: int, names: Sequence[tuple[Kind, str]], reason: str
) -> DriftReport:
    """The report on a snapshot that cannot be measured: not enough data, the reason, and every score missing."""
    return DriftReport(
        period=period,
        reference_period=reference.period,
        model_version=reference.model_version,
        n_customers=n_customers,
        verdict="not enough data",
        reasons=(reason,),
        scores=tuple(DriftScore(kind, subject) for kind, subject in names),
    )


@dataclass(frozen=True)
class CurrentCustomers:
    """The customers of a snapshot, to be compared with the reference.

    Attributes:
        matrix: shape (customers, features), on the model's scale.
        means: laid out as the reference's.
        share_refunded: share of the customers in the rule segment Refunded.
    """

    matrix: Matrix
    means: Matrix
    share_refunded: float


def make_report(
    reference: DriftReference,
    current: CurrentCustomers,
    scores: tuple[DriftScore, ...],
    *,
    period: str,
    smallest_lapse: float | None,
    n_history: int,
    settings: DriftSettings,
    remarks: tuple[str, ...] = (),
) -> DriftReport:
    """The report on measured scores: the verdict, and why.

    Args:
        reference: what the scores were measured against.
        current: the customers of the snapshot.
        scores: all of them.
        period: key of the snapshot.
        smallest_lapse: that the whole report would catch 9 times in 10.
        n_history: snapshots that the shop's own movement could be learned from.
        settings: what counts as drift.
        remarks: how the customers were made comparable, in words.
    """
    n_customers = len(current.matrix)
    alerts = [score for score in scores if score.is_alert]
    is_blind = bool(reference.means_all_lapsed) and (smallest_lapse or np.inf) > settings.max_blind_lapse
    verdict = _decide_verdict(alerts, is_blind=is_blind)
    changes = _changes(reference, current, alerts)
    return DriftReport(
        period=period,
        reference_period=reference.period,
        model_version=reference.model_version,
        n_customers=n_customers,
        verdict=verdict,
        reasons=(
            _verdict_sentence(verdict, alerts, n_customers, n_history, settings),
            *remarks,
            *(f"{change.sentence} ({change.figures})" for change in changes),
            _power_sentence(reference, n_customers, smallest_lapse),
        ),
        scores=scores,
        smallest_lapse=smallest_lapse,
        changes=changes,
    )


def _decide_verdict(alerts: Sequence[DriftScore], *, is_blind: bool) -> Verdict:
    """Decide by the scores that alert.

    * breach: an alert that is large by any measure, or more than this shop's own movement once that is known.
    * watch: an alert, but not large, and what is normal for this shop is not known yet.
    * not enough data: no alert, and none to be expected at this number of customers.
    * stable: no alert, where one would have been seen.
    """
    if any(score.is_large or score.is_beyond_own for score in alerts):
        return "breach"
    if alerts:
        return "watch"
    return "not enough data" if is_blind else "stable"


def _verdict_sentence(
    verdict: Verdict, alerts: Sequence[DriftScore], n_customers: int, n_history: int, settings: DriftSettings
) -> str:
    if verdict == "not enough data":
        return f"nothing seen, but {n_customers:,} customers are too few to see a change in"
    if verdict == "stable":
        return "no change beyond chance, the smallest effect worth knowing and, where known, what is usual here"
    if verdict == "watch":
        return (
            f"more than chance but not large; what is usual here takes {settings.min_history} snapshots to know, "
            f"there are {n_history}"
        )
    if any(score.is_large for score in alerts):
        return "large by any measure: the model describes other customers than these"
    return f"more than is usual here, judged by {n_history} snapshots and, where known, by the same season a year ago"


def _power_sentence(reference: DriftReference, n_customers: int, smallest_lapse: float | None) -> str:
    sizes = f"with {n_customers:,} customers now and {reference.n_customers:,} in the reference"
    if not reference.means_all_lapsed:
        return f"{sizes}: which lapse would be seen is not known, recency_days is no feature of the model"
    if smallest_lapse is None:
        return f"{sizes} not even the lapse of every active customer would be seen 9 times in 10"
    return (
        f"{sizes} a lapse of {smallest_lapse:.0%} of those who ordered in the last {reference.active_days:.0f} days "
        "would be seen 9 times in 10; a smaller one may be missed"
    )


def _changes(reference: DriftReference, current: CurrentCustomers, alerts: Sequence[DriftScore]) -> tuple[Change, ...]:
    """One per subject, the one furthest over its threshold first."""
    by_subject: dict[str, list[DriftScore]] = {}
    for score in sorted(alerts, key=lambda score: (-score.excess, score.score_name, score.subject)):
        by_subject.setdefault(score.subject, []).append(score)
    return tuple(
        Change(
            sentence=_change_sentence(reference, current, subject),
            figures="; ".join(f"{one.score_name} {one.score:.3g}, alerts from {one.threshold:.3g}" for one in scores),
            distribution=_distribution(reference, current, subject),
        )
        for subject, scores in by_subject.items()
    )


def _change_sentence(reference: DriftReference, current: CurrentCustomers, subject: str) -> str:
    if subject == REFUNDED.name:
        return _share_sentence(f"segment {subject}", reference.share_refunded, current.share_refunded)
    if subject in reference.segment_names:
        at = reference.cluster_slice.start + reference.segment_names.index(subject)
        return _share_sentence(f"segment {subject}", reference.means[at], float(current.means[at]))
    if subject in reference.columns:
        return _column_sentence(reference, current, reference.columns.index(subject))
    at = correlation_subjects(reference.features).index(subject)
    before, now = reference.correlations(np.array([reference.means, current.means]))[:, at]
    return f"correlation {subject}: {before:.2f} → {now:.2f}"


def _column_sentence(reference: DriftReference, current: CurrentCustomers, column: int) -> str:
    """The median, and the coarse bin that gained or lost most customers."""
    binning = reference.binnings[column]
    values = current.matrix[:, column] if binning.name != DISTANCE else reference.nearest(current.matrix).distance
    medians = [binning.median, float(np.quantile(values, 0.5, method="inverted_cdf"))]
    first, bins = binning.group_starts, reference.bin_slice(column)
    before = np.add.reduceat(np.array(reference.means[bins]), first)
    now = np.add.reduceat(current.means[bins], first)
    most = int(np.argmax(np.abs(now - before)))
    cuts = [binning.edges[at - 1] for at in first[1:]]
    low = cuts[most - 1] if most else None
    high = cuts[most] if most < len(cuts) else None
    units = [None if value is None else _in_units(reference, column, value) for value in (*medians, low, high)]
    shares = _share_sentence(_interval(units[2], units[3]), before[most], now[most])
    return f"{_column_name(binning.name)}: median {units[0]} → {units[1]}, {shares}"


def _in_units(reference: DriftReference, column: int, value: float) -> str:
    if column == len(reference.features):
        return f"{value:.2f}"
    raw = float(np.expm1(value * reference.scaling.std[column] + reference.scaling.mean[column]))
    return f"{raw:,.0f}" if raw >= 100 else f"{raw:.1f}".removesuffix(".0").replace("-0", "0")


def _interval(low: str | None, high: str | None) -> str:
    if low is None:
        return f"up to {high}"
    return f"over {low}" if high is None else f"over {low} up to {high}"


def _share_sentence(what: str, before: float, now: float) -> str:
    return f"{what}: {before:.1%} → {now:.1%} of the customers"


def _distribution(reference: DriftReference, current: CurrentCustomers, subject: str) -> Distribution:
    """The distribution that shows a subject: the bins of its column, all segments, or all correlations."""
    if subject == REFUNDED.name or subject in reference.segment_names:
        return Distribution(
            "segment",
            (*reference.segment_names, REFUNDED.name),
            (*reference.means[reference.cluster_slice], reference.share_refunded),
            (*current.means[reference.cluster_slice].tolist(), current.share_refunded),
        )
    if subject in reference.columns:
        return _bin_distribution(reference, current, reference.columns.index(subject))
    before, now = reference.correlations(np.array([reference.means, current.means])).tolist()
    subjects = correlation_subjects(reference.features)
    return Distribution("correlation", tuple(subjects), tuple(before), tuple(now), is_share=False)


def _bin_distribution(reference: DriftReference, current: CurrentCustomers, column: int) -> Distribution:
    """Shares of a column's bins; the two outer ones only where somebody is in them."""
    binning, bins = reference.binnings[column], reference.bin_slice(column)
    first, *ends = (_in_units(reference, column, edge) for edge in binning.edges)
    parts = (f"under {first}", *(f"up to {end}" for end in ends), f"over {ends[-1]}")
    rows = zip(parts, reference.means[bins], current.means[bins].tolist(), strict=True)
    parts, before, now = zip(*((part, one, other) for part, one, other in rows if one or other), strict=True)
    return Distribution(_column_name(binning.name), parts, before, now)


def _column_name(name: str) -> str:
    return "distance to the own centroid" if name == DISTANCE else name


def correlation_subjects(features: Sequence[str]) -> list[str]:
    """Names of the pairs of features, in the order of ``DriftReference.correlations``."""
    return [f"{one} × {other}" for one, other in combinations(features, 2)]
