"""The table store: whole partitions, in one commit, with what they were made from; in a folder and in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.schemas import Column, Table
from custseg_assets.domain.slices import EVERYBODY, IdRange
from custseg_assets.errors import DamagedHomeError
from custseg_assets.stores.tables import TableStore, fingerprint
from tests.support.fakes.gcs import FakeGcs
from tests.support.places import tables_on
from tests.support.small_table import APRIL, MARCH, TABLE, rows


@pytest.fixture(params=["folder", "bucket"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], TableStore]]:
    """Opens the tables of one home, as each of its processes does."""
    if request.param == "folder":
        yield lambda: TableStore(tmp_path / "tables")
        return
    with FakeGcs("shop-data") as gcs:
        yield lambda: tables_on(gcs, tmp_path / "notes")


@pytest.fixture
def store(open_store: Callable[[], TableStore]) -> TableStore:
    return open_store()


def test_a_table_that_was_never_written_is_empty(store: TableStore) -> None:
    assert store.read(TABLE).schema == TABLE.schema
    assert store.fingerprint_of("t", "2011-01-01") is None
    assert store.version_of("t") is None


def test_writing_replaces_only_the_named_partitions(store: TableStore) -> None:
    store.write(TABLE, rows(("2011-01-01", 1), ("2011-02-01", 2)), {"2011-01-01": 11, "2011-02-01": 22})
    store.write(TABLE, rows(("2011-02-01", 5), ("2011-02-01", 4)), {"2011-02-01": 33})
    assert store.read(TABLE).rows() == [("2011-01-01", 1), ("2011-02-01", 4), ("2011-02-01", 5)]
    assert [store.fingerprint_of("t", key) for key in ("2011-01-01", "2011-02-01")] == [11, 33]


def test_what_another_process_wrote_is_seen_at_the_next_look(
    store: TableStore, open_store: Callable[[], TableStore]
) -> None:
    store.write(TABLE, rows(("2011-01-01", 1), ("2011-02-01", 2)), {"2011-01-01": 11, "2011-02-01": 22})
    assert [store.fingerprint_of("t", key) for key in ("2011-01-01", "2011-02-01")] == [11, 22]
    open_store().write(TABLE, rows(("2011-01-01", 3)), {"2011-01-01": 33})
    assert [store.fingerprint_of("t", key) for key in ("2011-01-01", "2011-02-01")] == [33, 22]


def test_fingerprints_are_true_whoever_wrote_last(store: TableStore, open_store: Callable[[], TableStore]) -> None:
    other = open_store()
    expected = {}
    for number, (writer, key) in enumerate(
        [
            (store, "a"),
            (store, "b"),
            (store, "a"),
            (other, "b"),
            (store, "a"),
            (other, "a"),
            (other, "b"),
            (store, "c"),
        ],
        start=1,
    ):
        writer.write(TABLE, rows((key, number)), {key: number})
        expected[key] = number
        if number not in (5, 7):  # the other commits right before, and right after, without a look between
            assert {key: store.fingerprint_of("t", key) for key in "abc"} == {
                "a": None,
                "b": None,
                "c": None,
            } | expected
    store.forget(TABLE, ["a"])
    assert [store.fingerprint_of("t", key) for key in "abc"] == [None, 7, 8]


def test_a_partition_without_rows_is_written_too(store: TableStore) -> None:
    store.write(TABLE, rows(("2011-01-01", 1)), {"2011-01-01": 1})
    store.write(TABLE, rows(), {"2011-01-01": 2, "2011-02-01": 3})
    assert store.read(TABLE).is_empty()
    assert store.fingerprint_of("t", "2011-02-01") == 3


def test_the_first_write_may_be_empty(store: TableStore) -> None:
    store.write(TABLE, rows(), {"2011-01-01": 2})
    assert store.read(TABLE).schema == TABLE.schema
    assert store.fingerprint_of("t", "2011-01-01") == 2


def test_a_column_that_was_declared_later_is_null_until_its_partition_is_written_again(store: TableStore) -> None:
    store.write(TABLE, rows(("2011-01-01", 1), ("2011-02-01", 2)), {"2011-01-01": 1, "2011-02-01": 1})
    wider = Table("t", "for tests", (*TABLE.columns, Column("is_new", pl.Boolean(), "added")), ("n",))
    assert store.read(wider).rows() == [("2011-01-01", 1, None), ("2011-02-01", 2, None)]
    store.write(wider, rows(("2011-02-01", 2)).with_columns(is_new=True), {"2011-02-01": 2})
    assert store.read(wider).rows() == [("2011-01-01", 1, None), ("2011-02-01", 2, True)]


def test_another_process_sees_the_commit(store: TableStore, open_store: Callable[[], TableStore]) -> None:
    store.write(TABLE, rows(("2011-01-01", 1)), {"2011-01-01": 1})
    other = open_store()
    assert other.read(TABLE).height == store.whole(TABLE).height == 1
    assert store.whole(TABLE) is store.whole(TABLE)
    other.write(TABLE, rows(("2011-01-01", 8)), {"2011-01-01": 2})
    assert store.read(TABLE)["n"].to_list() == store.whole(TABLE)["n"].to_list() == [8]
    assert store.version_of("t") == other.version_of("t") == 1


def test_rows_of_another_partition_are_refused(store: TableStore) -> None:
    with pytest.raises(ValueError, match="2011-02-01"):
        store.write(TABLE, rows(("2011-02-01", 1)), {"2011-01-01": 1})


def test_other_columns_are_refused(store: TableStore) -> None:
    with pytest.raises(ValueError, match="expected"):
        store.write(TABLE, pl.DataFrame({"period": ["2011-01-01"]}), {"2011-01-01": 1})


def test_a_forgotten_partition_is_empty_and_has_no_fingerprint(store: TableStore) -> None:
    store.write(TABLE, rows(("2011-01-01", 1), ("2011-02-01", 2)), {"2011-01-01": 1, "2011-02-01": 2})
    store.forget(TABLE, ["2011-01-01", "1999-01-01"])
    assert list(store.sizes(TABLE)) == ["2011-02-01"]
    assert store.fingerprint_of("t", "2011-01-01") is None


def test_rows_that_were_appended_are_tidied_into_one_file_and_removed_by_age(
    store: TableStore, open_store: Callable[[], TableStore]
) -> None:
    for n in (1, 2, 3):
        store.append(TABLE, rows(("2011-01-01", n), ("2011-02-01", n)))
    assert store.sizes(TABLE) == {"2011-01-01": 3, "2011-02-01": 3}
    store.tidy(TABLE, ["2011-01-01"])
    assert store.remove_before(TABLE, "2011-02-01") == ["2011-01-01"]
    other = open_store()
    assert other.read(TABLE).rows() == store.read(TABLE).rows() == [("2011-02-01", n) for n in (1, 2, 3)]
    assert store.version_of("t") == other.version_of("t")


def test_files_of_an_earlier_version_are_read_by_name(store: TableStore) -> None:
    store.write(TABLE, rows((MARCH, 1), (APRIL, 2)), {MARCH: 5, APRIL: 6})
    before = [file for file in store.files(TABLE.name).iter_rows() if file[0] == MARCH]
    store.write(TABLE, rows((MARCH, 3)), {MARCH: 7})
    assert store.files_named(TABLE, before).scan().collect().equals(rows((MARCH, 1)))
    assert store.files_named(TABLE, ()).scan().collect().equals(rows())


def test_files_that_were_replaced_and_that_nobody_needs_are_removed(tmp_path: Path) -> None:
    store = TableStore(tmp_path / "a=b c")
    store.write(TABLE, rows((MARCH, 1), (APRIL, 2)), {MARCH: 5, APRIL: 6})
    first = store.files(TABLE.name).filter(period=MARCH).rows()
    for number in (3, 4):
        store.write(TABLE, rows((MARCH, number)), {MARCH: number})
    folder = tmp_path / "a=b c" / TABLE.name
    kept = [path for _, path, *_ in first]
    assert store.remove_replaced(TABLE.name, kept) == 0
    n_files, version = len(list(folder.rglob("*.parquet"))), store.version_of(TABLE.name)
    assert n_files == 4
    assert store.remove_replaced(TABLE.name, kept, retention_hours=0) > 0
    assert len(list(folder.rglob("*.parquet"))) == n_files - 1
    assert store.files_named(TABLE, first).scan().collect().equals(rows((MARCH, 1)))
    assert TableStore(tmp_path / "a=b c").read(TABLE).equals(rows((MARCH, 4), (APRIL, 2)))
    assert store.version_of(TABLE.name) == version
    assert store.remove_replaced("never made", (), retention_hours=0) == 0


def test_a_file_of_an_earlier_version_that_is_gone_is_said(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    store.write(TABLE, rows((MARCH, 1)), {MARCH: 5})
    before = store.files(TABLE.name).rows()
    store.write(TABLE, rows((MARCH, 3)), {MARCH: 7})
    store.remove_replaced(TABLE.name, (), retention_hours=0)
    with pytest.raises(DamagedHomeError, match="it is gone"):
        store.files_named(TABLE, before)


def test_fingerprints_differ_in_any_part() -> None:
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("b", 1), fingerprint("a", [1])}) == 4


def test_some_columns_of_some_customers_are_read_in_the_tables_order(store: TableStore) -> None:
    table = Table(
        "customers",
        "for tests",
        tuple(Column(name, pl.String(), "text") for name in ("period", "customer_id", "name")),
        ("customer_id",),
    )
    frame = pl.DataFrame(
        {"period": ["2011-01-01"] * 4, "customer_id": ["d", "b", "a", "c"], "name": ["w", "x", "y", "z"]}
    )
    store.write(table, frame, {"2011-01-01": 1})
    within = IdRange("b", "d")
    assert store.read(table, ["2011-01-01"], ("name", "customer_id"), within).rows() == [("x", "b"), ("z", "c")]
    assert store.read(table, ["2011-01-01"], ("name",), within)["name"].sort().to_list() == ["x", "z"]
    assert store.id_ranges(table, "2011-01-01") == (EVERYBODY,)
