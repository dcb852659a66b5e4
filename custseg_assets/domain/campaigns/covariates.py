"""What is known of customers before a campaign, as one number for each outcome: the prediction, or else their features.

It takes out of the comparison what would have happened anyway, so smaller uplifts are seen. It need not be right: a
covariate that says nothing only helps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.campaigns.outcomes import RETURN, SPEND, cap_spend

PREDICTION, FEATURES = "prediction", "features"
HORIZONS_DAYS = (30, 60, 90)
"""Of the probabilities that ``customer_value`` has."""
_SPEND_DAYS = 90
_FEATURES = ("recency_days", "frequency_orders", "monetary_net", "tenure_days")
Covariates = Mapping[str, NDArray[np.float64]]
"""Outcome → the covariate of each customer."""


@dataclass(frozen=True)
class Weights:
    """How features say each outcome: coefficients of a least-squares line, by outcome."""

    of: Mapping[str, NDArray[np.float64]]


def covariates_of(
    ids: pl.Series,
    features: pl.DataFrame,
    values: pl.DataFrame | None,
    weights: Weights | None,
    days: int,
    cap: float | None,
) -> Covariates:
    """The covariates of customers at a snapshot.

    Args:
        ids: of the customers.
        features: ``customer_features`` of the snapshot; who has no row has nothing in the window.
        values: ``customer_value`` of it; ``None`` where there is none, and features have to do.
        weights: of the features, from earlier snapshots; ``None`` without any.
        days: of the campaign.
        cap: of spend.
    """
    if values is not None and not values.is_empty():
        horizon = min(HORIZONS_DAYS, key=lambda one: (abs(one - days), one))
        found = _rows_of(ids, values, (f"p_order_{horizon}d", "expected_spend_90d"))
        return {RETURN: found[:, 0], SPEND: cap_spend(found[:, 1] * (days / _SPEND_DAYS), cap)}
    matrix = _matrix(ids, features)
    if weights is not None:
        return {name: matrix @ coefficients for name, coefficients in weights.of.items()}
    # Without a past: how often, and how much.
    return {RETURN: matrix[:, 2], SPEND: matrix[:, 3]}


def weigh_features(
    several: Sequence[tuple[pl.Series, pl.DataFrame, Mapping[str, NDArray[np.float64]]]],
) -> Weights | None:
    """How features say what customers do in the days after a snapshot; ``None`` without a snapshot.

    Args:
        several: of each snapshot the ids, ``customer_features``, and the outcomes of the days after it.
    """
    if not several:
        return None
    matrix = np.concatenate([_matrix(ids, features) for ids, features, _ in several])
    outcomes = {name: np.concatenate([found[name] for *_, found in several]) for name in several[0][2]}
    solved = np.linalg.lstsq(matrix, np.column_stack(list(outcomes.values())), rcond=1e-8)[0]
    return Weights({name: solved[:, place] for place, name in enumerate(outcomes)})


def _matrix(ids: pl.Series, features: pl.DataFrame) -> NDArray[np.float64]:
    """A column of ones, and the logarithms of features; of who has nothing in the window, as long ago as anybody."""
    known = _rows_of(ids, features, _FEATURES, missing=np.nan)
    recency = known[:, 0]
    longest = float(np.nanmax(recency)) if np.isfinite(recency).any() else 0.0
    logs = [np.log1p(np.where(np.isfinite(recency), recency, longest + 1))]
    logs += [np.log1p(np.maximum(np.nan_to_num(column), 0.0)) for column in known[:, 1:].T]
    return np.column_stack((np.ones(len(ids)), *logs))


def _rows_of(ids: pl.Series, frame: pl.DataFrame, columns: Sequence[str], missing: float = 0.0) -> NDArray[np.float64]:
    wanted = pl.DataFrame({"customer_id": ids}).join(
        frame.select("customer_id", pl.col(columns).cast(pl.Float64)),
        on="customer_id",
        how="left",
        maintain_order="left",
    )
    return wanted.select(pl.col(columns).fill_null(missing).fill_nan(missing)).to_numpy()
