"""Files made to stop the intake: each is set aside with a short reason, and its neighbours are taken in."""

from __future__ import annotations

import errno
import gzip
import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.errors import BadInputError, MachineFaultError
from custseg_assets.settings import ReadingSettings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores import reading
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource
from custseg_assets.stores.landing_zone import LandingZone, TakenIn, classify_files
from custseg_assets.stores.reading import Reader
from tests.support.files import REPOSITORY

HEADER = "customer_id,invoiced_at,line_amount"
LONGEST_REASON = 4_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


def drop_good(folder: Path, name: str = "good.csv") -> None:
    (folder / name).write_text(f"{HEADER}\n1,2011-05-31 23:59,5\n2,2011-06-01 00:00,6\n")


def take_in(folder: Path, **limits: float) -> TakenIn:
    store = DeliveryStore(folder.parent / "deliveries", ReadingSettings(**limits))
    zone = LandingZone(folder, store)
    read = zone.read(zone.waiting(time.time(), 0).files, SourceSettings())
    taken = classify_files(read, store.current() or CurrentSource(), time.time())
    zone.adopt(taken)
    return taken


def reason_of(folder: Path) -> str:
    [reason] = (folder / "unreadable").rglob("*.reason.txt")
    return reason.read_text()


def workbook(cell: str = "C3", times: int = 1) -> bytes:
    """A workbook of three columns; ``cell`` is where one more value stands."""
    import xlsxwriter

    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate([HEADER, *["1,2011-05-31,5"] * times]):
            sheet.write_row(number, 0, row.split(","))
        sheet.write(cell, "far away")
    return content.getvalue()


def parquet_of(n_rows: int) -> bytes:
    content = io.BytesIO()
    columns = {"customer_id": "1", "invoiced_at": "2011-05-31", "line_amount": "5"}
    pl.select(*(pl.repeat(value, n_rows, eager=False).alias(name) for name, value in columns.items())).write_parquet(
        content, compression="zstd"
    )
    return content.getvalue()


def with_one_wrong_byte(content: bytes, seed: int) -> bytes:
    at = random.Random(seed).randrange(len(content))
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def zip_of(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


BOMB = f"{HEADER}\n".encode() + b"1,2011-05-31,5" + b" " * (300 << 20)
POISON: dict[str, Callable[[], bytes]] = {
    "far_cell.xlsx": lambda: workbook("XFD1048576"),
    "cut.parquet": lambda: parquet_of(1_000)[:-40],
    "rubbish.parquet": lambda: b"PAR1" + bytes(range(256)) * 40 + b"PAR1",
    "bomb.csv.gz": lambda: gzip.compress(BOMB, 9),
    "bomb.zip": lambda: zip_of("log.csv", BOMB),
    "repeated.parquet": lambda: parquet_of(100_000_000),
    "rubbish.xlsx": lambda: zip_of("[Content_Types].xml", b"<"),
}


@pytest.mark.parametrize("name", POISON)
def test_a_poison_file_is_set_aside_and_its_neighbour_is_taken_in(folder: Path, name: str) -> None:
    drop_good(folder)
    (folder / name).write_bytes(POISON[name]())
    taken = take_in(folder, max_memory_gb=2)
    assert taken.new == ("good.csv",)
    assert list(taken.unreadable) == [name]
    assert 20 < len(reason_of(folder)) < LONGEST_REASON
    assert (folder / "unreadable" / name).exists()


def test_a_workbook_with_one_wrong_byte_never_stops_the_intake(folder: Path) -> None:
    drop_good(folder)
    sound = workbook(times=30)
    for seed in range(40):
        (folder / f"{seed}.xlsx").write_bytes(with_one_wrong_byte(sound, seed))
    taken = take_in(folder)
    assert "good.csv" in taken.new
    assert len(taken.arrivals) == 41
    assert taken.unreadable


def test_a_name_that_is_no_utf8_is_taken_in_under_one_that_can_be_shown(folder: Path) -> None:
    drop_good(folder)
    (folder / "good.csv").rename(os.fsdecode(os.fsencode(folder) + b"/M\xe4rz.csv"))
    assert take_in(folder).new == ("M\\xe4rz.csv",)
    assert [path.name for path in (folder / "taken_in").rglob("*.csv")] == ["M\\xe4rz.csv"]


@pytest.mark.parametrize("n_bytes", [243, 250, 255])
def test_a_name_as_long_as_names_can_be_is_set_aside_with_its_reason_twice(folder: Path, n_bytes: int) -> None:
    name = "é" * ((n_bytes - 4) // 2) + "x" * ((n_bytes - 4) % 2) + ".doc"
    for _ in range(2):
        drop_good(folder)
        (folder / name).write_text("no log")
        assert list(take_in(folder).unreadable) == [name]
    aside = folder / "unreadable"
    assert len(list(aside.glob("*.doc"))) == 2
    assert len(list(aside.glob("*.reason.txt"))) == 2


@pytest.mark.parametrize("name", ["unreadable", "taken_in"])
def test_a_file_with_the_name_of_one_of_our_folders_is_only_a_file(folder: Path, name: str) -> None:
    (folder / name).write_text("no log")
    drop_good(folder)
    assert take_in(folder).new == ("good.csv",)
    take_in(folder)
    assert [path.name for path in (folder / "unreadable").iterdir() if path.suffix != ".txt"] == [f"{name} (2)"]


def test_a_file_set_aside_is_no_folder_of_a_later_one(folder: Path) -> None:
    (folder / "a").write_text("no log")
    take_in(folder)
    (folder / "a").mkdir()
    (folder / "a" / "b.doc").write_text("no log")
    assert list(take_in(folder).unreadable) == ["a/b.doc"]
    assert (folder / "unreadable" / "a_b.doc").exists()


def test_a_reason_stays_short_however_long_the_names_in_the_file_are(folder: Path) -> None:
    (folder / "wide.csv").write_text(",".join(f"{'x' * 200}{i}" for i in range(20_000)) + "\n1\n")
    take_in(folder)
    assert len(reason_of(folder)) < LONGEST_REASON


def test_a_file_that_takes_too_long_is_set_aside(folder: Path) -> None:
    (folder / "slow.csv").write_text(f"{HEADER}\n" + "1,2011-05-31 23:59,5\n" * 2_000_000)
    assert "more than 0.001 minutes" in take_in(folder, max_minutes=0.001).unreadable["slow.csv"]


def test_a_file_that_unpacks_to_more_than_is_allowed_is_set_aside(folder: Path) -> None:
    drop_good(folder)
    (folder / "large.csv.gz").write_bytes(gzip.compress((f"{HEADER}\n" + "1,2011-05-31 23:59,5\n" * 500_000).encode()))
    taken = take_in(folder, max_unpacked_gb=0.005)
    assert "unpacks to more than 0.0 GB" in taken.unreadable["large.csv.gz"]
    assert taken.new == ("good.csv",)


def test_a_reader_that_the_system_kills_costs_the_file_that_it_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.csv", "b.csv", "c.csv"), 1):
        (folder / name).write_text(f"{HEADER}\n{number},2011-05-31 23:59,5\n")
    ask = Reader._ask

    def ask_and_kill(reader: Reader, process: subprocess.Popen[bytes], request: Any, progress: Any) -> Any:
        if request["name"] == "b.csv":
            os.kill(process.pid, signal.SIGKILL)
        return ask(reader, process, request, progress)

    monkeypatch.setattr(Reader, "_ask", ask_and_kill)
    taken = take_in(folder)
    assert taken.new == ("a.csv", "c.csv")
    assert "the system ended its reader" in taken.unreadable["b.csv"]


def test_a_reader_that_cannot_be_started_is_no_fault_of_any_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_good(folder)
    monkeypatch.setattr(reading.sys, "executable", "/bin/false")
    with pytest.raises(MachineFaultError, match="starting a process to read files: its reader ended with exit code 1"):
        take_in(folder, max_minutes=1)
    assert (folder / "good.csv").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_fault_of_the_machine_leaves_the_file_where_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    drop_good(folder)
    opened = Path.open

    def fail(path: Path, *arguments: object, **others: object) -> object:
        if path.parent == folder:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **others)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(MachineFaultError, match=rf"reading good.csv: {os.strerror(number)} .*do it again"):
            take_in(folder)
    assert [path.name for path in folder.iterdir()] == ["good.csv"]
    assert take_in(folder).new == ("good.csv",)


def test_a_full_disk_leaves_the_file_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "large.csv").write_text(f"{HEADER}\n" + "1,2011-05-31 23:59,5\n" * 100_000)
    monkeypatch.setattr(reading, "_SHARE_OF_FREE_DISK", 1e-9)
    with pytest.raises(MachineFaultError, match="takes more than half of the free disk"):
        take_in(folder)
    assert (folder / "large.csv").exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "zeros"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "zip", "xlsx", "parquet"])
def test_corrupted_files_never_stop_the_intake_nor_lose_a_neighbour(folder: Path, ending: str, damage: str) -> None:
    text = (f"{HEADER}\n" + "".join(f"{i},2011-05-{1 + i % 28:02} 10:00,{i}\n" for i in range(200))).encode()
    sound = {
        "csv": text,
        "csv.gz": gzip.compress(text),
        "zip": zip_of("log.csv", text),
        "xlsx": workbook(times=20),
        "parquet": parquet_of(500),
    }[ending]
    choose = random.Random(f"{ending} {damage}")
    for number in range(7):
        at = choose.randrange(1, len(sound))
        damaged = {
            "flip": with_one_wrong_byte(sound, at),
            "cut": sound[:at],
            "zeros": sound[:at] + bytes(min(64, len(sound) - at)) + sound[at + 64 :],
        }[damage]
        (folder / f"{number}.{ending}").write_bytes(damaged)
    drop_good(folder, "neighbour.csv")
    taken = take_in(folder)
    assert len(taken.arrivals) == 8
    kept = {*taken.new, *taken.repeated}
    assert "neighbour.csv" in kept
    assert not [path for path in folder.iterdir() if path.is_file()]


def test_the_source_of_a_run_is_read_like_a_landed_file(tmp_path: Path) -> None:
    path = tmp_path / "far_cell.xlsx"
    path.write_bytes(workbook("XFD1048576"))
    store = DeliveryStore(tmp_path / "deliveries", ReadingSettings(max_memory_gb=2))
    with pytest.raises(
        BadInputError, match=r"far_cell\.xlsx cannot be read: .*; expected a file that can be read within"
    ):
        store.accept(path, SourceSettings(), print)
    assert not store.root.exists()


def test_no_path_is_a_pattern(tmp_path: Path) -> None:
    home = tmp_path / "shop[1] *?"
    home.mkdir()
    (home / "orders1.parquet").write_bytes(parquet_of(3))
    rows = {"customer_id": ["7"], "invoiced_at": ["2011-05-01"], "line_amount": ["5000"]}
    pl.DataFrame(rows).write_parquet(home / "orders[1].parquet")
    store = DeliveryStore(home / "deliveries")
    delivery = store.accept(home / "orders[1].parquet", SourceSettings(), print)
    assert store.scan([delivery]).collect()["line_amount"].to_list() == [5000]
    keys = ["2011-05-01"]
    assert store.scan_periods([delivery], keys, "monthly").collect()["customer_id"].to_list() == ["7"]


def test_inspect_says_of_a_poison_file_what_a_run_says(tmp_path: Path) -> None:
    path, config = tmp_path / "far_cell.xlsx", tmp_path / "custseg.toml"
    path.write_bytes(workbook("XFD1048576"))
    config.write_text("[reading]\nmax_memory_gb = 2\n", encoding="utf-8")
    command = [sys.executable, "-m", "custseg_assets.cli", "inspect", str(path), "--config", str(config)]
    environment = {**os.environ, "CUSTSEG_HOME": str(tmp_path / "home"), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "far_cell.xlsx cannot be read: it asks for more than" in done.stderr
    assert "panicked" not in done.stderr
