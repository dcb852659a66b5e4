"""The jobs that make the graph, one for each stage of its life."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from custseg_assets.defs.descriptions import JOBS
from custseg_assets.home.plan import CAMPAIGNS, SEGMENTED, TABLES_OF_JOB

Job = UnresolvedAssetJobDefinition

_CONFIG = {"retrain": {"ops": {"model_candidates": {"config": {"retrain": True}}}}}


def every_job() -> list[Job]:
    """Every job, in the order in which a home needs them."""
    predictions = ["prediction_log", "rejected_predictions", "prediction_traffic", "prediction_drift"]
    selections = {
        "take_in": ["landed_files"],
        **{stage: _select_tables(stage) for stage in TABLES_OF_JOB},
        "prediction_log": predictions,
        CAMPAIGNS: ["campaign_groups", "campaign_report"],
    }
    return [
        dg.define_asset_job(name, selection=selection, config=_CONFIG.get(name), description=JOBS[name])
        for name, selection in selections.items()
    ]


def _select_tables(stage: str) -> list[str]:
    """A stage's tables; what segments customers also releases them."""
    tables = TABLES_OF_JOB[stage]
    return [*tables, "serving_release"] if set(SEGMENTED) <= set(tables) else list(tables)
