"""Rows of ``customer_value`` and ``value_model``."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.schemas import CUSTOMER_VALUE, VALUE_MODEL
from custseg_assets.domain.value.days import Known, date_of
from custseg_assets.domain.value.methods import METHODS, ORDERS, PROBABILITIES, SPEND, TARGETS, Method, Segments
from custseg_assets.domain.value.replay import MethodScore, ValueModel

Floats = NDArray[np.float64]

COLUMNS = {
    **{target: f"p_{target}" for target in PROBABILITIES},
    ORDERS: f"expected_{ORDERS}",
    SPEND: f"expected_{SPEND}",
}
"""Target → its column in ``customer_value``."""
_DECIMALS = {**dict.fromkeys(PROBABILITIES, 4), ORDERS: 3, SPEND: 2}
"""Digits after the point: more would be noise, and the last ones might depend on the machine."""


def predict_customers(model: ValueModel, ids: pl.Series, known: Known, segments: Segments) -> pl.DataFrame:
    """The content of ``customer_value`` for some customers.

    Args:
        model: of the snapshot.
        ids: of the customers.
        known: what is known of them at the snapshot.
        segments: that they are in.
    """
    figures, intervals = model.fitted.predict(known, segments), model.intervals()
    columns: dict[str, pl.Series] = {"customer_id": ids}
    for target, name in COLUMNS.items():
        low, high = intervals[target].ends(figures[target])
        for suffix, values in (("", figures[target]), ("_low", low), ("_high", high)):
            columns[f"{name}{suffix}"] = pl.Series(np.round(values, _DECIMALS[target]))
    return (
        pl.DataFrame(columns)
        .with_columns(method=pl.lit(model.method))
        .select(column.name for column in CUSTOMER_VALUE.content)
    )


def sum_figures(model: ValueModel, known: Known, segments: Segments) -> Mapping[str, int]:
    """Sums of what is predicted of some customers, by target, in units of its last digit.

    Whole numbers, so that they add up to the same for any slices of customers.
    """
    figures = model.fitted.predict(known, segments)
    return {target: int(np.rint(figures[target] * 10**digits).sum()) for target, digits in _DECIMALS.items()}


def describe_model(model: ValueModel, totals: Mapping[str, int], n_customers: int) -> pl.DataFrame:
    """The content of ``value_model`` of a snapshot.

    Args:
        model: of the snapshot.
        totals: sums of the predictions over all its customers, from ``sum_figures``.
        n_customers: how many they are.
    """
    rows = [
        _row(model, target, method, totals[target] / 10 ** _DECIMALS[target], n_customers)
        for target in TARGETS
        for method in METHODS
    ]
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in VALUE_MODEL.content})


def _row(model: ValueModel, target: str, method: Method, total: float, n_customers: int) -> dict[str, object]:
    is_chosen = method == model.method
    score = model.scores.get(method, {}).get(target, MethodScore())
    fitted = model.fitted if is_chosen else model.candidates[method]
    days, n_taught = model.taught[target]
    learns = method != "bg_nbd" and fitted is not None and bool(days)
    level = model.level(target, total, n_customers) if is_chosen else None
    return {
        "target": target,
        "method": method,
        "is_chosen": is_chosen,
        "reason": model.sentence if is_chosen else _why_not(model, method),
        "taught_until": str(date_of(days[-1])) if learns else None,
        "n_taught": n_taught if learns else 0,
        "n_replays": score.n_replays,
        "n_replayed": score.n_customers,
        "log_loss": score.log_loss,
        "auc": score.auc,
        "calibration_error": score.calibration_error,
        "gini": score.gini,
        "level": level and level.predicted,
        "level_low": level and level.low,
        "level_high": level and level.high,
        "last_seen": level and level.last_seen,
        "parameters": json.dumps(_rounded(fitted.parameters())) if fitted and target == TARGETS[0] else None,
        "calibration": json.dumps(model.calibration(target)) if is_chosen else None,
    }


def _why_not(model: ValueModel, method: Method) -> str:
    if model.candidates[method] is None:
        return f"{method} was not tried: it cannot predict everything yet from what is known."
    if not any(score.n_replays for score in model.scores[method].values()):
        return f"{method} was not tried: there is no earlier day to try it on."
    return f"{model.method} had a smaller log loss."


def _rounded(value: object) -> object:
    """The same with numbers of ten digits: more would depend on the machine."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, Mapping):
        return {str(name): _rounded(one) for name, one in value.items()}
    return value
