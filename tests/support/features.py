"""Features of customers, measured from clean lines as the pipeline measures them."""

from __future__ import annotations

import narwhals as nw
import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.transactions.cleaning import Lines
from custseg_assets.domain.transactions.features import (
    bought_products,
    customer_features,
    customer_totals,
    lines_within,
    order_parts,
    spend_by_period,
)


def measure_features(clean: pl.DataFrame, window: Window) -> pl.DataFrame:
    """``customer_features`` of a window, from lines with the columns of ``clean_transactions``."""
    return features_of_lines(nw.from_native(clean.lazy()), window)


def features_of_lines(lines: Lines, window: Window) -> pl.DataFrame:
    """``customer_features`` of a window, from lines in any backend of Narwhals."""
    lines = lines_within(lines, window) if window.is_open else lines
    parts = order_parts(lines)
    totals = customer_totals(parts, bought_products(lines), window).collect("polars").to_native()
    return customer_features(totals, spend_by_period(parts, window).collect("polars").to_native(), window)
