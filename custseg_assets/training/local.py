"""The trainer as a process on this machine, beside the Dagster run, through Dagster Pipes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.training.exchange import BAD_INPUT, NO_MODEL, TrainerReport, metadata_of

_SECONDS_TO_END = 20.0


class LocalLauncher:
    """Starts the trainer as a process on this machine, through Dagster Pipes.

    Args:
        timeout_seconds: after which it is stopped.
        python: interpreter of another environment to start it in; this process' own without it.
    """

    def __init__(self, timeout_seconds: float, python: str | None = None) -> None:
        self._timeout_seconds, self._python = timeout_seconds, python

    def train(self, context: dg.AssetExecutionContext, *, snapshot: str, folder: Path) -> TrainerReport:
        """See ``exchange.TrainingLauncher``."""
        command = _command(self._python, folder)
        with _pipes(context) as session:
            environment = {**os.environ, **session.get_bootstrap_env_vars()}
            with subprocess.Popen(command, env=environment) as process:  # noqa: S603  (nothing of it comes from outside)
                status = self._ended(process, snapshot)
        _require_success(status, snapshot)
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


def train_without_dagster(folder: Path, snapshot: str, python: str | None, say: Callable[[str], None]) -> None:
    """Run the trainer on a folder, as ``LocalLauncher`` does, and pass its lines on.

    Args:
        folder: as ``exchange.training_folder`` made it.
        snapshot: key of the snapshot.
        python: interpreter to start it with; this process' own without it.
        say: takes each line.

    Raises:
        RunFailedError: it failed.
    """
    command = _command(python, folder)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  (as above)
        for line in process.stderr or ():
            say(line.rstrip())
        status = process.wait()
    _require_success(status, snapshot)


def require_networks(python: str | None) -> None:
    """Refuse an environment in which no network can be trained, before anything else is.

    Args:
        python: its interpreter; this process' own without it.

    Raises:
        BadInputError: there is none, or TensorFlow is not installed in it.
    """
    looks = "import importlib.util, sys; sys.exit(importlib.util.find_spec('tensorflow') is None)"
    if python is not None and shutil.which(python) is None:
        raise _no_interpreter(python)
    if subprocess.run([python or sys.executable, "-c", looks], check=False).returncode:  # noqa: S603  (as above)
        raise BadInputError(
            f"a deep model with {python or sys.executable}, where TensorFlow is not installed",
            "the environment of the extra 'deep'",
            "Make it by 'make deep' and name its interpreter by [training] deep_python.",
        )


def _no_interpreter(python: str) -> BadInputError:
    return BadInputError(
        f"[training] deep_python = {python!r}",
        "the interpreter of an environment with the extra 'deep'",
        "Make one by 'make deep'; its interpreter is .venv-deep/bin/python.",
    )


def _command(python: str | None, folder: Path) -> list[str]:
    if python is not None and shutil.which(python) is None:
        raise _no_interpreter(python)
    given, out = str(folder / "in"), str(folder / "out")
    return [python or sys.executable, "-m", "custseg_assets.trainer", "--in", given, "--out", out]


def _require_success(status: int, snapshot: str) -> None:
    if status not in (0, NO_MODEL):
        cause = "refused its input" if status == BAD_INPUT else f"ended with status {status}"
        raise RunFailedError(f"the trainer of {snapshot} {cause}; its lines above say why. The champion stays.")


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
