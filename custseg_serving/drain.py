"""A bounded queue that a thread of its own empties, so that no request waits for a disk."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class Drain(Generic[T]):
    """Takes entries without ever blocking or failing; what does not fit is dropped and counted.

    Args:
        name: of the thread.
        write: is handed what has gathered, in order; called by one thread only, also with nothing when idle.
        max_entries: entries that may wait.
        on_dropped: told how many entries did not fit, by the draining thread.
        interval_seconds: how long entries gather.
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
        self._waiting: deque[T] = deque()
        self._n_dropped = 0
        self._dropping = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, entry: T) -> None:
        """Hand over an entry."""
        if len(self._waiting) >= self._max_entries:
            with self._dropping:
                self._n_dropped += 1
        else:
            self._waiting.append(entry)

    def stop(self) -> None:
        """Write what is waiting, then end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        entries = [self._waiting.popleft() for _ in range(len(self._waiting))]
        with self._dropping:
            n_dropped, self._n_dropped = self._n_dropped, 0
        try:
            if n_dropped:
                self._on_dropped(n_dropped)
            self._write(entries)
        except Exception:
            # The thread must outlive whatever one batch runs into.
            log.exception("%s: lost %d entries", self._thread.name, len(entries))
