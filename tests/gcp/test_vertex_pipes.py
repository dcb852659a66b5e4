"""The client for Vertex AI jobs: a run reports how its job went, and no job is started twice or left running."""

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
from google.cloud import aiplatform_v1 as api

from custseg_assets.gcp.vertex_pipes import PipesVertexAIClient, VertexJobError, explain_end
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import Answer, Request
from tests.support.fakes.vertex import FakeVertex, State
from tests.support.files import REPOSITORY
from tests.support.gcp_pieces import job_of, materialize, pipes_client, report_code
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.gcp,
    pytest.mark.usefixtures("no_waiting_for_stragglers"),
    # Dagster 1.13 itself uses what it deprecates and what it previews; gone when it does not.
    pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function `PipesMessageReader.expected_writer_count`"),
]


@pytest.fixture
def client(vertex: FakeVertex, gcs: FakeGcs) -> Iterator[PipesVertexAIClient]:
    with pipes_client(vertex.url, gcs.url) as client:
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


def test_a_job_s_lines_figures_and_checks_come_into_the_run(
    client: PipesVertexAIClient, vertex: FakeVertex, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    spec = {"service_account": "trainer@shop.iam.gserviceaccount.com", "is_spot": True, "labels": {"app": "test"}}
    check = 'pipes.report_asset_check("complete", passed=True, metadata={"n_missing": 0})'
    result = materialize(client, job_of(report_code(check), gcs.url, **spec), checks=["complete"])
    [made] = result.asset_materializations_for_node("piece")
    assert made.metadata["n_customers"].value == 3
    assert made.tags["dagster/data_version"] == "7"
    [job] = vertex.jobs
    assert made.metadata["vertex_job"].value == vertex.told(job.name)
    [check] = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("complete", True)
    assert "half way through piece" in read_log()
    assert f"job {vertex.told(job.name)}: running" in read_log()
    assert job.labels["app"] == "test"
    assert job.labels["dagster-key"] == "piece-1"
    assert job.labels["dagster-run"] == result.run_id
    assert job.job_spec.service_account == "trainer@shop.iam.gserviceaccount.com"
    assert job.job_spec.scheduling.strategy == api.Scheduling.Strategy.SPOT


def test_a_container_sees_its_own_environment_only(
    client: PipesVertexAIClient, vertex: FakeVertex, gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "1")
    code = "import os; print(*sorted(os.environ)); assert 'SECRET_OF_THE_PARENT' not in os.environ"
    materialize(client, job_of(code, gcs.url))
    said = vertex.read_output(vertex.jobs[0].name)
    assert "DAGSTER_PIPES_CONTEXT" in said
    assert "SECRET_OF_THE_PARENT" not in said


def test_a_container_that_fails_fails_the_run(client: PipesVertexAIClient, gcs: FakeGcs) -> None:
    with pytest.raises(VertexJobError, match=r"the container failed .*non-zero status of 5.* Its lines above say why"):
        materialize(client, job_of("raise SystemExit(5)", gcs.url))


def test_a_container_s_last_words_reach_the_run_before_it_fails(
    client: PipesVertexAIClient, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    with pytest.raises(VertexJobError, match="the container failed"):
        materialize(client, job_of(report_code("raise ValueError('no such column')"), gcs.url))
    assert "half way through piece" in read_log()


def test_an_image_that_is_not_there_is_named(client: PipesVertexAIClient, gcs: FakeGcs) -> None:
    with pytest.raises(VertexJobError, match=r"image could not be fetched .*nothing:1.*artifactregistry\.reader"):
        materialize(client, job_of("", gcs.url, image="nothing:1"))


def test_a_job_that_takes_too_long_is_stopped(client: PipesVertexAIClient, gcs: FakeGcs) -> None:
    with pytest.raises(VertexJobError, match=r"after its time was up .*timeout of 0.3 seconds.*timeout_minutes"):
        materialize(client, job_of("import time; time.sleep(60)", gcs.url, timeout_seconds=0.3))


def test_a_job_whose_machine_is_taken_away_says_so(vertex: FakeVertex, gcs: FakeGcs) -> None:
    with (
        pipes_client(vertex.url, gcs.url, after(4, vertex.preempt)) as client,
        pytest.raises(VertexJobError, match=r"its machine was taken away .*is_spot = false"),
    ):
        materialize(client, job_of("import time; time.sleep(60)", gcs.url, is_spot=True))


@pytest.mark.parametrize(
    ("state", "message", "said"),
    [
        (State.JOB_STATE_FAILED, "The replica workerpool0-0 ran out-of-memory and exited.", "machine_type with more"),
        (State.JOB_STATE_FAILED, "exited with a non-zero status of 1. TimeoutError: denied", "the container failed"),
        (State.JOB_STATE_FAILED, "Resources are insufficient in region: europe-west1", "no machine for it"),
        (State.JOB_STATE_FAILED, "Permission denied on gs://shop-data", "service account what the message names"),
        (State.JOB_STATE_FAILED, "Internal error encountered.", "it failed .*The job's log"),
        (State.JOB_STATE_FAILED, "", "failed: it failed"),
        (State.JOB_STATE_CANCELLED, "Job was cancelled.", "someone cancelled it"),
        (State.JOB_STATE_CANCELLED, "The job exceeded its timeout.", "its time was up"),
        (State.JOB_STATE_EXPIRED, "", "it expired"),
        (State.JOB_STATE_PARTIALLY_SUCCEEDED, "", "in part only.*not used"),
    ],
)
def test_every_end_but_success_is_explained_with_the_page_of_the_job(
    state: api.JobState, message: str, said: str
) -> None:
    name = "projects/shop/locations/europe-west1/customJobs/1"
    job = api.CustomJob(name=name, state=state, error={"message": message} if message else None)
    with pytest.raises(VertexJobError, match=said) as caught:
        raise explain_end(job)
    assert "locations/europe-west1/training/1?project=shop" in str(caught.value)
    assert "\n" not in str(caught.value)


# What proto-plus says to a value that is newer than it.
@pytest.mark.filterwarnings("ignore:Unrecognized JobState enum value")
def test_states_on_the_way_are_waited_out(vertex: FakeVertex, gcs: FakeGcs, read_log: Callable[[], str]) -> None:
    states = iter([State.JOB_STATE_PAUSED, State.JOB_STATE_UPDATING, State.JOB_STATE_RUNNING, 99])

    def pass_through(job: api.CustomJob) -> None:
        if job.state not in {State.JOB_STATE_QUEUED, State.JOB_STATE_PENDING}:
            job.state = next(states, job.state)

    vertex.at_poll = pass_through
    with pipes_client(vertex.url, gcs.url, after(12, lambda: vertex.end(State.JOB_STATE_SUCCEEDED))) as client:
        materialize(client, job_of("import time; time.sleep(60)", gcs.url))
    assert "paused" in read_log()
    assert "state 99" in read_log()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (lambda vertex: setattr(vertex, "n_cpus", 3), "quota is used up .*custom_model_training_cpus.*smaller machine"),
        (lambda vertex: vertex.denied.add("aiplatform.customJobs.create"), r"not allowed .*roles/aiplatform\.user"),
        (lambda vertex: vertex.denied.add("aiplatform.customJobs.list"), r"not allowed .*roles/aiplatform\.user"),
        (lambda vertex: vertex.denied.add("iam.serviceAccounts.actAs"), "serviceAccountUser on t[a-z]*@shop"),
    ],
)
def test_a_job_that_may_not_start_says_what_is_missing(
    client: PipesVertexAIClient, vertex: FakeVertex, gcs: FakeGcs, trouble: Callable[[FakeVertex], object], said: str
) -> None:
    trouble(vertex)
    with pytest.raises(VertexJobError, match=said):
        materialize(client, job_of("", gcs.url, service_account="trainer@shop.iam.gserviceaccount.com"))
    assert vertex.jobs == []


def test_what_vertex_does_not_take_is_passed_on_in_its_words(client: PipesVertexAIClient, gcs: FakeGcs) -> None:
    with pytest.raises(VertexJobError, match=r'refused .*Machine type "abacus" is not supported'):
        materialize(client, job_of("", gcs.url, machine_type="abacus"))
    with pytest.raises(VertexJobError, match=r"unknown accelerator 'GPU'.*NVIDIA_TESLA_T4"):
        materialize(client, job_of("", gcs.url, accelerator_type="GPU", accelerator_count=1))
    with pytest.raises(ValueError, match="lowercase"):
        materialize(client, job_of("", gcs.url), "Key of mine")


def test_a_job_that_gets_no_machine_is_cancelled(vertex: FakeVertex, gcs: FakeGcs) -> None:
    vertex.has_machines = False
    with (
        pipes_client(vertex.url, gcs.url, pending=0.2) as client,
        pytest.raises(VertexJobError, match=r"got no n1-standard-4 in .* minutes and was cancelled.*is_spot"),
    ):
        materialize(client, job_of("", gcs.url))
    assert [job.state for job in vertex.jobs] == [State.JOB_STATE_CANCELLED]


def test_a_network_that_is_cut_while_waiting_is_waited_for(
    vertex: FakeVertex, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    def cut() -> None:
        vertex.n_unavailable, vertex.n_cut = 2, 2

    with pipes_client(vertex.url, gcs.url, after(3, cut)) as client:
        materialize(client, job_of("import time; time.sleep(0.5)", gcs.url))
    assert read_log().count("the job goes on, looking again") == 4
    assert len(vertex.jobs) == 1


def test_a_network_that_stays_away_leaves_the_job_for_the_next_run(
    vertex: FakeVertex, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    def cut() -> None:
        vertex.n_unavailable = 1000

    with (
        pipes_client(vertex.url, gcs.url, after(4, cut), silence=0.2) as client,
        pytest.raises(VertexJobError, match=r"has not answered for .* goes on.*follows the job instead"),
    ):
        materialize(client, job_of(report_code("time.sleep(1)"), gcs.url))
    vertex.n_unavailable = 0
    [job] = vertex.jobs
    assert job.state == State.JOB_STATE_RUNNING
    with pipes_client(vertex.url, gcs.url) as client:
        result = materialize(client, job_of(report_code("time.sleep(1)"), gcs.url))
    assert result.asset_materializations_for_node("piece")[0].metadata["n_customers"].value == 3
    assert f"following job {vertex.told(job.name)}" in read_log()
    assert len(vertex.jobs) == 1


def test_a_start_whose_answer_got_lost_is_not_made_twice(
    client: PipesVertexAIClient, vertex: FakeVertex, gcs: FakeGcs
) -> None:
    create = vertex._create_job

    def lose_the_answer(request: Request) -> Answer:
        vertex.n_cut = 1
        return create(request)

    vertex._routes = [(verb, path, lose_the_answer if it == create else it) for verb, path, it in vertex._routes]
    materialize(client, job_of("", gcs.url))
    assert sum(request == f"POST /v1/{vertex._parent}/customJobs" for request in vertex.requests) == 1
    assert len(vertex.jobs) == 1


@pytest.mark.parametrize("interrupt", [DagsterExecutionInterruptedError, KeyboardInterrupt])
def test_a_run_that_is_interrupted_cancels_its_job(
    vertex: FakeVertex, gcs: FakeGcs, interrupt: type[BaseException]
) -> None:
    def interrupt_run() -> None:
        raise interrupt

    with pipes_client(vertex.url, gcs.url, after(3, interrupt_run)) as client, pytest.raises(interrupt):
        materialize(client, job_of("import time; time.sleep(60)", gcs.url))
    wait_until(lambda: vertex.jobs[0].state == State.JOB_STATE_CANCELLED, seconds=20)


def test_a_job_that_cannot_be_cancelled_is_named_to_be_cancelled_by_hand(
    vertex: FakeVertex, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    def interrupt_run() -> None:
        vertex.denied = {"aiplatform.customJobs.cancel"}
        raise KeyboardInterrupt

    with pipes_client(vertex.url, gcs.url, after(3, interrupt_run)) as client, pytest.raises(KeyboardInterrupt):
        materialize(client, job_of("import time; time.sleep(60)", gcs.url))
    assert "could not be cancelled" in read_log()
    assert "https://console.cloud.google.com/" in read_log()


@contextlib.contextmanager
def piece_in_a_process(vertex: FakeVertex, gcs: FakeGcs, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the piece in a process of its own; its job is running when the block starts."""
    command = [sys.executable, "-m", "tests.support.gcp_pieces", vertex.url, gcs.url, "piece-1", code]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, **quiet
    ) as process:
        try:
            wait_until(lambda: [job.state for job in vertex.jobs] == [State.JOB_STATE_RUNNING], seconds=20)
            yield process
        finally:
            process.kill()


def test_a_process_that_is_told_to_end_cancels_its_job(vertex: FakeVertex, gcs: FakeGcs) -> None:
    with piece_in_a_process(vertex, gcs, "import time; time.sleep(60)") as process:
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: vertex.jobs[0].state == State.JOB_STATE_CANCELLED, seconds=20)


def test_the_job_of_a_process_that_was_killed_is_followed_from_its_first_line(
    client: PipesVertexAIClient, vertex: FakeVertex, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    code = report_code("time.sleep(2)")
    with piece_in_a_process(vertex, gcs, code) as process:
        process.kill()
        process.wait()
    result = materialize(client, job_of(code, gcs.url))
    assert len(vertex.jobs) == 1
    assert "half way through piece" in read_log()
    assert result.asset_materializations_for_node("piece")[0].metadata["n_customers"].value == 3


def test_what_has_been_done_is_not_done_again_unless_it_will_not_do(
    client: PipesVertexAIClient, vertex: FakeVertex, gcs: FakeGcs
) -> None:
    for accept_ended, n_jobs in ((True, 1), (True, 1), (False, 2)):
        result = materialize(client, job_of(report_code(), gcs.url), accept_ended=accept_ended)
        assert result.asset_materializations_for_node("piece")[0].metadata["n_customers"].value == 3
        assert len(vertex.jobs) == n_jobs


def test_a_job_that_failed_is_done_again_and_other_work_is_other_work(
    client: PipesVertexAIClient, vertex: FakeVertex, gcs: FakeGcs
) -> None:
    with pytest.raises(VertexJobError):
        materialize(client, job_of("raise SystemExit(1)", gcs.url))
    materialize(client, job_of("", gcs.url))
    materialize(client, job_of("", gcs.url), "piece-2")
    assert [job.state for job in vertex.jobs] == [
        State.JOB_STATE_FAILED,
        State.JOB_STATE_SUCCEEDED,
        State.JOB_STATE_SUCCEEDED,
    ]


def test_a_job_that_says_nothing_is_told_of_and_believed(
    client: PipesVertexAIClient, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    result = materialize(client, job_of("", gcs.url))
    assert result.success
    assert "did not receive any messages" in read_log()
    assert "gs://shop-data/work/pipes/" in read_log()


def test_messages_that_make_no_sense_are_left_out(
    vertex: FakeVertex, gcs: FakeGcs, read_log: Callable[[], str]
) -> None:
    def spoil(_: api.CustomJob) -> None:
        for name in gcs.names("shop-data", "work/pipes/"):
            if name.endswith("messages/1.json"):
                version = '"__dagster_pipes_version": "0.1"'
                nonsense = f'[1]\n{{half\n{{{version}, "method": "sing", "params": {{}}}}\n{{{version}}}\n'
                blob = gcs.buckets["shop-data"][name]
                if not blob.content.startswith(b"[1]"):
                    gcs.put("shop-data", name, nonsense.encode() + blob.content)

    # The reader may look first, so the job's messages are spoilt while it waits at the end of its own.
    vertex.at_poll = spoil
    with pipes_client(vertex.url, gcs.url, message_interval=3) as client:
        result = materialize(client, job_of(report_code("time.sleep(1)"), gcs.url))
    assert result.asset_materializations_for_node("piece")[0].metadata["n_customers"].value == 3
    assert "2 lines of" in read_log()
    assert read_log().count("makes no sense") == 2


def test_a_bucket_out_of_reach_starts_no_job(vertex: FakeVertex, gcs: FakeGcs) -> None:
    with (
        pipes_client(vertex.url, "http://127.0.0.1:9", silence=0.3) as client,
        pytest.raises(VertexJobError, match=r"writing to gs://shop-data: no answer .*Check the connection"),
    ):
        materialize(client, job_of("", gcs.url))
    gcs.denied = {"storage.objects.create"}
    with pipes_client(vertex.url, gcs.url) as client, pytest.raises(VertexJobError, match=r"roles/storage\.objectUser"):
        materialize(client, job_of("", gcs.url))
    assert vertex.jobs == []
