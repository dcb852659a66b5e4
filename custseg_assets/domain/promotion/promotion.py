"""Whether a challenger becomes the champion, and why: the promotion gate.

The first model is measured by its own figures alone. After that a challenger has to be better than the champion on the
same data: one that misses a limit is rejected, one that is not clearly better is held, and what is not known speaks
against it. The figures come from ``comparison.py``; ``docs/retraining.md`` has what the limits were chosen by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from custseg_assets.domain.bounds import Share
from custseg_assets.domain.promotion.comparison import Comparison
from custseg_assets.domain.promotion.validity import PairedValidity
from custseg_assets.domain.segments.clustering import Limits

Decision = Literal["PROMOTE", "HOLD", "REJECT"]

GATE = "gate"
"""Who decided where no person did."""

PromotionCode = Literal[
    "first_model",  # no model was in force
    "choice_of_k",  # why the first model has its number of segments
    "no_k_eligible",  # no number of segments keeps the limits
    "no_challenger",  # nothing was trained on the snapshot
    "unstable",  # refits on resamples find other segments
    "small_segment",  # a segment has too few customers
    "unsound_data",  # the challenger was trained on broken data
    "worse_validity",  # its segments foresee clearly less
    "covers_fewer",  # clearly fewer customers lie near a centroid
    "validity_unknown",  # no snapshot can tell what its segments foresee
    "validity_in_doubt",  # its segments may foresee less
    "only_newest_snapshot",  # the snapshot before contradicts what it learned
    "moves_customers",  # too many customers would change segment
    "not_better",  # nothing about it is clearly better
    "better_validity",  # its segments foresee clearly more
    "better_fit",  # it lies clearly closer to the current customers
    "covers_more",  # clearly more customers lie near a centroid
    "figure",  # decides nothing: a figure that is good to know
]
"""What a reason is about, for programs; the sentence beside it has the figures."""

Reason = tuple[PromotionCode, str]
"""A code and its sentence."""


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
class PromotionVerdict:
    """What was decided about a challenger, and why.

    Attributes:
        decision: PROMOTE, HOLD or REJECT.
        reasons: one sentence each, with the figures.
        codes: the code of each reason, in the same order.
    """

    decision: Decision
    reasons: tuple[str, ...]
    codes: tuple[PromotionCode, ...]


def _verdict(decision: Decision, *reasons: Reason) -> PromotionVerdict:
    return PromotionVerdict(decision, tuple(sentence for _, sentence in reasons), tuple(code for code, _ in reasons))


def keep_champion(champion: str) -> PromotionVerdict:
    """The verdict on a snapshot on which no challenger was trained.

    Args:
        champion: version of the model in force.
    """
    return _verdict(
        "HOLD", ("no_challenger", f"No challenger was trained on this snapshot; {champion} stays in force.")
    )


def decide_first_promotion(challenger: str | None, choice: tuple[str, ...]) -> PromotionVerdict:
    """The verdict on a challenger that cannot be compared: the first model, or none at all.

    Args:
        challenger: its model version; ``None`` where no k was eligible.
        choice: why its k was chosen, or why none was.
    """
    if challenger is None:
        return _verdict("REJECT", *(("no_k_eligible", sentence) for sentence in choice))
    reasons: list[Reason] = [("choice_of_k", sentence) for sentence in choice]
    return _verdict("PROMOTE", ("first_model", "It is the first model that keeps every limit."), *reasons)


def decide_promotion(
    comparison: Comparison, eligibility: Limits, *, unsound: Mapping[str, str], limits: PromotionLimits
) -> PromotionVerdict:
    """The verdict on a challenger where a model is in force.

    The first of these that has a reason decides: REJECT, HOLD, PROMOTE.

    Args:
        comparison: the figures of challenger and champion.
        eligibility: the limits of a number of clusters.
        unsound: what is wrong with the data the challenger was trained on, by period; empty where nothing is.
        limits: of the gate.
    """
    violations = (*_missed_limits(comparison, eligibility, unsound), *_losses(comparison, limits))
    if violations:
        return _verdict("REJECT", *violations)
    gains, doubts = tuple(_gains(comparison, limits)), tuple(_doubts(comparison, limits))
    if doubts or not gains:
        return _verdict("HOLD", *doubts, *(gains or _figures_without_gain(comparison)))
    return _verdict("PROMOTE", *gains, *_other_figures(comparison, limits))


def _missed_limits(comparison: Comparison, eligibility: Limits, unsound: Mapping[str, str]) -> Iterator[Reason]:
    """Which limits that need no champion the challenger misses."""
    for name, value, least in (
        ("mean bootstrap ARI", comparison.bootstrap_ari, eligibility.min_bootstrap_ari),
        ("least stable segment's Jaccard", comparison.worst_jaccard, eligibility.min_jaccard),
    ):
        if value is None or value < least:
            figure = "is not known" if value is None else f"{value:.3f}"
            yield "unstable", f"it is not stable: {name} {figure}, at least {least:g}"
    if comparison.smallest_segment < eligibility.min_customers or comparison.smallest_share < eligibility.min_share:
        sentence = (
            f"its smallest segment has {comparison.smallest_segment:,} customers ({comparison.smallest_share:.1%}), at "
            f"least {eligibility.min_customers:,} and {eligibility.min_share:.1%}"
        )
        yield "small_segment", sentence
    if unsound:
        faults = "; ".join(f"{period}: {fault}" for period, fault in sorted(unsound.items()))
        yield "unsound_data", f"it was trained on broken data: {faults}"


def _losses(comparison: Comparison, limits: PromotionLimits) -> Iterator[Reason]:
    """What is clearly worse about the challenger than about the champion."""
    for one in comparison.validity:
        if one.high < 0 and one.difference <= -limits.min_validity_gain:
            yield "worse_validity", f"it foresees less: {_validity_figure(one)}"
    if comparison.coverage_gain is not None and comparison.coverage_gain <= -limits.min_coverage_gain:
        yield "covers_fewer", f"it covers fewer customers: {_coverage_figure(comparison)}"


def _gains(comparison: Comparison, limits: PromotionLimits) -> Iterator[Reason]:
    """What is clearly better about the challenger."""
    for one in comparison.validity:
        if _is_gain(one, limits):
            yield "better_validity", f"it foresees more: {_validity_figure(one)}"
    if comparison.is_lasting and comparison.fit_gain is not None and comparison.fit_gain >= limits.min_fit_gain:
        yield "better_fit", f"it fits the customers of now better: {_fit_figure(comparison)}"
    gain = comparison.coverage_gain
    if comparison.is_lasting and gain is not None and gain >= limits.min_coverage_gain:
        yield "covers_more", f"it covers more customers: {_coverage_figure(comparison)}"


def _doubts(comparison: Comparison, limits: PromotionLimits) -> Iterator[Reason]:
    """Why a gain is not enough."""
    if not comparison.validity:
        yield "validity_unknown", "there is no snapshot yet that could tell what its segments foresee"
    for one in comparison.validity:
        if one.low <= -limits.max_validity_loss:
            sentence = f"it may foresee less by {limits.max_validity_loss:g} or more: {_validity_figure(one)}"
            yield "validity_in_doubt", sentence
    if comparison.fit_gain_before is not None and comparison.fit_gain_before <= -limits.min_fit_gain:
        sentence = (
            f"only the newest snapshot shows what it learned, which may be an error in the data: on the one before, a "
            f"fit like it has {-comparison.fit_gain_before:.1%} more inertia than the champion"
        )
        yield "only_newest_snapshot", sentence
    is_worth_it = any(_is_gain(one, limits) for one in comparison.validity)
    if comparison.share_same_segment < limits.min_same_segment and not is_worth_it:
        sentence = (
            f"only {comparison.share_same_segment:.1%} of the customers would keep their segment, at least "
            f"{limits.min_same_segment:.0%} where it does not foresee more"
        )
        yield "moves_customers", sentence


def _figures_without_gain(comparison: Comparison) -> Iterator[Reason]:
    """That nothing is clearly better, and every figure that could have been."""
    yield "not_better", f"it is not clearly better than {comparison.champion}"
    for one in comparison.validity:
        yield "figure", _validity_figure(one)
    if comparison.reach is None:
        yield "figure", "it is of another kind than the champion, so how close customers lie cannot be compared"
        return
    yield "figure", _fit_figure(comparison)
    yield "figure", _coverage_figure(comparison)


def _other_figures(comparison: Comparison, limits: PromotionLimits) -> Iterator[Reason]:
    """What else there is to know about a challenger that is promoted."""
    for one in comparison.validity:
        if not _is_gain(one, limits):
            yield "figure", _validity_figure(one)
    yield "figure", f"{comparison.share_same_segment:.1%} of the customers keep their segment"
    yield "figure", f"its smallest segment has {comparison.smallest_segment:,} customers"


def _is_gain(one: PairedValidity, limits: PromotionLimits) -> bool:
    return one.low > 0 and one.difference >= limits.min_validity_gain


def _validity_figure(one: PairedValidity) -> str:
    return (
        f"order by {one.outcome} in the next period {one.challenger:.3f} against {one.champion:.3f}, "
        f"difference {one.difference:+.3f} (95 % interval {one.low:+.3f} to {one.high:+.3f})"
    )


def _fit_figure(comparison: Comparison) -> str:
    if comparison.fit_gain is None:
        return "how much closer it lies to the current customers is not known: no fit with the champion's k"
    before = "not known" if comparison.fit_gain_before is None else f"{comparison.fit_gain_before:+.1%}"
    return (
        f"inertia per customer {comparison.inertia_challenger:.3f} against {comparison.inertia_champion:.3f}; at an "
        f"equal number of segments a gain of {comparison.fit_gain:+.1%}, on the snapshot before {before}"
    )


def _coverage_figure(comparison: Comparison) -> str:
    return (
        f"{comparison.coverage_challenger:.1%} of the customers within {comparison.reach:.2f} of a centroid against "
        f"{comparison.coverage_champion:.1%}"
    )
