"""Homes opened for tests."""

from __future__ import annotations

from collections.abc import Callable

from custseg_assets.home.intake import Intake
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings
from custseg_assets.stores.landing_zone import TakenIn


def take_in(settings: Settings, say: Callable[[str], None] = lambda _: None) -> str:
    """Take the source and what landed in, as ``custseg run`` does; the key of the last period to make."""
    with OpenHome(settings).locked() as home:
        return Intake(home, say).take_in()


def take_in_landed(settings: Settings) -> TakenIn:
    """Take in what landed, as the asset ``landed_files`` does."""
    with OpenHome(settings).locked() as home:
        return Intake(home, lambda _: None).take_in_landed()
