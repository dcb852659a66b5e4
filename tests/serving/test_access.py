"""API keys, scopes, rate limits and dashboard sessions; no secret and no customer's id is logged."""

from __future__ import annotations

import json
import logging
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from custseg_assets.errors import BadInputError
from custseg_serving import cli
from custseg_serving.access import AccessControl, RequestCounts
from custseg_serving.errors import ApiError
from custseg_serving.keys import KeyFile, matching_key
from custseg_serving.settings import ServingSettings, is_loopback
from tests.support.server import LOOKUP, ROW, StartApp, is_error, stop_app


@pytest.fixture
def keys(served_home: Path) -> KeyFile:
    return KeyFile(served_home / "keys.json")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_without_any_key_this_machine_may_ask_everything(client: FlaskClient) -> None:
    assert client.get(LOOKUP).status_code == 200
    assert client.get("/metrics").status_code == 200
    for host in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
        assert client.get(LOOKUP, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""])
def test_without_any_key_a_page_under_another_name_may_ask_nothing(client: FlaskClient, host: str) -> None:
    assert is_error(client.get(LOOKUP, headers={"Host": host}), 403, "host_not_allowed")


def test_a_key_opens_what_its_scopes_name_and_nothing_else(start_app: StartApp, keys: KeyFile) -> None:
    looker, scorer = keys.create("shop", ["lookup"], 500), keys.create("till", ["score"], 500)
    client = start_app().test_client()
    for headers in (bearer(looker), {"X-API-Key": looker}, {"Authorization": f"bearer  {looker}"}):
        assert client.get(LOOKUP, headers=headers).status_code == 200
    assert is_error(client.get(LOOKUP, headers=bearer(scorer)), 403, "scope_missing")
    assert is_error(client.get("/metrics", headers=bearer(looker)), 403, "scope_missing")
    assert client.post("/v1/score", json={"customers": [ROW]}, headers=bearer(scorer)).status_code == 200
    assert is_error(client.post("/v1/score", json={"customers": [ROW]}, headers=bearer(looker)), 403, "scope_missing")
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_the_key_counts_where_a_platform_has_the_other_header_for_itself(start_app: StartApp, keys: KeyFile) -> None:
    client = start_app().test_client()
    token = {"Authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.of-cloud-run.signature"}
    key = {"X-API-Key": keys.create("shop", ["lookup"], 500)}
    assert client.get(LOOKUP, headers={**token, **key}).status_code == 200
    assert is_error(client.get(LOOKUP, headers=token), 401, "key_required")


def test_wrong_keys_are_all_refused_alike(start_app: StartApp, keys: KeyFile) -> None:
    token = keys.create("shop", ["lookup"], 500)
    client = start_app().test_client()
    wrong = [
        token[:-1],
        token + "x",
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        "",
        "csk_",
        "csk__",
        "é",
        token[4:],
    ]
    answers = {client.get(LOOKUP, headers=bearer(one)).data for one in wrong} | {client.get(LOOKUP).data}
    assert len(answers) == 1
    refused = client.get(LOOKUP, headers=bearer(token[:-1]))
    assert is_error(refused, 401, "key_required")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert is_error(client.get("/v1/model"), 401, "key_required")


def test_a_running_server_notices_new_and_revoked_keys(start_app: StartApp, keys: KeyFile) -> None:
    first, second = keys.create("a", ["lookup"], 500), keys.create("b", ["lookup"], 500)
    client = start_app().test_client()
    assert client.get(LOOKUP, headers=bearer(second)).status_code == 200
    keys.revoke(second.split("_")[1])
    third = keys.create("c", ["lookup"], 500)
    time.sleep(0.3)
    assert is_error(client.get(LOOKUP, headers=bearer(second)), 401, "key_required")
    assert client.get(LOOKUP, headers=bearer(first)).status_code == 200
    assert client.get(LOOKUP, headers=bearer(third)).status_code == 200


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("[]")])
def test_losing_the_keys_does_not_open_a_running_server(
    start_app: StartApp, keys: KeyFile, damage: Callable[[Path], object]
) -> None:
    keys.create("a", ["lookup"], 500)
    client = start_app().test_client()
    damage(keys.path)
    time.sleep(0.3)
    assert is_error(client.get(LOOKUP), 401, "key_required")


def test_a_damaged_file_of_keys_keeps_the_server_from_starting(start_app: StartApp, keys: KeyFile) -> None:
    keys.path.write_text("{}x")
    with pytest.raises(BadInputError, match="not of the expected form"):
        start_app()


def test_the_limit_counts_all_workers_and_starts_anew_each_second(served_home: Path, keys: KeyFile) -> None:
    token, now = keys.create("a", ["lookup"], 3), [100.0]
    counts, settings = RequestCounts(2), ServingSettings(served_home)
    workers = [AccessControl(settings, counts, worker, clock=lambda: now[0]) for worker in range(2)]
    environ = {"REQUEST_METHOD": "GET", "HTTP_X_API_KEY": token}
    for worker in (0, 1, 0):
        workers[worker].authorise(environ, "lookup")
    with pytest.raises(ApiError) as refused:
        workers[1].authorise(environ, "lookup")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    now[0] = 101.0
    workers[1].authorise(environ, "lookup")


def test_one_key_over_its_limit_does_not_slow_another(start_app: StartApp, keys: KeyFile) -> None:
    greedy, modest = keys.create("a", ["lookup"], 1), keys.create("b", ["lookup"], 500)
    client = start_app().test_client()
    statuses = {client.get(LOOKUP, headers=bearer(greedy)).status_code for _ in range(20)}
    assert statuses == {200, 429}
    assert client.get(LOOKUP, headers=bearer(modest)).status_code == 200


def test_the_file_holds_no_secret_and_only_its_owner_can_read_it(keys: KeyFile) -> None:
    token = keys.create("a", ["lookup"], 500)
    assert token.split("_", 2)[2] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o077 == 0


def test_nothing_secret_or_personal_is_logged_at_debug_level(
    start_app: StartApp, keys: KeyFile, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    token = keys.create("a", ["lookup", "score", "admin"], 500)
    with caplog.at_level(logging.DEBUG):
        application = start_app()
        client = application.test_client()
        client.get(LOOKUP, headers=bearer(token))
        client.get(LOOKUP, headers=bearer(token + "x"))
        client.post("/v1/score", json={"customers": [{**ROW, "customer_id": "12347"}]}, headers=bearer(token))
        client.post("/login", data={"key": token})
        client.get("/v1/nothing/12347?key=" + token)
        metrics = client.get("/metrics", headers=bearer(token)).get_data(as_text=True)
        stop_app(application)
    output = caplog.text + "".join(capsys.readouterr()) + metrics
    assert '"route":"/v1/score"' in output
    assert token not in output
    assert token.split("_", 2)[2] not in output
    # Not inside a longer number: the clock in the metrics may hold any five digits in a row.
    assert not re.search(r"(?<![\d.])12347(?!\d)", output)


def test_time_to_refuse_does_not_depend_on_how_much_of_a_key_is_right(keys: KeyFile) -> None:
    token = keys.create("a", ["lookup"], 500)
    known = {key.key_id: key for key in keys.read()}
    head, secret = token[: -len(token.split("_", 2)[2])], token.split("_", 2)[2]
    tokens = {
        "nothing": "csk_000000000000_" + "A" * len(secret),
        "id": head + "A" * len(secret),
        "half": head + secret[: len(secret) // 2] + "A" * (len(secret) - len(secret) // 2),
        "all but one": head + secret[:-1] + ("A" if secret[-1] != "A" else "B"),
    }
    seconds_of: dict[str, list[float]] = {name: [] for name in tokens}
    for _ in range(300):
        for name, wrong in tokens.items():
            started = time.perf_counter()
            for _ in range(10):
                matching_key(wrong, known)
            seconds_of[name].append(time.perf_counter() - started)
    typical = [statistics.median(seconds) for seconds in seconds_of.values()]
    assert max(typical) / min(typical) < 1.3


def test_the_dashboard_session_reads_and_never_writes(start_app: StartApp, keys: KeyFile) -> None:
    token, scorer = keys.create("a", ["lookup", "score"], 500), keys.create("b", ["score"], 500)
    client = start_app().test_client()
    assert is_error(client.get("/dashboard/data"), 401, "key_required")
    assert is_error(client.post("/login", data={"key": "csk_x_y"}), 401, "key_required")
    assert is_error(client.post("/login", data={"key": scorer}), 403, "scope_missing")
    cross = client.post("/login", data={"key": token}, headers={"Sec-Fetch-Site": "cross-site"})
    assert is_error(cross, 403, "cross_site")
    cookie = client.post("/login", data={"key": token}).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert token not in cookie
    assert client.get("/dashboard/data").status_code == 200
    assert client.get(LOOKUP).status_code == 200
    assert is_error(client.post("/v1/score", json={"customers": [ROW]}), 401, "key_required")
    client.post("/logout")
    assert is_error(client.get("/dashboard/data"), 401, "key_required")


def test_a_session_ends_with_its_key_and_cannot_be_forged(start_app: StartApp, keys: KeyFile) -> None:
    token = keys.create("a", ["lookup"], 500)
    client = start_app(host="10.0.0.1").test_client()
    assert "Secure" in client.post("/login", data={"key": token}, base_url="https://shop.example").headers["Set-Cookie"]
    client = start_app().test_client()
    client.post("/login", data={"key": token})
    keys.revoke(token.split("_")[1])
    time.sleep(0.3)
    assert is_error(client.get("/dashboard/data"), 401, "key_required")
    client.set_cookie("custseg_session", "ImEi.aaaaaa.AAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert is_error(client.get("/dashboard/data"), 401, "key_required")


EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused


@pytest.mark.parametrize("host", [EVERYWHERE, "192.168.1.5", "::", "shop.example"])
def test_without_keys_only_loopback_is_bound(served_home: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--home", str(served_home), "--host", host]) == 2
    assert "without API keys" in capsys.readouterr().err
    assert cli.main(["--home", str(served_home), "--host", host, "--open"]) == 2
    assert "only this machine can reach" in capsys.readouterr().err


def test_loopback_is_told_from_what_only_looks_like_it() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"]))
    assert not any(map(is_loopback, [EVERYWHERE, "", "127.0.0.1.example", "localhost.example", "10.0.0.1"]))


def test_keys_are_made_listed_and_revoked_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    assert cli.main([*home, "keys", "create", "the till", "--scope", "score", "--per-second", "7"]) == 0
    token = capsys.readouterr().out.strip()
    key = json.loads((tmp_path / "keys.json").read_text())["keys"][0]
    assert (key["name"], key["scopes"], key["per_second"]) == ("the till", ["score"], 7)
    assert cli.main([*home, "keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert "active" in listed
    assert token.split("_", 2)[2] not in listed
    assert cli.main([*home, "keys", "revoke", key["key_id"]]) == 0
    assert cli.main([*home, "keys", "list"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert cli.main([*home, "keys", "revoke", "nobody"]) == 2
