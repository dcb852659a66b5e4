"""What each customer will probably do in the next 90 days, by snapshot, and what that rests on."""

from collections.abc import Iterator
from functools import partial

import dagster as dg
import polars as pl

from custseg_assets.defs.materialise import (
    Materialization,
    in_batches,
    materialise,
    of_snapshot,
    snapshot_asset,
    with_model,
)
from custseg_assets.domain.schemas import CUSTOMER_VALUE, VALUE_MODEL
from custseg_assets.home.open import LockedHome
from custseg_assets.home.values import opened_values


@snapshot_asset(VALUE_MODEL.name, CUSTOMER_VALUE.name, step="value", group="value", kinds={"numpy", "deltalake"})
def customer_value(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Iterator[Materialization]:
    """Choose what predicts best at each snapshot, and predict every known customer by it."""
    keys, unchanged = with_model(context, home)
    with opened_values(home, keys) as values:

        def describe() -> Iterator[tuple[str, pl.DataFrame]]:
            for key in keys:
                yield key, of_snapshot(VALUE_MODEL, home.calendar.window(key), values.describe(key))

        def predict() -> Iterator[tuple[str, pl.DataFrame | Iterator[pl.DataFrame]]]:
            for key in keys:
                rows = map(partial(of_snapshot, CUSTOMER_VALUE, home.calendar.window(key)), values.predict(key))
                yield key, rows if values.is_sliced else next(rows)

        yield materialise(context, home, VALUE_MODEL, in_batches(describe()), unchanged=unchanged)
        yield materialise(context, home, CUSTOMER_VALUE, in_batches(predict()), unchanged=unchanged)


ASSETS = (customer_value,)
