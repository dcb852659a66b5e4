"""What a trainer is given and what it leaves: the folder, its files, and the protocol of who starts one.

A launcher runs ``custseg_assets.trainer`` on a folder: ``in`` holds everything it may look at, ``out`` what it made.
How it is started belongs in ``local`` and ``gcp.training``; what it computes, in ``steps``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from custseg_assets.domain.schemas import MODEL_CANDIDATES
from custseg_assets.domain.segments.model import SegmentationModel
from custseg_assets.errors import RunFailedError
from custseg_assets.settings import ModelSettings

if TYPE_CHECKING:
    import dagster as dg

FEATURES, SETTINGS, CHAMPION = "features.parquet", "settings.json", "champion.json"
CANDIDATES, MODEL = "candidates.parquet", "model.json"
BAD_INPUT, NO_MODEL = 2, 3
"""Exit codes of a trainer besides 0: what it was given cannot be used; no k was eligible."""

TrainerReport = Mapping[str, Any]
"""Metadata that a trainer reported about its work."""
_PREFIX = ".training-"


class TrainingLauncher(Protocol):
    """Starts a trainer and waits for it."""

    def train(self, context: dg.AssetExecutionContext, *, snapshot: str, folder: Path) -> TrainerReport:
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


def metadata_of(session: Any) -> TrainerReport:
    """What a trainer reported through a Pipes session, as metadata of a materialisation."""
    import dagster as dg

    results = [result for result in session.get_results() if isinstance(result, dg.MaterializeResult)]
    return {name: value for result in results for name, value in (result.metadata or {}).items()}


@contextlib.contextmanager
def training_folder(
    root: Path, features: pl.LazyFrame, settings: ModelSettings, champion: SegmentationModel | None
) -> Iterator[Path]:
    """A folder with everything a trainer may look at; gone afterwards, and so is what a killed run left.

    Args:
        root: where it is made.
        features: ``customer_features`` of the snapshot; with orders by week where a model looks at them.
        settings: of the model.
        champion: the model in force.
    """
    for leftover in root.glob(f"{_PREFIX}*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root) as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        features.sink_parquet(folder / "in" / FEATURES)
        (folder / "in" / SETTINGS).write_text(json.dumps(settings.of_challenger()), encoding="utf-8")
        if champion:
            (folder / "in" / CHAMPION).write_text(champion.to_json(), encoding="utf-8")
        yield folder


def candidates_in(folder: Path) -> pl.DataFrame:
    """What the trainer found, as rows of ``model_candidates``.

    Raises:
        RunFailedError: it is not that.
    """
    try:
        found = pl.read_parquet(folder / "out" / CANDIDATES, glob=False)
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
