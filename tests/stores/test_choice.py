"""Choice: sheets, archives and folders are read as one log only where nothing is in doubt, and that is said."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xlsxwriter  # type: ignore[import-untyped]  # it publishes no types

from custseg_assets.errors import BadInputError
from custseg_assets.home.intake import take_in_source
from custseg_assets.settings import Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.sources import keys_of, list_source_files, open_source

HEADER = ["customer_id", "invoiced_at", "line_amount"]
FIRST = [[f"C{i % 7}", f"2010-12-{i + 1:02d}", f"{i}.50"] for i in range(20)]
SECOND = [*FIRST[-4:], *([f"C{i % 7}", f"2011-01-{i + 1:02d}", f"{i}.50"] for i in range(20))]


def read(path: Path, told: list[str] | None = None, **settings: Any) -> pl.DataFrame:
    progress = (told if told is not None else []).append
    with open_source(path, SourceSettings(**settings), progress=progress) as source:
        return source.lines.collect()


def book(**sheets: list[list[str]]) -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as made:
        for name, rows in sheets.items():
            sheet = made.add_worksheet(name.replace("_", " "))
            for i, row in enumerate(rows):
                sheet.write_row(i, 0, row)
    return buffer.getvalue()


def text(*rows: list[str]) -> str:
    return "".join(",".join(row) + "\n" for row in rows)


def archive(**members: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in members.items():
            made.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def test_sheets_with_the_same_columns_are_read_as_one_and_what_they_share_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.xlsx"
    path.write_bytes(book(Year_2010=[["Sales"], HEADER, *FIRST], Year_2011=[HEADER, *SECOND], Notes=[["made by hand"]]))
    told: list[str] = []
    lines = read(path, told)
    assert lines["source_row"].to_list() == list(range(1, 45))
    assert lines["customer_id"].to_list() == [row[0] for row in [*FIRST, *SECOND]]
    assert "header on row 2, after 'Sales'" in told[0]
    assert "read together: sheet 'Year 2010' (rows 1 to 20), sheet 'Year 2011' (rows 21 to 44)" in told[0]
    assert "4 lines are in several of them, and count once; left out sheet 'Notes', without the required" in told[0]
    excluded = lines.filter(pl.col("excluded_by").is_not_null())
    assert excluded["source_row"].to_list() == [21, 22, 23, 24]
    assert set(excluded["excluded_by"]) == {"in an earlier table of the file too"}
    assert read(path, sheet="Year 2011").height == 24
    assert read(path, sheet=["Year 2011", "Year 2010"])["invoiced_at"].to_list() == [
        *lines["invoiced_at"][20:],
        *lines["invoiced_at"][:20],
    ]


def test_equal_lines_of_one_sheet_are_repeats_of_as_many_in_an_earlier_one_only(tmp_path: Path) -> None:
    path = tmp_path / "log.xlsx"
    twice = [["C1", "2010-12-01", "2.50"]] * 2
    path.write_bytes(book(A=[HEADER, *twice, *FIRST], B=[HEADER, *twice, *twice[:1], *SECOND[4:]]))
    excluded = read(path).filter(pl.col("excluded_by").is_not_null())
    assert excluded["source_row"].to_list() == [23, 24]


def test_the_total_of_a_sheet_is_not_a_sale(tmp_path: Path) -> None:
    path = tmp_path / "log.xlsx"
    total = [["Total", "2010-12-31", "200.00"]]
    path.write_bytes(book(A=[HEADER, *FIRST, *total], B=[HEADER, *SECOND[4:]]))
    with pytest.raises(BadInputError, match=r"row 21: 200\.00 of customer_id 'Total' is the total of the 20 rows"):
        read(path)


BOOKS: dict[str, tuple[dict[str, list[list[str]]], dict[str, Any], list[str]]] = {
    "a copy": (
        {"A": [HEADER, *FIRST], "B": [HEADER, *FIRST]},
        {},
        ["20 of 20 lines of sheet 'B' are in sheet 'A' too", "[source] sheet"],
    ),
    "a part": ({"A": [HEADER, *FIRST], "B": [HEADER, *FIRST[:5]]}, {}, ["5 of 5 lines of sheet 'B' are in sheet 'A'"]),
    "other columns": (
        {"A": [HEADER, *FIRST], "B": [[*HEADER, "shop"], *SECOND]},
        {},
        ["not the same ones ('shop' is only in sheet 'B')", "Set [source] sheet = 'A'"],
    ),
    "a sheet without a header": (
        {"A": [HEADER, *FIRST], "B": SECOND},
        {},
        ["sheet 'B' has no header, but as many columns as sheet 'A'"],
    ),
    "all sheets, also one without the columns": (
        {"A": [HEADER, *FIRST], "B": [["Notes", "By"], ["x", "y"]]},
        {"sheet": "*"},
        ["sheet 'B' has no column for customer_id"],
    ),
    "an optional column is only in one": (
        {"A": [[*HEADER, "sku"], *([*row, "k"] for row in FIRST)], "B": [HEADER, *SECOND]},
        {"columns": {"product_id": "sku"}},
        ["sheet 'B' has no column 'sku'"],
    ),
}


@pytest.mark.parametrize("case", BOOKS)
def test_sheets_that_may_not_be_one_log_are_refused(tmp_path: Path, case: str) -> None:
    sheets, settings, fragments = BOOKS[case]
    path = tmp_path / "log.xlsx"
    path.write_bytes(book(**sheets))
    with pytest.raises(BadInputError) as raised:
        read(path, **settings)
    assert [fragment for fragment in fragments if fragment not in str(raised.value)] == [], str(raised.value)


def test_a_status_that_nobody_mapped_is_seen_in_every_sheet_and_every_column_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "log.xlsx"
    header = [*HEADER, "Status", "Status"]
    paid, voided = ([[*row, "paid", last] for row in rows] for rows, last in ((FIRST, "x"), (SECOND, "voided")))
    path.write_bytes(book(A=[header, *paid], B=[header, *voided]))
    with pytest.raises(BadInputError, match="'Status' is \"voided\" on 24 of 44 lines that would count as sales"):
        read(path)


def test_data_files_of_an_archive_with_the_same_columns_are_one_log(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    turned = [row[::-1] for row in [HEADER, *SECOND]]
    path.write_bytes(archive(a__csv=text(HEADER, *FIRST), b__csv=text(*turned).replace(",", ";")))
    told: list[str] = []
    lines = read(path, told)
    assert lines["customer_id"].to_list() == [row[0] for row in [*FIRST, *SECOND]]
    assert "read together: a.csv (rows 1 to 20), b.csv (rows 21 to 44)" in told[0]


@pytest.mark.parametrize(
    ("members", "fragments"),
    [
        (
            {"orders__csv": text(HEADER, *FIRST), "products__csv": "sku,name\nk,Cup\n"},
            ["2 data files (orders.csv, products.csv), and 1 cannot", "products.csv has no column for", "Unpack it"],
        ),
        ({"a__csv": text(HEADER, *FIRST), "b__csv": text(HEADER, *FIRST)}, ["20 of 20 lines of b.csv are in a.csv"]),
    ],
)
def test_an_archive_that_is_not_one_log_is_refused(
    tmp_path: Path, members: dict[str, str], fragments: list[str]
) -> None:
    (tmp_path / "log.zip").write_bytes(archive(**members))
    with pytest.raises(BadInputError) as raised:
        read(tmp_path / "log.zip")
    assert [fragment for fragment in fragments if fragment not in str(raised.value)] == [], str(raised.value)


def take_in(folder: Path, source: Path, told: list[str], **settings: Any) -> pl.DataFrame:
    store = DeliveryStore(folder / "home" / "deliveries")
    taken = take_in_source(store, str(source), Settings(source=SourceSettings(**settings)), told.append)
    return store.scan(taken).collect()


def write_parquet(path: Path, rows: list[list[str]], names: list[str] = HEADER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(path)


def test_folders_named_by_keys_are_entered_and_their_keys_are_columns(tmp_path: Path) -> None:
    for day in ("2011-01-01", "2011-01-02"):
        write_parquet(tmp_path / f"log/date={day}/part-0.parquet", [["C1", "2.5"], ["C2", "3"]], HEADER[::2])
    told: list[str] = []
    lines = take_in(tmp_path, tmp_path / "log", told, columns={"invoiced_at": "date"})
    assert lines["source_file"].to_list() == [f"date=2011-01-0{day}/part-0.parquet" for day in (1, 1, 2, 2)]
    assert lines["invoiced_at"].dt.day().to_list() == [1, 1, 2, 2]
    assert told[0] == "log: 2 files; date are taken from the names of their folders"


def test_a_column_of_the_file_wins_over_the_key_of_its_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "log/customer_id=C9/part-0.parquet", FIRST)
    assert "C9" not in take_in(tmp_path, tmp_path / "log", [])["customer_id"].to_list()
    assert keys_of(Path("log/shop=__HIVE_DEFAULT_PARTITION__/a.parquet"), Path("log")) == {"shop": None}


def test_other_folders_are_left_out_with_a_warning_and_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "log/2010").mkdir(parents=True)
    (tmp_path / "log/2010/a.csv").write_text(text(HEADER, *FIRST))
    (tmp_path / "log/empty").mkdir()
    assert [path.name for path in list_source_files(tmp_path / "log", print)] == ["a.csv"]
    (tmp_path / "log/b.csv").write_text(text(HEADER, *SECOND))
    told: list[str] = []
    assert [path.name for path in list_source_files(tmp_path / "log", told.append)] == ["b.csv"]
    assert told == ["! log: left out folder 2010 (1 with data)"]


def test_a_folder_with_other_tables_says_which_files_they_are(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/orders.csv").write_text(text(HEADER, *FIRST))
    (tmp_path / "log/products.csv").write_text("sku,name\nk,Cup\n")
    with pytest.raises(BadInputError) as raised:
        take_in(tmp_path, tmp_path / "log", [])
    assert "has the required columns in 1 of 2 files, but not in products.csv: products.csv has no" in str(raised.value)
    assert "Move products.csv elsewhere" in str(raised.value)


def _numbers(column: str, make: Callable[[int], str]) -> dict[str, list[str]]:
    return {column: [make(i) for i in range(200)]}


PROPOSED: list[tuple[dict[str, list[str]], list[str], list[str]]] = [
    (
        _numbers("Order", lambda i: f"{1000 + i}")
        | _numbers("STORE_ID", lambda i: f"S{i % 3}")
        | _numbers("Card", lambda i: f"L{i % 55}")
        | _numbers("Order Date", lambda i: f"2011-06-{i % 28 + 1:02d}")
        | _numbers("Refund Amount", lambda i: f"{i * 0}.00")
        | _numbers("Amount paid", lambda i: f"{i}.25"),
        [
            "customer_id = \"Card\" (such as 'L0')",
            "invoiced_at = \"Order Date\" (such as '2011-06-01')",
            "line_amount = \"Amount paid\" (such as '0.25')",
        ],
        ["Refund", '"STORE'],
    ),
    (
        _numbers("STORE_ID", lambda i: f"S{i % 3}")
        | _numbers("When", lambda i: f"{i % 28 + 1}/6/2011")
        | _numbers("Refund Amount", lambda i: f"{i % 2}.00"),
        ['customer_id = "…"', "invoiced_at = \"When\" (such as '1/6/2011')", 'line_amount = "…"'],
        [],
    ),
    (
        _numbers("nr", lambda i: f"{i % 40}")
        | _numbers("Shipped", lambda i: f"2011-06-{i % 28 + 1:02d}")
        | _numbers("Date", lambda i: f"2011-05-{i % 28 + 1:02d}")
        | _numbers("Tax", lambda i: f"{i * 0 + 1}.25")
        | _numbers("Sales", lambda i: f"{i + 1}.00"),
        ['customer_id = "nr"', 'invoiced_at = "Date"', 'line_amount = "Sales"'],
        [],
    ),
]


@pytest.mark.parametrize(("columns", "lines", "others"), PROPOSED)
def test_columns_are_proposed_by_their_values_with_an_example(
    tmp_path: Path, columns: dict[str, list[str]], lines: list[str], others: list[str]
) -> None:
    pl.DataFrame(columns).write_csv(tmp_path / "log.csv")
    with pytest.raises(BadInputError) as raised:
        read(tmp_path / "log.csv")
    todo = raised.value.todo
    assert [line for line in lines if line not in todo] == [], todo
    assert [other for other in others if other in todo] == [], todo
