"""The asset that publishes tables to BigQuery, and its job.

Google's libraries are imported when the asset runs, not when the graph is loaded. How BigQuery is written to belongs in
``gcp.bigquery_publish``.
"""

from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job

from custseg_assets.defs.descriptions import ASSETS as DESCRIPTIONS
from custseg_assets.defs.descriptions import JOBS
from custseg_assets.defs.materialise import OWNERS
from custseg_assets.domain.schemas import PREDICTION_LOG, Table, tables
from custseg_assets.home.campaigns import held_out_ids, holdouts_to_publish
from custseg_assets.home.open import LockedHome
from custseg_assets.home.plan import PUBLISHED
from custseg_assets.settings import Settings
from custseg_assets.stores.publications import (
    HELD_OUT,
    Publications,
    held_out_parts,
    prediction_parts,
    snapshot_parts,
)


def gcp_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets that ``[gcp]`` in the settings adds to the graph."""
    return [_bigquery_asset()] if settings.gcp.bigquery.dataset else []


def gcp_jobs(settings: Settings) -> list[Job]:
    """The jobs that ``[gcp]`` in the settings adds."""
    if not settings.gcp.bigquery.dataset:
        return []
    return [dg.define_asset_job("publish", ["published_to_bigquery"], description=JOBS["publish"])]


def published_tables() -> list[Table]:
    """The tables of a snapshot that are published; the prediction log is published besides them."""
    # None of them has columns that depend on the segmentation features.
    declared = tables(())
    return [declared[name] for name in PUBLISHED]


def _bigquery_asset() -> dg.AssetsDefinition:
    @dg.asset(
        group_name="release",
        owners=OWNERS,
        kinds={"bigquery"},
        code_version="1",
        description=DESCRIPTIONS["published_to_bigquery"],
        deps=[*PUBLISHED, PREDICTION_LOG.name],
    )
    def published_to_bigquery(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]
    ) -> dg.MaterializeResult[Any]:
        """The snapshots' tables and the prediction log in BigQuery, with views and a link to a report on them."""
        from custseg_assets.gcp.bigquery import BigQuery
        from custseg_assets.gcp.bigquery_publish import ANNOUNCEMENTS, Publisher, looker_url

        publications = Publications.in_bigquery(home.paths, home.settings)
        publisher = Publisher(BigQuery(home.settings.gcp), publications, context.log.info)
        published = published_tables()
        log_version = home.tables.version_of(PREDICTION_LOG.name)
        parts = snapshot_parts(published, home.tables, publications, home.calendar.snapshot_keys)
        # Before anything is announced: nobody who is held out is ever in the list of a segment.
        held_out = held_out_parts(publications, holdouts_to_publish(home), partial(held_out_ids, home))
        publisher.publish(held_out, tables=[HELD_OUT], announce=False)
        n_parts = publisher.publish(parts, tables=published)
        n_days = publisher.publish(prediction_parts(home.tables, publications), tables=[PREDICTION_LOG], announce=False)
        publications.note_version(PREDICTION_LOG.name, log_version)
        newest = max(publications.of(ANNOUNCEMENTS.name), default=None)
        views = publisher.make_views([*published, PREDICTION_LOG, HELD_OUT], newest)
        project, dataset = publications.destination.split(".")
        report = looker_url(project, dataset, home.settings.gcp.bigquery.looker_report)
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.url(report),
                "partitions_loaded": n_parts,
                "days_of_the_prediction_log_loaded": n_days,
                "views": ", ".join(f"{publications.destination}.{view}" for view in views),
            }
        )

    return published_to_bigquery
