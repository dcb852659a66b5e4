"""The fire drill: each change does what it says, and the drill tells a good report from a blind or a nervous one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.drift.closing import Closing, count_closed_days
from custseg_assets.domain.drift.fire_drill import FireDrillResult, ScenarioOutcome, run_fire_drill, scenarios
from custseg_assets.domain.drift.report import DriftSettings, Effects
from custseg_assets.domain.segments.model import Segment, SegmentationModel, measure_reference
from custseg_assets.errors import BadInputError
from tests.support.drift import FEATURES, shop_customers

CLOSED, LAPSE_AND_CLOSED = ("closed the last 2 days", "closed the last 7 days"), "10 % lapse, then closed for 7 days"
DRILLS = {drill.name: drill for drill in scenarios(period_days=30, window_days=183)}


def shop() -> pl.DataFrame:
    return shop_customers(2000, seed=1)


def model_of(
    customers: pl.DataFrame,
    centroids: tuple[tuple[float, ...], ...] = ((-1.0, 0.8, 0.8), (0.0, -0.6, 0.0), (0.9, -0.5, -0.6)),
) -> SegmentationModel:
    values = customers.select(FEATURES).cast(pl.Float64).to_numpy()
    segments = tuple(Segment(f"S{at}", f"Segment {at}", "", "", at) for at in range(len(centroids)))
    return SegmentationModel("2011-11-01", measure_reference(values, FEATURES), centroids, segments, "m-test")


def drilled(
    customers: pl.DataFrame, n_customers: int = 20_000, repetitions: int = 3, **options: Any
) -> FireDrillResult:
    return run_fire_drill(
        customers,
        model_of(customers),
        n_customers=n_customers,
        repetitions=repetitions,
        seed=5,
        period_days=30,
        window_days=183,
        **options,
    )


def changed(name: str, customers: pl.DataFrame) -> pl.DataFrame:
    return DRILLS[name].change(customers, np.random.default_rng(3))


FIVE = pl.DataFrame(
    {
        "recency_days": [2.0, 20.0, 29.0, 30.0, 120.0],
        "frequency_orders": [1.0, 2.0, 12.0, 3.0, 1.0],
        "monetary_net": [10.0, 40.0, 600.0, 90.0, 25.0],
        "main_country": ["France", "Norway", "Norway", "Spain", "Spain"],
    }
)


def test_nothing_changes_nothing_and_prices_change_only_money() -> None:
    assert changed("nothing", FIVE).equals(FIVE)
    doubled = changed("price ×2", FIVE)
    assert doubled["monetary_net"].to_list() == [20, 80, 1200, 180, 50]
    assert doubled.drop("monetary_net").equals(FIVE.drop("monetary_net"))


def test_one_whale_is_one_customer_a_hundred_times_as_large() -> None:
    ratio = (changed("one whale ×100", FIVE)["monetary_net"] / FIVE["monetary_net"]).sort().to_list()
    assert ratio == [1, 1, 1, 1, 100]


def test_one_in_ten_of_the_active_customers_lapses() -> None:
    many = pl.concat([FIVE] * 100)  # 300 ordered within 30 days
    lapsed = changed("10 % of active customers lapse", many)
    moved = lapsed["recency_days"].to_numpy() - many["recency_days"].to_numpy()
    assert np.unique(moved, return_counts=True)[1].tolist() == [470, 30]
    assert set(many["recency_days"].to_numpy()[moved == 30]) <= {2.0, 20.0, 29.0}


def test_after_a_closing_everybody_is_older_and_the_oldest_and_their_orders_are_out_of_the_window() -> None:
    shut = changed("closed the last 7 days", FIVE.with_columns(recency_days=pl.Series([2.0, 20.0, 29.0, 175.0, 176.0])))
    assert shut["recency_days"].to_list() == [9, 27, 36, 182]
    customers = shop()
    shut = changed("closed the last 7 days", customers)
    assert count_closed_days(shut["recency_days"]) == 7
    assert shut["frequency_orders"].sum() < customers["frequency_orders"].sum()


def test_the_lapse_before_a_closing_is_the_lapse_of_active_customers() -> None:
    many = pl.concat([FIVE] * 100)
    recency = changed(LAPSE_AND_CLOSED, many)["recency_days"].to_numpy() - changed(CLOSED[1], many)["recency_days"]
    assert np.unique(recency.to_numpy(), return_counts=True)[1].tolist() == [470, 30]


@pytest.mark.parametrize("period_days", [1, 7])
def test_in_a_short_period_active_customers_are_those_of_four_weeks(period_days: int) -> None:
    lapse = next(one for one in scenarios(period_days, 183) if one.name == "10 % of active customers lapse")
    many = pl.concat([FIVE] * 100)  # 200 ordered within 28 days
    moved = lapse.change(many, np.random.default_rng(3))["recency_days"].to_numpy() - many["recency_days"].to_numpy()
    assert [kind.tolist() for kind in np.unique(moved, return_counts=True)] == [[0, 28], [480, 20]]


def test_decoupling_keeps_every_distribution_and_breaks_the_link() -> None:
    customers = shop()
    apart = changed("frequency and monetary decoupled", customers)
    assert apart["monetary_net"].sort().equals(customers["monetary_net"].sort())
    assert apart["frequency_orders"].equals(customers["frequency_orders"])
    assert abs(np.corrcoef(apart["frequency_orders"], np.log(apart["monetary_net"]))[0, 1]) < 0.1


def test_half_of_the_customers_move_to_the_new_country_and_else_stay_as_they_were() -> None:
    moved = changed("half of the customers in a new country", shop())
    assert moved["main_country"].value_counts(sort=True)["count"].to_list() == [1000, 1000]
    assert moved.select(FEATURES).equals(shop().select(FEATURES))


def test_a_missing_period_hides_those_who_only_ordered_in_it() -> None:
    left = changed("last period's data missing", FIVE)
    assert left["recency_days"].to_list() == [50, 59, 30, 120]
    assert left["frequency_orders"].to_list() == [1, 10, 3, 1]


@pytest.mark.parametrize(
    ("n_alarms", "n_repetitions", "interval"),
    [
        # centre (0.8 + 1.9207/10) / 1.38415 = 0.71674; half width 0.22641
        (8, 10, (0.49016, 0.94332)),
        (0, 200, (0.0, 0.018845)),
        (200, 200, (0.981155, 1.0)),
    ],
)
def test_an_alarm_rate_has_wilsons_interval(n_alarms: int, n_repetitions: int, interval: tuple[float, float]) -> None:
    outcome = ScenarioOutcome(DRILLS["price +10 %"], n_repetitions, n_alarms, 0, 0, "")
    [row] = FireDrillResult(500, (outcome,), None).table().rows(named=True)
    assert (row["alarm_rate_low"], row["alarm_rate_high"]) == pytest.approx(interval, abs=1e-5)


def test_at_20_000_customers_what_must_be_seen_is_seen_and_what_must_stay_quiet_does() -> None:
    result = drilled(shop())
    rates = dict(result.table().select("scenario", "alarm_rate").iter_rows())
    assert [rates[name] for name in ("nothing", "price +2 %", "one whale ×100", *CLOSED)] == [0] * 5
    for seen in ("price ×2", "10 % of active customers lapse", LAPSE_AND_CLOSED, "frequency and monetary decoupled"):
        assert rates[seen] == 1
    assert rates["half of the customers in a new country"] == 0
    assert result.is_met
    assert result.smallest_lapse is not None
    assert result.smallest_lapse <= 0.1


def test_a_blind_report_fails_the_drill() -> None:
    blind = DriftSettings(min_effect=Effects(9, 9, 9, 9), large_effect=Effects(9, 9, 9, 9))
    result = drilled(shop(), n_customers=500, repetitions=2, settings=blind)
    assert not result.is_met
    assert result.smallest_lapse is None
    assert set(result.table()["seen_by"]) == {""}


def test_a_nervous_report_fails_the_drill() -> None:
    nervous = DriftSettings(false_alarm_rate=0.999, min_effect=Effects(0, 0, 0, 0))
    failed = {
        outcome.scenario.name for outcome in drilled(shop(), 500, 2, settings=nervous).outcomes if not outcome.is_met
    }
    assert failed >= {"nothing", "price +2 %", "one whale ×100"}


def test_a_report_that_takes_the_calendar_for_drift_fails_the_drill(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_nothing_out(reference: pl.DataFrame, current: pl.DataFrame, **_: Any) -> Closing:
        return Closing(reference, current, 0, 0, 0)

    monkeypatch.setattr("custseg_assets.domain.drift.fire_drill.leave_out_closing", leave_nothing_out)
    outcomes = {outcome.scenario.name: outcome for outcome in drilled(shop(), repetitions=2).outcomes}
    assert [outcomes[name].n_alarms for name in CLOSED] == [2, 2]
    assert not any(outcomes[name].is_met for name in CLOSED)


def test_few_customers_see_only_a_large_lapse_and_the_result_says_so() -> None:
    smallest = drilled(shop(), n_customers=1000, repetitions=2).smallest_lapse
    assert smallest is not None
    assert smallest > 0.15


def test_the_same_seed_drills_the_same_whatever_the_order_of_customers_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    one = drilled(shop(), 500, 2, progress=lambda done, all_: told.append((done, all_)))
    assert one == drilled(shop().reverse(), 500, 2)
    assert told == [(1, 2), (2, 2)]


def test_what_cannot_be_drilled_is_refused() -> None:
    with pytest.raises(BadInputError, match="without frequency_orders"):
        run_fire_drill(
            shop().drop("frequency_orders"), model_of(shop()),
            n_customers=10, repetitions=1, seed=1, period_days=30, window_days=183,
        )  # fmt: skip
    with pytest.raises(BadInputError, match="0 customers to draw 500 from"):
        run_fire_drill(
            shop().head(0), model_of(shop()),
            n_customers=500, repetitions=1, seed=1, period_days=30, window_days=183,
        )  # fmt: skip


def test_a_limit_is_kept_from_the_right_side() -> None:
    quiet, loud, either = DRILLS["nothing"], DRILLS["price ×2"], DRILLS["price +10 %"]
    assert (quiet.is_met_by(0.02), quiet.is_met_by(0.03)) == (True, False)
    assert (loud.is_met_by(0.95), loud.is_met_by(0.94)) == (True, False)
    assert either.is_met_by(0.0)
    assert either.is_met_by(1.0)
    assert replace(quiet, limit=0.5).is_met_by(0.3)


def test_the_real_shop_passes_the_drill(shared: Path) -> None:
    customers = pl.read_parquet(shared / "goldens" / "customer_features_2011-12-01_6m.parquet")
    ordering = customers.filter((pl.col("frequency_orders") > 0) & (pl.col("monetary_net") > 0))
    centroids = ((-1.38, 0.06, -0.1), (0.14, 0.41, 0.5), (-0.98, 1.74, 1.46), (0.62, -0.76, -0.77))
    result = run_fire_drill(
        ordering, model_of(ordering, centroids),
        n_customers=20_000, repetitions=4, seed=11, period_days=30, window_days=183,
    )  # fmt: skip
    rates = dict(result.table().select("scenario", "alarm_rate").iter_rows())
    assert [rates[name] for name in ("nothing", *CLOSED)] == [0, 0, 0]
    assert rates[LAPSE_AND_CLOSED] == 1
    assert rates["10 % of active customers lapse"] == 1
    assert rates["price ×2"] == 1
    assert rates["frequency and monetary decoupled"] == 1
