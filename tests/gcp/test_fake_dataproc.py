"""The fake of Dataproc refuses what the service refuses, in its words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.cloud import dataproc_v1 as api

from custseg_assets.gcp.clients import dataproc_client
from custseg_assets.settings import GcpEndpointSettings, GcpSettings
from tests.support.dataproc_pieces import MAIN, images, put_program
from tests.support.fakes.dataproc import FakeDataproc, State
from tests.support.fakes.gcs import FakeGcs
from tests.support.places import PLACE
from tests.support.waiting import wait_until

pytestmark = pytest.mark.gcp

PARENT = "projects/shop/locations/europe-west1"


@pytest.fixture
def dataproc(gcs: FakeGcs) -> Iterator[FakeDataproc]:
    with FakeDataproc("shop", "europe-west1", gcs, images(), page_size=2) as fake:
        put_program(gcs, "")
        yield fake


@pytest.fixture
def batches(dataproc: FakeDataproc) -> Iterator[api.BatchControllerClient]:
    gcp = GcpSettings(**PLACE, endpoints=GcpEndpointSettings(dataproc=dataproc.url))
    with dataproc_client(api.BatchControllerClient, gcp) as client:
        yield client


def batch_with(**changes: Any) -> api.Batch:
    """A batch that is taken, with changes: ``program``, ``runtime`` and ``execution`` reach into it."""
    program = {"main_python_file_uri": MAIN, **changes.pop("program", {})}
    runtime = {"container_image": "spark:1", **changes.pop("runtime", {})}
    environment = {"execution_config": changes.pop("execution", {})}
    return api.Batch(
        {"pyspark_batch": program, "runtime_config": runtime, "environment_config": environment, **changes}
    )


def create(batches: api.BatchControllerClient, batch_id: str, batch: api.Batch | None = None, **more: str) -> str:
    """Start a batch; its operation's name."""
    request = {"parent": PARENT, "batch": batch or batch_with(), "batch_id": batch_id, **more}
    return str(batches.create_batch(request).operation.name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": {"Team": "a"}}, "Label Team=a"),
        ({"labels": {"team": "Größe"}}, "Label team="),
        ({"labels": {"1team": "a"}}, "RFC 1035"),
        ({"labels": {f"l{n}": "" for n in range(33)}}, "At most 32 labels"),
        ({"program": {"main_python_file_uri": "gs://shop-data/main.jar"}}, r"must be the address of a \.py file"),
        ({"runtime": {"version": "0.1"}}, "Unsupported runtime version"),
        ({"runtime": {"properties": {"spark.master": "local"}}}, "'spark.master' is not supported"),
        ({"runtime": {"properties": {"spark.yarn.queue": "a"}}}, "is not supported"),
        ({"runtime": {"properties": {"spark.executor.cores": "3"}}}, "4, 8 or 16"),
        ({"runtime": {"properties": {"spark.executor.instances": "1"}}}, "between 2 and 2000"),
        ({"runtime": {"properties": {"spark.dynamicAllocation.maxExecutors": "1"}}}, "between 2 and 2000"),
        ({"execution": {"ttl": {"seconds": 60}}}, "ttl"),
        ({"execution": {"idle_ttl": {"seconds": 600}}}, "idle_ttl"),
        ({"execution": {"service_account": "somebody"}}, "Service account 'somebody'"),
    ],
)
def test_a_batch_that_is_not_in_order_is_refused(
    batches: api.BatchControllerClient, dataproc: FakeDataproc, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(exceptions.BadRequest, match=said):
        create(batches, "piece-1", batch_with(**changes))
    assert dataproc.batches == []
    create(batches, "piece-1")


@pytest.mark.parametrize("batch_id", ["abc", "Piece", "p" * 64, "piece_1"])
def test_an_id_that_is_not_in_order_is_refused(batches: api.BatchControllerClient, batch_id: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Batch ID"):
        create(batches, batch_id)


def test_an_id_is_taken_once_and_a_request_that_is_repeated_is_one(batches: api.BatchControllerClient) -> None:
    operation = create(batches, "piece-1", request_id="r-1")
    assert create(batches, "piece-1", request_id="r-1") == operation
    with pytest.raises(exceptions.Conflict, match="Already exists"):
        create(batches, "piece-1", request_id="r-2")


@pytest.mark.usefixtures("undocumented_requests")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"pysparkBatch": {"mainPythonFileUri": MAIN}, "colour": "red"}, 'no field named "colour"'),
        ({"environmentConfig": {"executionConfig": {"ttl": "1 hour"}}}, "uration"),
        ([], "Invalid JSON payload"),
    ],
)
def test_json_that_the_api_does_not_define_is_refused(dataproc: FakeDataproc, body: object, said: str) -> None:
    answer = requests.post(f"{dataproc.url}/v1/{PARENT}/batches?batchId=piece-1", json=body, timeout=10)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_lists_have_pages_filters_and_an_order(batches: api.BatchControllerClient, dataproc: FakeDataproc) -> None:
    for number in range(5):
        create(batches, f"piece-{number}", batch_with(labels={"kind": "odd" if number % 2 else "even"}))
    wait_until(lambda: all(batch.state == State.SUCCEEDED for batch in dataproc.batches), seconds=20)

    def names(**request: str) -> list[str]:
        found = batches.list_batches({"parent": PARENT, **request})
        return [batch.name.rsplit("-", 1)[1] for batch in found]

    assert names() == ["4", "3", "2", "1", "0"]
    assert names(filter='labels.kind = "odd"', order_by="create_time") == ["1", "3"]
    assert names(filter="state = SUCCEEDED AND labels.kind=even") == ["4", "2", "0"]
    with pytest.raises(exceptions.BadRequest, match="Invalid filter"):
        names(filter="kind ~ odd")


def test_a_batch_is_cancelled_by_its_operation_and_deleted_when_it_has_ended(
    batches: api.BatchControllerClient, dataproc: FakeDataproc, gcs: FakeGcs
) -> None:
    put_program(gcs, "import time; time.sleep(60)")
    operation = create(batches, "piece-1")
    name = f"{PARENT}/batches/piece-1"
    wait_until(lambda: dataproc.batches[0].state == State.RUNNING, seconds=20)
    with pytest.raises(exceptions.BadRequest, match="not in a terminal state"):
        batches.delete_batch(name=name)
    batches.cancel_operation({"name": operation})
    wait_until(lambda: dataproc.batches[0].state == State.CANCELLED, seconds=20)
    batches.delete_batch(name=name)
    with pytest.raises(exceptions.NotFound, match="Not found: Batch"):
        batches.get_batch(name=name)


def test_names_have_the_project_s_number(batches: api.BatchControllerClient) -> None:
    operation = create(batches, "piece-1")
    assert operation.startswith("projects/314159265358/regions/europe-west1/operations/")
    found = batches.get_batch(name="projects/314159265358/locations/europe-west1/batches/piece-1")
    assert found.name == "projects/314159265358/locations/europe-west1/batches/piece-1"
    assert found.operation == operation


def test_another_project_and_too_many_requests_are_refused(
    batches: api.BatchControllerClient, dataproc: FakeDataproc
) -> None:
    with pytest.raises(exceptions.Forbidden):
        batches.get_batch(name="projects/other/locations/europe-west1/batches/piece-1")
    for _ in range(200):
        with pytest.raises(exceptions.GoogleAPIError):
            batches.get_batch(name=f"{PARENT}/batches/none", retry=None)
    with pytest.raises(exceptions.TooManyRequests, match="per minute"):
        batches.get_batch(name=f"{PARENT}/batches/none", retry=None)
    assert dataproc.unchecked == set()
