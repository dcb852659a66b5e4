"""What there is to do next in a home."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from custseg_assets.home import plan
from custseg_assets.home.fingerprints import TRAINED
from custseg_assets.home.plan import SEGMENTED, TABLES_OF_JOB, due_retrain, next_stage
from tests.support.homes import open_quick
from tests.support.shops import FilledShop


@pytest.mark.parametrize(
    ("newest", "words"),
    [
        ({}, "no drift report of a period that is over has been decided about yet"),
        ({"period": "2024-04-01", "decision": "WAIT", "reasons": '["too early"]'}, "2024-04-01: WAIT, too early"),
        (
            {"period": "2024-03-01", "decision": "RETRAIN", "reasons": "[]"},
            "2024-03-01 asks for a retrain, but 2024-04-01 is the newest closed snapshot",
        ),
        ({"period": "2024-04-01", "decision": "RETRAIN", "reasons": "[]"}, "retrain 2024-04-01"),
    ],
)
def test_a_retrain_is_due_only_for_the_newest_snapshot(filled_shop: FilledShop, newest: Any, words: str) -> None:
    decisions = pl.DataFrame([newest] if newest else [])
    assert str(due_retrain(open_quick(filled_shop.home), decisions)) == words


@pytest.fixture(autouse=True)
def _released(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of these tests alone has no release to look at."""
    if "filled_shop" not in request.fixturenames:
        monkeypatch.setattr(plan, "why_not_released", lambda _: None)


KEYS = ("01", "02", "03", "04", "05", "06")
FIRST, RETRAINED = "01", "04"


def stages(stale: Mapping[str, Iterable[str]]) -> list[str]:
    """Everything that is done one after the other in a home with six snapshots, until nothing is out of date.

    Args:
        stale: table → keys that are out of date.
    """
    left = {(name, key) for name, keys in stale.items() for key in keys}

    def still_stale(names: Iterable[str], keys: Iterable[str]) -> tuple[str, ...]:
        wanted = tuple(names)
        return tuple(key for key in keys if any((name, key) in left for name in wanted))

    home: Any = SimpleNamespace(
        champions=SimpleNamespace(
            is_untrained=lambda key: key not in (FIRST, RETRAINED),
            champion_before=lambda key: None if key == FIRST else (FIRST, "m"),
            segmented=tuple,
        ),
        calendar=SimpleNamespace(period_keys=KEYS, snapshot_keys=KEYS),
        fingerprints=SimpleNamespace(stale=still_stale),
    )
    found = []
    while stage := next_stage(home, KEYS[-1], KEYS[-1]):
        within = [key for key in KEYS if str(stage.first_key) <= key <= str(stage.last_key)]
        if stage.job in ("snapshot", "hold"):
            assert not {FIRST, RETRAINED} & set(within), f"{stage} runs across a snapshot that a model was trained on"
        left -= {(name, key) for name in TABLES_OF_JOB[stage.job] for key in within}
        found.append(str(stage))
    return found


NEW = dict.fromkeys(TABLES_OF_JOB["snapshot"], KEYS[-1:])
"""A new period: all of its snapshot is missing."""


def test_a_new_period_needs_one_run() -> None:
    assert stages(NEW) == ["snapshot 06"]
    assert stages(dict.fromkeys(NEW, KEYS[-2:])) == ["snapshot 05 … 06"]


def test_a_new_period_with_an_upgrade_is_segmented_with_the_others_and_none_runs_across_a_retrained_snapshot() -> None:
    assert stages({**NEW, "segment_assignments": KEYS, "segment_migrations": KEYS}) == [
        "features 06",
        "scale 06",
        "hold 06",
        "segment 01 … 06",
    ]


def test_snapshots_on_either_side_of_a_retrained_one_are_made_in_two_runs() -> None:
    around = ("03", "05", "06")
    assert stages(dict.fromkeys(TABLES_OF_JOB["snapshot"], around)) == ["snapshot 03", "snapshot 05 … 06"]
    assert stages(dict.fromkeys(TRAINED, around)) == ["hold 03", "hold 05 … 06"]


def test_segments_alone_are_made_in_one_run_also_of_retrained_snapshots() -> None:
    assert stages(dict.fromkeys(SEGMENTED, KEYS[1:])) == ["segment 02 … 06"]
