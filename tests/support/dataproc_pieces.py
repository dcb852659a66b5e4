"""A piece of work on Dataproc as a Dagster asset, run in this process or, to be killed there, in one of its own.

``python -m tests.support.dataproc_pieces DATAPROC_URL GCS_URL KEY``
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
from google.cloud.dataproc_v1 import BatchControllerClient

from custseg_assets.gcp.clients import dataproc_client, storage_client
from custseg_assets.gcp.dataproc_pipes import DataprocBatch, PipesDataprocBatchClient
from custseg_assets.settings import GcpEndpointSettings, GcpSettings
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.vertex import Image
from tests.support.files import REPOSITORY
from tests.support.gcp_pieces import SHORT_PATIENCE
from tests.support.places import PLACE

MAIN = "gs://shop-data/piece/main.py"

_REPORT_CODE = """
import sys, time
from dagster_pipes import (
    PipesCliArgsParamsLoader, PipesGCSContextLoader, PipesGCSMessageWriter, open_dagster_pipes
)
from google.cloud import storage

client = storage.Client()
channels = {
    "params_loader": PipesCliArgsParamsLoader(),
    "context_loader": PipesGCSContextLoader(client),
    "message_writer": PipesGCSMessageWriter(client, interval=-1),
}
with open_dagster_pipes(**channels) as pipes:
    pipes.log.info("half way through %s" % pipes.asset_key)
    pipes.report_asset_materialization(metadata={"n_lines": 3}, data_version="7")
    STATEMENT
"""


def images(python: str = sys.executable) -> dict[str, Image]:
    """Python with the project, as an image of the fake of Dataproc."""
    built = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return {"spark:1": Image([python], built)}


def report_code(statement: str = "pass") -> str:
    """A program that reports through Pipes and executes a statement before it ends."""
    return _REPORT_CODE.replace("STATEMENT", statement)


def put_program(gcs: FakeGcs, code: str) -> None:
    """Put the piece's program into the bucket."""
    gcs.put("shop-data", MAIN.removeprefix("gs://shop-data/"), code.encode())


def batch_of(gcs: str, **more: Any) -> DataprocBatch:
    """A batch that runs the piece's program."""
    return DataprocBatch(MAIN, **{"image": "spark:1", "environment": {"STORAGE_EMULATOR_HOST": gcs}, **more})


@contextlib.contextmanager
def batch_client(
    dataproc: str, gcs: str, sleep: Callable[[float], None] = time.sleep, **patience: float
) -> Iterator[PipesDataprocBatchClient]:
    """The client under test, which waits for a short time only."""
    gcp = GcpSettings(**PLACE, endpoints=GcpEndpointSettings(dataproc=dataproc, storage=gcs))
    waits = replace(SHORT_PATIENCE, **patience)
    with (
        contextlib.closing(storage_client(gcp)) as bucket,
        dataproc_client(BatchControllerClient, gcp) as batches,
    ):
        yield PipesDataprocBatchClient(batches, bucket, **PLACE, prefix="work/", patience=waits, sleep=sleep)


def materialize(client: PipesDataprocBatchClient, batch: DataprocBatch, key: str = "piece-1", **more: Any) -> Any:
    """Materialize the asset ``piece`` with a batch."""

    @dg.asset
    def piece(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return client.run(context=context, job=batch, key=key, **more).get_materialize_result()

    return dg.materialize([piece])


def main(dataproc: str, gcs: str, key: str) -> None:
    with batch_client(dataproc, gcs) as client:
        materialize(client, batch_of(gcs), key)


if __name__ == "__main__":
    main(*sys.argv[1:])
