"""Predictive validity: how well the segments of a snapshot order what customers do in the next period.

Segments are of use when customers of a higher one come back more often, and spend more, than those of a lower one.
That is measured as a concordance: of two customers who differ in what they did, how often the one who did more was in
the higher segment. 1 is a perfect order, 0.5 is chance. For coming back it is the area under the ROC curve.

Which segment is higher is estimated on nine tenths of the customers and tested on the last, ten times, so that more
segments gain nothing by fitting noise. Names and numbers of segments play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import narwhals as nw
import numpy as np
import polars as pl

from custseg_assets.domain.segments.model import Labels, Matrix
from custseg_assets.domain.transactions.cleaning import Lines
from custseg_assets.domain.transactions.features import MICRO, order_parts

OUTCOMES = ("return", "spend")
"""Any order in the next period, and net spend in it."""

N_FOLDS = 10
"""Who falls into which fold still moves the difference between two models, which its interval does not count. On Online
Retail, standard deviation over twelve seeds with two folds and with ten: for return 0.0018 and 0.0002 (October 2011),
0.0008 and 0.0003 (August), 0.0006 and 0.0008 (June); for spend about the same with both, 0.0006 to 0.0028."""

MIN_OF_A_KIND = 30
"""So many customers must come back, and so many stay away, before a snapshot says anything."""

_Z_95 = 1.959963984540054


def measure_outcomes(clean: Lines) -> Lines:
    """What each customer with lines in a period did in it: ``customer_id``, ``n_orders`` and ``net`` spend in currency.

    Args:
        clean: lines of ``clean_transactions`` of that period.
    """
    return (
        order_parts(clean)
        .with_columns((~nw.col("is_cancellation")).cast(nw.Int64).alias("is_order"))
        .group_by("customer_id")
        .agg(nw.col("is_order").sum().alias("n_orders"), nw.col("amount_micro").sum().alias("net_micro"))
        .select("customer_id", "n_orders", (nw.col("net_micro") / MICRO).alias("net"))
    )


@dataclass(frozen=True)
class Concordance:
    """How well an order of customers agrees with an outcome.

    Attributes:
        value: of the pairs of customers with different outcomes, the share in which the one with the higher outcome
            has the higher level; pairs on one level count half.
        influence: how much each customer moves the value, in the order of the input; the sum of squares is the
            value's sampling variance.
    """

    value: float
    influence: Matrix


def concordance(levels: Labels, outcome: Matrix) -> Concordance | None:
    """The agreement of few levels with an outcome; ``None`` where no two outcomes differ.

    A ratio of U-statistics. The influences are its first-order projection (Hoeffding 1948); for an outcome of two
    values the variance is that of DeLong, DeLong and Clarke-Pearson (1988), *Comparing the areas under two or more
    correlated receiver operating characteristic curves*. O(n log n), with arrays as large as the customers.

    Args:
        levels: of each customer, higher is better; whole numbers from 0.
        outcome: what each customer did.

    >>> concordance(np.array([1, 1, 0]), np.array([5.0, 0.0, 0.0])).value
    0.75
    """
    _, rank = np.unique(outcome, return_inverse=True)
    n_ranks = int(rank.max(initial=0)) + 1
    of_rank = np.bincount(rank, minlength=n_ranks)
    n_pairs = len(rank) - of_rank[rank]
    if not n_pairs.any():
        return None
    won = np.empty(len(rank))
    below, above = np.zeros(n_ranks), of_rank.astype(float)
    for level in np.unique(levels):
        here = np.flatnonzero(levels == level)
        same = np.bincount(rank[here], minlength=n_ranks)
        above -= same
        # A pair is won against customers with less on lower levels, and against those with more on higher ones.
        less = np.cumsum(below + same / 2) - (below + same / 2)
        more = np.cumsum((above + same / 2)[::-1])[::-1] - (above + same / 2)
        won[here] = (less + more)[rank[here]]
        below += same
    value = float(won.sum() / n_pairs.sum())
    return Concordance(value, 2 * (won - value * n_pairs) / n_pairs.sum())


def cross_fit_concordance(segments: Labels, outcome: Matrix, fold: Labels) -> Concordance | None:
    """The concordance of segments with an outcome, the order of the segments estimated on other customers.

    The value is the mean over the folds, of those in which outcomes differ. In each a segment's level comes from the
    mean rank of the outcomes of its customers in the other folds, so that one large order counts no more than any
    other; a segment with nobody in them is put in the middle, and segments with equal means are on one level.

    Args:
        segments: segment number of each customer, from 0.
        outcome: what each customer did.
        fold: number of each customer's fold, from 0.
    """
    from scipy.stats import rankdata

    n_segments = int(segments.max(initial=0)) + 1
    rank = rankdata(outcome)  # Twice a middle rank is whole, so sums of them are exact.
    sums = np.bincount(segments, rank, minlength=n_segments)
    sizes = np.bincount(segments, minlength=n_segments)
    influence, values = np.zeros(len(segments)), []
    for number in np.unique(fold):
        tested = fold == number
        n_others = sizes - np.bincount(segments[tested], minlength=n_segments)
        of_others = sums - np.bincount(segments[tested], rank[tested], minlength=n_segments)
        middle = np.full(n_segments, (len(outcome) + 1) / 2)
        level = np.unique(np.divide(of_others, n_others, out=middle, where=n_others > 0), return_inverse=True)[1]
        found = concordance(level[segments[tested]], outcome[tested])
        if found is not None:
            values.append(found.value)
            influence[tested] = found.influence
    return Concordance(sum(values) / len(values), influence / len(values)) if values else None


@dataclass(frozen=True)
class PairedValidity:
    """One outcome under two models, on the same customers.

    Attributes:
        outcome: one of ``OUTCOMES``.
        champion: its concordance, mean over the snapshots.
        challenger: the same.
        difference: challenger less champion.
        low: lower end of the difference's 95 % interval.
        high: upper end.
    """

    outcome: str
    champion: float
    challenger: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class SnapshotValidity:
    """Predictive validity of two models on one snapshot.

    Attributes:
        champion: concordance by outcome.
        challenger: the same.
        influence: ``customer_id`` and, by outcome, the customer's influence on the difference.
    """

    champion: dict[str, float]
    challenger: dict[str, float]
    influence: pl.DataFrame


def measure_validity(customers: pl.DataFrame, outcomes: pl.DataFrame, *, seed: int) -> SnapshotValidity | None:
    """Predictive validity of two models' segments; ``None`` where too few customers came back, or stayed away, to tell.

    Args:
        customers: everybody known at the snapshot, each once: ``customer_id``, ``champion`` and ``challenger``, the
            segment ids under the two models. Rule segments are segments.
        outcomes: what ``measure_outcomes`` found in the period after the snapshot; who is missing did nothing.
        seed: of the folds.
    """
    # Folds are drawn over sorted ids: the same customers are split the same way whatever the order of the rows.
    rows = customers.join(outcomes, on="customer_id", how="left").sort("customer_id")
    observed = {
        "return": (rows["n_orders"].fill_null(0) > 0).cast(pl.Float64).to_numpy(),
        "spend": rows["net"].fill_null(0.0).to_numpy(),
    }
    n_returned = int(observed["return"].sum())
    if min(n_returned, len(rows) - n_returned) < MIN_OF_A_KIND:
        return None
    fold = np.random.default_rng(seed).permutation(len(rows)) % N_FOLDS
    found: dict[str, dict[str, Concordance]] = {}
    for model in ("champion", "challenger"):
        segments = np.unique(rows[model].to_numpy(), return_inverse=True)[1]
        each = {name: cross_fit_concordance(segments, outcome, fold) for name, outcome in observed.items()}
        found[model] = {name: one for name, one in each.items() if one is not None}
        if len(found[model]) < len(OUTCOMES):
            return None
    influence = [
        pl.Series(name, found["challenger"][name].influence - found["champion"][name].influence) for name in OUTCOMES
    ]
    values = {model: {name: one.value for name, one in each.items()} for model, each in found.items()}
    by_customer = rows.select("customer_id").with_columns(influence)
    return SnapshotValidity(values["champion"], values["challenger"], by_customer)


def combine_validity(snapshots: Sequence[SnapshotValidity]) -> tuple[PairedValidity, ...]:
    """Predictive validity by outcome over several snapshots, each snapshot counting the same.

    The same customers are in all of them, so their errors are not independent: a customer's influences are added up
    over the snapshots before they are squared.

    Args:
        snapshots: at least one.
    """
    n = len(snapshots)
    by_customer = pl.concat([one.influence for one in snapshots]).group_by("customer_id").sum()
    results = []
    for name in OUTCOMES:
        champion = sum(one.champion[name] for one in snapshots) / n
        challenger = sum(one.challenger[name] for one in snapshots) / n
        error = float(np.sqrt((np.sort((by_customer[name] / n).to_numpy() ** 2)).sum()))
        difference = challenger - champion
        low, high = difference - _Z_95 * error, difference + _Z_95 * error
        results.append(PairedValidity(name, champion, challenger, difference, low, high))
    return tuple(results)
