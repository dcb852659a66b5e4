"""The home's own settings: what was configured when it was last written to, kept in it for every later command.

They are in ``<home>/custseg.toml``, which people may read. Secrets come from the environment and are never written.
What a home can never change is in ``fixed_settings``; whether a change is wanted is asked in ``commands``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from custseg_assets.errors import BadInputError
from custseg_assets.settings import DEMO, FROM_ENVIRONMENT, Settings, load_settings
from custseg_assets.stores.files import replace_text
from custseg_assets.stores.home import Home
from custseg_assets.stores.home_format import END_OF_SETTINGS, write_format
from custseg_assets.stores.sql_addresses import FILE_SCHEMES, is_address, parse_address
from custseg_assets.stores.toml_text import absolute_path, toml_key, toml_tables, toml_value

_HEADER = """\
# The settings of this home: every command uses them where no other configuration is named.
# custseg writes this file when a run takes settings; 'custseg run --config FILE --reconfigure' takes others.

"""
_SOURCE_PATH = ("source", "path")
"""Which source a home reads is no setting that one asks about: a source continues the home's, or replaces it."""
_OF_NO_TABLE = ("engine", "versions")
"""Where work is done, and what is exported, makes no difference to any table, so nobody is asked about that either."""


@dataclass(frozen=True)
class SettingChange:
    """A setting that differs between two configurations.

    Attributes:
        path: sections and key.
        before: its value, as JSON has it.
        now: its other value.
    """

    path: tuple[str, ...]
    before: Any
    now: Any

    @property
    def name(self) -> str:
        """The setting as people write it, such as ``[model] k_range``."""
        *sections, key = map(toml_key, self.path)
        return f"[{'.'.join(sections)}] {key}"

    def __str__(self) -> str:
        return f"{self.name}: {_in_words(self.before)} → {_in_words(self.now)}"


def own_settings(paths: Home) -> Settings | None:
    """The settings that a home keeps; ``None`` where it has none yet, as one that an earlier version filled.

    Raises:
        BadInputError: this version cannot use them.
    """
    return _read(paths, before=False)


def settings_before(paths: Home) -> Settings | None:
    """The settings that a home was last up to date with, where they were others."""
    return _read(paths, before=True)


def require_own_settings(settings: Settings, file: Path | None = None) -> Settings:
    """Refuse settings that are not the home's own, where nobody can be asked; returns them.

    Args:
        settings: that were given.
        file: that they were read from.

    Raises:
        BadInputError: they differ.
    """
    paths = Home(settings.home)
    own = own_settings(paths)
    if own and (changes := compare_settings(own, settings)):
        raise BadInputError(
            f"home {paths.root} has other settings than {file or 'were given'}: {', '.join(map(str, changes))}",
            f"its own, which are in {paths.settings}",
            "Take the others with 'custseg ui --reconfigure' or 'custseg run --reconfigure', or leave them out: move "
            "that file away, or name another with CUSTSEG_CONFIG.",
        )
    return settings


def _read(paths: Home, *, before: bool) -> Settings | None:
    file = paths.settings_before if before else paths.settings
    return load_settings(file, home=paths.root) if file.exists() else None


def keep_settings(settings: Settings, source: str | None) -> None:
    """Make these the settings of their home; those it was up to date with stay beside them until it is so again.

    Args:
        settings: the new ones.
        source: what the home reads, if it is not only its landing folder.
    """
    paths = Home(settings.home)
    text = _HEADER + "\n".join([*toml_tables(_configured(settings, source)), f"{END_OF_SETTINGS}\n"])
    now = paths.settings.read_text(encoding="utf-8") if paths.settings.exists() else None
    if text != now:
        own = own_settings(paths)
        if now and own and compare_settings(own, settings) and not paths.settings_before.exists():
            replace_text(paths.settings_before, now, is_durable=True)
        replace_text(paths.settings, text, is_durable=True)
    # After the settings, whose last line a home of this format must have.
    write_format(paths)


def compare_settings(before: Settings, now: Settings) -> tuple[SettingChange, ...]:
    """The settings in which two configurations differ in what they make, in the order of their sections."""
    was, is_now = _flat(before), _flat(now)
    paths = dict.fromkeys([*was, *is_now])
    return tuple(
        SettingChange(path, was.get(path), is_now.get(path))
        for path in paths
        if was.get(path) != is_now.get(path) and path != _SOURCE_PATH and path[0] not in _OF_NO_TABLE
    )


def with_setting_of(settings: Settings, other: Settings, path: tuple[str, ...]) -> Settings:
    """The same settings, but one of them as another configuration has it."""
    changed: Settings = _with_field_of(settings, other, path)
    return changed


def absolute_source(source: str) -> str:
    """A source such that it is the same from every folder.

    Raises:
        BadInputError: it is the address of a database file that is not there.
    """
    if is_address(source) and source.lower().startswith(FILE_SCHEMES):
        address, (_, mark, options) = parse_address(source), source.partition("?")
        # Four slashes: an absolute path, whatever is in the working folder.
        return f"{address.scheme}:///{quote(address.database)}{mark}{options}"
    return source if source == DEMO or "://" in source else absolute_path(source)


def _with_field_of(section: Any, other: Any, path: tuple[str, ...]) -> Any:
    name, *rest = path
    value = getattr(other, name)
    if rest and (isinstance(value, BaseModel) or is_dataclass(value)):
        value = _with_field_of(getattr(section, name), value, tuple(rest))
    if isinstance(section, BaseModel):
        return section.model_copy(update={name: value})
    return replace(section, **{name: value})


def _flat(settings: Settings) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping):
            for key, one in value.items():
                walk(one, (*path, key))
        else:
            flat[path] = value

    walk(settings.model_dump(mode="json", exclude={*FROM_ENVIRONMENT}), ())
    return flat


def _configured(settings: Settings, source: str | None) -> dict[str, Any]:
    """What was configured, and not what is so by default, as nested tables."""
    tables: dict[str, Any] = _explicit(settings, Settings())
    for name in FROM_ENVIRONMENT:
        tables.pop(name, None)
    own = {name: value for name, value in tables.get("source", {}).items() if name != "path"}
    # The demo is no source that anybody asked to keep: it goes as soon as own files land.
    path = {"path": source} if source and source != DEMO else {}
    return {"source": {**path, **own}, **_without(tables, "source")}


def _explicit(value: Any, default: Any) -> Any:
    """A section's keys that were given; of one without a record of that, those that differ from the defaults."""
    if isinstance(value, BaseModel):
        named = [name for name in type(value).model_fields if name in value.model_fields_set]
        given = {name: _explicit(getattr(value, name), getattr(default, name, None)) for name in named}
        return {name: one for name, one in given.items() if one is not None}
    if is_dataclass(value) and type(value) is type(default):
        fields = {name: (getattr(value, name), getattr(default, name)) for name in vars(value)}
        return {name: _explicit(*both) for name, both in fields.items() if both[0] != both[1]}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: one for name, one in asdict(value).items() if one}
    if isinstance(value, Mapping):
        return {name: _explicit(one, None) for name, one in value.items()}
    return value if value is None or isinstance(value, bool | int | float | list | tuple) else str(value)


def _without(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tables.items() if key != name}


def _in_words(value: Any) -> str:
    return "not set" if value is None else toml_value(value)
