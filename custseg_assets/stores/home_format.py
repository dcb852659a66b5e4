"""The format of a home: one number in a file of it, which every command reads before anything else.

A release, a table and a file of keys have formats of their own; this one is of how they lie in the home together, and
of its files of state. It is raised when a version of custseg would misread what an earlier one has written.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from custseg_assets.errors import BadInputError, DamagedHomeError
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home

FORMAT = 1
"""What this version reads and writes."""
END_OF_SETTINGS = "# The end of the settings."
"""The last line of a home's own settings, by which a file that was cut is known."""


@dataclass(frozen=True)
class Upgrade:
    """How a home becomes one of the next format.

    Attributes:
        lacks: what homes of the format lack, in words.
        upgrade: makes that, such that doing it again after a kill changes nothing more.
    """

    lacks: str
    upgrade: Callable[[Home], None]


def _record_landed_files(home: Home) -> None:
    """Write down what is read as homes do that files can land in."""
    path = home.deliveries / "current.json"
    fields = read_state(path, "deliveries", "description") or {}
    names = {one: (read_state(home.deliveries / f"{one}.json", "name") or {})["name"] for one in fields["deliveries"]}
    source = [{"id": one, "name": name} for one, name in names.items()]
    write_state(path, {"description": fields["description"], "source": source, "landed": []})


UPGRADES: Mapping[int, Upgrade] = {
    0: Upgrade("a record of which files landed in it; its source stays what it was", _record_landed_files)
}
"""What homes of each earlier format lack, and what is done about it."""


def read_format(home: Home) -> int:
    """The format of a home; that of this version where it has none, as one that is yet to be made.

    Raises:
        DamagedHomeError: the file that says it cannot be read.
    """
    if fields := read_state(home.format, "format"):
        if not isinstance(fields["format"], int):
            raise DamagedHomeError(home.format, f"its format is {fields['format']!r}")
        return fields["format"]
    return 0 if _is_before_landing(home) else FORMAT


def write_format(home: Home) -> None:
    """Record that a home is of this version's format."""
    if not home.format.exists():
        write_state(home.format, {"format": FORMAT})


def require_format(home: Home) -> None:
    """Refuse a home of another format than this version's.

    Raises:
        BadInputError: it is of a later or of an earlier format.
        DamagedHomeError: its format cannot be read.
    """
    found = read_format(home)
    if found > FORMAT:
        raise BadInputError(
            f"home {home.root} of format {found}",
            f"format {FORMAT} or earlier",
            "A later version of custseg has written it: upgrade custseg, or name another home with CUSTSEG_HOME.",
        )
    if found < FORMAT:
        todo = "Do 'custseg run', which upgrades it." if found in UPGRADES else "Begin another with CUSTSEG_HOME."
        raise BadInputError(f"home {home.root} of format {found}", f"format {FORMAT}", todo)


def enter(home: Home, say: Callable[[str], None]) -> None:
    """What every command does before anything else: refuse, or upgrade, a home of another format; look at its state.

    Args:
        home: it need not be made yet.
        say: takes each line about what is upgraded.

    Raises:
        BadInputError: its format is later, or so early that nothing can be done; or a run is using it.
        DamagedHomeError: what says how everything else is to be read is lost, cut or garbled.
    """
    while (found := read_format(home)) in UPGRADES:
        with home.locked():
            UPGRADES[found].upgrade(home)
            write_state(home.format, {"format": found + 1})
        say(f"home {home.root} is of format {found + 1} now; format {found} lacked {UPGRADES[found].lacks}")
    require_format(home)
    _require_record_of_source(home)
    require_whole_settings(home)


def require_whole_settings(home: Home) -> None:
    """Refuse a home whose own settings were emptied, cut or garbled: what is left of them would be taken for all.

    Raises:
        DamagedHomeError: they were.
    """
    try:
        text = home.settings.read_text(encoding="utf-8")
        tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DamagedHomeError(home.settings, f"no TOML: {error}") from None
    if not text.strip():
        raise DamagedHomeError(home.settings, "it is empty")
    # Earlier versions wrote neither the format nor the last line.
    if home.format.exists() and END_OF_SETTINGS not in text.splitlines():
        raise DamagedHomeError(
            home.settings,
            f"the line {END_OF_SETTINGS!r} is not at its end, so it was cut",
            "If nothing of it is missing, put that line there; else 'custseg verify --mend' sets the file aside.",
        )


def _require_record_of_source(home: Home) -> None:
    """Refuse a home that has tables but does not say of what: it would be taken for one to be filled with the demo."""
    path, table = home.deliveries / "current.json", "raw_transactions"
    if not path.exists() and ((home.tables / table).exists() or (home.notes / table).exists()):
        raise DamagedHomeError(path, "it is gone, although there are tables")


def _is_before_landing(home: Home) -> bool:
    try:
        fields = json.loads((home.deliveries / "current.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and "deliveries" in fields and "landed" not in fields
