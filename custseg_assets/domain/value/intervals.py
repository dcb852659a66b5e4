"""Intervals of predictions, made of how far earlier predictions missed.

A prediction is not uncertain for lack of customers alone: the whole shop's level moves with seasons, prices and what
else is going on, and one year of data cannot say how. So intervals come from the misses of replayed days, and where
there are few of those, from a guess that is the same for every shop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COVERAGE = 0.9
"""Intervals are meant to hold what is seen in so many of all cases."""
N_DECILES = 10
GUESSED_MISS = 0.2
"""How far, on a log or logit scale, a shop's level is off before anything is known of it: a fifth."""
GUESS_COUNTS = 2
"""The guess counts as much as so many replays."""


@dataclass(frozen=True)
class Replayed:
    """A prediction of one target at one earlier day, and what came.

    Attributes:
        at: the day, in days since 1970-01-01.
        predicted: per customer.
        seen: per customer.
    """

    at: int
    predicted: Floats
    seen: Floats


def logit(p: Floats | float) -> Floats:
    """The logarithm of the odds of probabilities, none of them 0 or 1."""
    bounded = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))


def expit(score: Floats | float) -> Floats:
    """The probabilities of a logit."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(score))))


def deciles(predicted: Floats) -> list[NDArray[np.int64]]:
    """Places of the customers in each tenth by prediction, ascending; equal ones in their own order."""
    return [part for part in np.array_split(np.argsort(predicted, kind="stable"), N_DECILES) if len(part)]


def half_width(misses: Sequence[float], n_replays: int) -> float:
    """How far from a prediction the ends of its interval are, on the scale of the misses.

    The misses' mean square, with the guess as if it were replays too, times the quantile of Student's t for so many
    replays and with the same guess: few replays make a wide interval. Misses are taken from 0, not from their mean, for
    a prediction that was always too low is not corrected for it.

    Args:
        misses: of the replays, one or several of each.
        n_replays: days that they are of.
    """
    from scipy.special import stdtrit

    seen = float(np.mean(np.square(misses))) * n_replays if len(misses) else 0.0
    spread = np.sqrt((GUESS_COUNTS * GUESSED_MISS**2 + seen) / (GUESS_COUNTS + n_replays))
    return float(spread * stdtrit(GUESS_COUNTS + n_replays, (1 + COVERAGE) / 2))


@dataclass(frozen=True)
class ProbabilityInterval:
    """The interval of a probability: where the seen rate of customers with a like one may lie.

    Attributes:
        width: half of it, in logits; from the misses of deciles of the replays.
    """

    width: float

    def ends(self, p: Floats) -> tuple[Floats, Floats]:
        """Lower and upper end for each customer."""
        score = logit(p)
        low, high = expit(score - self.width), expit(score + self.width)
        return np.minimum(low, p), np.maximum(high, p)


def interval_of_probability(replays: Sequence[Replayed]) -> ProbabilityInterval:
    """The interval from the misses of every decile of every replay, in logits.

    Half a customer who orders, and half a one who does not, are added to what was seen and to what was predicted.
    """
    misses = []
    for replay in replays:
        for part in deciles(replay.predicted):
            seen, predicted = ((one[part].sum() + 0.5) / (len(part) + 1) for one in (replay.seen, replay.predicted))
            misses.append(float(logit(seen) - logit(predicted)))
    return ProbabilityInterval(half_width(misses, len(replays)))


@dataclass(frozen=True)
class AmountInterval:
    """The interval of a count or an amount: between which so many of the customers with a like prediction stayed.

    Attributes:
        edges: predictions between which others ratios hold; one fewer than ratios.
        low: what is seen, as a multiple of the prediction, that 1 of 20 customers stays under.
        high: the same that 1 of 20 goes over or, where more than 19 of 20 stay below the prediction, the least that was
            seen above it.
    """

    edges: Floats
    low: Floats
    high: Floats

    def ends(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Lower and upper end for each customer; the prediction is always between them."""
        place = np.searchsorted(self.edges, predicted, side="right")
        return (
            np.minimum(self.low[place] * predicted, predicted),
            np.maximum(self.high[place] * predicted, predicted),
        )


def interval_of_amount(replays: Sequence[Replayed]) -> AmountInterval:
    """The interval from quantiles of what was seen over what was predicted, by tenths of the predictions.

    Without replays it is as wide as if what is seen were Poisson distributed around a prediction of 1.
    """
    if not replays:
        return AmountInterval(np.zeros(0), np.zeros(1), np.full(1, 3.0))
    predicted, seen = (np.concatenate([getattr(one, name) for one in replays]) for name in ("predicted", "seen"))
    parts = deciles(predicted)
    edges = np.array([predicted[part[0]] for part in parts[1:]])
    tail = (1 - COVERAGE) / 2
    ratios = [seen[part] / np.maximum(predicted[part], 1e-9) for part in parts]
    ends = np.array([np.quantile(ratio, (tail, 1 - tail)) for ratio in ratios])
    least = float(seen[seen > 0].min()) if (seen > 0).any() else 0.0
    for place, (part, ratio) in enumerate(zip(parts, ratios, strict=True)):
        if ends[place, 1] < 1:
            # Nearly nobody of them did anything: what is seen is nothing, or more than the mean.
            above = ratio[ratio > 1]
            ends[place, 1] = above.min() if len(above) else max(least / max(float(predicted[part].mean()), 1e-9), 1.0)
    return AmountInterval(edges, ends[:, 0], ends[:, 1])
