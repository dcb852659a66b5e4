"""What the Dagster Pipes clients of Google's services for jobs have in common; a service's own is in its module.

A client starts a job, passes the context in and the messages out through a bucket, waits for the job to end, and
explains a failure. A job has a label with the caller's key: if the same key is run again while its job runs, after a
restart for example, that job is found by its label and followed from its first message, not started twice.

In the job, ``dagster_pipes`` reads and writes with its ``PipesGCSContextLoader`` and ``PipesGCSMessageWriter``.
Nearly self-contained: it needs ``dagster``, ``google-cloud-storage``, and one function of custseg.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PIPES_PROTOCOL_VERSION_FIELD,
)
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from custseg_assets.gcp.storage import reason_of

KEY_LABEL = "dagster-key"
RUN_LABEL = "dagster-run"
CALL_SECONDS = 30.0
PARAMS = (DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR)
TRANSIENT = (
    exceptions.ServerError,
    exceptions.TooManyRequests,
    exceptions.RetryError,
    RequestException,
    TransportError,
)
_INTERRUPTS = (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit)


def is_transient(error: BaseException) -> bool:
    """Whether a request may succeed if it is sent again: no answer, a busy service, or too many requests a minute.

    A used up quota of machines has the same code as too many requests, and waiting does not help.
    """
    if isinstance(error, exceptions.TooManyRequests):
        return "per minute" in str(error.message) or error.reason == "RATE_LIMIT_EXCEEDED"
    return isinstance(error, TRANSIENT)


class CloudJobError(Exception):
    """A job could not be started or did not succeed; ``str()`` of it is one line.

    Args:
        happened: what happened, in words.
        todo: what to do about it.
        job: name of the job, where there is one.
    """

    def __init__(self, happened: str, todo: str, job: str | None = None) -> None:
        self.happened, self.todo, self.job = " ".join(happened.split()), todo, job
        super().__init__(f"{self.happened.rstrip('.')}. {todo}")


class Phase(Enum):
    """Where a job is in its life, whatever its service calls that."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Cause(NamedTuple):
    """A cause of failure: the text by which a message is recognised, what happened, and what to do."""

    sign: str
    happened: str
    todo: str


def find_cause(message: str, causes: Sequence[Cause]) -> Cause:
    """The first cause whose sign a service's message has; the services give causes as text only."""
    unknown = Cause("", "it failed", "The job's log says more.")
    return next((cause for cause in causes if re.search(cause.sign, message, re.IGNORECASE)), unknown)


class Todos(NamedTuple):
    """What to do about requests that a service refuses: a used up quota, a missing role, and what is not there."""

    quota: str
    role: str
    place: str


def explain_refusal(
    error: Exception, doing: str, todos: Todos, kind: type[CloudJobError] = CloudJobError
) -> CloudJobError:
    """The error for a request that was refused or not answered.

    Args:
        error: raised by Google's client.
        doing: what the request was for.
        todos: what to do about it, of the service.
        kind: of error.
    """
    message = reason_of(error)
    if isinstance(error, exceptions.TooManyRequests):
        return kind(f"{doing}: the quota is used up ({message})", todos.quota)
    if isinstance(error, exceptions.Forbidden):
        return kind(f"{doing}: not allowed ({message})", todos.role)
    if isinstance(error, exceptions.Unauthorized | GoogleAuthError) and not isinstance(error, TransportError):
        todo = "Run as a service account, or log in with `gcloud auth application-default login`."
        return kind(f"{doing}: no valid credentials ({message})", todo)
    if isinstance(error, exceptions.NotFound):
        return kind(f"{doing}: not there ({message})", todos.place)
    if isinstance(error, exceptions.ClientError):
        return kind(f"{doing}: refused ({message})", "Correct what the message names.")
    return kind(f"{doing}: no answer ({message})", "Check the connection to Google Cloud and start it again.")


@dataclass(frozen=True)
class Patience:
    """How long and how often a job is waited for, all in seconds.

    Attributes:
        first_wait: between two requests for a job whose state has just changed; later waits grow by half.
        longest_wait: the wait that they grow to.
        message_interval: between two requests for messages.
        silence: how long the service may be out of reach; the job goes on meanwhile.
        pending: how long a job may wait for a machine before it is cancelled.
    """

    first_wait: float = 2.0
    longest_wait: float = 30.0
    message_interval: float = 5.0
    silence: float = 900.0
    pending: float = 1800.0


class PipesCloudJobClient(dg.PipesClient, ABC):
    """Runs jobs of a service for ops and assets; a subclass says how its service is asked.

    Args:
        bucket_client: client of Cloud Storage.
        project: whose jobs they are.
        location: region of the jobs.
        bucket: that context and messages pass through. The job's service account needs to read and write in it, too;
            Dagster's own channels also need ``storage.buckets.get``.
        prefix: before the name of every object there.
        patience: how long jobs are waited for.
        sleep: waits; for tests.

    Attributes:
        service: name of the service, in words.
        noun: what the service calls a job.
        error: raised where a job does not succeed.
        key_form: pattern of a key that the service takes as a label.
        key_words: the same, in words.
    """

    service: ClassVar[str]
    noun: ClassVar[str] = "job"
    error: ClassVar[type[CloudJobError]]
    key_form: ClassVar[re.Pattern[str]]
    key_words: ClassVar[str]

    def __init__(
        self,
        bucket_client: storage.Client,
        *,
        project: str,
        location: str,
        bucket: str,
        prefix: str = "",
        patience: Patience = Patience(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket_client = bucket_client
        self._project, self._location = project, location
        self._bucket, self._prefix = bucket, prefix.strip("/")
        self._patience, self._sleep = patience, sleep

    # What the service is asked, and what its answers mean.

    @abstractmethod
    def _list(self, key: str) -> list[Any]:
        """The jobs with a key, newest first."""

    @abstractmethod
    def _create(self, spec: Any, labels: Mapping[str, str], params: Mapping[str, str], name: str) -> Any:
        """Start a job and return it.

        Args:
            spec: what to run.
            labels: of the job.
            params: of Pipes, as environment variables would have them.
            name: one for all attempts at starting it, where the service lets its callers name jobs.
        """

    @abstractmethod
    def _get(self, name: str) -> Any:
        """A job with its present state."""

    @abstractmethod
    def _cancel(self, job: Any) -> None:
        """Ask for a job to be cancelled."""

    @abstractmethod
    def _phase(self, job: Any) -> Phase:
        """Where a job is in its life."""

    @abstractmethod
    def _describe_state(self, job: Any) -> str:
        """A job's state in the service's word."""

    @abstractmethod
    def _describe_start(self, job: Any, spec: Any) -> str:
        """What was started, for the log."""

    @abstractmethod
    def _params(self, job: Any) -> dict[str, Any]:
        """Where a job finds its context and writes its messages; empty for a job without Pipes."""

    @abstractmethod
    def _metadata(self, job: Any) -> dict[str, Any]:
        """Metadata that name a job."""

    @abstractmethod
    def _console_url(self, name: str) -> str:
        """Address of a job's page in the console, from the job's full name."""

    @abstractmethod
    def _explain_call(self, error: Exception, doing: str, spec: Any = None) -> CloudJobError:
        """The error for a request that was refused or not answered."""

    @abstractmethod
    def _explain_end(self, job: Any) -> CloudJobError:
        """The error for a job that has ended without success."""

    @abstractmethod
    def _explain_waiting(self, job: Any, seconds: float) -> CloudJobError:
        """The error for a job that got no machine and was cancelled."""

    # The same for all.

    def run(  # type: ignore[override]
        self,
        *,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        job: Any,
        key: str,
        extras: Mapping[str, Any] | None = None,
        accept_ended: bool = True,
    ) -> dg.PipesClientCompletedInvocation:
        """Run a job to its end, or follow one that runs for this key already.

        If the run is interrupted, the job is cancelled. If this process is killed, the job goes on, and the next call
        with the same key follows it.

        Args:
            context: of the op or asset.
            job: what to run.
            key: names the work: same key, same work; as ``key_words`` says.
            extras: for the job, in its Pipes context.
            accept_ended: whether a job of this key that has succeeded already is taken as the result.

        Returns:
            What the job reported, with metadata that name it.

        Raises:
            CloudJobError: the job could not be started or did not succeed, or the service was out of reach too long.
            ValueError: the key cannot be a label.
        """
        if not self.key_form.fullmatch(key):
            raise ValueError(f"key {key!r}; expected {self.key_words}")
        found = self._find_job(key, accept_ended=accept_ended)
        if found is not None:
            context.log.info(
                "following %s %s, %s: it was started for the same work",
                self.noun,
                found.name,
                self._describe_state(found),
            )
        with self._session(context, found, extras) as session:
            ended = self._run(context, session, job, key, found)
        return dg.PipesClientCompletedInvocation(session, metadata=self._metadata(ended))

    def _run(self, context: Any, session: Any, spec: Any, key: str, found: Any) -> Any:
        """Start or follow a job and wait until it has succeeded; an interrupt at any time cancels it."""
        started = found
        try:
            started = started or self._start_job(context, session, spec, key)
            ended = self._watch_job(context, started)
        except _INTERRUPTS:
            context.log.warning("interrupted: cancelling the %s of %s on %s", self.noun, key, self.service)
            active = started or self._find_job(key, accept_ended=False)
            if active is not None:
                self._cancel_job(context, active)
            raise
        if self._phase(ended) is not Phase.SUCCEEDED:
            raise self._explain_end(ended)
        return ended

    @contextlib.contextmanager
    def _session(self, context: Any, found: Any, extras: Any) -> Iterator[Any]:
        """A Pipes session for a new job, or for a running one, which knows where it writes its messages."""
        bucket, place = self._bucket_client.bucket(self._bucket), self._path(f"pipes/{uuid.uuid4().hex}")
        params = self._params(found) if found is not None else {}
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
                raise self._explain_call(error, f"writing to gs://{self._bucket}") from error
            yield session

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @property
    def _parent(self) -> str:
        return f"projects/{self._project}/locations/{self._location}"

    def _find_job(self, key: str, *, accept_ended: bool) -> Any:
        """The job of a key that has not ended or else, if accepted, the newest one that has succeeded."""
        jobs = self._retry(lambda: self._list(key))
        active = [job for job in jobs if self._phase(job) in {Phase.WAITING, Phase.RUNNING}]
        done = [job for job in jobs if self._phase(job) is Phase.SUCCEEDED and accept_ended]
        return next(iter([*active, *done]), None)

    def _start_job(self, context: Any, session: Any, spec: Any, key: str) -> Any:
        """Start a job; if the answer was lost, look for the job before starting it again."""
        labels = {KEY_LABEL: key, RUN_LABEL: context.run.run_id}
        params, name = session.get_bootstrap_env_vars(), f"{key}-{uuid.uuid4().hex[:8]}"

        def create() -> Any:
            try:
                return self._create(spec, labels, params, name)
            except TRANSIENT as error:
                if not is_transient(error):
                    raise self._explain_call(error, f"starting a {self.noun}", spec) from error
                found = self._find_job(key, accept_ended=True)
                if found is None:
                    raise
                return found

        started = self._retry(create, spec)
        context.log.info("%s %s: %s", self.noun, started.name, self._describe_start(started, spec))
        return started

    def _retry(self, call: Callable[[], Any], spec: Any = None) -> Any:
        """Make a call and return its answer; transient errors are tried again, as long as patience allows."""
        silence = _Silence(self._patience)
        while True:
            try:
                return call()
            except TRANSIENT as error:
                if silence.is_too_long():
                    raise self._explain_call(error, f"talking to {self.service}", spec) from error
            except (exceptions.GoogleAPIError, GoogleAuthError) as error:
                raise self._explain_call(error, f"talking to {self.service}", spec) from error
            self._sleep(silence.next_wait())

    def _watch_job(self, context: Any, job: Any) -> Any:
        """Wait until a job has ended, and log every change of its state."""
        silence, state, since = _Silence(self._patience), "", time.monotonic()
        while True:
            seen = self._get_job(context, job.name, silence)
            if seen is not None:
                job = seen
                if self._describe_state(job) != state:
                    silence, state, since = _Silence(self._patience), self._describe_state(job), time.monotonic()
                    context.log.info("%s %s: %s", self.noun, job.name, state)
                if self._phase(job) in {Phase.SUCCEEDED, Phase.FAILED}:
                    return job
            is_waiting = state and self._phase(job) is Phase.WAITING
            if is_waiting and time.monotonic() - since > self._patience.pending:
                self._cancel_job(context, job)
                raise self._explain_waiting(job, self._patience.pending)
            self._sleep(silence.next_wait())

    def _get_job(self, context: Any, name: str, silence: _Silence) -> Any:
        """A job with its present state; ``None`` if the service does not answer at the moment."""
        try:
            job = self._get(name)
        except TRANSIENT as error:
            if silence.is_too_long():
                raise self.error(
                    f"{self.service} has not answered for {silence.seconds():.0f} s ({reason_of(error)}); "
                    f"{name} goes on",
                    f"Mend the connection and start the run again: it follows the {self.noun} instead of starting "
                    "another.",
                    name,
                ) from error
            context.log.warning(
                "%s does not answer (%s); the %s goes on, looking again", self.service, reason_of(error), self.noun
            )
            return None
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise self._explain_call(error, f"looking at {name}") from error
        silence.end()
        return job

    def _cancel_job(self, context: Any, job: Any) -> None:
        """Cancel a job. An error is logged, not raised: the reason for cancelling is the error to report."""
        try:
            self._cancel(job)
        except (exceptions.GoogleAPIError, GoogleAuthError, RequestException) as error:
            context.log.error(
                "%s %s could not be cancelled (%s) and may go on: cancel it at %s",
                self.noun,
                job.name,
                reason_of(error),
                self._console_url(job.name),
            )
        else:
            context.log.info("%s %s: cancelled", self.noun, job.name)


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
            text = blob.download_as_bytes(retry=None, timeout=CALL_SECONDS).decode("utf-8", "replace")
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
