"""What the service was asked and answered; in days of the clock, whatever the periods of the shop's log are."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import Examination, check_specs
from custseg_assets.defs.materialise import facts, in_words, picture, spec_of, table_preview
from custseg_assets.defs.resources import Stores
from custseg_assets.domain.drift import requests as asked
from custseg_assets.domain.drift.reference import DriftReference, reference_from_json
from custseg_assets.domain.schemas import (
    PREDICTION_DRIFT,
    PREDICTION_LOG,
    PREDICTION_TRAFFIC,
    REJECTED_PREDICTIONS,
    SEGMENTATION_MODEL,
    Table,
)
from custseg_assets.home.fingerprints import CODE_VERSIONS
from custseg_assets.pictures.monitoring import drift_over_time, latency_over_time
from custseg_assets.settings import Settings
from custseg_assets.stores.prediction_log import read_batches, take_in, waiting
from custseg_assets.stores.tables import fingerprint

NOTHING_DROPPED, LINES_READABLE = "nothing_dropped", "lines_readable"
_KEPT_FOR_A_TIME = (PREDICTION_LOG, REJECTED_PREDICTIONS)
_BY = ("kind", "outcome", "model_version")
_NO_RECORDS = pl.DataFrame(schema=PREDICTION_LOG.schema)


def prediction_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of the group ``monitoring`` that come from the service."""

    @dg.multi_asset(
        # Not the name of the job that runs it: Dagster has one list for both.
        name="recorded_predictions",
        specs=[
            spec_of(table, group="monitoring", deps=[], kinds={"polars", "deltalake"})
            for table in (PREDICTION_LOG, REJECTED_PREDICTIONS)
        ],
        check_specs=[
            *check_specs(PREDICTION_LOG, settings),
            dg.AssetCheckSpec(
                NOTHING_DROPPED,
                asset=PREDICTION_LOG.name,
                description="The service could not keep up with its log or write it: what follows lacks answers.",
            ),
            dg.AssetCheckSpec(
                LINES_READABLE,
                asset=REJECTED_PREDICTIONS.name,
                description="A line is no record: another program writes into the folder, or a newer service does.",
            ),
        ],
    )
    def prediction_log(stores: dg.ResourceParam[Stores]) -> Iterator[dg.MaterializeResult]:
        examination, files = Examination(PREDICTION_LOG, stores), waiting(stores.home.prediction_log)
        counts, n_rejected = _taken_in(stores, files, examination)
        removed = _tidy(stores)
        n_dropped = counts["n_dropped"].sum()
        yield dg.MaterializeResult(
            asset_key=PREDICTION_LOG.name,
            metadata={
                **facts(stores, PREDICTION_LOG),
                "files": len(files),
                "taken_in": table_preview(counts, 50),
                "n_dropped": n_dropped,
                "removed": f"{removed[0]} to {removed[-1]}" if removed else "nothing",
            },
            check_results=[
                *examination.results(),
                _warning(PREDICTION_LOG, NOTHING_DROPPED, n_dropped, "records that the service lost"),
            ],
        )
        yield dg.MaterializeResult(
            asset_key=REJECTED_PREDICTIONS.name,
            metadata={
                **facts(stores, REJECTED_PREDICTIONS),
                "by_reason": table_preview(_by_reason(stores)),
            },
            check_results=[_warning(REJECTED_PREDICTIONS, LINES_READABLE, n_rejected, "lines that are no records")],
        )

    @dg.multi_asset(
        specs=[
            spec_of(
                PREDICTION_TRAFFIC,
                group="monitoring",
                deps=[dg.AssetDep("prediction_log")],
                kinds={"polars", "deltalake"},
            )
        ],
    )
    def prediction_traffic(stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        for day, made_from in _stale(stores, PREDICTION_TRAFFIC, stores.tables.sizes(PREDICTION_LOG)):
            rows = asked.traffic_of(stores.tables.scan(PREDICTION_LOG, [day]))
            stores.tables.write(PREDICTION_TRAFFIC, rows, {day: made_from})
        traffic = stores.tables.read(PREDICTION_TRAFFIC)
        shown = {
            "newest": table_preview(traffic.sort("period", descending=True, maintain_order=True)),
            "latency": picture("time to answer, by day", latency_over_time(traffic)),
        }
        return dg.MaterializeResult(
            asset_key=PREDICTION_TRAFFIC.name, metadata={**facts(stores, PREDICTION_TRAFFIC), **shown}
        )

    @dg.multi_asset(
        specs=[
            spec_of(
                PREDICTION_DRIFT,
                group="monitoring",
                deps=[dg.AssetDep("prediction_log"), dg.AssetDep("segmentation_model")],
                kinds={"numpy", "deltalake"},
            )
        ],
    )
    def prediction_drift(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        references = _references(stores)
        weeks = asked.complete_weeks(stores.tables.sizes(PREDICTION_LOG), _today(), _first_day_kept(settings))
        for week, made_from in _stale(
            stores, PREDICTION_DRIFT, weeks, settings.model.seed, settings.drift.model_dump()
        ):
            parts = (asked.customers_of(stores.tables.scan(PREDICTION_LOG, [day])) for day in weeks[week])
            customers, history = asked.merge_days(parts), stores.tables.read(PREDICTION_DRIFT)
            report = asked.measure_request_drift(
                customers,
                references,
                week=week,
                seed=settings.model.seed,
                history=history,
                settings=settings.drift.of_report(),
            )
            stores.tables.write(PREDICTION_DRIFT, report, {week: made_from})
            for version in set(customers["model_version"]) - references.keys():
                context.log.warning("%s: model %s is none of this home's, so it has no reference", week, version)
        reports = stores.tables.read(PREDICTION_DRIFT)
        return dg.MaterializeResult(
            asset_key=PREDICTION_DRIFT.name, metadata={**facts(stores, PREDICTION_DRIFT), **_drift_shown(reports)}
        )

    return [prediction_log, prediction_traffic, prediction_drift]


def _today() -> date:
    return datetime.now(UTC).date()


def _first_day_kept(settings: Settings) -> date:
    return _today() - timedelta(days=settings.predictions.keep_days)


def _taken_in(stores: Stores, files: Sequence[Path], examination: Examination) -> tuple[pl.DataFrame, int]:
    """Take files in and check them, batch by batch; what was new, counted, and how many lines were no records."""
    counts, n_rejected = [_counts(_NO_RECORDS)], 0
    examination.examine(_NO_RECORDS)
    for batch in read_batches(files):
        fresh = take_in(stores.tables, batch)
        examination.examine(fresh.predictions)
        counts.append(_counts(fresh.predictions))
        n_rejected += fresh.rejected.height
    return pl.concat(counts).group_by(_BY).sum().sort(_BY), n_rejected


def _counts(records: pl.DataFrame) -> pl.DataFrame:
    return records.group_by(_BY).agg(pl.len().cast(pl.Int64).alias("n_records"), pl.col("n_dropped").sum())


def _tidy(stores: Stores) -> list[str]:
    """Remove what is older than it may be kept, and make days that are over one file each. Returns the days removed."""
    first, today = _first_day_kept(stores.settings).isoformat(), _today().isoformat()
    removed = sorted({day for table in _KEPT_FOR_A_TIME for day in stores.tables.remove_before(table, first)})
    for table in _KEPT_FOR_A_TIME:
        stores.tables.tidy(table, [day for day in stores.tables.sizes(table) if day < today])
    return removed


def _stale(
    stores: Stores, table: Table, contents: Mapping[str, object], *settings: object
) -> Iterator[tuple[str, int]]:
    """Partitions that were made from something else, with the fingerprint of what they are made from now.

    Args:
        stores: of the home.
        table: whose partitions they are.
        contents: partition key → how many records it is made from; records are only ever added to a day.
        settings: that matter to it.
    """
    for key, content in contents.items():
        made_from = fingerprint(table.name, CODE_VERSIONS[table.name], settings, content)
        if stores.tables.fingerprint_of(table.name, key) != made_from:
            yield key, made_from


def _references(stores: Stores) -> dict[str, DriftReference]:
    """What the customers were like that each model was trained on, by model version."""
    models = stores.tables.read(SEGMENTATION_MODEL).select("model_version", "drift_reference")
    return {version: reference_from_json(text) for version, text in models.iter_rows()}


def _by_reason(stores: Stores) -> pl.DataFrame:
    counted = stores.tables.scan(REJECTED_PREDICTIONS).group_by("period", "reason").len().collect()
    return counted.sort("period", "reason", descending=[True, False])


def _drift_shown(reports: pl.DataFrame) -> dict[str, Any]:
    """The verdicts, and the scores of the model that answered last over time."""
    verdicts = reports.select("period", "model_version", "n_customers", "verdict", "reasons").unique()
    newest = verdicts.sort("period", "n_customers", descending=True)
    of_newest = reports.filter(pl.col("model_version").is_in(newest["model_version"].head(1).implode()))
    return {
        "verdicts": table_preview(newest.with_columns(in_words(pl.col("reasons")))),
        "over_time": picture("drift scores of those asked about against their thresholds", drift_over_time(of_newest)),
    }


def _warning(table: Table, check: str, n_found: int, what: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=table.name,
        check_name=check,
        passed=not n_found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"summary": f"{n_found:,} {what} this time", "n_unexpected": n_found},
    )
