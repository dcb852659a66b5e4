"""Digests of files, worked out once for all workers of a server."""

from __future__ import annotations

import hashlib
from pathlib import Path

from custseg_assets.stores.files import lock_file
from custseg_assets.stores.releases import sha256_of

_HEXADECIMAL_DIGITS = 64


class SharedDigests:
    """SHA-256 of files, each hashed by the first worker that asks while the others wait for it.

    A digest is known for one inode in one state: writing to a file changes its ``ctime``, and it is hashed again. Each
    state has a lock of its own, so that nobody who asks for a small or known file waits for a large one. The lock goes
    with the process that holds it, so a killed worker stops nobody.

    Args:
        folder: private to the server; what is known is forgotten with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, path: Path) -> str:
        """The file's digest, in hexadecimal."""
        found = path.stat()
        state = f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        known = self._folder / f"digest-{hashlib.sha256(state.encode()).hexdigest()}"
        with known.open("a+", encoding="ascii") as file:
            lock_file(file)
            file.seek(0)
            digest = file.read()
            if len(digest) != _HEXADECIMAL_DIGITS:  # new, or whoever hashed it was killed
                digest = sha256_of(path)
                file.truncate(0)
                file.write(digest)
        return digest
