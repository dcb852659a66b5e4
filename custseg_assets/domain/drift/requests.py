"""Traffic and drift of the service's requests, from the prediction log.

Drift between snapshots says whether the shop's customers changed. An application may send requests about quite others:
new ones that it scores, or only the active ones. So the same report is made of the customers of a week's answers,
against the snapshot that the answering model was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import numpy as np
import polars as pl

from custseg_assets.domain.drift.reference import DriftReference
from custseg_assets.domain.drift.report import DriftSettings
from custseg_assets.domain.drift.scores import DEFAULT_SETTINGS, measure_drift
from custseg_assets.domain.periods import start_of
from custseg_assets.domain.schemas import PREDICTION_DRIFT, PREDICTION_TRAFFIC
from custseg_assets.domain.segments.model import REFUNDED, RFM, Matrix

_WEEK = timedelta(days=7)
_PERCENTILES = (50, 95, 99)
_NOT_FOUND = ("unknown", "too_new")
_ABOUT_CUSTOMERS = ("customer_id", "segment_id", "is_rule_segment", *RFM, "other_features")


def week_of(day: str) -> str:
    """Monday of a day's week.

    >>> week_of("2026-11-24"), week_of("2026-11-23")
    ('2026-11-23', '2026-11-23')
    """
    start = start_of(day)
    return (start - timedelta(days=start.weekday())).isoformat()


def complete_weeks(sizes: Mapping[str, int], today: date, first_day_kept: date) -> dict[str, dict[str, int]]:
    """The weeks that are over and of which nothing has been removed, with their days' records, oldest first.

    Args:
        sizes: days → how many records they have, oldest first.
        today: in UTC.
        first_day_kept: records of earlier days are removed.
    """
    weeks: dict[str, dict[str, int]] = {}
    for day, n_records in sizes.items():
        monday = start_of(week_of(day))
        if first_day_kept <= monday <= today - _WEEK:
            weeks.setdefault(monday.isoformat(), {})[day] = n_records
    return weeks


def traffic_of(records: pl.LazyFrame) -> pl.DataFrame:
    """Rows of ``prediction_traffic``: one per day, kind of request and model.

    A request for many customers leaves many records and counts once among the latencies.

    Args:
        records: ``prediction_log`` rows of whole days.
    """
    by = ("period", "kind", "model_version")
    outcome, latency = pl.col("outcome"), pl.col("latency_ms")
    is_answer = pl.col("kind") != "dropped"
    counts = records.group_by(by).agg(
        *((is_answer & (outcome == name)).sum().cast(pl.Int64).alias(f"n_{name}") for name in ("found", *_NOT_FOUND)),
        pl.col("n_dropped").sum(),
    )
    requests = (
        records.group_by(*by, "request_id")
        .agg(latency.first())
        .group_by(by)
        .agg(
            latency.count().cast(pl.Int64).alias("n_requests"),
            *(latency.quantile(percent / 100, "higher").alias(f"latency_p{percent}_ms") for percent in _PERCENTILES),
        )
    )
    joined = counts.join(requests, on=by, nulls_equal=True)
    return joined.select(PREDICTION_TRAFFIC.schema.names()).sort("period", *PREDICTION_TRAFFIC.sort_by).collect()


def customers_of(records: pl.LazyFrame) -> pl.DataFrame:
    """The customers of answers, each once, as they were last answered, by model.

    Applications send requests about some customers again and again. A report that counted answers would be about those
    few, and its thresholds, which are for independent customers, would be wrong. Scores without an id count one each.

    Args:
        records: ``prediction_log`` rows.
    """
    answered = records.filter(pl.col("outcome") == "found", pl.col("kind") != "dropped")
    who = pl.coalesce("customer_id", pl.format("{}\n{}", "source_file", "source_line"))
    return (
        answered.group_by("model_version", who.alias("who"))
        .agg(pl.col(_ABOUT_CUSTOMERS).sort_by("at", "source_file", "source_line").last())
        .sort("model_version", "who")
        .collect()
    )


def merge_days(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The customers of several days, each once, as they were last answered, by model.

    Args:
        parts: what ``customers_of`` made of each, at least one, oldest day first.
    """
    return (
        pl.concat(parts).unique(["model_version", "who"], keep="last", maintain_order=True).sort("model_version", "who")
    )


def measure_request_drift(
    customers: pl.DataFrame,
    references: Mapping[str, DriftReference],
    *,
    week: str,
    seed: int,
    history: pl.DataFrame,
    settings: DriftSettings = DEFAULT_SETTINGS,
) -> pl.DataFrame:
    """Rows of ``prediction_drift`` for one week: one report per model that answered and is known.

    Args:
        customers: what ``merge_days`` returned.
        references: of the models, by version.
        week: its Monday.
        seed: of the calibration.
        history: ``prediction_drift`` rows of other weeks.
        settings: what counts as drift.
    """
    reports = [pl.DataFrame(schema=PREDICTION_DRIFT.schema)]
    for version, reference in sorted(references.items()):
        answered = customers.filter(pl.col("model_version") == version)
        if answered.height:
            report = measure_drift(
                reference,
                _scaled_matrix(answered, reference),
                period=week,
                seed=seed,
                settings=settings,
                n_refunded=int((answered["segment_id"] == REFUNDED.segment_id).sum()),
                # What another model answered is no measure of what is usual for this one.
                history=history.filter(pl.col("model_version") == version),
            )
            reports.append(report.table())
    return pl.concat(reports)


def _scaled_matrix(answered: pl.DataFrame, reference: DriftReference) -> Matrix:
    """The customers that K-means sees, on the model's scale, shape (customers, features)."""
    others = [name for name in reference.features if name not in RFM]
    visible = answered.filter(~pl.col("is_rule_segment"))
    if others:
        decoded = visible["other_features"].str.json_decode(pl.Struct(dict.fromkeys(others, pl.Float64())))
        visible = visible.hstack(decoded.struct.unnest())
    raw = visible.select(reference.features).drop_nulls().to_numpy().astype(np.float64)
    return reference.scaling.scale(raw)
