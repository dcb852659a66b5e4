"""BG/NBD: the published fit of CDNOW, the closed form, and what must hold for every customer."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import hyp2f1

from custseg_assets.domain.value.bg_nbd import BgNbd, _Likelihood, fit_bg_nbd, unique_rows
from tests.support.files import REPOSITORY

CDNOW = pl.read_csv(REPOSITORY / "tests" / "data" / "cdnow" / "summary.csv")
X, T_X, T = (CDNOW[name].cast(pl.Float64).to_numpy() for name in ("x", "t_x", "T"))
PUBLISHED = {"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426}


@pytest.fixture(scope="module")
def fitted() -> BgNbd:
    return fit_bg_nbd(X, T_X, T)


def test_cdnow_gives_the_published_parameters(fitted: BgNbd) -> None:
    for name, value in PUBLISHED.items():
        assert getattr(fitted, name) == pytest.approx(value, rel=0.01), name
    assert fitted.log_likelihood == pytest.approx(-9582.4, abs=0.1)


def test_the_unit_of_time_changes_alpha_alone(fitted: BgNbd) -> None:
    days = fit_bg_nbd(X, 7 * T_X, 7 * T)
    assert days.alpha == pytest.approx(7 * fitted.alpha, rel=1e-4)
    assert (days.r, days.a, days.b) == pytest.approx((fitted.r, fitted.a, fitted.b), rel=1e-4)
    assert days.log_likelihood == pytest.approx(fitted.log_likelihood - np.log(7) * X.sum())


def test_customers_of_every_kind_twice_give_the_same_fit(fitted: BgNbd) -> None:
    twice = fit_bg_nbd(np.tile(X, 2), np.tile(T_X, 2), np.tile(T, 2))
    assert (twice.r, twice.alpha, twice.a, twice.b) == pytest.approx(
        (fitted.r, fitted.alpha, fitted.a, fitted.b), rel=1e-3
    )
    assert twice.log_likelihood == pytest.approx(2 * fitted.log_likelihood)


def test_the_gradient_is_that_of_the_likelihood() -> None:
    objective = _Likelihood(X, T_X, T, np.ones(len(X)))
    at = np.log([0.3, 4.0, 0.7, 2.0])
    _, gradient = objective(at)
    for place in range(4):
        step = np.zeros(4)
        step[place] = 1e-6
        assert gradient[place] == pytest.approx((objective(at + step)[0] - objective(at - step)[0]) / 2e-6, rel=1e-5)


def test_expected_orders_are_those_of_the_closed_form(fitted: BgNbd) -> None:
    r, alpha, a, b, ahead = fitted.r, fitted.alpha, fitted.a, fitted.b, 39.0
    series = hyp2f1(r + X, b + X, a + b + X - 1, ahead / (alpha + T + ahead))
    alive = (a + b + X - 1) / (a - 1) * (1 - ((alpha + T) / (alpha + T + ahead)) ** (r + X) * series)
    left = (X > 0) * a / np.maximum(b + X - 1, 1e-9) * ((alpha + T) / (alpha + T_X)) ** (r + X)
    assert fitted.expected_orders(X, T_X, T, ahead) == pytest.approx(alive / (1 + left), rel=1e-9)


def test_a_near_1_is_no_trouble() -> None:
    # The closed form divides by a - 1.
    near, at = (BgNbd(0.3, 5.0, a, 2.0).expected_orders(X, T_X, T, 39.0) for a in (1 + 1e-9, 1.0))
    assert near == pytest.approx(at, rel=1e-6)
    assert np.isfinite(at).all()


def test_by_hand() -> None:
    # r = alpha = a = b = 1; one repeat order at 1 of 2: the odds of having left are 1/1 · (3/2)², so alive is 1/3.25.
    one = BgNbd(1.0, 1.0, 1.0, 1.0)
    history = np.array([1.0]), np.array([1.0]), np.array([2.0])
    assert one.p_alive(*history) == pytest.approx([1 / 3.25])
    # Given alive, the rate is gamma distributed with 2 and 3: no order within 3 has the probability (3/6)².
    assert one.p_order(*history, 3.0) == pytest.approx([0.75 / 3.25])


CUSTOMERS = st.tuples(st.integers(0, 5000), st.floats(0.0, 1.0), st.floats(0.1, 4000.0))
PARAMETERS = st.tuples(st.floats(0.01, 50.0), st.floats(0.01, 500.0), st.floats(0.01, 20.0), st.floats(0.01, 5000.0))


@settings(max_examples=60, deadline=None)
@given(CUSTOMERS, PARAMETERS, st.floats(1.0, 400.0))
def test_every_customer_gets_possible_figures(
    customer: tuple[int, float, float], parameters: tuple[float, float, float, float], ahead: float
) -> None:
    x, share, t = customer
    model = BgNbd(*parameters)
    history = np.array([float(x)]), np.array([share * t if x else 0.0]), np.array([t])
    alive, soon, late = model.p_alive(*history), model.p_order(*history, ahead), model.p_order(*history, 2 * ahead)
    assert 0 <= soon[0] <= late[0] <= alive[0] <= 1
    # Expected orders are at least the probability of one.
    assert model.expected_orders(*history, ahead)[0] >= soon[0] * (1 - 1e-6)


@pytest.mark.parametrize(
    ("x", "t_x", "t"),
    [([], [], []), ([1.0], [3.0], [2.0]), ([1.0], [1.0], [np.nan]), ([-1.0], [0.0], [2.0])],
)
def test_impossible_customers_are_refused(x: list[float], t_x: list[float], t: list[float]) -> None:
    with pytest.raises(ValueError, match=r"customers, expected some, with 0 ≤ t_x ≤ t"):
        fit_bg_nbd(np.array(x), np.array(t_x), np.array(t))


def test_equal_rows_are_counted_once() -> None:
    rows, counts = unique_rows(np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0]]))
    assert rows.tolist() == [[0.0, 5.0], [1.0, 2.0]]
    assert counts.tolist() == [1.0, 2.0]
