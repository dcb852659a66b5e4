"""Wait in a test for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(is_true: Callable[[], bool], seconds: float = 2.0) -> None:
    """Return when a condition holds; fail if it does not in time, by default that which a swap of releases may take."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s"
        time.sleep(0.01)
