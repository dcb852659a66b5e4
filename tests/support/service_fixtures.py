"""Fixtures of all tests of the service: a home with a release, and applications on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from custseg_serving.settings import ServingSettings
from tests.support.releases import make_release
from tests.support.server import StartApp, open_app


@pytest.fixture
def served_home(tmp_path: Path) -> Path:
    """A home with a release that ``CURRENT`` names."""
    make_release(tmp_path / "releases")
    return tmp_path


@pytest.fixture
def start_app(served_home: Path) -> Iterator[StartApp]:
    """Starts applications on the home with the given settings; stops them after the test."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> Flask:
            chosen = {"poll_seconds": 0.02, "is_open": True, **settings}
            return stack.enter_context(open_app(ServingSettings(served_home, **chosen)))

        yield start
