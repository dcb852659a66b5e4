"""Choice: which tables of a file are read, of the sheets of a workbook and the data files of an archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping, MissingColumnsError, has_required, map_columns
from custseg_assets.stores.formats import open_tables, packing_of
from custseg_assets.stores.proposals import N_SAMPLED, propose_columns
from custseg_assets.stores.raw_table import RawTable

_REQUIRED = ("customer_id", "invoiced_at", "line_amount")
_OTHER_TEXTS = {"{": "JSON", "[{": "JSON", "<": "HTML or XML"}


@dataclass(frozen=True)
class ChosenTable:
    """A table that is read.

    Attributes:
        name: sheet or member that it is; ``""`` for a file that has only one table.
        where: the file and the name, for the messages.
        table: itself.
        mapping: which column is which.
    """

    name: str
    where: str
    table: RawTable
    mapping: ColumnMapping


def choose_tables(
    path: Path, settings: SourceSettings, scratch: Path, keys: Mapping[str, str | None]
) -> tuple[list[ChosenTable], tuple[str, ...]]:
    """Choose the tables of a file: the only one, or all that have the required columns, if their headers are equal.

    Of a workbook, sheets without these columns are left out; the data files of an archive must all have them.

    Args:
        path: the file.
        settings: how to read it.
        scratch: an empty folder that exists as long as the tables are used.
        keys: columns that have one value in all rows, from the names of the file's folders.

    Returns:
        The tables, and the names of sheets that are left out.

    Raises:
        BadInputError: none has the required columns, or those that have cannot be read as one.
    """
    usable: list[ChosenTable] = []
    refused: list[tuple[str, BadInputError]] = []
    for name, without_keys in open_tables(path, settings, scratch):
        table = without_keys.with_constants(keys)
        where = f"{path.name}, {name}" if name else path.name
        try:
            usable.append(ChosenTable(name, where, table, _map_table(table, settings, where)))
        except BadInputError as error:
            # Only what has no lines of the log may be left out.
            if has_required(table.header.names, settings):
                raise
            if usable and _is_continued(usable[-1].table, table):
                raise _continuation_error(usable[-1], where) from None
            if settings.sheet is None and usable and _is_alike(usable[0].table, table):
                raise _alike_error(usable[0], where, error) from None
            refused.append((name, error))
    is_archive = packing_of(path.name)[0] == "zip"
    if not is_archive or len(usable) + len(refused) == 1:
        if refused and (settings.sheet is not None or not usable):
            # When no sheet fits, the user most likely means the first.
            raise refused[0][1]
    elif refused:
        raise _foreign_member_error(path.name, [one.name for one in usable], refused)
    mappings = [(one.mapping.sources, one.mapping.preset) for one in usable]
    headers = [sorted(one.table.header.names) for one in usable]
    if mappings != mappings[:1] * len(usable) or (settings.sheet is None and headers != headers[:1] * len(usable)):
        raise _difference_error(path.name, usable, is_archive=is_archive)
    return usable, tuple(name for name, _ in refused)


def _is_alike(first: RawTable, table: RawTable) -> bool:
    """Whether a sheet without the required columns has most of the names of one that has them."""
    names = {name for name in first.header.names if name}
    return len(names & set(table.header.names)) > len(names) / 2


def _alike_error(first: ChosenTable, where: str, error: BadInputError) -> BadInputError:
    return BadInputError(
        f"{where} has most of the columns of {first.where}, but not all that are needed: {error.got}",
        "the same names in all sheets of the log",
        "Correct its header, or name the sheets that are the log: [source] sheet, a list of them.",
    )


def _is_continued(before: RawTable, table: RawTable) -> bool:
    """Whether a sheet without a header has as many columns as the one before it, so that it may go on there."""
    return table.header.doubt == "none" and len(table.header.names) == len(before.header.names)


def _continuation_error(before: ChosenTable, where: str) -> BadInputError:
    return BadInputError(
        f"{where} has no header, but as many columns as {before.name}, and values like those of a log",
        "a header for every table of the log",
        "Put the header into it, or leave it out; of sheets, [source] sheet names those that are the log.",
    )


def _map_table(table: RawTable, settings: SourceSettings, where: str) -> ColumnMapping:
    header = table.header
    if not any(header.names):
        if settings.header_row:
            raise BadInputError(
                f"{where} has no column names on {table.unit} {settings.header_row}",
                "the header there",
                "Correct [source] header_row.",
            )
        raise BadInputError(f"{where} is empty", "a header and data rows", "Export it again.")
    sample = _sampler(table)
    try:
        if header.doubt != "late":
            mapping = map_columns(header.names, settings, where, sample)
        if header.doubt is None:
            return mapping
    except MissingColumnsError:
        if fault := _refusal_of_text(table, where):
            raise fault from None
        if header.doubt is None:
            raise
    numbered = [f"column_{i + 1}" for i in range(len(header.names))]
    proposals = propose_columns(_REQUIRED, numbered, numbered, sample())
    lines = " and ".join(one.as_line(name) for name, one in proposals.items())
    raise header.explain_doubt(where, table.unit, lines)


def _refusal_of_text(table: RawTable, where: str) -> BadInputError | None:
    """The error about a text that is no table, ``None`` for one with columns."""
    rows = [text for _, text in table.header.top]
    kind = next((kind for start, kind in _OTHER_TEXTS.items() if rows and rows[0].startswith(start)), None)
    if not rows or (kind is None and any(" | " in text for text in rows)):
        return None
    got = f"looks like {kind}" if kind else "has one column only"
    other = "Set [source] delimiter if another character is between the columns, or header_row if the header is below."
    return BadInputError(
        f"{where} {got}: its first {table.unit} is {rows[0]!r}",
        "columns for at least a customer, a date and an amount",
        "Export it as csv, xlsx or parquet." if kind else other,
    )


def _sampler(table: RawTable) -> Callable[[], pl.DataFrame]:
    def sample() -> pl.DataFrame:
        lines = table.repaired().lines
        rows = lines.select(str(i) for i in range(len(table.header.names))).head(N_SAMPLED)
        nested = [name for name, dtype in rows.collect_schema().items() if dtype.is_nested() or dtype == pl.Binary]
        return rows.with_columns(pl.lit(None, pl.String).alias(name) for name in nested).collect()

    return sample


def _foreign_member_error(
    where: str, usable: Sequence[str], refused: Sequence[tuple[str, BadInputError]]
) -> BadInputError:
    names = sorted([*usable, *(name for name, _ in refused)])
    return BadInputError(
        f"{where} has {len(names)} data files ({', '.join(names)}), and {len(refused)} cannot be read as the log:"
        f" {refused[0][1].got}",
        "data files with the same columns, which are read as one log",
        "Unpack it and give the one that is the log, or pack only those with the required columns.",
    )


def _difference_error(where: str, usable: Sequence[ChosenTable], *, is_archive: bool) -> BadInputError:
    names = ", ".join(one.name for one in usable)
    sheets = f"Set [source] sheet = {usable[0].name.removeprefix('sheet ')}, or a list of those with the same columns."
    return BadInputError(
        f"{where} has the required columns in {names}, but not the same ones ({_difference(usable)})",
        "one table, or several with the same columns, which are read as one log",
        "Unpack it and give the one that is the log." if is_archive else sheets,
    )


def _difference(usable: Sequence[ChosenTable]) -> str:
    first = usable[0].table.header.names
    for one in usable[1:]:
        names = one.table.header.names
        for has, name, lacks in ((usable[0], first, names), (one, names, first)):
            if alone := [header for header in name if header not in lacks]:
                return f"{alone[0]!r} is only in {has.name}"
    return "in another order"
