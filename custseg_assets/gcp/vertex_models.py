"""Releases as model versions on Vertex AI: registered with the serving image, deployed to an endpoint that is there.

A version is one release, found again by its label, so registering twice changes nothing. The endpoint is the user's:
none is made here, because an endpoint costs money by the hour whether or not anyone asks it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
from google.api_core.retry import Retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform_v1 as api
from requests.exceptions import RequestException

from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.gcp.clients import storage_client, vertex_client
from custseg_assets.gcp.folders import upload
from custseg_assets.settings import GcpSettings, Settings
from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from custseg_assets.stores.releases import ReleaseManifest

if TYPE_CHECKING:
    from pathlib import Path

CHAMPION = "champion"
_RELEASE_LABEL, _MODEL_LABEL = "custseg-release", "custseg-model"
_CALL_SECONDS = 60.0
_DEPLOY_SECONDS = 45 * 60.0
"""Vertex AI takes ten to twenty minutes to start a machine for a model."""

# What the figures of a version are: Vertex AI has no schema of its own for clusterings.
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
        polling: how an operation is waited for.
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
        """The version of a release, made where there is none.

        Args:
            folder: of the release.
            manifest: its manifest, verified.

        Returns:
            Name of the version, ``projects/…/models/ID@VERSION``.

        Raises:
            RunFailedError: Vertex AI or the bucket did not do it.
        """
        with _explained(f"registering {manifest.release_id}"):
            versions = self._versions(manifest.release_id)
            if versions:
                return versions[0]
            place = f"gs://{self._gcp.bucket}/{self._gcp.prefix.strip('/')}/models"
            with contextlib.closing(storage_client(self._gcp)) as storage:
                upload(storage, folder, f"{place}/{manifest.release_id}")
                schema = storage.bucket(self._gcp.bucket).blob(f"{self._gcp.prefix.strip('/')}/models/metrics.yaml")
                schema.upload_from_string(_SCHEMA, content_type="application/yaml")
            operation = self._models.upload_model(
                {
                    "parent": self._parent,
                    "model": self._described(manifest, f"{place}/{manifest.release_id}"),
                    **self._lineage(),
                },
                timeout=_CALL_SECONDS,
            )
            made = self._result(operation)
            name = f"{made.model}@{made.model_version_id}"
            figures = {metric: value for metric, value in manifest.metrics.items() if value is not None}
            evaluation = {"metrics_schema_uri": f"{place}/metrics.yaml", "metrics": figures}
            self._models.import_model_evaluation(
                {"parent": name, "model_evaluation": {"display_name": manifest.model_version, **evaluation}},
                timeout=_CALL_SECONDS,
            )
            return name

    def canary(self, version: str) -> Mapping[str, int]:
        """Deploy a version beside what is there, with the configured share of the traffic; all of it where none is.

        Returns:
            Version → share of the traffic, in percent.

        Raises:
            RunFailedError: the endpoint is not there, or Vertex AI did not do it.
        """
        with _explained(f"deploying {version}"):
            endpoint = self._get_endpoint()
            if version in _deployed(endpoint):
                return _traffic(endpoint)
            machine = {"machine_type": self._serving.machine_type}
            deployed = {
                "model": version,
                "display_name": version.rsplit("/", 1)[-1],
                "dedicated_resources": {
                    "machine_spec": machine,
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
            self._result(operation)
            return _traffic(self._get_endpoint())

    def full(self, version: str) -> Mapping[str, int]:
        """Give a deployed version all the traffic and the alias ``champion``.

        What had most of it before stays deployed without traffic, as the way back; what is older is undeployed.

        Raises:
            BadInputError: the version is not deployed.
            RunFailedError: Vertex AI did not do it.
        """
        with _explained(f"giving {version} all traffic"):
            endpoint = self._get_endpoint()
            mine = self._required(endpoint, version)
            *older, _ = sorted(_others(endpoint, mine), key=_rank(endpoint)) or [None]
            self._send_all_to(endpoint, mine)
            self._models.merge_version_aliases(name=version, version_aliases=[CHAMPION], timeout=_CALL_SECONDS)
            for each in older:
                self._undeploy(each)
            return _traffic(self._get_endpoint())

    def back(self) -> Mapping[str, int]:
        """Take the version that was deployed last off the endpoint; the traffic goes to the one before it.

        Raises:
            BadInputError: nothing else is deployed.
            RunFailedError: Vertex AI did not do it.
        """
        with _explained("going back"):
            endpoint = self._get_endpoint()
            deployed = sorted(endpoint.deployed_models, key=lambda each: each.create_time.timestamp())
            if len(deployed) < 2:
                raise BadInputError(
                    f"{self._endpoint} with {', '.join(_deployed(endpoint)) or 'nothing deployed'}",
                    "another version to go back to",
                    "Deploy an earlier release first: custseg rollback, then custseg vertex canary.",
                )
            newest = deployed[-1]
            before = max(_others(endpoint, newest), key=_rank(endpoint))
            self._send_all_to(endpoint, before)
            self._models.merge_version_aliases(
                name=_version_of(before), version_aliases=[CHAMPION], timeout=_CALL_SECONDS
            )
            self._undeploy(newest)
            return _traffic(self._get_endpoint())

    def traffic(self) -> Mapping[str, int]:
        """Version → share of the endpoint's traffic, in percent.

        Raises:
            RunFailedError: the endpoint is not there, or out of reach.
        """
        with _explained("looking at the endpoint"):
            return _traffic(self._get_endpoint())

    def _versions(self, release_id: str) -> list[str]:
        request = {"name": self._model, "filter": f'labels.{_RELEASE_LABEL}="{release_id}"'}
        try:
            found = self._models.list_model_versions(request, timeout=_CALL_SECONDS)
            return [f"{self._model}@{model.version_id}" for model in found]
        except NotFound:
            return []

    def _lineage(self) -> dict[str, str]:
        """Whether the model is there and gets another version, or is made with its first."""
        try:
            self._models.get_model(name=self._model, timeout=_CALL_SECONDS)
        except NotFound:
            return {"model_id": self._serving.model_id}
        return {"parent_model": self._model}

    def _described(self, manifest: ReleaseManifest, place: str) -> dict[str, Any]:
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

    def _required(self, endpoint: api.Endpoint, version: str) -> api.DeployedModel:
        deployed = _deployed(endpoint)
        if version not in deployed:
            raise BadInputError(
                f"{version} is not deployed to {self._endpoint}",
                f"one of {', '.join(deployed) or 'none: nothing is deployed there'}",
                "Deploy it first: custseg vertex canary.",
            )
        return deployed[version]

    def _send_all_to(self, endpoint: api.Endpoint, deployed: api.DeployedModel) -> None:
        self._endpoints.update_endpoint(
            # The tag of what was read: someone else's change of the traffic in between is not overwritten.
            endpoint={"name": self._endpoint, "traffic_split": {deployed.id: 100}, "etag": endpoint.etag},
            update_mask={"paths": ["traffic_split"]},
            timeout=_CALL_SECONDS,
        )

    def _undeploy(self, deployed: api.DeployedModel) -> None:
        request = {"endpoint": self._endpoint, "deployed_model_id": deployed.id}
        self._result(self._endpoints.undeploy_model(request, timeout=_CALL_SECONDS))

    def _result(self, operation: Any) -> Any:
        how = {"polling": self._polling} if self._polling else {}
        return operation.result(timeout=_DEPLOY_SECONDS, **how)


def serve_on_vertex(settings: Settings, verb: str) -> str:
    """Do one step of bringing the home's release to the endpoint, and say how the traffic is split then.

    Args:
        settings: of the home, with ``[gcp.serving]``.
        verb: ``canary``, ``full``, ``back`` or ``status``.

    Raises:
        BadInputError: there is no release, or nothing to go back to.
        RunFailedError: the release is damaged, or Vertex AI did not do it.
    """
    with VertexModels(settings.gcp) as models:
        if verb == "status":
            traffic = models.traffic()
        elif verb == "back":
            traffic = models.back()
        else:
            version = models.register(*_current_release(Home(settings.home).releases))
            traffic = models.canary(version) if verb == "canary" else models.full(version)
    lines = [f"{share:>3} %  {version}" for version, share in sorted(traffic.items(), key=lambda item: -item[1])]
    return "\n".join(lines or ["nothing is deployed"])


def _current_release(root: Path) -> tuple[Path, ReleaseManifest]:
    release_id = releases.current(root)
    if release_id is None:
        raise BadInputError(f"{root} has no release", "a home that has been run", "Run custseg run first.")
    return root / release_id, releases.verify(root, release_id)


def _others(endpoint: api.Endpoint, mine: api.DeployedModel) -> list[api.DeployedModel]:
    return [each for each in endpoint.deployed_models if each.id != mine.id]


def _rank(endpoint: api.Endpoint) -> Callable[[api.DeployedModel], Any]:
    """Orders deployments by their traffic, then by their age: the last is what one would go back to."""
    return lambda each: (endpoint.traffic_split.get(each.id, 0), each.create_time.timestamp())


def _deployed(endpoint: api.Endpoint) -> dict[str, api.DeployedModel]:
    """Version → its deployment."""
    return {_version_of(each): each for each in endpoint.deployed_models}


def _version_of(deployed: api.DeployedModel) -> str:
    return f"{deployed.model.partition('@')[0]}@{deployed.model_version_id}"


def _traffic(endpoint: api.Endpoint) -> dict[str, int]:
    return {version: endpoint.traffic_split.get(each.id, 0) for version, each in _deployed(endpoint).items()}


def _make_room(endpoint: api.Endpoint, percent: int) -> dict[str, int]:
    """A traffic split with a share for a newcomer, taken from the others by their own shares; it adds up to 100."""
    held = {each.id: endpoint.traffic_split.get(each.id, 0) for each in endpoint.deployed_models}
    split = {name: share * (100 - percent) // 100 for name, share in held.items()}
    largest = max(held, key=lambda name: held[name])
    split[largest] += 100 - percent - sum(split.values())
    return {"0": percent, **split}


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """What went wrong, in the words of what was being done."""
    from custseg_assets.gcp.vertex_pipes import explain_call

    try:
        yield
    except (GoogleAPICallError, RetryError, GoogleAuthError, RequestException) as error:
        raise RunFailedError(
            f"Vertex AI: {explain_call(error, doing)} `custseg vertex status` says what serves now."
        ) from error
