"""What a campaign has changed: audience against holdout, with the prediction as covariate, and how sure that is.

The difference is that of Lin (2013, *Agnostic notes on regression adjustments to experimental data*, Annals of Applied
Statistics 7): a regression line in each group of each segment, read off at the segment's mean. It has no assumption
about how outcome and covariate hang together. What it is divided by is its standard error with a variance of its own
for each group.

How large the quotient may be by chance is not looked up but drawn: the customers are split anew, as the campaign has
split them, and the 95 % quantile of all quotients is the limit (Wu and Ding 2021, *Randomization tests for weak null
hypotheses in randomized experiments*, JASA 116). Where the campaign changes nobody, exactly 5 % of the splits are
beyond it, however skewed spend is and however small a group; where it changes people differently, nearly so in large
groups.

How an outcome is counted belongs in ``outcomes``; what a figure is called, in ``report``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.05
"""Share of false alarms."""
N_DRAWS = 1_999
"""Splits that are drawn; with the campaign's own a round number."""
MIN_GROUP = 20
"""Customers in each group from which on a segment has figures of its own, and a regression line."""
MAX_DRAWN = 20_000
"""Customers of a segment up to which its splits are drawn; of more, the normal distribution says the same."""

_CELLS_AT_ONCE = 4_000_000


class Stratum(NamedTuple):
    """The customers of a campaign in one segment.

    Attributes:
        outcome: of each customer.
        covariate: of each, known before the start.
        n_holdout: how many of them are held out.
    """

    outcome: Floats
    covariate: Floats
    n_holdout: int

    @property
    def n_audience(self) -> int:
        """How many of them are not held out."""
        return len(self.outcome) - self.n_holdout

    @property
    def is_comparable(self) -> bool:
        """Whether each group has two customers, so that a variance is known."""
        return min(self.n_holdout, self.n_audience) >= 2

    @property
    def has_figures(self) -> bool:
        """Whether the segment has figures of its own."""
        return min(self.n_holdout, self.n_audience) >= MIN_GROUP


class Differences(NamedTuple):
    """Audience less holdout, of one or several splits, each of shape (splits,).

    Attributes:
        effect: the adjusted difference.
        variance: of it.
        holdout_mean: adjusted mean of the outcome in the holdout.
    """

    effect: Floats
    variance: Floats
    holdout_mean: Floats

    def quotients(self) -> Floats:
        """Effect by standard error; 0 where there is neither."""
        error = np.sqrt(self.variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((error == 0) & (self.effect == 0), 0.0, self.effect / error)


@dataclass(frozen=True)
class Effect:
    """One figure of a campaign.

    Attributes:
        n_audience: customers who were written to.
        n_holdout: customers who were not.
        audience_mean: adjusted mean of the outcome of the former.
        holdout_mean: of the latter.
        effect: the difference.
        low: of its 95 % interval.
        high: of it.
        p_value: share of the splits that are at least as far from nothing.
    """

    n_audience: int
    n_holdout: int
    audience_mean: float
    holdout_mean: float
    effect: float
    low: float
    high: float
    p_value: float

    @property
    def is_alarm(self) -> bool:
        """Whether the interval leaves nothing out as an explanation: 0 is not in it."""
        return self.low > 0 or self.high < 0


def compare_splits(stratum: Stratum, held: Ints) -> Differences:
    """The adjusted differences of some splits of a stratum.

    Args:
        stratum: that is split.
        held: rows of the customers held out, shape (splits, held out).
    """
    # About the middle, so that sums of squares lose nothing, and so that the lines are read off at 0.
    x = stratum.covariate - stratum.covariate.mean()
    middle = float(stratum.outcome.mean())
    y = stratum.outcome - middle
    terms = np.column_stack((x, y, x * x, x * y, y * y))
    total = terms.sum(axis=0)
    sums = np.empty((len(held), terms.shape[1]))
    step = max(1, _CELLS_AT_ONCE // max(1, held.shape[1] * terms.shape[1]))
    for start in range(0, len(held), step):
        sums[start : start + step] = terms[held[start : start + step]].sum(axis=1)
    n_holdout, n_audience = held.shape[1], len(x) - held.shape[1]
    has_line = stratum.has_figures
    holdout, of_holdout = _read_off(sums, n_holdout, has_line=has_line)
    audience, of_audience = _read_off(total - sums, n_audience, has_line=has_line)
    return Differences(audience - holdout, of_holdout + of_audience, holdout + middle)


def _read_off(sums: Floats, n: int, *, has_line: bool) -> tuple[Floats, Floats]:
    """A group's mean outcome at the covariate's middle, and its variance, of each split.

    Args:
        sums: of x, y, x², xy and y², x and y about their middles; shape (splits, 5).
        n: customers in the group.
        has_line: whether there are enough of them for a regression line.
    """
    mean_x, mean_y = sums[:, 0] / n, sums[:, 1] / n
    xx, xy, yy = sums[:, 2] - n * mean_x**2, sums[:, 3] - n * mean_x * mean_y, sums[:, 4] - n * mean_y**2
    is_spread = has_line & (xx > 1e-12 * np.maximum(sums[:, 2], 1e-300))
    safe = np.where(is_spread, xx, 1.0)
    slope = np.where(is_spread, xy / safe, 0.0)
    rest = np.maximum(yy - slope * xy, 0.0)
    # Sums of squares that differ by rounding only are none.
    rest = np.where(rest <= 1e-12 * np.maximum(sums[:, 4], 1e-300), 0.0, rest)
    freedom = n - 1 - is_spread.astype(np.int64)
    variance = rest / freedom * (1 / n + np.where(is_spread, mean_x**2 / safe, 0.0))
    return mean_y - slope * mean_x, variance


def draw_splits(n: int, n_holdout: int, n_draws: int, random: np.random.Generator) -> Iterator[Ints]:
    """Random splits like the campaign's: rows of the held out customers, some splits at a time."""
    step = max(1, _CELLS_AT_ONCE // max(n, 1))
    for start in range(0, n_draws, step):
        keys = random.random((min(step, n_draws - start), n), dtype=np.float32)
        yield np.argpartition(keys, n_holdout, axis=1)[:, :n_holdout]


def draw_differences(stratum: Stratum, n_draws: int, random: np.random.Generator) -> Differences:
    """What splits of a stratum give by chance where the campaign changes nobody."""
    n, n_holdout = len(stratum.outcome), stratum.n_holdout
    if n > MAX_DRAWN:
        one = compare_splits(stratum, next(draw_splits(n, n_holdout, 1, random)))
        error = float(np.sqrt(one.variance[0]))
        return Differences(
            random.normal(0.0, error, n_draws), np.full(n_draws, one.variance[0]), np.full(n_draws, one.holdout_mean[0])
        )
    parts = [compare_splits(stratum, held) for held in draw_splits(n, n_holdout, n_draws, random)]
    return Differences(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def weigh_together(strata: Sequence[Stratum], parts: Sequence[Differences]) -> Differences:
    """The differences over all strata, each with the share of the customers that it has."""
    sizes = np.array([len(stratum.outcome) for stratum in strata], np.float64)
    shares = sizes / sizes.sum()
    effect, variance, mean = (np.stack(columns) for columns in zip(*parts, strict=True))
    return Differences(shares @ effect, shares**2 @ variance, shares @ mean)


def estimate_effects(
    strata: Sequence[Stratum], held: Sequence[Ints], seed: int, n_draws: int = N_DRAWS
) -> tuple[Effect | None, list[Effect | None]]:
    """What the campaign has changed in one outcome, over all segments and in each.

    Args:
        strata: one for each segment.
        held: rows of the customers held out, of each stratum.
        seed: of the splits that are drawn.
        n_draws: how many are.

    Returns:
        the effect over all segments that can be compared, ``None`` where there is none; and of each, ``None`` of those
        with too few customers in a group.
    """
    random, usable = np.random.default_rng(seed), [stratum.is_comparable for stratum in strata]
    own = {
        place: compare_splits(stratum, held[place][None, :]) for place, stratum in enumerate(strata) if usable[place]
    }
    drawn = {place: draw_differences(strata[place], n_draws, random) for place in own}
    single = [
        _conclude(own[place], drawn[place], stratum.n_audience, stratum.n_holdout)
        if usable[place] and stratum.has_figures
        else None
        for place, stratum in enumerate(strata)
    ]
    among = [strata[place] for place in own]
    if not among or min(sum(one.n_holdout for one in among), sum(one.n_audience for one in among)) < MIN_GROUP:
        return None, single
    overall = _conclude(
        weigh_together(among, list(own.values())),
        weigh_together(among, list(drawn.values())),
        sum(one.n_audience for one in among),
        sum(one.n_holdout for one in among),
    )
    return overall, single


def critical_quotient(drawn: Differences) -> float:
    """The quotient that at most 5 % of all splits, those drawn and the campaign's own, are beyond."""
    sizes = np.sort(np.abs(drawn.quotients()))
    return float(sizes[int(np.ceil((1 - LEVEL) * (len(sizes) + 1))) - 1])


def _conclude(own: Differences, drawn: Differences, n_audience: int, n_holdout: int) -> Effect:
    effect, error, mean = float(own.effect[0]), float(np.sqrt(own.variance[0])), float(own.holdout_mean[0])
    quotient, by_chance = float(abs(own.quotients()[0])), np.abs(drawn.quotients())
    margin = critical_quotient(drawn) * error
    n_beyond = int(np.count_nonzero(by_chance >= quotient * (1 - 1e-9)))
    return Effect(
        n_audience=n_audience,
        n_holdout=n_holdout,
        audience_mean=mean + effect,
        holdout_mean=mean,
        effect=effect,
        low=effect - margin,
        high=effect + margin,
        p_value=(n_beyond + 1) / (len(by_chance) + 1),
    )
