"""Which image a name stands for now: the digest that a registry has under a tag."""

from __future__ import annotations

import re
from typing import Any

from custseg_assets.settings import GcpSettings

_SECONDS = 30.0
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_NAME = re.compile(r"(?P<host>[a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)/(?P<path>[^:@]+)(:(?P<tag>[\w.-]+))?")
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def pin_image(image: str, gcp: GcpSettings) -> str:
    """The image's name with the digest that its tag has now; unchanged where that cannot be known.

    Args:
        image: as Artifact Registry names it, with a tag, a digest or neither.
        gcp: for the registry's address, if it is another than the name's.
    """
    found = _NAME.fullmatch(image)
    if found is None:
        return image
    digest = _digest_of(found["host"], found["path"], found["tag"] or "latest", gcp.endpoints.registry)
    return f"{found['host']}/{found['path']}@{digest}" if digest else image


def is_pinned(image: str) -> bool:
    """Whether a name stands for the same image for ever."""
    return "@sha256:" in image


def _digest_of(host: str, path: str, tag: str, endpoint: str | None) -> str | None:
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    address = f"{endpoint or f'https://{host}'}/v2/{path}/manifests/{tag}"
    try:
        with _session(endpoint) as session:
            answer = session.head(address, headers={"Accept": ", ".join(_MANIFESTS)}, timeout=_SECONDS)
    except (GoogleAuthError, RequestException):
        return None
    digest = answer.headers.get("Docker-Content-Digest", "")
    return digest if answer.status_code == 200 and digest.startswith("sha256:") else None


def _session(endpoint: str | None) -> Any:
    import google.auth
    import requests
    from google.auth.transport.requests import AuthorizedSession

    if endpoint:
        return requests.Session()
    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return AuthorizedSession(credentials)
