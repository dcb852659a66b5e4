"""Releases of a few invented customers, in the real schemas, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from custseg_assets.domain import schemas
from custseg_assets.domain.periods import window_of
from custseg_assets.domain.segments.explain import is_visible_to_kmeans
from custseg_assets.domain.segments.model import (
    LAPSED,
    REFUNDED,
    ScalingReference,
    Segment,
    SegmentationModel,
    version_of,
)
from custseg_assets.stores.release_writer import ReleaseContent, write_release
from custseg_assets.stores.releases import MANIFEST, ReleaseManifest, canonical_json, point_to, release_id_of

FEATURES = ("recency_days", "frequency_orders", "monetary_net")
MARGIN_RULE = 0.6
PERIODS = ("2011-10-01", "2011-11-01")
NAMES = ("Champions", "Promising", "At risk")

# customer, recency, orders, net; the last two are not seen by K-means.
CUSTOMERS: Sequence[tuple[str, int | None, int, float]] = (
    ("12347", 7, 9, 2310.0),
    ("12348", 62, 3, 512.3),
    ("13777", 150, 1, 80.5),
    ('C/ü "x"', 20, 4, 700.0),
    ("y" * 600, 21, 4, 710.0),
    ("14000", 30, 2, -12.5),
    ("14001", None, 0, -80.0),
)
LAPSED_CUSTOMER = "15000"


def make_model(shift: float = 0.0) -> SegmentationModel:
    """A model of three clusters; ``shift`` makes another version of it with the same assignments."""
    reference = ScalingReference(FEATURES, (3.6 + shift, 1.1, 6.0), (1.2, 0.6, 1.2), 5)
    centroids = ((-1.2, 1.6, 1.3), (-0.2, 0.5, 0.4), (1.2, -0.7, -1.2))
    segments = tuple(
        Segment(f"S{number + 1}", name, f"rule of {name}", f"Do something for {name}.", number)
        for number, name in enumerate(NAMES)
    )
    return SegmentationModel(
        "2011-10-01", reference, centroids, segments, version_of("2011-10-01", reference, centroids)
    )


def rows_of(table: schemas.Table, columns: Mapping[str, object]) -> pl.DataFrame:
    """Rows of a table from some of its columns; the others are null."""
    given = pl.DataFrame(columns, schema_overrides={name: table.schema[name] for name in columns})
    missing = [column for column in table.columns if column.name not in columns]
    filled = given.with_columns(pl.lit(None, column.dtype).alias(column.name) for column in missing)
    return filled.select(table.schema.names())


def make_features(customers: Sequence[tuple[str, int | None, int, float]], period: str) -> pl.DataFrame:
    """``customer_features`` with the three features of the model."""
    names, *values = zip(*customers, strict=True)
    columns = {"customer_id": names, **dict(zip(FEATURES, values, strict=True))}
    return rows_of(schemas.CUSTOMER_FEATURES, {"period": [period] * len(names), **columns})


def make_assignments(features: pl.DataFrame, model: SegmentationModel, lapsed: Sequence[str] = ()) -> pl.DataFrame:
    """``segment_assignments`` by the model and the rules of the design."""
    period, rows = features["period"][0], []
    for row in features.iter_rows(named=True):
        values = {name: row[name] for name in FEATURES}
        if not is_visible_to_kmeans(values):
            rows.append(_rule_row(period, row["customer_id"], REFUNDED, model))
            continue
        scores = model.score(np.array([[float(value) for value in values.values()]]))
        segment, second = model.segments[scores.cluster[0]], model.segments[scores.runner_up[0]]
        rows.append(
            {
                "period": period,
                "customer_id": row["customer_id"],
                "segment_id": segment.segment_id,
                "segment_name": segment.name,
                "is_rule_segment": False,
                "cluster": int(scores.cluster[0]),
                "distance": float(scores.distance[0]),
                "runner_up_segment_id": second.segment_id,
                "margin": float(scores.margin[0]),
                "is_held": False,
                "model_version": model.model_version,
            }
        )
    rows += [_rule_row(period, name, LAPSED, model) for name in lapsed]
    return pl.DataFrame(rows, schema=schemas.SEGMENT_ASSIGNMENTS.schema).sort("customer_id")


def _rule_row(period: str, customer_id: str, segment: Segment, model: SegmentationModel) -> dict[str, object]:
    return {
        "period": period,
        "customer_id": customer_id,
        "segment_id": segment.segment_id,
        "segment_name": segment.name,
        "is_rule_segment": True,
        "is_held": False,
        "model_version": model.model_version,
    }


def make_profiles(assignments: pl.DataFrame, features: pl.DataFrame, model: SegmentationModel) -> pl.DataFrame:
    """``segment_profiles`` of a snapshot: sizes, revenue and medians."""
    segments = {segment.segment_id: segment for segment in (*model.segments, REFUNDED, LAPSED)}
    joined = assignments.join(features.drop("period"), on="customer_id", how="left")
    medians = [column.name for column in schemas.SEGMENT_PROFILES.columns if column.name.startswith("median_")]
    total, rows = float(joined["monetary_net"].sum()), []
    for (segment_id,), group in joined.group_by("segment_id"):
        segment, net = segments[str(segment_id)], float(group["monetary_net"].sum())
        rows.append(
            {
                "period": assignments["period"][0],
                "segment_id": segment_id,
                "segment_name": segment.name,
                "is_rule_segment": segment.cluster is None,
                "naming_rule": segment.naming_rule,
                "n_customers": group.height,
                "share_customers": group.height / joined.height,
                "revenue_net": net,
                "share_revenue": net / total,
                **{name: group[name.removeprefix("median_")].cast(pl.Float64).median() for name in medians},
                "distinguishing": json.dumps([{"feature": "frequency_orders", "text": "orders 3 times as often"}]),
                "description": f"Those who are {segment.name}.",
                "advice": segment.advice,
                "model_version": model.model_version,
            }
        )
    return pl.DataFrame(rows, schema=schemas.SEGMENT_PROFILES.schema).sort("segment_id")


def make_content(
    model: SegmentationModel | None = None,
    customers: Sequence[tuple[str, int | None, int, float]] = CUSTOMERS,
    recommended: str = "22423",
) -> ReleaseContent:
    """Content with two snapshots: in the first, 12348 is in Champions and the last customer is missing."""
    model = model or make_model()
    earlier = [("12348", 5, 9, 2500.0) if customer[0] == "12348" else customer for customer in customers[:-1]]
    features = make_features(customers, PERIODS[1])
    now = make_assignments(features, model, [LAPSED_CUSTOMER])
    features_before = make_features(earlier, PERIODS[0])
    before = make_assignments(features_before, model, [LAPSED_CUSTOMER])
    n_scores = len(FEATURES)
    return ReleaseContent(
        model=model,
        window=window_of(PERIODS[1], "2011-06-01", 6, "monthly"),
        assignments=pl.concat([before, now]).lazy(),
        customer_features=features,
        segment_profiles=make_profiles(now, features, model),
        product_recommendations=rows_of(
            schemas.PRODUCT_RECOMMENDATIONS,
            {
                "period": PERIODS[1],
                "customer_id": [name for name, *_ in customers for _ in range(2)],
                "rank": [1, 2] * len(customers),
                "product_id": [recommended, "85123A"] * len(customers),
                "description": ["REGENCY CAKESTAND 3 TIER", None] * len(customers),
                "score": 0.5,
                "method": "segment_recent",
            },
        ),
        drift_reports=rows_of(
            schemas.DRIFT_REPORT,
            {
                "period": [period for period in PERIODS for _ in range(n_scores)],
                "score_name": "psi",
                "subject": list(FEATURES) * 2,
                "score": [0.01, 0.02, 0.03, 0.04, 0.3, float("nan")],
                "threshold": 0.25,
                "is_alert": [False] * 4 + [True, False],
                "verdict": ["stable"] * n_scores + ["breach"] * n_scores,
                "reasons": json.dumps(["frequency_orders moved"]),
                "reference_period": PERIODS[0],
                "model_version": model.model_version,
                "n_customers": len(customers),
            },
        ),
        model_candidates=rows_of(
            schemas.MODEL_CANDIDATES,
            {
                "period": PERIODS[0],
                "k": [3, 4],
                "silhouette": [0.34, 0.31],
                "is_eligible": [True, False],
                "is_chosen": [True, False],
                "reason": ["chosen", "smallest cluster too small"],
            },
        ),
        promotion_decisions=rows_of(
            schemas.PROMOTION_DECISION,
            {
                "period": [PERIODS[0]],
                "model_version": [model.model_version],
                "decision": ["PROMOTE"],
                "reasons": [json.dumps(["the first eligible model"])],
                "champion_before": [None],
            },
        ),
        model_card="# Model card\n\nThree segments.\n",
        metrics={"silhouette": 0.34, "davies_bouldin": None},
        git_revision="0" * 40,
        data_versions={"segment_assignments": 3},
        margin_rule=MARGIN_RULE,
        segment_migrations=rows_of(
            schemas.SEGMENT_MIGRATIONS, {"period": [PERIODS[1]], "customer_id": ["12348"], "cause": ["behaviour"]}
        ),
        segment_products=rows_of(
            schemas.SEGMENT_PRODUCTS,
            {
                "period": [PERIODS[1]],
                "segment_id": ["S1"],
                "rank": [1],
                "product_id": ["22423"],
                "description": ["REGENCY CAKESTAND 3 TIER"],
                "n_buyers": [40],
                "share_of_segment": [0.02],
                "share_of_shop": [0.01],
                "lift": [1.9],
                "lift_low": [1.4],
            },
        ),
        customer_value=make_values([name for name, *_ in customers]).lazy(),
        value_model=rows_of(
            schemas.VALUE_MODEL,
            {
                "period": PERIODS[1],
                "target": ["spend_90d", "spend_90d"],
                "method": ["logistic", "segment_mean"],
                "is_chosen": [True, False],
                "reason": ["logistic won.", "logistic won."],
                "level": [900.0, 800.0],
                "level_low": [600.0, None],
                "level_high": [1_300.0, None],
                "last_seen": [850.0, 850.0],
            },
        ),
        earlier_windows=(window_of(PERIODS[0], "2011-06-01", 6, "monthly"),),
        earlier_features=features_before.lazy(),
        later_customers=pl.DataFrame({"customer_id": ["19999"], "first_seen_at": [datetime(2011, 12, 5, 9, 30)]}),
    )


def make_values(customer_ids: Sequence[str]) -> pl.DataFrame:
    """Predictions of some customers; the first is the likeliest to order."""
    places = np.arange(len(customer_ids))
    names = [name.removesuffix("_low") for name in schemas.CUSTOMER_VALUE.schema if name.endswith("_low")]
    values = {name: (100.0 if "spend" in name else 0.5) / (1 + places) for name in names}
    ends = {f"{name}{end}": values[name] * by for name in names for end, by in (("_low", 0.5), ("_high", 1.5))}
    fields = {"period": PERIODS[1], "customer_id": [*customer_ids], "method": "logistic", **values, **ends}
    return rows_of(schemas.CUSTOMER_VALUE, fields)


def damage(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def make_release(root: Path, content: ReleaseContent | None = None) -> str:
    """Write a release and point to it; returns its id."""
    manifest = write_release(root, content or make_content())
    point_to(root, manifest.release_id)
    return manifest.release_id


def make_other_content() -> ReleaseContent:
    """Another release of the same customers: another model version and other products."""
    return replace(make_content(make_model(shift=0.001), recommended="99999"), model_card="# Another\n")


def rewrite_files(root: Path, release_id: str, change: Mapping[str, Any]) -> str:
    """Give a release other files in its manifest, and the id that belongs to it; returns that."""
    fields = json.loads((root / release_id / MANIFEST).read_text())
    fields["files"] = {name: entry for name, entry in {**fields["files"], **change}.items() if entry is not None}
    fields["release_id"] = release_id_of(fields)
    (root / release_id / MANIFEST).write_text(canonical_json(ReleaseManifest(**fields).model_dump(mode="json")))
    (root / release_id).rename(root / fields["release_id"])
    return str(fields["release_id"])
