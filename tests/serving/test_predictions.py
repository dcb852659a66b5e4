"""The prediction log: every answer is written, no request waits for the disk, and lost records are counted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.stores.prediction_log import finished_files, read_batches
from custseg_serving.drain import Drain
from custseg_serving.predictions import finish_abandoned_files
from tests.support.releases import CUSTOMERS, LAPSED_CUSTOMER
from tests.support.server import LOOKUP, ROW, StartApp, metric, prediction_records, readiness, stop_app
from tests.support.waiting import wait_until


def test_every_lookup_and_score_is_recorded_with_what_was_answered(start_app: StartApp, served_home: Path) -> None:
    application = start_app()
    client = application.test_client()
    asked = client.get(LOOKUP)
    answer = asked.get_json()
    client.get("/v1/customers/nobody/segment")
    client.post("/v1/customers/segments", json={"customer_ids": ["12348", "19999"]})
    client.post("/v1/score", json={"customers": [ROW, {**ROW, "customer_id": "new"}]})
    stop_app(application)
    found = prediction_records(served_home / "prediction_log")
    assert [(one["kind"], one["outcome"], one["customer_id"]) for one in found] == [
        ("lookup", "found", "12347"),
        ("lookup", "unknown", "nobody"),
        ("lookup", "found", "12348"),
        ("lookup", "too_new", "19999"),
        ("score", "found", None),
        ("score", "found", "new"),
    ]
    first = found[0]
    assert (first["request_id"], first["release_id"]) == (asked.headers["X-Request-ID"], answer["release_id"])
    assert first["answer"]["rfm"] == answer["rfm"]
    assert first["latency_ms"] > 0
    assert [one["answer"] is None for one in found] == [False, True, False, True, False, False]
    assert not list((served_home / "prediction_log").glob("*.open"))


def test_a_full_disk_costs_records_but_no_answer_and_is_told(
    start_app: StartApp, served_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_app().test_client()
    client.get(LOOKUP)
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 1)
    write, is_full = os.write, [True]

    def write_half(descriptor: int, content: bytes) -> int:
        if not is_full[0] or len(content) < 100:
            return write(descriptor, content)
        if len(content) > 200:
            return write(descriptor, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write_half)
    assert client.get("/v1/customers/12348/segment").status_code == 200
    wait_until(lambda: readiness(client)["n_predictions_dropped"] == 1)
    assert readiness(client)["status"] == "degraded"
    assert metric(client, 'custseg_predictions_dropped_total{reason="disk"}') == 1
    is_full[0] = False
    client.get(LOOKUP)
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 2)
    stop_app(client.application)
    found = prediction_records(served_home / "prediction_log")
    assert [one.get("customer_id", one["kind"]) for one in found] == ["12347", "dropped", "12347"]
    assert (found[1]["outcome"], found[1]["n_dropped"]) == ("disk", 1)


def test_a_full_queue_drops_and_counts_and_never_waits() -> None:
    written: list[int] = []
    dropped: list[int] = []
    drain: Drain[int] = Drain("test", written.extend, 3, dropped.append, interval_seconds=60)
    for number in range(5):
        drain.put(number)
    drain.start()
    drain.stop()
    assert (written, dropped) == ([0, 1, 2], [2])


def test_what_a_killed_worker_left_is_finished_without_its_half_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.open").write_bytes(b'{"n":1}\n{"n":2}\n{"n":')
    (tmp_path / "b.jsonl.open").write_bytes(b"")
    assert [path.name for path in finish_abandoned_files(tmp_path)] == ["a.jsonl"]
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"n":1}\n{"n":2}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_a_file_that_is_being_written_is_left_alone(start_app: StartApp, served_home: Path) -> None:
    client = start_app().test_client()
    client.get(LOOKUP)
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 1)
    assert finish_abandoned_files(served_home / "prediction_log") == ()
    assert len(list((served_home / "prediction_log").glob("*.jsonl.open"))) == 1


@pytest.mark.parametrize("settings", [{"rotate_bytes": 1}, {"rotate_seconds": 0.01}])
def test_files_are_finished_when_they_are_large_or_old(
    start_app: StartApp, served_home: Path, settings: dict[str, float]
) -> None:
    start_app(**settings).test_client().get(LOOKUP)
    wait_until(lambda: len(prediction_records(served_home / "prediction_log")) == 1)


def test_the_log_can_be_switched_off(start_app: StartApp, served_home: Path) -> None:
    application = start_app(log_predictions=False)
    assert application.test_client().get(LOOKUP).status_code == 200
    stop_app(application)
    assert not (served_home / "prediction_log").exists()


def test_the_pipeline_reads_every_record_the_service_writes(start_app: StartApp, served_home: Path) -> None:
    """The service writes records with a template, the pipeline validates every field."""
    application = start_app()
    client, asked = application.test_client(), [name for name, *_ in CUSTOMERS]
    client.post("/v1/customers/segments", json={"customer_ids": [*asked, LAPSED_CUSTOMER, "nobody", "19999"]})
    client.post("/v1/score", json={"customers": [ROW, {**ROW, "customer_id": 'a\n"b"', "n_products": 4}]})
    application.extensions["custseg"].predictions._drop(7, "queue_full")
    stop_app(application)
    [batch] = read_batches(finished_files(served_home / "prediction_log"))
    assert batch.rejected.is_empty()
    rows = batch.predictions
    found = rows.filter(pl.col("kind") == "lookup", pl.col("outcome") == "found")
    assert found["customer_id"].to_list() == [*asked, LAPSED_CUSTOMER]
    assert found["segment_id"].to_list()[-3:] == ["R1", "R1", "R2"]
    assert rows.filter(pl.col("kind") == "score")["customer_id"].to_list() == [None, 'a\n"b"']
    assert rows.filter(pl.col("kind") == "dropped").select("outcome", "n_dropped").rows() == [("queue_full", 7)]
