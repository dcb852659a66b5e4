"""A table of two columns, for tests of the stores of tables."""

from __future__ import annotations

import polars as pl

from custseg_assets.domain.schemas import Column, Table

TABLE = Table("t", "for tests", (Column("period", pl.String(), "key"), Column("n", pl.Int64(), "value")), ("n",))
MARCH, APRIL = "2011-03-01", "2011-04-01"
"""Keys of two partitions."""


def rows(*pairs: tuple[str, int]) -> pl.DataFrame:
    """Rows of ``TABLE``, each a period and a number."""
    return pl.DataFrame(list(pairs), schema=TABLE.schema, orient="row")
