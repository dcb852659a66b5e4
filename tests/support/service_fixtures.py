"""Fixtures of all tests of the service: a home with a release, and applications on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from custseg_serving.settings import ServingSettings
from tests.support.releases import make_release
from tests.support.server import StartApp, open_app


def get(client: FlaskClient, path: str) -> dict[str, Any]:
    """The JSON object that a path is answered with, which must be a success."""
    response = client.get(path)
    assert response.status_code == 200, response.data
    answer: dict[str, Any] = response.get_json()
    return answer


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
