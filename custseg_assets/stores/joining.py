"""Joining: several tables of a file as one, and header rows that are repeated among the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from custseg_assets.domain.schemas import MAPPED_NAMES
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.exclusion import EXCLUDED_BY
from custseg_assets.stores.raw_table import SOURCE_ROW

_SAME = 0.5
"""Share of a table's lines that another may have too; above it one is most likely a copy of the other."""


@dataclass(frozen=True)
class JoinedTables:
    """The lines of several tables.

    Attributes:
        lines: one after the other; ``source_row`` goes on from each to the next.
        names: of the tables.
        ends: the last ``source_row`` of each.
    """

    lines: pl.LazyFrame
    names: tuple[str, ...]
    ends: tuple[int, ...]

    def describe(self) -> str:
        """Which rows are of which table, ``""`` for a single one."""
        if len(self.names) == 1:
            return ""
        spans = [
            f"{name} (rows {first:,} to {end:,})" for name, (first, end) in zip(self.names, self._spans, strict=True)
        ]
        return f"read together: {', '.join(spans)}"

    def split(self, lines: pl.LazyFrame) -> list[pl.LazyFrame]:
        """The lines of each table, of lines with ``source_row``."""
        if len(self.names) == 1:
            return [lines]
        return [lines.filter(pl.col(SOURCE_ROW).is_between(first, end)) for first, end in self._spans]

    @property
    def _spans(self) -> list[tuple[int, int]]:
        return list(zip([1, *(end + 1 for end in self.ends)], self.ends, strict=False))


def join_parts(parts: Sequence[tuple[str, pl.LazyFrame]], where: str) -> JoinedTables:
    """Join tables with the same columns.

    Args:
        parts: name and lines of each, with ``source_row``.
        where: the file, for the messages.

    Raises:
        BadInputError: their values are of different kinds.
    """
    names = tuple(name for name, _ in parts)
    if len(parts) == 1:
        return JoinedTables(parts[0][1], names, (0,))
    if len({tuple(lines.collect_schema().items()) for _, lines in parts}) > 1:
        raise BadInputError(
            f"{where} has tables whose columns hold values of different kinds",
            "the same kind in all",
            "Export them again in one form, for example as csv.",
        )
    shifted, ends = [], [0]
    for _, lines in parts:
        n_rows = int(lines.select(pl.col(SOURCE_ROW).max().fill_null(0)).collect().item())
        shifted.append(lines.with_columns(pl.col(SOURCE_ROW) + ends[-1]))
        ends.append(ends[-1] + n_rows)
    return JoinedTables(pl.concat(shifted), names, tuple(ends[1:]))


def exclude_repeats(
    lines: pl.LazyFrame, joined: JoinedTables, settings: SourceSettings, where: str
) -> tuple[pl.LazyFrame, int]:
    """Exclude the lines of customers that an earlier table has too, as those of an earlier file, and count them.

    Args:
        lines: typed lines of all tables.
        joined: which rows are of which.
        settings: the source's; sheets that it names may repeat each other.
        where: the file, for the messages.

    Raises:
        BadInputError: most lines of a table are in another.
    """
    if len(joined.names) == 1:
        return lines, 0
    content = pl.struct(*MAPPED_NAMES, EXCLUDED_BY).hash().alias("content")
    rows = lines.filter(pl.col("customer_id").is_not_null()).select(SOURCE_ROW, content).collect()
    part = pl.Series(joined.ends).search_sorted(rows[SOURCE_ROW], side="left")
    rows = rows.with_columns(part.alias("part")).with_columns(nth=pl.int_range(pl.len()).over("part", "content"))
    rows = rows.with_columns(pl.col("part").min().over("content", "nth").alias("first"))
    n_lines = dict(rows.group_by("part").len().iter_rows())
    again = rows.filter(pl.col("part") != pl.col("first"))
    for part_, first, n in again.group_by("part", "first").len().sort("part", "first").iter_rows():
        if n > _SAME * min(n_lines[part_], n_lines[first]) and settings.sheet is None:
            raise _copy_error(joined.names[part_], joined.names[first], f"{n:,} of {n_lines[part_]:,}", where)
    is_again = pl.col(SOURCE_ROW).is_in(again[SOURCE_ROW].implode()) & pl.col(EXCLUDED_BY).is_null()
    marked = pl.when(is_again).then(pl.lit("in an earlier table of the file too")).otherwise(pl.col(EXCLUDED_BY))
    return lines.with_columns(marked.alias(EXCLUDED_BY)), again.height


def _copy_error(name: str, earlier: str, how_many: str, where: str) -> BadInputError:
    return BadInputError(
        f"{where}: {how_many} lines of {name} are in {earlier} too",
        "tables with different lines, because they are read as one log",
        "Set [source] sheet to the one that is the log, or to a list of them."
        if name.startswith("sheet ")
        else "Unpack it, and remove the one that is a copy.",
    )


def leave_out_headers(lines: pl.LazyFrame, mapping: ColumnMapping, where: str) -> tuple[pl.LazyFrame, int]:
    """Leave out rows that repeat the header, as where exports were put one after the other, and count them.

    Raises:
        BadInputError: a row repeats a part of the header; what follows it has other columns.
    """
    schema = lines.collect_schema()
    names = {
        name: headers[0] if name in mapping.alternatives else " ".join(headers)
        for name, headers in mapping.sources.items()
    }
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
