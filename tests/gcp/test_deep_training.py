"""A deep challenger trained on Vertex AI is the one that this machine would have trained."""

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.segments.embedding import week_columns
from custseg_assets.domain.segments.model import model_from_json
from custseg_assets.gcp.training import VertexLauncher
from custseg_assets.settings import GcpTrainingSettings, ModelSettings
from custseg_assets.training.exchange import CANDIDATES, FEATURES, MODEL, SETTINGS
from custseg_assets.training.local import train_without_dagster
from tests.support.deep_environment import deep_python
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.vertex import FakeVertex
from tests.support.gcp_pieces import PATIENT_WITH_BUCKETS, gcp_of
from tests.support.trainings import KEY, features_of

pytestmark = [
    pytest.mark.deep,
    pytest.mark.usefixtures("no_waiting_for_stragglers"),
    # Dagster 1.13 itself uses what it deprecates and what it previews; gone when it does not.
    pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function `PipesMessageReader.expected_writer_count`"),
    # Google's client leaves the connection of a download that is refused to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
SETTINGS_OF_JOB = ModelSettings(
    kind="deep", k_range=(3, 3), n_bootstraps=2, n_initialisations=2, deep_weeks=6, deep_epochs=5, deep_refits=2
)


def fill_folder(folder: Path) -> Path:
    """Three kinds of customers who differ in everything, also in the weeks of their orders."""
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    features = features_of(300)
    orders = np.zeros((300, 6))
    orders[np.arange(300), np.arange(300) % 3 * 2] = 3
    weeks = pl.DataFrame(orders, schema=dict.fromkeys(week_columns(6), pl.Float64), orient="row")
    features.hstack(weeks).write_parquet(folder / "in" / FEATURES)
    (folder / "in" / SETTINGS).write_text(json.dumps(SETTINGS_OF_JOB.of_challenger()), encoding="utf-8")
    return folder


def test_the_deep_trainer_on_vertex_leaves_what_it_leaves_here(
    vertex: FakeVertex, gcs: FakeGcs, tmp_path: Path
) -> None:
    """The same data and settings, in two processes, give the same numbers: both leave the same bytes."""
    python = deep_python()
    built = vertex.images["trainer:1"]
    vertex.images["trainer-deep:1"] = replace(built, entrypoint=[python, *built.entrypoint[1:]])
    training = GcpTrainingSettings(image="trainer-deep:1", accelerator_type="NVIDIA_TESLA_T4", accelerator_count=1)
    gcp, folder = gcp_of(vertex.url, gcs.url, training=training), fill_folder(tmp_path / "there")

    @dg.asset
    def challenger(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        VertexLauncher(gcp, PATIENT_WITH_BUCKETS).train(context, snapshot=KEY, folder=folder)
        return dg.MaterializeResult()

    assert dg.materialize([challenger]).success
    [job] = vertex.jobs
    assert job.job_spec.worker_pool_specs[0].machine_spec.accelerator_count == 1
    here = fill_folder(tmp_path / "here")
    train_without_dagster(here, KEY, python, lambda _: None)
    assert (here / "out" / CANDIDATES).read_bytes() == (folder / "out" / CANDIDATES).read_bytes()
    model = model_from_json((folder / "out" / MODEL).read_text(encoding="utf-8"))
    assert (model.kind, model.n_weeks) == ("deep", 6)


def test_an_image_without_tensorflow_says_so_in_the_run(
    vertex: FakeVertex, gcs: FakeGcs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gcp = gcp_of(vertex.url, gcs.url, training=GcpTrainingSettings(image="trainer:1"))
    folder = fill_folder(tmp_path / "there")

    @dg.asset
    def challenger(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        VertexLauncher(gcp, PATIENT_WITH_BUCKETS).train(context, snapshot=KEY, folder=folder)
        return dg.MaterializeResult()

    assert not dg.materialize([challenger], raise_on_error=False).success
    logged = "".join(capfd.readouterr())
    assert "expected one with the extra 'deep'" in logged
    assert "the image of the target trainer-deep" in logged
