"""What was fitted is kept beside the tables: the next run finds it, and fits again if the file is not as it was."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.schemas import VALUE_MODEL
from custseg_assets.domain.value import replay
from custseg_assets.domain.value.methods import Heads, Lessons, fit_heads
from custseg_assets.home.open import OpenHome
from custseg_assets.home.values import opened_values
from custseg_assets.settings import load_settings
from tests.support.shops import fill_shop, shop_log

FITS = ("fit_segment_mean", "fit_btyd", "fit_heads")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> OpenHome:
    """A home of nine months, whose run has fitted methods at several days."""
    shop = fill_shop(tmp_path_factory.mktemp("values"), shop_log(9))
    return OpenHome(load_settings(shop.home.with_name("home.toml"), home=shop.home, environment={}))


def describe(home: OpenHome) -> pl.DataFrame:
    """The model of the newest snapshot, worked out anew, in the columns that do not say of which snapshot it is."""
    key = home.calendar.snapshot_keys[-1]
    with home.locked() as locked, opened_values(locked, [key]) as values:
        return values.describe(key)


def stored(home: OpenHome) -> pl.DataFrame:
    names = [column.name for column in VALUE_MODEL.content]
    return home.tables.read(VALUE_MODEL, home.calendar.snapshot_keys[-1:]).select(names)


def test_the_next_run_finds_what_this_one_fitted(home: OpenHome, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = home.paths.value_fits.read_text()
    for name in FITS:
        monkeypatch.setattr(replay, name, None)
    assert describe(home).sort("target", "method").equals(stored(home).sort("target", "method"))
    # Of the snapshots before, which were not asked for, nothing is kept any more.
    assert 0 < len(home.paths.value_fits.read_text()) <= len(kept)


@pytest.mark.parametrize("damage", [b"", b"\xff", b"12 {}", None])
def test_a_file_that_is_not_as_it_was_written_is_not_read(
    home: OpenHome, damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = home.paths.value_fits
    describe(home)
    whole = path.read_bytes()
    # One digit of one parameter, where nothing else is given.
    changed = whole.replace(b'"alpha": ', b'"alpha": 1', 1)
    assert changed != whole
    path.write_bytes(changed if damage is None else damage)
    fitted = list[Lessons]()

    def fit(lessons: Lessons) -> Heads:
        fitted.append(lessons)
        return fit_heads(lessons)

    monkeypatch.setattr(replay, "fit_heads", fit)
    assert describe(home).sort("target", "method").equals(stored(home).sort("target", "method"))
    assert fitted
    assert path.read_bytes() == whole


def test_what_did_not_end_keeps_nothing(home: OpenHome) -> None:
    path = home.paths.value_fits
    describe(home)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), home.locked() as locked, opened_values(locked, home.calendar.snapshot_keys):
        raise ZeroDivisionError
    assert path.read_bytes() == before
