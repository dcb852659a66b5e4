"""Releases of any number of invented customers, for benchmarks of the service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from custseg_assets.defs.materialise import of_snapshot
from custseg_assets.domain import schemas
from custseg_assets.domain.periods import window_of
from custseg_assets.domain.segments.clustering import assign_customers
from custseg_assets.domain.segments.migrations import list_migrations
from custseg_assets.domain.segments.model import ScalingReference, Segment, SegmentationModel, version_of
from custseg_assets.domain.segments.profiles import profile_segments
from custseg_assets.settings import ModelSettings
from custseg_assets.stores.release_writer import ReleaseContent, write_release
from custseg_assets.stores.releases import ReleaseManifest, point_to

FEATURES = ("recency_days", "frequency_orders", "monetary_net")
PERIODS = ("2011-10-01", "2011-11-01")
NAMES = ("Champions", "Needs attention", "Promising", "Hibernating")
CENTROIDS = ((-1.14, 1.90, 1.53), (0.27, 0.21, 0.52), (-1.12, -0.16, -0.10), (0.74, -0.70, -0.78))
N_PRODUCTS = 4_000


def make_model(shop: int) -> SegmentationModel:
    """A model of four clusters; every shop has another version of it."""
    reference = ScalingReference(FEATURES, (3.69 + shop / 1e6, 1.11, 6.22), (1.11, 0.54, 1.13), 2_706)
    segments = tuple(
        Segment(f"S{number + 1}", name, f"rule of {name}", f"Do something for {name}.", number)
        for number, name in enumerate(NAMES)
    )
    return SegmentationModel(PERIODS[0], reference, CENTROIDS, segments, version_of(PERIODS[0], reference, CENTROIDS))


def make_release(root: Path, n_customers: int, shop: int = 0) -> ReleaseManifest:
    """Write a release of the customers ``c00000000`` … and point to it.

    Args:
        root: folder of the releases.
        n_customers: number of customers.
        shop: each number gives another release, with another model version and other first products.
    """
    rng = np.random.default_rng(shop)
    model = make_model(shop)
    ids = pl.select(pl.format("c{}", pl.int_range(n_customers).cast(pl.String).str.zfill(8))).to_series().alias("id")
    features = _rows(
        schemas.CUSTOMER_FEATURES,
        {
            "period": PERIODS[1],
            "customer_id": ids,
            "recency_days": rng.integers(0, 184, n_customers),
            "frequency_orders": rng.geometric(0.35, n_customers),
            "monetary_net": rng.lognormal(6.2, 1.1, n_customers).round(2),
        },
    )
    now = assign_customers(features, ids, model)
    earlier = features.with_columns(
        pl.col("recency_days").reverse(), pl.col("monetary_net").reverse(), period=pl.lit(PERIODS[0])
    )
    windows = [window_of(period, "2011-06-01", 6, "monthly") for period in PERIODS]
    before = assign_customers(earlier, ids, model)
    history = [
        of_snapshot(schemas.SEGMENT_ASSIGNMENTS, window, frame)
        for window, frame in zip(windows, (before, now), strict=True)
    ]
    profiles = of_snapshot(schemas.SEGMENT_PROFILES, windows[1], profile_segments(now, features, model))
    moves = list_migrations(before, now, before, earlier, features)
    products = rng.integers(0, N_PRODUCTS, n_customers)
    offered = pl.concat(
        _rows(
            schemas.PRODUCT_RECOMMENDATIONS,
            {
                "period": PERIODS[1],
                "customer_id": ids,
                "rank": rank,
                "product_id": pl.Series((products + rank * 7 + shop) % N_PRODUCTS + 20_000).cast(pl.String),
                "description": "REGENCY CAKESTAND 3 TIER",
                "score": 0.5,
                "method": "segment_recent",
            },
        )
        for rank in (1, 2, 3)
    )
    manifest = write_release(
        root,
        ReleaseContent(
            model=model,
            window=windows[1],
            assignments=pl.concat(history).lazy(),
            customer_features=features,
            segment_profiles=profiles,
            product_recommendations=offered,
            drift_reports=pl.DataFrame(schema=schemas.DRIFT_REPORT.schema),
            model_candidates=pl.DataFrame(schema=schemas.MODEL_CANDIDATES.schema),
            promotion_decisions=_rows(
                schemas.PROMOTION_DECISION,
                {
                    "period": PERIODS[:1],
                    "model_version": model.model_version,
                    "decision": "PROMOTE",
                    "reasons": json.dumps(["invented"]),
                },
            ),
            model_card="# Invented\n",
            metrics={},
            git_revision=None,
            data_versions={},
            margin_rule=ModelSettings().margin_rule,
            segment_migrations=of_snapshot(schemas.SEGMENT_MIGRATIONS, windows[1], moves),
            customer_value=_values(features["customer_id"]).lazy(),
            earlier_windows=(windows[0],),
            earlier_features=earlier.lazy(),
        ),
    )
    point_to(root, manifest.release_id)
    return manifest


def _values(customer_ids: pl.Series) -> pl.DataFrame:
    """Predictions with as many digits as the pipeline's."""
    wave = pl.Series(np.random.default_rng(0).random(len(customer_ids)))
    names = [name.removesuffix("_low") for name in schemas.CUSTOMER_VALUE.schema if name.endswith("_low")]
    columns = {
        f"{name}{end}": (wave * (by if name.startswith("p_") else 900 * by)).round(4 if name.startswith("p_") else 2)
        for name in names
        for end, by in (("", 0.5), ("_low", 0.3), ("_high", 0.8))
    }
    return _rows(schemas.CUSTOMER_VALUE, {"period": PERIODS[1], "customer_id": customer_ids, **columns})


def _rows(table: schemas.Table, columns: dict[str, object]) -> pl.DataFrame:
    """Rows of a table from some of its columns; the others are null."""
    given = pl.DataFrame(columns, schema_overrides={name: table.schema[name] for name in columns})
    missing = [column for column in table.columns if column.name not in columns]
    filled = given.with_columns(pl.lit(None, column.dtype).alias(column.name) for column in missing)
    return filled.select(table.schema.names())
