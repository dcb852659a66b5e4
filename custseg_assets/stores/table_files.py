"""The parquet files of a table as it stands, by name: what an engine reads. Delta's log is ``tables``' matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from custseg_assets.domain.schemas import Table


@dataclass(frozen=True)
class TableFile:
    """One file.

    Attributes:
        period: the partition that all its rows are of; the file has no such column.
        path: absolute, as the file system has it, or an address (``gs://…``). It is a name and never a pattern.
        n_rows: rows in it.
    """

    period: str
    path: str
    n_rows: int


@dataclass(frozen=True)
class TableFiles:
    """The files of some partitions of a table.

    Attributes:
        table: the table's declaration.
        files: sorted by period and path: the order of the table's rows.
        options: what Polars needs to read addresses.
        stored: names of the columns that the table has there; a column that was declared later is null.
    """

    table: Table
    files: tuple[TableFile, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()

    @property
    def sizes(self) -> dict[str, int]:
        """How many rows each partition has, oldest first."""
        sizes: dict[str, int] = {}
        for file in self.files:
            sizes[file.period] = sizes.get(file.period, 0) + file.n_rows
        return sizes

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return sum(file.n_rows for file in self.files)

    def of(self, keys: Iterable[str]) -> TableFiles:
        """The files of some of the partitions."""
        wanted = frozenset(keys)
        chosen = tuple(file for file in self.files if file.period in wanted)
        return TableFiles(self.table, chosen, self.options, self.stored)

    def scan(self) -> pl.LazyFrame:
        """All rows with all columns of the table, in their order, for Polars."""
        if not self.files:
            return pl.LazyFrame(schema=self.table.schema)
        periods = [*self.sizes]
        if len(periods) <= _MAX_SCANS:
            return pl.concat(self._scan([f for f in self.files if f.period == key], key) for key in periods)
        return self._scan(self.files)

    def _scan(self, files: Sequence[TableFile], period: str | None = None) -> pl.LazyFrame:
        """The rows of some files, all of one period where that is given."""
        there = [name for name in self.table.schema if name in self.stored and name != "period"]
        rows = pl.scan_parquet(
            [file.path for file in files],
            glob=False,
            hive_partitioning=False,
            schema={name: self.table.schema[name] for name in there},
            missing_columns="insert",
            extra_columns="ignore",
            # Not Polars' own way to find the period in a path, which takes every folder such as a=b for a column.
            include_file_paths=None if period else _FILE,
            storage_options=dict(self.options) or None,
        )
        if period:
            rows = rows.with_columns(period=pl.lit(period))
        else:
            periods = {_FILE: [file.path for file in files], "period": [file.period for file in files]}
            rows = rows.join(pl.LazyFrame(periods), on=_FILE, how="left", maintain_order="left")
        return rows.select(
            name if name == "period" or name in there else pl.lit(None, dtype).alias(name)
            for name, dtype in self.table.schema.items()
        )

    def slices(self, n_rows: int) -> Iterator[pl.DataFrame]:
        """All rows in their order, so many at a time, each slice of one file."""
        for file in self.files:
            rows = TableFiles(self.table, (file,), self.options, self.stored).scan()
            for start in range(0, file.n_rows, n_rows):
                yield rows.slice(start, n_rows).collect()


_FILE = "__file"
_MAX_SCANS = 40
"""Periods up to which each has a scan of its own; a plan of hundreds of scans costs more than finding the periods."""
