"""A Dagster Pipes client for Vertex AI custom jobs.

It starts a container as a custom job, passes the context in and the messages out through a bucket, waits for the job to
end, and explains a failure. A job has a label with the caller's key: if the same key is run again while its job runs,
after a restart for example, that job is found by its label and followed from its first message, not started twice.

In the container, ``dagster_pipes`` reads and writes with its ``PipesGCSContextLoader`` and ``PipesGCSMessageWriter``.
Nearly self-contained: it needs ``dagster``, ``google-cloud-aiplatform``, ``google-cloud-storage``, and one function of
custseg.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PIPES_PROTOCOL_VERSION_FIELD,
    decode_param,
)
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import aiplatform_v1 as api
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from custseg_assets.gcp.storage import reason_of

KEY_LABEL = "dagster-key"
RUN_LABEL = "dagster-run"
_State = api.JobState
_WAITING = {_State.JOB_STATE_UNSPECIFIED, _State.JOB_STATE_QUEUED, _State.JOB_STATE_PENDING}
_ENDED = {
    _State.JOB_STATE_SUCCEEDED,
    _State.JOB_STATE_FAILED,
    _State.JOB_STATE_CANCELLED,
    _State.JOB_STATE_EXPIRED,
    _State.JOB_STATE_PARTIALLY_SUCCEEDED,
}
_TRANSIENT = (
    exceptions.ServerError,
    exceptions.TooManyRequests,
    exceptions.RetryError,
    RequestException,
    TransportError,
)
_INTERRUPTS = (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit)
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_CALL_SECONDS = 30.0


def is_transient(error: BaseException) -> bool:
    """Whether a request may succeed if it is sent again: no answer, a busy service, or too many requests a minute.

    A used up quota of machines has the same code as too many requests, and waiting does not help.
    """
    if isinstance(error, exceptions.TooManyRequests):
        return "per minute" in str(error.message) or error.reason == "RATE_LIMIT_EXCEEDED"
    return isinstance(error, _TRANSIENT)


class VertexJobError(Exception):
    """A job could not be started or did not succeed; ``str()`` of it is one line.

    Args:
        happened: what happened, in words.
        todo: what to do about it.
        job: name of the job, where there is one.
    """

    def __init__(self, happened: str, todo: str, job: str | None = None) -> None:
        self.happened, self.todo, self.job = " ".join(happened.split()), todo, job
        super().__init__(f"{self.happened.rstrip('.')}. {todo}")


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


@dataclass(frozen=True)
class Patience:
    """How long and how often a job is waited for, all in seconds.

    Attributes:
        first_wait: between two requests for a job whose state has just changed; later waits grow by half.
        longest_wait: the wait that they grow to.
        message_interval: between two requests for messages.
        silence: how long Vertex AI may be out of reach; the job goes on meanwhile.
        pending: how long a job may wait for a machine before it is cancelled.
    """

    first_wait: float = 2.0
    longest_wait: float = 30.0
    message_interval: float = 5.0
    silence: float = 900.0
    pending: float = 1800.0


class PipesVertexAIClient(dg.PipesClient):
    """Runs containers as Vertex AI custom jobs, for ops and assets.

    Args:
        jobs: client of the job service.
        bucket_client: client of Cloud Storage.
        project: whose jobs they are.
        location: region of the jobs.
        bucket: that context and messages pass through. The job's service account needs to read and write in it, too;
            Dagster's own channels also need ``storage.buckets.get``.
        prefix: before the name of every object there.
        patience: how long jobs are waited for.
        sleep: waits; for tests.
    """

    def __init__(
        self,
        jobs: api.JobServiceClient,
        bucket_client: storage.Client,
        *,
        project: str,
        location: str,
        bucket: str,
        prefix: str = "",
        patience: Patience = Patience(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._jobs, self._bucket_client = jobs, bucket_client
        self._project, self._location = project, location
        self._bucket, self._prefix = bucket, prefix.strip("/")
        self._patience, self._sleep = patience, sleep

    def run(  # type: ignore[override]
        self,
        *,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        job: VertexJob,
        key: str,
        extras: Mapping[str, Any] | None = None,
        accept_ended: bool = True,
    ) -> dg.PipesClientCompletedInvocation:
        """Run a container to its end, or follow a job that runs for this key already.

        If the run is interrupted, the job is cancelled. If this process is killed, the job goes on, and the next call
        with the same key follows it.

        Args:
            context: of the op or asset.
            job: what to run.
            key: names the work: same key, same work. At most 63 lowercase letters, digits, ``_`` and ``-``.
            extras: for the container, in its Pipes context.
            accept_ended: whether a job of this key that has succeeded already is taken as the result.

        Returns:
            What the container reported, with metadata that name the job.

        Raises:
            VertexJobError: the job could not be started or did not succeed, or Vertex AI was out of reach too long.
            ValueError: the key cannot be a label.
        """
        if not _LABEL.fullmatch(key):
            raise ValueError(f"key {key!r}; expected at most 63 lowercase letters, digits, underscores and dashes")
        found = self._find_job(key, accept_ended=accept_ended)
        if found is not None:
            state = _describe_state(found.state)
            context.log.info("following job %s, %s: it was started for the same work", found.name, state)
        with self._session(context, found, extras) as session:
            ended = self._run(context, session, job, key, found)
        return dg.PipesClientCompletedInvocation(session, metadata=self._metadata(ended))

    def _run(self, context: Any, session: Any, job: VertexJob, key: str, found: api.CustomJob | None) -> api.CustomJob:
        """Start or follow a job and wait until it has succeeded; an interrupt at any time cancels it."""
        started = found
        try:
            started = started or self._start_job(context, session, job, key)
            ended = self._watch_job(context, started)
        except _INTERRUPTS:
            context.log.warning("interrupted: cancelling the job of %s on Vertex AI", key)
            active = started or self._find_job(key, accept_ended=False)
            if active is not None:
                self._cancel_job(context, active.name)
            raise
        if ended.state != _State.JOB_STATE_SUCCEEDED:
            raise explain_end(ended)
        return ended

    @contextlib.contextmanager
    def _session(self, context: Any, found: api.CustomJob | None, extras: Any) -> Iterator[Any]:
        """A Pipes session for a new job, or for a running one, which knows where it writes its messages."""
        bucket, place = self._bucket_client.bucket(self._bucket), self._path(f"pipes/{uuid.uuid4().hex}")
        params = _pipes_params(found) if found is not None else {}
        injector = (
            _KnownContextInjector(params[DAGSTER_PIPES_CONTEXT_ENV_VAR])
            if params
            else _BlobContextInjector(bucket.blob(f"{place}/context.json"), self._patience.silence)
        )
        to = params.get(DAGSTER_PIPES_MESSAGES_ENV_VAR) or {"bucket": self._bucket, "key_prefix": f"{place}/messages"}
        reader = _BucketMessageReader(self._bucket_client.bucket(to["bucket"]), to, self._patience.message_interval)
        with contextlib.ExitStack() as stack:
            try:
                session = stack.enter_context(dg.open_pipes_session(context, injector, reader, extras=extras))
            except (exceptions.GoogleAPIError, GoogleAuthError, RequestException) as error:
                raise explain_call(error, f"writing to gs://{self._bucket}") from error
            yield session

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @property
    def _parent(self) -> str:
        return f"projects/{self._project}/locations/{self._location}"

    def _find_job(self, key: str, *, accept_ended: bool) -> api.CustomJob | None:
        """The job of a key that has not ended or else, if accepted, the newest one that has succeeded."""
        request = {"parent": self._parent, "filter": f'labels.{KEY_LABEL}="{key}"'}
        jobs = self._retry(lambda: list(self._jobs.list_custom_jobs(request, timeout=_CALL_SECONDS)))
        active = [job for job in jobs if job.state not in _ENDED and job.state != _State.JOB_STATE_CANCELLING]
        done = [job for job in jobs if job.state == _State.JOB_STATE_SUCCEEDED and accept_ended]
        return next(iter([*active, *done]), None)

    def _start_job(self, context: Any, session: Any, job: VertexJob, key: str) -> api.CustomJob:
        """Start a job; if the answer was lost, look for the job before starting it again."""
        labels = {**job.labels, KEY_LABEL: key, RUN_LABEL: context.run.run_id}
        spec = _custom_job_of(job, labels, {**job.environment, **session.get_bootstrap_env_vars()})

        def create() -> Any:
            try:
                found: Any = self._jobs.create_custom_job(parent=self._parent, custom_job=spec, timeout=_CALL_SECONDS)
            except _TRANSIENT as error:
                if not is_transient(error):
                    raise explain_call(error, "starting a job", job) from error
                found = self._find_job(key, accept_ended=True)
                if found is None:
                    raise
            return found

        started: api.CustomJob = self._retry(create, job)
        context.log.info("job %s: %s on %s; %s", started.name, job.image, job.machine_type, console_url(started.name))
        return started

    def _retry(self, call: Callable[[], Any], job: VertexJob | None = None) -> Any:
        """Make a call and return its answer; transient errors are tried again, as long as patience allows."""
        silence = _Silence(self._patience)
        while True:
            try:
                return call()
            except _TRANSIENT as error:
                if silence.is_too_long():
                    raise explain_call(error, "talking to Vertex AI", job) from error
            except (exceptions.GoogleAPIError, GoogleAuthError) as error:
                raise explain_call(error, "talking to Vertex AI", job) from error
            self._sleep(silence.next_wait())

    def _watch_job(self, context: Any, job: api.CustomJob) -> api.CustomJob:
        """Wait until a job has ended, and log every change of its state."""
        silence, state, since = _Silence(self._patience), None, time.monotonic()
        while True:
            seen = self._get_job(context, job.name, silence)
            if seen is not None and seen.state != state:
                silence, state, since = _Silence(self._patience), seen.state, time.monotonic()
                context.log.info("job %s: %s", job.name, _describe_state(state))
            if seen is not None and state in _ENDED:
                return seen
            if state in _WAITING and time.monotonic() - since > self._patience.pending:
                self._cancel_job(context, job.name)
                raise _no_machine_error(job, self._patience.pending)
            self._sleep(silence.next_wait())

    def _get_job(self, context: Any, name: str, silence: _Silence) -> api.CustomJob | None:
        """A job with its present state; ``None`` if Vertex AI does not answer at the moment."""
        try:
            job = self._jobs.get_custom_job(name=name, timeout=_CALL_SECONDS)
        except _TRANSIENT as error:
            if silence.is_too_long():
                raise VertexJobError(
                    f"Vertex AI has not answered for {silence.seconds():.0f} s ({reason_of(error)}); {name} goes on",
                    "Mend the connection and start the run again: it follows the job instead of starting another.",
                    name,
                ) from error
            context.log.warning("Vertex AI does not answer (%s); the job goes on, looking again", reason_of(error))
            return None
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise explain_call(error, f"looking at {name}") from error
        silence.end()
        return job

    def _cancel_job(self, context: Any, name: str) -> None:
        """Cancel a job. An error is logged, not raised: the reason for cancelling is the error to report."""
        try:
            self._jobs.cancel_custom_job(name=name, timeout=_CALL_SECONDS)
        except (exceptions.GoogleAPIError, GoogleAuthError, RequestException) as error:
            context.log.error(
                "job %s could not be cancelled (%s) and may go on: cancel it at %s",
                name,
                reason_of(error),
                console_url(name),
            )
        else:
            context.log.info("job %s: cancelled", name)

    def _metadata(self, job: api.CustomJob) -> dict[str, Any]:
        pool = job.job_spec.worker_pool_specs[0]
        seconds = (job.end_time - job.start_time).total_seconds() if job.start_time and job.end_time else None
        return {
            "vertex_job": job.name,
            "vertex_console": dg.MetadataValue.url(console_url(job.name)),
            "vertex_machine": pool.machine_spec.machine_type,
            **({"vertex_seconds": seconds} if seconds is not None else {}),
        }


class _Silence:
    """Measures how long a service has not answered, and how long to wait before the next request."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._wait = patience.first_wait
        self._since: float | None = None

    def seconds(self) -> float:
        """Seconds since the first request without an answer; the first call starts the clock."""
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since

    def is_too_long(self) -> bool:
        """Whether the service has not answered for longer than patience allows."""
        return self.seconds() > self._patience.silence

    def end(self) -> None:
        """Record that the service has answered."""
        self._since = None

    def next_wait(self) -> float:
        """Seconds until the next request; longer every time."""
        wait, self._wait = self._wait, min(1.5 * self._wait, self._patience.longest_wait)
        return wait


class _BlobContextInjector(dg.PipesContextInjector):
    """Writes the context of a new job to an object, which stays: a restarted job reads it again."""

    def __init__(self, blob: storage.Blob, seconds: float) -> None:
        self._blob, self._seconds = blob, seconds

    @contextlib.contextmanager
    def inject_context(self, context_data: Any) -> Iterator[Mapping[str, Any]]:
        """See ``PipesContextInjector``."""
        self._blob.upload_from_string(json.dumps(context_data), retry=DEFAULT_RETRY.with_timeout(self._seconds))
        yield {"bucket": self._blob.bucket.name, "key": self._blob.name}

    def no_messages_debug_text(self) -> str:
        """See ``PipesContextInjector``."""
        return f"The context is in gs://{self._blob.bucket.name}/{self._blob.name}, for PipesGCSContextLoader."


class _KnownContextInjector(dg.PipesContextInjector):
    """Gives the parameters of a context that was written when the job was started."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    @contextlib.contextmanager
    def inject_context(self, context_data: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ARG002
        """See ``PipesContextInjector``; the context is written already."""
        yield self._params

    def no_messages_debug_text(self) -> str:
        """See ``PipesContextInjector``."""
        return f"The job was given its context when it was started: {dict(self._params)}."


class _BucketMessageReader(dg.PipesBlobStoreMessageReader):
    """Reads the chunks of messages that ``PipesGCSMessageWriter`` writes, always from the first.

    Lines that are not messages are logged and left out; a chunk that cannot be read is asked for again.

    Args:
        bucket: the messages are in.
        params: of the writer.
        interval: between two requests, in seconds.
    """

    def __init__(self, bucket: storage.Bucket, params: Mapping[str, Any], interval: float) -> None:
        super().__init__(interval=interval)
        self._source, self._params = bucket, params

    @contextlib.contextmanager
    def get_params(self) -> Iterator[Mapping[str, Any]]:
        """See ``PipesBlobStoreMessageReader``."""
        yield self._params

    @contextlib.contextmanager
    def read_messages(self, handler: Any) -> Iterator[Mapping[str, Any]]:
        """See ``PipesMessageReader``."""
        self._warn = handler._context.log.warning  # noqa: SLF001  (as Dagster's own readers do)
        with super().read_messages(_TolerantMessageHandler(handler, self._warn)) as params:  # type: ignore[arg-type]
            yield params

    def messages_are_readable(self, params: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """See ``PipesMessageReader``; always, because a chunk that does not exist yet is asked for again."""
        return True

    def download_messages_chunk(self, index: int, params: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """The messages of a chunk, one on each line; ``None`` if the chunk does not exist or cannot be read."""
        blob = self._source.blob(f"{self._params['key_prefix']}/{index}.json")
        try:
            text = blob.download_as_bytes(retry=None, timeout=_CALL_SECONDS).decode("utf-8", "replace")
        except exceptions.NotFound:
            return None
        except (exceptions.GoogleAPIError, GoogleAuthError, RequestException) as error:
            self._warn(f"the job's messages cannot be read just now: {reason_of(error)}")
            return None
        lines = text.splitlines()
        messages = [line for line in lines if _is_message(line)]
        if len(messages) < len(lines):
            self._warn(f"{len(lines) - len(messages)} lines of {blob.name} are no Pipes messages and are left out")
        # Dagster takes an empty chunk for one that does not exist, and would ask for it for ever.
        return "\n".join(messages) + "\n"

    def no_messages_debug_text(self) -> str:
        """See ``PipesMessageReader``."""
        place = f"gs://{self._source.name}/{self._params['key_prefix']}"
        return f"Messages are expected in {place}, from PipesGCSMessageWriter."


class _TolerantMessageHandler:
    """A message handler that logs messages which Dagster's handler refuses, so that reading goes on."""

    def __init__(self, handler: Any, warn: Callable[[str], None]) -> None:
        self._handler, self._warn = handler, warn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def handle_message(self, message: Any) -> None:
        """Pass a message on; log an error."""
        try:
            self._handler.handle_message(message)
        except Exception as error:  # noqa: BLE001  (the job's result does not depend on its messages)
            self._warn(f"a message of the job makes no sense and is left out: {reason_of(error)}")


def _is_message(line: str) -> bool:
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        return isinstance(message, dict) and PIPES_PROTOCOL_VERSION_FIELD in message
    return False


def _pipes_params(job: api.CustomJob) -> dict[str, Any]:
    """Where a job finds its context and writes its messages, from its environment; empty for a job without Pipes."""
    given = {variable.name: variable.value for variable in job.job_spec.worker_pool_specs[0].container_spec.env}
    names = (DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR)
    return {name: decode_param(given[name]) for name in names} if set(names) <= set(given) else {}


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


class _Cause(NamedTuple):
    """A cause of failure: the text by which a message is recognised, what happened, and what to do."""

    sign: str
    happened: str
    todo: str


# Vertex AI gives the cause of a failure as text; its codes do not distinguish these causes.
_TIME_IS_UP = "it was stopped after its time was up"
_CAUSES = (
    _Cause(r"out.of.memory|status of 137", "it ran out of memory", "Name a machine_type with more of it."),
    # Before the others: the message has the container's last lines, which may match any of the texts below.
    _Cause(r"non-zero status", "the container failed", "Its lines above say why; the rest is in the job's log."),
    _Cause(
        r"preempt|spot vm",
        "its machine was taken away",
        "Start it again, or pay for a machine that stays: is_spot = false.",
    ),
    _Cause(
        r"timeout|timed out|deadline", _TIME_IS_UP, "Find out what it waited for, or allow it more: timeout_minutes."
    ),
    _Cause(
        r"pull(ing)? (the )?image|image .*not found",
        "its image could not be fetched",
        "Check its name, and that the Vertex AI service agent may read it (roles/artifactregistry.reader).",
    ),
    _Cause(
        r"stockout|insufficient|quota|resource_exhausted",
        "there was no machine for it",
        "Start it again later, or name another machine_type or location; ask for more quota if this keeps happening.",
    ),
    _Cause(
        r"permission|forbidden|denied",
        "it was not allowed something",
        "Give the job's service account what the message names.",
    ),
)
_UNKNOWN = _Cause("", "it failed", "The job's log says more.")


def explain_end(job: api.CustomJob) -> VertexJobError:
    """The error for a job that has ended without success."""
    message = reason_of(job.error.message) if job.error else ""
    cause = next((cause for cause in _CAUSES if re.search(cause.sign, message, re.IGNORECASE)), _UNKNOWN)
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


def explain_call(error: Exception, doing: str, job: VertexJob | None = None) -> VertexJobError:
    """The error for a request that was refused or not answered.

    Args:
        error: raised by Google's client.
        doing: what the request was for.
        job: the job to be started, if there is one.
    """
    message = reason_of(error)
    if isinstance(error, exceptions.TooManyRequests):
        machine = f" of {job.machine_type}" if job else ""
        todo = f"Wait until other jobs have ended, name a smaller machine instead{machine}, or ask for more quota."
        return VertexJobError(f"{doing}: the quota is used up ({message})", todo)
    if isinstance(error, exceptions.Forbidden):
        account = f" and roles/iam.serviceAccountUser on {job.service_account}" if job and job.service_account else ""
        todo = (
            f"Give the account that Dagster runs as roles/aiplatform.user{account}, and roles/storage.objectUser on "
            "the bucket."
        )
        return VertexJobError(f"{doing}: not allowed ({message})", todo)
    if isinstance(error, exceptions.Unauthorized | GoogleAuthError) and not isinstance(error, TransportError):
        todo = "Run as a service account, or log in with `gcloud auth application-default login`."
        return VertexJobError(f"{doing}: no valid credentials ({message})", todo)
    if isinstance(error, exceptions.NotFound):
        return VertexJobError(f"{doing}: not there ({message})", "Check project, location and bucket.")
    if isinstance(error, exceptions.ClientError):
        return VertexJobError(f"{doing}: refused ({message})", "Correct what the message names.")
    return VertexJobError(f"{doing}: no answer ({message})", "Check the connection to Google Cloud and start it again.")


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
