"""The process that reads files, so that no file can stop the one that reads for: one file after another, within limits.

Its parent is ``reading``. A request and a reply are one line of JSON each, on standard input and output; lines of
progress come before the reply. It imports no more than reading needs, because it starts with every run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from custseg_assets.errors import BadInputError, MachineFaultError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.delivery_file import write_lines
from custseg_assets.stores.machine import machine_fault
from custseg_assets.stores.sources import open_source

_SLACK_BYTES = 1 << 30
"""What stacks of threads and the allocator's reserve may take besides, which is never used."""
_PARENT_DEATH_SIGNAL = 1


def main() -> None:
    """Answer requests until there are no more."""
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    with contextlib.suppress(ValueError, OSError):
        # A dump of a large process would take longer than anything else, and nobody reads it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes + _SLACK_BYTES,) * 2)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a library prints must not be taken for a reply.
    os.dup2(2, 1)

    def send(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    send({"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["max_bytes"], resource.RLIM_INFINITY))
        send(_read(request, send))


def _end_with(parent: int) -> None:
    """End when the parent does, also in the middle of a file; on other systems it ends with the next request."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        # What the system ends first when memory is short.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        sys.exit()


def _read(request: dict[str, Any], send: Any) -> dict[str, Any]:
    path, what = Path(os.fsdecode(bytes.fromhex(request["path"]))), f"reading {request['name']}"
    settings = SourceSettings.model_validate(request["settings"])
    scratch = Path(request["scratch"])
    try:
        with open_source(
            path,
            settings,
            progress=lambda words: send({"progress": words}),
            scratch_in=scratch,
            keys=request["keys"],
        ) as source:
            return {"lines": write_lines(source, scratch / request["lines"]).to_fields()}
    except MachineFaultError as error:
        return {"fault": [error.words, error.todo]}
    except BadInputError as error:
        words, lines = [error.got, error.expected, error.todo], {name: [*asked] for name, asked in error.lines.items()}
        return {"refused": type(error).__name__, "words": words, "lines_to_write": lines}
    # Also the panics of libraries in Rust, which are no Exception.
    except BaseException as error:  # noqa: BLE001
        if fault := machine_fault(error, what):
            return {"fault": [fault.words, fault.todo]}
        is_too_large = getattr(error, "errno", None) == errno.EFBIG or f"(os error {errno.EFBIG})" in str(error)
        return {"is_too_large": is_too_large, "broken": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
