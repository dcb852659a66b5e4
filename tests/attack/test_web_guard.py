"""Other sites' pages, other names of this machine, and whoever lacks the token get nothing from ``custseg ui``."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

from custseg_assets.settings import UI_TOKEN_HEADER
from tests.support.browser import open_page
from tests.support.dagster_pages import Pages, serve_pages

MUTATION = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["orders"]}}]) { __typename } }'
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("guard")
    (folder / "landing").mkdir()
    config = folder / "custseg.toml"
    # Nothing is needed but the pages.
    config.write_text("[automation]\nenabled = false\n")
    with serve_pages(folder / "home", config) as pages:
        yield pages


def ask(
    pages: Pages, method: str, path: str, headers: Mapping[str, str], body: str | None = None
) -> tuple[int, str, Mapping[str, str]]:
    connection = HTTPConnection("127.0.0.1", pages.live.port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())


def test_without_the_token_nothing_is_answered(pages: Pages) -> None:
    for path in ("/", "/server_info", "/graphql", "/report_asset_materialization/orders", "/logs/x", "/favicon.png"):
        assert ask(pages, "GET", path, {})[0] == 401, path
        assert ask(pages, "GET", f"{path}?token=wrong", {})[0] == 401, path
    body = json.dumps({"query": "{ version }"})
    assert ask(pages, "POST", "/graphql", JSON, body)[0] == 401
    assert ask(pages, "POST", "/graphql", {**JSON, UI_TOKEN_HEADER: "wrong"}, body)[0] == 401
    assert ask(pages, "POST", "/graphql", {**JSON, UI_TOKEN_HEADER: pages.live.token}, body)[0] == 200


def test_the_address_that_is_printed_opens_the_pages_and_leaves_no_token_in_them(pages: Pages) -> None:
    status, _, headers = ask(pages, "GET", f"/runs?token={pages.live.token}&page=2", {})
    assert (status, headers["location"]) == (303, "/runs?page=2")
    cookie = headers["set-cookie"]
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
    assert ask(pages, "GET", "/runs", {"Cookie": cookie.partition(";")[0]})[0] == 200
    assert ask(pages, "GET", f"//evil.example/?token={pages.live.token}", {})[2]["location"] == "/evil.example/"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}"]
)
def test_another_name_of_this_machine_is_not_answered(pages: Pages, host: str) -> None:
    headers = {"Host": host.format(port=pages.live.port), UI_TOKEN_HEADER: pages.live.token}
    assert ask(pages, "GET", "/server_info", headers)[0] == 403


def test_a_get_changes_nothing(pages: Pages) -> None:
    known = {UI_TOKEN_HEADER: pages.live.token}
    assert ask(pages, "GET", f"/graphql?query={quote(MUTATION)}", known)[0] == 405
    for form in ("text/plain", "application/x-www-form-urlencoded", "application/graphql"):
        assert ask(pages, "POST", "/graphql", {**known, "Content-Type": form}, MUTATION)[0] == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_a_page_of_another_site_is_not_answered_even_with_the_token(pages: Pages, headers: dict[str, str]) -> None:
    body = json.dumps({"query": "{ version }"})
    known = {**JSON, UI_TOKEN_HEADER: pages.live.token}
    assert ask(pages, "POST", "/graphql", {**known, **headers}, body)[0] == 403


def test_a_websocket_of_another_site_is_closed(pages: Pages) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "graphql-ws",
    }
    known = {**upgrade, UI_TOKEN_HEADER: pages.live.token}
    assert ask(pages, "GET", "/graphql", upgrade)[0] == 403
    assert ask(pages, "GET", "/graphql", {**known, "Origin": "http://evil.example"})[0] == 403
    with contextlib.closing(HTTPConnection("127.0.0.1", pages.live.port, timeout=30)) as connection:
        connection.request("GET", "/graphql", None, {**known, "Origin": pages.url})
        assert connection.getresponse().status == 101


@contextlib.contextmanager
def serve_site(page: str) -> Iterator[str]:
    """Another site on this machine, with one page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


EVIL_PAGE = """<img src="GRAPHQL?query=MUTATION">
<form id=f method=post action="GRAPHQL" enctype="text/plain" target=t><input name='{"query":"{ version }"' value='"}'>
</form><iframe name=t></iframe><iframe src="PAGES/"></iframe>
<script>
document.getElementById("f").submit();
const json = {"Content-Type": "application/json"}, body = '{"query": "{ version }"}';
const connect = (resolve, reject) => {
  const socket = new WebSocket("GRAPHQL".replace("http", "ws"), "graphql-ws");
  socket.onopen = () => resolve("open");
  socket.onerror = reject;
};
const tries = [
  fetch("GRAPHQL", {method: "POST", mode: "no-cors", credentials: "include", body}),
  fetch("GRAPHQL", {method: "POST", credentials: "include", headers: json, body}).then((answer) => answer.text()),
  new Promise(connect),
];
Promise.allSettled(tries).then((all) => {
  document.title = all.map((one) => one.status + (one.value?.type ?? "")).join(" ");
});
</script>"""


def test_in_a_browser_another_site_reaches_nothing_though_the_pages_are_open(pages: Pages) -> None:
    places = {"GRAPHQL": f"{pages.url}/graphql", "MUTATION": quote(MUTATION), "PAGES": pages.url}
    evil = EVIL_PAGE
    for name, value in places.items():
        evil = evil.replace(name, value)
    with serve_site(evil) as site, open_page() as (page, _):
        page.goto(pages.live.address())
        page.wait_for_selector("text=Overview", timeout=60_000)
        page.goto("about:blank")
        answers: list[tuple[str, int]] = []
        page.on("response", lambda answer: answers.append((answer.url, answer.status)))
        page.goto(site)
        page.wait_for_function("document.title.includes('rejected')", timeout=30_000)
        assert page.title() == "fulfilledopaque rejected rejected"
        page.wait_for_timeout(500)
        ours = [answer for answer in answers if answer[0].startswith(pages.url)]
        assert len(ours) >= 3
        assert {status for _, status in ours} == {403}
        # A link from elsewhere may lead here: who follows it sees the pages, and has changed nothing.
        page.set_content(f'<a href="{pages.url}/runs">runs</a>')
        page.click("a")
        page.wait_for_selector("text=Overview", timeout=60_000)
