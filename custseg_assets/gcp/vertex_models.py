"""Model versions on Vertex AI: one for each release, registered with the serving image and deployed to an endpoint.

A version is found again by the label that names its release, so registering twice changes nothing. Endpoints are not
created here, because an endpoint costs money by the hour even without requests. The command that calls this is
``commands.vertex``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
from google.api_core.retry import Retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform_v1 as api
from requests.exceptions import RequestException

from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.gcp.clients import storage_client, vertex_client
from custseg_assets.gcp.folders import upload_folder
from custseg_assets.settings import GcpSettings
from custseg_assets.stores.releases import ReleaseManifest

if TYPE_CHECKING:
    from pathlib import Path

CHAMPION = "champion"
_RELEASE_LABEL, _MODEL_LABEL = "custseg-release", "custseg-model"
_CALL_SECONDS = 60.0
_DEPLOY_SECONDS = 45 * 60.0
"""How long a deployment may take; Vertex AI needs ten to twenty minutes to start a machine for a model."""

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
        polling: how often an operation is looked at; as Google's client does it without.
    """

    def __init__(self, gcp: GcpSettings, polling: Retry | None = None) -> None:
        if gcp.serving.image is None or gcp.serving.endpoint is None:
            raise BadInputError(
                "[gcp.serving] without an image or an endpoint",
                "the image of the service, and the number of an endpoint that is there",
                "Make an endpoint once: gcloud ai endpoints create --region=LOCATION --display-name=custseg",
            )
        self._gcp, self._serving = gcp, gcp.serving
        self._polling = polling
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
        """Register a release as a model version, unless it is registered already.

        Args:
            folder: of the release.
            manifest: the release's manifest, verified.

        Returns:
            Name of the version, ``projects/…/models/ID@VERSION``.

        Raises:
            RunFailedError: a request to Vertex AI or to the bucket failed.
        """
        with _explain_errors(f"registering {manifest.release_id}"):
            versions = self._versions_of(manifest.release_id)
            if versions:
                return versions[0]
            place = f"gs://{self._gcp.bucket}/{self._gcp.prefix.strip('/')}/models"
            with contextlib.closing(storage_client(self._gcp)) as storage:
                upload_folder(storage, folder, f"{place}/{manifest.release_id}")
                schema = storage.bucket(self._gcp.bucket).blob(f"{self._gcp.prefix.strip('/')}/models/metrics.yaml")
                schema.upload_from_string(_SCHEMA, content_type="application/yaml")
            operation = self._models.upload_model(
                {
                    "parent": self._parent,
                    "model": self._model_of(manifest, f"{place}/{manifest.release_id}"),
                    **self._parent_or_id(),
                },
                timeout=_CALL_SECONDS,
            )
            made = self._wait_for(operation)
            name = f"{made.model}@{made.model_version_id}"
            figures = {metric: value for metric, value in manifest.metrics.items() if value is not None}
            evaluation = {"metrics_schema_uri": f"{place}/metrics.yaml", "metrics": figures}
            self._models.import_model_evaluation(
                {"parent": name, "model_evaluation": {"display_name": manifest.model_version, **evaluation}},
                timeout=_CALL_SECONDS,
            )
            return name

    def deploy_canary(self, version: str) -> Mapping[str, int]:
        """Deploy a version with the configured share of the traffic; with all of it if nothing else is deployed.

        Returns:
            Version → share of the traffic, in percent.

        Raises:
            RunFailedError: the endpoint does not exist, or a request to Vertex AI failed.
        """
        with _explain_errors(f"deploying {version}"):
            endpoint = self._get_endpoint()
            if version in _deployments(endpoint):
                return _traffic_split(endpoint)
            deployed = {
                "model": version,
                "display_name": version.rsplit("/", 1)[-1],
                "dedicated_resources": {
                    "machine_spec": {"machine_type": self._serving.machine_type},
                    "min_replica_count": self._serving.n_replicas,
                    "max_replica_count": self._serving.n_replicas,
                },
                "service_account": self._serving.service_account or "",
            }
            # "0" stands for the one that is being deployed.
            split = {"0": 100} if not endpoint.deployed_models else _make_room(endpoint, self._serving.canary_percent)
            operation = self._endpoints.deploy_model(
                {"endpoint": self._endpoint, "deployed_model": deployed, "traffic_split": split}, timeout=_CALL_SECONDS
            )
            self._wait_for(operation)
            return _traffic_split(self._get_endpoint())

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
            found = self._models.list_model_versions(request, timeout=_CALL_SECONDS)
            return [f"{self._model}@{model.version_id}" for model in found]
        except NotFound:
            return []

    def _parent_or_id(self) -> dict[str, str]:
        """The field that makes an upload another version of an existing model, or the first version of a new one."""
        try:
            self._models.get_model(name=self._model, timeout=_CALL_SECONDS)
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
        endpoint: api.Endpoint = self._endpoints.get_endpoint(name=self._endpoint, timeout=_CALL_SECONDS)
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
        self._endpoints.update_endpoint(
            # With the etag that was read, a change that someone else has made since is not overwritten.
            endpoint={"name": self._endpoint, "traffic_split": {deployed.id: 100}, "etag": endpoint.etag},
            update_mask={"paths": ["traffic_split"]},
            timeout=_CALL_SECONDS,
        )
        version = _version_of(deployed)
        self._models.merge_version_aliases(name=version, version_aliases=[CHAMPION], timeout=_CALL_SECONDS)

    def _undeploy(self, deployed: api.DeployedModel) -> None:
        request = {"endpoint": self._endpoint, "deployed_model_id": deployed.id}
        self._wait_for(self._endpoints.undeploy_model(request, timeout=_CALL_SECONDS))

    def _wait_for(self, operation: Any) -> Any:
        how = {"polling": self._polling} if self._polling else {}
        return operation.result(timeout=_DEPLOY_SECONDS, **how)


def _other_deployments(endpoint: api.Endpoint, mine: api.DeployedModel) -> list[api.DeployedModel]:
    """All other deployments, by traffic and then by time: the last is the one to go back to."""
    others = [each for each in endpoint.deployed_models if each.id != mine.id]
    return sorted(others, key=lambda each: (endpoint.traffic_split.get(each.id, 0), each.create_time.timestamp()))


def _deployments(endpoint: api.Endpoint) -> dict[str, api.DeployedModel]:
    """The deployments of an endpoint, by version."""
    return {_version_of(each): each for each in endpoint.deployed_models}


def _version_of(deployed: api.DeployedModel) -> str:
    return f"{deployed.model.partition('@')[0]}@{deployed.model_version_id}"


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
    from custseg_assets.gcp.vertex_pipes import explain_call

    try:
        yield
    except (GoogleAPICallError, RetryError, GoogleAuthError, RequestException) as error:
        raise RunFailedError(
            f"Vertex AI: {explain_call(error, doing)} `custseg vertex status` says what serves now."
        ) from error
