"""Gamma-Gamma: what an order of a customer is worth on average, from those that it has made.

Fader and Hardie (2013), The Gamma-Gamma Model of Monetary Value, https://www.brucehardie.com/notes/025/. Values of
orders vary around a mean of the customer's own by a gamma distribution of shape p, and these means over customers by
another, with q and gamma. Everything is computed in logarithms. How often customers order belongs in ``bg_nbd``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.value.bg_nbd import minimise, unique_rows

Floats = NDArray[np.float64]

_PENALTY = 1e-6


@dataclass(frozen=True)
class GammaGamma:
    """A fitted Gamma-Gamma.

    Attributes:
        p: shape of the values of a customer's orders.
        q: shape of what differs between customers.
        gamma: scale of that, in currency.
        log_likelihood: of what it was fitted on, in nats.
    """

    p: float
    q: float
    gamma: float
    log_likelihood: float = np.nan

    def expected_value(self, x: Floats, mean: Floats) -> Floats:
        """Expected value of an order (equation 5 there): the customer's own mean, drawn towards that of all.

        Where q is 1 or less the mean of all customers does not exist; then it is the median of their gamma's inverse
        that a customer without orders gets no better than, so q counts as at least 1.01.

        Args:
            x: orders with a value.
            mean: their mean value, in currency; not looked at where there are none.
        """
        x = np.asarray(x, float)
        total = np.where(x > 0, x * np.asarray(mean, float), 0.0)
        return self.p * (self.gamma + total) / (self.p * x + max(self.q, 1.01) - 1)


def fit_gamma_gamma(x: Floats, mean: Floats) -> GammaGamma:
    """Fit a Gamma-Gamma by maximum likelihood, on customers with orders that have a value.

    Args:
        x: orders of each customer, at least one.
        mean: their mean value, more than 0.

    Raises:
        ValueError: there are no customers, or one has no order or no value.
    """
    rows = np.column_stack([np.asarray(one, float) for one in (x, mean)])
    if not len(rows) or not np.isfinite(rows).all() or (rows <= 0).any():
        raise ValueError(f"{len(rows)} customers, expected some, each with orders and a mean value above 0")
    rows, counts = unique_rows(rows)
    # The geometric mean, for a few huge customers not to decide the scale.
    scale = float(np.exp(np.average(np.log(rows[:, 1]), weights=counts)))
    objective = _Likelihood(rows[:, 0], rows[:, 1] / scale, counts)
    fitted = minimise(objective, np.log([2.0, 2.0, 2.0]))
    p, q, gamma = np.exp(fitted)
    log_likelihood = -objective.value(fitted)[0] - np.log(scale) * float(counts.sum())
    return GammaGamma(float(p), float(q), float(gamma * scale), float(log_likelihood))


@dataclass(frozen=True)
class _Likelihood:
    """The negative log-likelihood of log parameters (equation 1a there), and its gradient."""

    x: Floats
    mean: Floats
    counts: Floats

    def value(self, log_parameters: Floats) -> tuple[float, Floats]:
        from scipy.special import digamma, gammaln

        p, q, gamma = np.exp(log_parameters)
        x, m = self.x, self.mean
        px, total = p * x, gamma + m * x
        log_total = np.log(total)
        log_likelihood = (
            gammaln(px + q) - gammaln(px) - gammaln(q) + q * np.log(gamma) + (px - 1) * np.log(m) + px * np.log(x)
        ) - (px + q) * log_total
        by_p = x * (digamma(px + q) - digamma(px) + np.log(m) + np.log(x) - log_total)
        by_q = digamma(px + q) - digamma(q) + np.log(gamma) - log_total
        by_gamma = q / gamma - (px + q) / total
        gradient = np.array([self.counts @ one for one in (by_p, by_q, by_gamma)])
        return -float(self.counts @ log_likelihood), -gradient * np.exp(log_parameters)

    def __call__(self, log_parameters: Floats) -> tuple[float, Floats]:
        value, gradient = self.value(log_parameters)
        n, pull = self.counts.sum(), _PENALTY * log_parameters
        return value / n + float(pull @ log_parameters), gradient / n + 2 * pull
