"""Customer features and the matrix K-means sees, by snapshot."""

from collections.abc import Iterator
from functools import partial

import dagster as dg
import polars as pl

from custseg_assets.defs.materialise import Materialization, in_batches, materialise, snapshot_asset
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES, scaled_features_table
from custseg_assets.domain.segments.clustering import kmeans_columns
from custseg_assets.domain.segments.model import ScalingReference
from custseg_assets.domain.segments.training_tables import measure_snapshot, scale_snapshot
from custseg_assets.domain.slices import IdRange
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.home.open import LockedHome, OpenHome


@snapshot_asset("customer_features", group="features", kinds={"polars", "deltalake"})
def customer_features(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Measure every customer seen in the window of each snapshot."""
    windows = [home.calendar.window(key) for key in context.partition_keys]
    clean = home.tables.table_files(CLEAN_TRANSACTIONS, {key for window in windows for key in window.keys})

    def measure() -> Iterator[tuple[str, pl.DataFrame]]:
        with home.opened_engine(clean.n_rows, context.log.info) as (engine, _):
            for found in engine.measure(clean, windows):
                yield found.window.key, rfm.customer_features(found.totals, found.spend, found.window)

    return materialise(context, home, CUSTOMER_FEATURES, in_batches(measure()))


@snapshot_asset("scaled_features", group="features", kinds={"numpy", "deltalake"})
def scaled_features(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Put the segmentation features of each snapshot on the scale of the model in force."""
    names = home.settings.model.features

    def scale() -> Iterator[tuple[str, pl.DataFrame | Iterator[pl.DataFrame]]]:
        for key in context.partition_keys:
            ranges = home.tables.id_ranges(CUSTOMER_FEATURES, key)
            reference = home.champions.reference_before(key)
            if reference is None and len(ranges) > 1:
                reference = measure_snapshot(home.tables.read(CUSTOMER_FEATURES, [key], kmeans_columns(names)), names)
            scaled = map(partial(_scale, home, key, reference), ranges)
            yield key, next(scaled) if len(ranges) == 1 else scaled

    return materialise(context, home, scaled_features_table(names), in_batches(scale()))


def _scale(home: OpenHome, key: str, reference: ScalingReference | None, within: IdRange) -> pl.DataFrame:
    """The scaled features of some customers, with a reference or, of everybody, their own."""
    names = home.settings.model.features
    features = home.tables.read(CUSTOMER_FEATURES, [key], ("period", *kmeans_columns(names)), within)
    return scale_snapshot(features, names, reference)[0]


ASSETS = (customer_features, scaled_features)
