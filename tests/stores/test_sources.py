"""Sources: every way a shop may hand over its log, and every way it may be wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xlsxwriter  # type: ignore[import-untyped]  # it publishes no types
from polars.testing import assert_frame_equal

from custseg_assets.domain.schemas import MAPPED, MAPPED_NAMES
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores import raw_table, texts
from custseg_assets.stores.sources import list_source_files, open_source

HEADER = "customer_id,invoiced_at,quantity,unit_price"
GOOD = f"{HEADER}\n17850,2011-06-01 08:26:00,6,2.55\n17850,2011-06-02 09:00:00,-1,3.39\n"


def read(path: Path, told: list[str] | None = None, **settings: Any) -> pl.DataFrame:
    with open_source(
        path,
        SourceSettings(**{"max_unreadable_share": 1, **settings}),
        progress=(told if told is not None else []).append,
    ) as source:
        return source.lines.collect()


def read_text(tmp_path: Path, text: str | bytes, name: str = "log.csv", **settings: Any) -> pl.DataFrame:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, **settings)


def dates(tmp_path: Path, *texts: str, **settings: Any) -> list[datetime | None]:
    rows = "".join(f"1|{text}|5\n" for text in texts)
    return read_text(tmp_path, f"customer_id|invoiced_at|line_amount\n{rows}", **settings)["invoiced_at"].to_list()


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd hh:mm"}) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for i, row in enumerate(rows):
                sheet.write_row(i, 0, row)
    return path


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return path


def test_a_csv_becomes_the_mapped_columns_with_their_types_and_rows(tmp_path: Path) -> None:
    lines = read_text(tmp_path, GOOD)
    expected = {column.name: column.dtype for column in MAPPED} | {
        "unreadable_values": pl.String,
        "excluded_by": pl.String,
        "source_row": pl.Int64,
    }
    assert lines.schema == expected
    assert lines.row(1, named=True) == dict.fromkeys([*MAPPED_NAMES, "unreadable_values", "excluded_by"]) | {
        "customer_id": "17850",
        "invoiced_at": datetime(2011, 6, 2, 9),
        "quantity": -1.0,
        "unit_price": 3.39,
        "source_row": 2,
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_seen_in_the_header(tmp_path: Path, delimiter: str) -> None:
    assert_frame_equal(read_text(tmp_path, GOOD.replace(",", delimiter)), read_text(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("log.txt", lambda text: text),
        ("log.csv.gz", gzip.compress),
        ("LOG.CSV", lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")),
        ("log.csv", lambda text: b"\n" + text + b"\n\n,,,\n"),
    ],
)
def test_packing_line_ends_byte_order_marks_and_empty_rows_make_no_difference(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    assert_frame_equal(read_text(tmp_path, pack(GOOD.encode()), name), read_text(tmp_path, GOOD))


def test_a_zip_with_one_data_file_is_read_whatever_else_is_in_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "log.zip", log__csv=GOOD.encode(), __MACOSX=b"x", README__md=b"x")
    assert_frame_equal(read(path), read_text(tmp_path, GOOD))
    inner = workbook(tmp_path / "log.xlsx", Sheet1=[HEADER.split(","), [17850, datetime(2011, 6, 1, 8, 26), 6, 2.55]])
    assert_frame_equal(
        read(zipped(tmp_path / "b.zip", evil__xlsx=inner.read_bytes())), read_text(tmp_path, GOOD).head(1)
    )


def test_quoted_fields_may_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = f'{HEADER},description\n1,2011-06-01,1,2,"A ""B"", C\nD"\n2,2011-06-02,1,2,E\n'
    assert read_text(tmp_path, text)["description"].to_list() == ['A "B", C\nD', "E"]


def test_a_quote_inside_an_unquoted_field_is_text(tmp_path: Path) -> None:
    text = f'{HEADER},description\n1,2011-06-01,1,2,6" PLATE\n2,2011-06-02,1,2,"X, Y"\n'
    assert read_text(tmp_path, text)["description"].to_list() == ['6" PLATE', "X, Y"]


@pytest.mark.parametrize("settled", [256 << 20, 0], ids=["in memory", "through the disk"])
def test_quotes_that_a_backslash_escapes_are_read_and_said(
    tmp_path: Path, settled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(raw_table.LARGE, "text", settled)
    told: list[str] = []
    path = tmp_path / "log.csv"
    path.write_bytes(
        b"customer_id,description,invoiced_at,line_amount\n"
        b'1,"Frame 10\\"",2011-06-01,1\n2,"Thing",2011-06-02,2\n3,"\\"Frame\\", 9\\"",2011-06-03,3\n'
        b'4,"C:\\\\",2011-06-04,4\n5,"a\\b ""c""",2011-06-05,5\n'
    )
    lines = read(path, told)
    assert lines["description"].to_list() == ['Frame 10"', "Thing", '"Frame", 9"', "C:\\", 'a\\b "c"']
    assert lines["source_row"].to_list() == [1, 2, 3, 4, 5]
    assert told[0].endswith("; quotes escaped by a backslash")


def test_backslashes_in_a_file_with_standard_quotes_are_text(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "log.csv"
    path.write_bytes(f'{HEADER},description\n1,2011-06-01,1,2,"C:\\"\n2,2011-06-02,1,2,"a\\\\b"\n'.encode())
    assert read(path, told)["description"].to_list() == ["C:\\", "a\\\\b"]
    assert "backslash" not in told[0]


@pytest.mark.parametrize("line_end", [b"\r", b"\r\r"])
def test_lines_that_end_with_carriage_returns_are_read_and_said(tmp_path: Path, line_end: bytes) -> None:
    told: list[str] = []
    path = tmp_path / "log.csv"
    path.write_bytes(GOOD.encode().replace(b"\n", line_end))
    lines = read(path, told)
    assert_frame_equal(lines.drop("source_row"), read_text(tmp_path, GOOD).drop("source_row"))
    assert told[0].endswith("; lines end with carriage returns")


def test_carriage_returns_before_a_line_feed_are_part_of_the_line_end(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "log.csv"
    path.write_bytes(GOOD.encode().replace(b"\n", b"\r\r\n"))
    lines = read(path, told)
    assert_frame_equal(lines.drop("source_row"), read_text(tmp_path, GOOD).drop("source_row"))
    assert "carriage" not in told[0]


def test_a_row_that_the_reader_loses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = texts.scan_text
    monkeypatch.setattr(texts, "scan_text", lambda *arguments: scan(*arguments).head(1))
    with pytest.raises(BadInputError, match="has 2 records, but 1 rows were read"):
        read_text(tmp_path, GOOD)


def test_other_encodings_are_read_when_they_are_named(tmp_path: Path) -> None:
    text = f"{HEADER},country\n1,2011-06-01,1,2,Österreich\n"
    for encoding in ("latin-1", "utf-16"):
        assert read_text(tmp_path, text.encode(encoding), encoding=encoding)["country"].to_list() == ["Österreich"]


def test_a_short_row_has_nulls_and_a_long_row_is_kept_as_text(tmp_path: Path) -> None:
    lines = read_text(tmp_path, f"{GOOD}18000,2011-06-03\n18001,2011-06-04,1,2,3,4\n18002,2011-06-05,1,2,\n")
    assert lines["quantity"].to_list() == [6.0, -1.0, None, None, 1.0]
    assert lines["customer_id"].to_list() == ["17850", "17850", "18000", None, "18002"]
    assert json.loads(lines["unreadable_values"][3]) == {
        "customer_id": "18001",
        "invoiced_at": "2011-06-04",
        "quantity": "1",
        "unit_price": "2",
        "beyond the header": "3,4",
    }
    assert lines["unreadable_values"].null_count() == 4


def test_unreadable_values_keep_their_text_and_the_other_rows_do_not_suffer(tmp_path: Path) -> None:
    rows = [
        "1,2011-06-01,6,2.55",
        '2,yesterday,"a ""b""",£3',
        "3,2011-06-31,NaN,1e400",
        "4,9999-12-31,1,2",
        "5,,,",
        "6,2011-06-02,1,1",
    ]
    lines = read_text(tmp_path, "\n".join([HEADER, *rows, *(["7,2011-06-03,1,1"] * 3)]))
    assert [json.loads(text) if text else None for text in lines["unreadable_values"]] == [
        None,
        {"invoiced_at": "yesterday", "quantity": 'a "b"', "unit_price": "£3"},
        {"invoiced_at": "2011-06-31", "quantity": "NaN", "unit_price": "1e400"},
        {"invoiced_at": "9999-12-31"},
        *[None] * 5,
    ]
    assert lines["quantity"].to_list() == [6.0, None, None, 1.0, None, 1.0, 1.0, 1.0, 1.0]
    assert lines["source_row"].to_list() == list(range(1, 10))


def test_points_that_may_be_between_thousands_are_refused_until_the_mark_is_named(tmp_path: Path) -> None:
    text = "customer_id,invoiced_at,line_amount\n1,2011-06-01,1.234\n1,2011-06-01,12\n"
    with pytest.raises(
        BadInputError, match=r"line_amount' is ambiguous: '1\.234' is 1\.234 with a decimal point and 1234"
    ):
        read_text(tmp_path, text)
    assert read_text(tmp_path, text, decimal=".")["line_amount"].to_list() == [1.234, 12.0]
    assert read_text(tmp_path, text, decimal=",")["line_amount"].to_list() == [1234.0, 12.0]
    assert read_text(tmp_path, text.replace("12\n", "0.125\n"))["line_amount"].to_list() == [1.234, 0.125]


def test_how_numbers_are_written_is_said_with_the_columns(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "log.csv"
    path.write_text('customer_id,invoiced_at,line_amount\n1,2011-06-01,"1,234.50"\n')
    assert read(path, told)["line_amount"].to_list() == [1234.5]
    assert told == ["log.csv: own columns: customer_id, invoiced_at, line_amount (decimal point: '1,234.50' is 1234.5)"]


def test_ids_are_text_as_the_shop_writes_it_but_for_spaces_and_float_columns(tmp_path: Path) -> None:
    header = "customer_id,invoice_id,product_id,invoiced_at,line_amount\n"
    lines = read_text(
        tmp_path, header + "17850.0, c1 ,0012,2011-06-01,5\n,536365,1.0,2011-06-01,5\n12.0,,ab,2011-06-01,5\n"
    )
    assert lines["customer_id"].to_list() == ["17850", None, "12"]
    assert lines["invoice_id"].to_list() == ["c1", "536365", None]
    assert lines["product_id"].to_list() == ["0012", "1.0", "ab"]


def test_a_decimal_comma_is_read_when_it_is_named_and_points_are_then_between_thousands(tmp_path: Path) -> None:
    rows = "".join(f"1;17.06.2011;{text}\n" for text in ("2,55", " -3 ", "1.234", "1.5"))
    text = f"customer_id;invoiced_at;line_amount\n{rows}"
    lines = read_text(tmp_path, text, decimal=",")
    assert lines["line_amount"].to_list() == [2.55, -3.0, 1234.0, None]
    assert lines["unreadable_values"][3] == '{"line_amount": "1.5"}'


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (["2011-06-01"], datetime(2011, 6, 1)),
        (["2011-06-01T08:26", "2011-06-01 08:26:30"], datetime(2011, 6, 1, 8, 26)),
        (["2011-06-01T23:30:00.250+02:00", "2011-01-01T23:30:00+01:00"], datetime(2011, 6, 1, 23, 30, 0, 250_000)),
        (["2011/6/1 8:26"], datetime(2011, 6, 1, 8, 26)),
        (["1.6.2011", "17.06.2011 08:00"], datetime(2011, 6, 1)),
        (["1.6.11", "17.6.11"], datetime(2011, 6, 1)),
        (["1/6/2011 8:26", "17/6/2011 8:26"], datetime(2011, 6, 1, 8, 26)),
        (["06-01-2011", "06-17-2011"], datetime(2011, 6, 1)),
        (["6/1/11", "6/17/2011"], datetime(2011, 6, 1)),
        (["6/1/2011 8:26 PM", "6/17/2011 12:05 am"], datetime(2011, 6, 1, 20, 26)),
        (["6/1/2011 8:26:30PM", "6/17/2011"], datetime(2011, 6, 1, 20, 26, 30)),
        (["11/8/2017", "11/28/2017"], datetime(2017, 11, 8)),
    ],
)
def test_dates_are_recognised_from_the_whole_column(tmp_path: Path, texts: list[str], first: datetime) -> None:
    found = dates(tmp_path, *texts)
    assert found[0] == first
    assert None not in found


def test_a_named_date_format_settles_it_with_or_without_a_time(tmp_path: Path) -> None:
    texts = ["11/8/2017", "11/9/2017 08:26"]
    assert dates(tmp_path, *texts, date_format="%d/%m/%Y") == [datetime(2017, 8, 11), datetime(2017, 9, 11, 8, 26)]
    assert dates(tmp_path, *texts, date_format="%m/%d/%Y") == [datetime(2017, 11, 8), datetime(2017, 11, 9, 8, 26)]
    assert dates(tmp_path, "1306916760", date_format="%s") == [datetime(2011, 6, 1, 8, 26)]


def test_the_rarer_style_of_a_mixed_column_is_not_believed(tmp_path: Path) -> None:
    assert dates(tmp_path, "6/13/2011", "6/14/2011", "2011-12-06") == [
        datetime(2011, 6, 13),
        datetime(2011, 6, 14),
        None,
    ]


def test_parquet_keeps_its_types_and_the_clock_of_its_zone(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    moment = datetime(2011, 6, 1, 23, 30, tzinfo=timezone(timedelta(0)))
    frame = pl.DataFrame(
        {
            "source_row": [7, 8],
            "customer_id": [17850.0, None],
            "invoiced_at": pl.Series([moment, moment]).dt.convert_time_zone("Europe/Vienna"),
            "quantity": pl.Series([2, 3], dtype=pl.Int8),
            "unit_price": pl.Series(["2.50", "1.00"]).cast(pl.Decimal(10, 2)),
            "line_amount": [5.0, float("nan")],
            "country": pl.Series(["UK", " "], dtype=pl.Categorical),
        }
    )
    frame.write_parquet(path)
    lines = read(path)
    assert lines["customer_id"].to_list() == ["17850", None]
    assert lines["invoiced_at"].to_list() == [datetime(2011, 6, 2, 1, 30)] * 2
    assert lines["unit_price"].to_list() == [2.5, 1.0]
    assert lines["country"].to_list() == ["UK", None]
    assert lines["unreadable_values"].to_list() == [None, '{"line_amount": "NaN"}']
    assert lines["source_row"].to_list() == [1, 2]
    frame.with_columns(pl.col("invoiced_at").dt.date()).write_parquet(path)
    assert read(path)["invoiced_at"].to_list() == [datetime(2011, 6, 2)] * 2


def test_a_workbook_with_numbers_and_text_in_one_column_keeps_both(tmp_path: Path) -> None:
    header = ["customer_id", "invoice_id", "invoiced_at", "line_amount"]
    moment = datetime(2011, 6, 1, 8, 26)
    rows: list[list[Any]] = [
        [17850, 536365, moment, 2.55],
        ["CG-12520", "C536379", moment, -1],
        [],
        [7, None, "17.6.", 3],
        [8, 1, moment, 1],
    ]
    lines = read(workbook(tmp_path / "log.xlsx", Notes=[["nothing here"]], Log=[header, *rows]))
    assert lines["customer_id"].to_list() == ["17850", "CG-12520", "7", "8"]
    assert lines["invoice_id"].to_list() == ["536365", "C536379", None, "1"]
    assert lines["invoiced_at"].to_list() == [moment, moment, None, moment]
    assert lines["line_amount"].to_list() == [2.55, -1.0, 3.0, 1.0]
    assert lines["source_row"].to_list() == [1, 2, 4, 5]


def test_the_named_sheet_is_read(tmp_path: Path) -> None:
    header, moment = ["customer_id", "invoiced_at", "line_amount"], datetime(2011, 6, 1)
    path = workbook(tmp_path / "log.xlsx", A=[header, [1, moment, 5]], B=[header, [2, moment, 5]])
    assert read(path, sheet="B")["customer_id"].to_list() == ["2"]


def test_columns_are_found_by_setting_then_preset_then_name(tmp_path: Path) -> None:
    text = "Client,Customer_ID,Order Date,Sales,Colour\nCG-12520,x,11/28/2017,261.96,red\n"
    told: list[str] = []
    columns = {"customer_id": "Client", "invoiced_at": "Order Date", "line_amount": "Sales"}
    (tmp_path / "log.csv").write_text(text)
    lines = read(tmp_path / "log.csv", told, columns=columns)
    assert lines.row(0)[:2] == ("CG-12520", datetime(2017, 11, 28))
    (message,) = told
    assert message.startswith("log.csv: own columns: customer_id from 'Client', invoiced_at from 'Order Date'")
    assert message.endswith("; ignored 'Customer_ID', 'Colour'")


def test_a_known_export_is_recognised_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("Invoice,StockCode,Quantity,InvoiceDate,Price,Customer ID\n1,2,3,2011-06-01,5,6\n")
    with open_source(path, SourceSettings(), progress=print) as source:
        assert source.mapping.preset == "online_retail"
        assert source.mapping.columns["unit_price"] == "Price"
    with open_source(
        tmp_path / "log.csv", SourceSettings(columns={"unit_price": "Quantity"}), progress=print
    ) as source:
        assert source.mapping.columns["unit_price"] == "Quantity"


def test_a_large_file_goes_through_the_disk_to_the_same_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ['1,2011-06-01,1,2,6" PLATE', "2,2011-06-02,1,x,", "3,2011-06-03,1,1,2,3", "4,2011-06-03,1,1,E"]
    text = "\n".join([f"{HEADER},description", *rows])
    small = read_text(tmp_path, text)
    monkeypatch.setitem(raw_table.LARGE, "text", 0)
    assert_frame_equal(read_text(tmp_path, text), small)


def test_a_folder_is_its_readable_files_by_name(tmp_path: Path) -> None:
    for name in ("b.csv", "a.parquet", ".hidden.csv", "notes.docx"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    told: list[str] = []
    assert [path.name for path in list_source_files(tmp_path, told.append)] == ["a.parquet", "b.csv"]
    assert told == [f"{tmp_path.name}: left out notes.docx"]
    assert list_source_files(tmp_path / "b.csv", told.append) == (tmp_path / "b.csv",)


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.csv")
    return folder / "pipe.csv"


def _file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).touch()
        return folder / name

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.csv", "none.csv does not exist; expected a file or folder."),
        (_fifo, "pipe.csv is neither a file nor a folder"),
        (_file("log.docx"), "log.docx; expected .csv, .tsv or .txt"),
        (lambda folder: folder, "has no source in it"),
    ],
)
def test_a_path_that_cannot_be_a_source_is_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(BadInputError) as raised:
        list_source_files(make(tmp_path), print)
    assert message in str(raised.value)


def _parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def _encrypted_zip() -> bytes:
    """An archive whose member says that it is encrypted, in its own header and in the list of members."""
    content = bytearray(_zip(log__csv=GOOD.encode()))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    return bytes(content)


def _damaged_zip() -> bytes:
    content = bytearray(_zip(log__csv=GOOD.encode() * 50))
    content[60] ^= 0xFF
    return bytes(content)


def _book(folder: Path, **sheets: list[list[Any]]) -> bytes:
    return workbook(folder / "made.xlsx", **sheets).read_bytes()


SHEET: list[list[Any]] = [["customer_id", "invoiced_at", "line_amount"], [1, date(2011, 6, 1), 5]]
LINES = b"customer_id,invoiced_at,line_amount\n"
NAMED = b"customer_id,description,invoiced_at,line_amount\n"
PARQUET = _parquet(
    customer_id=["1"] * 500, invoiced_at=[date(2011, 6, 1)] * 500, line_amount=[float(i) for i in range(500)]
)
SHIFTED = PARQUET[:4] + bytes(byte ^ 0x55 for byte in PARQUET[4:600]) + PARQUET[600:]

BAD_FILES: dict[str, tuple[str, bytes | Callable[[Path], bytes], dict[str, Any], list[str]]] = {
    "empty": ("log.csv", b"", {}, ["log.csv is empty"]),
    "blank": ("log.csv", b" \n", {}, ["log.csv is empty"]),
    "header only": ("log.csv", HEADER.encode(), {}, ["log.csv has a header and no data"]),
    "header and empty rows": ("log.csv", LINES + b",,\n\n", {}, ["has a header and no data"]),
    "text called parquet": ("log.parquet", GOOD.encode(), {}, ["log.parquet holds text; expected parquet"]),
    "text called gz": ("log.csv.gz", GOOD.encode(), {}, ["holds text; expected gzip-compressed data"]),
    "text called xlsx": ("log.xlsx", GOOD.encode(), {}, ["holds text; expected an Excel workbook"]),
    "text called zip": ("log.zip", GOOD.encode(), {}, ["holds text; expected a zip archive"]),
    "parquet called csv": ("log.csv", PARQUET, {}, ["log.csv holds parquet; expected text"]),
    "gz called csv": ("log.csv", gzip.compress(GOOD.encode()), {}, ["holds gzip-compressed data; expected text"]),
    "workbook called csv": (
        "log.csv",
        lambda folder: _book(folder, A=SHEET),
        {},
        ["holds an Excel workbook; expected text"],
    ),
    "workbook called zip": ("log.zip", lambda folder: _book(folder, A=SHEET), {}, ["holds an Excel workbook"]),
    "zip called xlsx": ("log.xlsx", _zip(log__csv=b"x"), {}, ["holds a zip archive; expected an Excel workbook"]),
    "password": ("log.xlsx", b"\xd0\xcf\x11\xe0" * 200, {}, ["old or password-protected Excel workbook", "Save it as"]),
    "cut-off gz": ("log.csv.gz", gzip.compress(os.urandom(9) + GOOD.encode())[:40], {}, ["damaged or cut off"]),
    "damaged gz": ("log.csv.gz", gzip.compress(GOOD.encode())[:-8] + b"12345678", {}, ["damaged or cut off", "CRC"]),
    "cut-off zip": ("log.zip", _zip(log__csv=GOOD.encode())[:60], {}, ["log.zip is damaged or cut off"]),
    "damaged zip": ("log.zip", _damaged_zip(), {}, ["log.zip is damaged or cut off"]),
    "encrypted zip": ("log.zip", _encrypted_zip(), {}, ["log.zip is encrypted"]),
    "zip without data": ("log.zip", _zip(a__docx=b"x"), {}, ["log.zip has no data file; expected a .csv, .tsv"]),
    "zip with two": ("log.zip", _zip(a__csv=b"x", b__csv=b"y"), {}, ["2 data files (a.csv, b.csv)", "Unpack it"]),
    "cut-off xlsx": ("log.xlsx", lambda folder: _book(folder, A=SHEET)[:2000], {}, ["log.xlsx is damaged or cut off"]),
    "no such sheet": (
        "log.xlsx",
        lambda folder: _book(folder, A=SHEET, B=SHEET),
        {"sheet": "C"},
        ["no sheet 'C'; expected one of A, B."],
    ),
    "two sheets": (
        "log.xlsx",
        lambda folder: _book(folder, A=SHEET, B=SHEET),
        {},
        ["1 of 1 lines of sheet 'B' are in sheet 'A' too", "Set [source] sheet to the one that is the log"],
    ),
    "empty sheet": ("log.xlsx", lambda folder: _book(folder, A=[]), {}, ["log.xlsx, sheet 'A' is empty"]),
    "sheet with header": ("log.xlsx", lambda folder: _book(folder, A=SHEET[:1]), {}, ["has a header and no data"]),
    "cut-off parquet": ("log.parquet", PARQUET[:-50], {}, ["log.parquet is damaged or cut off"]),
    "damaged parquet": ("log.parquet", SHIFTED, {}, ["log.parquet is damaged or cut off"]),
    "lists": (
        "log.parquet",
        _parquet(customer_id=[["1"]], invoiced_at=[date(2011, 6, 1)], line_amount=[1.0]),
        {},
        ["List(String) values for customer_id"],
    ),
    "missing columns": (
        "log.csv",
        b"Row ID,Customer Name,Order Date,Sales\n1,Ann,2011-06-01,4.50\n",
        {},
        [
            "no column for customer_id, invoiced_at, line_amount",
            "(it has 'Row ID', 'Customer Name', 'Order Date', 'Sales')",
            'write customer_id = "Customer Name" (such as \'Ann\') and invoiced_at = "Order Date" (such as \'2011-0',
            "and line_amount = \"Sales\" (such as '4.50'), if that is what they are.",
        ],
    ),
    "missing price": (
        "log.csv",
        b"customer_id,invoiced_at,quantity\n",
        {},
        ["no column for unit_price", 'unit_price = "…".'],
    ),
    "preset does not fit": (
        "log.csv",
        b"InvoiceDate,Price,Quantity\n",
        {"preset": "online_retail"},
        ["for customer_id (it"],
    ),
    "column named wrongly": (
        "log.csv",
        GOOD.encode(),
        {"columns": {"country": "unitprice"}},
        ["no column 'unitprice', which [source.columns] names for country; expected", "nearest being 'unit_price'"],
    ),
    "repeated column": (
        "log.csv",
        b"customer_id,invoiced_at,line_amount,a,a\n",
        {"columns": {"country": "a"}},
        ["more than one column 'a'"],
    ),
    "repeated column in a sheet": (
        "log.xlsx",
        lambda folder: _book(folder, A=[[*SHEET[0], "line_amount"]]),
        {},
        ["more than one column 'line_amount'"],
    ),
    "wrong encoding": (
        "log.csv",
        GOOD.encode() + "1,2011-06-01,5,Österreich".encode("latin-1"),
        {},
        [
            f"is not utf-8 at byte {len(GOOD) + 15:,} (line 4)",
            "If '1,2011-06-01,5,Österreich' is right",
            'encoding = "cp1252"',
        ],
    ),
    "utf-16 without a mark": ("log.csv", GOOD.encode("utf-16-le"), {}, ["log.csv holds zero bytes", '"utf-16"']),
    "open quote": (
        "log.csv",
        LINES + b'1,2011-06-01,5\n"1,2011-06-01,5\n',
        {},
        ["log.csv, line 3:", "quotes", "('\"1,2011-06-01,5')", "doubled inside"],
    ),
    "quotes not doubled": (
        "log.csv",
        NAMED
        + b'\n1,"A",2011-06-01,1\n2,"Frame 10" oak",2011-06-01,2\n3,"B",2011-06-01,3\n4,"F 9" oak",2011-06-01,4\n',
        {},
        ["log.csv, line 4:", """('2,"Frame 10" oak",2011-06-01,2')""", "doubled inside them (RFC 4180)"],
    ),
    "one quote not doubled in a file that escapes them": (
        "log.csv",
        NAMED + b'1,"10\\"",2011-06-01,1\n2,"9\\"",2011-06-01,2\n3,"8" oak",2011-06-01,3\n',
        {},
        ["log.csv, line 4:"],
    ),
    "a value of two lines in a short row among quotes that are not doubled": (
        "log.csv",
        NAMED + b'1,6" a,2011-06-01,1\n2,"b\nc",2011-06-01\n',
        {},
        ["log.csv, line 3:", """('2,"b')"""],
    ),
    "values that begin with a quote": (
        "log.csv",
        NAMED + b'1," plate,2011-06-01,1\n2,6",2011-06-02,2\n',
        {},
        ["log.csv, line 2:", "do not tell where the record ends"],
    ),
    "one line end of another kind": (
        "log.csv",
        LINES + b"1,2011-06-01,5\n1,2011-06-02,5\r1,2011-06-03,5\n",
        {},
        ["log.csv, line 3:", "one kind of line end"],
    ),
    "header too short": (
        "log.csv",
        LINES + b"1,a,2011-06-01,5\n" * 3,
        {},
        ["3 of 3 rows with more fields than the header"],
    ),
    "ambiguous dates": (
        "log.csv",
        LINES + b"1,12/8/2017,5\n1,1/12/2017,5\n",
        {},
        ["column 'invoiced_at' is ambiguous: '1/12/2017' may be", 'date_format = "%d/%m/%Y" or "%m/%d/%Y"'],
    ),
    "contradicting dates": (
        "log.csv",
        LINES + b"1,13/1/2017,5\n1,1/13/2017,5\n",
        {},
        ["'13/1/2017' is day first, like 0 more, but '1/13/2017' is month first, like 0 more"],
    ),
    "short dashed dates": ("log.csv", LINES + b"1,13-01-25,5\n", {}, ["may be day first or year first", '"%y-%m-%d"']),
    "unknown dates": (
        "log.csv",
        LINES + b"1,1 juin 2011,5\n",
        {},
        ["holds '1 juin 2011'; expected dates like 2011-06-17"],
    ),
    "compact dates": ("log.csv", LINES + b"1,110605,5\n", {}, ['date_format = "%y%m%d" or "%d%m%y" or "%m%d%y"']),
    "serial dates": (
        "log.csv",
        LINES + b"1,10695.35,5\n",
        {},
        ["holds '10695.35'", "Excel's day numbers", 'date_format = "excel"'],
    ),
    "epochs": (
        "log.parquet",
        _parquet(customer_id=[1], invoiced_at=[306916760], line_amount=[5]),
        {},
        ["holds '306916760'", 'date_format = "seconds"'],
    ),
    "no dates": ("log.csv", LINES + b"1,,5\n", {}, ["column 'invoiced_at' is empty in every row"]),
    "unbelievable dates": (
        "log.parquet",
        _parquet(customer_id=[1], invoiced_at=[date(1, 1, 1)], line_amount=[5]),
        {},
        ["expected dates from 1970 to 2099"],
    ),
    "format does not fit": (
        "log.csv",
        LINES + b"1,2011-06-01,5\n",
        {"date_format": "%d/%m/%Y"},
        ["holds '2011-06-01'; expected dates like %d/%m/%Y"],
    ),
    "impossible format": (
        "log.csv",
        LINES + b"1,2011-06-01,5\n",
        {"date_format": "%Y-%m-%d %H"},
        ["date_format = '%Y-%m-%d %H'"],
    ),
    "no numbers": (
        "log.csv",
        b"customer_id;invoiced_at;line_amount\n1;2011-06-01;two\n1;2011-06-01;many\n1;2011-06-01;3\n",
        {},
        ["column 'line_amount' holds 'many' and 1 more that are no numbers", "expected numbers such as 1234.5"],
    ),
    "decimal mark in doubt": (
        "log.csv",
        b"customer_id;invoiced_at;line_amount\n1;2011-06-01;1,234\n1;2011-06-01;2,500\n1;2011-06-01;3\n",
        {},
        ["is ambiguous: '1,234' is 1234 with a decimal point and 1.234 with", "it has 2 values", 'decimal = ","'],
    ),
    "several currencies": (
        "log.csv",
        "customer_id;invoiced_at;line_amount\n1;2011-06-01;€ 5\n1;2011-06-01;$ 5\n1;2011-06-01;7 EUR\n".encode(),
        {},
        ["line_amount' holds amounts in several currencies: $ (1), EUR (2)", "Filter the file to one currency"],
    ),
    "too much unreadable": (
        "log.csv",
        LINES + b"1,2011-06-01,5\n" * 98 + b"1,2011-06-01,12 pcs\n1,2011-06-01,5 pcs\n",
        {"max_unreadable_share": 0.01},
        [
            "log.csv: 2 of 100 lines with a customer (2.0%), with about 2.0% of the money",
            "row 99, line_amount '12 pcs'; row 100, line_amount '5 pcs'; expected at most 1.0% of the lines",
            "write max_unreadable_share = 0.02 under [source]",
        ],
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    name, content, settings, fragments = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content(tmp_path))
    with pytest.raises(BadInputError) as raised:
        read(path, **settings)
    message = str(raised.value)
    assert "\n" not in message
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.mkdir()
    with pytest.raises(BadInputError, match="Is a directory"):
        read(path)


def test_the_real_log_is_the_same_from_csv_and_from_the_workbook(real_log: Path, shared: Path) -> None:
    lines = read(real_log)
    assert lines.height == 541_909
    assert lines["customer_id"].null_count() == 135_080
    assert lines["unreadable_values"].null_count() == 541_909
    assert_frame_equal(lines, read(shared / "data" / "Online Retail.xlsx"))
