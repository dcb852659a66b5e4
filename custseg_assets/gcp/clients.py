"""Clients of Google's services, as configured: credentials from the environment, none if an endpoint is set.

All use REST: it is what the tests run, and gRPC's threads do not belong in a process that Dagster forks. BigQuery's
clients are in ``bigquery``, one of them with gRPC for as long as a large result is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.auth.credentials import AnonymousCredentials

from custseg_assets.errors import BadInputError
from custseg_assets.gcp.storage import make_client
from custseg_assets.settings import GcpSettings

if TYPE_CHECKING:
    from google.cloud import storage


def storage_client(gcp: GcpSettings) -> storage.Client:
    """A client of Cloud Storage.

    Raises:
        BadInputError: there are no credentials.
    """
    if gcp.endpoints.storage:
        options = {"api_endpoint": gcp.endpoints.storage}
        return make_client(project=gcp.project, credentials=AnonymousCredentials(), client_options=options)
    return _create_client(make_client, project=gcp.project)


def vertex_client(kind: Any, gcp: GcpSettings) -> Any:
    """A client of a service of Vertex AI.

    Args:
        kind: a client class of ``google.cloud.aiplatform_v1``.
        gcp: with a location.

    Raises:
        BadInputError: there are no credentials.
    """
    return _regional_client(kind, gcp.endpoints.aiplatform, f"{gcp.location}-aiplatform.googleapis.com")


def dataproc_client(kind: Any, gcp: GcpSettings) -> Any:
    """A client of a service of Dataproc.

    Args:
        kind: a client class of ``google.cloud.dataproc_v1``.
        gcp: with a location.

    Raises:
        BadInputError: there are no credentials.
    """
    return _regional_client(kind, gcp.endpoints.dataproc, f"{gcp.location}-dataproc.googleapis.com")


def _regional_client(kind: Any, endpoint: str | None, own: str) -> Any:
    if endpoint:
        return kind(transport="rest", credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoint})
    return _create_client(kind, transport="rest", client_options={"api_endpoint": own})


def _create_client(kind: Any, **arguments: Any) -> Any:
    from google.auth.exceptions import DefaultCredentialsError

    try:
        return kind(**arguments)
    except DefaultCredentialsError as error:
        raise BadInputError(
            f"Google Cloud: {' '.join(str(error).split())[:200]}",
            "credentials",
            "Run as a service account, or log in with `gcloud auth application-default login`.",
        ) from None
