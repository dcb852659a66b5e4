"""Fixtures of the service's tests: a home with a release, an application on it and a client, and a browser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from custseg_serving.settings import ServingSettings
from tests.support.dashboard import CHROMIUM, launch_browser
from tests.support.releases import make_release
from tests.support.server import StartApp, open_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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


@pytest.fixture
def client(start_app: StartApp) -> FlaskClient:
    """A client of an application without keys."""
    return start_app().test_client()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, of one module, since a thread has one Playwright at a time; skips where there is none."""
    pytest.importorskip("playwright", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed here")
    with launch_browser() as launched:
        yield launched
