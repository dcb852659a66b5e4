"""Customer features and the matrix K-means sees, by snapshot."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import narwhals as nw
import polars as pl

from custseg_assets.defs.checks import check_specs
from custseg_assets.defs.materialise import in_batches, key_batches, publish, spec_of
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES, scaled_features_table
from custseg_assets.domain.segments.training_tables import scale_snapshot
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.settings import Settings


def feature_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of the group ``features``."""
    scaled_table = scaled_features_table(settings.model.features)

    @dg.multi_asset(
        specs=[
            spec_of(
                CUSTOMER_FEATURES,
                group="features",
                deps=[dg.AssetDep("clean_transactions", partition_mapping=layout.window)],
                kinds={"polars", "deltalake"},
            )
        ],
        check_specs=check_specs(CUSTOMER_FEATURES, settings),
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def customer_features(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        windows = [stores.provenance.window(key) for key in context.partition_keys]
        orders, products = _orders_and_products(stores, sorted({key for window in windows for key in window.keys}))
        frames = ((window.key, _features_of(orders, products, window)) for window in windows)
        return publish(context, stores, CUSTOMER_FEATURES, in_batches(frames))

    @dg.multi_asset(
        specs=[
            spec_of(
                scaled_table,
                group="features",
                deps=[dg.AssetDep("customer_features")],
                kinds={"numpy", "deltalake"},
            )
        ],
        check_specs=check_specs(scaled_table, settings),
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def scaled_features(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        names = settings.model.features

        def scaled() -> Iterator[tuple[str, pl.DataFrame]]:
            for key in context.partition_keys:
                features = stores.tables.read(CUSTOMER_FEATURES, [key])
                matrix, _ = scale_snapshot(features, names, stores.provenance.reference_at(key))
                yield key, matrix

        return publish(context, stores, scaled_table, in_batches(scaled()))

    return [customer_features, scaled_features]


def _orders_and_products(stores: Stores, periods: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the log says about orders and products, a few periods in memory at a time."""
    orders, products = [], []
    for keys in key_batches(stores.provenance.rows_of(periods)):
        lines = nw.from_native(stores.tables.scan(CLEAN_TRANSACTIONS, keys).collect().lazy())
        orders.append(rfm.order_parts(lines).collect().to_native())
        products.append(rfm.bought_products(lines).collect().to_native())
    return pl.concat(orders), pl.concat(products)


def _features_of(orders: pl.DataFrame, products: pl.DataFrame, window: Any) -> pl.DataFrame:
    parts, bought = nw.from_native(orders.lazy()), nw.from_native(products.lazy())
    totals = rfm.customer_totals(parts, bought, window).collect().to_native()
    spend = rfm.spend_by_period(parts, window).collect().to_native()
    return rfm.customer_features(totals, spend, window)
