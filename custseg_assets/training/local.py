"""Training out of process: what a trainer is given, how it is started here, and what it leaves behind.

A launcher runs ``custseg_assets.trainer`` on a folder: ``in`` holds everything it may look at, ``out`` what it made.
This one starts a process beside the Dagster run; one that starts a job elsewhere has the same signature.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import polars as pl

from custseg_assets.domain.schemas import MODEL_CANDIDATES
from custseg_assets.domain.segments.model import SegmentationModel
from custseg_assets.errors import RunFailedError
from custseg_assets.settings import ModelSettings, Settings
from custseg_assets.trainer import BAD_INPUT, CANDIDATES, CHAMPION, FEATURES, NO_MODEL, SETTINGS

Said = Mapping[str, Any]
_PREFIX = ".training-"
_SECONDS_TO_END = 20.0


class TrainingLauncher(Protocol):
    """Starts a trainer and waits for it."""

    def train(self, context: dg.AssetExecutionContext, *, snapshot: str, folder: Path) -> Said:
        """Train on ``folder/in`` and leave the trainer's files in ``folder/out``.

        Args:
            context: of the step, which the trainer's lines and figures stream into.
            snapshot: key of the snapshot, for names and labels.
            folder: as ``training_folder`` made it.

        Returns:
            Metadata that the trainer reported.

        Raises:
            RunFailedError: it died, took too long or refused its input; whatever it left is not to be used.
        """
        ...


class LocalLauncher:
    """Starts the trainer as a process on this machine, through Dagster Pipes.

    Args:
        timeout_seconds: after which it is stopped.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds

    def train(self, context: dg.AssetExecutionContext, *, snapshot: str, folder: Path) -> Said:
        """See ``TrainingLauncher``."""
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


def launcher_of(settings: Settings) -> TrainingLauncher:
    """Who trains: Vertex AI where an image is configured for it, a process on this machine otherwise."""
    if settings.gcp.training.image:
        from custseg_assets.gcp.training import VertexLauncher

        return VertexLauncher(settings.gcp)
    return LocalLauncher(60 * settings.training.timeout_minutes)


def metadata_of(session: Any) -> Said:
    """What a trainer reported through a Pipes session, as metadata of a materialisation."""
    results = [result for result in session.get_results() if isinstance(result, dg.MaterializeResult)]
    return {name: value for result in results for name, value in (result.metadata or {}).items()}


@contextlib.contextmanager
def training_folder(
    root: Path, features: pl.DataFrame, settings: ModelSettings, champion: SegmentationModel | None
) -> Iterator[Path]:
    """A folder with everything a trainer may look at; gone afterwards, and so is what a killed run left.

    Args:
        root: where it is made.
        features: ``customer_features`` of the snapshot.
        settings: of the model.
        champion: the model in force.
    """
    for leftover in root.glob(f"{_PREFIX}*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root) as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        features.write_parquet(folder / "in" / FEATURES)
        (folder / "in" / SETTINGS).write_text(json.dumps(settings.model_dump(mode="json")), encoding="utf-8")
        if champion:
            (folder / "in" / CHAMPION).write_text(champion.to_json(), encoding="utf-8")
        yield folder


def candidates_in(folder: Path) -> pl.DataFrame:
    """What the trainer found, as rows of ``model_candidates``.

    Raises:
        RunFailedError: it is not that.
    """
    try:
        found = pl.read_parquet(folder / "out" / CANDIDATES)
        wrong = set(found.schema.items()) ^ set(MODEL_CANDIDATES.schema.items())
        said = f"columns that differ: {', '.join(sorted({name for name, _ in wrong}))}" if wrong else ""
    except (OSError, pl.exceptions.PolarsError) as error:
        said = " ".join(str(error).split())[:200]
    if said:
        raise RunFailedError(
            f"the trainer left a {CANDIDATES} that is none: {said}. Check that it is the trainer of this version, then "
            "start it again. The champion stays."
        )
    return found
