"""What an engine does.

An engine reads the parquet files of tables by name and runs the Narwhals functions of ``domain.transactions`` on them.
What comes back is as small as the customers, or lines in frames and files that memory allows. Tables are written by
``stores.tables`` only, and no engine changes what is in them: the same files give the same rows on each. Which engine
does it is in ``choice``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.transactions.cleaning import CleaningRules, Lines
from custseg_assets.stores.staged import Rows
from custseg_assets.stores.table_files import TableFiles


@dataclass(frozen=True)
class ClassifiedLines:
    """All lines of some periods, sorted into those that count and those that do not.

    Attributes:
        keys: of the periods.
        clean: rows of ``clean_transactions``, in the order of source file and row.
        rejected: rows of ``rejected_transactions``, in the same order.
    """

    keys: Sequence[str]
    clean: Rows
    rejected: Rows


@dataclass(frozen=True)
class MeasuredCustomers:
    """What the log says about the customers of one window.

    Attributes:
        window: the observation window.
        totals: of ``domain.transactions.features.customer_totals``.
        spend: of ``domain.transactions.features.spend_by_period``.
    """

    window: Window
    totals: pl.DataFrame
    spend: pl.DataFrame


class Engine(Protocol):
    """Does the work that is as large as the log.

    Attributes:
        name: as in ``[engine] name``.
    """

    name: str

    def classify(self, raw: TableFiles, rules: CleaningRules, staging: Path) -> Iterator[ClassifiedLines]:
        """Sort every line into those that count and those that are rejected, some whole periods at a time.

        Args:
            raw: files of ``raw_transactions``.
            rules: of the shop.
            staging: an empty folder for rows that are too many for memory; each result's files are in one of their own
                below it (``stores.staged.StagedRows``).

        Raises:
            RunFailedError: the engine could not do it, such as for want of memory.
        """
        ...

    def measure(self, clean: TableFiles, windows: Sequence[Window]) -> Iterator[MeasuredCustomers]:
        """What is known of every customer with a line in each window, one window after the other.

        Args:
            clean: files of ``clean_transactions``, of the windows' periods at least.
            windows: the observation windows.

        Raises:
            RunFailedError: the engine could not do it, such as for want of memory.
        """
        ...

    def scan(self, files: TableFiles) -> Lines:
        """The rows of files, with all columns of their table, for Narwhals."""
        ...

    def collect(self, lines: Lines) -> pl.DataFrame:
        """What was worked out from them, in memory."""
        ...
