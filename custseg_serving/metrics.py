"""Prometheus metrics and the access log of the service.

Neither contains personal data: no customer's id, no address, no key's secret. Answers about customers are recorded in
``predictions``; the format of other log lines is in ``logs``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import IO, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from custseg_serving.drain import Drain
from custseg_serving.logs import iso_instant

SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
MAX_QUEUED_LINES = 20_000
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_FILE_BYTES = 2 << 20


def share_metrics(slot: int) -> None:
    """Keep the metrics of this worker in files of the folder in ``PROMETHEUS_MULTIPROC_DIR``, where all are added up.

    A worker goes on in the files of the one that had its slot before, so that there are never more of them. Their space
    is reserved at once: writing to a mapped file that the disk has no room for kills the process. Without room, the
    worker has metrics of its own.

    Args:
        slot: number of the worker, below the number of workers, unless two servers overlap.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    try:
        for kind in ("counter", "histogram", "gauge_livemax"):
            path = os.path.join(folder, f"{kind}_{slot}.db")  # noqa: PTH118 - as the library names it
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _FILE_BYTES)
            finally:
                os.close(descriptor)
    except OSError as error:
        logging.getLogger(__name__).error("metrics of this worker are not added to the others': %s", error)
        del os.environ[FOLDER]
        values.ValueClass = values.MutexValue
    else:
        values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


class Metrics:
    """The Prometheus metrics of the service; with ``PROMETHEUS_MULTIPROC_DIR`` set, over all workers."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        labels = ("route", "status")
        self._seconds = Histogram(
            "custseg_request_seconds", "Time to answer.", labels, buckets=SECONDS_BUCKETS, registry=registry
        )
        self._written = Counter(
            "custseg_predictions_written", "Prediction log records that are safely on disk.", registry=registry
        )
        self._dropped = Counter(
            "custseg_predictions_dropped", "Prediction log records lost.", ("reason",), registry=registry
        )
        self._swaps = Counter("custseg_release_swaps", "Releases taken over, per worker.", registry=registry)
        self._refusals = Counter("custseg_release_refusals", "Releases refused, per worker.", registry=registry)
        self._refused = Gauge(
            "custseg_release_is_refused",
            "1 while CURRENT names a release that a worker refused.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._bucket_failing = Gauge(
            "custseg_bucket_is_failing",
            "1 while the bucket that is followed cannot be read or holds a damaged release.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._observers: dict[tuple[str, int], Histogram] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answer and its latency.

        Args:
            route: the pattern, never the path, which may contain a customer's id.
            status: HTTP status.
            seconds: latency.
        """
        observer = self._observers.get((route, status))
        if observer is None:
            observer = self._observers[route, status] = self._seconds.labels(route, str(status))
        observer.observe(seconds)

    def count_written(self, n_records: int) -> None:
        """Count records of the prediction log that are on disk."""
        self._written.inc(n_records)

    def count_dropped(self, n_records: int, reason: str) -> None:
        """Count records of the prediction log that are lost."""
        self._dropped.labels(reason).inc(n_records)

    def count_swap(self) -> None:
        """Count a release that this worker has begun to serve."""
        self._swaps.inc()

    def set_refused(self, *, is_refused: bool) -> None:
        """Set whether ``CURRENT`` names a refused release, and count the refusal."""
        self._refused.set(is_refused)
        if is_refused:
            self._refusals.inc()

    def set_bucket_failing(self, *, is_failing: bool) -> None:
        """Set whether the bucket that is followed fails."""
        self._bucket_failing.set(is_failing)

    def collect(self) -> CollectorRegistry:
        """Registry with the metrics of all workers where there are several, else of this process."""
        if FOLDER not in os.environ:
            return self._registry
        all_workers = CollectorRegistry()
        MultiProcessCollector(all_workers)  # type: ignore[no-untyped-call]
        return all_workers

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.collect())

    def traffic(self) -> dict[str, dict[str, float]]:
        """Answers so far by route: all, server errors, and those within the seconds of each histogram bucket."""
        routes: dict[str, dict[str, float]] = {}
        for metric in self.collect().collect():
            if metric.name != "custseg_request_seconds":
                continue
            for sample in metric.samples:
                route = routes.setdefault(sample.labels["route"], {"n": 0.0, "n_server_errors": 0.0})
                if sample.name.endswith("_count"):
                    route["n"] += sample.value
                    route["n_server_errors"] += sample.value if sample.labels["status"] >= "500" else 0.0
                elif sample.name.endswith("_bucket"):
                    bound = f"le_{sample.labels['le']}"
                    route[bound] = route.get(bound, 0.0) + sample.value
        return routes


class AccessLogEntry(NamedTuple):
    """One line of the access log."""

    at: float
    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    key_id: str | None
    client_request_id: str | None = None


class AccessLog:
    """Writes one JSON line per request to a stream, in a background thread.

    Args:
        stream: standard error where none is given.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream
        self._drain: Drain[str] = Drain("access-log", self._write, MAX_QUEUED_LINES, self._report_dropped)
        self.start, self.stop = self._drain.start, self._drain.stop

    def put(self, entry: AccessLogEntry) -> None:
        """Queue the line of one request.

        Rendered here and not in the background thread, which would keep the interpreter's lock from requests for
        milliseconds while it renders in bulk. A template costs a fifth of an encoder; nothing here needs escaping.
        """
        key_id = f'"{entry.key_id}"' if entry.key_id else "null"
        clients = f',"client_request_id":"{entry.client_request_id}"' if entry.client_request_id else ""
        self._drain.put(
            f'{{"at":"{iso_instant(entry.at)}","level":"info","event":"request","request_id":"{entry.request_id}",'
            f'"method":"{entry.method}","route":"{entry.route}","status":{entry.status},'
            f'"latency_ms":{1000 * entry.seconds:.3f},"key_id":{key_id}{clients}}}\n'
        )

    def _write(self, lines: Sequence[str]) -> None:
        if lines:
            stream = self._stream or sys.stderr
            stream.write("".join(lines))
            stream.flush()

    def _report_dropped(self, n_lines: int) -> None:
        logging.getLogger(__name__).warning("access log: %d lines dropped, the stream is too slow", n_lines)
