"""What the service was asked and answered; in days of the clock, whatever the periods of the shop's log are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import MoreCheck, SuiteRun
from custseg_assets.defs.materialise import Materialization, table_asset
from custseg_assets.defs.metadata import facts, in_words, picture, table_preview
from custseg_assets.domain.drift import requests
from custseg_assets.domain.drift.reference import DriftReference, reference_from_json
from custseg_assets.domain.schemas import (
    PREDICTION_DRIFT,
    PREDICTION_LOG,
    PREDICTION_TRAFFIC,
    REJECTED_PREDICTIONS,
    SEGMENTATION_MODEL,
    Table,
)
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.pictures.monitoring import drift_by_severity, latency_over_time
from custseg_assets.settings import Settings
from custseg_assets.stores.prediction_log import commit_batch, finished_files, read_batches
from custseg_assets.stores.tables import fingerprint

NOTHING_DROPPED, LINES_READABLE = "nothing_dropped", "lines_readable"
_KEPT_FOR_A_TIME = (PREDICTION_LOG, REJECTED_PREDICTIONS)
_KEPT, _THIS_TIME = "in the days that are kept", "this time"
_BY = ("kind", "outcome", "model_version")
_NO_RECORDS = pl.DataFrame(schema=PREDICTION_LOG.schema)


def _nothing_dropped(home: OpenHome) -> dg.AssetCheckResult:
    """The verdict about every record that is kept."""
    n_dropped = home.tables.scan(PREDICTION_LOG).select(pl.col("n_dropped").sum()).collect().item()
    return _warning(PREDICTION_LOG, NOTHING_DROPPED, int(n_dropped or 0), "records that the service lost", _KEPT)


def _lines_readable(home: OpenHome) -> dg.AssetCheckResult:
    """The verdict about every line that is kept."""
    n_rejected = sum(home.tables.sizes(REJECTED_PREDICTIONS).values())
    return _warning(REJECTED_PREDICTIONS, LINES_READABLE, n_rejected, "lines that are no records", _KEPT)


@table_asset(
    PREDICTION_LOG.name,
    REJECTED_PREDICTIONS.name,
    # Not the name of the job that runs it: Dagster has one list for both.
    step="recorded_predictions",
    group="monitoring",
    kinds={"polars", "deltalake"},
    more_checks=[
        MoreCheck(
            dg.AssetCheckSpec(
                NOTHING_DROPPED,
                asset=PREDICTION_LOG.name,
                description="The service could not keep up with its log or write it: what follows lacks answers.",
            ),
            _nothing_dropped,
        ),
        MoreCheck(
            dg.AssetCheckSpec(
                LINES_READABLE,
                asset=REJECTED_PREDICTIONS.name,
                description="A line is no record: another program writes into the folder, or a newer service does.",
            ),
            _lines_readable,
        ),
    ],
)
def prediction_log(_: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Iterator[Materialization]:
    """Take in the service's finished log files, and remove days that are older than they are kept."""
    suite, files = SuiteRun(PREDICTION_LOG, home), finished_files(home.paths.prediction_log)
    counts, n_rejected = _take_in(home, files, suite)
    removed = _tidy(home)
    n_dropped = int(counts["n_dropped"].sum())
    yield dg.MaterializeResult(
        asset_key=PREDICTION_LOG.name,
        metadata={
            "files": len(files),
            "taken_in": table_preview(counts, 50),
            "n_dropped": n_dropped,
            "removed": f"{removed[0]} to {removed[-1]}" if removed else "nothing",
            **facts(home, PREDICTION_LOG),
        },
        check_results=[
            *suite.results(),
            _warning(PREDICTION_LOG, NOTHING_DROPPED, n_dropped, "records that the service lost", _THIS_TIME),
        ],
    )
    yield dg.MaterializeResult(
        asset_key=REJECTED_PREDICTIONS.name,
        metadata={"by_reason": table_preview(_by_reason(home)), **facts(home, REJECTED_PREDICTIONS)},
        check_results=[
            _warning(REJECTED_PREDICTIONS, LINES_READABLE, n_rejected, "lines that are no records", _THIS_TIME)
        ],
    )


@table_asset(PREDICTION_TRAFFIC.name, group="monitoring", kinds={"polars", "deltalake"})
def prediction_traffic(_: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Count questions, outcomes and latencies of each day."""
    for day, made_from in _stale(home, PREDICTION_TRAFFIC, home.tables.sizes(PREDICTION_LOG)):
        rows = requests.traffic_of(home.tables.scan(PREDICTION_LOG, [day]))
        home.tables.write(PREDICTION_TRAFFIC, rows, {day: made_from})
    traffic = home.tables.read(PREDICTION_TRAFFIC)
    shown = {
        "latency": picture("time to answer, by day", latency_over_time(traffic)),
        "newest": table_preview(traffic.sort("period", descending=True, maintain_order=True)),
    }
    return dg.MaterializeResult(
        asset_key=PREDICTION_TRAFFIC.name, metadata={**shown, **facts(home, PREDICTION_TRAFFIC)}
    )


@table_asset(PREDICTION_DRIFT.name, group="monitoring", kinds={"numpy", "deltalake"})
def prediction_drift(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Measure the customers asked about in each week against the answering model's reference."""
    settings, references = home.settings, _references(home)
    weeks = requests.complete_weeks(home.tables.sizes(PREDICTION_LOG), _today(), _first_day_kept(settings))
    for week, made_from in _stale(home, PREDICTION_DRIFT, weeks, settings.model.seed, asdict(settings.drift)):
        parts = (requests.customers_of(home.tables.scan(PREDICTION_LOG, [day])) for day in weeks[week])
        customers, history = requests.merge_days(parts), home.tables.read(PREDICTION_DRIFT)
        report = requests.measure_request_drift(
            customers, references, week=week, seed=settings.model.seed, history=history, settings=settings.drift
        )
        home.tables.write(PREDICTION_DRIFT, report, {week: made_from})
        for version in set(customers["model_version"]) - references.keys():
            context.log.warning("%s: model %s is none of this home's, so it has no reference", week, version)
    reports = home.tables.read(PREDICTION_DRIFT)
    return dg.MaterializeResult(
        asset_key=PREDICTION_DRIFT.name, metadata={**_drift_shown(reports), **facts(home, PREDICTION_DRIFT)}
    )


def _today() -> date:
    return datetime.now(UTC).date()


def _first_day_kept(settings: Settings) -> date:
    return _today() - timedelta(days=settings.predictions.keep_days)


def _take_in(home: LockedHome, files: Sequence[Path], suite: SuiteRun) -> tuple[pl.DataFrame, int]:
    """Take files in and check them, batch by batch; what was new, counted, and how many lines were no records."""
    counts, n_rejected = [_counts(_NO_RECORDS)], 0
    suite.check([_NO_RECORDS])
    for batch in read_batches(files):
        fresh = commit_batch(home.tables, batch)
        suite.check([fresh.predictions])
        counts.append(_counts(fresh.predictions))
        n_rejected += fresh.rejected.height
    return pl.concat(counts).group_by(_BY).sum().sort(_BY), n_rejected


def _counts(records: pl.DataFrame) -> pl.DataFrame:
    return records.group_by(_BY).agg(pl.len().cast(pl.Int64).alias("n_records"), pl.col("n_dropped").sum())


def _tidy(home: LockedHome) -> list[str]:
    """Remove what is older than it may be kept, and make days that are over one file each. Returns the days removed."""
    first, today = _first_day_kept(home.settings).isoformat(), _today().isoformat()
    removed = sorted({day for table in _KEPT_FOR_A_TIME for day in home.tables.remove_before(table, first)})
    for table in _KEPT_FOR_A_TIME:
        home.tables.tidy(table, [day for day in home.tables.sizes(table) if day < today])
    return removed


def _stale(
    home: OpenHome, table: Table, contents: Mapping[str, object], *settings: object
) -> Iterator[tuple[str, int]]:
    """Partitions that were made from something else, with the fingerprint of what they are made from now.

    Args:
        home: whose partitions they are.
        table: whose partitions they are.
        contents: partition key → how many records it is made from; records are only ever added to a day.
        settings: that matter to it.
    """
    for key, content in contents.items():
        made_from = fingerprint(table.name, table.code_version, settings, content)
        if home.tables.fingerprint_of(table.name, key) != made_from:
            yield key, made_from


def _references(home: OpenHome) -> dict[str, DriftReference]:
    """What the customers were like that each model was trained on, by model version."""
    models = home.tables.read(SEGMENTATION_MODEL).select("model_version", "drift_reference")
    return {version: reference_from_json(text) for version, text in models.iter_rows()}


def _by_reason(home: OpenHome) -> pl.DataFrame:
    counted = home.tables.scan(REJECTED_PREDICTIONS).group_by("period", "reason").len().collect()
    return counted.sort("period", "reason", descending=[True, False])


def _drift_shown(reports: pl.DataFrame) -> dict[str, Any]:
    """The verdicts, and the scores of the model that answered last over time."""
    verdicts = reports.select("period", "model_version", "n_customers", "verdict", "reasons").unique()
    newest = verdicts.sort("period", "n_customers", descending=True)
    of_newest = reports.filter(pl.col("model_version").is_in(newest["model_version"].head(1).implode()))
    return {
        "verdicts": table_preview(newest.with_columns(in_words(pl.col("reasons")))),
        "scores": picture(
            "drift scores of those asked about against their thresholds", drift_by_severity(of_newest, "weekly")
        ),
    }


def _warning(table: Table, check: str, n_found: int, what: str, when: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=table.name,
        check_name=check,
        passed=not n_found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"summary": f"{n_found:,} {what} {when}", "n_unexpected": n_found},
    )


ASSETS = (prediction_log, prediction_traffic, prediction_drift)
