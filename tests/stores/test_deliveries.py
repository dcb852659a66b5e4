"""The store of deliveries: accepted once, never half there, and comparable by content."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.domain.schemas import MAPPED, RAW_TRANSACTIONS
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore, StillWrittenError
from custseg_assets.stores.delivery import CurrentSource, Delivery, period_content
from custseg_assets.stores.reading import Reader
from tests.support.files import REPOSITORY

HEADER = "customer_id,invoiced_at,line_amount\n"
ROWS = ["1,2011-05-31 23:59,5", "2,2011-06-01 00:00,6", "3,never,7", "4,2011-06-30 12:00,8", "4,2011-08-01 12:00,9"]


def write(folder: Path, rows: list[str], name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return path


def accept(store: DeliveryStore, path: Path, **settings: Any) -> Delivery:
    return store.accept(path, SourceSettings(**{"max_unreadable_share": 1, **settings}), print)


def read(store: DeliveryStore, delivery: Delivery, *keys: str) -> pl.DataFrame:
    return store.scan_periods([delivery], keys, "monthly").collect()


@pytest.fixture
def store(tmp_path: Path) -> DeliveryStore:
    return DeliveryStore(tmp_path / "home" / "deliveries")


def test_a_delivery_says_what_it_holds_and_is_found_again(store: DeliveryStore, tmp_path: Path) -> None:
    delivery = accept(store, write(tmp_path, ROWS))
    assert (delivery.name, delivery.n_rows, delivery.preset) == ("log.csv", 5, None)
    assert (delivery.first_date, delivery.last_date) == (date(2011, 5, 31), date(2011, 8, 1))
    counts = {day: n_rows for day, (n_rows, _) in delivery.days.items()}
    assert counts == {"": 1, "2011-05-31": 1, "2011-06-01": 1, "2011-06-30": 1, "2011-08-01": 1}
    assert store.get(delivery.id) == delivery
    with pytest.raises(KeyError, match="no such"):
        store.get("no such")


def test_lines_come_back_by_period_with_undated_ones_under_the_first_day(store: DeliveryStore, tmp_path: Path) -> None:
    delivery = accept(store, write(tmp_path, ROWS))
    may = read(store, delivery, "2011-05-01")
    assert may.schema == RAW_TRANSACTIONS.schema
    assert may.select("period", "customer_id", "unreadable_values", "source_file", "source_row").rows() == [
        ("2011-05-01", "1", None, "log.csv", 1),
        ("2011-05-01", "3", '{"invoiced_at": "never"}', "log.csv", 3),
    ]
    apart = read(store, delivery, "2011-08-01", "2011-06-01", "2012-01-01")
    assert apart["source_row"].to_list() == [2, 4, 5]
    assert apart["period"].to_list() == ["2011-06-01", "2011-06-01", "2011-08-01"]
    assert read(store, delivery).is_empty()
    weekly = store.scan_periods([delivery], ["2011-05-30"], "weekly").collect()
    assert weekly["source_row"].to_list() == [1, 2, 3]


def test_the_periods_together_are_the_whole_and_hold_what_period_content_says(
    store: DeliveryStore, tmp_path: Path
) -> None:
    delivery = accept(store, write(tmp_path, ROWS))
    content = period_content([delivery], "monthly")
    assert {key: n_rows for key, (n_rows, _) in content.items()} == {"2011-05-01": 2, "2011-06-01": 2, "2011-08-01": 1}
    for key, (n_rows, _) in content.items():
        assert read(store, delivery, key).height == n_rows
    assert_frame_equal(read(store, delivery, *content).drop("period"), store.scan([delivery]).collect())


def test_equal_lines_have_equal_digests_in_any_files_formats_and_order(store: DeliveryStore, tmp_path: Path) -> None:
    whole = accept(store, write(tmp_path, ROWS))
    parts = [accept(store, write(tmp_path, ROWS[3:], "b.csv")), accept(store, write(tmp_path, ROWS[2::-1], "a.csv"))]
    assert period_content(parts, "monthly") == period_content([whole], "monthly")
    frame = store.scan([whole]).collect()
    frame.select(pl.col("invoiced_at", "customer_id", "line_amount")).drop_nulls().write_parquet(tmp_path / "c.parquet")
    same = period_content([accept(store, tmp_path / "c.parquet")], "monthly")
    assert same["2011-06-01"] == period_content([whole], "monthly")["2011-06-01"]


@pytest.mark.parametrize("changed", ["1,2011-05-31 23:59,5.01", "1,2011-05-31 23:58,5", "01,2011-05-31 23:59,5"])
def test_any_change_of_a_line_changes_its_period_and_no_other(
    store: DeliveryStore, tmp_path: Path, changed: str
) -> None:
    before = period_content([accept(store, write(tmp_path, ROWS))], "monthly")
    after = period_content([accept(store, write(tmp_path, [changed, *ROWS[1:]]))], "monthly")
    assert [key for key in before if before[key] != after[key]] == ["2011-05-01"]


def test_a_line_that_comes_twice_is_not_the_same_as_once(store: DeliveryStore, tmp_path: Path) -> None:
    once, twice, thrice = (
        period_content([accept(store, write(tmp_path, ROWS[:1] * n))], "monthly")["2011-05-01"] for n in (1, 2, 3)
    )
    assert [once[0], twice[0], thrice[0]] == [1, 2, 3]
    assert len({once[1], twice[1], thrice[1]}) == 3
    halves = [accept(store, write(tmp_path, [ROWS[0], later])) for later in ROWS[3:]]
    assert period_content(halves, "monthly")["2011-05-01"] == twice


def test_a_file_is_read_once_whatever_it_is_called(
    store: DeliveryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = accept(store, write(tmp_path, ROWS))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(Reader, "read", refuse)
    again = accept(store, write(tmp_path, ROWS, "copy.csv"))
    assert (again.id, again.days, again.name) == (first.id, first.days, "copy.csv")
    with pytest.raises(AssertionError, match="read again"):
        accept(store, write(tmp_path, ROWS), decimal=",")


def test_the_id_depends_on_how_a_file_is_read_and_not_on_where_it_is(store: DeliveryStore, tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    plain = accept(store, path)
    assert store.accept(path, SourceSettings(path="elsewhere"), print).id == plain.id
    assert accept(store, path, delimiter=",").id != plain.id
    assert accept(store, write(tmp_path, ROWS[:2])).id != plain.id


def test_bad_input_leaves_nothing_behind(store: DeliveryStore, tmp_path: Path) -> None:
    store.root.parent.mkdir()
    with pytest.raises(BadInputError, match="has a header and no data"):
        accept(store, write(tmp_path, []))
    assert not store.root.exists()
    accept(store, write(tmp_path, ROWS))
    before = sorted(store.root.iterdir())
    with pytest.raises(BadInputError, match="has a header and no data"):
        accept(store, write(tmp_path, []))
    assert sorted(store.root.iterdir()) == before


def test_what_is_current_is_remembered_with_its_names(store: DeliveryStore, tmp_path: Path) -> None:
    assert store.current() is None
    b, a = accept(store, write(tmp_path, ROWS[3:], "b.csv")), accept(store, write(tmp_path, ROWS[:2], "a.csv"))
    c = accept(store, write(tmp_path, ROWS[2:4], "c.csv"))
    store.set_current(CurrentSource((a, b), description="orders/").with_landed(replace(c, name="shop/c.csv"), 99))
    current = DeliveryStore(store.root).current()
    assert current is not None
    assert ([one.name for one in current.deliveries], current.description) == (
        ["a.csv", "b.csv", "shop/c.csv"],
        "orders/",
    )
    assert store.landed_sizes() == {(c.id, "shop/c.csv"): 99}
    names = store.scan(current.deliveries).collect()["source_file"].to_list()
    assert names == ["a.csv", "a.csv", "b.csv", "b.csv", "shop/c.csv", "shop/c.csv"]
    with pytest.raises(KeyError, match="no such"):
        store.set_current(CurrentSource((replace(a, id="no such"),)))
    assert store.current() == current


def test_the_same_lines_count_once_whatever_file_and_format_they_come_in(store: DeliveryStore, tmp_path: Path) -> None:
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(write(tmp_path, ROWS).read_bytes()))
    text, packed = accept(store, tmp_path / "log.csv"), accept(store, tmp_path / "log.csv.gz")
    assert text.id != packed.id
    assert [one.name for one in CurrentSource((packed, text)).deliveries] == ["log.csv.gz"]


def test_a_landed_file_stands_for_the_source_s_of_its_name_until_that_changes(
    store: DeliveryStore, tmp_path: Path
) -> None:
    wrong, right, later = (accept(store, write(tmp_path, ROWS[:n])) for n in (1, 2, 4))
    other = accept(store, write(tmp_path, ROWS[4:], "other.csv"))
    corrected = CurrentSource((wrong, other), description="orders/").with_landed(right, 9)
    assert corrected.deliveries == (right, other)
    # Read again as it was, the source brings the wrong lines; they stay replaced.
    assert corrected.with_source([wrong, other], "orders/").deliveries == (right, other)
    assert corrected.with_source([right, other], "orders/").deliveries == (right, other)
    changed = corrected.with_source([later, other], "orders/")
    assert (changed.deliveries, changed.landed) == ((later, other), ())
    assert changed.with_source([wrong, other], "orders/").deliveries == (wrong, other)


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    store: DeliveryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, ROWS[:2])

    read = Reader.read

    def read_and_write_on(*arguments: Any) -> Any:
        with path.open("a") as file:
            file.write(f"{ROWS[3]}\n")
        return read(*arguments)

    monkeypatch.setattr(Reader, "read", read_and_write_on)
    with pytest.raises(StillWrittenError, match="changed while it was read"):
        accept(store, path)
    assert not list(store.root.parent.rglob("*.json"))


def test_what_is_refused_leaves_the_store_as_it_was(store: DeliveryStore, tmp_path: Path) -> None:
    accept(store, write(tmp_path, ROWS[:2]))
    before = sorted(store.root.iterdir())
    refused = []

    def take_and_refuse() -> None:
        with store.unchanged_if_refused():
            refused.append(accept(store, write(tmp_path, ROWS)))
            raise BadInputError("no, thanks", "less", "Send less.")

    with pytest.raises(BadInputError, match="no, thanks"):
        take_and_refuse()
    assert sorted(store.root.iterdir()) == before
    with pytest.raises(KeyError, match=refused[0].id):
        store.get(refused[0].id)


def test_made_lines_are_made_once(store: DeliveryStore) -> None:
    calls: list[int] = []

    def make() -> pl.DataFrame:
        calls.append(1)
        unread = '{"quantity": "two"}'
        row = {"customer_id": "1", "invoiced_at": datetime(2011, 6, 1), "line_amount": 5.0, "unreadable_values": unread}
        schema = {column.name: column.dtype for column in MAPPED} | {
            "unreadable_values": pl.String,
            "excluded_by": pl.String,
            "source_row": pl.Int64,
        }
        return pl.DataFrame([row | {"source_row": 7}], schema=schema)

    first = store.accept_frame("demo", "seed 1", make, preset="online_retail")
    assert store.accept_frame("demo", "seed 1", make, preset="online_retail") == first
    assert len(calls) == 1
    assert first.preset == "online_retail"
    assert store.accept_frame("demo", "seed 2", make).id != first.id
    lines = read(store, first, "2011-06-01")
    assert lines.select("source_row", "unreadable_values").rows() == [(7, '{"quantity": "two"}')]


def test_what_a_killed_writer_left_is_invisible_and_goes_with_the_next_delivery(
    store: DeliveryStore, tmp_path: Path
) -> None:
    kept = accept(store, write(tmp_path, ROWS))
    (store.root / ".writing-dead").mkdir()
    (store.root / ".writing-dead" / "lines.parquet").touch()
    (store.root / "0123456789abcdef.parquet").touch()
    assert store.get(kept.id) == kept
    other = accept(store, write(tmp_path, ROWS[:2]))
    names = {f"{one.id}.{suffix}" for one in (kept, other) for suffix in ("json", "parquet")}
    assert {path.name for path in store.root.iterdir()} == names


@pytest.mark.parametrize("moment", ["Path.replace", "Path.replace twice", "make_durable", "stamp_of"])
def test_a_writer_killed_at_any_step_leaves_no_half_delivery(store: DeliveryStore, tmp_path: Path, moment: str) -> None:
    path = write(tmp_path, ROWS)
    script = f"""
        import os, pathlib, signal
        from custseg_assets.source_settings import SourceSettings
        from custseg_assets.stores import deliveries
        calls = []
        def die(*args, **kwargs):
            calls.append(1)
            if len(calls) == {2 if "twice" in moment else 1}:
                os.kill(os.getpid(), signal.SIGKILL)
            return os.replace(*args) if len(args) > 1 else None
        # The file's stamp is looked at again when it has been read.
        places = {{"replace": pathlib.Path, "make_durable": deliveries, "stamp_of": deliveries}}
        for name, place in places.items():
            if name == {moment.partition(" ")[0].removeprefix("Path.")!r}:
                setattr(place, name, die)
        deliveries.DeliveryStore(pathlib.Path({str(store.root)!r})).accept(
            pathlib.Path({str(path)!r}), SourceSettings(max_unreadable_share=1), print
        )
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(store.root.iterdir()), "killed before it began"
    assert not list(store.root.glob("*.json"))
    delivery = accept(store, path)
    assert {entry.name for entry in store.root.iterdir()} == {f"{delivery.id}.json", f"{delivery.id}.parquet"}
    assert store.scan([delivery]).collect().height == 5


def test_only_row_groups_of_the_wanted_periods_are_read(store: DeliveryStore, tmp_path: Path) -> None:
    delivery = accept(store, write(tmp_path, [*ROWS, "5,2011-07-05,1"]))
    plan = store.scan_periods([delivery], ["2011-06-01", "2011-07-01"], "monthly").explain()
    scan = plan[plan.index("Parquet SCAN") :]
    assert [day in scan for day in ("2011-06-01", "2011-07-01", "2011-08-01")] == [True, False, True]


def test_the_real_log_has_the_same_content_from_csv_and_from_the_workbook(
    store: DeliveryStore, real_log: Path, shared: Path
) -> None:
    text = accept(store, real_log)
    book = accept(store, shared / "data" / "Online Retail.xlsx")
    assert text.id != book.id
    assert text.preset == book.preset == "online_retail"
    assert text.days == book.days
    content = period_content([text], "monthly")
    assert len(content) == 13
    assert sum(n_rows for n_rows, _ in content.values()) == 541_909
    assert (text.first_date, text.last_date) == (date(2010, 12, 1), date(2011, 12, 9))
    assert read(store, text, "2011-06-01").height == content["2011-06-01"][0] == 36_874
