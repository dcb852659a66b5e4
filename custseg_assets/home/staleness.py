"""What of a home is out of date, and why: a setting, its data, or the version of custseg.

That something is out of date is decided by ``fingerprints``; here only its cause is looked for, for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import SEGMENT_PROFILES, tables
from custseg_assets.home.champions import Champions, Promotions
from custseg_assets.home.fingerprints import TRAINED
from custseg_assets.home.open import INGESTED, OpenHome
from custseg_assets.home.own_settings import SettingChange, compare_settings, settings_before, with_setting_of
from custseg_assets.home.plan import SEGMENTED
from custseg_assets.settings import Settings

Stale = Mapping[str, Sequence[str]]
"""Table → keys of the partitions that are out of date."""

_N_KEYS = 3


def stale_partitions(home: OpenHome, champions: Champions | None = None) -> dict[str, list[str]]:
    """What is out of date, in the order in which it is made.

    Args:
        home: as it stands now.
        champions: another history of models than the home's.
    """
    fingerprints = home.fingerprints_with(champions) if champions else home.fingerprints
    champions, snapshots = champions or home.champions, home.calendar.snapshot_keys
    keys_of = dict.fromkeys(INGESTED, home.calendar.period_keys)
    keys_of |= dict.fromkeys(("customer_features", *TRAINED), snapshots)
    keys_of |= dict.fromkeys(("scaled_features", *SEGMENTED), champions.segmented(snapshots))
    stale = {name: list(fingerprints.stale([name], keys)) for name, keys in keys_of.items()}
    return {name: keys for name, keys in stale.items() if keys}


def window_made(home: OpenHome, key: str) -> Window:
    """The window that the segments of a snapshot were made of, which data that came since may have made longer."""
    made = home.tables.scan(SEGMENT_PROFILES, [key]).select("as_of").head(1).collect()
    return home.calendar.window(key, made.item() if made.height else None)


def first_training(home: OpenHome) -> str | None:
    """The snapshot on which a first model would be trained anew, with everything after it; ``None`` if on none."""
    champions = home.champions
    first = (key for key in home.calendar.snapshot_keys if champions.champion_before(key) is None)
    return next(iter(home.fingerprints.stale(TRAINED, first)), None)


def due_partitions(home: OpenHome) -> dict[str, list[str]]:
    """What is out of date, and what will be once a first model is trained anew: all that hangs on it."""
    key = first_training(home)
    return stale_partitions(home, home.champions.trained_anew(key) if key else None)


def changes_of_training(base: Settings, other: Settings) -> list[SettingChange]:
    """The settings of another configuration each of which alone has a first model trained anew.

    Args:
        base: with which no first model is out of date.
        other: the other configuration.
    """
    return [
        change
        for change in compare_settings(base, other)
        if first_training(OpenHome(with_setting_of(base, other, change.path)))
    ]


def why_other_model(home: OpenHome, before: Promotions) -> str | None:
    """That a run has put a model in the place of the one in force, and why; ``None`` where it has not.

    Args:
        home: after the run.
        before: the promotions that there were, oldest first.
    """
    if not before or before[-1] in home.champions.promotions:
        return None
    settings = settings_before(home.paths) or home.settings
    # Seen from the settings in force, those from before are the others.
    back = changes_of_training(home.settings, settings) or [
        change for change in compare_settings(home.settings, settings) if change.path[0] == "source"
    ]
    why = ", ".join(str(replace(change, before=change.now, now=change.before)) for change in back)
    return f"another one than {before[-1][1]} before, because {why or 'what it was trained on'} has changed"


def causes_of_stale(home: OpenHome, stale: Stale, before: Settings | None) -> list[str]:
    """Why partitions are out of date, one cause in a sentence each; what only follows from another has none of its own.

    Args:
        home: as it stands now.
        stale: from ``stale_partitions``.
        before: the settings that the partitions were made with, where they are others.
    """
    changes = compare_settings(before, home.settings) if before else ()
    undone = [(change, _home_with(home, before, change)) for change in changes] if before else []
    found: dict[str, None] = {}
    for name, keys in stale.items():
        for cause in _causes_of(home, name, keys, undone):
            found[cause] = None
    return list(found)


def _home_with(home: OpenHome, before: Settings, change: SettingChange) -> OpenHome:
    return OpenHome(with_setting_of(home.settings, before, change.path))


def _causes_of(
    home: OpenHome, name: str, keys: Sequence[str], undone: Sequence[tuple[SettingChange, OpenHome]]
) -> Iterator[str]:
    fingerprints, stored = home.fingerprints, home.tables.fingerprint_of
    made = [key for key in keys if stored(name, key) is not None]
    if missing := [key for key in keys if key not in made]:
        yield f"{name} of {_some(missing)} is not made yet, or not to the end"
    explained: set[str] = set()
    for change, other in undone:
        depends = {
            key for key in made if fingerprints.settings_of(name, key) != other.fingerprints.settings_of(name, key)
        }
        if depends:
            explained |= depends
            yield f"a setting has changed, {change}"
    # Where it would be made from the same as it was, only what it reads is out of date, which has a cause of its own.
    rest = [key for key in made if key not in explained and fingerprints.compute(name, key) != stored(name, key)]
    updated = [key for key in rest if _is_of_earlier_version(home, name, key)]
    if updated:
        yield f"this version of custseg makes {name} in another way than the one that made it"
    others = [key for key in rest if key not in updated]
    if others and name == "raw_transactions":
        yield f"data: other lines are there of {_some(others)}"
    elif others:
        yield f"{name} of {_some(others)}: what it is made from, the model in force or how it is made has changed since"


def _is_of_earlier_version(home: OpenHome, name: str, key: str) -> bool:
    present = tables(home.settings.model.features)[name].code_version
    made_from = home.tables.fingerprint_of(name, key)
    return any(
        home.fingerprints.compute(name, key, code_version=str(earlier)) == made_from
        for earlier in range(1, int(present))
    )


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _N_KEYS:,} more" if len(keys) > _N_KEYS else ""
    return f"{', '.join(keys[:_N_KEYS])}{more}"
