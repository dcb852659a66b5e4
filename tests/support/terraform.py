"""The Terraform files of the deployment, parsed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support.files import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "terraform"


def unquoted(value: Any) -> Any:
    """A parsed file as plain values: the parser leaves quotes on text and marks on blocks."""
    if isinstance(value, dict):
        return {unquoted(key): unquoted(item) for key, item in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    return value.strip('"') if isinstance(value, str) else value


def parsed() -> Iterator[tuple[str, dict[str, Any]]]:
    import hcl2

    for path in sorted(FOLDER.glob("*.tf")):
        with path.open() as file:
            yield path.name, unquoted(hcl2.load(file))


def blocks(kind: str) -> list[dict[str, Any]]:
    return [block for _, content in parsed() for block in content.get(kind, [])]


def resources() -> dict[str, dict[str, Any]]:
    return {
        f"{kind}.{name}": body
        for block in blocks("resource")
        for kind, named in block.items()
        for name, body in named.items()
    }
