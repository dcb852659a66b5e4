"""The retrain decision: what it takes, and everything that stands against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import polars as pl
import pytest

from custseg_assets.domain.promotion.retraining import (
    RetrainCode,
    RetrainRules,
    RetrainVerdict,
    TrainingCost,
    decide_retrain,
)
from custseg_assets.errors import BadInputError
from custseg_assets.settings import load_settings

MAY, JUNE, JULY, AUGUST, SEPTEMBER = (f"2011-{month:02}-01" for month in range(5, 10))
FOR_A_TRAINING: tuple[RetrainCode, ...] = ("breaches_repeated", "cooldown_over", "budget_left", "sound_data")
VERDICTS = {MAY: "stable", JUNE: "stable", JULY: "breach", AUGUST: "stable", SEPTEMBER: "breach"}


def reports_of(verdicts: Mapping[str, str]) -> pl.DataFrame:
    """``drift_report`` rows as far as the decision reads them: several scores a snapshot."""
    rows = [(key, score, verdict) for key, verdict in verdicts.items() for score in ("psi", "share_shift")]
    return pl.DataFrame(rows, schema=["period", "score_name", "verdict"], orient="row")


def decided(
    verdicts: Mapping[str, str] = VERDICTS,
    *,
    period: str = SEPTEMBER,
    trained_on: str = MAY,
    trainings: Sequence[str] = (MAY,),
    unsound: Mapping[str, str] | None = None,
    cost: TrainingCost | None = None,
    is_open: bool = False,
    **rules: Any,
) -> RetrainVerdict:
    return decide_retrain(
        period,
        reports_of(verdicts),
        trained_on=trained_on,
        trainings=trainings,
        unsound=unsound or {},
        rules=RetrainRules(**rules),
        cost=cost,
        is_open=is_open,
    )


def test_two_breaches_of_three_the_newest_among_them_are_a_reason() -> None:
    breaches = "2 of the last 3 snapshots since the model of 2011-05-01 are breaches (2011-07-01, 2011-09-01)"
    assert decided() == RetrainVerdict(
        decision="RETRAIN",
        reasons=(
            f"{breaches}; it takes 2 of 3",
            "the last training was on 2011-05-01, 4 snapshots ago; it takes 2",
            "0 of 2 trainings of a quarter (92 days) are used",
            "the data of the window are sound",
        ),
        codes=FOR_A_TRAINING,
        verdict="breach",
        n_breaches=2,
        n_judged=3,
    )


BREACHES: Mapping[str, str] = dict.fromkeys(VERDICTS, "breach")
RULES: list[tuple[dict[str, Any], tuple[RetrainCode, ...]]] = [
    ({}, FOR_A_TRAINING),
    ({"trainings": ()}, ("breaches_repeated", "never_trained", "budget_left", "sound_data")),
    ({"cost": TrainingCost(0.22, 1)}, (*FOR_A_TRAINING[:3], "cost_allowed", "sound_data")),
    ({"verdicts": VERDICTS | {JULY: "watch"}}, ("breaches_too_few",)),
    ({"verdicts": VERDICTS | {SEPTEMBER: "watch"}}, ("no_breach_now",)),
    ({"verdicts": {MAY: "stable"}, "period": MAY, "trainings": ()}, ("model_is_new",)),
    ({"verdicts": BREACHES, "trainings": (MAY, AUGUST)}, ("cooldown",)),
    ({"trainings": (MAY, JUNE, JULY), "max_per_quarter": 1}, ("budget_used",)),
    ({"cost": TrainingCost(0.22, 0)}, ("cost_too_high",)),
    ({"cost": TrainingCost(None, 10)}, ("cost_unknown",)),
    ({"unsound": {AUGUST: "broken"}}, ("unsound_data",)),
    ({"is_on": False}, ("switched_off",)),
    ({"is_open": True}, ("period_open",)),
    (
        {"verdicts": VERDICTS | {SEPTEMBER: "stable"}, "trainings": (AUGUST,), "unsound": {MAY: "broken"}}
        | {"is_on": False, "max_per_quarter": 1, "cost": TrainingCost(None, 0), "is_open": True},
        ("no_breach_now", "cooldown", "budget_used", "cost_unknown", "unsound_data", "period_open", "switched_off"),
    ),
]


@pytest.mark.parametrize(("inputs", "codes"), RULES)
def test_every_rule_says_yes_and_no_and_gives_its_code(inputs: dict[str, Any], codes: tuple[RetrainCode, ...]) -> None:
    verdict = decided(**inputs)
    assert verdict.codes == codes
    assert len(verdict.reasons) == len(codes)
    assert verdict.decision == ("RETRAIN" if "breaches_repeated" in codes else "WAIT")


def test_every_code_is_given_by_a_rule() -> None:
    assert {code for _, codes in RULES for code in codes} == set(get_args(RetrainCode))


def test_one_breach_is_not_enough() -> None:
    verdict = decided(VERDICTS | {JULY: "watch"})
    assert verdict.decision == "WAIT"
    assert verdict.reasons == (
        "1 of the last 3 snapshots since the model of 2011-05-01 is a breach (2011-09-01); it takes 2 of 3",
    )


@pytest.mark.parametrize("newest", ["stable", "watch", "not enough data"])
def test_without_a_breach_of_the_newest_snapshot_nothing_is_trained(newest: str) -> None:
    verdict = decided(VERDICTS | {AUGUST: "breach", SEPTEMBER: newest})
    assert (verdict.decision, verdict.codes, verdict.n_breaches) == ("WAIT", ("no_breach_now",), 2)
    assert f"the newest drift report says {newest}" in verdict.reasons[0]


def test_a_snapshot_without_enough_data_is_no_breach() -> None:
    verdict = decided(VERDICTS | {JULY: "not enough data"})
    assert (verdict.decision, verdict.n_breaches, verdict.n_judged) == ("WAIT", 1, 2)


def test_a_breach_before_the_last_three_snapshots_does_not_count() -> None:
    assert decided(VERDICTS | {JUNE: "breach", JULY: "stable"}).decision == "WAIT"
    assert decided(VERDICTS | {JUNE: "breach", JULY: "stable"}, of_last=4).decision == "RETRAIN"


def test_breaches_of_the_model_before_do_not_count_nor_does_the_snapshot_it_was_trained_on() -> None:
    breaches = dict.fromkeys(VERDICTS, "breach")
    assert decided(breaches, trained_on=JULY, cooldown_snapshots=0).n_breaches == 2
    verdict = decided(breaches, trained_on=AUGUST, cooldown_snapshots=0)
    assert (verdict.decision, verdict.n_breaches) == ("WAIT", 1)


def test_drift_on_a_models_own_training_snapshot_counts_for_nothing() -> None:
    verdict = decided({MAY: "stable"}, period=MAY, trainings=())
    assert (verdict.decision, verdict.n_judged, verdict.verdict) == ("WAIT", 0, "stable")
    assert verdict.codes == ("model_is_new",)
    assert "was trained on this snapshot, 2011-05-01" in verdict.reasons[0]


def test_after_a_training_that_changed_nothing_the_next_one_waits() -> None:
    breaches = dict.fromkeys(VERDICTS, "breach")
    verdict = decided(breaches, trainings=(MAY, AUGUST))
    assert verdict.decision == "WAIT"
    assert verdict.reasons == ("the last training was on 2011-08-01, 1 snapshot ago; it takes 2",)
    assert decided(breaches, trainings=(MAY, JULY)).decision == "RETRAIN"


def test_what_was_trained_on_this_snapshot_or_later_has_no_part_in_its_decision() -> None:
    assert decided(trainings=(MAY, SEPTEMBER, "2011-11-01")) == decided(trainings=(MAY,))


def test_later_reports_have_no_part_in_it_nor_has_the_order_of_rows() -> None:
    later = VERDICTS | {"2011-10-01": "stable"}
    assert decided(later) == decided()
    shuffled = reports_of(later).sample(fraction=1, shuffle=True, seed=1)
    again = decide_retrain(SEPTEMBER, shuffled, trained_on=MAY, trainings=(MAY,), unsound={}, rules=RetrainRules())
    assert again == decided()


def test_the_budget_of_a_quarter_can_be_used_up() -> None:
    """From 1 September 92 days reach back to, and without, 1 June."""
    verdict = decided(trainings=(MAY, JUNE, JULY), max_per_quarter=1)
    assert verdict.reasons == ("1 of 1 trainings of a quarter (92 days) are used: 2011-07-01",)
    assert decided(trainings=(MAY, JUNE, JULY), max_per_quarter=2).decision == "RETRAIN"
    assert decided(trainings=(), max_per_quarter=0).decision == "WAIT"


@pytest.mark.parametrize(
    ("per_training", "allowed", "decision", "code"),
    [
        (0.22, 1, "RETRAIN", "cost_allowed"),
        (0.22, 0.66, "RETRAIN", "cost_allowed"),
        (0.22, 0.65, "WAIT", "cost_too_high"),
        (0.22, 0, "WAIT", "cost_too_high"),
        (None, 10, "WAIT", "cost_unknown"),
    ],
)
def test_money_can_stand_against_a_training(
    per_training: float | None, allowed: float, decision: str, code: RetrainCode
) -> None:
    """July and August lie within 92 days before September, May does not: with the next one that makes three."""
    cost = TrainingCost(per_training, allowed)
    verdict = decided(trainings=(MAY, JULY, AUGUST), cooldown_snapshots=1, max_per_quarter=3, cost=cost)
    assert verdict.decision == decision
    sentence = dict(zip(verdict.codes, verdict.reasons, strict=True))[code]
    if per_training is None:
        assert "is not known (say it with [gcp.training] price_per_hour)" in sentence
    else:
        assert sentence == (
            f"trainings of the quarter count as 0.44 USD and another can cost 0.22; allowed are {allowed:.2f} "
            "([gcp.training] max_cost_per_quarter)"
        )


def test_where_trainings_cost_nothing_money_is_not_mentioned() -> None:
    assert not any("USD" in reason for reason in decided().reasons)


def test_broken_data_stand_against_a_training() -> None:
    verdict = decided(unsound={AUGUST: "90.0% of its lines were rejected; usual for the others is 2.0% to 22.0%"})
    assert verdict.decision == "WAIT"
    assert verdict.reasons == (
        "fix the data first: 2011-08-01: 90.0% of its lines were rejected; usual for the others is 2.0% to 22.0%",
    )


def test_everything_that_stands_against_it_is_said() -> None:
    verdict = decided(
        VERDICTS | {SEPTEMBER: "stable"}, trainings=(AUGUST,), unsound={MAY: "broken"}, is_on=False, max_per_quarter=1
    )
    assert verdict.codes == ("no_breach_now", "cooldown", "budget_used", "unsound_data", "switched_off")
    assert verdict.reasons[-1] == "retraining is switched off ([retrain] is_on)"


def test_impossible_rules_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="min_breaches 4 must be at most of_last 3"):
        RetrainRules(min_breaches=4)
    path = tmp_path / "custseg.toml"
    path.write_text("[retrain]\nmin_breaches = 4")
    with pytest.raises(BadInputError, match="min_breaches 4 must be at most of_last 3"):
        load_settings(path, environment={})
