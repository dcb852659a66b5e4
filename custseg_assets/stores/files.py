"""Files: replace one in a single step, make it durable, lock it; remove a folder in a single step; state as JSON.

What a file contains does not belong here. The service imports this module, so it needs the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from custseg_assets.errors import DamagedHomeError

UNFINISHED = ".new"
"""How the name of a file ends that is still written, or that a killed process left; it is hidden as well."""

REMOVING = ".removing-"
"""How the name of a folder begins that is being removed, or that a killed process left."""

_SECONDS_BETWEEN_TRIES = 0.2


@contextlib.contextmanager
def replacement_for(path: Path, *, is_durable: bool = False) -> Iterator[Path]:
    """Replace a file in one step: what the block writes to the path it is given takes the file's place at its end.

    A reader sees the old file or the new one. After an error the old file stays and nothing else does.

    Args:
        path: the file; its folder must be there.
        is_durable: whether the new file must survive a power cut from then on.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        yield unfinished
        if is_durable:
            make_durable(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if is_durable:
        make_durable(path.parent)


def replace_text(path: Path, text: str, *, is_durable: bool = False) -> None:
    """Replace a small file by this text in one step; see ``replacement_for``."""
    with replacement_for(path, is_durable=is_durable) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_state(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a small file of state, which is whole at every moment and survives a power cut from now on."""
    replace_text(path, json.dumps(fields, ensure_ascii=False, indent=1), is_durable=True)


def read_state(path: Path, *names: str) -> dict[str, Any] | None:
    """The fields of a file that ``write_state`` wrote; ``None`` where there is none.

    Args:
        path: of the file.
        names: of the fields that it has to have.

    Raises:
        DamagedHomeError: it is empty, no JSON, or lacks a field.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fields: Any = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        why = f"no JSON: {error}" if content.strip(b"\0 \r\n\t") else "it is empty"
        raise DamagedHomeError(path, why) from None
    if not isinstance(fields, dict):
        raise DamagedHomeError(path, f"it has a {type(fields).__name__} instead of fields")
    if missing := [name for name in names if name not in fields]:
        raise DamagedHomeError(path, f"it lacks {', '.join(missing)}")
    return fields


def make_durable(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder such that nobody sees it half removed; a killed process leaves it under a hidden name."""
    hidden = folder.with_name(f"{REMOVING}{folder.name}")
    if hidden.exists():
        shutil.rmtree(hidden)
    shutil.rmtree(folder.rename(hidden))


def lock_file(file: IO[Any] | int, patience_seconds: float | None = None) -> bool:
    """Lock an open file against other processes until it is closed, or until this process ends in any way.

    Args:
        file: the file, or its descriptor.
        patience_seconds: how long to wait for who has it; without end by default.

    Returns:
        Whether this process has the lock now.
    """
    give_up = None if patience_seconds is None else time.monotonic() + patience_seconds
    while not _try_lock(file, waits=give_up is None):
        if give_up is not None and time.monotonic() >= give_up:
            return False
        time.sleep(_SECONDS_BETWEEN_TRIES)
    with contextlib.suppress(OSError):
        _ask_about_lock(file, _SET_LOCK)
    return True


def is_file_locked(path: Path) -> bool:
    """Whether a process has locked a file with ``lock_file``; where the system can tell, without locking it to see."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return False
    with file, contextlib.suppress(OSError):
        if _GET_LOCK is not None:
            kind, *_ = struct.unpack(_LOCK_FORMAT, _ask_about_lock(file, _GET_LOCK))
            return bool(kind != fcntl.F_UNLCK)
    with path.open("r+b") as file:
        return not _try_lock(file)


_LOCK_FORMAT = "hh4xqqi4x"
"""C's ``struct flock`` on 64-bit Linux: kind, where from, start, length, process."""
_SET_LOCK, _GET_LOCK = getattr(fcntl, "F_OFD_SETLK", None), getattr(fcntl, "F_OFD_GETLK", None)
"""Locks of open files that can be asked about; a second one beside ``flock``'s, which cannot."""


def _ask_about_lock(file: IO[Any] | int, command: int | None) -> bytes:
    if command is None:
        return b""
    return fcntl.fcntl(file, command, struct.pack(_LOCK_FORMAT, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def _try_lock(file: IO[Any] | int, *, waits: bool = False) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def scratch_folder(root: Path, prefix: str) -> Iterator[Path]:
    """A folder for what memory cannot hold; gone afterwards, and so is what a killed process left.

    Args:
        root: where it is made; only one process may do so at a time: in a home, the one that has its lock.
        prefix: of its name; no other folder in ``root`` may begin so.
    """
    for leftover in root.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as name:
        yield Path(name)
