"""Rows of a finished query on BigQuery, as Arrow batches in bounded memory.

A result of one page comes over REST, with the answer that says that the query is done. More comes through the Storage
Read API: over gRPC, in several streams at once, or in one where the query has an order. Where the account may not use
that API, or it is switched off, the same rows come over REST. Running queries belongs to who asks them.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.api_core import exceptions
from google.api_core.retry import Retry, if_exception_type
from google.cloud.bigquery.job import QueryJob
from google.cloud.bigquery.table import RowIterator

from custseg_assets.gcp.bigquery import PAGE_ROWS, BigQuery, BigQueryError, plain_batch, storage_read_client
from custseg_assets.stores.sources import Progress

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.types import ReadRowsResponse, ReadSession

MOST_STREAMS = 4
"""How many streams of a result are read at once; each holds a message of at most 10 MB."""
_CALL_SECONDS = 60.0
_SESSION_SECONDS = 6 * 3600.0
"""BigQuery ends a session by then."""
_ORDERED = re.compile(r"\bORDER\s+BY\b", re.IGNORECASE)


def fetch_batches(bq: BigQuery, job: QueryJob, rows: RowIterator, progress: Progress) -> Generator[pa.RecordBatch]:
    """The rows of a query, at least one batch, each of about a page; in the query's order if it has one.

    Args:
        bq: the connection that the query was asked on.
        job: the query, which is done.
        rows: what ``job.result`` returned, of which nothing was fetched.
        progress: takes a line where the Storage Read API is refused.

    Raises:
        BigQueryError: other rows came than the query has.
        GoogleAPICallError: a request was refused; ``explain_errors`` has words for it.
    """
    n_rows = 0
    for batch in _gather(map(plain_batch, _read(bq, job, rows, progress))):
        n_rows += batch.num_rows
        yield batch
    if n_rows != rows.total_rows:
        raise BigQueryError(
            f"{n_rows:,} rows came of a result of {rows.total_rows:,}. Nothing was changed, run it again."
        )


def _read(bq: BigQuery, job: QueryJob, rows: RowIterator, progress: Progress) -> Iterator[pa.RecordBatch]:
    if bq.has_storage_api and rows.total_rows > bq.rows_over_rest:
        with storage_read_client(bq.settings) as client:
            session = _open_session(client, bq, job, rows.total_rows, progress)
            if session is not None:
                yield from _read_streams(client, session, _retry(bq))
                return
    yield from rows.to_arrow_iterable()


def _open_session(
    client: BigQueryReadClient, bq: BigQuery, job: QueryJob, n_rows: int, progress: Progress
) -> ReadSession | None:
    """A session that reads the table which BigQuery keeps the result in; nothing where it is refused."""
    from google.cloud.bigquery_storage_v1 import types

    compression = types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
    wanted = types.ReadSession(
        table=job.destination.to_bqstorage(),
        data_format=types.DataFormat.ARROW,
        read_options={"arrow_serialization_options": {"buffer_compression": compression}},
    )
    try:
        return client.create_read_session(
            parent=f"projects/{bq.project}",
            read_session=wanted,
            # Streams have no order among each other.
            max_stream_count=1 if _ORDERED.search(job.query) else MOST_STREAMS,
            retry=_retry(bq),
            timeout=_CALL_SECONDS,
        )
    except (exceptions.PermissionDenied, exceptions.RetryError) as error:
        # One answer for the whole connection: a role is not granted between two queries.
        bq.has_storage_api = False
        said = error.cause if isinstance(error, exceptions.RetryError) else error
        reason = str(getattr(said, "message", said)).rstrip(". ")
        progress(
            f"BigQuery: {n_rows:,} rows come over REST, which is slower, because the Storage Read API cannot be used: "
            f"{reason}. It needs roles/bigquery.readSessionUser on {bq.project} and bigquerystorage.googleapis.com"
        )
        return None


def _read_streams(client: BigQueryReadClient, session: ReadSession, retry: Retry) -> Iterator[pa.RecordBatch]:
    """The batches of all streams: one of each in turn, while the next of each is on its way.

    The client opens a stream that breaks again, behind the last row that came.
    """
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    with ThreadPoolExecutor(MOST_STREAMS, "bigquery-stream") as pool, contextlib.ExitStack() as readers:
        waiting: deque[tuple[Iterator[ReadRowsResponse], Future[Any]]] = deque()
        for stream in session.streams:
            reader = client.read_rows(stream.name, retry=retry, timeout=_SESSION_SECONDS)
            readers.callback(reader.cancel)
            messages = iter(reader)
            waiting.append((messages, pool.submit(next, messages, None)))
        while waiting:
            messages, coming = waiting.popleft()
            message = coming.result()
            if message is None:
                continue
            waiting.append((messages, pool.submit(next, messages, None)))
            # A message without rows only says how far the stream is.
            if message.row_count:
                content = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
                yield pa.ipc.read_record_batch(content, schema)


def _retry(bq: BigQuery) -> Retry:
    """As the client's own, which would try a stream again for a day."""
    again = if_exception_type(exceptions.ServiceUnavailable)
    return Retry(again, initial=0.1, multiplier=1.3, timeout=bq.patience_seconds)


def _gather(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Put batches together into ones of a page: streams send small ones."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= PAGE_ROWS:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)
