"""The log that is held open while a job runs is Dagster's log."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from sqlalchemy import text

from custseg_assets.instance.event_log import (
    ConnectedEventLog,
    ConnectedRunStorage,
    open_instance,
    stay_connected,
    temporary_instance,
    together,
)


@dg.asset(check_specs=[dg.AssetCheckSpec("even", asset="number")])
def number() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"value": 4}, check_results=[dg.AssetCheckResult(passed=True)])


def configured(folder: Path, text: str = "telemetry: {enabled: false}\n") -> Path:
    folder.mkdir()
    (folder / "dagster.yaml").write_text(text, encoding="utf-8")
    return folder


def events_of(instance: dg.DagsterInstance) -> list[str | None]:
    """Types of the events of one run of the asset's job, in order."""
    result = dg.materialize([number], instance=instance)
    return [entry.dagster_event_type and entry.dagster_event_type.value for entry in instance.all_logs(result.run_id)]


def test_a_held_log_holds_the_events_that_dagsters_own_holds(tmp_path: Path) -> None:
    held, own = (configured(tmp_path / name) for name in ("held", "own"))
    with dg.DagsterInstance.from_config(str(own)) as instance:
        expected = events_of(instance)
    with open_instance(held) as instance, stay_connected(instance):
        assert events_of(instance) == expected


def test_later_runs_in_databases_copied_from_the_first_are_as_complete(tmp_path: Path) -> None:
    with open_instance(configured(tmp_path / "home")) as instance:
        with stay_connected(instance):
            first = events_of(instance)
        with stay_connected(instance):
            assert events_of(instance) == first
            assert events_of(instance) == first
        assert instance.get_runs_count() == 3


def test_a_blank_database_is_kept_for_later_processes_and_taken_only_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, made = configured(tmp_path / "home"), 0
    original = SqliteEventLogStorage._initdb

    def count(*arguments: Any, **keywords: Any) -> None:
        nonlocal made
        made += 1
        original(*arguments, **keywords)

    def run() -> list[Any]:
        with open_instance(home) as instance, stay_connected(instance):
            return events_of(instance)

    def kept() -> Path:
        [path] = home.rglob(".blank-*")
        return path

    first = run()
    monkeypatch.setattr(SqliteEventLogStorage, "_initdb", count)
    assert run() == first
    assert made == 0
    damaged = kept()
    damaged.write_bytes(damaged.read_bytes()[:-4096])
    assert run() == first
    assert made == 1
    of_another_version = kept().rename(kept().with_name(".blank-0.1-0"))
    assert run() == first
    assert made == 2
    assert not of_another_version.exists()
    with open_instance(home) as instance:
        assert instance.get_runs_count() == 4


def test_a_table_that_comes_later_is_seen(tmp_path: Path) -> None:
    with open_instance(configured(tmp_path / "home")) as instance, stay_connected(instance):
        log: Any = instance.event_log_storage
        assert log.has_table("asset_keys")
        assert not log.has_table("later")
        with log.index_connection() as connection:
            connection.execute(text("CREATE TABLE later (id INTEGER)"))
        assert log.has_table("later")


def test_what_is_written_while_the_log_is_held_is_there_for_others_at_once_and_for_good(tmp_path: Path) -> None:
    home = configured(tmp_path / "home")
    with open_instance(home) as instance, dg.DagsterInstance.from_config(str(home)) as other:
        with stay_connected(instance):
            events_of(instance)
            record = other.get_latest_materialization_event(dg.AssetKey("number"))
        assert record is not None
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["value"].value == 4
        assert type(other.event_log_storage) is SqliteEventLogStorage
        assert type(other.run_storage) is SqliteRunStorage
        assert len(instance.all_logs(record.run_id)) == len(other.all_logs(record.run_id))


def test_a_passing_history_holds_the_events_that_dagsters_own_holds() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        expected = events_of(instance)
    with temporary_instance() as instance:
        assert events_of(instance) == expected
        assert events_of(instance) == expected
        record = instance.get_latest_materialization_event(dg.AssetKey("number"))
        assert record is not None
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["value"].value == 4
        assert instance.get_runs_count() == 2


def test_a_transaction_that_fails_leaves_nothing_in_a_passing_history() -> None:
    def write_half(log: Any) -> None:
        with log.index_connection() as connection:
            connection.execute(text("INSERT INTO asset_keys (asset_key) VALUES ('half')"))
            raise RuntimeError("half way")

    with temporary_instance() as instance:
        log: Any = instance.event_log_storage
        with pytest.raises(RuntimeError, match="half way"):
            write_half(log)
        with log.index_connection() as connection:
            assert not connection.execute(text("SELECT count(*) FROM asset_keys")).scalar_one()
        assert events_of(instance)


def test_nothing_stays_open_after_the_block(tmp_path: Path) -> None:
    home = configured(tmp_path / "home")
    with open_instance(home) as instance:
        with stay_connected(instance):
            events_of(instance)
            assert {path.name for path in home.rglob("*.db-wal")} > {"index.db-wal", "runs.db-wal"}
        # SQLite folds the write-ahead log in when the last connection closes.
        assert not list(home.rglob("*.db-wal"))


@pytest.mark.parametrize(
    "chosen",
    [
        "storage: {sqlite: {base_dir: BASE}}",
        (
            "event_log_storage: {module: dagster._core.storage.event_log, class: ConsolidatedSqliteEventLogStorage, "
            "config: {base_dir: BASE}}"
        ),
    ],
)
def test_a_log_that_the_configuration_chooses_is_left_as_it_is(tmp_path: Path, chosen: str) -> None:
    home = configured(tmp_path / "home", chosen.replace("BASE", str(tmp_path / "base")) + "\n")
    with open_instance(home) as instance, stay_connected(instance):
        assert not isinstance(instance.event_log_storage, ConnectedEventLog)
        assert isinstance(instance.run_storage, ConnectedRunStorage) == ("event_log_storage" in chosen)
        assert events_of(instance)


def test_a_list_of_runs_that_is_held_is_the_one_that_dagsters_own_class_reads(tmp_path: Path) -> None:
    home = configured(tmp_path / "home")
    with open_instance(home) as instance, dg.DagsterInstance.from_config(str(home)) as other:
        with stay_connected(instance):
            events_of(instance)
            [seen] = other.get_run_records()
            [held] = instance.get_run_records()
        assert seen == held == instance.get_run_records()[0]
        assert seen.dagster_run.status is dg.DagsterRunStatus.SUCCESS
        assert seen.start_time
        assert seen.end_time


def test_a_transaction_that_fails_leaves_nothing_in_a_list_that_is_held(tmp_path: Path) -> None:
    def write_half(runs: Any) -> None:
        with runs.connect() as connection:
            connection.execute(text("INSERT INTO kvs (key, value) VALUES ('half', '1')"))
            raise RuntimeError("half way")

    with open_instance(configured(tmp_path / "home")) as instance, stay_connected(instance):
        runs: Any = instance.run_storage
        with pytest.raises(RuntimeError, match="half way"):
            write_half(runs)
        with runs.connect() as connection:
            assert not connection.execute(text("SELECT count(*) FROM kvs")).scalar_one()


def test_what_another_thread_writes_is_in_a_history_that_is_not_kept() -> None:
    """The messages of a trainer come from a thread of their own."""
    with temporary_instance() as instance:

        @dg.asset
        def told() -> None:
            log = dg.AssetExecutionContext.get().log
            thread = threading.Thread(target=lambda: log.info("from another thread"))
            thread.start()
            thread.join()

        result = dg.materialize([told], instance=instance)
        assert result.success
        assert "from another thread" in [entry.user_message for entry in instance.all_logs(result.run_id)]


@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), check_specs=[dg.AssetCheckSpec("even", asset="part")]
)
def part() -> dg.MaterializeResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


def test_a_check_is_about_the_materialisation_of_its_own_run(tmp_path: Path) -> None:
    with open_instance(configured(tmp_path / "home")) as instance, stay_connected(instance):
        for key in ("a", "a", "b", "a"):
            run = dg.materialize([part], instance=instance, partition_key=key)
            [evaluation] = run.get_asset_check_evaluations()
            assert evaluation.target_materialization_data is not None
            assert evaluation.target_materialization_data.run_id == run.run_id
            [newest] = instance.fetch_materializations(dg.AssetRecordsFilter(part.key, ["a"]), limit=1).records
            assert (newest.run_id == run.run_id) == (key == "a")


def test_what_a_step_reads_of_its_inputs_is_of_their_newest_materialisation(tmp_path: Path) -> None:
    key, other = dg.AssetKey("x"), dg.AssetKey("y")
    with open_instance(configured(tmp_path / "home")) as instance, stay_connected(instance):

        def read() -> list[tuple[object, str]]:
            records = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records()}
            tags = {
                one: instance.event_log_storage.get_latest_tags_by_partition(
                    one, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG], asset_partitions=["a"]
                )
                for one in records
            }
            found = []
            for one in sorted(records, key=str):
                newest = records[one].last_materialization
                assert newest is not None
                assert newest.asset_materialization is not None
                found.append((newest.asset_materialization.metadata["n"].value, tags[one]["a"][DATA_VERSION_TAG]))
            return found

        def write(of: dg.AssetKey, n: int) -> None:
            made = dg.AssetMaterialization(of, partition="a", metadata={"n": n}, tags={DATA_VERSION_TAG: str(n)})
            instance.report_runless_asset_event(made)

        write(other, 0)
        for n in range(3):
            write(key, n)
            assert read() == read() == [(n, str(n)), (0, "0")]
        with contextlib.suppress(ZeroDivisionError), together(instance):
            write(key, 9)
            assert read() == [(9, "9"), (0, "0")]
            raise ZeroDivisionError
        assert read() == [(2, "2"), (0, "0")]
        instance.wipe_assets([key])
        assert [record.asset_entry.asset_key for record in instance.get_asset_records()] == [other]


def test_events_that_are_written_together_are_there_at_once_or_not_at_all(tmp_path: Path) -> None:
    home = configured(tmp_path / "home")
    with open_instance(home) as instance, dg.DagsterInstance.from_config(str(home)) as other:

        def seen() -> int:
            return len(other.fetch_materializations(dg.AssetKey("x"), limit=10).records)

        with stay_connected(instance):
            with together(instance):
                for _ in range(2):
                    instance.report_runless_asset_event(dg.AssetMaterialization("x"))
                assert len(instance.fetch_materializations(dg.AssetKey("x"), limit=10).records) == 2
                assert seen() == 0
            assert seen() == 2
            with pytest.raises(ZeroDivisionError):
                write_and_fail(instance)
            assert len(instance.fetch_materializations(dg.AssetKey("x"), limit=10).records) == 2
            instance.report_runless_asset_event(dg.AssetMaterialization("x"))
        assert seen() == 3
        with together(instance):
            instance.report_runless_asset_event(dg.AssetMaterialization("x"))
        assert seen() == 4


def write_and_fail(instance: dg.DagsterInstance) -> None:
    with together(instance):
        instance.report_runless_asset_event(dg.AssetMaterialization("x"))
        assert len(instance.fetch_materializations(dg.AssetKey("x"), limit=10).records) == 3
        raise ZeroDivisionError


def test_another_thread_writes_after_what_is_written_together(tmp_path: Path) -> None:
    with open_instance(configured(tmp_path / "home")) as instance, stay_connected(instance):

        def write() -> None:
            instance.report_runless_asset_event(dg.AssetMaterialization("theirs"))

        thread = threading.Thread(target=write)
        with together(instance):
            instance.report_runless_asset_event(dg.AssetMaterialization("ours"))
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
            instance.report_runless_asset_event(dg.AssetMaterialization("ours"))
        thread.join(10)
        written = [instance.fetch_materializations(dg.AssetKey(name), limit=9).records for name in ("ours", "theirs")]
        assert [len(records) for records in written] == [2, 1]
        assert written[0][0].storage_id < written[1][0].storage_id
