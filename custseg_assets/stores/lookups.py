"""Values of texts by a table, a piece of the column at a time, so that the streaming engine need not hold all of it."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

LARGE_TABLE = 100_000
"""Rows above which a table is worth no more than the column: it would be built anew for every piece."""


def look_up(text: pl.Expr, table: pl.DataFrame, otherwise: pl.Expr) -> pl.Expr:
    """The value of each text in a table, and another expression's value where the table does not have it.

    Args:
        text: the texts.
        table: ``text``, each once, and ``value``.
        otherwise: of the type of ``value``.
    """
    dtype = table.schema["value"]
    if table.height > LARGE_TABLE:
        return text.replace_strict(table["text"], table["value"], default=otherwise, return_dtype=dtype)

    def piece(columns: Sequence[pl.Series]) -> pl.Series:
        texts, others = columns
        return texts.replace_strict(table["text"], table["value"], default=others, return_dtype=dtype)

    return pl.map_batches([text, otherwise], piece, return_dtype=dtype, is_elementwise=True)
