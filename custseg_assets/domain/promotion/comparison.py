"""A challenger and the champion on the same data: everything that the promotion gate looks at, as figures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl

from custseg_assets.domain.promotion.validity import Foreseen, PairedValidity, foresee, paired_validity
from custseg_assets.domain.segments.clustering import adjusted_rand, assign_customers, visible_to_kmeans
from custseg_assets.domain.segments.model import Matrix, SegmentationModel
from custseg_assets.errors import BadInputError

REACH = 0.99
"""Within this share of the champion's training customers' distances a customer counts as covered."""

N_EVIDENCE = 3
"""Predictive validity is measured on so many of the newest snapshots whose next period is known."""


@dataclass(frozen=True)
class Evidence:
    """A snapshot whose next period is known.

    Attributes:
        period: its key.
        features: ``customer_features`` of it.
        known: ids of everybody seen up to its end.
        done: what ``validity.next_period`` found of the period after it.
    """

    period: str
    features: pl.DataFrame
    known: pl.Series
    done: pl.DataFrame


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
        coverage_champion: share of the current customers within reach of a centroid.
        coverage_challenger: the same under the challenger, with the same reach.
        inertia_champion: mean squared distance to the nearest centroid, current customers.
        inertia_challenger: the same under the challenger.
        inertia_same_k: the same of a fresh fit with the champion's number of clusters; missing where there is none.
        fit_gain_before: by how much that fresh fit lies closer to the customers of the snapshot before, a share of the
            champion's inertia there; negative where it lies further off; missing likewise.
        validity: both outcomes under both models; empty where no snapshot could tell.
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
    reach: float
    coverage_champion: float
    coverage_challenger: float
    inertia_champion: float
    inertia_challenger: float
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
        if self.inertia_same_k is None:
            return None
        return _less(max(self.inertia_challenger, self.inertia_same_k), self.inertia_champion)

    @property
    def is_lasting(self) -> bool:
        """Whether what changed is seen in the snapshot before as well.

        A currency mixed up or a day's lines lost move one snapshot only; on the one before, a fit to them lies further
        off than the champion.
        """
        return self.fit_gain_before is not None and self.fit_gain_before >= 0

    @property
    def coverage_gain(self) -> float:
        """How much larger a share of the current customers the challenger covers."""
        return self.coverage_challenger - self.coverage_champion

    def to_json(self) -> str:
        """Every figure, as canonical JSON."""
        gains = {"fit_gain": self.fit_gain, "coverage_gain": self.coverage_gain}
        return json.dumps({**asdict(self), **gains}, sort_keys=True, ensure_ascii=False)


def compare_models(
    champion: SegmentationModel,
    challenger: SegmentationModel,
    *,
    now: pl.DataFrame,
    before: pl.DataFrame,
    trained: pl.DataFrame,
    candidates: pl.DataFrame,
    evidence: Iterable[Evidence],
    seed: int,
) -> Comparison:
    """Measure two models on the same customers.

    Args:
        champion: the model in force.
        challenger: trained on the current snapshot, on the champion's scale.
        now: ``customer_features`` of the current snapshot.
        before: the same of the snapshot before.
        trained: the same of the snapshot that the champion was trained on.
        candidates: ``model_candidates`` of the current snapshot.
        evidence: the newest snapshots before it whose next period is known; taken one at a time.
        seed: of the folds that predictive validity is cross-fitted on.

    Raises:
        BadInputError: the models are not on one scale, or K-means sees nobody in a snapshot.
    """
    if champion.reference != challenger.reference:
        raise BadInputError(
            f"{challenger.model_version} has a scale of its own",
            f"that of the champion, {champion.model_version}",
            "Train it by the job 'retrain', which scales with the champion's reference.",
        )
    values = _seen(now, champion)
    old, new = champion.score(values), challenger.score(values)
    sizes = np.bincount(new.cluster, minlength=challenger.k)
    reach = float(np.quantile(champion.score(_seen(trained, champion)).distance, REACH))
    same_k = _fresh_fit(candidates, champion)
    earlier = _seen(before, champion)
    told = {one.period: _foreseen(one, champion, challenger, seed) for one in evidence}
    foreseen = {period: one for period, one in told.items() if one is not None}
    return Comparison(
        period=challenger.trained_on,
        champion=champion.model_version,
        challenger=challenger.model_version,
        bootstrap_ari=_figure(candidates, "bootstrap_ari", challenger.k),
        worst_jaccard=_figure(candidates, "worst_jaccard", challenger.k),
        smallest_segment=int(sizes.min()),
        smallest_share=float(sizes.min() / sizes.sum()),
        share_same_segment=float((_ids(champion)[old.cluster] == _ids(challenger)[new.cluster]).mean()),
        agreement_ari=adjusted_rand(old.cluster, new.cluster),
        reach=reach,
        coverage_champion=float((old.distance <= reach).mean()),
        coverage_challenger=float((new.distance <= reach).mean()),
        inertia_champion=_inertia(champion, values),
        inertia_challenger=_inertia(challenger, values),
        inertia_same_k=_inertia(same_k, values) if same_k else None,
        fit_gain_before=_less(_inertia(same_k, earlier), _inertia(champion, earlier)) if same_k else None,
        validity=paired_validity(tuple(foreseen.values())) if foreseen else (),
        measured_on=tuple(sorted(foreseen)),
    )


def _seen(features: pl.DataFrame, model: SegmentationModel) -> Matrix:
    """Raw features of the customers that K-means sees, in one order."""
    seen = features.filter(visible_to_kmeans(features, model.features)).sort("customer_id")
    if seen.is_empty():
        raise BadInputError(
            f"a snapshot of {features.height} customers, none with an order and net spend",
            "customers to compare models on",
            "Look at that snapshot's customer_features.",
        )
    return seen.select(model.features).cast(pl.Float64).to_numpy()


def _ids(model: SegmentationModel) -> np.ndarray:
    return np.array([segment.segment_id for segment in model.segments])


def _figure(candidates: pl.DataFrame, name: str, k: int) -> float | None:
    found = candidates.filter(pl.col("k") == k)[name]
    return float(found.item()) if len(found) and found.item() is not None else None


def _fresh_fit(candidates: pl.DataFrame, champion: SegmentationModel) -> SegmentationModel | None:
    """The champion with the centroids that the sweep found for its number of clusters; ``None`` if it found none."""
    centroids = candidates.filter(pl.col("k") == champion.k)["centroids"].drop_nulls()
    if centroids.is_empty():
        return None
    return replace(champion, centroids=tuple(tuple(row) for row in json.loads(centroids.item())))


def _inertia(model: SegmentationModel, values: Matrix) -> float:
    """Mean squared distance to the nearest centroid."""
    return float((model.score(values).distance ** 2).mean())


def _less(value: float, than: float) -> float:
    """How much less, as a share; 0 where there is nothing to be less than."""
    return 1 - value / than if than else 0.0


def _foreseen(
    evidence: Evidence, champion: SegmentationModel, challenger: SegmentationModel, seed: int
) -> Foreseen | None:
    segments = assign_customers(evidence.features, evidence.known, champion).select(
        "customer_id", champion="segment_id"
    )
    others = assign_customers(evidence.features, evidence.known, challenger).select(
        "customer_id", challenger="segment_id"
    )
    return foresee(segments.join(others, on="customer_id"), evidence.done, seed=seed)
