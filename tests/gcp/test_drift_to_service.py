"""From a file that lands in the bucket to the answer of the service, with nobody doing anything in between.

Customers begin to order by the case. The sensors of ``custseg ui`` are evaluated and the runs that they request are
executed, with Google's client libraries and fakes on loopback. Played from the same home: the challenger is trained on
Vertex AI and on this machine, and on Vertex AI again while the answer to every request is lost once, and while every
request is answered with 503 and 429 and cut off, twice each, before it is taken. At the end a person deploys the model.
"""

from __future__ import annotations

import gc
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from flask.testing import FlaskClient
from google.cloud.bigquery.retry import DEFAULT_RETRY as BIGQUERY_RETRY
from google.cloud.storage.retry import DEFAULT_RETRY
from polars.testing import assert_frame_equal

from custseg_assets.domain import schemas
from custseg_assets.home.evidence import decide_about_retrain
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings, load_settings
from custseg_assets.stores import releases
from custseg_assets.stores.home import Home
from custseg_serving.settings import ServingSettings
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.fakes.clock import wait_on_this_clock
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.vertex import FakeVertex, State
from tests.support.gcp_daemon import run_sensors
from tests.support.gcp_pieces import SHORT_PATIENCE, hurry, images
from tests.support.places import PLACE, URI, cloud_config
from tests.support.server import open_app
from tests.support.shops import Kind, custseg, fill_shop, quiet, shop_log, write_log
from tests.support.waiting import wait_until

pytestmark = pytest.mark.gcp

USUAL = (Kind(300, 4, 1, 12), Kind(300, 1, 1, 4), Kind(400, 1 / 3, 1, 1))
BY_THE_CASE = tuple(replace(kind, units=4 * kind.units) for kind in USUAL)
KEY, DAY = "2024-05-01", date(2024, 5, 1)
CLOSED = datetime(2024, 6, 1, 6)
CUSTOMER = "A000"
TRAINED = (schemas.MODEL_CANDIDATES, schemas.SEGMENTATION_MODEL, schemas.PROMOTION_DECISION)


@dataclass(frozen=True)
class PlayResult:
    """The result of playing the story once.

    Attributes:
        runs: the Dagster runs, in order, each with the sensor that asked for it.
        tables: of the home, by name.
        published: rows of the snapshot in BigQuery, by table.
        answers: of the service about one customer, before the retrain and at the end.
        released: manifest of what ``CURRENT`` in the bucket names.
        jobs: on Vertex AI.
        files: names of the objects that passed to the job and back.
        left: names of all other objects in the bucket.
        loads: partitions that were loaded into BigQuery, in order.
        deployments: on the endpoint of Vertex AI, by version, with their share of the traffic.
        n_operations: how many long operations Vertex AI has begun on models and endpoints.
        n_lost: how many answers were lost.
        n_refused: how many requests were answered with a trouble.
    """

    runs: tuple[str, ...]
    tables: dict[str, pl.DataFrame]
    published: dict[str, pl.DataFrame]
    answers: tuple[dict[str, Any], ...]
    released: releases.ReleaseManifest
    jobs: Sequence[Any]
    files: Sequence[str]
    left: Sequence[str]
    loads: Sequence[str]
    deployments: dict[str, int]
    n_operations: int
    n_lost: int
    n_refused: int


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home on disk with three snapshots, the last one a month after the change."""
    log = pl.concat([shop_log(3, kinds=USUAL), shop_log(1, date(2024, 4, 1), BY_THE_CASE)])
    return fill_shop(tmp_path_factory.mktemp("drift"), log).home


@pytest.fixture(scope="module")
def on_vertex(shop: Path) -> PlayResult:
    return play(shop, "vertex")


@pytest.fixture(scope="module")
def on_this_machine(shop: Path) -> PlayResult:
    return play(shop, "local")


@pytest.fixture(scope="module")
def with_lost_answers(shop: Path) -> PlayResult:
    return play(shop, "lost", loses_answers=True)


@pytest.fixture(scope="module")
def with_a_busy_service(shop: Path) -> PlayResult:
    return play(shop, "busy", troubles=(503, 503, 429, 429, 0, 0))


def play(shop: Path, name: str, *, loses_answers: bool = False, troubles: Sequence[int] = ()) -> PlayResult:
    """Put May's file into the bucket, run what the sensors request until nothing is left, and deploy the model."""
    home, runner = shutil.copytree(shop, shop.with_name(name)), "local" if name == "local" else "vertex"
    with (
        FakeGcs("shop-data") as gcs,
        FakeVertex("shop", "europe-west1", images(is_quick=bool(troubles))) as vertex,
        FakeBigQuery("shop") as bigquery,
        pytest.MonkeyPatch.context() as patch,
        quiet(),
    ):
        bigquery.add_dataset("segments")
        # None of the roles in docs/gcp.md has it.
        gcs.denied = {"storage.buckets.get"}
        vertex.add_endpoint("77")
        # How the service finds the bucket: the variable that Google's client reads.
        patch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        hurry(patch)
        for fake in (gcs, vertex, bigquery):
            fake.loses_answers, fake.troubles = loses_answers, troubles
        wait_on_this_clock(patch)
        patch.setattr("google.cloud.storage.retry.DEFAULT_RETRY", DEFAULT_RETRY.with_delay(0.01, 0.1))
        patch.setattr("custseg_assets.gcp.bigquery.DEFAULT_RETRY", BIGQUERY_RETRY.with_delay(0.01, 0.1))
        # Six failures of each request of an operation take longer than the two minutes after which it is an outage.
        patch.setattr("custseg_assets.gcp.vertex_models._PATIENCE_SECONDS", 1200.0)
        patch.setattr("custseg_assets.gcp.cloud_jobs.Patience", lambda **_: replace(SHORT_PATIENCE, silence=60))
        may = write_log(shop_log(1, DAY, BY_THE_CASE), home.with_name("may.csv"))
        gcs.put("shop-data", "home/landing/may.csv", may.read_bytes())
        settings = settings_of(home, runner, vertex, gcs, bigquery)
        asked = run_sensors(settings, CLOSED)
        runs = []
        for run in asked:
            runs.append(run)
            if run == f"snapshot {KEY} (stale_partitions)":
                break
        cache = home.with_name(f"{home.name}-service")
        cache.mkdir()
        followed = ServingSettings(cache, is_open=True, follow=URI, follow_seconds=0.2, rotate_seconds=3600)
        with open_app(followed) as application:
            service = application.test_client()
            wait_until(lambda: service.get("/readyz").status_code == 200, seconds=120)
            before = answer_of(service)
            runs += asked
            stores = OpenHome(settings)
            released = releases.verify(Home(home).releases, str(releases.current(Home(home).releases)))
            wait_until(lambda: answer_of(service)["release_id"] == released.release_id, seconds=120)
            answers = (before, answer_of(service))
        for command in ("canary", "full") if runner == "vertex" else ():
            outcome = custseg(home, "vertex", command, config=home.with_name(f"{home.name}.toml"))
            assert outcome.status == 0, outcome.err
        assert gcs.buckets["shop-data"]["home/releases/CURRENT"].content == f"{released.release_id}\n".encode()
        gc.collect()
        tables = (*TRAINED, schemas.SEGMENT_ASSIGNMENTS, schemas.SEGMENT_PROFILES, schemas.RETRAIN_DECISION)
        return PlayResult(
            runs=tuple(runs),
            tables={table.name: stores.tables.read(table, [KEY]) for table in tables},
            published={
                name: bigquery.rows(f"segments.{name}").filter(pl.col("period") == DAY)
                for name in ("segment_assignments", "segment_profiles", "drift_report", "published_snapshots")
            },
            answers=answers,
            released=released,
            jobs=vertex.jobs,
            files=gcs.names("shop-data", "custseg/jobs/"),
            left=[name for name in gcs.names("shop-data") if not name.startswith("custseg/jobs/")],
            loads=bigquery.loads(),
            deployments={
                each.model.rpartition("/")[2]: vertex.endpoints["77"].traffic_split[each.id]
                for each in vertex.endpoints["77"].deployed_models
            },
            n_operations=vertex.n_operations,
            n_lost=sum(fake.n_lost for fake in (gcs, vertex, bigquery)),
            n_refused=sum(fake.n_refused for fake in (gcs, vertex, bigquery)),
        )


def settings_of(home: Path, runner: str, vertex: FakeVertex, gcs: FakeGcs, bigquery: FakeBigQuery) -> Settings:
    """Settings of a small shop: gate, drift and sensors by default, and the addresses of the fakes."""
    config = home.with_name(f"{home.name}.toml")
    config.write_text(
        cloud_config(
            "[landing]\nsettle_seconds = 0",
            **PLACE,
            storage={"uri": URI},
            bigquery={"dataset": "segments"},
            training={"image": "trainer:1"} if runner == "vertex" else {},
            serving={"image": "serving:1", "endpoint": "77"} if runner == "vertex" else {},
            endpoints={"aiplatform": vertex.url, "storage": gcs.url, "bigquery": bigquery.url},
        )
    )
    return load_settings(config, home=home, environment={})


def answer_of(service: FlaskClient) -> dict[str, Any]:
    response = service.get(f"/v1/customers/{CUSTOMER}/segment")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.get_json()
    return answer


def without_age(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "staleness"}


@pytest.fixture(params=["on_vertex", "on_this_machine", "with_lost_answers", "with_a_busy_service"])
def played(request: pytest.FixtureRequest) -> PlayResult:
    return request.getfixturevalue(request.param)


def test_lasting_drift_leads_to_a_challenger_that_the_service_answers_with(played: PlayResult) -> None:
    assert played.runs == (
        "take_in (landing)",
        f"ingest {KEY} (stale_partitions)",
        f"snapshot {KEY} (stale_partitions)",
        f"retrain {KEY} (retrain_on_drift)",
        f"segment {KEY} (stale_partitions)",
        "publish (publishing)",
    )
    [retrain] = played.tables["retrain_decision"].rows(named=True)
    assert retrain["decision"] == "RETRAIN"
    assert "(2024-04-01, 2024-05-01); it takes 2 of 3" in retrain["reasons"]
    [promotion] = played.tables["promotion_decision"].rows(named=True)
    assert (promotion["decision"], promotion["decided_by"]) == ("PROMOTE", "gate")
    assert "it foresees more: " in promotion["reasons"]
    challenger, champion = promotion["model_version"], promotion["champion_before"]
    assert challenger.startswith(f"m-{KEY}-")

    before, after = played.answers
    assert (before["model_version"], after["model_version"]) == (champion, challenger)
    assert played.released.model_version == challenger
    assert played.tables["segment_assignments"]["model_version"].unique().to_list() == [challenger]


def test_bigquery_has_the_rows_of_the_new_model(played: PlayResult) -> None:
    mine = played.tables["segment_assignments"].with_columns(pl.col("period").str.to_date())
    theirs = played.published["segment_assignments"].select(mine.columns)
    assert_frame_equal(theirs.sort("customer_id"), mine.sort("customer_id"))
    assert played.published["published_snapshots"].height == 1
    assert played.published["drift_report"].height > 0


def test_the_job_ran_on_vertex_and_its_messages_came_through_the_bucket(on_vertex: PlayResult) -> None:
    [job] = on_vertex.jobs
    assert job.state == State.JOB_STATE_SUCCEEDED
    assert job.labels["snapshot"] == KEY
    [pool] = job.job_spec.worker_pool_specs
    assert pool.container_spec.image_uri == "trainer:1"
    place = f"custseg/jobs/{job.labels['dagster-key']}"
    passed = [name.removeprefix(f"{place}/") for name in on_vertex.files]
    assert {"in/features.parquet", "in/champion.json", "out/candidates.parquet", "out/model.json"} <= set(passed)
    assert any("/messages/" in name for name in passed)


def test_what_the_job_may_cost_stands_in_the_decision_before_it(on_vertex: PlayResult) -> None:
    # 60 minutes at 0.218499; the model of February counts as much.
    words = "trainings of the quarter count as 0.22 USD and another can cost 0.22; allowed are 10.00"
    assert words in on_vertex.tables["retrain_decision"]["reasons"].item()


def test_a_budget_that_is_used_up_is_decided_about_anew_and_one_that_is_not_changes_nothing(shop: Path) -> None:
    def with_budget(budget: float) -> OpenHome:
        config = shop.with_name("budget.toml")
        config.write_text(cloud_config(**PLACE, training={"image": "trainer:1", "max_cost_per_quarter": budget}))
        return OpenHome(load_settings(config, home=shop, environment={}))

    keys = ["2024-02-01", "2024-03-01", "2024-04-01"]
    assert with_budget(10).fingerprints.stale(("retrain_decision",), keys) == ()
    # The model of February counts from March on.
    assert with_budget(0.3).fingerprints.stale(("retrain_decision",), keys) == ("2024-03-01", "2024-04-01")
    reports = with_budget(0.3).tables.read(schemas.DRIFT_REPORT)
    decided = decide_about_retrain(with_budget(0.3), "2024-04-01", reports)
    words = "another can cost 0.22; allowed are 0.30 ([gcp.training] max_cost_per_quarter)"
    assert any(words in reason for reason in decided.reasons)


def test_without_an_image_nothing_is_asked_of_vertex(on_this_machine: PlayResult) -> None:
    assert (on_this_machine.jobs, on_this_machine.files) == ([], [])


def test_it_makes_no_difference_where_the_challenger_was_trained(
    on_vertex: PlayResult, on_this_machine: PlayResult
) -> None:
    assert_same(on_vertex, on_this_machine)


@pytest.mark.parametrize("disturbed", ["with_lost_answers", "with_a_busy_service"])
def test_lost_answers_and_a_busy_service_make_no_difference_and_leave_nothing(
    disturbed: str, on_vertex: PlayResult, request: pytest.FixtureRequest
) -> None:
    played: PlayResult = request.getfixturevalue(disturbed)
    assert played.n_lost + played.n_refused > 100
    assert_same(played, on_vertex)
    assert len(played.jobs) == 1
    assert played.loads == on_vertex.loads
    assert played.deployments == on_vertex.deployments == {"custseg-segmentation@1": 100}
    # The upload of the version and its deployment.
    assert played.n_operations == on_vertex.n_operations == 2
    assert without_log(played.left) == without_log(on_vertex.left)
    assert not any(name.startswith("home/landing/") for name in played.left)


def without_log(names: Sequence[str]) -> list[str]:
    """Names without what differs from time to time: the parts of the prediction log, and generations."""
    kept = (name for name in names if not name.startswith("home/prediction_log/"))
    return [re.sub(r"^(home/landing_fetched)/\d+/", r"\1/", name) for name in kept]


def assert_same(on_vertex: PlayResult, on_this_machine: PlayResult) -> None:
    """Whole-run results are equal."""
    # Why to retrain says what it may cost, where it costs anything.
    costs = {"retrain_decision": ["reasons"]}
    for name, mine in on_this_machine.tables.items():
        unlike = costs.get(name, [])
        assert_frame_equal(on_vertex.tables[name].drop(unlike), mine.drop(unlike))
    for name, mine in on_this_machine.published.items():
        order = sorted(mine.columns)
        assert_frame_equal(on_vertex.published[name].sort(order), mine.sort(order))
    # How old a snapshot is follows the clock, and midnight may have come between the two.
    mine, theirs = ([without_age(one) for one in played.answers] for played in (on_this_machine, on_vertex))
    assert theirs == mine
    assert on_vertex.released == on_this_machine.released
