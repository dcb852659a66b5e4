"""The client for Dataproc batches: a run reports how its batch went, and no batch is started twice or left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from google.cloud import dataproc_v1 as api

from custseg_assets.gcp.dataproc_pipes import DataprocBatchError, PipesDataprocBatchClient, explain_end
from tests.support.dataproc_pieces import batch_client, batch_of, images, materialize, put_program, report_code
from tests.support.fakes.dataproc import FakeDataproc, State
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import Answer, Request
from tests.support.files import REPOSITORY
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.gcp,
    pytest.mark.usefixtures("no_waiting_for_stragglers"),
    # Dagster 1.13 itself uses what it deprecates and what it previews; gone when it does not.
    pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function `PipesMessageReader.expected_writer_count`"),
]
LONG = "import time; time.sleep(60)"


@pytest.fixture
def dataproc(gcs: FakeGcs) -> Iterator[FakeDataproc]:
    with FakeDataproc("shop", "europe-west1", gcs, images()) as fake:
        put_program(gcs, report_code())
        yield fake


@pytest.fixture
def client(dataproc: FakeDataproc, gcs: FakeGcs) -> Iterator[PipesDataprocBatchClient]:
    with batch_client(dataproc.url, gcs.url) as client:
        yield client


@pytest.fixture
def read_log(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Returns everything that was logged so far."""
    parts: list[str] = []

    def read() -> str:
        parts.append("".join(capfd.readouterr()))
        return "".join(parts)

    return read


def after(n_looks: int, do: Callable[[], object]) -> Callable[[float], None]:
    """A ``sleep`` that calls a function the n-th time."""
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == n_looks:
            do()
        time.sleep(seconds)

    return sleep


def test_a_batch_s_lines_and_figures_come_into_the_run(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    spec = {
        "service_account": "spark-batches@shop.iam.gserviceaccount.com",
        "subnetwork": "spark",
        "properties": {"spark.executor.memory": "16g"},
        "timeout_seconds": 1200.0,
        "labels": {"app": "test"},
    }
    result = materialize(client, batch_of(gcs.url, **spec))
    [made] = result.asset_materializations_for_node("piece")
    assert made.metadata["n_lines"].value == 3
    assert made.metadata["dataproc_dcu_hours"].value == pytest.approx(2.0)
    [batch] = dataproc.batches
    assert made.metadata["dataproc_batch"].value == dataproc.told(batch.name)
    assert "half way through piece" in read_log()
    assert f"batch {dataproc.told(batch.name)}: running" in read_log()
    assert dict(batch.labels) == {"app": "test", "dagster-key": "piece-1", "dagster-run": result.run_id}
    execution = batch.environment_config.execution_config
    assert (execution.service_account, execution.subnetwork_uri) == (spec["service_account"], "spark")
    assert execution.ttl.total_seconds() == 1200
    properties = dict(batch.runtime_config.properties)
    assert properties["spark.executorEnv.STORAGE_EMULATOR_HOST"] == gcs.url
    assert properties["spark.executor.memory"] == "16g"


def test_a_program_sees_its_own_environment_only(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "1")
    put_program(gcs, "import os; print(*sorted(os.environ)); assert 'SECRET_OF_THE_PARENT' not in os.environ")
    materialize(client, batch_of(gcs.url))
    assert "STORAGE_EMULATOR_HOST" in dataproc.read_output(dataproc.batches[0].name)


def test_a_program_that_fails_fails_the_run_after_its_last_words(
    client: PipesDataprocBatchClient, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    put_program(gcs, report_code("raise ValueError('no such column')"))
    with pytest.raises(DataprocBatchError, match=r"its program failed .*no such column.* Its lines above say why"):
        materialize(client, batch_of(gcs.url))
    assert "half way through piece" in read_log()


@pytest.mark.parametrize(
    ("state", "message", "said"),
    [
        (State.FAILED, "Job failed with message [TimeoutError: denied].", "its program failed"),
        (State.FAILED, "Job failed with message [java.lang.OutOfMemoryError: Java heap space]", "executor.memory"),
        (State.FAILED, "Batch exceeded its TTL of 3600s.", "its time was up.*timeout_minutes"),
        (State.CANCELLED, "Batch exceeded its TTL of 3600s.", "its time was up.*timeout_minutes"),
        (State.FAILED, "Insufficient 'CPUS' quota. Requested 12.0, available 4.0.", "no machines for it .*CPUS"),
        (State.FAILED, "Failed to pull image 'spark:2': no access", r"image could not be fetched .*artifactregistry"),
        (State.FAILED, "Permission 'storage.objects.get' denied", "service account what the message names"),
        (State.FAILED, "Subnetwork 'default' has no Private Google Access.", "it had no network .*subnetwork"),
        (State.FAILED, "Internal error.", "it failed .*The job's log"),
        (State.CANCELLED, "Batch was cancelled by user request.", "someone cancelled it"),
    ],
)
def test_every_end_but_success_is_explained_with_the_page_of_the_batch(
    state: api.Batch.State, message: str, said: str
) -> None:
    name = "projects/shop/locations/europe-west1/batches/piece-1"
    with pytest.raises(DataprocBatchError, match=said) as caught:
        raise explain_end(api.Batch(name=name, state=state, state_message=message))
    assert "dataproc/batches/europe-west1/piece-1?project=shop" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (lambda fake: fake.denied.add("dataproc.batches.create"), r"not allowed .*roles/dataproc\.serverlessEditor"),
        (lambda fake: fake.denied.add("dataproc.batches.list"), r"not allowed .*roles/dataproc\.serverlessEditor"),
        (lambda fake: fake.denied.add("iam.serviceAccounts.actAs"), "serviceAccountUser on spark-batches@shop"),
    ],
)
def test_a_batch_that_may_not_start_says_what_is_missing(
    client: PipesDataprocBatchClient,
    dataproc: FakeDataproc,
    gcs: FakeGcs,
    trouble: Callable[[FakeDataproc], object],
    said: str,
) -> None:
    trouble(dataproc)
    with pytest.raises(DataprocBatchError, match=said):
        materialize(client, batch_of(gcs.url, service_account="spark-batches@shop.iam.gserviceaccount.com"))
    assert dataproc.batches == []


def test_what_dataproc_does_not_take_is_passed_on_in_its_words(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs
) -> None:
    for changes, said in (
        ({"runtime_version": "9.9"}, r"refused .*Unsupported runtime version '9\.9'"),
        ({"properties": {"spark.master": "yarn"}}, r"refused .*Property 'spark\.master' is not supported"),
        ({"timeout_seconds": 60.0}, "refused .*ttl must be between 600s"),
        ({"labels": {"App": "x"}}, "refused .*RFC 1035"),
    ):
        with pytest.raises(DataprocBatchError, match=said):
            materialize(client, batch_of(gcs.url, **changes))
    for key in ("Key of mine", "1-piece", "piece-", "p" * 55):
        with pytest.raises(ValueError, match="lowercase"):
            materialize(client, batch_of(gcs.url), key)
    assert dataproc.batches == []


def test_the_longest_key_makes_a_batch_s_id(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs
) -> None:
    materialize(client, batch_of(gcs.url), "p" * 54)
    assert len(dataproc.batches) == 1


def test_a_batch_that_is_out_of_quota_says_so(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs
) -> None:
    dataproc.n_cpus = 8
    with pytest.raises(DataprocBatchError, match=r"no machines for it .*max_executors"):
        materialize(client, batch_of(gcs.url))


def test_a_batch_that_gets_no_machines_is_cancelled(dataproc: FakeDataproc, gcs: FakeGcs) -> None:
    dataproc.has_machines = False
    with (
        batch_client(dataproc.url, gcs.url, pending=0.2) as client,
        pytest.raises(DataprocBatchError, match=r"got no machines in .* minutes and was cancelled.*max_executors"),
    ):
        materialize(client, batch_of(gcs.url))
    assert [batch.state for batch in dataproc.batches] == [State.CANCELLED]


def test_a_network_that_is_cut_while_waiting_is_waited_for(
    dataproc: FakeDataproc, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    def cut() -> None:
        dataproc.n_unavailable, dataproc.n_cut = 2, 2

    put_program(gcs, "import time; time.sleep(0.5)")
    with batch_client(dataproc.url, gcs.url, after(3, cut)) as client:
        materialize(client, batch_of(gcs.url))
    assert read_log().count("the batch goes on, looking again") == 4
    assert len(dataproc.batches) == 1


def test_a_network_that_stays_away_leaves_the_batch_for_the_next_run(
    dataproc: FakeDataproc, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    def cut() -> None:
        dataproc.n_unavailable = 1000

    put_program(gcs, report_code("time.sleep(1)"))
    with (
        batch_client(dataproc.url, gcs.url, after(4, cut), silence=0.2) as client,
        pytest.raises(DataprocBatchError, match=r"has not answered for .* goes on.*follows the batch instead"),
    ):
        materialize(client, batch_of(gcs.url))
    dataproc.n_unavailable = 0
    [batch] = dataproc.batches
    assert batch.state == State.RUNNING
    with batch_client(dataproc.url, gcs.url) as client:
        result = materialize(client, batch_of(gcs.url))
    assert result.asset_materializations_for_node("piece")[0].metadata["n_lines"].value == 3
    assert f"following batch {dataproc.told(batch.name)}" in read_log()
    assert len(dataproc.batches) == 1


@pytest.mark.parametrize("listed_late", [0.0, 60.0])
def test_a_start_whose_answer_got_lost_is_not_made_twice(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs, listed_late: float
) -> None:
    """Where lists lag behind, the second attempt has the first one's id and is told of it."""
    create, n_asked = dataproc._create, 0

    def lose_the_answer(request: Request) -> Answer:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 1:
            dataproc.n_cut = 1
        return create(request)

    dataproc.listed_late = listed_late
    dataproc._routes = [(verb, path, lose_the_answer if it == create else it) for verb, path, it in dataproc._routes]
    materialize(client, batch_of(gcs.url))
    assert n_asked == (2 if listed_late else 1)
    assert len(dataproc.batches) == 1


def test_too_many_requests_a_minute_are_waited_for(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs
) -> None:
    dataproc.troubles = (429, 503, 0)
    materialize(client, batch_of(gcs.url))
    assert dataproc.n_refused > 6
    assert len(dataproc.batches) == 1


@pytest.mark.parametrize("interrupt", [DagsterExecutionInterruptedError, KeyboardInterrupt])
def test_a_run_that_is_interrupted_cancels_its_batch(
    dataproc: FakeDataproc, gcs: FakeGcs, interrupt: type[BaseException]
) -> None:
    def interrupt_run() -> None:
        raise interrupt

    put_program(gcs, LONG)
    with batch_client(dataproc.url, gcs.url, after(3, interrupt_run)) as client, pytest.raises(interrupt):
        materialize(client, batch_of(gcs.url))
    wait_until(lambda: dataproc.batches[0].state == State.CANCELLED, seconds=20)


def test_a_batch_that_cannot_be_cancelled_is_named_to_be_cancelled_by_hand(
    dataproc: FakeDataproc, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    def interrupt_run() -> None:
        dataproc.denied = {"dataproc.operations.cancel"}
        raise KeyboardInterrupt

    put_program(gcs, LONG)
    with batch_client(dataproc.url, gcs.url, after(3, interrupt_run)) as client, pytest.raises(KeyboardInterrupt):
        materialize(client, batch_of(gcs.url))
    assert "could not be cancelled" in read_log()
    assert "https://console.cloud.google.com/dataproc/batches/" in read_log()


@contextlib.contextmanager
def piece_in_a_process(dataproc: FakeDataproc, gcs: FakeGcs) -> Iterator[subprocess.Popen[bytes]]:
    """Run the piece in a process of its own; its batch is running when the block starts."""
    command = [sys.executable, "-m", "tests.support.dataproc_pieces", dataproc.url, gcs.url, "piece-1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, **quiet) as process:
        try:
            wait_until(lambda: [batch.state for batch in dataproc.batches] == [State.RUNNING], seconds=120)
            yield process
        finally:
            process.kill()


def test_a_process_that_is_told_to_end_cancels_its_batch(dataproc: FakeDataproc, gcs: FakeGcs) -> None:
    put_program(gcs, LONG)
    with piece_in_a_process(dataproc, gcs) as process:
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: dataproc.batches[0].state == State.CANCELLED, seconds=20)


def test_the_batch_of_a_process_that_was_killed_is_followed_from_its_first_line(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    put_program(gcs, report_code("time.sleep(2)"))
    with piece_in_a_process(dataproc, gcs) as process:
        process.kill()
        process.wait()
    result = materialize(client, batch_of(gcs.url))
    assert len(dataproc.batches) == 1
    assert "half way through piece" in read_log()
    assert result.asset_materializations_for_node("piece")[0].metadata["n_lines"].value == 3


def test_what_has_been_done_is_not_done_again_unless_it_will_not_do(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs
) -> None:
    for accept_ended, n_batches in ((True, 1), (True, 1), (False, 2)):
        result = materialize(client, batch_of(gcs.url), accept_ended=accept_ended)
        assert result.asset_materializations_for_node("piece")[0].metadata["n_lines"].value == 3
        assert len(dataproc.batches) == n_batches


def test_a_batch_that_failed_is_done_again_and_other_work_is_other_work(
    client: PipesDataprocBatchClient, dataproc: FakeDataproc, gcs: FakeGcs
) -> None:
    put_program(gcs, "raise SystemExit(1)")
    with pytest.raises(DataprocBatchError):
        materialize(client, batch_of(gcs.url))
    put_program(gcs, "")
    materialize(client, batch_of(gcs.url))
    materialize(client, batch_of(gcs.url), "piece-2")
    assert [batch.state for batch in dataproc.batches] == [State.FAILED, State.SUCCEEDED, State.SUCCEEDED]


def test_a_bucket_out_of_reach_starts_no_batch(dataproc: FakeDataproc, gcs: FakeGcs) -> None:
    with (
        batch_client(dataproc.url, "http://127.0.0.1:9", silence=0.3) as client,
        pytest.raises(DataprocBatchError, match=r"writing to gs://shop-data: no answer .*Check the connection"),
    ):
        materialize(client, batch_of(gcs.url))
    assert dataproc.batches == []
