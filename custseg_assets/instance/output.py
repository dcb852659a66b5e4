"""What a run prints, in the files of Dagster's instance, at less cost than by Dagster's own way."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._utils import ensure_file, touch_file


class OutputInFiles(LocalComputeLogManager):
    """Dagster's files of what a run prints, which it does not print besides.

    Dagster's own starts four processes for each run that copy the files to its output, which nobody reads.
    """

    @contextlib.contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """What Dagster calls around the steps of a run."""
        with contextlib.ExitStack() as until_the_end:
            for stream, kind in ((sys.stdout, ComputeIOType.STDOUT), (sys.stderr, ComputeIOType.STDERR)):
                path = self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
                ensure_file(path)
                until_the_end.enter_context(redirect_to_file(stream, path))
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))  # type: ignore[no-untyped-call]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> OutputInFiles:
        """What Dagster calls to open the files."""
        return cls(inst_data=inst_data, **config_value)
