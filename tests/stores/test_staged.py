"""Rows that are too many for memory: staged in files, and taken over by a table in one commit or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, Column
from custseg_assets.errors import DamagedHomeError
from custseg_assets.stores.staged import StagedRows, stage
from custseg_assets.stores.tables import TableStore
from tests.support.fakes.gcs import FakeGcs
from tests.support.lines import clean_rows
from tests.support.places import tables_on
from tests.support.small_table import APRIL, MARCH, TABLE, rows


@pytest.fixture(params=["folder", "bucket"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], TableStore]]:
    if request.param == "folder":
        yield lambda: TableStore(tmp_path / "orders ü" / "tables")
        return
    with FakeGcs("shop-data") as gcs:
        yield lambda: tables_on(gcs, tmp_path / "notes")


def staged(folder: Path, *frames: pl.DataFrame) -> StagedRows:
    return stage(TABLE, frames, folder / "staged")


def test_staged_rows_come_back_in_their_order(tmp_path: Path) -> None:
    found = staged(tmp_path, rows((MARCH, 3), (APRIL, 1)), rows((MARCH, 2), (MARCH, 9)))
    assert found.files.sizes == {MARCH: 3, APRIL: 1}
    assert [part.rows() for part in found.slices(1)] == [[(MARCH, 3)], [(MARCH, 2)], [(MARCH, 9)], [(APRIL, 1)]]


def test_what_other_programs_leave_beside_the_files_is_no_row(tmp_path: Path) -> None:
    found = staged(tmp_path, rows((MARCH, 3)))
    (found.folder / "_SUCCESS").touch()
    (found.folder / f"period={MARCH}" / ".part-000000.parquet.crc").touch()
    (found.folder / f"period={MARCH}" / "_temporary.parquet").touch()
    assert pl.concat(found.slices()).rows() == [(MARCH, 3)]


def test_a_table_takes_staged_rows_over_as_if_they_were_written(
    open_store: Callable[[], TableStore], tmp_path: Path
) -> None:
    store = open_store()
    store.write(TABLE, rows((MARCH, 1), (APRIL, 2)), {MARCH: 1, APRIL: 2})
    store.write(TABLE, staged(tmp_path, rows((MARCH, 7)), rows((MARCH, 5))), {MARCH: 3})
    for seen in (store, open_store()):
        assert sorted(seen.scan(TABLE).collect().rows()) == [(MARCH, 5), (MARCH, 7), (APRIL, 2)]
        assert seen.sizes(TABLE) == {MARCH: 2, APRIL: 1}
        assert [seen.fingerprint_of("t", key) for key in (MARCH, APRIL)] == [3, 2]
    store.write(TABLE, rows((MARCH, 4)), {MARCH: 4})
    assert open_store().read(TABLE).rows() == [(MARCH, 4), (APRIL, 2)]


def test_staged_rows_keep_their_order_in_the_table(tmp_path: Path) -> None:
    """In a folder; in a bucket Delta's own client writes them, which keeps none."""
    store, numbers = TableStore(tmp_path / "tables"), [7, 5, 9, 1, 3]
    store.write(TABLE, staged(tmp_path, *(rows((MARCH, n)) for n in numbers)), {MARCH: 3})
    assert TableStore(tmp_path / "tables").scan(TABLE).collect()["n"].to_list() == numbers


def test_the_first_rows_of_a_table_may_be_staged_ones(open_store: Callable[[], TableStore], tmp_path: Path) -> None:
    open_store().write(TABLE, staged(tmp_path, rows((MARCH, 7), (APRIL, 5))), {MARCH: 3, APRIL: 4})
    assert open_store().read(TABLE).rows() == [(MARCH, 7), (APRIL, 5)]
    assert open_store().fingerprint_of("t", APRIL) == 4


def test_partitions_without_staged_rows_become_empty(open_store: Callable[[], TableStore], tmp_path: Path) -> None:
    store = open_store()
    store.write(TABLE, rows((MARCH, 1), (APRIL, 2)), {MARCH: 1, APRIL: 2})
    store.write(TABLE, staged(tmp_path, rows((APRIL, 9))), {MARCH: 3, APRIL: 4})
    assert open_store().read(TABLE).rows() == [(APRIL, 9)]
    store.write(TABLE, StagedRows(TABLE, tmp_path / "none"), {APRIL: 5})
    assert open_store().read(TABLE).rows() == []
    assert [open_store().fingerprint_of("t", key) for key in (MARCH, APRIL)] == [3, 5]


def test_a_column_that_was_declared_later_comes_with_staged_rows(
    open_store: Callable[[], TableStore], tmp_path: Path
) -> None:
    store = open_store()
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    wider = replace(TABLE, columns=(*TABLE.columns, Column("x", pl.String(), "new", is_nullable=True)))
    frame = rows((APRIL, 2)).with_columns(x=pl.lit("ä"))
    store.write(wider, stage(wider, [frame], tmp_path / "staged"), {APRIL: 2})
    assert open_store().read(wider).rows() == [(MARCH, 1, None), (APRIL, 2, "ä")]


def test_rows_of_other_partitions_are_refused(open_store: Callable[[], TableStore], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows of"):
        open_store().write(TABLE, staged(tmp_path, rows((MARCH, 1))), {APRIL: 1})


def test_other_columns_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    store = TableStore(tmp_path / "tables")
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    folder = tmp_path / "staged" / f"period={MARCH}"
    folder.mkdir(parents=True)
    pl.DataFrame({"n": [1.5]}).write_parquet(folder / "part-0.parquet")
    with pytest.raises(ValueError, match="got columns"):
        store.write(TABLE, StagedRows(TABLE, tmp_path / "staged"), {MARCH: 2})
    assert store.read(TABLE).rows() == [(MARCH, 1)]
    assert store.fingerprint_of("t", MARCH) == 1


def test_the_log_has_true_bounds_of_numbers_and_instants(tmp_path: Path) -> None:
    """Readers leave files out by them."""
    lines = clean_rows(
        {"quantity": -2.5, "invoiced_at": "2011-05-02 09:00:00.000001", "country": None},
        {"quantity": 7.0, "invoiced_at": "2011-05-31 23:59:59.999999"},
    )
    store = TableStore(tmp_path / "tables")
    store.write(CLEAN_TRANSACTIONS, stage(CLEAN_TRANSACTIONS, [lines], tmp_path / "staged"), {"2011-05-01": 1})
    table = DeltaTable(tmp_path / "tables" / "clean_transactions")
    (action,) = pl.DataFrame(table.get_add_actions(flatten=True)).to_dicts()
    assert (action["num_records"], action["min.quantity"], action["max.quantity"]) == (2, -2.5, 7.0)
    assert str(action["min.invoiced_at"]).startswith("2011-05-02 09:00:00.000001")
    found = pl.scan_delta(table).filter(pl.col("invoiced_at") > pl.datetime(2011, 5, 31, 23, 59, 59)).collect()
    assert found["quantity"].to_list() == [7.0]


class _Killed(BaseException):
    """What no code of the store catches."""


def _kill_at(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise _Killed

    def killed_after_one(source: str, target: Path) -> None:
        Path(source).replace(target)
        raise _Killed

    if step == "before the first move":
        monkeypatch.setattr(shutil, "move", killed)
    if step == "between two moves":
        monkeypatch.setattr(shutil, "move", killed_after_one)
    if step == "before the commit":
        monkeypatch.setattr(DeltaTable, "create_write_transaction", killed)
    if step == "after the commit":
        unlink = Path.unlink

        def unlink_no_note(path: Path, *, missing_ok: bool = False) -> None:
            if path.name == "_staged.json":
                raise _Killed
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink_no_note)


@pytest.mark.parametrize(
    "step", ["before the first move", "between two moves", "before the commit", "after the commit"]
)
@pytest.mark.parametrize("next_is_staged", [True, False])
def test_after_a_kill_rows_are_there_once_or_not_at_all(
    step: str, next_is_staged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tables"
    TableStore(folder).write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    new = rows((MARCH, 7)), rows((MARCH, 5))
    with monkeypatch.context() as patch:
        _kill_at(patch, step)
        with pytest.raises(_Killed):
            TableStore(folder).write(TABLE, stage(TABLE, new, tmp_path / "first"), {MARCH: 2})
    is_done = step == "after the commit"
    store = TableStore(folder)
    assert store.read(TABLE)["n"].to_list() == ([5, 7] if is_done else [1])
    assert store.fingerprint_of("t", MARCH) == (2 if is_done else 1)
    again = stage(TABLE, new, tmp_path / "second") if next_is_staged else pl.concat(new)
    store.write(TABLE, again, {MARCH: 2})
    found = TableStore(folder)
    assert found.read(TABLE)["n"].to_list() == [5, 7]
    assert found.fingerprint_of("t", MARCH) == 2
    if next_is_staged:
        # Delta keeps files of earlier versions for its week, and every file that is there is of some version.
        assert {path.name for path in folder.rglob("*.parquet")} <= _ever_named(folder / "t")
        assert not (folder / "t" / "_staged.json").exists()


def _ever_named(table: Path) -> set[str]:
    commits = [
        json.loads(line) for log in (table / "_delta_log").glob("*.json") for line in log.read_text().splitlines()
    ]
    return {Path(commit["add"]["path"]).name for commit in commits if "add" in commit}


def test_a_table_is_read_wherever_its_folder_is(tmp_path: Path) -> None:
    """Neither is a sign quoted in its log part of a name, nor a folder such as a=b a column."""
    store = TableStore(tmp_path / "orders ü" / "period=x" / "a=b")
    store.write(TABLE, rows((MARCH, 1), (APRIL, 9)), {MARCH: 1, APRIL: 2})
    assert store.read(TABLE).rows() == [(MARCH, 1), (APRIL, 9)]
    assert store.table_files(TABLE, [MARCH]).scan().collect().rows() == [(MARCH, 1)]
    assert all(Path(file.path).is_file() for file in store.table_files(TABLE).files)


def test_files_are_named_and_no_pattern(tmp_path: Path) -> None:
    """Another file that the name would fit, if it were a pattern, is not read."""
    found = [stage(TABLE, [rows((MARCH, n))], tmp_path / name) for n, name in enumerate(("o[1]*", "o1*", "o[1]x"))]
    assert [one.files.scan().collect().rows() for one in found] == [[(MARCH, n)] for n in range(3)]


def test_deletion_vectors_are_refused_by_name(tmp_path: Path) -> None:
    store = TableStore(tmp_path / "tables")
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 1})
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors"],
        "writerFeatures": ["deletionVectors"],
    }
    commit = tmp_path / "tables" / "t" / "_delta_log" / f"{1:020}.json"
    commit.write_text(json.dumps({"protocol": protocol}), encoding="utf-8")
    with pytest.raises(DamagedHomeError, match="deletion vectors"):
        TableStore(tmp_path / "tables").table_files(TABLE)
