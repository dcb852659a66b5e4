"""Classify lines on Dataproc Serverless: starts ``classify_job`` as a batch and brings back what it has written.

How a batch is run is in ``dataproc_pipes``. Raw files that are on this machine's disk are copied to the bucket first;
those in a bucket are read where they are.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS, Table
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.engines.engine import ClassifiedLines
from custseg_assets.errors import RunFailedError
from custseg_assets.gcp.costs import check_batch_cost
from custseg_assets.gcp.folders import SCHEME, split_uri
from custseg_assets.settings import GcpSettings
from custseg_assets.stores.staged import StagedRows
from custseg_assets.stores.table_files import TableFile, TableFiles

if TYPE_CHECKING:
    import dagster as dg
    from google.cloud import storage

    from custseg_assets.gcp.cloud_jobs import Patience
    from custseg_assets.gcp.dataproc_pipes import DataprocBatch, PipesDataprocBatchClient

_KEY_LENGTH = 40
_STORAGE_SECONDS = 120.0
_CALL_SECONDS = 60.0
_PROGRAM = "from custseg_assets.gcp.classify_job import main\n\nmain()\n"
_CORES = "4"


class DataprocClassifier:
    """Classifies lines in a batch; ``classify`` is that of ``engines.engine.Engine``.

    A batch's key is made from its image, the names of the raw files, which are never changed, and the rules. The same
    work again, after a crash of this process for example, follows the batch that runs or takes the result that it left.
    The image counts by its digest, which the registry is asked for; see ``images``.

    Args:
        gcp: with project, location, bucket and an image.
        context: of the step, which the batch's lines and figures stream into.
        patience: how long batches are waited for; from the settings by default.
    """

    name = "dataproc"

    def __init__(self, gcp: GcpSettings, context: dg.AssetExecutionContext, patience: Patience | None = None) -> None:
        self._gcp, self._context, self._patience = gcp, context, patience
        self._left: list[str] = []

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, gcp: GcpSettings, context: dg.AssetExecutionContext, patience: Patience | None = None
    ) -> Iterator[DataprocClassifier]:
        """A classifier; what its batches have in the bucket is removed at the end of a block without an error."""
        classifier = cls(gcp, context, patience)
        yield classifier
        classifier.remove_results()

    def classify(self, raw: TableFiles, rules: CleaningRules, staging: Path) -> Iterator[ClassifiedLines]:
        """See ``engines.engine.Engine``.

        Raises:
            RunFailedError: the batch could not be started, failed or left less than it was given.
            BadInputError: it could cost more than allowed, or there are no credentials.
        """
        if not raw.files:
            return
        self._context.log.info("on Dataproc Serverless, %s", check_batch_cost(self._gcp.dataproc))
        # Google's libraries take seconds to import: not when the graph is loaded, only for a batch.
        from custseg_assets.gcp.clients import storage_client
        from custseg_assets.gcp.cloud_jobs import CloudJobError

        bucket = storage_client(self._gcp)
        try:
            folder = self._run(bucket, raw, rules)
            with _explain_bucket_errors(folder):
                staged = [
                    self._fetch(bucket, table, folder, staging) for table in (CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS)
                ]
        except CloudJobError as error:
            raise RunFailedError(f"classifying lines on Dataproc: {error} The tables stay as they are.") from error
        found = sum(rows.files.n_rows for rows in staged)
        if found != raw.n_rows:
            raise RunFailedError(
                f"classifying lines on Dataproc: {raw.n_rows:,} were given, and {found:,} came back from {folder}. "
                f"Check that {self._gcp.dataproc.image} is of this version. The tables stay as they are."
            )
        self._left.append(folder)
        yield ClassifiedLines(list(raw.sizes), staged[0], staged[1])

    def remove_results(self) -> None:
        """Remove from the bucket what batches were given and what they left, as the tables have it now."""
        from google.api_core.exceptions import GoogleAPIError
        from requests.exceptions import RequestException

        from custseg_assets.gcp.clients import storage_client

        while self._left:
            folder = self._left.pop()
            try:
                client, (bucket, prefix) = storage_client(self._gcp), split_uri(folder)
                for blob in client.list_blobs(bucket, prefix=prefix, timeout=_CALL_SECONDS):
                    blob.delete(timeout=_CALL_SECONDS)
            except (GoogleAPIError, RequestException) as error:
                self._context.log.warning("%s could not be removed and costs something: %s", folder, error)

    def _run(self, bucket: storage.Client, raw: TableFiles, rules: CleaningRules) -> str:
        """Run the batch to its end, and return the folder in the bucket that has its result."""
        from custseg_assets.gcp.classify_job import DONE, describe_job
        from custseg_assets.gcp.cloud_jobs import Patience
        from custseg_assets.gcp.images import is_pinned, pin_image

        dataproc = self._gcp.dataproc
        patience = self._patience or Patience(pending=60 * dataproc.pending_timeout_minutes)
        image = pin_image(str(dataproc.image), self._gcp)
        if not is_pinned(image):
            self._context.log.warning(
                "%s could not be looked up in its registry: if its tag names another image than before, a result of "
                "the one before is taken for the same lines; name it with its digest, image@sha256:…, to be sure",
                image,
            )
        key = batch_key(image, raw, rules)
        place = "/".join(part for part in (self._gcp.prefix.strip("/"), "jobs", key) if part)
        folder = f"{SCHEME}{self._gcp.bucket}/{place}"
        with _explain_bucket_errors(folder):
            there = self._put_inputs(bucket, raw, place)
            _put(bucket, f"{folder}/in/job.json", describe_job(there, rules))
            _put(bucket, f"{folder}/in/main.py", _PROGRAM)
            is_made = bucket.bucket(self._gcp.bucket).blob(f"{place}/out/{DONE}/_SUCCESS").exists(timeout=_CALL_SECONDS)
        client = self._client(bucket, place, patience)
        client.run(context=self._context, job=self._batch(image, folder), key=key, accept_ended=is_made)
        return folder

    def _put_inputs(self, bucket: storage.Client, raw: TableFiles, place: str) -> TableFiles:
        """Copy raw files that are on this disk to the bucket, and return where all of them are now."""
        files = []
        for file in raw.files:
            if file.path.startswith(SCHEME):
                files.append(file)
                continue
            name = f"{place}/in/{raw.table.name}/period={file.period}/{Path(file.path).name}"
            blob = bucket.bucket(self._gcp.bucket).blob(name)
            if not blob.exists(timeout=_CALL_SECONDS):
                blob.upload_from_filename(file.path, checksum="crc32c", timeout=_STORAGE_SECONDS, retry=_retry())
            files.append(TableFile(file.period, f"{SCHEME}{self._gcp.bucket}/{name}", file.n_rows))
        return TableFiles(raw.table, tuple(files), stored=raw.stored)

    def _fetch(self, client: storage.Client, table: Table, folder: str, staging: Path) -> StagedRows:
        """Copy a table's staged files here."""
        bucket, prefix = split_uri(f"{folder}/out/{table.name}")
        for blob in client.list_blobs(bucket, prefix=prefix, timeout=_CALL_SECONDS):
            path = staging / table.name / blob.name.removeprefix(prefix)
            if path.suffix == ".parquet":
                path.parent.mkdir(parents=True, exist_ok=True)
                # The client compares the content with the checksum that the service has for it.
                blob.download_to_filename(path, timeout=_STORAGE_SECONDS)
        return StagedRows(table, staging / table.name)

    def _client(self, bucket: storage.Client, place: str, patience: Patience) -> PipesDataprocBatchClient:
        from google.cloud.dataproc_v1 import BatchControllerClient

        from custseg_assets.gcp.clients import dataproc_client
        from custseg_assets.gcp.dataproc_pipes import PipesDataprocBatchClient

        return PipesDataprocBatchClient(
            dataproc_client(BatchControllerClient, self._gcp),
            bucket,
            project=str(self._gcp.project),
            location=str(self._gcp.location),
            bucket=str(self._gcp.bucket),
            prefix=place,
            patience=patience,
        )

    def _batch(self, image: str, folder: str) -> DataprocBatch:
        from custseg_assets.gcp.dataproc_pipes import DataprocBatch

        dataproc, storage = self._gcp.dataproc, self._gcp.endpoints.storage
        return DataprocBatch(
            main=f"{folder}/in/main.py",
            image=image,
            args=("--job", f"{folder}/in/job.json", "--out", f"{folder}/out"),
            runtime_version=dataproc.runtime_version,
            properties={
                **dataproc.properties,
                "spark.driver.cores": _CORES,
                "spark.executor.cores": _CORES,
                "spark.dynamicAllocation.enabled": "true",
                "spark.dynamicAllocation.maxExecutors": str(dataproc.max_executors),
            },
            # Google's storage client reads this variable.
            environment={"STORAGE_EMULATOR_HOST": storage} if storage else {},
            service_account=dataproc.service_account,
            subnetwork=dataproc.subnetwork,
            staging_bucket=self._gcp.bucket,
            timeout_seconds=60 * dataproc.timeout_minutes,
            labels={"app": "custseg"},
        )


def batch_key(image: str, raw: TableFiles, rules: CleaningRules) -> str:
    """A key made from all that decides a batch's result: image, raw files by name, and rules."""
    files = [(file.period, Path(file.path).name, file.n_rows) for file in raw.files]
    parts: tuple[Any, ...] = (image, files, sorted(raw.stored), sorted(vars(rules).items()))
    return f"classify-{hashlib.sha256(repr(parts).encode()).hexdigest()[:_KEY_LENGTH]}"


def _put(client: storage.Client, uri: str, text: str) -> None:
    bucket, name = split_uri(uri)
    client.bucket(bucket).blob(name.rstrip("/")).upload_from_string(text, timeout=_CALL_SECONDS, retry=_retry())


def _retry() -> Any:
    """Every upload may be repeated: it has the same content each time."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_STORAGE_SECONDS)


@contextlib.contextmanager
def _explain_bucket_errors(uri: str) -> Iterator[None]:
    """Turn the errors of Google's storage client into a ``CloudJobError``."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    from custseg_assets.gcp.dataproc_pipes import explain_call

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise explain_call(error, f"the bucket, {uri}") from error
