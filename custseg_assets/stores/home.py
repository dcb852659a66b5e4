"""The home: the one folder that holds everything custseg makes, and the lock that keeps two runs out of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from custseg_assets.errors import BadInputError

_SECONDS_BETWEEN_TRIES = 0.2


@dataclass
class HomeLock:
    """The lock of a home, held by this process until ``is_held`` is false."""

    is_held: bool = True


class Home:
    """Where things are below the home folder.

    Args:
        root: the folder; nothing is made until something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = root / "tables"
        self.notes = root / "bucket_tables"
        self.shape = root / "shape.json"
        self.landing = root / "landing"
        self.deliveries = root / "deliveries"
        self.releases = root / "releases"
        self.data_docs = root / "data_docs"
        self.dagster = root / "dagster"
        self.mlflow = root / "mlflow"
        self.prediction_log = root / "prediction_log"
        self.alerts = root / "alerts.log"
        self._unreleased = root / ".unreleased"

    def make(self) -> None:
        """Make the folder.

        Raises:
            BadInputError: it cannot be made or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".write-probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise BadInputError(
                f"home {self.root}: {error.strerror}",
                "a folder that can be written to",
                "Set CUSTSEG_HOME to one, or mend its permissions.",
            ) from None

    @contextlib.contextmanager
    def locked(self, patience_seconds: float = 0.0) -> Iterator[HomeLock]:
        """Keep every other run out of this home; the system lets go of it when this process ends, however it ends.

        A home that was made only to be locked, and got nothing in it, is taken away again.

        Args:
            patience_seconds: how long to wait for another run to end.

        Raises:
            BadInputError: another run is using the home.
        """
        self.make()
        path = self.root / "lock"
        with path.open("a+") as lock:
            if not _got_lock(lock, patience_seconds):
                lock.seek(0)
                raise BadInputError(
                    f"home {self.root} is in use by process {lock.read().strip() or 'unknown'}",
                    "a home that no other run is using",
                    "Wait for that run to end, or give this one a home of its own with CUSTSEG_HOME.",
                )
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            held = HomeLock()
            try:
                yield held
            finally:
                held.is_held = False
                if list(self.root.iterdir()) == [path]:
                    path.unlink()
                    self.root.rmdir()

    @contextlib.contextmanager
    def releasing(self) -> Iterator[None]:
        """Remember, until the block has come to its end, that what was made is not released."""
        self._unreleased.touch()
        yield
        self._unreleased.unlink()

    def is_released(self) -> bool:
        """Whether no release was begun and not brought to where it is read."""
        return not self._unreleased.exists()

    def is_locked(self) -> bool:
        """Whether a run is using the home."""
        path = self.root / "lock"
        if not path.exists():
            return False
        with path.open("a+") as lock:
            return not _got_lock(lock, 0.0)


def _got_lock(file: IO[str], patience_seconds: float) -> bool:
    """Lock a file until it is closed."""
    give_up = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return True


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one."""
    written = path.with_name(f".{path.name}.new")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
