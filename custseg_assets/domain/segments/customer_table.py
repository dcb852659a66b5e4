"""The list of customers as people read it: in words, for a spreadsheet or a mailing.

What is said of a customer, and what it means, is in ``customer_lists``.
"""

from __future__ import annotations

import polars as pl

from custseg_assets.domain.spreadsheets import CUSTOMER_COLUMNS, PREDICTED


def tabulate_customers(
    listed: pl.DataFrame, segment_profiles: pl.DataFrame, product_recommendations: pl.DataFrame
) -> pl.DataFrame:
    """One row per customer, sorted by customer.

    Args:
        listed: what ``customer_lists.list_customers`` gives.
        segment_profiles: of the snapshot.
        product_recommendations: of the snapshot, of these customers.

    Returns:
        ``customer_id``; ``segment_id`` and ``segment`` (its name); ``since`` (key of the first snapshot of the unbroken
        stay); ``previous`` (name of the segment before that stay, null for the first); ``moved_from`` and ``cause``
        (name of the segment at the snapshot before, and why, null for who did not move); ``recency`` (days since the
        last order, null without one in the window), ``orders`` and ``spend`` (net, in currency) in the window;
        ``change`` of the spend since the snapshot before (null for who was not known then); ``at_stake`` and
        ``at_risk``; ``p_order_30d`` (probability of an order within 30 days) and ``expected_spend`` (net, within 90
        days), null where nothing is predicted; ``advice`` for the segment; and ``offers`` (products, best first).
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
        .with_columns(
            *(pl.col(name).struct.field("segment_name").alias(name) for name in ("previous", "moved_from")),
            pl.col("frequency_orders").fill_null(0),
            pl.col("monetary_net").fill_null(0.0).round(2),
            pl.col("spend_change", "value_at_stake", *PREDICTED).round(2),
        )
        .rename(
            {
                "segment_name": "segment",
                "recency_days": "recency",
                "frequency_orders": "orders",
                "monetary_net": "spend",
                "spend_change": "change",
                "value_at_stake": "at_stake",
                "is_at_risk": "at_risk",
                "expected_spend_90d": "expected_spend",
            }
        )
        .select(CUSTOMER_COLUMNS)
        .sort("customer_id")
    )
