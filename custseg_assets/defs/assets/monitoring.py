"""Whether the customers changed since the model in force was trained, by snapshot."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import check_specs
from custseg_assets.defs.materialise import (
    bullets,
    in_batches,
    in_words,
    picture,
    publish,
    spec_of,
    table_preview,
)
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores
from custseg_assets.domain.drift.reference import DriftReference, reference_from_json
from custseg_assets.domain.drift.report import Change, DriftReport
from custseg_assets.domain.drift.scores import measure_drift, unobserved_share
from custseg_assets.domain.promotion.retraining import RetrainVerdict, decide_retrain
from custseg_assets.domain.schemas import (
    CUSTOMER_FEATURES,
    DRIFT_REPORT,
    RETRAIN_DECISION,
    SEGMENTATION_MODEL,
    scaled_features_table,
)
from custseg_assets.domain.segments.training import matrix_of
from custseg_assets.home.open import training_cost
from custseg_assets.home.soundness import unsound_in_window
from custseg_assets.pictures.monitoring import distribution_change, drift_over_time
from custseg_assets.settings import Settings

MAX_CHANGES_SHOWN = 4


def monitoring_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of the group ``monitoring``."""

    @dg.multi_asset(
        specs=[
            spec_of(
                DRIFT_REPORT,
                group="monitoring",
                deps=[
                    dg.AssetDep("scaled_features"),
                    dg.AssetDep("customer_features"),
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
        measured: list[DriftReport] = []

        def tables() -> Iterator[tuple[str, pl.DataFrame]]:
            history = stores.tables.read(DRIFT_REPORT)
            for key in context.partition_keys:
                measured.append(_measured(stores, key, history))
                table = measured[-1].table()
                history = pl.concat([history.filter(pl.col("period") != key), table])
                yield key, table

        result = publish(context, stores, DRIFT_REPORT, in_batches(tables()))
        reports = stores.tables.read(DRIFT_REPORT)
        verdicts = reports.select("period", "verdict", "reasons").unique().sort("period", descending=True)
        shown = {
            "verdicts": table_preview(verdicts.with_columns(in_words(pl.col("reasons")))),
            "over_time": picture("drift scores against their thresholds", drift_over_time(reports)),
            **_changes(measured[-1]),
        }
        return result._replace(metadata={**result.metadata, **shown})

    @dg.multi_asset(
        specs=[
            spec_of(
                RETRAIN_DECISION,
                group="monitoring",
                deps=[
                    dg.AssetDep("drift_report", partition_mapping=layout.until),
                    dg.AssetDep("rejected_transactions", partition_mapping=layout.until),
                    dg.AssetDep("clean_transactions", partition_mapping=layout.until),
                ],
                kinds={"python", "deltalake"},
            )
        ],
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def retrain_decision(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        reports = stores.tables.read(DRIFT_REPORT)
        decided = [(key, *_decided(stores, key, reports)) for key in context.partition_keys]
        result = publish(context, stores, RETRAIN_DECISION, in_batches((key, row) for key, row, _ in decided))
        decisions = stores.tables.read(RETRAIN_DECISION).sort("period", descending=True)
        _, newest, verdict = decided[-1]
        shown = {
            "decision": newest["decision"].item(),
            "reasons": bullets(verdict.reasons),
            "reason_codes": dg.MetadataValue.json(list(verdict.codes)),
            "decisions": table_preview(decisions.with_columns(in_words(pl.col("reasons")))),
        }
        return result._replace(metadata={**result.metadata, **shown})

    return [drift_report, retrain_decision]


def _decided(stores: Stores, key: str, reports: pl.DataFrame) -> tuple[pl.DataFrame, RetrainVerdict]:
    """The row of ``retrain_decision``, and the verdict it was made from."""
    provenance, unsound = stores.provenance, unsound_in_window(stores, key)
    model = provenance.model_before(key)
    verdict = decide_retrain(
        key,
        reports,
        trained_on=model.trained_on,
        trainings=provenance.trainings,
        unsound=unsound,
        rules=stores.settings.retrain.rules(),
        cost=training_cost(stores.settings),
    )
    fields = {
        **asdict(verdict),
        "period": key,
        "reasons": json.dumps(verdict.reasons, ensure_ascii=False),
        "model_version": model.model_version,
        "is_data_sound": not unsound,
    }
    return pl.DataFrame([fields], schema=RETRAIN_DECISION.schema), verdict


def _measured(stores: Stores, key: str, history: pl.DataFrame) -> DriftReport:
    reference, settings = _reference(stores, key), stores.settings
    scaled = stores.tables.read(scaled_features_table(settings.model.features), [key])
    in_window = stores.tables.scan(CUSTOMER_FEATURES, [key]).select(pl.len()).collect().item()
    return measure_drift(
        reference,
        matrix_of(scaled, reference.features),
        period=key,
        seed=settings.model.seed,
        settings=settings.drift.of_report(),
        # Who was seen in the window, but not by K-means, is Refunded.
        n_refunded=in_window - scaled.height,
        history=history,
        unobserved_share=unobserved_share(stores.provenance.window(key), stores.provenance.observed_until(key)),
    )


def _changes(report: DriftReport) -> dict[str, dg.MarkdownMetadataValue]:
    """Pictures of what alerted, the furthest over its threshold first; segments share one, and so do correlations."""
    first: dict[str, Change] = {}
    for change in report.changes:
        first.setdefault(change.distribution.name, change)
    return {
        f"change_{place}": picture(f"reference and current {name}", distribution_change(change))
        for place, (name, change) in enumerate(itertools.islice(first.items(), MAX_CHANGES_SHOWN), start=1)
    }


def _reference(stores: Stores, key: str) -> DriftReference:
    """What the model in force when the snapshot came is compared with.

    One promoted on the snapshot itself does not count: it was trained on these customers, and would erase the evidence
    that led to it.
    """
    trained_on = stores.provenance.model_before(key).trained_on
    return reference_from_json(stores.tables.read(SEGMENTATION_MODEL, [trained_on])["drift_reference"].item())
