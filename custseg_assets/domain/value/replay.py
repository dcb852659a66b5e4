"""Which method predicts best, by replaying earlier days; and what is fitted and predicted at a day.

At each earlier day every method is fitted on what was known then, and compared with what came, as far as that is known
now. What is learnt at a day and how it did there is the same whichever later day asks, so it is kept for all snapshots
of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.value.days import (
    CustomerDays,
    Known,
    Seen,
    date_of,
    known_at,
    learning_days,
    sampled,
    seen_within,
)
from custseg_assets.domain.value.intervals import (
    AmountInterval,
    ProbabilityInterval,
    Replayed,
    deciles,
    expit,
    half_width,
    interval_of_amount,
    interval_of_probability,
    logit,
)
from custseg_assets.domain.value.kept_fits import Fits, KeptFits
from custseg_assets.domain.value.methods import (
    HORIZONS,
    METHODS,
    PROBABILITIES,
    SPEND,
    TARGETS,
    Figures,
    Fitted,
    Lesson,
    Lessons,
    Method,
    Segments,
    fit_btyd,
    fit_heads,
    fit_pace,
    fit_segment_mean,
    horizon_of,
    outcome_of,
)

Floats = NDArray[np.float64]

N_LESSONS = 6
"""Days that are learnt from at most, the newest ones."""
HALF_LIFE_DAYS = 30.0
"""A day to learn from counts half as much as one so many days later."""
N_REPLAYS = 6
"""Days that methods are tried on at most, for each target the newest ones."""
MIN_REPLAYED = 100
"""With fewer customers at an earlier day it tells nothing about methods."""

PlacedAt = Callable[[int], pl.DataFrame | None]
"""Gives ``customer_id`` and ``segment_id`` as they were known at a day; nothing where no snapshot had segments."""


@dataclass(frozen=True)
class MethodScore:
    """How a method did in the replays of one target; means over the days.

    Attributes:
        n_replays: days.
        n_customers: customers, each counted at every day.
        log_loss: of probabilities, in nats; ``None`` of orders and spend.
        auc: area under the ROC curve, of probabilities.
        calibration_error: mean distance of predicted and seen rate over deciles, of probabilities.
        gini: of the ranking by prediction, of orders and spend; 1 for the best ranking there is.
    """

    n_replays: int = 0
    n_customers: int = 0
    log_loss: float | None = None
    auc: float | None = None
    calibration_error: float | None = None
    gini: float | None = None


@dataclass(frozen=True)
class Level:
    """A figure of the whole shop: rate of customers who order, mean orders, or total spend.

    Attributes:
        predicted: the figure.
        low: lower end of its interval, from the misses of the replays.
        high: upper end of it.
        last_seen: what it was, of the newest day whose outcomes are known; ``None`` where none is.
    """

    predicted: float
    low: float
    high: float
    last_seen: float | None


@dataclass(frozen=True)
class ValueModel:
    """What is fitted at a day, and how well that has worked.

    Attributes:
        at: the day.
        method: that was chosen.
        sentence: why, in words.
        fitted: the method.
        candidates: every method with what was fitted; ``None`` where it cannot predict every target yet.
        scores: method → target → how it did.
        replays: target → the chosen method's predictions of earlier days, and what came.
        taught: target → days that were learnt from, and customers of all of them.
        last_seen: target → what the shop's figure was last.
    """

    at: int
    method: Method
    sentence: str
    fitted: Fitted
    candidates: Mapping[Method, Fitted | None]
    scores: Mapping[Method, Mapping[str, MethodScore]]
    replays: Mapping[str, Sequence[Replayed]]
    taught: Mapping[str, tuple[tuple[int, ...], int]]
    last_seen: Mapping[str, float]

    def intervals(self) -> Mapping[str, ProbabilityInterval | AmountInterval]:
        """The interval of each target."""
        return {
            target: interval_of_probability(self.replays[target])
            if target in PROBABILITIES
            else interval_of_amount(self.replays[target])
            for target in TARGETS
        }

    def level(self, target: str, total: float, n_customers: int) -> Level:
        """A figure of the whole shop, with its interval.

        Args:
            target: whose.
            total: sum of the predictions of all customers.
            n_customers: how many they are.
        """
        figure = total if target == SPEND else total / max(n_customers, 1)
        width = half_width([_miss(target, one) for one in self.replays[target]], len(self.replays[target]))
        if target in PROBABILITIES:
            low, high = (float(expit(logit(figure) + sign * width)) for sign in (-1, 1))
        else:
            low, high = (figure * float(np.exp(sign * width)) for sign in (-1, 1))
        return Level(figure, min(low, figure), max(high, figure), self.last_seen.get(target))

    def calibration(self, target: str) -> list[dict[str, object]]:
        """Predicted against seen, by day replayed and decile of the prediction."""
        return [
            {
                "day": str(date_of(one.at)),
                "decile": number,
                "n_customers": len(part),
                "predicted": round(float(one.predicted[part].mean()), 4),
                "seen": round(float(one.seen[part].mean()), 4),
            }
            for one in self.replays[target]
            for number, part in enumerate(deciles(one.predicted), start=1)
        ]


def _miss(target: str, one: Replayed) -> float:
    """How far the shop's figure was from what was predicted, as a logit or logarithm."""
    if target in PROBABILITIES:
        return float(logit(float(one.seen.mean())) - logit(float(one.predicted.mean())))
    predicted, seen = max(float(one.predicted.sum()), 1e-9), float(one.seen.sum())
    # A shop that took back more than it sold is off by as much as can be told.
    return float(np.clip(np.log(max(seen, 1e-9) / predicted), -2.0, 2.0))


@dataclass(frozen=True)
class _Learnt:
    """What is known at a day to learn from: some of the customers, if there are many."""

    known: Known
    segments: Segments
    n_known: int


@dataclass
class History:
    """The days of a shop's customers, with what has been learnt from them so far.

    Args:
        days: of all customers or, of very many, of those who are learnt from.
        placed_at: which segments customers were in.
        first_day: of the log.
        count_known: how many customers are known at a day, where ``days`` has not all of them.
        kept_fits: what earlier runs fitted.
    """

    days: CustomerDays
    placed_at: PlacedAt
    first_day: int
    count_known: Callable[[int], int] | None = None
    kept_fits: KeptFits = field(default_factory=lambda: KeptFits({}))
    _learnt: dict[int, _Learnt] = field(default_factory=dict)
    _seen: dict[tuple[int, int], Seen] = field(default_factory=dict)
    _fitted: dict[object, Fits] = field(default_factory=dict)
    _predicted: dict[int, Mapping[Method, Figures]] = field(default_factory=dict)
    _scores: dict[tuple[int, str, Method], _Score] = field(default_factory=dict)

    def fit(self, at: int) -> ValueModel:
        """Choose a method for a day, by replaying the days before it."""
        candidates = self._fit_all(at)
        eligible = [method for method in METHODS if (one := candidates[method]) and one.targets >= {*TARGETS}]
        days = {target: self._replay_days(at, target, eligible) for target in TARGETS}
        trials = [(day, target) for target in PROBABILITIES for day in days[target]]
        scores = {
            method: {target: self._mean_score(days[target], target, method) for target in TARGETS}
            for method in eligible
        }
        if trials:
            losses = {
                method: float(np.mean([self._score(day, target, method).log_loss for day, target in trials]))
                for method in eligible
            }
            # min() keeps the first of equals, and METHODS has the simplest first.
            chosen = min(eligible, key=lambda method: losses[method])
            sentence = self._tell_choice(chosen, losses, trials)
        else:
            chosen, days = "segment_mean", dict.fromkeys(TARGETS, ())
            sentence = self._tell_too_little(at)
        fitted = candidates[chosen] if chosen in eligible else None
        if fitted is None:
            learnt = self._learnt_at(at)
            fitted = fit_pace(learnt.known, learnt.segments)
        return ValueModel(
            at=at,
            method=chosen,
            sentence=sentence,
            fitted=fitted,
            candidates={method: candidates[method] if method in eligible else None for method in METHODS},
            scores=scores,
            replays={
                target: [Replayed(day, self._predict(day)[chosen][target], self._outcome(day, target)) for day in ones]
                for target, ones in days.items()
            },
            taught={target: self._count_taught(at, target) for target in TARGETS},
            last_seen={target: figure for target in TARGETS if (figure := self._last_seen(at, target)) is not None},
        )

    def _learnt_at(self, at: int) -> _Learnt:
        if at not in self._learnt:
            known = known_at(self.days, at)
            n_known = self.count_known(at) if self.count_known else len(known.customers)
            known = known.only(sampled(self.days.ids.gather(known.customers), n_known))
            segments = find_segments(self.days.ids.gather(known.customers), self.placed_at(at))
            self._learnt[at] = _Learnt(known, segments, n_known)
        return self._learnt[at]

    def _seen_within(self, day: int, horizon: int) -> Seen:
        if (day, horizon) not in self._seen:
            self._seen[day, horizon] = seen_within(self.days, self._learnt_at(day).known, horizon)
        return self._seen[day, horizon]

    def _outcome(self, day: int, target: str) -> Floats:
        return outcome_of(target, self._seen_within(day, horizon_of(target)))

    def _taught(self, at: int, horizon: int) -> tuple[int, ...]:
        """The days to learn from at a day: all of their horizon is over by then."""
        return learning_days(self.first_day, at - horizon)[-N_LESSONS:]

    def _fit_all(self, at: int) -> Fits:
        """Every method as it is fitted at a day; ``None`` where there is nothing to fit it on."""
        taught = {horizon: self._taught(at, horizon) for horizon in HORIZONS}
        newest = learning_days(self.first_day, at)[-1:]
        key = (*taught.values(), newest)
        if key not in self._fitted:
            lessons = {
                horizon: [self._lesson(day, horizon, days[-1]) for day in days] for horizon, days in taught.items()
            }
            known = self._learnt_at(newest[0]).known if newest else None
            self._fitted[key] = self.kept_fits.fit(lessons, known, partial(_fit, lessons, known))
        return self._fitted[key]

    def _lesson(self, day: int, horizon: int, newest: int) -> Lesson:
        learnt, weight = self._learnt_at(day), 0.5 ** ((newest - day) / HALF_LIFE_DAYS)
        return Lesson(learnt.known, learnt.segments, self._seen_within(day, horizon), weight)

    def _predict(self, day: int) -> Mapping[Method, Figures]:
        """What every method that can predict anything at a day would have predicted."""
        if day not in self._predicted:
            learnt = self._learnt_at(day)
            self._predicted[day] = {
                method: one.predict(learnt.known, learnt.segments)
                for method, one in self._fit_all(day).items()
                if one is not None
            }
        return self._predicted[day]

    def _replay_days(self, at: int, target: str, methods: Sequence[Method]) -> tuple[int, ...]:
        """The newest days that methods can be tried on: their horizon is over, and each could predict the target."""
        found = list[int]()
        for day in reversed(learning_days(self.first_day, at - horizon_of(target))):
            if len(found) == N_REPLAYS or not methods or not self._taught(day, horizon_of(target)):
                break
            is_enough = len(self._learnt_at(day).known.customers) >= MIN_REPLAYED
            if is_enough and all(target in self._predict(day).get(method, {}) for method in methods):
                found.append(day)
        return tuple(reversed(found))

    def _score(self, day: int, target: str, method: Method) -> _Score:
        if (day, target, method) not in self._scores:
            self._scores[day, target, method] = _score(
                self._predict(day)[method][target], self._outcome(day, target), is_probability=target in PROBABILITIES
            )
        return self._scores[day, target, method]

    def _mean_score(self, days: Sequence[int], target: str, method: Method) -> MethodScore:
        scores = [self._score(day, target, method) for day in days]
        n_customers = sum(len(self._learnt_at(day).known.customers) for day in days)

        def mean(name: str) -> float | None:
            known = [value for one in scores if (value := getattr(one, name)) is not None]
            return float(np.mean(known)) if known else None

        names = ("log_loss", "auc", "calibration_error", "gini")
        return MethodScore(len(days), n_customers, *(mean(name) for name in names))

    def _count_taught(self, at: int, target: str) -> tuple[tuple[int, ...], int]:
        days = self._taught(at, horizon_of(target))
        return days, sum(len(self._learnt_at(day).known.customers) for day in days)

    def _last_seen(self, at: int, target: str) -> float | None:
        days = self._taught(at, horizon_of(target))
        if not days:
            return None
        outcome, learnt = self._outcome(days[-1], target), self._learnt_at(days[-1])
        mean = float(outcome.mean()) if len(outcome) else 0.0
        return mean * learnt.n_known if target == SPEND else mean

    def _tell_choice(self, chosen: Method, losses: Mapping[Method, float], trials: Sequence[tuple[int, str]]) -> str:
        n_days = len({day for day, _ in trials})
        n_customers = sum(len(self._learnt_at(day).known.customers) for day, _ in trials)
        others = sorted((method for method in losses if method != chosen), key=lambda method: losses[method])
        tried = (
            f"{n_customers:,} predictions of whether a customer orders, replayed as of {_count(n_days, 'earlier day')}"
        )
        if not others:
            return f"{chosen} is used: no other method can be fitted yet; log loss {losses[chosen]:.3f} of {tried}."
        against = " and ".join(f"{losses[method]:.3f} ({method})" for method in others)
        low = self._least_lead(chosen, others[0], trials)
        caveat = "" if low > 0 else "; the lead is within its 95 % interval"
        return f"{chosen} won: log loss {losses[chosen]:.3f} of {tried}, against {against}{caveat}."

    def _least_lead(self, chosen: Method, other: Method, trials: Sequence[tuple[int, str]]) -> float:
        """Lower end of the 95 % interval of how much less the log loss is than another's, over the trials' customers.

        Trials of one customer are taken as one, for they are not independent: its losses are summed first.
        """
        leads = np.zeros(len(self.days.ids))
        counts = np.zeros(len(self.days.ids))
        for day, target in trials:
            seen, predicted = self._outcome(day, target), self._predict(day)
            customers = self._learnt_at(day).known.customers
            leads[customers] += _losses(predicted[other][target], seen) - _losses(predicted[chosen][target], seen)
            counts[customers] += 1
        of_tried = leads[counts > 0]
        return float(of_tried.mean() - 1.96 * of_tried.std() / np.sqrt(len(of_tried)))

    def _tell_too_little(self, at: int) -> str:
        n_known = self._learnt_at(at).n_known
        grid = learning_days(self.first_day, at)
        return (
            f"Too little history: the log has {_count(at - self.first_day, 'day')} and {_count(n_known, 'customer')}; "
            f"no method can be tried on an earlier day yet, which takes outcomes of two days a month apart, with "
            f"{MIN_REPLAYED} customers each ({_count(len(grid), 'such day')} so far). The segment's mean is used."
        )


def _fit(lessons: Lessons, newest: Known | None) -> Fits:
    has_lessons = any(lessons.values())
    return {
        "segment_mean": fit_segment_mean(lessons) if has_lessons else None,
        "bg_nbd": fit_btyd(newest) if newest else None,
        "logistic": fit_heads(lessons) if has_lessons else None,
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def find_segments(ids: pl.Series, placed: pl.DataFrame | None) -> Segments:
    """Segments of customers; ``None`` of those who have none.

    Args:
        ids: of the customers.
        placed: ``customer_id`` and ``segment_id``.
    """
    if placed is None:
        return np.full(len(ids), None, dtype=object)
    found = ids.alias("customer_id").to_frame().join(placed, on="customer_id", how="left", maintain_order="left")
    return np.asarray(found["segment_id"].to_list(), dtype=object)


@dataclass(frozen=True)
class _Score:
    """How a method did at one day."""

    log_loss: float | None = None
    auc: float | None = None
    calibration_error: float | None = None
    gini: float | None = None


def _losses(predicted: Floats, seen: Floats) -> Floats:
    p = np.clip(predicted, 1e-4, 1 - 1e-4)
    return -np.where(seen > 0, np.log(p), np.log1p(-p))


def _score(predicted: Floats, seen: Floats, *, is_probability: bool) -> _Score:
    if not is_probability:
        return _Score(gini=measure_gini(predicted, seen))
    return _Score(
        float(_losses(predicted, seen).mean()),
        measure_auc(predicted, seen),
        measure_calibration_error(predicted, seen),
    )


def measure_auc(predicted: Floats, seen: Floats) -> float | None:
    """Area under the ROC curve, equal predictions counted half; ``None`` where all or none were seen.

    >>> measure_auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 1.0, 0.0, 1.0]))
    0.875
    """
    n_seen = int((seen > 0).sum())
    if n_seen in (0, len(seen)):
        return None
    _, place, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    ranks = float(mean_rank[place][seen > 0].sum())
    return (ranks - n_seen * (n_seen + 1) / 2) / (n_seen * (len(seen) - n_seen))


def measure_calibration_error(predicted: Floats, seen: Floats) -> float:
    """Expected calibration error: mean distance of predicted and seen rate over the deciles of the prediction."""
    parts = deciles(predicted)
    return float(sum(abs(predicted[part].mean() - seen[part].mean()) * len(part) for part in parts) / len(predicted))


def measure_gini(predicted: Floats, seen: Floats) -> float | None:
    """How much of all that was seen stands first when ordered by prediction: 1 for the best order, 0 for chance.

    What was taken back counts as nothing; ``None`` where nothing was seen. Equal predictions share what they did.
    """
    got = np.maximum(seen, 0)
    if got.sum() <= 0 or len(got) < 2 or (got == got[0]).all():
        return None
    _, place, counts = np.unique(-predicted, return_inverse=True, return_counts=True)
    shared = np.repeat(np.bincount(place, got) / counts, counts)

    def area(ordered: Floats) -> float:
        return float((np.cumsum(ordered) / got.sum()).mean()) - (len(got) + 1) / (2 * len(got))

    return area(shared) / area(np.sort(got)[::-1])
