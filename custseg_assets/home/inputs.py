"""What models are shown of a home's customers at a snapshot: features, and orders by week where a model looks at them.

Orders by week are in no table: they are counted from the clean lines of the window, whose fingerprints are in that of
``customer_features``, so whatever depends on that is out of date when they change. What they mean belongs in
``domain.transactions.weeks``.
"""

from __future__ import annotations

from collections.abc import Sequence

import narwhals as nw
import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES
from custseg_assets.domain.segments.embedding import week_columns
from custseg_assets.domain.slices import EVERYBODY, IdRange
from custseg_assets.domain.transactions.weeks import count_orders_by_week, spread_weeks
from custseg_assets.home.open import OpenHome


def read_inputs(
    home: OpenHome, key: str, n_weeks: int, columns: Sequence[str] | None = None, within: IdRange = EVERYBODY
) -> pl.DataFrame:
    """Columns of ``customer_features`` of a snapshot, and orders by week.

    Args:
        home: whose customers they are.
        key: of the snapshot.
        n_weeks: weeks to count orders of; 0 where no model looks at them.
        columns: of ``customer_features``, with the id; all by default.
        within: the customers to read.
    """
    features = home.tables.read(CUSTOMER_FEATURES, [key], columns, within)
    if not n_weeks:
        return features
    window = home.calendar.window(key)
    lines = home.tables.scan(CLEAN_TRANSACTIONS, window.keys)
    return add_weeks(features, lines if within.is_everybody else lines.filter(within.condition), window, n_weeks)


def add_weeks(features: pl.DataFrame, lines: pl.LazyFrame, window: Window, n_weeks: int) -> pl.DataFrame:
    """Features of some customers with their orders by week.

    Args:
        features: with the id.
        lines: clean ones of these customers, of the window's periods at least.
        window: of the snapshot.
        n_weeks: weeks to count orders of.
    """
    counted = count_orders_by_week(nw.from_native(lines), window, n_weeks).to_native().collect(engine="streaming")
    return features.hstack(spread_weeks(features["customer_id"], counted, week_columns(n_weeks)))
