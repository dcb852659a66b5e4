"""The interface holds what its OpenAPI document promises, whatever is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings

from custseg_serving.api import OPERATIONS
from custseg_serving.app import create_app
from custseg_serving.keys import SCOPES, KeyFile
from custseg_serving.settings import ServingSettings
from tests.support.releases import make_release

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("interface")
    make_release(folder / "releases")
    return folder


@pytest.fixture(scope="module")
def token(home: Path) -> str:
    return KeyFile(home / "keys.json").create("schemathesis", SCOPES, 1_000_000)


@pytest.fixture(scope="module")
def application(home: Path, token: str) -> Iterator[Flask]:
    assert token, "the key must be there before the application starts, or it needs none"
    made = create_app(ServingSettings(home, log_predictions=False))
    yield made
    made.extensions["custseg"].stop()


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(operation, mode, id=f"{operation.operation_id}-{mode}")
        for operation in OPERATIONS
        # Any text is a fine path: only a body can be got wrong.
        for mode in (("POSITIVE", "NEGATIVE") if operation.body else ("POSITIVE",))
    ],
)
def test_every_operation_keeps_its_promises(application: Flask, token: str, operation: Any, mode: str) -> None:
    described = schemathesis.openapi.from_wsgi("/openapi.json", application)[operation.path][operation.method]

    @given(case=described.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def keeps_its_promises(case: Any) -> None:
        case.call_and_validate(headers={"X-API-Key": token})

    keeps_its_promises()
