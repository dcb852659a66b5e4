"""Generated requests: every operation answers as ``/openapi.json`` describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings

from custseg_serving.api import OPERATIONS, Operation
from custseg_serving.keys import SCOPES, KeyFile
from custseg_serving.settings import ServingSettings
from tests.support.releases import make_release
from tests.support.server import open_app

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")


def is_wrong_beyond_the_schema(status: int, content: bytes) -> bool:
    """Whether parameters were refused that only do not fit each other, or a cursor that no page gave."""
    if status != 400:
        return False
    error = json.loads(content)["error"]
    return error["code"] == "invalid_cursor" or ", more than max_" in error["message"]


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
    with open_app(ServingSettings(home, log_predictions=False)) as application:
        yield application


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(operation, mode, id=f"{operation.operation_id}-{mode}")
        for operation in OPERATIONS
        # Any text is a valid path: only a body or a parameter can be invalid.
        for mode in (("POSITIVE", "NEGATIVE") if operation.body or operation.parameters else ("POSITIVE",))
    ],
)
def test_every_operation_answers_as_it_is_described(
    application: Flask, token: str, operation: Operation, mode: str
) -> None:
    description = schemathesis.openapi.from_wsgi("/openapi.json", application)[operation.path][operation.method]

    @given(case=description.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def call_and_check(case: Any) -> None:
        headers = {"X-API-Key": token}
        response = case.call(headers=headers)
        # It sends a wrong Authorization beside the right key in X-API-Key, which counts; test_access has wrong keys.
        excluded = [checks.ignored_auth]
        if is_wrong_beyond_the_schema(response.status_code, response.content):
            excluded.append(checks.positive_data_acceptance)
        case.validate_response(response, headers=headers, excluded_checks=excluded)

    call_and_check()
