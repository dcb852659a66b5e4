"""Who moved between segments since the snapshot before, and why, by snapshot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

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
from custseg_assets.defs.metadata import picture, table_preview
from custseg_assets.domain.schemas import CUSTOMER_FEATURES, SEGMENT_ASSIGNMENTS, SEGMENT_MIGRATIONS
from custseg_assets.domain.segments.clustering import assign_customers, kmeans_columns
from custseg_assets.domain.segments.migrations import (
    count_flows,
    list_migrations,
    measure_moves,
    summarise_moves,
)
from custseg_assets.domain.segments.model import RFM
from custseg_assets.domain.slices import EVERYBODY, IdRange
from custseg_assets.home.inputs import read_inputs
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.pictures.segments import migration_matrix


@snapshot_asset("segment_migrations", group="segments", kinds={"polars", "deltalake"})
def segment_migrations(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Compare each snapshot with the one before it, customer by customer."""
    keys, unchanged = with_model(context, home)

    def compare() -> Iterator[tuple[str, pl.DataFrame | Iterator[pl.DataFrame]]]:
        for key in keys:
            ranges = home.tables.id_ranges(SEGMENT_ASSIGNMENTS, key)
            moves = map(partial(_list_moves, home, key), ranges)
            yield key, next(moves) if len(ranges) == 1 else moves

    return materialise(
        context,
        home,
        SEGMENT_MIGRATIONS,
        in_batches(compare()),
        unchanged=unchanged,
        show=lambda: _show_moves(home, keys[-1]),
    )


_ASSIGNED = (
    *("customer_id", "segment_id", "segment_name", "is_rule_segment"),
    *("is_held", "runner_up_segment_id", "margin", "model_version"),
)


class _Snapshots(NamedTuple):
    """Assignments and features of a snapshot and of the one before."""

    before_key: str
    before: pl.DataFrame
    now: pl.DataFrame
    features_before: pl.DataFrame
    features_now: pl.DataFrame


def _read_both(
    home: OpenHome, key: str, within: IdRange = EVERYBODY, assigned: Sequence[str] = _ASSIGNED
) -> _Snapshots | None:
    """What is compared of all customers, or of a slice of them; nothing where no earlier snapshot has segments."""
    earlier = home.snapshots_before(key)[-1:]
    if not earlier:
        return None
    tables, features = home.tables, (*kmeans_columns(home.settings.model.features), *RFM)
    before, now = (tables.read(SEGMENT_ASSIGNMENTS, [one], assigned, within) for one in (*earlier, key))
    features_before = tables.read(CUSTOMER_FEATURES, earlier, features, within)
    features_now = read_inputs(home, key, home.champions.model_at(earlier[0]).n_weeks, features, within)
    return _Snapshots(earlier[0], before, now, features_before, features_now)


def _list_moves(home: OpenHome, key: str, within: IdRange) -> pl.DataFrame:
    two, window = _read_both(home, key, within), home.calendar.window(key)
    if two is None:
        return SEGMENT_MIGRATIONS.schema.to_frame()
    earlier_model = home.champions.model_at(two.before_key)
    stay = assign_customers(
        two.features_now,
        two.now["customer_id"],
        earlier_model,
        two.before,
        earlier_model,
        home.settings.model.margin_rule,
        observed_share=window.observed_share,
    )
    moves = list_migrations(two.before, two.now, stay, two.features_before, two.features_now)
    return of_snapshot(SEGMENT_MIGRATIONS, window, moves)


_SHOWN = ("customer_id", "segment_id", "segment_name", "is_rule_segment")


def _show_moves(home: OpenHome, key: str) -> Mapping[str, Any]:
    """The moves of a snapshot for people to look at."""
    two = _read_both(home, key, assigned=_SHOWN)
    if two is None:
        return {"moves": f"{key} is the first snapshot with segments: nobody can have moved yet."}
    window = home.calendar.window(key)
    so_far = f", so far, as of {window.as_of:%Y-%m-%d}" if window.is_open else ""
    all_flows = count_flows(two.before, two.now, two.features_now)
    n_known = all_flows.filter(pl.col("from_segment").is_not_null())["n_customers"].sum()
    summary = summarise_moves(home.tables.read(SEGMENT_MIGRATIONS, [key]), int(n_known))
    earlier = home.snapshots_before(two.before_key)[-1:]
    before = home.tables.read(SEGMENT_ASSIGNMENTS, earlier, _SHOWN) if earlier else None
    rates = measure_moves(two.now, two.before, before)
    return {
        "moves": f"{two.before_key} → {key}{so_far}: {summary.sentence}.",
        "matrix": picture("customers by segment before and now", migration_matrix(all_flows, home.currency)),
        "phantom_moves": summary.n_phantom,
        **{name: rate for name, rate in asdict(rates).items() if rate is not None},
        "by_cause": table_preview(summary.by_cause),
        "top_flows": table_preview(summary.by_flow),
    }


ASSETS = (segment_migrations,)
