"""Who is in which segment, what the segments are like, and what to offer, by snapshot."""

from collections.abc import Iterator
from datetime import datetime

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import check_specs
from custseg_assets.defs.materialise import in_batches, picture, publish, spec_of, table_preview
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores
from custseg_assets.domain import recommendations
from custseg_assets.domain.schemas import (
    CLEAN_TRANSACTIONS,
    CUSTOMER_FEATURES,
    PRODUCT_RECOMMENDATIONS,
    SEGMENT_ASSIGNMENTS,
    SEGMENT_PROFILES,
)
from custseg_assets.domain.segments.clustering import assign_customers
from custseg_assets.domain.segments.model import SegmentationModel
from custseg_assets.domain.segments.profiles import profile_segments
from custseg_assets.pictures.segments import cluster_scatter, profile_heatmap, revenue_by_segment
from custseg_assets.settings import Settings


def segment_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of the group ``segments``."""
    models = dg.AssetDep("promotion_decision", partition_mapping=layout.until)
    history = dg.AssetDep("clean_transactions", partition_mapping=layout.until)
    itself = dg.AssetDep("segment_assignments", partition_mapping=layout.before)

    @dg.multi_asset(
        specs=[
            spec_of(
                SEGMENT_ASSIGNMENTS,
                group="segments",
                deps=[dg.AssetDep("scaled_features"), dg.AssetDep("customer_features"), models, history, itself],
                kinds={"numpy", "deltalake"},
            )
        ],
        check_specs=check_specs(SEGMENT_ASSIGNMENTS, settings),
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def segment_assignments(
        context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]
    ) -> dg.MaterializeResult:
        first_seen, provenance = _first_seen(stores, context.partition_keys[-1]), stores.provenance

        def assigned() -> Iterator[tuple[str, pl.DataFrame]]:
            before, earlier_model = _snapshot_before(stores, context.partition_keys[0])
            for key in context.partition_keys:
                known = first_seen.filter(pl.col("first_period") <= key)["customer_id"]
                features, model = stores.tables.read(CUSTOMER_FEATURES, [key]), provenance.model_in_force(key)
                before = assign_customers(features, known, model, before, earlier_model)
                earlier_model = model
                yield key, _of_period(before, key)

        shown = stores.tables.read(CUSTOMER_FEATURES, context.partition_keys[-1:])
        result = publish(context, stores, SEGMENT_ASSIGNMENTS, in_batches(assigned()))
        newest = stores.tables.read(SEGMENT_ASSIGNMENTS, context.partition_keys[-1:])
        scatter = cluster_scatter(shown, newest, seed=settings.model.seed)
        return result._replace(metadata={**result.metadata, "scatter": picture("customers by segment", scatter)})

    @dg.multi_asset(
        specs=[
            spec_of(
                SEGMENT_PROFILES,
                group="segments",
                deps=[dg.AssetDep("segment_assignments"), dg.AssetDep("customer_features")],
                kinds={"polars", "deltalake"},
            )
        ],
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def segment_profiles(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        provenance = stores.provenance

        def profiled() -> Iterator[tuple[str, pl.DataFrame]]:
            for key in context.partition_keys:
                assignments = stores.tables.read(SEGMENT_ASSIGNMENTS, [key])
                features = stores.tables.read(CUSTOMER_FEATURES, [key])
                yield (
                    key,
                    _of_period(profile_segments(assignments, features, provenance.model_in_force(key)), key),
                )

        result = publish(context, stores, SEGMENT_PROFILES, in_batches(profiled()))
        newest = stores.tables.read(SEGMENT_PROFILES, context.partition_keys[-1:])
        customers = stores.tables.read(CUSTOMER_FEATURES, context.partition_keys[-1:])
        shown = {
            "segments": table_preview(
                newest.select("segment_id", "segment_name", "n_customers", "description", "advice")
            ),
            "profile": picture("profile of the segments", profile_heatmap(newest, customers)),
            "revenue": picture("customers and revenue by segment", revenue_by_segment(newest)),
        }
        return result._replace(metadata={**result.metadata, **shown})

    @dg.multi_asset(
        specs=[
            spec_of(
                PRODUCT_RECOMMENDATIONS,
                group="segments",
                deps=[
                    dg.AssetDep("segment_assignments", partition_mapping=layout.previous),
                    dg.AssetDep("clean_transactions", partition_mapping=layout.window),
                ],
                kinds={"polars", "deltalake"},
            )
        ],
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def product_recommendations(
        context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]
    ) -> dg.MaterializeResult:
        outcomes: dict[str, str] = {}
        lines = _PeriodsInMemory(stores)

        def recommended() -> Iterator[tuple[str, pl.DataFrame]]:
            for key in context.partition_keys:
                frame, outcomes[key] = _recommended(stores, key, lines)
                yield key, _of_period(frame, key)

        result = publish(context, stores, PRODUCT_RECOMMENDATIONS, in_batches(recommended()))
        return result._replace(metadata={**result.metadata, "evaluation": dg.MetadataValue.json(outcomes)})

    return [segment_assignments, segment_profiles, product_recommendations]


def _first_seen(stores: Stores, until: str) -> pl.DataFrame:
    """Every customer known by a period's end, with the first period it was seen in."""
    lines = stores.tables.scan(CLEAN_TRANSACTIONS, stores.provenance.periods_until(until))
    return lines.group_by("customer_id").agg(pl.col("period").min().alias("first_period")).collect(engine="streaming")


def _snapshot_before(stores: Stores, key: str) -> tuple[pl.DataFrame | None, SegmentationModel | None]:
    """The assignments of the snapshot before one, and the model in force there; neither where there is none."""
    earlier = stores.provenance.snapshots_before(key)[-1:]
    if not earlier:
        return None, None
    return stores.tables.read(SEGMENT_ASSIGNMENTS, earlier), stores.provenance.model_at(earlier[0])


def _of_period(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    return frame.select(pl.lit(key).alias("period"), pl.all())


class _PeriodsInMemory:
    """Ordered lines of the window at hand; a window that moves on reads only the periods it did not have."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._periods: dict[str, pl.DataFrame] = {}

    def of(self, keys: tuple[str, ...]) -> pl.DataFrame:
        kept = {key: self._periods[key] for key in keys if key in self._periods}
        ids = pl.col("customer_id", "product_id").cast(pl.Categorical)
        columns = [ids, "description", "invoiced_at", "is_cancellation"]
        for key in keys:
            if key not in kept:
                kept[key] = self._stores.tables.scan(CLEAN_TRANSACTIONS, [key]).select(columns).collect()
        self._periods = kept
        return pl.concat([kept[key] for key in keys])


def _recommended(stores: Stores, key: str, lines: _PeriodsInMemory) -> tuple[pl.DataFrame, str]:
    """Recommendations of a snapshot, by the method that would have done best on its last period."""
    window, configured = stores.provenance.window(key), stores.settings.recommendations
    purchases = lines.of(window.keys)
    assignments = stores.tables.read(SEGMENT_ASSIGNMENTS, [key])
    last_period = window.as_of - datetime.fromisoformat(key)
    before = stores.tables.read(SEGMENT_ASSIGNMENTS, stores.provenance.snapshots_before(key)[-1:])
    outcome = recommendations.evaluate(
        purchases,
        before,
        as_of=window.as_of,
        horizon_days=last_period.days,
        half_life_days=configured.half_life_days,
        n_items=configured.n_items,
    )
    offers = recommendations.recommend(
        purchases,
        assignments,
        as_of=window.as_of,
        n_items=configured.n_items,
        method=outcome.winner,
        half_life_days=configured.half_life_days,
    )
    return offers, outcome.sentence
