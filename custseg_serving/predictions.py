"""The prediction log: every answer about a customer, as JSON lines in files that the pipeline takes in.

A worker appends to one ``*.jsonl.open`` file of its own and renames it to ``*.jsonl`` when it is large or old enough;
``*.jsonl`` files are complete and never change. A batch is appended, made durable, then counted as written. A file that
a killed worker left open is cut after its last complete line and renamed when a worker starts. The number of lost
records, with the reason, is a line in front of the next record. The pipeline's reader is ``stores/prediction_log.py``.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from custseg_assets.stores.files import lock_file
from custseg_serving.drain import Drain
from custseg_serving.errors import to_json
from custseg_serving.logs import iso_instant
from custseg_serving.metrics import Metrics
from custseg_serving.settings import ServingSettings

log = logging.getLogger(__name__)

RECORD_FORMAT = 1
_OPEN = ".jsonl.open"
_REPORT_SECONDS = 10.0
_LOSING_SECONDS = 60.0
"""A record that was dropped so long ago is history; before, ``readyz`` warns of it."""


class Prediction(NamedTuple):
    """One answer about one customer.

    Attributes:
        at: seconds since the epoch.
        kind: ``lookup`` or ``score``.
        request_id: of the request it was part of.
        key_id: of the request's key; ``None`` without keys.
        seconds: latency of the request.
        release_id: of the release that the answer comes from.
        model_version: of the model in it.
        outcome: ``found``, ``unknown`` or ``too_new``.
        customer_id: of the customer; ``None`` in a score without an id.
        answer: segment, margin, reasons and features as JSON; ``null`` unless found.
    """

    at: float
    kind: str
    request_id: str
    key_id: str | None
    seconds: float
    release_id: str
    model_version: str
    outcome: str
    customer_id: str | None
    answer: bytes


class PredictionLog:
    """Writes predictions in a background thread; never blocks or fails a request.

    Args:
        settings: of the server: folder, queue and rotation.
        metrics: for the numbers of records written and dropped.
    """

    def __init__(self, settings: ServingSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._file: _OpenFile | None = None
        self._reported_at = float("-inf")
        self._unreported: Counter[str] = Counter()
        self._drain: Drain[bytes] = Drain(
            "prediction-log",
            self._write,
            settings.max_queued_predictions,
            lambda n_records: self._drop(n_records, "queue_full"),
        )
        self.n_dropped = 0
        self.problem: str | None = None
        self._dropped_at = float("-inf")

    @property
    def is_losing(self) -> bool:
        """Whether records cannot be written, or were dropped within the last minute."""
        return self.problem is not None or time.monotonic() - self._dropped_at < _LOSING_SECONDS

    def start(self) -> None:
        """Finish the files that killed workers left open, then start writing."""
        if self._settings.log_predictions:
            try:
                finish_abandoned_files(self._settings.prediction_log)
                _check_writable(self._settings.prediction_log)
            except OSError as error:
                self._report_problem(error)
            self._drain.start()

    def put(self, predictions: Sequence[Prediction]) -> None:
        """Queue the answers of one request."""
        if self._settings.log_predictions:
            for prediction in predictions:
                self._drain.put(_line(prediction))

    def stop(self) -> None:
        """Write the queue and finish the file."""
        if self._settings.log_predictions:
            self._drain.stop()
            self._notice_removal()
            if self._file is not None:
                self._file.finish()
                self._file = None

    def _write(self, lines: Sequence[bytes]) -> None:
        self._notice_removal()
        if lines or self._unreported:
            reports = [_dropped_line(n_records, reason) for reason, n_records in sorted(self._unreported.items())]
            try:
                if self._file is None:
                    self._file = _OpenFile(self._settings.prediction_log)
                self._file.append(b"".join([*reports, *lines]), len(lines))
            except OSError as error:
                self._report_problem(error)
                if lines:
                    self._drop(len(lines), "disk")
            else:
                self.problem = None
                self._unreported.clear()
                self._metrics.count_written(len(lines))
        if self._file is not None and self._is_due(self._file):
            self._file.finish()
            self._file = None

    def _notice_removal(self) -> None:
        """Count what is in a file that somebody removed as dropped; what comes goes to a new one."""
        if self._file is not None and not self._file.is_there():
            n_lost = self._file.n_records
            self._file.close()
            self._file = None
            log.error("prediction log: a file with %d records was removed", n_lost)
            if n_lost:
                self._drop(n_lost, "removed")

    def _report_problem(self, error: OSError) -> None:
        problem = f"{self._settings.prediction_log}: {error.strerror}. Make room or name a folder by --prediction-log."
        if problem != self.problem:
            log.error("prediction log: %s", problem)
        self.problem = problem

    def _is_due(self, file: _OpenFile) -> bool:
        age = time.monotonic() - file.opened_at
        is_old = age >= self._settings.rotate_seconds and file.n_bytes > 0
        return is_old or file.n_bytes >= self._settings.rotate_bytes

    def _drop(self, n_records: int, reason: str) -> None:
        self.n_dropped += n_records
        self._dropped_at = time.monotonic()
        self._unreported[reason] += n_records
        self._metrics.count_dropped(n_records, reason)
        if time.monotonic() - self._reported_at >= _REPORT_SECONDS:
            self._reported_at = time.monotonic()
            log.error("prediction log: %d records dropped so far, the last: %s", self.n_dropped, reason)


class _OpenFile:
    """A file that is being written; locked, so that no other worker takes it for abandoned."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._path = folder / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}{_OPEN}"
        # Locked before it gets the name that finish_abandoned_files looks for.
        unlocked = self._path.with_suffix(".new")
        self._descriptor = os.open(unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        lock_file(self._descriptor)
        unlocked.rename(self._path)
        self.n_bytes = self.n_records = 0
        self.opened_at = time.monotonic()

    def is_there(self) -> bool:
        """Whether the file is still under its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def append(self, lines: bytes, n_records: int) -> None:
        """Append complete lines and wait until they are durable; after an error, nothing of them is in the file."""
        try:
            remaining = memoryview(lines)
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.n_bytes)
            raise
        self.n_bytes += len(lines)
        self.n_records += n_records

    def finish(self) -> None:
        """Give the file its final name."""
        _finish(self._path)
        self.close()

    def close(self) -> None:
        """Close the file as it is."""
        os.close(self._descriptor)


def _check_writable(folder: Path) -> None:
    """Write to a folder and remove it again; an error says why no record will be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b" ")


def finish_abandoned_files(folder: Path) -> tuple[Path, ...]:
    """Finish the files of killed workers, without an incomplete last line; return the files."""
    finished = []
    for path in sorted(folder.glob(f"*{_OPEN}")):
        with path.open("r+b") as file:
            if not lock_file(file, patience_seconds=0.0):
                continue
            if not path.exists():
                continue  # finished by another worker meanwhile
            n_bytes = file.read().rfind(b"\n") + 1
            file.truncate(n_bytes)
            os.fsync(file.fileno())
            if n_bytes:
                finished.append(_finish(path))
            else:
                path.unlink()
    return tuple(finished)


def _finish(path: Path) -> Path:
    final = path.with_name(path.name.removesuffix(".open"))
    path.rename(final)
    return final


def _dropped_line(n_records: int, reason: str) -> bytes:
    """The line that says how many records were lost, and why."""
    fields = {"format": RECORD_FORMAT, "at": iso_instant(time.time()), "kind": "dropped", "outcome": reason}
    return to_json({**fields, "n_dropped": n_records}) + b"\n"


def _line(prediction: Prediction) -> bytes:
    """The line of one answer. A template is faster than an encoder; only the customer's id may need escaping."""
    key_id = f'"{prediction.key_id}"' if prediction.key_id else "null"
    head = (
        f'{{"format":{RECORD_FORMAT},"at":"{iso_instant(prediction.at)}","kind":"{prediction.kind}",'
        f'"request_id":"{prediction.request_id}","key_id":{key_id},"latency_ms":{1000 * prediction.seconds:.3f},'
        f'"release_id":"{prediction.release_id}","model_version":"{prediction.model_version}",'
        f'"outcome":"{prediction.outcome}","customer_id":'
    )
    return head.encode() + to_json(prediction.customer_id) + b',"answer":' + prediction.answer + b"}\n"
