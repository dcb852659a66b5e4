"""What is fitted is kept by what it was fitted on: found again it is the same, and never for other figures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from custseg_assets.domain.value import replay
from custseg_assets.domain.value.days import CustomerDays, known_at, learning_days
from custseg_assets.domain.value.kept_fits import KeptFits
from custseg_assets.domain.value.replay import History, ValueModel
from tests.support.customer_days import FIRST, customer_days, rows_of

DAYS = customer_days()
AT = learning_days(FIRST, FIRST + 299)[-1]


def placed(day: int) -> pl.DataFrame:
    known = known_at(DAYS, day)
    names = np.where(known.n_days > 4, "S1", "S2")
    return pl.DataFrame({"customer_id": DAYS.ids.gather(known.customers), "segment_id": names})


def fit(kept: KeptFits, days: CustomerDays = DAYS, at: int = AT, placed_at: Any = placed) -> ValueModel:
    return History(days, placed_at, FIRST, kept_fits=kept).fit(at)


@pytest.fixture(scope="module")
def first() -> KeptFits:
    kept = KeptFits({})
    fit(kept)
    return kept


def stored(kept: KeptFits) -> Any:
    return json.loads(json.dumps(kept.used))


def test_what_was_kept_is_what_would_be_fitted_and_nothing_is_fitted_again(
    first: KeptFits, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = rows_of(fit(KeptFits({})), DAYS, placed)
    for name in ("fit_segment_mean", "fit_btyd", "fit_heads"):
        monkeypatch.setattr(replay, name, None)
    found = KeptFits(stored(first))
    for ours, theirs in zip(rows_of(fit(found), DAYS, placed), anew, strict=True):
        assert ours.equals(theirs)
    assert found.used == first.used
    # A few days later nothing new is over, so nothing new can be learnt.
    fit(KeptFits(stored(first)), at=AT + 3)


def one_day_more() -> tuple[CustomerDays, Any]:
    net = DAYS.net.copy()
    net[np.flatnonzero(DAYS.day < AT - 200)[0]] += 0.01
    return replace(DAYS, net=net), placed


def one_moved() -> tuple[CustomerDays, Any]:
    def moved(day: int) -> pl.DataFrame:
        found = placed(day)
        return found.with_columns(
            segment_id=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("S3")).otherwise("segment_id")
        )

    return DAYS, moved


@pytest.mark.parametrize("change", [one_day_more, one_moved])
def test_a_cent_or_a_segment_more_and_all_that_learns_from_it_is_fitted_again(first: KeptFits, change: Any) -> None:
    days, placed_at = change()
    kept = KeptFits(stored(first))
    model = fit(kept, days, placed_at=placed_at)
    assert set(kept.used).isdisjoint(first.used)
    assert describe(model) == describe(fit(KeptFits({}), days, placed_at=placed_at))


def describe(model: ValueModel) -> list[Any]:
    return [one and one.parameters() for one in model.candidates.values()]


def test_a_later_day_is_fitted_when_it_is_over_and_the_oldest_are_forgotten(first: KeptFits) -> None:
    kept = KeptFits(stored(first))
    fit(kept, at=AT + 31)
    assert set(kept.used) - set(first.used)
    later = KeptFits({"of a day that nothing learns from any more": {}, **stored(kept)})
    fit(later, at=AT + 31)
    assert later.used == kept.used


def test_another_version_of_what_fits_finds_nothing(first: KeptFits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "0")
    kept = KeptFits(stored(first))
    fit(kept)
    assert set(kept.used).isdisjoint(first.used)
