"""Records: their number is right under every convention, or the file is refused."""

from __future__ import annotations

import csv
import io
import itertools
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.records import RecordCounter
from custseg_assets.stores.sources import open_source


def counted(text: bytes, size: int = 1 << 20) -> tuple[int, int | None]:
    """Records and the line of the first fault, fed in pieces of a size."""
    counter = RecordCounter(",", 3)
    for at in range(0, len(text), size):
        counter.feed(text[at : at + size])
    counter.finish()
    return counter.n_records, counter.fault_line


SOUND = {
    "nothing": (b"", 0),
    "no line end at the end": (b"1,a,2\n2,b,3", 2),
    "windows line ends": (b'1,"a",2\r\n2,b,3\r\n', 2),
    "doubled returns": (b'1,a,2\r\r\n2,b,"3"\r\r\n', 2),
    "empty lines": (b"\n1,a,2\n\n\r\n2,b,3\n\n", 6),
    "all quoted": (b'"1","a","2"\n"2","","3"', 2),
    "doubled quotes": (b'1,"""a"" b",2\n2,"""",3\n3,"c""",4\n', 3),
    "line breaks and delimiters in a value": (b'1,"a\nb\r\nc, d",2\n2,"\n",3\n"","\n\n",', 3),
    "a return in a value": (b'1,a\rb,2\n2,"c\rd",3\n', 2),
    "ragged": (b"1\n2,3,4,5,6\n", 2),
}


@pytest.mark.parametrize("case", SOUND)
def test_records_are_counted_whatever_their_form_and_the_pieces(case: str) -> None:
    text, n_records = SOUND[case]
    assert {counted(text, size) for size in (1, 2, 3, 5, 1000)} == {(n_records, None)}


UNCERTAIN = {
    "escaped by a backslash": (b'1,a,2\n2,"10\\"",3\n3,b,4\n4,"9\\"",5\n', 2),
    "not doubled": (b'1,a,2\n2,"10" oak",3\n3,"b",4\n', 2),
    "after a value of two lines": (b'1,"a\nb",2\n2,"10" oak",3\n', 3),
    "in a value without quotes": (b'1,6" a,2\n2,b,3\n', 1),
    "left open": (b'1,"a",2\n2,"b,3\n3,c,4\n', 2),
    "around whole rows": (b'1,a,2\n2,"b,3\n3,c",4\n', 2),
    "around whole rows and an empty line": (b'1,a,2\n2,"b,3\n\n3,c",4\n', 2),
    "a return after a quote": (b'1,a,2\n2,b,"3"\r3,c\n', 2),
    "a return before a quote": (b'1,a,2\n2,b,3\r"3",c\n', 2),
    "an old line end": (b"1,a,2\n2,b,3\r3,c,4\n", 2),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_the_first_uncertain_record_is_found_whatever_the_pieces(case: str) -> None:
    text, line = UNCERTAIN[case]
    assert {counted(text, size)[1] for size in (1, 2, 3, 5, 1000)} == {line}


def test_a_quote_that_is_left_open_is_found_before_memory_is_full() -> None:
    counter = RecordCounter(",", 3)
    counter.feed(b'1,a,2\n2,"')
    for n_pieces in itertools.count(1):
        counter.feed(b"b" * (1 << 20))
        if counter.fault_line is not None:
            break
        assert n_pieces < 20
    assert counter.fault_line == 2


def test_counts_agree_with_an_independent_reader_of_standard_text() -> None:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.lists(st.text('ab"\n\r, \\', max_size=4), min_size=3, max_size=3), max_size=8),
        st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
        st.sampled_from(["\n", "\r\n"]),
        st.integers(1, 40),
    )
    def check(records: list[list[str]], quoting: int, line_end: str, size: int) -> None:
        text = io.StringIO()
        csv.writer(text, quoting=quoting, lineterminator=line_end).writerows(records)  # type: ignore[arg-type]
        n_records, fault = counted(text.getvalue().encode(), size)
        assert n_records == len(records) or fault is not None
        assert fault is None or any("\n" in value or "\r" in value for record in records for value in record)

    check()


WRITTEN = st.text('ab"\n\r,; \\', max_size=5)
ESCAPES = {"doubled": '""', "backslash": '\\"', "not at all": '"'}


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.tuples(WRITTEN, WRITTEN), min_size=2, max_size=8),
    escape=st.sampled_from(list(ESCAPES)),
    quoted=st.sampled_from(["all", "where needed", "only around delimiters"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
    has_last_end=st.booleans(),
)
def test_every_convention_is_read_to_all_records_or_refused(
    texts: list[tuple[str, str]],
    escape: str,
    quoted: str,
    delimiter: str,
    line_end: str,
    mark: str,
    has_last_end: bool,
) -> None:
    def written(text: str) -> str:
        special = {"all": text, "where needed": '"\r\n' + delimiter, "only around delimiters": "\r\n" + delimiter}[
            quoted
        ]
        is_quoted = quoted == "all" or any(character in text for character in special)
        escaped = text.replace("\\", "\\\\") if escape == "backslash" else text
        return f'"{escaped.replace(chr(34), ESCAPES[escape])}"' if is_quoted else text

    rows = [[written(first), f"c{i}", "2011-06-01", str(i), written(second)] for i, (first, second) in enumerate(texts)]
    header = ["description", "customer_id", "invoiced_at", "line_amount", "country"]
    content = mark + line_end.join(delimiter.join(row) for row in [header, *rows]) + line_end * has_last_end
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_bytes(content.encode())
        try:
            with open_source(path, SourceSettings(), progress=lambda _: None) as source:
                lines = source.lines.collect()
        except BadInputError:
            return
    assert lines.height >= len(rows)
    if escape == "doubled" and quoted != "only around delimiters":
        assert lines["customer_id"].to_list() == [f"c{i}" for i in range(len(rows))]
        assert_texts(lines["description"], [first for first, _ in texts])


def assert_texts(found: pl.Series, texts: list[str]) -> None:
    """Equal but for the kind of line end and for surrounding spaces."""
    plain = [text.replace("\r\n", "\n").replace("\r", "\n").strip() for text in texts]
    assert [(text or "").replace("\r\n", "\n").replace("\r", "\n") for text in found] == plain
