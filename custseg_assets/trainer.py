"""Training a challenger outside Dagster: in a subprocess, or in a container of its own.

``python -m custseg_assets.trainer --in DIR --out DIR`` reads ``features.parquet`` (``customer_features`` of one
snapshot), ``settings.json`` (the section ``[model]``) and, where a model is in force, ``champion.json``; it does what
the assets ``model_candidates`` and ``segmentation_model`` do, and leaves ``candidates.parquet`` and, where a k is
eligible, ``model.json``. Both folders may be on Google Cloud Storage, ``gs://BUCKET/PREFIX``. Started through Dagster
Pipes, it streams its progress and figures into the run. It never sees a home: whoever started it decides what becomes
of the model.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.domain.segments import training_tables
from custseg_assets.domain.segments.clustering import kmeans_columns
from custseg_assets.domain.segments.embedding import week_columns
from custseg_assets.domain.segments.model import RFM, SegmentationModel, model_from_json
from custseg_assets.errors import BadInputError
from custseg_assets.settings import ModelSettings
from custseg_assets.training.exchange import BAD_INPUT, CANDIDATES, CHAMPION, FEATURES, MODEL, NO_MODEL, SETTINGS
from custseg_assets.training.steps import fit_snapshot, weeks_seen

Report = Callable[[Mapping[str, Any]], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Train on one snapshot; 0 if a model came of it, 3 if no k was eligible, 2 for bad input.

    With folders in the cloud an outcome without a model is 0, too: there every other status counts as a failure.
    """
    parser = argparse.ArgumentParser(prog="custseg_assets.trainer", description=__doc__)
    parser.add_argument("--in", dest="given", required=True, metavar="DIR")
    parser.add_argument("--out", required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    with _open_channels() as (progress, report):
        try:
            with _open_folders(arguments.given, arguments.out) as (given, out):
                status = _train(given, out, progress, report)
        except BadInputError as error:
            progress(f"trainer: {error}")
            return BAD_INPUT
    return 0 if _is_remote(arguments.out) and status == NO_MODEL else status


def _is_remote(folder: str) -> bool:
    return folder.startswith("gs://")


def _open_folders(given: str, out: str) -> contextlib.AbstractContextManager[tuple[Path, Path]]:
    """The folders on this disk; copies of those in the cloud."""
    if _is_remote(given) != _is_remote(out):
        raise BadInputError(f"--in {given} with --out {out}", "both on disk or both gs://", "Name two of a kind.")
    if not _is_remote(given):
        return contextlib.nullcontext((Path(given), Path(out)))
    from custseg_assets.gcp.folders import local_copies

    return local_copies(given, out)


def _train(given: Path, out: Path, progress: Callable[[str], None], report: Report) -> int:
    features, settings, champion = _read_inputs(given)
    fit = fit_snapshot(features, settings, progress, champion)
    out.mkdir(parents=True, exist_ok=True)
    fit.candidates.write_parquet(out / CANDIDATES)
    if fit.model is not None:
        (out / MODEL).write_text(fit.model.to_json(), encoding="utf-8")
    progress(f"{fit.model.model_version if fit.model else 'no model'}: {fit.choice.reasons[0]}")
    figures = {name: value for name, value in training_tables.metrics_of(fit.candidates).items() if value is not None}
    key = features["period"][0]
    report({"trained_on": key, "n_customers": features.height, "k": fit.choice.k or "none", **figures})
    return NO_MODEL if fit.model is None else 0


@contextlib.contextmanager
def _open_channels() -> Iterator[tuple[Callable[[str], None], Report]]:
    """Where lines of progress and figures go: into the Dagster run that started this process, or to standard error."""
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    params = PipesEnvVarParamsLoader()
    if params.is_dagster_pipes_process():
        channels = {}
        if "bucket" in params.load_messages_params():
            from custseg_assets.gcp.folders import pipes_channels

            channels = pipes_channels()
        with open_dagster_pipes(**channels) as pipes:
            yield pipes.log.info, lambda figures: pipes.report_asset_materialization(metadata=dict(figures))
    else:
        yield lambda line: print(line, file=sys.stderr, flush=True), lambda _: None  # noqa: T201


def _read_inputs(given: Path) -> tuple[pl.DataFrame, ModelSettings, SegmentationModel | None]:
    try:
        columns = pl.read_parquet_schema(given / FEATURES)
        settings = ModelSettings.model_validate_json((given / SETTINGS).read_bytes())
        champion = given / CHAMPION
        model = model_from_json(champion.read_text(encoding="utf-8")) if champion.exists() else None
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise BadInputError(
            f"{given}: {' '.join(str(error).split())}",
            f"a folder with {FEATURES}, {SETTINGS} and, with a model in force, {CHAMPION}",
            "Start the trainer from the job 'retrain', which makes them.",
        ) from None
    n_weeks = weeks_seen(settings, model)
    weeks = week_columns(n_weeks)
    is_features = columns == {**CUSTOMER_FEATURES.schema, **dict.fromkeys(weeks, pl.Float64)}
    wanted = list(dict.fromkeys(("period", *kmeans_columns(settings.features), *RFM, *weeks)))
    features = pl.read_parquet(given / FEATURES, glob=False, columns=wanted if is_features else [])
    if not is_features or features["period"].n_unique() != 1:
        raise BadInputError(
            f"{given / FEATURES} with {features.height:,} rows and columns {', '.join(columns)}",
            "customer_features of one snapshot" + (f", with orders of {n_weeks} weeks" if n_weeks else ""),
            "Materialise customer_features for it first.",
        )
    return features, settings, model


if __name__ == "__main__":
    sys.exit(main())
