"""What the service was asked: traffic by day, customers by week, and whether they drifted."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.drift import requests
from custseg_assets.domain.schemas import PREDICTION_DRIFT, PREDICTION_LOG
from tests.support.drift import reference_of
from tests.support.drift import shop_values as shop


def records(*different: dict[str, Any], **common: Any) -> pl.LazyFrame:
    blank = dict.fromkeys(PREDICTION_LOG.schema) | {
        "period": "2026-11-23",
        "source_file": "a.jsonl",
        "at": datetime(2026, 11, 23, 10),
        "kind": "lookup",
        "model_version": "m-test",
        "outcome": "found",
        "is_rule_segment": False,
    }
    numbered = [{"source_line": n, "request_id": f"r-{n}", "latency_ms": 1.0} for n in range(len(different))]
    rows = [blank | common | number | row for number, row in zip(numbered, different, strict=True)]
    return pl.LazyFrame(rows, schema=PREDICTION_LOG.schema)


def test_traffic_counts_requests_once_and_customers_each() -> None:
    """Five requests of 1, 2, 3, 4 and 50 ms, the last about three customers."""
    batch = {"request_id": "many", "latency_ms": 50.0}
    asked_about = [{"latency_ms": float(ms)} for ms in (1, 2, 3, 4)]
    rows = requests.traffic_of(
        records(
            *asked_about,
            batch,
            {**batch, "outcome": "unknown"},
            {**batch, "outcome": "too_new"},
            {"kind": "score", "latency_ms": 7.0},
            {"kind": "dropped", "outcome": "disk", "n_dropped": 3, "model_version": None, "latency_ms": None},
            {"kind": "dropped", "outcome": "queue_full", "n_dropped": 4, "model_version": None, "latency_ms": None},
        )
    )
    assert rows.drop("period", "model_version").rows() == [
        ("dropped", 0, 0, 0, 0, 7, None, None, None),
        ("lookup", 5, 5, 1, 1, 0, 3.0, 50.0, 50.0),
        ("score", 1, 1, 0, 0, 0, 7.0, 7.0, 7.0),
    ]


def test_no_records_are_no_traffic() -> None:
    assert requests.traffic_of(records()).is_empty()


def test_a_customer_asked_about_often_counts_once_as_last_answered() -> None:
    rows = requests.customers_of(
        records(
            {"customer_id": "a", "recency_days": 2.0, "at": datetime(2026, 11, 23, 11)},
            {"customer_id": "a", "recency_days": 1.0, "at": datetime(2026, 11, 23, 9)},
            {"customer_id": None, "kind": "score", "recency_days": 3.0},
            {"customer_id": None, "kind": "score", "recency_days": 3.0},
            {"customer_id": "b", "outcome": "unknown"},
            {"customer_id": "a", "model_version": "m-other", "recency_days": 5.0},
        )
    )
    found = rows.sort("model_version", "recency_days").select("model_version", "customer_id", "recency_days").rows()
    assert found == [("m-other", "a", 5.0), ("m-test", "a", 2.0), ("m-test", None, 3.0), ("m-test", None, 3.0)]


def test_of_several_days_the_last_counts() -> None:
    first = requests.customers_of(records({"customer_id": "a", "recency_days": 1.0}, {"customer_id": "b"}))
    second = requests.customers_of(records({"customer_id": "a", "recency_days": 2.0}))
    both = requests.merge_days([first, second])
    assert both.select("customer_id", "recency_days").rows() == [("a", 2.0), ("b", None)]


def test_a_week_counts_when_it_is_over_and_nothing_of_it_was_removed() -> None:
    """2026-11-16 and 2026-11-23 are Mondays."""
    sizes = {"2026-11-08": 1, "2026-11-15": 2, "2026-11-16": 3, "2026-11-22": 4, "2026-11-23": 5}
    weeks = requests.complete_weeks(sizes, date(2026, 11, 23), date(2026, 11, 3))
    assert weeks == {"2026-11-09": {"2026-11-15": 2}, "2026-11-16": {"2026-11-16": 3, "2026-11-22": 4}}
    assert "2026-11-16" not in requests.complete_weeks(sizes, date(2026, 11, 22), date(2026, 11, 3))


def customers(values: np.ndarray[Any, Any], **more: Any) -> pl.DataFrame:
    """Answers about customers with these R, F and M."""
    rows = [
        {"customer_id": str(n), "recency_days": r, "frequency_orders": f, "monetary_net": m, "segment_id": "S1"} | more
        for n, (r, f, m) in enumerate(values.tolist())
    ]
    return requests.customers_of(records(*rows))


def measured(seen: pl.DataFrame, history: pl.DataFrame | None = None) -> pl.DataFrame:
    references = {"m-test": reference_of(shop(3_000, 1)), "m-unused": reference_of(shop(3_000, 1))}
    before = PREDICTION_DRIFT.schema.to_frame() if history is None else history
    return requests.measure_request_drift(seen, references, week="2026-11-16", seed=7, history=before)


def test_asking_about_customers_like_those_trained_on_is_stable_and_about_others_is_a_breach() -> None:
    alike, others = measured(customers(shop(3_000, 2))), measured(customers(shop(3_000, 2, price=20.0)))
    assert alike.schema == PREDICTION_DRIFT.schema
    assert (set(alike["verdict"]), set(alike["n_customers"])) == ({"stable"}, {3_000})
    assert set(others["verdict"]) == {"breach"}
    assert others.filter("is_alert")["subject"].is_in(["monetary_net"]).any()


def test_few_customers_are_no_ground_for_a_verdict_and_none_for_no_report() -> None:
    assert set(measured(customers(shop(29, 2)))["verdict"]) == {"not enough data"}
    assert measured(customers(shop(5, 2)).clear()).is_empty()


def test_refunded_and_lapsed_customers_are_not_measured_as_if_kmeans_saw_them() -> None:
    seen = customers(shop(40, 2))
    ruled = seen.head(8).with_columns(
        is_rule_segment=True, segment_id=pl.when(pl.int_range(pl.len()) < 5).then(pl.lit("R1")).otherwise(pl.lit("R2"))
    )
    report = measured(pl.concat([seen.tail(32), ruled]))
    assert set(report["n_customers"]) == {32}
    refunded = report.filter(pl.col("subject") == "Refunded")
    assert refunded["score"].item() == pytest.approx(5 / 37, abs=1e-6)


def test_what_was_asked_of_another_model_does_not_count_as_usual() -> None:
    report = measured(customers(shop(3_000, 2)))
    weeks = [f"2026-{month:02}-05" for month in range(1, 9)]
    mine = pl.concat([report.with_columns(period=pl.lit(week)) for week in weeks])
    others = mine.with_columns(model_version=pl.lit("m-other"))
    assert measured(customers(shop(3_000, 2)), mine)["own_threshold"].null_count() == 0
    assert measured(customers(shop(3_000, 2)), others)["own_threshold"].null_count() == report.height
