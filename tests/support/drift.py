"""A believable shop for drift: customers, a model in force, and the drift reference of both."""

from __future__ import annotations

import numpy as np
import polars as pl

from custseg_assets.domain.drift.reference import DriftReference, fit_reference
from custseg_assets.domain.segments.model import Matrix, ScalingReference, Segment, SegmentationModel

FEATURES = ("recency_days", "frequency_orders", "monetary_net")
MODEL = SegmentationModel(
    trained_on="2011-05-01",
    reference=ScalingReference(FEATURES, (3.7, 1.1, 6.2), (1.1, 0.55, 1.1), 1000),
    centroids=((-1.0, 0.8, 0.8), (0.7, -0.5, -0.5)),
    segments=(Segment("S1", "Loyal", "", "", 0), Segment("S2", "Hibernating", "", "", 1)),
    model_version="m-test",
)


def shop_values(n: int, seed: int, price: float = 1.0) -> Matrix:
    """Raw features: recent customers order more often, and spend follows orders."""
    random = np.random.default_rng(seed)
    recency = np.minimum(random.exponential(60, n), 181).round()
    frequency = 1 + random.poisson(3 * np.exp(-recency / 60))
    monetary = price * frequency * random.lognormal(5, 0.8, n)
    return np.column_stack([recency, frequency, monetary]).astype(float)


def shop_customers(n: int, seed: int) -> pl.DataFrame:
    """``shop_values`` as ``customer_features`` rows."""
    values = pl.DataFrame(shop_values(n, seed), schema=list(FEATURES), orient="row")
    ids = pl.Series("customer_id", [f"{at:05d}" for at in range(n)])
    return values.with_columns(ids, pl.col(FEATURES[:2]).cast(pl.Int64), main_country=pl.lit("United Kingdom"))


def reference_of(values: Matrix, n_refunded: int = 0, model: SegmentationModel = MODEL) -> DriftReference:
    """The drift reference of customers with these raw features."""
    return fit_reference(
        model,
        model.reference.scale(values),
        period="2011-05-01",
        period_days=31,
        window_days=182,
        n_refunded=n_refunded,
    )
