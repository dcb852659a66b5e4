"""Several tables as one source: ``[source] query`` runs on the given files, each of which is a table of the query's.

Files are read as any other source is, so text stays text and what its values mean is decided afterwards, from the
answer. The query runs in DuckDB, which sees these tables, no other file and no network.
"""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores import formats
from custseg_assets.stores.choice import ChosenTable
from custseg_assets.stores.deliveries import DeliveryStore, StillWrittenError, identity_of
from custseg_assets.stores.delivery import Delivery
from custseg_assets.stores.raw_table import SOURCE_ROW, SURPLUS, RawTable
from custseg_assets.stores.sources import Progress, SourceFile, digest_of, list_source_files, read_chosen, stamp_of
from custseg_assets.stores.sql_addresses import SqlAddress
from custseg_assets.stores.sql_databases import require_driver
from custseg_assets.stores.sql_files import DuckDb
from custseg_assets.stores.sql_rows import download, query_for, raw_table, select_columns

_READER = 1
"""Version of this reader; another version reads everything anew."""

_WHERE = "[source] query"


def accept_query(deliveries: DeliveryStore, path: Path, settings: SourceSettings, progress: Progress) -> Delivery:
    """Read what the query answers on the files into the store of deliveries, unless it is there already.

    Args:
        deliveries: the store.
        path: a file, a folder of files or a zip of files.
        settings: the query, and how the files are read.
        progress: is called with the tables and the mapping.

    Raises:
        BadInputError: a file cannot be read, or the query fails.
    """
    query = settings.query or ""
    require_driver(DuckDb.driver, "several tables with [source] query")
    found = {file: digest_of(file) for file in list_source_files(path, progress)}
    digests = [[file.name, digest] for file, (digest, _) in found.items()]

    def read(scratch: Path) -> SourceFile:
        source = _read(tuple(found), query, settings, progress, scratch)
        for file, (_, stamp) in found.items():
            # All files have been read completely; the id is right only if the same bytes were digested.
            if not file.exists() or stamp_of(file.stat()) != stamp:
                raise StillWrittenError(file.name)
        return source

    identity = json.dumps([_READER, query, identity_of(settings), digests], sort_keys=True)
    return deliveries.accept_lines(f"query on {path.name}", identity, read)


def _read(
    files: tuple[Path, ...], query: str, settings: SourceSettings, progress: Progress, scratch: Path
) -> SourceFile:
    tables = _tables_of(files, settings, scratch)
    names = ", ".join(tables)
    progress(f"{_WHERE}: the tables are {names}")
    answer = scratch / "answer.parquet"
    with contextlib.closing(_open_tables(tables, scratch)) as database:
        database.where, database.readable = _WHERE, f"a query of the tables {names}"
        _refuse_other_statements(database, query)
        relation = database.relation(None, query)
        header = database.header_of(relation)
        selection = replace(select_columns(header, relation, settings, _WHERE), header=header)
        n_rows = download(database.read(query_for(database, selection)), answer)
    if not n_rows:
        raise BadInputError(f"{_WHERE} answers without a row", "data rows", "Correct the query.")
    folder = scratch / "typed"
    folder.mkdir()
    table = ChosenTable("", _WHERE, raw_table(answer, selection), selection.mapping)
    return read_chosen([table], "", settings, progress, folder)


def _open_tables(tables: Mapping[str, Path], scratch: Path) -> DuckDb:
    """DuckDB with these tables, which can read nothing else."""
    import duckdb
    from pyarrow import dataset, fs

    connection = duckdb.connect(":memory:", config={**DuckDb.locked, "temp_directory": str(scratch / "spill")})
    for name, file in tables.items():
        # Not by DuckDB's own reader, to which [, * and ? in a folder's name are patterns.
        connection.register(name, dataset.dataset(str(file), format="parquet", filesystem=fs.LocalFileSystem()))
    connection.execute("SET enable_external_access = false")
    return DuckDb(SqlAddress("duckdb", "", "", None, "", {}), connection=connection)


def _refuse_other_statements(database: DuckDb, query: str) -> None:
    kinds = database.statements_of(query)
    if kinds != ["SELECT"]:
        raise BadInputError(f"{_WHERE} has {', '.join(kinds) or 'no statement'}", "one SELECT", "Correct the query.")


def _tables_of(files: tuple[Path, ...], settings: SourceSettings, scratch: Path) -> dict[str, Path]:
    """Name of each table → Parquet file with its rows."""
    tables: dict[str, Path] = {}
    came_from: dict[str, str] = {}
    for number, (name, where, table) in enumerate(_raw_tables(files, settings, scratch)):
        if other := came_from.get(name.lower()):
            raise BadInputError(
                f"{other} and {where} would both be the table {name!r}", "different names", "Rename one of them."
            )
        came_from[name.lower()] = where
        tables[name] = _write(table, where, scratch / f"table-{number}")
    return tables


def _raw_tables(
    files: tuple[Path, ...], settings: SourceSettings, scratch: Path
) -> Iterator[tuple[str, str, RawTable]]:
    """Name, place and content of each table; a workbook with several sheets has one for each."""
    for number, file in enumerate(_unpacked(files, scratch)):
        folder = scratch / f"file-{number}"
        folder.mkdir()
        sheets = [
            (sheet, table) for sheet, table in formats.open_tables(file, settings, folder) if any(table.header.names)
        ]
        for sheet, table in sheets:
            is_one = len(sheets) == 1
            where = file.name if is_one else f"{file.name}, {sheet}"
            # A sheet is given as it stands in messages: "sheet 'orders'".
            own = ast.literal_eval(sheet.removeprefix("sheet ")) if sheet else ""
            yield (PurePath(file.name.removesuffix(".gz")).stem if is_one else own), where, table


def _unpacked(files: tuple[Path, ...], scratch: Path) -> Iterator[Path]:
    """The files, with those of an archive in its place; a member's name is used without its folders."""
    for number, file in enumerate(files):
        if file.suffix.lower() != ".zip":
            yield file
            continue
        folder = scratch / f"zip-{number}"
        folder.mkdir()
        try:
            with zipfile.ZipFile(file) as archive:
                yield from [_extract(archive, info, folder) for info in archive.infolist() if _is_data(info)]
        except (zipfile.BadZipFile, RuntimeError, EOFError, NotImplementedError) as error:
            raise BadInputError(
                f"{file.name} cannot be unpacked ({error})", "a whole archive without a password", "Unpack it yourself."
            ) from None


def _is_data(info: zipfile.ZipInfo) -> bool:
    name = PurePath(info.filename)
    is_hidden = name.name.startswith(".") or "__MACOSX" in name.parts
    return not info.is_dir() and not is_hidden and name.suffix.lower() != ".zip" and formats.is_accepted(name.name)


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> Path:
    target = folder / PurePath(info.filename).name
    if target.exists():
        raise BadInputError(
            f"{archive.filename} has two files {target.name!r}", "different names", "Rename one of them."
        )
    with archive.open(info) as member, target.open("wb") as file:
        shutil.copyfileobj(member, file)
    return target


def _write(table: RawTable, where: str, folder: Path) -> Path:
    """Write a table with its own column names, trimmed text and no empty rows."""
    folder.mkdir()
    table = table.repaired()
    named = {str(position): name for position, name in enumerate(table.header.names) if name}
    repeated = {name for name in named.values() if list(map(str.lower, named.values())).count(name.lower()) > 1}
    if repeated:
        raise BadInputError(
            f"{where} has more than one column {min(repeated)!r}", "different names", "Rename or remove one."
        )
    schema = table.lines.collect_schema()
    columns = [pl.col(name).str.strip_chars() if schema[name] == pl.String else pl.col(name) for name in named]
    surplus = [pl.col(SURPLUS)] if SURPLUS in schema else []
    lines = table.load([*columns, *surplus, pl.col(SOURCE_ROW)], folder, where)
    if surplus:
        _refuse_surplus(lines, where)
    path = folder / "rows.parquet"
    full = lines.filter(pl.any_horizontal(pl.col(list(named)).is_not_null()))
    full.select(pl.col(name).alias(header) for name, header in named.items()).sink_parquet(path)
    return path


def _refuse_surplus(lines: pl.LazyFrame, where: str) -> None:
    found = lines.filter(pl.col(SURPLUS).is_not_null()).select(SOURCE_ROW).collect().to_series()
    if len(found):
        raise BadInputError(
            f"{where} has {len(found):,} rows with more fields than the header, the first of them row {found[0]:,}",
            "a name for every field, or values quoted that hold the delimiter",
            "Correct them, or set [source] delimiter.",
        )
