"""What commands do where the configuration that was given is another than the home's own: show it, and ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from custseg_assets.errors import BadInputError
from custseg_assets.home.fixed_settings import require_same_settings
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.own_settings import (
    SettingChange,
    absolute_source,
    compare_settings,
    keep_settings,
    own_settings,
)
from custseg_assets.home.staleness import changes_of_training, due_partitions, first_training
from custseg_assets.settings import CONFIG_VARIABLE, DEFAULT_CONFIG, DEMO, Settings
from custseg_assets.stores.landing_zone import Waiting
from custseg_assets.stores.sources import Progress

_N_SHOWN = 20


def require_wanted_settings(
    home: OpenHome, say: Progress, file: Path | None = None, *, takes_others: bool, replaces: bool = False
) -> None:
    """Refuse settings that are not the home's own before anything is written, unless somebody wants them.

    Args:
        home: with the settings that were given.
        say: takes each line about the differences.
        file: that the settings were read from.
        takes_others: whether ``--reconfigure`` was given.
        replaces: whether ``--replace`` was given, after which nothing of the home is left that has other settings.

    Raises:
        BadInputError: they differ and nobody wants them, or nobody could be asked.
    """
    if replaces or _starts_afresh(home):
        return
    changes = changed_settings(home)
    if not changes or takes_others:
        _say_other_path(home, say)
        return
    require_same_settings(home.settings)
    given = str(file.absolute()) if file else "the configuration that was given"
    for line in _describe(home, changes, given):
        say(line)
    if sys.stdin.isatty() and _ask():
        return
    raise BadInputError(
        f"home {home.paths.root} has other settings than {given}: {changes[0]}"
        + (f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""),
        f"its own, which are in {home.paths.settings}",
        f"Give --reconfigure to take it from now on, or leave it out: {_way_out(file)}; nothing was changed.",
    )


def adopt_settings(home: LockedHome) -> None:
    """Make the settings of a command that takes no data in the home's own."""
    current = home.deliveries.current()
    keep_settings(home.settings, absolute_source(current.description) if current and current.description else None)


def changed_settings(home: OpenHome) -> Sequence[SettingChange]:
    """How the settings that were given differ from the home's own; nothing where it has no data, or none yet."""
    own = own_settings(home.paths)
    return compare_settings(own, home.settings) if own and home.deliveries.current() else ()


def _starts_afresh(home: OpenHome) -> bool:
    """Whether the home is the demo's and is about to become somebody's own."""
    source = home.settings.source.path
    has_own = source is not None or home.landing_zone.waiting(time.time(), 0) != Waiting()
    return home.is_demo and source != DEMO and has_own


def _way_out(file: Path | None) -> str:
    """How a configuration is left out: a file in the working folder is read without being named."""
    if file is not None and file.absolute() == Path(DEFAULT_CONFIG).absolute():
        return "move it away, or name another with --config"
    return f"name another with --config, or none (and no {CONFIG_VARIABLE})"


def _describe(home: OpenHome, changes: Sequence[SettingChange], given: str) -> Iterator[str]:
    yield f"home {home.paths.root} has other settings than {given}:"
    yield from (f"  {change}" for change in changes[:_N_SHOWN])
    if len(changes) > _N_SHOWN:
        yield f"  and {len(changes) - _N_SHOWN:,} more"
    own = own_settings(home.paths) or home.settings
    as_it_is = due_partitions(OpenHome(own))
    more = {name: len({*keys} - {*as_it_is.get(name, ())}) for name, keys in due_partitions(home).items()}
    made_again = ", ".join(f"{name} ({n:,})" for name, n in more.items() if n)
    other_path = _other_path(own, home.settings)
    if other_path:
        yield f"  {other_path}"
    if other_path or any(change.path[0] == "source" for change in changes):
        yield "  with them the source is read again, and all that then differs is made again,"
        yield "  the model as well where what it was trained on differs"
    yield f"  with them out of date: {made_again or 'no table'}"
    yield from _describe_training(home, own)


def _say_other_path(home: OpenHome, say: Progress) -> None:
    own = own_settings(home.paths)
    if own and home.deliveries.current() and not home.is_demo and (other := _other_path(own, home.settings)):
        say(f"{other}: what differs is made again, the model as well where what it was trained on differs")


def _other_path(own: Settings, given: Settings) -> str | None:
    """That another source is named, in words."""
    was, is_now = (one.source.path and absolute_source(one.source.path) for one in (own, given))
    return str(SettingChange(("source", "path"), was, is_now)) if is_now not in (None, was) else None


def _describe_training(home: OpenHome, own: Settings) -> Iterator[str]:
    """Which models would be trained anew with the settings that were given, and how to keep them."""
    key, promotions = first_training(home), home.champions.promotions
    lost = [one for one in promotions if key and one not in home.champions.trained_anew(key).promotions]
    if not lost:
        return
    is_in_force = lost[-1] == promotions[-1]
    model = f"the model in force, {lost[-1][1]}," if is_in_force else f"the first model, {lost[0][1]},"
    keys = ", ".join(change.name for change in changes_of_training(own, home.settings)) or "all"
    yield f"  {model} would be trained anew on {key}, so segments and their names may change,"
    yield f"  and a snapshot for which no model is found loses them; to keep it, leave {keys} as it is"


def _ask() -> bool:
    sys.stderr.write("Take these settings from now on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
