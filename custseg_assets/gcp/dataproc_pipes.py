"""A Dagster Pipes client for Dataproc Serverless batches: a PySpark program on machines that are there for it only.

How a batch is started, followed and cancelled is in ``cloud_jobs``. A batch's program finds its Pipes parameters in
its arguments, for ``PipesCliArgsParamsLoader``: a batch has no other place for them that can be read back.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import dagster as dg
from dagster_pipes import decode_param
from google.api_core import exceptions
from google.cloud import dataproc_v1 as api
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

_State = api.Batch.State
_PHASES = {
    _State.STATE_UNSPECIFIED: Phase.WAITING,
    _State.PENDING: Phase.WAITING,
    _State.CANCELLING: Phase.CANCELLING,
    _State.CANCELLED: Phase.FAILED,
    _State.SUCCEEDED: Phase.SUCCEEDED,
    _State.FAILED: Phase.FAILED,
}
# As ``DAGSTER_PIPES_CONTEXT`` and its like are called on a command line.
_OPTIONS = {name: "--" + name.lower().replace("_", "-") for name in PARAMS}
_LONGEST_REQUEST_ID = 40
_HOUR = 3600.0


class DataprocBatchError(CloudJobError):
    """A batch could not be started or did not succeed; see ``CloudJobError``."""


@dataclass(frozen=True)
class DataprocBatch:
    """A PySpark program to run, and what it may use.

    Attributes:
        main: address of the program, ``gs://….py``.
        args: of the program, before those of Pipes.
        image: container image that the program's packages are in; Dataproc puts Spark into it.
        runtime_version: of Dataproc Serverless, which decides the version of Spark.
        properties: of Spark.
        environment: variables of the driver and the executors.
        service_account: account that the batch runs as; the project's Compute Engine default without it.
        subnetwork: name or address of the subnetwork; the network ``default`` without it.
        staging_bucket: name of the bucket that Dataproc keeps its own files of the batch in.
        timeout_seconds: after which Dataproc stops it.
        labels: more of them.
    """

    main: str
    image: str | None = None
    args: Sequence[str] = ()
    runtime_version: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    service_account: str | None = None
    subnetwork: str | None = None
    staging_bucket: str | None = None
    timeout_seconds: float = _HOUR
    labels: Mapping[str, str] = field(default_factory=dict)


class PipesDataprocBatchClient(PipesCloudJobClient):
    """Runs PySpark programs, each a ``DataprocBatch``, on Dataproc Serverless; see ``PipesCloudJobClient``.

    Args:
        batches: client of the batch controller.
        bucket_client: client of Cloud Storage.
        more: arguments of ``PipesCloudJobClient``.
    """

    service: ClassVar[str] = "Dataproc"
    noun: ClassVar[str] = "batch"
    error: ClassVar[type[CloudJobError]] = DataprocBatchError
    # Labels of batches conform to RFC 1035, and a batch's id is made of the key and nine more characters.
    key_form: ClassVar[re.Pattern[str]] = re.compile(r"[a-z]([a-z0-9-]{0,52}[a-z0-9])?")
    key_words: ClassVar[str] = "at most 54 lowercase letters, digits and dashes, a letter first and no dash last"

    def __init__(self, batches: api.BatchControllerClient, bucket_client: storage.Client, **more: Any) -> None:
        super().__init__(bucket_client, **more)
        self._batches = batches

    def _list(self, key: str) -> list[Any]:
        request = {"parent": self._parent, "filter": f'labels.{KEY_LABEL} = "{key}"', "order_by": "create_time desc"}
        return list(self._batches.list_batches(request, timeout=CALL_SECONDS))

    def _create(self, spec: DataprocBatch, labels: Mapping[str, str], params: Mapping[str, str], name: str) -> Any:
        request = {
            "parent": self._parent,
            "batch": _batch_of(spec, {**spec.labels, **labels}, params),
            "batch_id": name,
            "request_id": name[-_LONGEST_REQUEST_ID:],
        }
        # Where an attempt before this one came through and its answer was lost, the id is taken.
        with contextlib.suppress(exceptions.Conflict):
            self._batches.create_batch(request, timeout=CALL_SECONDS)
        return self._get(f"{self._parent}/batches/{name}")

    def _get(self, name: str) -> Any:
        return self._batches.get_batch(name=name, timeout=CALL_SECONDS)

    def _cancel(self, job: Any) -> None:
        # A batch is cancelled by cancelling its operation; deleting it is for batches that have ended.
        self._batches.cancel_operation({"name": job.operation or self._get(job.name).operation}, timeout=CALL_SECONDS)

    def _phase(self, job: Any) -> Phase:
        return _PHASES.get(job.state, Phase.RUNNING)

    def _describe_state(self, job: Any) -> str:
        return _describe_state(job.state)

    def _describe_start(self, job: Any, spec: DataprocBatch) -> str:
        return f"{spec.main} in {spec.image or 'the image of Dataproc'}; {console_url(job.name)}"

    def _params(self, job: Any) -> dict[str, Any]:
        args = list(job.pyspark_batch.args)
        given = {name: args[args.index(option) + 1] for name, option in _OPTIONS.items() if option in args[:-1]}
        return {name: decode_param(value) for name, value in given.items()} if len(given) == len(PARAMS) else {}

    def _metadata(self, job: Any) -> dict[str, Any]:
        usage = job.runtime_info.approximate_usage
        hours = {
            "dataproc_dcu_hours": usage.milli_dcu_seconds / 1000 / _HOUR,
            "dataproc_shuffle_gb_hours": usage.shuffle_storage_gb_seconds / _HOUR,
        }
        return {
            "dataproc_batch": job.name,
            "dataproc_console": dg.MetadataValue.url(console_url(job.name)),
            **{name: value for name, value in hours.items() if value},
        }

    def _console_url(self, name: str) -> str:
        return console_url(name)

    def _explain_call(self, error: Exception, doing: str, spec: DataprocBatch | None = None) -> CloudJobError:
        return explain_call(error, doing, spec)

    def _explain_end(self, job: Any) -> CloudJobError:
        return explain_end(job)

    def _explain_waiting(self, job: Any, seconds: float) -> CloudJobError:
        return DataprocBatchError(
            f"batch {job.name} got no machines in {seconds / 60:g} minutes and was cancelled",
            "Start it again later, or allow it fewer: max_executors.",
            job.name,
        )


def _batch_of(spec: DataprocBatch, labels: Mapping[str, str], params: Mapping[str, str]) -> api.Batch:
    variables = {
        f"{place}.{name}": value
        for name, value in spec.environment.items()
        for place in ("spark.dataproc.driverEnv", "spark.executorEnv")
    }
    options = [part for name, option in _OPTIONS.items() for part in (option, params[name])]
    return api.Batch(
        labels=dict(labels),
        pyspark_batch={"main_python_file_uri": spec.main, "args": [*spec.args, *options]},
        runtime_config={
            "version": spec.runtime_version or "",
            "container_image": spec.image or "",
            "properties": {**spec.properties, **variables},
        },
        environment_config={
            "execution_config": {
                "service_account": spec.service_account or "",
                "subnetwork_uri": spec.subnetwork or "",
                "staging_bucket": spec.staging_bucket or "",
                "ttl": timedelta(seconds=spec.timeout_seconds),
            }
        },
    )


# Dataproc gives the cause of a failure as text; its codes do not distinguish these causes.
_TIME_IS_UP = "it was stopped after its time was up"
_CAUSES = (
    Cause(
        r"out.?of.?memory|exit code 137|java heap space",
        "it ran out of memory",
        "Give its executors more of it: spark.executor.memory in [gcp.dataproc.properties].",
    ),
    # Before the others: the message has the program's last lines, which may match any of the texts below.
    Cause(r"job failed with message", "its program failed", "Its lines above say why; the rest is in its output."),
    Cause(r"\bttl\b|timed? ?out|deadline", _TIME_IS_UP, "Allow it more time (timeout_minutes) or max_executors."),
    Cause(
        r"image",
        "its image could not be fetched",
        "Check its name, and that the batch's service account may read it (roles/artifactregistry.reader).",
    ),
    Cause(
        r"insufficient|quota|stockout|resource_exhausted|exhausted",
        "there were no machines for it",
        "Start it again later, allow it fewer (max_executors), or ask for more quota.",
    ),
    Cause(
        r"permission|forbidden|denied",
        "it was not allowed something",
        "Give the batch's service account what the message names, and roles/dataproc.worker.",
    ),
    Cause(
        r"subnet|network",
        "it had no network",
        "Name a subnetwork with Private Google Access: subnetwork in [gcp.dataproc].",
    ),
)


def explain_end(batch: api.Batch) -> CloudJobError:
    """The error for a batch that has ended without success."""
    message = reason_of(batch.state_message) if batch.state_message else ""
    cause = find_cause(message, _CAUSES)
    happened, todo = cause.happened, cause.todo
    if batch.state == _State.CANCELLED and happened != _TIME_IS_UP:
        happened, todo = "someone cancelled it", "Start it again if that was a mistake."
    words = f"batch {batch.name} {_describe_state(batch.state)}: {happened}" + (
        f" ({message.rstrip('.')})" if message else ""
    )
    return DataprocBatchError(words, f"{todo} {console_url(batch.name)}", batch.name)


def explain_call(error: Exception, doing: str, spec: DataprocBatch | None = None) -> CloudJobError:
    """The error for a request that was refused or not answered.

    Args:
        error: raised by Google's client.
        doing: what the request was for.
        spec: the batch to be started, if there is one.
    """
    account = f" and roles/iam.serviceAccountUser on {spec.service_account}" if spec and spec.service_account else ""
    todos = Todos(
        "Wait until other batches have ended, allow this one fewer machines (max_executors), or ask for more quota.",
        f"Give the account that Dagster runs as roles/dataproc.serverlessEditor{account}, and roles/storage.objectUser "
        "on the bucket.",
        "Check project, location and bucket, and that the Dataproc API is enabled.",
    )
    return explain_refusal(error, doing, todos, DataprocBatchError)


def console_url(name: str) -> str:
    """Address of a batch's page in the console, from the batch's full name."""
    _, project, _, location, _, batch_id = name.split("/")
    return f"https://console.cloud.google.com/dataproc/batches/{location}/{batch_id}?project={project}"


def _describe_state(state: Any) -> str:
    return getattr(state, "name", f"state {state}").lower().replace("_", " ")
