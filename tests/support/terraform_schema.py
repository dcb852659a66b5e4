"""What Google's provider takes: names of arguments of the resources that deploy/terraform makes, in one small file.

They come from the bindings ``cdktf-cdktf-provider-google``, which are 47 MB and in no lock. Where a resource of another
kind is needed, or another version of the provider, make the file anew::

    uv pip install --no-deps --target BINDINGS cdktf-cdktf-provider-google==16.12.1
    python -m tests.support.terraform_schema BINDINGS
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.files import REPOSITORY
from tests.support.terraform import resources

SCHEMA = REPOSITORY / "tests" / "data" / "terraform_schema.json"

Schema = Mapping[str, Mapping[str, str]]
"""Kind of a resource or block → argument → ``needed`` or ``optional``, then the kind of block that it takes, if any."""

_OF_TERRAFORM = {"depends_on", "for_each", "count", "lifecycle", "provider"}


def read_schema() -> Schema:
    """The committed file."""
    schema: Schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return schema


def find_faults(where: str, body: Mapping[str, Any], kind: str, schema: Schema) -> Iterator[str]:
    """What the provider does not know in a resource or block, and what it misses there."""
    if kind not in schema:
        yield f"{where}: {kind} is not in {SCHEMA.name}; make it anew"
        return
    known = schema[kind]
    given = {_camel(name): value for name, value in body.items() if name not in _OF_TERRAFORM}
    # A block that is made for each item of a list has its content one step further down.
    given |= {_camel(name): block["content"] for one in body.get("dynamic", []) for name, block in one.items()}
    given.pop("dynamic", None)
    yield from (f"{where}.{name} is unknown" for name in given.keys() - known.keys())
    yield from (
        f"{where}.{name} is missing" for name in known.keys() - given.keys() if known[name].startswith("needed")
    )
    for name in given.keys() & known.keys():
        block = known[name].partition(" ")[2]
        for item in given[name] if isinstance(given[name], list) else [given[name]]:
            if block and isinstance(item, dict):
                yield from find_faults(f"{where}.{name}", item, block, schema)


def kind_of(address: str) -> str:
    """Kind of a resource, such as ``StorageBucket``, from its address ``google_storage_bucket.home``."""
    name = _camel(address.partition(".")[0].removeprefix("google_"))
    return f"{name[0].upper()}{name[1:]}"


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def _extract(bindings: Path) -> dict[str, dict[str, str]]:
    [archive] = bindings.glob("cdktf_cdktf_provider_google/_jsii/*.jsii.tgz")
    with tarfile.open(archive) as files:
        member = files.extractfile("package/.jsii")
        assert member is not None
        types: dict[str, Any] = json.load(member)["types"]
    named = {kind_of(address): _full_name(address) for address in resources()}
    found: dict[str, dict[str, str]] = {}
    while named:
        kind, full = named.popitem()
        found[kind] = {}
        for one in types[full].get("properties", []):
            block = _block_of(one["type"], types) or ""
            found[kind][one["name"]] = f"{'optional' if one.get('optional') else 'needed'} {_short(block)}".strip()
            if block and _short(block) not in found:
                named[_short(block)] = block
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def _full_name(address: str) -> str:
    kind = kind_of(address)
    return f"@cdktf/provider-google.{kind[0].lower()}{kind[1:]}.{kind}Config"


def _short(full: str) -> str:
    return full.rpartition(".")[2]


def _block_of(given: Mapping[str, Any], types: Mapping[str, Any]) -> str | None:
    """Full name of the nested block that an argument takes, if it takes one."""
    if "fqn" in given:
        return str(given["fqn"]) if given["fqn"] in types else None
    inner = [given["collection"]["elementtype"]] if "collection" in given else given.get("union", {}).get("types", [])
    return next((found for one in inner if (found := _block_of(one, types))), None)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(_extract(Path(sys.argv[1])), indent=1) + "\n", encoding="utf-8")
