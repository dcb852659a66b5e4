"""Who is in which segment, what the segments are like, and what to offer, by snapshot."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

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
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.pictures.segments import cluster_scatter, profile_heatmap, revenue_by_segment


@snapshot_asset("segment_assignments", group="segments", kinds={"numpy", "deltalake"})
def segment_assignments(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Assign every known customer to a segment of the model in force."""
    keys, unchanged = with_model(context, home)
    first_seen, newest = _first_seen(home, keys[-1]), keys[-1:]

    def assign_snapshots() -> Iterator[tuple[str, pl.DataFrame]]:
        before, earlier_model = _snapshot_before(home, keys[0])
        margin_rule = home.settings.model.margin_rule
        for key in keys:
            known = first_seen.filter(pl.col("first_period") <= key)["customer_id"]
            features, model = home.tables.read(CUSTOMER_FEATURES, [key]), home.champions.model_at(key)
            window = home.calendar.window(key)
            before = assign_customers(
                features, known, model, before, earlier_model, margin_rule, observed_share=window.observed_share
            )
            earlier_model = model
            yield key, of_snapshot(SEGMENT_ASSIGNMENTS, window, before)

    def show() -> Mapping[str, Any]:
        features, assignments = (home.tables.read(table, newest) for table in (CUSTOMER_FEATURES, SEGMENT_ASSIGNMENTS))
        scatter = cluster_scatter(features, assignments, seed=home.settings.model.seed, currency=home.currency)
        return {"scatter": picture("customers by segment", scatter)}

    return materialise(
        context, home, SEGMENT_ASSIGNMENTS, in_batches(assign_snapshots()), unchanged=unchanged, show=show
    )


@snapshot_asset("segment_profiles", group="segments", kinds={"polars", "deltalake"})
def segment_profiles(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Describe the segments of each snapshot."""
    keys, unchanged = with_model(context, home)

    def profile() -> Iterator[tuple[str, pl.DataFrame]]:
        for key in keys:
            assignments, features = (
                home.tables.read(table, [key]) for table in (SEGMENT_ASSIGNMENTS, CUSTOMER_FEATURES)
            )
            profiles = profile_segments(assignments, features, home.champions.model_at(key))
            yield key, of_snapshot(SEGMENT_PROFILES, home.calendar.window(key), profiles)

    def show() -> Mapping[str, Any]:
        newest = home.tables.read(SEGMENT_PROFILES, keys[-1:])
        customers = home.tables.read(CUSTOMER_FEATURES, keys[-1:])
        currency = home.currency
        in_words = newest.select("segment_id", "segment_name", "n_customers", "description", "advice")
        return {
            "revenue": picture("customers and revenue by segment", revenue_by_segment(newest, currency)),
            "profile": picture("profile of the segments", profile_heatmap(newest, customers, currency)),
            "segments": table_preview(in_words),
        }

    return materialise(context, home, SEGMENT_PROFILES, in_batches(profile()), unchanged=unchanged, show=show)


@snapshot_asset("product_recommendations", group="segments", kinds={"polars", "deltalake"})
def product_recommendations(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Choose what to offer to each customer, by the method that did best on the last period."""
    keys, unchanged = with_model(context, home)
    outcomes: dict[str, str] = {}
    lines = _PeriodsInMemory(home)

    def recommend() -> Iterator[tuple[str, pl.DataFrame]]:
        for key in keys:
            frame, outcomes[key] = _recommend(home, key, lines)
            yield key, of_snapshot(PRODUCT_RECOMMENDATIONS, home.calendar.window(key), frame)

    return materialise(
        context,
        home,
        PRODUCT_RECOMMENDATIONS,
        in_batches(recommend()),
        unchanged=unchanged,
        show=lambda: {"evaluation": dg.MetadataValue.json(outcomes)},
    )


def _first_seen(home: OpenHome, until: str) -> pl.DataFrame:
    """Every customer known by a period's end, with the first period it was seen in."""
    lines = home.tables.scan(CLEAN_TRANSACTIONS, home.calendar.periods_until(until))
    return lines.group_by("customer_id").agg(pl.col("period").min().alias("first_period")).collect(engine="streaming")


def _snapshot_before(home: OpenHome, key: str) -> tuple[pl.DataFrame | None, SegmentationModel | None]:
    """The assignments of the snapshot before one, and the model in force there; neither where there is none."""
    earlier = home.snapshots_before(key)[-1:]
    if not earlier:
        return None, None
    return home.tables.read(SEGMENT_ASSIGNMENTS, earlier), home.champions.model_at(earlier[0])


class _PeriodsInMemory:
    """Ordered lines of the window at hand; a window that moves on reads only the periods it did not have."""

    def __init__(self, home: OpenHome) -> None:
        self._home = home
        self._periods: dict[str, pl.DataFrame] = {}

    def of(self, keys: tuple[str, ...]) -> pl.DataFrame:
        kept = {key: self._periods[key] for key in keys if key in self._periods}
        ids = pl.col("customer_id", "product_id").cast(pl.Categorical)
        columns = [ids, "description", "invoiced_at", "is_cancellation"]
        for key in keys:
            if key not in kept:
                kept[key] = self._home.tables.scan(CLEAN_TRANSACTIONS, [key]).select(columns).collect()
        self._periods = kept
        return pl.concat([kept[key] for key in keys])


def _recommend(home: OpenHome, key: str, lines: _PeriodsInMemory) -> tuple[pl.DataFrame, str]:
    """Recommendations of a snapshot, by the method that would have done best on its period, so far as that goes."""
    window, configured = home.calendar.window(key), home.settings.recommendations
    purchases = lines.of(window.keys)
    if window.is_open:
        purchases = purchases.filter(pl.col("invoiced_at") >= window.start)
    assignments = home.tables.read(SEGMENT_ASSIGNMENTS, [key])
    before = home.tables.read(SEGMENT_ASSIGNMENTS, home.snapshots_before(key)[-1:])
    outcome = recommendations.evaluate(
        purchases,
        before,
        as_of=window.as_of,
        horizon_days=(window.as_of - datetime.fromisoformat(key)).days,
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


ASSETS = (segment_assignments, segment_profiles, product_recommendations)
