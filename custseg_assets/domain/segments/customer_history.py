"""What assignments say over time: each customer's segment, since when and from where, and who moved between snapshots.

The records that a release keeps of its customers are made here; how they are stored is ``stores.release_writer``'s
matter. Why a customer moved belongs in ``migrations``.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def describe_customers(
    history: pl.DataFrame,
    customer_features: pl.DataFrame,
    product_recommendations: pl.DataFrame,
    customer_value: pl.DataFrame | None = None,
    *,
    period: str,
    features: Sequence[str],
) -> pl.DataFrame:
    """One row per customer assigned at the snapshot, sorted by customer.

    Args:
        history: ``segment_assignments`` of every snapshot up to ``period``, of the customers wanted.
        customer_features: of the snapshot.
        product_recommendations: of the snapshot.
        customer_value: ``customer_id`` and the predictions to carry, where there are any.
        period: key of the snapshot.
        features: names of the features to carry.

    Returns:
        ``customer_id`` and ``record``, a struct of ``segment_id``, ``since`` (key of the first snapshot of the
        unbroken stay), ``previous`` (id and name of the segment before it, null for the first), ``margin``,
        ``is_held``, ``runner_up_segment_id``, ``features`` (a struct; null with nothing in the window), ``products``
        (ids, best first) and, where there are predictions, ``value`` (a list of them in the order of their columns;
        null for who has none).
    """
    now = history.filter(pl.col("period") == period).select(
        "customer_id", "segment_id", "margin", "is_held", "runner_up_segment_id"
    )
    before = (
        history.join(now.select("customer_id", current_id="segment_id"), on="customer_id")
        .filter(pl.col("segment_id") != pl.col("current_id"))
        .sort("customer_id", "period")
        .group_by("customer_id", maintain_order=True)
        .last()
        .select("customer_id", previous_period="period", previous=pl.struct("segment_id", "segment_name"))
    )
    since = (
        history.join(before, on="customer_id", how="left")
        .filter(pl.col("period") > pl.col("previous_period").fill_null(""))
        .group_by("customer_id")
        .agg(since=pl.col("period").min())
    )
    in_window = customer_features.select("customer_id", features=pl.struct(features))
    products = (
        product_recommendations.sort("customer_id", "rank")
        .group_by("customer_id", maintain_order=True)
        .agg(products=pl.col("product_id"))
    )
    joined, fields = now, ["segment_id", "since", "previous", "margin", "is_held", "runner_up_segment_id", "features"]
    parts = [since, before.select("customer_id", "previous"), in_window, products]
    if customer_value is not None:
        parts.append(customer_value.select("customer_id", value=pl.concat_list(pl.exclude("customer_id"))))
        fields.append("value")
    for part in parts:
        joined = joined.join(part, on="customer_id", how="left")
    record = pl.struct(*fields, pl.col("products").fill_null([]))
    return joined.sort("customer_id").select("customer_id", record=record)


def list_transitions(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """The segment of each customer at an earlier and at a later snapshot, also of those who stayed.

    Args:
        before: ``segment_assignments`` of the earlier snapshot.
        now: of the later one.

    Returns:
        ``customer_id``, ``from_segment_id`` (null for customers not known before) and ``to_segment_id``.
    """
    earlier = before.select("customer_id", from_segment_id="segment_id")
    return now.select("customer_id", to_segment_id="segment_id").join(earlier, on="customer_id", how="left")


def count_moves(history: pl.DataFrame, *, before: str | None, period: str) -> pl.DataFrame:
    """How many customers went from which segment to which between two snapshots, also those who stayed.

    Args:
        history: ``segment_assignments`` of at least both snapshots.
        before: key of the earlier snapshot; ``None`` where there is none, and then there are no moves.
        period: key of the later one.

    Returns:
        ``from_segment_id`` (null for customers not known before), ``to_segment_id`` and ``n_customers``, sorted.
    """
    earlier, now = (history.filter(pl.col("period") == pl.lit(key, pl.String)) for key in (before, period))
    transitions = list_transitions(earlier, now).group_by("from_segment_id", "to_segment_id")
    counts = transitions.agg(n_customers=pl.len().cast(pl.Int64)).sort("from_segment_id", "to_segment_id")
    return counts if before is not None else counts.clear()
