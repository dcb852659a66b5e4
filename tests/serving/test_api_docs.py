"""The page ``/docs`` in a browser: every operation, one of them tried out, and no request to any other host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from custseg_serving import examples
from custseg_serving.api import OPERATIONS
from custseg_serving.api_docs import SWAGGER_UI
from custseg_serving.schemas import ErrorAnswer
from tests.support.browser import open_page
from tests.support.releases import make_release
from tests.support.server import RunningServer, is_error, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home: Path = tmp_path_factory.mktemp("docs")
    make_release(home / "releases")
    with serving(home, "--workers", "1") as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_and_tries_every_operation_without_another_host(server: RunningServer, scheme: str) -> None:
    host = f"http://127.0.0.1:{server.port}/"
    with open_page() as (page, errors):
        page.emulate_media(color_scheme=scheme)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{host}docs")
        page.wait_for_selector(".opblock")
        assert page.locator(".opblock").count() == len(OPERATIONS)
        page.locator("#operations-customers-customers").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        page.wait_for_selector(".live-responses-table")
        assert "12348" in page.locator(".live-responses-table .highlight-code").first.inner_text()
        assert {url for url in asked if not url.startswith((host, "data:"))} == set()
        assert f"{host}v1/customers" in " ".join(asked)
        assert errors == []


def test_a_phone_is_wide_enough(server: RunningServer) -> None:
    with open_page(360, 700) as (page, errors):
        page.goto(f"http://127.0.0.1:{server.port}/docs")
        page.wait_for_selector(".opblock")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert errors == []


def test_every_operation_has_examples_that_fit_its_models(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    assert set(examples.ANSWERS) == {operation.operation_id for operation in OPERATIONS}
    for operation in OPERATIONS:
        described = document["paths"][operation.path][operation.method.lower()]
        for status, response in described["responses"].items():
            (content,) = response["content"].values()
            model = operation.answer if status == "200" else ErrorAnswer
            if model is not None:
                model.model_validate(content["example"], strict=True, extra="forbid")
        if operation.body is not None:
            (content,) = described["requestBody"]["content"].values()
            operation.body.model_validate(content["example"])


def test_summaries_are_sentences_for_people_who_do_not_know_the_code(client: FlaskClient) -> None:
    for path, operations in client.get("/openapi.json").get_json()["paths"].items():
        for operation in operations.values():
            summary = operation["summary"]
            assert summary[0].isupper(), path
            assert summary.endswith("."), path
            assert not {"``", "Flask", "gateway", "worker", "view"} & set(summary.replace(",", " ").split()), path


@pytest.mark.parametrize("name", SWAGGER_UI)
def test_the_files_of_the_page_come_from_the_package(client: FlaskClient, name: str) -> None:
    with client.get(f"/docs/{name}") as response:
        assert response.status_code == 200
        assert len(response.data) > 100_000


@pytest.mark.parametrize("name", ["index.html", "..%2fapi.py", "%2e%2e/api.py", "oauth2-redirect.html"])
def test_the_page_gives_no_other_file(client: FlaskClient, name: str) -> None:
    assert is_error(client.get(f"/docs/{name}"), 404, "not_found")


def test_only_the_page_has_a_policy_of_its_own(client: FlaskClient) -> None:
    policies = {}
    for path in ("/docs", "/", "/v1/model"):
        with client.get(path) as response:
            policies[path] = response.headers.getlist("Content-Security-Policy")
    assert {path: len(found) for path, found in policies.items()} == {"/docs": 1, "/": 1, "/v1/model": 1}
    assert "'unsafe-inline'" in policies["/docs"][0]
    assert "'unsafe-inline'" not in policies["/"][0] + policies["/v1/model"][0]
    assert "script-src 'self';" in policies["/docs"][0]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/customer", "/v1/customers"),
        ("/v1/segment", "/v1/segments"),
        ("/v1/move", "/v1/moves"),
        ("/doc", "/docs"),
        ("/openapi.jsn", "/openapi.json"),
        ("/v1/customers/12347/segments", "/v1/customers/12347/segment"),
        ("/v1/segment/S1", "/v1/segments/S1"),
        ("/wp-login.php", None),
        ("/" + "x" * 100_000, None),
    ],
)
def test_an_unknown_path_is_answered_with_the_nearest(client: FlaskClient, path: str, nearest: str | None) -> None:
    response = client.get(path)
    assert is_error(response, 404, "not_found")
    error = response.get_json()["error"]
    assert error["details"]["nearest"] == nearest
    assert "/docs" in error["message"]
    assert (nearest or "There is nothing at") in error["message"]
    assert len(response.data) < 1_000
