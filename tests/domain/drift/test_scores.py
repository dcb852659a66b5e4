"""Drift: every score by hand, thresholds that keep their promise, and a verdict that says yes, no and cannot know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from math import log
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.drift.lapse import stop_ordering
from custseg_assets.domain.drift.reference import DriftReference, fit_binning, fit_reference, reference_from_json
from custseg_assets.domain.drift.report import DriftReport, DriftScore, DriftSettings, Effects, Kind, Verdict
from custseg_assets.domain.drift.scores import calibrate, measure_drift, unobserved_share
from custseg_assets.domain.periods import window_of
from custseg_assets.domain.schemas import DRIFT_REPORT
from custseg_assets.domain.segments.model import Matrix, ScalingReference, Segment, SegmentationModel
from custseg_assets.errors import BadInputError
from tests.support.drift import FEATURES, MODEL, reference_of, shop_values


def scaled(values: Matrix) -> Matrix:
    return MODEL.reference.scale(values)


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    return reference_of(shop_values(3000, seed=1), n_refunded=30)


def measured(reference: DriftReference, values: Matrix, **settings: Any) -> DriftReport:
    return measure_drift(reference, scaled(values), period="2011-06-01", seed=3, **{"n_refunded": 30, **settings})


def score(report: DriftReport, kind: Kind, subject: str) -> DriftScore:
    return next(one for one in report.scores if (one.score_name, one.subject) == (kind, subject))


def history(
    periods: Sequence[str],
    values: Sequence[float] | Matrix,
    verdict: Verdict = "watch",
    reference_period: str = "2008-12-01",
) -> pl.DataFrame:
    rows = pl.DataFrame({"period": periods, "score": [float(value) for value in values]})
    return rows.with_columns(
        score_name=pl.lit("psi"),
        subject=pl.lit("monetary_net"),
        verdict=pl.lit(verdict),
        reference_period=pl.lit(reference_period),
    )


def test_drift_against_itself_is_zero_in_every_score(reference: DriftReference) -> None:
    report = measured(reference, shop_values(3000, seed=1))
    assert report.verdict == "stable"
    assert [one.score for one in report.scores] == pytest.approx([0.0] * len(report.scores), abs=1e-12)


def test_the_order_of_customers_does_not_matter(reference: DriftReference) -> None:
    values = shop_values(3000, seed=2, price=1.5)
    assert measured(reference, values).table().equals(measured(reference, values[::-1]).table())


def test_psi_wasserstein_and_segment_shift_equal_values_by_hand() -> None:
    # Half the customers are at -1, half at 1; afterwards one in four is at -1.
    two_groups = SegmentationModel(
        "2011-05-01",
        ScalingReference(("n_units",), (0.0,), (1.0,), 100),
        ((-1.0,), (1.0,)),
        (Segment("S1", "Few", "", "", 0), Segment("S2", "Many", "", "", 1)),
        "m-test",
    )
    before = np.repeat([[-1.0], [1.0]], 50, axis=0)
    now = np.repeat([[-1.0], [1.0]], [25, 75], axis=0)
    reference = fit_reference(two_groups, before, period="2011-05-01", period_days=31, window_days=182)
    report = measure_drift(reference, now, period="2011-06-01", seed=1)
    # Bins: up to -1, up to 1, and the empty one beyond; each with half a customer more, of 101.5 in all.
    p, q = np.array([50.5, 50.5, 0.5]) / 101.5, np.array([25.5, 75.5, 0.5]) / 101.5
    psi = sum((b - a) * log(b / a) for a, b in zip(p, q, strict=True))
    assert score(report, "psi", "n_units").score == pytest.approx(psi, rel=1e-5)
    # A quarter of the customers moved by 2.
    assert score(report, "wasserstein", "n_units").score == pytest.approx(0.5)
    assert score(report, "share_shift", "Few").score == pytest.approx(0.25)
    assert report.verdict == "breach"
    assert any("segment Few: 50.0% → 25.0% of the customers" in reason for reason in report.reasons)


def test_correlation_shift_is_the_difference_of_pearsons_correlations(reference: DriftReference) -> None:
    values = shop_values(3000, seed=2)
    values[:, 2] = np.random.default_rng(0).permutation(values[:, 2])
    report = measured(reference, values)
    one, other = (np.corrcoef(*scaled(v)[:, 1:].T)[0, 1] for v in (shop_values(3000, seed=1), values))
    found = score(report, "correlation_shift", "frequency_orders × monetary_net")
    assert found.score == pytest.approx(abs(one - other), rel=1e-5)
    assert (found.is_alert, report.verdict) == (True, "breach")


def test_bins_keep_equal_values_together_and_leave_room_beyond_both_ends() -> None:
    binning = fit_binning("frequency_orders", np.array([1.0, 1.0, 1.0, 2.0, 5.0]))
    assert binning.edges[1:] == (1.0, 2.0, 5.0)
    assert binning.codes(np.array([0.5, 1.0, 1.5, 2.0, 5.0, 6.0])).tolist() == [0, 1, 2, 2, 3, 4]
    assert binning.centres == (0.0, 1.0, 2.0, 5.0, 6.0)


def test_a_feature_that_never_varied_alerts_when_it_does() -> None:
    values = shop_values(3000, seed=1)
    values[:, 1] = 1
    assert measured(reference_of(values), values, n_refunded=0).verdict == "stable"
    report = measured(reference_of(values), shop_values(3000, seed=1), n_refunded=0)
    assert score(report, "psi", "frequency_orders").is_alert


def test_values_never_seen_before_are_drift_not_an_error(reference: DriftReference) -> None:
    assert measured(reference, shop_values(3000, seed=2, price=1e6)).verdict == "breach"


def test_everybody_in_one_segment_is_a_breach(reference: DriftReference) -> None:
    report = measured(reference, np.tile([170.0, 1.0, 20.0], (3000, 1)))
    assert score(report, "share_shift", "Hibernating").is_alert
    assert report.verdict == "breach"


def test_more_refunded_customers_alert(reference: DriftReference) -> None:
    assert not score(measured(reference, shop_values(3000, seed=2)), "share_shift", "Refunded").is_alert
    report = measured(reference, shop_values(3000, seed=2), n_refunded=150)
    assert score(report, "share_shift", "Refunded").score == pytest.approx(150 / 3150 - 30 / 3030, rel=1e-5)
    assert [one.subject for one in report.alerts] == ["Refunded"]


def test_unchanged_customers_alarm_as_often_as_was_asked_for() -> None:
    alarms, asked = 0, DriftSettings(false_alarm_rate=0.1, min_effect=Effects(0, 0, 0, 0))
    for seed in range(100):
        reference = reference_of(shop_values(1000, seed=2 * seed + 10_000))
        now = shop_values(1000, seed=2 * seed + 10_001)
        chance = calibrate(reference, len(now), settings=asked, seed=3, n_draws=1000)
        alarms += bool(measured(reference, now, settings=asked, n_refunded=0, calibration=chance).alerts)
    assert 2 <= alarms <= 21  # 10 expected; chance leaves either side once in 2,000


def test_thresholds_fall_with_the_root_of_the_number_of_customers() -> None:
    def of(n: int) -> Matrix:
        reference = reference_of(np.tile(shop_values(1000, seed=1), (n, 1)))
        return calibrate(reference, 1000 * n, settings=DriftSettings(), seed=1, n_draws=8000).thresholds

    ratio = of(1) / of(16)
    assert ratio[:3] == pytest.approx([16] * 3, rel=0.2)  # PSI is a square
    assert ratio[4:7] == pytest.approx([4] * 3, rel=0.2)


def test_a_change_too_small_to_matter_stays_quiet_however_many_customers_show_it() -> None:
    many = np.tile(shop_values(20_000, seed=1), (20, 1))
    report = measured(reference_of(many), many * [1, 1, 1.02], n_refunded=0)
    found = score(report, "wasserstein", "monetary_net")
    assert found.chance_threshold is not None
    assert found.score is not None
    assert found.threshold is not None
    assert found.chance_threshold < found.score < found.threshold == found.min_effect
    assert report.verdict == "stable"


def test_a_real_but_small_change_is_watched_until_the_shops_own_movement_is_known(reference: DriftReference) -> None:
    values = shop_values(3000, seed=2, price=1.25)
    report = measured(reference, values)
    assert report.verdict == "watch"
    assert "takes 6 snapshots to know, there are 0" in report.reasons[0]
    assert any(reason.startswith("monetary_net: median ") for reason in report.reasons)


def months_of(year: int, n: int) -> list[str]:
    return [f"{year}-{month:02d}-01" for month in range(1, n + 1)]


def test_history_raises_the_threshold_and_turns_what_is_beyond_it_into_a_breach(reference: DriftReference) -> None:
    values = shop_values(3000, seed=2, price=1.25)
    psi = score(measured(reference, values), "psi", "monetary_net").score
    calm = history(months_of(2010, 6), np.array([0.2, 0.22, 0.18, 0.21, 0.19, 0.2]) * psi)
    assert measured(reference, values, history=calm).verdict == "breach"
    lively = history(months_of(2010, 6), np.array([1.0, 1.2, 0.8, 1.1, 0.9, 1.0]) * psi)
    report = measured(reference, values, history=lively)
    found = score(report, "psi", "monetary_net")
    assert (found.is_alert, found.threshold) == (False, found.own_threshold)
    assert score(report, "wasserstein", "monetary_net").own_threshold is None


def test_the_shops_own_limit_is_the_prediction_limit_by_hand(reference: DriftReference) -> None:
    report = measured(reference, shop_values(3000, seed=2), history=history(months_of(2010, 6), [1, 2, 3, 4, 5, 6]))
    # mean 3.5, s 1.8708, t(5; 0.99) 3.3649, √(7/6) 1.0801
    expected = 3.5 + 3.3649 * 1.8708 * 1.0801
    assert score(report, "psi", "monetary_net").own_threshold == pytest.approx(expected, rel=1e-4)


def test_breaches_and_later_snapshots_teach_nothing_and_five_snapshots_are_too_few(reference: DriftReference) -> None:
    values = shop_values(3000, seed=2)
    for past in (
        history(months_of(2009, 6), [1.0] * 6, verdict="breach"),
        history(months_of(2012, 6), [1.0] * 6),
        history(months_of(2009, 5), [1.0] * 5),
    ):
        assert score(measured(reference, values, history=past), "psi", "monetary_net").own_threshold is None


def test_a_training_snapshot_compared_with_itself_is_no_movement(reference: DriftReference) -> None:
    past = history(months_of(2009, 6), [0.0, 1, 2, 3, 4, 5], reference_period="2009-01-01")
    report = measured(reference, shop_values(3000, seed=2, price=1.25), history=past)
    assert score(report, "psi", "monetary_net").own_threshold is None
    assert (report.verdict, report.reasons[0][-11:]) == ("watch", "there are 5")


def test_the_same_season_a_year_ago_counts_at_once_even_when_it_was_a_breach(reference: DriftReference) -> None:
    values = shop_values(3000, seed=2)
    within, outside = history(["2010-06-01", "2010-07-01"], [0.3, 0.4], "breach"), history(["2010-08-01"], [0.5])
    assert score(measured(reference, values, history=within), "psi", "monetary_net").own_threshold == 0.4
    assert score(measured(reference, values, history=outside), "psi", "monetary_net").own_threshold is None


def test_the_power_it_states_is_the_power_it_has() -> None:
    def alarm_rate(share: float) -> float:
        alarms = 0
        for seed in range(24):
            random = np.random.default_rng(seed)
            reference = reference_of(shop_values(3000, seed=2 * seed + 20_000))
            now = pl.DataFrame(shop_values(3000, seed=2 * seed + 20_001), schema=list(FEATURES), orient="row")
            stopped = pl.Series(random.random(3000) < share) & (now["recency_days"] < 31)
            lapsed = stop_ordering(now.with_columns(stopped=stopped), pl.col("stopped"), 31, 182)
            alarms += bool(measured(reference, lapsed.select(FEATURES).to_numpy(), n_refunded=0).alerts)
        return alarms / 24

    stated = measured(reference_of(shop_values(3000, seed=1)), shop_values(3000, seed=1), n_refunded=0).smallest_lapse
    assert stated is not None
    assert 0.05 < stated < 0.3
    assert alarm_rate(stated) >= 0.75
    assert alarm_rate(stated / 3) <= 0.6


def test_too_few_customers_is_not_enough_data_never_no_drift() -> None:
    reference = reference_of(shop_values(120, seed=1))
    report = measured(reference, shop_values(120, seed=2), n_refunded=0)
    assert report.verdict == "not enough data"
    assert "120 customers are too few" in report.reasons[0]


def test_a_change_that_few_customers_do_show_is_reported() -> None:
    reference = reference_of(shop_values(120, seed=1))
    assert measured(reference, shop_values(120, seed=2, price=10), n_refunded=0).verdict == "breach"


@pytest.mark.parametrize("n", [0, 1, 29])
def test_none_or_a_handful_of_customers_gives_no_scores(reference: DriftReference, n: int) -> None:
    report = measured(reference, shop_values(3000, seed=1)[:n])
    assert report.verdict == "not enough data"
    assert {one.score for one in report.scores} == {None}
    assert report.table().height == len(report.scores)


def test_an_incomplete_last_period_is_missing_data_not_drift(reference: DriftReference) -> None:
    window = window_of("2011-12-01", "2010-12-01", 6, "monthly")
    missing = unobserved_share(window, datetime(2011, 12, 9, 12, 50))
    assert missing == pytest.approx(1 - 8.535 / 31, abs=1e-3)
    aged = shop_values(3000, seed=1) + np.array([22, 0, 0])
    report = measured(reference, aged, unobserved_share=missing)
    assert report.verdict == "not enough data"
    assert "incomplete" in report.reasons[0]
    assert measured(reference, aged).verdict == "breach"
    assert unobserved_share(window, datetime(2012, 1, 5)) == 0


def test_lapsing_customers_lose_a_periods_orders_but_keep_the_last() -> None:
    customers = pl.DataFrame(
        {
            "recency_days": [3.0, 10.0, 5.0, 100.0, 170.0],
            "frequency_orders": [1.0, 4.0, 12.0, 2.0, 1.0],
            "monetary_net": [50.0, 400.0, 1200.0, 90.0, 30.0],
            "monetary_gross": [60.0, 400.0, 1200.0, 90.0, 30.0],
        }
    )
    left = stop_ordering(customers, pl.col("recency_days") != 100, days=30, window_days=180)
    assert left["recency_days"].to_list() == [33, 40, 35, 100]  # the fifth left the window
    assert left["frequency_orders"].to_list() == [1, 3, 10, 2]
    assert left["monetary_net"].to_list() == [50, 300, 1000, 90]
    assert left["monetary_gross"].to_list() == [60, 300, 1000, 90]


def test_without_recency_the_report_says_that_lapses_are_out_of_sight() -> None:
    model = SegmentationModel(
        "2011-05-01",
        ScalingReference(FEATURES[1:], (1.1, 6.2), (0.55, 1.1), 1000),
        ((0.8, 0.8), (-0.5, -0.5)),
        MODEL.segments,
        "m-test",
    )
    values = shop_values(3000, seed=1)[:, 1:]
    reference = reference_of(values, model=model)
    report = measure_drift(reference, model.reference.scale(values), period="2011-06-01", seed=1)
    assert (report.verdict, report.smallest_lapse) == ("stable", None)
    assert "recency_days is no feature" in report.reasons[-1]


def test_what_alerts_comes_with_its_distribution_in_business_units(reference: DriftReference) -> None:
    values = shop_values(3000, seed=1)
    values[:, 2] *= 3
    report = measured(reference, values)
    first = report.changes[0]
    assert first.distribution.name == "monetary_net"
    assert first.sentence.startswith("monetary_net: median ")
    assert "psi " in first.figures
    before, now = first.distribution.reference, first.distribution.current
    assert [sum(before), sum(now)] == pytest.approx([1, 1])
    # A tripled spend leaves the lower bins, and what none had spent before is beyond the last.
    assert now[1] < before[1]
    assert first.distribution.parts[-1] == f"over {shop_values(3000, seed=1)[:, 2].max():,.0f}"
    assert (before[-1], now[-1] > 0) == (0, True)
    assert [f"{change.sentence} ({change.figures})" for change in report.changes] == list(report.reasons[1:-1])


def test_bins_say_up_to_where_they_reach_and_empty_ones_are_left_out(reference: DriftReference) -> None:
    values = shop_values(3000, seed=1)
    values[:, 1] = 1
    orders = next(
        change.distribution
        for change in measured(reference, values).changes
        if change.distribution.name == "frequency_orders"
    )
    assert orders.parts[:2] == ("up to 1", "up to 2")
    assert orders.current == (1.0, *[0.0] * (len(orders.parts) - 1))
    assert orders.reference[0] == pytest.approx((shop_values(3000, seed=1)[:, 1] == 1).mean())


def test_segments_are_shown_together_and_so_are_correlations(reference: DriftReference) -> None:
    values = shop_values(3000, seed=1)
    values[:, 2] = np.random.default_rng(0).permutation(values[:, 2])
    values[:500, 0] = 170
    by_name = {change.distribution.name: change.distribution for change in measured(reference, values).changes}
    segments, correlations = by_name["segment"], by_name["correlation"]
    assert segments.parts == ("Loyal", "Hibernating", "Refunded")
    # 30 Refunded beside 3,000 others; the shares of the others are among themselves.
    assert segments.reference[2] == pytest.approx(30 / 3030)
    assert sum(segments.current[:2]) == pytest.approx(1)
    assert segments.is_share
    assert correlations.parts[-1] == "frequency_orders × monetary_net"
    assert (correlations.is_share, abs(correlations.current[-1]) < 0.1 < correlations.reference[-1]) == (False, True)


def test_a_report_without_an_alert_has_nothing_to_show(reference: DriftReference) -> None:
    assert measured(reference, shop_values(3000, seed=1)).changes == ()


def test_a_reference_survives_json_and_refuses_what_is_none(reference: DriftReference) -> None:
    assert reference_from_json(reference.to_json()) == reference
    assert len(reference.to_json()) < 60_000
    with pytest.raises(ValueError, match="format 99"):
        reference_from_json(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format 'list'"):
        reference_from_json("[]")


def test_the_table_has_the_declared_columns_in_their_order(reference: DriftReference) -> None:
    report = measured(reference, shop_values(3000, seed=2, price=2))
    table = report.table()
    assert dict(table.schema) == {
        column.name: column.dtype for column in (DRIFT_REPORT["period"], *DRIFT_REPORT.content)
    }
    assert table.equals(table.sort("score_name", "subject"))
    assert json.loads(table["reasons"][0]) == list(report.reasons)


def test_the_same_seed_gives_the_same_report_and_a_matrix_that_does_not_fit_is_refused(
    reference: DriftReference,
) -> None:
    values = shop_values(3000, seed=2)
    assert measured(reference, values) == measured(reference, values)
    with pytest.raises(BadInputError, match="one column for each of recency_days"):
        measure_drift(reference, scaled(values)[:, :2], period="2011-06-01", seed=1)
    with pytest.raises(BadInputError, match="missing or infinite"):
        measured(reference, np.where(values > 1000, np.nan, values))
    with pytest.raises(BadInputError, match="0 customers"):
        reference_of(shop_values(10, seed=1)[:0])
