"""Copy folders to and from Cloud Storage, for a trainer in a container that keeps no disk.

The trainer's container imports only this, ``storage`` and Google's storage client. A home's part on Cloud Storage is
in ``bucket``.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custseg_assets.gcp.storage import make_client

if TYPE_CHECKING:
    from google.cloud import storage

SCHEME = "gs://"
_CALL_SECONDS = 60.0


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and prefix of a folder; the prefix ends with a slash.

    >>> split_uri("gs://shop-data/jobs/1")
    ('shop-data', 'jobs/1/')
    """
    bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
    return bucket, prefix.rstrip("/") + "/"


def download_folder(client: storage.Client, uri: str, folder: Path, **calls: Any) -> list[str]:
    """Copy the files of a folder here, without its subfolders, and return their names.

    Args:
        client: of Cloud Storage.
        uri: ``gs://bucket/prefix``.
        folder: an existing folder to copy to.
        calls: arguments of each call, such as ``retry``.
    """
    bucket, prefix = split_uri(uri)
    names = []
    for blob in client.list_blobs(bucket, prefix=prefix, delimiter="/", timeout=_CALL_SECONDS, **calls):
        names.append(blob.name.removeprefix(prefix))
        # The client compares the content with the checksum that the service has for it.
        blob.download_to_filename(folder / names[-1], timeout=_CALL_SECONDS, **calls)
    return names


def upload_folder(client: storage.Client, folder: Path, uri: str, **calls: Any) -> None:
    """Copy the files of a folder here to a folder on Cloud Storage; arguments as of ``download_folder``."""
    bucket, prefix = split_uri(uri)
    for path in sorted(folder.iterdir()):
        blob = client.bucket(bucket).blob(f"{prefix}{path.name}")
        blob.upload_from_filename(path, checksum="crc32c", timeout=_CALL_SECONDS, **calls)


@contextlib.contextmanager
def local_copies(given: str, out: str) -> Iterator[tuple[Path, Path]]:
    """Local folders with the inputs and for the outputs; the outputs are uploaded if no error is raised.

    Args:
        given: ``gs://bucket/prefix`` of the inputs.
        out: ``gs://bucket/prefix`` of the outputs.
    """
    client = make_client()
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name) / "in", Path(name) / "out"
        for folder in folders:
            folder.mkdir()
        download_folder(client, given, folders[0])
        yield folders
        upload_folder(client, folders[1], out)


def pipes_channels() -> dict[str, Any]:
    """Context loader and message writer for a process that Dagster Pipes started in the cloud."""
    from dagster_pipes import PipesGCSContextLoader, PipesGCSMessageWriter

    client = make_client()
    # Dagster's channels look the bucket up, which a role for objects does not allow; a bucket's name is enough.
    client.get_bucket = client.bucket
    return {
        "context_loader": PipesGCSContextLoader(client),
        "message_writer": PipesGCSMessageWriter(client, interval=2),
    }
