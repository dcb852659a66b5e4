"""Joining: several tables of a file as one, and header rows that are repeated among the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.raw_table import SOURCE_ROW

_SAME = 0.5
"""Share of a table's lines that another may have too; above it one is most likely a copy of the other."""


@dataclass(frozen=True)
class JoinedTables:
    """The lines of several tables, and what to say about them.

    Attributes:
        lines: one after the other; ``source_row`` goes on from each to the next.
        said: which tables they are, and how many lines are in several.
    """

    lines: pl.LazyFrame
    said: tuple[str, ...] = ()


def join_parts(parts: Sequence[tuple[str, pl.LazyFrame]], settings: SourceSettings, where: str) -> JoinedTables:
    """Join tables with the same columns.

    Args:
        parts: name and lines of each, with ``source_row``.
        settings: the source's; sheets that it names may repeat each other.
        where: the file, for the messages.

    Raises:
        BadInputError: most lines of one are in another too, or their values are of different kinds.
    """
    if len(parts) == 1:
        return JoinedTables(parts[0][1])
    if len({tuple(lines.collect_schema().items()) for _, lines in parts}) > 1:
        raise BadInputError(
            f"{where} has tables whose columns hold values of different kinds",
            "the same kind in all",
            "Export them again in one form, for example as csv.",
        )
    shifted, said, first = [], [], 1
    for name, lines in parts:
        n_rows = int(lines.select(pl.col(SOURCE_ROW).max().fill_null(0)).collect().item())
        shifted.append(lines.with_columns(pl.col(SOURCE_ROW) + (first - 1)))
        said.append(f"{name} (rows {first:,} to {first + n_rows - 1:,})")
        first += n_rows
    n_again = _count_again([(name, lines) for name, lines in parts], settings, where)
    again = [f"{n_again:,} lines are in several of them"] if n_again else []
    return JoinedTables(pl.concat(shifted), (f"read together: {', '.join(said)}", *again))


def _count_again(parts: Sequence[tuple[str, pl.LazyFrame]], settings: SourceSettings, where: str) -> int:
    """How many lines are in a table before theirs as well."""
    hashes = [
        (name, lines.select(pl.struct(pl.exclude(SOURCE_ROW)).hash()).collect().to_series()) for name, lines in parts
    ]
    n_again = 0
    for i, (name, values) in enumerate(hashes):
        for earlier, others in hashes[:i]:
            n_same = int(values.is_in(others.unique().implode()).sum())
            if n_same > _SAME * min(len(values), len(others)) and settings.sheet is None:
                raise BadInputError(
                    f"{where}: {n_same:,} of {len(values):,} lines of {name} are in {earlier} too",
                    "tables with different lines, because they are read as one log",
                    "Set [source] sheet to the one that is the log, or to a list of them."
                    if name.startswith("sheet ")
                    else "Unpack it, and remove the one that is a copy.",
                )
            n_again += n_same
    return n_again


def leave_out_headers(lines: pl.LazyFrame, mapping: ColumnMapping, where: str) -> tuple[pl.LazyFrame, int]:
    """Leave out rows that repeat the header, as where exports were put one after the other, and count them.

    Raises:
        BadInputError: a row repeats a part of the header; what follows it has other columns.
    """
    schema = lines.collect_schema()
    names = {name: " ".join(headers) for name, headers in mapping.sources.items()}
    if any(schema[name] != pl.String for name in names):
        return lines, 0
    # Two columns decide whether to look at all: a byte-order mark may come before the first.
    is_like = pl.any_horizontal(pl.col(name) == names[name] for name in ("customer_id", "invoiced_at"))
    if not lines.select(is_like.any()).collect().item():
        return lines, 0
    bare = {name: pl.col(name).str.strip_chars('\ufeff"').str.strip_chars() for name in names}
    is_header = pl.all_horizontal(bare[name].eq_missing(pl.lit(text)) for name, text in names.items())
    others = lines.filter(is_like & ~is_header).select(SOURCE_ROW, *names).head(1).collect()
    for row in others.iter_rows(named=True):
        name = next(name for name in names if row[name] != names[name])
        raise BadInputError(
            f"{where}, row {row[SOURCE_ROW]:,} is like the header, but has {row[name]!r} instead of {names[name]!r}",
            "one table; another seems to begin there",
            "Split the file at that row, or correct it.",
        )
    return lines.filter(~is_header), int(lines.select(is_header.sum()).collect().item())
