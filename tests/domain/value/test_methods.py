"""Heads, segments' means and the rest: what they learn, and what never happens."""

from __future__ import annotations

import numpy as np
import pytest

from custseg_assets.domain.value.days import Known, known_at, seen_within
from custseg_assets.domain.value.heads import FEATURES, describe, fit_head
from custseg_assets.domain.value.methods import (
    HORIZONS,
    ORDERS,
    PROBABILITIES,
    SPEND,
    TARGETS,
    Lesson,
    SegmentMean,
    _own_value,
    fit_btyd,
    fit_heads,
    fit_pace,
    fit_segment_mean,
)
from tests.support.customer_days import FIRST, customer_days

DAYS = customer_days()
AT = FIRST + 150
KNOWN = known_at(DAYS, AT)
SEGMENTS = np.where(KNOWN.n_days > 4, "S1", "S2").astype(object)


def lessons(*ats: int) -> dict[int, list[Lesson]]:
    found: dict[int, list[Lesson]] = {}
    for horizon in HORIZONS:
        found[horizon] = []
        for at in ats:
            known = known_at(DAYS, at)
            segments = np.where(known.n_days > 4, "S1", "S2").astype(object)
            found[horizon].append(Lesson(known, segments, seen_within(DAYS, known, horizon), 1.0))
    return found


def some(known: Known, **changed: object) -> Known:
    parts = {name: getattr(known, name) for name in ("n_days", "recency", "tenure", "net", "n_recent")} | changed
    return Known(known.at, known.customers, **parts)  # type: ignore[arg-type]


def test_a_head_finds_what_it_was_made_from() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(20_000, 2))
    score = 0.5 + features @ [1.0, -2.0]
    seen = (rng.random(20_000) < 1 / (1 + np.exp(-score))).astype(float)
    head = fit_head(features, seen, np.ones(20_000), "logit")
    assert head.coefficients == pytest.approx([0.5, 1.0, -2.0], abs=0.08)
    counts = rng.poisson(np.exp(0.2 + features @ [0.3, -0.5])).astype(float)
    head = fit_head(features, counts, np.ones(20_000), "log")
    assert head.predict(features).sum() == pytest.approx(counts.sum(), rel=1e-3)
    assert head.coefficients[1:] == pytest.approx([0.3, -0.5], abs=0.03)


def test_a_weight_of_two_is_a_customer_twice() -> None:
    features, seen = describe(KNOWN), (KNOWN.recency < 20).astype(float)
    weights = np.where(np.arange(len(seen)) % 3, 1.0, 2.0)
    twice = np.repeat(np.arange(len(seen)), weights.astype(int))
    one = fit_head(features, seen, weights, "logit")
    other = fit_head(features[twice], seen[twice], np.ones(len(twice)), "logit")
    assert one.coefficients == pytest.approx(other.coefficients, abs=1e-6)


def test_nobody_or_everybody_ordering_is_no_trouble() -> None:
    features = describe(KNOWN)
    for seen in (np.zeros(len(features)), np.ones(len(features))):
        p = fit_head(features, seen, np.ones(len(features)), "logit").predict(features)
        assert np.isfinite(p).all()
        assert abs(p.mean() - seen.mean()) < 0.01
    counts = fit_head(features, np.zeros(len(features)), np.ones(len(features)), "log").predict(features)
    assert (counts < 1e-3).all()


def test_features_are_logs_and_a_debt_is_no_number_lost() -> None:
    features = describe(some(KNOWN, net=np.full(len(KNOWN.customers), -5.0)))
    assert features.shape == (len(KNOWN.customers), len(FEATURES))
    assert (features[:, FEATURES.index("log_net_spend")] == 0).all()
    assert features[:, FEATURES.index("log_recency")] == pytest.approx(np.log1p(KNOWN.recency))


@pytest.mark.parametrize("name", ["segment_mean", "bg_nbd", "logistic", "pace"])
def test_every_method_gives_possible_figures(name: str) -> None:
    taught = lessons(FIRST + 60, FIRST + 90)
    method = {
        "segment_mean": lambda: fit_segment_mean(taught),
        "bg_nbd": lambda: fit_btyd(KNOWN),
        "logistic": lambda: fit_heads(taught),
        "pace": lambda: fit_pace(KNOWN, SEGMENTS),
    }[name]()
    assert method is not None
    assert method.targets == {*TARGETS}
    figures = method.predict(KNOWN, SEGMENTS)
    assert set(figures) == {*TARGETS}
    for target in PROBABILITIES:
        assert ((figures[target] >= 0) & (figures[target] <= 1)).all()
    assert (figures["order_30d"] <= figures["order_60d"]).all()
    assert (figures["order_60d"] <= figures["order_90d"]).all()
    assert (figures[ORDERS] >= 0).all()
    assert np.isfinite(figures[SPEND]).all()
    assert (figures[SPEND] >= 0).all()


@pytest.mark.parametrize("name", ["bg_nbd", "logistic"])
def test_what_is_predicted_of_a_customer_does_not_depend_on_who_else_is_there(name: str) -> None:
    method = fit_btyd(KNOWN) if name == "bg_nbd" else fit_heads(lessons(FIRST + 60))
    assert method is not None
    half = np.arange(len(KNOWN.customers)) % 2 == 0
    of_all, of_half = method.predict(KNOWN, SEGMENTS), method.predict(KNOWN.only(half), SEGMENTS[half])
    for target in TARGETS:
        assert of_half[target] == pytest.approx(of_all[target][half], rel=1e-12)


def test_a_segment_has_the_mean_of_what_its_customers_did() -> None:
    mean = fit_segment_mean(lessons(FIRST + 90))
    [lesson] = lessons(FIRST + 90)[30]
    ordered = lesson.seen.n_orders > 0
    is_first = lesson.segments == "S1"
    shop = ordered.mean()
    expected = (ordered[is_first].sum() + 20 * shop) / (is_first.sum() + 20)
    assert mean.means["order_30d"]["S1"] == pytest.approx(expected)
    figures = mean.predict(KNOWN, np.array(["S1", "S9", None] + ["S1"] * (len(KNOWN.customers) - 3), dtype=object))
    assert figures["order_30d"][:3] == pytest.approx([expected, shop, shop])


def test_who_lapsed_when_nobody_had_before_gets_the_least_of_the_segments() -> None:
    mean = fit_segment_mean(lessons(FIRST + 90))
    figures = mean.predict(KNOWN, np.full(len(KNOWN.customers), "R2", dtype=object))
    assert figures["order_30d"] == pytest.approx(min(mean.means["order_30d"].values()))


def test_one_huge_order_does_not_make_a_huge_customer() -> None:
    once, often = (KNOWN.only(np.arange(len(KNOWN.customers)) == np.flatnonzero(KNOWN.n_days == n)[0]) for n in (1, 10))

    def times_more(known: Known) -> float:
        values = [_own_value(some(known, net=np.full(1, net)), 50.0)[0] for net in (1e5, 1e8)]
        return float(values[1] / values[0])

    # A thousand times the money: half an order of a middling value stands beside one, and beside ten, on a log scale.
    assert times_more(once) == pytest.approx(1000 ** (1 / 1.5))
    assert times_more(often) == pytest.approx(1000 ** (10 / 10.5))


def test_who_sends_back_more_than_it_buys_is_expected_to_spend_nothing() -> None:
    taught = lessons(FIRST + 90)
    for of_one in taught.values():
        of_one[0].seen.net[of_one[0].segments == "S2"] = -100.0
    figures = fit_segment_mean(taught).predict(KNOWN, np.full(len(KNOWN.customers), "S2", dtype=object))
    assert (figures[SPEND] == 0).all()


def test_a_huge_customer_hardly_moves_what_is_learnt_of_all() -> None:
    before = fit_heads(lessons(FIRST + 60)).predict(KNOWN, SEGMENTS)[SPEND]
    taught = lessons(FIRST + 60)
    for of_one in taught.values():
        of_one[0].seen.net[0] *= 10_000
        of_one[0].seen.n_orders[0] *= 1_000
    after = fit_heads(taught).predict(KNOWN, SEGMENTS)[SPEND]
    assert after.sum() == pytest.approx(before.sum(), rel=0.1)


def test_too_few_who_came_again_fit_no_bg_nbd() -> None:
    assert fit_btyd(KNOWN.only(np.arange(len(KNOWN.customers)) < 20)) is None


def test_the_pace_is_that_of_repeat_orders() -> None:
    # 100 customers, each 10 orders after the first in 100 days: 0.1 a day.
    n = 100
    alike = Known(
        1000, np.arange(n), np.full(n, 11.0), np.full(n, 1.0), np.full(n, 100.0), np.full(n, 220.0), np.ones((n, 4))
    )
    figures = fit_pace(alike, np.full(n, "S1", dtype=object)).predict(alike, np.full(n, "S1", dtype=object))
    # 3 orders on average, and paces that differ from customer to customer.
    assert figures["order_30d"] == pytest.approx(3 / 4, rel=0.01)
    assert figures[ORDERS] == pytest.approx(9, rel=0.01)
    assert figures[SPEND] == pytest.approx(180, rel=0.01)


def test_no_fewer_orders_are_expected_than_the_probability_of_one() -> None:
    of_s1 = {"order_30d": 0.5, "order_60d": 0.4, "order_90d": 0.3, ORDERS: 0.2, SPEND: 9.0}
    mean = SegmentMean({target: {"S1": value} for target, value in of_s1.items()}, of_s1)

    figures = mean.predict(KNOWN, np.full(len(KNOWN.customers), "S1", dtype=object))

    assert set(figures["order_90d"]) == {0.5}
    assert set(figures[ORDERS]) == {0.5}
