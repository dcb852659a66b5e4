"""The list of customers as people read it: in words, for a spreadsheet or a mailing.

What is said of a customer, and what it means, is in ``customer_lists``.
"""

from __future__ import annotations

import polars as pl


def tabulate_customers(
    listed: pl.DataFrame, segment_profiles: pl.DataFrame, product_recommendations: pl.DataFrame
) -> pl.DataFrame:
    """One row per customer, sorted by customer.

    Args:
        listed: what ``customer_lists.list_customers`` gives.
        segment_profiles: of the snapshot.
        product_recommendations: of the snapshot, of these customers.

    Returns:
        ``customer_id``; ``segment`` and ``previous`` (names; the segment before the unbroken stay, null for the first);
        ``since`` (key of the first snapshot of the stay); ``recency`` (days since the last order, null without one in
        the window), ``orders`` and ``spend`` (net, in currency) in the window; ``change`` of the spend since the
        snapshot before (null for who was not known then); ``at_stake`` and ``at_risk``; ``advice`` for the segment; and
        ``offers`` (products, best first).
    """
    advice = segment_profiles.select("segment_id", "advice")
    product = pl.concat_str("product_id", "description", separator=" ", ignore_nulls=True)
    offers = (
        product_recommendations.sort("customer_id", "rank")
        .group_by("customer_id", maintain_order=True)
        .agg(offers=product.str.join("; "))
    )
    return (
        listed.join(advice, on="segment_id", how="left")
        .join(offers, on="customer_id", how="left")
        .select(
            "customer_id",
            pl.col("segment_name").alias("segment"),
            pl.col("previous").struct.field("segment_name").alias("previous"),
            "since",
            pl.col("recency_days").alias("recency"),
            pl.col("frequency_orders").fill_null(0).alias("orders"),
            pl.col("monetary_net").fill_null(0.0).round(2).alias("spend"),
            pl.col("spend_change").round(2).alias("change"),
            pl.col("value_at_stake").round(2).alias("at_stake"),
            pl.col("is_at_risk").alias("at_risk"),
            "advice",
            "offers",
        )
        .sort("customer_id")
    )
