"""Customers that a model can be trained on at once, for tests of the trainer."""

from __future__ import annotations

import numpy as np
import polars as pl

from custseg_assets.domain.schemas import CUSTOMER_FEATURES

KEY = "2011-05-01"


def features_of(n_customers: int) -> pl.DataFrame:
    """``customer_features`` of the snapshot ``KEY``: three well separated kinds of customers."""
    rng = np.random.default_rng(7)
    kind = np.arange(n_customers) % 3
    values = {
        "period": pl.Series([KEY] * n_customers),
        "customer_id": pl.Series([f"c{n:04}" for n in range(n_customers)]),
        "recency_days": pl.Series(np.array([5, 60, 150])[kind] + rng.integers(0, 5, n_customers)),
        "frequency_orders": pl.Series(np.array([20, 5, 1])[kind] + rng.integers(0, 2, n_customers)),
        "monetary_net": pl.Series(np.array([5000.0, 600.0, 40.0])[kind] * rng.uniform(0.9, 1.1, n_customers)),
    }
    frame = pl.DataFrame({name: values.get(name) for name in CUSTOMER_FEATURES.schema if name in values})
    missing = [name for name in CUSTOMER_FEATURES.schema if name not in values]
    return (
        frame.with_columns(pl.lit(None).alias(name) for name in missing)
        .select(CUSTOMER_FEATURES.schema.names())
        .cast(CUSTOMER_FEATURES.schema)
    )
