"""Dagster's pages of a home under ``custseg ui``, asked as their own script asks: by GraphQL."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from custseg_assets.settings import UI_TOKEN_HEADER
from tests.support.live import LiveHome

CODE_LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "custseg_assets.definitions"}
PATIENCE_SECONDS = 90


class Pages:
    """Dagster's pages of a home, for programs.

    Args:
        live: the home, with ``custseg ui`` started on it.
    """

    def __init__(self, live: LiveHome) -> None:
        self.live, self.url = live, live.url

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of the answer to a GraphQL query."""
        connection = HTTPConnection("127.0.0.1", self.live.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            body = json.dumps({"query": query, "variables": variables})
            headers = {"Content-Type": "application/json", UI_TOKEN_HEADER: self.live.token}
            connection.request("POST", "/graphql", body, headers)
            answer = json.load(connection.getresponse())
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
        """Status of a run, as Dagster names it."""
        answer = self.ask("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        return str(answer["runOrError"]["status"])


@contextlib.contextmanager
def serve_pages(home: Path, config: Path) -> Iterator[Pages]:
    """Start ``custseg ui`` on a home, wait until its pages answer, and kill it and what it started afterwards."""
    live = LiveHome(home, config, [sys.executable, "-m", "custseg_assets.cli"])
    live.start()
    try:
        assert live.wait(live.answers, PATIENCE_SECONDS), live.log.read_text()
        yield Pages(live)
    finally:
        live.kill()
