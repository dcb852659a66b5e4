"""A home, opened: its folder, its stores, and what they say together. Put together here and nowhere else.

Whoever only looks has an ``OpenHome``. Whoever writes has a ``LockedHome``, which only ``OpenHome.locked`` makes, so
functions that write ask for one. How rows and files are stored belongs in ``stores``.

What is kept between two looks, and until when:

==================  =================================================================================
tables              the home starts afresh for other data, which may move them to another place
calendar, rules     another set of deliveries is made the home's source, or a period is closed
champions           the next commit to ``promotion_decision`` or ``segmentation_model``
fingerprints        any of the two, or the next commit to ``model_candidates``
==================  =================================================================================
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from custseg_assets.domain import schemas
from custseg_assets.domain.demo import DEMO_CURRENCY
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_assets.home.calendar import Calendar
from custseg_assets.home.champions import Champions
from custseg_assets.home.fingerprints import TRAINED, Fingerprints
from custseg_assets.home.fixed_settings import ON_DISK, PLACE, require_same_settings, settings_to_fix
from custseg_assets.home.log_doubts import rules_for
from custseg_assets.home.restored import require_not_restored
from custseg_assets.settings import BIGQUERY, DEMO, EngineSettings, Settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import Delivery
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home, HomeLock
from custseg_assets.stores.home_format import require_format
from custseg_assets.stores.landing_zone import LandingZone
from custseg_assets.stores.registry import ModelRegistry
from custseg_assets.stores.sources import Progress
from custseg_assets.stores.tables import TableReader, TableStore

if TYPE_CHECKING:
    from custseg_assets.domain.promotion.retraining import TrainingCost
    from custseg_assets.engines.engine import Engine
    from custseg_assets.gcp.bucket import Bucket

T = TypeVar("T")
INGESTED = ("raw_transactions", "clean_transactions", "rejected_transactions")
"""Tables with a partition for every period; all others of the shop's log have one for every snapshot."""


class OpenHome:
    """Everything that can be read of one home; nothing but its format is looked at before it is asked for.

    Args:
        settings: whose home it is.
        has_viewers: whether anybody will look at pictures, pages and column lineage; without, none are made.
        engine: where work as large as the log is done, other than the settings say.

    Raises:
        BadInputError: the home is of another format than this version's.
        DamagedHomeError: its format cannot be read.
    """

    def __init__(self, settings: Settings, *, has_viewers: bool = True, engine: EngineSettings | None = None) -> None:
        self.settings, self.has_viewers = settings, has_viewers
        self.engine_settings = engine or settings.engine
        self.paths = Home(settings.home)
        require_format(self.paths)
        self.deliveries = DeliveryStore(self.paths.deliveries, settings.reading)
        self.landing_zone = LandingZone(settings.landing.folder or self.paths.landing, self.deliveries)
        self.registry = ModelRegistry(settings.tracking, self.paths.mlflow)
        self._kept: dict[str, tuple[object, Any]] = {}

    @property
    def tables(self) -> TableReader:
        """The pipeline's tables, wherever they are.

        Raises:
            BadInputError: they are in another place than the configured one.
        """
        return self._store()

    @property
    def calendar(self) -> Calendar:
        """Periods and snapshots."""
        state = self.deliveries.current_state(), self._closed_through()
        return self._keep("calendar", state, self._make_calendar)

    @property
    def cleaning_rules(self) -> CleaningRules:
        """The shop's rules: what is configured, else what the preset of the source says."""
        return self._keep("rules", self.calendar, lambda: rules_for(self.calendar.deliveries, self.settings))

    @property
    def champions(self) -> Champions:
        """Which model is in force when."""
        return self._keep("champions", self._versions(TRAINED[1:]), lambda: Champions(self.tables))

    @property
    def fingerprints(self) -> Fingerprints:
        """What partitions are made from, and which are out of date."""
        state = self.calendar, self._versions(TRAINED)
        return self._keep("fingerprints", state, lambda: self.fingerprints_with(self.champions))

    @property
    def currency(self) -> str | None:
        """Currency of all amounts, where it is known."""
        return self.settings.source.currency or (DEMO_CURRENCY if self.is_demo else None)

    @property
    def is_demo(self) -> bool:
        """Whether the home holds the demo shop: nobody's customers."""
        source = self.deliveries.current()
        return source is not None and source.description == DEMO

    @property
    def training_cost(self) -> TrainingCost | None:
        """What a decision to retrain reckons with; ``None`` where nothing is trained on Vertex AI."""
        if self.settings.gcp.training.image is None:
            return None
        from custseg_assets.gcp.costs import training_cost

        return training_cost(self.settings.gcp.training)

    def snapshots_before(self, key: str) -> tuple[str, ...]:
        """The snapshots before one that have a model in force, oldest first."""
        return self.champions.segmented(other for other in self.calendar.snapshot_keys if other < key)

    def newest_closed_snapshot(self) -> str | None:
        """Key of the newest closed snapshot with segments: the one that a retrain is about."""
        open_key = self.calendar.open_key
        segmented = [key for key in self.tables.sizes(schemas.SEGMENT_ASSIGNMENTS) if key != open_key]
        return segmented[-1] if segmented else None

    def newest_snapshot(self) -> str:
        """Key of the newest snapshot with segments, the one that is released.

        Raises:
            RunFailedError: there is none.
        """
        segmented = list(self.tables.sizes(schemas.SEGMENT_ASSIGNMENTS))
        if not segmented:
            raise RunFailedError("there is nothing to release: no snapshot has been assigned to segments yet")
        return segmented[-1]

    def open_bucket(self, uri: str | None = None) -> Bucket | None:
        """A bucket, the configured one by default; ``None`` without one.

        Raises:
            BadInputError: there are no credentials.
        """
        place = uri or self.settings.gcp.storage.uri
        if place is None:
            return None
        from custseg_assets.gcp.bucket import Bucket
        from custseg_assets.gcp.clients import storage_client

        return Bucket(storage_client(self.settings.gcp), place)

    @contextlib.contextmanager
    def locked(self, patience_seconds: float = 0.0, who: str | None = None) -> Iterator[LockedHome]:
        """Keep every other run out of the home, and allow to write to it, until the end of the block.

        Args:
            patience_seconds: how long to wait for another run to end.
            who: locks it, for others to read; this process's command without it.

        Raises:
            BadInputError: another run is using the home, its folder cannot be made, or it was restored from an export.
        """
        require_not_restored(self.paths)
        with self.paths.locked(patience_seconds, who) as lock:
            locked = LockedHome(self, lock)
            locked.remove_staging()
            yield locked

    @property
    def has_local_tables(self) -> bool:
        """Whether the tables are on the home's disk."""
        return bool(settings_to_fix(self.settings)[PLACE] == ON_DISK)

    def require_engine(self) -> None:
        """Refuse an engine that cannot be used here, before anything is done.

        Raises:
            BadInputError: its packages are not installed, or it cannot be used with this source, or where the tables
                are.
        """
        from custseg_assets.engines.choice import require_engine

        require_engine(self.engine_settings, is_local=self.has_local_tables)
        if self.engine_settings.name == "bigquery":
            self._require_bigquery()

    def _require_bigquery(self) -> None:
        source = self.settings.source.path
        if source is None or not source.startswith(BIGQUERY):
            raise BadInputError(
                f"[engine] name = 'bigquery', and the source is {source or 'not set'}",
                "a source that is on BigQuery already, bq://project.dataset.table",
                "Take engine polars, duckdb or spark: lines that are elsewhere are not sent there.",
            )
        if self._engine_dataset is None or self.settings.gcp.project is None:
            raise BadInputError(
                "[engine] name = 'bigquery', and [gcp] project or [engine] dataset is not set",
                "the project to bill, and a dataset of it for tables that last as long as a run",
                "Set both in custseg.toml.",
            )

    @property
    def _engine_dataset(self) -> str | None:
        return self.engine_settings.dataset or self.settings.gcp.bigquery.dataset

    def _store(self) -> TableStore:
        return self._keep("tables", None, lambda: _open_tables(self.settings))

    def _keep(self, name: str, state: object, make: Callable[[], T]) -> T:
        """What was made last, unless the state it was made from has changed."""
        if name not in self._kept or self._kept[name][0] != state:
            self._kept[name] = state, make()
        kept: T = self._kept[name][1]
        return kept

    def _versions(self, names: tuple[str, ...]) -> tuple[int | None, ...]:
        return tuple(self.tables.version_of(name) for name in names)

    def _make_calendar(self) -> Calendar:
        source = self.deliveries.current()
        return self.calendar_of(source.deliveries if source else ())

    def calendar_of(self, deliveries: tuple[Delivery, ...]) -> Calendar:
        """Periods and snapshots as they would be with other deliveries."""
        return Calendar(self.settings.snapshots, deliveries, self._closed_through())

    def _closed_through(self) -> str | None:
        return closed_through(self.paths)

    def fingerprints_with(self, champions: Champions) -> Fingerprints:
        """Fingerprints as they would be with another history of models."""
        return Fingerprints(
            self.settings, self.calendar, champions, self.cleaning_rules, self.tables, self.training_cost
        )


class LockedHome(OpenHome):
    """A home that no other run can use: what writes to it asks for this.

    Args:
        opened: the same home, whose stores and whatever is kept of them are shared.
        lock: of the home, held.
    """

    def __init__(self, opened: OpenHome, lock: HomeLock) -> None:
        vars(self).update(vars(opened))
        self._lock = lock

    @property
    def tables(self) -> TableStore:
        """The pipeline's tables, to be written.

        Raises:
            RuntimeError: the block that held the lock is over.
        """
        if not self._lock.is_valid:
            raise RuntimeError(f"home {self.paths.root} is not locked any more")
        return self._store()

    @contextlib.contextmanager
    def opened_engine(self, n_lines: int, progress: Progress) -> Iterator[tuple[Engine, Path]]:
        """The engine for so many lines, and an empty folder for rows that are too many for memory.

        Args:
            n_lines: lines that are to be worked on.
            progress: takes a line for each thing that costs money.

        Raises:
            BadInputError: it cannot be used here.
        """
        with self.staging() as folder:
            for name in ("engine", "rows"):
                (folder / name).mkdir()
            with self._open_engine(n_lines, folder / "engine", progress) as engine:
                yield engine, folder / "rows"

    def _open_engine(self, n_lines: int, scratch: Path, progress: Progress) -> AbstractContextManager[Engine]:
        settings = self.engine_settings
        if settings.name == "bigquery":
            self.require_engine()
            from custseg_assets.gcp.bigquery_engine import BigQueryEngine

            return BigQueryEngine.opened(self.settings.gcp, self._engine_dataset or "", progress)
        from custseg_assets.engines.choice import open_engine

        return open_engine(settings, n_lines, scratch, is_local=self.has_local_tables)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder below the home, which is removed at the end, or by the next who locks the home."""
        folder = self.paths.staging
        self.remove_staging()
        folder.mkdir()
        try:
            yield folder
        finally:
            self.remove_staging()

    def remove_staging(self) -> None:
        """Remove what a killed process left of rows that no table has taken over."""
        if self.paths.staging.exists():
            shutil.rmtree(self.paths.staging)

    def close_period(self, key: str) -> None:
        """Close a period that the data do not reach the end of: from now on its snapshot is as of its end."""
        deliveries = self.calendar.deliveries
        self.forget_lost(self.calendar, Calendar(self.settings.snapshots, deliveries, closed_through=key))
        write_state(self.paths.closed, {"closed_through": key})

    def forget_lost(self, before: Calendar, after: Calendar) -> None:
        """Empty the partitions of periods and snapshots that there will be no more.

        A corrected file can take a period away at either end, and a log that grows to a whole window takes its first,
        short snapshot away. Done before the change is made, so that a process killed in between does it again.
        """
        for table in schemas.tables(self.settings.model.features).values():
            was, will_be = (
                calendar.period_keys if table.name in INGESTED else calendar.snapshot_keys
                for calendar in (before, after)
            )
            self.tables.forget(table, sorted(set(was) - set(will_be)))

    def forget_tables(self) -> None:
        """Open the tables anew when they are next asked for: they were removed, and may come back somewhere else."""
        self._kept.pop("tables", None)


def closed_through(paths: Home) -> str | None:
    """Key of the last period that the clock has closed; see ``LockedHome.close_period``."""
    found = read_state(paths.closed, "closed_through")
    return str(found["closed_through"]) if found else None


def _open_tables(settings: Settings) -> TableStore:
    require_same_settings(settings, PLACE)
    paths, place = Home(settings.home), settings_to_fix(settings)[PLACE]
    if place == ON_DISK:
        return TableStore(paths.tables)
    return _tables_in_bucket(place, settings.gcp.endpoints.storage, paths.notes)


@lru_cache
def _tables_in_bucket(uri: str, endpoint: str | None, notes: Path) -> TableStore:
    """One for the process: to open every table again costs hundreds of requests."""
    from custseg_assets.stores.bucket_tables import TablesInBucket

    return TablesInBucket(uri, endpoint, notes)
