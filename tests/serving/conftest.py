"""A running application on an invented release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from custseg_serving.app import create_app
from custseg_serving.settings import ServingSettings
from tests.support.releases import make_release

StartApp = Callable[..., Flask]


@pytest.fixture
def served_home(tmp_path: Path) -> Path:
    """A home with a release that is pointed to."""
    make_release(tmp_path / "releases")
    return tmp_path


@pytest.fixture
def start_app(served_home: Path) -> Iterator[StartApp]:
    """Starts applications on the home, and stops them after the test."""
    started: list[Flask] = []

    def start(**settings: Any) -> Flask:
        started.append(create_app(ServingSettings(served_home, **{"poll_seconds": 0.02, **settings})))
        return started[-1]

    yield start
    for application in started:
        application.extensions["custseg"].stop()


@pytest.fixture
def client(start_app: StartApp) -> FlaskClient:
    """A client of an application without keys."""
    return start_app().test_client()
