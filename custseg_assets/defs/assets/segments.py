"""Who is in which segment, what the segments are like, and what to offer, by snapshot."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
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
from custseg_assets.domain.schemas import (
    CLEAN_TRANSACTIONS,
    CUSTOMER_FEATURES,
    PRODUCT_RECOMMENDATIONS,
    SEGMENT_ASSIGNMENTS,
    SEGMENT_PRODUCTS,
    SEGMENT_PROFILES,
)
from custseg_assets.domain.segments.clustering import assign_customers, kmeans_columns
from custseg_assets.domain.segments.model import RFM
from custseg_assets.domain.segments.profiles import PROFILED, profile_segments
from custseg_assets.domain.slices import EVERYBODY, IdRange, count_slices, cut_ranges, ids_apart
from custseg_assets.home.inputs import read_inputs
from custseg_assets.home.offers import Outcome, offer, ranges_of_offers
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.purchases import SCRATCH, Purchases
from custseg_assets.pictures.segments import cluster_scatter, profile_heatmap, revenue_by_segment
from custseg_assets.stores.files import scratch_folder


@snapshot_asset("segment_assignments", group="segments", kinds={"numpy", "deltalake"})
def segment_assignments(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Assign every known customer to a segment of the model in force."""
    keys, unchanged = with_model(context, home)
    first_seen, newest = _first_seen(home, keys[-1]), keys[-1:]

    def assign_snapshots() -> Iterator[tuple[str, pl.DataFrame | Iterator[pl.DataFrame]]]:
        before, earlier = None, home.snapshots_before(keys[0])[-1:]
        for key in keys:
            known = first_seen.filter(pl.col("first_period") <= key)["customer_id"]
            n_slices = count_slices(len(known))
            if n_slices > 1:
                ranges = cut_ranges(known.gather_every(ids_apart(len(known), n_slices)), n_slices)
                # The snapshot before is read from its table, where it was put before this one is asked for.
                yield key, map(partial(_assign, home, key, known, earlier, None), ranges)
            else:
                yield key, (before := _assign(home, key, known, earlier, before))
            before, earlier = before if n_slices == 1 else None, (key,)

    def show() -> Mapping[str, Any]:
        features = home.tables.read(CUSTOMER_FEATURES, newest, ("customer_id", *RFM))
        assignments = home.tables.read(
            SEGMENT_ASSIGNMENTS, newest, ("as_of", "is_open", "customer_id", "segment_id", "segment_name")
        )
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
            assignments = home.tables.read(SEGMENT_ASSIGNMENTS, [key], ("customer_id", "segment_id"))
            features = home.tables.read(CUSTOMER_FEATURES, [key], ("customer_id", *PROFILED))
            profiles = profile_segments(assignments, features, home.champions.model_at(key))
            yield key, of_snapshot(SEGMENT_PROFILES, home.calendar.window(key), profiles)

    def show() -> Mapping[str, Any]:
        newest = home.tables.read(SEGMENT_PROFILES, keys[-1:])
        customers = home.tables.read(CUSTOMER_FEATURES, keys[-1:], ("customer_id", *PROFILED))
        currency = home.currency
        in_words = newest.select("segment_id", "segment_name", "n_customers", "description", "advice")
        return {
            "revenue": picture("customers and revenue by segment", revenue_by_segment(newest, currency)),
            "profile": picture("profile of the segments", profile_heatmap(newest, customers, currency)),
            "segments": table_preview(in_words),
        }

    return materialise(context, home, SEGMENT_PROFILES, in_batches(profile()), unchanged=unchanged, show=show)


@snapshot_asset("product_recommendations", "segment_products", group="segments", kinds={"polars", "deltalake"})
def product_recommendations(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]
) -> Iterator[Materialization]:
    """Choose what to offer to each customer, by the method that did best on the last period; and what segments buy."""
    keys, unchanged = with_model(context, home)
    outcomes: dict[str, Outcome] = {}
    ranges = ranges_of_offers(home, keys)

    def recommend() -> Iterator[tuple[str, pl.DataFrame | Iterator[pl.DataFrame]]]:
        with scratch_folder(home.paths.root, SCRATCH) as folder:
            customers = home.tables.read(SEGMENT_ASSIGNMENTS, keys[-1:], ("customer_id",)).to_series()
            purchases = Purchases(home, customers, ranges, folder)
            for key in keys:
                offers = offer(home, key, purchases, outcomes)
                of_slices = map(partial(of_snapshot, PRODUCT_RECOMMENDATIONS, home.calendar.window(key)), offers)
                yield key, of_slices if len(ranges) > 1 else next(of_slices)

    def sentences() -> Mapping[str, Any]:
        return {"evaluation": dg.MetadataValue.json({key: outcome.sentence for key, outcome in outcomes.items()})}

    def products() -> Iterator[tuple[str, pl.DataFrame]]:
        for key in keys:
            found = outcomes[key].segment_products
            yield key, of_snapshot(SEGMENT_PRODUCTS, home.calendar.window(key), found)

    yield materialise(
        context, home, PRODUCT_RECOMMENDATIONS, in_batches(recommend()), unchanged=unchanged, show=sentences
    )
    yield materialise(
        context,
        home,
        SEGMENT_PRODUCTS,
        in_batches(products()),
        unchanged=unchanged,
        show=lambda: {"products": table_preview(home.tables.read(SEGMENT_PRODUCTS, keys[-1:]))},
    )


def _first_seen(home: OpenHome, until: str) -> pl.DataFrame:
    """Every customer known by a period's end, with the first period it was seen in."""
    lines = home.tables.scan(CLEAN_TRANSACTIONS, home.calendar.periods_until(until))
    return lines.group_by("customer_id").agg(pl.col("period").min().alias("first_period")).collect(engine="streaming")


_BEFORE = ("customer_id", "segment_id", "is_rule_segment", "is_held", "runner_up_segment_id")


def _assign(
    home: OpenHome,
    key: str,
    known: pl.Series,
    earlier: Sequence[str],
    before: pl.DataFrame | None,
    within: IdRange = EVERYBODY,
) -> pl.DataFrame:
    """Rows of ``segment_assignments`` of a snapshot, of all customers or of a slice of them.

    Args:
        home: whose customers they are.
        key: of the snapshot.
        known: ids of everybody with a line before its end.
        earlier: key of the snapshot before, where there is one.
        before: ``segment_assignments`` of that, where they are at hand.
        within: the slice.
    """
    model, window = home.champions.model_at(key), home.calendar.window(key)
    earlier_model = home.champions.model_at(earlier[0]) if earlier else None
    n_weeks = max(model.n_weeks, earlier_model.n_weeks if earlier_model else 0)
    if before is None and earlier:
        before = home.tables.read(SEGMENT_ASSIGNMENTS, earlier, _BEFORE, within)
    assigned = assign_customers(
        read_inputs(home, key, n_weeks, kmeans_columns(model.features), within),
        known if within.is_everybody else known.to_frame("customer_id").filter(within.condition)["customer_id"],
        model,
        before,
        earlier_model,
        home.settings.model.margin_rule,
        observed_share=window.observed_share,
    )
    return of_snapshot(SEGMENT_ASSIGNMENTS, window, assigned)


ASSETS = (segment_assignments, segment_profiles, product_recommendations)
