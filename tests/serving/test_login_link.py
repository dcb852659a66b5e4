"""The link of ``custseg-serving demo``: it logs in once, for a while, and gives no more than its key."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from custseg_serving.keys import KeyFile
from custseg_serving.login_link import LINK_SECONDS, LoginLinks
from custseg_serving.service import SharedState
from custseg_serving.settings import ServingSettings
from tests.support.server import is_error, open_app


@pytest.fixture
def keys(served_home: Path) -> KeyFile:
    return KeyFile(served_home / "keys.json")


@pytest.fixture
def key_id(keys: KeyFile) -> str:
    return keys.create("demo", ["lookup"], 500).split("_")[1]


@pytest.fixture
def links(tmp_path: Path) -> LoginLinks:
    folder = tmp_path / "links"
    folder.mkdir()
    return LoginLinks(folder)


def test_a_link_logs_in_once(served_home: Path, key_id: str, links: LoginLinks) -> None:
    links.add("token", key_id)
    with open_app(ServingSettings(served_home), SharedState(login_links=links)) as application:
        client, stranger = application.test_client(), application.test_client()
        # What only looks at a link, such as the preview of a chat, does not use it up.
        assert client.head("/login/token").status_code == 410
        first = client.get("/login/token")
        assert (first.status_code, first.headers["Location"]) == (303, "/")
        assert "HttpOnly" in first.headers["Set-Cookie"]
        assert "SameSite=Strict" in first.headers["Set-Cookie"]
        assert client.get("/dashboard/data").status_code == 200
        # Who is logged in and follows it again is let through; nobody else is.
        assert client.get("/login/token").status_code == 303
        for path in ("/login/token", "/login/never", "/login/%ff", "/login/" + "x" * 5_000):
            assert is_error(stranger.get(path), 410, "login_link_used")
        # A person gets the page that asks for a key and says why.
        shown = stranger.get("/login/token", headers={"Accept": "text/html,*/*;q=0.8"})
        assert (shown.status_code, shown.headers["Location"]) == (303, "/?login=used")
        assert "Set-Cookie" not in shown.headers


def test_a_server_without_links_has_none_to_use(served_home: Path, key_id: str) -> None:
    assert key_id
    with open_app(ServingSettings(served_home)) as application:
        assert is_error(application.test_client().get("/login/token"), 410, "login_link_used")


def test_a_link_is_worth_nothing_after_its_time(tmp_path: Path) -> None:
    for age, key_id in ((LINK_SECONDS - 60, "k"), (LINK_SECONDS + 60, None)):
        links = LoginLinks(tmp_path, clock=lambda age=age: time.time() + age)  # type: ignore[misc]
        links.add("token", "k")
        assert [links.use("token"), links.use("token")] == [key_id, None]
        assert list(tmp_path.iterdir()) == []


def test_a_link_gives_no_more_than_its_key_and_ends_with_it(
    served_home: Path, keys: KeyFile, key_id: str, links: LoginLinks
) -> None:
    links.add("token", key_id)
    with open_app(ServingSettings(served_home), SharedState(login_links=links)) as application:
        client = application.test_client()
        client.get("/login/token")
        assert client.get("/metrics").status_code == 403
        keys.revoke(key_id)
        time.sleep(0.5)
        assert client.get("/dashboard/data").status_code == 401
