"""Names of segments: the RFM vocabulary, and which of its names fits a cluster, with the reason and with advice.

Names always come from recency, frequency and net spend, whatever features the model was fitted on. A cluster's
medians are turned into RFM scores from 1 to 5, relative to all customers, and the name with the nearest typical
scores is given, no name twice. Which segments keep the name of an earlier model belongs in ``identity``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from custseg_assets.domain.segments.model import Labels, Matrix, Segment

LOWEST, HIGHEST = 1.0, 5.0


class _Name(NamedTuple):
    """A name, its typical R, F and M scores, who is meant ("customers who …"), and what to do."""

    name: str
    typical: tuple[float, float, float]
    who: str
    advice: str


VOCABULARY = (
    _Name("Champions", (4.5, 4.8, 4.8), "ordered lately, most often and for the most",
          "Keep them: early access, personal service and thanks rather than discounts."),
    _Name("Loyal", (3.6, 4.2, 4.2), "order often and for good money",
          "Offer what goes with their last orders, and a reason to reach the next level of a loyalty scheme."),
    _Name("Potential loyalists", (4.4, 3.7, 3.6), "ordered lately and more than once",
          "Invite them to a loyalty scheme and recommend products while the last order is fresh."),
    _Name("Promising", (4.2, 2.9, 2.7), "ordered lately, so far seldom and for little",
          "Give them a reason for the next order soon: a time-limited offer on what they looked at or bought."),
    _Name("Steady", (3.5, 3.6, 3.4), "are a little above the average in all three",
          "Keep the rhythm: remind them when the next order is due, and recommend what goes with the last one."),
    _Name("New", (4.1, 1.8, 2.1), "ordered lately, and hardly more than once",
          "Welcome them, help with the first order and follow up within a month."),
    _Name("Big spenders", (3.2, 2.6, 4.6), "order seldom, but for a lot",
          "Show them the upper end of the range and make reordering in quantity easy."),
    _Name("Small-basket regulars", (3.6, 4.2, 2.4), "order often, but for little",
          "Raise the basket: sets, free delivery from an amount, and what others add to the same products."),
    _Name("Needs attention", (2.6, 3.4, 3.5), "order and spend more than most, but have not ordered lately",
          "Remind them now with an offer based on what they bought before; they still know the shop."),
    _Name("Occasional", (2.9, 2.3, 2.4), "order now and then, for little",
          "Write at the occasions they buy for; do not spend much on them in between."),
    _Name("At risk", (1.8, 3.8, 3.9), "ordered often and for good money, but not for a long time",
          "Win them back personally: ask what went wrong, and offer a renewal of what they liked."),
    _Name("Cannot lose them", (1.4, 4.6, 4.7), "were among the best customers, and have stopped ordering",
          "Call them before anything else is done; few customers are worth as much."),
    _Name("About to sleep", (2.2, 2.6, 2.8), "order less than most and are slowly going quiet",
          "Send popular products and a small incentive before they are gone."),
    _Name("Hibernating", (1.9, 1.9, 2.1), "ordered long ago, seldom and for little",
          "Include in broad, cheap campaigns; a relevant bestseller may wake some of them."),
    _Name("Lost", (1.3, 1.6, 1.3), "ordered longest ago and least",
          "Spend nothing on them beyond an automatic win-back message."),
    _Name("Lost big orders", (1.4, 1.9, 4.0), "ordered once for a lot, long ago",
          "Ask about the occasion of the large order and offer to repeat it."),
)  # fmt: skip
"""Customary names of RFM segments and where on the three scores each belongs; advice is one sentence each."""

GOING_QUIET = ("Needs attention", "At risk", "Cannot lose them", "About to sleep")
"""Names of segments whose customers order later than they used to and can still be kept: their advice is to act now."""


def name_segments(
    rfm: Matrix, clusters: Labels, k: int, kept: Mapping[int, Segment] = MappingProxyType({}), n_segment_ids: int = 0
) -> tuple[Segment, ...]:
    """The segment of every cluster, in the clusters' order; ids ``S1``, ``S2`` … by median net spend, highest first.

    Args:
        rfm: recency in days, orders, and net spend of each customer, shape (customers, 3).
        clusters: number of each customer's cluster, 0 to k − 1.
        k: number of clusters.
        kept: segments of an earlier model that clusters continue, by the cluster's number; id, name and advice stay,
            and their rule is told with the customers of now.
        n_segment_ids: how many ids were used before; new ones follow.

    Raises:
        ValueError: a cluster has no customer.
    """
    empty = set(range(k)) - set(np.unique(clusters).tolist())
    if empty:
        raise ValueError(f"clusters {sorted(empty)} have no customer to be named by")
    medians = np.array([np.median(rfm[clusters == cluster], axis=0) for cluster in range(k)])
    scores = rfm_scores(rfm, medians)
    new = sorted(set(range(k)) - set(kept), key=lambda cluster: (-medians[cluster, 2], cluster))
    names = _assign_names(scores[new], {segment.name for segment in kept.values()})
    segments = {
        cluster: replace(
            segment, cluster=cluster, naming_rule=_describe_kept(segment, medians[cluster], scores[cluster])
        )
        for cluster, segment in kept.items()
    }
    for number, (cluster, (name, entry)) in enumerate(zip(new, names, strict=True), start=n_segment_ids + 1):
        rule = _describe_rule(entry, medians[cluster], scores[cluster])
        segments[cluster] = Segment(f"S{number}", name, rule, entry.advice, cluster)
    return tuple(segments[cluster] for cluster in range(k))


def rfm_scores(rfm: Matrix, values: Matrix) -> Matrix:
    """The rank of values among all customers as scores from 1 (worst) to 5 (best), shape as ``values``.

    1 + 4 × the share of customers that are worse, those that are equal counting half; a lower recency is better.
    An average customer therefore scores 3, also where most customers are alike.

    Args:
        rfm: recency, orders and net spend of each customer, shape (customers, 3).
        values: the same of what is to be scored, shape (n, 3).

    >>> rfm_scores(np.array([[5, 9, 90.0], [9, 5, 90.0]]), np.array([[5, 9, 90.0]])).tolist()
    [[4.0, 4.0, 3.0]]
    """
    better_is_more = np.array([-1.0, 1.0, 1.0])
    customers, scored = np.sort(rfm * better_is_more, axis=0), values * better_is_more
    worse = [np.searchsorted(customers[:, column], scored[:, column], "left") for column in range(3)]
    not_better = [np.searchsorted(customers[:, column], scored[:, column], "right") for column in range(3)]
    share: Matrix = (np.array(worse) + np.array(not_better)).T / (2 * len(rfm))
    return LOWEST + (HIGHEST - LOWEST) * share


def _assign_names(scores: Matrix, taken: Collection[str]) -> list[tuple[str, _Name]]:
    """A name that is not taken for every row, by the least sum of squared distances to the names' typical scores.

    Names repeat, with a number, only when there are more rows than names.
    """
    from scipy.optimize import linear_sum_assignment

    n_rounds = -(-(len(scores) + len(taken)) // len(VOCABULARY))
    slots = [(n, entry) for n in range(n_rounds) for entry in VOCABULARY if _number_name(entry, n) not in taken]
    typical = np.array([entry.typical for _, entry in slots]).reshape(-1, 3)
    # No sum of distances outweighs a repeat: each is at most 3 × 4².
    repeat = 3 * (HIGHEST - LOWEST) ** 2 * len(scores)
    costs = ((scores[:, None] - typical[None]) ** 2).sum(axis=2) + repeat * np.array([n for n, _ in slots])
    _, columns = linear_sum_assignment(costs)
    return [(_number_name(entry, n), entry) for n, entry in (slots[column] for column in columns)]


def _number_name(entry: _Name, n_before: int) -> str:
    return entry.name if n_before == 0 else f"{entry.name} {n_before + 1}"


def _describe_rule(entry: _Name, medians: Matrix, scores: Matrix) -> str:
    typical = _format_scores(entry.typical)
    return f"{_describe_scores(medians, scores)} are nearest to {typical}: customers who {entry.who}"


def _describe_kept(segment: Segment, medians: Matrix, scores: Matrix) -> str:
    """The rule of a segment that an earlier model named: what its customers are now, and for whom it was named."""
    base, _, number = segment.name.rpartition(" ")
    names = (segment.name, base) if number.isdigit() else (segment.name,)
    meant = next((f" for customers who {entry.who}" for entry in VOCABULARY if entry.name in names), "")
    described = _describe_scores(medians, scores)
    return f"{described}; the segment goes on from the model before and keeps its name, which was given there{meant}"


def _describe_scores(medians: Matrix, scores: Matrix) -> str:
    recency, orders, spend = medians
    own = _format_scores(scores)
    return f"RFM scores {own} (medians: recency {recency:,.0f} days, orders {orders:g}, net spend {spend:,.0f})"


def _format_scores(scores: Matrix | tuple[float, float, float]) -> str:
    return " ".join(f"{letter}{score:.1f}" for letter, score in zip("RFM", scores, strict=True))
