"""Headers: which of a table's first rows has the names of its columns.

A row is taken for the header only because it names the required columns. What rows look like decides no more than
which error is raised where none does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import has_required, shorten

N_SEARCHED = 50
"""How many rows, from the first, may be the header."""

Doubt = Literal["none", "unclear", "late"]

_N_SHOWN = 6
_DATA = re.compile(
    # Dates, also with the name of a month, then numbers, also with a currency.
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b.*|\d{1,2}[-. ][A-Za-z]{3,9}[-. ,]+\d{2,4}\b.*"
    r"|[-+(]?\s*[^\w\s]{0,2}\s*[-+(]?\d[\d.,'\u2019\s]*[-)]?\s*[^\w\s]{0,2}"
)
_MOST = 0.8


@dataclass(frozen=True)
class Header:
    """The names of a table's columns, and where they stand.

    Attributes:
        names: without surrounding spaces; an unnamed column is ``""``.
        row: number of the line or row, from 1, at which they begin; 0 where the columns are only numbered.
        before: the rows before it that are not empty, as texts.
        doubt: why it may not be the header: the first row has values (``none``), no row looks like one (``unclear``),
            or it comes after rows that are as wide (``late``).
        top: number and text of the table's first rows.
        is_named: whether it names the required columns, or is the one in the settings.
        is_set: whether it is the one in the settings.
    """

    names: tuple[str, ...]
    row: int = 1
    before: tuple[str, ...] = ()
    doubt: Doubt | None = None
    top: tuple[tuple[int, str], ...] = ()
    is_named: bool = True
    is_set: bool = False

    def describe(self, unit: str) -> str:
        """What is unusual about where it stands, ``""`` if nothing is."""
        if self.row == 0:
            return f"no header, columns are named {self.names[0]} to {self.names[-1]}"
        if self.is_set and self.row > 1:
            return f"header on {unit} {self.row}, as set, and what is before it left out"
        if not self.before:
            return ""
        more = f" and {len(self.before) - 1} more" if len(self.before) > 1 else ""
        return f"header on {unit} {self.row}, after {self.before[0]!r}{more}"

    def explain_doubt(self, where: str, unit: str, mapping: str) -> BadInputError:
        """The error about a header that may not be the header.

        Args:
            where: the file, for the message.
            unit: what its rows are called.
            mapping: lines that say which column is which, if there were no header.
        """
        first = self.top[0][1] if self.top else ""
        if self.doubt == "none":
            return BadInputError(
                f"{where} has no header: its first {unit} {first!r} has values like those below it",
                f"a first {unit} with the names of the columns",
                f"Add one; or write header_row = 0 under [source] in custseg.toml, which names the columns column_1 to"
                f" column_{len(self.names)}, and under [source.columns] {mapping}.",
            )
        shown = "; ".join(f"{unit} {number}: {text!r}" for number, text in self.top[:_N_SHOWN])
        if self.doubt == "late":
            return BadInputError(
                f"{where} names the required columns only on {unit} {self.row}, after {len(self.before):,} that are not"
                f" empty, some with as many values ({shown})",
                "one table, with nothing but a title before it",
                f"If {unit} {self.row} is the header and what is before it may be left out, write header_row ="
                f" {self.row} under [source] in custseg.toml; or split the file.",
            )
        return BadInputError(
            f"{where}: which {unit} has the column names is not clear ({shown})",
            f"the names of all columns in one {unit}",
            f"Write header_row = {_guess(self)} under [source] in custseg.toml, with the number of that {unit}, or 0 if"
            " there is none.",
        )


def _guess(header: Header) -> int:
    return max(header.top, key=lambda row: row[1].count(" | "))[0] if header.top else 1


def find_header(rows: Sequence[tuple[int, Sequence[str | None]]], settings: SourceSettings, n_columns: int) -> Header:
    """Find the header among the first rows of a table.

    Args:
        rows: number and cells of each row, from ``[source] header_row`` on, or from the first.
        settings: the source's settings.
        n_columns: of the table, where it has no header.
    """
    texts = [(number, tuple((cell or "").strip() for cell in cells)) for number, cells in rows]
    full = [(number, cells) for number, cells in texts if any(cells)]
    top = tuple((number, shorten(" | ".join(cells).rstrip(" |"))) for number, cells in full)
    if settings.header_row == 0:
        return Header(tuple(f"column_{i + 1}" for i in range(n_columns)), 0, top=top)
    if settings.header_row is not None:
        names = texts[0][1] if texts and texts[0][0] == settings.header_row else ()
        return Header(names, settings.header_row, top=top, is_set=True)
    if not full:
        return Header(())
    found = next((i for i, (_, cells) in enumerate(full) if has_required(cells, settings)), None)
    if found is None:
        i, doubt = _likely([cells for _, cells in full])
    else:
        i = found
        doubt = "late" if any(_n_filled(cells) >= _n_filled(full[i][1]) for _, cells in full[:i]) else None
    number, names = full[i]
    return Header(names, number, tuple(text for _, text in top[:i]), doubt, top, is_named=found is not None)


def _likely(rows: Sequence[tuple[str, ...]]) -> tuple[int, Doubt | None]:
    """The row that is most like a header, and why it may be none: the one before the first row of data."""
    body = rows[len(rows) // 2 :] if len(rows) > 3 else rows[1:]
    columns = [i for i in range(max(map(len, rows))) if _is_of_data([row[i] for row in body if i < len(row)])]
    first = next((i for i, row in enumerate(rows) if _is_row_of_data(row, columns)), None)
    if first == 0:
        return 0, "none"
    if first is None:
        usual = median(map(_n_filled, rows))
        return 0, "unclear" if _n_filled(rows[0]) < min(usual, 2) else None
    is_wide = _n_filled(rows[first - 1]) * 2 > _n_filled(rows[first])
    return first - 1, None if is_wide else "unclear"


def _is_of_data(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and sum(_DATA.fullmatch(cell) is not None for cell in filled) >= _MOST * len(filled)


def _is_row_of_data(row: Sequence[str], columns: Sequence[int]) -> bool:
    filled = [row[i] for i in columns if i < len(row) and row[i]]
    return len(filled) * 2 > len(columns) and _is_of_data(filled)


def _n_filled(cells: Sequence[str]) -> int:
    return sum(map(bool, cells))
