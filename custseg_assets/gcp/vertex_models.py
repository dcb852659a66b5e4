"""Model versions on Vertex AI: one for each release, registered with the serving image and deployed to an endpoint.

A version is found again by the label that names its release, so registering twice changes nothing. Before anything is
started on the model or the endpoint, what already runs there is waited for and looked at: a lost answer or a killed
command leads to no second version and no second machine. Versions are compared as ``models/ID@VERSION``, because the
service names a project by its number whatever it was asked by. Endpoints are not created here, because an endpoint
costs money by the hour even without requests. The command that calls this is ``commands.vertex``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound, RetryError
from google.api_core.future.polling import DEFAULT_POLLING
from google.api_core.retry import Retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform_v1 as api
from requests.exceptions import RequestException

from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.gcp.clients import storage_client, vertex_client
from custseg_assets.gcp.cloud_jobs import is_transient
from custseg_assets.gcp.folders import upload_folder
from custseg_assets.gcp.vertex_pipes import explain_call
from custseg_assets.settings import GcpSettings
from custseg_assets.stores.releases import ReleaseManifest

if TYPE_CHECKING:
    from pathlib import Path

CHAMPION = "champion"
_RELEASE_LABEL, _MODEL_LABEL = "custseg-release", "custseg-model"
_CALL_SECONDS = 60.0
_DEPLOY_SECONDS = 45 * 60.0
"""How long a deployment may take; Vertex AI needs ten to twenty minutes to start a machine for a model."""
_PATIENCE_SECONDS = 120.0
"""How long a request is tried again when Vertex AI is busy or cannot be reached."""

# The schema of a version's metrics: Vertex AI has none of its own for clusterings.
_SCHEMA = """\
title: ClusteringMetrics
type: object
description: How a segmentation came off on the snapshot it was trained on; the model card says what each figure means.
additionalProperties: {type: number}
"""


class VertexModels:
    """The model of a project and its deployments on one endpoint.

    Args:
        gcp: with project, location, bucket, a serving image and an endpoint.
        poll_seconds: how often an operation is looked at.
    """

    def __init__(self, gcp: GcpSettings, poll_seconds: float = 10.0) -> None:
        if gcp.serving.image is None or gcp.serving.endpoint is None:
            raise BadInputError(
                "[gcp.serving] without an image or an endpoint",
                "the image of the service, and the number of an endpoint that is there",
                "Make an endpoint once: gcloud ai endpoints create --region=LOCATION --display-name=custseg",
            )
        self._gcp, self._serving = gcp, gcp.serving
        self._poll_seconds = poll_seconds
        self._retry = Retry(is_transient, initial=min(1.0, poll_seconds), timeout=_PATIENCE_SECONDS)
        self._parent = f"projects/{gcp.project}/locations/{gcp.location}"
        self._model = f"{self._parent}/models/{gcp.serving.model_id}"
        self._endpoint = f"{self._parent}/endpoints/{str(gcp.serving.endpoint).rsplit('/', 1)[-1]}"
        self._models = vertex_client(api.ModelServiceClient, gcp)
        self._endpoints = vertex_client(api.EndpointServiceClient, gcp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._models.transport.close()
        self._endpoints.transport.close()

    def register(self, folder: Path, manifest: ReleaseManifest) -> str:
        """Register a release as a model version with its figures, unless it is registered already.

        Args:
            folder: of the release.
            manifest: the release's manifest, verified.

        Returns:
            The version, ``models/ID@VERSION``.

        Raises:
            RunFailedError: a request to Vertex AI or to the bucket failed.
        """
        with _explain_errors(f"registering {manifest.release_id}"):
            if not self._versions_of(manifest.release_id):
                self._upload(folder, manifest)
            versions = self._versions_of(manifest.release_id)
            if not versions:
                raise RunFailedError(f"Vertex AI does not list {manifest.release_id} yet. Run it again in a minute.")
            self._import_figures(versions[0], manifest)
            return versions[0]

    def _upload(self, folder: Path, manifest: ReleaseManifest) -> None:
        place = f"gs://{self._gcp.bucket}/{self._gcp.prefix.strip('/')}/models"
        with contextlib.closing(storage_client(self._gcp)) as storage:
            upload_folder(storage, folder, f"{place}/{manifest.release_id}")
            schema = storage.bucket(self._gcp.bucket).blob(f"{self._gcp.prefix.strip('/')}/models/metrics.yaml")
            schema.upload_from_string(_SCHEMA, content_type="application/yaml")
        model = self._model_of(manifest, f"{place}/{manifest.release_id}")
        self._operate(
            self._models,
            self._model,
            lambda: self._models.upload_model(
                {"parent": self._parent, "model": model, **self._parent_or_id()}, timeout=_CALL_SECONDS
            ),
            is_done=lambda: bool(self._versions_of(manifest.release_id)),
        )

    def _import_figures(self, version: str, manifest: ReleaseManifest) -> None:
        name = f"{self._parent}/{version}"
        figures = {metric: value for metric, value in manifest.metrics.items() if value is not None}
        place = f"gs://{self._gcp.bucket}/{self._gcp.prefix.strip('/')}/models"
        evaluation = {"display_name": manifest.model_version, "metrics": figures}

        def import_once() -> None:
            there = self._models.list_model_evaluations(parent=name, retry=self._retry, timeout=_CALL_SECONDS)
            if not any(each.display_name == manifest.model_version for each in there):
                self._models.import_model_evaluation(
                    {"parent": name, "model_evaluation": {**evaluation, "metrics_schema_uri": f"{place}/metrics.yaml"}},
                    timeout=_CALL_SECONDS,
                )

        self._retry(import_once)()

    def deploy_canary(self, version: str) -> Mapping[str, int]:
        """Deploy a version with the configured share of the traffic; with all of it if nothing else is deployed.

        Args:
            version: ``models/ID@VERSION``.

        Returns:
            Version → share of the traffic, in percent.

        Raises:
            RunFailedError: the endpoint does not exist, or a request to Vertex AI failed.
        """
        with _explain_errors(f"deploying {version}"):
            self._operate(
                self._endpoints,
                self._endpoint,
                lambda: self._deploy(version),
                is_done=lambda: version in _deployments(self._get_endpoint()),
            )
            return _traffic_split(self._get_endpoint())

    def _deploy(self, version: str) -> Any:
        deployed = {
            "model": f"{self._parent}/{version}",
            "display_name": version.rsplit("/", 1)[-1],
            "dedicated_resources": {
                "machine_spec": {"machine_type": self._serving.machine_type},
                "min_replica_count": self._serving.n_replicas,
                "max_replica_count": self._serving.n_replicas,
            },
            "service_account": self._serving.service_account or "",
        }
        endpoint = self._get_endpoint()
        # "0" stands for the one that is being deployed.
        split = {"0": 100} if not endpoint.deployed_models else _make_room(endpoint, self._serving.canary_percent)
        return self._endpoints.deploy_model(
            {"endpoint": self._endpoint, "deployed_model": deployed, "traffic_split": split}, timeout=_CALL_SECONDS
        )

    def send_all_traffic(self, version: str) -> Mapping[str, int]:
        """Give a deployed version all the traffic and the alias ``champion``.

        The version that had most traffic before stays deployed without traffic; older ones are undeployed.

        Raises:
            BadInputError: the version is not deployed.
            RunFailedError: a request to Vertex AI failed.
        """
        with _explain_errors(f"giving {version} all traffic"):
            endpoint = self._get_endpoint()
            mine = self._get_deployment(endpoint, version)
            older = _other_deployments(endpoint, mine)[:-1]
            self._make_champion(endpoint, mine)
            for each in older:
                self._undeploy(each)
            return _traffic_split(self._get_endpoint())

    def roll_back(self) -> Mapping[str, int]:
        """Undeploy the version that was deployed last and give its traffic to the version before it.

        Raises:
            BadInputError: nothing else is deployed.
            RunFailedError: a request to Vertex AI failed.
        """
        with _explain_errors("going back"):
            endpoint = self._get_endpoint()
            deployed = sorted(endpoint.deployed_models, key=lambda each: each.create_time.timestamp())
            if len(deployed) < 2:
                raise BadInputError(
                    f"{self._endpoint} with {', '.join(_deployments(endpoint)) or 'nothing deployed'}",
                    "another version to go back to",
                    "Deploy an earlier release first: custseg rollback, then custseg vertex canary.",
                )
            newest = deployed[-1]
            self._make_champion(endpoint, _other_deployments(endpoint, newest)[-1])
            self._undeploy(newest)
            return _traffic_split(self._get_endpoint())

    def get_traffic(self) -> Mapping[str, int]:
        """The share of the endpoint's traffic that each version has, in percent.

        Raises:
            RunFailedError: the endpoint does not exist or cannot be reached.
        """
        with _explain_errors("looking at the endpoint"):
            return _traffic_split(self._get_endpoint())

    def _versions_of(self, release_id: str) -> list[str]:
        request = {"name": self._model, "filter": f'labels.{_RELEASE_LABEL}="{release_id}"'}
        try:
            found = self._models.list_model_versions(request, retry=self._retry, timeout=_CALL_SECONDS)
            return [f"models/{self._serving.model_id}@{model.version_id}" for model in found]
        except NotFound:
            return []

    def _parent_or_id(self) -> dict[str, str]:
        """The field that makes an upload another version of an existing model, or the first version of a new one."""
        try:
            self._models.get_model(name=self._model, retry=self._retry, timeout=_CALL_SECONDS)
        except NotFound:
            return {"model_id": self._serving.model_id}
        return {"parent_model": self._model}

    def _model_of(self, manifest: ReleaseManifest, place: str) -> dict[str, Any]:
        figures = json.dumps({name: value for name, value in manifest.metrics.items() if value is not None})
        return {
            "display_name": self._serving.model_id,
            "version_description": f"{manifest.model_version}, as of {manifest.as_of:%Y-%m-%d}; {figures}",
            "labels": {_RELEASE_LABEL: manifest.release_id, _MODEL_LABEL: manifest.model_version},
            "artifact_uri": place,
            "container_spec": {
                "image_uri": str(self._serving.image),
                "ports": [{"container_port": 8080}],
                "health_route": "/vertex/health",
                "predict_route": "/vertex/predict",
            },
        }

    def _get_endpoint(self) -> api.Endpoint:
        endpoint: api.Endpoint = self._endpoints.get_endpoint(
            name=self._endpoint, retry=self._retry, timeout=_CALL_SECONDS
        )
        return endpoint

    def _get_deployment(self, endpoint: api.Endpoint, version: str) -> api.DeployedModel:
        deployed = _deployments(endpoint)
        if version not in deployed:
            raise BadInputError(
                f"{version} is not deployed to {self._endpoint}",
                f"one of {', '.join(deployed) or 'none: nothing is deployed there'}",
                "Deploy it first: custseg vertex canary.",
            )
        return deployed[version]

    def _make_champion(self, endpoint: api.Endpoint, deployed: api.DeployedModel) -> None:
        split = {deployed.id: 100}
        try:
            self._endpoints.update_endpoint(
                # With the etag that was read, a change that someone else has made since is not overwritten.
                endpoint={"name": self._endpoint, "traffic_split": split, "etag": endpoint.etag},
                update_mask={"paths": ["traffic_split"]},
                retry=self._retry,
                timeout=_CALL_SECONDS,
            )
        except Conflict:
            # The request had arrived although its answer was lost, or somebody wanted the same.
            now = self._get_endpoint().traffic_split
            if {name: share for name, share in now.items() if share} != split:
                raise
        self._models.merge_version_aliases(
            name=f"{self._parent}/{_version_of(deployed)}",
            version_aliases=[CHAMPION],
            retry=self._retry,
            timeout=_CALL_SECONDS,
        )

    def _undeploy(self, deployed: api.DeployedModel) -> None:
        request = {"endpoint": self._endpoint, "deployed_model_id": deployed.id}
        self._operate(
            self._endpoints,
            self._endpoint,
            lambda: self._endpoints.undeploy_model(request, timeout=_CALL_SECONDS),
            is_done=lambda: deployed.id not in {each.id for each in self._get_endpoint().deployed_models},
        )

    def _operate(self, client: Any, resource: str, start: Callable[[], Any], is_done: Callable[[], bool]) -> None:
        """Start a long operation, unless it is done already, and wait for its end.

        What runs on the resource is waited for first: after a lost answer or a killed command that is this operation.

        Args:
            client: of the service that has the resource.
            resource: full name of the model or endpoint.
            start: sends the request.
            is_done: whether what the operation is for is there.
        """

        def start_once() -> Any:
            self._wait_for_others(client, resource)
            return None if is_done() else start()

        if (operation := self._retry(start_once)()) is not None:
            often = DEFAULT_POLLING.with_delay(initial=self._poll_seconds, maximum=self._poll_seconds)
            operation.result(timeout=_DEPLOY_SECONDS, retry=self._retry, polling=often)

    def _wait_for_others(self, client: Any, resource: str) -> None:
        deadline = time.monotonic() + _DEPLOY_SECONDS
        while self._is_busy(client, resource):
            if time.monotonic() > deadline:
                raise RunFailedError(
                    f"Vertex AI: what was started on {resource} has not ended for {_DEPLOY_SECONDS / 60:.0f} minutes. "
                    "Look at its operations in the console, then run it again."
                )
            time.sleep(self._poll_seconds)

    def _is_busy(self, client: Any, resource: str) -> bool:
        """Whether a long operation is running on a model or an endpoint; not if there is no such model yet."""
        request: dict[str, Any] = {"name": resource}
        while True:
            try:
                page = client.list_operations(request, retry=self._retry, timeout=_CALL_SECONDS)
            except NotFound:
                return False
            if any(not each.done for each in page.operations):
                return True
            if not page.next_page_token:
                return False
            request["page_token"] = page.next_page_token


def _other_deployments(endpoint: api.Endpoint, mine: api.DeployedModel) -> list[api.DeployedModel]:
    """All other deployments, by traffic and then by time: the last is the one to go back to."""
    others = [each for each in endpoint.deployed_models if each.id != mine.id]
    return sorted(others, key=lambda each: (endpoint.traffic_split.get(each.id, 0), each.create_time.timestamp()))


def _deployments(endpoint: api.Endpoint) -> dict[str, api.DeployedModel]:
    """The deployments of an endpoint, by version."""
    return {_version_of(each): each for each in endpoint.deployed_models}


def _version_of(deployed: api.DeployedModel) -> str:
    """The deployed version as ``models/ID@VERSION``, however the service writes its project."""
    return f"models/{deployed.model.rpartition('/')[2].partition('@')[0]}@{deployed.model_version_id}"


def _traffic_split(endpoint: api.Endpoint) -> dict[str, int]:
    return {version: endpoint.traffic_split.get(each.id, 0) for version, each in _deployments(endpoint).items()}


def _make_room(endpoint: api.Endpoint, percent: int) -> dict[str, int]:
    """A traffic split with a share for a new deployment, taken from the others in proportion; it adds up to 100."""
    before = {each.id: endpoint.traffic_split.get(each.id, 0) for each in endpoint.deployed_models}
    split = {name: share * (100 - percent) // 100 for name, share in before.items()}
    largest = max(before, key=lambda name: before[name])
    split[largest] += 100 - percent - sum(split.values())
    return {"0": percent, **split}


@contextlib.contextmanager
def _explain_errors(doing: str) -> Iterator[None]:
    """Turn the errors of Google's client into a ``RunFailedError`` that says what was being done."""
    try:
        yield
    except (GoogleAPICallError, RetryError, GoogleAuthError, RequestException) as error:
        raise RunFailedError(
            f"Vertex AI: {explain_call(error, doing)} `custseg vertex status` says what serves now."
        ) from error
