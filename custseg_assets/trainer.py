"""Training a challenger outside Dagster: in a subprocess, or in a container of its own.

``python -m custseg_assets.trainer --home HOME --snapshot KEY --out DIR`` reads a snapshot's features from the home's
tables, does what the assets ``model_candidates`` and ``segmentation_model`` do, and leaves ``candidates.parquet`` and,
where a k is eligible, ``model.json`` in the folder. Started through Dagster Pipes, it streams its progress and figures
into the run. It writes nothing into the home: whoever started it decides what becomes of the model.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl

from custseg_assets.domain import clustering, training
from custseg_assets.domain.model import ScalingReference, SegmentationModel
from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.errors import BadInputError
from custseg_assets.settings import ModelSettings, Settings, load_settings
from custseg_assets.stores.home import Home
from custseg_assets.stores.tables import TableStore

_NO_MODEL = 3


def limits_of(settings: ModelSettings) -> clustering.Limits:
    """What makes a k eligible, as configured."""
    return clustering.Limits(
        min_bootstrap_ari=settings.min_bootstrap_ari,
        min_jaccard=settings.min_jaccard,
        min_share=settings.min_segment_share,
        min_customers=settings.min_segment_customers,
    )


def sweep_snapshot(
    scaled: pl.DataFrame, key: str, settings: ModelSettings, progress: Callable[[str], None]
) -> tuple[pl.DataFrame, clustering.KChoice]:
    """Try every k on a snapshot: the rows of ``model_candidates``, and what was chosen.

    Args:
        scaled: ``scaled_features`` of the snapshot.
        key: of the snapshot.
        settings: range of k, limits, seed.
        progress: told one line per k.
    """
    limits = limits_of(settings)
    candidates = clustering.sweep(
        training.matrix_of(scaled, settings.features),
        settings.k_range,
        limits,
        n_bootstraps=settings.n_bootstraps,
        n_initialisations=settings.n_initialisations,
        seed=settings.seed,
        progress=progress,
    )
    choice = clustering.choose_k(candidates, limits)
    return training.candidate_table(key, candidates, choice), choice


def train_snapshot(
    features: pl.DataFrame,
    candidates: pl.DataFrame,
    key: str,
    settings: ModelSettings,
    reference: ScalingReference | None,
) -> SegmentationModel | None:
    """The challenger of a snapshot; ``None`` where no k was chosen.

    Args:
        features: ``customer_features`` of the snapshot.
        candidates: ``model_candidates`` of it.
        key: of the snapshot.
        settings: the segmentation features.
        reference: of the model in force, which the candidates were fitted on; without one, the snapshot's own.
    """
    centroids = training.chosen_centroids(candidates)
    if centroids is None:
        return None
    _, used = training.scale_snapshot(features, settings.features, reference)
    return clustering.train(features, centroids, used, key)


def main(argv: Sequence[str] | None = None) -> int:
    """Train on one snapshot of a home; 0 if a model came of it, 3 if no k was eligible, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="custseg_assets.trainer", description=__doc__)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--snapshot", required=True, metavar="KEY")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--config", type=Path)
    given = parser.parse_args(argv)
    try:
        with _progress() as progress:
            return _train(given.home, given.snapshot, given.out, load_settings(given.config, home=given.home), progress)
    except BadInputError as error:
        sys.stderr.write(f"trainer: {error}\n")
        return 2


def _train(home: Path, key: str, out: Path, settings: Settings, progress: Callable[[str], None]) -> int:
    features = _features(home, key)
    scaled, reference = training.scale_snapshot(features, settings.model.features, None)
    candidates, choice = sweep_snapshot(scaled, key, settings.model, progress)
    model = train_snapshot(features, candidates, key, settings.model, reference)
    out.mkdir(parents=True, exist_ok=True)
    candidates.write_parquet(out / "candidates.parquet")
    if model is not None:
        (out / "model.json").write_text(model.to_json(), encoding="utf-8")
    progress(f"{model.model_version if model else 'no model'}: {choice.reasons[0]}")
    return _NO_MODEL if model is None else 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Where lines of progress go: into the Dagster run that started this process, or to standard error."""
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    if PipesEnvVarParamsLoader().is_dagster_pipes_process():
        with open_dagster_pipes() as pipes:
            yield pipes.log.info
    else:
        yield lambda line: print(line, file=sys.stderr, flush=True)  # noqa: T201


def _features(home: Path, key: str) -> pl.DataFrame:
    features = TableStore(Home(home).tables).read(CUSTOMER_FEATURES, [key])
    if features.is_empty():
        raise BadInputError(
            f"snapshot {key} of home {home} has no customer_features",
            "a snapshot that has been measured",
            "Name another with --snapshot, or materialise customer_features for it first.",
        )
    return features


if __name__ == "__main__":
    sys.exit(main())
