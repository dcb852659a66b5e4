"""Homes opened for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from custseg_assets.home.intake import Intake
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings, load_settings
from custseg_assets.stores.landing_zone import TakenIn
from tests.support.shops import QUICK


def take_in(settings: Settings, say: Callable[[str], None] = lambda _: None) -> str:
    """Take the source and what landed in, as ``custseg run`` does; the key of the last period to make."""
    with OpenHome(settings).locked() as home:
        return Intake(home, say).take_in()


def take_in_landed(settings: Settings) -> TakenIn:
    """Take in what landed, as the asset ``landed_files`` does."""
    with OpenHome(settings).locked() as home:
        return Intake(home, lambda _: None).take_in_landed()


def quick_settings(home: Path, more: str = "") -> Settings:
    """Settings of a small shop's home, and more sections; they stand in ``custseg.toml`` beside it."""
    config = home.with_name("custseg.toml")
    config.write_text(QUICK + more, encoding="utf-8")
    return load_settings(config, home=home, environment={})


def open_quick(home: Path, more: str = "") -> OpenHome:
    """A small shop's home, opened anew."""
    return OpenHome(quick_settings(home, more))
