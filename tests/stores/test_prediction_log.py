"""Taking the service's prediction log in: every line once, whatever happens."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from custseg_assets.domain.schemas import PREDICTION_LOG, REJECTED_PREDICTIONS
from custseg_assets.stores.prediction_log import MAX_LINE_BYTES, Batch, commit_batch, finished_files, read_batches
from custseg_assets.stores.tables import TableStore
from tests.support.files import REPOSITORY
from tests.support.prediction_records import ANSWER, RECORD, record_line

UNKNOWN = {"outcome": "unknown", "answer": None}


def answered(**changes: Any) -> bytes:
    return record_line(answer={**ANSWER, **changes})


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
    rows = taken(tmp_path, record_line(at="2026-11-24T01:30:00+02:00")).predictions
    row = rows.row(0, named=True)
    assert (row["period"], row["at"]) == ("2026-11-23", datetime(2026, 11, 23, 23, 30))
    assert (row["source_file"], row["source_line"], row["kind"], row["latency_ms"]) == ("a.jsonl", 1, "lookup", 1.5)
    assert (row["segment_id"], row["margin"], row["is_rule_segment"]) == ("S1", 0.25, False)
    assert (row["recency_days"], row["frequency_orders"], row["monetary_net"]) == (7.0, 9.0, 2310.0)
    assert json.loads(row["other_features"]) == {"n_products": 12.0}
    assert json.loads(row["answer"]) == ANSWER


def test_what_found_nobody_and_what_was_lost_are_rows_too(tmp_path: Path) -> None:
    lost = {"format": 1, "at": RECORD["at"], "kind": "dropped", "outcome": "disk", "n_dropped": 3}
    rows = taken(tmp_path, record_line(**UNKNOWN), json.dumps(lost).encode()).predictions
    columns = ["outcome", "customer_id", "segment_id", "answer", "n_dropped"]
    assert rows.select(columns).rows() == [("unknown", "12347", None, None, None), ("disk", None, None, None, 3)]


def test_a_later_service_may_say_more(tmp_path: Path) -> None:
    batch = taken(tmp_path, record_line(weather="rain", answer={**ANSWER, "is_held": True}))
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
        (record_line(format=2), "record format 2; this version reads 1"),
        (record_line(kind="guess"), "found.kind: Input should be 'lookup' or 'score'"),
        (record_line(outcome="maybe"), "Input tag 'maybe' found using 'outcome' does not match"),
        (record_line(at="yesterday"), "found.at: Input should be a valid datetime"),
        (record_line(at="2026-11-23T10:00:00"), "found.at: Input should have timezone info"),
        (record_line(at="0001-01-01T00:00:00+05:00"), "date value out of range"),
        (record_line(latency_ms="fast"), "found.latency_ms: Input should be a valid number"),
        (record_line(latency_ms=float("nan")), "no JSON: "),
        (record_line(answer=None), "found.answer: Input should be a valid dictionary"),
        (answered(rfm={"recency_days": 7}), "found.answer.rfm.frequency_orders: Field required"),
        (record_line(kind="dropped", n_dropped=1 << 70), "n_dropped: "),
    ],
)
def test_a_line_that_is_no_record_is_kept_with_its_reason_and_stops_nothing(
    tmp_path: Path, bad: bytes, reason: str
) -> None:
    batch = taken(tmp_path, record_line(), bad, record_line(request_id="a-2"))
    assert batch.predictions["source_line"].to_list() == [1, 3]
    row = batch.rejected.row(0, named=True)
    assert (row["source_file"], row["source_line"]) == ("a.jsonl", 2)
    assert row["reason"].startswith(reason)
    assert row["content"] == bad.decode("utf-8", "backslashreplace").rstrip("\n")


def test_a_line_of_any_length_is_read_in_bounded_memory(tmp_path: Path) -> None:
    long = b"x" * (2 * MAX_LINE_BYTES + 10) + b"\n"
    batch = taken(tmp_path, long, record_line())
    assert [len(content) for content in batch.rejected["content"]] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 10]
    assert batch.predictions["source_line"].to_list() == [4]


def test_batches_are_bounded_and_name_a_file_when_its_last_line_is_in(tmp_path: Path) -> None:
    first = write(tmp_path, "a.jsonl", *[record_line()] * 5)
    second = write(tmp_path, "b.jsonl", record_line())
    batches = list(read_batches([first, second], max_bytes=2 * len(record_line())))
    assert [batch.predictions.height for batch in batches] == [2, 2, 2, 0]
    assert [batch.finished for batch in batches] == [(), (), (first,), (second,)]


def test_only_finished_files_are_waiting_oldest_first(tmp_path: Path) -> None:
    for name in ("20261124T2.jsonl", "20261124T1.jsonl", "20261124T3.jsonl.open", "20261124T4.jsonl.new"):
        write(tmp_path, name, record_line())
    assert [path.name for path in finished_files(tmp_path)] == ["20261124T1.jsonl", "20261124T2.jsonl"]
    assert finished_files(tmp_path / "nowhere") == ()


def test_what_is_taken_in_is_in_the_tables_and_the_file_is_gone(tmp_path: Path) -> None:
    tables = TableStore(tmp_path / "tables")
    path = write(tmp_path / "log", "a.jsonl", record_line(), b"garbage\n", record_line(at="2026-11-24T10:00:00Z"))
    for batch in read_batches([path]):
        commit_batch(tables, batch)
    assert not path.exists()
    assert tables.sizes(PREDICTION_LOG) == {"2026-11-23": 1, "2026-11-24": 1}
    assert tables.read(REJECTED_PREDICTIONS)["source_line"].to_list() == [2]


def test_lines_that_an_earlier_attempt_committed_are_left_out(tmp_path: Path) -> None:
    """Killed after the first batch, then more files came and the batches are cut elsewhere."""
    tables = TableStore(tmp_path / "tables")
    lines = [record_line(at=f"2026-11-{day}T10:00:00Z") for day in (23, 24, 23, 24, 23)]
    lines.insert(1, b"garbage\n")
    path = write(tmp_path / "log", "b.jsonl", *lines)
    first = next(read_batches([path], max_bytes=3 * len(record_line())))
    commit_batch(tables, first)
    assert tables.read(PREDICTION_LOG).height == first.predictions.height < 5
    write(tmp_path / "log", "a.jsonl", record_line())
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
        lines = [b"garbage\n" if n % 50 == 7 else record_line(at=f"2026-11-{20 + n % 5}T10:00:00Z") for n in range(200)]
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
        days = [record_line(at=f"2026-11-{day}T10:00:00Z") for day in (22, 23, 24)]
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
