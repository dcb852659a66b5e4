"""Metrics and the access log; neither ever holds personal data: no customer's id, no address, no key's secret."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import IO, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from custseg_serving.drain import Drain
from custseg_serving.logs import instant

SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
MAX_QUEUED_LINES = 20_000


class Metrics:
    """What the service counts; with ``PROMETHEUS_MULTIPROC_DIR`` set, over all workers."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "custseg_request_seconds",
            "Time to answer.",
            ("route", "status"),
            buckets=SECONDS_BUCKETS,
            registry=registry,
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
        """Count one answer.

        Args:
            route: the pattern, never the path, which may hold a customer's id.
            status: HTTP status.
            seconds: time to answer.
        """
        observer = self._observers.get((route, status))
        if observer is None:
            observer = self._observers[route, status] = self._seconds.labels(route, str(status))
        observer.observe(seconds)

    def count_written(self, n_records: int) -> None:
        """Count prediction log records on disk."""
        self._written.inc(n_records)

    def count_dropped(self, n_records: int, reason: str) -> None:
        """Count prediction log records lost."""
        self._dropped.labels(reason).inc(n_records)

    def count_swap(self) -> None:
        """Count a release taken over."""
        self._swaps.inc()

    def set_refused(self, *, is_refused: bool) -> None:
        """Say whether ``CURRENT`` names a refused release."""
        self._refused.set(is_refused)
        if is_refused:
            self._refusals.inc()

    def set_bucket_failing(self, *, is_failing: bool) -> None:
        """Say whether the bucket that is followed can be."""
        self._bucket_failing.set(is_failing)

    def collect(self) -> CollectorRegistry:
        """All workers' metrics where there are several, else this process'."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._registry
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return everybody

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.collect())

    def traffic(self) -> dict[str, dict[str, float]]:
        """Answers so far: route → number, errors of the server, and number within each bucket's seconds."""
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


class Access(NamedTuple):
    """One line of the access log."""

    at: float
    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    key_id: str | None


class AccessLog:
    """One JSON object a line on a stream, written off the request path.

    Args:
        stream: where to; standard error by default.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream
        self._drain: Drain[str] = Drain("access-log", self._write, MAX_QUEUED_LINES, self._say_dropped)
        self.start, self.stop = self._drain.start, self._drain.stop

    def put(self, entry: Access) -> None:
        """Hand over a line.

        Rendered here and not by the draining thread: rendering in bulk would keep the interpreter's lock from the
        requests for milliseconds. A template and not an encoder, at a fifth of its cost: nothing in a line needs
        escaping.
        """
        key_id = f'"{entry.key_id}"' if entry.key_id else "null"
        self._drain.put(
            f'{{"at":"{instant(entry.at)}","level":"info","event":"request","request_id":"{entry.request_id}",'
            f'"method":"{entry.method}","route":"{entry.route}","status":{entry.status},'
            f'"latency_ms":{1000 * entry.seconds:.3f},"key_id":{key_id}}}\n'
        )

    def _write(self, lines: Sequence[str]) -> None:
        if lines:
            stream = self._stream or sys.stderr
            stream.write("".join(lines))
            stream.flush()

    def _say_dropped(self, n_lines: int) -> None:
        logging.getLogger(__name__).warning("access log: %d lines dropped, the stream is too slow", n_lines)
