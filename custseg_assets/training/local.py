"""The trainer as a process on this machine, beside the Dagster run, through Dagster Pipes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from custseg_assets.errors import RunFailedError
from custseg_assets.training.exchange import BAD_INPUT, NO_MODEL, TrainerReport, metadata_of

_SECONDS_TO_END = 20.0


class LocalLauncher:
    """Starts the trainer as a process on this machine, through Dagster Pipes.

    Args:
        timeout_seconds: after which it is stopped.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds

    def train(self, context: dg.AssetExecutionContext, *, snapshot: str, folder: Path) -> TrainerReport:
        """See ``exchange.TrainingLauncher``."""
        command = [
            sys.executable,
            "-m",
            "custseg_assets.trainer",
            "--in",
            str(folder / "in"),
            "--out",
            str(folder / "out"),
        ]
        with _pipes(context) as session:
            environment = {**os.environ, **session.get_bootstrap_env_vars()}
            with subprocess.Popen(command, env=environment) as process:  # noqa: S603  (nothing of it comes from outside)
                status = self._ended(process, snapshot)
        if status not in (0, NO_MODEL):
            cause = "refused its input" if status == BAD_INPUT else f"ended with status {status}"
            raise RunFailedError(f"the trainer of {snapshot} {cause}; its lines above say why. The champion stays.")
        return metadata_of(session)

    def _ended(self, process: subprocess.Popen[bytes], snapshot: str) -> int:
        """The trainer's status; whatever happens here, it does not outlive the run that started it."""
        try:
            return process.wait(self._timeout_seconds)
        except subprocess.TimeoutExpired:
            raise RunFailedError(
                f"the trainer of {snapshot} was stopped after {self._timeout_seconds / 60:g} minutes. The champion "
                "stays. Allow it more with [training] timeout_minutes, or find out what it waited for."
            ) from None
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_SECONDS_TO_END)
                process.kill()


@contextlib.contextmanager
def _pipes(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """A Pipes session over files in the system's folder for such."""
    with warnings.catch_warnings():
        # Dagster 1.13 asks its own reader for a property that it calls a preview.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
        ) as session:
            yield session
