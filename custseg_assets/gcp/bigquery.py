"""A connection to BigQuery, names of its tables, and its errors in words that a user can act on.

Reading a table belongs in ``bigquery_source``; fetching results, in ``bigquery_results``; writing tables and views, in
``bigquery_publish``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from custseg_assets.errors import BadInputError, CustsegError
from custseg_assets.settings import GcpSettings

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

PATIENCE_SECONDS = 120.0
"""How long a request is tried again when BigQuery is busy or cannot be reached."""
BUSY = {"backendError", "internalError", "rateLimitExceeded", "tableUnavailable"}
BUSY |= {"jobBackendError", "jobInternalError", "jobRateLimitExceeded"}
"""Reasons for which a load fails through no fault of its own."""
BUSY_SECONDS = 600.0
"""How long a load is started again that failed because BigQuery was busy."""
GIB = 1 << 30
PAGE_ROWS = 50_000
"""Rows of a page of a result."""

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 60.0
_NAME = re.compile(r"bq://(?P<project>[a-z0-9.:-]+)\.(?P<dataset>\w+)\.(?P<table>[\w-]+)", re.ASCII)


class BigQueryError(CustsegError):
    """A request to BigQuery failed; the message says why and what to do."""


@dataclass(frozen=True)
class TableName:
    """The full name of a table in BigQuery."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"


def table_name(source: str) -> TableName:
    """The table that ``bq://project.dataset.table`` names.

    Raises:
        BadInputError: the text is not such a name.

    >>> str(table_name("bq://shop-1.sales.orders"))
    'shop-1.sales.orders'
    """
    found = _NAME.fullmatch(source)
    if not found:
        raise BadInputError(source, "bq://project.dataset.table", "Correct --source or [source] path.")
    return TableName(**found.groupdict())


class BigQuery:
    """A connection to the configured project.

    Args:
        settings: with a project.
        patience_seconds: how long a request is tried again when the service is busy or cannot be reached.
        rows_over_rest: how many rows a result has at most that comes over REST.

    Attributes:
        has_storage_api: whether larger results come through the Storage Read API; no longer once that is refused.

    Raises:
        BadInputError: no project is configured.
        BigQueryError: there are no credentials.
    """

    def __init__(
        self, settings: GcpSettings, patience_seconds: float = PATIENCE_SECONDS, rows_over_rest: int = PAGE_ROWS
    ) -> None:
        if settings.project is None:
            raise BadInputError("[gcp] project is not set", "the project to bill", "Set it in custseg.toml.")
        self.settings, self.project = settings, settings.project
        self.patience_seconds, self.rows_over_rest = patience_seconds, rows_over_rest
        self.retry = DEFAULT_RETRY.with_timeout(patience_seconds)
        endpoint = settings.endpoints.bigquery
        # Results of a fake are not in the real service.
        self.has_storage_api = endpoint is None or settings.endpoints.bigquery_storage is not None
        with explain_errors("connecting to BigQuery"):
            self.client = bigquery.Client(
                project=self.project,
                credentials=AnonymousCredentials() if endpoint else None,
                client_options={"api_endpoint": endpoint} if endpoint else None,
            )


def storage_read_client(settings: GcpSettings) -> BigQueryReadClient:
    """A client of the Storage Read API; ``with`` closes its connection and ends gRPC's threads."""
    # gRPC's threads are there while one result is read; runs are forks of a process that never reads any.
    import grpc
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

    kind = BigQueryReadClient.get_transport_class("grpc")
    endpoint = settings.endpoints.bigquery_storage
    if endpoint:
        return BigQueryReadClient(transport=kind(channel=grpc.insecure_channel(endpoint, _OF_A_CHANNEL)))

    def make_channel(*args: Any, options: Any = (), **more: Any) -> grpc.Channel:
        return kind.create_channel(*args, options=[*options, *_OF_A_CHANNEL, *_KEEPALIVE], **more)

    def make_transport(**arguments: Any) -> Any:
        return kind(channel=make_channel, **arguments)

    return BigQueryReadClient(transport=make_transport)


_OF_A_CHANNEL = (("grpc.max_receive_message_length", -1),)
# As Google's own client of BigQuery does: a connection that is dead without a word is noticed.
_KEEPALIVE = (("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 60_000))


@contextlib.contextmanager
def explain_errors(doing: str) -> Iterator[None]:
    """Turn the errors of Google's client into a ``BigQueryError`` of one line.

    Args:
        doing: what is being done, with the names of the tables.

    Raises:
        BigQueryError: the service refused, could not be reached, or there are no credentials.
    """
    try:
        yield
    except exceptions.GoogleAPICallError as error:
        raise BigQueryError(f"{doing}: {_message(error)} {_advice(error)}") from None
    except exceptions.RetryError as error:
        raise BigQueryError(f"{doing}: {str(error.cause or error).rstrip('.')}. {_UNREACHABLE}") from None
    except RequestException as error:
        raise BigQueryError(f"{doing}: {error}. {_UNREACHABLE}") from None
    except GoogleAuthError as error:
        raise BigQueryError(f"{doing}: {error}. {_CREDENTIALS}") from None


def waits_when_busy() -> Iterator[float]:
    """Seconds to wait between loads that fail because BigQuery is busy; they come to ``BUSY_SECONDS``."""
    total, wait = 0.0, _FIRST_WAIT_SECONDS
    while total < BUSY_SECONDS:
        yield wait
        total, wait = total + wait, min(2 * wait, _LONGEST_WAIT_SECONDS)


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch without the field metadata that the client adds to instants; Polars reads them as another type."""
    schema = pa.schema([pa.field(field.name, field.type) for field in batch.schema])
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def format_size(n_bytes: int) -> str:
    """A number of bytes in the units that BigQuery bills.

    >>> format_size(3 << 30), format_size(5 << 20)
    ('3.00 GiB', '5.0 MiB')
    """
    return f"{n_bytes / GIB:,.2f} GiB" if n_bytes >= GIB else f"{n_bytes / (1 << 20):,.1f} MiB"


_UNREACHABLE = "BigQuery cannot be reached; nothing was changed, run it again later."
_CREDENTIALS = "Log in with `gcloud auth application-default login`, or run it as a service account."
_ADVICE = {
    "accessDenied": "Grant the account the role that docs/gcp.md names for this.",
    "notFound": "Correct the name, or make it; see docs/gcp.md.",
    "quotaExceeded": "Wait until the quota is renewed, or ask for more of it; nothing was changed.",
    "rateLimitExceeded": "Run it again later; nothing was changed.",
    "bytesBilledLimitExceeded": "Raise [gcp.bigquery] maximum_gib_billed if that is what you want to pay for.",
    "billingNotEnabled": "Link a billing account to the project.",
}


def _message(error: exceptions.GoogleAPICallError) -> str:
    text = str(_details(error).get("message", error.message))
    return text if text.endswith((".", "!")) else f"{text}."


def _advice(error: exceptions.GoogleAPICallError) -> str:
    return advise(_details(error).get("reason", _REASONS.get(type(error), "")))


def _details(error: exceptions.GoogleAPICallError) -> Mapping[str, Any]:
    """What the service says about an error over REST; over gRPC, which has other errors, nothing."""
    return error.errors[0] if error.errors and isinstance(error.errors[0], Mapping) else {}


_REASONS = {exceptions.PermissionDenied: "accessDenied", exceptions.NotFound: "notFound"}
"""Reasons of BigQuery for errors of gRPC."""


def advise(reason: str) -> str:
    """What to do about an error for which BigQuery gives this reason."""
    return _ADVICE.get(reason, "Nothing was changed.")
