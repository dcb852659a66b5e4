"""The home: the one folder that holds everything custseg makes, and the lock that keeps two runs out of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from custseg_assets.errors import BadInputError


class Home:
    """Where things are below the home folder.

    Args:
        root: the folder; nothing is made until something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = root / "tables"
        self.landing = root / "landing"
        self.deliveries = root / "deliveries"
        self.releases = root / "releases"
        self.data_docs = root / "data_docs"
        self.dagster = root / "dagster"
        self.mlflow = root / "mlflow"
        self.prediction_log = root / "prediction_log"

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
    def locked(self) -> Iterator[None]:
        """Keep every other run out of this home; the system lets go of it when this process ends, however it ends.

        A home that was made only to be locked, and got nothing in it, is taken away again.

        Raises:
            BadInputError: another run is using the home.
        """
        self.make()
        path = self.root / "lock"
        with path.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise BadInputError(
                    f"home {self.root} is in use by process {lock.read().strip() or 'unknown'}",
                    "a home that no other run is using",
                    "Wait for that run to end, or give this one a home of its own with CUSTSEG_HOME.",
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                if list(self.root.iterdir()) == [path]:
                    path.unlink()
                    self.root.rmdir()


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one."""
    written = path.with_name(f".{path.name}.new")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
