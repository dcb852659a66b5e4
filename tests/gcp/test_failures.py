"""If something fails in Google Cloud, the champion goes on serving and the error says what to do; see docs/gcp.md."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2

from custseg_assets.domain import schemas
from custseg_assets.errors import RunFailedError
from custseg_assets.gcp.bucket import Bucket
from custseg_assets.gcp.clients import storage_client
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from tests.support.dagster_pages import serve_pages
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.vertex import FakeVertex, Image, State
from tests.support.gcp_daemon import run_sensors
from tests.support.gcp_pieces import SHORT_PATIENCE
from tests.support.places import PLACE, URI, cloud_config
from tests.support.shops import custseg, quiet, shop_log, write_log
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.gcp, pytest.mark.usefixtures("no_waiting_for_stragglers")]

KEY = "2024-04-01"
CLOSED = datetime(2024, 6, 1, 6)
ASLEEP = "import time; time.sleep(60)"


class Cloud:
    """A home whose release is in the bucket and whose challengers train on Vertex AI."""

    def __init__(self, home: Path, vertex: FakeVertex, gcs: FakeGcs, bigquery: FakeBigQuery | None = None) -> None:
        self.home, self.vertex, self.gcs, self.bigquery = home, vertex, gcs, bigquery
        self.service_account, self.timeout_minutes = "trainer@shop.iam.gserviceaccount.com", 60.0
        self.bucket_url = gcs.url
        self.bucket().push_release(home / "releases", str(releases.current(home / "releases")))

    @property
    def config(self) -> str:
        endpoints = {"aiplatform": self.vertex.url, "storage": self.bucket_url}
        return cloud_config(
            "[landing]\nsettle_seconds = 0\n[automation]\nenabled = false",
            **PLACE,
            storage={"uri": URI},
            training={
                "image": "trainer:1",
                "service_account": self.service_account,
                "timeout_minutes": self.timeout_minutes,
            },
            bigquery={"dataset": "segments"} if self.bigquery else {},
            endpoints={**endpoints, "bigquery": self.bigquery.url} if self.bigquery else endpoints,
        )

    @property
    def config_file(self) -> Path:
        path = self.home.with_name("cloud.toml")
        path.write_text(self.config)
        return path

    def retrain(self) -> Any:
        return custseg(self.home, "retrain", "--reconfigure", config=self.config_file)

    def bucket(self) -> Bucket:
        settings = load_settings(self.config_file, home=self.home, environment={})
        return Bucket(storage_client(settings.gcp), URI)

    def run_trainer_as(self, code: str) -> None:
        """Run another program as the trainer's image, with the trainer's arguments."""
        self.vertex.images["trainer:1"] = Image(
            [sys.executable, "-c", code], self.vertex.images["trainer:1"].environment
        )

    def read_champion(self) -> Any:
        """Everything that says which model serves: tables, registry, and ``CURRENT`` here and in the bucket."""
        stores = OpenHome(load_settings(home=self.home, environment={}))
        registry = stores.registry
        champion = registry.client().get_model_version_by_alias(registry.registered_model, "champion")
        there = self.gcs.buckets["shop-data"]["home/releases/CURRENT"]
        return (
            stores.champions.promotions,
            champion.tags["custseg.model_version"],
            releases.verify(self.home / "releases", str(releases.current(self.home / "releases"))),
            (there.generation, there.content),
        )


@pytest.fixture
def cloud(
    filled_home: Path, vertex: FakeVertex, gcs: FakeGcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cloud:
    monkeypatch.setattr("custseg_assets.gcp.cloud_jobs.Patience", lambda **_: SHORT_PATIENCE)
    return Cloud(shutil.copytree(filled_home, tmp_path / "home"), vertex, gcs)


def fails(cloud: Cloud) -> None:
    cloud.run_trainer_as("raise SystemExit(5)")


def runs_out_of_memory(cloud: Cloud) -> None:
    cloud.run_trainer_as("raise SystemExit(137)")


def is_preempted(cloud: Cloud) -> None:
    cloud.vertex.at_poll = lambda job: cloud.vertex.preempt() if job.state == State.JOB_STATE_RUNNING else None


def takes_too_long(cloud: Cloud) -> None:
    cloud.run_trainer_as(ASLEEP)
    cloud.timeout_minutes = 0.005


def is_over_quota(cloud: Cloud) -> None:
    cloud.vertex.n_cpus = 0


def may_not_start(cloud: Cloud) -> None:
    cloud.vertex.denied = {"aiplatform.customJobs.create"}


def may_not_act_as_the_trainer(cloud: Cloud) -> None:
    cloud.vertex.denied = {"iam.serviceAccounts.actAs"}


def gets_no_machine(cloud: Cloud) -> None:
    cloud.vertex.has_machines = False


def has_no_image(cloud: Cloud) -> None:
    cloud.vertex.images.clear()


def loses_the_network(cloud: Cloud) -> None:
    def cut(job: Any) -> None:
        if job.state == State.JOB_STATE_RUNNING:
            cloud.vertex.n_unavailable = 10_000

    cloud.run_trainer_as(ASLEEP)
    cloud.vertex.at_poll = cut


def is_cancelled_by_somebody(cloud: Cloud) -> None:
    def cancel(job: Any) -> None:
        if job.state == State.JOB_STATE_RUNNING:
            cloud.vertex.end(State.JOB_STATE_CANCELLED, code_pb2.CANCELLED, "Job was cancelled.")

    cloud.vertex.at_poll = cancel


def leaves_nothing(cloud: Cloud) -> None:
    cloud.run_trainer_as("pass")


def leaves_nonsense(cloud: Cloud) -> None:
    leave = "import sys; from google.cloud import storage; from custseg_assets.gcp.folders import split_uri\n"
    leave += "bucket, prefix = split_uri(sys.argv[4])\n"
    leave += "storage.Client().bucket(bucket).blob(prefix + 'candidates.parquet').upload_from_string('no parquet')"
    cloud.run_trainer_as(leave)


def has_no_bucket(cloud: Cloud) -> None:
    cloud.bucket_url = "http://127.0.0.1:9"


def may_not_write_to_the_bucket(cloud: Cloud) -> None:
    cloud.gcs.denied = {"storage.objects.create"}


FAILURES = {
    fails: r"the container failed .*status of 5.*Its lines above say why",
    runs_out_of_memory: r"ran out of memory .*machine_type with more",
    is_preempted: r"its machine was taken away .*is_spot = false",
    takes_too_long: r"stopped after its time was up .*timeout_minutes",
    is_over_quota: r"quota is used up .*name a smaller machine",
    may_not_start: r"not allowed .*roles/aiplatform\.user",
    may_not_act_as_the_trainer: r"not allowed .*roles/iam\.serviceAccountUser on trainer@shop",
    gets_no_machine: r"got no n1-standard-4 in .*was cancelled.*name another machine_type or location",
    has_no_image: r"image could not be fetched .*artifactregistry\.reader",
    loses_the_network: r"has not answered for .* goes on\. .*start the run again: it follows the job",
    is_cancelled_by_somebody: r"someone cancelled it .*Start it again if that was a mistake",
    leaves_nothing: r"left no candidates\.parquet .*trainer:1 is the trainer of this version",
    leaves_nonsense: r"left a candidates\.parquet that is none.*is the trainer of this version",
    has_no_bucket: r"the bucket, gs://shop-data/.*: no answer .*Check the connection",
    may_not_write_to_the_bucket: r"the bucket, gs://shop-data/.*: not allowed .*roles/storage\.objectUser",
}
"""What happens to a job, and the error that reports it."""


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_when_a_job_does_not_bring_a_challenger_the_champion_stays(cloud: Cloud, failure: Any) -> None:
    before = cloud.read_champion()
    failure(cloud)
    outcome = cloud.retrain()
    assert outcome.status == 1
    [line] = [line for line in outcome.err.splitlines() if line.startswith("custseg: ")]
    assert KEY in line
    assert "The champion stays." in line
    assert re.search(FAILURES[failure], line), line
    assert cloud.read_champion() == before
    assert OpenHome(load_settings(home=cloud.home, environment={})).tables.read(schemas.PROMOTION_DECISION, [KEY])[
        "model_version"
    ].to_list() == [None]


@pytest.mark.parametrize("stray", ["", "nothing that Pipes knows"])
def test_a_job_without_messages_that_can_be_read_is_judged_by_what_it_left(cloud: Cloud, stray: str) -> None:
    """Figures and lines are lost, the challenger is not."""
    code = f"""
import os, runpy, sys
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, decode_param
from google.cloud import storage
to = decode_param(os.environ.pop(DAGSTER_PIPES_MESSAGES_ENV_VAR))
del os.environ[DAGSTER_PIPES_CONTEXT_ENV_VAR]
if {stray!r}:
    storage.Client().bucket(to["bucket"]).blob(to["key_prefix"] + "/1.json").upload_from_string({stray!r})
sys.argv[0] = "trainer"
runpy.run_module("custseg_assets.trainer", run_name="__main__")
"""
    cloud.run_trainer_as(code)
    outcome = cloud.retrain()
    assert outcome.status == 0, outcome.err
    assert ("no Pipes messages and are left out" if stray else "did not receive any messages") in outcome.err
    decided = OpenHome(load_settings(home=cloud.home, environment={})).tables.read(schemas.PROMOTION_DECISION, [KEY])
    assert decided["model_version"].item().startswith(f"m-{KEY}-")


def test_a_run_that_is_cancelled_in_the_pages_cancels_its_job(cloud: Cloud) -> None:
    before = cloud.read_champion()
    cloud.run_trainer_as(ASLEEP)
    with serve_pages(cloud.home, cloud.config_file) as pages:
        run_id = pages.launch("retrain", KEY, ops={"model_candidates": {"config": {"retrain": True}}})
        wait_until(lambda: [job.state for job in cloud.vertex.jobs] == [State.JOB_STATE_RUNNING], seconds=90)
        pages.ask("mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", id=run_id)
        wait_until(lambda: pages.status(run_id) == "CANCELED", seconds=90)
        wait_until(lambda: cloud.vertex.jobs[0].state == State.JOB_STATE_CANCELLED, seconds=90)
    assert cloud.read_champion() == before


def test_a_daemon_that_is_killed_leaves_a_job_that_the_next_run_follows(cloud: Cloud) -> None:
    before = cloud.read_champion()
    with serve_pages(cloud.home, cloud.config_file) as pages:
        pages.launch("retrain", KEY, ops={"model_candidates": {"config": {"retrain": True}}})
        wait_until(lambda: [job.state for job in cloud.vertex.jobs] == [State.JOB_STATE_RUNNING], seconds=90)
        pages.live.kill()
    # The others of the group go in their own time.
    wait_until(lambda: not Home(cloud.home).is_locked(), seconds=90)
    assert cloud.read_champion() == before
    outcome = cloud.retrain()
    assert outcome.status == 0, outcome.err
    [job] = cloud.vertex.jobs
    assert f"following job {cloud.vertex.told(job.name)}" in outcome.err


def test_a_release_that_does_not_reach_the_bucket_is_brought_there_when_it_can_be(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bucket.__init__, "__defaults__", (0.5, releases.accept_manifest))
    before = cloud.read_champion()
    landing = cloud.home / "landing"
    landing.mkdir()
    write_log(shop_log(1, date(2024, 5, 1)), landing / "may.csv")
    settings = load_settings(cloud.config_file, home=cloud.home, environment={})
    asked = run_sensors(settings, CLOSED)
    with quiet():
        assert [next(asked), next(asked)] == ["take_in (landing)", "ingest 2024-05-01 (stale_partitions)"]
        cloud.gcs.denied = {"storage.objects.create"}
        with pytest.raises(
            RunFailedError, match=r"serving_release failed: .*gs://shop-data/home/releases/.*docs/gcp.md"
        ):
            next(asked)
        assert cloud.read_champion()[-1] == before[-1]
        cloud.gcs.denied = set()
        assert list(run_sensors(settings, CLOSED)) == ["segment 2024-05-01 (stale_partitions)"]
    there = cloud.gcs.buckets["shop-data"]["home/releases/CURRENT"].content.decode().strip()
    assert there == releases.current(cloud.home / "releases")
    assert there.startswith("r-2024-05-01-")


def test_a_load_that_bigquery_rejects_in_part_is_announced_when_all_of_it_is_there(cloud: Cloud) -> None:
    with FakeBigQuery("shop") as bigquery:
        cloud.bigquery = bigquery
        bigquery.add_dataset("segments")
        before = cloud.read_champion()
        log = write_log(shop_log(5), cloud.home.with_name("longer.csv"))
        assert custseg(cloud.home, "run", "--reconfigure", config=cloud.config_file).status == 0
        announced = bigquery.rows("segments.published_snapshots")
        bigquery.reject_loads_of = {"segment_profiles"}
        outcome = custseg(cloud.home, "run", "--reconfigure", "--source", log, config=cloud.config_file)
        assert outcome.status == 1
        assert re.search(r"segment_profiles.20240501: .*at row 2.*is not announced.*Run it again", outcome.err)
        assert bigquery.rows("segments.published_snapshots").equals(announced)
        assert set(bigquery.query("SELECT period FROM segments.current_segments")["period"]) == {date(2024, 4, 1)}
        # The champion stays in force, and the new snapshot is served: publishing holds nothing up.
        assert cloud.read_champion()[:2] == before[:2]
        assert cloud.read_champion()[3][1].startswith(b"r-2024-05-01-")
        again = custseg(cloud.home, "run", "--reconfigure", "--source", log, config=cloud.config_file)
        assert again.status == 0, again.err
        assert date(2024, 5, 1) in bigquery.rows("segments.published_snapshots")["period"].to_list()
