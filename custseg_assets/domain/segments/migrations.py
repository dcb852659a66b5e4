"""Migrations: who moved between two consecutive snapshots, why, and with how much revenue.

A move has one cause, so the causes add up to all moves:

* ``model change``: the model in force at the earlier snapshot would still have the customer in the earlier segment.
  The customer's behaviour did not cause it; it is a phantom move.
* ``border``: the customer moved, but its margin is below ``NEAR_BORDER``: the move lasted, and was not clear.
* ``behaviour``: the customer moved, and is not near a border; or it moved into or out of a rule segment.

Counts of moves without causes belong in ``customer_history``.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import polars as pl

from custseg_assets.domain.schemas import SEGMENT_MIGRATIONS
from custseg_assets.domain.segments.customer_history import list_transitions
from custseg_assets.domain.segments.model import RFM

BEHAVIOUR, BORDER, MODEL_CHANGE = "behaviour", "border", "model change"
CAUSES = (BEHAVIOUR, BORDER, MODEL_CHANGE)
NEAR_BORDER = 0.1
"""The margin under which a customer who moved is near the border it crossed."""


def list_migrations(
    before: pl.DataFrame,
    now: pl.DataFrame,
    stay: pl.DataFrame,
    features_before: pl.DataFrame,
    features_now: pl.DataFrame,
) -> pl.DataFrame:
    """The customers of both snapshots whose segment changed, sorted by customer.

    Args:
        before: ``segment_assignments`` of the earlier snapshot.
        now: of the later one.
        stay: ``customer_id`` and ``segment_id`` that the model in force at the earlier snapshot gives, with its own
            margin rule, for the features of the later one.
        features_before: ``customer_features`` of the earlier snapshot.
        features_now: of the later one.

    Returns:
        The content of ``segment_migrations``.
    """
    moved = list_transitions(before, now).filter(pl.col("from_segment_id") != pl.col("to_segment_id"))
    earlier = before.select(
        "customer_id",
        from_segment_name="segment_name",
        was_rule_segment="is_rule_segment",
        earlier_model_version="model_version",
    )
    current = now.select("customer_id", "is_rule_segment", "margin", "model_version", to_segment_name="segment_name")
    rfm = pl.col(RFM)
    joined = (
        moved.join(earlier, on="customer_id", how="left")
        .join(current, on="customer_id", how="left")
        .join(stay.select("customer_id", stay_segment_id="segment_id"), on="customer_id", how="left")
        .join(features_before.select("customer_id", rfm.name.suffix("_before")), on="customer_id", how="left")
        .join(features_now.select("customer_id", rfm.name.suffix("_now")), on="customer_id", how="left")
    )
    spent, spent_before = (pl.col(f"monetary_net_{when}").fill_null(0.0) for when in ("now", "before"))
    return (
        joined.with_columns(_cause(), revenue_net=spent, revenue_change=spent - spent_before)
        .select(column.name for column in SEGMENT_MIGRATIONS.content)
        .sort("customer_id")
    )


def _cause() -> pl.Expr:
    by_rule = pl.col("was_rule_segment") | pl.col("is_rule_segment")
    return (
        pl.when(pl.col("stay_segment_id") == pl.col("from_segment_id"))
        .then(pl.lit(MODEL_CHANGE))
        .when(~by_rule & (pl.col("margin") < NEAR_BORDER))
        .then(pl.lit(BORDER))
        .otherwise(pl.lit(BEHAVIOUR))
        .alias("cause")
    )


@dataclass(frozen=True)
class MoveRates:
    """How much the segments of a snapshot move; ``None`` where there is nobody to count.

    Attributes:
        moved: of the customers who were in a segment of K-means at the snapshot before, the share in another one now.
        to_and_fro: of those who were in one at the snapshot before that, the share who left it and are back now.
    """

    moved: float | None
    to_and_fro: float | None


@dataclass(frozen=True)
class MoveCounts:
    """The customers that ``MoveRates`` are shares of; adds up over slices of customers.

    Attributes:
        n_before: who were in a segment of K-means at the snapshot before.
        n_moved: those of them who are in another one now.
        n_earlier: who were in one at the snapshot before that.
        n_back: those of them who left it and are back now.
    """

    n_before: int = 0
    n_moved: int = 0
    n_earlier: int = 0
    n_back: int = 0

    def __add__(self, other: MoveCounts) -> MoveCounts:
        return MoveCounts(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))

    def rates(self) -> MoveRates:
        """The shares."""
        return MoveRates(
            self.n_moved / self.n_before if self.n_before else None,
            self.n_back / self.n_earlier if self.n_earlier else None,
        )


def measure_moves(
    now: pl.DataFrame, before: pl.DataFrame | None = None, earlier: pl.DataFrame | None = None
) -> MoveRates:
    """The shares of customers who moved, and who took a move back.

    Args:
        now: ``segment_assignments`` of a snapshot.
        before: of the snapshot before; ``None`` where there is none.
        earlier: of the one before that; ``None`` where there is none.
    """
    return count_movers(now, before, earlier).rates()


def count_movers(
    now: pl.DataFrame, before: pl.DataFrame | None = None, earlier: pl.DataFrame | None = None
) -> MoveCounts:
    """How many customers moved, and took a move back, of all or of a slice of them; see ``measure_moves``."""
    if before is None:
        return MoveCounts()
    transitions = list_transitions(before, now)
    has_moved = pl.col("from_segment_id") != pl.col("to_segment_id")
    is_back = has_moved & (pl.col("to_segment_id") == pl.col("segment_id"))

    def count(then: pl.DataFrame | None, condition: pl.Expr) -> tuple[int, int]:
        if then is None:
            return 0, 0
        of_kmeans = then.filter(~pl.col("is_rule_segment")).select("customer_id", "segment_id")
        rows = transitions.join(of_kmeans, on="customer_id")
        return rows.height, rows.filter(condition).height

    return MoveCounts(*count(before, has_moved), *count(earlier, is_back))


def count_flows(before: pl.DataFrame, now: pl.DataFrame, features_now: pl.DataFrame) -> pl.DataFrame:
    """Customers and their net spend by earlier and present segment, also of those who stayed.

    Args:
        before: ``segment_assignments`` of the earlier snapshot.
        now: of the later one.
        features_now: ``customer_features`` of the later one.

    Returns:
        ``from_segment`` (null: not known before), ``to_segment``, ``n_customers`` and ``revenue_net``, in currency.
        Segments are given as id and name: the name they have now, or had last.
    """
    label = pl.format("{} {}", "segment_id", "segment_name").alias("label")
    named = pl.concat([frame.select("segment_id", label) for frame in (now, before)])
    labels = dict(named.unique("segment_id", keep="first", maintain_order=True).iter_rows())
    spent = features_now.select("customer_id", "monetary_net")
    return (
        list_transitions(before, now)
        .join(spent, on="customer_id", how="left")
        .group_by(
            from_segment=pl.col("from_segment_id").replace(labels), to_segment=pl.col("to_segment_id").replace(labels)
        )
        .agg(n_customers=pl.len().cast(pl.Int64), revenue_net=pl.col("monetary_net").sum())
        .sort("from_segment", "to_segment")
    )


@dataclass(frozen=True)
class MoveSummary:
    """The moves of one snapshot in few numbers; money is in currency.

    Attributes:
        by_cause: ``cause``, ``n_customers``, ``revenue_net`` and ``revenue_change``; every cause, then all moves.
        by_flow: the same per cause and ``flow``, the pair of segments, the largest first.
        n_phantom: moves that only a change of the model caused.
        sentence: the numbers in words, with phantom moves apart.
    """

    by_cause: pl.DataFrame
    by_flow: pl.DataFrame
    n_phantom: int
    sentence: str


def summarise_moves(moves: pl.DataFrame, n_known: int) -> MoveSummary:
    """How many moved, for which cause, and from where to where.

    Args:
        moves: ``segment_migrations`` of one snapshot.
        n_known: customers of both snapshots.
    """
    sums = pl.len().cast(pl.Int64).alias("n_customers"), pl.col("revenue_net", "revenue_change").sum()
    causes = pl.DataFrame({"cause": CAUSES}).join(
        moves.group_by("cause").agg(*sums), on="cause", how="left", maintain_order="left"
    )
    of_all = moves.select(pl.lit("all moves").alias("cause"), *sums)
    by_cause = pl.concat([causes.with_columns(pl.exclude("cause").fill_null(0)), of_all])
    flow = pl.format("{} {} → {} {}", "from_segment_id", "from_segment_name", "to_segment_id", "to_segment_name")
    by_flow = moves.group_by("cause", flow=flow).agg(*sums)
    counts = dict(by_cause.select("cause", "n_customers").iter_rows())
    return MoveSummary(
        by_cause=by_cause,
        by_flow=by_flow.sort("n_customers", "flow", "cause", descending=(True, False, False)),
        n_phantom=counts[MODEL_CHANGE],
        sentence=(
            f"{counts[BEHAVIOUR] + counts[BORDER]:,} of {n_known:,} customers moved, {counts[BEHAVIOUR]:,} by their "
            f"behaviour and {counts[BORDER]:,} at a border; another {counts[MODEL_CHANGE]:,} have another segment only "
            "because the model changed"
        ),
    )
