"""A challenger trained on Vertex AI is the one that this machine would have trained; without one the champion stays."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from google.cloud.storage.retry import DEFAULT_RETRY
from pydantic import ValidationError

from custseg_assets.definitions import launcher_of
from custseg_assets.domain.segments.model import model_from_json
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.gcp.costs import check_cost, highest_cost
from custseg_assets.gcp.folders import split_uri
from custseg_assets.gcp.images import pin_image
from custseg_assets.gcp.training import VertexLauncher
from custseg_assets.settings import (
    GcpEndpointSettings,
    GcpServingSettings,
    GcpSettings,
    GcpTrainingSettings,
    ModelSettings,
    Settings,
)
from custseg_assets.training.exchange import CANDIDATES, FEATURES, MODEL, SETTINGS, TrainerReport
from custseg_assets.training.local import LocalLauncher
from custseg_assets.training.steps import train_snapshot
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.registry import FakeRegistry
from tests.support.fakes.vertex import FakeVertex
from tests.support.gcp_pieces import PATIENT_WITH_BUCKETS, gcp_of
from tests.support.trainings import KEY, features_of

pytestmark = [
    pytest.mark.gcp,
    pytest.mark.usefixtures("no_waiting_for_stragglers"),
    # Dagster 1.13 itself uses what it deprecates and what it previews; gone when it does not.
    pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function `PipesMessageReader.expected_writer_count`"),
]


@pytest.fixture
def gcp(vertex: FakeVertex, gcs: FakeGcs) -> GcpSettings:
    return gcp_of(vertex.url, gcs.url, training=GcpTrainingSettings(image="trainer:1"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "training", features_of(600))


def fill_folder(folder: Path, features: pl.DataFrame) -> Path:
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    features.write_parquet(folder / "in" / FEATURES)
    (folder / "in" / SETTINGS).write_text(ModelSettings(n_bootstraps=4).model_dump_json(), encoding="utf-8")
    return folder


def train(gcp: GcpSettings, folder: Path) -> TrainerReport:
    """Train in an asset of a Dagster run; the trainer's report."""
    reports: list[TrainerReport] = []

    @dg.asset
    def challenger(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        reports.append(VertexLauncher(gcp, PATIENT_WITH_BUCKETS).train(context, snapshot=KEY, folder=folder))
        return dg.MaterializeResult()

    dg.materialize([challenger])
    return reports[0]


def test_the_trainer_on_vertex_leaves_what_it_leaves_here(
    gcp: GcpSettings, vertex: FakeVertex, gcs: FakeGcs, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The roles that docs/gcp.md names are for objects, not for buckets.
    gcs.denied = {"storage.buckets.get"}
    report = train(gcp, folder)
    features, candidates = features_of(600), pl.read_parquet(folder / "out" / CANDIDATES)
    model = model_from_json((folder / "out" / MODEL).read_text(encoding="utf-8"))
    assert model == train_snapshot(features, candidates, KEY, ModelSettings(n_bootstraps=4))
    [job] = vertex.jobs
    assert report["k"].value == model.k
    assert report["vertex_job"].value == vertex.told(job.name)
    logged = "".join(capfd.readouterr())
    assert "at most 0.22 USD: 60 minutes of n1-standard-4" in logged
    assert f"{model.model_version}: " in logged
    assert {"app": "custseg", "snapshot": KEY}.items() <= dict(job.labels).items()
    assert job.job_spec.scheduling.timeout.total_seconds() == 3600
    place = f"custseg/jobs/{job.labels['dagster-key']}"
    assert [name for name in gcs.names("shop-data", place) if "/pipes/" not in name] == [
        f"{place}/in/{FEATURES}",
        f"{place}/in/{SETTINGS}",
        f"{place}/out/{CANDIDATES}",
        f"{place}/out/{MODEL}",
    ]


def test_what_was_trained_is_taken_and_trained_again_only_where_it_is_gone(
    gcp: GcpSettings, vertex: FakeVertex, gcs: FakeGcs, folder: Path
) -> None:
    train(gcp, folder)
    first = (folder / "out" / CANDIDATES).read_bytes()
    (folder / "out" / CANDIDATES).unlink()
    train(gcp, folder)
    assert (folder / "out" / CANDIDATES).read_bytes() == first
    assert len(vertex.jobs) == 1
    for name in gcs.names("shop-data", f"custseg/jobs/{vertex.jobs[0].labels['dagster-key']}/out/"):
        del gcs.buckets["shop-data"][name]
    train(gcp, folder)
    assert len(vertex.jobs) == 2


def test_a_mended_trainer_under_the_same_tag_trains_anew(vertex: FakeVertex, gcs: FakeGcs, folder: Path) -> None:
    path, built = "shop/custseg/trainer", vertex.images["trainer:1"]
    name = f"europe-west1-docker.pkg.dev/{path}"
    with FakeRegistry() as registry:
        gcp = gcp_of(vertex.url, gcs.url, training=GcpTrainingSettings(image=f"{name}:production"))
        gcp = gcp.model_copy(update={"endpoints": gcp.endpoints.model_copy(update={"registry": registry.url})})
        for digest in ("sha256:1", "sha256:2", "sha256:2"):
            registry.digests[f"{path}:production"] = digest
            vertex.images[f"{name}@{digest}"] = built
            train(gcp, folder)
    assert [job.job_spec.worker_pool_specs[0].container_spec.image_uri for job in vertex.jobs] == [
        f"{name}@sha256:1",
        f"{name}@sha256:2",
    ]


def test_an_image_that_cannot_be_looked_up_is_said_to_be_unsure(
    gcp: GcpSettings, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(gcp, folder)
    assert "trainer:1 could not be looked up in its registry" in "".join(capfd.readouterr())
    pinned = "europe-west1-docker.pkg.dev/shop/custseg/trainer@sha256:1"
    assert pin_image(pinned, gcp) == pinned
    out_of_reach = gcp.model_copy(update={"endpoints": GcpEndpointSettings(registry="http://127.0.0.1:9")})
    assert pin_image("europe-west1-docker.pkg.dev/shop/custseg/trainer", out_of_reach).endswith("trainer")


@pytest.mark.parametrize("troubles", [(), (503, 503, 429, 429, 0, 0)])
def test_lost_answers_and_a_busy_service_lead_to_one_job(
    gcp: GcpSettings,
    vertex: FakeVertex,
    gcs: FakeGcs,
    folder: Path,
    troubles: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("google.cloud.storage.retry.DEFAULT_RETRY", DEFAULT_RETRY.with_delay(0.01, 0.1))
    monkeypatch.setattr("custseg_assets.gcp.cloud_jobs.DEFAULT_RETRY", DEFAULT_RETRY.with_delay(0.01, 0.1))
    # Whoever waits so shortly asks for a change of an object again within the second that there has to be between two.
    gcs.has_rate_limits = False
    vertex.troubles = gcs.troubles = troubles
    vertex.loses_answers = gcs.loses_answers = not troubles

    # The trainer, a process of its own, has the delays of Google's client.
    vertex.at_poll = lambda _: setattr(gcs, "troubles", ())
    train(gcp, folder)
    assert (folder / "out" / CANDIDATES).exists()
    assert len(vertex.jobs) == 1


def test_an_outcome_without_a_model_is_no_failure(gcp: GcpSettings, tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "few", features_of(40))
    assert train(gcp, folder)["k"].value == "none"
    assert (folder / "out" / CANDIDATES).exists()
    assert not (folder / "out" / MODEL).exists()


def test_a_bucket_out_of_reach_starts_nothing(vertex: FakeVertex, folder: Path) -> None:
    gcp = gcp_of(vertex.url, "http://127.0.0.1:9", training=GcpTrainingSettings(image="trainer:1"))
    with pytest.raises(RunFailedError, match=r"the bucket, .*no answer .*The champion stays"):
        train(gcp, folder)
    assert vertex.jobs == []


def test_a_trainer_that_is_given_nonsense_says_so_in_the_run(
    gcp: GcpSettings, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "in" / SETTINGS).write_text("{", encoding="utf-8")
    with pytest.raises(RunFailedError, match=r"the container failed .*status of 2.*The champion stays"):
        train(gcp, folder)
    assert "trainer: " in "".join(capfd.readouterr())


def test_a_job_that_could_cost_too_much_is_not_started(vertex: FakeVertex, gcs: FakeGcs, folder: Path) -> None:
    # 24 hours at 0.218499 are 5.243976.
    training = GcpTrainingSettings(image="trainer:1", timeout_minutes=24 * 60)
    assert highest_cost(training) == pytest.approx(5.243976)
    with pytest.raises(BadInputError, match=r"can cost 5\.24 USD; expected at most \[gcp\.training\] max_cost = 5"):
        train(gcp_of(vertex.url, gcs.url, training=training), folder)
    assert vertex.jobs == []
    assert gcs.names("shop-data") == []


def test_the_price_of_a_machine_is_listed_or_given() -> None:
    with_gpu = GcpTrainingSettings(accelerator_type="NVIDIA_TESLA_T4", accelerator_count=2)
    # 0.218499 + 2 × 0.4025.
    assert highest_cost(with_gpu) == pytest.approx(1.023499)
    with pytest.raises(BadInputError, match=r"no price is known for abacus.*price_per_hour"):
        highest_cost(GcpTrainingSettings(machine_type="abacus"))
    assert "at most 1.50 USD" in check_cost(GcpTrainingSettings(price_per_hour=3, timeout_minutes=30))


def test_vertex_trains_where_an_image_is_configured(gcp: GcpSettings, tmp_path: Path) -> None:
    assert isinstance(launcher_of(Settings(home=tmp_path)), LocalLauncher)
    assert isinstance(launcher_of(Settings(home=tmp_path, gcp=gcp)), VertexLauncher)


@pytest.mark.parametrize("model_id", ["1-segments", "-segments", "_segments", "Segments"])
def test_an_id_that_no_model_can_have_is_refused_in_the_settings(model_id: str) -> None:
    assert GcpServingSettings(model_id="segments-1").model_id == "segments-1"
    with pytest.raises(ValidationError, match="model_id"):
        GcpServingSettings(model_id=model_id)


def test_a_folder_in_the_cloud_is_a_bucket_and_a_prefix() -> None:
    assert split_uri("gs://shop-data/jobs/1") == split_uri("gs://shop-data/jobs/1/") == ("shop-data", "jobs/1/")
