"""The folder of a running server: what its workers share in files. Nothing in it is worth keeping when it ends."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from custseg_assets.errors import BadInputError
from custseg_assets.stores.files import lock_file
from custseg_serving.settings import ServingSettings

log = logging.getLogger(__name__)

_PREFIX, _LOCK = "server-", "lock"
MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it


class RunFolder:
    """The folder of this server, locked until the server and its workers have ended in any way.

    Args:
        settings: of the server.

    Raises:
        BadInputError: the folder that was named cannot be written.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self.path = _make(settings)
        self._lock = (self.path / _LOCK).open("w")
        lock_file(self._lock)

    def remove(self) -> None:
        """Remove the folder."""
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _make(settings: ServingSettings) -> Path:
    if settings.run_folder is not None:
        try:
            return _make_in(settings.run_folder)
        except OSError as error:
            raise BadInputError(
                f"--run-dir {settings.run_folder}: {error.strerror}", "a folder that can be written", "Name another."
            ) from None
    for folder in (settings.home / ".serving", MEMORY / "custseg-serving"):
        try:
            return _make_in(folder)
        except OSError as error:
            log.warning("%s: %s; what workers share is elsewhere", folder, error.strerror)
    return Path(tempfile.mkdtemp(prefix="custseg-serving-"))


def _make_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_abandoned(folder.glob(f"{_PREFIX}*"))
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))


def _remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove the folders of servers that were killed."""
    for folder in folders:
        try:
            with (folder / _LOCK).open("r+") as lock:
                is_abandoned = lock_file(lock, patience_seconds=0.0)
        except OSError:
            continue  # a server that is just starting or ending
        if is_abandoned:
            shutil.rmtree(folder, ignore_errors=True)
