"""Taking the service's prediction log in: every line once, whatever happens; and what is made of what was requests."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.drift import requests
from custseg_assets.domain.schemas import PREDICTION_DRIFT, PREDICTION_LOG, REJECTED_PREDICTIONS
from custseg_assets.stores.prediction_log import MAX_LINE_BYTES, Batch, commit_batch, finished_files, read_batches
from custseg_assets.stores.tables import TableStore
from tests.support.drift import reference_of
from tests.support.drift import shop_values as shop
from tests.support.files import REPOSITORY

ANSWER = {
    "customer_id": "12347",
    "segment_id": "S1",
    "segment_name": "Champions",
    "is_rule_segment": False,
    "margin": 0.25,
    "rfm": {"recency_days": 7, "frequency_orders": 9.0, "monetary_net": 2310.0},
    "other_features": {"n_products": 12.0},
    "reasons": [{"feature": "recency_days", "text": "7 days since the last order; Promising: 30"}],
}
RECORD = {
    "format": 1,
    "at": "2026-11-23T10:00:00.250Z",
    "kind": "lookup",
    "request_id": "a-1",
    "key_id": None,
    "latency_ms": 1.5,
    "release_id": "r-2026-10-01-00000000",
    "model_version": "m-test",
    "outcome": "found",
    "customer_id": "12347",
    "answer": ANSWER,
}
UNKNOWN = {"outcome": "unknown", "answer": None}


def line(**changes: Any) -> bytes:
    return json.dumps({**RECORD, **changes}).encode() + b"\n"


def answered(**changes: Any) -> bytes:
    return line(answer={**ANSWER, **changes})


def write(folder: Path, name: str, *lines: bytes) -> Path:
    path = folder / name
    folder.mkdir(exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def taken(folder: Path, *lines: bytes) -> Batch:
    """What one file with these lines is taken for."""
    [batch] = read_batches([write(folder, "a.jsonl", *lines)])
    return batch


def test_a_record_becomes_a_row_under_the_utc_day_of_the_request(tmp_path: Path) -> None:
    rows = taken(tmp_path, line(at="2026-11-24T01:30:00+02:00")).predictions
    row = rows.row(0, named=True)
    assert (row["period"], row["at"]) == ("2026-11-23", datetime(2026, 11, 23, 23, 30))
    assert (row["source_file"], row["source_line"], row["kind"], row["latency_ms"]) == ("a.jsonl", 1, "lookup", 1.5)
    assert (row["segment_id"], row["margin"], row["is_rule_segment"]) == ("S1", 0.25, False)
    assert (row["recency_days"], row["frequency_orders"], row["monetary_net"]) == (7.0, 9.0, 2310.0)
    assert json.loads(row["other_features"]) == {"n_products": 12.0}
    assert json.loads(row["answer"]) == ANSWER


def test_what_found_nobody_and_what_was_lost_are_rows_too(tmp_path: Path) -> None:
    lost = {"format": 1, "at": RECORD["at"], "kind": "dropped", "outcome": "disk", "n_dropped": 3}
    rows = taken(tmp_path, line(**UNKNOWN), json.dumps(lost).encode()).predictions
    columns = ["outcome", "customer_id", "segment_id", "answer", "n_dropped"]
    assert rows.select(columns).rows() == [("unknown", "12347", None, None, None), ("disk", None, None, None, 3)]


def test_a_later_service_may_say_more(tmp_path: Path) -> None:
    batch = taken(tmp_path, line(weather="rain", answer={**ANSWER, "is_held": True}))
    assert json.loads(batch.predictions["answer"].item())["is_held"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"garbage\n", "no JSON: expected value at line 1 column 1"),
        (b"\n", "no JSON: EOF while parsing a value"),
        (b'{"format":1,"at":"2026\n', "no JSON: "),
        (b"\xff\xfe\n", "no JSON: "),
        (b"[" * 10_000 + b"\n", "no JSON: recursion limit"),
        (b"[]\n", "record format 'list'; this version reads 1"),
        (line(format=2), "record format 2; this version reads 1"),
        (line(kind="guess"), "found.kind: Input should be 'lookup' or 'score'"),
        (line(outcome="maybe"), "Input tag 'maybe' found using 'outcome' does not match"),
        (line(at="yesterday"), "found.at: Input should be a valid datetime"),
        (line(at="2026-11-23T10:00:00"), "found.at: Input should have timezone info"),
        (line(at="0001-01-01T00:00:00+05:00"), "date value out of range"),
        (line(latency_ms="fast"), "found.latency_ms: Input should be a valid number"),
        (line(latency_ms=float("nan")), "no JSON: "),
        (line(answer=None), "found.answer: Input should be a valid dictionary"),
        (answered(rfm={"recency_days": 7}), "found.answer.rfm.frequency_orders: Field required"),
        (line(kind="dropped", n_dropped=1 << 70), "n_dropped: "),
    ],
)
def test_a_line_that_is_no_record_is_kept_with_its_reason_and_stops_nothing(
    tmp_path: Path, bad: bytes, reason: str
) -> None:
    batch = taken(tmp_path, line(), bad, line(request_id="a-2"))
    assert batch.predictions["source_line"].to_list() == [1, 3]
    row = batch.rejected.row(0, named=True)
    assert (row["source_file"], row["source_line"]) == ("a.jsonl", 2)
    assert row["reason"].startswith(reason)
    assert row["content"] == bad.decode("utf-8", "backslashreplace").rstrip("\n")


def test_a_line_of_any_length_is_read_in_bounded_memory(tmp_path: Path) -> None:
    long = b"x" * (2 * MAX_LINE_BYTES + 10) + b"\n"
    batch = taken(tmp_path, long, line())
    assert [len(content) for content in batch.rejected["content"]] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 10]
    assert batch.predictions["source_line"].to_list() == [4]


def test_batches_are_bounded_and_name_a_file_when_its_last_line_is_in(tmp_path: Path) -> None:
    first = write(tmp_path, "a.jsonl", *[line()] * 5)
    second = write(tmp_path, "b.jsonl", line())
    batches = list(read_batches([first, second], max_bytes=2 * len(line())))
    assert [batch.predictions.height for batch in batches] == [2, 2, 2, 0]
    assert [batch.finished for batch in batches] == [(), (), (first,), (second,)]


def test_only_finished_files_are_waiting_oldest_first(tmp_path: Path) -> None:
    for name in ("20261124T2.jsonl", "20261124T1.jsonl", "20261124T3.jsonl.open", "20261124T4.jsonl.new"):
        write(tmp_path, name, line())
    assert [path.name for path in finished_files(tmp_path)] == ["20261124T1.jsonl", "20261124T2.jsonl"]
    assert finished_files(tmp_path / "nowhere") == ()


def test_what_is_taken_in_is_in_the_tables_and_the_file_is_gone(tmp_path: Path) -> None:
    tables = TableStore(tmp_path / "tables")
    path = write(tmp_path / "log", "a.jsonl", line(), b"garbage\n", line(at="2026-11-24T10:00:00Z"))
    for batch in read_batches([path]):
        commit_batch(tables, batch)
    assert not path.exists()
    assert tables.sizes(PREDICTION_LOG) == {"2026-11-23": 1, "2026-11-24": 1}
    assert tables.read(REJECTED_PREDICTIONS)["source_line"].to_list() == [2]


def test_lines_that_an_earlier_attempt_committed_are_left_out(tmp_path: Path) -> None:
    """Killed after the first batch, then more files came and the batches are cut elsewhere."""
    tables = TableStore(tmp_path / "tables")
    lines = [line(at=f"2026-11-{day}T10:00:00Z") for day in (23, 24, 23, 24, 23)]
    lines.insert(1, b"garbage\n")
    path = write(tmp_path / "log", "b.jsonl", *lines)
    first = next(read_batches([path], max_bytes=3 * len(line())))
    commit_batch(tables, first)
    assert tables.read(PREDICTION_LOG).height == first.predictions.height < 5
    write(tmp_path / "log", "a.jsonl", line())
    for batch in read_batches(finished_files(tmp_path / "log")):
        commit_batch(tables, batch)
    rows = tables.read(PREDICTION_LOG).sort("source_file", "source_line")
    found = rows.select("source_file", "source_line").rows()
    assert found == [("a.jsonl", 1), *(("b.jsonl", number) for number in (1, 3, 4, 5, 6))]
    assert tables.read(REJECTED_PREDICTIONS)["source_line"].to_list() == [2]


_TAKE_IN = """
import sys; from pathlib import Path
from custseg_assets.stores.prediction_log import read_batches, commit_batch, finished_files
from custseg_assets.stores.tables import TableStore
home = Path(sys.argv[1]); print("begun", flush=True)
for batch in read_batches(finished_files(home / "prediction_log"), max_bytes=20_000):
    commit_batch(TableStore(home / "tables"), batch)
"""


def test_killed_at_twenty_moments_every_line_is_taken_in_once(tmp_path: Path) -> None:
    folder, moments = tmp_path / "prediction_log", random.Random(4)
    expected = []
    for name in "abcdef":
        lines = [b"garbage\n" if n % 50 == 7 else line(at=f"2026-11-{20 + n % 5}T10:00:00Z") for n in range(200)]
        write(folder, f"{name}.jsonl", *lines)
        expected += [(f"{name}.jsonl", n + 1) for n in range(200)]
    n_killed = 0
    for attempt in range(21):
        process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_IN, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        if attempt < 20:
            time.sleep(moments.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        n_killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert n_killed >= 5
    assert finished_files(folder) == ()
    tables = TableStore(tmp_path / "tables")
    found = [*tables.read(PREDICTION_LOG).select("source_file", "source_line").rows()]
    found += tables.read(REJECTED_PREDICTIONS).select("source_file", "source_line").rows()
    assert sorted(found) == expected


def test_old_days_are_removed_and_days_that_are_over_become_one_file(tmp_path: Path) -> None:
    tables = TableStore(tmp_path / "tables")
    for name in "abc":
        days = [line(at=f"2026-11-{day}T10:00:00Z") for day in (22, 23, 24)]
        for batch in read_batches([write(tmp_path, f"{name}.jsonl", *days)]):
            commit_batch(tables, batch)
    assert tables.remove_before(PREDICTION_LOG, "2026-11-23") == ["2026-11-22"]
    assert tables.remove_before(PREDICTION_LOG, "2026-11-23") == []
    tables.tidy(PREDICTION_LOG, ["2026-11-23"])
    assert tables.sizes(PREDICTION_LOG) == {"2026-11-23": 3, "2026-11-24": 3}
    live = tables._open("prediction_log").file_uris()  # type: ignore[union-attr]
    assert sorted(uri.split("period=")[1][:10] for uri in live) == ["2026-11-23", *["2026-11-24"] * 3]
    assert tables.read(PREDICTION_LOG).height == 6
    version = tables.version_of("prediction_log")
    tables.tidy(PREDICTION_LOG, ["2026-11-23"])
    assert tables.version_of("prediction_log") == version


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
