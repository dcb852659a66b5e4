"""Sources: a user's files as typed lines with the columns of ``domain.schemas.MAPPED``.

A fault of a whole file is one clear error; a fault of a row stays in the row. Keeping lines is in ``deliveries``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from custseg_assets.domain.transactions.platforms import PRESETS
from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores import formats
from custseg_assets.stores.columns import ColumnMapping, map_columns
from custseg_assets.stores.overlooked import overlooked_columns, refuse_overlooked
from custseg_assets.stores.values import plain_columns, type_lines

Progress = Callable[[str], None]
Stamp = tuple[int, int, int]
SCRATCH_PREFIX = ".reading-"


@dataclass(frozen=True)
class SourceFile:
    """A source that has been read.

    Attributes:
        name: of the file, without its folder.
        mapping: which column is which, and which known export it is.
        sheet: the sheet used, ``""`` where there are none.
        lines: the mapped columns, ``unreadable_values`` (JSON of column → text, or null), ``excluded_by`` and
            ``source_row`` (from 1), in the order of the file.
        notes: what was decided about its lines, in sentences.
    """

    name: str
    mapping: ColumnMapping
    sheet: str
    lines: pl.LazyFrame
    notes: tuple[str, ...] = ()


def list_source_files(path: Path, progress: Progress) -> tuple[Path, ...]:
    """The files of a source, sorted by name: itself, or those of a folder that can be read.

    Args:
        path: a file or a folder; folders in it are not entered.
        progress: is called with the files that are left out.

    Raises:
        BadInputError: there is no such path, or no file that can be read.
    """
    if not path.exists():
        raise BadInputError(f"{path} does not exist", "a file or folder", "Correct --source or [source] path.")
    if path.is_file():
        if not formats.is_accepted(path.name):
            raise BadInputError(f"{path.name}", formats.ACCEPTED, "Export it as one of these, or correct its name.")
        return (path,)
    if not path.is_dir():
        raise BadInputError(
            f"{path} is neither a file nor a folder", "one of them", "Correct --source or [source] path."
        )
    visible = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    left_out = [file.name for file in visible if not formats.is_accepted(file.name)]
    if left_out:
        progress(f"{path.name}: left out {', '.join(left_out)}")
    files = tuple(file for file in visible if formats.is_accepted(file.name))
    if not files:
        raise BadInputError(f"folder {path} has no source in it", formats.ACCEPTED, "Put the exports there.")
    return files


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file is written to or replaced: its inode, size and instant of the last write."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def digest_of(path: Path) -> tuple[str, Stamp]:
    """SHA-256 of a file's bytes, and the file's stamp before they were read.

    Raises:
        BadInputError: it cannot be read.
    """
    with _explain_errors(path), path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        return hashlib.file_digest(file, "sha256").hexdigest(), stamp


@contextlib.contextmanager
def open_source(
    path: Path, settings: SourceSettings, *, progress: Progress, scratch_in: Path | None = None
) -> Iterator[SourceFile]:
    """Open one file as typed lines, which can be collected until the context ends.

    Args:
        path: a csv, tsv, txt, csv.gz, parquet or xlsx file, or a zip with one of them.
        settings: how to read it; what is not set is recognised.
        progress: is called with what was recognised.
        scratch_in: folder for the files that reading a large source needs; the system's by default.

    Raises:
        BadInputError: the file cannot be used; each cause has its own message.
    """
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=scratch_in) as folder:
        with _explain_errors(path):
            source = _read(path, settings, progress, Path(folder))
        yield source


def _read(path: Path, settings: SourceSettings, progress: Progress, scratch: Path) -> SourceFile:
    sheet, table, mapping = _choose_table(path, settings, scratch)
    where = _location(path, sheet)
    return read_table(table, mapping, settings, (path.name, sheet, where), progress, scratch)


def read_table(
    table: formats.RawTable,
    mapping: ColumnMapping,
    settings: SourceSettings,
    place: tuple[str, str, str],
    progress: Progress,
    scratch: Path,
) -> SourceFile:
    """A raw table as a source; its lines can be collected as long as the folder is there.

    Args:
        table: the raw table.
        mapping: which of its headers are mapped.
        settings: how to read it.
        place: name of the source and of its sheet, and what it is called in messages.
        progress: is called with what was recognised.
        scratch: an empty folder.

    Raises:
        BadInputError: it cannot be used.
    """
    name, sheet, where = place
    table = table.repaired()
    positions = {
        column: [str(table.header.index(header)) for header in headers] for column, headers in mapping.sources.items()
    }
    overlooked = overlooked_columns(table, mapping, settings)
    plain = plain_columns(table.lines.collect_schema(), positions, where, mapping.alternatives)
    plain += [column.text() for column in overlooked]
    also = [column.name for column in overlooked]
    typed = type_lines(table.load(plain, scratch, where), mapping, settings, where, also)
    refuse_overlooked(typed.lines, overlooked, where)
    progress(describe_mapping(where, mapping, typed.conventions, table.convention))
    for note in typed.notes:
        progress(f"  {note}")
    return SourceFile(name, mapping, sheet, typed.lines, typed.notes)


def _location(path: Path, sheet: str) -> str:
    return f"{path.name}, sheet {sheet!r}" if sheet else path.name


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInputError(
            f"{error.filename or path}: {error.strerror or error}",
            "a file that can be read",
            "Correct its path or its permissions.",
        ) from None


def _choose_table(path: Path, settings: SourceSettings, scratch: Path) -> tuple[str, formats.RawTable, ColumnMapping]:
    """Choose the table to read: the only one, or the only sheet that has the required columns."""
    usable, refused = [], []
    for sheet, table in formats.open_tables(path, settings, scratch):
        where = _location(path, sheet)
        if not any(table.header):
            refused.append(BadInputError(f"{where} is empty", "a header and data rows", "Export it again."))
            continue
        try:
            usable.append((sheet, table, map_columns(table.header, settings, where)))
        except BadInputError as error:
            refused.append(error)
    if len(usable) == 1:
        return usable[0]
    if not usable:
        # When no sheet fits, the user most likely means the first.
        raise refused[0]
    names = ", ".join(repr(sheet) for sheet, _, _ in usable)
    raise BadInputError(
        f"{path.name} has the required columns in sheets {names}",
        "one sheet",
        f"Set [source] sheet = {usable[0][0]!r}.",
    )


def describe_mapping(where: str, mapping: ColumnMapping, conventions: Mapping[str, str], unusual: str = "") -> str:
    """One line that says which header each mapped column has, and what is unusual about how the file is written.

    Args:
        where: the file.
        mapping: where the columns come from.
        conventions: column of numbers or instants → how they are written, if they are not plain.
        unusual: how the text is written, if not as usual.
    """
    known = f"{PRESETS[mapping.preset].title} export" if mapping.preset else "own columns"
    read = ", ".join(
        (name if name == header else f"{name} from {header!r}")
        + (f" ({conventions[name]})" if name in conventions else "")
        for name, header in mapping.columns.items()
    )
    ignored = f"; ignored {', '.join(map(repr, mapping.ignored))}" if mapping.ignored else ""
    return "; ".join([f"{where}: {known}: {read}{ignored}", *([unusual] if unusual else [])])
