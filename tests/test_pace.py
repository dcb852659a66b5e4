"""How long work will still take."""

from __future__ import annotations

import pytest

from custseg_assets.commands.estimate import Amount, RunEstimate
from custseg_assets.pace import Pace


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_is_left_follows_from_what_is_done(clock: Clock) -> None:
    pace = Pace(100, clock)
    assert pace.left(0) == ""
    clock.now = 30.0
    assert pace.left(25) == ", about 90 s to go".replace("90 s", "2 min")
    assert pace.left(75) == ", about 10 s to go"
    assert pace.left(100) == ""


def test_nothing_is_said_of_the_rest_while_next_to_nothing_is_done(clock: Clock) -> None:
    pace = Pace(1000, clock)
    clock.now = 1.0
    assert pace.left(500) == ""
    clock.now = 60.0
    assert pace.left(1) == ""


def test_the_stages_of_a_first_run_are_corrected_by_what_this_machine_took(clock: Clock) -> None:
    # ingest 11 s, features 2.6, train 6, scale and hold 1, segment 12: 32.6 s in all.
    estimate = RunEstimate(Amount(2_000_000, 10, 1_000_000, is_routine=False), clock)
    assert estimate.before("ingest") == ", about 35 s to go"
    clock.now = 22.0
    # Twice as slow: 21.6 s become 43.
    assert estimate.before("features") == ", about 45 s to go"
    clock.now = 24.0
    assert estimate.before("segment") == ", about 20 s to go"


def test_a_run_that_begins_later_is_held_against_its_own_stages_only(clock: Clock) -> None:
    estimate = RunEstimate(Amount(0, 10, 1_000_000, is_routine=False), clock)
    assert estimate.before("train") == ", about 20 s to go"
    clock.now = 6.0
    assert estimate.before("scale") == ", about 15 s to go"


def test_a_short_run_and_a_stage_outside_the_usual_order_need_no_estimate(clock: Clock) -> None:
    assert RunEstimate(Amount(10_000, 1, 60_000, is_routine=True), clock).before("ingest") == ""
    assert RunEstimate(Amount(2_000_000, 1, 1e6, is_routine=True), clock).before("retrain") == ""
