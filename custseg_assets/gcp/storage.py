"""Clients of Cloud Storage, and its errors as one sentence; what is done with them belongs in the modules that use it.

The service and the trainer's container import this with Google's storage client and nothing else.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.cloud import storage

_NO_LOOKUPS = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
_LONGEST_REASON = 300


def make_client(**arguments: Any) -> storage.Client:
    """A client of Cloud Storage, with the arguments of Google's.

    For its traces the client looks every bucket up in the background, which no role for objects allows; not here.
    """
    from google.cloud import storage

    os.environ.setdefault(_NO_LOOKUPS, "true")
    return storage.Client(**arguments)


def reason_of(error: object) -> str:
    """The reason of a failure in one line, from the JSON in the message where the service has put it there.

    Args:
        error: raised by Google's client; of an upload that is refused its message has the whole body of the answer.

    >>> reason_of('POST https://host/upload: {"error": {"code": 403, "message": "Not allowed."}}: (403, 200)')
    'Not allowed.'
    """
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    start = text.find("{")
    if start >= 0:
        try:
            body, _ = json.JSONDecoder().raw_decode(text[start:])
            text = str(body["error"]["message"])
        except (ValueError, KeyError, TypeError):
            # Not the body of an answer.
            pass
    return " ".join(text.split())[:_LONGEST_REASON]
