"""The lines of one source as the file of a delivery, and what its manifest says of them.

Which deliveries there are is ``deliveries``' matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.stores.exclusion import EXCLUDED_BY
from custseg_assets.stores.line_digests import CONTENT, UNDATED, digests_by_day
from custseg_assets.stores.raw_table import SOURCE_ROW
from custseg_assets.stores.sources import SourceFile

_ROWS_PER_GROUP = 1 << 17


@dataclass(frozen=True)
class DeliveredLines:
    """What a delivery's manifest says of its lines; the fields are those of ``delivery.Delivery``."""

    days: Mapping[str, tuple[int, str]]
    columns: Mapping[str, str]
    preset: str | None
    notes: tuple[str, ...]
    counts_units: bool

    @property
    def dates(self) -> list[date]:
        """The days that lines have, without the place of undated ones; never empty."""
        return [date.fromisoformat(day) for day in self.days if day != UNDATED]

    @property
    def n_rows(self) -> int:
        """Number of lines."""
        return sum(n_rows for n_rows, _ in self.days.values())

    def to_fields(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> DeliveredLines:
        """What ``to_fields`` gave, after JSON."""
        days = {day: (n_rows, digest) for day, (n_rows, digest) in fields["days"].items()}
        return cls(**{**fields, "days": days, "notes": tuple(fields["notes"])})


def write_lines(source: SourceFile, path: Path) -> DeliveredLines:
    """Write the lines of a source to a new file.

    Args:
        source: opened.
        path: of the file, which is not there yet.

    Raises:
        ValueError: no line has a date.
    """
    source.lines.select(*CONTENT, EXCLUDED_BY, SOURCE_ROW).sink_parquet(
        path, compression="zstd", compression_level=1, statistics=True, row_group_size=_ROWS_PER_GROUP
    )
    written = pl.scan_parquet(path, glob=False)
    counts_units = written.select((pl.col("quantity").abs() != 1).any()).collect().item()
    mapping = source.mapping
    lines = DeliveredLines(digests_by_day(written), mapping.columns, mapping.preset, source.notes, counts_units)
    if not lines.dates:
        raise ValueError(f"{source.name}: no line has a date")
    return lines
