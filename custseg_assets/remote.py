"""The home's part on Cloud Storage, where one is configured; Google's libraries are imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from custseg_assets.settings import Settings

if TYPE_CHECKING:
    from custseg_assets.gcp.bucket import Bucket


def bucket_of(settings: Settings) -> Bucket | None:
    """The configured bucket; ``None`` without one.

    Raises:
        BadInputError: there are no credentials.
    """
    if settings.gcp.storage.uri is None:
        return None
    from custseg_assets.gcp.bucket import Bucket
    from custseg_assets.gcp.clients import storage_client

    return Bucket(storage_client(settings.gcp), settings.gcp.storage.uri)
