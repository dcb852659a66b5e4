"""Google's discovery documents, which say what its services take: every request to a fake is held against them.

They come with google-api-python-client; where that is not installed nothing is checked.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# Of uploads, of every request, and one that Google's client of BigQuery sends although nothing documents it.
_ALWAYS = {"uploadType", "upload_id", "alt", "$alt", "fields", "prettyPrint", "projection"}
_KINDS = {"string": str, "boolean": bool, "object": dict, "array": list, "integer": (int, str), "number": (int, float)}


def find_faults(api: str, method: str, path: str, query: Mapping[str, str], body: bytes) -> list[str]:
    """What a service would not know of a request: its path, a parameter, a field or a value of its JSON body.

    Args:
        api: name and version of a document, such as ``storage.v1``.
        method: of HTTP.
        path: as it was sent, escaped.
        query: parameters.
        body: empty, JSON, or anything else, which is not looked at.
    """
    document = _document(api)
    if document is None:
        return []
    known = [one for verb, pattern, one in _methods(api) if verb == method and pattern.fullmatch(path)]
    if not known:
        return [f"{method} {path} is no request of {api}"]
    found = known[0]
    parameters = {*found.get("parameters", {}), *document["parameters"], *_ALWAYS}
    faults = [f"{found['id']} has no parameter {name}" for name in query if name not in parameters]
    try:
        content = json.loads(body) if body and "request" in found else {}
    except ValueError:
        content = {}
    if isinstance(content, dict) and content:
        faults += _body_faults(found["id"], content, document["schemas"][found["request"]["$ref"]], document["schemas"])
    return faults


def _body_faults(where: str, value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kind = _KINDS.get(str(schema.get("type")))
    if isinstance(value, int) and ("enum" in schema or schema.get("format") in {"int64", "uint64"}):
        # JSON of Protocol Buffers may have both as numbers.
        return
    if value is not None and kind and not isinstance(value, kind):
        yield f"{where} is {value!r}, expected {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}, expected one of {', '.join(schema['enum'])}"
    for inner, one, given in _inside(where, value, schema):
        if given is None:
            yield f"{inner} is no field"
        else:
            yield from _body_faults(inner, one, given, schemas)


def _inside(where: str, value: Any, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    """What a value consists of, with its schema; ``None`` for a field that has none."""
    if isinstance(value, list):
        yield from ((where, one, schema.get("items", {})) for one in value)
    elif isinstance(value, dict) and (schema.get("properties") or "additionalProperties" in schema):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        yield from ((f"{where}.{name}", one, known.get(name, others)) for name, one in value.items())


@lru_cache
def _document(api: str) -> dict[str, Any] | None:
    found = importlib.util.find_spec("googleapiclient")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "discovery_cache" / "documents" / f"{api}.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@lru_cache
def _methods(api: str) -> list[tuple[str, re.Pattern[str], dict[str, Any]]]:
    document = _document(api)
    assert document is not None
    return [
        (one["httpMethod"], _pattern(path), one) for one in _every_method(document) for path in _paths(one, document)
    ]


def _every_method(resource: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from resource.get("methods", {}).values()
    for one in resource.get("resources", {}).values():
        yield from _every_method(one)


def _paths(method: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    path = f"/{document['servicePath']}{method.get('flatPath', method['path'])}"
    yield path
    if method.get("useMediaDownloadService"):
        yield f"/download{path}"
    yield from (protocol["path"] for protocol in method.get("mediaUpload", {}).get("protocols", {}).values())


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\+?\w+\})", path)
    return re.compile("".join("[^/:]+" if part.startswith("{") else re.escape(unquote(part)) for part in parts))
