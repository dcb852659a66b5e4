"""A connection to BigQuery, names of its tables, and its errors in words that a user can act on.

Reading a table belongs in ``bigquery_source``; writing tables and views, in ``bigquery_publish``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from custseg_assets.errors import BadInputError, CustsegError
from custseg_assets.settings import GcpSettings

PATIENCE_SECONDS = 120.0
"""How long a request is tried again when BigQuery is busy or cannot be reached."""
BUSY = {"backendError", "internalError", "rateLimitExceeded", "tableUnavailable"}
BUSY |= {"jobBackendError", "jobInternalError", "jobRateLimitExceeded"}
"""Reasons for which a load fails through no fault of its own."""
BUSY_SECONDS = 600.0
"""How long a load is started again that failed because BigQuery was busy."""
GIB = 1 << 30

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

    Raises:
        BadInputError: no project is configured.
        BigQueryError: there are no credentials.
    """

    def __init__(self, settings: GcpSettings, patience_seconds: float = PATIENCE_SECONDS) -> None:
        if settings.project is None:
            raise BadInputError("[gcp] project is not set", "the project to bill", "Set it in custseg.toml.")
        self.settings, self.project = settings, settings.project
        self.retry = DEFAULT_RETRY.with_timeout(patience_seconds)
        endpoint = settings.endpoints.bigquery
        with explain_errors("connecting to BigQuery"):
            self.client = bigquery.Client(
                project=self.project,
                credentials=AnonymousCredentials() if endpoint else None,
                client_options={"api_endpoint": endpoint} if endpoint else None,
            )


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
        raise BigQueryError(f"{doing}: {error.cause or error}. {_UNREACHABLE}") from None
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
    schema = pa.schema([field.remove_metadata() for field in batch.schema])
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
    text = str(error.errors[0].get("message", error.message) if error.errors else error.message)
    return text if text.endswith((".", "!")) else f"{text}."


def _advice(error: exceptions.GoogleAPICallError) -> str:
    return advise(error.errors[0].get("reason", "") if error.errors else "")


def advise(reason: str) -> str:
    """What to do about an error for which BigQuery gives this reason."""
    return _ADVICE.get(reason, "Nothing was changed.")
