"""Intervals: made of misses, wide where little is known, and always around their figure."""

from __future__ import annotations

import numpy as np
import pytest

from custseg_assets.domain.value.intervals import (
    COVERAGE,
    GUESSED_MISS,
    Replayed,
    deciles,
    half_width,
    interval_of_amount,
    interval_of_probability,
    logit,
)


def replays(n_replays: int, off: float, seed: int = 3) -> list[Replayed]:
    """Predictions of 2,000 customers whose true odds are off by a factor, up on every other day, else down."""
    rng, found = np.random.default_rng(seed), []
    for day in range(n_replays):
        p = rng.beta(2, 5, 2000)
        true = 1 / (1 + np.exp(-(logit(p) + (off if day % 2 else -off))))
        found.append(Replayed(day, p, (rng.random(2000) < true).astype(float)))
    return found


def test_by_hand() -> None:
    # Two replays, each off by 0.4, beside two guesses of 0.2: the mean square is 0.1; Student's t with 4 degrees of
    # freedom is 2.132 at 95 %.
    assert half_width([0.4, -0.4], 2) == pytest.approx(2.1318 * np.sqrt(0.1), rel=1e-4)
    # Without replays the guess alone, with 2 degrees of freedom.
    assert half_width([], 0) == pytest.approx(2.9200 * GUESSED_MISS, rel=1e-4)


def test_more_replays_that_were_near_make_it_narrower_and_far_ones_wider() -> None:
    few, many = interval_of_probability(replays(1, 0.0)), interval_of_probability(replays(6, 0.0))
    far = interval_of_probability(replays(6, 0.8))
    assert many.width < few.width < far.width


def test_most_deciles_of_a_new_day_lie_within_their_interval() -> None:
    interval = interval_of_probability(replays(6, 0.3))
    new = replays(12, 0.3, seed=9)
    held = []
    for day in new:
        low, high = interval.ends(day.predicted)
        parts = deciles(day.predicted)
        held += [low[part].mean() <= day.seen[part].mean() <= high[part].mean() for part in parts]
    assert np.mean(held) >= COVERAGE


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.3, 1.0])
def test_a_probability_lies_within_its_own_interval(p: float) -> None:
    low, high = interval_of_probability(replays(2, 0.5)).ends(np.array([p]))
    assert 0 <= low[0] <= p <= high[0] <= 1


def test_an_amount_interval_holds_nine_of_ten() -> None:
    rng = np.random.default_rng(5)

    def day(at: int) -> Replayed:
        expected = rng.lognormal(0, 1, 4000)
        return Replayed(at, expected, expected * rng.lognormal(-0.5, 1, 4000))

    interval, new = interval_of_amount([day(0), day(1)]), day(2)
    low, high = interval.ends(new.predicted)
    assert (low <= new.predicted).all()
    assert (new.predicted <= high).all()
    assert np.mean((low <= new.seen) & (new.seen <= high)) == pytest.approx(COVERAGE, abs=0.03)


def test_without_replays_an_amount_has_a_wide_interval() -> None:
    low, high = interval_of_amount([]).ends(np.array([0.0, 2.0]))
    assert low.tolist() == [0.0, 0.0]
    assert high.tolist() == [0.0, 6.0]


def test_equal_predictions_keep_their_order_in_deciles() -> None:
    assert [part.tolist() for part in deciles(np.zeros(3))] == [[0], [1], [2]]
    assert [len(part) for part in deciles(np.arange(25.0))] == [3] * 5 + [2] * 5


def test_where_nearly_nobody_does_anything_the_upper_end_is_what_the_least_of_the_others_did() -> None:
    predicted = np.repeat([0.02, 0.9], 500)
    seen = np.zeros(1_000)
    seen[:10], seen[500:] = 1.0, np.tile([0.0, 1.0, 2.0, 1.0], 125)

    low, high = interval_of_amount([Replayed(0, predicted, seen)]).ends(np.array([0.02, 0.9]))

    assert low.tolist() == [0.0, 0.0]
    assert high == pytest.approx([1.0, 2.0])


def test_where_nobody_of_a_tenth_did_anything_the_upper_end_is_the_least_that_anybody_did() -> None:
    predicted, seen = np.repeat([0.01, 0.9], 500), np.repeat([0.0, 3.0], 500)

    _, high = interval_of_amount([Replayed(0, predicted, seen)]).ends(np.array([0.01]))

    assert high == pytest.approx([3.0])


def test_nobody_who_orders_and_nobody_who_is_expected_to_is_no_miss() -> None:
    nobody = np.zeros(200)
    low, high = interval_of_probability([Replayed(day, nobody, nobody) for day in range(6)]).ends(np.array([0.0, 0.1]))
    assert low[0] <= high[0] < 1e-4
    assert high[1] < 0.2
