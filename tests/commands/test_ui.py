"""What ``custseg ui`` shows of a home: graph, history, checks and pictures, and partitions made from its pages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from custseg_assets.defs.materialise import _data_version
from custseg_assets.domain.schemas import tables
from tests.support.browser import open_page
from tests.support.files import REPOSITORY
from tests.support.shops import QUICK, custseg, shop_log, write_log

SNAPSHOTS = ["2024-02-01", "2024-03-01"]
CODE_LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "custseg_assets.definitions"}
PATIENCE_SECONDS = 90


class Pages:
    """Dagster's pages of a home, and the same for programs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port

    def answers(self) -> bool:
        try:
            return "dagster_webserver_version" in self._answer("GET", "/server_info")
        except OSError:
            return False

    def ask(self, query: str, **variables: Any) -> Any:
        answer = self._answer("POST", "/graphql", json.dumps({"query": query, "variables": variables}))
        assert "errors" not in answer, answer
        return answer["data"]

    def launch(self, job: str, partition: str, **config: Any) -> str:
        """Start a job from the pages; the id of its run."""
        run = {
            "selector": {**CODE_LOCATION, "jobName": job},
            "runConfigData": config,
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
        }
        launched = self.ask(
            """mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) {
            ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            run=run,
        )
        return str(launched["launchRun"]["run"]["runId"])

    def status(self, run_id: str) -> str:
        answer = self.ask("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        return str(answer["runOrError"]["status"])

    def _answer(self, method: str, path: str, body: str | None = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            return json.load(connection.getresponse())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that ``custseg run`` has filled from three months of a small shop."""
    folder = tmp_path_factory.mktemp("ui")
    outcome = custseg(folder / "home", "run", "--source", write_log(shop_log(3), folder / "log.csv"), config=QUICK)
    assert outcome.status == 0, outcome.err
    return folder / "home"


@pytest.fixture(scope="module")
def pages(home: Path) -> Iterator[Pages]:
    with opened(home, home.with_name("home.toml")) as (pages, process):
        yield pages
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        wait(lambda: not _is_alive(process.pid))


@contextlib.contextmanager
def opened(home: Path, config: Path) -> Iterator[tuple[Pages, subprocess.Popen[bytes]]]:
    """``custseg ui`` on a home, and its process; that and all that it started are killed at the end."""
    port, log = _free_port(), home.with_name("ui.log")
    command = [sys.executable, "-m", "custseg_assets.cli", "ui", "--port", str(port), "--config", str(config)]
    with log.open("w") as written:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "CUSTSEG_HOME": str(home)},
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    try:
        pages = Pages(port)
        wait(lambda: pages.answers() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield pages, process
    finally:
        if _is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)


def test_every_asset_and_job_is_loaded(pages: Pages) -> None:
    location = pages.ask("""{ workspaceOrError { ... on Workspace { locationEntries {
        locationOrLoadError { __typename ... on RepositoryLocation { repositories { jobs { name } } } } } } } }""")
    (entry,) = location["workspaceOrError"]["locationEntries"]
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    (repository,) = entry["locationOrLoadError"]["repositories"]
    jobs = {job["name"] for job in repository["jobs"]}
    assert {"ingest", "features", "train", "segment"} <= jobs
    assert set(_nodes(pages)) == {*tables(()), "landed_files", "serving_release"}


def test_what_a_run_made_is_materialised_and_checked(pages: Pages) -> None:
    nodes = _nodes(pages)
    done = {name: _partitions(node) for name, node in nodes.items() if node["partitionStats"]}
    assert done == {
        **dict.fromkeys(done, (2, 2, 0)),
        **dict.fromkeys(("raw_transactions", "clean_transactions", "rejected_transactions"), (3, 3, 0)),
    }
    # Also what had nothing to do: no file has landed, and no service was asked.
    assert [name for name, node in nodes.items() if not node["assetMaterializations"]] == []
    checks = [check for node in nodes.values() for check in node["assetChecksOrError"].get("checks", [])]
    verdicts = {check["executionForLatestMaterialization"]["status"] for check in checks}
    assert verdicts == {"SUCCEEDED"}


def test_each_job_lists_the_runs_of_the_command(pages: Pages) -> None:
    answer = pages.ask(
        """query ($repository: RepositorySelector!) { repositoryOrError(repositorySelector: $repository) {
        ... on Repository { pipelines { name runs(limit: 9) { status } } } } }""",
        repository=CODE_LOCATION,
    )
    listed = {job["name"]: job["runs"] for job in answer["repositoryOrError"]["pipelines"]}
    assert all(listed[job] for job in ("ingest", "features", "train", "segment"))
    assert {run["status"] for runs in listed.values() for run in runs} == {"SUCCESS"}


def test_a_partition_made_from_the_pages_succeeds_and_nothing_is_marked_stale(pages: Pages) -> None:
    assert _stale(pages) == []
    run_id = pages.launch("features", SNAPSHOTS[0])
    wait(lambda: pages.status(run_id) in ("SUCCESS", "FAILURE"))
    assert pages.status(run_id) == "SUCCESS"
    assert _stale(pages) == []


def test_the_graph_shows_every_asset_without_an_error(pages: Pages) -> None:
    with open_page() as (page, errors):
        page.goto(f"{pages.url}/asset-groups")
        page.get_by_text("monitoring").first.wait_for(timeout=PATIENCE_SECONDS * 1000)
        page.mouse.move(1000, 850)
        page.keyboard.press("Alt+e")  # expand all groups
        for name in ("raw_transactions", "customer_features", "drift_report", "serving_release"):
            page.get_by_text(name, exact=True).first.wait_for(timeout=PATIENCE_SECONDS * 1000)
        assert errors == []


def test_an_asset_page_shows_its_picture_and_where_its_columns_come_from(pages: Pages) -> None:
    with open_page() as (page, errors):
        page.goto(f"{pages.url}/assets/segment_profiles")
        _metadata(page, "profile").click(timeout=PATIENCE_SECONDS * 1000)
        picture = page.get_by_role("img", name="profile of the segments")
        picture.wait_for()
        size = picture.bounding_box()
        assert size is not None
        assert size["height"] > 100
        page.goto(f"{pages.url}/assets/customer_features")
        _metadata(page, "column_lineage").click(timeout=PATIENCE_SECONDS * 1000)
        row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="monetary_net", exact=True))
        told = row.filter(has_text="raw_transactions").inner_text()
        assert {"line_amount", "quantity", "unit_price"} <= set(told.replace(",", " ").split())
        assert errors == []


def test_a_partition_made_again_from_the_same_keeps_its_data_version() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        context: Any = SimpleNamespace(instance=instance)
        first = _data_version(context, "profiles", {"2024-02-01": None}, {"2024-02-01": 7})
        instance.report_runless_asset_event(_materialised("profiles", "2024-02-01", first))
        wider = _data_version(context, "profiles", {"2024-02-01": 7, "2024-03-01": None}, _made(7, 8))
        changed = _data_version(context, "profiles", {"2024-02-01": 7, "2024-03-01": 8}, _made(7, 9))
    assert wider == first
    assert changed != first


def _made(*versions: int) -> dict[str, int]:
    return dict(zip(SNAPSHOTS, versions, strict=True))


def _materialised(name: str, key: str, version: dg.DataVersion) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(name, partition=key, tags={"dagster/data_version": version.value})


def _metadata(page: Any, label: str) -> Any:
    """What opens a metadata entry that is too long for its row."""
    return page.get_by_role("row").filter(has=page.get_by_text(label, exact=True)).get_by_text("[Show Markdown]")


def _nodes(pages: Pages) -> dict[str, Any]:
    answer = pages.ask("""{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId }
        partitionStats { numMaterialized numPartitions numFailed }
        assetChecksOrError { ... on AssetChecks { checks { executionForLatestMaterialization { status } } } } } }""")
    return {node["assetKey"]["path"][0]: node for node in answer["assetNodes"]}


def _partitions(node: dict[str, Any]) -> tuple[int, int, int]:
    stats = node["partitionStats"]
    return stats["numMaterialized"], stats["numPartitions"], stats["numFailed"]


def _stale(pages: Pages) -> list[str]:
    """Materialised snapshots that Dagster would make again."""
    by_snapshot = [
        name for name, node in _nodes(pages).items() if (node["partitionStats"] or {}).get("numPartitions") == 2
    ]
    query = """query ($asset: AssetKeyInput!, $keys: [String!]!) { assetNodeOrError(assetKey: $asset) {
        ... on AssetNode { staleStatusByPartition(partitions: $keys) } } }"""
    found = {name: pages.ask(query, asset={"path": [name]}, keys=SNAPSHOTS) for name in by_snapshot}
    return [name for name, answer in found.items() if "STALE" in answer["assetNodeOrError"]["staleStatusByPartition"]]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_done():
        assert time.monotonic() < deadline, f"not so after {PATIENCE_SECONDS} s"
        time.sleep(0.3)
