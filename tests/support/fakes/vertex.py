"""A fake of the Vertex AI REST API, version 1, on loopback: custom jobs, models and endpoints.

A job's container really runs: a process with the arguments and the environment of its spec, and with nothing of the
environment of the test. Requests are read with the API's own message definitions, so an unknown field, a wrong enum
or a malformed duration is refused as the service refuses it. As the service does, it is asked for the project by id or
by number, and names it by number in every answer; and a long operation changes nothing before it has ended.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from google.cloud import aiplatform_v1 as api
from google.rpc import code_pb2

from tests.support.fakes.clock import now
from tests.support.fakes.messages import answer_message, answer_page, fields_of, invalid, parse
from tests.support.fakes.service import Answer, FakeService, Refused, Request, answer_json

PROJECT_NUMBER = "314159265358"
State = api.JobState
ENDED = {State.JOB_STATE_SUCCEEDED, State.JOB_STATE_FAILED, State.JOB_STATE_CANCELLED, State.JOB_STATE_EXPIRED}
ENDED |= {State.JOB_STATE_PARTIALLY_SUCCEEDED}
_CPUS = {"n1-standard-2": 2, "n1-standard-4": 4, "n1-standard-8": 8, "e2-standard-4": 4, "n1-highmem-2": 2}
_TAKES_ACCELERATORS = re.compile(r"n1-|a2-|g2-")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_MODEL_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_ACCOUNT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.-]+\.gserviceaccount\.com")
_TERM = re.compile(r'(?P<field>labels\.[a-z0-9_-]+|state|display_name)\s*=\s*"(?P<value>[^"]*)"')
_LONGEST_TIMEOUT = 7 * 24 * 3600
_MOST_A_MINUTE = 600


@dataclass(frozen=True)
class Image:
    """A container image: what it starts, and the environment it was built with."""

    entrypoint: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Operation:
    """A long operation: what it changes when it ends, which is when it has been looked at often enough."""

    change: Callable[[], dict[str, Any]]
    looks_left: int
    ended: dict[str, Any] | None = None


@dataclass
class _Job:
    job: api.CustomJob
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0


class FakeVertex(FakeService):
    """The service; ``with FakeVertex("shop", "europe-west1") as vertex`` starts and stops it.

    Args:
        project: the caller's.
        location: the region it stands in.
        images: what can be pulled, by name.
        page_size: of lists, where the client does not ask for smaller ones.

    Attributes:
        has_machines: whether a pending job gets one.
        n_cpus: the project's quota of training CPUs.
        output: what each job's process wrote, by job name.
        at_poll: called with a job each time a client asks for it, before the answer.
        fail_operations: message of the error in which every operation ends; empty if they succeed.
        looks_until_done: how often an operation is looked at before it has ended.
    """

    discovery = "aiplatform.v1"

    def __init__(
        self, project: str, location: str, images: Mapping[str, Image] | None = None, page_size: int = 100
    ) -> None:
        super().__init__()
        self.images = dict(images or {})
        self.has_machines = True
        self.n_cpus = 100
        self.output: dict[str, Path] = {}
        self.at_poll: Callable[[api.CustomJob], None] = lambda _: None
        self.endpoints: dict[str, api.Endpoint] = {}
        self.models: dict[str, list[api.Model]] = {}
        self.evaluations: dict[str, list[api.ModelEvaluation]] = {}
        self.fail_operations = ""
        self.looks_until_done = 1
        self._n_changes = 0
        self._asked_at: deque[float] = deque()
        self._parent = f"projects/{project}/locations/{location}"
        self._page_size = page_size
        self._jobs: dict[str, _Job] = {}
        self._operations: dict[str, _Operation] = {}
        self._number = f"projects/{PROJECT_NUMBER}/locations/{location}"
        self._folder = tempfile.TemporaryDirectory(prefix="fake-vertex-")
        self._routes: Sequence[tuple[str, str, Callable[..., Answer]]] = (
            ("POST", r"/customJobs", self._create_job),
            ("GET", r"/customJobs", self._list_jobs),
            ("GET", r"/customJobs/([^/:]+)", self._get_job),
            ("POST", r"/customJobs/([^/:]+):cancel", self._cancel_job),
            ("GET", r"(/(?:models|endpoints)/[^/:]+)/operations", self._list_operations),
            ("GET", r"(/(?:models|endpoints)/[^/:]+/operations/[^/:]+)", self._get_operation),
            ("POST", r"/models:upload", self._upload_model),
            ("GET", r"/models/([^/:]+)", self._get_model),
            ("GET", r"/models/([^/:]+):listVersions", self._list_versions),
            ("POST", r"/models/([^/:]+):mergeVersionAliases", self._merge_aliases),
            ("POST", r"/models/([^/:]+)/evaluations:import", self._import_evaluation),
            ("GET", r"/models/([^/:]+)/evaluations", self._list_evaluations),
            ("DELETE", r"/models/([^/:]+)", self._delete_model),
            ("POST", r"/endpoints", self._create_endpoint),
            ("DELETE", r"/endpoints/([^/:]+)", self._delete_endpoint),
            ("GET", r"/endpoints/([^/:]+)", self._get_endpoint),
            ("POST", r"/endpoints/([^/:]+):deployModel", self._deploy),
            ("POST", r"/endpoints/([^/:]+):undeployModel", self._undeploy),
            ("PATCH", r"/endpoints/([^/:]+)", self._patch_endpoint),
        )

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for one in self._jobs.values():
            _kill(one)
        self._folder.cleanup()

    # What a test looks at and does.

    @property
    def jobs(self) -> list[api.CustomJob]:
        """All jobs with their present states, oldest first."""
        with self._lock:
            for one in self._jobs.values():
                self._advance_job(one)
            return [one.job for one in self._jobs.values()]

    @property
    def n_operations(self) -> int:
        """How many long operations were begun."""
        return len(self._operations)

    def told(self, name: str) -> str:
        """A name as the service tells it: with the project's number."""
        return name.replace(self._parent, self._number)

    def end(self, state: api.JobState, code: int = 0, message: str = "") -> None:
        """End every job that has not ended, as the platform does, whatever its container was doing."""
        with self._lock:
            for one in self._jobs.values():
                if one.job.state not in ENDED:
                    _kill(one)
                    self._end_job(one, state, code, message)

    def preempt(self) -> None:
        """Take the machines away."""
        message = "The replica workerpool0-0 was preempted: Spot VM capacity was reclaimed. Resources are insufficient."
        self.end(State.JOB_STATE_FAILED, code_pb2.UNAVAILABLE, message)

    def read_output(self, name: str) -> str:
        """What a job's process wrote."""
        return self.output[name].read_text()

    # The service.

    def answer(self, request: Request) -> Answer:
        """See ``FakeService``."""
        self._require_calm()
        known = replace(
            request,
            path=unquote(request.path).replace(self._number, self._parent),
            body=request.body.replace(self._number.encode(), self._parent.encode()),
        )
        answer = self._answer(known)
        return replace(answer, content=answer.content.replace(self._parent.encode(), self._number.encode()))

    def _require_calm(self) -> None:
        """Refuse what is more than the quota of requests a minute."""
        while self._asked_at and self._asked_at[0] < now() - 60:
            self._asked_at.popleft()
        if self.has_rate_limits and len(self._asked_at) >= _MOST_A_MINUTE:
            message = (
                "Quota exceeded for quota metric 'Resource management requests' and limit 'Resource management "
                "requests per minute per region' of service 'aiplatform.googleapis.com' for consumer "
                f"'project_number:{PROJECT_NUMBER}'."
            )
            metadata = {"service": "aiplatform.googleapis.com", "quota_limit_value": str(_MOST_A_MINUTE)}
            kind = "type.googleapis.com/google.rpc.ErrorInfo"
            info = {"@type": kind, "reason": "RATE_LIMIT_EXCEEDED", "metadata": metadata}
            raise Refused(429, "RESOURCE_EXHAUSTED", message, [info])
        self._asked_at.append(now())

    def _answer(self, request: Request) -> Answer:
        # Operations have two addresses, and Google's client over REST takes the one under /ui.
        version, _, path = request.path.removeprefix("/").partition("/")
        path = path.removeprefix(self._parent)
        if version not in {"v1", "ui"} or (version == "ui" and "/operations" not in path):
            raise Refused(404, "NOT_FOUND", f"The requested URL {request.path} was not found on this server.")
        if not path.startswith("/"):
            raise Refused(403, "PERMISSION_DENIED", f"Permission denied on resource {path}.")
        for method, pattern, handler in self._routes:
            found = re.fullmatch(pattern, path)
            if found and method == request.method:
                return handler(request, *found.groups())
        raise Refused(404, "NOT_FOUND", f"The requested URL {request.path} was not found on this server.")

    # Custom jobs.

    def _create_job(self, request: Request) -> Answer:
        self.require("aiplatform.customJobs.create", f"//aiplatform.googleapis.com/{self._parent}")
        job = parse(request.json(), api.CustomJob)
        if account := job.job_spec.service_account:
            if not _ACCOUNT.fullmatch(account):
                raise invalid(f"Service account {account} is not valid.")
            if self.is_denied("iam.serviceAccounts.actAs"):
                message = f"You do not have permission to act as service_account: {account}. (or it may not exist)."
                raise Refused(403, "PERMISSION_DENIED", message)
        _check_job(job)
        self._check_quota(job)
        number = len(self._jobs) + 1
        job.name = f"{self._parent}/customJobs/{number:019}"
        job.state = State.JOB_STATE_QUEUED
        job.create_time = job.update_time = datetime.now(UTC)
        self._jobs[job.name] = _Job(job)
        return answer_message(job)

    def _check_quota(self, job: api.CustomJob) -> None:
        running = [one.job for one in self._jobs.values() if one.job.state not in ENDED]
        if sum(_cpus(one) for one in [*running, job]) > self.n_cpus:
            metric = "aiplatform.googleapis.com/custom_model_training_cpus"
            message = f"The following quota metrics exceed quota limits: {metric}"
            failure = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"subject": metric}]}
            raise Refused(429, "RESOURCE_EXHAUSTED", message, [failure])

    def _list_jobs(self, request: Request) -> Answer:
        self.require("aiplatform.customJobs.list", f"//aiplatform.googleapis.com/{self._parent}")
        keep = _filter_of(request.query.get("filter", ""))
        found = [job for job in reversed(self.jobs) if keep(job)]
        return answer_page(request, "customJobs", found, self._page_size)

    def _get_job(self, _: Request, number: str) -> Answer:
        name = f"{self._parent}/customJobs/{number}"
        self.require("aiplatform.customJobs.get", name)
        one = self._find_job(name)
        self._advance_job(one)
        self.at_poll(one.job)
        return answer_message(one.job)

    def _cancel_job(self, request: Request, number: str) -> Answer:
        name = f"{self._parent}/customJobs/{number}"
        self.require("aiplatform.customJobs.cancel", name)
        request.json()
        one = self._find_job(name)
        if one.job.state not in ENDED:
            if one.process is None:
                self._end_job(one, State.JOB_STATE_CANCELLED, code_pb2.CANCELLED, "Job was cancelled.")
            else:
                one.process.terminate()
                one.job.state = State.JOB_STATE_CANCELLING
        return answer_json({})

    def _find_job(self, name: str) -> _Job:
        if name not in self._jobs:
            raise Refused(404, "NOT_FOUND", f"CustomJob does not exist. Name: {name}")
        return self._jobs[name]

    def _advance_job(self, one: _Job) -> None:
        """One step of a job's life: queued, pending, running, ended."""
        state = one.job.state
        if state == State.JOB_STATE_QUEUED:
            one.job.state = State.JOB_STATE_PENDING
        elif state == State.JOB_STATE_PENDING and self.has_machines:
            self._start_job(one)
        elif one.process is not None and state not in ENDED:
            self._check_process(one, one.process)

    def _start_job(self, one: _Job) -> None:
        container = one.job.job_spec.worker_pool_specs[0].container_spec
        image = self.images.get(container.image_uri)
        if image is None:
            message = f"Failed to pull the image {container.image_uri}: not found, or access denied."
            self._end_job(one, State.JOB_STATE_FAILED, code_pb2.NOT_FOUND, message)
            return
        number = one.job.name.rsplit("/", 1)[1]
        given = {variable.name: variable.value for variable in container.env}
        environment = {**image.environment, "CLOUD_ML_JOB_ID": number, **given}
        folder = Path(self._folder.name) / number
        folder.mkdir()
        self.output[one.job.name] = folder / "output.txt"
        with self.output[one.job.name].open("wb") as output:
            one.process = subprocess.Popen(
                [*(container.command or image.entrypoint), *container.args],
                env=environment,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        one.started_at = time.monotonic()
        one.job.start_time = one.job.update_time = datetime.now(UTC)
        one.job.state = State.JOB_STATE_RUNNING

    def _check_process(self, one: _Job, process: subprocess.Popen[bytes]) -> None:
        timeout = one.job.job_spec.scheduling.timeout.total_seconds() or _LONGEST_TIMEOUT
        status = process.poll()
        if one.job.state == State.JOB_STATE_CANCELLING:
            if status is not None:
                self._end_job(one, State.JOB_STATE_CANCELLED, code_pb2.CANCELLED, "Job was cancelled.")
        elif status == 0:
            self._end_job(one, State.JOB_STATE_SUCCEEDED)
        elif status is not None:
            message = (
                f"The replica workerpool0-0 exited with a non-zero status of {status}. To find out more about why your "
                f"job exited please check the logs: https://console.cloud.google.com/logs/viewer?job_id={one.job.name}"
            )
            self._end_job(one, State.JOB_STATE_FAILED, code_pb2.INVALID_ARGUMENT, message)
        elif time.monotonic() - one.started_at > timeout:
            _kill(one)
            message = f"The job exceeded its timeout of {timeout:g} seconds."
            self._end_job(one, State.JOB_STATE_CANCELLED, code_pb2.DEADLINE_EXCEEDED, message)

    def _end_job(self, one: _Job, state: api.JobState, code: int = 0, message: str = "") -> None:
        one.job.state = state
        one.job.end_time = one.job.update_time = datetime.now(UTC)
        if message:
            one.job.error = {"code": code, "message": message}

    # Models.

    def _upload_model(self, request: Request) -> Answer:
        self.require("aiplatform.models.upload", f"//aiplatform.googleapis.com/{self._parent}")
        asked = parse({"parent": self._parent, **request.json()}, api.UploadModelRequest)
        model, container = asked.model, asked.model.container_spec
        _check_name(model)
        if not container.image_uri:
            raise invalid("Field: model.container_spec.image_uri; Message: Required field is not set.")
        for route in (container.predict_route, container.health_route):
            if route and not route.startswith("/"):
                raise invalid(f"Route must begin with '/': {route}")
        _check_aliases(model.version_aliases)
        if asked.parent_model:
            model_id = asked.parent_model.rsplit("/", 1)[1]
            self._versions(model_id)
        else:
            model_id = asked.model_id or f"{len(self.models) + 1:019}"
            if not _MODEL_ID.fullmatch(model_id):
                raise invalid(f"Invalid model id: {model_id}")
            if model_id in self.models:
                raise Refused(409, "ALREADY_EXISTS", f"Model {model_id} already exists.")

        def add() -> api.UploadModelResponse:
            versions = self.models.setdefault(model_id, [])
            model.name, model.version_id = f"{self._parent}/models/{model_id}", str(len(versions) + 1)
            model.version_create_time = datetime.now(UTC)
            _move_aliases(versions, model, [*model.version_aliases, *([] if versions else ["default"])])
            versions.append(model)
            return api.UploadModelResponse(model=model.name, model_version_id=model.version_id)

        return self._operate(f"models/{model_id}", add)

    def _versions(self, model_id: str) -> list[api.Model]:
        if model_id not in self.models:
            raise Refused(404, "NOT_FOUND", f"The Model does not exist: {self._parent}/models/{model_id}")
        return self.models[model_id]

    def _model(self, name: str) -> api.Model:
        model_id, _, version = name.rsplit("/", 1)[-1].partition("@")
        for model in self._versions(model_id):
            if (version or "default") in {model.version_id, *model.version_aliases}:
                return model
        raise Refused(404, "NOT_FOUND", f"The Model does not exist: {self._parent}/models/{name}")

    def _get_model(self, _: Request, name: str) -> Answer:
        self.require("aiplatform.models.get", f"{self._parent}/models/{name}")
        return answer_message(self._model(name))

    def _list_versions(self, request: Request, model_id: str) -> Answer:
        self.require("aiplatform.models.list", f"{self._parent}/models/{model_id}")
        keep = _filter_of(request.query.get("filter", ""))
        return answer_page(
            request, "models", [model for model in reversed(self._versions(model_id)) if keep(model)], self._page_size
        )

    def _merge_aliases(self, request: Request, name: str) -> Answer:
        self.require("aiplatform.models.update", f"{self._parent}/models/{name}")
        asked = parse({"name": name, **request.json()}, api.MergeVersionAliasesRequest)
        model = self._model(name)
        _check_aliases([alias.removeprefix("-") for alias in asked.version_aliases])
        _move_aliases(self._versions(name.partition("@")[0]), model, list(asked.version_aliases))
        return answer_message(model)

    def _import_evaluation(self, request: Request, name: str) -> Answer:
        self.require("aiplatform.modelEvaluations.import", f"{self._parent}/models/{name}")
        asked = parse({"parent": name, **request.json()}, api.ImportModelEvaluationRequest)
        model, evaluation = self._model(name), asked.model_evaluation
        if not evaluation.metrics_schema_uri.startswith("gs://"):
            raise invalid("metrics_schema_uri must be a Cloud Storage URI.")
        known = self.evaluations.setdefault(f"{model.name}@{model.version_id}", [])
        evaluation.name = f"{model.name}@{model.version_id}/evaluations/{len(known) + 1}"
        known.append(evaluation)
        return answer_message(evaluation)

    def _list_evaluations(self, request: Request, name: str) -> Answer:
        self.require("aiplatform.modelEvaluations.list", f"{self._parent}/models/{name}")
        model = self._model(name)
        found = self.evaluations.get(f"{model.name}@{model.version_id}", [])
        return answer_page(request, "modelEvaluations", found, self._page_size)

    def _delete_model(self, _: Request, model_id: str) -> Answer:
        self.require("aiplatform.models.delete", f"{self._parent}/models/{model_id}")
        self._versions(model_id)
        deployed = [each.model for endpoint in self.endpoints.values() for each in endpoint.deployed_models]
        if any(f"/models/{model_id}@" in name for name in deployed):
            raise Refused(400, "FAILED_PRECONDITION", f"The Model {model_id} is deployed. Undeploy it first.")

        def remove() -> None:
            del self.models[model_id]

        return self._operate(f"models/{model_id}", remove)

    # Endpoints.

    def _create_endpoint(self, request: Request) -> Answer:
        self.require("aiplatform.endpoints.create", f"//aiplatform.googleapis.com/{self._parent}")
        asked = parse(request.json(), api.Endpoint)
        _check_name(asked)
        number = f"{7_000_000_000 + len(self._operations)}"
        return self._operate(f"endpoints/{number}", lambda: self.add_endpoint(number))

    def _delete_endpoint(self, _: Request, number: str) -> Answer:
        self.require("aiplatform.endpoints.delete", f"{self._parent}/endpoints/{number}")
        if self._endpoint(number).deployed_models:
            message = f"Endpoint {number} has deployed models. Undeploy them first."
            raise Refused(400, "FAILED_PRECONDITION", message)

        def remove() -> None:
            del self.endpoints[number]

        return self._operate(f"endpoints/{number}", remove)

    def add_endpoint(self, number: str, **more: Any) -> api.Endpoint:
        """Create an endpoint."""
        name = f"{self._parent}/endpoints/{number}"
        self.endpoints[number] = endpoint = api.Endpoint(name=name, display_name=number, **more)
        self.touch(endpoint)
        return endpoint

    def touch(self, endpoint: api.Endpoint) -> None:
        """Give an endpoint a new etag, as every change of it does."""
        self._n_changes += 1
        endpoint.etag = f"etag-{self._n_changes}"

    def _endpoint(self, number: str) -> api.Endpoint:
        if number not in self.endpoints:
            message = f"The Endpoint does not exist: {self._parent}/endpoints/{number}"
            raise Refused(404, "NOT_FOUND", message)
        return self.endpoints[number]

    def _get_endpoint(self, _: Request, number: str) -> Answer:
        self.require("aiplatform.endpoints.get", f"{self._parent}/endpoints/{number}")
        return answer_message(self._endpoint(number))

    def _deploy(self, request: Request, number: str) -> Answer:
        self.require("aiplatform.endpoints.deploy", f"{self._parent}/endpoints/{number}")
        asked = parse({"endpoint": number, **request.json()}, api.DeployModelRequest)
        endpoint, deployed = self._endpoint(number), asked.deployed_model
        model = self._model(deployed.model)
        if not deployed.dedicated_resources.machine_spec.machine_type:
            raise invalid("dedicated_resources must be set for a custom container model.")
        _check_machine(deployed.dedicated_resources.machine_spec)
        if deployed.dedicated_resources.min_replica_count < 1:
            raise invalid("min_replica_count must be at least 1.")
        new_id = f"{1000 + sum(len(each.deployed_models) for each in self.endpoints.values()) + len(self._operations)}"
        split = {new_id if key == "0" else key: share for key, share in asked.traffic_split.items()}
        _check_split(
            split, {new_id, *(each.id for each in endpoint.deployed_models)}, is_given=bool(asked.traffic_split)
        )
        deployed.id, deployed.model_version_id = new_id, model.version_id
        deployed.model = f"{model.name}@{model.version_id}"
        deployed.create_time = datetime.now(UTC)

        def add() -> api.DeployModelResponse:
            endpoint.deployed_models.append(deployed)
            endpoint.traffic_split = split or {**endpoint.traffic_split, new_id: 0 if endpoint.traffic_split else 100}
            self.touch(endpoint)
            return api.DeployModelResponse(deployed_model=deployed)

        return self._operate(f"endpoints/{number}", add)

    def _undeploy(self, request: Request, number: str) -> Answer:
        self.require("aiplatform.endpoints.undeploy", f"{self._parent}/endpoints/{number}")
        asked = parse({"endpoint": number, **request.json()}, api.UndeployModelRequest)
        endpoint = self._endpoint(number)
        kept = [each for each in endpoint.deployed_models if each.id != asked.deployed_model_id]
        if len(kept) == len(endpoint.deployed_models):
            raise Refused(404, "NOT_FOUND", f"DeployedModel {asked.deployed_model_id} is not found.")
        split = dict(asked.traffic_split) or dict(endpoint.traffic_split)
        if split.pop(asked.deployed_model_id, 0) and kept:
            raise Refused(400, "FAILED_PRECONDITION", "The DeployedModel to be undeployed has non-zero traffic.")
        if kept:
            _check_split(split, {each.id for each in kept}, is_given=True)

        def remove() -> api.UndeployModelResponse:
            endpoint.deployed_models, endpoint.traffic_split = kept, split
            self.touch(endpoint)
            return api.UndeployModelResponse()

        return self._operate(f"endpoints/{number}", remove)

    def _patch_endpoint(self, request: Request, number: str) -> Answer:
        self.require("aiplatform.endpoints.update", f"{self._parent}/endpoints/{number}")
        if request.query.get("updateMask") != "trafficSplit":
            raise invalid(f"updateMask {request.query.get('updateMask')!r} is not supported.")
        asked, endpoint = parse(request.json(), api.Endpoint), self._endpoint(number)
        if asked.etag and asked.etag != endpoint.etag:
            raise Refused(409, "ABORTED", "The etag does not match.")
        _check_split(dict(asked.traffic_split), {each.id for each in endpoint.deployed_models}, is_given=True)
        endpoint.traffic_split = dict(asked.traffic_split)
        self.touch(endpoint)
        return answer_message(endpoint)

    # What lists and long operations share.

    def _operate(self, resource: str, change: Callable[[], Any]) -> Answer:
        """The answer with an operation that is running: it ends, and only then changes something, when looked at."""

        def end() -> dict[str, Any]:
            if self.fail_operations:
                return {"error": {"code": code_pb2.INTERNAL, "message": self.fail_operations}}
            made = change()
            if made is None:
                return {"response": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
            kind_url = f"type.googleapis.com/google.cloud.aiplatform.v1.{type(made).__name__}"
            return {"response": {"@type": kind_url, **fields_of(made)}}

        name = f"{self._parent}/{resource}/operations/{len(self._operations) + 1}"
        self._operations[name] = _Operation(end, self.looks_until_done)
        return answer_json({"name": name})

    def _look_at_operation(self, name: str) -> dict[str, Any]:
        operation = self._operations[name]
        operation.looks_left -= 1
        if operation.ended is None and operation.looks_left <= 0:
            operation.ended = {"done": True, **operation.change()}
        return {"name": name, **(operation.ended or {})}

    def _get_operation(self, _: Request, path: str) -> Answer:
        name = f"{self._parent}{path}"
        self.require("aiplatform.operations.get", name)
        if name not in self._operations:
            raise Refused(404, "NOT_FOUND", f"Operation not found: {name}")
        return answer_json(self._look_at_operation(name))

    def _list_operations(self, _: Request, resource: str) -> Answer:
        self.require("aiplatform.operations.list", f"{self._parent}{resource}")
        names = [name for name in self._operations if name.startswith(f"{self._parent}{resource}/operations/")]
        before = [{"name": name, **(self._operations[name].ended or {})} for name in names]
        for name in names:
            self._look_at_operation(name)
        return answer_json({"operations": before})


def _check_name(resource: Any) -> None:
    if not 1 <= len(resource.display_name) <= 128:
        raise invalid("display_name must be between 1 and 128 characters.")
    if len(resource.labels) > 64:
        raise invalid("At most 64 labels are allowed.")
    for key, value in resource.labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise invalid(f"Label {key}={value} is invalid: keys start with a lowercase letter; keys and values hold "
                           "lowercase letters, digits, underscores and dashes, at most 63.")  # fmt: skip


def _check_job(job: api.CustomJob) -> None:
    _check_name(job)
    pools = job.job_spec.worker_pool_specs
    if not pools:
        raise invalid("job_spec.worker_pool_specs: at least one is required.")
    for pool in pools:
        _check_machine(pool.machine_spec)
        if pool.replica_count < 1:
            raise invalid("replica_count must be at least 1.")
        if not pool.container_spec.image_uri:
            raise invalid("container_spec.image_uri: Required field is not set.")
        names = [variable.name for variable in pool.container_spec.env]
        if len(set(names)) < len(names) or not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
            raise invalid("container_spec.env: names must be unique C identifiers.")
    timeout = job.job_spec.scheduling.timeout.total_seconds()
    if not 0 <= timeout <= _LONGEST_TIMEOUT:
        raise invalid(f"scheduling.timeout must be at most {_LONGEST_TIMEOUT}s.")
    if (network := job.job_spec.network) and not re.fullmatch(r"projects/\d+/global/networks/[a-z0-9-]+", network):
        raise invalid(f"network {network} must be projects/<number>/global/networks/<name>.")


def _check_machine(machine: api.MachineSpec) -> None:
    if machine.machine_type not in _CPUS:
        raise invalid(f'Machine type "{machine.machine_type}" is not supported.')
    if machine.accelerator_count and not _TAKES_ACCELERATORS.match(machine.machine_type):
        raise invalid(f"Accelerators are not supported for machine type {machine.machine_type}.")
    if bool(machine.accelerator_count) != bool(machine.accelerator_type):
        raise invalid("accelerator_type and accelerator_count must be set together.")


def _check_aliases(aliases: Sequence[str]) -> None:
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            raise invalid(f"Invalid version alias: {alias}")


def _move_aliases(versions: Sequence[api.Model], model: api.Model, aliases: Sequence[str]) -> None:
    """An alias names one version; ``-alias`` takes it away."""
    taken = {alias.removeprefix("-") for alias in aliases}
    for other in versions:
        other.version_aliases = [alias for alias in other.version_aliases if alias not in taken]
    kept = [alias for alias in model.version_aliases if alias not in taken]
    model.version_aliases = [*kept, *(alias for alias in dict.fromkeys(aliases) if not alias.startswith("-"))]


def _check_split(split: Mapping[str, int], known: set[str], *, is_given: bool) -> None:
    if not is_given:
        return
    if set(split) - known:
        raise invalid(f"Traffic split refers to deployed models that are not there: {sorted(set(split) - known)}")
    if sum(split.values()) != 100 or min(split.values()) < 0:
        raise invalid("The sum of traffic split percentages must be 100.")


def _filter_of(text: str) -> Callable[[Any], bool]:
    """The part of the service's filter language that is a conjunction of equalities."""
    terms = [_TERM.fullmatch(term.strip()) for term in re.split(r"\s+AND\s+", text)] if text.strip() else []
    if not all(terms):
        raise invalid(f"Invalid filter: {text}")

    def keep(resource: Any) -> bool:
        for term in filter(None, terms):
            field_name, value = term["field"], term["value"]
            if field_name == "state":
                actual = resource.state.name
            elif field_name == "display_name":
                actual = resource.display_name
            else:
                actual = resource.labels.get(field_name.removeprefix("labels."))
            if actual != value:
                return False
        return True

    return keep


def _cpus(job: api.CustomJob) -> int:
    return sum(_CPUS[pool.machine_spec.machine_type] * pool.replica_count for pool in job.job_spec.worker_pool_specs)


def _kill(one: _Job) -> None:
    if one.process is not None:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()
