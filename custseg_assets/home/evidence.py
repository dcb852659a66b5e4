"""What the promotion gate is shown of a home: the two models, and the customers to compare them on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import narwhals as nw
import polars as pl

from custseg_assets.defs.resources import Stores
from custseg_assets.domain.drift.scores import unobserved_share
from custseg_assets.domain.promotion.comparison import N_EVIDENCE, Comparison, Evidence, compare_models
from custseg_assets.domain.promotion.promotion import (
    PromotionVerdict,
    decide_first_promotion,
    decide_promotion,
    keep_champion,
)
from custseg_assets.domain.promotion.validity import measure_outcomes
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES, MODEL_CANDIDATES, SEGMENTATION_MODEL
from custseg_assets.domain.segments import training
from custseg_assets.domain.segments.model import SegmentationModel, model_from_json
from custseg_assets.home.soundness import unsound_in_window


def judged(stores: Stores, key: str) -> tuple[PromotionVerdict, Comparison | None]:
    """What the gate decides about a snapshot, and the figures where it compared two models."""
    champion = stores.provenance.champion_before(key)
    candidates, trained = (stores.tables.read(table, [key]) for table in (MODEL_CANDIDATES, SEGMENTATION_MODEL))
    if champion and candidates.is_empty():
        return keep_champion(champion[1]), None
    if champion is None or trained.is_empty():
        challenger = trained["model_version"].item() if len(trained) else None
        return decide_first_promotion(challenger, training.choice_in_words(candidates)), None
    comparison = _compared(stores, model_from_json(trained["model_json"].item()), candidates)
    settings = stores.settings
    unsound, limits = unsound_in_window(stores, key), settings.promotion.limits()
    return decide_promotion(comparison, settings.model.limits(), unsound=unsound, limits=limits), comparison


def _compared(stores: Stores, challenger: SegmentationModel, candidates: pl.DataFrame) -> Comparison:
    key = challenger.trained_on
    champion = stores.provenance.model_before(key)
    before = max(other for other in stores.provenance.snapshot_keys if other < key)
    return compare_models(
        champion,
        challenger,
        current=stores.tables.read(CUSTOMER_FEATURES, [key]),
        previous=stores.tables.read(CUSTOMER_FEATURES, [before]),
        training=stores.tables.read(CUSTOMER_FEATURES, [champion.trained_on]),
        candidates=candidates,
        evidence=evidence_at(stores, key),
        seed=stores.settings.model.seed,
    )


def evidence_at(stores: Stores, key: str) -> Iterator[Evidence]:
    """The newest snapshots whose next period is known at ``key``, one in memory at a time."""
    provenance, tables = stores.provenance, stores.tables
    following = dict(pairwise(provenance.period_keys))
    known = [
        snapshot
        for snapshot in provenance.snapshot_keys
        if snapshot < key and _is_complete(stores, following[snapshot])
    ]
    for snapshot in known[-N_EVIDENCE:]:
        customers = tables.scan(CLEAN_TRANSACTIONS, provenance.periods_until(snapshot)).select("customer_id").unique()
        lines = tables.scan(CLEAN_TRANSACTIONS, [following[snapshot]]).collect()
        yield Evidence(
            period=snapshot,
            features=tables.read(CUSTOMER_FEATURES, [snapshot]),
            known_ids=customers.collect()["customer_id"],
            outcomes=measure_outcomes(nw.from_native(lines.lazy())).collect().to_native(),
        )


def _is_complete(stores: Stores, key: str) -> bool:
    missing = unobserved_share(stores.provenance.window(key), stores.provenance.observed_until(key))
    return missing <= stores.settings.drift.max_unobserved_share
