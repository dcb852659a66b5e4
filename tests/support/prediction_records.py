"""Lines of the service's prediction log, as the service writes them."""

from __future__ import annotations

import json
from typing import Any

ANSWER = {
    "customer_id": "12347",
    "segment_id": "S1",
    "segment_name": "Champions",
    "is_rule_segment": False,
    "margin": 0.25,
    "rfm": {"recency_days": 7, "frequency_orders": 9.0, "monetary_net": 2310.0},
    "other_features": {"n_products": 12.0},
    "reasons": [{"feature": "recency_days", "text": "7 days since the last order; Promising: 30"}],
}
RECORD = {
    "format": 1,
    "at": "2026-11-23T10:00:00.250Z",
    "kind": "lookup",
    "request_id": "a-1",
    "key_id": None,
    "latency_ms": 1.5,
    "release_id": "r-2026-10-01-00000000",
    "model_version": "m-test",
    "outcome": "found",
    "customer_id": "12347",
    "answer": ANSWER,
}
"""A lookup that found its customer."""


def record_line(**changes: Any) -> bytes:
    """The line of ``RECORD``, with other values for some keys."""
    return json.dumps({**RECORD, **changes}).encode() + b"\n"
