"""Text: a csv file of any delimiter, encoding and line ends as one raw table.

It is copied to the scratch folder as UTF-8 with a header of numbers, so that Polars reads every encoding, byte-order
mark and ragged row in one way; ``records`` counts what has to come out.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import shorten
from custseg_assets.stores.headers import N_SEARCHED, Header, find_header
from custseg_assets.stores.quotes import UnusualText
from custseg_assets.stores.raw_table import LARGE, SURPLUS, RawTable, scan_text
from custseg_assets.stores.records import RecordCounter

_CHUNK = 1 << 20
_DELIMITERS = ",;\t|"
_NAMED_DELIMITER = re.compile(r'"?sep=([^\r\n])"?(?:\r\n|\n|\r)', re.IGNORECASE)
"""How Excel is told the delimiter, on a line before all others."""

_N_SURPLUS = 4
"""How many fields beyond the header are kept of a row; further ones are left out."""

_MANY = 10
"""Lines of a value above which the quote that begins it most likely does not belong there."""

_LONGEST_LINE = 200
"""Bytes before and after one that cannot be decoded, in which its line is looked for."""

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte-order marks and their encodings, longer marks before those that they begin with."""


def read_text(stream: IO[bytes], settings: SourceSettings, scratch: Path, where: str) -> RawTable:
    """Read a text as a table.

    Args:
        stream: its bytes.
        settings: encoding, delimiter and header, where they are set.
        scratch: folder for the copy.
        where: the file, for the messages.

    Raises:
        BadInputError: it is not text in the encoding set, or has no first record.
    """
    path = scratch / "text.csv"
    first = stream.read(_CHUNK)
    encoding = _encoding_of(first, settings.encoding)
    chunks = _decode(first, stream, encoding, where)
    text = next(chunks, "")
    top = _find_top(text, settings, where)
    names = [*(str(i) for i in range(len(top.header.names))), *(f"{SURPLUS}_{i}" for i in range(_N_SURPLUS))]
    pieces: Iterator[str] = itertools.chain([text[top.body :]], chunks)
    if has_returns := _ends_lines_with_returns(text, top.record_end):
        pieces = _with_line_feeds(pieces)
    counter = RecordCounter(top.delimiter, len(top.header.names))
    with path.open("wb") as file:
        file.write((top.delimiter.join(names) + "\n").encode())
        for piece in pieces:
            content = piece.encode()
            file.write(content)
            counter.feed(content)
    counter.finish()
    said = [
        f"{encoding.removesuffix('-sig')} by its byte-order mark" if _is_other(encoding, settings.encoding) else "",
        top.header.describe("line"),
        "lines end with carriage returns" if has_returns else "",
    ]
    table = RawTable(
        top.header,
        scan_text(path, names, top.delimiter),
        is_large=path.stat().st_size > LARGE["text"],
        n_records=counter.n_records,
        convention="; ".join(filter(None, said)),
        form=f"text in {encoding.removesuffix('-sig')}, {_name_of(top.delimiter)} between values",
    )
    if counter.fault_line is None:
        return table
    n_before = _n_lines(text[: top.body])
    unusual = UnusualText(path, names, top.delimiter, len(top.header.names), n_before, counter.fault_line, where)
    return replace(table, repair=unusual.repair)


def _name_of(delimiter: str) -> str:
    names = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
    return names.get(delimiter, repr(delimiter))


@dataclass(frozen=True)
class _Record:
    """One of the first records: the number of its first line, its fields, and how many characters end with it."""

    line: int
    fields: list[str]
    end: int


@dataclass(frozen=True)
class _Top:
    """How a text begins.

    Attributes:
        delimiter: what separates its fields.
        header: its header.
        record_end: how many characters there are up to the end of the header, or of the first record without one.
        body: how many there are before the data.
        open_quote: the first line of a record that has more lines than any header, if there is one.
    """

    delimiter: str
    header: Header
    record_end: int
    body: int
    open_quote: int | None


def _find_top(text: str, settings: SourceSettings, where: str) -> _Top:
    named = _NAMED_DELIMITER.match(text)
    start, line = (named.end(), 2) if named else (0, 1)
    if settings.header_row:
        lines = io.StringIO(text, newline="")
        start, line = sum(map(len, itertools.islice(lines, settings.header_row - 1))), settings.header_row
    known = settings.delimiter or (named[1] if named else None)
    tops = [_top_of(text, delimiter, start, line, settings) for delimiter in known or _DELIMITERS]
    found = [top for top in tops if top is not None]
    if not found and settings.header_row:
        raise BadInputError(
            f"{where} has no line {settings.header_row}", "the header there", "Correct [source] header_row."
        )
    if not found:
        raise BadInputError(f"{where} has no header", "a line with column names", "Export it again.")
    best = max(found, key=lambda top: (top.header.is_named, len(top.header.names)))
    if best.open_quote is not None and not best.header.is_named:
        raise BadInputError(
            f"{where}, line {best.open_quote:,}: a quote begins a value that does not end for many lines",
            "quotes around whole values, before the header too",
            f"Close or remove it; or write header_row under [source] in custseg.toml, for example"
            f" {best.open_quote + 1}, if what is before the header may be left out.",
        )
    return best


def _top_of(text: str, delimiter: str, start: int, line: int, settings: SourceSettings) -> _Top | None:
    records = _first_records(text[start:], delimiter, line)
    if not records:
        return None
    full = [record for record in records if any(record.fields)]
    n_columns = Counter(len(record.fields) for record in full).most_common(1)[0][0] if full else 0
    header = find_header([(record.line, record.fields) for record in records], settings, n_columns)
    of_header = next((record for record in records if record.line == header.row), None)
    first = of_header or next(iter(full), _Record(line, [], 0))
    record_end = start + first.end
    # Without a header the data begins with the first line that is not empty.
    body = record_end if header.row else len(text) - len(text[start:].lstrip("\r\n"))
    open_quote = next((one.line for one in records if max(one.fields, key=len, default="").count("\n") > _MANY), None)
    return _Top(delimiter, header, record_end, body, open_quote)


def _first_records(text: str, delimiter: str, line: int) -> list[_Record]:
    n_used = 0

    def lines() -> Iterator[str]:
        nonlocal n_used
        for text_line in io.StringIO(text, newline=""):
            n_used += len(text_line)
            yield text_line

    reader = csv.reader(lines(), delimiter=delimiter)
    records: list[_Record] = []
    n_full = n_lines = 0
    # A quote that is left open makes a field too long; what is before it may be whole.
    with contextlib.suppress(csv.Error):
        for fields in reader:
            records.append(_Record(line + n_lines, fields, n_used))
            n_full, n_lines = n_full + bool(fields), reader.line_num
            if n_full == N_SEARCHED:
                break
    return records


def _ends_lines_with_returns(text: str, end: int) -> bool:
    """Whether a record ends there with a carriage return that no line feed follows."""
    return text[:end].endswith("\r") and not text[end:].lstrip("\r").startswith("\n")


def _with_line_feeds(pieces: Iterable[str]) -> Iterator[str]:
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode("", final=True)


def _n_lines(text: str) -> int:
    return sum(1 for _ in io.StringIO(text, newline=""))


def _encoding_of(first: bytes, encoding: str) -> str:
    """The encoding that a byte-order mark names, or the one in the settings."""
    return next((named for mark, named in _MARKS.items() if first.startswith(mark)), encoding)


def _is_other(encoding: str, configured: str) -> bool:
    return encoding.removesuffix("-sig") != configured.lower().replace("utf8", "utf-8").removesuffix("-sig")


def _decode(chunk: bytes, stream: IO[bytes], encoding: str, where: str) -> Iterator[str]:
    """Decode a stream, piece by piece, from a first piece on."""
    decoder = codecs.getincrementaldecoder(encoding)()
    n_bytes = n_lines = 0
    held = b""
    while True:
        n_held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            at = error.start if isinstance(error, UnicodeDecodeError) else 0
            line = n_lines + chunk[:at].count(b"\n") + 1
            shown = _line_at(held + chunk, len(held) - n_held + at)
            raise _encoding_error(where, encoding, f"byte {n_bytes - n_held + at:,} (line {line:,})", shown) from None
        if "\0" in text:
            raise BadInputError(
                f"{where} holds zero bytes", "text", 'Set [source] encoding, for example "utf-16-le" or "utf-16".'
            )
        yield text
        if not chunk:
            return
        n_bytes, n_lines = n_bytes + len(chunk), n_lines + text.count("\n")
        held, chunk = chunk[-_LONGEST_LINE:], stream.read(_CHUNK)


def _line_at(content: bytes, at: int) -> bytes:
    """The part around a byte of the line that it is in."""
    start = max(content.rfind(b"\n", 0, at) + 1, at - _LONGEST_LINE, 0)
    end = content.find(b"\n", at)
    return content[start : end if end >= 0 else len(content)][: 2 * _LONGEST_LINE].strip()


def _encoding_error(where: str, encoding: str, at: str, line: bytes) -> BadInputError:
    todo = 'Save it as UTF-8, or set [source] encoding, for example "cp1252", "latin-1" or "utf-16".'
    if encoding.startswith("utf-8"):
        todo = (
            f"If {shorten(line.decode('cp1252', errors='replace'))!r} is right for that line, write encoding ="
            ' "cp1252" under [source] in custseg.toml; otherwise save it as UTF-8, or set [source] encoding, for'
            ' example "latin-1" or "utf-16".'
        )
    return BadInputError(f"{where} is not {encoding.removesuffix('-sig')} at {at}", "text in the encoding set", todo)
