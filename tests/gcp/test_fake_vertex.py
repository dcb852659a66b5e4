"""The fake of Vertex AI refuses what the service refuses, in its words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.cloud import aiplatform_v1 as api

from custseg_assets.gcp.clients import vertex_client
from tests.support.fakes.vertex import FakeVertex, State
from tests.support.gcp_pieces import gcp_of

pytestmark = pytest.mark.gcp

PARENT = "projects/shop/locations/europe-west1"


def job_with(**changes: Any) -> api.CustomJob:
    """A job that is taken, with changes: ``container``, ``machine`` and ``spec`` reach into it."""
    container = {"image_uri": "python:1", "args": ["pass"], **changes.pop("container", {})}
    machine = {"machine_type": "n1-standard-4", **changes.pop("machine", {})}
    pool = {"replica_count": 1, "container_spec": container, "machine_spec": machine, **changes.pop("pool", {})}
    spec = {"worker_pool_specs": [pool], **changes.pop("spec", {})}
    return api.CustomJob({"display_name": "a piece", "job_spec": spec, **changes})


@pytest.fixture
def jobs(vertex: FakeVertex) -> Iterator[api.JobServiceClient]:
    with vertex_client(api.JobServiceClient, gcp_of(vertex.url, "")) as client:
        yield client


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"display_name": ""}, "display_name"),
        ({"display_name": "x" * 129}, "display_name"),
        ({"labels": {"Team": "a"}}, "Label Team=a"),
        ({"labels": {"team": "Größe"}}, "Label team="),
        ({"labels": {"team": "x" * 64}}, "at most 63"),
        ({"labels": {f"l{n}": "" for n in range(65)}}, "At most 64 labels"),
        ({"machine": {"machine_type": "abacus-2"}}, "Machine type"),
        ({"machine": {"machine_type": "e2-standard-4", "accelerator_type": 2, "accelerator_count": 1}}, "Accelerators"),
        ({"machine": {"accelerator_count": 1}}, "accelerator_type and accelerator_count"),
        ({"container": {"image_uri": ""}}, "image_uri"),
        ({"container": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}}, "env"),
        ({"container": {"env": [{"name": "no-name", "value": "1"}]}}, "env"),
        ({"pool": {"replica_count": 0}}, "replica_count"),
        ({"spec": {"worker_pool_specs": []}}, "worker_pool_specs"),
        ({"spec": {"scheduling": {"timeout": {"seconds": 8 * 86400}}}}, "timeout"),
        ({"spec": {"service_account": "somebody"}}, "Service account somebody"),
        ({"spec": {"network": "default"}}, "network default"),
    ],
)
def test_a_job_that_is_not_in_order_is_refused(
    jobs: api.JobServiceClient, vertex: FakeVertex, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(exceptions.BadRequest, match=said):
        jobs.create_custom_job(parent=PARENT, custom_job=job_with(**changes))
    assert vertex.jobs == []
    jobs.create_custom_job(parent=PARENT, custom_job=job_with())


@pytest.mark.usefixtures("undocumented_requests")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"displayName": "x", "colour": "red"}, 'no field named "colour"'),
        ({"displayName": "x", "jobSpec": {"scheduling": {"timeout": "1 hour"}}}, "uration"),
        ({"displayName": "x", "jobSpec": {"scheduling": {"strategy": "CHEAP"}}}, "CHEAP"),
        ([], "Invalid JSON payload"),
    ],
)
def test_json_that_the_api_does_not_define_is_refused(vertex: FakeVertex, body: object, said: str) -> None:
    answer = requests.post(f"{vertex.url}/v1/{PARENT}/customJobs", json=body, timeout=10)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert said in error["message"]


def test_projects_places_and_jobs_of_others_are_refused(jobs: api.JobServiceClient) -> None:
    with pytest.raises(exceptions.Forbidden):
        jobs.create_custom_job(parent="projects/other/locations/europe-west1", custom_job=job_with())
    with pytest.raises(exceptions.Forbidden):
        jobs.create_custom_job(parent="projects/shop/locations/mars-1", custom_job=job_with())
    with pytest.raises(exceptions.NotFound, match="CustomJob does not exist"):
        jobs.get_custom_job(name=f"{PARENT}/customJobs/7")
    with pytest.raises(exceptions.NotFound):
        jobs.cancel_custom_job(name=f"{PARENT}/customJobs/7")


@pytest.mark.parametrize("verb", ["create", "list", "get", "cancel"])
def test_what_the_caller_may_not_do_is_refused(jobs: api.JobServiceClient, vertex: FakeVertex, verb: str) -> None:
    made = jobs.create_custom_job(parent=PARENT, custom_job=job_with())
    attempt = {
        "create": lambda: jobs.create_custom_job(parent=PARENT, custom_job=job_with()),
        "list": lambda: list(jobs.list_custom_jobs(parent=PARENT)),
        "get": lambda: jobs.get_custom_job(name=made.name),
        "cancel": lambda: jobs.cancel_custom_job(name=made.name),
    }[verb]
    vertex.denied = {f"aiplatform.customJobs.{verb}"}
    with pytest.raises(exceptions.Forbidden, match=f"customJobs.{verb}"):
        attempt()
    vertex.denied = set()
    attempt()


def test_a_quota_is_for_what_runs_at_once(jobs: api.JobServiceClient, vertex: FakeVertex) -> None:
    vertex.n_cpus = 4
    first = jobs.create_custom_job(parent=PARENT, custom_job=job_with())
    with pytest.raises(exceptions.TooManyRequests, match="custom_model_training_cpus"):
        jobs.create_custom_job(parent=PARENT, custom_job=job_with())
    jobs.cancel_custom_job(name=first.name)
    jobs.create_custom_job(parent=PARENT, custom_job=job_with())


def test_a_job_runs_as_an_account_that_the_caller_may_act_as(jobs: api.JobServiceClient, vertex: FakeVertex) -> None:
    job = job_with(spec={"service_account": "trainer@shop.iam.gserviceaccount.com"})
    vertex.denied = {"iam.serviceAccounts.actAs"}
    with pytest.raises(exceptions.Forbidden, match="act as service_account: trainer@shop"):
        jobs.create_custom_job(parent=PARENT, custom_job=job)
    vertex.denied = set()
    jobs.create_custom_job(parent=PARENT, custom_job=job)


def test_what_the_fake_does_not_know_is_refused(jobs: api.JobServiceClient) -> None:
    with pytest.raises(exceptions.NotFound, match="was not found on this server"):
        jobs.get_hyperparameter_tuning_job(name=f"{PARENT}/hyperparameterTuningJobs/1")
    with pytest.raises(exceptions.NotFound, match="Operation not found"):
        jobs.get_operation({"name": f"{PARENT}/models/m/operations/7"})
    with pytest.raises(exceptions.BadRequest, match="Invalid page token"):
        list(jobs.list_custom_jobs({"parent": PARENT, "page_token": "the next"}))


def test_a_list_is_filtered_and_comes_in_pages() -> None:
    with (
        FakeVertex("shop", "europe-west1", page_size=2) as small,
        vertex_client(api.JobServiceClient, gcp_of(small.url, "")) as jobs,
    ):
        for n in range(5):
            jobs.create_custom_job(parent=PARENT, custom_job=job_with(labels={"odd": str(n % 2), "n": str(n)}))
        assert [job.labels["n"] for job in jobs.list_custom_jobs(parent=PARENT)] == ["4", "3", "2", "1", "0"]
        odd = jobs.list_custom_jobs({"parent": PARENT, "filter": 'labels.odd="1" AND state="JOB_STATE_FAILED"'})
        assert [job.labels["n"] for job in odd] == ["3", "1"]
        with pytest.raises(exceptions.BadRequest, match="Invalid filter"):
            list(jobs.list_custom_jobs({"parent": PARENT, "filter": "labels:odd"}))


def test_a_job_waits_runs_and_ends(jobs: api.JobServiceClient, vertex: FakeVertex) -> None:
    vertex.has_machines = False
    made = jobs.create_custom_job(parent=PARENT, custom_job=job_with())
    assert made.state == State.JOB_STATE_QUEUED
    assert [jobs.get_custom_job(name=made.name).state for _ in range(2)] == [State.JOB_STATE_PENDING] * 2
    vertex.has_machines = True
    assert jobs.get_custom_job(name=made.name).state == State.JOB_STATE_RUNNING
    vertex._jobs[vertex.jobs[0].name].process.wait()
    ended = jobs.get_custom_job(name=made.name)
    assert ended.state == State.JOB_STATE_SUCCEEDED
    assert ended.create_time <= ended.start_time <= ended.end_time
    jobs.cancel_custom_job(name=made.name)
    assert jobs.get_custom_job(name=made.name).state == State.JOB_STATE_SUCCEEDED
