"""The list of customers that people work with: one row per customer, in words, for a spreadsheet or a mailing.

What a release keeps of its customers is in ``customer_history``.
"""

from __future__ import annotations

import polars as pl

from custseg_assets.domain.segments.customer_history import describe_customers
from custseg_assets.domain.segments.model import RFM


def list_customers(
    history: pl.DataFrame,
    customer_features: pl.DataFrame,
    segment_profiles: pl.DataFrame,
    product_recommendations: pl.DataFrame,
    *,
    period: str,
) -> pl.DataFrame:
    """One row per customer assigned at a snapshot, sorted by customer.

    Args:
        history: ``segment_assignments`` of every snapshot up to ``period``, of the customers wanted.
        customer_features: of the snapshot.
        segment_profiles: of the snapshot.
        product_recommendations: of the snapshot.
        period: key of the snapshot.

    Returns:
        ``customer_id``, ``segment`` and ``previous`` (names; the segment before the unbroken stay, null for the first),
        ``since`` (key of the first snapshot of the stay), ``recency`` (days since the last order, null without one in
        the window), ``orders`` and ``spend`` (net, in currency) in the window, ``advice`` for the segment, and
        ``offers`` (products, best first).
    """
    described = describe_customers(
        history, customer_features, product_recommendations.clear(), period=period, features=RFM
    )
    profiles = segment_profiles.select("segment_id", "advice", segment="segment_name")
    offers = (
        product_recommendations.sort("customer_id", "rank")
        .group_by("customer_id", maintain_order=True)
        .agg(offers=pl.coalesce("description", "product_id").str.join("; "))
    )
    record, features = pl.col("record").struct, pl.col("features").struct
    return (
        described.select(
            "customer_id", *(record.field(name) for name in ("segment_id", "since", "previous", "features"))
        )
        .join(profiles, on="segment_id", how="left")
        .join(offers, on="customer_id", how="left", maintain_order="left")
        .select(
            "customer_id",
            "segment",
            pl.col("previous").struct.field("segment_name").alias("previous"),
            "since",
            features.field("recency_days").alias("recency"),
            features.field("frequency_orders").fill_null(0).alias("orders"),
            features.field("monetary_net").fill_null(0.0).alias("spend"),
            "advice",
            "offers",
        )
    )
