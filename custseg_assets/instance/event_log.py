"""Dagster's event log and its list of runs, kept connected while a job runs: of a home, or of a history not kept.

Dagster's own SQLite storages open a database, and the log of a home compiles its statement anew, for each of the
hundreds of events of a run; that took as long as the work the events tell of.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.instance import InstanceType
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.storage.event_log.in_memory import InMemoryEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.root import TemporaryLocalArtifactStorage
from dagster._core.storage.runs import InMemoryRunStorage, SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.engine import Connection, Engine

from custseg_assets.instance.output import OutputInFiles
from custseg_assets.stores.files import replacement_for


class ConnectedEventLog(SqliteEventLogStorage):
    """Dagster's event log in SQLite files; within ``connected`` blocks its databases stay open."""

    _engines: dict[str, Engine] | None = None
    _there: frozenset[tuple[str, str]] = frozenset()
    """Tables, columns and complete summaries of the index that are known to be there: they only ever come."""
    _prepared: tuple[Any, Any] | None = None
    """The event that was written last, with its statement: to turn one into JSON costs as much as to write it."""
    _blank: bytes | None = None
    """A database before anything was written to it; a copy saves making its tables again, for this and later runs."""
    _answers: dict[dg.AssetKey, dict[str, Any]]
    """What was asked about an asset's materialisations since its last one was written, inside a ``connected`` block."""
    _read: dict[str, tuple[Any, Any]]
    """The newest materialisation of each asset, with the row that it was read from, as long as that stays the same."""
    _writer: int | None = None
    """The thread that is in a ``together`` block."""
    _transactions: dict[str, Connection]
    """Of that block, by database."""
    _until_the_end: contextlib.ExitStack

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Keep what is opened inside the block open until its end."""
        self._engines, self._answers, self._read, self._transactions = {}, {}, {}, {}
        try:
            yield
        finally:
            engines, self._engines = self._engines, None
            for engine in engines.values():
                engine.dispose()

    @contextlib.contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        if self._engines is None:
            with super()._connect(shard) as connection:
                yield connection
            return
        with self.together():
            yield self._transactions.get(shard) or self._begin(shard)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block in which this thread writes to each database in one transaction: all of it, or nothing."""
        if self._engines is None or self._writer == threading.get_ident():
            yield
            return
        with self._db_lock:
            self._writer = threading.get_ident()
            try:
                with contextlib.ExitStack() as self._until_the_end:
                    yield
            except BaseException:
                # Of events that are not there after all.
                self._answers.clear()
                raise
            finally:
                shards, self._transactions, self._writer = [*self._transactions], {}, None
            # The pages watch the files for news, which are in the write-ahead log beside as long as they stay open.
            for shard in shards:
                with contextlib.suppress(FileNotFoundError):  # of a run that was deleted
                    os.utime(self.path_for_shard(shard))

    def _begin(self, shard: str) -> Connection:
        if self._engines is None:
            raise RuntimeError("no database stays open here")
        engine = self._engines.get(shard) or self._open_engine(shard)
        self._engines[shard] = engine
        self._transactions[shard] = self._until_the_end.enter_context(engine.begin())
        return self._transactions[shard]

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table; Dagster asks for each event of an asset."""
        ask = super().has_table
        return self._is_there("table", table_name, lambda: ask(table_name))

    def has_secondary_index(self, name: str) -> bool:
        """Whether a summary is complete; Dagster asks for each asset that it reads."""
        ask = super().has_secondary_index
        return self._is_there("summary", name, lambda: ask(name))

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        ask = super()._has_asset_key_col_on_connection
        return self._is_there("column", column_name, lambda: ask(conn, column_name))

    def _is_there(self, kind: str, name: str, ask: Callable[[], bool]) -> bool:
        if (kind, name) not in self._there and ask():
            self._there |= {(kind, name)}
        return (kind, name) in self._there

    def prepare_insert_event(self, event: Any) -> Any:
        """The statement that writes an event; the same for its run's database and, after it, for the index."""
        prepared = self._prepared
        if prepared is None or prepared[0] is not event:
            prepared = self._prepared = event, super().prepare_insert_event(event)
        return prepared[1]

    def store_event(self, event: Any) -> None:
        """Write an event to its run's database and to the index."""
        with self.together():
            super().store_event(event)
        if self._engines is not None and event.dagster_event and event.dagster_event.is_step_materialization:
            self._answers.pop(event.dagster_event.asset_key, None)

    def fetch_materializations(self, records_filter: Any, *asked: Any, **how: Any) -> Any:
        """Materialisations of an asset; Dagster asks for the newest twice for each check of it, and reads all of it.

        Whatever makes a table has the home's lock, so nobody else writes one meanwhile, but a person who reports one on
        the pages; no check of this run is about that.
        """
        key = records_filter if isinstance(records_filter, dg.AssetKey) else records_filter.asset_key
        return self._answer(super().fetch_materializations, key, records_filter, *asked, **how)

    def get_latest_tags_by_partition(self, asset_key: dg.AssetKey, *asked: Any, **how: Any) -> Any:
        """Tags of an asset's materialisations; each step that reads it asks for the same."""
        return self._answer(super().get_latest_tags_by_partition, asset_key, asset_key, *asked, **how)

    def _answer(self, ask: Callable[..., Any], about: dg.AssetKey, *asked: Any, **how: Any) -> Any:
        if self._engines is None:
            return ask(*asked, **how)
        known, question = self._answers.setdefault(about, {}), repr((ask.__name__, asked, how))
        if question not in known:
            known[question] = ask(*asked, **how)
        return known[question]

    def _get_latest_materialization_records(self, raw_asset_rows: Any) -> Any:
        """The newest materialisation of each asset; it holds pictures, and each step that reads the asset reads it."""
        if self._engines is None:
            return super()._get_latest_materialization_records(raw_asset_rows)
        records: dict[dg.AssetKey, dg.EventLogRecord | None] = {}
        unread = {}
        for row in raw_asset_rows:
            source = row["asset_details"], row["last_materialization"]
            read_from, record = self._read.get(row["asset_key"], (None, None))
            if record is not None and read_from == source:
                records[record.asset_key] = record
            else:
                unread[row["asset_key"]] = row, source
        if unread:
            records |= super()._get_latest_materialization_records([row for row, _ in unread.values()])
        for name, (_, source) in unread.items():
            key = dg.AssetKey.from_db_string(name)
            if key and source[1] and (record := records.get(key)):
                self._read[name] = source, record
        return records

    def _open_engine(self, shard: str) -> Engine:
        path = Path(self.path_for_shard(shard))
        if not path.exists() and (blank := self._find_blank()):
            with replacement_for(path) as unfinished:
                unfinished.write_bytes(blank)
            self._initialized_dbs.add(shard)
        engine = create_engine(self.conn_string_for_shard(shard), connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
        event.listen(engine, "connect", _do_not_wait_for_the_disk)
        if shard not in self._initialized_dbs:
            is_new = not path.exists()
            # Dagster writes the version last. To ask which one it should be reads all scripts of its migrations.
            if is_new or not _has_version(engine):
                self._initdb(engine)
            self._initialized_dbs.add(shard)
            if is_new:
                self._keep_blank(_content_of(engine))
        return engine

    def _find_blank(self) -> bytes | None:
        """The blank database that this or an earlier run kept, of this version of Dagster and as it was written."""
        if self._blank is None:
            for path in Path(self._base_dir).glob(_name_of_blank("*")):
                content = path.read_bytes()
                if path.name == _name_of_blank(_digest_of(content)):
                    self._blank = content
        return self._blank

    def _keep_blank(self, content: bytes) -> None:
        self._blank = content
        for earlier in Path(self._base_dir).glob(f"{_BLANK}*"):
            earlier.unlink(missing_ok=True)
        with replacement_for(Path(self._base_dir, _name_of_blank(_digest_of(content)))) as unfinished:
            unfinished.write_bytes(content)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> ConnectedEventLog:
        """What Dagster calls to open the log."""
        return cls(inst_data=inst_data, **config_value)


class ConnectedRunStorage(SqliteRunStorage):
    """Dagster's list of runs in an SQLite file; within ``connected`` blocks it stays open."""

    _engine: Engine | None = None
    _has_times: bool = False

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Keep the file open until the end of the block."""
        self._engine = create_engine(self._conn_string, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
        event.listen(self._engine, "connect", _do_not_wait_for_the_disk)
        try:
            yield
        finally:
            engine, self._engine = self._engine, None
            engine.dispose()

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """A transaction."""
        if self._engine is None:
            with super().connect() as connection:
                yield connection
            return
        with self._engine.begin() as connection:
            yield connection

    def has_run_stats_index_cols(self) -> bool:
        """Whether runs have columns of when they began and ended; Dagster asks at each list, and they only come."""
        self._has_times = self._has_times or super().has_run_stats_index_cols()
        return self._has_times

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> ConnectedRunStorage:
        """What Dagster calls to open the list."""
        return cls.from_local(inst_data=inst_data, **config_value)


_BLANK = ".blank-"
"""How the name of a kept blank database begins; Dagster takes every ``*.db`` beside it for a run's."""


def _name_of_blank(digest: str) -> str:
    return f"{_BLANK}{dg.__version__}-{digest}"


def _digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _do_not_wait_for_the_disk(connection: Any, _: Any) -> None:
    """Commits survive the end of the process at once and a power cut after a moment; the log stays consistent."""
    connection.execute("PRAGMA synchronous = NORMAL")


def _has_version(engine: Engine) -> bool:
    with engine.connect() as connection:
        return inspect(connection).has_table("alembic_version") and bool(
            connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one()
        )


def _content_of(engine: Engine) -> bytes:
    with engine.connect() as connection:
        content: bytes = connection.connection.driver_connection.serialize()  # type: ignore[union-attr]
        return content


class ConnectedInMemoryEventLog(InMemoryEventLogStorage):
    """Dagster's log in memory, on the one connection that keeps its database alive anyway."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        # SQLite's connections are for the thread that opened them; a trainer's messages come from another one.
        self._thread = threading.get_ident()
        super().__init__(*arguments, **keywords)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Connection]:
        if threading.get_ident() != self._thread:
            with super()._connect() as connection:
                yield connection
            return
        with self._db_lock, self._held_conn.begin():
            yield self._held_conn


def temporary_instance() -> dg.DagsterInstance:
    """A Dagster instance whose history is gone when it is closed, as ``DagsterInstance.ephemeral`` makes it."""
    return dg.DagsterInstance(
        instance_type=InstanceType.EPHEMERAL,
        local_artifact_storage=TemporaryLocalArtifactStorage(),
        run_storage=InMemoryRunStorage(),
        event_storage=ConnectedInMemoryEventLog(),
        compute_log_manager=NoOpComputeLogManager(),
        run_coordinator=DefaultRunCoordinator(),
        run_launcher=SyncInMemoryRunLauncher(),
    )


def open_instance(folder: Path, *, has_terminal: bool = False) -> dg.DagsterInstance:
    """The Dagster instance in a folder, whose storages can stay connected; whatever ``dagster.yaml`` chooses is taken.

    Args:
        folder: with ``dagster.yaml``.
        has_terminal: whether what runs print goes where this process's output goes, and not into files of the instance.
    """
    chosen = yaml.safe_load((folder / "dagster.yaml").read_text(encoding="utf-8")) or {}
    usual = InstanceRef.config_defaults(str(folder))
    storages = {} if "storage" in chosen else _STORAGES
    ours = {**storages, "compute_logs": NoOpComputeLogManager if has_terminal else OutputInFiles}
    cheaper = {
        name: {"module": one.__module__, "class": one.__name__, "config": yaml.safe_load(of_dagster.config_yaml)}
        for name, one in ours.items()
        if name not in chosen and (of_dagster := usual[name])
    }
    if has_terminal and "compute_logs" in cheaper:
        cheaper["compute_logs"]["config"] = {}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides=cheaper))


_STORAGES = {"event_log_storage": ConnectedEventLog, "run_storage": ConnectedRunStorage}
"""By their names in ``dagster.yaml``."""


def together(instance: dg.DagsterInstance) -> AbstractContextManager[None]:
    """A block whose events are in the instance's event log all at once, where it can stay connected."""
    log = instance.event_log_storage
    return log.together() if isinstance(log, ConnectedEventLog) else contextlib.nullcontext()


@contextlib.contextmanager
def stay_connected(instance: dg.DagsterInstance) -> Iterator[None]:
    """A block in which the instance's event log and list of runs stay open, where they can."""
    with contextlib.ExitStack() as open_until_the_end:
        for storage in (instance.event_log_storage, instance.run_storage):
            if isinstance(storage, ConnectedEventLog | ConnectedRunStorage):
                open_until_the_end.enter_context(storage.connected())
        yield
