"""The home: the paths below the one folder where custseg keeps everything, and the lock that one run at a time has.

What is in the files below it does not belong here: each store knows its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from custseg_assets.errors import BadInputError
from custseg_assets.stores.files import is_file_locked, lock_file, make_durable

_NO_ADDRESS = r"[]^|\?%"
"""What Delta's client or SQLite's reads otherwise in the address that they make of a path, or not at all."""


class HomeLock:
    """The home's lock as its owner sees it.

    Args:
        path: of the locked file; its folder is the home.

    Attributes:
        is_valid: whether the block that took the lock is still running.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_valid = True


class Home:
    """The paths below a home folder, and its lock.

    Args:
        root: the folder; it is made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = root / "tables"
        self.notes = root / "bucket_tables"
        self.fixed_settings = root / "shape.json"
        self.settings = root / "custseg.toml"
        self.settings_before = root / "custseg.before.toml"
        self.unfinished_stage = root / "stage.json"
        self.closed = root / "closed.json"
        self.landing = root / "landing"
        self.deliveries = root / "deliveries"
        self.releases = root / "releases"
        self.data_docs = root / "data_docs"
        self.dagster = root / "dagster"
        self.mlflow = root / "mlflow"
        self.prediction_log = root / "prediction_log"
        self.failure = root / "failure.json"
        self.alerts = root / "alerts.log"
        self.published = root / "bigquery.json"
        self.kept_models = root / "kept_models.json"
        self.exported_models = root / "exported_models.json"
        self.restored = root / "restored.json"
        self.keys = root / "keys.json"
        self.value_fits = root / "value_fits.txt"
        self.campaigns = root / "campaigns"
        self.earlier_campaigns = root / "campaigns_of_earlier_data"
        self.format = root / "home.json"
        self.damaged = root / "damaged"
        self.staging = root / ".staging"
        self._unreleased = root / ".unreleased"

    def require_address(self) -> None:
        """Refuse a path that the libraries which read and write tables take for another one.

        Raises:
            BadInputError: it is one.
        """
        path = str(self.root)
        if found := [mark for mark in path if mark in _NO_ADDRESS or not mark.isprintable()]:
            raise BadInputError(
                f"home {path!r}, with {found[0]!r}",
                f"a path without control characters and {' '.join(_NO_ADDRESS)}",
                "Name another folder with CUSTSEG_HOME.",
            )

    def make(self) -> None:
        """Make the folder.

        Raises:
            BadInputError: it cannot be made or written to, or tables cannot be in a folder of that name.
        """
        self.require_address()
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
    def locked(self, patience_seconds: float = 0.0, who: str | None = None) -> Iterator[HomeLock]:
        """Lock the home, so that no other run uses it, until the block or this process ends.

        A home that was made only to be locked, and is empty at the end, is removed.

        Args:
            patience_seconds: how long to wait for another run to end.
            who: locks it, for others to read; this process's command without it.

        Raises:
            BadInputError: another run is using the home.
        """
        self.make()
        path = self.root / "lock"
        with path.open("a+") as lock:
            if not lock_file(lock, patience_seconds):
                raise BadInputError(
                    f"home {self.root} is in use by {_in_words(lock)}",
                    "a home that no other run is using",
                    "Wait for that run to end, or give this one a home of its own with CUSTSEG_HOME.",
                )
            lock.truncate(0)
            lock.write(f"{os.getpid()} ({who or _command()})")
            lock.flush()
            taken = HomeLock(path)
            try:
                yield taken
            finally:
                taken.is_valid = False
                if list(self.root.iterdir()) == [path]:
                    path.unlink()
                    self.root.rmdir()

    @contextlib.contextmanager
    def mark_unreleased(self) -> Iterator[None]:
        """Record that a release is not finished; the record goes at the end of the block, and stays after an error."""
        self._unreleased.touch()
        yield
        self._unreleased.unlink()

    def set_aside(self, path: Path, why: str) -> Path:
        """Move a damaged file or folder of the home to ``damaged``, beside a file with the reason; returns where to.

        Args:
            path: of it, below the home.
            why: it is moved, in words.
        """
        free = _free(self.damaged / path.relative_to(self.root))
        free.parent.mkdir(parents=True, exist_ok=True)
        path.rename(free)
        free.with_name(f"{free.name}.reason.txt").write_text(f"{why}\n", encoding="utf-8")
        make_durable(free.parent)
        make_durable(path.parent)
        return free

    def keep_earlier_campaigns(self) -> Path | None:
        """Move the records of campaigns out of the way of other data, in one step; returns where to, if there are any.

        Who was held out can be made again by nothing, so they are kept.
        """
        if not self.campaigns.is_dir() or not any(self.campaigns.iterdir()):
            return None
        free = _free(self.earlier_campaigns)
        self.campaigns.rename(free)
        make_durable(self.root)
        return free

    def ask_for_release(self) -> None:
        """Have the next run make the release again."""
        self._unreleased.touch()

    def is_released(self) -> bool:
        """Whether every release that was begun was also finished, so that the service can read it."""
        return not self._unreleased.exists()

    def is_locked(self) -> bool:
        """Whether a run is using the home."""
        return is_file_locked(self.root / "lock")

    def user(self) -> str | None:
        """Who uses the home, in words; ``None`` where no run does."""
        if not self.is_locked():
            return None
        with (self.root / "lock").open() as lock:
            return _in_words(lock)


def _free(target: Path) -> Path:
    """A path that nothing is at: the wanted one, or the first that ends in a number."""
    free, number = target, 1
    while free.exists():
        number += 1
        free = target.with_name(f"{target.name} ({number})")
    return free


def _in_words(lock: IO[str]) -> str:
    """Who has a lock, as its owner wrote it down."""
    lock.seek(0)
    return f"process {lock.read().strip() or 'unknown'}"


def _command() -> str:
    """What this process was started as."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
