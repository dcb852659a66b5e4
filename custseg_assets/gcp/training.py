"""Train a challenger on Vertex AI: the launcher that starts the trainer as a custom job.

The protocol of launchers is in ``training.exchange``; how a custom job is run, in ``vertex_pipes``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from custseg_assets.errors import RunFailedError
from custseg_assets.gcp.costs import check_cost
from custseg_assets.settings import GcpSettings
from custseg_assets.training.exchange import CANDIDATES, TrainerReport, metadata_of

if TYPE_CHECKING:
    import dagster as dg
    from google.cloud import storage

    from custseg_assets.gcp.cloud_jobs import Patience
    from custseg_assets.gcp.vertex_pipes import PipesVertexAIClient, VertexJob

_KEY_LENGTH = 40
_STORAGE_SECONDS = 120.0


class VertexLauncher:
    """Starts the trainer as a Vertex AI custom job; see ``training.exchange.TrainingLauncher``.

    A job's key is made from its image and its inputs. Training on the same inputs again, after a crash of this process
    for example, follows the job that runs or takes the result that it left. The image counts by its digest, which the
    registry is asked for, so that a mended trainer under the same tag trains anew; where that is not to be had, it
    counts by its name, and this is said.

    Args:
        gcp: with project, location, bucket and an image.
        patience: how long jobs are waited for; from the settings by default.
    """

    def __init__(self, gcp: GcpSettings, patience: Patience | None = None) -> None:
        self._gcp, self._patience = gcp, patience

    def train(self, context: dg.AssetExecutionContext, *, snapshot: str, folder: Path) -> TrainerReport:
        """See ``training.exchange.TrainingLauncher``.

        Raises:
            RunFailedError: the job could not be started, failed or left no candidates.
            BadInputError: the job could cost more than allowed, or there are no credentials.
        """
        context.log.info("on Vertex AI, %s", check_cost(self._gcp.training))
        # Google's libraries take two to three seconds to import: not when the graph is loaded, only for a training.
        from google.cloud.storage.retry import DEFAULT_RETRY

        from custseg_assets.gcp.clients import storage_client
        from custseg_assets.gcp.cloud_jobs import Patience
        from custseg_assets.gcp.folders import download_folder, upload_folder
        from custseg_assets.gcp.images import is_pinned, pin_image
        from custseg_assets.gcp.vertex_pipes import VertexJobError

        patience = self._patience or Patience(pending=60 * self._gcp.training.pending_timeout_minutes)
        image = pin_image(str(self._gcp.training.image), self._gcp)
        if not is_pinned(image):
            context.log.warning(
                "%s could not be looked up in its registry: if its tag names another image than before, a result of "
                "the one before is taken for the same inputs; name it with its digest, image@sha256:…, to be sure",
                image,
            )
        key = job_key(image, folder / "in")
        place = "/".join(part for part in (self._gcp.prefix.strip("/"), "jobs", key) if part)
        uri = f"gs://{self._gcp.bucket}/{place}"
        storage = storage_client(self._gcp)
        retry = DEFAULT_RETRY.with_timeout(min(patience.silence, _STORAGE_SECONDS))
        try:
            with _explain_bucket_errors(uri):
                upload_folder(storage, folder / "in", f"{uri}/in", retry=retry)
                is_made = storage.bucket(self._gcp.bucket).blob(f"{place}/out/{CANDIDATES}").exists(retry=retry)
            invocation = self._client(storage, place, patience).run(
                context=context, job=self._job(snapshot, image, uri), key=key, accept_ended=is_made
            )
            with _explain_bucket_errors(uri):
                names = download_folder(storage, f"{uri}/out", folder / "out", retry=retry)
        except VertexJobError as error:
            raise RunFailedError(f"training {snapshot} on Vertex AI: {error} The champion stays.") from error
        if CANDIDATES not in names:
            raise RunFailedError(
                f"training {snapshot} on Vertex AI: the job succeeded and left no {CANDIDATES} in {uri}/out. Check "
                f"that {self._gcp.training.image} is the trainer of this version. The champion stays."
            )
        return {**metadata_of(invocation), **invocation.metadata}

    def _client(self, storage: storage.Client, place: str, patience: Patience) -> PipesVertexAIClient:
        from google.cloud.aiplatform_v1 import JobServiceClient

        from custseg_assets.gcp.clients import vertex_client
        from custseg_assets.gcp.vertex_pipes import PipesVertexAIClient

        return PipesVertexAIClient(
            vertex_client(JobServiceClient, self._gcp),
            storage,
            project=str(self._gcp.project),
            location=str(self._gcp.location),
            bucket=str(self._gcp.bucket),
            prefix=place,
            patience=patience,
        )

    def _job(self, snapshot: str, image: str, uri: str) -> VertexJob:
        from custseg_assets.gcp.vertex_pipes import VertexJob

        training, storage = self._gcp.training, self._gcp.endpoints.storage
        return VertexJob(
            display_name=f"custseg training {snapshot}",
            image=image,
            args=("--in", f"{uri}/in", "--out", f"{uri}/out"),
            # Google's storage client reads this variable.
            environment={"STORAGE_EMULATOR_HOST": storage} if storage else {},
            machine_type=training.machine_type,
            accelerator_type=training.accelerator_type,
            accelerator_count=training.accelerator_count,
            service_account=training.service_account,
            network=training.network,
            is_spot=training.is_spot,
            timeout_seconds=60 * training.timeout_minutes,
            labels={"app": "custseg", "snapshot": snapshot},
        )


def job_key(image: str, folder: Path) -> str:
    """A key made from all that decides a training's result: the trainer's image, best with its digest, and inputs."""
    digest = hashlib.sha256(image.encode())
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:_KEY_LENGTH]


@contextlib.contextmanager
def _explain_bucket_errors(uri: str) -> Iterator[None]:
    """Turn the errors of Google's storage client into a ``VertexJobError``."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    from custseg_assets.gcp.vertex_pipes import explain_call

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise explain_call(error, f"the bucket, {uri}") from error
