"""Gamma-Gamma: the published fit of CDNOW, and what is expected of an order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.value.gamma_gamma import GammaGamma, _Likelihood, fit_gamma_gamma
from tests.support.files import REPOSITORY

CDNOW = pl.read_csv(REPOSITORY / "tests" / "data" / "cdnow" / "summary.csv").filter(pl.col("x") > 0)
X, MEAN = (CDNOW[name].cast(pl.Float64).to_numpy() for name in ("x", "zbar"))


def test_cdnow_gives_the_published_parameters() -> None:
    fitted = fit_gamma_gamma(X, MEAN)
    assert (fitted.p, fitted.q, fitted.gamma) == pytest.approx((6.25, 3.74, 15.44), rel=0.02)


def test_the_currency_changes_gamma_alone() -> None:
    pounds, pence = fit_gamma_gamma(X, MEAN), fit_gamma_gamma(X, 100 * MEAN)
    assert pence.gamma == pytest.approx(100 * pounds.gamma, rel=1e-4)
    assert (pence.p, pence.q) == pytest.approx((pounds.p, pounds.q), rel=1e-4)
    assert pence.log_likelihood == pytest.approx(pounds.log_likelihood - np.log(100) * len(X))


def test_the_gradient_is_that_of_the_likelihood() -> None:
    objective, at = _Likelihood(X, MEAN, np.ones(len(X))), np.log([4.0, 3.0, 20.0])
    _, gradient = objective(at)
    for place in range(3):
        step = np.zeros(3)
        step[place] = 1e-6
        assert gradient[place] == pytest.approx((objective(at + step)[0] - objective(at - step)[0]) / 2e-6, rel=1e-4)


def test_by_hand() -> None:
    model = GammaGamma(p=6.0, q=4.0, gamma=15.0)
    # Without orders the mean of all, p gamma / (q − 1); with two of 40 on average p (gamma + 80) / (2 p + q − 1).
    assert model.expected_value(np.array([0.0, 2.0]), np.array([99.0, 40.0])) == pytest.approx([30.0, 38.0])
    # With many it is nearly the customer's own.
    assert model.expected_value(np.array([1e6]), np.array([40.0])) == pytest.approx([40.0], rel=1e-4)


def test_a_mean_that_does_not_exist_is_finite_all_the_same() -> None:
    assert np.isfinite(GammaGamma(p=2.0, q=0.7, gamma=10.0).expected_value(np.zeros(1), np.zeros(1))).all()


@pytest.mark.parametrize(("x", "mean"), [([], []), ([0.0], [5.0]), ([1.0], [0.0])])
def test_customers_without_a_value_are_refused(x: list[float], mean: list[float]) -> None:
    with pytest.raises(ValueError, match="each with orders and a mean value above 0"):
        fit_gamma_gamma(np.array(x), np.array(mean))
