"""What a campaign changed: by hand, against least squares, and how often it is told where nothing was changed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from custseg_assets.domain.campaigns import estimate
from custseg_assets.domain.campaigns.assignment import assign_holdout
from custseg_assets.domain.campaigns.estimate import (
    MIN_GROUP,
    Stratum,
    compare_splits,
    critical_quotient,
    draw_differences,
    estimate_effects,
    weigh_together,
)

N_SPLITS = 400


def shop(seed: int, sizes: Sequence[int]) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Of each segment, prediction, orders and spend: seldom, skewed, and not what the prediction says."""
    random = np.random.default_rng(seed)
    found = []
    for place, size in enumerate(sizes):
        prediction = random.beta(2, 3 + place, size)
        orders = (random.random(size) < prediction**1.5).astype(np.float64)
        spend = np.minimum(orders * random.lognormal(4 - place / 2, 1.3, size), 900.0)
        found.append((prediction, orders, spend))
    return found


def test_a_difference_without_a_line_is_that_of_the_means() -> None:
    # Held out: 1, 2 and 3; written to: 3, 5 and 7. Variances 1/3 and 4/3.
    stratum = Stratum(np.array([1.0, 2, 3, 3, 5, 7]), np.zeros(6), 3)
    found = compare_splits(stratum, np.array([[0, 1, 2]]))
    assert found.effect.tolist() == pytest.approx([3.0])
    assert found.variance.tolist() == pytest.approx([1 / 3 + 4 / 3])
    assert found.holdout_mean.tolist() == pytest.approx([2.0])


def test_a_difference_with_lines_is_least_squares_with_interactions() -> None:
    prediction, _, spend = shop(3, [240])[0]
    held = np.sort(np.random.default_rng(4).permutation(240)[:60])
    found = compare_splits(Stratum(spend, prediction, 60), held[None, :])
    is_written_to = np.ones(240)
    is_written_to[held] = 0
    about = prediction - prediction.mean()
    matrix = np.column_stack((np.ones(240), is_written_to, about, is_written_to * about))
    assert found.effect[0] == pytest.approx(np.linalg.lstsq(matrix, spend, rcond=None)[0][1])


def test_rows_and_units_do_not_matter() -> None:
    prediction, _, spend = shop(5, [300])[0]
    held = np.arange(60)
    mixed = np.random.default_rng(6).permutation(300)
    place = np.argsort(mixed)
    one = compare_splits(Stratum(spend, prediction, 60), held[None, :])
    other = compare_splits(Stratum(100 * spend[mixed] + 7, 3 * prediction[mixed] - 1, 60), place[held][None, :])
    assert other.effect[0] == pytest.approx(100 * one.effect[0])
    assert other.quotients()[0] == pytest.approx(one.quotients()[0])


@pytest.mark.parametrize("figure", ["orders", "spend"])
def test_where_nothing_was_changed_one_split_in_twenty_says_so(figure: str) -> None:
    """For every figure that is shown: over all segments, and in each, one of them with the fewest that are told of."""
    sizes = [900, 400, 5 * MIN_GROUP]
    segments = np.repeat(["S1", "S2", "S3"], sizes)
    ids = [f"c{number}" for number in range(len(segments))]
    splits = [assign_holdout(ids, segments.tolist(), f"salt {number}", 0.2) for number in range(N_SPLITS)]
    starts = np.cumsum([0, *sizes])
    held = [
        np.array([np.flatnonzero(split[first:last]) for split in splits]) for first, last in itertools.pairwise(starts)
    ]
    strata = [
        Stratum(orders if figure == "orders" else spend, prediction, rows.shape[1])
        for (prediction, orders, spend), rows in zip(shop(7, sizes), held, strict=True)
    ]
    random = np.random.default_rng(8)
    drawn = [draw_differences(one, 1_999, random) for one in strata]
    seen = [compare_splits(one, rows) for one, rows in zip(strata, held, strict=True)]
    for found, chance in [
        *zip(seen, drawn, strict=True),
        (weigh_together(strata, seen), weigh_together(strata, drawn)),
    ]:
        share = (np.abs(found.quotients()) > critical_quotient(chance)).mean()
        # Four standard errors of a share of 5 % in so many splits.
        assert share == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / N_SPLITS))


def test_an_effect_is_found_and_its_interval_holds_it() -> None:
    random, n_held_it, n_found = np.random.default_rng(9), 0, 0
    for number in range(60):
        prediction, orders, _ = shop(number, [1_500])[0]
        held = np.sort(random.permutation(1_500)[:300])
        outcome = orders.copy()
        is_written_to = np.ones(1_500, np.bool_)
        is_written_to[held] = False
        changed = is_written_to & (orders == 0) & (random.random(1_500) < 0.16)
        outcome[changed] = 1.0
        truth = 0.16 * (1 - orders.mean())
        overall, single = estimate_effects([Stratum(outcome, prediction, 300)], [held], seed=number, n_draws=399)
        assert overall is not None
        assert single[0] is not None
        assert (single[0].effect, single[0].low) == (overall.effect, overall.low)
        n_found += overall.low > 0
        n_held_it += overall.low <= truth <= overall.high
    assert n_found >= 55
    assert n_held_it >= 53


def test_an_alarm_is_a_small_p_value_and_the_reverse() -> None:
    for number in range(20):
        prediction, orders, spend = shop(number, [200])[0]
        held = np.arange(40)
        effect, _ = estimate_effects([Stratum(spend + orders, prediction, 40)], [held], seed=number, n_draws=199)
        assert effect is not None
        assert effect.is_alarm == (effect.p_value <= 0.05)


def test_too_few_customers_have_no_figure_of_their_own() -> None:
    small, large = (Stratum(np.arange(n) % 3.0, np.arange(n) * 1.0, n // 5) for n in (5 * MIN_GROUP - 5, 400))
    overall, single = estimate_effects([small, large], [np.arange(19), np.arange(80)], seed=1, n_draws=99)
    assert [one is None for one in single] == [True, False]
    assert overall is not None
    # The small one counts in the figure over all.
    assert overall.n_holdout == 99
    assert estimate_effects([small], [np.arange(19)], seed=1, n_draws=99) == (None, [None])
    assert estimate_effects([], [], seed=1) == (None, [])
    empty = Stratum(np.ones(3), np.ones(3), 0)
    assert estimate_effects([empty], [np.zeros(0, np.int64)], seed=1) == (None, [None])


def test_who_all_did_the_same_gives_no_alarm() -> None:
    nobody = Stratum(np.zeros(200), np.arange(200) * 1.0, 40)
    overall, _ = estimate_effects([nobody], [np.arange(40)], seed=1, n_draws=99)
    assert overall is not None
    assert (overall.effect, overall.low, overall.high, overall.is_alarm) == (0.0, 0.0, 0.0, False)


def test_draws_of_large_segments_are_those_of_the_normal_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, _, spend = shop(11, [4_000])[0]
    stratum = Stratum(spend, prediction, 800)
    drawn = critical_quotient(draw_differences(stratum, 1_999, np.random.default_rng(1)))
    monkeypatch.setattr(estimate, "MAX_DRAWN", 100)
    assert critical_quotient(draw_differences(stratum, 1_999, np.random.default_rng(1))) == pytest.approx(
        drawn, abs=0.15
    )
