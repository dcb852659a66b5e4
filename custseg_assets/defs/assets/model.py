"""The sweep over k, the challenger it gives, and what is decided about it, by snapshot."""

import json
from collections.abc import Mapping, Sequence

import dagster as dg
import polars as pl
from pydantic import Field

from custseg_assets.defs.materialise import Materialization, materialise, snapshot_asset
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
from custseg_assets.domain.segments.model import SegmentationModel
from custseg_assets.errors import RunFailedError
from custseg_assets.home.decision_record import describe_decision
from custseg_assets.home.evidence import decide_about_challenger
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.plan import SEGMENTED, require_retrainable
from custseg_assets.pictures.segments import k_selection
from custseg_assets.settings import ModelSettings
from custseg_assets.stores.revision import code_revision
from custseg_assets.training.exchange import TrainingLauncher, candidates_in, training_folder
from custseg_assets.training.steps import sweep_snapshot, train_snapshot


class Training(dg.Config):
    """What the job ``retrain`` sets."""

    retrain: bool = Field(default=False, description="Train a challenger although a model is in force.")


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
    settings = home.settings.model
    reported: Mapping[str, object] = {}
    if config.retrain:
        table, reported = _retrain(context, home, trainer)
    elif home.champions.champion_before(context.partition_keys[-1]):
        _require_untrained(home, context.partition_keys)
        return _nothing_trained(context, home, MODEL_CANDIDATES)
    else:
        key = context.partition_key
        scaled = home.tables.read(scaled_features_table(settings.features), [key])
        table, _ = sweep_snapshot(scaled, key, settings, context.log.info)
    home.registry.log_candidates(mlflow.run_id, table)
    shown = {
        "choice": bullets(training_tables.choice_in_words(table)),
        "rule": clustering.RULE,
        "candidates": table_preview(table.drop("centroids", "choice")),
        **reported,
    }
    [key] = context.partition_keys
    return materialise(
        context,
        home,
        MODEL_CANDIDATES,
        [([key], table)],
        metadata=shown,
        show=lambda: {"curves": picture("choosing k", k_selection(table, _limit_lines(settings)))},
    )


@snapshot_asset("segmentation_model", group="model", kinds={"scikitlearn", "mlflow"})
def segmentation_model(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome], mlflow: dg.ResourceParam[TrainingRun]
) -> Materialization:
    """Make the challenger of the chosen number of clusters, and register it."""
    candidates = home.tables.read(MODEL_CANDIDATES, context.partition_keys)
    if training_tables.chosen_centroids(candidates) is None:
        return _nothing_trained(context, home, SEGMENTATION_MODEL)
    key = context.partition_key
    features = home.tables.read(CUSTOMER_FEATURES, [key])
    model = train_snapshot(features, candidates, key, home.settings.model, home.champions.predecessor_of(key))
    if model is None:
        raise RuntimeError(f"{key}: candidates with chosen centroids gave no model")
    row = _model_row(home, model, features, candidates)
    version = home.registry.register(
        mlflow.run_id,
        model,
        examples=_examples(features, model.features),
        files={"model_card.md": row["model_card"].item(), "drift_reference.json": row["drift_reference"].item()},
        params={"trained_on": key, "k": model.k, **_params(home, key)},
    )
    shown = {
        "model": model.model_version,
        "registered": f"{home.registry.registered_model} version {version}, challenger",
        "model_card": dg.MetadataValue.md(row["model_card"].item()),
    }
    return materialise(context, home, SEGMENTATION_MODEL, [([key], row)], metadata=shown)


@snapshot_asset("promotion_decision", group="model", kinds={"mlflow", "deltalake"})
def promotion_decision(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome], mlflow: dg.ResourceParam[TrainingRun]
) -> Materialization:
    """Decide whether the challenger takes over, and record why."""
    decided = [(key, *decide_about_challenger(home, key)) for key in context.partition_keys]
    for key, verdict, _ in decided:
        # An earlier snapshot trained later does not take over from the model in force now.
        is_newest = all(promoted <= key for promoted, _ in home.champions.promotions)
        if verdict.decision == "PROMOTE" and is_newest:
            home.registry.promote(home.tables.read(SEGMENTATION_MODEL, [key])["model_version"].item())
        if verdict.decision != "PROMOTE" and home.champions.champion_before(key) is None:
            _forget_segments(home, key)
    rows = pl.concat([_decision_row(home, *one) for one in decided])
    _, newest, comparison = decided[-1]
    record = describe_decision(home, rows.row(-1, named=True))
    mlflow.end("FINISHED", decision=newest.decision, decided_by=GATE, replaces=record["replaces"] or "none")
    shown: dict[str, object] = {
        "decision": newest.decision,
        "reasons": bullets(newest.reasons),
        "reason_codes": dg.MetadataValue.json(list(newest.codes)),
        "origin": dg.MetadataValue.json(record),
    }
    if comparison:
        shown["comparison"] = dg.MetadataValue.json(json.loads(comparison.to_json()))
    return materialise(context, home, PROMOTION_DECISION, [(context.partition_keys, rows)], metadata=shown)


def _retrain(
    context: dg.AssetExecutionContext, home: LockedHome, trainer: TrainingLauncher
) -> tuple[pl.DataFrame, Mapping[str, object]]:
    """Have a trainer out of process try every k on the newest snapshot: its candidates, and what it reported."""
    key = context.partition_key
    require_retrainable(home, key)
    features, champion = home.tables.read(CUSTOMER_FEATURES, [key]), home.champions.predecessor_of(key)
    with training_folder(home.paths.root, features, home.settings.model, champion) as folder:
        reported = trainer.train(context, snapshot=key, folder=folder)
        return candidates_in(folder), reported


def _require_untrained(home: OpenHome, keys: Sequence[str]) -> None:
    trained = [key for key in keys if not home.champions.is_untrained(key)]
    if trained:
        raise RunFailedError(f"a challenger was trained on {', '.join(trained)}, and what was decided about it stays")


def _nothing_trained(context: dg.AssetExecutionContext, home: LockedHome, table: Table) -> Materialization:
    """Partitions in which nothing was trained: they are there, and empty."""
    empty = pl.DataFrame(schema=table.schema)
    return materialise(context, home, table, [(context.partition_keys, empty)], metadata={"model": "none was trained"})


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


def _examples(features: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Three customers of the snapshot, as whoever asks for a score would give them."""
    seen = features.filter(clustering.visible_to_kmeans(features, names))
    return seen.select(pl.col(names).cast(pl.Float64)).head(3)


def _params(home: OpenHome, key: str) -> dict[str, object]:
    """The settings and the data a model was trained with."""
    made_from = {
        f"data.{name}": f"{home.tables.fingerprint_of(name, key):x}"
        for name in ("customer_features", "scaled_features", "model_candidates")
    }
    return {**home.settings.model.model_dump(mode="json"), **made_from, "code": code_revision()}


ASSETS = (model_candidates, segmentation_model, promotion_decision)
