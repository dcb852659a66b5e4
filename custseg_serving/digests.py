"""Digests of files, worked out once for all workers of a server."""

from __future__ import annotations

import fcntl
from pathlib import Path

from custseg_assets.stores.releases import sha256_of


class SharedDigests:
    """SHA-256 of files, each hashed by the first worker that asks while the others wait for it.

    A digest is known for one inode in one state: writing to a file changes its ``ctime``, and it is hashed again. The
    lock goes with the process that holds it, so a killed worker stops nobody.

    Args:
        folder: private to the server; what is known is forgotten with it.
    """

    def __init__(self, folder: Path) -> None:
        self._known = folder / "digests"

    def __call__(self, path: Path) -> str:
        """The file's digest, in hexadecimal."""
        with self._known.open("a+", encoding="ascii") as known:
            fcntl.flock(known, fcntl.LOCK_EX)
            found = path.stat()
            state = f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} "
            known.seek(0)
            for line in known:
                if line.startswith(state) and line.endswith("\n"):
                    return line[len(state) :].rstrip()
            digest = sha256_of(path)
            known.write(f"{state}{digest}\n")
        return digest
