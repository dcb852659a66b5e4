"""Headers: found wherever they are, said, and never guessed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.sources import open_source

HEADER = "customer_id,invoiced_at,line_amount,shop"
ROWS = [f"C{i % 7},2023-07-{i + 1:02d} 10:00,{i}.50,S{i % 2}" for i in range(20)]
BODY = "\n".join(ROWS) + "\n"


def read(path: Path, told: list[str], **settings: Any) -> pl.DataFrame:
    source = SourceSettings(**{"max_unreadable_share": 1, **settings})
    with open_source(path, source, progress=told.append) as opened:
        return opened.lines.collect()


def read_text(tmp_path: Path, text: str | bytes, told: list[str] | None = None, **settings: Any) -> pl.DataFrame:
    path = tmp_path / "log.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, told if told is not None else [], **settings)


def refusal(tmp_path: Path, text: str | bytes, **settings: Any) -> str:
    with pytest.raises(BadInputError) as raised:
        read_text(tmp_path, text, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


BEFORE = {
    "a title": ("Sales by customer\n", 2),
    "a title with delimiters": ('"Sales, all shops",,,\nMain Street, Vienna\n', 3),
    "empty lines": ("\n\nReport\n\n", 5),
    "comments": ("# made 2024-03-01\n#\n", 3),
    "a value of two lines": ('"Sales\nof 2023"\n', 3),
    "pairs": ("Shop:,Main Street\nFrom:,2023-07-01\n", 3),
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("case", BEFORE)
def test_a_header_after_other_lines_is_found_and_said(tmp_path: Path, case: str, line_end: str) -> None:
    before, line = BEFORE[case]
    told: list[str] = []
    lines = read_text(tmp_path, f"{before}{HEADER}\n{BODY}".replace("\n", line_end), told)
    assert lines["line_amount"].to_list() == [i + 0.5 for i in range(20)]
    assert lines["source_row"].to_list() == list(range(1, 21))
    assert f"header on line {line}, after " in told[0]


def test_a_header_is_found_by_the_names_in_the_settings(tmp_path: Path) -> None:
    text = f"Sales by customer\n\nCard,When,Paid,Shop\n{BODY}Total,,190.0,\n"
    columns = {"customer_id": "Card", "invoiced_at": "When", "line_amount": "Paid"}
    lines = read_text(tmp_path, text, columns=columns)
    assert lines.height == 21
    assert lines.row(20, named=True)["customer_id"] == "Total"
    assert lines["invoiced_at"].null_count() == 1


@pytest.mark.parametrize("delimiter", [";", "^", "\t"])
def test_the_first_line_may_name_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    text = f"sep={delimiter}\r\n" + f"{HEADER}\n{BODY}".replace(",", delimiter).replace("\n", "\r\n")
    assert read_text(tmp_path, text)["customer_id"].to_list() == [f"C{i % 7}" for i in range(20)]


def test_rows_as_wide_as_the_header_are_not_left_out_unasked(tmp_path: Path) -> None:
    text = f"a,b,c,d\n1,2,3,4\n{HEADER}\n{BODY}"
    message = refusal(tmp_path, text)
    assert "names the required columns only on line 3, after 2 that are not empty" in message
    assert "line 1: 'a | b | c | d'; line 2: '1 | 2 | 3 | 4'; line 3:" in message
    assert "write header_row = 3 under [source]" in message
    told: list[str] = []
    assert read_text(tmp_path, text, told, header_row=3).height == 20
    assert "header on line 3, as set, and what is before it left out" in told[0]


def test_a_log_without_a_header_is_read_when_that_is_said(tmp_path: Path) -> None:
    message = refusal(tmp_path, BODY)
    assert "log.csv has no header: its first line 'C0 | 2023-07-01 10:00 | 0.50 | S0' has values like those" in message
    assert "header_row = 0" in message
    assert 'invoiced_at = "column_2" (such as \'2023-07-02 10:00\') and line_amount = "column_3"' in message
    columns = {"customer_id": "column_1", "invoiced_at": "column_2", "line_amount": "column_3"}
    told: list[str] = []
    lines = read_text(tmp_path, f"\n{BODY}", told, header_row=0, columns=columns)
    assert lines["line_amount"].to_list() == [i + 0.5 for i in range(20)]
    assert lines["source_row"].to_list() == list(range(1, 21))
    assert "no header, columns are named column_1 to column_4" in told[0]
    crs = read_text(tmp_path, BODY.replace("\n", "\r"), header_row=0, columns=columns)
    assert crs["line_amount"].to_list() == lines["line_amount"].to_list()


@pytest.mark.parametrize(
    ("text", "settings", "fragments"),
    [
        (f"Sales\n{BODY}", {}, ["which line has the column names is not clear (line 1: 'Sales'; line 2: 'C0 |"]),
        (f"{HEADER}\n{BODY}", {"header_row": 99}, ["has no line 99; expected the header there"]),
        (f"\n\n{HEADER}\n{BODY}", {"header_row": 2}, ["has no column names on line 2"]),
        (f'"Sales\n{HEADER}\n{BODY}', {}, ["line 1: a quote begins a value that does not end", "header_row"]),
        (f"{HEADER}\n{BODY}", {"delimiter": "^"}, ["has one column only", "Set [source] delimiter"]),
        ('{"customer_id": 1, "line_amount": 2}\n' * 3, {}, ["looks like JSON: its first line is '{", "Export it as"]),
        (
            f"{HEADER},Customer ID\n{BODY}",
            {},
            ["may be customer_id: 'Customer ID', 'customer_id'", 'customer_id = "Cu'],
        ),
    ],
)
def test_what_is_wrong_with_a_header_is_said(
    tmp_path: Path, text: str, settings: dict[str, Any], fragments: list[str]
) -> None:
    message = refusal(tmp_path, text, **settings)
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_headers_among_the_data_are_left_out_and_counted(tmp_path: Path) -> None:
    told: list[str] = []
    text = f"\ufeff{HEADER}\n{BODY}\ufeff{HEADER}\n{BODY}{HEADER}\n{BODY}"
    lines = read_text(tmp_path, text, told)
    assert lines.height == 60
    assert lines["source_row"].to_list() == [*range(1, 21), *range(22, 42), *range(43, 63)]
    assert "header repeated among the data, left out 2 times" in told[0]


def test_another_table_below_is_not_read_as_the_same(tmp_path: Path) -> None:
    message = refusal(tmp_path, f"{HEADER}\n{BODY}\nRefunds\ncustomer_id,refunded_on,refund,shop\n{BODY}")
    assert "log.csv, row 23 is like the header, but has 'refunded_on' instead of 'invoiced_at'" in message
    assert "Split the file at that row" in message


def test_a_total_with_a_customer_and_a_date_is_refused_until_it_is_left_out(tmp_path: Path) -> None:
    text = f"{HEADER}\n{BODY}Total,2023-07-31,200.0,\n"
    assert read_text(tmp_path, text.replace("2023-07-31", ""))["invoiced_at"].null_count() == 1
    assert read_text(tmp_path, text.replace("200.0", "200.5")).height == 21
    message = refusal(tmp_path, text)
    assert "log.csv, row 21: 200.00 of customer_id 'Total' is the total of the 20 rows before" in message
    lines = read_text(tmp_path, text, filter={"customer_id": {"exclude": ["Total"]}})
    assert lines["excluded_by"].null_count() == 20


def test_columns_that_are_not_read_may_have_the_same_name(tmp_path: Path) -> None:
    text = f"{HEADER},Notes,Notes,,\n" + BODY.replace("\n", ",x,y,,\n")
    assert read_text(tmp_path, text).height == 20


def test_a_byte_order_mark_decides_the_encoding_and_is_said(tmp_path: Path) -> None:
    expected = read_text(tmp_path, f"{HEADER}\n{BODY}")
    for encoding, said in (("utf-16", "utf-16"), ("utf-32", "utf-32")):
        told: list[str] = []
        assert read_text(tmp_path, f"{HEADER}\n{BODY}".encode(encoding), told).equals(expected)
        assert f"{said} by its byte-order mark" in told[0]
    big = b"\xfe\xff" + f"{HEADER}\n{BODY}".encode("utf-16-be")
    assert read_text(tmp_path, big).equals(expected)
    assert read_text(tmp_path, f"\ufeff{HEADER}\n{BODY}", encoding="latin-1").equals(expected)


CELLS = st.text('ab,;|\t"\n #1.é', max_size=6)
TITLES = st.sampled_from(["Sales by customer", "From: 1 July, 2023", "# comment", "", "Shop;Main Street", "a|b"])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    texts=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    order=st.permutations(range(5)),
    is_all_quoted=st.booleans(),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    titles=st.lists(TITLES, max_size=3),
    names_delimiter=st.booleans(),
    n_footers=st.integers(0, 2),
    is_repeated=st.booleans(),
)
def test_a_table_written_in_any_way_has_the_same_cells_or_is_refused(
    texts: list[tuple[str, str]],
    order: list[int],
    is_all_quoted: bool,
    delimiter: str,
    line_end: str,
    encoding: str,
    titles: list[str],
    names_delimiter: bool,
    n_footers: int,
    is_repeated: bool,
) -> None:
    header = ["description", "customer_id", "invoiced_at", "line_amount", "country"]
    rows = [[first, f"c{i}", f"2011-06-{i + 13}", f"{i}.25", second] for i, (first, second) in enumerate(texts)]
    footers = [["Total", "", "", "99.5", ""], ["", "", "", "1", ""]][:n_footers]
    table = [header, *rows, *([header] if is_repeated else []), *rows, *footers]

    def written(text: str) -> str:
        is_quoted = is_all_quoted or any(character in text for character in f'{delimiter}"\r\n')
        return '"' + text.replace('"', '""') + '"' if is_quoted else text

    records = [delimiter.join(written(row[i]) for i in order) for row in table]
    first = [f"sep={delimiter}"] if names_delimiter else []
    content = "".join(line + line_end for line in [*first, *titles, *records])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_bytes(content.encode(encoding))
        try:
            lines = read(path, [])
        except BadInputError:
            return
    sold = lines.filter(pl.col("invoiced_at").is_not_null())
    assert sold["customer_id"].to_list() == [row[1] for row in rows] * 2
    assert sold["line_amount"].to_list() == [float(row[3]) for row in rows] * 2
    for name, i in (("description", 0), ("country", 4)):
        plain = [row[i].replace("\r\n", "\n").strip() or None for row in rows] * 2
        assert sold[name].to_list() == plain
    assert lines.height == len(sold) + n_footers
