"""The jobs that make the graph, one for each stage of its life."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from custseg_assets.home.plan import SEGMENTED, TABLES_OF_JOB

Job = UnresolvedAssetJobDefinition

_STAGES: Mapping[str, str] = {
    "ingest": "Take periods of the log in and clean them.",
    "features": "Measure the customers of snapshots.",
    "train": "Try numbers of clusters on the first snapshot, train the first model and judge it.",
    "scale": "Put snapshots on the scale of the model in force.",
    "hold": "Record for snapshots that nothing was trained on them and the model in force stays.",
    "segment": "Assign customers with the model in force, explain the segments, watch for drift, release.",
    "snapshot": "All of that for snapshots that come while a model is in force, in one run.",
    "retrain": "Train a challenger on the newest snapshot, out of process, and hold it against the champion.",
}
_CONFIG = {"retrain": {"ops": {"model_candidates": {"config": {"retrain": True}}}}}


def every_job() -> list[Job]:
    """Every job, in the order in which a home needs them."""
    return [
        dg.define_asset_job("take_in", selection=["landed_files"], description="Take in the files that have landed."),
        *(
            dg.define_asset_job(name, selection=_select_tables(name), config=_CONFIG.get(name), description=description)
            for name, description in _STAGES.items()
        ),
        dg.define_asset_job(
            "prediction_log",
            selection=["prediction_log", "rejected_predictions", "prediction_traffic", "prediction_drift"],
            description="Take the service's prediction log in, and look at what was asked and how it was answered.",
        ),
    ]


def _select_tables(stage: str) -> list[str]:
    """A stage's tables; what segments customers also releases them."""
    tables = TABLES_OF_JOB[stage]
    return [*tables, "serving_release"] if set(SEGMENTED) <= set(tables) else list(tables)
