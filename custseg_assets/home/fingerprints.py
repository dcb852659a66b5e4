"""What every partition of every table was made from, and so what is out of date.

A partition's fingerprint is a digest of the code version of its asset, the settings that matter to it and the
fingerprints of what it reads. It is stored with the partition, in the same commit. ``expected`` follows the chain down
to the deliveries instead; where the two differ, the partition has to be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TypeVar

import polars as pl

from custseg_assets.domain import schemas
from custseg_assets.domain.periods import Window, keys_between, snapshot_keys, window_of
from custseg_assets.domain.promotion.retraining import of_quarter
from custseg_assets.domain.segments.model import ScalingReference, SegmentationModel, model_from_json
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.domain.transactions.presets import PRESETS
from custseg_assets.errors import RunFailedError
from custseg_assets.home.open import training_cost
from custseg_assets.settings import Settings
from custseg_assets.stores.deliveries import Delivery, DeliveryStore, period_content
from custseg_assets.stores.tables import TableStore, fingerprint

CODE_VERSIONS: Mapping[str, str] = dict.fromkeys(
    (
        "raw_transactions",
        "clean_transactions",
        "rejected_transactions",
        "customer_features",
        "scaled_features",
        "model_candidates",
        "segmentation_model",
        "promotion_decision",
        "segment_assignments",
        "segment_profiles",
        "segment_migrations",
        "product_recommendations",
        "drift_report",
        "retrain_decision",
        "serving_release",
        "prediction_log",
        "rejected_predictions",
        "prediction_traffic",
        "prediction_drift",
    ),
    "1",
) | {"segment_assignments": "2"}
"""Raise an asset's version when its meaning changes: its partitions, and all that is made from them, are made again."""

TRAINED = ("model_candidates", "segmentation_model", "promotion_decision")

T = TypeVar("T")
FingerprintOf = Callable[[str, str], int | None]


class Provenance:
    """The periods and snapshots there are, the model in force at each, and what each partition is made from.

    Args:
        settings: what the partitions depend on besides their inputs.
        deliveries: where the source's content is known from.
        tables: where the fingerprints are.
    """

    def __init__(self, settings: Settings, deliveries: DeliveryStore, tables: TableStore) -> None:
        self._settings, self._deliveries, self._tables = settings, deliveries, tables
        self._expected: dict[tuple[str, str], int | None] = {}

    @cached_property
    def current(self) -> tuple[Delivery, ...]:
        """The deliveries that make up the source as it stands."""
        source = self._deliveries.current()
        return source.deliveries if source else ()

    @cached_property
    def _content(self) -> Mapping[str, tuple[int, str]]:
        return period_content(self.current, self._settings.snapshots.cadence)

    @cached_property
    def period_keys(self) -> tuple[str, ...]:
        """Every period from the source's first row to its last, also those without rows."""
        days = [day for delivery in self.current for day in (delivery.first_date, delivery.last_date)]
        return keys_between(min(days), max(days), self._settings.snapshots.cadence) if days else ()

    @property
    def snapshot_keys(self) -> tuple[str, ...]:
        """The periods at whose end a snapshot is taken."""
        return snapshot_keys(self.period_keys, self._settings.snapshots.lookback) if self.period_keys else ()

    def observed_until(self, key: str) -> datetime:
        """How far the data reach into a snapshot: its ``as_of``, or the end of the source's last day before that."""
        last = max(delivery.last_date for delivery in self.current)
        return min(self.window(key).as_of, datetime.combine(last + timedelta(days=1), datetime.min.time()))

    def released_key(self) -> str:
        """The snapshot to release: the newest that is assigned.

        Raises:
            RunFailedError: there is none.
        """
        assigned = list(self._tables.sizes(schemas.SEGMENT_ASSIGNMENTS))
        if not assigned:
            raise RunFailedError("there is nothing to release: no snapshot has been assigned to segments yet")
        return assigned[-1]

    def window(self, key: str) -> Window:
        """The observation window of the snapshot ``key``."""
        snapshots = self._settings.snapshots
        return window_of(key, self.period_keys[0], snapshots.lookback, snapshots.cadence)

    def periods_until(self, key: str) -> tuple[str, ...]:
        """Every period up to and with ``key``."""
        return tuple(period for period in self.period_keys if period <= key)

    @cached_property
    def cleaning_rules(self) -> CleaningRules:
        """The shop's rules: what is configured, else what the source's preset says."""
        configured = self._settings.cleaning
        named = {delivery.preset for delivery in self.current if delivery.preset}
        preset = PRESETS[min(named)] if named else None
        descriptions = configured.service_descriptions
        return CleaningRules(
            service_code_max_digits=_first(
                configured.service_code_max_digits, preset and preset.service_code_max_digits
            ),
            service_descriptions=tuple(
                descriptions if descriptions is not None else preset.service_descriptions if preset else ()
            ),
            cancellation_prefix=_first(configured.cancellation_prefix, preset and preset.cancellation_prefix),
        )

    @cached_property
    def champions(self) -> tuple[tuple[str, str], ...]:
        """Snapshot key and model version of every promotion, oldest first."""
        decisions = self._tables.whole(schemas.PROMOTION_DECISION).filter(pl.col("decision") == "PROMOTE")
        return tuple(decisions.select("period", "model_version").iter_rows())

    def champion_at(self, key: str) -> tuple[str, str] | None:
        """Where the model in force at a snapshot was trained, and its version; ``None`` before the first promotion."""
        return next((entry for entry in reversed(self.champions) if entry[0] <= key), None)

    def model_at(self, key: str) -> SegmentationModel | None:
        """The model in force at a snapshot."""
        champion = self.champion_at(key)
        if champion is None:
            return None
        models = self._tables.whole(schemas.SEGMENTATION_MODEL).filter(pl.col("period") == champion[0])
        return model_from_json(models["model_json"].item())

    def champion_before(self, key: str) -> tuple[str, str] | None:
        """The same, for the model that was in force when a snapshot came: none for the first model's own snapshot."""
        return next((entry for entry in reversed(self.champions) if entry[0] < key), None)

    def model_before(self, key: str) -> SegmentationModel:
        """The model a snapshot is held against: the one in force when it came, or, for the first model's own, that.

        Raises:
            RunFailedError: no model has been promoted yet.
        """
        champion = self.champion_before(key)
        return self.model_in_force(champion[0] if champion else key)

    def predecessor_of(self, key: str) -> SegmentationModel | None:
        """The model that a challenger trained on a snapshot would follow, if any.

        It counts the segment numbers of every model ever trained, so that none of them comes again as another segment.
        """
        if self.champion_before(key) is None:
            return None
        models = self._tables.whole(schemas.SEGMENTATION_MODEL)["model_json"]
        return replace(self.model_before(key), n_segment_ids=max(model_from_json(one).n_segment_ids for one in models))

    @cached_property
    def _trained(self) -> Mapping[str, str | None]:
        """The snapshots a challenger was decided about → the model that was in force before, ``None`` for the first.

        A decision without a challenger is a REJECT, no k was eligible, or the record that nothing was trained.
        """
        is_trained = pl.col("model_version").is_not_null() | (pl.col("decision") == "REJECT")
        decisions = self._tables.whole(schemas.PROMOTION_DECISION).filter(is_trained)
        return dict(decisions.select("period", "champion_before").iter_rows())

    @property
    def trainings(self) -> tuple[str, ...]:
        """The snapshots a challenger was trained on, or found impossible, and decided about, oldest first."""
        return tuple(self._trained)

    def trainings_before(self, key: str) -> tuple[str, ...]:
        """Those that were over when a snapshot came."""
        return tuple(trained for trained in self.trainings if trained < key)

    def _is_affordable(self, key: str) -> bool:
        """Whether money stands against no training; only where it does, a decision depends on prices and budgets."""
        cost = training_cost(self._settings)
        return cost is None or cost.allows(len(of_quarter(key, self.trainings_before(key))))

    def is_retrained(self, key: str) -> bool:
        """Whether a challenger was trained on a snapshot although a model was in force: that stays as it was decided.

        The first model follows its data instead: late files that change its snapshot train it anew, so that a home
        does not depend on the order in which its files came.
        """
        return self._trained.get(key) is not None and self.champion_before(key) is not None

    def is_held(self, key: str) -> bool:
        """Whether a model was in force when a snapshot came and nothing was trained on it."""
        return self.champion_before(key) is not None and not self.is_retrained(key)

    def model_in_force(self, key: str) -> SegmentationModel:
        """The same, where there has to be one.

        Raises:
            RunFailedError: no model has been promoted yet.
        """
        model = self.model_at(key)
        if model is None:
            raise RunFailedError(f"no model is in force at {key}; train and promote one first (the job 'train')")
        return model

    def snapshots_before(self, key: str) -> tuple[str, ...]:
        """The snapshots before one that have a model in force, oldest first."""
        return tuple(other for other in self.snapshot_keys if other < key and self.champion_at(other))

    def reference_at(self, key: str) -> ScalingReference | None:
        """The scaling of the model that was in force when the snapshot came; ``None`` if it trains the first one."""
        champion = self.champion_before(key)
        return self.model_in_force(champion[0]).reference if champion else None

    def rows_of(self, keys: Iterable[str]) -> dict[str, int]:
        """How many raw lines each period has."""
        return {key: self._content.get(key, (0, ""))[0] for key in keys}

    def made_from(self, name: str, key: str, of: FingerprintOf | None = None) -> int:
        """The fingerprint of a partition that is made now.

        Args:
            name: the asset's name.
            key: the partition's key.
            of: fingerprint of what it reads, by asset and key; what the tables say without it.
        """
        look_up = of or self._tables.fingerprint_of
        inputs = [look_up(table, period) for table, period in self._inputs(name, key)]
        return fingerprint(name, CODE_VERSIONS[name], self._settings_of(name, key), inputs)

    def expected(self, name: str, key: str) -> int | None:
        """The fingerprint a partition would have if everything it is made from were up to date."""
        if (name, key) not in self._expected:
            is_history = name in TRAINED and self.is_retrained(key)
            now = self._tables.fingerprint_of(name, key) if is_history else None
            self._expected[name, key] = now or self.made_from(name, key, self.expected)
        return self._expected[name, key]

    def is_stale(self, name: str, key: str) -> bool:
        """Whether a partition is missing or would now be made from something else."""
        return self._tables.fingerprint_of(name, key) != self.expected(name, key)

    def stale(self, names: Iterable[str], keys: Iterable[str]) -> tuple[str, ...]:
        """The keys for which at least one of the tables is out of date."""
        wanted = tuple(names)
        return tuple(key for key in keys if any(self.is_stale(name, key) for name in wanted))

    def _inputs(self, name: str, key: str) -> list[tuple[str, str]]:
        """Table and period of everything a partition reads."""
        if name == "raw_transactions":
            return []
        if name in ("clean_transactions", "rejected_transactions"):
            return [("raw_transactions", key)]
        if name == "customer_features":
            return self._lines(self.window(key).keys)
        return {
            "scaled_features": lambda: [("customer_features", key)],
            "model_candidates": lambda: [] if self.is_held(key) else [("customer_features", key)],
            "segmentation_model": lambda: [("model_candidates", key)],
            "promotion_decision": lambda: [("segmentation_model", key)],
            "segment_assignments": lambda: [
                *(("segment_assignments", other) for other in self.snapshots_before(key)[-1:]),
                ("customer_features", key),
                *self._lines(self.periods_until(key)),
            ],
            "segment_profiles": lambda: [("segment_assignments", key)],
            "segment_migrations": lambda: [
                (table, other)
                for table in ("segment_assignments", "customer_features")
                for other in (*self.snapshots_before(key)[-1:], key)
            ],
            "product_recommendations": lambda: [
                *(("segment_assignments", other) for other in (*self.snapshots_before(key)[-1:], key)),
                *self._lines(self.window(key).keys),
            ],
            "drift_report": lambda: [
                *(("drift_report", other) for other in self.snapshots_before(key)[-1:]),
                ("scaled_features", key),
                ("customer_features", key),
            ],
            # The report is made from the one before it, so the newest stands for them all.
            "retrain_decision": lambda: [
                ("drift_report", key),
                *(("rejected_transactions", period) for period in self.periods_until(key)),
            ],
        }[name]()

    def _lines(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        return [("clean_transactions", key) for key in keys]

    def _settings_of(self, name: str, key: str) -> object:
        """What a partition depends on besides what it reads from tables."""
        settings, champion = self._settings, self.champion_at(key)
        # Before the first model a snapshot's own statistics are the reference; the model then trained carries the
        # same, so that its promotion does not make its own input stale.
        before = self.champion_before(key)
        in_force_before = before[1] if before else None
        model = in_force_before or settings.model.model_dump(mode="json")
        return {
            "raw_transactions": lambda: self._content.get(key),
            "clean_transactions": lambda: vars(self.cleaning_rules),
            "rejected_transactions": lambda: vars(self.cleaning_rules),
            "customer_features": lambda: [str(self.window(key).start), str(self.window(key).as_of)],
            "scaled_features": lambda: [in_force_before, settings.model.features],
            "model_candidates": lambda: model,
            "segmentation_model": lambda: model,
            "promotion_decision": lambda: model,
            "product_recommendations": lambda: settings.recommendations.model_dump(mode="json"),
            "drift_report": lambda: [
                before or champion,
                settings.model.seed,
                asdict(settings.drift),
                str(self.observed_until(key)),
            ],
            "retrain_decision": lambda: [
                self.trainings_before(key),
                in_force_before or champion,
                asdict(settings.retrain),
                *(() if self._is_affordable(key) else ("no money",)),
            ],
        }.get(name, lambda: champion)()


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
