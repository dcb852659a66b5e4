"""What lists of customers say of each: where they came from, how their spend changed, what is at stake, who is at risk.

A list compares the snapshot with the one before it, which is always a closed one. How lists are stored and searched is
``stores.customer_lists``'s matter; why a customer moved belongs in ``migrations``.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from custseg_assets.domain.segments.migrations import BEHAVIOUR
from custseg_assets.domain.segments.model import RFM
from custseg_assets.domain.segments.naming import GOING_QUIET
from custseg_assets.domain.spreadsheets import PREDICTED

SPEND = "monetary_net"
_TYPES = {"cause": pl.String(), "in_window_before": pl.Float64(), **dict.fromkeys(PREDICTED, pl.Float64())}
_NUMBER = r" \d+$"


def list_customers(
    customers: pl.DataFrame,
    now: pl.DataFrame,
    before: pl.DataFrame,
    features_before: pl.DataFrame | None,
    migrations: pl.DataFrame | None,
    segment_values: Mapping[str, float | None],
    days_since_before: int | None = None,
    customer_value: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One row per customer of the snapshot, sorted by customer.

    Args:
        customers: what ``customer_history.describe_customers`` gives.
        now: ``segment_assignments`` of the snapshot, of these customers.
        before: of the snapshot before; without rows where there is none.
        features_before: ``customer_features`` of that; ``None`` where they are not known.
        migrations: ``segment_migrations`` of the snapshot; ``None`` where causes are not known.
        segment_values: segment id → median net spend of its customers; see ``value_segments``.
        days_since_before: days from the snapshot before to this one; ``None`` where there is none.
        customer_value: of the snapshot; ``None`` where nothing is predicted.

    Returns:
        ``customer_id``, ``segment_id``, ``segment_name``, ``since``, ``previous`` and ``moved_from`` (structs of id
        and name; the second is null for who did not move, or was not known, since the snapshot before), ``cause``,
        ``recency_days``, ``frequency_orders``, ``monetary_net`` (null with nothing in the window), ``spend_change``,
        ``value_at_stake``, ``is_at_risk``, ``is_new`` (not known at the snapshot before; false where there is none),
        ``p_order_30d`` and ``expected_spend_90d`` (null where nothing is predicted). ``spend_change`` is null for who
        was not known at the snapshot before.
    """
    record = pl.col("record").struct
    features = record.field("features").struct
    described = customers.select("customer_id", record.field("since", "previous"), features.field(*RFM))
    earlier = before.select("customer_id", earlier=pl.struct("segment_id", "segment_name"))
    joined = now.select("customer_id", "segment_id", "segment_name").join(described, on="customer_id", how="left")
    joined = joined.join(earlier, on="customer_id", how="left")
    for frame, columns in (
        (migrations, {"cause": pl.col("cause")}),
        (features_before, {"in_window_before": pl.col(SPEND)}),
        (customer_value, {name: pl.col(name) for name in PREDICTED}),
    ):
        if frame is None:
            joined = joined.with_columns(pl.lit(None, _TYPES[name]).alias(name) for name in columns)
        else:
            joined = joined.join(frame.select("customer_id", **columns), on="customer_id", how="left")
    was_known = pl.col("earlier").is_not_null() & (features_before is not None)
    earlier_id = pl.col("earlier").struct.field("segment_id")
    return (
        joined.with_columns(
            moved_from=pl.when(earlier_id != pl.col("segment_id")).then("earlier"),
            spend_before=pl.when(was_known).then(pl.col("in_window_before").fill_null(0.0)),
        )
        .with_columns(
            spend_change=pl.col(SPEND).fill_null(0.0) - pl.col("spend_before"),
            value_at_stake=pl.max_horizontal(pl.col(SPEND), pl.col("spend_before"), pl.lit(0.0)),
        )
        .with_columns(
            is_at_risk=is_at_risk(segment_values, days_since_before),
            is_new=pl.col("earlier").is_null() & (before.height > 0),
        )
        .select(
            "customer_id",
            "segment_id",
            "segment_name",
            "since",
            "previous",
            "moved_from",
            "cause",
            *RFM,
            "spend_change",
            "value_at_stake",
            "is_at_risk",
            "is_new",
            *PREDICTED,
        )
        .sort("customer_id")
    )


def is_at_risk(segment_values: Mapping[str, float | None], days_since_before: int | None = None) -> pl.Expr:
    """Whether the shop is about to lose a customer with whom something can still be lost.

    A customer is at risk who has something at stake and

    * is in a segment whose name says that good customers are going quiet there (``naming.GOING_QUIET``), unless it has
      just risen into it, by behaviour, from a segment of lower value, or has just come back: ordered since the
      snapshot before, and spends no less than then; or
    * has fallen, by behaviour, into a segment of lower value since the snapshot before; ``Lapsed`` and ``Refunded`` are
      lower than all others.

    Who has been in ``Hibernating``, ``Lost`` or ``Lapsed`` for longer is not: that was lost before. A move at a border
    or by a change of the model is no sign of the customer's. Where a segment's value is not known, it is not lower.

    Args:
        segment_values: of ``value_segments``.
        days_since_before: days from the snapshot before to this one; ``None`` where there is none.

    Returns:
        an expression over ``segment_id``, ``segment_name``, ``moved_from``, ``cause``, ``recency_days``,
        ``spend_change`` and ``value_at_stake``; never null.
    """
    values = pl.DataFrame(
        {"segment_id": list(segment_values), "value": list(segment_values.values())},
        schema={"segment_id": pl.String, "value": pl.Float64},
    )

    def value_of(segment_id: pl.Expr) -> pl.Expr:
        return segment_id.replace_strict(values["segment_id"], values["value"], default=None, return_dtype=pl.Float64)

    is_quiet = pl.col("segment_name").str.replace(_NUMBER, "").is_in(GOING_QUIET)
    is_by_behaviour = (pl.col("cause") == BEHAVIOUR).fill_null(value=False)
    now, earlier = value_of(pl.col("segment_id")), value_of(pl.col("moved_from").struct.field("segment_id"))
    has_risen, has_fallen = ((is_by_behaviour & move).fill_null(value=False) for move in (now > earlier, now < earlier))
    has_ordered = pl.col("recency_days") < pl.lit(days_since_before, pl.Int64)
    is_back = (has_ordered & (pl.col("spend_change") >= 0)).fill_null(value=False)
    return (pl.col("value_at_stake") > 0) & ((is_quiet & ~has_risen & ~is_back) | has_fallen)


def value_segments(segment_profiles: pl.DataFrame) -> dict[str, float | None]:
    """What a customer of each segment is worth: the median net spend in the window, by segment id.

    ``Refunded`` and ``Lapsed`` have nothing in the window that was kept, so their value is 0 or less.

    Args:
        segment_profiles: of one snapshot.
    """
    value = pl.col("median_monetary_net")
    of_rules = pl.when("is_rule_segment").then(pl.min_horizontal(value.fill_null(0.0), 0.0)).otherwise(value)
    return dict(segment_profiles.select("segment_id", of_rules).iter_rows())
