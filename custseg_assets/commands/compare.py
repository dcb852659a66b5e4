"""``custseg compare``: what other models would be like, side by side with the one in force, on the home's customers.

Nothing is decided and nothing is written to the home but a record in MLflow. The figures are the gate's own, from
``domain.promotion.comparison``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.command_line import with_users_rights
from custseg_assets.domain.promotion.comparison import Comparison
from custseg_assets.domain.promotion.validity import PairedValidity
from custseg_assets.domain.segments import clustering, training_tables
from custseg_assets.domain.segments.model import SegmentationModel, clusters_from_json
from custseg_assets.errors import BadInputError
from custseg_assets.home.evidence import compare_on_home
from custseg_assets.home.inputs import read_inputs
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import ModelSettings
from custseg_assets.stores.files import replacement_for
from custseg_assets.stores.sources import Progress
from custseg_assets.training.exchange import candidates_in, training_folder
from custseg_assets.training.local import require_networks, train_without_dagster
from custseg_assets.training.steps import kept_embedding, sweep_snapshot

FittedModels = Iterator[tuple[SegmentationModel | None, Mapping[str, Any], pl.DataFrame]]
"""Candidates one by one: the model, ``None`` where none could be fitted, its row of ``model_candidates``, all rows."""

SCHEMA = {
    "name": pl.String,
    "model_version": pl.String,
    "k": pl.Int64,
    "bootstrap_ari": pl.Float64,
    "worst_jaccard": pl.Float64,
    "smallest_segment": pl.Int64,
    "smallest_share": pl.Float64,
    "share_moved": pl.Float64,
    "validity_return": pl.Float64,
    "validity_return_low": pl.Float64,
    "validity_return_high": pl.Float64,
    "validity_spend": pl.Float64,
    "validity_spend_low": pl.Float64,
    "validity_spend_high": pl.Float64,
    "reason": pl.String,
}
"""Columns of the figures; ``low`` and ``high`` are of the difference to the model in force, a 95 % interval."""


def compare(
    home: OpenHome,
    kinds: Sequence[str],
    k_range: tuple[int, int] | None,
    key: str | None,
    out: Path | None,
    say: Progress,
) -> str:
    """Fit candidates on a snapshot, measure each against the model in force, and record the figures in MLflow.

    Args:
        home: with the snapshot.
        kinds: of models; see ``domain.segments.model.ModelKind``.
        k_range: lowest and highest number of clusters; those of the settings without it.
        key: the snapshot; the newest complete one without it.
        out: where the picture is written to; nowhere without it.
        say: takes each line of progress.

    Returns:
        The table.

    Raises:
        BadInputError: there is no such snapshot, no model is in force at it, the picture cannot be written, or a deep
            model is asked for and TensorFlow is not there.
        RunFailedError: a deep model could not be trained.
    """
    from custseg_assets.pictures.comparison import candidates_side_by_side

    if out is not None and (out.suffix != ".png" or not out.parent.is_dir()):
        raise BadInputError(f"--out {out}", "a name that ends in .png in a folder that is there", "Name another.")
    with home.locked() as locked:
        chosen, champion = _choose_snapshot(locked, key)
        rows, measured_on = measure_candidates(locked, kinds, k_range, chosen, champion, say)
        title = f"Candidates on snapshot {chosen}"
        about = f"Against {champion.model_version}, in force there (grey). {_measured_on(measured_on)}"
        picture = candidates_side_by_side(rows, title, about)
        if out is not None:
            _write_picture(picture, out)
        files: dict[str, str | bytes] = {
            "comparison.json": json.dumps(rows.to_dicts(), indent=1),
            "comparison.png": picture,
        }
        locked.registry.record_comparison(chosen, rows.to_dicts(), files)
    return "\n".join([title + ". " + about, *_table_lines(rows)])


def _write_picture(picture: bytes, out: Path) -> None:
    try:
        with with_users_rights(), replacement_for(out) as unfinished:
            unfinished.write_bytes(picture)
    except OSError as error:
        raise BadInputError(
            f"--out {out}: {error.strerror or error}", "a file that can be written", "Name another."
        ) from None


def measure_candidates(
    home: OpenHome,
    kinds: Sequence[str],
    k_range: tuple[int, int] | None,
    key: str,
    champion: SegmentationModel,
    say: Progress,
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The figures of the model in force and of each candidate, and the snapshots that validity was measured on.

    Args:
        home: with the snapshot.
        kinds: of models.
        k_range: lowest and highest number of clusters; those of the settings without it.
        key: of the snapshot.
        champion: the model in force there, whose features and scale the candidates have.
        say: takes each line of progress.

    Returns:
        Rows of ``SCHEMA``, the model in force first.
    """
    given = {"features": champion.features} | ({"k_range": k_range} if k_range else {})
    settings = home.settings.model.model_copy(update=given)
    n_weeks = max(champion.n_weeks, settings.deep_weeks if "deep" in kinds else 0)
    features = read_inputs(home, key, n_weeks)
    if "deep" in kinds and kept_embedding(settings, champion) is None:
        require_networks(home.settings.training.deep_python)
    rows: list[dict[str, Any]] = []
    in_force: Comparison | None = None
    for kind in kinds:
        of_kind = settings.model_copy(update={"kind": kind})
        for model, fitted, candidates in _fit_candidates(home, features, key, of_kind, champion, say):
            row = {"name": f"{kind} {fitted['k']}", "k": fitted["k"], "reason": fitted["reason"]}
            if model is not None:
                figures = compare_on_home(home, champion, model, candidates)
                row |= _figures_of(model, figures)
                in_force = in_force or figures
            rows.append(row)
    first = {"name": "in force", **_figures_in_force(champion, features, in_force)}
    return pl.DataFrame([first, *rows], schema=SCHEMA), in_force.measured_on if in_force else ()


def _fit_candidates(
    home: OpenHome,
    features: pl.DataFrame,
    key: str,
    settings: ModelSettings,
    champion: SegmentationModel,
    say: Progress,
) -> FittedModels:
    """The candidates of the settings' kind, on the scale of the model in force."""
    if settings.kind == "deep":
        candidates = _train_apart(home, features, key, settings, champion, say)
    else:
        scaled, _ = training_tables.scale_snapshot(features, champion.features, champion.reference)
        candidates, _ = sweep_snapshot(scaled, key, settings, say, champion)
    for row in candidates.iter_rows(named=True):
        clusters = clusters_from_json(row["centroids"]) if row["centroids"] else None
        model = clusters and clustering.train_model(
            features, clusters.centroids, champion.reference, key, champion, clusters
        )
        yield model or None, row, candidates


def _train_apart(
    home: OpenHome,
    features: pl.DataFrame,
    key: str,
    settings: ModelSettings,
    champion: SegmentationModel,
    say: Progress,
) -> pl.DataFrame:
    """What a trainer in the environment of the deep model finds, always on this machine."""
    with training_folder(home.paths.root, features.lazy(), settings, champion) as folder:
        train_without_dagster(folder, key, home.settings.training.deep_python, say)
        return candidates_in(folder)


def _choose_snapshot(home: OpenHome, key: str | None) -> tuple[str, SegmentationModel]:
    segmented = home.champions.segmented(home.calendar.snapshot_keys)
    complete = [one for one in segmented if home.calendar.is_complete(one)]
    chosen = key or next(reversed(complete or segmented), None)
    if chosen is None or chosen not in segmented:
        raise BadInputError(
            f"snapshot {chosen} of home {home.paths.root}",
            f"one with a model in force: {', '.join(segmented) or 'none yet'}",
            "Do 'custseg run' first, or name one of those with --partition.",
        )
    return chosen, home.champions.model_at(chosen)


def _figures_of(model: SegmentationModel, figures: Comparison) -> dict[str, Any]:
    row = {
        "model_version": model.model_version,
        "bootstrap_ari": figures.bootstrap_ari,
        "worst_jaccard": figures.worst_jaccard,
        "smallest_segment": figures.smallest_segment,
        "smallest_share": figures.smallest_share,
        "share_moved": 1 - figures.share_same_segment,
    }
    for one in figures.validity:
        row |= {
            f"validity_{one.outcome}": one.challenger,
            f"validity_{one.outcome}_low": one.low,
            f"validity_{one.outcome}_high": one.high,
        }
    return row


def _figures_in_force(
    champion: SegmentationModel, features: pl.DataFrame, figures: Comparison | None
) -> dict[str, Any]:
    """Of the model in force only what can be said without fitting it anew: stability is that of refits."""
    clusters = clustering.visible_to_kmeans(features, champion.features)
    values = clustering.feature_values(features.filter(clusters), champion.inputs)
    sizes = pl.Series(champion.score(values).cluster).value_counts()["count"].to_list()
    sizes += [0] * (champion.k - len(sizes))
    validity: Sequence[PairedValidity] = figures.validity if figures else ()
    return {
        "model_version": champion.model_version,
        "k": champion.k,
        "smallest_segment": min(sizes),
        "smallest_share": min(sizes) / sum(sizes),
        "share_moved": 0.0,
        **{f"validity_{one.outcome}": one.champion for one in validity},
    }


def _measured_on(snapshots: Sequence[str]) -> str:
    if not snapshots:
        return "No snapshot can tell yet what segments foresee."
    return f"What segments foresee was measured on {', '.join(snapshots)}, whose next period is known."


def _table_lines(rows: pl.DataFrame) -> list[str]:
    head = f"  {'candidate':<19}{'stability':>10}{'weakest':>9}{'smallest':>10}{'share':>8}{'moved':>8}"
    lines = [f"{head}{'returns':>9}{'spends':>8}   (difference to the model in force, 95 %)"]
    for row in rows.iter_rows(named=True):
        if row["smallest_segment"] is None:
            lines.append(f"  {row['name']:<19}  {row['reason']}")
            continue
        shares = "".join(f"{_shown(row[name], '.1%'):>8}" for name in ("smallest_share", "share_moved"))
        lines.append(
            f"  {row['name']:<19}{_shown(row['bootstrap_ari'], '.3f'):>10}{_shown(row['worst_jaccard'], '.3f'):>9}"
            f"{row['smallest_segment']:>10,}{shares}"
            f"{_shown(row['validity_return'], '.3f'):>9}{_shown(row['validity_spend'], '.3f'):>8}{_intervals(row)}"
        )
        if row["reason"]:
            lines.append(f"    {row['reason']}")
    return lines


def _intervals(row: Mapping[str, Any]) -> str:
    if row["validity_return_low"] is None:
        return ""
    each = (
        f"{row[f'validity_{name}_low']:+.3f} to {row[f'validity_{name}_high']:+.3f}" for name in ("return", "spend")
    )
    return f"   {', '.join(each)}"


def _shown(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)
