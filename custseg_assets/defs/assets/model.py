"""The sweep over k, the challenger it gives, and what is decided about it, by snapshot."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from custseg_assets.defs.materialise import Batch, Materialization, in_batches, materialise, snapshot_asset
from custseg_assets.defs.metadata import bullets, picture, table_preview
from custseg_assets.defs.resources import TrainingRun
from custseg_assets.domain.drift.reference import reference_of_model
from custseg_assets.domain.model_card import model_card
from custseg_assets.domain.promotion.comparison import Comparison
from custseg_assets.domain.promotion.promotion import GATE, PromotionVerdict
from custseg_assets.domain.schemas import (
    CUSTOMER_FEATURES,
    MODEL_CANDIDATES,
    PROMOTION_DECISION,
    SEGMENTATION_MODEL,
    Table,
    scaled_features_table,
    tables,
)
from custseg_assets.domain.segments import clustering, training_tables
from custseg_assets.domain.segments.model import RFM, SegmentationModel
from custseg_assets.home.decision_record import describe_decision
from custseg_assets.home.evidence import decide_about_challenger
from custseg_assets.home.inputs import read_inputs
from custseg_assets.home.kept_models import keep_trained
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.plan import SEGMENTED
from custseg_assets.home.trainings import plan_trainings
from custseg_assets.pictures.segments import k_selection
from custseg_assets.settings import ModelSettings
from custseg_assets.stores.revision import code_revision
from custseg_assets.training.exchange import TrainingLauncher, candidates_in, training_folder
from custseg_assets.training.steps import settings_of_training, sweep_snapshot, train_snapshot, weeks_seen

_NOTHING_TRAINED: Mapping[str, object] = {"model": "none was trained"}


class Training(dg.Config):
    """What a person may set where a training is asked for."""

    retrain: bool | None = Field(
        default=None,
        description="Train a challenger although a model is in force. Left out: yes in the job retrain, no elsewhere.",
    )


_FILES_NAMED = 5
"""Up to how many files a model card names; a home that lives on its landing folder has one for each day."""


@snapshot_asset("model_candidates", group="model", kinds={"scikitlearn", "mlflow"})
def model_candidates(
    context: dg.AssetExecutionContext,
    config: Training,
    home: dg.ResourceParam[LockedHome],
    mlflow: dg.ResourceParam[TrainingRun],
    trainer: dg.ResourceParam[TrainingLauncher],
) -> Materialization:
    """Try every number of clusters, here or in a trainer; nothing where a model is in force and none was asked for."""
    is_retrain = config.retrain if config.retrain is not None else _is_retrain(context)
    planned = plan_trainings(home, MODEL_CANDIDATES.name, context.partition_keys, is_retrain=is_retrain)
    batches = _empty(MODEL_CANDIDATES, planned.untrained)
    if not planned.to_train:
        shown = _NOTHING_TRAINED if batches else {}
        return materialise(context, home, MODEL_CANDIDATES, batches, unchanged=planned.unchanged, metadata=shown)
    [key] = planned.to_train
    table, reported = (_train_apart if is_retrain else _sweep)(context, home, trainer, key)
    home.registry.log_candidates(mlflow.run_id, table)

    def show() -> Mapping[str, object]:
        return {
            "curves": picture("choosing k", k_selection(table, _limit_lines(home.settings.model))),
            "candidates": table_preview(table.drop("centroids", "choice")),
            "rule": clustering.RULE,
            **reported,
        }

    return materialise(
        context,
        home,
        MODEL_CANDIDATES,
        [*batches, ([key], table)],
        unchanged=planned.unchanged,
        metadata={"choice": bullets(training_tables.choice_in_words(table))},
        show=show,
    )


@snapshot_asset("segmentation_model", group="model", kinds={"scikitlearn", "mlflow"})
def segmentation_model(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome], mlflow: dg.ResourceParam[TrainingRun]
) -> Materialization:
    """Make the challenger of the chosen number of clusters, and register it."""
    planned = plan_trainings(home, SEGMENTATION_MODEL.name, context.partition_keys, is_retrain=_is_retrain(context))
    empty, rows = [*planned.untrained], list[Batch]()
    shown = _NOTHING_TRAINED if empty else {}
    for key in planned.to_train:
        candidates = home.tables.read(MODEL_CANDIDATES, [key])
        if training_tables.chosen_centroids(candidates) is None:
            empty.append(key)
        else:
            row, shown = _make_challenger(home, key, candidates, mlflow.run_id)
            rows.append(([key], row))
    batches = [*_empty(SEGMENTATION_MODEL, empty), *rows]
    followed = {key: home.champions.predecessor_of(key) for key in planned.to_train}
    made = materialise(context, home, SEGMENTATION_MODEL, batches, unchanged=planned.unchanged, metadata=shown)
    keep_trained(home, followed)
    return made


@snapshot_asset("promotion_decision", group="model", kinds={"mlflow", "deltalake"})
def promotion_decision(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome], mlflow: dg.ResourceParam[TrainingRun]
) -> Materialization:
    """Decide whether the challenger takes over, and record why."""
    planned = plan_trainings(home, PROMOTION_DECISION.name, context.partition_keys, is_retrain=_is_retrain(context))
    keys = sorted([*planned.to_train, *planned.untrained])
    decided = [(key, *decide_about_challenger(home, key)) for key in keys]
    for key, verdict, _ in decided:
        # An earlier snapshot trained later does not take over from the model in force now.
        is_newest = all(promoted <= key for promoted, _ in home.champions.promotions)
        if verdict.decision == "PROMOTE" and is_newest:
            home.registry.promote(home.tables.read(SEGMENTATION_MODEL, [key])["model_version"].item())
        if verdict.decision != "PROMOTE" and home.champions.champion_before(key) is None:
            _forget_segments(home, key)
    rows = [(one[0], _decision_row(home, *one)) for one in decided]
    newest = rows[-1][1] if rows else home.tables.read(PROMOTION_DECISION, context.partition_keys[-1:])
    shown = _show_decision(home, newest, decided[-1][1] if decided else None)
    if decided:
        replaces = newest["champion_before"].item() or "none"
        mlflow.end("FINISHED", decision=newest["decision"].item(), decided_by=GATE, replaces=replaces)
    return materialise(context, home, PROMOTION_DECISION, in_batches(rows), unchanged=planned.unchanged, metadata=shown)


def _is_retrain(context: dg.AssetExecutionContext) -> bool:
    """Whether the run trains a challenger although a model is in force: the job says so, or who started it."""
    ops: Any = context.run.run_config.get("ops", {})
    asked = ops.get(MODEL_CANDIDATES.name, {}).get("config", {}).get("retrain")
    return bool(context.job_name == "retrain" if asked is None else asked)


def _sweep(
    context: dg.AssetExecutionContext, home: LockedHome, __: TrainingLauncher, key: str
) -> tuple[pl.DataFrame, Mapping[str, object]]:
    """Try every k in this process, for a first model: the candidates, and nothing more to report."""
    settings = settings_of_training(home.settings.model, None)
    scaled = home.tables.read(scaled_features_table(settings.features), [key], settings.features)
    table, _ = sweep_snapshot(scaled, key, settings, context.log.info)
    return table, {}


def _train_apart(
    context: dg.AssetExecutionContext, home: LockedHome, trainer: TrainingLauncher, key: str
) -> tuple[pl.DataFrame, Mapping[str, object]]:
    """Have a trainer out of process try every k: its candidates, and what it reported."""
    champion = home.champions.predecessor_of(key)
    settings = settings_of_training(home.settings.model, champion)
    n_weeks = weeks_seen(settings, champion)
    features = read_inputs(home, key, n_weeks).lazy() if n_weeks else home.tables.scan(CUSTOMER_FEATURES, [key])
    with training_folder(home.paths.root, features, settings, champion) as folder:
        reported = trainer.train(context, snapshot=key, folder=folder)
        return candidates_in(folder), reported


def _empty(table: Table, keys: Sequence[str]) -> list[Batch]:
    """Partitions in which nothing was trained: they are there, and have no rows."""
    return [(keys, pl.DataFrame(schema=table.schema))] if keys else []


def _make_challenger(
    home: LockedHome, key: str, candidates: pl.DataFrame, mlflow_run: str
) -> tuple[pl.DataFrame, Mapping[str, object]]:
    """Train and register the challenger of a snapshot: its row, and what is shown of it."""
    used = ("period", *clustering.kmeans_columns(home.settings.model.features), *RFM)
    champion, clusters = home.champions.predecessor_of(key), training_tables.chosen_clusters(candidates)
    n_weeks = max((one.n_weeks for one in (champion, clusters and clusters.embedding) if one), default=0)
    features = read_inputs(home, key, n_weeks, used)
    model = train_snapshot(features, candidates, key, home.settings.model, champion)
    if model is None:
        raise RuntimeError(f"{key}: candidates with chosen centroids gave no model")
    row = _model_row(home, model, features, candidates)
    version = home.registry.register(
        mlflow_run,
        model,
        examples=_examples(features, model),
        files={"model_card.md": row["model_card"].item(), "drift_reference.json": row["drift_reference"].item()},
        params={"trained_on": key, "k": model.k, **_params(home, key)},
    )
    return row, {
        "model": model.model_version,
        "registered": f"{home.registry.registered_model} version {version}, challenger",
        "model_card": dg.MetadataValue.md(row["model_card"].item()),
    }


def _show_decision(home: OpenHome, rows: pl.DataFrame, verdict: PromotionVerdict | None) -> dict[str, object]:
    """What is shown of the newest decision; nothing where none has been made.

    Args:
        home: whose decision it is.
        rows: of ``promotion_decision``, one or none.
        verdict: what the gate has just decided; ``None`` where nothing was.
    """
    if rows.is_empty():
        return {}
    row = rows.row(0, named=True)
    return {
        "decision": row["decision"],
        "reasons": bullets(json.loads(row["reasons"])),
        **({"comparison": dg.MetadataValue.json(json.loads(row["comparison"]))} if row["comparison"] else {}),
        **({"reason_codes": dg.MetadataValue.json(list(verdict.codes))} if verdict else {}),
        "origin": dg.MetadataValue.json(describe_decision(home, row)),
    }


def _forget_segments(home: LockedHome, key: str) -> None:
    """Empty what an earlier first model made of a snapshot whose data have changed since: no model is in force now."""
    for name in SEGMENTED:
        home.tables.forget(tables(home.settings.model.features)[name], [key])


def _decision_row(home: OpenHome, key: str, verdict: PromotionVerdict, comparison: Comparison | None) -> pl.DataFrame:
    champion = home.champions.champion_before(key)
    challenger = home.tables.read(SEGMENTATION_MODEL, [key])["model_version"].to_list()
    fields = {
        "period": key,
        "model_version": challenger[0] if challenger else None,
        "decision": verdict.decision,
        "reasons": json.dumps(verdict.reasons, ensure_ascii=False),
        "champion_before": champion[1] if champion else None,
        "decided_by": GATE,
        "comparison": comparison.to_json() if comparison else None,
    }
    return pl.DataFrame([fields], schema=PROMOTION_DECISION.schema)


def _limit_lines(model: ModelSettings) -> dict[str, float]:
    return {
        "bootstrap_ari": model.min_bootstrap_ari,
        "worst_jaccard": model.min_jaccard,
        "smallest_share": model.min_segment_share,
    }


def _model_row(
    home: OpenHome, model: SegmentationModel, features: pl.DataFrame, candidates: pl.DataFrame
) -> pl.DataFrame:
    """The challenger as a row of ``segmentation_model``."""
    window = home.calendar.window(model.trained_on)
    choice = training_tables.choice_in_words(candidates)
    names = [delivery.name for delivery in home.calendar.deliveries]
    files = ", ".join(names) if len(names) <= _FILES_NAMED else f"{len(names):,} files, {names[0]} to {names[-1]},"
    fields = {
        "period": model.trained_on,
        "model_version": model.model_version,
        "k": model.k,
        "choice": choice[0],
        "model_json": model.to_json(),
        "drift_reference": reference_of_model(model, features, window).to_json(),
        "model_card": model_card(
            model,
            candidates,
            n_customers=features.filter(clustering.visible_to_kmeans(features, model.features)).height,
            rule=clustering.RULE,
            choice=choice,
            data=f"Lines of {files} from {window.start:%Y-%m-%d} up to, but without, {window.as_of:%Y-%m-%d}.",
            code=code_revision(),
        ),
    }
    return pl.DataFrame([fields], schema=SEGMENTATION_MODEL.schema)


def _examples(features: pl.DataFrame, model: SegmentationModel) -> pl.DataFrame:
    """Three customers of the snapshot, as whoever asks for a score would give them."""
    seen = features.filter(clustering.visible_to_kmeans(features, model.features))
    return seen.select(pl.col(model.inputs).cast(pl.Float64)).head(3)


def _params(home: OpenHome, key: str) -> dict[str, object]:
    """The settings and the data a model was trained with."""
    made_from = {
        f"data.{name}": f"{home.tables.fingerprint_of(name, key):x}"
        for name in ("customer_features", "scaled_features", "model_candidates")
    }
    return {**home.settings.model.model_dump(mode="json"), **made_from, "code": code_revision()}


ASSETS = (model_candidates, segmentation_model, promotion_decision)
