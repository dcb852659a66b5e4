"""The methods that predict value: the segment's mean, BG/NBD with Gamma-Gamma, and linear heads.

A method is fitted at a day on nothing but what was known then: outcomes of earlier days only where all of their days
were over. Which of them is used is decided in ``replay``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.segments.model import LAPSED
from custseg_assets.domain.value.bg_nbd import BgNbd, fit_bg_nbd
from custseg_assets.domain.value.days import Known, Seen
from custseg_assets.domain.value.gamma_gamma import GammaGamma, fit_gamma_gamma
from custseg_assets.domain.value.heads import Head, describe, fit_head

Floats = NDArray[np.float64]
Segments = NDArray[np.object_]
"""Segment id of each customer; ``None`` of one that has none yet."""

Method = Literal["segment_mean", "bg_nbd", "logistic"]
METHODS: tuple[Method, ...] = get_args(Method)
"""The ways to predict, simplest first.

* ``segment_mean``: what the customer's segment did on average from earlier days on, drawn towards the shop's mean.
* ``bg_nbd``: BG/NBD for orders, Gamma-Gamma for what they are worth; from the customer's own days, without outcomes.
* ``logistic``: a logistic head for each probability and a Poisson head for orders, on the customer's own days;
  spend is orders times the customer's own value of an order, drawn towards the middle of everybody's.
"""
HORIZONS = (30, 60, 90)
ORDERS, SPEND = "orders_90d", "spend_90d"
TARGETS = (*(f"order_{days}d" for days in HORIZONS), ORDERS, SPEND)
"""What is predicted of a customer: whether it orders within so many days, and orders and net spend in the longest."""
PROBABILITIES = TARGETS[: len(HORIZONS)]
Figures = Mapping[str, Floats]
"""Target → a value per customer."""

SEGMENT_PRIOR = 20
"""Customers of the shop's mean that are added to every segment's, so that a small one does not stand alone."""
VALUE_PRIOR = 0.5
"""Orders of a middling value that are added to every customer's: one huge order alone does not make a huge customer."""
ROBUST_QUANTILE = 0.995
"""What customers spent counts up to this quantile of all who spent, and orders likewise, where a mean is learnt."""
MIN_REPEAT_CUSTOMERS = 30
"""With fewer customers who came again BG/NBD is not fitted."""


def horizon_of(target: str) -> int:
    """Days that a target looks ahead."""
    return int(target.rpartition("_")[2].removesuffix("d"))


def outcome_of(target: str, seen: Seen) -> Floats:
    """What was seen of a target."""
    if target == SPEND:
        return seen.net
    return seen.n_orders if target == ORDERS else (seen.n_orders > 0).astype(float)


@dataclass(frozen=True)
class Lesson:
    """A day whose outcomes are known.

    Attributes:
        known: what was known of the customers then.
        segments: that they were in.
        seen: what they did within the horizon.
        weight: of each of them.
    """

    known: Known
    segments: Segments
    seen: Seen
    weight: float


Lessons = Mapping[int, Sequence[Lesson]]
"""Horizon → the days to learn from, oldest first; none where none is over."""


class Fitted(Protocol):
    """A method that was fitted."""

    @property
    def targets(self) -> frozenset[str]:
        """What it can predict."""

    def predict(self, known: Known, segments: Segments) -> Figures:
        """What customers will do; probabilities do not fall with the horizon."""

    def parameters(self) -> Mapping[str, object]:
        """What was fitted, as JSON can have it."""

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Fitted:
        """What has these parameters."""


def _growing(figures: dict[str, Floats]) -> Figures:
    """The figures with probabilities that do not fall with the horizon, none out of bounds, and no fewer orders."""
    least = None
    for target in PROBABILITIES:
        if target in figures:
            bounded = np.clip(figures[target], 0.0, 1.0)
            least = bounded if least is None else np.maximum(bounded, least)
            figures[target] = least
    if least is not None and ORDERS in figures:
        # Of what is at least 1 where it is not 0, the mean is no less than the probability that it is not 0.
        figures[ORDERS] = np.maximum(figures[ORDERS], figures.get(PROBABILITIES[-1], 0.0))
    return figures


@dataclass(frozen=True)
class SegmentMean:
    """Means by segment, of each target.

    Attributes:
        means: target → segment → its mean.
        shop: target → the whole shop's mean.
    """

    means: Mapping[str, Mapping[str, float]]
    shop: Mapping[str, float]

    @property
    def targets(self) -> frozenset[str]:
        """What it can predict."""
        return frozenset(self.shop)

    def predict(self, known: Known, segments: Segments) -> Figures:
        """The mean of each customer's segment; the shop's where it has none or nobody was in it before."""
        of_segment, numbers = np.unique([str(one) for one in segments], return_inverse=True)
        figures = {target: np.array([self._mean(target, one) for one in of_segment])[numbers] for target in self.shop}
        return _growing(figures) if len(known.customers) else dict.fromkeys(self.shop, np.zeros(0))

    def _mean(self, target: str, segment: str) -> float:
        means = self.means[target]
        if segment in means or segment != LAPSED.segment_id or not means:
            return means.get(segment, self.shop[target])
        # Nobody had lapsed yet on the days learnt from: who has will not do more than the least active segment did.
        return min(means.values())

    def parameters(self) -> Mapping[str, object]:
        """The means."""
        return {"shop": dict(self.shop), "segments": {target: dict(means) for target, means in self.means.items()}}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> SegmentMean:
        """What has these parameters."""
        return cls(parameters["segments"], parameters["shop"])


def fit_segment_mean(lessons: Lessons) -> SegmentMean:
    """Learn what segments did on average."""
    means: dict[str, dict[str, float]] = {}
    shop: dict[str, float] = {}
    for target in TARGETS:
        if not (of_target := lessons[horizon_of(target)]):
            continue
        outcome, weights = _outcomes(target, of_target)
        # Returns of earlier orders can outweigh what a segment spends; nobody is expected to spend less than nothing.
        shop[target] = max(float(np.average(outcome, weights=weights)), 0.0)
        segments = np.concatenate([lesson.segments for lesson in of_target])
        has_one = np.array([one is not None for one in segments], dtype=bool)
        names, numbers = np.unique(segments[has_one].astype(str), return_inverse=True)
        weighed, total = (np.bincount(numbers, one[has_one], len(names)) for one in (weights * outcome, weights))
        of_segments = np.maximum((weighed + SEGMENT_PRIOR * shop[target]) / (total + SEGMENT_PRIOR), 0.0)
        means[target] = dict(zip(names.tolist(), of_segments.tolist(), strict=True))
    return SegmentMean(means, shop)


def _outcomes(target: str, lessons: Sequence[Lesson]) -> tuple[Floats, Floats]:
    """What was seen of the customers of all lessons, capped where it has a heavy tail, and their weights."""
    outcome = np.concatenate([outcome_of(target, lesson.seen) for lesson in lessons])
    weights = np.concatenate([np.full(len(lesson.known.customers), lesson.weight) for lesson in lessons])
    if target in (ORDERS, SPEND) and (outcome > 0).any():
        outcome = np.minimum(outcome, np.quantile(outcome[outcome > 0], ROBUST_QUANTILE))
    return outcome, weights


def fit_pace(known: Known, segments: Segments) -> SegmentMean:
    """The mean pace of segments, where no outcome is known at all: order days after the first, a day.

    Customers of a segment have not all the same pace; it is taken to be exponentially distributed, so that of those
    with many orders on average not all are certain to order.

    Args:
        known: what is known of the customers.
        segments: that they are in.
    """
    again, days = np.maximum(known.n_days - 1, 0), known.tenure
    of_shop = (again.sum() + 0.5) / (days.sum() + HORIZONS[-1])
    middle = _middle_value(known)
    names, numbers = np.unique([str(one) for one in segments], return_inverse=True)
    pace = (np.bincount(numbers, again, len(names)) + of_shop * SEGMENT_PRIOR * HORIZONS[0]) / (
        np.bincount(numbers, days, len(names)) + SEGMENT_PRIOR * HORIZONS[0]
    )
    value = np.bincount(numbers, _own_value(known, middle), len(names)) / np.maximum(np.bincount(numbers), 1)
    by_target = {f"order_{ahead}d": pace * ahead / (1 + pace * ahead) for ahead in HORIZONS}
    by_target |= {ORDERS: pace * HORIZONS[-1], SPEND: pace * HORIZONS[-1] * value}
    shop = {f"order_{ahead}d": float(of_shop * ahead / (1 + of_shop * ahead)) for ahead in HORIZONS}
    shop |= {ORDERS: float(of_shop * HORIZONS[-1]), SPEND: float(of_shop * HORIZONS[-1] * middle)}
    means = {target: dict(zip(names.tolist(), of_all.tolist(), strict=True)) for target, of_all in by_target.items()}
    return SegmentMean(means, shop)


def _order_value(known: Known) -> tuple[Floats, Floats]:
    """Order days with a value, and their mean value: none where returns left nothing."""
    has_value = (known.n_days > 0) & (known.net > 0)
    n = np.where(has_value, known.n_days, 0.0)
    return n, np.where(has_value, known.net / np.maximum(known.n_days, 1), 0.0)


def _middle_value(known: Known) -> float:
    """The median over customers of the mean value of their order days; 0 where there is none."""
    n, mean = _order_value(known)
    return float(np.median(mean[n > 0])) if (n > 0).any() else 0.0


def _own_value(known: Known, middle: float) -> Floats:
    """What an order day of each customer is worth: its own mean, drawn towards the middle on a log scale."""
    n, mean = _order_value(known)
    if middle <= 0:
        return np.zeros(len(n))
    own = np.log(np.where(n > 0, mean, middle))
    return np.asarray(np.exp((n * own + VALUE_PRIOR * np.log(middle)) / (n + VALUE_PRIOR)))


@dataclass(frozen=True)
class Btyd:
    """BG/NBD with Gamma-Gamma.

    Attributes:
        orders: the BG/NBD, in days.
        values: the Gamma-Gamma; ``None`` where no order has a value.
    """

    orders: BgNbd
    values: GammaGamma | None

    @property
    def targets(self) -> frozenset[str]:
        """What it can predict."""
        return frozenset(TARGETS)

    def predict(self, known: Known, _: Segments) -> Figures:
        """What each customer will do by its own days; one without an order counts as if its first line had been one."""
        history = _repeats(known)
        figures = {f"order_{ahead}d": self.orders.p_order(*history, ahead) for ahead in HORIZONS}
        figures[ORDERS] = self.orders.expected_orders(*history, HORIZONS[-1])
        value = self.values.expected_value(*_order_value(known)) if self.values else np.zeros(len(known.customers))
        figures[SPEND] = figures[ORDERS] * value
        return _growing(figures)

    def parameters(self) -> Mapping[str, object]:
        """The parameters of both."""
        values = vars(self.values) if self.values else {}
        return {"bg_nbd": vars(self.orders), "gamma_gamma": values, "unit_of_time": "days"}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Btyd:
        """What has these parameters."""
        values = parameters["gamma_gamma"]
        return cls(BgNbd(**parameters["bg_nbd"]), GammaGamma(**values) if values else None)


def _repeats(known: Known) -> tuple[Floats, Floats, Floats]:
    """Repeat order days, the last of them since the first, and the time since the first."""
    return np.maximum(known.n_days - 1, 0.0), known.tenure - known.recency, known.tenure


def fit_btyd(known: Known) -> Btyd | None:
    """Fit BG/NBD and Gamma-Gamma to what is known at a day; nothing where too few customers came again."""
    x, t_x, t = _repeats(known)
    if (x > 0).sum() < MIN_REPEAT_CUSTOMERS:
        return None
    n, mean = _order_value(known)
    has_value = n > 0
    values = fit_gamma_gamma(n[has_value], mean[has_value]) if has_value.any() else None
    return Btyd(fit_bg_nbd(x, t_x, t), values)


@dataclass(frozen=True)
class Heads:
    """Linear heads, one per target but spend.

    Attributes:
        heads: by target.
        middle: what an order day of a middling customer is worth, in currency.
    """

    heads: Mapping[str, Head]
    middle: float

    @property
    def targets(self) -> frozenset[str]:
        """What it can predict."""
        return frozenset(self.heads) | ({SPEND} if ORDERS in self.heads else frozenset())

    def predict(self, known: Known, _: Segments) -> Figures:
        """What each customer will do by its own days."""
        features = describe(known)
        figures = {target: head.predict(features) for target, head in self.heads.items()}
        if ORDERS in figures:
            figures[SPEND] = figures[ORDERS] * _own_value(known, self.middle)
        return _growing(figures)

    def parameters(self) -> Mapping[str, object]:
        """The heads, and the value of an order."""
        heads = {target: head.as_dict() for target, head in self.heads.items()}
        return {"heads": heads, "middle_value_of_an_order": self.middle, "orders_added_to_it": VALUE_PRIOR}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Heads:
        """What has these parameters."""
        heads = {target: Head.of(one) for target, one in parameters["heads"].items()}
        return cls(heads, parameters["middle_value_of_an_order"])


def fit_heads(lessons: Lessons) -> Heads:
    """Fit a head for each target whose outcomes are known."""
    known = {lesson.known.at: lesson.known for of_one in lessons.values() for lesson in of_one}
    described = {at: describe(one) for at, one in known.items()}
    heads = {}
    for target in (*PROBABILITIES, ORDERS):
        if not (of_target := lessons[horizon_of(target)]):
            continue
        outcome, weights = _outcomes(target, of_target)
        features = np.vstack([described[lesson.known.at] for lesson in of_target])
        heads[target] = fit_head(features, outcome, weights, "log" if target == ORDERS else "logit")
    return Heads(heads, _middle_value(known[max(known)]) if known else 0.0)


FITTED: Mapping[Method, type[Fitted]] = {"segment_mean": SegmentMean, "bg_nbd": Btyd, "logistic": Heads}
"""What each method is once it is fitted."""
