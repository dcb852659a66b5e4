"""Rows that are too many for memory, as files in a folder until a table takes them over.

A folder of staged rows has a folder ``period=KEY`` for each partition, with parquet files that have all columns of the
table but ``period``. Their rows are in the order of the files' names. Who has written them, and with what, makes no
difference. How a table takes them over is in ``tables``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from custseg_assets.domain.schemas import Table
from custseg_assets.stores.table_files import TableFile, TableFiles

MAX_ROWS_AT_ONCE = 1_000_000
"""How many rows of the log are held at a time; a multiple of the largest month of a mid-sized shop."""
ROWS_OF_A_SLICE = 1 << 19
"""Rows of a partition that is larger than that are handled so many at a time."""


@dataclass(frozen=True)
class StagedRows:
    """The rows of some partitions of a table, in files.

    Attributes:
        table: the table's declaration.
        folder: of the files; it need not be there where there are no rows.
    """

    table: Table
    folder: Path

    @cached_property
    def files(self) -> TableFiles:
        """The files, by name; what other programs leave beside them, such as ``_SUCCESS``, is none."""
        import pyarrow.parquet as pq

        paths = sorted(self.folder.glob("period=*/[!._]*.parquet"))
        found = [
            TableFile(path.parent.name.removeprefix("period="), str(path), pq.read_metadata(path).num_rows)
            for path in paths
        ]
        return TableFiles(self.table, tuple(file for file in found if file.n_rows), stored=_names(self.table))

    def slices(self, n_rows: int = ROWS_OF_A_SLICE) -> Iterator[pl.DataFrame]:
        """All rows in their order, so many at a time, each slice of one partition."""
        return self.files.slices(n_rows)


Rows = pl.DataFrame | StagedRows
"""Rows of whole partitions: in memory, or in files."""


class StagedWriter:
    """Writes staged rows from frames, the rows of a partition in the order in which they come.

    Args:
        table: the table's declaration.
        folder: for the files; it is made.
    """

    def __init__(self, table: Table, folder: Path) -> None:
        self.rows = StagedRows(table, folder)
        self._n_files = 0

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows.

        Raises:
            ValueError: their columns or types are not the table's.
        """
        if list(frame.schema.items()) != list(self.rows.table.schema.items()):
            raise ValueError(
                f"{self.rows.table.name}: got columns {dict(frame.schema)}, expected {dict(self.rows.table.schema)}"
            )
        for (period,), part in frame.partition_by("period", as_dict=True, maintain_order=True).items():
            folder = self.rows.folder / f"period={period}"
            folder.mkdir(parents=True, exist_ok=True)
            part.drop("period").write_parquet(
                folder / f"part-{self._n_files:06}.parquet", compression="zstd", compression_level=1, statistics=True
            )
            self._n_files += 1


def stage(table: Table, frames: Iterable[pl.DataFrame], folder: Path) -> StagedRows:
    """Write frames as staged rows."""
    writer = StagedWriter(table, folder)
    for frame in frames:
        writer.write(frame)
    return writer.rows


def _names(table: Table) -> frozenset[str]:
    return frozenset(table.schema) - {"period"}


def key_batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Gather partition keys, with how many rows each has, into batches that memory allows."""
    keys: list[str] = []
    n_rows = 0
    for key, size in sizes.items():
        if keys and n_rows + size > MAX_ROWS_AT_ONCE:
            yield keys
            keys, n_rows = [], 0
        keys.append(key)
        n_rows += size
    if keys:
        yield keys
