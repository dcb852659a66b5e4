"""Requests and answers of Google's newer services as messages of their API's own definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format

from tests.support.fakes.service import Answer, Refused, Request, answer_json


def invalid(message: str) -> Refused:
    """The refusal of a request that is not in order."""
    return Refused(400, "INVALID_ARGUMENT", message)


def parse(body: dict[str, Any], kind: Any) -> Any:
    """A request's body as a message; what the API's definitions do not know is refused."""
    try:
        return kind.wrap(json_format.ParseDict(body, kind.pb(kind())))
    except json_format.ParseError as error:
        raise invalid(f"Invalid JSON payload received. {error}") from None


def fields_of(message: Any) -> dict[str, Any]:
    """A message as JSON."""
    return json_format.MessageToDict(type(message).pb(message))


def answer_message(message: Any) -> Answer:
    """An answer with a message."""
    return answer_json(fields_of(message))


def answer_page(request: Request, name: str, found: Sequence[Any], longest: int) -> Answer:
    """An answer with one page of a list.

    Args:
        request: may have a page's size and token.
        name: of the list in the answer.
        found: all messages of the list.
        longest: messages on a page at most.
    """
    size = min(int(request.query.get("pageSize") or longest), longest)
    token = request.query.get("pageToken") or "0"
    if not token.isdigit():
        raise invalid("Invalid page token.")
    first, end = int(token), int(token) + size
    answer: dict[str, Any] = {name: [fields_of(message) for message in found[first:end]]}
    return answer_json({**answer, "nextPageToken": str(end)} if end < len(found) else answer)
