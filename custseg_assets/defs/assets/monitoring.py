"""Whether the customers changed since the model in force was trained, by snapshot."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.defs.materialise import (
    Materialization,
    in_batches,
    materialise,
    of_snapshot,
    snapshot_asset,
    with_model,
)
from custseg_assets.defs.metadata import bullets, in_words, picture, table_preview
from custseg_assets.domain.drift.closing import leave_out_closing
from custseg_assets.domain.drift.reference import reference_from_json, reference_to_compare
from custseg_assets.domain.drift.report import Change, DriftReport, report_without_scores
from custseg_assets.domain.drift.scores import measure_drift, score_names, unobserved_share
from custseg_assets.domain.promotion.retraining import RetrainVerdict
from custseg_assets.domain.schemas import (
    CUSTOMER_FEATURES,
    DRIFT_REPORT,
    RETRAIN_DECISION,
    SEGMENTATION_MODEL,
    scaled_features_table,
)
from custseg_assets.domain.segments.clustering import kmeans_columns
from custseg_assets.domain.segments.training_tables import matrix_of, scale_snapshot
from custseg_assets.home.evidence import decide_about_retrain, unsound_in_window
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.pictures.monitoring import distribution_change, drift_by_severity

MAX_CHANGES_SHOWN = 4
"""Of a closed snapshot; an open one, which is made again every day, shows the one furthest over its threshold."""


@snapshot_asset("drift_report", group="monitoring", kinds={"numpy", "deltalake"})
def drift_report(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Measure each snapshot against the customers that the model in force was trained on."""
    keys, unchanged = with_model(context, home)
    reports: list[DriftReport] = []

    def measure() -> Iterator[tuple[str, pl.DataFrame]]:
        history = home.tables.read(DRIFT_REPORT)
        for key in keys:
            reports.append(_measure(home, key, history))
            table = of_snapshot(DRIFT_REPORT, home.calendar.window(key), reports[-1].table())
            history = pl.concat([history.filter(pl.col("period") != key), table])
            yield key, table

    def show() -> Mapping[str, Any]:
        every = home.tables.read(DRIFT_REPORT)
        verdicts = every.select("period", "verdict", "reasons").unique().sort("period", descending=True)
        return {
            "verdict": reports[-1].verdict,
            "scores": picture(
                "drift scores against their thresholds",
                drift_by_severity(every.filter(pl.col("period") <= keys[-1]), home.settings.snapshots.cadence),
            ),
            **_draw_changes(reports[-1], 1 if home.calendar.window(keys[-1]).is_open else MAX_CHANGES_SHOWN),
            "verdicts": table_preview(verdicts.with_columns(in_words(pl.col("reasons")))),
        }

    return materialise(context, home, DRIFT_REPORT, in_batches(measure()), unchanged=unchanged, show=show)


@snapshot_asset("retrain_decision", group="monitoring", kinds={"python", "deltalake"})
def retrain_decision(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Decide whether drift calls for a training on each snapshot, and record why."""
    keys, unchanged = with_model(context, home)
    reports = home.tables.read(DRIFT_REPORT)
    verdicts = {key: decide_about_retrain(home, key, reports) for key in keys}
    newest = verdicts[keys[-1]]

    def show() -> Mapping[str, Any]:
        decisions = home.tables.read(RETRAIN_DECISION).sort("period", descending=True)
        return {"decisions": table_preview(decisions.with_columns(in_words(pl.col("reasons"))))}

    shown = {
        "decision": newest.decision,
        "reasons": bullets(newest.reasons),
        "reason_codes": dg.MetadataValue.json(list(newest.codes)),
    }
    rows = in_batches((key, _decision_row(home, key, verdict)) for key, verdict in verdicts.items())
    return materialise(context, home, RETRAIN_DECISION, rows, unchanged=unchanged, metadata=shown, show=show)


def _decision_row(home: OpenHome, key: str, verdict: RetrainVerdict) -> pl.DataFrame:
    fields = {
        **asdict(verdict),
        "period": key,
        "reasons": json.dumps(verdict.reasons, ensure_ascii=False),
        "model_version": home.champions.model_before(key).model_version,
        "is_data_sound": not unsound_in_window(home, key),
    }
    return pl.DataFrame([fields], schema=RETRAIN_DECISION.schema)


def _measure(home: OpenHome, key: str, history: pl.DataFrame) -> DriftReport:
    # A model promoted on the snapshot itself does not count: it was trained on these customers, and would erase the
    # evidence that led to it.
    settings, model = home.settings, home.champions.model_before(key)
    trained, window = (home.calendar.window(one) for one in (model.trained_on, key))
    read = list(dict.fromkeys(("period", "recency_days", *kmeans_columns(model.features))))
    closing = leave_out_closing(
        *(home.tables.scan(CUSTOMER_FEATURES, [one.key]).select(read).collect() for one in (trained, window)),
        reference_window_days=(trained.as_of - trained.start) / timedelta(days=1),
        window_days=(window.as_of - window.start) / timedelta(days=1),
        seed=settings.model.seed,
    )
    stored = home.tables.read(SEGMENTATION_MODEL, [model.trained_on])["drift_reference"].item()
    reference = reference_to_compare(reference_from_json(stored), model, closing, trained)
    if not trained.is_full and key != trained.key:
        return report_without_scores(
            reference, key, closing.current.height, score_names(reference),
            f"the model was trained on {(trained.as_of - trained.start).days} days, less than a whole window: what is "
            "counted in windows of different lengths cannot be compared",
        )  # fmt: skip
    scaled = (
        scale_snapshot(closing.current, model.features, model.reference)[0]
        if closing.n_days_left_out
        else home.tables.read(
            scaled_features_table(settings.model.features), [key], ("customer_id", *settings.model.features)
        )
    )
    return measure_drift(
        reference,
        matrix_of(scaled, reference.features),
        period=key,
        seed=settings.model.seed,
        settings=settings.drift,
        # Who was seen in the window, but not by K-means, is Refunded.
        n_refunded=closing.current.height - scaled.height,
        history=history,
        unobserved_share=unobserved_share(window, home.calendar.observed_until(key)),
        remarks=closing.remarks(trained.as_of, window.as_of),
    )


def _draw_changes(report: DriftReport, n_shown: int) -> dict[str, dg.MarkdownMetadataValue]:
    """Pictures of what alerted, the furthest over its threshold first; segments share one, and so do correlations."""
    first: dict[str, Change] = {}
    for change in report.changes:
        first.setdefault(change.distribution.name, change)
    return {
        f"change_{place}": picture(f"reference and current {name}", distribution_change(change))
        for place, (name, change) in enumerate(itertools.islice(first.items(), n_shown), start=1)
    }


ASSETS = (drift_report, retrain_decision)
