"""Fixtures of the service's tests: a home with a release, an application on it and a client, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from flask.testing import FlaskClient

from tests.support.dashboard import CHROMIUM, launch_browser
from tests.support.server import StartApp
from tests.support.service_fixtures import served_home, start_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser", "client", "served_home", "start_app"]


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
