"""Customer features and the matrix K-means sees, by snapshot."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from custseg_assets.defs.materialise import Materialization, in_batches, materialise, snapshot_asset
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES, scaled_features_table
from custseg_assets.domain.segments.training_tables import scale_snapshot
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.home.open import LockedHome


@snapshot_asset("customer_features", group="features", kinds={"polars", "deltalake"})
def customer_features(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Measure every customer seen in the window of each snapshot."""
    windows = [home.calendar.window(key) for key in context.partition_keys]
    clean = home.tables.table_files(CLEAN_TRANSACTIONS, {key for window in windows for key in window.keys})

    def measure() -> Iterator[tuple[str, pl.DataFrame]]:
        with home.opened_engine(clean.n_rows) as (engine, _):
            for found in engine.measure(clean, windows):
                yield found.window.key, rfm.customer_features(found.totals, found.spend, found.window)

    return materialise(context, home, CUSTOMER_FEATURES, in_batches(measure()))


@snapshot_asset("scaled_features", group="features", kinds={"numpy", "deltalake"})
def scaled_features(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Put the segmentation features of each snapshot on the scale of the model in force."""
    names = home.settings.model.features

    def scale() -> Iterator[tuple[str, pl.DataFrame]]:
        for key in context.partition_keys:
            features = home.tables.read(CUSTOMER_FEATURES, [key])
            matrix, _ = scale_snapshot(features, names, home.champions.reference_before(key))
            yield key, matrix

    return materialise(context, home, scaled_features_table(names), in_batches(scale()))


ASSETS = (customer_features, scaled_features)
