"""Sensors, the schedule, retraining, a person's word and replay, on real runs."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from polars.testing import assert_frame_equal
from pydantic import SecretStr

from custseg_assets.commands.replay import Replay
from custseg_assets.definitions import build_defs
from custseg_assets.defs.automation import TickSource
from custseg_assets.domain import schemas
from custseg_assets.expectations import data_docs
from custseg_assets.home.calendar import Calendar
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import TABLES_OF_JOB, due_retrain
from custseg_assets.run_workers import close_abandoned
from custseg_assets.settings import Settings, load_settings
from custseg_assets.stores import releases
from custseg_assets.stores.alerts import AlertLog
from tests.support.comparison import partitions
from tests.support.homes import take_in
from tests.support.shops import QUICK, Outcome, custseg, shop_log, write_log

SNAPSHOTS = ["2024-02-01", "2024-03-01", "2024-04-01"]
LATER = datetime(2024, 6, 1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three snapshots and a model; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("automation")
    outcome = custseg(folder / "home", "run", "--source", write_log(shop_log(4), folder / "log.csv"), config=QUICK)
    assert outcome.status == 0, outcome.err
    return folder / "home"


@pytest.fixture
def copy(filled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(filled, tmp_path / "home")


def test_every_definition_loads_as_dagsters_pages_load_them(tmp_path: Path) -> None:
    """Names that a job and an asset's op share are found only here, when everything is loaded together."""
    definitions = build_defs(settings=Settings(home=tmp_path / "home"))
    with warnings.catch_warnings():
        # Dagster warns of jobs whose assets have different partitions.
        warnings.simplefilter("ignore")
        definitions.get_repository_def().load_all_definitions()


def settings_of(home: Path, more: str = "") -> Settings:
    config = home.with_name("custseg.toml")
    config.write_text(QUICK + more, encoding="utf-8")
    return load_settings(config, home=home, environment={})


def opened(home: Path, more: str = "") -> OpenHome:
    return OpenHome(settings_of(home, more))


def asked(home: Path, sensor: str, instance: dg.DagsterInstance, now: datetime = LATER, more: str = "") -> Any:
    """What a sensor answers: the run it asks for, or why it asks for none."""
    loaded = build_defs(settings=settings_of(home, more), ticks=TickSource(lambda: now, instance)).get_repository_def()
    found = loaded.get_sensor_def(sensor).evaluate_tick(
        dg.build_sensor_context(instance=instance, repository_def=loaded)
    )
    return found.run_requests[0] if found.run_requests else found.skip_message


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_where_everything_is_up_to_date_no_sensor_asks_for_anything(filled: Path, instance: dg.DagsterInstance) -> None:
    assert asked(filled, "landing", instance).startswith("no whole file waits in ")
    assert asked(filled, "stale_partitions", instance) == "everything is up to date, snapshots up to 2024-04-01"
    assert asked(filled, "retrain_on_drift", instance).startswith("2024-04-01: WAIT, the newest drift report says")


def test_a_file_that_lands_is_asked_for_once_it_is_whole(copy: Path, instance: dg.DagsterInstance) -> None:
    landing = copy / "landing"
    landing.mkdir()
    write_log(shop_log(5).tail(50), landing / "may.csv")
    assert "no whole file" in asked(copy, "landing", instance, more="[landing]\nsettle_seconds = 60\n")
    request = asked(copy, "landing", instance, more="[landing]\nsettle_seconds = 0\n")
    assert (request.job_name, request.partition_key) == ("take_in", None)


def test_a_snapshot_is_taken_when_its_period_is_over_and_not_before(
    copy: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    longer = write_log(shop_log(5), tmp_path / "longer.csv")
    taken_in(copy, longer)
    ingest = asked(copy, "stale_partitions", instance, datetime(2024, 5, 20))
    assert (ingest.job_name, ingest.partition_key) == ("ingest", "2024-05-01")
    custseg_job(copy, "ingest", "2024-05-01")
    assert "everything is up to date" in asked(copy, "stale_partitions", instance, datetime(2024, 6, 1, 5, 59))
    closed = asked(copy, "stale_partitions", instance, datetime(2024, 6, 1, 6))
    assert (closed.job_name, closed.partition_key) == ("snapshot", "2024-05-01")


def test_what_failed_twice_on_the_same_data_waits_for_a_person(
    copy: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    taken_in(copy, write_log(shop_log(5), tmp_path / "longer.csv"))
    first = asked(copy, "stale_partitions", instance)
    for _ in range(2):
        assert asked(copy, "stale_partitions", instance).tags == first.tags
        run = instance.create_run_for_job(failing_job(), tags=dict(first.tags))
        instance.report_run_failed(run, "it broke")
    said = asked(copy, "stale_partitions", instance)
    assert said.startswith("ingest 2024-05-01 failed 2 times, last in run ")
    assert said.endswith("launch the job ingest by hand.")


def test_what_was_killed_however_often_is_asked_for_again(
    copy: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    taken_in(copy, write_log(shop_log(5), tmp_path / "longer.csv"))
    first = asked(copy, "stale_partitions", instance)
    keys = [first.run_key]
    for _ in range(3):
        run = instance.create_run_for_job(
            failing_job(), status=dg.DagsterRunStatus.STARTED, tags={**first.tags, "dagster/run_key": keys[-1]}
        )
        close_abandoned(instance, [run])
        keys.append(asked(copy, "stale_partitions", instance).run_key)
    assert len({*keys}) == 4  # Dagster starts nothing twice under one key


def test_a_home_in_use_is_left_alone(copy: Path, instance: dg.DagsterInstance) -> None:
    with opened(copy).paths.locked():
        assert asked(copy, "stale_partitions", instance) == f"another process is using home {copy}"
    assert asked(copy, "stale_partitions", instance).startswith("everything is up to date")


def test_a_run_that_is_going_on_is_waited_for(copy: Path, instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(failing_job(), status=dg.DagsterRunStatus.STARTED)
    assert asked(copy, "stale_partitions", instance) == f"run {run.run_id} of ingest is not over yet"


@pytest.mark.parametrize(
    ("newest", "words"),
    [
        (None, "no drift report has been decided about yet"),
        ({"period": "2024-04-01", "decision": "WAIT", "reasons": '["too early"]'}, "2024-04-01: WAIT, too early"),
        (
            {"period": "2024-03-01", "decision": "RETRAIN", "reasons": "[]"},
            "2024-03-01 asks for a retrain, but 2024-04-01 is the newest snapshot",
        ),
        ({"period": "2024-04-01", "decision": "RETRAIN", "reasons": "[]"}, "retrain 2024-04-01"),
    ],
)
def test_a_retrain_is_due_only_for_the_newest_snapshot(filled: Path, newest: Any, words: str) -> None:
    assert str(due_retrain(opened(filled), newest)) == words


def test_a_retrain_out_of_process_is_judged_and_stays_in_the_history(copy: Path) -> None:
    outcome = custseg(copy, "retrain", config=QUICK)
    assert outcome.status == 0, outcome.err
    made = opened(copy)
    row = made.tables.read(schemas.PROMOTION_DECISION, ["2024-04-01"]).row(0, named=True)
    assert row["model_version"].startswith("m-2024-04-01-")
    assert row["decision"] in outcome.out
    assert "k = 3" in outcome.err  # the trainer's own lines
    assert made.champions.is_retrained("2024-04-01")
    # What was trained is history: the next run leaves it alone.
    again = custseg(copy, "run", config=QUICK)
    assert "Nothing has changed" in again.out
    due = due_retrain(made, {"period": "2024-04-01", "decision": "RETRAIN", "reasons": "[]"})
    assert due == "a challenger was trained on 2024-04-01 and decided about already"


def test_a_person_puts_a_challenger_in_force_and_takes_it_back(copy: Path) -> None:
    first = opened(copy).champions.promotions[-1][1]
    assert custseg(copy, "retrain", config=QUICK).status == 0
    version = opened(copy).tables.read(schemas.SEGMENTATION_MODEL, ["2024-04-01"])["model_version"].item()
    before = served(copy)
    if opened(copy).champions.promotions[-1][1] != version:
        promoted = custseg(copy, "promote", version, "--by", "Ada", "--why", "I want it", config=QUICK)
        assert promoted.status == 0, promoted.err
        assert promoted.out == f"{version} is in force instead of {first}\n"
        row = opened(copy).tables.read(schemas.PROMOTION_DECISION, ["2024-04-01"]).row(0, named=True)
        assert (row["decision"], row["decided_by"]) == ("PROMOTE", "Ada")
        assert json.loads(row["reasons"])[0] == "I want it"
        assert decided_in_registry(copy) == {"decision": "PROMOTE", "decided_by": "Ada", "replaces": first}
        origin = newest_metadata(copy, "promotion_decision")["origin"].value
        assert (origin["model"], origin["decided_by"], origin["replaces"]) == (version, "Ada", first)
        assert list(origin["data_versions"]["clean_transactions"]) == SNAPSHOTS[1:]
        assert origin["settings"]["model"]["k_range"] == [3, 4]
    assert served(copy).model_version == version
    assert champion_in_registry(copy) == version
    back = custseg(copy, "rollback", "--by", "Ada", "--why", "worse after all", config=QUICK)
    assert back.status == 0, back.err
    assert served(copy).model_version == first
    assert champion_in_registry(copy) == first
    assert served(copy).release_id == before.release_id or served(copy).period == before.period
    assert "Nothing has changed" in custseg(copy, "run", config=QUICK).out
    row = opened(copy).tables.read(schemas.PROMOTION_DECISION, ["2024-04-01"]).row(0, named=True)
    assert (row["decision"], row["decided_by"]) == ("ROLLBACK", "Ada")


def test_without_a_champion_before_there_is_nothing_to_roll_back_to(copy: Path) -> None:
    outcome = custseg(copy, "rollback", "--why", "no reason", config=QUICK)
    assert outcome.status == 2
    assert "expected a champion before the present one" in outcome.err


def test_a_challenger_that_is_not_there_cannot_be_promoted(copy: Path) -> None:
    outcome = custseg(copy, "promote", "m-2024-04-01-00000000", "--why", "no reason", config=QUICK)
    assert outcome.status == 2
    assert "there is none" in outcome.err


def test_a_trainer_that_takes_too_long_is_stopped_and_the_champion_stays(copy: Path) -> None:
    before = opened(copy).champions.promotions
    outcome = custseg(copy, "retrain", config=QUICK + "[training]\ntimeout_minutes = 0.001\n")
    assert outcome.status == 1
    assert "the trainer of 2024-04-01 was stopped after 0.001 minutes. The champion stays." in outcome.err
    assert opened(copy).champions.promotions == before
    # The record of the snapshot is put right by the next run, and nothing else was touched.
    after = custseg(copy, "run", config=QUICK)
    assert after.status == 0, after.err
    assert opened(copy).champions.promotions == before


def test_an_alert_is_a_line_to_read_and_a_post_that_never_says_where_to(tmp_path: Path) -> None:
    posted: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/s3cret"
        said = AlertLog(tmp_path / "alerts.log", SecretStr(address)).add(datetime(2024, 5, 1, 6), "run 1\nfailed")
        server.shutdown()
    assert said == "2024-05-01T06:00:00Z run 1 failed (posted to the webhook)"
    assert json.loads(posted[0]) == {"text": "2024-05-01T06:00:00Z run 1 failed"}
    log = AlertLog(tmp_path / "alerts.log", SecretStr(address))
    missed = log.add(datetime(2024, 5, 2), "again")
    assert "the webhook could not be reached" in missed
    assert "s3cret" not in missed
    assert log.newest(1) == ["2024-05-02T00:00:00Z again"]


def test_a_failed_run_leaves_an_alert_that_says_where_to_look(copy: Path, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings=settings_of(copy))
    sensor = definitions.get_repository_def().get_sensor_def("alert_on_failure")
    result = failing_job().execute_in_process(instance=instance, raise_on_error=False)
    failure = next(event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_on_failure", dagster_event=failure, dagster_instance=instance, dagster_run=result.dagster_run
    ).for_run_failure()
    sensor(context)
    [line] = AlertLog(copy / "alerts.log").newest(5)
    assert f"run {result.run_id} of ingest" in line
    assert "breaks: ValueError: it broke" in line


@pytest.fixture(scope="module")
def replayed(filled: Path) -> tuple[Outcome, Outcome, Path, Path]:
    """Two replays of the same home, and the homes they were played in."""
    kept, kept_again = filled.with_name("kept"), filled.with_name("kept_again")
    first = custseg(filled, "replay", "--keep", kept, config=QUICK)
    return first, custseg(filled, "replay", "--keep", kept_again, config=QUICK), kept, kept_again


def test_every_run_of_a_replay_is_started_by_a_sensor_or_the_schedule(replayed: Any) -> None:
    first, *_ = replayed
    assert first.status == 0, first.err
    runs = {line[:10]: line[12:].split(", ") for line in first.out.splitlines() if " (sensor " in line}
    assert list(runs) == SNAPSHOTS
    assert runs[SNAPSHOTS[0]] == [
        "take_in (sensor landing)",
        "ingest 2024-02-01 (sensor stale_partitions)",
        "features 2024-02-01 (sensor stale_partitions)",
        "train 2024-02-01 (sensor stale_partitions)",
        "segment 2024-02-01 (sensor stale_partitions)",
    ]
    assert runs[SNAPSHOTS[1]] == [
        "take_in (sensor landing)",
        "ingest 2024-03-01 (sensor stale_partitions)",
        "snapshot 2024-03-01 (schedule close_period)",
    ]


def test_a_second_replay_is_the_same(replayed: Any) -> None:
    first, second, kept, kept_again = replayed
    assert without_seconds(first) == without_seconds(second)
    tables = sorted(folder.name for folder in (kept / "tables").iterdir())
    assert set(TABLES_OF_JOB["snapshot"]) <= set(tables)
    for name in tables:
        left, right = partitions(kept / "tables" / name), partitions(kept_again / "tables" / name)
        assert list(left) == list(right), name
        assert [key for key, rows in left.items() if not rows.equals(right[key])] == [], name


def test_a_replay_that_is_not_kept_goes_the_same_way_without_drawing_what_nobody_sees(
    replayed: Any, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, kept, _ = replayed

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setattr(FigureCanvasAgg, "draw", refuse)
    monkeypatch.setattr(data_docs, "write_page", refuse)
    alone = custseg(filled, "replay", "--to", SNAPSHOTS[0], config=QUICK)
    assert alone.status == 0, alone.err
    assert without_seconds(alone)[:2] == without_seconds(first)[:2]
    assert "data:image/png;base64,iVBOR" in newest_metadata(kept, "drift_report")["over_time"].value
    assert (kept / "data_docs" / "index.html").exists()


def test_a_replay_makes_the_tables_that_a_run_makes(replayed: Any, filled: Path) -> None:
    _, _, kept, _ = replayed
    played, ran = opened(kept), opened(filled)
    for table in (
        schemas.CUSTOMER_FEATURES,
        schemas.SEGMENT_ASSIGNMENTS,
        schemas.DRIFT_REPORT,
        schemas.CLEAN_TRANSACTIONS,
    ):
        left, right = played.tables.read(table), ran.tables.read(table)
        columns = [name for name in table.schema.names() if name not in ("source_file", "source_row")]
        assert_frame_equal(
            left.select(columns), right.select(columns), check_row_order=table.name != "clean_transactions"
        )


def test_a_replay_reaches_no_cloud_and_no_tracking_server(filled: Path, tmp_path: Path) -> None:
    more = """
[tracking]
uri = "http://127.0.0.1:9"
[gcp]
project = "shop"
location = "europe-west1"
bucket = "shop-data"
[gcp.storage]
uri = "gs://shop-data/home"
[gcp.bigquery]
dataset = "segments"
[gcp.training]
image = "trainer:1"
"""
    played = Replay(opened(filled, more), tmp_path / "home", is_kept=False).home.settings
    assert (played.gcp, played.tracking) == (Settings().gcp, Settings().tracking)
    assert (played.model, played.retrain) == (settings_of(filled).model, settings_of(filled).retrain)


def test_a_replay_of_what_is_not_there_is_refused(filled: Path) -> None:
    outcome = custseg(filled, "replay", "--from", "2023-01-01", config=QUICK)
    assert outcome.status == 2
    assert "snapshot 2023-01-01; expected one of 2024-02-01" in outcome.err


def without_seconds(outcome: Outcome) -> list[list[str]]:
    rows = [line.split() for line in outcome.out.splitlines()]
    return [row[:-1] if row and row[0] in SNAPSHOTS else row for row in rows]


def served(home: Path) -> releases.ReleaseManifest:
    return releases.verify(home / "releases", str(releases.current(home / "releases")))


def champion_in_registry(home: Path) -> str:
    registry = opened(home).registry
    version = registry.client().get_model_version_by_alias(registry.registered_model, "champion")
    return str(version.tags["custseg.model_version"])


def decided_in_registry(home: Path) -> dict[str, str]:
    """What MLflow's run of the champion says was decided about it, by whom, and what it replaced."""
    registry = opened(home).registry
    version = registry.client().get_model_version_by_alias(registry.registered_model, "champion")
    tags = registry.client().get_run(version.run_id).data.tags
    return {name: tags[name] for name in ("decision", "decided_by", "replaces")}


def newest_metadata(home: Path, asset: str) -> Any:
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata


def taken_in(home: Path, source: Path) -> Calendar:
    """Another source for a home, with nothing made of it yet."""
    settings = settings_of(home).model_copy(update={"source": load_settings(source=str(source), environment={}).source})
    take_in(settings)
    return opened(home).calendar


def custseg_job(home: Path, job: str, key: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        made = build_defs(settings=settings_of(home)).resolve_job_def(job)
        assert made.execute_in_process(instance=instance, partition_key=key).success


def failing_job() -> dg.JobDefinition:
    @dg.op
    def breaks() -> None:
        raise ValueError("it broke")

    @dg.job(name="ingest")
    def ingest() -> None:
        breaks()

    return ingest
