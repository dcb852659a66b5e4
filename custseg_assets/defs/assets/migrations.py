"""Who moved between segments since the snapshot before, and why, by snapshot."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import check_specs
from custseg_assets.defs.materialise import in_batches, picture, publish, spec_of, table_preview
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores
from custseg_assets.domain.schemas import CUSTOMER_FEATURES, SEGMENT_ASSIGNMENTS, SEGMENT_MIGRATIONS
from custseg_assets.domain.segments.clustering import assign_customers
from custseg_assets.domain.segments.migrations import count_flows, list_migrations, summarise_moves
from custseg_assets.pictures.segments import migration_matrix
from custseg_assets.settings import Settings


def migration_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of the group ``segments`` that compares two snapshots."""

    @dg.multi_asset(
        specs=[
            spec_of(
                SEGMENT_MIGRATIONS,
                group="segments",
                deps=[
                    dg.AssetDep("segment_assignments", partition_mapping=layout.previous),
                    dg.AssetDep("customer_features", partition_mapping=layout.previous),
                    dg.AssetDep("segmentation_model", partition_mapping=layout.until),
                ],
                kinds={"polars", "deltalake"},
            )
        ],
        check_specs=check_specs(SEGMENT_MIGRATIONS, settings),
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def segment_migrations(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        def moved() -> Iterator[tuple[str, pl.DataFrame]]:
            for key in context.partition_keys:
                yield key, _moved(stores, key).select(pl.lit(key).alias("period"), pl.all())

        result = publish(context, stores, SEGMENT_MIGRATIONS, in_batches(moved()))
        return result._replace(metadata={**result.metadata, **_shown(stores, context.partition_keys[-1])})

    return [segment_migrations]


class _Snapshots(NamedTuple):
    """Assignments and features of a snapshot and of the one before."""

    before_key: str
    before: pl.DataFrame
    now: pl.DataFrame
    features_before: pl.DataFrame
    features_now: pl.DataFrame


def _snapshots(stores: Stores, key: str) -> _Snapshots | None:
    """What is compared; nothing where no earlier snapshot has segments."""
    earlier = stores.provenance.snapshots_before(key)[-1:]
    if not earlier:
        return None
    keys = (*earlier, key)
    assignments = (stores.tables.read(SEGMENT_ASSIGNMENTS, [one]) for one in keys)
    features = (stores.tables.read(CUSTOMER_FEATURES, [one]) for one in keys)
    return _Snapshots(*earlier, *assignments, *features)


def _moved(stores: Stores, key: str) -> pl.DataFrame:
    two = _snapshots(stores, key)
    if two is None:
        return SEGMENT_MIGRATIONS.schema.to_frame().drop("period")
    earlier_model = stores.provenance.model_in_force(two.before_key)
    stay = assign_customers(two.features_now, two.now["customer_id"], earlier_model, two.before, earlier_model)
    return list_migrations(two.before, two.now, stay, two.features_before, two.features_now)


def _shown(stores: Stores, key: str) -> Mapping[str, Any]:
    """The moves of a snapshot for people to look at."""
    two = _snapshots(stores, key)
    if two is None:
        return {"moves": f"{key} is the first snapshot with segments: nobody can have moved yet."}
    all_flows = count_flows(two.before, two.now, two.features_now)
    n_known = all_flows.filter(pl.col("from_segment").is_not_null())["n_customers"].sum()
    summary = summarise_moves(stores.tables.read(SEGMENT_MIGRATIONS, [key]), n_known)
    return {
        "moves": f"{two.before_key} → {key}: {summary.sentence}.",
        "phantom_moves": summary.n_phantom,
        "by_cause": table_preview(summary.by_cause),
        "top_flows": table_preview(summary.by_flow),
        "matrix": picture("customers by segment before and now", migration_matrix(all_flows)),
    }
