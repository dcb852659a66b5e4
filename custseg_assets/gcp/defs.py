"""The assets that Google Cloud adds to the graph; thin, and nothing of Google is imported before one runs."""

from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from custseg_assets.defs.assets.publishing import OWNERS
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores
from custseg_assets.planning import PUBLISHED
from custseg_assets.settings import Settings
from custseg_assets.stores.publications import Publications


def gcp_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets that the settings ask for."""
    return [_published_to_bigquery(layout)] if settings.gcp.bigquery.dataset else []


def gcp_jobs(settings: Settings) -> list[UnresolvedAssetJobDefinition]:
    """The jobs that the settings ask for."""
    if not settings.gcp.bigquery.dataset:
        return []
    return [dg.define_asset_job("publish", ["published_to_bigquery"], description="Publish snapshots to BigQuery.")]


def _published_to_bigquery(layout: Layout) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="release",
        owners=OWNERS,
        kinds={"bigquery"},
        code_version="1",
        deps=[dg.AssetDep(name) for name in PUBLISHED],
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def published_to_bigquery(
        context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]
    ) -> dg.MaterializeResult[Any]:
        """The snapshots' tables and the prediction log in BigQuery, with views and a link to a report on them."""
        from custseg_assets.gcp.bigquery import BigQuery
        from custseg_assets.gcp.bigquery_publish import Publisher, looker_url
        from custseg_assets.gcp.published import prediction_parts, published_tables, snapshot_parts

        gcp, record = stores.settings.gcp, Publications.in_bigquery(stores.home, stores.settings)
        if gcp.project is None or gcp.bigquery.dataset is None or record is None:
            raise ValueError("no BigQuery dataset is configured")
        publisher = Publisher(BigQuery(gcp), record, context.log.info)
        n_parts = publisher.publish(snapshot_parts(stores.tables, record, context.partition_keys))
        log = next((table for table in published_tables() if table.name == "prediction_log"), None)
        n_days = publisher.publish(prediction_parts(stores.tables, record, log), announce=False) if log else 0
        views = publisher.make_views(published_tables())
        return dg.MaterializeResult(
            metadata={
                "partitions_loaded": n_parts,
                "days_of_the_prediction_log_loaded": n_days,
                "views": ", ".join(f"{gcp.project}.{gcp.bigquery.dataset}.{view}" for view in views),
                "report": dg.MetadataValue.url(
                    looker_url(gcp.project, gcp.bigquery.dataset, gcp.bigquery.looker_report)
                ),
            }
        )

    return published_to_bigquery
