"""The jobs that make the graph, one for each stage of its life."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def every_job() -> list[UnresolvedAssetJobDefinition]:
    """Ingest, features, train, scale, hold and segment."""
    return [
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
            selection=["scaled_features", "model_candidates", "segmentation_model", "promotion_decision"],
            description="Try numbers of clusters on one snapshot, train a challenger and judge it. "
            "With a model in force that needs 'retrain' in the run's configuration.",
        ),
        dg.define_asset_job(
            "scale", selection=["scaled_features"], description="Put snapshots on the scale of the model in force."
        ),
        dg.define_asset_job(
            "hold",
            selection=["model_candidates", "segmentation_model", "promotion_decision"],
            description="Record for snapshots that nothing was trained on them and the model in force stays.",
        ),
        dg.define_asset_job(
            "segment",
            selection=[
                "segment_assignments",
                "segment_profiles",
                "product_recommendations",
                "drift_report",
                "serving_release",
            ],
            description="Assign customers with the model in force, explain the segments, watch for drift, release.",
        ),
    ]
