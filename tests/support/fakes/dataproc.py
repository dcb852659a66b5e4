"""A fake of the REST API of Dataproc Serverless, version 1, on loopback: batches and their operations.

A batch's program really runs: its file is taken from the fake of Cloud Storage and started with the image's Python,
with its arguments, its driver's variables and nothing of the environment of the test. The buckets are mounted in it, so
that Spark reads and writes ``gs://``, and what it wrote is in the fake of Cloud Storage when it has ended. Requests are
read with the API's own message definitions. As the service does, it is asked for the project by id or by number, and
names it by number in every answer; it cancels a batch when its operation is cancelled, and deletes only those that
have ended.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from google.cloud import dataproc_v1 as api

from tests.support.fakes.clock import now
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.messages import answer_message, answer_page, invalid, parse
from tests.support.fakes.service import Answer, FakeService, Refused, Request, answer_json
from tests.support.fakes.vertex import PROJECT_NUMBER, Image

State = api.Batch.State
ENDED = {State.SUCCEEDED, State.FAILED, State.CANCELLED}
_BATCH_ID = re.compile(r"[a-z0-9-]{4,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?")
_ACCOUNT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.-]+\.gserviceaccount\.com")
_TERM = re.compile(r'(?P<field>labels\.[a-z0-9-]+|state)\s*=\s*"?(?P<value>[^"\s]*)"?')
_CORES = {"4", "8", "16"}
_VERSIONS = {"", "1.2", "2.2", "2.3", "3.0"}
_FORBIDDEN = ("spark.master", "spark.submit.deployMode", "spark.shuffle.service.enabled", "spark.yarn.")
_DRIVER_VARIABLE = "spark.dataproc.driverEnv."
_SHORTEST, _LONGEST = 600, 14 * 24 * 3600
_DEFAULT_EXECUTORS = 2
_MOST_A_MINUTE = 200


@dataclass
class _Batch:
    batch: api.Batch
    request_id: str
    process: subprocess.Popen[bytes] | None = None
    mounted: set[Path] = field(default_factory=set)
    listed_from: float = 0.0


class FakeDataproc(FakeService):
    """The service; ``with FakeDataproc("shop", "europe-west1", gcs) as dataproc`` starts and stops it.

    Args:
        project: the caller's.
        location: the region it stands in.
        gcs: the buckets that programs are in, and that are mounted for them.
        images: what can be pulled, by name; a program is an argument of its entry point.
        page_size: of lists, where the client does not ask for smaller ones.

    Attributes:
        has_machines: whether a pending batch gets machines.
        n_cpus: the project's quota of CPUs.
        listed_late: seconds after which a new batch is in lists.
        output: what each batch's program wrote, by batch name.
        at_poll: called with a batch each time a client asks for it, before the answer.
    """

    discovery = "dataproc.v1"

    def __init__(
        self,
        project: str,
        location: str,
        gcs: FakeGcs,
        images: Mapping[str, Image] | None = None,
        page_size: int = 20,
    ) -> None:
        super().__init__()
        self.images = dict(images or {})
        self.has_machines = True
        self.n_cpus = 1000
        self.listed_late = 0.0
        self.output: dict[str, Path] = {}
        self.at_poll: Callable[[api.Batch], None] = lambda _: None
        self._gcs = gcs
        self._page_size = page_size
        self._asked_at: deque[float] = deque()
        self._parent = f"projects/{project}/locations/{location}"
        self._region = f"projects/{project}/regions/{location}"
        self._id, self._number = f"projects/{project}/", f"projects/{PROJECT_NUMBER}/"
        self._batches: dict[str, _Batch] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="fake-dataproc-")
        self._routes: Sequence[tuple[str, str, Callable[..., Answer]]] = (
            ("POST", rf"{self._parent}/batches", self._create),
            ("GET", rf"{self._parent}/batches", self._list),
            ("GET", rf"({self._parent}/batches/[^/:]+)", self._get),
            ("DELETE", rf"({self._parent}/batches/[^/:]+)", self._delete),
            ("GET", rf"({self._region}/operations/[^/:]+)", self._get_operation),
            ("POST", rf"({self._region}/operations/[^/:]+):cancel", self._cancel),
        )

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for one in self._batches.values():
            _kill(one)
        self._folder.cleanup()

    # What a test looks at and does.

    @property
    def batches(self) -> list[api.Batch]:
        """All batches with their present states, oldest first."""
        with self._lock:
            for one in self._batches.values():
                self._advance(one)
            return [one.batch for one in self._batches.values()]

    def told(self, name: str) -> str:
        """A name as the service tells it: with the project's number."""
        return name.replace(self._id, self._number)

    def end(self, state: api.Batch.State, message: str = "") -> None:
        """End every batch that has not ended, as the platform does, whatever its program was doing."""
        with self._lock:
            for one in self._batches.values():
                if one.batch.state not in ENDED:
                    _kill(one)
                    self._end(one, state, message)

    def read_output(self, name: str) -> str:
        """What a batch's program wrote."""
        return self.output[name].read_text()

    # The service.

    def answer(self, request: Request) -> Answer:
        """See ``FakeService``."""
        self._require_calm()
        known = replace(
            request,
            path=unquote(request.path).replace(self._number, self._id),
            body=request.body.replace(self._number.encode(), self._id.encode()),
        )
        answer = self._answer(known)
        return replace(answer, content=answer.content.replace(self._id.encode(), self._number.encode()))

    def _require_calm(self) -> None:
        """Refuse what is more than the quota of requests a minute."""
        while self._asked_at and self._asked_at[0] < now() - 60:
            self._asked_at.popleft()
        if self.has_rate_limits and len(self._asked_at) >= _MOST_A_MINUTE:
            message = (
                "Quota exceeded for quota metric 'Batch requests' and limit 'Batch requests per minute per region' of "
                f"service 'dataproc.googleapis.com' for consumer 'project_number:{PROJECT_NUMBER}'."
            )
            kind = "type.googleapis.com/google.rpc.ErrorInfo"
            info = {"@type": kind, "reason": "RATE_LIMIT_EXCEEDED", "metadata": {"service": "dataproc.googleapis.com"}}
            raise Refused(429, "RESOURCE_EXHAUSTED", message, [info])
        self._asked_at.append(now())

    def _answer(self, request: Request) -> Answer:
        version, _, path = request.path.removeprefix("/").partition("/")
        if version == "v1" and not path.startswith((self._parent, self._region)):
            raise Refused(403, "PERMISSION_DENIED", f"Permission denied on resource {path}.")
        for method, pattern, handler in self._routes:
            found = re.fullmatch(pattern, path)
            if version == "v1" and found and method == request.method:
                return handler(request, *found.groups())
        raise Refused(404, "NOT_FOUND", f"The requested URL {request.path} was not found on this server.")

    def _create(self, request: Request) -> Answer:
        self.require("dataproc.batches.create", f"//dataproc.googleapis.com/{self._parent}")
        batch, batch_id = parse(request.json(), api.Batch), request.query.get("batchId") or str(uuid.uuid4())
        request_id = request.query.get("requestId", "")
        if not _BATCH_ID.fullmatch(batch_id):
            raise invalid(f"Batch ID '{batch_id}' must match [a-z0-9-]{{4,63}}.")
        if request_id and not _REQUEST_ID.fullmatch(request_id):
            raise invalid(f"Request ID '{request_id}' must match [A-Za-z0-9_-]{{1,40}}.")
        for one in self._batches.values():
            if request_id and one.request_id == request_id:
                return self._describe_operation(one)
        if (name := f"{self._parent}/batches/{batch_id}") in self._batches:
            raise Refused(409, "ALREADY_EXISTS", f"Already exists: Failed to create batch: Batch {name}")
        _check(batch)
        self._check_account(batch)
        batch.name, batch.uuid, batch.state = name, str(uuid.uuid4()), State.PENDING
        batch.operation = f"{self._region}/operations/{uuid.uuid4()}"
        batch.create_time = batch.state_time = datetime.now(UTC)
        self._batches[name] = _Batch(batch, request_id, listed_from=time.monotonic() + self.listed_late)
        return self._describe_operation(self._batches[name])

    def _check_account(self, batch: api.Batch) -> None:
        if account := batch.environment_config.execution_config.service_account:
            if not _ACCOUNT.fullmatch(account):
                raise invalid(f"Service account '{account}' is not valid.")
            if self.is_denied("iam.serviceAccounts.actAs"):
                message = f"User not authorized to act as service account '{account}'."
                raise Refused(403, "PERMISSION_DENIED", message)

    def _list(self, request: Request) -> Answer:
        self.require("dataproc.batches.list", f"//dataproc.googleapis.com/{self._parent}")
        keep = _filter_of(request.query.get("filter", ""))
        if request.query.get("orderBy", "") not in {"", "create_time", "create_time desc"}:
            raise invalid(f"Invalid order: {request.query['orderBy']}")
        listed = [batch for batch in self.batches if self._batches[batch.name].listed_from <= time.monotonic()]
        ordered = listed if request.query.get("orderBy") == "create_time" else listed[::-1]
        return answer_page(request, "batches", [batch for batch in ordered if keep(batch)], self._page_size)

    def _find(self, name: str) -> _Batch:
        if name not in self._batches:
            raise Refused(404, "NOT_FOUND", f"Not found: Batch {name}")
        return self._batches[name]

    def _get(self, _: Request, name: str) -> Answer:
        self.require("dataproc.batches.get", name)
        one = self._find(name)
        self._advance(one)
        self.at_poll(one.batch)
        return answer_message(one.batch)

    def _delete(self, _: Request, name: str) -> Answer:
        self.require("dataproc.batches.delete", name)
        if self._find(name).batch.state not in ENDED:
            raise Refused(400, "FAILED_PRECONDITION", f"Batch {name} is not in a terminal state.")
        del self._batches[name]
        return answer_json({})

    def _by_operation(self, name: str) -> _Batch:
        for one in self._batches.values():
            if one.batch.operation == name:
                return one
        raise Refused(404, "NOT_FOUND", f"Operation not found: {name}")

    def _get_operation(self, _: Request, name: str) -> Answer:
        self.require("dataproc.operations.get", name)
        one = self._by_operation(name)
        self._advance(one)
        return self._describe_operation(one)

    def _cancel(self, request: Request, name: str) -> Answer:
        self.require("dataproc.operations.cancel", name)
        self.require("dataproc.batches.cancel", name)
        request.json()
        one = self._by_operation(name)
        if one.batch.state not in ENDED:
            if one.process is None:
                self._end(one, State.CANCELLED, "Batch was cancelled by user request.")
            else:
                one.process.terminate()
                self._enter(one, State.CANCELLING)
        return answer_json({})

    def _describe_operation(self, one: _Batch) -> Answer:
        kind = "type.googleapis.com/google.cloud.dataproc.v1.BatchOperationMetadata"
        about = {"@type": kind, "batch": one.batch.name, "batchUuid": one.batch.uuid, "operationType": "BATCH"}
        return answer_json({"name": one.batch.operation, "metadata": about})

    # A batch's life: pending, running, ended.

    def _advance(self, one: _Batch) -> None:
        if one.batch.state == State.PENDING and self.has_machines:
            self._start(one)
        elif one.process is not None and one.batch.state not in ENDED:
            self._check_process(one, one.process)

    def _start(self, one: _Batch) -> None:
        runtime = one.batch.runtime_config
        properties = dict(runtime.properties)
        cpus = _cpus(properties)
        taken = sum(_cpus(dict(each.batch.runtime_config.properties)) for each in self._batches.values() if each.process
                    and each.batch.state not in ENDED)  # fmt: skip
        if taken + cpus > self.n_cpus:
            message = f"Insufficient 'CPUS' quota. Requested {cpus}.0, available {self.n_cpus - taken}.0."
            self._end(one, State.FAILED, message)
            return
        image = self.images.get(runtime.container_image)
        if image is None:
            self._end(one, State.FAILED, f"Failed to pull image '{runtime.container_image}': not found or no access.")
            return
        folder = Path(self._folder.name) / one.batch.uuid
        program, buckets = folder / "main.py", folder / "buckets"
        one.mounted = self._mount(buckets)
        bucket, _, name = one.batch.pyspark_batch.main_python_file_uri.removeprefix("gs://").partition("/")
        if not (source := buckets / bucket / name).exists():
            self._end(one, State.FAILED, f"File not found: gs://{bucket}/{name}")
            return
        program.write_bytes(source.read_bytes())
        self.output[one.batch.name] = folder / "output.txt"
        with self.output[one.batch.name].open("wb") as output:
            one.process = subprocess.Popen(
                [*image.entrypoint, str(program), *one.batch.pyspark_batch.args],
                env={
                    **image.environment,
                    **_variables(properties),
                    "PYSPARK_SUBMIT_ARGS": _submit(properties, buckets),
                },
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._enter(one, State.RUNNING)

    def _mount(self, buckets: Path) -> set[Path]:
        """Copy the buckets into a folder, and return the files that are there."""
        buckets.mkdir(parents=True)
        for bucket, blobs in self._gcs.buckets.items():
            (buckets / bucket).mkdir()
            for name, blob in blobs.items():
                path = buckets / bucket / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(blob.content)
        return {path for path in buckets.rglob("*") if path.is_file()}

    def _unmount(self, one: _Batch) -> None:
        """Put the files that the program wrote into the buckets."""
        buckets = Path(self._folder.name) / one.batch.uuid / "buckets"
        for path in sorted(buckets.rglob("*")):
            # Spark keeps checksums of what it writes on a disk; there are none in a bucket.
            if path.is_file() and path not in one.mounted and path.suffix != ".crc":
                bucket, *parts = path.relative_to(buckets).parts
                self._gcs.put(bucket, "/".join(parts), path.read_bytes())

    def _check_process(self, one: _Batch, process: subprocess.Popen[bytes]) -> None:
        status = process.poll()
        if status is None:
            return
        self._unmount(one)
        if one.batch.state == State.CANCELLING:
            self._end(one, State.CANCELLED, "Batch was cancelled by user request.")
        elif status == 0:
            one.batch.runtime_info = {"approximate_usage": {"milli_dcu_seconds": 7_200_000}}
            self._end(one, State.SUCCEEDED)
        else:
            said = self.read_output(one.batch.name).strip().splitlines()
            page = f"https://console.cloud.google.com/dataproc/batches/{one.batch.name.rsplit('/', 1)[1]}"
            message = f"Job failed with message [{(said or [f'Exit code {status}'])[-1]}]. Additional details: {page}"
            self._end(one, State.FAILED, message)

    def _enter(self, one: _Batch, state: api.Batch.State) -> None:
        one.batch.state_history.append({"state": one.batch.state, "state_start_time": one.batch.state_time})
        one.batch.state, one.batch.state_time = state, datetime.now(UTC)

    def _end(self, one: _Batch, state: api.Batch.State, message: str = "") -> None:
        self._enter(one, state)
        one.batch.state_message = message


def _check(batch: api.Batch) -> None:
    if len(batch.labels) > 32:
        raise invalid("At most 32 labels can be associated with a batch.")
    for key, value in batch.labels.items():
        if not _LABEL.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise invalid(f"Label {key}={value} is invalid: it must conform to RFC 1035.")
    main = batch.pyspark_batch.main_python_file_uri
    if not re.fullmatch(r"(gs|file)://.+\.py", main):
        raise invalid(f"pyspark_batch.main_python_file_uri '{main}' must be the address of a .py file.")
    if batch.runtime_config.version not in _VERSIONS:
        raise invalid(f"Unsupported runtime version '{batch.runtime_config.version}'.")
    _check_properties(dict(batch.runtime_config.properties))
    execution = batch.environment_config.execution_config
    if execution.idle_ttl:
        raise invalid("idle_ttl cannot be set on a batch workload.")
    if execution.ttl and not _SHORTEST <= execution.ttl.total_seconds() <= _LONGEST:
        raise invalid(f"ttl must be between {_SHORTEST}s and {_LONGEST}s.")


def _check_properties(properties: Mapping[str, str]) -> None:
    for name, value in properties.items():
        if name.startswith(_FORBIDDEN) or not name.startswith("spark."):
            raise invalid(f"Property '{name}' is not supported.")
        if name in {"spark.driver.cores", "spark.executor.cores"} and value not in _CORES:
            raise invalid(f"Property '{name}' must be 4, 8 or 16, got '{value}'.")
        if name == "spark.executor.instances" and not 2 <= int(value) <= 2000:
            raise invalid(f"Property '{name}' must be between 2 and 2000, got '{value}'.")
        if name == "spark.dynamicAllocation.maxExecutors" and not 2 <= int(value) <= 2000:
            raise invalid(f"Property '{name}' must be between 2 and 2000, got '{value}'.")


def _filter_of(text: str) -> Callable[[api.Batch], bool]:
    """The part of the service's filter language that is a conjunction of equalities."""
    terms = (
        [_TERM.fullmatch(term.strip()) for term in re.split(r"\s+AND\s+", text, flags=re.IGNORECASE)] if text else []
    )
    if not all(terms):
        raise invalid(f"Invalid filter: {text}")

    def value_of(batch: api.Batch, name: str) -> str | None:
        return batch.state.name if name == "state" else batch.labels.get(name.removeprefix("labels."))

    return lambda batch: all(value_of(batch, term["field"]) == term["value"] for term in filter(None, terms))


def _cpus(properties: Mapping[str, str]) -> int:
    executors = int(properties.get("spark.executor.instances", _DEFAULT_EXECUTORS))
    return int(properties.get("spark.driver.cores", 4)) + executors * int(properties.get("spark.executor.cores", 4))


def _variables(properties: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(_DRIVER_VARIABLE): value
        for name, value in properties.items()
        if name.startswith(_DRIVER_VARIABLE)
    }


def _submit(properties: Mapping[str, str], buckets: Path) -> str:
    """What Spark is started with: the batch's properties, one core, and the buckets mounted under their names.

    Hadoop's file system for views reads and writes ``gs://`` in the folders that the mount table names.
    """
    view = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
    local = "org.apache.hadoop.fs.LocalFileSystem"
    kept = {
        name: value for name, value in properties.items() if not re.search(r"dataproc|cores|memory|instances", name)
    }
    mounts = {
        f"spark.hadoop.fs.viewfs.mounttable.{bucket.name}.linkFallback": f"file://{bucket}"
        for bucket in buckets.iterdir()
    }
    settings = {
        **kept,
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.dynamicAllocation.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.hadoop.fs.gs.impl": view,
        "spark.hadoop.fs.viewfs.overload.scheme.target.gs.impl": local,
        **mounts,
    }
    return " ".join(f"--conf {json.dumps(f'{name}={value}')}" for name, value in settings.items()) + " pyspark-shell"


def _kill(one: _Batch) -> None:
    if one.process is not None:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()
