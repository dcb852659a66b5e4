"""The file that ``custseg inspect --out`` writes, and whether it may take the place of one that is there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from custseg_assets.command_line import with_users_rights
from custseg_assets.errors import BadInputError
from custseg_assets.stores.files import replace_text

_MARK = re.compile(r"# As 'custseg inspect' wrote it, ([0-9a-f]{16})\n\Z")
"""The last line: a digest of all before it, so that a file that somebody has worked on is known."""


def require_replaceable(out: Path) -> None:
    """Refuse a file that is there, unless it is just as ``write_draft`` left it.

    Raises:
        BadInputError: somebody has changed it, or it is another file.
    """
    if not out.exists():
        return
    try:
        text = out.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    mark = _MARK.search(text)
    if mark is None or mark[1] != _digest(text[: mark.start()]):
        raise BadInputError(
            f"--out {out}, which is there and not just as 'custseg inspect' wrote it",
            "a new file, or one that nobody has changed",
            "Name another, or give --force to replace it.",
        )


def write_draft(out: Path, lines: Sequence[str]) -> None:
    """Write a configuration in one step, with a mark that nobody has changed it.

    Raises:
        BadInputError: the file cannot be written.
    """
    text = "".join(f"{line}\n" for line in lines)
    try:
        with with_users_rights():
            replace_text(out, f"{text}# As 'custseg inspect' wrote it, {_digest(text)}\n")
    except OSError as error:
        raise BadInputError(
            f"--out {out}: {error.strerror or error}", "a file that can be written", "Name another."
        ) from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
