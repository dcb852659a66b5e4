"""Write ``settings.md`` from the types, bounds and descriptions of the settings; ``make docs`` runs this.

A key's description is its entry in the ``Attributes:`` block of its section's docstring.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from custseg_assets.domain.schemas import MAPPED_NAMES, READ_NAMES, SCALABLE_FEATURES
from custseg_assets.domain.transactions.log_facts import Code
from custseg_assets.settings import CONFIG_VARIABLE, FROM_ENVIRONMENT, SOURCE_VARIABLE, Settings

PAGE = Path(__file__).with_name("settings.md")

_INTRODUCTION = """\
# Settings

Made by `make docs` from `custseg_assets/settings.py` and the classes it names; change those, not this page.

Settings are read from the file that `--config` or `CUSTSEG_CONFIG` names, from `custseg.toml` in the working folder,
or else from the home's own. Every key is optional. The command line wins over the environment, the environment over
the file, and the file over the defaults. Unknown keys and impossible values are refused, with what is accepted. A
default of – means not set.

## A home keeps its settings

What a run was configured with is kept in `<home>/custseg.toml`, source included, with paths from the root: every later
command, and everything that `custseg ui` starts, uses it from any folder, without a configuration. Passwords and the
webhook are in the environment only, and never written.

Where other settings are given, `run`, `ui`, `retrain`, `promote` and `rollback` show each difference and what would be
made again, and ask; where nobody can be asked they refuse with exit code 2. `--reconfigure` takes the new ones without
a question. A configuration counts as a whole: a key that it leaves out is as by default. The same settings in other
words are no difference, and neither is another source, which continues the home's or [replaces
it](data.md#another-source). Commands that only look take what they are given and say so. `custseg status` names the
settings in force, what is stale, and because of which setting, data or version.
"""
_PIPELINE_VARIABLES = {
    CONFIG_VARIABLE: "the file to read instead of ``custseg.toml`` or the home's own; ``--config`` wins over it.",
    SOURCE_VARIABLE: "wins over ``path`` in ``[source]``; ``--source`` wins over it.",
}
_SERVICE_VARIABLES = {
    "CUSTSEG_HOME": "folder that the pipeline writes to; ``--home`` wins over it.",
    "CUSTSEG_FOLLOW": "``gs://bucket/prefix`` that releases are brought from; ``--follow`` wins over it.",
    "CUSTSEG_KEYS": "file of the API keys; it has to be there. ``keys.json`` in the home without it.",
    "CUSTSEG_PUBLIC_KEY": "file of the key that releases have to be signed with; ``--require-signature`` wins over it.",
    "AIP_HTTP_PORT": "port to listen on, on all addresses; Vertex AI sets it in a prediction container.",
    "AIP_HEALTH_ROUTE": "route that answers Vertex AI's health checks; read with ``AIP_HTTP_PORT`` only.",
    "AIP_PREDICT_ROUTE": "route that answers Vertex AI's predictions; read with ``AIP_HTTP_PORT`` only.",
    "AIP_STORAGE_URI": "folder on Cloud Storage with the one release to serve; read with ``AIP_HTTP_PORT`` only.",
}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_LISTS = {"string": "list of text", "integer": "list of whole numbers"}
_FORMATS = {"date": "date", "path": "path"}
# What validators check is not in the schema.
_VALIDATED = {
    "source.columns": f"keys among {', '.join(f'`{name}`' for name in (*MAPPED_NAMES, *READ_NAMES))}",
    "source.accepted_doubts": f"among {', '.join(f'`{code}`' for code in get_args(Code))}",
    "snapshots.lookback": "from 1",
    "model.features": f"different ones of {', '.join(f'`{name}`' for name in SCALABLE_FEATURES)}",
    "model.k_range": "2 to 30",
}


def make_page() -> str:
    """The page of all settings, as Markdown."""
    schema = Settings.model_json_schema()
    meanings, fields = parse_attributes(schema["description"]), schema["properties"]
    check_descriptions("Settings", {name: fields[name] for name in FROM_ENVIRONMENT}, meanings)
    own = {
        FROM_ENVIRONMENT[name]: f"{meanings[name]} Default: {_default(fields[name]['default'])}." for name in meanings
    }
    return "\n".join(
        [
            _INTRODUCTION,
            *_sections(fields, schema["$defs"]),
            "## Environment of the pipeline\n",
            *_variables(own | _PIPELINE_VARIABLES),
            "## Environment of the service\n",
            "`custseg-serving` reads no file; `custseg-serving --help` lists its options.\n",
            *_variables(_SERVICE_VARIABLES),
        ]
    )


def parse_attributes(docstring: str) -> dict[str, str]:
    """Key → description of the ``Attributes:`` block of a docstring in Google's style."""
    found = re.search(r"^Attributes:\n((?:    .*\n?)+)", docstring, flags=re.MULTILINE)
    entries = re.split(r"^    (?=\S)", found[1] if found else "", flags=re.MULTILINE)[1:]
    pairs = (entry.split(":", maxsplit=1) for entry in entries)
    return {name: " ".join(text.split()) for name, text in pairs}


def _sections(properties: dict[str, Any], classes: dict[str, Any], above: str = "") -> Iterator[str]:
    """The lines of all sections, each before the sections in it."""
    for name, field in properties.items():
        if "$ref" not in field:
            continue
        section = classes[field["$ref"].rpartition("/")[2]]
        path = f"{above}{name}"
        meanings = parse_attributes(section["description"])
        introduction = field.get("description") or section["description"].partition("\n\n")[0]
        keys = {key: value for key, value in section["properties"].items() if "$ref" not in value}
        check_descriptions(f"[{path}]", keys, meanings)
        yield f"## [{path}]\n\n{_prose(introduction)}\n"
        if keys:
            yield "| key | type | bounds | default | meaning |\n|---|---|---|---|---|"
        for key, value in keys.items():
            default = field["default"].get(key, value.get("default"))
            bounds = _VALIDATED.get(f"{path}.{key}") or _bounds(value)
            yield f"| `{key}` | {_type(value)} | {bounds} | {_default(default)} | {_prose(meanings[key])} |"
        yield ""
        inner = {
            key: value | ({"description": meanings[key]} if key in meanings else {})
            for key, value in section["properties"].items()
        }
        yield from _sections(inner, classes, f"{path}.")


def check_descriptions(section: str, keys: dict[str, Any], meanings: dict[str, str]) -> None:
    """Refuse a key that its section's docstring does not describe.

    Raises:
        LookupError: there is one; it is named.
    """
    missing = [key for key in keys if not meanings.get(key)]
    if missing:
        raise LookupError(f"{section} does not describe {', '.join(missing)} under Attributes: in its docstring")


def _variables(described: dict[str, str]) -> Iterator[str]:
    yield "| variable | meaning |\n|---|---|"
    yield from (f"| `{name}` | {_prose(text)} |" for name, text in described.items())
    yield ""


def _alternatives(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in value.get("anyOf", [value]) if one.get("type") != "null"]


def _type(value: dict[str, Any]) -> str:
    return " or ".join(_type_of_one(one) for one in _alternatives(value))


def _type_of_one(value: dict[str, Any]) -> str:
    if "const" in value or "enum" in value:
        return " or ".join(f"`{json.dumps(one)}`" for one in value.get("enum", [value.get("const")]))
    if value["type"] == "object":
        return "table of text" if value["additionalProperties"].get("type") == "string" else "table"
    if value["type"] == "array":
        (first, *others) = value.get("prefixItems") or [value["items"]]
        return ", ".join([_LISTS[first["type"]], *([f"{len(others) + 1} of them"] if others else [])])
    return _FORMATS.get(value.get("format", ""), _TYPES[value["type"]])


def _bounds(value: dict[str, Any]) -> str:
    """The bounds of a value in words; nothing where it has none."""
    (one, *_) = _alternatives(value)
    low, high, above = one.get("minimum"), one.get("maximum"), one.get("exclusiveMinimum")
    words = []
    if low is not None and high is not None:
        words.append(f"{low:g} to {high:g}")
    elif low is not None:
        words.append(f"from {low:g}")
    if above is not None:
        words.append(f"above {above:g}" + (f" to {high:g}" if high is not None else ""))
    if "minLength" in one:
        words.append("one character" if one.get("maxLength") == 1 else "not empty")
    if "pattern" in one:
        words.append(f"`{one['pattern']}`")
    return ", ".join(words)


def _default(value: Any) -> str:
    if value is None:
        return "–"
    text = json.dumps(value)
    return f"`{value:.3f}…`" if isinstance(value, float) and len(text) > 8 else f"`{text}`"


def _prose(text: str) -> str:
    """A description as a sentence in Markdown."""
    plain = text.replace("``", "`").replace("|", r"\|")
    return plain[0].upper() + plain[1:]


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
