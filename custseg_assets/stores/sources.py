"""Sources: a user's files as typed lines with the columns of ``domain.schemas.MAPPED``.

A fault of a whole file is one clear error; a fault of a row stays in the row. Keeping lines is in ``deliveries``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from custseg_assets.domain.transactions.platforms import PRESETS
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores import formats
from custseg_assets.stores.choice import ChosenTable, choose_tables
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.joining import exclude_repeats, join_parts, leave_out_headers
from custseg_assets.stores.machine import machine_fault
from custseg_assets.stores.overlooked import OverlookedColumn, find_overlooked, refuse_overlooked
from custseg_assets.stores.totals import refuse_totals
from custseg_assets.stores.values import plain_columns, type_lines

Progress = Callable[[str], None]
Stamp = tuple[int, int, int]
SCRATCH_PREFIX = ".reading-"
_N_IGNORED = 4
"""Ignored columns that are named, where there are more."""
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile:
    """A source that has been read.

    Attributes:
        name: of the file, without its folder.
        mapping: which column is which, and which known export it is.
        sheet: the sheets or members used, ``""`` where there is one table.
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
        path: a file or a folder; of the folders in it only those named ``key=value`` are entered, or all where it has
            no files itself.
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
    files, left_out = _files_in(path)
    if not files:
        files, left_out = _files_below(path), []
    if left_out:
        mark = "! " if any(name.startswith("folder ") for name in left_out) else ""
        progress(f"{mark}{path.name}: left out {', '.join(left_out)}")
    if keys := sorted({key for file in files for key in keys_of(file, path)}):
        progress(f"{path.name}: {len(files)} files; {', '.join(keys)} are taken from the names of their folders")
    if not files:
        nested = f"; it left out {', '.join(left_out)}" if left_out else ""
        raise BadInputError(
            f"folder {path} has no source in it{nested}",
            formats.ACCEPTED,
            "Put the exports there, or give the folder that has them.",
        )
    return files


def _files_in(folder: Path) -> tuple[tuple[Path, ...], list[str]]:
    """The files of a folder that can be read, sorted, and the names of others; hidden ones are in neither."""
    files: list[Path] = []
    left_out = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file():
            if formats.is_accepted(path.name):
                files.append(path)
            else:
                left_out.append(path.name)
        elif path.is_dir() and "=" in path.name:
            inner, inner_left_out = _files_in(path)
            files.extend(inner)
            left_out.extend(f"{path.name}/{name}" for name in inner_left_out)
        elif path.is_dir() and (n_inside := sum(formats.is_accepted(one.name) for one in path.rglob("*"))):
            left_out.append(f"folder {path.name} ({n_inside:,} with data)")
    return tuple(files), left_out


def _files_below(folder: Path) -> tuple[Path, ...]:
    """The files of all folders in a folder that has none itself, such as one folder a month."""
    return tuple(
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and formats.is_accepted(path.name)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def keys_of(file: Path, source: Path) -> dict[str, str | None]:
    """Columns and values in the names of the folders between a source and its file, as Hive and Spark write them.

    >>> keys_of(Path("log/year=2011/shop=Main%20Street/part-0.parquet"), Path("log"))
    {'year': '2011', 'shop': 'Main Street'}
    """
    folders = file.relative_to(source).parts[:-1] if file != source else ()
    pairs = (folder.split("=", maxsplit=1) for folder in folders if "=" in folder)
    return {unquote(key): None if value == _HIVE_NULL else unquote(value) for key, value in pairs}


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file is written to or replaced: its inode, size and instant of the last write."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def digest_of(path: Path) -> tuple[str, Stamp]:
    """SHA-256 of a file's bytes, and the file's stamp before they were read.

    Raises:
        BadInputError: it cannot be read.
        MachineFaultError: this machine cannot read it now.
    """
    with _explain_errors(path), path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        return hashlib.file_digest(file, "sha256").hexdigest(), stamp


@contextlib.contextmanager
def open_source(
    path: Path,
    settings: SourceSettings,
    *,
    progress: Progress,
    scratch_in: Path | None = None,
    keys: Mapping[str, str | None] | None = None,
) -> Iterator[SourceFile]:
    """Open one file as typed lines, which can be collected until the context ends.

    Args:
        path: a csv, tsv, txt, csv.gz, parquet or xlsx file, or a zip with one of them.
        settings: how to read it; what is not set is recognised.
        progress: is called with what was recognised.
        scratch_in: folder for the files that reading a large source needs; the system's by default.
        keys: columns that have one value in all rows, as ``keys_of`` finds them.

    Raises:
        BadInputError: the file cannot be used; each cause has its own message.
    """
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=scratch_in) as folder:
        with _explain_errors(path):
            source = _read(path, settings, progress, Path(folder), keys or {})
        yield source


def _read(
    path: Path, settings: SourceSettings, progress: Progress, scratch: Path, keys: Mapping[str, str | None]
) -> SourceFile:
    chosen, left_out = choose_tables(path, settings, scratch, keys)
    return read_chosen(chosen, path.name, settings, progress, scratch, left_out)


def read_chosen(
    chosen: Sequence[ChosenTable],
    name: str,
    settings: SourceSettings,
    progress: Progress,
    scratch: Path,
    left_out: Sequence[str] = (),
) -> SourceFile:
    """Tables as one source; its lines can be collected as long as the folder is there.

    Args:
        chosen: the tables.
        name: of the source.
        settings: how to read it.
        progress: is called with what was recognised.
        scratch: a folder for what is not kept in memory.
        left_out: names of other tables, for the message.

    Raises:
        BadInputError: they cannot be used.
    """
    # Before anything is read of them: their quotes decide where values are.
    chosen = [replace(one, table=one.table.repaired()) for one in chosen]
    overlooked = find_overlooked([(one.table, one.mapping) for one in chosen], settings)
    parts = [_load(one, overlooked, scratch, i) for i, one in enumerate(chosen)]
    mapping = chosen[0].mapping
    where = chosen[0].where if len(chosen) == 1 else name
    joined = join_parts([(one.name, part.lines) for one, part in zip(chosen, parts, strict=True)], where)
    typed = type_lines(joined.lines, mapping, settings, where, [column.name for column in overlooked])
    refuse_overlooked(typed.lines, overlooked, where)
    lines, n_again = exclude_repeats(typed.lines, joined, settings, where)
    for one in joined.split(lines):
        refuse_totals(one, mapping, where)
    unusual = [text for part in parts for text in part.unusual] + [joined.describe()]
    if n_again:
        unusual.append(f"{n_again:,} lines are in several of them, and count once")
    if left_out:
        unusual.append(f"left out {', '.join(left_out)}, without the required columns")
    progress(describe_mapping(where, mapping, typed.conventions, "; ".join(dict.fromkeys(filter(None, unusual)))))
    for note in typed.notes:
        progress(f"  {note}")
    return SourceFile(name, mapping, ", ".join(one.name for one in chosen), lines, typed.notes)


@dataclass(frozen=True)
class _Part:
    """The mapped columns of a table in memory or a scratch file, and what is unusual about it."""

    lines: pl.LazyFrame
    unusual: tuple[str, ...]


def _load(chosen: ChosenTable, overlooked: Sequence[OverlookedColumn], scratch: Path, i: int) -> _Part:
    table = chosen.table
    names = table.header.names
    positions = {name: [str(names.index(one)) for one in each] for name, each in chosen.mapping.sources.items()}
    plain = plain_columns(table.lines.collect_schema(), positions, chosen.where, chosen.mapping.alternatives)
    plain += [column.text_in(table) for column in overlooked]
    folder = scratch / f"table_{i}"
    folder.mkdir()
    lines, n_repeated = leave_out_headers(table.load(plain, folder, chosen.where), chosen.mapping, chosen.where)
    repeated = f"header repeated among the data, left out {n_repeated:,} times" if n_repeated else ""
    return _Part(lines, tuple(filter(None, [table.convention, repeated])))


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            # Not the file that is read, but what it unpacks to.
            raise
        if fault := machine_fault(error, f"reading {path.name}", is_denial_one=False):
            raise fault from None
        raise BadInputError(
            f"{error.filename or path}: {error.strerror or error}",
            "a file that can be read",
            "Correct its path or its permissions.",
        ) from None


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
    return "; ".join(filter(None, [f"{where}: {known}: {read}", _describe_ignored(mapping.ignored), unusual]))


def _describe_ignored(headers: Sequence[str]) -> str:
    shown = ", ".join(map(repr, headers[:_N_IGNORED]))
    if len(headers) > _N_IGNORED:
        return f"ignored {len(headers)} columns, such as {shown}"
    return f"ignored {shown}" if headers else ""
