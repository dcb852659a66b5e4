"""A release becomes a model version, gets a share of an endpoint's traffic, then all of it, and can be taken back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform_v1 as api

from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.gcp.clients import vertex_client
from custseg_assets.gcp.vertex_models import VertexModels, _make_room
from custseg_assets.settings import GcpServingSettings, GcpSettings
from custseg_assets.stores.releases import ReleaseManifest, current, verify
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import Request
from tests.support.fakes.vertex import PROJECT_NUMBER, FakeVertex
from tests.support.gcp_pieces import gcp_of
from tests.support.places import PLACE, cloud_config
from tests.support.probed_container import PROBES, ProbedContainer
from tests.support.releases import make_release
from tests.support.server import ROW, serving
from tests.support.shops import custseg
from tests.support.waiting import wait_until

pytestmark = pytest.mark.gcp

PARENT = "projects/shop/locations/europe-west1"
MODEL = "models/custseg-segmentation"


def release(tmp_path: Path, month: int) -> tuple[Path, ReleaseManifest]:
    """A release without content: a folder with a manifest."""
    manifest = ReleaseManifest(
        format=1,
        release_id=f"r-2024-0{month}-01-0000000{month}",
        period=f"2024-0{month}-01",
        as_of=datetime(2024, month + 1, 1),
        window_start=datetime(2024, 1, 1),
        model_version=f"m-2024-0{month}-01-0000000{month}",
        trained_on=f"2024-0{month}-01",
        features=("recency_days",),
        n_customers=3,
        n_later_customers=0,
        metrics={"silhouette": 0.34, "bootstrap_ari": None},
        git_revision=None,
        data_versions={},
        files={},
    )
    folder = tmp_path / manifest.release_id
    folder.mkdir()
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder, manifest


@pytest.fixture
def gcp(vertex: FakeVertex, gcs: FakeGcs) -> GcpSettings:
    return gcp_of(vertex.url, gcs.url, serving=GcpServingSettings(image="serving:1", endpoint="77"))


@pytest.fixture
def models(gcp: GcpSettings) -> Iterator[VertexModels]:
    with VertexModels(gcp, poll_seconds=0.01) as models:
        yield models


@pytest.fixture
def endpoint(vertex: FakeVertex) -> api.Endpoint:
    return vertex.add_endpoint("77")


def shares(traffic: Mapping[str, int]) -> dict[str, int]:
    """Version number → share."""
    return {version.removeprefix(f"{MODEL}@"): share for version, share in traffic.items()}


def test_a_release_is_a_version_with_the_serving_image_and_its_figures(
    models: VertexModels, vertex: FakeVertex, gcs: FakeGcs, tmp_path: Path
) -> None:
    name = models.register(*release(tmp_path, 2))
    assert name == f"{MODEL}@1"
    [version] = vertex.models["custseg-segmentation"]
    assert version.container_spec.image_uri == "serving:1"
    assert (version.container_spec.health_route, version.container_spec.predict_route) == (
        "/vertex/health",
        "/vertex/predict",
    )
    assert version.artifact_uri == "gs://shop-data/custseg/models/r-2024-02-01-00000002"
    assert gcs.names("shop-data", "custseg/models/r-") == ["custseg/models/r-2024-02-01-00000002/manifest.json"]
    assert dict(version.labels) == {
        "custseg-model": "m-2024-02-01-00000002",
        "custseg-release": "r-2024-02-01-00000002",
    }
    [evaluation] = vertex.evaluations[f"{PARENT}/{name}"]
    assert dict(evaluation.metrics) == {"silhouette": 0.34}
    assert gcs.names("shop-data", "custseg/models/metrics") == ["custseg/models/metrics.yaml"]
    assert '"silhouette": 0.34' in version.version_description


def test_a_release_is_registered_once_and_the_next_is_the_next_version(
    models: VertexModels, vertex: FakeVertex, tmp_path: Path
) -> None:
    first, second = release(tmp_path, 2), release(tmp_path, 3)
    assert [models.register(*one) for one in (first, second, first)] == [f"{MODEL}@1", f"{MODEL}@2", f"{MODEL}@1"]
    assert len(vertex.models["custseg-segmentation"]) == 2


@pytest.fixture
def set_environment(gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> Callable[[api.Model], None]:
    """Sets the environment in which Vertex AI starts the container of a version."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)

    def prepare(version: api.Model) -> None:
        monkeypatch.setenv("AIP_HTTP_PORT", str(version.container_spec.ports[0].container_port))
        monkeypatch.setenv("AIP_HEALTH_ROUTE", version.container_spec.health_route)
        monkeypatch.setenv("AIP_PREDICT_ROUTE", version.container_spec.predict_route)
        monkeypatch.setenv("AIP_STORAGE_URI", version.artifact_uri)

    return prepare


def register_release(models: VertexModels, vertex: FakeVertex, root: Path) -> tuple[str, api.Model]:
    """Make a whole release and register it; its id and its version."""
    release_id = make_release(root)
    models.register(root / release_id, verify(root, release_id))
    [version] = vertex.models["custseg-segmentation"]
    return release_id, version


def test_the_container_of_a_version_serves_its_release(
    models: VertexModels, vertex: FakeVertex, set_environment: Callable[[api.Model], None], tmp_path: Path
) -> None:
    release_id, version = register_release(models, vertex, tmp_path / "releases")
    set_environment(version)
    home = tmp_path / "container"
    home.mkdir()
    with serving(home, "--workers", "1") as server:
        assert server.get(version.container_spec.health_route)[0] == 200
        answer = server.post(version.container_spec.predict_route, {"instances": [ROW]})
    assert current(home / "releases") == release_id
    assert [prediction["segment_id"] for prediction in answer["predictions"]] == ["S2"]
    assert not (home / "prediction_log").exists()


def test_a_container_is_not_restarted_however_long_its_release_takes(
    models: VertexModels,
    vertex: FakeVertex,
    gcs: FakeGcs,
    set_environment: Callable[[api.Model], None],
    tmp_path: Path,
) -> None:
    release_id, version = register_release(models, vertex, tmp_path / "releases")
    set_environment(version)
    home, route = tmp_path / "container", version.container_spec.health_route
    command = [sys.executable, "-m", "custseg_serving.cli", "--home", str(home), "--port", "PORT"]
    statuses: list[int | None] = []
    with ProbedContainer(command, {}) as container:
        gcs.on_request = probe_while_fetching(container, lambda: statuses.append(container.status(route)))
        wait_until(lambda: container.status(route) == 200, seconds=120)
    assert current(home / "releases") == release_id
    assert (statuses, container.n_restarts) == ([503, 503], 0)


def test_a_container_that_listens_when_its_release_is_there_is_restarted_again_and_again(gcs: FakeGcs) -> None:
    """The platform of the test above does restart."""
    gcs.put("shop-data", "release", b"x")
    fetch_first = (
        "import sys, urllib.request, http.server\n"
        "urllib.request.urlopen(sys.argv[2]).read()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    command = [
        sys.executable,
        "-c",
        fetch_first,
        "PORT",
        f"{gcs.url}/download/storage/v1/b/shop-data/o/release?alt=media",
    ]
    with ProbedContainer(command, {}) as container:
        gcs.on_request = probe_while_fetching(container, lambda: None)
        # The third fetch takes no time.
        wait_until(lambda: container.status("/") == 200, seconds=60)
    assert container.n_restarts == 2


def probe_while_fetching(container: ProbedContainer, then: Callable[[], None]) -> Callable[[Request], None]:
    """Have the first two requests take as long as the platform waits for a container to listen."""
    slow = iter(range(2))

    def on_request(_: Request) -> None:
        if next(slow, None) is not None:
            for _probe in range(PROBES):
                container.probe()
            then()

    return on_request


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.json", b"{}", "model.json is not as it was written"),
        ("model.json", None, r"No such object: shop-data/custseg/models/.*/model.json"),
        ("manifest.json", b"[]", "bucket: .*manifest"),
        ("manifest.json", b'{"release_id": "../../elsewhere"}', "is no release id"),
    ],
)
def test_a_container_whose_files_are_not_the_release_never_gets_ready_and_says_why(
    models: VertexModels,
    vertex: FakeVertex,
    gcs: FakeGcs,
    set_environment: Callable[[api.Model], None],
    tmp_path: Path,
    name: str,
    content: bytes | None,
    said: str,
) -> None:
    _, version = register_release(models, vertex, tmp_path / "releases")
    set_environment(version)
    path = f"{version.artifact_uri.removeprefix('gs://shop-data/')}/{name}"
    gcs.buckets["shop-data"].pop(path)
    if content:
        gcs.put("shop-data", path, content)
    home = tmp_path / "container"
    home.mkdir()
    with serving(home, "--workers", "1", ready_status=503) as server:
        wait_until(lambda: re.search(said, (home / "server.log").read_text()), seconds=20)
        assert server.get(version.container_spec.health_route)[0] == 503
    assert current(home / "releases") is None


@pytest.mark.usefixtures("endpoint")
def test_traffic_goes_to_a_canary_then_to_all_of_it_and_back(
    models: VertexModels, vertex: FakeVertex, tmp_path: Path
) -> None:
    one, two, three = (models.register(*release(tmp_path, month)) for month in (2, 3, 4))
    assert shares(models.deploy_canary(one)) == {"1": 100}
    assert shares(models.send_all_traffic(one)) == {"1": 100}
    assert shares(models.deploy_canary(two)) == {"1": 90, "2": 10}
    assert shares(models.deploy_canary(two)) == {"1": 90, "2": 10}
    assert shares(models.send_all_traffic(two)) == {"1": 0, "2": 100}
    assert "champion" in models._models.get_model(name=f"{PARENT}/{two}").version_aliases
    assert shares(models.deploy_canary(three)) == {"1": 0, "2": 90, "3": 10}
    # The canary is taken back: the traffic is as it was before.
    assert shares(models.roll_back()) == {"1": 0, "2": 100}
    assert shares(models.deploy_canary(three)) == {"1": 0, "2": 90, "3": 10}
    # The version before stays deployed; older ones are undeployed.
    assert shares(models.send_all_traffic(three)) == {"2": 0, "3": 100}
    assert shares(models.roll_back()) == {"2": 100}
    assert list(models._models.get_model(name=f"{PARENT}/{two}").version_aliases) == ["champion"]
    assert shares(models.get_traffic()) == {"2": 100}
    assert not any(request.endswith("/endpoints") for request in vertex.requests)


def test_versions_are_the_same_whether_the_project_is_named_by_id_or_by_number(
    models: VertexModels, endpoint: api.Endpoint, tmp_path: Path
) -> None:
    version = models.register(*release(tmp_path, 2))
    models.deploy_canary(version)
    named = models._get_endpoint().deployed_models[0].model
    assert named.startswith(f"projects/{PROJECT_NUMBER}/")
    # Neither a second machine nor a refusal.
    assert shares(models.deploy_canary(version)) == {"1": 100}
    assert len(endpoint.deployed_models) == 1
    assert shares(models.send_all_traffic(version)) == {"1": 100}


def test_a_command_killed_while_a_machine_starts_leads_to_no_second_machine(
    models: VertexModels, vertex: FakeVertex, endpoint: api.Endpoint, tmp_path: Path
) -> None:
    version = models.register(*release(tmp_path, 2))
    vertex.looks_until_done = 3
    models._deploy(version)
    assert not endpoint.deployed_models
    assert shares(models.deploy_canary(version)) == {"1": 100}
    assert len(endpoint.deployed_models) == 1


@pytest.mark.parametrize("troubles", [(), (503, 503, 429, 429, 0, 0)])
@pytest.mark.usefixtures("endpoint")
def test_lost_answers_and_a_busy_service_change_nothing(
    models: VertexModels, vertex: FakeVertex, tmp_path: Path, troubles: tuple[int, ...]
) -> None:
    vertex.looks_until_done = 3
    vertex.troubles, vertex.loses_answers = troubles, not troubles
    one, two, three = (release(tmp_path, month) for month in (2, 3, 4))
    assert shares(models.deploy_canary(models.register(*one))) == {"1": 100}
    assert shares(models.deploy_canary(models.register(*two))) == {"1": 90, "2": 10}
    assert shares(models.send_all_traffic(f"{MODEL}@2")) == {"1": 0, "2": 100}
    assert shares(models.deploy_canary(models.register(*three))) == {"1": 0, "2": 90, "3": 10}
    assert shares(models.send_all_traffic(f"{MODEL}@3")) == {"2": 0, "3": 100}
    assert shares(models.roll_back()) == {"2": 100}
    assert [len(each) for each in vertex.evaluations.values()] == [1, 1, 1]
    assert len(vertex.models["custseg-segmentation"]) == 3
    started = [request for request in vertex.requests if request.endswith(":deployModel")]
    assert len(started) == 3 if vertex.loses_answers else len(started) >= 3


@pytest.mark.usefixtures("endpoint")
def test_without_another_version_there_is_no_way_back(models: VertexModels, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing deployed; expected another version"):
        models.roll_back()
    models.deploy_canary(models.register(*release(tmp_path, 2)))
    with pytest.raises(BadInputError, match=r"custseg-segmentation@1; expected another version"):
        models.roll_back()


@pytest.mark.usefixtures("endpoint")
def test_all_traffic_is_for_what_is_deployed(models: VertexModels, tmp_path: Path) -> None:
    version = models.register(*release(tmp_path, 2))
    with pytest.raises(BadInputError, match=r"is not deployed .*custseg vertex canary"):
        models.send_all_traffic(version)


def test_an_endpoint_that_is_not_there_is_not_made(models: VertexModels, vertex: FakeVertex, tmp_path: Path) -> None:
    version = models.register(*release(tmp_path, 2))
    with pytest.raises(RunFailedError, match=r"The Endpoint does not exist.*Check project, location"):
        models.deploy_canary(version)
    assert vertex.endpoints == {}


@pytest.mark.usefixtures("endpoint")
def test_a_deployment_that_fails_leaves_the_traffic_alone(
    models: VertexModels, vertex: FakeVertex, tmp_path: Path
) -> None:
    one, two = (models.register(*release(tmp_path, month)) for month in (2, 3))
    models.deploy_canary(one)
    vertex.fail_operations = "Model server never became ready."
    with pytest.raises(RunFailedError, match=r"never became ready.*custseg vertex status"):
        models.deploy_canary(two)
    assert shares(models.get_traffic()) == {"1": 100}
    vertex.fail_operations, vertex.denied = "", {"aiplatform.endpoints.deploy"}
    with pytest.raises(RunFailedError, match=r"not allowed .*roles/aiplatform\.user"):
        models.deploy_canary(two)
    assert shares(models.get_traffic()) == {"1": 100}


@pytest.mark.parametrize(
    ("traffic", "split"),
    [
        ({"a": 100}, {"0": 10, "a": 90}),
        ({"a": 50, "b": 50}, {"0": 10, "a": 45, "b": 45}),
        # 33·0.9 = 29.7 and 34·0.9 = 30.6 are cut to 29, 30, 29; the 2 left over go to the largest.
        ({"a": 33, "b": 34, "c": 33}, {"0": 10, "a": 29, "b": 32, "c": 29}),
        ({"a": 100, "b": 0}, {"0": 10, "a": 90, "b": 0}),
    ],
)
def test_room_for_a_canary_is_made_by_share(traffic: Mapping[str, int], split: Mapping[str, int]) -> None:
    endpoint = api.Endpoint(deployed_models=[{"id": name} for name in traffic], traffic_split=traffic)
    assert _make_room(endpoint, 10) == split
    assert sum(split.values()) == 100


def test_without_an_image_or_an_endpoint_nothing_is_served_there(vertex: FakeVertex, gcs: FakeGcs) -> None:
    with pytest.raises(BadInputError, match=r"gcloud ai endpoints create"):
        VertexModels(gcp_of(vertex.url, gcs.url))


@pytest.mark.usefixtures("endpoint")
def test_the_command_says_how_the_traffic_is_split(vertex: FakeVertex, gcs: FakeGcs, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "no [gcp] project" in custseg(home, "vertex", "status", config="").err
    config = cloud_config(
        **PLACE,
        serving={"image": "serving:1", "endpoint": "77"},
        endpoints={"aiplatform": vertex.url, "storage": gcs.url},
    )
    assert custseg(home, "vertex", "status", config=config).out == "nothing is deployed\n"
    assert "has no release" in custseg(home, "vertex", "canary", config=config).err


@pytest.mark.parametrize(
    ("permission", "attempt"),
    [
        ("models.upload", lambda models, one: models.register(*one)),
        ("models.get", lambda models, one: models.register(*one)),
        ("models.list", lambda models, one: models.register(*one)),
        ("modelEvaluations.import", lambda models, one: models.register(*one)),
        ("endpoints.get", lambda models, _: models.get_traffic()),
        ("endpoints.update", lambda models, _: models.roll_back()),
        ("endpoints.undeploy", lambda models, _: models.roll_back()),
        ("models.update", lambda models, _: models.roll_back()),
    ],
)
@pytest.mark.usefixtures("endpoint")
def test_the_fake_refuses_what_the_caller_may_not_do(
    models: VertexModels,
    vertex: FakeVertex,
    tmp_path: Path,
    permission: str,
    attempt: Callable[[VertexModels, tuple[Path, ReleaseManifest]], object],
) -> None:
    for month in (2, 3):
        models.deploy_canary(models.register(*release(tmp_path, month)))
    another = release(tmp_path, 4)
    if permission == "models.get":
        # It is requested only if no version has the release.
        vertex.models["custseg-segmentation"].clear()
    vertex.denied = {f"aiplatform.{permission}"}
    with pytest.raises(RunFailedError, match=f"aiplatform.{permission}"):
        attempt(models, another)
    assert sum(models_traffic(vertex).values()) == 100


def models_traffic(vertex: FakeVertex) -> dict[str, int]:
    return dict(vertex.endpoints["77"].traffic_split)


@pytest.mark.usefixtures("endpoint")
def test_a_split_that_somebody_changed_meanwhile_is_left_as_they_made_it(
    models: VertexModels, vertex: FakeVertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (models.register(*release(tmp_path, month)) for month in (2, 3))
    models.deploy_canary(one)
    models.deploy_canary(two)
    get = models._get_endpoint

    def get_and_change() -> api.Endpoint:
        seen = get()
        vertex.touch(vertex.endpoints["77"])
        return seen

    monkeypatch.setattr(models, "_get_endpoint", get_and_change)
    with pytest.raises(RunFailedError, match="etag does not match"):
        models.send_all_traffic(two)
    assert sorted(models_traffic(vertex).values()) == [10, 90]


def test_the_fake_changes_nothing_of_an_endpoint_but_its_split(gcp: GcpSettings, endpoint: api.Endpoint) -> None:
    with (
        vertex_client(api.EndpointServiceClient, gcp) as endpoints,
        pytest.raises(exceptions.BadRequest, match="updateMask"),
    ):
        endpoints.update_endpoint(
            endpoint={"name": endpoint.name, "display_name": "new"}, update_mask={"paths": ["display_name"]}
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"display_name": ""}, "display_name"),
        ({"container_spec": {}}, "image_uri"),
        ({"container_spec": {"image_uri": "x", "predict_route": "predict"}}, "must begin with '/'"),
        ({"version_aliases": ["7"]}, "Invalid version alias"),
        ({"labels": {"Release": "x"}}, "Label Release"),
    ],
)
def test_the_fake_refuses_models_that_are_not_in_order(
    gcp: GcpSettings, vertex: FakeVertex, change: Mapping[str, object], said: str
) -> None:
    model = {"display_name": "a model", "container_spec": {"image_uri": "serving:1"}, **change}
    with vertex_client(api.ModelServiceClient, gcp) as client, pytest.raises(exceptions.BadRequest, match=said):
        client.upload_model(parent=PARENT, model=model)
    assert vertex.models == {}


def test_the_fake_refuses_ids_machines_and_splits_that_cannot_be(
    gcp: GcpSettings, vertex: FakeVertex, endpoint: api.Endpoint
) -> None:
    model = {"display_name": "a model", "container_spec": {"image_uri": "serving:1"}}
    with (
        vertex_client(api.ModelServiceClient, gcp) as models,
        vertex_client(api.EndpointServiceClient, gcp) as endpoints,
    ):
        with pytest.raises(exceptions.BadRequest, match="Invalid model id"):
            models.upload_model({"parent": PARENT, "model": model, "model_id": "A model"})
        models.upload_model({"parent": PARENT, "model": model, "model_id": "m"}).result()
        with pytest.raises(exceptions.Conflict, match="already exists"):
            models.upload_model({"parent": PARENT, "model": model, "model_id": "m"}).result()
        with pytest.raises(exceptions.NotFound, match="Model does not exist"):
            models.get_model(name=f"{PARENT}/models/m@2")
        with pytest.raises(exceptions.BadRequest, match="Cloud Storage URI"):
            models.import_model_evaluation(parent=f"{PARENT}/models/m@1", model_evaluation={})
        deployed = {"model": f"{PARENT}/models/m@1"}
        machine = {"machine_spec": {"machine_type": "n1-standard-2"}, "min_replica_count": 1}
        for resources, split, said in (
            ({}, {"0": 100}, "dedicated_resources"),
            ({**machine, "min_replica_count": 0}, {"0": 100}, "min_replica_count"),
            (machine, {"0": 90}, "must be 100"),
            (machine, {"0": 90, "5": 10}, "not there"),
        ):
            with pytest.raises(exceptions.BadRequest, match=said):
                endpoints.deploy_model(
                    endpoint=endpoint.name,
                    deployed_model={**deployed, "dedicated_resources": resources},
                    traffic_split=split,
                )
        right = {**deployed, "dedicated_resources": machine}
        for _ in range(2):
            endpoints.deploy_model(
                endpoint=endpoint.name,
                deployed_model=right,
                traffic_split={"0": 100, **{each.id: 0 for each in vertex.endpoints["77"].deployed_models}},
            ).result()
        busy = vertex.endpoints["77"].deployed_models[-1].id
        with pytest.raises(exceptions.BadRequest, match="non-zero traffic"):
            endpoints.undeploy_model(endpoint=endpoint.name, deployed_model_id=busy)
        with pytest.raises(exceptions.NotFound, match="not found"):
            endpoints.undeploy_model(endpoint=endpoint.name, deployed_model_id="5")
