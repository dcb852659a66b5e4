"""What commands do where the configuration that was given is another than the home's own: show it, and ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

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
from custseg_assets.home.staleness import stale_partitions
from custseg_assets.settings import DEMO
from custseg_assets.stores.landing_zone import Waiting
from custseg_assets.stores.sources import Progress

_N_SHOWN = 20


def require_wanted_settings(home: OpenHome, say: Progress, *, takes_others: bool, replaces: bool = False) -> None:
    """Refuse settings that are not the home's own before anything is written, unless somebody wants them.

    Args:
        home: with the settings that were given.
        say: takes each line about the differences.
        takes_others: whether ``--reconfigure`` was given.
        replaces: whether ``--replace`` was given, after which nothing of the home is left that has other settings.

    Raises:
        BadInputError: they differ and nobody wants them, or nobody could be asked.
    """
    changes = changed_settings(home)
    if not changes or takes_others or replaces or _starts_afresh(home):
        return
    require_same_settings(home.settings)
    for line in _describe(home, changes):
        say(line)
    if sys.stdin.isatty() and _ask():
        return
    raise BadInputError(
        f"home {home.paths.root} has other settings: {changes[0]}"
        + (f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""),
        f"its own, which are in {home.paths.settings}",
        "Leave the other configuration out, or give --reconfigure to take it from now on; nothing was changed.",
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


def _describe(home: OpenHome, changes: Sequence[SettingChange]) -> Iterator[str]:
    yield f"home {home.paths.root} has other settings than were given now:"
    yield from (f"  {change}" for change in changes[:_N_SHOWN])
    if len(changes) > _N_SHOWN:
        yield f"  and {len(changes) - _N_SHOWN:,} more"
    own = own_settings(home.paths)
    as_it_is = stale_partitions(OpenHome(own)) if own else {}
    stale = stale_partitions(home)
    more = {name: len({*keys} - {*as_it_is.get(name, ())}) for name, keys in stale.items()}
    made_again = ", ".join(f"{name} ({n:,})" for name, n in more.items() if n)
    if any(change.path[0] == "source" for change in changes):
        yield "  with them the source is read again, and all that then differs is made again"
    yield f"  with them out of date: {made_again or 'no table'}"


def _ask() -> bool:
    sys.stderr.write("Take these settings from now on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
