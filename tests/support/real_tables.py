"""The real log as tables, for tests that are given it by the fixture ``real_tables``."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class RealTables:
    """The real log, cleaned: read without the project's own reader, so that the two do not share a mistake."""

    raw: pl.DataFrame
    clean: pl.DataFrame
    rejected: pl.DataFrame
