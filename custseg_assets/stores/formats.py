"""File formats: a csv, parquet or xlsx file, plain or packed, as raw tables.

Reading text is in ``texts``. What the columns mean is in ``columns``, and what their values mean in ``values``.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, Literal, cast

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import ALL_SHEETS, SourceSettings
from custseg_assets.stores.headers import N_SEARCHED, Header, find_header
from custseg_assets.stores.raw_table import LARGE, SOURCE_ROW, RawTable, damage_error
from custseg_assets.stores.texts import read_text
from custseg_assets.stores.unpacking import Unpacked, refuse_bomb

Kind = Literal["text", "parquet", "xlsx"]
Packing = Literal["plain", "gzip", "zip"]

_KINDS: dict[str, Kind] = {".csv": "text", ".tsv": "text", ".txt": "text", ".parquet": "parquet", ".xlsx": "xlsx"}
ACCEPTED = ".csv, .tsv or .txt (also with .gz), .parquet, .xlsx, or .zip with some of them"

_CHUNK = 1 << 20
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile)


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


def open_tables(path: Path, settings: SourceSettings, scratch: Path) -> Iterator[tuple[str, RawTable]]:
    """The tables of a file with their names: one, or one per sheet of a workbook and per data file of an archive.

    Args:
        path: the file.
        settings: how to read it.
        scratch: an empty folder that exists as long as the tables are used.

    Raises:
        BadInputError: the file is empty, damaged, not what its name says, or not in the encoding set.
    """
    _refuse_false_name(path)
    packing, kind = packing_of(path.name)
    if packing == "zip":
        yield from _open_archive(path, settings, scratch)
    elif kind == "text":
        yield "", _read_packed_text(path, packing, settings, scratch)
    else:
        yield from _read_binary(path, cast(Kind, kind), settings, path.name)


def _read_packed_text(path: Path, packing: Packing, settings: SourceSettings, scratch: Path) -> RawTable:
    with contextlib.ExitStack() as stack, _explain_damage(path.name):
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
        if packing == "gzip":
            packed = stack.enter_context(gzip.GzipFile(fileobj=stream))
            stream = cast(IO[bytes], Unpacked(packed, path.stat().st_size, path.name))
        return read_text(stream, settings, scratch, path.name)


def _read_binary(path: Path, kind: Kind, settings: SourceSettings, where: str) -> Iterator[tuple[str, RawTable]]:
    if kind == "parquet":
        yield "", _read_parquet(path, where)
    else:
        yield from _read_workbook(path, settings, where)


@contextlib.contextmanager
def _explain_damage(where: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise damage_error(where, str(error)) from None


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


def _open_archive(path: Path, settings: SourceSettings, scratch: Path) -> Iterator[tuple[str, RawTable]]:
    """The tables of an archive's data files, whose names are never used as paths."""
    with contextlib.ExitStack() as stack, _explain_damage(path.name):
        archive = stack.enter_context(zipfile.ZipFile(path))
        members = _members_of(archive, path.name)
        for i, (kind, info) in enumerate(members):
            name = info.filename if len(members) > 1 else ""
            where = f"{path.name}, {name}" if name else path.name
            folder = scratch / f"member_{i}"
            folder.mkdir()
            packed = stack.enter_context(archive.open(info))
            stream = cast(IO[bytes], Unpacked(packed, info.compress_size, where))
            if kind == "text":
                yield name, read_text(stream, settings, folder, where)
                continue
            copy = _copy(stream, folder / f"member.{kind}")
            for sheet, table in _read_binary(copy, kind, settings, where):
                yield ", ".join(filter(None, [name, sheet])), table


def _members_of(archive: zipfile.ZipFile, where: str) -> list[tuple[Kind, zipfile.ZipInfo]]:
    members = [
        (kind, info)
        for info in archive.infolist()
        if not info.is_dir() and not PurePath(info.filename).name.startswith(".") and "__MACOSX/" not in info.filename
        for packing, kind in [packing_of(info.filename)]
        if packing == "plain" and kind is not None
    ]
    if not members:
        raise BadInputError(
            f"{where} has no data file", "a .csv, .tsv, .txt, .parquet or .xlsx in it", "Check what was packed."
        )
    if any(info.flag_bits & 1 for _, info in members):
        raise BadInputError(f"{where} is encrypted", "an archive without a password", "Unpack it and give the file.")
    return members


def _copy(stream: IO[bytes], target: Path) -> Path:
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, _CHUNK)
    return target


def _read_parquet(path: Path, where: str) -> RawTable:
    try:
        scanned = pl.scan_parquet(path, glob=False)
        names = scanned.collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise damage_error(where, str(error).splitlines()[0]) from None
    lines = scanned.select(pl.col(name).alias(str(i)) for i, name in enumerate(names))
    is_large = path.stat().st_size > LARGE["parquet"]
    header = Header(tuple(name.strip() for name in names))
    return RawTable(header, lines.with_row_index(SOURCE_ROW, 1), is_large, form="parquet")


def _read_workbook(path: Path, settings: SourceSettings, where: str) -> Iterator[tuple[str, RawTable]]:
    import fastexcel

    try:
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as parts:
            for part in parts.infolist():
                refuse_bomb(part.compress_size, part.file_size, where)
        workbook = fastexcel.read_excel(path)
        for name in _sheets(workbook.sheet_names, settings, where):
            # Every cell as text: a type guessed from the first cells would make C536379 among numbers null. Rows from
            # the first on, also empty ones, so that their numbers are those of the workbook.
            cells = workbook.load_sheet(name, header_row=None, skip_rows=0, dtypes="string").to_polars()
            first = max(settings.header_row or 1, 1)
            rows = list(enumerate(cells[first - 1 :][:N_SEARCHED].rows(), first))
            header = find_header(rows, settings, len(cells.columns))
            lines = cells[header.row :].rename({old: str(i) for i, old in enumerate(cells.columns)})
            said = header.describe("row")
            rows_of_sheet = lines.lazy().with_row_index(SOURCE_ROW, 1)
            yield f"sheet {name!r}", RawTable(header, rows_of_sheet, convention=said, form="workbook", unit="row")
    except fastexcel.FastExcelError as error:
        raise damage_error(where, str(error).splitlines()[0]) from None


def _sheets(present: list[str], settings: SourceSettings, where: str) -> list[str]:
    """The sheets to look at: those in the settings, or all."""
    if settings.sheet is None or settings.sheet == ALL_SHEETS:
        return present
    wanted = [settings.sheet] if isinstance(settings.sheet, str) else list(settings.sheet)
    if absent := [name for name in wanted if name not in present]:
        raise BadInputError(
            f"{where} has no sheet {absent[0]!r}", f"one of {', '.join(present)}", "Correct [source] sheet."
        )
    return wanted
