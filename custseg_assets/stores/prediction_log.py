"""The service's prediction log: read its finished files, validate the lines, and commit them to tables.

A file is removed when every line of it is in a table. A row has the file and the line it came from, so a line that was
committed before a process was killed is recognised and left out (docs/adr/0024). The files are written by
``custseg_serving.predictions``; what the requests tell is in ``domain.drift.requests``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from custseg_assets.domain.schemas import PREDICTION_LOG, REJECTED_PREDICTIONS, Table
from custseg_assets.stores.tables import TableStore

RECORD_FORMAT = 1
MAX_BATCH_BYTES = 16 << 20
"""Bytes of lines in memory at a time; as values they take about four times as much."""

MAX_LINE_BYTES = 4 << 20
"""More than any record has; a longer line is read, and rejected, in pieces."""

_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    # Fields that a later version of the service adds are accepted; the column ``answer`` keeps them.
    model_config = ConfigDict(strict=True, extra="ignore")

    at: Annotated[AwareDatetime, Field(strict=False)]


class _Rfm(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    recency_days: _Number | None
    frequency_orders: _Number | None
    monetary_net: _Number | None


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    segment_id: str
    is_rule_segment: bool
    margin: _Number | None
    rfm: _Rfm
    other_features: dict[str, _Number | None]


class _Answered(_Record):
    kind: Literal["lookup", "score"]
    request_id: str
    key_id: str | None
    latency_ms: _Number
    release_id: str
    model_version: str


class _Found(_Answered):
    outcome: Literal["found"]
    customer_id: str | None
    answer: _Answer


class _NotFound(_Answered):
    outcome: Literal["unknown", "too_new"]
    customer_id: str
    answer: None


class _Dropped(_Record):
    kind: Literal["dropped"]
    outcome: str
    n_dropped: Annotated[int, Field(ge=1, le=1 << 62)]


# In the order of the table's columns.
_REQUEST = attrgetter("request_id", "key_id", "latency_ms", "release_id", "model_version", "outcome", "customer_id")
_RFM = attrgetter(*_Rfm.model_fields)
_ANSWERED: TypeAdapter[_Found | _NotFound] = TypeAdapter(Annotated[_Found | _NotFound, Field(discriminator="outcome")])


@dataclass(frozen=True)
class Batch:
    """Validated lines of one or more files.

    Attributes:
        predictions: rows of ``prediction_log``.
        rejected: rows of ``rejected_predictions``.
        finished: the files whose last line is in this batch.
    """

    predictions: pl.DataFrame
    rejected: pl.DataFrame
    finished: tuple[Path, ...]


def finished_files(folder: Path) -> tuple[Path, ...]:
    """The files that the service has finished, oldest first; cheap enough for every few seconds.

    Args:
        folder: where the service writes; its unfinished files have other suffixes.
    """
    return tuple(sorted(folder.glob("*.jsonl")))


def read_batches(files: Iterable[Path], max_bytes: int = MAX_BATCH_BYTES) -> Iterator[Batch]:
    """Read and validate files, in memory that does not grow with them.

    Args:
        files: finished files of the service.
        max_bytes: bytes of lines in a batch, about.
    """
    builder = _BatchBuilder()
    for path in files:
        finished_on = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
                builder.add(path.name, number, line, finished_on)
                if builder.n_bytes >= max_bytes:
                    yield builder.batch()
                    builder = _BatchBuilder()
        builder.finished.append(path)
    if builder.finished:
        yield builder.batch()


def commit_batch(tables: TableStore, batch: Batch) -> Batch:
    """Commit a batch and remove its finished files; after a kill at any point the next attempt makes the same tables.

    Returns:
        The batch without the rows that an earlier attempt had committed.
    """
    rejected = _uncommitted_rows(tables, REJECTED_PREDICTIONS, batch.rejected)
    predictions = _uncommitted_rows(tables, PREDICTION_LOG, batch.predictions)
    for table, frame in ((REJECTED_PREDICTIONS, rejected), (PREDICTION_LOG, predictions)):
        if frame.height:
            tables.append(table, frame)
    if batch.finished:
        # Delta does not wait for the disk; the file must not be removed before the table is durable.
        os.sync()
        for path in batch.finished:
            path.unlink()
    return Batch(predictions, rejected, batch.finished)


def _uncommitted_rows(tables: TableStore, table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows after the last line of their file that is in the table; lines are committed in their order."""
    if frame.is_empty():
        return frame
    files = frame["source_file"].unique()
    known = (
        tables.scan(table, frame["period"].unique())
        .filter(pl.col("source_file").is_in(files.implode()))
        .group_by("source_file")
        .agg(pl.col("source_line").max().alias("last_line"))
        .collect()
    )
    if known.is_empty():
        return frame
    joined = frame.join(known, on="source_file", how="left", maintain_order="left")
    return joined.filter(pl.col("source_line") > pl.col("last_line").fill_null(0)).drop("last_line")


class _BatchBuilder:
    """Collects lines for a batch."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self.finished: list[Path] = []
        self._predictions: list[tuple[Any, ...]] = []
        self._rejected: list[tuple[Any, ...]] = []

    def add(self, file: str, number: int, line: bytes, finished_on: str) -> None:
        """Validate a line and add it to the predictions or to the rejected lines."""
        self.n_bytes += len(line)
        try:
            self._predictions.append(_row(file, number, line))
        except (ValueError, OverflowError) as error:  # a year that the time zone puts beyond the calendar overflows
            content = line.rstrip(b"\n").decode("utf-8", "backslashreplace")
            self._rejected.append((finished_on, file, number, _reason(error), content))

    def batch(self) -> Batch:
        """The lines so far as a batch."""
        return Batch(
            pl.DataFrame(self._predictions, schema=PREDICTION_LOG.schema, orient="row"),
            pl.DataFrame(self._rejected, schema=REJECTED_PREDICTIONS.schema, orient="row"),
            tuple(self.finished),
        )


def _row(file: str, number: int, line: bytes) -> tuple[Any, ...]:
    """A line as a row of ``prediction_log``.

    Raises:
        ValueError: it is not a record.
    """
    try:
        fields = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(fields, dict) or fields.get("format") != RECORD_FORMAT:
        found = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
        raise ValueError(f"record format {found!r}; this version reads {RECORD_FORMAT}")
    is_dropped = fields.get("kind") == "dropped"
    record = _Dropped.model_validate(fields) if is_dropped else _ANSWERED.validate_python(fields)
    at = record.at.astimezone(UTC).replace(tzinfo=None)
    head = (at.date().isoformat(), file, number, at, record.kind)
    if isinstance(record, _Dropped):
        return (*head, None, None, None, None, None, record.outcome, *[None] * 9, record.n_dropped)
    request = _REQUEST(record)
    if isinstance(record, _NotFound):
        return (*head, *request, *[None] * 9)
    answer = record.answer
    segment = (answer.segment_id, answer.is_rule_segment, answer.margin)
    texts = (to_json(answer.other_features).decode(), to_json(fields["answer"]).decode())
    return (*head, *request, *segment, *_RFM(answer.rfm), *texts, None)


def _reason(error: Exception) -> str:
    """Why a line is rejected."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
