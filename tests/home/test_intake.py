"""The landing zone: what is taken in, what is moved aside, and that nothing is lost or counted twice on the way."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import narwhals as nw
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.commands import status
from custseg_assets.definitions import build_defs
from custseg_assets.domain.schemas import CUSTOMER_FEATURES, RAW_TRANSACTIONS, Table
from custseg_assets.domain.transactions import cleaning
from custseg_assets.errors import BadInputError
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import DEMO, Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource
from custseg_assets.stores.landing_zone import LandingZone, TakenIn, classify_files
from custseg_assets.stores.reading import FileToRead, Reader
from custseg_assets.stores.tables import TableStore
from tests.support import homes
from tests.support.comparison import differing_partitions
from tests.support.daily_files import shuffle_in_batches
from tests.support.features import measure_features
from tests.support.files import REPOSITORY

HEADER = "customer_id,invoiced_at,line_amount"
MAY, JUNE, JULY = "1,2011-05-31 23:59,5", "2,2011-06-01 00:00,6", "3,2011-07-01 12:00,7"


@dataclass(frozen=True)
class Place:
    """A landing folder and the store behind it."""

    folder: Path
    store: DeliveryStore

    @property
    def zone(self) -> LandingZone:
        return LandingZone(self.folder, self.store)

    def drop(self, name: str, *rows: str, header: str = HEADER) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    def take_in(self, now: float | None = None, **settings: Any) -> TakenIn:
        zone = self.zone
        source = SourceSettings(**settings)
        read, current = zone.read(zone.waiting(time.time(), 0).files, source), self.store.current() or CurrentSource()
        taken = classify_files(read, current, now or time.time(), keep_stray_days=source.keep_stray_days)
        zone.adopt(taken)
        return taken

    def lines(self) -> list[str]:
        """What the home reads, as ``customer amount``."""
        current = self.store.current()
        lines = self.store.scan(current.deliveries if current else ()).collect()
        return sorted(
            f"{customer} {amount:g}" for customer, amount in lines.select("customer_id", "line_amount").rows()
        )

    def files(self) -> list[str]:
        """What is in the folder, without the ids of deliveries."""
        names = [path.relative_to(self.folder).parts for path in self.folder.rglob("*") if path.is_file()]
        return sorted("/".join((parts[0], *parts[2:]) if parts[0] == "taken_in" else parts) for parts in names)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "landing", DeliveryStore(tmp_path / "deliveries"))


def test_a_file_is_taken_in_when_it_has_come_to_rest(place: Place) -> None:
    path = place.drop("a.csv", MAY)
    changed = path.stat().st_ctime
    assert place.zone.waiting(changed + 4, 5).settling == ("a.csv",)
    waiting = place.zone.waiting(changed + 5, 5)
    assert ([file.name for file in waiting.files], waiting.settling) == (["a.csv"], ())
    # A copy that keeps the original's times is not old because they are.
    os.utime(path, (0, 0))
    assert place.zone.waiting(path.stat().st_ctime + 4, 5).settling == ("a.csv",)


def test_files_that_are_hidden_empty_or_say_they_are_not_whole_are_left(place: Place) -> None:
    for name in (".a.csv", ".rsync/a.csv", "a.csv.part", "A.CSV.TMP", "b.csv.crdownload", "c.csv.filepart"):
        place.drop(name, MAY)
    (place.folder / "d.csv").touch()
    (place.folder / "link.csv").symlink_to(place.folder / "a.csv.part")
    before = place.files()
    waiting = place.zone.waiting(time.time(), 0)
    assert waiting.files == ()
    assert sorted(waiting.unfinished) == ["A.CSV.TMP", "a.csv.part", "b.csv.crdownload", "c.csv.filepart", "d.csv"]
    assert place.take_in().arrivals == ()
    assert place.files() == before


def test_the_digest_of_what_waits_changes_only_with_it(place: Place) -> None:
    def digest() -> str:
        return place.zone.waiting(time.time(), 0).digest

    assert digest() == ""
    path = place.drop("a.csv", MAY)
    one = digest()
    assert one == digest()
    place.drop("b.csv.part", MAY)
    assert digest() == one
    place.drop("b.csv", JUNE)
    two = digest()
    path.write_text(f"{HEADER}\n{JULY}\n{JULY}\n")
    assert len({"", one, two, digest()}) == 4
    place.take_in()
    assert digest() == ""


def test_a_file_is_read_once_made_current_and_put_away(place: Place) -> None:
    place.drop("a.csv", MAY, JUNE)
    taken = place.take_in()
    assert (taken.new, taken.n_rows, taken.touched("monthly")) == (("a.csv",), 2, ["2011-05-01", "2011-06-01"])
    assert (place.lines(), place.files()) == (["1 5", "2 6"], ["taken_in/a.csv"])
    assert place.take_in().arrivals == ()


def test_the_same_lines_bring_nothing_under_any_name_and_in_any_order(place: Place) -> None:
    place.drop("a.csv", MAY, JUNE)
    place.take_in()
    for name, rows in {"a.csv": (MAY, JUNE), "copy/a.csv": (MAY, JUNE), "turned.csv": (JUNE, MAY)}.items():
        place.drop(name, *rows)
    taken = place.take_in()
    assert (taken.repeated, taken.n_rows, taken.touched("monthly")) == (("a.csv", "copy/a.csv", "turned.csv"), 0, [])
    assert [one.note for one in taken.arrivals] == ["the lines of a.csv as they are", *["the lines of a.csv"] * 2]
    assert place.lines() == ["1 5", "2 6"]
    assert place.files() == ["taken_in/a.csv", "taken_in/copy/a.csv", "taken_in/turned.csv"]


def test_another_file_of_a_known_name_takes_its_place(place: Place) -> None:
    place.drop("a.csv", MAY, JUNE)
    place.take_in()
    place.drop("a.csv", MAY, "9,2011-05-31 10:00,1")
    taken = place.take_in()
    assert (taken.corrected, taken.touched("monthly")) == (("a.csv",), ["2011-05-01", "2011-06-01"])
    assert taken.arrivals[0].note == "2 lines before, 2 now, none any more of 2011-06-01"
    assert place.lines() == ["1 5", "9 1"]
    # Both are kept, and the first one can come back.
    assert place.files() == ["taken_in/a.csv"] * 2
    place.drop("a.csv", MAY, JUNE)
    assert place.take_in().corrected == ("a.csv",)
    assert place.lines() == ["1 5", "2 6"]


def test_what_is_read_in_the_end_does_not_depend_on_the_order_of_other_names(tmp_path: Path) -> None:
    files = {"a.csv": (MAY,), "b.csv": (MAY, JUNE), "same as a.csv": (MAY,), "c.csv": (JULY,)}
    ends = set()
    orders = itertools.permutations([*files, "wrong a"])
    for number, order in enumerate(one for one in orders if one.index("wrong a") < one.index("a.csv")):
        if number % 5:
            continue
        place = Place(tmp_path / str(number) / "landing", DeliveryStore(tmp_path / str(number) / "deliveries"))
        for name in order:
            # The right lines of a.csv may be there under another name before it is corrected.
            file = "a.csv" if name == "wrong a" else name.replace("same as a", "copy")
            place.drop(file, *files.get(name, ("1,2011-05-31 23:59,500",)))
            place.take_in()
        ends.add(
            (tuple(place.lines()), tuple(one.name for one in (place.store.current() or CurrentSource()).deliveries))
        )
    assert ends == {(("1 5", "1 5", "2 6", "3 7"), ("a.csv", "b.csv", "c.csv"))}


def test_what_cannot_be_read_is_moved_aside_with_the_reason_and_blocks_nothing(place: Place) -> None:
    place.drop("a.csv", MAY)
    place.drop("bad.csv", "x,y", header="p,q")
    place.drop("notes.doc", "hello")
    (place.folder / "torn.parquet").write_bytes(b"PAR1 and no more")
    (place.folder / "undated.csv").write_text(f"{HEADER}\n1,never,5\n")
    taken = place.take_in()
    assert (taken.new, sorted(taken.unreadable)) == (
        ("a.csv",),
        ["bad.csv", "notes.doc", "torn.parquet", "undated.csv"],
    )
    assert place.files() == [
        "taken_in/a.csv",
        *(
            f"unreadable/{name}{suffix}"
            for name in ("bad.csv", "notes.doc", "torn.parquet", "undated.csv")
            for suffix in ("", ".reason.txt")
        ),
    ]
    reason = (place.folder / "unreadable" / "bad.csv.reason.txt").read_text()
    assert "customer_id" in reason
    assert reason.strip() == taken.unreadable["bad.csv"]
    place.drop("bad.csv", "other", header="p,q")
    place.take_in()
    assert place.zone.unreadable_files() == ("bad (2).csv", "bad.csv", "notes.doc", "torn.parquet", "undated.csv")


def test_an_export_that_reuses_a_name_for_other_days_does_not_push_out_the_earlier_one(place: Place) -> None:
    place.drop("orders.csv", MAY)
    place.take_in()
    place.drop("orders.csv", JUNE)
    taken = place.take_in()
    assert "orders.csv has lines of 2011-06-01, the earlier file of that name of 2011-05-31" in str(taken.unreadable)
    assert place.lines() == ["1 5"]


def test_a_file_that_came_under_the_wrong_name_can_be_corrected(place: Place) -> None:
    place.drop("may.csv", MAY)
    place.drop("june.csv", MAY)
    place.take_in()
    place.drop("june.csv", JUNE)
    assert place.take_in().corrected == ("june.csv",)
    assert place.lines() == ["1 5", "2 6"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2011-06-03 10:00,5", "has lines of 2011-06-03, after 2011-06-02; expected lines from 1990-01-01 to today"),
        ("1,1989-12-31 10:00,5", "has lines of 1989-12-31, before 1990-01-01"),
        ("1,2011-06-02 10:00,5", ""),
        ("1,1990-01-01 10:00,5", ""),
    ],
)
def test_dates_that_cannot_be_are_a_reason_to_move_a_file_aside(place: Place, row: str, reason: str) -> None:
    place.drop("a.csv", MAY, row)
    today = datetime(2011, 6, 1, 10).astimezone().timestamp()
    found = place.take_in(now=today).unreadable.get("a.csv", "")
    assert bool(found) == bool(reason)
    assert reason in found


def test_a_file_unlike_the_home_s_others_is_moved_aside(place: Place) -> None:
    more = f"{HEADER},country"
    place.drop("a.csv", f"{MAY},France", header=more)
    place.drop("first.csv", JUNE)
    place.drop("second.csv", JULY)
    # What most of the first files are like is what the home's files are like.
    assert place.take_in().unreadable == {
        "a.csv": "a.csv has country; expected the columns of the home's other files. "
        "Export it like those, or use another home for it with CUSTSEG_HOME."
    }
    retail = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    place.drop("retail.csv", "536365,85123A,LANTERN,6,2010-12-01 08:26:00,2.55,17850,United Kingdom", header=retail)
    assert "is an online_retail export; expected an export with own columns" in place.take_in().unreadable["retail.csv"]
    # All of them exported anew, with a column more, is a correction.
    place.drop("first.csv", f"{JUNE},France", header=more)
    place.drop("second.csv", f"{JULY},France", header=more)
    assert place.take_in().corrected == ("first.csv", "second.csv")


BUSY_MAY = tuple(f"{n},2011-05-{1 + n % 31:02} 10:00,1" for n in range(310))
"""Ten lines on each day of May."""
SLIP = "9,2012-05-31 10:00,9"


def test_a_file_with_days_apart_from_the_rest_is_moved_aside_and_blocks_nothing(place: Place) -> None:
    place.drop("may.csv", *BUSY_MAY)
    place.drop("slip.csv", JUNE, SLIP)
    # Its lines are those of slip.csv, which is refused, so it is no repetition.
    place.drop("slipped too.csv", SLIP, JUNE)
    place.drop("early.csv", "8,2010-05-31 10:00,8")
    place.drop("june.csv", "7,2011-06-02 10:00,7")
    taken = place.take_in()
    assert taken.new == ("june.csv", "may.csv")
    assert [text.partition(", ")[0] for text in taken.unreadable.values()] == [
        "early.csv has 1 line of 2010-05-31",
        "slip.csv has 1 line of 2012-05-31",
        "slipped too.csv has 1 line of 2012-05-31",
    ]
    # 335 days to 1 May; 312 lines from there to 2 June, in 33 days, are 3,167 in 335.
    assert taken.unreadable["early.csv"].partition(", ")[2] == (
        "335 days before the rest of the log (2011-05-01 to 2011-06-02; longest gap: 1 day; "
        "usual in 335 days: 3,167 lines); expected few lines to be near the others, because the log's first and last "
        "day decide what is made. Correct those dates, or, where they are right, write keep_stray_days = true under "
        "[source] in custseg.toml, and put the file into the landing folder again."
    )
    assert place.zone.unreadable_files() == ("early.csv", "slip.csv", "slipped too.csv")
    assert (place.folder / "unreadable" / "early.csv.reason.txt").read_text().strip() == taken.unreadable["early.csv"]
    assert len(place.lines()) == 311


def test_days_apart_are_refused_in_files_of_a_home_that_has_the_rest(place: Place) -> None:
    place.drop("may.csv", *BUSY_MAY)
    assert place.take_in().new == ("may.csv",)
    place.drop("slip.csv", SLIP)
    assert "slip.csv has 1 line of 2012-05-31, 366 days after" in place.take_in().unreadable["slip.csv"]
    # The day after is a daily file like any other.
    place.drop("june.csv", JUNE)
    assert place.take_in().new == ("june.csv",)


def test_days_apart_that_are_right_are_taken_in_with_the_setting_and_stay_without_it(place: Place) -> None:
    place.drop("may.csv", *BUSY_MAY)
    place.drop("opened again.csv", SLIP)
    assert list(place.take_in().unreadable) == ["opened again.csv"]
    (place.folder / "unreadable" / "opened again.csv").rename(place.folder / "opened again.csv")
    assert place.take_in(keep_stray_days=True).new == ("opened again.csv",)
    place.drop("next day.csv", "9,2012-06-01 10:00,9")
    place.drop("far.csv", "9,2013-06-01 10:00,9")
    taken = place.take_in()
    assert (taken.new, list(taken.unreadable)) == (("next day.csv",), ["far.csv"])
    place.drop("opened again.csv", SLIP)
    assert place.take_in().repeated == ("opened again.csv",)


def test_a_corrected_file_is_judged_by_its_new_lines(place: Place) -> None:
    place.drop("may.csv", *BUSY_MAY[:300])
    place.take_in()
    place.drop("may.csv", *BUSY_MAY, SLIP)
    assert list(place.take_in().unreadable) == ["may.csv"]
    assert len(place.lines()) == 300
    place.drop("may.csv", *BUSY_MAY)
    assert place.take_in().corrected == ("may.csv",)
    # The rest that a day is apart from is what will be there: without the lines that the correction takes away.
    place.drop("may.csv", MAY, SLIP)
    assert place.take_in().corrected == ("may.csv",)


def test_a_shop_that_opens_again_with_a_usual_day_is_taken_in(place: Place) -> None:
    place.drop("may.csv", *BUSY_MAY)
    place.take_in()
    place.drop("august.csv", *(f"{n},2011-08-29 10:00,1" for n in range(10)))
    assert place.take_in().new == ("august.csv",)


def test_lines_without_a_date_do_not_make_a_day_usual(place: Place) -> None:
    place.drop("may.csv", *BUSY_MAY)
    place.drop("slip.csv", "9,2010-05-31 10:00,9", JUNE, *["9,never,9"] * 2, *[JUNE] * 20)
    taken = place.take_in(max_unreadable_share=0.2)
    assert "has 1 line of 2010-05-31" in taken.unreadable["slip.csv"]


def test_a_file_of_which_too_much_cannot_be_read_is_moved_aside_with_the_figures(place: Place) -> None:
    place.drop("good.csv", MAY)
    place.drop("bad.csv", *[JUNE] * 98, "9,2011-06-02 10:00,12 pcs", "9,2011-06-02 10:00,#####")
    taken = place.take_in()
    assert taken.new == ("good.csv",)
    assert "bad.csv: 2 of 100 lines with a customer (2.0%)" in taken.unreadable["bad.csv"]
    assert "row 99, line_amount '12 pcs'; row 100, line_amount '#####'" in taken.unreadable["bad.csv"]


def test_files_of_one_name_in_two_folders_are_two(place: Place) -> None:
    place.drop("north/a.csv", MAY)
    place.drop("south/a.csv", JUNE)
    assert place.take_in().new == ("north/a.csv", "south/a.csv")
    assert place.lines() == ["1 5", "2 6"]


def test_a_file_that_grows_where_it_was_put_away_is_taken_in_again(place: Place) -> None:
    with place.drop("a.csv", MAY).open("a") as stalled:
        place.take_in()
        assert place.lines() == ["1 5"]
        stalled.write(f"{JUNE}\n")
    assert [file.name for file in place.zone.waiting(time.time(), 0).files] == ["a.csv"]
    assert place.take_in().corrected == ("a.csv",)
    assert (place.lines(), place.files()) == (["1 5", "2 6"], ["taken_in/a.csv"])
    assert place.zone.waiting(time.time(), 0).files == ()


def test_a_file_replaced_after_it_was_read_is_not_put_away_unread(place: Place) -> None:
    place.drop("a.csv", MAY)
    read = place.zone.read(place.zone.waiting(time.time(), 0).files, SourceSettings())
    place.drop("a.csv.part", MAY, JUNE).replace(place.folder / "a.csv")
    place.zone.adopt(classify_files(read, CurrentSource(), time.time()))
    assert (place.lines(), place.files()) == (["1 5"], ["a.csv"])
    place.take_in()
    assert place.lines() == ["1 5", "2 6"]


def test_a_file_that_changes_while_it_is_read_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.drop("a.csv", MAY)
    place.drop("b.csv", JULY)
    read = Reader.read

    def read_and_write_on(reader: Reader, file: FileToRead, progress: Any) -> Any:
        if file.path == path:
            with path.open("a") as written:
                written.write(f"{JUNE}\n")
        return read(reader, file, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", read_and_write_on)
        assert place.take_in().new == ("b.csv",)
    assert place.files() == ["a.csv", "taken_in/b.csv"]
    place.take_in()
    assert place.lines() == ["1 5", "2 6", "3 7"]


def test_a_process_killed_at_any_effect_loses_and_doubles_nothing(tmp_path: Path) -> None:
    script = tmp_path / "take_in.py"
    script.write_text(
        textwrap.dedent("""
        import os, pathlib, signal, sys
        from custseg_assets.home.intake import Intake
        from custseg_assets.home.open import OpenHome
        from custseg_assets.settings import Settings
        left = [int(sys.argv[2])]
        def deadly(do):
            def counted(*arguments, **others):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return do(*arguments, **others)
            return counted
        for name in ("replace", "rename", "mkdir", "write_text"):
            setattr(pathlib.Path, name, deadly(getattr(pathlib.Path, name)))
        home = pathlib.Path(sys.argv[1])
        with OpenHome(Settings(home=home, landing={"settle_seconds": 0})).locked() as locked:
            Intake(locked, lambda _: None).take_in_landed()
        """)
    )
    home = tmp_path / "first"
    place = Place(home / "landing", DeliveryStore(home / "deliveries"))
    place.drop("a.csv", MAY, "8,2011-05-31 10:00,800")
    place.take_in()
    place.drop("a.csv", MAY)
    place.drop("b.csv", JUNE)
    place.drop("c/b.csv", JUNE)
    place.drop("bad.csv", "x", header="p")
    place.drop("d.csv", JULY)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    survived = False
    for n_effects in itertools.count():
        copied = Path(shutil.copytree(home, tmp_path / "killed" / str(n_effects)))
        command = [sys.executable, script, copied, str(n_effects)]
        survived = subprocess.run(command, env=environment, check=False).returncode != -signal.SIGKILL
        place = Place(copied / "landing", DeliveryStore(copied / "deliveries"))
        # What is read is always what was read before or what is read in the end.
        assert place.lines() in (["1 5", "8 800"], ["1 5", "2 6", "3 7"])
        place.take_in()
        assert place.lines() == ["1 5", "2 6", "3 7"]
        assert [name for name in place.files() if not name.startswith("unreadable/bad")] == [
            *["taken_in/a.csv"] * 2,
            "taken_in/b.csv",
            "taken_in/c/b.csv",
            "taken_in/d.csv",
        ]
        assert place.zone.unreadable_files() == ("bad.csv",)
        if survived:
            break
    assert n_effects > 20


def settings_of(home: Path, **others: Any) -> Settings:
    return Settings(home=home, landing={"settle_seconds": 0}, snapshots={"lookback": 2}, **others)


@pytest.fixture
def shop(tmp_path: Path) -> Place:
    """The landing folder of a home."""
    home = tmp_path / "home"
    return Place(home / "landing", DeliveryStore(home / "deliveries"))


def source_file(folder: Path, name: str, *rows: str) -> Path:
    path = folder / "source" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def take_in(home: Path, source: Path | str | None = None, **others: Any) -> list[str]:
    """Take in as ``custseg run`` does; what it said."""
    said: list[str] = []
    path = None if source is None else str(source)
    homes.take_in(settings_of(home, source={"path": path}, **others), said.append)
    return said


def test_a_home_lives_on_its_landing_folder_alone(shop: Place, tmp_path: Path) -> None:
    shop.drop("a.csv", MAY)
    assert take_in(tmp_path / "home") == ["landing: 1 new, 0 corrected, 0 repeated, 0 unreadable; 1 lines"]
    shop.drop("b.csv", JUNE)
    take_in(tmp_path / "home")
    assert shop.lines() == ["1 5", "2 6"]
    assert take_in(tmp_path / "home") == []
    current = shop.store.current()
    assert current is not None
    assert current.description is None
    state = status.describe_home(OpenHome(settings_of(tmp_path / "home")))
    assert (state["source"], state["landing"]["n_taken_in"]) == ("landing", 2)


def test_reading_the_source_again_keeps_what_landed(shop: Place, tmp_path: Path) -> None:
    log = source_file(tmp_path, "log.csv", MAY, JUNE)
    take_in(tmp_path / "home", log.parent)
    shop.drop("late.csv", "4,2011-05-02 10:00,4")
    # A file of the source, corrected.
    shop.drop("log.csv", MAY, "2,2011-06-01 00:00,66")
    take_in(tmp_path / "home")
    assert shop.lines() == ["1 5", "2 66", "4 4"]
    source_file(tmp_path, "more.csv", JULY)
    take_in(tmp_path / "home", log.parent)
    assert shop.lines() == ["1 5", "2 66", "3 7", "4 4"]
    # What changes in the source after that is newer than what landed.
    source_file(tmp_path, "log.csv", MAY, "2,2011-06-01 00:00,67")
    take_in(tmp_path / "home")
    assert shop.lines() == ["1 5", "2 67", "3 7", "4 4"]


def test_files_that_land_in_the_demo_s_home_are_your_own_data(shop: Place, tmp_path: Path) -> None:
    row = {"customer_id": "d", "invoiced_at": datetime(2024, 1, 1), "line_amount": 1.0, "source_row": 1}
    schema = {**RAW_TRANSACTIONS.schema}
    frame = pl.DataFrame([row], schema={name: schema[name] for name in schema if name not in ("period", "source_file")})
    demo = shop.store.accept_frame(DEMO, "1", lambda: frame)
    shop.store.set_current(CurrentSource((demo,), description=DEMO))
    made = tmp_path / "home" / "tables" / "made"
    made.mkdir(parents=True)
    shop.drop("a.csv", MAY)
    with pytest.raises(BadInputError, match=r"holds the demo and a\.csv landed in it.*'custseg run' once"):
        homes.take_in_landed(settings_of(tmp_path / "home"))
    assert shop.files() == ["a.csv"]
    assert "the home held the demo; it starts afresh for your data" in take_in(tmp_path / "home")
    assert (shop.lines(), made.exists()) == (["1 5"], False)
    with pytest.raises(BadInputError, match=r"source demo; home .* holds .* of landing.*--replace gives up"):
        take_in(tmp_path / "home", DEMO)


def test_no_demo_is_made_where_files_landed_that_cannot_be_read(shop: Place, tmp_path: Path) -> None:
    shop.drop("bad.csv", "x", header="p")
    with pytest.raises(BadInputError, match=r"nothing in .*landing could be taken in: bad\.csv: "):
        take_in(tmp_path / "home")
    assert shop.files() == ["unreadable/bad.csv", "unreadable/bad.csv.reason.txt"]
    assert shop.store.current() is None
    shop.drop("slow.csv.part", MAY)
    with pytest.raises(BadInputError, match=r"could be taken in: slow\.csv\.part"):
        take_in(tmp_path / "home")
    assert "unreadable: bad.csv" in status.status(OpenHome(settings_of(tmp_path / "home")), as_json=False)


def test_a_source_that_is_refused_leaves_what_landed_where_it_is(shop: Place, tmp_path: Path) -> None:
    log = source_file(tmp_path, "log.csv", MAY, JUNE)
    take_in(tmp_path / "home", log)
    shop.drop("a.csv", JULY)
    before = sorted(shop.store.root.iterdir())
    with pytest.raises(BadInputError, match="lacks 1 period of the home, from 2011-05-01"):
        take_in(tmp_path / "home", source_file(tmp_path, "other.csv", JUNE))
    assert (shop.files(), sorted(shop.store.root.iterdir())) == (["a.csv"], before)


def test_a_source_with_days_apart_from_the_rest_is_refused_until_they_are_said_to_be_right(
    shop: Place, tmp_path: Path
) -> None:
    log = source_file(tmp_path, "log.csv", *BUSY_MAY)
    take_in(tmp_path / "home", log.parent)
    before, current = sorted(shop.store.root.iterdir()), shop.store.current()
    source_file(tmp_path, "slip.csv", JUNE, SLIP)
    shop.drop("a.csv", JUNE)
    with pytest.raises(
        BadInputError, match=r"has 1 line of 2012-05-31, 365 days after .*, such as row 2 of slip\.csv;"
    ):
        take_in(tmp_path / "home")
    assert (sorted(shop.store.root.iterdir()), shop.store.current(), shop.files()) == (before, current, ["a.csv"])
    homes.take_in(settings_of(tmp_path / "home", source={"path": str(log.parent), "keep_stray_days": True}))
    assert len(shop.lines()) == 313
    # What the home has is not judged again.
    source_file(tmp_path, "more.csv", JULY)
    take_in(tmp_path / "home", log.parent)
    assert len(shop.lines()) == 314


def test_whether_stray_days_are_kept_does_not_change_what_a_file_is(shop: Place, tmp_path: Path) -> None:
    log = source_file(tmp_path, "log.csv", *BUSY_MAY)
    ids = [
        shop.store.accept(log, SourceSettings(keep_stray_days=is_kept), lambda _: None).id for is_kept in (False, True)
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("day", ["2012-01-05", "2012-12-09", "2009-12-09"])
def test_a_slip_in_the_real_log_is_refused(real_log: Path, tmp_path: Path, day: str) -> None:
    log = pl.read_csv(real_log, infer_schema=False)
    slipped = log.with_row_index().with_columns(
        InvoiceDate=pl.when(pl.col("index") == 541_000).then(pl.lit(f"{day} 12:50:00")).otherwise("InvoiceDate")
    )
    slipped.drop("index").write_csv(tmp_path / "log.csv")
    with pytest.raises(BadInputError, match=rf"has 1 line of {day}, .*longest gap: 12 days.* row 541,001 of log\.csv"):
        take_in(tmp_path / "home", tmp_path / "log.csv")
    assert not (tmp_path / "home" / "deliveries").exists()


def test_the_landing_folder_is_no_source(shop: Place, tmp_path: Path) -> None:
    shop.drop("a.csv", MAY)
    with pytest.raises(BadInputError, match="is the landing folder; expected another folder"):
        take_in(tmp_path / "home", shop.folder)


def test_the_landing_folder_can_be_elsewhere(shop: Place, tmp_path: Path) -> None:
    place = Place(tmp_path / "drop", shop.store)
    place.drop("a.csv", MAY)
    settings = settings_of(tmp_path / "home").model_copy(
        update={"landing": settings_of(tmp_path).landing.model_copy(update={"folder": tmp_path / "drop"})}
    )
    homes.take_in(settings)
    assert (place.lines(), place.files()) == (["1 5"], ["taken_in/a.csv"])


def test_the_command_waits_for_a_file_dropped_a_moment_ago(shop: Place, tmp_path: Path) -> None:
    shop.drop("a.csv", MAY)
    settings = Settings(home=tmp_path / "home", landing={"settle_seconds": 0.3})
    said: list[str] = []
    homes.take_in(settings, said.append)
    assert said[0] == "landing: waiting 0.3 s for a.csv to be whole"
    assert shop.lines() == ["1 5"]


def made(table: Table, home: OpenHome, keys: tuple[str, ...]) -> None:
    """Write partitions without rows that are up to date."""
    with home.locked() as locked:
        for key in keys:
            row = pl.DataFrame([{"period": key}], schema=table.schema)
            locked.tables.write(table, row, {key: home.fingerprints.expected(table.name, key) or 0})


def test_late_lines_make_only_their_periods_and_the_snapshots_that_look_at_them_stale(
    shop: Place, tmp_path: Path
) -> None:
    for month in range(1, 7):
        shop.drop(f"{month}.csv", f"1,2011-{month:02}-15 10:00,5")
    take_in(tmp_path / "home")
    settings = settings_of(tmp_path / "home")
    home = OpenHome(settings)
    made(RAW_TRANSACTIONS, home, home.calendar.period_keys)
    made(CUSTOMER_FEATURES, home, home.calendar.snapshot_keys)
    assert home.fingerprints.stale(["raw_transactions", "customer_features"], home.calendar.snapshot_keys) == ()
    shop.drop("late.csv", "2,2011-03-20 10:00,5")
    assert homes.take_in_landed(settings).touched("monthly") == ["2011-03-01"]
    # Both the home that was open meanwhile and one that is opened now.
    for opened in (home, OpenHome(settings)):
        assert opened.fingerprints.stale(["raw_transactions"], opened.calendar.period_keys) == ("2011-03-01",)
    # The window has two periods.
    made(RAW_TRANSACTIONS, home, ("2011-03-01",))
    for opened in (home, OpenHome(settings)):
        late = opened.fingerprints.stale(["customer_features"], opened.calendar.snapshot_keys)
        assert late == ("2011-03-01", "2011-04-01")


def test_periods_and_snapshots_that_a_correction_takes_away_are_forgotten(shop: Place, tmp_path: Path) -> None:
    shop.drop("a.csv", MAY, JUNE)
    shop.drop("slip.csv", JUNE, "3,2011-09-01 12:00,7")
    settings, tables = settings_of(tmp_path / "home"), TableStore(tmp_path / "home" / "tables")
    take_in(tmp_path / "home")
    home = OpenHome(settings)
    made(RAW_TRANSACTIONS, home, home.calendar.period_keys)
    made(CUSTOMER_FEATURES, home, home.calendar.snapshot_keys)
    shop.drop("slip.csv", JUNE)
    homes.take_in_landed(settings)
    assert list(tables.sizes(RAW_TRANSACTIONS)) == ["2011-05-01", "2011-06-01"]
    assert list(tables.sizes(CUSTOMER_FEATURES)) == ["2011-06-01"]
    assert tables.fingerprint_of("raw_transactions", "2011-09-01") is None


@pytest.mark.parametrize("by_sensor", [False, True])
def test_files_that_were_taken_in_are_read_again_when_settings_say_so(
    shop: Place, tmp_path: Path, *, by_sensor: bool
) -> None:
    rows = "a,2011-06-01,7,5,void", "a,2011-06-02,8,5,paid"
    header = "customer_id,invoiced_at,invoice_id,line_amount,status"
    plain = {"ignored_columns": ["status"]}
    for name in ("a.csv", "b.csv"):
        shop.drop(name, *(row.replace("a,", f"{name[0]},", 1) for row in rows), header=header)
    homes.take_in(settings_of(tmp_path / "home", source=plain), print)
    filtered = settings_of(tmp_path / "home", source={"filter": {"status": "paid"}})
    said: list[str] = []
    if by_sensor:
        homes.take_in_landed(filtered)
    else:
        homes.take_in(filtered, said.append)
        assert said[0] == "landing: reading 2 files again, because settings or versions have changed"
    deliveries = OpenHome(filtered).calendar.deliveries
    assert [one.columns.get("invoice_id") for one in deliveries] == ["invoice_id"] * 2
    lines = shop.store.scan(deliveries).collect()
    assert lines["excluded_by"].to_list() == ["status = void", None] * 2
    homes.take_in(filtered, said.append)
    assert "again" not in "".join(said[2:])


def test_the_asset_takes_in_what_landed_and_says_what_became_of_it(shop: Place, tmp_path: Path) -> None:
    shop.drop("a.csv", MAY, JUNE)
    shop.drop("bad.csv", "x", header="p")
    definitions = build_defs(settings=settings_of(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            # Without anything in the folder it does nothing, and does not fail.
            assert definitions.resolve_job_def("take_in").execute_in_process(instance=instance).success
        events = instance.fetch_materializations(dg.AssetKey("landed_files"), limit=2).records
    first, second = (record.asset_materialization for record in reversed(events))
    assert first is not None
    assert second is not None
    assert first.metadata["n_rows"].value == 2
    assert first.metadata["periods"].value == ["2011-05-01", "2011-06-01"]
    assert "| a.csv | new | 2 |" in str(first.metadata["files"].value)
    assert list(first.metadata["unreadable"].value) == ["bad.csv"]
    assert second.metadata["summary"].value == "0 new, 0 corrected, 0 repeated, 0 unreadable; 0 lines"
    # A landed file must not mark every period: Dagster compares this.
    assert first.tags["dagster/data_version"] == second.tags["dagster/data_version"]
    assert shop.lines() == ["1 5", "2 6"]


def test_raw_transactions_come_after_landed_files_in_the_graph(tmp_path: Path) -> None:
    graph = build_defs(settings=settings_of(tmp_path / "home")).resolve_asset_graph()
    assert graph.get(dg.AssetKey("raw_transactions")).parent_keys == {dg.AssetKey("landed_files")}
    landed = graph.get(dg.AssetKey("landed_files"))
    assert (landed.group_name, landed.kinds, landed.is_partitioned) == ("ingest", {"file"}, False)


def test_the_real_log_in_shuffled_daily_files_is_the_real_log(real_log: Path, tmp_path: Path) -> None:
    """Ten files come twice and five with wrong lines first; what is read, and the tables from it, are the same."""
    whole, landed = tmp_path / "whole", tmp_path / "landed"
    place = Place(landed / "landing", DeliveryStore(landed / "deliveries"))
    batches = shuffle_in_batches(pl.read_csv(real_log, infer_schema=False), n_batches=5, seed=20111209)
    assert sum(len(batch) for batch in batches) == 305 + 10 + 5
    outcomes = []
    for batch in batches:
        for file in batch:
            file.write_to(place.folder)
        outcomes.append(homes.take_in_landed(settings_of(landed)))
    assert sum(len(taken.corrected) for taken in outcomes) == 5
    assert sum(len(taken.repeated) for taken in outcomes) == 10
    assert [taken.unreadable for taken in outcomes] == [{}] * 5
    take_in(whole, real_log)
    for left, right in zip(ingested(landed), ingested(whole), strict=True):
        assert_frame_equal(left, right, check_exact=True)


def ingested(home: Path) -> Iterator[pl.DataFrame]:
    """Raw, clean and rejected lines in one order, without where they came from, and the features of every snapshot."""
    opened = OpenHome(settings_of(home))
    calendar, rules = opened.calendar, opened.cleaning_rules
    raw = opened.deliveries.scan_periods(calendar.deliveries, calendar.period_keys, "monthly").collect()
    classified = cleaning.classify(nw.from_native(raw.lazy()), rules).collect().lazy()
    clean = cleaning.clean_lines(classified, rules).collect().to_native()
    rejected = cleaning.rejected_lines(classified).collect().to_native()
    for lines in (raw, clean, rejected):
        content = lines.drop("source_file", "source_row", strict=False)
        yield content.sort(content.columns)
    for key in calendar.snapshot_keys:
        yield measure_features(clean, calendar.window(key))


def test_a_home_that_differs_is_seen(tmp_path: Path) -> None:
    for name, amount in (("left", 5.0), ("right", 6.0)):
        tables = TableStore(tmp_path / name / "tables")
        row = pl.DataFrame([{"period": "2011-05-01", "line_amount": amount}], schema=RAW_TRANSACTIONS.schema)
        tables.write(RAW_TRANSACTIONS, row, {"2011-05-01": 1})
    assert differing_partitions(tmp_path / "left", tmp_path / "left", ["raw_transactions"]) == []
    found = differing_partitions(tmp_path / "left", tmp_path / "right", ["raw_transactions", "clean_transactions"])
    assert found == ["table raw_transactions: partition 2011-05-01 differs"]
