"""The smallest uplift that a campaign could see, said before it starts.

From the shop's own past: how much customers differ in what they did after earlier snapshots, once what was known before
is taken off. That is what stays in the way of a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.campaigns.estimate import LEVEL, MIN_GROUP

POWER = 0.8
"""How often an uplift has to be found to count as one that can be seen."""
MAX_UPLIFT = 1.0
"""The uplift, by what is there without it, beyond which a segment is too small: it would have to double."""


@dataclass(frozen=True)
class Spread:
    """What customers of a segment did after earlier snapshots.

    Attributes:
        n_customers: that it is known of, over all snapshots.
        mean: of the outcome.
        variance: of it, once the covariate is taken off.
    """

    n_customers: int
    mean: float
    variance: float


@dataclass(frozen=True)
class Prospect:
    """What can be seen of one outcome in a segment, or overall.

    Attributes:
        n_audience: customers to write to.
        n_holdout: customers held out.
        mean: of the outcome without the campaign, from the past; ``None`` where the past has none.
        uplift: the smallest that would be found in 80 % of such campaigns, in the outcome's unit; ``None`` where that
            cannot be said.
    """

    n_audience: int
    n_holdout: int
    mean: float | None
    uplift: float | None

    @property
    def has_figures(self) -> bool:
        """Whether both groups have enough customers for a figure."""
        return min(self.n_audience, self.n_holdout) >= MIN_GROUP

    @property
    def relative_uplift(self) -> float | None:
        """The uplift by the mean."""
        return self.uplift / self.mean if self.uplift is not None and self.mean and self.mean > 0 else None

    @property
    def is_too_small(self) -> bool:
        """Whether the segment is too small for anything that a campaign does."""
        relative = self.relative_uplift
        return not self.has_figures or (relative is not None and relative > MAX_UPLIFT)


def measure_spread(
    outcome: NDArray[np.float64], covariate: NDArray[np.float64], segments: Sequence[str]
) -> dict[str, Spread]:
    """Mean and remaining variance of an outcome, by segment.

    Args:
        outcome: of each customer.
        covariate: of each.
        segments: of each.
    """
    names, codes = np.unique(np.asarray(segments, dtype=np.str_), return_inverse=True)
    found = {}
    for code, name in enumerate(names):
        x, y = covariate[codes == code], outcome[codes == code]
        if len(y) < MIN_GROUP:
            continue
        about = x - x.mean()
        squares = float(about @ about)
        # A covariate that is the same for all is so but for rounding.
        slope = float(about @ y) / squares if squares > 1e-12 * float(x @ x) else 0.0
        rest = y - y.mean() - slope * about
        found[str(name)] = Spread(len(y), float(y.mean()), float(rest @ rest) / (len(y) - 2))
    return found


def pool_spreads(several: Sequence[Mapping[str, Spread]]) -> dict[str, Spread]:
    """Spreads of several snapshots as one, each with the weight of its customers."""
    pooled = {}
    for name in sorted({name for one in several for name in one}):
        spreads = [one[name] for one in several if name in one]
        weights = np.array([spread.n_customers for spread in spreads], np.float64)
        pooled[name] = Spread(
            int(weights.sum()),
            float(np.average([spread.mean for spread in spreads], weights=weights)),
            float(np.average([spread.variance for spread in spreads], weights=weights)),
        )
    return pooled


def foresee(
    sizes: Mapping[str, tuple[int, int]], spreads: Mapping[str, Spread]
) -> tuple[Prospect, dict[str, Prospect]]:
    """The smallest uplift that could be seen, over all segments and in each.

    Args:
        sizes: customers to write to and held out, by segment.
        spreads: by segment; a segment without one counts as all others together.
    """
    others = _all_together(list(spreads.values()))
    single = {
        name: _prospect({name: size}, {name: spreads.get(name) or others}, knows=name in spreads)
        for name, size in sizes.items()
    }
    usable = {name: size for name, size in sizes.items() if min(size) >= 2}
    overall = _prospect(usable, {name: spreads.get(name) or others for name in usable}, knows=bool(spreads))
    return overall, single


def _all_together(spreads: Sequence[Spread]) -> Spread | None:
    if not spreads:
        return None
    weights = np.array([spread.n_customers for spread in spreads], np.float64)
    return Spread(
        int(weights.sum()),
        float(np.average([spread.mean for spread in spreads], weights=weights)),
        float(np.average([spread.variance for spread in spreads], weights=weights)),
    )


def _prospect(sizes: Mapping[str, tuple[int, int]], spreads: Mapping[str, Spread | None], *, knows: bool) -> Prospect:
    n_audience, n_holdout = (sum(size[group] for size in sizes.values()) for group in (0, 1))
    if not knows or min(n_audience, n_holdout) < MIN_GROUP:
        mean = _mean(sizes, spreads) if knows else None
        return Prospect(n_audience, n_holdout, mean, None)
    n, variance, freedom = n_audience + n_holdout, 0.0, 0.0
    for name, (audience, holdout) in sizes.items():
        if (spread := spreads[name]) is None:
            continue
        share, of_holdout = (audience + holdout) / n, spread.variance / holdout
        variance += share**2 * (spread.variance / audience + of_holdout)
        # Welch and Satterthwaite: the small group, the holdout, decides.
        freedom += share**4 * of_holdout**2 / max(holdout - 2, 1)
    return Prospect(n_audience, n_holdout, _mean(sizes, spreads), _factor(variance, freedom) * float(np.sqrt(variance)))


def _factor(variance: float, of_holdout: float) -> float:
    """Standard errors between nothing and an uplift that is found in 80 % of the campaigns."""
    from scipy.special import stdtrit

    freedom = variance**2 / of_holdout if of_holdout > 0 else np.inf
    return float(stdtrit(freedom, 1 - LEVEL / 2) + stdtrit(freedom, POWER))


def _mean(sizes: Mapping[str, tuple[int, int]], spreads: Mapping[str, Spread | None]) -> float | None:
    known = {name: spread for name in sizes if (spread := spreads[name]) is not None}
    weights = [sum(sizes[name]) for name in known]
    return float(np.average([spread.mean for spread in known.values()], weights=weights)) if sum(weights) else None
