"""Predictive validity: by hand, in the extremes, and as sure as it says it is."""

from __future__ import annotations

import narwhals as nw
import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.promotion.validity import (
    combine_validity,
    concordance,
    cross_fit_concordance,
    measure_outcomes,
    measure_validity,
)
from tests.support.lines import clean_rows

N = 600


def shop(n: int = N, seed: int = 1, noise: float = 1.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Customers with two segmentations of how active they are, the challenger's the noisier one, and what they did."""
    random = np.random.default_rng(seed)
    activity = random.normal(size=n)

    def segments(error: float) -> list[str]:
        return [f"S{cut}" for cut in np.digitize(activity + random.normal(0, error, n), [-1, 0, 1])]

    is_back = random.random(n) < 1 / (1 + np.exp(-activity))
    ids = [f"c{number:05}" for number in range(n)]
    customers = pl.DataFrame({"customer_id": ids, "champion": segments(0.5), "challenger": segments(noise)})
    done = pl.DataFrame(
        {"customer_id": ids, "n_orders": is_back.astype(int), "net": random.lognormal(3 + activity / 2, 1).round(2)}
    )
    return customers, done.filter(pl.Series(is_back))


def test_concordance_by_hand() -> None:
    """Customers a to e; of their ten pairs a and b did the same, and of the other nine six are in order."""
    levels = np.array([0, 1, 2, 1, 0])
    outcome = np.array([0.0, 0.0, 9.0, 2.0, 5.0])
    # Who did more stands higher: a-c 1, a-d 1, a-e ½, b-c 1, b-d ½, b-e 0, c-d 1, c-e 1, d-e 0
    found = concordance(levels, outcome)
    assert found is not None
    assert found.value == pytest.approx(6 / 9)
    assert found.influence.sum() == pytest.approx(0)


def test_for_two_outcomes_it_is_the_area_under_the_curve_and_its_error_is_delongs() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(3)
    levels = random.integers(0, 5, 400)
    outcome = (random.random(400) < 0.2 + 0.1 * levels).astype(float)
    found = concordance(levels, outcome)
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(outcome, levels))
    wins = np.sign(levels[outcome == 1][:, None] - levels[outcome == 0][None]) / 2 + 0.5
    n_more, n_less = wins.shape
    delong = wins.mean(axis=1).var() / n_more + wins.mean(axis=0).var() / n_less
    assert (found.influence**2).sum() == pytest.approx(delong)


def test_for_any_outcome_it_is_the_count_over_all_pairs() -> None:
    random = np.random.default_rng(4)
    levels, outcome = random.integers(0, 4, 300), random.integers(0, 9, 300).astype(float)
    is_more = outcome[:, None] > outcome[None]
    wins = np.sign(levels[:, None] - levels[None]) / 2 + 0.5
    found = concordance(levels, outcome)
    assert found is not None
    assert found.value == pytest.approx(wins[is_more].mean())


@pytest.mark.parametrize("outcome", [[], [7.0], [3.0, 3.0, 3.0]])
def test_where_no_two_customers_differ_there_is_nothing_to_order(outcome: list[float]) -> None:
    assert concordance(np.zeros(len(outcome), dtype=int), np.array(outcome)) is None
    assert cross_fit_concordance(np.zeros(len(outcome), dtype=int), np.array(outcome), np.arange(len(outcome))) is None


def test_segments_that_say_everything_have_1_and_one_segment_for_all_has_one_half() -> None:
    customers, done = shop()
    told = customers.select(
        "customer_id",
        champion=pl.lit("S1"),
        challenger=pl.when(pl.col("customer_id").is_in(done["customer_id"].implode()))
        .then(pl.lit("a"))
        .otherwise(pl.lit("b")),
    )
    measured = measure_validity(told, done, seed=1)
    assert measured is not None
    assert (measured.champion["return"], measured.challenger["return"]) == (0.5, 1.0)


def test_a_segment_that_only_one_fold_has_stands_in_the_middle() -> None:
    """In the first fold b did more than a; c, which it has not, stands between them in the second."""
    segments = np.array([0, 0, 1, 1, 0, 1, 2])
    outcome = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.5])
    found = cross_fit_concordance(segments, outcome, np.array([0, 0, 0, 0, 1, 1, 1]))
    assert found is not None
    assert found.value == 1.0


def test_more_segments_than_there_is_reason_for_gain_nothing_by_chance() -> None:
    random = np.random.default_rng(5)
    values = []
    for _ in range(40):
        outcome = (random.random(200) < 0.4).astype(float)
        found = cross_fit_concordance(random.integers(0, 30, 200), outcome, np.arange(200) % 10)
        assert found is not None
        values.append(found.value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("n_back", [0, 29, N - 29, N])
def test_too_few_who_come_back_or_stay_away_say_nothing(n_back: int) -> None:
    customers, _ = shop()
    back = customers["customer_id"].head(n_back)
    done = pl.DataFrame(
        {"customer_id": back, "n_orders": [1] * n_back, "net": [10.0] * n_back},
        schema_overrides={"n_orders": pl.Int64, "net": pl.Float64},
    )
    assert measure_validity(customers, done, seed=1) is None


def test_a_model_against_itself_differs_by_exactly_nothing() -> None:
    customers, done = shop()
    measured = measure_validity(customers.with_columns(challenger="champion"), done, seed=1)
    assert measured is not None
    for one in combine_validity([measured]):
        assert (one.difference, one.low, one.high) == (0, 0, 0)
        assert one.champion > 0.6


def test_neither_the_order_of_rows_nor_the_names_of_segments_change_anything() -> None:
    customers, done = shop()
    renamed = {"S0": "x", "S1": "a", "S2": "m", "S3": "b"}
    other = customers.sample(fraction=1, shuffle=True, seed=2).with_columns(
        pl.col("challenger").replace_strict(renamed)
    )
    before, after = measure_validity(customers, done, seed=1), measure_validity(other, done.reverse(), seed=1)
    assert before is not None
    assert after is not None
    assert combine_validity([before]) == combine_validity([after])


def test_the_interval_is_as_wide_as_resampling_customers_makes_it() -> None:
    customers, done = shop()
    whole = measure_validity(customers, done, seed=1)
    assert whole is not None
    random = np.random.default_rng(6)
    differences = []
    for _ in range(200):
        drawn = pl.Series(random.integers(0, N, N))
        names = pl.Series(customers["customer_id"].sort())
        rows = (
            customers[drawn]
            .join(done, on="customer_id", how="left", maintain_order="left")
            .with_columns(customer_id=names)
        )
        resampled = measure_validity(rows.drop("n_orders", "net"), rows.drop_nulls("net"), seed=1)
        assert resampled is not None
        differences.append([one.difference for one in combine_validity([resampled])])
    widths = [one.high - one.low for one in combine_validity([whole])]
    assert widths == pytest.approx(2 * 1.96 * np.std(differences, axis=0), rel=0.25)


def test_the_same_customers_seen_twice_are_no_more_certain_than_once() -> None:
    customers, done = shop()
    one, stranger = measure_validity(customers, done, seed=1), measure_validity(*shop(seed=9), seed=1)
    assert one is not None
    assert stranger is not None
    [alone, *_], [twice, *_] = combine_validity([one]), combine_validity([one, one])
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high))
    others = stranger.influence.with_columns(customer_id="n" + pl.col("customer_id"))
    [both, *_] = combine_validity([one, type(one)(stranger.champion, stranger.challenger, others)])
    assert both.high - both.low < 0.8 * (alone.high - alone.low)


def test_the_next_period_is_orders_and_net_spend_of_whoever_was_seen_in_it() -> None:
    lines = clean_rows(
        {"customer_id": "1", "invoice_id": "A", "line_amount": 0.1},
        {"customer_id": "1", "invoice_id": "A", "line_amount": 0.2},
        {"customer_id": "1", "invoice_id": "B", "line_amount": 5.0},
        {"customer_id": "1", "invoice_id": "CB", "line_amount": -5.0, "is_cancellation": True},
        {"customer_id": "2", "invoice_id": "CX", "line_amount": -7.0, "is_cancellation": True},
    )
    done = measure_outcomes(nw.from_native(lines.lazy())).collect().to_native().sort("customer_id")
    assert done.rows() == [("1", 2, 0.3), ("2", 0, -7.0)]


def test_the_order_that_is_tested_was_not_seen() -> None:
    """Within each fold the first segment does more, in the other fold the second: every pair is out of order."""
    segments, fold = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    found = cross_fit_concordance(segments, np.array([9.0, 1.0, 2.0, 8.0]), fold)
    assert found is not None
    assert found.value == 0.0
