"""The settings that a home keeps for ever: what shapes every table of it, and where its tables are."""

from __future__ import annotations

from typing import Any

from custseg_assets.errors import BadInputError
from custseg_assets.settings import Settings
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home

PLACE = "[gcp.storage] tables"
ON_DISK = "the home's own folder"
_SINCE_EVER = ("[snapshots] cadence", "[snapshots] lookback", "[model] features")


def settings_to_fix(settings: Settings) -> dict[str, Any]:
    """What a new home will keep, by the name of the setting."""
    storage = settings.gcp.storage
    return {
        "[snapshots] cadence": settings.snapshots.cadence,
        "[snapshots] lookback": settings.snapshots.lookback,
        "[model] features": list(settings.model.features),
        PLACE: f"{storage.uri}/tables" if storage.tables else ON_DISK,
    }


def read_fixed_settings(home: Home) -> dict[str, Any]:
    """What a home was made with; nothing where it was not made yet."""
    made = read_state(home.fixed_settings, *_SINCE_EVER) or {}
    # Before there was a choice, tables were on the disk.
    return {PLACE: ON_DISK, **made} if made or home.tables.exists() else {}


def fix_settings(settings: Settings) -> None:
    """Record what a home is made with."""
    write_state(Home(settings.home).fixed_settings, settings_to_fix(settings))


def with_fixed_settings(settings: Settings) -> Settings:
    """The same settings, but what a home was made with as it was made with."""
    made = read_fixed_settings(Home(settings.home))
    if not made.keys() >= {*_SINCE_EVER}:
        return settings
    cadence, lookback, features = (made[name] for name in _SINCE_EVER)
    snapshots = settings.snapshots.model_copy(update={"cadence": cadence, "lookback": lookback})
    model = settings.model.model_copy(update={"features": tuple(features)})
    return settings.model_copy(update={"snapshots": snapshots, "model": model})


def require_same_settings(settings: Settings, *names: str) -> None:
    """Refuse settings that would make new partitions incomparable with old ones, or put them in another place.

    Args:
        settings: whose home it is.
        names: of what to look at; everything without any.

    Raises:
        BadInputError: a setting is another than the home was made with.
    """
    home, wanted = Home(settings.home), settings_to_fix(settings)
    before = read_fixed_settings(home)
    for name in names or wanted:
        if name in before and before[name] != wanted[name]:
            raise BadInputError(
                f"{name} = {wanted[name]!r}",
                f"{before[name]!r}, with which home {home.root} was made",
                "Use another home with CUSTSEG_HOME, or take the setting back.",
            )
