"""deploy/first_contact.sh on the fakes: gcloud and bq are stand-ins by Google's libraries, custseg is custseg."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cloud_commands import COMMANDS
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import FakeService, Request
from tests.support.fakes.vertex import FakeVertex
from tests.support.files import REPOSITORY
from tests.support.gcp_pieces import images
from tests.support.permissions import OF_A_PERSON, documented_calls

pytestmark = pytest.mark.gcp

IMAGES = ("--trainer", "trainer:1", "--serving", "serving:1")
NOT_IN_THIS_RUN = {
    # Shown by other tests: large files and parts of them that fail, a partition that is gone, a job that is cancelled
    # or runs as an account of its own, a result of BigQuery with more than 50,000 rows. The prediction log comes from a
    # service with customers who are asked about.
    "storage.multipartUploads.create",
    "storage.multipartUploads.abort",
    "bigquery.tables.delete",
    "bigquery.readsessions.create",
    "bigquery.readsessions.getData",
    "aiplatform.customJobs.cancel",
    "iam.serviceAccounts.actAs",
}
OF_THE_SCRIPT = {f"{one}.{verb}" for one in ("storage.buckets", "bigquery.datasets") for verb in ("create", "delete")}
OF_THE_SCRIPT |= {"bigquery.tables.list"}
# A bare client of Google's looks its bucket up; the play in test_drift_to_service.py runs without that permission.
OF_THE_SCRIPT |= {"storage.buckets.get"}


@dataclass
class Cloud:
    """The fakes, and the script on them."""

    gcs: FakeGcs
    bigquery: FakeBigQuery
    vertex: FakeVertex
    folder: Path
    script: subprocess.Popen[str] | None = None

    @property
    def services(self) -> tuple[FakeService, ...]:
        return (self.gcs, self.bigquery, self.vertex)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the script, with the stand-ins first on its path."""
        python = f"exec {sys.executable} -W ignore"
        programs = {name: f"-m tests.support.cloud_commands {name}" for name in COMMANDS}
        for name, program in {**programs, "custseg-serving": "-m custseg_serving.cli"}.items():
            path = self.folder / name
            path.write_text(f'#!/bin/sh\n{python} {program} "$@"\n')
            path.chmod(0o755)
        environment = {
            "PATH": f"{self.folder}:/usr/bin:/bin",
            "PYTHONPATH": f"{REPOSITORY}/tests/support/quick_clients:{REPOSITORY}",
            "TMPDIR": str(self.folder),
            "FAKE_STORAGE": self.gcs.url,
            "FAKE_BIGQUERY": self.bigquery.url,
            "FAKE_VERTEX": self.vertex.url,
            "STORAGE_EMULATOR_HOST": self.gcs.url,
            "HOME": str(self.folder),
        }
        script = str(REPOSITORY / "deploy" / "first_contact.sh")
        self.script = subprocess.Popen(
            [script, "--project", "shop", "--region", "europe-west1", "--yes", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a group of its own, so that what it runs can be ended with it
        )
        return self.script

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the script; its exit code and what it said."""
        script = self.start(*arguments)
        said, _ = script.communicate(timeout=3600)
        return script.returncode, said

    def is_empty(self) -> bool:
        """Whether nothing is left that somebody would have to pay for."""
        return not (self.gcs.buckets or self.bigquery.datasets or self.vertex.endpoints or self.vertex.models)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with (
        FakeGcs() as gcs,
        FakeBigQuery("shop") as bigquery,
        FakeVertex("shop", "europe-west1", images(is_quick=True)) as vertex,
    ):
        cloud = Cloud(gcs, bigquery, vertex, tmp_path)
        yield cloud
        with contextlib.suppress(ProcessLookupError):
            if cloud.script:
                os.killpg(cloud.script.pid, signal.SIGKILL)


def test_the_whole_script_runs_through_and_needs_what_is_documented(cloud: Cloud) -> None:
    status, said = cloud.run(*IMAGES)
    assert (status, "Everything came out as on the fakes." in said) == (0, True), said
    assert said.index("at most 5 USD") < said.index("as expected: a bucket is made")
    assert cloud.is_empty()
    # Every call of the pipeline, the trainer and the service is in the table of docs/gcp.md, and this saw them all.
    checked = {permission for fake in cloud.services for permission in fake.checked} - OF_THE_SCRIPT
    documented = {
        permission for account, _, permission, _ in documented_calls() if account in {"pipeline", "trainer", "service"}
    }
    apis = ("storage.", "bigquery.", "aiplatform.", "iam.")
    assert {one for one in checked if not OF_A_PERSON.match(one)} - documented == set()
    assert {one for one in documented if one.startswith(apis)} - checked == NOT_IN_THIS_RUN
    assert [request for fake in cloud.services for request in fake.unchecked] == []


def test_what_differs_is_told_and_nothing_is_left_of_a_script_that_is_ended_in_the_middle(cloud: Cloud) -> None:
    cloud.bigquery.denied = {"bigquery.datasets.create"}
    script = cloud.start("--serving", "serving:1")

    def end_it(request: Request) -> None:
        if request.path.startswith("/upload/"):
            script.send_signal(signal.SIGTERM)

    cloud.gcs.on_request = end_it
    said, _ = script.communicate(timeout=3600)
    assert script.returncode == 1
    assert re.search(r"DIFFERED: a data set is made (?s:.*?)bigquery\.datasets\.create denied", said), said
    assert "  a data set is made\n" in said
    assert "  it was ended before its end\n" in said
    assert cloud.is_empty()
