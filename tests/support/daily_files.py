"""A log as daily files: in order, or landing out of order, twice, and with wrong lines first."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

N_TWICE, N_CORRECTED = 10, 5
"""How many of the files come twice, and how many come with wrong lines first."""


@dataclass(frozen=True)
class DroppedFile:
    """A file that is dropped.

    Attributes:
        name: of the file.
        lines: what it holds.
    """

    name: str
    lines: pl.DataFrame

    def write_to(self, folder: Path) -> None:
        """Drop it, as a careful sender does: under a name that is not taken in, then under its own."""
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{self.name}.part"
        self.lines.write_csv(unfinished)
        unfinished.rename(folder / self.name)


def daily_files(log: pl.DataFrame) -> dict[date, DroppedFile]:
    """The file of every day with lines, oldest first.

    Args:
        log: Online Retail, all columns as text.
    """
    by_day = log.with_columns(day=pl.col("InvoiceDate").str.slice(0, 10)).partition_by(
        "day", as_dict=True, include_key=False
    )
    return {date.fromisoformat(day): DroppedFile(f"{day}.csv", by_day[(day,)]) for (day,) in sorted(by_day)}


def shuffle_in_batches(log: pl.DataFrame, n_batches: int, seed: int) -> list[list[DroppedFile]]:
    """The log in daily files, in a shuffled order; a file's second coming is in a later batch than its first.

    Args:
        log: Online Retail, all columns as text.
        n_batches: how many times files come, at least two.
        seed: of the order.
    """
    rng = random.Random(seed)
    files = list(daily_files(log).values())
    # The last day is one of the wrong ones, so that a period comes that goes again.
    *others, last = [file.name for file in files]
    chosen = rng.sample(others, N_TWICE + N_CORRECTED - 1)
    wrong, twice = [*chosen[N_TWICE:], last], chosen[:N_TWICE]
    dropped: list[list[DroppedFile]] = [[] for _ in range(n_batches)]
    for file in files:
        first, second = sorted(rng.sample(range(n_batches), 2))
        if file.name in wrong:
            dropped[first].append(DroppedFile(file.name, _spoil(file.lines)))
            dropped[second].append(file)
        else:
            dropped[first].append(file)
        if file.name in twice:
            again = file.name if twice.index(file.name) % 2 else f"copy of {file.name}"
            dropped[second].append(DroppedFile(again, file.lines))
    for batch in dropped:
        rng.shuffle(batch)
    return dropped


def _spoil(lines: pl.DataFrame) -> pl.DataFrame:
    """Daily lines with a line less, another quantity, and every other line dated 40 days later, too many for a slip."""
    at = pl.int_range(pl.len())
    later = pl.col("InvoiceDate").str.to_datetime().dt.offset_by("40d").dt.to_string("%Y-%m-%d %H:%M:%S")
    return lines.with_columns(
        Quantity=pl.when(at == 0).then(pl.lit("77")).otherwise("Quantity"),
        InvoiceDate=pl.when(at % 2 == 1).then(later).otherwise("InvoiceDate"),
    ).head(-1)
