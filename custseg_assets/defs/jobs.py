"""The jobs that make the graph, one for each stage of its life."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job

_MODEL = ["model_candidates", "segmentation_model", "promotion_decision"]
_SEGMENTS = [
    "segment_assignments",
    "segment_profiles",
    "segment_migrations",
    "product_recommendations",
    "drift_report",
    "retrain_decision",
    "serving_release",
]


def every_job() -> list[Job]:
    """Every job, in the order in which a home needs them."""
    return [
        dg.define_asset_job("take_in", selection=["landed_files"], description="Take in the files that have landed."),
        dg.define_asset_job(
            "ingest",
            selection=["raw_transactions", "clean_transactions", "rejected_transactions"],
            description="Take periods of the log in and clean them.",
        ),
        dg.define_asset_job(
            "features", selection=["customer_features"], description="Measure the customers of snapshots."
        ),
        dg.define_asset_job(
            "train",
            selection=["scaled_features", *_MODEL],
            description="Try numbers of clusters on the first snapshot, train the first model and judge it.",
        ),
        dg.define_asset_job(
            "scale", selection=["scaled_features"], description="Put snapshots on the scale of the model in force."
        ),
        dg.define_asset_job(
            "hold",
            selection=_MODEL,
            description="Record for snapshots that nothing was trained on them and the model in force stays.",
        ),
        dg.define_asset_job(
            "segment",
            selection=_SEGMENTS,
            description="Assign customers with the model in force, explain the segments, watch for drift, release.",
        ),
        dg.define_asset_job(
            "snapshot",
            selection=["customer_features", "scaled_features", *_MODEL, *_SEGMENTS],
            description="All of that for snapshots that come while a model is in force, in one run.",
        ),
        dg.define_asset_job(
            "retrain",
            selection=_MODEL,
            config={"ops": {"model_candidates": {"config": {"retrain": True}}}},
            description="Train a challenger on the newest snapshot, out of process, and hold it against the champion.",
        ),
        dg.define_asset_job(
            "prediction_log",
            selection=["prediction_log", "rejected_predictions", "prediction_traffic", "prediction_drift"],
            description="Take the service's prediction log in, and look at what was asked and how it was answered.",
        ),
    ]
