"""A shop's daily files around the end of a month: each day's release, and the closed month against a single load."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from custseg_assets.stores.releases import ReleaseManifest
from tests.support.comparison import differing_partitions, partitions
from tests.support.daily_files import DroppedFile, daily_files
from tests.support.files import REPOSITORY
from tests.support.killed_runs import kill_run
from tests.support.shops import QUICK, FilledShop, custseg

CONFIG = f"{QUICK}\n[landing]\nsettle_seconds = 0\n"
DAYS = [date(2024, 3, 29) + timedelta(days=number) for number in range(6)]
MARCH_OVER, KILLED = date(2024, 3, 31), date(2024, 4, 1)
CLOSED = ("2024-01-01", "2024-02-01", "2024-03-01")


@pytest.fixture
def files(filled_shop: FilledShop) -> Mapping[date, DroppedFile]:
    """The daily files of the shop's whole log."""
    return daily_files(pl.read_csv(filled_shop.source, infer_schema=False))


@pytest.fixture
def landed(tmp_path: Path, files: Mapping[date, DroppedFile]) -> Path:
    """A home that took in everything before the first of the days at once."""
    home = tmp_path / "home"
    before = [file.lines for day, file in files.items() if day < DAYS[0]]
    DroppedFile("before.csv", pl.concat(before)).write_to(home / "landing")
    outcome = custseg(home, "run", config=CONFIG)
    assert outcome.status == 0, outcome.err
    return home


def test_every_day_is_released_and_the_month_that_is_over_is_as_of_a_single_load(
    landed: Path, files: Mapping[date, DroppedFile], filled_shop: FilledShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUSTSEG_CONFIG", str(landed.with_name("home.toml")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), *sys.path]))
    tables = sorted(folder.name for folder in (filled_shop.home / "tables").iterdir())
    for day in DAYS:
        files[day].write_to(landed / "landing")
        if day == KILLED:
            kill_run([sys.executable, "-m", "custseg_assets.cli", "run"], landed, 600, "segment_assignments:")
            assert Home(landed).unfinished_stage.exists(), "it was over before it was killed"
        outcome = custseg(landed, "run", config=CONFIG)
        assert outcome.status == 0, outcome.err
        manifest, state = manifest_of(landed), json.loads(custseg(landed, "status", "--json", config=CONFIG).out)
        is_open, key = day != MARCH_OVER, f"{day:%Y-%m}-01"
        assert (manifest.period, manifest.as_of, manifest.is_open) == (key, midnight_after(day), is_open)
        assert (state["as_of"], state["is_open"], state["stale"]) == (f"{midnight_after(day):%Y-%m-%d}", is_open, {})
        is_over = day >= MARCH_OVER
        found = differing_partitions(landed, filled_shop.home, tables, CLOSED)
        assert not found if is_over else "table segment_assignments: partition 2024-03-01 differs" in found


def test_what_a_first_model_made_goes_when_no_model_is_in_force_any_more(
    shop_home: Path, filled_shop: FilledShop
) -> None:
    released = releases.current(shop_home / "releases")
    too_few = QUICK.replace("min_segment_customers = 10", "min_segment_customers = 1000")
    run = ("run", "--reconfigure", "--source", filled_shop.source)
    assert custseg(shop_home, *run, config=too_few).status == 0
    state = json.loads(custseg(shop_home, "status", "--json", config=too_few).out)
    assert [state[name] for name in ("champion", "last_snapshot", "as_of", "segments")] == [None, None, None, []]
    for name in ("segment_assignments", "segment_profiles", "segment_migrations", "drift_report", "retrain_decision"):
        assert not partitions(shop_home / "tables" / name), name
    # Nobody has a better one; it says itself what it is as of.
    assert state["release"] == released
    assert custseg(shop_home, *run, config=QUICK).status == 0
    assert differing_partitions(shop_home, filled_shop.home, ["segment_assignments", "segment_migrations"]) == []


def manifest_of(home: Path) -> ReleaseManifest:
    """The manifest of the release that a home serves."""
    return releases.verify(home / "releases", str(releases.current(home / "releases")))


def midnight_after(day: date) -> datetime:
    """The end of a day."""
    return datetime.combine(day + timedelta(days=1), datetime.min.time())
