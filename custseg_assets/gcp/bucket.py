"""The home's part on Cloud Storage: releases, files that land, the service's prediction log, and room for tables.

A release is written once under its id, its manifest last, and ``CURRENT`` is replaced only if it is still the one that
was read. Pipeline and service both keep a verified copy on their own disk, which is what they read; so everything that
holds for releases on a disk holds here. The service imports this and Google's storage client, and nothing else of
Google's.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custseg_assets.errors import CustsegError
from custseg_assets.stores import releases
from custseg_assets.stores.files import replacement_for
from custseg_assets.stores.releases import DamagedReleaseError

if TYPE_CHECKING:
    from google.cloud import storage

CALL_SECONDS = 60.0
RELEASES, LANDING, FETCHED, PREDICTION_LOG = "releases", "landing", "landing_fetched", "prediction_log"
TABLES = "tables"


class BucketError(CustsegError):
    """Cloud Storage did not do what it was asked to; says why and what to do."""


class Bucket:
    """A home's folder on Cloud Storage.

    Args:
        client: of Cloud Storage.
        uri: ``gs://bucket/prefix``.
        patience_seconds: how long a service that is busy or cannot be reached is asked again.
    """

    def __init__(self, client: storage.Client, uri: str, patience_seconds: float = CALL_SECONDS) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        name, _, prefix = uri.removeprefix("gs://").partition("/")
        self.uri = uri.rstrip("/")
        self._client, self._bucket = client, client.bucket(name)
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._calls: dict[str, Any] = {"retry": DEFAULT_RETRY.with_timeout(patience_seconds), "timeout": CALL_SECONDS}

    # Releases.

    def current(self) -> str | None:
        """Id of the release to serve; ``None`` before the first.

        Raises:
            BucketError: the bucket cannot be read.
        """
        with self._explained(f"{RELEASES}/{releases.CURRENT}"):
            return self._read_current()[0]

    def push_release(self, root: Path, release_id: str) -> None:
        """Copy a release there and make it the one to serve; what is there already is not copied again.

        Args:
            root: folder of the releases here.
            release_id: of one that is there.

        Raises:
            DamagedReleaseError: the release here does not verify; nothing was copied.
            BucketError: it could not be copied, or another writer changed ``CURRENT`` at the same time; the release
                that was served before still is.
        """
        manifest = releases.verify(root, release_id)
        with self._explained(f"{RELEASES}/{release_id}"):
            before, generation = self._read_current()
            for name in (*sorted(manifest.files), releases.MANIFEST):
                self._write_once(f"{RELEASES}/{release_id}/{name}", root / release_id / name)
        with self._explained(f"{RELEASES}/{releases.CURRENT}"):
            if before != release_id:
                # Whoever pointed elsewhere meanwhile may have meant it: a rollback, or a second pipeline.
                self._blob(f"{RELEASES}/{releases.CURRENT}").upload_from_string(
                    f"{release_id}\n", if_generation_match=generation, checksum="crc32c", **self._calls
                )

    def pull_release(self, root: Path) -> str | None:
        """Bring the release to serve here, verified, and point to it; the id where it is another than before.

        Args:
            root: folder of the releases here.

        Raises:
            DamagedReleaseError: what is there is not what was written; what is here stays as it is.
            BucketError: the bucket cannot be read.
        """
        with self._explained(f"{RELEASES}/{releases.CURRENT}"):
            wanted = self._read_current()[0]
        if wanted is None or wanted == releases.current(root):
            return None
        if wanted not in releases.releases(root):
            self._fetch(root, f"{RELEASES}/{wanted}/", wanted)
        releases.point_to(root, wanted)
        return wanted

    def prune_releases(self, keep: int) -> tuple[str, ...]:
        """Remove all but the newest releases there; the one that is served always stays. Returns the ids removed.

        Raises:
            BucketError: the bucket cannot be listed or written.
        """
        with self._explained(RELEASES):
            serving = self._read_current()[0]
            manifests = [blob for blob in self._listed(f"{RELEASES}/") if blob.name.endswith(f"/{releases.MANIFEST}")]
            written = [blob.name.split("/")[-2] for blob in sorted(manifests, key=lambda blob: blob.time_created)]
            candidates = [release_id for release_id in written if release_id != serving]
            gone = candidates[: max(0, len(candidates) - keep)]
            for release_id in gone:
                # The manifest goes first: without it the rest is no release.
                names = [blob.name for blob in self._listed(f"{RELEASES}/{release_id}/")]
                for name in sorted(names, key=lambda name: not name.endswith(f"/{releases.MANIFEST}")):
                    self._bucket.blob(name).delete(**self._calls)
        return tuple(gone)

    def fetch_artifact(self, root: Path) -> str:
        """Bring the release whose files lie in this very folder, as a model on Vertex AI has them, and point to it.

        Args:
            root: folder of the releases here.

        Returns:
            The release's id.

        Raises:
            DamagedReleaseError: what is there is not what was written.
            BucketError: the bucket cannot be read.
        """
        release_id = self._fetch(root, "")
        releases.point_to(root, release_id)
        return release_id

    def _fetch(self, root: Path, folder: str, release_id: str | None = None) -> str:
        """A release from a folder there, verified and placed here; its id, from the manifest if not known."""
        holding = releases.make_writing_directory(root)
        try:
            fetched = holding / "fetched"
            fetched.mkdir()
            with self._explained(f"{folder}{releases.MANIFEST}"):
                self._download(f"{folder}{releases.MANIFEST}", fetched / releases.MANIFEST)
            known = release_id or releases.id_of(fetched)
            written = fetched.rename(holding / known)
            with self._explained(f"{folder}*"):
                for name in releases.read_manifest(holding, known).files:
                    self._download(f"{folder}{name}", written / name)
            releases.place(root, written, releases.verify(holding, known))
        finally:
            shutil.rmtree(holding, ignore_errors=True)
        return known

    def _read_current(self) -> tuple[str | None, int]:
        """What ``CURRENT`` says, and its generation: 0 where there is none, as preconditions have it."""
        blob = self._bucket.get_blob(f"{self._prefix}{RELEASES}/{releases.CURRENT}", **self._calls)
        if blob is None:
            return None, 0
        text = blob.download_as_bytes(if_generation_match=blob.generation, **self._calls).decode().strip()
        return text or None, int(blob.generation)

    def _write_once(self, name: str, path: Path) -> None:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(name)
        with contextlib.suppress(PreconditionFailed):
            blob.upload_from_filename(path, if_generation_match=0, checksum="crc32c", **self._calls)
            return
        blob.reload(**self._calls)
        if blob.size != path.stat().st_size or blob.crc32c != _crc32c(path):
            raise DamagedReleaseError(
                f"{self.uri}/{name} is there with other content. Remove that release from the bucket, then run again."
            )

    # Files that come and go.

    def fetch_landed(self, folder: Path) -> tuple[str, ...]:
        """Move what has landed there to the landing folder here; a copy of each stays in ``landing_fetched/``.

        Done again after it was cut off, it brings a file twice, which the landing zone takes for repeated.

        Args:
            folder: the landing folder.

        Returns:
            The files' names.

        Raises:
            BucketError: the bucket cannot be read or written.
        """
        names = []
        with self._explained(LANDING):
            for blob in self._listed(f"{LANDING}/"):
                name = blob.name.removeprefix(f"{self._prefix}{LANDING}/")
                if blob.name.endswith("/") or not _is_below(folder, name):
                    continue
                self._download_blob(blob, folder / name)
                kept = f"{self._prefix}{FETCHED}/{blob.generation}/{name}"
                self._bucket.copy_blob(blob, self._bucket, kept, source_generation=blob.generation, **self._calls)
                # One that was replaced meanwhile is fetched the next time.
                blob.delete(if_generation_match=blob.generation, **self._calls)
                names.append(name)
        return tuple(names)

    def send_predictions(self, folder: Path) -> tuple[str, ...]:
        """Move the finished files of the prediction log there. Returns their names.

        Raises:
            BucketError: the bucket cannot be written; the files stay.
        """
        paths = sorted(folder.glob("*.jsonl"))
        with self._explained(PREDICTION_LOG):
            for path in paths:
                self._write_once(f"{PREDICTION_LOG}/{path.name}", path)
                # Another worker may have sent it at the same time.
                path.unlink(missing_ok=True)
        return tuple(path.name for path in paths)

    def fetch_predictions(self, folder: Path) -> tuple[str, ...]:
        """Move the service's finished files here; the pipeline takes each line in once, however often it comes.

        Raises:
            BucketError: the bucket cannot be read or written.
        """
        names = []
        with self._explained(PREDICTION_LOG):
            for blob in self._listed(f"{PREDICTION_LOG}/"):
                name = blob.name.removeprefix(f"{self._prefix}{PREDICTION_LOG}/")
                if "/" in name or not name.endswith(".jsonl"):
                    continue
                self._download_blob(blob, folder / name)
                blob.delete(if_generation_match=blob.generation, **self._calls)
                names.append(name)
        return tuple(names)

    # Tables, which Delta's own client writes and reads.

    def has_tables(self) -> bool:
        """Whether there is anything where a home's tables go.

        Raises:
            BucketError: the bucket cannot be listed.
        """
        with self._explained(TABLES):
            found = self._client.list_blobs(
                self._bucket, prefix=f"{self._prefix}{TABLES}/", max_results=1, **self._calls
            )
            return any(True for _ in found)

    def remove_tables(self) -> None:
        """Remove all tables there.

        A table loses its newest commit first and its rows last, so that one which is cut off leaves each table as it
        once was, or none, and nobody a table that says it has rows which are gone.

        Raises:
            BucketError: the bucket cannot be listed or written.
        """
        with self._explained(TABLES):
            names = sorted((blob.name for blob in self._listed(f"{TABLES}/")), reverse=True)
            for name in sorted(names, key=lambda name: "/_delta_log/" not in name):
                self._bucket.blob(name).delete(**self._calls)

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(f"{self._prefix}{name}")

    def _listed(self, prefix: str) -> list[Any]:
        return list(self._client.list_blobs(self._bucket, prefix=f"{self._prefix}{prefix}", **self._calls))

    def _download(self, name: str, path: Path) -> None:
        self._blob(name).download_to_filename(path, checksum="crc32c", **self._calls)

    def _download_blob(self, blob: Any, path: Path) -> None:
        """Exactly the generation that was listed, under its name only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement_for(path) as partial:
            blob.download_to_filename(partial, if_generation_match=blob.generation, checksum="crc32c", **self._calls)

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.exceptions import GoogleCloudError
        from requests.exceptions import RequestException

        where = f"{self.uri}/{name}"
        try:
            yield
        except exceptions.PreconditionFailed:
            raise BucketError(f"{where} was changed by somebody else meanwhile. Look at it, then run again.") from None
        except exceptions.Forbidden as error:
            raise BucketError(
                f"{where}: {error.message}. Grant the account the role that docs/gcp.md names for this."
            ) from None
        except exceptions.NotFound as error:
            raise BucketError(f"{where}: {error.message}. Correct [gcp.storage] uri, or make the bucket.") from None
        except (exceptions.RetryError, GoogleCloudError, RequestException, GoogleAuthError) as error:
            cause = getattr(error, "cause", None) or error
            raise BucketError(
                f"{where}: {' '.join(str(cause).split())[:300]}. Nothing was lost; run it again."
            ) from None


def bucket_from_environment(uri: str) -> Bucket:
    """The folder with the environment's credentials, for a process without custseg's settings.

    Raises:
        BucketError: there are no credentials.
    """
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    try:
        return Bucket(storage.Client(), uri)
    except (GoogleAuthError, OSError) as error:
        raise BucketError(f"{uri}: {' '.join(str(error).split())[:300]} Run as a service account.") from None


def _crc32c(path: Path) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        for _ in checksum.consume(file, 1 << 20):
            pass
    return base64.b64encode(checksum.digest()).decode()


def _is_below(folder: Path, name: str) -> bool:
    """Whether a name from outside stays in the folder it is meant for, and is not hidden there."""
    path = (folder / name).resolve()
    return path.is_relative_to(folder.resolve()) and not any(part.startswith(".") for part in Path(name).parts)
