"""A home's part on Cloud Storage: releases, landed files, the service's prediction log, and the folder of its tables.

A release is written once under its id, its manifest last, and ``CURRENT`` is replaced only if it has not changed since
it was read. Pipeline and service each read a verified copy on their own disk. The service imports only this and
Google's storage client. Reading and writing tables belongs in ``stores.bucket_tables``.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custseg_assets.errors import CustsegError
from custseg_assets.gcp.storage import make_client, reason_of
from custseg_assets.stores import releases
from custseg_assets.stores.files import replacement_for
from custseg_assets.stores.releases import DamagedReleaseError, ManifestCheck

if TYPE_CHECKING:
    from google.cloud import storage

CALL_SECONDS = 60.0
RELEASES, LANDING, FETCHED, PREDICTION_LOG = "releases", "landing", "landing_fetched", "prediction_log"
TABLES = "tables"
_FORBIDDEN = (
    "Grant the account the role that docs/gcp.md names for this. One that may not list is told this, too, where there "
    "is no such object: before the first release, there is none to serve."
)
_MAX_POINTER_BYTES = 1_000


class BucketError(CustsegError):
    """A request to Cloud Storage failed; the message says why and what to do."""


class Bucket:
    """A home's folder on Cloud Storage.

    Args:
        client: of Cloud Storage.
        uri: ``gs://bucket/prefix``.
        patience_seconds: how long a request is tried again when the service is busy or cannot be reached.
        check: of the manifests of releases that are fetched, such as ``signatures.RequiredSignature``.
    """

    def __init__(
        self,
        client: storage.Client,
        uri: str,
        patience_seconds: float = CALL_SECONDS,
        check: ManifestCheck = releases.accept_manifest,
    ) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        name, _, prefix = uri.removeprefix("gs://").partition("/")
        self.uri, self._check = uri.rstrip("/"), check
        self._client, self._bucket = client, client.bucket(name)
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._calls: dict[str, Any] = {"retry": DEFAULT_RETRY.with_timeout(patience_seconds), "timeout": CALL_SECONDS}

    # Releases.

    def current(self) -> str | None:
        """Id of the release to serve; ``None`` before the first.

        Raises:
            BucketError: the bucket cannot be read.
        """
        with self._explain_errors(f"{RELEASES}/{releases.CURRENT}"):
            return self._read_current()[0]

    def push_release(self, root: Path, release_id: str) -> None:
        """Copy a release to the bucket and make it the one to serve; files that are there already are not copied again.

        Args:
            root: local folder of the releases.
            release_id: of a release in it.

        Raises:
            DamagedReleaseError: the local release is damaged; nothing was copied.
            BucketError: the release could not be copied, or another writer changed ``CURRENT`` at the same time; the
                release that was served before still is.
        """
        manifest = releases.verify(root, release_id)
        with self._explain_errors(f"{RELEASES}/{release_id}"):
            before, generation = self._read_current()
            signature = [releases.SIGNATURE] if (root / release_id / releases.SIGNATURE).exists() else []
            for name in (*sorted(manifest.files), *signature, releases.MANIFEST):
                self._write_once(f"{RELEASES}/{release_id}/{name}", root / release_id / name)
        with self._explain_errors(f"{RELEASES}/{releases.CURRENT}"):
            if before != release_id:
                self._point_to(release_id, generation)

    def _point_to(self, release_id: str, generation: int) -> None:
        from google.api_core.exceptions import PreconditionFailed

        try:
            # Another writer may have replaced it on purpose: a rollback, or a second pipeline.
            self._blob(f"{RELEASES}/{releases.CURRENT}").upload_from_string(
                f"{release_id}\n", if_generation_match=generation, checksum="crc32c", **self._calls
            )
        except PreconditionFailed:
            # The request had arrived although its answer was lost.
            if self._read_current()[0] != release_id:
                raise

    def pull_release(self, root: Path) -> str | None:
        """Copy the release to serve to this disk, verified, and point to it; return its id if it is not the one before.

        Args:
            root: local folder of the releases.

        Raises:
            DamagedReleaseError: the release in the bucket is damaged; the local ones stay as they are.
            BucketError: the bucket cannot be read.
        """
        with self._explain_errors(f"{RELEASES}/{releases.CURRENT}"):
            wanted = self._read_current()[0]
        if wanted is None:
            return None
        with contextlib.suppress(DamagedReleaseError):  # what is here may be damaged, and is then replaced
            if wanted == releases.current(root):
                return None
        if wanted not in releases.releases(root):
            self._fetch_release(root, f"{RELEASES}/{wanted}/", wanted)
        releases.point_to(root, wanted)
        return wanted

    def prune_releases(self, keep: int) -> tuple[str, ...]:
        """Remove all but the newest releases from the bucket, but never the served one. Returns the ids removed.

        What is left of a release whose removal, or whose copying, was cut off goes, too.

        Raises:
            BucketError: the bucket cannot be listed or written.
        """
        with self._explain_errors(RELEASES):
            serving = self._read_current()[0]
            folders: dict[str, list[Any]] = {}
            for blob in self._list_blobs(f"{RELEASES}/"):
                release_id, mark, _ = blob.name.removeprefix(f"{self._prefix}{RELEASES}/").partition("/")
                if mark:
                    folders.setdefault(release_id, []).append(blob)
            written = {
                release_id: blob.time_created
                for release_id, blobs in folders.items()
                for blob in blobs
                if blob.name.endswith(f"/{releases.MANIFEST}")
            }
            others = sorted(written.keys() - {serving}, key=lambda release_id: written[release_id])
            # One without a manifest that is newer than all releases is being written.
            parts = sorted(
                release_id
                for release_id in folders.keys() - written.keys() - {serving}
                if written and max(blob.time_created for blob in folders[release_id]) < max(written.values())
            )
            gone = (*others[: max(0, len(others) - keep)], *parts)
            for release_id in gone:
                # The manifest is removed first: without it the rest is no release.
                for blob in sorted(folders[release_id], key=lambda blob: not blob.name.endswith(releases.MANIFEST)):
                    self._delete(blob)
        return gone

    def fetch_artifact(self, root: Path) -> str:
        """Copy the release whose files lie directly in this folder, as for a model on Vertex AI, and point to it.

        Args:
            root: local folder of the releases.

        Returns:
            The release's id.

        Raises:
            DamagedReleaseError: the release in the bucket is damaged.
            BucketError: the bucket cannot be read.
        """
        release_id = self._fetch_release(root, "")
        releases.point_to(root, release_id)
        return release_id

    def _fetch_release(self, root: Path, folder: str, release_id: str | None = None) -> str:
        """Copy a release from a folder of the bucket, verify and place it; return its id, read if it is not given."""
        scratch = releases.make_writing_directory(root)
        try:
            fetched = scratch / "fetched"
            fetched.mkdir()
            with self._explain_errors(f"{folder}{releases.MANIFEST}"):
                self._download(f"{folder}{releases.MANIFEST}", fetched / releases.MANIFEST, _check_manifest_size)
                self._fetch_signature(folder, fetched)
            known = release_id or releases.id_of(fetched)
            written = fetched.rename(scratch / known)
            files = releases.read_manifest(scratch, known, self._check).files
            _check_disk(root, sum(entry.n_bytes for entry in files.values()))
            with self._explain_errors(f"{folder}*"):
                for name, entry in files.items():
                    self._download(f"{folder}{name}", written / name, partial(_check_size, entry.n_bytes))
            releases.place(root, written, releases.verify(scratch, known))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return known

    def _fetch_signature(self, folder: str, fetched: Path) -> None:
        """Copy the signature of a release's manifest, where there is one."""
        name = f"{folder}{releases.SIGNATURE}"
        if self._blob(name).exists(**self._calls):
            self._download(name, fetched / releases.SIGNATURE, _check_signature_size)

    def _read_current(self) -> tuple[str | None, int]:
        """The id in ``CURRENT`` and its generation; 0 if there is none, which is what preconditions expect."""
        blob = self._bucket.get_blob(f"{self._prefix}{RELEASES}/{releases.CURRENT}", **self._calls)
        if blob is None:
            return None, 0
        _check_size_limit(blob, _MAX_POINTER_BYTES)
        content = blob.download_as_bytes(if_generation_match=blob.generation, **self._calls)
        text = content.decode("utf-8", "replace").strip()
        return (releases.check_release_id(text) if text else None), int(blob.generation)

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

    # Landed files and the prediction log.

    def fetch_landed(self, folder: Path) -> tuple[str, ...]:
        """Move landed files to the local landing folder; a copy of each stays in ``landing_fetched/``.

        After a crash a file may be fetched twice; the landing zone recognises it as repeated.

        Args:
            folder: the landing folder.

        Returns:
            The files' names.

        Raises:
            BucketError: the bucket cannot be read or written.
        """
        names = []
        with self._explain_errors(LANDING):
            for blob in self._list_blobs(f"{LANDING}/"):
                name = blob.name.removeprefix(f"{self._prefix}{LANDING}/")
                if blob.name.endswith("/") or not _is_below(folder, name):
                    continue
                self._download_blob(blob, folder / name)
                kept = f"{self._prefix}{FETCHED}/{blob.generation}/{name}"
                self._bucket.copy_blob(blob, self._bucket, kept, source_generation=blob.generation, **self._calls)
                # A file that was replaced meanwhile is fetched the next time.
                self._delete(blob, if_generation_match=blob.generation)
                names.append(name)
        return tuple(names)

    def send_predictions(self, folder: Path) -> tuple[str, ...]:
        """Move finished files of the prediction log to the bucket. Returns their names.

        Raises:
            BucketError: the bucket cannot be written; the files stay.
        """
        paths = sorted(folder.glob("*.jsonl"))
        with self._explain_errors(PREDICTION_LOG):
            for path in paths:
                self._write_once(f"{PREDICTION_LOG}/{path.name}", path)
                # Another worker may have sent it at the same time.
                path.unlink(missing_ok=True)
        return tuple(path.name for path in paths)

    def fetch_predictions(self, folder: Path) -> tuple[str, ...]:
        """Move the service's finished files of the prediction log to a local folder. Returns their names.

        A file may be fetched twice; the pipeline takes each line in once.

        Raises:
            BucketError: the bucket cannot be read or written.
        """
        names = []
        with self._explain_errors(PREDICTION_LOG):
            for blob in self._list_blobs(f"{PREDICTION_LOG}/"):
                name = blob.name.removeprefix(f"{self._prefix}{PREDICTION_LOG}/")
                if "/" in name or not name.endswith(".jsonl"):
                    continue
                self._download_blob(blob, folder / name)
                self._delete(blob, if_generation_match=blob.generation)
                names.append(name)
        return tuple(names)

    # Tables, which Delta's client writes and reads.

    def has_tables(self) -> bool:
        """Whether the folder for a home's tables has any files.

        Raises:
            BucketError: the bucket cannot be listed.
        """
        with self._explain_errors(TABLES):
            found = self._client.list_blobs(
                self._bucket, prefix=f"{self._prefix}{TABLES}/", max_results=1, **self._calls
            )
            return any(True for _ in found)

    def remove_tables(self) -> None:
        """Remove all tables from the bucket.

        The newest commits are removed first and the rows last. If this is interrupted, each table is left as an earlier
        version of itself or without any commit, and no commit names rows that are gone.

        Raises:
            BucketError: the bucket cannot be listed or written.
        """
        with self._explain_errors(TABLES):
            names = sorted((blob.name for blob in self._list_blobs(f"{TABLES}/")), reverse=True)
            for name in sorted(names, key=lambda name: "/_delta_log/" not in name):
                self._delete(self._bucket.blob(name))

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(f"{self._prefix}{name}")

    def _delete(self, blob: Any, **conditions: Any) -> None:
        """Delete an object; one that is not there any more, or not as it was, is left as it is."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        with contextlib.suppress(NotFound, PreconditionFailed):
            blob.delete(**conditions, **self._calls)

    def _list_blobs(self, prefix: str) -> list[Any]:
        return list(self._client.list_blobs(self._bucket, prefix=f"{self._prefix}{prefix}", **self._calls))

    def _download(self, name: str, path: Path, check: Callable[[Any], None]) -> None:
        """Download a file, of the generation whose size was checked before."""
        blob = self._blob(name)
        blob.reload(**self._calls)
        check(blob)
        blob.download_to_filename(path, if_generation_match=blob.generation, checksum="crc32c", **self._calls)

    def _download_blob(self, blob: Any, path: Path) -> None:
        """Download the generation that was listed; the file gets its name only when it is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement_for(path) as unfinished:
            blob.download_to_filename(unfinished, if_generation_match=blob.generation, checksum="crc32c", **self._calls)

    @contextlib.contextmanager
    def _explain_errors(self, name: str) -> Iterator[None]:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.exceptions import GoogleCloudError
        from google.cloud.storage.exceptions import DataCorruption
        from requests.exceptions import RequestException

        where = f"{self.uri}/{name}"
        try:
            yield
        except exceptions.PreconditionFailed:
            raise BucketError(f"{where} was changed by somebody else meanwhile. Look at it, then run again.") from None
        except exceptions.Forbidden as error:
            raise BucketError(f"{where}: {reason_of(error)} {_FORBIDDEN}") from None
        except exceptions.NotFound as error:
            raise BucketError(f"{where}: {reason_of(error)}. Correct [gcp.storage] uri, or make the bucket.") from None
        except DataCorruption:
            raise BucketError(
                f"{where}: what arrived is not what the bucket has, by its checksum. Nothing was lost; run it again."
            ) from None
        except (exceptions.RetryError, GoogleCloudError, RequestException, GoogleAuthError) as error:
            cause = getattr(error, "cause", None) or error
            raise BucketError(f"{where}: {reason_of(cause)}. Nothing was lost; run it again.") from None


def bucket_from_environment(uri: str, check: ManifestCheck) -> Bucket:
    """A home's folder with credentials from the environment, for a process without custseg's settings.

    Raises:
        BucketError: there are no credentials.
    """
    from google.auth.exceptions import GoogleAuthError

    try:
        return Bucket(make_client(), uri, check=check)
    except (GoogleAuthError, OSError) as error:
        raise BucketError(f"{uri}: {' '.join(str(error).split())[:300]} Run as a service account.") from None


def _check_size_limit(blob: Any, limit: int) -> None:
    if blob.size > limit:
        raise DamagedReleaseError(f"{blob.name}: {blob.size} bytes; at most {limit} are read")


def _check_manifest_size(blob: Any) -> None:
    _check_size_limit(blob, releases.MAX_MANIFEST_BYTES)


def _check_signature_size(blob: Any) -> None:
    _check_size_limit(blob, releases.MAX_SIGNATURE_BYTES)


def _check_size(n_bytes: int, blob: Any) -> None:
    if blob.size != n_bytes:
        raise DamagedReleaseError(
            f"{blob.name} is not as it was written: {blob.size} bytes; the manifest says {n_bytes}"
        )


def _check_disk(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise DamagedReleaseError(f"the release has {n_bytes} bytes; {free} are free under {folder}. Make room for it.")


def _crc32c(path: Path) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        for _ in checksum.consume(file, 1 << 20):
            pass
    return base64.b64encode(checksum.digest()).decode()


def _is_below(folder: Path, name: str) -> bool:
    """Whether a name from outside leads to a place inside the folder that is not hidden."""
    path = (folder / name).resolve()
    return path.is_relative_to(folder.resolve()) and not any(part.startswith(".") for part in Path(name).parts)
