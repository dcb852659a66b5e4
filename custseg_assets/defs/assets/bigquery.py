"""The assets that Google Cloud adds to the graph; thin, and nothing of Google is imported before one runs."""

from typing import Any

import dagster as dg

from custseg_assets.defs.jobs import Job
from custseg_assets.defs.materialise import OWNERS
from custseg_assets.domain.schemas import PREDICTION_LOG
from custseg_assets.home.open import LockedHome
from custseg_assets.home.plan import PUBLISHED
from custseg_assets.settings import Settings
from custseg_assets.stores.publications import Publications


def gcp_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets that the settings ask for."""
    return [_published_to_bigquery()] if settings.gcp.bigquery.dataset else []


def gcp_jobs(settings: Settings) -> list[Job]:
    """The jobs that the settings ask for."""
    if not settings.gcp.bigquery.dataset:
        return []
    words = "Publish snapshots and the prediction log to BigQuery."
    return [dg.define_asset_job("publish", ["published_to_bigquery"], description=words)]


def _published_to_bigquery() -> dg.AssetsDefinition:
    @dg.asset(
        group_name="release",
        owners=OWNERS,
        kinds={"bigquery"},
        code_version="1",
        deps=[*PUBLISHED, PREDICTION_LOG.name],
    )
    def published_to_bigquery(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]
    ) -> dg.MaterializeResult[Any]:
        """The snapshots' tables and the prediction log in BigQuery, with views and a link to a report on them."""
        from custseg_assets.gcp.bigquery import BigQuery
        from custseg_assets.gcp.bigquery_publish import ANNOUNCEMENTS, Publisher, looker_url
        from custseg_assets.gcp.published import prediction_parts, published_tables, snapshot_parts

        record = Publications.in_bigquery(home.paths, home.settings)
        publisher = Publisher(BigQuery(home.settings.gcp), record, context.log.info)
        log_version = home.tables.version_of(PREDICTION_LOG.name)
        n_parts = publisher.publish(snapshot_parts(home.tables, record, home.calendar.snapshot_keys))
        n_days = publisher.publish(prediction_parts(home.tables, record), announce=False)
        record.note_version(PREDICTION_LOG.name, log_version)
        views = publisher.make_views(published_tables(), max(record.of(ANNOUNCEMENTS.name), default=None))
        project, dataset = record.destination.split(".")
        return dg.MaterializeResult(
            metadata={
                "partitions_loaded": n_parts,
                "days_of_the_prediction_log_loaded": n_days,
                "views": ", ".join(f"{record.destination}.{view}" for view in views),
                "report": dg.MetadataValue.url(looker_url(project, dataset, home.settings.gcp.bigquery.looker_report)),
            }
        )

    return published_to_bigquery
