"""A piece of work on Vertex AI as a Dagster asset, run in this process or, to be killed there, in one of its own.

``python -m tests.support.gcp_pieces VERTEX_URL GCS_URL KEY CODE``
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from dagster._core.pipes import utils as dagster_pipes_utils
from google.cloud.aiplatform_v1 import JobServiceClient

from custseg_assets.gcp.clients import storage_client, vertex_client
from custseg_assets.gcp.cloud_jobs import Patience
from custseg_assets.gcp.vertex_pipes import PipesVertexAIClient, VertexJob
from custseg_assets.settings import GcpEndpointSettings, GcpSettings
from tests.support.fakes.vertex import Image
from tests.support.files import REPOSITORY
from tests.support.places import PLACE

SHORT_PATIENCE = Patience(first_wait=0.02, longest_wait=0.1, message_interval=-1, silence=2, pending=2)
PATIENT_WITH_BUCKETS = replace(SHORT_PATIENCE, silence=10)
"""An object can be changed once a second; on a busy machine several waits for that are more than two seconds."""

_REPORT_CODE = """
import sys, time
from dagster_pipes import PipesGCSContextLoader, PipesGCSMessageWriter, open_dagster_pipes
from google.cloud import storage

client = storage.Client()
channels = {
    "context_loader": PipesGCSContextLoader(client),
    "message_writer": PipesGCSMessageWriter(client, interval=-1),
}
with open_dagster_pipes(**channels) as pipes:
    pipes.log.info("half way through %s" % pipes.asset_key)
    pipes.report_asset_materialization(metadata={"n_customers": 3}, data_version="7")
    STATEMENT
"""


def images(*, is_quick: bool = False) -> dict[str, Image]:
    """Python and the trainer, as images of the fake of Vertex AI.

    Args:
        is_quick: whether waits pass a hundred times as fast in them.
    """
    path = f"{REPOSITORY}/tests/support/quick_clients:{REPOSITORY}" if is_quick else str(REPOSITORY)
    built = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return {
        "python:1": Image([sys.executable, "-c"], built),
        "trainer:1": Image([sys.executable, "-m", "custseg_assets.trainer"], built),
    }


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Make Dagster wait hundredths of a second for late messages, for as long as the patch lasts."""
    patch.setattr(dagster_pipes_utils, "DEFAULT_SLEEP_INTERVAL", 0.02)
    patch.setattr(dagster_pipes_utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)


def report_code(statement: str = "pass") -> str:
    """A program that reports through Pipes and executes a statement before it ends."""
    return _REPORT_CODE.replace("STATEMENT", statement)


def gcp_of(vertex: str, gcs: str, **more: Any) -> GcpSettings:
    """Settings with the addresses of the fakes."""
    endpoints = GcpEndpointSettings(aiplatform=vertex, storage=gcs)
    return GcpSettings(**PLACE, endpoints=endpoints, **more)


@contextlib.contextmanager
def pipes_client(
    vertex: str, gcs: str, sleep: Callable[[float], None] = time.sleep, **patience: float
) -> Iterator[PipesVertexAIClient]:
    """The client under test, which waits for a short time only."""
    gcp = gcp_of(vertex, gcs)
    with contextlib.closing(storage_client(gcp)) as bucket, vertex_client(JobServiceClient, gcp) as jobs:
        yield PipesVertexAIClient(
            jobs,
            bucket,
            **PLACE,
            prefix="work/",
            patience=replace(SHORT_PATIENCE, **patience),
            sleep=sleep,
        )


def job_of(code: str, gcs: str, **more: Any) -> VertexJob:
    """A job that runs Python code."""
    spec = {"display_name": "a piece", "image": "python:1", "environment": {"STORAGE_EMULATOR_HOST": gcs}}
    return VertexJob(args=(code,), **{**spec, **more})


def materialize(
    client: PipesVertexAIClient, job: VertexJob, key: str = "piece-1", *, checks: Sequence[str] = (), **more: Any
) -> Any:
    """Materialize the asset ``piece`` with a job."""

    @dg.asset(check_specs=[dg.AssetCheckSpec(name, asset="piece") for name in checks])
    def piece(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return client.run(context=context, job=job, key=key, **more).get_materialize_result()

    return dg.materialize([piece])


def main(vertex: str, gcs: str, key: str, code: str) -> None:
    with pipes_client(vertex, gcs) as client:
        materialize(client, job_of(code, gcs), key)


if __name__ == "__main__":
    main(*sys.argv[1:])
