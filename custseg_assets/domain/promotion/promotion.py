"""Whether a challenger becomes the champion.

The first model is judged on its own. After that a challenger has to be better than the champion on the same data:
one that misses a limit is rejected, one that is not clearly better is held, and what is not known speaks against it.
``comparison.py`` has the figures and ``docs/retraining.md`` what the limits were chosen by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from custseg_assets.domain.bounds import Share
from custseg_assets.domain.promotion.comparison import Comparison
from custseg_assets.domain.promotion.validity import PairedValidity
from custseg_assets.domain.segments.clustering import Limits

Decision = Literal["PROMOTE", "HOLD", "REJECT"]

GATE = "gate"
"""Who decided where no person did."""


@dataclass(frozen=True)
class PromotionLimits:
    """What a challenger must keep, and what counts as better.

    Attributes:
        min_validity_gain: difference of predictive validity (concordance) from which on it counts; a smaller one
            does not, however sure it is.
        max_validity_loss: how far the 95 % interval of that difference may reach below 0.
        min_fit_gain: reduction of the inertia per customer, a share of the champion's, that is clearly better; as much
            an increase on the snapshot before speaks of an error in the newest.
        min_coverage_gain: change of the share of current customers within reach that is clearly better, or worse.
        min_same_segment: share of customers that should keep their segment; where fewer do, only better predictive
            validity is worth it.
    """

    min_validity_gain: Share = 0.005
    max_validity_loss: Share = 0.01
    min_fit_gain: Share = 0.05
    min_coverage_gain: Share = 0.01
    min_same_segment: Share = 0.5


@dataclass(frozen=True)
class Trial:
    """A challenger held against the champion.

    Attributes:
        comparison: the figures.
        eligibility: the limits of a number of clusters.
        unsound: what is wrong with the data it was trained on, by period; empty where nothing is.
        limits: of the gate.
    """

    comparison: Comparison
    eligibility: Limits
    unsound: Mapping[str, str] = field(default_factory=dict)
    limits: PromotionLimits = PromotionLimits()


@dataclass(frozen=True)
class PromotionVerdict:
    """What was decided about a challenger, and why.

    Attributes:
        decision: PROMOTE, HOLD or REJECT.
        reasons: one sentence each, with the figures.
    """

    decision: Decision
    reasons: tuple[str, ...]


def judge_first(challenger: str | None, choice: tuple[str, ...]) -> PromotionVerdict:
    """The verdict on a challenger where no model is in force.

    Args:
        challenger: its model version; ``None`` where no k was eligible.
        choice: why its k was chosen, or why none was.
    """
    if challenger is None:
        return PromotionVerdict("REJECT", choice)
    return PromotionVerdict("PROMOTE", ("It is the first model that keeps every limit.", *choice))


def judge_challenger(trial: Trial) -> PromotionVerdict:
    """The verdict on a challenger where a model is in force.

    The first of these that has a reason decides: REJECT, HOLD, PROMOTE.

    Args:
        trial: what it was held against, and by which limits.
    """
    rejected = tuple(_missed(trial))
    if rejected:
        return PromotionVerdict("REJECT", rejected)
    better, doubts = tuple(_better(trial)), tuple(_doubts(trial))
    if doubts or not better:
        return PromotionVerdict("HOLD", (*doubts, *(better or _not_better(trial))))
    return PromotionVerdict("PROMOTE", (*better, *_kept(trial)))


def _missed(trial: Trial) -> Iterator[str]:
    """Why it cannot be in force."""
    seen, limits, eligibility = trial.comparison, trial.limits, trial.eligibility
    for name, value, least in (
        ("mean bootstrap ARI", seen.bootstrap_ari, eligibility.min_bootstrap_ari),
        ("least stable segment's Jaccard", seen.worst_jaccard, eligibility.min_jaccard),
    ):
        if value is None or value < least:
            yield f"it is not stable: {name} {'is not known' if value is None else f'{value:.3f}'}, at least {least:g}"
    if seen.smallest_segment < eligibility.min_customers or seen.smallest_share < eligibility.min_share:
        yield (
            f"its smallest segment has {seen.smallest_segment:,} customers ({seen.smallest_share:.1%}), at least "
            f"{eligibility.min_customers:,} and {eligibility.min_share:.1%}"
        )
    if trial.unsound:
        yield "it was trained on broken data: " + "; ".join(f"{key}: {it}" for key, it in sorted(trial.unsound.items()))
    for one in seen.validity:
        if one.high < 0 and one.difference <= -limits.min_validity_gain:
            yield f"it foresees less: {_validity(one)}"
    if seen.coverage_gain <= -limits.min_coverage_gain:
        yield f"it covers fewer customers: {_coverage(seen)}"


def _better(trial: Trial) -> Iterator[str]:
    """What is clearly better about it."""
    seen, limits = trial.comparison, trial.limits
    yield from (f"it foresees more: {_validity(one)}" for one in seen.validity if _is_gain(one, limits))
    if seen.is_lasting and seen.fit_gain is not None and seen.fit_gain >= limits.min_fit_gain:
        yield f"it fits the customers of now better: {_fit(seen)}"
    if seen.is_lasting and seen.coverage_gain >= limits.min_coverage_gain:
        yield f"it covers more customers: {_coverage(seen)}"


def _doubts(trial: Trial) -> Iterator[str]:
    """Why better is not good enough."""
    seen, limits = trial.comparison, trial.limits
    if not seen.validity:
        yield "there is no snapshot yet that could tell what its segments foresee"
    for one in seen.validity:
        if one.low <= -limits.max_validity_loss:
            yield f"it may foresee less by {limits.max_validity_loss:g} or more: {_validity(one)}"
    if seen.fit_gain_before is not None and seen.fit_gain_before <= -limits.min_fit_gain:
        yield (
            f"only the newest snapshot shows what it learned, which may be an error in the data: on the one before, a "
            f"fit like it has {-seen.fit_gain_before:.1%} more inertia than the champion"
        )
    is_worth_it = any(_is_gain(one, limits) for one in seen.validity)
    if seen.share_same_segment < limits.min_same_segment and not is_worth_it:
        yield (
            f"only {seen.share_same_segment:.1%} of the customers would keep their segment, at least "
            f"{limits.min_same_segment:.0%} where it does not foresee more"
        )


def _not_better(trial: Trial) -> tuple[str, ...]:
    seen = trial.comparison
    return (
        f"it is not clearly better than {seen.champion}",
        *(_validity(one) for one in seen.validity),
        _fit(seen),
        _coverage(seen),
    )


def _kept(trial: Trial) -> tuple[str, ...]:
    """What else there is to know about a challenger that is promoted."""
    seen = trial.comparison
    others = tuple(_validity(one) for one in seen.validity if not _is_gain(one, trial.limits))
    return (
        *others,
        f"{seen.share_same_segment:.1%} of the customers keep their segment",
        f"its smallest segment has {seen.smallest_segment:,} customers",
    )


def _is_gain(one: PairedValidity, limits: PromotionLimits) -> bool:
    return one.low > 0 and one.difference >= limits.min_validity_gain


def _validity(one: PairedValidity) -> str:
    return (
        f"order by {one.outcome} in the next period {one.challenger:.3f} against {one.champion:.3f}, "
        f"difference {one.difference:+.3f} (95 % interval {one.low:+.3f} to {one.high:+.3f})"
    )


def _fit(seen: Comparison) -> str:
    if seen.fit_gain is None:
        return "how much closer it lies to the current customers is not known: no fit with the champion's k"
    before = "not known" if seen.fit_gain_before is None else f"{seen.fit_gain_before:+.1%}"
    return (
        f"inertia per customer {seen.inertia_challenger:.3f} against {seen.inertia_champion:.3f}; at an equal number "
        f"of segments a gain of {seen.fit_gain:+.1%}, on the snapshot before {before}"
    )


def _coverage(seen: Comparison) -> str:
    return (
        f"{seen.coverage_challenger:.1%} of the customers within {seen.reach:.2f} of a centroid against "
        f"{seen.coverage_champion:.1%}"
    )
