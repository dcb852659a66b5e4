"""What goes with what: EASE by its published formula, and what is added to it."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from custseg_assets.domain import tastes
from custseg_assets.domain.tastes import REGULARISATION, Tastes, count_together, learn

AS_OF = datetime(2024, 7, 1)


def rows_of(n_customers: int, n_products: int, seed: int = 0) -> NDArray[np.int64]:
    """Who bought what: products are bought in two fashions, some by hardly anybody."""
    rng = np.random.default_rng(seed)
    fashion = rng.integers(2, size=(n_customers, 1)) == np.arange(n_products) % 2
    rows: NDArray[np.int64] = (rng.random((n_customers, n_products)) < np.where(fashion, 0.3, 0.05)).astype(np.int64)
    return rows


def learnt_from(rows: NDArray[np.int64]) -> Tastes:
    who, what = np.nonzero(rows)
    n_both = count_together(who, what, rows.shape[1])
    n_buyers = rows.sum(axis=0)
    return learn(np.arange(rows.shape[1]), n_both, len(rows), n_buyers, n_buyers / 2, AS_OF)


def picked(found: Tastes, rows: NDArray[np.int64], n_items: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    who, what = np.nonzero(rows)
    return found.pick(who, what, np.full(len(who), np.datetime64(AS_OF)), len(rows), n_items)


def test_weights_are_those_of_the_published_formula() -> None:
    """Steck (2019), equation 8, solved here as one regression for each product: column j without product j."""
    rows = rows_of(400, 7).astype(np.float64)
    found = learnt_from(rows_of(400, 7))
    expected = np.zeros((7, 7))
    for product in range(7):
        others = np.delete(rows, product, axis=1)
        ridge = others.T @ others + REGULARISATION * np.eye(6)
        expected[np.arange(7) != product, product] = np.linalg.solve(ridge, others.T @ rows[:, product])
    np.testing.assert_allclose(found.weights, expected / (rows @ expected).std(), rtol=1e-9)


def test_popularity_is_the_standardised_logarithm() -> None:
    rows = rows_of(400, 7)
    logs = np.log(rows.sum(axis=0) / 2 + 1e-3)
    expected = 0.5 * (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(learnt_from(rows).popularity, expected, atol=1e-10)


@pytest.mark.parametrize("n_items", [1, 3, 6, 9])
def test_the_best_are_picked_that_were_not_bought(n_items: int) -> None:
    rows = rows_of(200, 7)
    found = learnt_from(rows)
    numbers, scores = picked(found, rows, n_items)
    every = np.where(rows > 0, -np.inf, rows @ found.weights + found.popularity)
    order = np.argsort(-every, axis=1)[:, :n_items]
    assert numbers.shape == order.shape
    is_offered = np.isfinite(np.take_along_axis(every, order, axis=1))
    assert (numbers == order)[is_offered].all()
    assert (np.isfinite(scores) == is_offered).all()
    np.testing.assert_allclose(scores, np.take_along_axis(every, order, axis=1), atol=1e-9)


def test_many_members_are_scored_in_parts_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(200, 7)
    found = learnt_from(rows)
    whole = picked(found, rows, 3)
    monkeypatch.setattr(tastes, "_AT_ONCE", 33)
    for one, other in zip(whole, picked(found, rows, 3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_equals_more_buyers_and_then_the_smaller_number_come_first() -> None:
    n_both = np.diag([2, 3, 3, 2])
    found = learn(np.array([4, 6, 8, 9]), n_both, 10, np.array([2, 3, 3, 2]), np.ones(4), AS_OF)
    numbers, scores = found.pick(np.zeros(0, int), np.zeros(0, int), np.zeros(0, "datetime64[us]"), 1, 4)
    assert numbers.tolist() == [[6, 8, 4, 9]]
    assert np.unique(scores).size == 1


def test_what_was_bought_long_ago_counts_less() -> None:
    rows = rows_of(400, 7)
    found = learnt_from(rows)
    lately, long_ago = (
        found.pick(np.array([0]), np.array([2]), np.array([np.datetime64(AS_OF - timedelta(days=days))]), 1, 6)[1]
        for days in (0, 180)
    )
    of_others = found.pick(np.array([0]), np.array([2]), np.array([np.datetime64("1970-01-01")]), 1, 6)[1]
    assert lately.max() > long_ago.max() > of_others.max()


def test_nothing_sold_teaches_nothing() -> None:
    empty = learn(np.zeros(0, int), np.zeros((0, 0), int), 0, np.zeros(0, int), np.zeros(0), AS_OF)
    numbers, _ = empty.pick(np.zeros(0, int), np.zeros(0, int), np.zeros(0, "datetime64[us]"), 3, 2)
    assert numbers.shape == (3, 0)


def test_one_product_is_offered_to_who_has_not_got_it() -> None:
    numbers, scores = picked(learnt_from(np.array([[1], [0]])), np.array([[1], [0]]), 3)
    assert np.isfinite(scores).tolist() == [[False], [True]]
    assert numbers[1].tolist() == [0]


def test_the_number_of_threads_makes_no_difference() -> None:
    rows = rows_of(3_000, 300)
    with threadpool_limits(1):
        one = learnt_from(rows)
    many = learnt_from(rows)
    np.testing.assert_array_equal(one.weights, many.weights)


def test_slices_of_customers_add_up() -> None:
    rows = rows_of(90, 7)
    parts = [count_together(*np.nonzero(part), 7) for part in np.array_split(rows, 4)]
    np.testing.assert_array_equal(np.sum(parts, axis=0), rows.T @ rows)
