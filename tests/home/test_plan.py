"""What there is to do next in a home."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from custseg_assets.home.plan import due_retrain
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
