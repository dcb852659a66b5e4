"""What the customers of a home will probably do: days of the log and segments, from the tables to the domain."""

from __future__ import annotations

import polars as pl

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, SEGMENT_ASSIGNMENTS, VALUE_MODEL
from custseg_assets.domain.value.days import count_days, day_number
from custseg_assets.home.open import OpenHome


class Values:
    """The value of a home's customers at some snapshots.

    Args:
        home: whose customers they are.
        until: key of the last of these snapshots.
    """

    def __init__(self, home: OpenHome, until: str) -> None:
        self._home = home
        lines = home.tables.scan(CLEAN_TRANSACTIONS, home.calendar.periods_until(until))
        self._days = count_days(lines).collect(engine="streaming")

    def fit(self, _: str) -> pl.DataFrame:
        """Rows of ``value_model`` of a snapshot."""
        row = dict.fromkeys(column.name for column in VALUE_MODEL.content) | {
            "target": "order_30d",
            "method": "segment_mean",
            "is_chosen": True,
            "reason": "Too little history: the segment's mean pace is used.",
            "n_taught": 0,
            "n_replays": 0,
            "n_replayed": 0,
        }
        return pl.DataFrame([row], schema={c.name: c.dtype for c in VALUE_MODEL.content})

    def predict(self, key: str) -> pl.DataFrame:
        """Rows of ``customer_value`` of a snapshot."""
        as_of = day_number(self._home.calendar.window(key).as_of)
        placed = self._home.tables.read(SEGMENT_ASSIGNMENTS, [key], ("customer_id", "segment_id"))
        seen = (
            self._days.filter(pl.col("day") < as_of)
            .group_by("customer_id")
            .agg(pl.col("n_orders").sum(), pl.col("net_micro").sum(), (as_of - pl.col("day").min()).alias("n_days"))
        )
        rows = placed.join(seen, on="customer_id", how="left", maintain_order="left").with_columns(
            pace=((pl.col("n_orders").sum() + 1) / (pl.col("n_days").sum() + 30)).over("segment_id"),
            net=(pl.col("net_micro").sum() / 1e6 / (pl.col("n_orders").sum() + 1)).over("segment_id"),
        )
        figures = {f"p_order_{h}d": 1 - (-pl.col("pace") * h).exp() for h in (30, 60, 90)}
        figures["expected_orders_90d"] = 90 * pl.col("pace")
        figures["expected_spend_90d"] = 90 * pl.col("pace") * pl.col("net")
        return rows.select(
            "customer_id",
            *(
                e
                for n, x in figures.items()
                for e in (
                    x.alias(n),
                    (x * 0.8).alias(f"{n}_low"),
                    pl.min_horizontal(x * 1.2, 1.0).alias(f"{n}_high")
                    if n.startswith("p_")
                    else (x * 1.2).alias(f"{n}_high"),
                )
            ),
            method=pl.lit("segment_mean"),
        )
