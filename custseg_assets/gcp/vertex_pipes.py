"""A Dagster Pipes client for Vertex AI custom jobs: a container that runs on one machine.

How a job is started, followed and cancelled is in ``cloud_jobs``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import dagster as dg
from dagster_pipes import decode_param
from google.cloud import aiplatform_v1 as api
from google.cloud import storage

from custseg_assets.gcp.cloud_jobs import (
    CALL_SECONDS,
    KEY_LABEL,
    PARAMS,
    Cause,
    CloudJobError,
    Phase,
    PipesCloudJobClient,
    Todos,
    explain_refusal,
    find_cause,
)
from custseg_assets.gcp.storage import reason_of

_State = api.JobState
_PHASES = {
    _State.JOB_STATE_UNSPECIFIED: Phase.WAITING,
    _State.JOB_STATE_QUEUED: Phase.WAITING,
    _State.JOB_STATE_PENDING: Phase.WAITING,
    _State.JOB_STATE_CANCELLING: Phase.CANCELLING,
    _State.JOB_STATE_SUCCEEDED: Phase.SUCCEEDED,
    _State.JOB_STATE_FAILED: Phase.FAILED,
    _State.JOB_STATE_CANCELLED: Phase.FAILED,
    _State.JOB_STATE_EXPIRED: Phase.FAILED,
    _State.JOB_STATE_PARTIALLY_SUCCEEDED: Phase.FAILED,
}


class VertexJobError(CloudJobError):
    """A job could not be started or did not succeed; see ``CloudJobError``."""


@dataclass(frozen=True)
class VertexJob:
    """A container to run, and the machine to run it on.

    Attributes:
        display_name: shown in the console.
        image: container image, as Artifact Registry names it.
        args: for the image's entry point.
        command: instead of the image's entry point.
        environment: variables of the container, besides those of Pipes.
        service_account: the job runs as; Vertex AI's own agent without it.
        network: full name of a peered VPC network.
        is_spot: on machines that are cheaper and can be taken away.
        is_restarted: whether Vertex AI starts the container anew when its machine fails.
        timeout_seconds: after which Vertex AI stops it.
        labels: more of them.
    """

    display_name: str
    image: str
    args: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    machine_type: str = "n1-standard-4"
    accelerator_type: str | None = None
    accelerator_count: int = 0
    service_account: str | None = None
    network: str | None = None
    is_spot: bool = False
    is_restarted: bool = False
    timeout_seconds: float = 3600.0
    labels: Mapping[str, str] = field(default_factory=dict)


class PipesVertexAIClient(PipesCloudJobClient):
    """Runs containers, each a ``VertexJob``, as Vertex AI custom jobs; see ``PipesCloudJobClient``.

    Args:
        jobs: client of the job service.
        bucket_client: client of Cloud Storage.
        more: arguments of ``PipesCloudJobClient``.
    """

    service: ClassVar[str] = "Vertex AI"
    error: ClassVar[type[CloudJobError]] = VertexJobError
    key_form: ClassVar[re.Pattern[str]] = re.compile(r"[a-z0-9_-]{1,63}")
    key_words: ClassVar[str] = "at most 63 lowercase letters, digits, underscores and dashes"

    def __init__(self, jobs: api.JobServiceClient, bucket_client: storage.Client, **more: Any) -> None:
        super().__init__(bucket_client, **more)
        self._jobs = jobs

    def _list(self, key: str) -> list[Any]:
        request = {"parent": self._parent, "filter": f'labels.{KEY_LABEL}="{key}"'}
        return list(self._jobs.list_custom_jobs(request, timeout=CALL_SECONDS))

    def _create(self, spec: VertexJob, labels: Mapping[str, str], params: Mapping[str, str], name: str) -> Any:  # noqa: ARG002
        job = _custom_job_of(spec, {**spec.labels, **labels}, {**spec.environment, **params})
        return self._jobs.create_custom_job(parent=self._parent, custom_job=job, timeout=CALL_SECONDS)

    def _get(self, name: str) -> Any:
        return self._jobs.get_custom_job(name=name, timeout=CALL_SECONDS)

    def _cancel(self, job: Any) -> None:
        self._jobs.cancel_custom_job(name=job.name, timeout=CALL_SECONDS)

    def _phase(self, job: Any) -> Phase:
        return _PHASES.get(job.state, Phase.RUNNING)

    def _describe_state(self, job: Any) -> str:
        return _describe_state(job.state)

    def _describe_start(self, job: Any, spec: VertexJob) -> str:
        return f"{spec.image} on {spec.machine_type}; {console_url(job.name)}"

    def _params(self, job: Any) -> dict[str, Any]:
        return _pipes_params(job)

    def _metadata(self, job: Any) -> dict[str, Any]:
        pool = job.job_spec.worker_pool_specs[0]
        seconds = (job.end_time - job.start_time).total_seconds() if job.start_time and job.end_time else None
        return {
            "vertex_job": job.name,
            "vertex_console": dg.MetadataValue.url(console_url(job.name)),
            "vertex_machine": pool.machine_spec.machine_type,
            **({"vertex_seconds": seconds} if seconds is not None else {}),
        }

    def _console_url(self, name: str) -> str:
        return console_url(name)

    def _explain_call(self, error: Exception, doing: str, spec: VertexJob | None = None) -> CloudJobError:
        return explain_call(error, doing, spec)

    def _explain_end(self, job: Any) -> CloudJobError:
        return explain_end(job)

    def _explain_waiting(self, job: Any, seconds: float) -> CloudJobError:
        return _no_machine_error(job, seconds)


def _pipes_params(job: api.CustomJob) -> dict[str, Any]:
    """Where a job finds its context and writes its messages, from its environment; empty for a job without Pipes."""
    given = {variable.name: variable.value for variable in job.job_spec.worker_pool_specs[0].container_spec.env}
    return {name: decode_param(given[name]) for name in PARAMS} if set(PARAMS) <= set(given) else {}


def _custom_job_of(job: VertexJob, labels: Mapping[str, str], environment: Mapping[str, str]) -> api.CustomJob:
    machine: dict[str, Any] = {"machine_type": job.machine_type}
    if job.accelerator_type:
        machine |= {"accelerator_type": _accelerator(job.accelerator_type), "accelerator_count": job.accelerator_count}
    container = {
        "image_uri": job.image,
        "command": list(job.command),
        "args": list(job.args),
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
    }
    strategy = api.Scheduling.Strategy.SPOT if job.is_spot else api.Scheduling.Strategy.STANDARD
    return api.CustomJob(
        display_name=job.display_name,
        labels=dict(labels),
        job_spec={
            "worker_pool_specs": [{"machine_spec": machine, "replica_count": 1, "container_spec": container}],
            "scheduling": {
                "timeout": timedelta(seconds=job.timeout_seconds),
                "restart_job_on_worker_restart": job.is_restarted,
                # A container that failed once fails again; whether to retry is the caller's decision.
                "disable_retries": not job.is_restarted,
                "strategy": strategy,
            },
            "service_account": job.service_account or "",
            "network": job.network or "",
        },
    )


def _accelerator(name: str) -> Any:
    known = {kind.name: kind for kind in list(api.AcceleratorType)}
    if name not in known:
        raise VertexJobError(f"unknown accelerator {name!r}", f"Name one of {', '.join(list(known)[1:])}.")
    return known[name]


# Vertex AI gives the cause of a failure as text; its codes do not distinguish these causes.
_TIME_IS_UP = "it was stopped after its time was up"
_CAUSES = (
    Cause(r"out.of.memory|status of 137", "it ran out of memory", "Name a machine_type with more of it."),
    # Before the others: the message has the container's last lines, which may match any of the texts below.
    Cause(r"non-zero status", "the container failed", "Its lines above say why; the rest is in the job's log."),
    Cause(
        r"preempt|spot vm",
        "its machine was taken away",
        "Start it again, or pay for a machine that stays: is_spot = false.",
    ),
    Cause(
        r"timeout|timed out|deadline", _TIME_IS_UP, "Find out what it waited for, or allow it more: timeout_minutes."
    ),
    Cause(
        r"pull(ing)? (the )?image|image .*not found",
        "its image could not be fetched",
        "Check its name, and that the Vertex AI service agent may read it (roles/artifactregistry.reader).",
    ),
    Cause(
        r"stockout|insufficient|quota|resource_exhausted",
        "there was no machine for it",
        "Start it again later, or name another machine_type or location; ask for more quota if this keeps happening.",
    ),
    Cause(
        r"permission|forbidden|denied",
        "it was not allowed something",
        "Give the job's service account what the message names.",
    ),
)


def explain_end(job: api.CustomJob) -> VertexJobError:
    """The error for a job that has ended without success."""
    message = reason_of(job.error.message) if job.error else ""
    cause = find_cause(message, _CAUSES)
    happened, todo = cause.happened, cause.todo
    if job.state == _State.JOB_STATE_EXPIRED:
        happened, todo = "it expired", "It waited or ran longer than it may: see its page, then start it again."
    elif job.state == _State.JOB_STATE_PARTIALLY_SUCCEEDED:
        happened, todo = "it succeeded in part only", "What it left is not complete and not used; start it again."
    elif job.state == _State.JOB_STATE_CANCELLED and cause.happened != _TIME_IS_UP:
        happened, todo = "someone cancelled it", "Start it again if that was a mistake."
    words = f"job {job.name} {_describe_state(job.state)}: {happened}" + (
        f" ({message.rstrip('.')})" if message else ""
    )
    return VertexJobError(words, f"{todo} {console_url(job.name)}", job.name)


def explain_call(error: Exception, doing: str, job: VertexJob | None = None) -> CloudJobError:
    """The error for a request that was refused or not answered.

    Args:
        error: raised by Google's client.
        doing: what the request was for.
        job: the job to be started, if there is one.
    """
    machine = f" of {job.machine_type}" if job else ""
    account = f" and roles/iam.serviceAccountUser on {job.service_account}" if job and job.service_account else ""
    todos = Todos(
        f"Wait until other jobs have ended, name a smaller machine instead{machine}, or ask for more quota.",
        f"Give the account that Dagster runs as roles/aiplatform.user{account}, and roles/storage.objectUser on the "
        "bucket.",
        "Check project, location and bucket.",
    )
    return explain_refusal(error, doing, todos, VertexJobError)


def _no_machine_error(job: api.CustomJob, seconds: float) -> VertexJobError:
    machine = job.job_spec.worker_pool_specs[0].machine_spec.machine_type
    return VertexJobError(
        f"job {job.name} got no {machine} in {seconds / 60:g} minutes and was cancelled",
        "Start it again later, or name another machine_type or location; is_spot = false waits in a shorter queue.",
        job.name,
    )


def console_url(name: str) -> str:
    """Address of a job's page in the console, from the job's full name."""
    _, project, _, location, _, number = name.split("/")
    return f"https://console.cloud.google.com/ai/platform/locations/{location}/training/{number}?project={project}"


def _describe_state(state: Any) -> str:
    return getattr(state, "name", f"state {state}").removeprefix("JOB_STATE_").lower().replace("_", " ")
