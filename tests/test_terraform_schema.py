"""deploy/terraform against the schema of Google's provider, as the bindings ``cdktf-cdktf-provider-google`` have it.

They are 47 MB, so they are in no lock: ``uv pip install --no-deps cdktf-cdktf-provider-google`` runs this.
"""

from __future__ import annotations

import importlib.util
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.terraform import resources

pytest.importorskip("hcl2", reason="python-hcl2 is not installed here")

_OF_TERRAFORM = {"depends_on", "for_each", "count", "lifecycle", "provider"}


@pytest.fixture(scope="module")
def types() -> dict[str, Any]:
    """Types of the provider, by full name."""
    found = importlib.util.find_spec("cdktf_cdktf_provider_google")
    if found is None or found.origin is None:
        pytest.skip("cdktf-cdktf-provider-google is not installed here")
    [archive] = Path(found.origin).parent.glob("_jsii/*.jsii.tgz")
    with tarfile.open(archive) as files:
        member = files.extractfile("package/.jsii")
        assert member is not None
        known: dict[str, Any] = json.load(member)["types"]
    return known


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def faults(where: str, body: Mapping[str, Any], kind: str, types: Mapping[str, Any]) -> Iterator[str]:
    """What the provider does not know in a block, and what it misses there."""
    properties = {one["name"]: one for one in properties_of(kind, types)}
    given = {camel(name): value for name, value in body.items() if name not in _OF_TERRAFORM}
    # A block that is made for each item of a list has its content one step further down.
    given |= {camel(name): block["content"] for one in body.get("dynamic", []) for name, block in one.items()}
    given.pop("dynamic", None)
    yield from (f"{where}.{name} is unknown" for name in given.keys() - properties.keys())
    needed = {name for name, one in properties.items() if not one.get("optional")}
    yield from (f"{where}.{name} is missing" for name in needed - given.keys())
    for name in given.keys() & properties.keys():
        block = block_of(properties[name]["type"], types)
        for item in given[name] if isinstance(given[name], list) else [given[name]]:
            if block and isinstance(item, dict):
                yield from faults(f"{where}.{name}", item, block, types)


def properties_of(kind: str, types: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from types[kind].get("properties", [])


def block_of(given: Mapping[str, Any], types: Mapping[str, Any]) -> str | None:
    """Full name of the nested block that a property takes, if it takes one."""
    if "fqn" in given:
        return given["fqn"] if given["fqn"] in types else None
    inner = [given["collection"]["elementtype"]] if "collection" in given else given.get("union", {}).get("types", [])
    return next((found for one in inner if (found := block_of(one, types))), None)


def kind_of(address: str) -> str:
    name = camel(address.partition(".")[0].removeprefix("google_"))
    return f"@cdktf/provider-google.{name}.{name[0].upper()}{name[1:]}Config"


def test_every_resource_is_one_that_the_provider_takes(types: Mapping[str, Any]) -> None:
    made = resources()
    assert len(made) > 40
    found = [fault for address, body in made.items() for fault in faults(address, body, kind_of(address), types)]
    assert found == []


def test_a_wrong_name_and_a_missing_one_are_noticed(types: Mapping[str, Any]) -> None:
    address = "google_storage_bucket.home"
    body = {**resources()[address], "lifecycle_rule": [{"condition": [{"aged": 3}]}]}
    del body["location"]
    assert sorted(faults(address, body, kind_of(address), types)) == [
        f"{address}.lifecycleRule.action is missing",
        f"{address}.lifecycleRule.condition.aged is unknown",
        f"{address}.location is missing",
    ]
