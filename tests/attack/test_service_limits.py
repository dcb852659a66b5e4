"""What clients choose counts for nothing: neither their request ids nor how they bundle what they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from custseg_assets.domain.drift.requests import traffic_of
from custseg_assets.stores.prediction_log import finished_files, read_batches
from custseg_serving.keys import KeyFile
from tests.support.server import LOOKUP, ROW, StartApp, is_error, stop_app


@pytest.fixture
def keys(served_home: Path) -> KeyFile:
    return KeyFile(served_home / "keys.json")


def test_traffic_is_not_counted_by_an_id_that_clients_choose(
    start_app: StartApp, served_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    application = start_app()
    client = application.test_client()
    for number in range(70):
        answer = client.get(LOOKUP, headers={"X-Request-ID": f"mine-{number % 21}"})
        assert answer.headers["X-Request-ID"] == f"mine-{number % 21}"
    stop_app(application)
    [batch] = read_batches(finished_files(served_home / "prediction_log"))
    traffic = traffic_of(batch.predictions.lazy())
    assert traffic["n_requests"].to_list() == [70]
    assert '"client_request_id":"mine-20"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/customers/segments", {"customer_ids": ["12347"] * 4}),
        ("/v1/score", {"customers": [ROW] * 4}),
        ("/v1/score?", {"customers": [ROW] * 4}),
    ],
)
def test_a_batch_counts_as_many_requests_as_it_has_customers(
    start_app: StartApp, keys: KeyFile, path: str, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"X-API-Key": keys.create("shop", ["lookup", "score"], 10)}
    application = start_app()
    monkeypatch.setattr(application.extensions["custseg"].access, "_clock", lambda: 100.0)
    client = application.test_client()
    assert [client.post(path, json=body, headers=headers).status_code for _ in range(4)] == [200, 200, 429, 429]


def test_a_batch_beyond_a_keys_limit_is_told_how_many_may_be_asked_for(start_app: StartApp, keys: KeyFile) -> None:
    headers = {"X-API-Key": keys.create("shop", ["lookup"], 10)}
    answer = (
        start_app().test_client().post("/v1/customers/segments", json={"customer_ids": ["a"] * 11}, headers=headers)
    )
    assert is_error(answer, 422, "batch_too_large")
    assert answer.get_json()["error"]["details"] == {"max_batch": 10}
