"""The time of the fakes: that of the machine, and what their clients in this process wait, which passes at once."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

_WAITING = (
    "google.api_core.retry.retry_base",
    "google.api_core.retry.retry_unary",
    "google.resumable_media.requests._request_helpers",
    "custseg_assets.gcp.vertex_models",
)
"""Modules that wait between attempts, or for an operation of Vertex AI."""

_passed = 0.0


def now() -> float:
    """Seconds on the fakes' clock."""
    return time.monotonic() + _passed


def pass_time(seconds: float) -> None:
    """Let time pass, as a client does that waits."""
    global _passed  # noqa: PLW0603  (there is one time, as in ``time``)
    _passed += seconds


def wait_on_this_clock(patch: pytest.MonkeyPatch) -> None:
    """Have the clients in this process wait on the fakes' clock, for as long as the patch lasts."""
    from custseg_assets.gcp.bigquery_engine import BigQueryEngine
    from custseg_assets.gcp.bigquery_publish import Publisher

    for module in _WAITING:
        patch.setattr(f"{module}.time", SimpleNamespace(sleep=pass_time, monotonic=now))
    for waiting in (Publisher, BigQueryEngine):
        patch.setattr(waiting.__init__, "__defaults__", (pass_time,))
