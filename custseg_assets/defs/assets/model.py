"""The sweep over k, the challenger it gives, and what is decided about it, by snapshot."""

import json
from collections.abc import Mapping, Sequence

import dagster as dg
import polars as pl
from pydantic import Field

from custseg_assets.defs.materialise import bullets, picture, publish, spec_of, table_preview
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores, TrainingRun
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
)
from custseg_assets.domain.segments import clustering, training
from custseg_assets.domain.segments.model import SegmentationModel
from custseg_assets.errors import RunFailedError
from custseg_assets.home.decision_record import origin_of
from custseg_assets.home.evidence import judged
from custseg_assets.pictures.segments import k_selection
from custseg_assets.settings import Settings
from custseg_assets.stores.revision import code_revision
from custseg_assets.training.exchange import TrainingLauncher, candidates_in, training_folder
from custseg_assets.training.steps import sweep_snapshot, train_snapshot


class Training(dg.Config):
    """What the job ``retrain`` sets."""

    retrain: bool = Field(default=False, description="Train a challenger although a model is in force.")


_FILES_NAMED = 5
"""Up to how many files a model card names; a home that lives on its landing folder has one for each day."""


def model_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of the group ``model``."""
    scaled_table = scaled_features_table(settings.model.features)

    @dg.multi_asset(
        specs=[
            spec_of(
                MODEL_CANDIDATES, group="model", deps=[dg.AssetDep("scaled_features")], kinds={"scikitlearn", "mlflow"}
            )
        ],
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def model_candidates(
        context: dg.AssetExecutionContext,
        config: Training,
        stores: dg.ResourceParam[Stores],
        mlflow: dg.ResourceParam[TrainingRun],
        trainer: dg.ResourceParam[TrainingLauncher],
    ) -> dg.MaterializeResult:
        said: Mapping[str, object] = {}
        if config.retrain:
            table, said = _retrained(context, stores, trainer)
        elif stores.provenance.champion_before(context.partition_keys[-1]):
            _require_held(stores, context.partition_keys)
            return _nothing(context, stores, MODEL_CANDIDATES)
        else:
            key = context.partition_key
            table, _ = sweep_snapshot(stores.tables.read(scaled_table, [key]), key, settings.model, context.log.info)
        stores.registry.log_candidates(mlflow.run_id, table)
        shown = {
            "choice": bullets(training.choice_in_words(table)),
            "rule": clustering.RULE,
            "candidates": table_preview(table.drop("centroids", "choice")),
            "curves": picture("choosing k", k_selection(table, _limit_lines(settings))),
            **said,
        }
        [key] = context.partition_keys
        return publish(context, stores, MODEL_CANDIDATES, [([key], table)], metadata=shown)

    @dg.multi_asset(
        specs=[
            spec_of(
                SEGMENTATION_MODEL,
                group="model",
                deps=[dg.AssetDep("model_candidates"), dg.AssetDep("customer_features")],
                kinds={"scikitlearn", "mlflow"},
            )
        ],
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def segmentation_model(
        context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores], mlflow: dg.ResourceParam[TrainingRun]
    ) -> dg.MaterializeResult:
        candidates = stores.tables.read(MODEL_CANDIDATES, context.partition_keys)
        if training.chosen_centroids(candidates) is None:
            return _nothing(context, stores, SEGMENTATION_MODEL)
        key = context.partition_key
        features = stores.tables.read(CUSTOMER_FEATURES, [key])
        model = train_snapshot(features, candidates, key, settings.model, stores.provenance.predecessor_of(key))
        row = _model_row(stores, model, features, candidates)
        version = stores.registry.register(
            mlflow.run_id,
            model,
            examples=_examples(features, model.features),
            files={"model_card.md": row["model_card"].item(), "drift_reference.json": row["drift_reference"].item()},
            params={"trained_on": key, "k": model.k, **_params(stores, key)},
        )
        shown = {
            "model": model.model_version,
            "registered": f"{stores.registry.registered_model} version {version}, challenger",
            "model_card": dg.MetadataValue.md(row["model_card"].item()),
        }
        return publish(context, stores, SEGMENTATION_MODEL, [([key], row)], metadata=shown)

    @dg.multi_asset(
        specs=[
            spec_of(
                PROMOTION_DECISION,
                group="model",
                deps=[
                    dg.AssetDep(name, partition_mapping=layout.until)
                    for name in (
                        "segmentation_model",
                        "customer_features",
                        "clean_transactions",
                        "rejected_transactions",
                    )
                ],
                kinds={"mlflow", "deltalake"},
            )
        ],
        partitions_def=layout.snapshots,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def promotion_decision(
        context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores], mlflow: dg.ResourceParam[TrainingRun]
    ) -> dg.MaterializeResult:
        decided = [(key, *judged(stores, key)) for key in context.partition_keys]
        for key, verdict, _ in decided:
            # An earlier snapshot trained later does not take over from the model in force now.
            is_newest = all(promoted <= key for promoted, _ in stores.provenance.champions)
            if verdict.decision == "PROMOTE" and is_newest:
                stores.registry.promote(stores.tables.read(SEGMENTATION_MODEL, [key])["model_version"].item())
        rows = pl.concat([_decision_row(stores, *one) for one in decided])
        _, newest, comparison = decided[-1]
        origin = origin_of(stores, rows.row(-1, named=True))
        mlflow.end("FINISHED", decision=newest.decision, decided_by=GATE, replaces=origin["replaces"] or "none")
        shown = {
            "decision": newest.decision,
            "reasons": bullets(newest.reasons),
            "reason_codes": dg.MetadataValue.json(list(newest.codes)),
            "origin": dg.MetadataValue.json(origin),
        }
        if comparison:
            shown["comparison"] = dg.MetadataValue.json(json.loads(comparison.to_json()))
        return publish(context, stores, PROMOTION_DECISION, [(context.partition_keys, rows)], metadata=shown)

    return [model_candidates, segmentation_model, promotion_decision]


def _retrained(
    context: dg.AssetExecutionContext, stores: Stores, trainer: TrainingLauncher
) -> tuple[pl.DataFrame, Mapping[str, object]]:
    """What a trainer out of process found on the newest snapshot, and what it said about it."""
    key, provenance = context.partition_key, stores.provenance
    if provenance.champion_before(key) is None or provenance.champion_at(key) != provenance.champion_before(key):
        raise RunFailedError(f"the model in force came with {key} itself; retrain on a later snapshot")
    if key != provenance.released_key():
        raise RunFailedError(
            f"{key} is not the newest snapshot with segments, {provenance.released_key()}; retrain on that"
        )
    features, champion = stores.tables.read(CUSTOMER_FEATURES, [key]), provenance.predecessor_of(key)
    with training_folder(stores.home.root, features, stores.settings.model, champion) as folder:
        said = trainer.train(context, snapshot=key, folder=folder)
        return candidates_in(folder), said


def _require_held(stores: Stores, keys: Sequence[str]) -> None:
    trained = [key for key in keys if not stores.provenance.is_held(key)]
    if trained:
        raise RunFailedError(f"a challenger was trained on {', '.join(trained)}, and what was decided about it stays")


def _nothing(context: dg.AssetExecutionContext, stores: Stores, table: Table) -> dg.MaterializeResult:
    """Partitions in which nothing was trained: they are there, and empty."""
    empty = pl.DataFrame(schema=table.schema)
    return publish(context, stores, table, [(context.partition_keys, empty)], metadata={"model": "none was trained"})


def _decision_row(stores: Stores, key: str, verdict: PromotionVerdict, comparison: Comparison | None) -> pl.DataFrame:
    champion = stores.provenance.champion_before(key)
    challenger = stores.tables.read(SEGMENTATION_MODEL, [key])["model_version"].to_list()
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


def _limit_lines(settings: Settings) -> dict[str, float]:
    model = settings.model
    return {
        "bootstrap_ari": model.min_bootstrap_ari,
        "worst_jaccard": model.min_jaccard,
        "smallest_share": model.min_segment_share,
    }


def _model_row(
    stores: Stores, model: SegmentationModel, features: pl.DataFrame, candidates: pl.DataFrame
) -> pl.DataFrame:
    """The challenger as a row of ``segmentation_model``."""
    window = stores.provenance.window(model.trained_on)
    choice = training.choice_in_words(candidates)
    names = [delivery.name for delivery in stores.provenance.current]
    files = ", ".join(names) if len(names) <= _FILES_NAMED else f"{len(names):,} files, {names[0]} to {names[-1]},"
    fields = {
        "period": model.trained_on,
        "model_version": model.model_version,
        "k": model.k,
        "choice": choice[0],
        "model_json": model.to_json(),
        "drift_reference": training.drift_reference_of(model, features, window).to_json(),
        "model_card": model_card(
            model,
            candidates,
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


def _params(stores: Stores, key: str) -> dict[str, object]:
    """The settings and the data a model was trained with."""
    made_from = {
        f"data.{name}": f"{stores.tables.fingerprint_of(name, key):x}"
        for name in ("customer_features", "scaled_features", "model_candidates")
    }
    return {**stores.settings.model.model_dump(mode="json"), **made_from, "code": code_revision()}
