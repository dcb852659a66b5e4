"""Whether the customers changed since the model in force was trained, by snapshot."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from custseg_assets.defs.assets.publishing import in_batches, picture, publish, spec_of, table_preview
from custseg_assets.defs.checks import check_specs
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores
from custseg_assets.domain.drift import DriftReference, measure_drift, reference_from_json, unobserved_share
from custseg_assets.domain.model import REFUNDED
from custseg_assets.domain.schemas import (
    DRIFT_REPORT,
    SEGMENT_ASSIGNMENTS,
    SEGMENTATION_MODEL,
    scaled_features_table,
)
from custseg_assets.domain.training import matrix_of
from custseg_assets.pictures.monitoring import drift_over_time
from custseg_assets.settings import Settings


def monitoring_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of the group ``monitoring``."""
    scaled_table = scaled_features_table(settings.model.features)

    @dg.multi_asset(
        specs=[
            spec_of(
                DRIFT_REPORT,
                group="monitoring",
                deps=[
                    dg.AssetDep("scaled_features"),
                    dg.AssetDep("segment_assignments"),
                    dg.AssetDep("segmentation_model", partition_mapping=layout.until),
                ],
                kinds={"numpy", "deltalake"},
            )
        ],
        check_specs=check_specs(DRIFT_REPORT, settings),
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def drift_report(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        def measured() -> Iterator[tuple[str, pl.DataFrame]]:
            history = stores.tables.read(DRIFT_REPORT)
            for key in context.partition_keys:
                reference = _reference(stores, key)
                report = measure_drift(
                    reference,
                    matrix_of(stores.tables.read(scaled_table, [key]), reference.features),
                    period=key,
                    seed=settings.model.seed,
                    n_refunded=_n_refunded(stores, key),
                    history=history,
                    unobserved_share=unobserved_share(
                        stores.provenance.window(key), stores.provenance.observed_until(key)
                    ),
                ).table()
                history = pl.concat([history.filter(pl.col("period") != key), report])
                yield key, report

        result = publish(context, stores, DRIFT_REPORT, in_batches(measured()))
        reports = stores.tables.read(DRIFT_REPORT)
        verdicts = reports.select("period", "verdict", "reasons").unique().sort("period", descending=True)
        shown = {
            "verdicts": table_preview(verdicts.with_columns(_in_words(pl.col("reasons")))),
            "over_time": picture("drift scores against their thresholds", drift_over_time(reports)),
        }
        return result._replace(metadata={**result.metadata, **shown})

    return [drift_report]


def _in_words(sentences: pl.Expr) -> pl.Expr:
    """A column of JSON lists of sentences as text."""
    return sentences.str.json_decode(pl.List(pl.String)).list.join("; ")


def _reference(stores: Stores, key: str) -> DriftReference:
    """What the model in force at a snapshot is compared with."""
    trained_on = stores.provenance.model_in_force(key).trained_on
    return reference_from_json(stores.tables.read(SEGMENTATION_MODEL, [trained_on])["drift_reference"].item())


def _n_refunded(stores: Stores, key: str) -> int:
    is_refunded = pl.col("segment_id") == REFUNDED.segment_id
    return int(stores.tables.scan(SEGMENT_ASSIGNMENTS, [key]).filter(is_refunded).select(pl.len()).collect().item())
