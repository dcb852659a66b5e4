"""Folders on Google Cloud Storage, for a trainer that runs where no disk outlives it.

The trainer's container imports this and Google's storage client, and nothing else of Google's.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.cloud import storage

SCHEME = "gs://"
_CALL_SECONDS = 60.0


def split(uri: str) -> tuple[str, str]:
    """Bucket and prefix of a folder; the prefix ends with a slash.

    >>> split("gs://shop-data/jobs/1")
    ('shop-data', 'jobs/1/')
    """
    bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
    return bucket, prefix.rstrip("/") + "/"


def download(client: storage.Client, uri: str, folder: Path, **calls: Any) -> list[str]:
    """Copy the files of a folder, not of folders in it; their names.

    Args:
        client: of Cloud Storage.
        uri: ``gs://bucket/prefix``.
        folder: where they go; it is there.
        calls: how the client calls, such as its retries.
    """
    bucket, prefix = split(uri)
    names = []
    for blob in client.list_blobs(bucket, prefix=prefix, delimiter="/", timeout=_CALL_SECONDS, **calls):
        names.append(blob.name.removeprefix(prefix))
        # The client compares the content with the checksum that the service has for it.
        blob.download_to_filename(folder / names[-1], timeout=_CALL_SECONDS, **calls)
    return names


def upload(client: storage.Client, folder: Path, uri: str, **calls: Any) -> None:
    """Copy the files of a folder into one on Cloud Storage; arguments as of ``download``."""
    bucket, prefix = split(uri)
    for path in sorted(folder.iterdir()):
        blob = client.bucket(bucket).blob(f"{prefix}{path.name}")
        blob.upload_from_filename(path, checksum="crc32c", timeout=_CALL_SECONDS, **calls)


@contextlib.contextmanager
def local_copies(given: str, out: str) -> Iterator[tuple[Path, Path]]:
    """Folders on this disk for what is given and what is made; what was made is uploaded when all went well.

    Args:
        given: ``gs://bucket/prefix`` of the inputs.
        out: ``gs://bucket/prefix`` of the outputs.
    """
    from google.cloud import storage

    client = storage.Client()
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name) / "in", Path(name) / "out"
        for folder in folders:
            folder.mkdir()
        download(client, given, folders[0])
        yield folders
        upload(client, folders[1], out)


def pipes_channels() -> dict[str, Any]:
    """How a process that Dagster Pipes started in the cloud finds its context and sends its messages."""
    from dagster_pipes import PipesGCSContextLoader, PipesGCSMessageWriter
    from google.cloud import storage

    class Client(storage.Client):
        """Believes a bucket's name: Dagster's channels ask for the bucket, which a role for objects forbids."""

        def get_bucket(self, bucket_or_name: Any, **_: Any) -> storage.Bucket:
            return self.bucket(bucket_or_name)

    client = Client()
    return {
        "context_loader": PipesGCSContextLoader(client),
        "message_writer": PipesGCSMessageWriter(client, interval=2),
    }
