"""BG/NBD: how often a customer orders while it is one, and whether it still is.

Fader, Hardie and Lee (2005), "Counting Your Customers" the Easy Way: An Alternative to the Pareto/NBD Model, Marketing
Science 24(2). While a customer is alive it orders at a rate of its own, gamma distributed over customers with shape r
and rate alpha; after each order it leaves with a probability of its own, beta distributed with a and b. Everything is
computed in logarithms. What orders are worth belongs in ``gamma_gamma``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NODES = 24
"""Nodes of the quadrature over the probability to leave; on CDNOW 16 already agree with the closed form to 1e-9."""
_PENALTY = 1e-6
"""Of squared logarithms of the parameters, a customer: without it they may run away where the data do not tell them."""
_LOG_MAX = 15.0


@dataclass(frozen=True)
class BgNbd:
    """A fitted BG/NBD.

    Attributes:
        r: shape of the rates of ordering.
        alpha: rate parameter of the rates of ordering, in the unit of time of what it was fitted on.
        a: first parameter of the probabilities to leave.
        b: second parameter of them.
        log_likelihood: of what it was fitted on, in nats.
    """

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float = np.nan

    def p_alive(self, x: Floats, t_x: Floats, t: Floats) -> Floats:
        """Probability of still being a customer; 1 for one who has not come again (equation of section 4.2 there).

        Args:
            x: repeat orders.
            t_x: time of the last of them since the first order; 0 without any.
            t: time since the first order.
        """
        x, t_x, t = (np.asarray(one, float) for one in (x, t_x, t))
        with np.errstate(divide="ignore"):
            log_odds = np.log(self.a) - np.log(np.maximum(self.b + x - 1, 1e-12))
        log_odds = log_odds + (self.r + x) * (np.log(self.alpha + t) - np.log(self.alpha + t_x))
        return np.asarray(np.where(x > 0, 1 / (1 + np.exp(np.minimum(log_odds, 700))), 1.0))

    def p_order(self, x: Floats, t_x: Floats, t: Floats, within: float) -> Floats:
        """Probability of at least one order in the time to come.

        A customer who is alive stays so until it orders, so this is the probability of being alive times that of an
        order of one who is, whose rate of ordering is gamma distributed with r + x and alpha + T.

        Args:
            x: repeat orders.
            t_x: time of the last of them since the first order.
            t: time since the first order.
            within: length of the time to come.
        """
        t = np.asarray(t, float)
        log_none = (self.r + np.asarray(x, float)) * (np.log(self.alpha + t) - np.log(self.alpha + t + within))
        return np.asarray(self.p_alive(x, t_x, t) * -np.expm1(log_none))

    def expected_orders(self, x: Floats, t_x: Floats, t: Floats, within: float) -> Floats:
        """Expected orders in the time to come (equation 10 there).

        The closed form has a hypergeometric function that cancels where a is near 1. So the same is integrated over
        the probability p to leave, beta distributed with a and b + x, of a customer who is alive: it is expected to
        order (1 − E[exp(−λ p within)]) / p times.

        Args:
            x: repeat orders.
            t_x: time of the last of them since the first order.
            t: time since the first order.
            within: length of the time to come.
        """
        x, t = (np.asarray(one, float) for one in (x, t))
        expected = np.zeros(len(x))
        for count in np.unique(x):
            is_here = x == count
            p, weight = _beta_nodes(self.a, self.b + count)
            base = (self.alpha + t[is_here])[:, None]
            left = -np.expm1((self.r + count) * (np.log(base) - np.log(base + p * within)))
            expected[is_here] = left / p @ weight
        return expected * self.p_alive(x, t_x, t)


def _beta_nodes(a: float, b: float) -> tuple[Floats, Floats]:
    """Nodes and weights that integrate over a beta distribution, by Gauss and Jacobi.

    They come from the recurrence of Jacobi's polynomials (Golub and Welsch 1969, Calculation of Gauss Quadrature Rules,
    Mathematics of Computation 23), which needs no gamma functions: those overflow for customers with many orders.
    """
    left, right = b - 1, a - 1
    n = np.arange(_NODES, dtype=float)
    total = 2 * n + left + right
    middle = np.empty(_NODES)
    middle[0] = (right - left) / (left + right + 2)
    middle[1:] = (right - left) * (right + left) / (total[1:] * (total[1:] + 2))
    # In the first a factor cancels, which would be 0 / 0 where a and b add up to 1.
    first = 4 * (1 + left) * (1 + right) / ((2 + left + right) ** 2 * (3 + left + right))
    k, total = n[2:], total[2:]
    others = 4 * k * (k + left) * (k + right) * (k + left + right) / (total**2 * (total + 1) * (total - 1))
    beside = np.sqrt(np.r_[first, others])
    nodes, vectors = np.linalg.eigh(np.diag(middle) + np.diag(beside, 1) + np.diag(beside, -1))
    return np.clip((1 + nodes) / 2, 1e-12, 1.0), vectors[0] ** 2


def fit_bg_nbd(x: Floats, t_x: Floats, t: Floats) -> BgNbd:
    """Fit a BG/NBD by maximum likelihood, on equal customers counted once.

    Args:
        x: repeat orders of each customer.
        t_x: time of the last of them since the first order; 0 without any.
        t: time since the first order; in any unit.

    Raises:
        ValueError: there are no customers, or times that are impossible.
    """
    rows = np.column_stack([np.asarray(one, float) for one in (x, t_x, t)])
    if not len(rows) or not np.isfinite(rows).all() or (rows < 0).any() or (rows[:, 1] > rows[:, 2]).any():
        raise ValueError(f"{len(rows)} customers, expected some, with 0 ≤ t_x ≤ t")
    rows, counts = unique_rows(rows)
    scale = max(float(np.average(rows[:, 2], weights=counts)), 1e-9)
    objective = _Likelihood(rows[:, 0], rows[:, 1] / scale, rows[:, 2] / scale, counts)
    r, alpha, a, b = np.exp(minimise(objective, np.log([0.5, 0.5, 0.8, 2.5])))
    fitted = np.log([r, alpha, a, b])
    log_likelihood = -objective.value(fitted)[0] - np.log(scale) * float(counts @ rows[:, 0])
    return BgNbd(float(r), float(alpha * scale), float(a), float(b), float(log_likelihood))


@dataclass(frozen=True)
class _Likelihood:
    """The negative log-likelihood of log parameters (equation 6 there), and its gradient."""

    x: Floats
    t_x: Floats
    t: Floats
    counts: Floats

    def value(self, log_parameters: Floats) -> tuple[float, Floats]:
        from scipy.special import digamma, gammaln

        r, alpha, a, b = np.exp(log_parameters)
        x, t_x, t = self.x, self.t_x, self.t
        has_repeat = x > 0
        log_t, log_t_x = np.log(alpha + t), np.log(alpha + t_x)
        before_last = np.where(has_repeat, b + x - 1, 1.0)
        stays = -(r + x) * log_t
        leaves = np.where(has_repeat, np.log(a) - np.log(np.abs(before_last)) - (r + x) * log_t_x, -np.inf)
        both = np.logaddexp(stays, leaves)
        left = np.exp(leaves - both)
        rate = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
        leaving = gammaln(a + b) + gammaln(b + x) - gammaln(b) - gammaln(a + b + x)
        log_likelihood = self.counts @ (rate + leaving + both)
        mean_log = (1 - left) * log_t + left * log_t_x
        mean_inverse = (1 - left) / (alpha + t) + left / (alpha + t_x)
        common = digamma(a + b) - digamma(a + b + x)
        by_r = digamma(r + x) - digamma(r) + np.log(alpha) - mean_log
        by_alpha = r / alpha - (r + x) * mean_inverse
        by_a = common + left / a
        by_b = common + digamma(b + x) - digamma(b) - left / before_last
        gradient = np.array([self.counts @ one for one in (by_r, by_alpha, by_a, by_b)])
        return -float(log_likelihood), -gradient * np.exp(log_parameters)

    def __call__(self, log_parameters: Floats) -> tuple[float, Floats]:
        value, gradient = self.value(log_parameters)
        n, pull = self.counts.sum(), _PENALTY * log_parameters
        return value / n + float(pull @ log_parameters), gradient / n + 2 * pull


def minimise(objective: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    """Where a function of logarithms is least, by L-BFGS with its gradient.

    Args:
        objective: gives the function and its gradient.
        start: where to begin.
    """
    from scipy.optimize import minimize

    bounds = [(-_LOG_MAX, _LOG_MAX)] * len(start)
    options = {"maxiter": 300, "ftol": 1e-12, "gtol": 1e-7}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x, float)


def unique_rows(rows: Floats) -> tuple[Floats, Floats]:
    """Equal rows once, in ascending order, and how often each was there."""
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]
    is_new = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    starts = np.flatnonzero(is_new)
    return ordered[starts], np.diff(np.r_[starts, len(ordered)]).astype(float)
