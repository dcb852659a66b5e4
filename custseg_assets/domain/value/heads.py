"""Regularised linear heads, fitted by Newton's method.

Logistic for whether a customer orders, Poisson for how often. What is predicted by them belongs in ``methods``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.value.days import RECENT, Known

Floats = NDArray[np.float64]
Link = Literal["logit", "log"]

FEATURES = (
    "log_recency",
    "log_tenure",
    "log_order_days",
    "log_net_spend",
    *(f"log_order_days_{length}d" for length in RECENT),
)
"""What a head sees of a customer: ``log1p`` of each, for all but recency and tenure have heavy tails."""
RIDGE: dict[Link, float] = {"logit": 10.0, "log": 100.0}
"""Of the squared coefficients of standardised features: as much as so many customers' squares of them."""
_MAX_STEPS, _MAX_LOG, _TOLERANCE = 60, 12.0, 1e-7


def describe(known: Known) -> Floats:
    """The features of customers, (customers, ``FEATURES``)."""
    columns = (known.recency, known.tenure, known.n_days, np.maximum(known.net, 0), *known.n_recent.T)
    return np.asarray(np.log1p(np.column_stack(columns)))


@dataclass(frozen=True)
class Head:
    """A fitted linear head.

    Attributes:
        link: logit for a probability, log for a count.
        mean: of each feature where it was fitted.
        scale: standard deviation of each feature there.
        coefficients: intercept, then one per standardised feature.
        unit: what a count is multiplied by.
    """

    link: Link
    mean: Floats
    scale: Floats
    coefficients: Floats
    unit: float = 1.0

    def predict(self, features: Floats) -> Floats:
        """Probabilities or expected counts."""
        score = ((features - self.mean) / self.scale) @ self.coefficients[1:] + self.coefficients[0]
        if self.link == "logit":
            return np.asarray(1 / (1 + np.exp(-score)))
        return np.asarray(self.unit * np.exp(np.clip(score, -_MAX_LOG, _MAX_LOG)))

    def as_dict(self) -> dict[str, object]:
        """The head as JSON can have it."""
        return {
            "link": self.link,
            "unit": self.unit,
            "mean": dict(zip(FEATURES, self.mean.tolist(), strict=True)),
            "scale": dict(zip(FEATURES, self.scale.tolist(), strict=True)),
            "intercept": float(self.coefficients[0]),
            "coefficients": dict(zip(FEATURES, self.coefficients[1:].tolist(), strict=True)),
        }

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Head:
        """The head that ``as_dict`` made the fields of."""
        mean, scale, coefficients = (
            np.array([fields[name][feature] for feature in FEATURES]) for name in ("mean", "scale", "coefficients")
        )
        return cls(fields["link"], mean, scale, np.r_[fields["intercept"], coefficients], fields["unit"])


def fit_head(features: Floats, seen: Floats, weights: Floats, link: Link) -> Head:
    """Fit a head by penalised maximum likelihood.

    Args:
        features: of customers, from ``describe``.
        seen: 0 or 1, or a count.
        weights: of the customers.
        link: logit or log.
    """
    mean = np.average(features, axis=0, weights=weights)
    scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    level = float(np.average(seen, weights=weights))
    unit = max(level, 1e-9) if link == "log" else 1.0
    y = seen / unit
    ridge = np.full(z.shape[1], RIDGE[link])
    ridge[0] = 1e-6
    beta = np.zeros(z.shape[1])
    if link == "logit":
        beta[0] = np.log(np.clip(level, 1e-4, 1 - 1e-4) / (1 - np.clip(level, 1e-4, 1 - 1e-4)))
    for _ in range(_MAX_STEPS):
        score = z @ beta
        expected = 1 / (1 + np.exp(-score)) if link == "logit" else np.exp(np.clip(score, -_MAX_LOG, _MAX_LOG))
        curve = expected * (1 - expected) if link == "logit" else expected
        gradient = z.T @ (weights * (y - expected)) - ridge * beta
        hessian = (z * (weights * curve)[:, None]).T @ z + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        largest = float(np.abs(step).max())
        beta = beta + step / max(1.0, largest)
        if largest < _TOLERANCE:
            break
    return Head(link, mean, scale, beta, unit)
