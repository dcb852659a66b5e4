"""Identity of segments across models: which ids and names a new model keeps, and the events of its lineage.

Segments are compared by their customers: all that K-means sees on the training snapshot are scored by both
models. *Most of* a segment is more than half of its customers. Each segment of either model takes part in exactly one
event, the first of these that fits:

1. *split*: an old segment makes up most of two or more new ones. The largest of them keeps id and name.
2. *merged*: most of two or more old segments went into one new one, which keeps id and name of the largest.
3. *continued*: most of the old segment is in the new one, and makes up most of it. Id and name stay.
4. *retired*, *born*: all other old and new segments. A new one gets a new id, and the name that the naming rule gives
   among the unused ones.

More than half both ways fits an old segment at most once and a new one at most once, so no assignment problem has to
be solved. The numbers of a model's clusters play no part. The margin rule, which keeps single customers in their
segment, belongs in ``model``; new names belong in ``naming``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.segments.model import (
    Labels,
    LineageEvent,
    LineageKind,
    Matrix,
    Segment,
    SegmentationModel,
    version_of,
)
from custseg_assets.domain.segments.naming import name_segments

Overlaps = NDArray[np.int64]

MOST = 0.5
"""More than this share of a segment is most of it."""
WORTH_TELLING = 0.1
"""The least share of customers from which a segment is named among those they came from or went to."""


class _Link(NamedTuple):
    """Clusters of the earlier and of the later model that are in one event; the first of each share the id."""

    kind: LineageKind
    old: tuple[int, ...]
    new: tuple[int, ...]


def count_overlaps(labels: Labels, others: Labels, shape: tuple[int, int]) -> Overlaps:
    """How many customers each pair of clusters shares.

    Args:
        labels: cluster number of each customer.
        others: the same in the other clustering.
        shape: numbers of clusters of both.

    >>> count_overlaps(np.array([0, 0, 1]), np.array([1, 1, 0]), (2, 2)).tolist()
    [[0, 2], [1, 0]]
    """
    return np.bincount(labels * shape[1] + others, minlength=shape[0] * shape[1]).reshape(shape)


def inherit_segments(
    challenger: SegmentationModel, champion: SegmentationModel, before: Labels, now: Labels, rfm: Matrix
) -> SegmentationModel:
    """The challenger as the champion's successor: continued segments keep id and name, others get unused ids.

    Args:
        challenger: with ids and names of its own.
        champion: of the same features; its ``n_segment_ids`` also has to count those of models that followed it and
            were taken back.
        before: the champion's cluster of each customer that K-means sees on the challenger's training snapshot.
        now: the challenger's.
        rfm: their recency in days, orders and net spend, to name new segments by; shape (customers, 3).

    Raises:
        ValueError: a cluster of the challenger has no customer.
    """
    overlaps = count_overlaps(before, now, (champion.k, challenger.k))
    links = _link_clusters(overlaps, _sort_by_id(champion.segments), _sort_by_id(challenger.segments))
    kept = {link.new[0]: champion.segments[link.old[0]] for link in links if link.old and link.new}
    segments = name_segments(rfm, now, challenger.k, kept, champion.n_segment_ids)
    return replace(
        challenger,
        segments=segments,
        model_version=version_of(
            challenger.trained_on,
            challenger.reference,
            challenger.centroids,
            champion.model_version,
            challenger.clusters,
        ),
        predecessor=champion.model_version,
        lineage=tuple(_describe_link(link, overlaps, champion.segments, segments) for link in links),
        n_segment_ids=champion.n_segment_ids + challenger.k - len(kept),
    )


def _sort_by_id(segments: Sequence[Segment]) -> list[int]:
    """The clusters in the order of their segments' ids, which the numbers of the clusters do not change."""
    return sorted(range(len(segments)), key=lambda cluster: int(segments[cluster].segment_id[1:]))


def _link_clusters(overlaps: Overlaps, olds: Sequence[int], news: Sequence[int]) -> list[_Link]:
    """Every cluster of either model in one link.

    Args:
        overlaps: customers of each pair, shape (old clusters, new clusters).
        olds: the old clusters in the order that ties are decided by.
        news: the same of the new ones.
    """
    goes_mostly = overlaps > MOST * overlaps.sum(axis=1, keepdims=True)
    comes_mostly = overlaps > MOST * overlaps.sum(axis=0)
    links: list[_Link] = []

    def free(clusters: Sequence[int], side: int) -> list[int]:
        taken = {cluster for link in links for cluster in link[side]}
        return [cluster for cluster in clusters if cluster not in taken]

    for old in olds:
        parts = sorted((new for new in news if comes_mostly[old, new]), key=lambda new: -overlaps[old, new])
        if len(parts) > 1:
            links.append(_Link("split", (old,), tuple(parts)))
    for new in free(news, 2):
        parts = sorted((old for old in free(olds, 1) if goes_mostly[old, new]), key=lambda old: -overlaps[old, new])
        if len(parts) > 1:
            links.append(_Link("merged", tuple(parts), (new,)))
    pairs = [(old, new) for old in free(olds, 1) for new in free(news, 2)]
    links += [
        _Link("continued", (old,), (new,)) for old, new in pairs if goes_mostly[old, new] & comes_mostly[old, new]
    ]
    links += [_Link("retired", (old,), ()) for old in free(olds, 1)]
    return links + [_Link("born", (), (new,)) for new in free(news, 2)]


def _describe_link(link: _Link, counts: Overlaps, earlier: Sequence[Segment], later: Sequence[Segment]) -> LineageEvent:
    """The lineage event of a link, with the segments' ids and a sentence."""
    old, new = [earlier[cluster] for cluster in link.old], [later[cluster] for cluster in link.new]
    match link.kind:
        case "continued":
            share = counts[link.old[0], link.new[0]] / counts[link.old[0]].sum()
            words = f"{_label(old[0])} goes on: {share:.0%} of its customers are still in it."
        case "split":
            parts = _describe_shares(counts[link.old[0]], later, "are now", "in", link.new)
            words = f"{_label(old[0])} was split: {parts}."
        case "merged":
            words = f"{' and '.join(map(_label, old))} are one segment now, {_label(new[0])}."
        case "born":
            words = f"{_label(new[0])} is new: {_describe_shares(counts[:, link.new[0]], earlier, 'come', 'from')}."
        case "retired":
            parts = _describe_shares(counts[link.old[0]], later, "are now", "in")
            words = f"{_label(old[0])} is no segment of its own any more: {parts}."
    return LineageEvent(link.kind, tuple(one.segment_id for one in old), tuple(one.segment_id for one in new), words)


def _describe_shares(
    counts: Overlaps, segments: Sequence[Segment], verb: str, preposition: str, clusters: Sequence[int] | None = None
) -> str:
    """Which segments a segment's customers come from or are in now, in words."""
    if not counts.sum():
        return "nobody was in it any more"
    (share, segment), *others = _shares(counts, segments, clusters)
    more = "".join(f", {share:.0%} {preposition} {_label(segment)}" for share, segment in others)
    return f"{share:.0%} of its customers {verb} {preposition} {_label(segment)}{more}"


def _shares(
    counts: Overlaps, segments: Sequence[Segment], clusters: Sequence[int] | None = None
) -> list[tuple[float, Segment]]:
    """Shares of a segment's customers, largest first.

    Those of the given clusters, or else all of at least ``WORTH_TELLING`` and always the largest.
    """
    shares = [(float(count / counts.sum()), segment) for count, segment in zip(counts, segments, strict=True)]
    ranked = sorted(shares if clusters is None else [shares[one] for one in clusters], key=lambda pair: -pair[0])
    return [pair for pair in ranked if clusters is not None or pair[0] >= WORTH_TELLING] or ranked[:1]


def _label(segment: Segment) -> str:
    return f"{segment.name} ({segment.segment_id})"
