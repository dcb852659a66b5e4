"""Nobody gets in because a file is lost, a proxy stands in between, a server was killed, or a session was ended."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from custseg_assets.errors import BadInputError
from custseg_serving import cli
from custseg_serving.keys import KeyFile
from tests.support.releases import make_release
from tests.support.server import LOOKUP, StartApp, is_error, serving
from tests.support.waiting import wait_until


@pytest.fixture
def keys(served_home: Path) -> KeyFile:
    return KeyFile(served_home / "keys.json")


@pytest.mark.parametrize("command", [[], ["--open"], ["demo"], ["keys", "list"], ["keys", "revoke", "x"]])
def test_a_named_file_of_keys_that_is_missing_is_an_error(
    served_home: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUSTSEG_KEYS", str(served_home / "typo.json"))
    assert cli.main(["--home", str(served_home), *command]) == 2
    assert "typo.json: there is no such file" in capsys.readouterr().err
    assert cli.main(["--home", str(served_home), "keys", "create", "shop"]) == 0


@pytest.mark.parametrize("options", [[], ["--open"], ["demo"]])
def test_a_home_that_lost_its_keys_is_not_open(
    served_home: Path, keys: KeyFile, start_app: StartApp, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    keys.create("shop", ["lookup"], 500)
    keys.path.unlink()
    assert cli.main(["--home", str(served_home), *options]) == 2
    assert "the file is gone, but keys were created" in capsys.readouterr().err
    with pytest.raises(BadInputError, match="keys were created"):
        start_app()


def test_asking_for_a_key_that_never_was_does_not_close_a_home(keys: KeyFile) -> None:
    with pytest.raises(BadInputError, match="the id of a key"):
        keys.revoke("nobody")
    assert keys.read() == ()


def test_a_server_is_open_only_where_that_was_asked_for(
    served_home: Path, keys: KeyFile, start_app: StartApp, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--home", str(served_home)]) == 2
    assert "--open" in capsys.readouterr().err
    assert is_error(start_app(is_open=False).test_client().get(LOOKUP), 401, "key_required")
    keys.create("shop", ["lookup"], 500)
    assert cli.main(["--home", str(served_home), "--open"]) == 2
    assert "has keys" in capsys.readouterr().err


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host"])
def test_what_a_proxy_passes_on_is_not_from_this_machine(start_app: StartApp, header: str) -> None:
    client = start_app().test_client()
    assert client.get(LOOKUP, headers={"Host": "127.0.0.1"}).status_code == 200
    passed_on = client.get(LOOKUP, headers={"Host": "127.0.0.1", header: "203.0.113.9"})
    assert is_error(passed_on, 403, "host_not_allowed")


def test_the_key_of_a_demo_ends_with_it_also_when_it_is_killed(tmp_path: Path) -> None:
    make_release(tmp_path / "releases")
    with serving(tmp_path, "demo") as server:
        assert server.process.stdout is not None
        lines = [server.process.stdout.readline().decode() for _ in range(4)]
        header = {"X-API-Key": lines[-1].split()[-1]}
        assert server.get(LOOKUP, header)[0] == 200
        workers = server.workers()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        for pid in workers:
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), seconds=20)  # type: ignore[misc]
    assert not (tmp_path / "keys.json").exists()
    with serving(tmp_path, "demo") as server:
        assert server.get(LOOKUP, header)[0] == 401


def test_a_cookie_is_worth_nothing_after_logging_out_whichever_worker_is_asked(served_home: Path) -> None:
    with serving(served_home, "--workers", "3", "demo") as server:
        assert server.process.stdout is not None
        link = server.process.stdout.readline().decode().split()[-1]
        with server.connect() as connection:
            connection.request("GET", link.removeprefix(f"http://127.0.0.1:{server.port}"))
            cookie = connection.getresponse().headers["Set-Cookie"].partition(";")[0]
        assert server.get("/dashboard/data", {"Cookie": cookie})[0] == 200
        with server.connect() as connection:
            connection.request("POST", "/logout", headers={"Cookie": cookie})
            assert connection.getresponse().status == 303
        assert {server.get("/dashboard/data", {"Cookie": cookie})[0] for _ in range(20)} == {401}


def test_logging_out_ends_one_session_and_no_other(start_app: StartApp, keys: KeyFile) -> None:
    token = keys.create("shop", ["lookup"], 500)
    application = start_app()
    first, second = application.test_client(), application.test_client()
    for client in (first, second):
        client.post("/login", data={"key": token})
    cookie = first.get_cookie("custseg_session")
    assert cookie is not None
    first.post("/logout")
    first.set_cookie("custseg_session", cookie.value)
    assert is_error(first.get("/dashboard/data"), 401, "key_required")
    assert second.get("/dashboard/data").status_code == 200


def add_field(content: dict[str, Any]) -> None:
    content["note"] = content["keys"][0]["expires_at"] = "2031-01-01"


def add_scope(content: dict[str, Any]) -> None:
    content["keys"][0]["scopes"].append("write")


def raise_format(content: dict[str, Any]) -> None:
    content["format"] = 2


@pytest.mark.parametrize("change", [add_field, add_scope, raise_format])
def test_a_revocation_counts_also_in_a_file_of_a_later_version(
    start_app: StartApp, keys: KeyFile, change: Callable[[dict[str, Any]], None]
) -> None:
    token, other = keys.create("shop", ["lookup"], 500), keys.create("till", ["lookup"], 500)
    client = start_app().test_client()
    assert client.get(LOOKUP, headers={"X-API-Key": token}).status_code == 200
    content = json.loads(keys.path.read_text())
    change(content)
    content["keys"][0]["revoked_at"] = "2030-01-01T00:00:00Z"
    keys.path.write_text(json.dumps(content))
    time.sleep(0.3)
    assert is_error(client.get(LOOKUP, headers={"X-API-Key": token}), 401, "key_required")
    assert client.get(LOOKUP, headers={"X-API-Key": other}).status_code == 200


def test_fields_of_a_later_version_survive_a_revocation_by_this_one(keys: KeyFile) -> None:
    key_id = keys.create("shop", ["lookup"], 500).split("_")[1]
    content = json.loads(keys.path.read_text())
    add_field(content)
    keys.path.write_text(json.dumps(content))
    keys.revoke(key_id)
    after = json.loads(keys.path.read_text())
    assert (after["note"], after["keys"][0]["expires_at"]) == ("2031-01-01", "2031-01-01")
    assert after["keys"][0]["revoked_at"] is not None
