"""The report of a campaign: each figure with its interval and a verdict in words.

The headline is return over all segments, for every campaign: it is named before the start, so that nobody picks the
figure that happens to please. A verdict waits for the end of the campaign: who looks every day until a figure pleases
is pleased by chance. How effects are estimated belongs in ``estimate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from custseg_assets.domain.campaigns.estimate import MIN_GROUP, Effect, Stratum, estimate_effects
from custseg_assets.domain.campaigns.outcomes import OUTCOMES, RETURN, SPEND, cap_spend
from custseg_assets.domain.campaigns.split import SplitCheck
from custseg_assets.domain.transactions.quality import count_of

ALL = "all"
MORE, LESS, CANNOT_TELL, SO_FAR, NO_DATA = "more", "less", "cannot tell", "so far", "no data yet"
VERDICTS = (MORE, LESS, CANNOT_TELL, SO_FAR, NO_DATA)


@dataclass(frozen=True)
class Progress:
    """How far the data reach into a campaign.

    Attributes:
        days: of the campaign; until it was ended, where a person did.
        days_observed: how many of them the data have.
    """

    days: int
    days_observed: int

    @property
    def is_over(self) -> bool:
        """Whether nothing is missing."""
        return self.days_observed >= self.days


def report_figures(
    groups: pl.DataFrame,
    outcomes: pl.DataFrame,
    split: SplitCheck,
    progress: Progress,
    *,
    cap: float | None,
    smallest: Mapping[str, Mapping[str, float | None]],
    seed: int,
) -> list[dict[str, Any]]:
    """The rows of a campaign's report, without what is the same in all of them.

    Args:
        groups: of the campaign.
        outcomes: of its customers, in the same order; see ``outcomes.count_outcomes``.
        split: what the check of the split found.
        progress: how far the data reach.
        cap: of spend; ``None`` where spend has no figure.
        smallest: the smallest uplift that could be seen: outcome → segment, or ``all`` → in the outcome's unit.
        seed: of the splits that effects are compared with.
    """
    names = dict(groups.select("segment_id", "segment_name").unique().sort("segment_id").iter_rows())
    segments, is_held = groups["segment_id"].to_numpy(), groups["is_holdout"].to_numpy()
    places = [np.flatnonzero(segments == name) for name in names]
    held = [np.flatnonzero(is_held[place]) for place in places]
    rows: list[dict[str, Any]] = []
    for name in OUTCOMES:
        outcome = outcomes[name].to_numpy()
        counted = cap_spend(outcome, cap) if name == SPEND else outcome
        covariate = groups[f"{name}_covariate"].to_numpy()
        strata = [Stratum(counted[place], covariate[place], len(out)) for place, out in zip(places, held, strict=True)]
        has_figure = progress.days_observed > 0 and (name == RETURN or cap is not None)
        overall, single = estimate_effects(strata, held, seed) if has_figure else (None, [None] * len(strata))
        sizes = [(one.n_audience, one.n_holdout) for one in strata]
        # As in what was foreseen: a segment without a variance of its own is in no figure over all.
        among = [(one.n_audience, one.n_holdout) for one in strata if one.is_comparable]
        sizes_and_all = [(sum(size[0] for size in among), sum(size[1] for size in among)), *sizes]
        for segment, effect, size in zip((ALL, *names), (overall, *single), sizes_and_all, strict=True):
            figure = _Figure(name, effect, *size, smallest.get(name, {}).get(segment), cap)
            verdict, reason = _judge(figure, split, progress)
            rows.append(
                {
                    "figure": name,
                    "segment_id": segment,
                    "segment_name": names.get(segment),
                    "is_headline": name == RETURN and segment == ALL,
                    "verdict": verdict,
                    "reason": reason,
                    "n_audience": figure.n_audience,
                    "n_holdout": figure.n_holdout,
                    **_figures_of(effect),
                    "smallest_uplift": figure.smallest,
                    "days": progress.days,
                    "days_observed": progress.days_observed,
                    "is_split_as_planned": split.is_as_planned,
                    "n_vanished": split.n_vanished,
                }
            )
    return rows


@dataclass(frozen=True)
class _Figure:
    """One figure before there is a verdict.

    Attributes:
        outcome: that it is of.
        effect: of the campaign, where it can be estimated.
        n_audience: customers written to.
        n_holdout: customers held out.
        smallest: uplift that was to be seen.
        cap: of spend.
    """

    outcome: str
    effect: Effect | None
    n_audience: int
    n_holdout: int
    smallest: float | None
    cap: float | None

    def in_unit(self, value: float) -> str:
        return in_unit(self.outcome, value)


def _figures_of(effect: Effect | None) -> dict[str, float | None]:
    if effect is None:
        return dict.fromkeys(
            (
                "audience_mean",
                "holdout_mean",
                "effect",
                "effect_low",
                "effect_high",
                "relative_effect",
                "p_value",
            )
        )
    return {
        "audience_mean": effect.audience_mean,
        "holdout_mean": effect.holdout_mean,
        "effect": effect.effect,
        "effect_low": effect.low,
        "effect_high": effect.high,
        "relative_effect": effect.effect / effect.holdout_mean if effect.holdout_mean > 0 else None,
        "p_value": effect.p_value,
    }


def _judge(figure: _Figure, split: SplitCheck, progress: Progress) -> tuple[str, str]:
    """A figure's verdict, and why."""
    if split.is_as_planned and progress.days_observed <= 0:
        if progress.days == 0:
            return NO_DATA, "no data: it was ended before its first day, and never took place"
        return NO_DATA, "no data yet: the log ends before its first day"
    effect = figure.effect
    if not split.is_as_planned or effect is None:
        return CANNOT_TELL, f"cannot tell: {_why_no_effect(figure) if split.is_as_planned else split.words}"
    return _judge_effect(figure, effect, progress)


def _judge_effect(figure: _Figure, effect: Effect, progress: Progress) -> tuple[str, str]:
    interval = f"{figure.in_unit(effect.low)} to {figure.in_unit(effect.high)}"
    if not progress.is_over:
        return SO_FAR, (
            f"so far {figure.in_unit(effect.effect)} ({interval}) after {progress.days_observed} of {progress.days} "
            "days: what it comes to is not known before the end"
        )
    if effect.effect == 0 and effect.low == effect.high:
        return CANNOT_TELL, "cannot tell: all customers of both groups did the same"
    if effect.is_alarm:
        verdict = MORE if effect.effect > 0 else LESS
        return verdict, f"{verdict}: {figure.in_unit(effect.effect)} ({interval})"
    could = f"; the smallest it was to see is {figure.in_unit(figure.smallest)}" if figure.smallest is not None else ""
    return CANNOT_TELL, f"cannot tell: {interval}, which has both more and less in it{could}"


def _why_no_effect(figure: _Figure) -> str:
    if figure.outcome == SPEND and figure.cap is None:
        return "no earlier spend said before the start where to cap it"
    n = count_of(min(figure.n_audience, figure.n_holdout), "customer")
    return f"{n} in the smaller group, {MIN_GROUP} are needed"


def in_unit(figure: str, value: float) -> str:
    """A difference in words: points of the share who ordered, or currency.

    >>> in_unit("return", 0.031), in_unit("spend", -2.5)
    ('+3.1 points', '-2.50')
    """
    return f"{100 * value:+.1f} points" if figure == RETURN else f"{value:+,.2f}"


def sort_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows as people read them: the headline, the other figure over all segments, and then each segment."""
    return sorted(rows, key=lambda row: (row["segment_id"] != ALL, row["segment_id"], OUTCOMES.index(row["figure"])))
