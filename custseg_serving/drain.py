"""A bounded queue that a background thread writes, so that no request waits for a disk."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class Drain(Generic[T]):
    """A bounded queue with its writing thread. ``put`` never blocks or fails; entries that do not fit are dropped.

    Args:
        name: of the thread.
        write: called in the thread with the queued entries in order, at every interval, also with none.
        max_entries: entries that may be queued.
        on_dropped: called in the thread with the number of entries that did not fit.
        interval_seconds: time between two writes.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], None],
        max_entries: int,
        on_dropped: Callable[[int], None],
        interval_seconds: float = 0.2,
    ) -> None:
        self._write, self._max_entries, self._on_dropped = write, max_entries, on_dropped
        self._interval_seconds = interval_seconds
        self._queue: deque[T] = deque()
        self._n_dropped = 0
        self._drop_lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def put(self, entry: T) -> None:
        """Queue an entry, or drop and count it where the queue is full."""
        if len(self._queue) >= self._max_entries:
            with self._drop_lock:
                self._n_dropped += 1
        else:
            self._queue.append(entry)

    def stop(self) -> None:
        """Write the queued entries and end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            self._write_queued()
        self._write_queued()

    def _write_queued(self) -> None:
        entries = [self._queue.popleft() for _ in range(len(self._queue))]
        with self._drop_lock:
            n_dropped, self._n_dropped = self._n_dropped, 0
        try:
            if n_dropped:
                self._on_dropped(n_dropped)
            self._write(entries)
        except Exception:
            # An error in one batch must not end the thread.
            log.exception("%s: lost %d entries", self._thread.name, len(entries))
