"""Faults of this machine, such as a full disk, told apart from faults of the file that is being read."""

from __future__ import annotations

import errno
import os
import re

from custseg_assets.errors import MachineFaultError

_TODO = {
    errno.ENOSPC: "Make room on that disk",
    errno.EDQUOT: "Make room on that disk, or raise the quota",
    errno.EROFS: "Mount that disk for writing",
    errno.EIO: "Check that disk",
    errno.EMFILE: "Raise the limit of open files ('ulimit -n')",
    errno.ENFILE: "Close other programs, or raise the system's limit of open files",
    errno.ENOMEM: "Free memory",
}
_DENIED = {errno.EACCES: "Give this user the permission", errno.EPERM: "Give this user the permission"}
_IN_WORDS = re.compile(r"\(os error (\d+)\)")
"""How errors that come from Rust say their number."""


def machine_fault(error: BaseException, what: str, *, is_denial_one: bool = True) -> MachineFaultError | None:
    """The fault of the machine behind an error; ``None`` where it is another.

    Args:
        error: of Python or of a library that reads files.
        what: was being done, such as ``reading orders.csv``.
        is_denial_one: whether a missing permission counts as the machine's fault.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _IN_WORDS.search(str(error))):
        number = int(found[1])
    todo = _TODO | (_DENIED if is_denial_one else {})
    if number not in todo:
        return None
    place = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    return MachineFaultError(f"{what}: {os.strerror(number)}{place}", f"{todo[number]}, then do it again.")
