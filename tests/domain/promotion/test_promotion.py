"""The promotion gate: it says yes, it says no, and it says why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any, get_args

import narwhals as nw
import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.periods import window_of
from custseg_assets.domain.promotion.comparison import Comparison, Evidence, compare_models
from custseg_assets.domain.promotion.promotion import (
    PromotionCode,
    PromotionLimits,
    PromotionVerdict,
    decide_first_promotion,
    decide_promotion,
    keep_champion,
)
from custseg_assets.domain.promotion.validity import PairedValidity, measure_outcomes
from custseg_assets.domain.segments import training_tables
from custseg_assets.domain.segments.clustering import Limits
from custseg_assets.domain.segments.model import SegmentationModel
from custseg_assets.domain.transactions import features as rfm
from custseg_assets.errors import BadInputError
from custseg_assets.settings import ModelSettings
from custseg_assets.training.steps import sweep_snapshot, train_snapshot
from tests.support.real_tables import RealTables

ELIGIBILITY, LIMITS = ModelSettings().limits(), PromotionLimits()
LEVEL = tuple(PairedValidity(outcome, 0.7, 0.7, 0.0, -0.004, 0.004) for outcome in ("return", "spend"))
NEWEST = "2011-10-01"
EQUAL = Comparison(
    period=NEWEST,
    champion="m-champion",
    challenger="m-challenger",
    bootstrap_ari=0.9,
    worst_jaccard=0.8,
    smallest_segment=400,
    smallest_share=0.1,
    share_same_segment=0.9,
    agreement_ari=0.8,
    reach=2.0,
    coverage_champion=0.99,
    coverage_challenger=0.99,
    inertia_champion=1.0,
    inertia_challenger=1.0,
    inertia_same_k=1.0,
    fit_gain_before=0.02,
    validity=LEVEL,
    measured_on=("2011-08-01", "2011-09-01"),
)
FITS_BETTER: dict[str, Any] = {"inertia_challenger": 0.9, "inertia_same_k": 0.9}


def validity(difference: float, low: float, high: float) -> tuple[PairedValidity, ...]:
    return (PairedValidity("return", 0.7, 0.7 + difference, difference, low, high), LEVEL[1])


def decided(unsound: dict[str, str] | None = None, **figures: Any) -> PromotionVerdict:
    return verdict_on(replace(EQUAL, **figures), unsound=unsound)


def verdict_on(
    comparison: Comparison,
    eligibility: Limits = ELIGIBILITY,
    unsound: dict[str, str] | None = None,
    limits: PromotionLimits = LIMITS,
) -> PromotionVerdict:
    return decide_promotion(comparison, eligibility, unsound=unsound or {}, limits=limits)


def test_the_first_model_is_promoted_and_without_an_eligible_k_there_is_none() -> None:
    assert decide_first_promotion("m-1", ("k = 4", "k = 5: unstable")) == PromotionVerdict(
        "PROMOTE",
        ("It is the first model that keeps every limit.", "k = 4", "k = 5: unstable"),
        ("first_model", "choice_of_k", "choice_of_k"),
    )
    assert decide_first_promotion(None, ("no k is eligible",)) == PromotionVerdict(
        "REJECT", ("no k is eligible",), ("no_k_eligible",)
    )


def test_where_nothing_was_trained_the_champion_stays() -> None:
    assert keep_champion("m-champion") == PromotionVerdict(
        "HOLD", ("No challenger was trained on this snapshot; m-champion stays in force.",), ("no_challenger",)
    )


GAIN, LOSS, CHANCE = validity(0.02, 0.01, 0.03), validity(-0.02, -0.03, -0.01), validity(-0.003, -0.012, 0.006)
NO_GAIN: tuple[PromotionCode, ...] = ("not_better", "figure", "figure", "figure", "figure")


RULES: list[tuple[dict[str, Any], str, tuple[PromotionCode, ...]]] = [
    ({}, "HOLD", NO_GAIN),
    ({"bootstrap_ari": 0.79}, "REJECT", ("unstable",)),
    ({"bootstrap_ari": 0.8, "worst_jaccard": 0.6}, "HOLD", NO_GAIN),
    ({"bootstrap_ari": None, "worst_jaccard": 0.59}, "REJECT", ("unstable", "unstable")),
    ({"smallest_segment": 49}, "REJECT", ("small_segment",)),
    ({"smallest_share": 0.019}, "REJECT", ("small_segment",)),
    ({"smallest_segment": 50, "smallest_share": 0.02}, "HOLD", NO_GAIN),
    ({"unsound": {NEWEST: "broken"}}, "REJECT", ("unsound_data",)),
    ({"validity": LOSS}, "REJECT", ("worse_validity",)),
    ({"validity": validity(-0.004, -0.005, -0.003)}, "HOLD", NO_GAIN),
    ({"coverage_challenger": 0.979}, "REJECT", ("covers_fewer",)),
    ({"coverage_challenger": 0.981}, "HOLD", NO_GAIN),
    ({"validity": ()}, "HOLD", ("validity_unknown", "not_better", "figure", "figure")),
    ({"validity": CHANCE}, "HOLD", ("validity_in_doubt", *NO_GAIN)),
    ({"fit_gain_before": -0.06}, "HOLD", ("only_newest_snapshot", *NO_GAIN)),
    ({"fit_gain_before": -0.04}, "HOLD", NO_GAIN),
    ({"share_same_segment": 0.49}, "HOLD", ("moves_customers", *NO_GAIN)),
    ({"share_same_segment": 0.5}, "HOLD", NO_GAIN),
    ({"validity": GAIN}, "PROMOTE", ("better_validity", "figure", "figure", "figure")),
    ({"validity": GAIN, "share_same_segment": 0.49}, "PROMOTE", ("better_validity", "figure", "figure", "figure")),
    (FITS_BETTER, "PROMOTE", ("better_fit", *NO_GAIN[1:])),
    (FITS_BETTER | {"fit_gain_before": -0.01}, "HOLD", NO_GAIN),
    ({"coverage_champion": 0.95}, "PROMOTE", ("covers_more", *NO_GAIN[1:])),
    ({"coverage_champion": 0.985}, "HOLD", NO_GAIN),
    ({"coverage_champion": 0.95, "fit_gain_before": None}, "HOLD", NO_GAIN),
    (
        FITS_BETTER | {"coverage_champion": 0.95, "validity": GAIN},
        "PROMOTE",
        ("better_validity", "better_fit", "covers_more", "figure", "figure", "figure"),
    ),
    (FITS_BETTER | {"validity": CHANCE}, "HOLD", ("validity_in_doubt", "better_fit")),
    (
        {"worst_jaccard": 0.1, "smallest_segment": 3, "unsound": {NEWEST: "broken"}, "validity": LOSS}
        | {"coverage_challenger": 0.5},
        "REJECT",
        ("unstable", "small_segment", "unsound_data", "worse_validity", "covers_fewer"),
    ),
]


@pytest.mark.parametrize(("figures", "decision", "codes"), RULES)
def test_every_rule_says_yes_and_no_and_gives_its_code(
    figures: dict[str, Any], decision: str, codes: tuple[PromotionCode, ...]
) -> None:
    verdict = decided(**figures)
    assert (verdict.decision, verdict.codes) == (decision, codes)
    assert len(verdict.reasons) == len(codes)


def test_every_code_is_given_by_a_rule_or_where_nothing_is_compared() -> None:
    without_comparison = {"first_model", "choice_of_k", "no_k_eligible", "no_challenger"}
    assert {code for *_, codes in RULES for code in codes} | without_comparison == set(get_args(PromotionCode))


def test_a_challenger_that_is_no_better_is_held() -> None:
    verdict = decided()
    assert verdict.decision == "HOLD"
    assert verdict.codes == NO_GAIN
    assert verdict.reasons[0] == "it is not clearly better than m-champion"
    fit = "inertia per customer 1.000 against 1.000; at an equal number of segments a gain of +0.0%"
    assert verdict.reasons[-2:] == (
        f"{fit}, on the snapshot before +2.0%",
        "99.0% of the customers within 2.00 of a centroid against 99.0%",
    )


def test_one_that_foresees_more_is_promoted() -> None:
    verdict = decided(validity=validity(0.02, 0.01, 0.03))
    order = "order by return in the next period 0.720 against 0.700"
    assert verdict == PromotionVerdict(
        "PROMOTE",
        (
            f"it foresees more: {order}, difference +0.020 (95 % interval +0.010 to +0.030)",
            "order by spend in the next period 0.700 against 0.700, difference +0.000 (95 % interval -0.004 to +0.004)",
            "90.0% of the customers keep their segment",
            "its smallest segment has 400 customers",
        ),
        ("better_validity", "figure", "figure", "figure"),
    )


@pytest.mark.parametrize(("difference", "low", "high"), [(0.02, -0.001, 0.041), (0.004, 0.001, 0.007)])
def test_more_that_may_be_chance_or_is_next_to_nothing_is_not_more(difference: float, low: float, high: float) -> None:
    assert decided(validity=validity(difference, low, high)).decision == "HOLD"


def test_one_that_fits_the_customers_of_now_better_is_promoted_as_long_as_it_foresees_as_much() -> None:
    verdict = decided(**FITS_BETTER)
    assert verdict.decision == "PROMOTE"
    assert "0.900 against 1.000; at an equal number of segments a gain of +10.0%" in verdict.reasons[0]
    assert decided(inertia_challenger=0.96, inertia_same_k=0.96).decision == "HOLD"
    doubtful = decided(**FITS_BETTER, validity=validity(-0.003, -0.012, 0.006))
    assert doubtful.decision == "HOLD"
    assert doubtful.reasons[0].startswith("it may foresee less by 0.01 or more: order by return")


def test_a_better_fit_that_only_the_newest_snapshot_shows_may_be_an_error_in_its_data() -> None:
    assert decided(**FITS_BETTER, coverage_champion=0.9, fit_gain_before=-0.01).decision == "HOLD"
    assert decided(**FITS_BETTER, coverage_champion=0.9, fit_gain_before=None).decision == "HOLD"
    verdict = decided(**FITS_BETTER, fit_gain_before=-0.087, validity=validity(0.02, 0.01, 0.03))
    assert verdict.decision == "HOLD"
    assert verdict.reasons[0].endswith("on the one before, a fit like it has 8.7% more inertia than the champion")


def test_more_segments_alone_are_no_better_fit() -> None:
    assert decided(inertia_challenger=0.8, inertia_same_k=0.99).decision == "HOLD"
    assert decided(inertia_challenger=0.8, inertia_same_k=None).decision == "HOLD"
    assert decided(inertia_challenger=1.1, inertia_same_k=0.8).decision == "HOLD"


def test_one_that_covers_more_customers_is_promoted_and_one_that_covers_fewer_rejected() -> None:
    assert decided(coverage_champion=0.95).decision == "PROMOTE"
    worse = decided(coverage_challenger=0.97, **FITS_BETTER)
    assert worse.decision == "REJECT"
    assert worse.reasons == (
        "it covers fewer customers: 97.0% of the customers within 2.00 of a centroid against 99.0%",
    )


def test_one_that_foresees_less_is_rejected_however_well_it_fits() -> None:
    verdict = decided(**FITS_BETTER, validity=validity(-0.02, -0.03, -0.01))
    assert verdict.decision == "REJECT"
    assert verdict.reasons[0].startswith("it foresees less: order by return in the next period 0.680 against 0.700")


@pytest.mark.parametrize(
    ("figures", "code", "reason"),
    [
        ({"worst_jaccard": 0.18}, "unstable", "it is not stable: least stable segment's Jaccard 0.180, at least 0.6"),
        ({"bootstrap_ari": None}, "unstable", "it is not stable: mean bootstrap ARI is not known, at least 0.8"),
        (
            {"smallest_segment": 34, "smallest_share": 0.0125},
            "small_segment",
            "its smallest segment has 34 customers (1.2%), at least 50 and 2.0%",
        ),
    ],
)
def test_one_that_misses_a_limit_is_rejected_however_good_it_is(
    figures: dict[str, Any], code: PromotionCode, reason: str
) -> None:
    assert decided(**FITS_BETTER, **figures) == PromotionVerdict("REJECT", (reason,), (code,))


def test_one_that_was_trained_on_broken_data_is_rejected() -> None:
    verdict = decided({"2011-10-01": "90.0% of its lines were rejected"}, **FITS_BETTER)
    assert verdict.reasons == ("it was trained on broken data: 2011-10-01: 90.0% of its lines were rejected",)
    assert verdict.decision == "REJECT"


def test_what_is_not_known_speaks_against_it() -> None:
    verdict = decided(**FITS_BETTER, validity=(), measured_on=())
    assert verdict.decision == "HOLD"
    assert verdict.reasons[0] == "there is no snapshot yet that could tell what its segments foresee"


def test_one_that_moves_most_customers_must_foresee_more() -> None:
    moved = decided(**FITS_BETTER, share_same_segment=0.4)
    assert moved.decision == "HOLD"
    assert "only 40.0% of the customers would keep their segment" in moved.reasons[0]
    assert decided(share_same_segment=0.4, validity=validity(0.02, 0.01, 0.03)).decision == "PROMOTE"


def test_a_limit_that_is_configured_decides() -> None:
    closer = replace(EQUAL, inertia_challenger=0.98, inertia_same_k=0.98)
    assert verdict_on(closer).codes == NO_GAIN
    assert verdict_on(closer, limits=PromotionLimits(min_fit_gain=0.01)).codes[0] == "better_fit"


def test_the_figures_are_kept_as_json() -> None:
    kept = json.loads(replace(EQUAL, **FITS_BETTER).to_json())
    assert kept["fit_gain"] == pytest.approx(0.1)
    assert kept["validity"][0]["outcome"] == "return"
    assert kept["measured_on"] == ["2011-08-01", "2011-09-01"]


MONTHS = tuple(f"2011-{month:02}-01" for month in range(1, 10))
NOW, TRAINED_ON = MONTHS[-1], MONTHS[2]
SETTINGS = ModelSettings(k_range=(4, 4), n_bootstraps=4, n_initialisations=4, min_bootstrap_ari=0.5, min_jaccard=0.3)


@cache
def shop() -> pl.DataFrame:
    """Lines of 3,000 customers over nine months, of whom some order often and much and most seldom and little."""
    random = np.random.default_rng(11)
    n_customers = 3000
    rate = random.gamma(0.8, 1.0, n_customers)
    orders = random.poisson(rate, (len(MONTHS), n_customers))
    month, customer = (np.repeat(at, orders.ravel()) for at in np.indices(orders.shape).reshape(2, -1))
    n = len(month)
    return pl.DataFrame(
        {
            "period": pl.Series(MONTHS)[month],
            "customer_id": pl.Series(customer).cast(pl.String).str.zfill(5),
            "invoice_id": pl.Series(range(n)).cast(pl.String),
            "product_id": "10001",
            "quantity": 1.0,
            "country": "France",
            "is_cancellation": False,
            "line_amount": (random.lognormal(3, 0.8, n) * (1 + rate[customer])).round(2),
            "day": random.integers(0, 28, n),
        }
    ).select(
        pl.exclude("day"),
        invoiced_at=pl.col("period").str.to_datetime(time_unit="us") + pl.duration(days="day"),
    )


def features_of(lines: pl.DataFrame, key: str, lookback: int = 3, first: str = MONTHS[0]) -> pl.DataFrame:
    window = window_of(key, first, lookback, "monthly")
    seen = nw.from_native(lines.filter(pl.col("period").is_in(window.keys)).lazy())
    parts, products = (
        nw.from_native(part(seen).collect().to_native().lazy()) for part in (rfm.order_parts, rfm.bought_products)
    )
    totals = rfm.customer_totals(parts, products, window).collect().to_native()
    return rfm.customer_features(totals, rfm.spend_by_period(parts, window).collect().to_native(), window)


def evidence_of(
    lines: pl.DataFrame, snapshots: Sequence[str], months: Sequence[str] = MONTHS, **window: Any
) -> Iterator[Evidence]:
    following = dict(pairwise(months))
    for key in snapshots:
        after = lines.filter(pl.col("period") == following[key])
        yield Evidence(
            period=key,
            features=features_of(lines, key, **window),
            known_ids=lines.filter(pl.col("period") <= key)["customer_id"].unique(),
            outcomes=measure_outcomes(nw.from_native(after.lazy())).collect().to_native(),
        )


def trained(
    features: pl.DataFrame, key: str, champion: SegmentationModel | None = None, settings: ModelSettings = SETTINGS
) -> tuple[pl.DataFrame, SegmentationModel]:
    scaled, _ = training_tables.scale_snapshot(features, settings.features, champion.reference if champion else None)
    candidates, _ = sweep_snapshot(scaled, key, settings, lambda _: None, champion)
    model = train_snapshot(features, candidates, key, settings, champion)
    assert model is not None, candidates["choice"][0]
    return candidates, model


@cache
def in_force() -> SegmentationModel:
    """The shop's champion."""
    return trained(features_of(shop(), TRAINED_ON), TRAINED_ON)[1]


def tried(lines: pl.DataFrame, champion: SegmentationModel | None = None, k: int = 4) -> Comparison:
    """A challenger that was really trained on the newest snapshot of some lines, held against a champion."""
    champion, now = champion or in_force(), features_of(lines, NOW)
    candidates, challenger = trained(now, NOW, champion, SETTINGS.model_copy(update={"k_range": (k, k)}))
    return compared(champion, challenger, candidates, lines)


def compared(
    champion: SegmentationModel, challenger: SegmentationModel, candidates: pl.DataFrame, lines: pl.DataFrame
) -> Comparison:
    return compare_models(
        champion,
        challenger,
        current=features_of(lines, NOW),
        previous=features_of(lines, MONTHS[-2]),
        training=features_of(shop(), TRAINED_ON),
        candidates=candidates,
        evidence=evidence_of(lines, MONTHS[5:8]),
        seed=1,
    )


def with_amounts(amount: pl.Expr, *periods: str) -> pl.DataFrame:
    """The shop with other amounts in some months."""
    return shop().with_columns(
        line_amount=pl.when(pl.col("period").is_in(periods)).then(amount).otherwise("line_amount")
    )


AMOUNT = pl.col("line_amount")


def test_the_same_model_again_is_equal_in_everything_and_held() -> None:
    candidates, _ = trained(features_of(shop(), NOW), NOW, in_force())
    seen = compared(in_force(), in_force(), candidates, shop())
    assert (seen.share_same_segment, seen.agreement_ari, seen.coverage_gain) == (1, 1, 0)
    assert [(one.difference, one.low, one.high) for one in seen.validity] == [(0, 0, 0)] * 2
    assert seen.measured_on == MONTHS[5:8]
    assert verdict_on(seen, SETTINGS.limits()).decision == "HOLD"


def test_within_reach_of_its_own_training_customers_are_99_of_100() -> None:
    champion, features = in_force(), features_of(shop(), TRAINED_ON)
    candidates, _ = trained(features, TRAINED_ON)
    seen = compare_models(
        champion,
        champion,
        current=features,
        previous=features,
        training=features,
        candidates=candidates,
        evidence=(),
        seed=1,
    )
    assert seen.coverage_champion == pytest.approx(0.99, abs=0.001)
    assert seen.fit_gain == pytest.approx(0)
    assert seen.validity == ()


def test_where_nobody_was_seen_before_a_season_what_lasts_is_not_known_and_nothing_fails() -> None:
    champion, features = in_force(), features_of(shop(), TRAINED_ON)
    candidates, _ = trained(features, TRAINED_ON)
    seen = compare_models(
        champion,
        champion,
        current=features,
        previous=features.clear(),
        training=features,
        candidates=candidates,
        evidence=(),
        seed=1,
    )
    assert (seen.fit_gain_before, seen.is_lasting) == (None, False)
    assert seen.fit_gain == pytest.approx(0)


def test_a_challenger_where_nothing_changed_is_held() -> None:
    assert verdict_on(tried(shop()), SETTINGS.limits()).decision == "HOLD"


def test_one_that_follows_prices_that_have_tripled_for_four_months_wins() -> None:
    verdict = verdict_on(tried(with_amounts(AMOUNT * 3, *MONTHS[-4:])), SETTINGS.limits())
    assert verdict.decision == "PROMOTE"
    assert verdict.reasons[0].startswith("it fits the customers of now better: inertia per customer")


def test_one_that_tells_apart_whom_the_champion_does_not_wins() -> None:
    """A champion with three of its four centroids where nobody is: almost all customers are in one segment."""
    blind = replace(in_force(), centroids=((0.0, 0.0, 0.0), (9.0, 9.0, 9.0), (9.0, 9.0, -9.0), (-9.0, 9.0, 9.0)))
    verdict = verdict_on(tried(shop(), champion=blind), SETTINGS.limits())
    assert verdict.decision == "PROMOTE"
    assert verdict.reasons[0].startswith("it foresees more: order by return in the next period")


@pytest.mark.parametrize(
    ("lines", "code", "reason"),
    [
        (with_amounts(AMOUNT * 0, NOW), "only_newest_snapshot", "only the newest snapshot shows what it learned"),
        (with_amounts(AMOUNT * 100, NOW), "worse_validity", "it foresees less: order by"),
        (with_amounts(AMOUNT / 100, NOW), "worse_validity", "it foresees less: order by"),
        (with_amounts(AMOUNT * 100, *MONTHS[-2:]), "worse_validity", "it foresees less: order by"),
        (
            shop().filter(pl.col("period") != NOW),
            "only_newest_snapshot",
            "only the newest snapshot shows what it learned",
        ),
    ],
    ids=["amounts lost", "cents for euros", "euros for cents", "cents for euros for two months", "a month missing"],
)
def test_one_trained_on_broken_data_loses_by_what_is_by_what_is_measured_alone(
    lines: pl.DataFrame, code: PromotionCode, reason: str
) -> None:
    seen = tried(lines)
    assert seen.fit_gain is not None
    assert seen.fit_gain > 0.1, "it does fit the broken snapshot better"
    verdict = verdict_on(seen, SETTINGS.limits())
    assert verdict.decision in {"HOLD", "REJECT"}
    assert any(
        (code, True) == (found, sentence.startswith(reason))
        for found, sentence in zip(verdict.codes, verdict.reasons, strict=True)
    ), verdict


def test_an_unstable_one_loses() -> None:
    verdict = verdict_on(tried(shop(), k=7))
    assert verdict.decision == "REJECT"
    assert verdict.codes[0] == "unstable"


def test_one_with_a_segment_of_a_handful_loses() -> None:
    """A fifth centroid far out among those who spend most."""
    champion, now = in_force(), features_of(shop(), NOW)
    candidates, challenger = trained(now, NOW, champion)
    most = champion.reference.scale(now.sort("monetary_net").tail(20).select(champion.features).to_numpy()).mean(axis=0)
    wider = replace(
        challenger,
        centroids=(*challenger.centroids, tuple((most * 1.5).tolist())),
        segments=(*challenger.segments, replace(challenger.segments[0], segment_id="S5", cluster=4)),
    )
    fifth = candidates.with_columns(k=pl.lit(5, pl.Int64))
    seen = compared(champion, wider, pl.concat([candidates, fifth]), shop())
    assert 0 < seen.smallest_segment < 50
    verdict = verdict_on(seen, SETTINGS.limits())
    assert verdict.decision == "REJECT"
    assert f"its smallest segment has {seen.smallest_segment} customers" in verdict.reasons[0]


def test_models_on_different_scales_are_not_compared() -> None:
    candidates, own_scale = trained(features_of(shop(), NOW), NOW)
    with pytest.raises(BadInputError, match="has a scale of its own"):
        compared(in_force(), own_scale, candidates, shop())


REAL_MONTHS = ("2010-12-01", *(f"2011-{month:02}-01" for month in range(1, 12)))
REAL_SETTINGS = ModelSettings(k_range=(4, 4), n_bootstraps=5)


def on_the_real_log(lines: pl.DataFrame, key: str) -> PromotionVerdict:
    """The model of May against one trained on a later snapshot."""
    at = REAL_MONTHS.index(key)
    window: dict[str, Any] = {"lookback": 6, "first": REAL_MONTHS[0]}
    may = features_of(lines, "2011-05-01", **window)
    _, champion = trained(may, "2011-05-01", settings=REAL_SETTINGS)
    now = features_of(lines, key, **window)
    candidates, challenger = trained(now, key, champion, REAL_SETTINGS)
    seen = compare_models(
        champion,
        challenger,
        current=now,
        previous=features_of(lines, REAL_MONTHS[at - 1], **window),
        training=may,
        candidates=candidates,
        evidence=evidence_of(lines, REAL_MONTHS[at - 3 : at], REAL_MONTHS, **window),
        seed=1,
    )
    return verdict_on(seen)


@pytest.mark.parametrize(
    ("key", "factor", "since", "decision", "code", "reason"),
    [
        ("2011-08-01", 1, "2011-08-01", "HOLD", "not_better", "it is not clearly better than m-2011-05-01-"),
        ("2011-10-01", 2, "2011-08-01", "PROMOTE", "better_fit", "it fits the customers of now better: "),
        ("2011-10-01", 100, "2011-10-01", "REJECT", "worse_validity", "it foresees less: order by return"),
    ],
    ids=["nothing happened", "prices doubled for three months", "a month in cents"],
)
def test_on_the_real_log_the_gate_says_no_yes_and_no(
    real_tables: RealTables, key: str, factor: float, since: str, decision: str, code: str, reason: str
) -> None:
    amount = pl.when(pl.col("period") >= since).then(AMOUNT * factor).otherwise(AMOUNT)
    verdict = on_the_real_log(real_tables.clean.with_columns(line_amount=amount), key)
    assert (verdict.decision, verdict.codes[0]) == (decision, code), verdict
    assert verdict.reasons[0].startswith(reason)
