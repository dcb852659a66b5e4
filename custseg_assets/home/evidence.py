"""What the decisions about models are shown of a home: the two models, the customers to compare them on, bad data.

How they decide belongs in ``domain.promotion``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import narwhals as nw
import polars as pl

from custseg_assets.domain.drift.scores import unobserved_share
from custseg_assets.domain.promotion.comparison import N_EVIDENCE, Comparison, Evidence, compare_models
from custseg_assets.domain.promotion.promotion import (
    PromotionVerdict,
    decide_first_promotion,
    decide_promotion,
    keep_champion,
)
from custseg_assets.domain.promotion.retraining import RetrainVerdict, decide_retrain
from custseg_assets.domain.promotion.validity import measure_outcomes
from custseg_assets.domain.schemas import (
    CLEAN_TRANSACTIONS,
    CUSTOMER_FEATURES,
    MODEL_CANDIDATES,
    REJECTED_TRANSACTIONS,
    SEGMENTATION_MODEL,
)
from custseg_assets.domain.segments import training_tables
from custseg_assets.domain.segments.clustering import kmeans_columns
from custseg_assets.domain.segments.model import SegmentationModel, model_from_json
from custseg_assets.domain.transactions.quality import reject_shares, unusual_periods
from custseg_assets.home.inputs import read_inputs
from custseg_assets.home.open import OpenHome


def decide_about_challenger(home: OpenHome, key: str) -> tuple[PromotionVerdict, Comparison | None]:
    """What the gate decides about a snapshot, and the figures where it compared two models."""
    champion = home.champions.champion_before(key)
    candidates, trained = (home.tables.read(table, [key]) for table in (MODEL_CANDIDATES, SEGMENTATION_MODEL))
    if champion and candidates.is_empty():
        return keep_champion(champion[1]), None
    if champion is None or trained.is_empty():
        challenger = trained["model_version"].item() if len(trained) else None
        return decide_first_promotion(challenger, training_tables.choice_in_words(candidates)), None
    challenger = model_from_json(trained["model_json"].item())
    comparison = compare_on_home(home, home.champions.model_before(key), challenger, candidates)
    settings, unsound = home.settings, unsound_in_window(home, key)
    verdict = decide_promotion(comparison, settings.model.limits(), unsound=unsound, limits=settings.promotion)
    return verdict, comparison


def decide_about_retrain(home: OpenHome, key: str, reports: pl.DataFrame) -> RetrainVerdict:
    """Whether drift calls for a training on a snapshot, by the drift reports up to it."""
    return decide_retrain(
        key,
        reports,
        trained_on=home.champions.model_before(key).trained_on,
        trainings=home.champions.trainings,
        is_open=home.calendar.window(key).is_open,
        unsound=unsound_in_window(home, key),
        rules=home.settings.retrain,
        cost=home.training_cost,
    )


def compare_on_home(
    home: OpenHome, champion: SegmentationModel, challenger: SegmentationModel, candidates: pl.DataFrame
) -> Comparison:
    """Measure two models on the home's customers at the snapshot that the second was trained on.

    Args:
        home: with that snapshot.
        champion: a model of the home.
        challenger: another one, on the same scale.
        candidates: ``model_candidates`` of the sweep that the second comes from.
    """
    key = challenger.trained_on
    before = [other for other in home.calendar.snapshot_keys if other < key][-1:]
    used, n_weeks = kmeans_columns(champion.features), max(champion.n_weeks, challenger.n_weeks)
    return compare_models(
        champion,
        challenger,
        current=read_inputs(home, key, n_weeks, used),
        previous=(
            read_inputs(home, before[0], n_weeks, used) if before else home.tables.read(CUSTOMER_FEATURES, [], used)
        ),
        training=read_inputs(home, champion.trained_on, n_weeks, used),
        candidates=candidates,
        evidence=gather_evidence(home, key, n_weeks),
        seed=home.settings.model.seed,
    )


def gather_evidence(home: OpenHome, key: str, n_weeks: int = 0) -> Iterator[Evidence]:
    """The newest snapshots whose next period is known at ``key``, one in memory at a time.

    Args:
        home: with the snapshots.
        key: of the snapshot that they are evidence for.
        n_weeks: weeks whose orders a model looks at.
    """
    calendar, tables = home.calendar, home.tables
    following = dict(pairwise(calendar.period_keys))
    known = [
        snapshot
        for snapshot in calendar.snapshot_keys
        if snapshot < key and _is_complete_enough(home, following[snapshot])
    ]
    for snapshot in known[-N_EVIDENCE:]:
        customers = tables.scan(CLEAN_TRANSACTIONS, calendar.periods_until(snapshot)).select("customer_id").unique()
        outcomes = measure_outcomes(nw.from_native(tables.scan(CLEAN_TRANSACTIONS, [following[snapshot]])))
        yield Evidence(
            period=snapshot,
            features=read_inputs(home, snapshot, n_weeks),
            known_ids=customers.collect(engine="streaming")["customer_id"],
            outcomes=outcomes.to_native().collect(engine="streaming"),
        )


def _is_complete_enough(home: OpenHome, key: str) -> bool:
    window = home.calendar.window(key)
    missing = unobserved_share(window, home.calendar.observed_until(key))
    return not window.is_open and missing <= home.settings.drift.max_unobserved_share


def reject_shares_of(home: OpenHome) -> dict[str, float]:
    """Rejected lines / raw lines of every period taken in so far."""
    return reject_shares(home.tables.sizes(REJECTED_TRANSACTIONS), home.tables.sizes(CLEAN_TRANSACTIONS))


def unsound_in_window(home: OpenHome, key: str) -> Mapping[str, str]:
    """What speaks against training on a snapshot's window, by period; see ``unusual_periods``.

    A blocking check that fails ends the run before anything is decided, so what is left to look at is the share of
    rejected lines, which only warns.
    """
    return unusual_periods(reject_shares_of(home), home.calendar.window(key).keys)
