"""Bad input to the command: one line with what was got, what was expected and what to do, and the home as it was."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter

from custseg_assets.errors import BadInputError
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from tests.support.homes import locked_by_another_process, take_in
from tests.support.shops import custseg

HEADER = "customer_id,invoiced_at,line_amount\n"
ROWS = "".join(f"C{n},2024-0{1 + n % 3}-1{n % 9} 10:00:00,{n}.5\n" for n in range(1, 40))
GOOD = HEADER + ROWS

BUSY = HEADER + "".join(f"C{n},2024-0{1 + n % 3}-{1 + n % 28:02} 10:00:00,5\n" for n in range(1, 400))
SLIP = "C1,2025-03-18 10:00:00,5\n"

Make = Callable[[Path], Path]


def file(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def archive(n_bytes: int) -> Make:
    def make(folder: Path) -> Path:
        path = folder / "log.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("log.csv", GOOD)
        path.write_bytes(path.read_bytes()[:n_bytes])
        return path

    return make


def workbook(folder: Path) -> Path:
    path = folder / "log.xlsx"
    with xlsxwriter.Workbook(path) as book:
        book.add_worksheet("Year 2024").write_row(0, 0, ["customer_id", "invoiced_at", "line_amount"])
    return path


def folder_with_one_bad_file(folder: Path) -> Path:
    path = folder / "exports"
    path.mkdir()
    (path / "a.csv").write_text(GOOD)
    (path / "b.csv").write_text("")
    return path


def folder_with_a_stray_line(folder: Path) -> Path:
    path = folder / "exports"
    path.mkdir()
    (path / "a.csv").write_text(BUSY)
    (path / "b.csv").write_text(GOOD + SLIP)
    return path


BAD_SOURCES: dict[str, tuple[Make, str, str]] = {
    "missing file": (
        lambda folder: folder / "none.csv",
        "",
        r"none\.csv does not exist; expected a file or folder\. Correct --source",
    ),
    "empty file": (file("log.csv", ""), "", r"log\.csv is empty; expected a header and data rows\. Export it again"),
    "header only": (file("log.csv", HEADER), "", r"has a header and no data; expected data rows\. Export it again"),
    "missing column": (
        file("log.csv", GOOD.replace("customer_id", "Client")),
        "",
        r"no column for customer_id .*; expected columns for customer_id.*write customer_id = \"Client\"",
    ),
    "ambiguous dates": (
        file("log.csv", HEADER + "C1,01/02/2024,5\nC2,03/04/2024,6\n"),
        "",
        r"may be day first or month first.*; expected dates that can only be read one way\. Set \[source\] date_format",
    ),
    "another format than the name says": (
        file("log.parquet", GOOD + ROWS),
        "",
        r"log\.parquet holds text; expected parquet, as the name says\. Correct the name",
    ),
    "cut-off gz": (
        file("log.csv.gz", gzip.compress(GOOD.encode())[:-20]),
        "",
        r"log\.csv\.gz is damaged or cut off .*; expected a whole file\. Fetch or export it again",
    ),
    "cut-off zip": (archive(150), "", r"log\.zip is damaged or cut off .*; expected a whole file\. Fetch or export"),
    "no such sheet": (
        workbook,
        '[source]\nsheet = "Year 2023"',
        r"log\.xlsx has no sheet 'Year 2023'; expected one of Year 2024\. Correct \[source\] sheet",
    ),
    "wrong encoding": (
        file("log.csv", GOOD.replace("C7", "Café").encode("latin-1")),
        "",
        r"log\.csv is not utf-8 at byte .*; expected text in the encoding set\. If .Café.* is right",
    ),
    "a line of next year": (
        file("log.csv", BUSY + SLIP),
        "",
        r"log\.csv has 1 line of 2025-03-18, 355 days after .*row 400 of log\.csv; expected few lines .*\. Correct",
    ),
    "a line of next year in one file": (
        folder_with_a_stray_line,
        "",
        r"exports has 1 line of 2025-03-18, .* row 40 of b\.csv",
    ),
    "one bad file among good ones": (folder_with_one_bad_file, "", r"b\.csv is empty; expected a header and data"),
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_a_source_that_cannot_be_used_is_one_line_and_leaves_no_home(kind: str, tmp_path: Path) -> None:
    make, config, message = BAD_SOURCES[kind]
    home = tmp_path / "home"
    refused(home, ["run", "--source", make(tmp_path)], config, message)
    assert not home.exists()


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_a_source_that_cannot_be_used_leaves_a_home_as_it_was(kind: str, taken_in: Path, tmp_path: Path) -> None:
    make, config, message = BAD_SOURCES[kind]
    before = everything_in(taken_in)
    refused(taken_in, ["run", "--reconfigure", "--source", make(tmp_path)], config, message)
    assert everything_in(taken_in) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "[snapshots]\nlokback = 3",
            r"unknown key 'snapshots\.lokback'; expected one of cadence, lookback\. Did you mean",
        ),
        ("[snapshot]\nlookback = 3", r"unknown key 'snapshot'; expected one of source, .*\. Did you mean 'snapshots'"),
        (
            '[snapshots]\ncadence = "hourly"',
            r"snapshots\.cadence = 'hourly'; expected .*'daily', 'weekly' or 'monthly'",
        ),
        ("[snapshots]\nlookback = 0", r"snapshots\.lookback.* = 0; expected .*\. Correct the value"),
        ("[model]\nk_range = [8, 3]", r"model = .*; expected .*2 <= lowest <= highest <= 30\. Correct the value"),
        ('[source.columns]\nclient = "Client"', r"expected .*no such column: client; accepted are customer_id"),
        ("[model", r"expected valid TOML\. Correct that line"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_what_could(config: str, message: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    refused(home, ["run", "--source", file("log.csv", GOOD)(tmp_path)], config, message)
    assert not home.exists()


def test_a_configuration_that_is_not_there_is_refused(tmp_path: Path) -> None:
    arguments = ["run", "--source", file("log.csv", GOOD)(tmp_path), "--config", tmp_path / "none.toml"]
    refused(tmp_path / "home", arguments, None, r"none\.toml: No such file.*; expected a readable TOML file\. Name an")


@pytest.mark.parametrize("day", ["2023-12-31", "2024-05-01"])
def test_a_day_outside_the_data_is_refused(day: str, taken_in: Path, tmp_path: Path) -> None:
    source = file("log.csv", GOOD)(tmp_path)
    message = rf"--through {day}; expected a day the data cover, 2024-01-10 to 2024-03-18\. Name one of those"
    refused(tmp_path / "home", ["run", "--source", source, "--through", day], "", message)
    assert not (tmp_path / "home").exists()
    before = everything_in(taken_in)
    refused(taken_in, ["run", "--through", day], "", message)
    assert everything_in(taken_in) == before


def test_a_day_that_is_none_is_refused(home: Path) -> None:
    outcome = custseg(home, "run", "--through", "2024-02-30")
    assert outcome.status == 2
    assert "'2024-02-30' is no date; write it as 2011-11-30" in outcome.err


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    source = file("log.csv", GOOD)(tmp_path)
    message = r"home .*file/home: Not a directory; expected a folder that can be written to\. Set CUSTSEG_HOME"
    refused(tmp_path / "file" / "home", ["run", "--source", source], None, message)
    refused(
        tmp_path / "file", ["run", "--source", source], None, r"home .*; expected a folder that can be written to\."
    )
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("name", ["a[b]", "50%", "why?", "a|b", "a^b", "a\\b", "two\nlines"])
def test_a_home_whose_path_is_no_address_is_refused(name: str, tmp_path: Path) -> None:
    source = file("log.csv", GOOD)(tmp_path)
    message = r"home .*, with .*; expected a path without control characters and \[ \] \^ \| \\ \? %\. Name another"
    refused(tmp_path / name, ["run", "--source", source], None, message)
    for reads in (["status"], ["export", "customers", "--out", tmp_path / "out.csv"], ["verify"]):
        refused(tmp_path / name, [str(one) for one in reads], None, message)
    assert not (tmp_path / name).exists()


def test_a_home_that_another_run_is_using_is_refused(taken_in: Path, tmp_path: Path) -> None:
    before = everything_in(taken_in)
    with locked_by_another_process(taken_in) as pid:
        message = rf"is in use by process {pid} \(.*\); expected a home that no other run is using\. Wait for that run"
        refused(taken_in, ["run", "--source", file("log.csv", GOOD)(tmp_path)], "", message)
    assert everything_in(taken_in) == before


def test_a_table_that_is_not_there_or_not_made_cannot_be_exported(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    refused(
        home,
        ["export", "segments", "--out", out],
        None,
        r"table 'segments'; expected one of customers, raw_transactions, ",
    )
    refused(home, ["export", "segment_profiles", "--out", out], None, r"has not been made .*Do 'custseg run' first")
    assert not home.exists()
    assert not out.exists()


def test_rows_that_cannot_be_read_refuse_the_file_only_beyond_the_limit(tmp_path: Path) -> None:
    rows = "C1,not a date,5\nC2,2024-02-11 10:00:00,a dozen\n"
    settings = load_settings(source=str(file("log.csv", GOOD + rows)(tmp_path)), home=tmp_path / "home")
    with pytest.raises(BadInputError, match=r"2 of 41 lines with a customer \(4.9%\), with about 5.3% of the money"):
        take_in(settings)
    assert not everything_in(tmp_path / "home")
    source = settings.source.model_copy(update={"max_unreadable_share": 0.06})
    settings = settings.model_copy(update={"source": source})
    take_in(settings)
    home = OpenHome(settings)
    lines = home.deliveries.scan(home.calendar.deliveries).filter(pl.col("unreadable_values").is_not_null())
    assert lines.select("customer_id", "unreadable_values").collect().rows() == [
        ("C1", '{"invoiced_at": "not a date"}'),
        ("C2", '{"line_amount": "a dozen"}'),
    ]


@pytest.fixture
def taken_in(tmp_path: Path) -> Path:
    """A home that has taken a source in."""
    path = file("first.csv", GOOD)(tmp_path)
    take_in(load_settings(source=str(path), home=tmp_path / "used", environment={}))
    assert everything_in(tmp_path / "used")
    return tmp_path / "used"


def refused(home: Path, arguments: list[object], config: str | None, message: str) -> None:
    """The command ends with exit code 2, and the last line of what it said, the only one about it, is this."""
    outcome = custseg(home, *arguments, config=config)
    assert outcome.status == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    *progress, last = outcome.err.splitlines()
    assert re.search(message, last), last
    assert last.startswith("custseg: ")
    assert not any(line.startswith("custseg: ") for line in progress)


def everything_in(home: Path) -> dict[str, bytes]:
    """Content of every file of a home; the lock's is the last process that held it."""
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "lock"}
