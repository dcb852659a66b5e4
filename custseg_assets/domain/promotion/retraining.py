"""Whether a challenger should be trained now, and why: the retrain decision.

Only drift is a reason to retrain, and only drift that lasts. Everything else here is a reason to wait: data that have
to be put right first, a training that was not long ago, a budget that is used up. Whether a trained challenger takes
over is decided in ``promotion.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

import polars as pl

from custseg_assets.domain.bounds import Count, CountFromOne
from custseg_assets.domain.periods import start_of

Decision = Literal["RETRAIN", "WAIT"]

QUARTER = timedelta(days=92)
BREACH, NOT_ENOUGH_DATA = "breach", "not enough data"

RetrainCode = Literal[
    "breaches_repeated",  # enough of the last snapshots are breaches, the newest among them
    "breaches_too_few",  # the newest snapshot is a breach, but too few before it are
    "no_breach_now",  # the newest snapshot is no breach
    "model_is_new",  # the model in force was trained on this snapshot
    "never_trained",  # nothing was trained before
    "cooldown_over",  # the last training was long enough ago
    "cooldown",  # the last training was not long ago
    "budget_left",  # the quarter has trainings left
    "budget_used",  # the quarter has none left
    "cost_allowed",  # the quarter has money left for a training
    "cost_too_high",  # the quarter has not
    "cost_unknown",  # no price is known
    "sound_data",  # the data of the window are as usual
    "unsound_data",  # the data of the window are broken
    "period_open",  # the snapshot's period is not over
    "switched_off",  # the settings allow no training
]
"""What a reason is about, for programs; the sentence beside it has the figures."""


@dataclass(frozen=True)
class RetrainRules:
    """When drift leads to a training.

    Attributes:
        is_on: whether drift starts trainings at all.
        min_breaches: drift reports among the last ``of_last`` that must be a breach, the newest among them.
        of_last: snapshots that are looked at; those before the model in force was trained never count.
        cooldown_snapshots: snapshots after a training before the next one may come.
        max_per_quarter: trainings within 92 days, whatever became of their models.

    Raises:
        ValueError: more breaches are needed than snapshots are looked at.
    """

    is_on: bool = True
    min_breaches: CountFromOne = 2
    of_last: CountFromOne = 3
    cooldown_snapshots: Count = 2
    max_per_quarter: Count = 2

    def __post_init__(self) -> None:
        if self.min_breaches > self.of_last:
            raise ValueError(f"min_breaches {self.min_breaches} must be at most of_last {self.of_last}")


@dataclass(frozen=True)
class TrainingCost:
    """What trainings cost where they are paid for, in USD.

    Attributes:
        per_training: what one can cost at most, and what each before counts as; missing where no price is known.
        max_per_quarter: what those of 92 days, the next one included, may come to.
    """

    per_training: float | None
    max_per_quarter: float

    def allows(self, n_before: int) -> bool:
        """Whether there is money for another training after so many; not knowing what it costs means no."""
        # A thousandth of a cent is rounding, not money.
        return self.per_training is not None and (n_before + 1) * self.per_training <= self.max_per_quarter + 1e-5


@dataclass(frozen=True)
class RetrainVerdict:
    """What was decided at a snapshot, and why.

    Attributes:
        decision: RETRAIN or WAIT.
        reasons: one sentence each; for WAIT everything that stands against a training.
        codes: the code of each reason, in the same order.
        verdict: of the newest drift report.
        n_breaches: breaches among the snapshots that were looked at.
        n_judged: how many of them the drift report could judge.
    """

    decision: Decision
    reasons: tuple[str, ...]
    codes: tuple[RetrainCode, ...]
    verdict: str
    n_breaches: int
    n_judged: int


def decide_retrain(
    period: str,
    reports: pl.DataFrame,
    *,
    trained_on: str,
    trainings: Sequence[str],
    unsound: Mapping[str, str],
    rules: RetrainRules,
    cost: TrainingCost | None = None,
    is_open: bool = False,
) -> RetrainVerdict:
    """The decision at a snapshot; later snapshots and trainings have no part in it.

    A period that is not over waits for its end, so that every training and every count is of whole periods.

    Args:
        period: key of the snapshot.
        reports: ``drift_report`` rows, that of the snapshot among them.
        trained_on: snapshot of the model in force when this one came; reports up to its own are of no account.
        trainings: keys of the snapshots that anything was trained on.
        unsound: what is wrong with the data of the snapshot's window, by period; empty where nothing is.
        rules: what it takes.
        cost: of a training; ``None`` where it costs nothing.
        is_open: whether the snapshot's period is not over.
    """
    verdicts = _verdicts_until(period, reports)
    recent = dict([(key, verdict) for key, verdict in verdicts.items() if key > trained_on][-rules.of_last :])
    breaches = [key for key, verdict in recent.items() if verdict == BREACH]
    earlier = [key for key in trainings if key < period]
    findings = [
        _check_breaches(recent, breaches, verdicts[period], trained_on, rules),
        _check_cooldown([key for key in verdicts if earlier and key > earlier[-1]], earlier, rules),
        _check_budget(period, earlier, rules),
        *([_check_cost(period, earlier, cost)] if cost else []),
        _check_data(unsound),
    ]
    against = [finding for finding in findings if not finding.is_for]
    if is_open:
        against.append(Finding(False, "period_open", f"the period {period} is not over; it is decided at its end"))
    if not rules.is_on:
        against.append(Finding(False, "switched_off", "retraining is switched off ([retrain] is_on)"))
    reasons = against or findings
    return RetrainVerdict(
        decision="WAIT" if against else "RETRAIN",
        reasons=tuple(finding.sentence for finding in reasons),
        codes=tuple(finding.code for finding in reasons),
        verdict=verdicts[period],
        n_breaches=len(breaches),
        n_judged=sum(verdict != NOT_ENOUGH_DATA for verdict in recent.values()),
    )


class Finding(NamedTuple):
    """Whether one thing speaks for a training, and how it is said: a code and a sentence."""

    is_for: bool
    code: RetrainCode
    sentence: str


def _verdicts_until(period: str, reports: pl.DataFrame) -> dict[str, str]:
    """The verdict of every snapshot so far, oldest first."""
    so_far = reports.filter(pl.col("period") <= period).select("period", "verdict")
    return dict(so_far.unique().sort("period").iter_rows())


def _check_breaches(
    recent: Mapping[str, str], breaches: Sequence[str], newest: str, trained_on: str, rules: RetrainRules
) -> Finding:
    if not recent:
        sentence = f"the model in force was trained on this snapshot, {trained_on}: there is nothing to judge it by yet"
        return Finding(False, "model_is_new", sentence)
    count = (
        f"{len(breaches)} of the last {len(recent)} snapshots since the model of {trained_on} "
        f"{'is a breach' if len(breaches) == 1 else 'are breaches'}" + (f" ({', '.join(breaches)})" if breaches else "")
    )
    if newest != BREACH:
        return Finding(False, "no_breach_now", f"the newest drift report says {newest}; {count}")
    is_enough = len(breaches) >= rules.min_breaches
    code: RetrainCode = "breaches_repeated" if is_enough else "breaches_too_few"
    return Finding(is_enough, code, f"{count}; it takes {rules.min_breaches} of {rules.of_last}")


def _check_cooldown(since: Sequence[str], earlier: Sequence[str], rules: RetrainRules) -> Finding:
    if not earlier:
        return Finding(True, "never_trained", "nothing was trained before")
    ago = f"{len(since)} {'snapshot' if len(since) == 1 else 'snapshots'} ago"
    is_over = len(since) >= rules.cooldown_snapshots
    sentence = f"the last training was on {earlier[-1]}, {ago}; it takes {rules.cooldown_snapshots}"
    return Finding(is_over, "cooldown_over" if is_over else "cooldown", sentence)


def of_quarter(period: str, trainings: Sequence[str]) -> list[str]:
    """The trainings before a snapshot that are no more than 92 days old when it comes."""
    return [key for key in trainings if start_of(period) - QUARTER < start_of(key) < start_of(period)]


def _check_budget(period: str, earlier: Sequence[str], rules: RetrainRules) -> Finding:
    used = of_quarter(period, earlier)
    is_left = len(used) < rules.max_per_quarter
    sentence = f"{len(used)} of {rules.max_per_quarter} trainings of a quarter ({QUARTER.days} days) are used"
    named = f": {', '.join(used)}" if used else ""
    return Finding(is_left, "budget_left" if is_left else "budget_used", f"{sentence}{named}")


def _check_cost(period: str, earlier: Sequence[str], cost: TrainingCost) -> Finding:
    n_before = len(of_quarter(period, earlier))
    if cost.per_training is None:
        sentence = "what a training would cost is not known (say it with [gcp.training] price_per_hour)"
        return Finding(False, "cost_unknown", sentence)
    is_allowed = cost.allows(n_before)
    sentence = (
        f"trainings of the quarter count as {n_before * cost.per_training:.2f} USD and another can cost "
        f"{cost.per_training:.2f}; allowed are {cost.max_per_quarter:.2f} ([gcp.training] max_cost_per_quarter)"
    )
    return Finding(is_allowed, "cost_allowed" if is_allowed else "cost_too_high", sentence)


def _check_data(unsound: Mapping[str, str]) -> Finding:
    if not unsound:
        return Finding(True, "sound_data", "the data of the window are sound")
    faults = "; ".join(f"{period}: {fault}" for period, fault in sorted(unsound.items()))
    return Finding(False, "unsound_data", f"fix the data first: {faults}")
