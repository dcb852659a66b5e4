"""States of files, and SHA-256 digests that are computed once for all workers of a server."""

from __future__ import annotations

import hashlib
from pathlib import Path

from custseg_assets.stores.files import lock_file
from custseg_assets.stores.releases import sha256_of

_HEXADECIMAL_DIGITS = 64


def file_state(path: Path) -> tuple[int, int] | None:
    """Inode and time of change, which differ when a file is written again; ``None`` where there is no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_mtime_ns


class SharedDigests:
    """SHA-256 of files, each hashed by the first worker that asks while the others wait for it.

    A digest is stored for one inode in one state: writing to a file changes its ``ctime``, and it is hashed again. Each
    state has a lock of its own, so that no small or known file waits for a large one. The system releases the lock of
    a killed worker.

    Args:
        folder: for the digests; private to the server and removed with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, path: Path) -> str:
        """Return the file's SHA-256 in hexadecimal."""
        status = path.stat()
        state = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        try:
            return self._shared_digest(path, self._folder / f"digest-{hashlib.sha256(state.encode()).hexdigest()}")
        except OSError:
            # The folder is full or gone, or the file cannot be read, which reading it alone will tell.
            return sha256_of(path)

    @staticmethod
    def _shared_digest(path: Path, stored: Path) -> str:
        with stored.open("a+", encoding="ascii") as file:
            lock_file(file)
            file.seek(0)
            digest = file.read()
            if len(digest) != _HEXADECIMAL_DIGITS:  # new, or the worker that hashed it was killed
                digest = sha256_of(path)
                file.truncate(0)
                file.write(digest)
        return digest
