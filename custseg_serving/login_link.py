"""A link that logs a browser in once: for ``custseg-serving demo``, whose user should not have to copy a key."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

LINK_SECONDS = 600
"""A link that was not used is worth nothing after so long."""


class LoginLinks:
    """Links that wait to be used, a file each: all workers see them, and only one request can remove a file.

    Args:
        folder: of the links; private to the server and removed with it.
        clock: seconds since the epoch.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock

    def add(self, token: str, key_id: str) -> None:
        """Let a token log in, once, with a key."""
        path = self._path(token)
        path.touch(0o600)
        path.write_text(key_id, encoding="ascii")

    def use(self, token: str) -> str | None:
        """Use a token up.

        Returns:
            the id of its key; ``None`` where there is no such token, or it was used, or is too old.
        """
        path = self._path(token)
        with contextlib.suppress(FileNotFoundError):
            key_id, made_at = path.read_text(encoding="ascii"), path.stat().st_mtime
            path.unlink()
            return key_id if self._clock() - made_at <= LINK_SECONDS else None
        return None

    def _path(self, token: str) -> Path:
        return self._folder / f"login-{hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"


def make_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(32)
