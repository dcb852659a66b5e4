"""How large packed files may become: more than any log that was ever packed is refused, by what really comes out."""

from __future__ import annotations

from typing import IO, Any

from custseg_assets.errors import BadInputError

_SMALL_BYTES = 256 << 20
"""What may come out of a file of any size."""
_MOST_TIMES = 300
"""Logs become 5 to 30 times as large, and tables of one repeated row some 200 times."""


def refuse_bomb(n_packed: int, n_unpacked: int, where: str) -> None:
    """Refuse a file that unpacks to far more than a log can.

    Args:
        n_packed: its size in bytes.
        n_unpacked: how many bytes come out of it, or have so far.
        where: the file, for the message.

    Raises:
        BadInputError: it does.
    """
    if n_unpacked > max(_SMALL_BYTES, _MOST_TIMES * n_packed):
        raise BadInputError(
            f"{where} has {n_packed:,} bytes and unpacks to more than {n_unpacked:,}",
            f"at most {_MOST_TIMES} times its size",
            "Unpack it, look at what it is, and give the unpacked file.",
        )


class Unpacked:
    """What comes out of a packed file, counted.

    Args:
        stream: unpacks it.
        n_packed: size of the packed file in bytes.
        where: the file, for the message.
    """

    def __init__(self, stream: IO[bytes] | Any, n_packed: int, where: str) -> None:
        self._stream, self._n_packed, self._where, self._n_read = stream, n_packed, where, 0

    def read(self, n_bytes: int = -1) -> bytes:
        """The next bytes.

        Raises:
            BadInputError: there are far more than in any log.
        """
        content: bytes = self._stream.read(n_bytes)
        self._n_read += len(content)
        refuse_bomb(self._n_packed, self._n_read, self._where)
        return content
