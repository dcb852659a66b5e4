"""Transactions for tests, a few rows at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS

_LINE: dict[str, Any] = {
    "customer_id": "12347",
    "invoiced_at": "2011-05-02 09:00",
    "invoice_id": "536365",
    "product_id": "85123A",
    "description": "WHITE LANTERN",
    "quantity": 2.0,
    "unit_price": 1.5,
    "country": "France",
    "line_amount": None,
    "unreadable_values": None,
    "excluded_by": None,
    "source_file": "log.csv",
}


def raw_lines(*lines: dict[str, Any]) -> pl.DataFrame:
    """Rows of ``raw_transactions``; each says only what makes it differ from an ordinary line."""
    rows = [{**_LINE, "source_row": number, **line} for number, line in enumerate(lines, start=1)]
    return _typed(rows, RAW_TRANSACTIONS.schema)


def clean_rows(*lines: dict[str, Any]) -> pl.DataFrame:
    """Rows of ``clean_transactions``; an amount is quantity times price unless given."""
    rows = []
    for line in lines:
        row = {**_LINE, "is_cancellation": False, **line}
        if row["line_amount"] is None:
            row["line_amount"] = row["quantity"] * row["unit_price"]
        rows.append(row)
    return _typed(rows, CLEAN_TRANSACTIONS.schema)


def _typed(rows: list[dict[str, Any]], schema: pl.Schema) -> pl.DataFrame:
    for row in rows:
        moment = row["invoiced_at"]
        row["invoiced_at"] = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        row["period"] = f"{row['invoiced_at']:%Y-%m}-01" if row["invoiced_at"] else "2011-05-01"
    return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)
