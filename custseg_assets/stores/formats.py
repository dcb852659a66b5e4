"""File formats: a csv, parquet or xlsx file, plain or packed, as one raw table.

Text is copied to the scratch folder as UTF-8 with a header of numbers, so that Polars reads every encoding, byte-order
mark and ragged row in one way; ``records`` counts what has to come out. What the columns mean is in ``columns``, and
what their values mean in ``values``.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import IO, Literal, cast

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores.records import RecordCounter

Kind = Literal["text", "parquet", "xlsx"]
Packing = Literal["plain", "gzip", "zip"]

SOURCE_ROW = "source_row"
SURPLUS = "surplus"

_KINDS: dict[str, Kind] = {".csv": "text", ".tsv": "text", ".txt": "text", ".parquet": "parquet", ".xlsx": "xlsx"}
ACCEPTED = ".csv, .tsv or .txt (also with .gz), .parquet, .xlsx, or .zip with one of them"

_CHUNK = 1 << 20
_DELIMITERS = ",;\t|"
_N_SURPLUS = 4
"""How many fields beyond the header are kept of a row; further ones are left out."""

_LARGE = {"text": 256 << 20, "parquet": 32 << 20}
"""Size in bytes above which a table is kept in a scratch file instead of in memory."""

_LONGEST_SHOWN = 80
"""Characters of a line that an error quotes."""

_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class RawTable:
    """A table as the file has it.

    Attributes:
        header: column names without surrounding spaces; an unnamed column is ``""``.
        lines: one column per header, named by its position, with ``source_row`` and, where the format can have them,
            ``surplus``: the fields that a row has beyond the header.
        is_large: whether it is too large for memory.
        n_records: how many rows it must have; ``None`` for formats that say so themselves.
        convention: what is unusual about how the text is written, ``""`` if nothing is.
        repair: makes the same table with the usual quotes, where it cannot be read without.
    """

    header: tuple[str, ...]
    lines: pl.LazyFrame
    is_large: bool = False
    n_records: int | None = None
    convention: str = ""
    repair: Callable[[RawTable], RawTable] | None = None

    def repaired(self) -> RawTable:
        """The table with quotes that leave no record uncertain.

        Raises:
            BadInputError: where a record ends cannot be told.
        """
        return self if self.repair is None else self.repair(self)

    def load(self, columns: Sequence[pl.Expr], scratch: Path, where: str) -> pl.LazyFrame:
        """Read the file once, into memory or a scratch file, so that later reads are cheap and cannot fail.

        Args:
            columns: what to keep of ``lines``; text that comes out empty becomes null.
            scratch: folder that exists as long as the result is used.
            where: the file, for the messages.

        Raises:
            BadInputError: the content is damaged, or there is not a row for every record.
        """
        # A separate step: in one with the trimming, Polars would trim everything twice.
        lines = self.lines.select(columns).with_columns(non_empty(pl.col(pl.String)))
        try:
            if self.is_large:
                path = scratch / "settled.parquet"
                lines.sink_parquet(path, compression="lz4")
                loaded = pl.scan_parquet(path)
            else:
                loaded = lines.collect().lazy()
        except pl.exceptions.PolarsError as error:
            raise _damage_error(where, str(error).splitlines()[0]) from None
        n_rows = loaded.select(pl.len()).collect().item()
        if self.n_records is not None and self.n_records != n_rows:
            raise BadInputError(
                f"{where} has {self.n_records:,} records, but {n_rows:,} rows were read",
                "a row for every record",
                "Export it again in another format, for example as xlsx or parquet.",
            )
        return loaded


def packing_of(name: str) -> tuple[Packing, Kind | None]:
    """How a file of this name is packed and what is in it; ``None`` when the name does not tell.

    >>> packing_of("log.csv.gz"), packing_of("log.zip"), packing_of("log.doc")
    (('gzip', 'text'), ('zip', None), ('plain', None))
    """
    path = PurePath(name.lower())
    if path.suffix == ".zip":
        return "zip", None
    if path.suffix == ".gz":
        kind = _KINDS.get(PurePath(path.stem).suffix)
        return "gzip", kind if kind == "text" else None
    return "plain", _KINDS.get(path.suffix)


def is_accepted(name: str) -> bool:
    """Whether a file of this name can be a source."""
    packing, kind = packing_of(name)
    return packing == "zip" or kind is not None


def non_empty(text: pl.Expr) -> pl.Expr:
    """The text, null where it is empty."""
    # Not ``replace("", None)``: the streaming engine would need the whole column in memory.
    return pl.when(text != "").then(text)


def open_tables(path: Path, settings: SourceSettings, scratch: Path) -> Iterator[tuple[str, RawTable]]:
    """The tables of a file with their names: one, or one per sheet of a workbook when none is named.

    Args:
        path: the file.
        settings: how to read it.
        scratch: an empty folder that exists as long as the tables are used.

    Raises:
        BadInputError: the file is empty, damaged, not what its name says, or not in the encoding set.
    """
    _refuse_false_name(path)
    packing, kind = packing_of(path.name)
    with contextlib.ExitStack() as stack:
        try:
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
            if packing == "zip":
                kind, stream = _open_member(path, stack)
            elif packing == "gzip":
                stream = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=stream)))
            if kind == "text":
                table = _read_text(stream, settings, scratch, path.name)
            elif packing == "zip":
                path = _copy(stream, scratch / f"member.{kind}")
        except _DAMAGE as error:
            raise _damage_error(path.name, str(error)) from None
    if kind == "text":
        yield "", table
    elif kind == "parquet":
        yield "", _read_parquet(path)
    else:
        yield from _read_workbook(path, settings)


def _damage_error(where: str, reason: str) -> BadInputError:
    return BadInputError(f"{where} is damaged or cut off ({reason})", "a whole file", "Fetch or export it again.")


def _refuse_false_name(path: Path) -> None:
    """Refuse a file that is empty, or whose first bytes are not those of the format in its name."""
    if path.stat().st_size == 0:
        raise BadInputError(f"{path.name} is empty", "a header and data rows", "Export it again.")
    packing, kind = packing_of(path.name)
    promised = {"gzip": "gzip", "zip": "zip", "plain": str(kind)}[packing]
    found = _format_of(path)
    if found != promised:
        raise BadInputError(
            f"{path.name} holds {_FORMAT_NAMES[found]}",
            f"{_FORMAT_NAMES[promised]}, as the name says",
            "Save it as .xlsx or .csv." if found == "ole" else "Correct the name, or export it again.",
        )


_FORMAT_NAMES = {
    "gzip": "gzip-compressed data",
    "zip": "a zip archive",
    "xlsx": "an Excel workbook",
    "ole": "an old or password-protected Excel workbook",
    "parquet": "parquet",
    "text": "text",
}

_FIRST_BYTES = {b"\x1f\x8b": "gzip", b"PAR1": "parquet", b"\xd0\xcf\x11\xe0": "ole"}


def _format_of(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK"):
        # A truncated archive has no list of members that would show a workbook, so the name decides.
        if not zipfile.is_zipfile(path):
            return "xlsx" if path.suffix.lower() == ".xlsx" else "zip"
        with zipfile.ZipFile(path) as archive:
            return "xlsx" if "[Content_Types].xml" in archive.namelist() else "zip"
    return next((kind for first, kind in _FIRST_BYTES.items() if start.startswith(first)), "text")


def _open_member(path: Path, stack: contextlib.ExitStack) -> tuple[Kind, IO[bytes]]:
    """Open the one data file of an archive as a stream: its name is never used as a path."""
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = [
        (kind, info)
        for info in archive.infolist()
        if not info.is_dir() and not PurePath(info.filename).name.startswith(".") and "__MACOSX/" not in info.filename
        for packing, kind in [packing_of(info.filename)]
        if packing == "plain" and kind is not None
    ]
    if len(members) != 1:
        names = ", ".join(info.filename for _, info in members)
        raise BadInputError(
            f"{path.name} has {f'{len(members)} data files ({names})' if members else 'no data file'}",
            "exactly one .csv, .tsv, .txt, .parquet or .xlsx in it",
            "Unpack it and give the folder." if members else "Check what was packed.",
        )
    kind, info = members[0]
    if info.flag_bits & 1:
        raise BadInputError(
            f"{path.name} is encrypted", "an archive without a password", "Unpack it and give the file."
        )
    return kind, stack.enter_context(archive.open(info))


def _copy(stream: IO[bytes], target: Path) -> Path:
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, _CHUNK)
    return target


def _read_parquet(path: Path) -> RawTable:
    try:
        names = pl.scan_parquet(path).collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise _damage_error(path.name, str(error).splitlines()[0]) from None
    lines = pl.scan_parquet(path).select(pl.col(name).alias(str(i)) for i, name in enumerate(names))
    is_large = path.stat().st_size > _LARGE["parquet"]
    return RawTable(tuple(name.strip() for name in names), lines.with_row_index(SOURCE_ROW, 1), is_large)


def _read_workbook(path: Path, settings: SourceSettings) -> Iterator[tuple[str, RawTable]]:
    import fastexcel

    try:
        workbook = fastexcel.read_excel(path)
        if settings.sheet is not None and settings.sheet not in workbook.sheet_names:
            raise BadInputError(
                f"{path.name} has no sheet {settings.sheet!r}",
                f"one of {', '.join(workbook.sheet_names)}",
                "Correct [source] sheet.",
            )
        for name in [settings.sheet] if settings.sheet else workbook.sheet_names:
            # Every cell as text: a type guessed from the first cells would make C536379 among numbers null.
            cells = workbook.load_sheet(name, header_row=None, dtypes="string").to_polars()
            header = tuple((cell or "").strip() for cell in cells.row(0)) if cells.height else ()
            lines = cells[1:].rename({old: str(i) for i, old in enumerate(cells.columns)})
            yield name, RawTable(header, lines.lazy().with_row_index(SOURCE_ROW, 1))
    except fastexcel.FastExcelError as error:
        raise _damage_error(path.name, str(error).splitlines()[0]) from None


def _read_text(stream: IO[bytes], settings: SourceSettings, scratch: Path, where: str) -> RawTable:
    path = scratch / "text.csv"
    chunks = _decode(stream, settings.encoding, where)
    text = next(chunks, "")
    start = text.lstrip("\r\n")
    delimiter = settings.delimiter or _find_delimiter(start)
    try:
        header, length = _header_of(start, delimiter)
    except (csv.Error, StopIteration):
        raise BadInputError(f"{where} has no header", "a first line with column names", "Export it again.") from None
    names = [*(str(i) for i in range(len(header))), *(f"{SURPLUS}_{i}" for i in range(_N_SURPLUS))]
    pieces: Iterator[str] = itertools.chain([start[length:]], chunks)
    if has_returns := _ends_lines_with_returns(start, length):
        pieces = _with_line_feeds(pieces)
    counter = RecordCounter(delimiter, len(header))
    with path.open("wb") as file:
        file.write((delimiter.join(names) + "\n").encode())
        for piece in pieces:
            content = piece.encode()
            file.write(content)
            counter.feed(content)
    counter.finish()
    table = RawTable(
        header,
        _scan(path, names, delimiter),
        is_large=path.stat().st_size > _LARGE["text"],
        n_records=counter.n_records,
        convention="lines end with carriage returns" if has_returns else "",
    )
    if counter.fault_line is None:
        return table
    n_before = _n_lines(text[: len(text) - len(start) + length])
    unusual = _UnusualText(path, names, delimiter, len(header), n_before, counter.fault_line, where)
    return replace(table, repair=unusual.repair)


def _ends_lines_with_returns(start: str, length: int) -> bool:
    """Whether the header ends with a carriage return that no line feed follows."""
    return start[:length].endswith("\r") and not start[length:].lstrip("\r").startswith("\n")


def _with_line_feeds(pieces: Iterable[str]) -> Iterator[str]:
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode("", final=True)


def _n_lines(text: str) -> int:
    return sum(1 for _ in io.StringIO(text, newline=""))


def _scan(path: Path, names: Sequence[str], delimiter: str) -> pl.LazyFrame:
    surplus = [name for name in names if name.startswith(SURPLUS)]
    joined = pl.concat_str(surplus, separator=delimiter, ignore_nulls=True).str.strip_chars()
    return pl.scan_csv(
        path,
        separator=delimiter,
        schema=dict.fromkeys(names, pl.String),
        truncate_ragged_lines=True,
        row_index_name=SOURCE_ROW,
        row_index_offset=1,
    ).with_columns(non_empty(joined).alias(SURPLUS))


def _decode(stream: IO[bytes], encoding: str, where: str) -> Iterator[str]:
    """Decode a stream, piece by piece."""
    try:
        is_utf_8 = codecs.lookup(encoding).name == "utf-8"
        decoder = codecs.getincrementaldecoder("utf-8-sig" if is_utf_8 else encoding)()
    except LookupError:
        raise BadInputError(
            f"[source] encoding = {encoding!r}", "the name of a text encoding", 'Write "utf-8", "latin-1" or "cp1252".'
        ) from None
    n_bytes = n_lines = 0
    while True:
        chunk = stream.read(_CHUNK)
        n_held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            at = error.start if isinstance(error, UnicodeDecodeError) else 0
            n_lines += chunk[:at].count(b"\n") + 1
            raise BadInputError(
                f"{where} is not {encoding} at byte {n_bytes - n_held + at:,} (line {n_lines:,})",
                "text in the encoding set",
                'Save it as UTF-8, or set [source] encoding, for example "latin-1" or "utf-16".',
            ) from None
        if "\0" in text:
            raise BadInputError(f"{where} holds zero bytes", "text", 'Set [source] encoding, for example "utf-16".')
        yield text
        if not chunk:
            return
        n_bytes, n_lines = n_bytes + len(chunk), n_lines + text.count("\n")


def _find_delimiter(start: str) -> str:
    """The delimiter that splits the header into most names."""

    def n_names(delimiter: str) -> int:
        with contextlib.suppress(csv.Error, StopIteration):
            return len(_header_of(start, delimiter)[0])
        return 0

    return max(_DELIMITERS, key=n_names)


def _header_of(start: str, delimiter: str) -> tuple[tuple[str, ...], int]:
    """The names in the first record and its length in characters; a name may be quoted and hold line breaks."""
    reader = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
    header = tuple(name.strip() for name in next(reader))
    used = itertools.islice(io.StringIO(start, newline=""), reader.line_num)
    return header, sum(len(line) for line in used)


_ESCAPED = re.compile(rb'\\(["\\])')


class _UncertainRecordError(Exception):
    """Where a record ends cannot be told; the argument is its line after the header, from 1."""


@dataclass(frozen=True)
class _UnusualText:
    """A text file, with a header of numbers, whose quotes are not all as RFC 4180 has them.

    Attributes:
        path: the file.
        names: of its columns.
        delimiter: what separates fields.
        n_fields: of its own header.
        n_before: lines of the original up to the end of its header.
        fault_line: line after the header, from 1, at which the first record begins whose end is not certain.
        where: the original, for the messages.
    """

    path: Path
    names: Sequence[str]
    delimiter: str
    n_fields: int
    n_before: int
    fault_line: int
    where: str

    def repair(self, table: RawTable) -> RawTable:
        """The table by the first known convention that leaves no record uncertain.

        Raises:
            BadInputError: there is none.
        """
        target = self.path.with_name("repaired.csv")
        last_fault = self.fault_line
        conventions = {
            "quotes escaped by a backslash": self._unescape_quotes,
            "quotes inside values that have none around them": self._quote_whole_values,
        }
        for convention, rewrite in conventions.items():
            try:
                with self.path.open("rb") as file, target.open("wb") as repaired:
                    repaired.write(next(file))
                    repaired.writelines(rewrite(file))
                n_records = self._count(target)
            except _UncertainRecordError as error:
                last_fault = max(last_fault, error.args[0])
                continue
            lines = _scan(target, self.names, self.delimiter)
            said = "; ".join(filter(None, [table.convention, convention]))
            return replace(table, lines=lines, n_records=n_records, convention=said, repair=None)
        raise BadInputError(
            f"{self.where}, line {self.n_before + last_fault:,}: quotes and line ends do not tell where the record ends"
            f" ({self._text_at(last_fault)})",
            "one kind of line end, and quotes only around whole values and doubled inside them (RFC 4180)",
            "Correct this line and those like it, or export again, for example as xlsx or parquet.",
        )

    def _count(self, path: Path) -> int:
        counter = RecordCounter(self.delimiter, self.n_fields)
        with path.open("rb") as file:
            next(file)
            for piece in iter(lambda: file.read(_CHUNK), b""):
                counter.feed(piece)
        counter.finish()
        if counter.fault_line is not None:
            raise _UncertainRecordError(counter.fault_line)
        return counter.n_records

    def _text_at(self, line: int) -> str:
        with self.path.open("rb") as file:
            text = next(itertools.islice(file, line, None), b"").decode().strip()
        return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")

    def _unescape_quotes(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Double the quotes that a backslash escapes; other backslashes are text, but for those that escape one."""
        for line in lines:
            yield _ESCAPED.sub(lambda found: b'""' if found[1] == b'"' else b"\\", line)

    def _quote_whole_values(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Write ``6" plate`` without quotes around it as ``"6"" plate"``."""
        reader = csv.reader((line.decode() for line in lines), delimiter=self.delimiter, strict=True)
        line = 0
        try:
            for record in reader:
                # Over several lines and of another length than the header, it is more likely several records.
                if reader.line_num > line + 1 and len(record) != self.n_fields:
                    break
                row = io.StringIO()
                csv.writer(row, delimiter=self.delimiter, lineterminator="\n").writerow(record)
                yield row.getvalue().encode()
                line = reader.line_num
            else:
                return
        except csv.Error:
            pass
        raise _UncertainRecordError(line + 1)
