"""Clients of Google Cloud, as configured: credentials from the environment, none where an endpoint is set.

All speak REST: what is tested is then what runs, and nothing of gRPC's threads is in a process that Dagster forks.
"""

from __future__ import annotations

from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from custseg_assets.errors import BadInputError
from custseg_assets.settings import GcpSettings


def storage_client(gcp: GcpSettings) -> storage.Client:
    """Of Cloud Storage.

    Raises:
        BadInputError: there are no credentials.
    """
    if gcp.endpoints.storage:
        options = {"api_endpoint": gcp.endpoints.storage}
        return storage.Client(project=gcp.project, credentials=AnonymousCredentials(), client_options=options)
    return _with_credentials(storage.Client, project=gcp.project)


def vertex_client(kind: Any, gcp: GcpSettings) -> Any:
    """Of a service of Vertex AI.

    Args:
        kind: a client class of ``google.cloud.aiplatform_v1``.
        gcp: with a location.

    Raises:
        BadInputError: there are no credentials.
    """
    if gcp.endpoints.aiplatform:
        options = {"api_endpoint": gcp.endpoints.aiplatform}
        return kind(transport="rest", credentials=AnonymousCredentials(), client_options=options)
    options = {"api_endpoint": f"{gcp.location}-aiplatform.googleapis.com"}
    return _with_credentials(kind, transport="rest", client_options=options)


def _with_credentials(kind: Any, **arguments: Any) -> Any:
    from google.auth.exceptions import DefaultCredentialsError

    try:
        return kind(**arguments)
    except DefaultCredentialsError as error:
        raise BadInputError(
            f"Google Cloud: {' '.join(str(error).split())[:200]}",
            "credentials",
            "Run as a service account, or log in with `gcloud auth application-default login`.",
        ) from None
