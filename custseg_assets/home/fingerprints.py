"""What every partition of every table was made from, and so what is out of date.

A partition's fingerprint is a digest of the code version of its table, the settings that matter to it and the
fingerprints of what it reads, as ``domain.schemas`` declares that. It is stored with the partition, in the same commit.
``expected`` follows the declarations down to the deliveries instead; where the two differ, the partition is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

from custseg_assets.domain.promotion.retraining import TrainingCost, of_quarter
from custseg_assets.domain.schemas import Partitions, tables
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.home.calendar import Calendar
from custseg_assets.home.champions import Champions
from custseg_assets.settings import Settings
from custseg_assets.stores.tables import TableReader, fingerprint

TRAINED = ("model_candidates", "segmentation_model", "promotion_decision")
"""The tables of a training: what a retrain made of them stays as it was decided."""

FingerprintOf = Callable[[str, str], int | None]


class Fingerprints:
    """Fingerprints of partitions as they are, and as they would be if everything were up to date.

    Args:
        settings: what the partitions depend on besides their inputs.
        calendar: periods and snapshots.
        champions: the model in force at each.
        rules: the cleaning rules in force.
        store: where the fingerprints are.
        cost: of a training, where money may stand against one.
    """

    def __init__(
        self,
        settings: Settings,
        calendar: Calendar,
        champions: Champions,
        rules: CleaningRules,
        store: TableReader,
        cost: TrainingCost | None,
    ) -> None:
        self._settings, self._calendar, self._champions = settings, calendar, champions
        self._rules, self._store, self._cost = rules, store, cost
        self._tables = tables(settings.model.features)
        self._expected: dict[tuple[str, str], int | None] = {}

    def compute(self, name: str, key: str, of: FingerprintOf | None = None, code_version: str | None = None) -> int:
        """The fingerprint of a partition that is made now.

        Args:
            name: the table's name.
            key: the partition's key.
            of: fingerprint of what it reads, by table and key; what the store says without it.
            code_version: of the table, the present one without it.
        """
        look_up = of or self._store.fingerprint_of
        table = self._tables[name]
        inputs = [
            look_up(read.table, other)
            for read in table.reads
            if read.hashed
            for other in self._keys_of(read.hashed, key)
        ]
        return fingerprint(name, code_version or table.code_version, self.settings_of(name, key), inputs)

    def expected(self, name: str, key: str) -> int | None:
        """The fingerprint a partition would have if everything it is made from were up to date."""
        if (name, key) not in self._expected:
            is_history = name in TRAINED and self._champions.is_retrained(key)
            now = self._store.fingerprint_of(name, key) if is_history else None
            self._expected[name, key] = now or self.compute(name, key, self.expected)
        return self._expected[name, key]

    def is_stale(self, name: str, key: str) -> bool:
        """Whether a partition is missing or would now be made from something else."""
        return self._store.fingerprint_of(name, key) != self.expected(name, key)

    def stale(self, names: Iterable[str], keys: Iterable[str]) -> tuple[str, ...]:
        """The keys for which at least one of the tables is out of date."""
        wanted = tuple(names)
        return tuple(key for key in keys if any(self.is_stale(name, key) for name in wanted))

    def _keys_of(self, partitions: Partitions, key: str) -> tuple[str, ...]:
        """The partitions that a declaration means for one partition of the reader."""
        if partitions == "same":
            return (key,)
        if partitions == "trained":
            return () if self._champions.is_untrained(key) else (key,)
        if partitions == "window":
            return self._calendar.window(key).keys
        if partitions == "until":
            return self._calendar.periods_until(key)
        earlier = self._champions.segmented(other for other in self._calendar.snapshot_keys if other < key)[-1:]
        return earlier if partitions == "before" else (*earlier, key)

    def settings_of(self, name: str, key: str) -> object:
        """What a partition depends on besides what it reads from tables."""
        calendar = self._calendar
        if name == "raw_transactions":
            return calendar.contents.get(key)
        if name in ("clean_transactions", "rejected_transactions"):
            return self._rules.in_fingerprint()
        if name == "customer_features":
            return [str(calendar.window(key).start), str(calendar.window(key).as_of)]
        if name == "product_recommendations":
            window, rules = calendar.window(key), self._settings.recommendations.model_dump(mode="json")
            return [rules, str(window.as_of)] if window.is_open else rules
        if name == "segment_products":
            window = calendar.window(key)
            return str(window.as_of) if window.is_open else None
        return self._model_settings_of(name, key)

    def _model_settings_of(self, name: str, key: str) -> object:
        """What a partition depends on besides tables, where its rows depend on the model in force."""
        settings, champions = self._settings, self._champions
        champion, before = champions.champion_at(key), champions.champion_before(key)
        # Before the first model a snapshot's own statistics are the reference; the model then trained carries the
        # same, so that its promotion does not make its own input stale.
        in_force_before = before[1] if before else None
        if name == "scaled_features":
            return [in_force_before, settings.model.features]
        if name in TRAINED:
            return in_force_before or settings.model.of_training()
        if name == "segment_assignments":
            return [champion, settings.model.margin_rule]
        if name == "drift_report":
            observed_until = str(self._calendar.observed_until(key))
            return [before or champion, settings.model.seed, asdict(settings.drift), observed_until]
        if name == "retrain_decision":
            rules = asdict(settings.retrain)
            money = () if self._is_affordable(key) else ("no money",)
            return [champions.trainings_before(key), in_force_before or champion, rules, *money]
        return champion

    def _is_affordable(self, key: str) -> bool:
        """Whether money stands against no training; only where it does, a decision depends on prices and budgets."""
        trainings = of_quarter(key, self._champions.trainings_before(key))
        return self._cost is None or self._cost.allows(len(trainings))
