"""Values as TOML writes them, for configurations that people read and change. Reading them is in ``settings``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def toml_tables(tables: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """The lines of nested tables, those that have nothing left out.

    >>> print(*toml_tables({"model": {"seed": 1}, "gcp": {"serving": {"n_replicas": 2}}}), sep="|")
    [model]|seed = 1||[gcp.serving]|n_replicas = 2|
    """
    values = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    if values:
        yield from (
            *([f"[{name}]"] if name else []),
            *(f"{toml_key(key)} = {toml_value(values[key])}" for key in values),
        )
        yield ""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from toml_tables(value, f"{name}.{toml_key(key)}" if name else toml_key(key))


def toml_key(name: str) -> str:
    """A key, in quotes where it has to be."""
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else toml_value(name)


def toml_value(value: Any) -> str:
    """A value; text is as in JSON, which leaves only one control character as it is."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(key)} = {toml_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def absolute_path(path: str) -> str:
    """A path from the root, without ``..``; links are followed only where it has that, and then must be."""
    expanded = Path(path).expanduser()
    return str(expanded.resolve() if ".." in expanded.parts else expanded.absolute())
