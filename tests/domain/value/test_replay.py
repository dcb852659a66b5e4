"""The choice by replay: what is learnt when, who wins, and that nothing of the future is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.schemas import CUSTOMER_VALUE, VALUE_MODEL
from custseg_assets.domain.value import replay
from custseg_assets.domain.value.days import CustomerDays, known_at, learning_days, seen_within
from custseg_assets.domain.value.methods import ORDERS, PROBABILITIES, SPEND, TARGETS, Method
from custseg_assets.domain.value.replay import (
    History,
    ValueModel,
    measure_auc,
    measure_calibration_error,
    measure_gini,
)
from tests.support.customer_days import FIRST, customer_days
from tests.support.customer_days import rows_of as customer_rows

DAYS = customer_days()
GRID = learning_days(FIRST, FIRST + 299)
AT = GRID[-1]


def placed(day: int) -> pl.DataFrame | None:
    """Two segments by how often customers ordered, from the third of the days to learn from on."""
    if day < GRID[2]:
        return None
    known = known_at(DAYS, day)
    names = np.where(known.n_days > 4, "S1", "S2")
    return pl.DataFrame({"customer_id": DAYS.ids.gather(known.customers), "segment_id": names})


def history(days: CustomerDays = DAYS) -> History:
    return History(days, placed, FIRST)


def rows_of(model: ValueModel, days: CustomerDays = DAYS) -> tuple[pl.DataFrame, pl.DataFrame]:
    return customer_rows(model, days, placed)


def changed_after(at: int) -> CustomerDays:
    """The same days, with others after a day: a planted future."""
    later = DAYS.day >= at
    return replace(
        DAYS,
        n_orders=np.where(later, 50, DAYS.n_orders),
        net=np.where(later, -1e6, DAYS.net),
    )


@pytest.fixture(scope="module")
def model() -> ValueModel:
    return history().fit(AT)


def test_nothing_of_the_future_is_known(model: ValueModel) -> None:
    others = history(changed_after(AT)).fit(AT)
    for ours, theirs in zip(rows_of(model), rows_of(others, changed_after(AT)), strict=True):
        assert ours.equals(theirs)
    # The same plant one day earlier is seen.
    earlier = history(changed_after(AT - 1)).fit(AT)
    assert not rows_of(model)[0].equals(rows_of(earlier, changed_after(AT - 1))[0])


def test_outcomes_teach_only_once_their_days_are_over(model: ValueModel) -> None:
    for target in TARGETS:
        horizon = int(target.rpartition("_")[2].removesuffix("d"))
        days, _ = model.taught[target]
        assert days == tuple(day for day in GRID if day + horizon <= AT)[-6:]
        assert all(one.at + horizon <= AT for one in model.replays[target])
        assert len(model.replays[target]) >= 1


def test_a_day_is_fitted_the_same_whichever_day_asks_first(model: ValueModel) -> None:
    alone, together = history(), history()
    for at in GRID[2:]:
        together.fit(at)
    for ours, theirs in zip(rows_of(alone.fit(AT)), rows_of(together.fit(AT)), strict=True):
        assert ours.equals(theirs)
    assert rows_of(alone.fit(AT))[1].equals(rows_of(model)[1])


def test_the_smallest_log_loss_wins_and_says_against_what(model: ValueModel) -> None:
    def loss(method: Method) -> float:
        scores = [model.scores[method][target] for target in PROBABILITIES]
        return float(np.average([one.log_loss for one in scores], weights=[one.n_replays for one in scores]))  # type: ignore[arg-type]

    losses = {method: loss(method) for method in model.scores}
    assert model.method == min(losses, key=lambda method: losses[method])
    assert model.sentence.startswith(f"{model.method} won: log loss {losses[model.method]:.3f} of ")
    for other in set(losses) - {model.method}:
        assert f"{losses[other]:.3f} ({other})" in model.sentence


def test_another_method_wins_where_it_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    assert history().fit(AT).method != "segment_mean"
    # Heads that know nothing, and no BG/NBD.
    monkeypatch.setattr(replay, "fit_btyd", lambda _: None)
    monkeypatch.setattr(
        "custseg_assets.domain.value.methods.describe", lambda known: np.zeros((len(known.customers), 8))
    )
    chosen = history().fit(AT)
    assert chosen.method == "segment_mean"
    assert "(logistic)" in chosen.sentence
    assert chosen.candidates["bg_nbd"] is None


def test_a_lead_that_may_be_chance_is_said_to_be_one() -> None:
    small = customer_days(120, 300, 4)
    sentence = History(small, lambda _: None, FIRST).fit(AT).sentence
    assert sentence.endswith("; the lead is within its 95 % interval.")


@pytest.mark.parametrize(("n_customers", "at"), [(400, FIRST + 40), (400, FIRST + 70), (30, AT)])
def test_too_little_history_is_told_and_everybody_predicted_all_the_same(n_customers: int, at: int) -> None:
    days = customer_days(n_customers)
    little = History(days, lambda _: None, FIRST).fit(at)
    assert little.method == "segment_mean"
    assert little.sentence.startswith("Too little history: ")
    described, predicted = rows_of(little, days)
    assert predicted.height == len(known_at(days, at).customers)
    assert predicted.null_count().sum_horizontal().item() == 0
    assert described.filter("is_chosen")["reason"].unique().to_list() == [little.sentence]
    assert described["n_replays"].sum() == 0


def test_a_customer_is_likelier_the_more_it_does(model: ValueModel) -> None:
    _, predicted = rows_of(model)
    known = known_at(DAYS, AT)
    p = predicted["p_order_30d"].to_numpy()
    is_busy, is_gone = (known.n_recent[:, 0] >= 3), (known.recency > 120)
    assert p[is_busy].mean() > 0.8
    assert p[is_gone].mean() < 0.2


def test_predictions_come_true() -> None:
    known = known_at(DAYS, AT - 30)
    earlier = history().fit(AT - 30)
    p = rows_of(earlier)[1]["p_order_30d"].to_numpy()
    ordered = (seen_within(DAYS, known, 30).n_orders > 0).astype(float)
    assert measure_auc(p, ordered) > 0.8  # type: ignore[operator]
    row = rows_of(earlier)[0].filter(pl.col("is_chosen"), pl.col("target") == "order_30d").row(0, named=True)
    assert row["level_low"] <= ordered.mean() <= row["level_high"]
    assert row["level"] == pytest.approx(p.mean(), abs=1e-3)


def test_rows_are_those_of_the_tables(model: ValueModel) -> None:
    described, predicted = rows_of(model)
    for frame, table in ((described, VALUE_MODEL), (predicted, CUSTOMER_VALUE)):
        assert frame.schema == {column.name: column.dtype for column in table.content}
    assert described.height == 15
    assert described.group_by("target").agg(pl.col("is_chosen").sum())["is_chosen"].to_list() == [1] * 5
    spend = described.filter(pl.col("is_chosen"), pl.col("target") == SPEND).row(0, named=True)
    assert spend["level"] == pytest.approx(predicted["expected_spend_90d"].sum(), rel=1e-3)
    assert spend["last_seen"] == pytest.approx(
        seen_within(DAYS, known_at(DAYS, model.taught[SPEND][0][-1]), 90).net.sum()
    )
    assert described.filter(pl.col("target") == ORDERS)["gini"].null_count() == 0


def test_auc_by_hand() -> None:
    assert measure_auc(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 1.0])) == 1
    assert measure_auc(np.array([0.5, 0.5, 0.5]), np.array([0.0, 1.0, 1.0])) == 0.5
    assert measure_auc(np.array([0.5]), np.array([1.0])) is None


def test_gini_by_hand() -> None:
    # Ordered 8, 0, 2: what came first is 0.8, 0.8, 1, on average 0.8667; the best order gives 0.8, 1, 1, chance 2/3.
    assert measure_gini(np.array([3.0, 2.0, 1.0]), np.array([8.0, 0.0, 2.0])) == pytest.approx(
        (2.6 / 3 - 2 / 3) / (2.8 / 3 - 2 / 3)
    )
    assert measure_gini(np.array([1.0, 1.0, 1.0]), np.array([8.0, 0.0, 2.0])) == pytest.approx(0)
    assert measure_gini(np.array([1.0, 2.0]), np.zeros(2)) is None


def test_calibration_error_by_hand() -> None:
    predicted = np.repeat([0.1, 0.9], 50)
    seen = np.r_[np.tile([1.0, 0, 0, 0, 0], 10), np.ones(50)]
    # The lower half is 0.1 off, and the upper one too.
    assert measure_calibration_error(predicted, seen) == pytest.approx(0.1)
