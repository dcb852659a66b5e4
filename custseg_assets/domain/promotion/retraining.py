"""Whether a challenger should be trained now, and why, or why not.

Only drift is a reason to retrain, and only drift that lasts. Everything else here is a reason to wait: data that have
to be put right first, a training that was not long ago, a budget that is used up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

from custseg_assets.domain.bounds import Count, CountFromOne
from custseg_assets.domain.periods import start_of

Decision = Literal["RETRAIN", "WAIT"]

QUARTER = timedelta(days=92)
BREACH, NOT_JUDGED = "breach", "not enough data"


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
        verdict: of the newest drift report.
        n_breaches: breaches among the snapshots that were looked at.
        n_judged: how many of them the drift report could judge.
    """

    decision: Decision
    reasons: tuple[str, ...]
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
) -> RetrainVerdict:
    """The decision at a snapshot; later snapshots and trainings have no part in it.

    Args:
        period: key of the snapshot.
        reports: ``drift_report`` rows, that of the snapshot among them.
        trained_on: snapshot of the model in force when this one came; reports up to its own are of no account.
        trainings: keys of the snapshots that anything was trained on.
        unsound: what is wrong with the data of the snapshot's window, by period; empty where nothing is.
        rules: what it takes.
        cost: of a training; ``None`` where it costs nothing.
    """
    verdicts = _verdicts(reports, period)
    newest = verdicts[period]
    seen = dict([(key, verdict) for key, verdict in verdicts.items() if key > trained_on][-rules.of_last :])
    breaches = [key for key, verdict in seen.items() if verdict == BREACH]
    earlier = [key for key in trainings if key < period]
    checks = (
        _evidence(seen, breaches, newest, trained_on, rules),
        _rest([key for key in verdicts if earlier and key > earlier[-1]], earlier, rules),
        _budget(period, earlier, rules),
        *((_money(period, earlier, cost),) if cost else ()),
        _data(unsound),
        (rules.is_on, "retraining is switched on" if rules.is_on else "retraining is switched off ([retrain] is_on)"),
    )
    against = tuple(words for holds, words in checks if not holds)
    return RetrainVerdict(
        decision="WAIT" if against else "RETRAIN",
        reasons=against or tuple(words for _, words in checks[:-1]),
        verdict=newest,
        n_breaches=len(breaches),
        n_judged=sum(verdict != NOT_JUDGED for verdict in seen.values()),
    )


Check = tuple[bool, str]
"""Whether it speaks for a training, and the sentence that says so."""


def _verdicts(reports: pl.DataFrame, period: str) -> dict[str, str]:
    """The verdict of every snapshot so far, oldest first."""
    so_far = reports.filter(pl.col("period") <= period).select("period", "verdict")
    return dict(so_far.unique().sort("period").iter_rows())


def _evidence(
    seen: Mapping[str, str], breaches: Sequence[str], newest: str, trained_on: str, rules: RetrainRules
) -> Check:
    if not seen:
        return (
            False,
            f"the model in force was trained on this snapshot, {trained_on}: there is nothing to judge it by yet",
        )
    found = (
        f"{len(breaches)} of the last {len(seen)} snapshots since the model of {trained_on} "
        f"{'is a breach' if len(breaches) == 1 else 'are breaches'}" + (f" ({', '.join(breaches)})" if breaches else "")
    )
    if newest != BREACH:
        return False, f"the newest drift report says {newest}; {found}"
    return len(breaches) >= rules.min_breaches, f"{found}; it takes {rules.min_breaches} of {rules.of_last}"


def _rest(since: Sequence[str], earlier: Sequence[str], rules: RetrainRules) -> Check:
    if not earlier:
        return True, "nothing was trained before"
    ago = f"{len(since)} {'snapshot' if len(since) == 1 else 'snapshots'} ago"
    return len(since) >= rules.cooldown_snapshots, (
        f"the last training was on {earlier[-1]}, {ago}; it takes {rules.cooldown_snapshots}"
    )


def of_quarter(period: str, trainings: Sequence[str]) -> list[str]:
    """The trainings before a snapshot that are no more than 92 days old when it comes."""
    return [key for key in trainings if start_of(period) - QUARTER < start_of(key) < start_of(period)]


def _budget(period: str, earlier: Sequence[str], rules: RetrainRules) -> Check:
    recent = of_quarter(period, earlier)
    return len(recent) < rules.max_per_quarter, (
        f"{len(recent)} of {rules.max_per_quarter} trainings of a quarter ({QUARTER.days} days) are used"
        + (f": {', '.join(recent)}" if recent else "")
    )


def _money(period: str, earlier: Sequence[str], cost: TrainingCost) -> Check:
    n_before = len(of_quarter(period, earlier))
    if cost.per_training is None:
        return False, "what a training would cost is not known (say it with [gcp.training] price_per_hour)"
    return cost.allows(n_before), (
        f"trainings of the quarter count as {n_before * cost.per_training:.2f} USD and another can cost "
        f"{cost.per_training:.2f}; allowed are {cost.max_per_quarter:.2f} ([gcp.training] max_cost_per_quarter)"
    )


def _data(unsound: Mapping[str, str]) -> Check:
    if not unsound:
        return True, "the data of the window are sound"
    return False, "fix the data first: " + "; ".join(f"{key}: {words}" for key, words in sorted(unsound.items()))
