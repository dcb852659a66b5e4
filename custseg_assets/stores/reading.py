"""Reading files in a process of their own: whatever a file does to it, only that file is refused.

What that process does is in ``reading_worker``; what files mean, in ``sources``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from custseg_assets.errors import BadInputError, MachineFaultError
from custseg_assets.settings import ReadingSettings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import MissingColumnsError
from custseg_assets.stores.delivery_file import DeliveredLines
from custseg_assets.stores.machine import machine_fault
from custseg_assets.stores.sources import Progress

LINES = "lines.parquet"
_GB = 1_000_000_000
_LONGEST_WORDS = 1_000
"""Characters of each part of a refusal: a file's own names and values are in it, and they can be of any length."""
_LAST_WORDS = 200
_STARTING = "starting a process to read files"
_SECONDS_TO_START = 120.0
_CHUNK = 1 << 16
_SHARE_OF_FREE_DISK = 0.5
_SHARE_OF_MEMORY = 0.75
_TODO = "Export it again, as csv if it is in another form"


@dataclass(frozen=True)
class FileToRead:
    """A file and how to read it.

    Attributes:
        path: where it is.
        name: how messages call it.
        settings: how to read it.
        keys: columns that have one value in all rows.
        scratch: an empty folder; ``lines.parquet`` in it is what was read.
    """

    path: Path
    name: str
    settings: SourceSettings
    keys: Mapping[str, str | None]
    scratch: Path


class BrokenFileError(BadInputError):
    """A file that makes its reader fail, or takes more than it may: no other process should open it, either."""


class Reader:
    """A process that reads files, started with the first and replaced when one ends it.

    Args:
        limits: what each file may take.
    """

    def __init__(self, limits: ReadingSettings) -> None:
        self._limits = limits
        self._memory_bytes = int(_GB * limits.max_memory_gb) if limits.max_memory_gb else _most_memory()
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""

    def read(self, file: FileToRead, progress: Progress) -> DeliveredLines:
        """Read a file into ``lines.parquet`` in its scratch folder.

        Raises:
            BadInputError: the file cannot be used, or reading it took more than it may.
            MachineFaultError: this machine could not read it, whatever is in it.
        """
        free_bytes = int(_SHARE_OF_FREE_DISK * shutil.disk_usage(file.scratch).free)
        max_bytes = min(int(_GB * self._limits.max_unpacked_gb), free_bytes)
        request = {
            "path": os.fsencode(file.path).hex(),
            "name": file.name,
            "settings": file.settings.to_fields(),
            "keys": dict(file.keys),
            "scratch": str(file.scratch),
            "lines": LINES,
            "max_bytes": max_bytes,
        }
        process = self._started()
        try:
            reply = self._ask(process, request, progress)
        except _EndedError as ended:
            self.close()
            raise self._refusal(file.name, str(ended)) from None
        if "lines" in reply:
            return DeliveredLines.from_fields(reply["lines"])
        if "fault" in reply:
            raise MachineFaultError(*reply["fault"])
        if "refused" in reply:
            kind = MissingColumnsError if reply["refused"] == MissingColumnsError.__name__ else BadInputError
            lines = {section: [_cut(line) for line in asked] for section, asked in reply["lines_to_write"].items()}
            got, expected, todo = (_cut(words) for words in reply["words"])
            raise kind(got, expected, todo, lines)
        if reply["is_too_large"] and max_bytes == free_bytes:
            raise MachineFaultError(
                f"reading {file.name} takes more than half of the free disk, {max_bytes / _GB:,.1f} GB",
                f"Make room on the disk of {file.scratch.parent}, then do it again.",
            )
        if reply["is_too_large"]:
            raise self._refusal(file.name, f"it unpacks to more than {max_bytes / _GB:,.1f} GB")
        raise BrokenFileError(
            f"{file.name} cannot be read ({_cut(reply['broken'], _LAST_WORDS)})", "a whole file", f"{_TODO}."
        )

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._received = b""
        if process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    _pipe(pipe).close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # -P: nothing is imported from the working folder, where anybody's files may be.
            command = [sys.executable, "-P", "-m", "custseg_assets.stores.reading_worker", str(os.getpid())]
            try:
                process = subprocess.Popen(  # noqa: S603
                    [*command, str(self._memory_bytes)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                raise machine_fault(error, _STARTING) or error from None
            self._process = process
            try:
                self._receive(process, time.monotonic() + _SECONDS_TO_START)
            except _EndedError as ended:
                self.close()
                # Whatever this is, it is no fault of a file.
                todo = "Look at the installation and at free memory, then do it again."
                raise MachineFaultError(f"{_STARTING}: {ended}", todo) from None
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        give_up = time.monotonic() + 60 * self._limits.max_minutes
        # One that has ended already says so when its reply is read.
        with contextlib.suppress(BrokenPipeError):
            _pipe(process.stdin).write(json.dumps(request).encode() + b"\n")
            _pipe(process.stdin).flush()
        while True:
            reply = self._receive(process, give_up)
            if "progress" not in reply:
                return reply
            progress(_cut(reply["progress"]))

    def _receive(self, process: subprocess.Popen[bytes], give_up: float) -> dict[str, Any]:
        """The next line of the process, as it was sent."""
        while b"\n" not in self._received:
            self._received += self._more(process, give_up)
        line, _, self._received = self._received.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _more(self, process: subprocess.Popen[bytes], give_up: float) -> bytes:
        descriptor = _pipe(process.stdout).fileno()
        ready, _, _ = select.select([descriptor], [], [], max(0.0, give_up - time.monotonic()))
        if not ready:
            raise _EndedError(f"it takes more than {self._limits.max_minutes:g} minutes")
        content = os.read(descriptor, _CHUNK)
        if content:
            return content
        status = process.wait()
        how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        most = f"{self._memory_bytes / _GB:,.1f} GB"
        causes = {
            -signal.SIGABRT: f"it asks for more than {most} of memory, or makes its reader fail",
            -signal.SIGKILL: "the system ended its reader, most likely because memory was short",
        }
        raise _EndedError(causes.get(status, f"its reader ended with {how}"))

    def _refusal(self, name: str, why: str) -> BrokenFileError:
        return BrokenFileError(
            f"{name} cannot be read: {why}",
            "a file that can be read within [reading] of custseg.toml",
            f"{_TODO}, or raise max_memory_gb, max_unpacked_gb or max_minutes there.",
        )


class _EndedError(Exception):
    """The process did not answer, and why."""


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without this pipe")
    return stream


def _cut(words: str, longest: int = _LONGEST_WORDS) -> str:
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def _most_memory() -> int:
    """Bytes of memory that a file may take where no limit is configured."""
    return int(_SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
