"""Figures of a challenger and the champion on the same data; ``promotion.py`` decides by them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl

from custseg_assets.domain.promotion.validity import (
    PairedValidity,
    SnapshotValidity,
    combine_validity,
    measure_validity,
)
from custseg_assets.domain.segments.clustering import (
    adjusted_rand,
    assign_customers,
    feature_values,
    visible_to_kmeans,
)
from custseg_assets.domain.segments.model import SegmentationModel, clusters_from_json
from custseg_assets.errors import BadInputError

REACH_QUANTILE = 0.99
"""Within this share of the champion's training customers' distances a customer counts as covered."""

N_EVIDENCE = 3
"""Predictive validity is measured on so many of the newest snapshots whose next period is known."""


@dataclass(frozen=True)
class Evidence:
    """A snapshot whose next period is known.

    Attributes:
        period: its key.
        features: ``customer_features`` of it.
        known_ids: ids of everybody with lines up to its end.
        outcomes: what ``validity.measure_outcomes`` found in the period after it.
    """

    period: str
    features: pl.DataFrame
    known_ids: pl.Series
    outcomes: pl.DataFrame


@dataclass(frozen=True)
class Comparison:
    """Champion and challenger on the same data.

    Attributes:
        period: the current snapshot, which the challenger was trained on.
        champion: its model version.
        challenger: the same.
        bootstrap_ari: of the challenger's k; missing where it was not measured.
        worst_jaccard: of the challenger's least stable cluster; likewise.
        smallest_segment: customers in the challenger's smallest segment, on the current snapshot.
        smallest_share: the same as a share of those K-means sees.
        share_same_segment: customers, of those K-means sees, who keep their segment id.
        agreement_ari: adjusted Rand index of the two segmentations.
        reach: distance within which a customer is covered, from the champion's training customers.
        coverage_champion: share of the current customers within reach of their centroid; this and the figures below
            are missing where the models are of different kinds, whose distances cannot be compared.
        coverage_challenger: the same under the challenger, with the same reach.
        inertia_champion: mean squared distance to the centroid, current customers; in the features, for every kind.
        inertia_challenger: the same under the challenger.
        inertia_same_k: the same of a fresh fit with the champion's number of clusters; missing where there is none.
        fit_gain_before: by how much that fresh fit lies closer to the customers of the snapshot before, a share of the
            champion's inertia there; negative where it lies further off; missing likewise.
        validity: both outcomes under both models; empty where no snapshot has enough customers of each kind.
        measured_on: the snapshots that validity was measured on.
    """

    period: str
    champion: str
    challenger: str
    bootstrap_ari: float | None
    worst_jaccard: float | None
    smallest_segment: int
    smallest_share: float
    share_same_segment: float
    agreement_ari: float
    reach: float | None
    coverage_champion: float | None
    coverage_challenger: float | None
    inertia_champion: float | None
    inertia_challenger: float | None
    inertia_same_k: float | None
    fit_gain_before: float | None
    validity: tuple[PairedValidity, ...]
    measured_on: tuple[str, ...]

    @property
    def fit_gain(self) -> float | None:
        """By how much the challenger lies closer to the current customers, a share of the champion's inertia.

        More clusters always lie closer, so only what a fresh fit with the champion's own number gains counts, and no
        more than the challenger itself gains. ``None`` where there is no such fit.
        """
        if self.inertia_same_k is None or self.inertia_champion is None or self.inertia_challenger is None:
            return None
        return _relative_gain(max(self.inertia_challenger, self.inertia_same_k), self.inertia_champion)

    @property
    def is_lasting(self) -> bool:
        """Whether the snapshot before shows what changed as well.

        A currency mixed up or a day's lines lost move one snapshot only; on the one before, a fit to them lies further
        off than the champion.
        """
        return self.fit_gain_before is not None and self.fit_gain_before >= 0

    @property
    def coverage_gain(self) -> float | None:
        """How much larger a share of the current customers the challenger covers; ``None`` for another kind."""
        if self.coverage_challenger is None or self.coverage_champion is None:
            return None
        return self.coverage_challenger - self.coverage_champion

    def to_json(self) -> str:
        """Every figure, as canonical JSON."""
        gains = {"fit_gain": self.fit_gain, "coverage_gain": self.coverage_gain}
        return json.dumps({**asdict(self), **gains}, sort_keys=True, ensure_ascii=False)


def compare_models(
    champion: SegmentationModel,
    challenger: SegmentationModel,
    *,
    current: pl.DataFrame,
    previous: pl.DataFrame,
    training: pl.DataFrame,
    candidates: pl.DataFrame,
    evidence: Iterable[Evidence],
    seed: int,
) -> Comparison:
    """Measure two models on the same customers.

    Args:
        champion: the model in force.
        challenger: trained on the current snapshot, on the champion's scale.
        current: ``customer_features`` of the current snapshot.
        previous: the same of the snapshot before.
        training: the same of the snapshot that the champion was trained on.
        candidates: ``model_candidates`` of the current snapshot.
        evidence: the newest snapshots before it whose next period is known; taken one at a time.
        seed: of the folds that predictive validity is cross-fitted on.

    Raises:
        BadInputError: the models are not on one scale, or K-means sees nobody in the current snapshot.
    """
    if champion.reference != challenger.reference:
        raise BadInputError(
            f"{challenger.model_version} has a scale of its own",
            f"that of the champion, {champion.model_version}",
            "Train it by the job 'retrain', which scales with the champion's reference.",
        )
    visible = _visible_customers(current, champion)
    values = feature_values(visible, champion.inputs)
    old, new = champion.score(values), challenger.score(feature_values(visible, challenger.inputs))
    sizes = np.bincount(new.cluster, minlength=challenger.k)
    measured = {one.period: _measure_evidence(one, champion, challenger, seed) for one in evidence}
    validity = {period: one for period, one in measured.items() if one is not None}
    fit = (
        _measure_fit(champion, challenger, visible, previous, training, candidates)
        if champion.kind == challenger.kind
        else _Fit()
    )
    return Comparison(
        period=challenger.trained_on,
        champion=champion.model_version,
        challenger=challenger.model_version,
        bootstrap_ari=_candidate_figure(candidates, "bootstrap_ari", challenger.k),
        worst_jaccard=_candidate_figure(candidates, "worst_jaccard", challenger.k),
        smallest_segment=int(sizes.min()),
        smallest_share=float(sizes.min() / sizes.sum()),
        share_same_segment=float((_segment_ids(champion)[old.cluster] == _segment_ids(challenger)[new.cluster]).mean()),
        agreement_ari=adjusted_rand(old.cluster, new.cluster),
        **vars(fit),
        validity=combine_validity(tuple(validity.values())) if validity else (),
        measured_on=tuple(sorted(validity)),
    )


@dataclass(frozen=True)
class _Fit:
    """The figures of a comparison that distances decide; missing between models of different kinds."""

    reach: float | None = None
    coverage_champion: float | None = None
    coverage_challenger: float | None = None
    inertia_champion: float | None = None
    inertia_challenger: float | None = None
    inertia_same_k: float | None = None
    fit_gain_before: float | None = None


def _measure_fit(
    champion: SegmentationModel,
    challenger: SegmentationModel,
    visible: pl.DataFrame,
    previous: pl.DataFrame,
    training: pl.DataFrame,
    candidates: pl.DataFrame,
) -> _Fit:
    distances = champion.distances_in_features(feature_values(_visible_customers(training, champion), champion.inputs))
    reach = float(np.quantile(distances, REACH_QUANTILE))
    old, new = (one.distances_in_features(feature_values(visible, one.inputs)) for one in (champion, challenger))
    same_k = _refit_champion(candidates, champion)
    # Before the first day of a season nobody is in the window.
    has_earlier = visible_to_kmeans(previous, champion.features).any()
    earlier = _visible_customers(previous, champion) if has_earlier else None
    return _Fit(
        reach=reach,
        coverage_champion=float((old <= reach).mean()),
        coverage_challenger=float((new <= reach).mean()),
        inertia_champion=float((old**2).mean()),
        inertia_challenger=float((new**2).mean()),
        inertia_same_k=_inertia(same_k, visible) if same_k else None,
        fit_gain_before=(
            _relative_gain(_inertia(same_k, earlier), _inertia(champion, earlier))
            if same_k and earlier is not None
            else None
        ),
    )


def _visible_customers(features: pl.DataFrame, model: SegmentationModel) -> pl.DataFrame:
    """The customers that K-means sees, in one order."""
    visible = features.filter(visible_to_kmeans(features, model.features)).sort("customer_id")
    if visible.is_empty():
        raise BadInputError(
            f"a snapshot of {features.height} customers, none with an order and net spend",
            "customers to compare models on",
            "Look at that snapshot's customer_features.",
        )
    return visible


def _segment_ids(model: SegmentationModel) -> np.ndarray:
    return np.array([segment.segment_id for segment in model.segments])


def _candidate_figure(candidates: pl.DataFrame, name: str, k: int) -> float | None:
    figures = candidates.filter(pl.col("k") == k)[name].drop_nulls()
    return float(figures.item()) if len(figures) else None


def _refit_champion(candidates: pl.DataFrame, champion: SegmentationModel) -> SegmentationModel | None:
    """The champion with the clusters that the sweep found for its number of them; ``None`` if it found none."""
    found = candidates.filter(pl.col("k") == champion.k)["centroids"].drop_nulls()
    return None if found.is_empty() else replace(champion, **vars(clusters_from_json(found.item())))


def _inertia(model: SegmentationModel, customers: pl.DataFrame) -> float:
    """Mean squared distance to the centroid, in the features."""
    return float((model.distances_in_features(feature_values(customers, model.inputs)) ** 2).mean())


def _relative_gain(value: float, than: float) -> float:
    """By how much a value is less than another, as a share of that; 0 where that is 0."""
    return 1 - value / than if than else 0.0


def _measure_evidence(
    evidence: Evidence, champion: SegmentationModel, challenger: SegmentationModel, seed: int
) -> SnapshotValidity | None:
    ids = evidence.known_ids
    segments = assign_customers(evidence.features, ids, champion).select("customer_id", champion="segment_id")
    others = assign_customers(evidence.features, ids, challenger).select("customer_id", challenger="segment_id")
    return measure_validity(segments.join(others, on="customer_id"), evidence.outcomes, seed=seed)
