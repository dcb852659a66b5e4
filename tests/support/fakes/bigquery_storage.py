"""A fake of BigQuery's Storage Read API on loopback, over what a fake of BigQuery holds: its tables and its results.

It speaks gRPC to Google's client: sessions, streams that begin at an offset, and Arrow, compressed where that is asked
for. Only one stream has the rows in their order; several have them as the service deals them out.
"""

from __future__ import annotations

import itertools
import re
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import grpc
import polars as pl
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.fakes.service import Refused

_SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
_TABLE = re.compile(r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)")
_LZ4 = types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
_TYPES = {
    "STRING": pa.string(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "NUMERIC": pa.decimal128(38, 9),
}
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    501: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}


@dataclass
class _Stream:
    rows: pa.Table
    compression: str | None


class FakeBigQueryStorage:
    """The service; ``with`` starts and stops it.

    Args:
        bigquery: the fake that holds the rows, which also says which permissions are denied.

    Attributes:
        n_streams: how many streams a session has unless fewer are asked for.
        message_rows: rows of a message.
        is_disabled: whether the API is not enabled in the project.
        n_unavailable: how many calls are answered with UNAVAILABLE before one is answered properly.
        breaks: of each call of ReadRows after the other, the number of messages after which it breaks with UNAVAILABLE;
            calls after those do not break.
        most_reads: how many calls of ReadRows are answered; those after them find the service unavailable.
        n_broken: how many calls broke so; one that has fewer messages ends as it should.
        sessions: number of streams of each session that was made.
        reads: stream and offset of every call of ReadRows that was answered.
        faults: errors of the fake itself; leaving ``with`` fails on them.
    """

    def __init__(self, bigquery: FakeBigQuery) -> None:
        self.bigquery = bigquery
        self.n_streams, self.message_rows = 3, 2
        self.is_disabled = False
        self.n_unavailable = 0
        self.breaks: list[int] = []
        self.n_broken = 0
        self.most_reads = 1 << 30
        self.sessions: list[int] = []
        self.reads: list[tuple[str, int]] = []
        self.faults: list[str] = []
        self._streams: dict[str, _Stream] = {}
        self._numbers = itertools.count(1)
        self._pool = ThreadPoolExecutor(8, "fake")
        self._server = grpc.server(self._pool)
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()
        assert self.faults == [], self.faults

    def _handlers(self) -> Any:
        def unary(request: types.CreateReadSessionRequest, context: Any) -> Any:
            return self._explained(context, lambda: self._create_session(request))

        def stream(request: types.ReadRowsRequest, context: Any) -> Iterator[Any]:
            messages = self._explained(context, lambda: self._read_rows(request))
            after = self.breaks.pop(0) if self.breaks else None
            for number, message in enumerate(messages):
                if number == after:
                    self.n_broken += 1
                    context.abort(grpc.StatusCode.UNAVAILABLE, "The stream is gone, read on from where it was.")
                yield message

        of_session, of_rows = types.CreateReadSessionRequest, types.ReadRowsRequest
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                    unary, of_session.deserialize, types.ReadSession.serialize
                ),
                "ReadRows": grpc.unary_stream_rpc_method_handler(
                    stream, of_rows.deserialize, types.ReadRowsResponse.serialize
                ),
            },
        )

    def _explained(self, context: Any, answer: Callable[[], Any]) -> Any:
        try:
            if self.n_unavailable:
                self.n_unavailable -= 1
                raise Refused(503, "UNAVAILABLE", "The service is currently unavailable.")
            return answer()
        except Refused as refused:
            self._abort(context, refused)
        except Exception:  # noqa: BLE001  (an error in the fake is shown where the test fails)
            self.faults.append(traceback.format_exc())
            self._abort(context, Refused(501, "INTERNAL", traceback.format_exc()))

    def _abort(self, context: Any, refused: Refused) -> NoReturn:
        context.abort(_STATUS[refused.code], refused.message)
        raise AssertionError("abort raises")

    def _allow(self, permission: str, resource: str) -> None:
        project = self.bigquery.project
        if self.is_disabled:
            message = f"BigQuery Storage API has not been used in project {project} before or it is disabled."
            raise Refused(403, "PERMISSION_DENIED", message)
        if self.bigquery.is_denied(permission):
            message = f"request failed: the user does not have '{permission}' permission for '{resource}'"
            raise Refused(403, "PERMISSION_DENIED", message)

    def _create_session(self, request: types.CreateReadSessionRequest) -> types.ReadSession:
        self._allow("bigquery.readsessions.create", request.parent)
        wanted = request.read_session
        named = _TABLE.fullmatch(wanted.table)
        if not named or request.parent != f"projects/{self.bigquery.project}":
            raise Refused(400, "INVALID_ARGUMENT", f"there is no {wanted.table!r} for {request.parent!r}")
        if wanted.data_format != types.DataFormat.ARROW:
            raise Refused(400, "INVALID_ARGUMENT", "only Arrow is spoken here")
        rows = _to_arrow(*self.bigquery.stored_rows(*named.groups()))
        name = f"projects/{self.bigquery.project}/locations/eu/sessions/session{next(self._numbers)}"
        compression = wanted.read_options.arrow_serialization_options.buffer_compression
        streams = []
        for number, part in enumerate(self._deal_out(rows, request.max_stream_count)):
            streams.append(f"{name}/streams/stream{number}")
            self._streams[streams[-1]] = _Stream(part, "lz4" if compression == _LZ4 else None)
        self.sessions.append(len(streams))
        return types.ReadSession(
            name=name,
            table=wanted.table,
            data_format=wanted.data_format,
            arrow_schema={"serialized_schema": rows.schema.serialize().to_pybytes()},
            streams=[{"name": stream} for stream in streams],
            estimated_row_count=rows.num_rows,
        )

    def _deal_out(self, rows: pa.Table, most: int) -> list[pa.Table]:
        """The rows of each stream; a table without rows has none."""
        n = min(most or self.n_streams, self.n_streams)
        if n == 1 or not rows.num_rows:
            return [rows] if rows.num_rows else []
        return [rows.take(list(range(rows.num_rows))[n - 1 - number :: n]) for number in range(n)]

    def _read_rows(self, request: types.ReadRowsRequest) -> Iterator[types.ReadRowsResponse]:
        self._allow("bigquery.readsessions.getData", request.read_stream.partition("/streams/")[0])
        stream = self._streams.get(request.read_stream)
        if stream is None:
            raise Refused(404, "NOT_FOUND", f"Not found: {request.read_stream}")
        if not 0 <= request.offset <= stream.rows.num_rows:
            raise Refused(400, "INVALID_ARGUMENT", f"offset {request.offset} of {stream.rows.num_rows} rows")
        if len(self.reads) >= self.most_reads:
            raise Refused(503, "UNAVAILABLE", "The service is currently unavailable.")
        self.reads.append((request.read_stream, request.offset))
        return self._messages(stream, request.offset)

    def _messages(self, stream: _Stream, offset: int) -> Iterator[types.ReadRowsResponse]:
        # The service says how far it is now and then, without rows.
        yield types.ReadRowsResponse(stats={"progress": {"at_response_start": 0.0}})
        for start in range(offset, stream.rows.num_rows, self.message_rows):
            [batch] = stream.rows.slice(start, self.message_rows).combine_chunks().to_batches()
            yield types.ReadRowsResponse(
                row_count=batch.num_rows,
                arrow_record_batch={"serialized_record_batch": _serialized(batch, stream.compression)},
            )


def _to_arrow(rows: pl.DataFrame, fields: list[dict[str, Any]]) -> pa.Table:
    """Rows as the service writes them, which names BigQuery's type where Arrow has one for two of them."""
    named = {"DATETIME": {"ARROW:extension:name": "google:sqlType:datetime"}}
    schema = pa.schema([pa.field(one["name"], _TYPES[one["type"]], metadata=named.get(one["type"])) for one in fields])
    return rows.to_arrow().cast(schema)


def _serialized(batch: pa.RecordBatch, compression: str | None) -> bytes:
    """One message of Arrow's format, without the schema before it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    messages = pa.ipc.MessageReader.open_stream(sink.getvalue())
    messages.read_next_message()
    content: bytes = messages.read_next_message().serialize().to_pybytes()
    return content
