"""The prediction log: what was answered is on disk, nothing waits for it, and what is lost is counted."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from flask import Flask

from custseg_assets.stores.prediction_log import finished_files, read_batches
from custseg_serving import predictions
from custseg_serving.drain import Drain
from custseg_serving.predictions import finish_abandoned
from tests.serving.conftest import StartApp
from tests.serving.test_api import ROW
from tests.serving.test_swap import metric, ready, wait_until
from tests.support.releases import CUSTOMERS, LAPSED_CUSTOMER


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def stop(application: Flask) -> None:
    application.extensions["custseg"].stop()


def test_every_lookup_and_score_is_recorded_with_what_was_answered(start_app: StartApp, served_home: Path) -> None:
    application = start_app()
    client = application.test_client()
    answer = client.get("/v1/customers/12347/segment", headers={"X-Request-ID": "first"}).get_json()
    client.get("/v1/customers/nobody/segment")
    client.post("/v1/customers/segments", json={"customer_ids": ["12348", "19999"]})
    client.post("/v1/score", json={"customers": [ROW, {**ROW, "customer_id": "new"}]})
    stop(application)
    found = records(served_home / "prediction_log")
    assert [(one["kind"], one["outcome"], one["customer_id"]) for one in found] == [
        ("lookup", "found", "12347"),
        ("lookup", "unknown", "nobody"),
        ("lookup", "found", "12348"),
        ("lookup", "too_new", "19999"),
        ("score", "found", None),
        ("score", "found", "new"),
    ]
    first = found[0]
    assert (first["request_id"], first["release_id"]) == ("first", answer["release_id"])
    assert first["answer"]["rfm"] == answer["rfm"]
    assert first["latency_ms"] > 0
    assert [one["answer"] is None for one in found] == [False, True, False, True, False, False]
    assert not list((served_home / "prediction_log").glob("*.open"))


def test_a_full_disk_costs_records_but_no_answer_and_is_told(
    start_app: StartApp, served_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_app().test_client()
    client.get("/v1/customers/12347/segment")
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 1)
    write, is_full = os.write, [True]

    def write_half(descriptor: int, content: bytes) -> int:
        if not is_full[0] or len(content) < 100:
            return write(descriptor, content)
        if len(content) > 200:
            return write(descriptor, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predictions.os, "write", write_half)
    assert client.get("/v1/customers/12348/segment").status_code == 200
    wait_until(lambda: ready(client)["n_predictions_dropped"] == 1)
    assert ready(client)["status"] == "degraded"
    assert metric(client, 'custseg_predictions_dropped_total{reason="disk"}') == 1
    is_full[0] = False
    client.get("/v1/customers/12347/segment")
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 2)
    stop(client.application)
    found = records(served_home / "prediction_log")
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
    assert [path.name for path in finish_abandoned(tmp_path)] == ["a.jsonl"]
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"n":1}\n{"n":2}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_a_file_that_is_being_written_is_left_alone(start_app: StartApp, served_home: Path) -> None:
    client = start_app().test_client()
    client.get("/v1/customers/12347/segment")
    wait_until(lambda: metric(client, "custseg_predictions_written_total") == 1)
    assert finish_abandoned(served_home / "prediction_log") == ()
    assert len(list((served_home / "prediction_log").glob("*.jsonl.open"))) == 1


@pytest.mark.parametrize("settings", [{"rotate_bytes": 1}, {"rotate_seconds": 0.01}])
def test_files_are_finished_when_they_are_large_or_old(
    start_app: StartApp, served_home: Path, settings: dict[str, float]
) -> None:
    start_app(**settings).test_client().get("/v1/customers/12347/segment")
    wait_until(lambda: len(records(served_home / "prediction_log")) == 1)


def test_the_log_can_be_switched_off(start_app: StartApp, served_home: Path) -> None:
    application = start_app(log_predictions=False)
    assert application.test_client().get("/v1/customers/12347/segment").status_code == 200
    stop(application)
    assert not (served_home / "prediction_log").exists()


def test_the_pipeline_reads_every_record_the_service_writes(start_app: StartApp, served_home: Path) -> None:
    """What one writes with a template and the other validates field by field must not drift apart."""
    application = start_app()
    client, asked = application.test_client(), [name for name, *_ in CUSTOMERS]
    client.post("/v1/customers/segments", json={"customer_ids": [*asked, LAPSED_CUSTOMER, "nobody", "19999"]})
    client.post("/v1/score", json={"customers": [ROW, {**ROW, "customer_id": 'a\n"b"', "n_products": 4}]})
    application.extensions["custseg"].predictions._drop(7, "queue_full")
    stop(application)
    [batch] = read_batches(finished_files(served_home / "prediction_log"))
    assert batch.rejected.is_empty()
    rows = batch.predictions
    found = rows.filter(pl.col("kind") == "lookup", pl.col("outcome") == "found")
    assert found["customer_id"].to_list() == [*asked, LAPSED_CUSTOMER]
    assert found["segment_id"].to_list()[-3:] == ["R1", "R1", "R2"]
    assert rows.filter(pl.col("kind") == "score")["customer_id"].to_list() == [None, 'a\n"b"']
    assert rows.filter(pl.col("kind") == "dropped").select("outcome", "n_dropped").rows() == [("queue_full", 7)]
