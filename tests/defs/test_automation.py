"""Sensors, the schedule and alerts, on real runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from custseg_assets.definitions import build_defs
from custseg_assets.defs.abandoned import close_abandoned
from custseg_assets.defs.automation import TickSource
from custseg_assets.domain.schemas import CUSTOMER_FEATURES
from custseg_assets.home.calendar import Calendar
from custseg_assets.settings import Settings, load_settings
from custseg_assets.stores.alerts import AlertLog
from custseg_assets.stores.files import write_state
from tests.support.homes import open_quick, quick_settings, take_in
from tests.support.model_repositories import git
from tests.support.shops import FilledShop, fill_shop, shop_log, write_log

LATER = datetime(2024, 6, 1)


def test_every_definition_loads_as_dagsters_pages_load_them(tmp_path: Path) -> None:
    """Names that a job and an asset's op share are found only here, when everything is loaded together."""
    definitions = build_defs(settings=Settings(home=tmp_path / "home"))
    with warnings.catch_warnings():
        # Dagster warns of jobs whose assets have different partitions.
        warnings.simplefilter("ignore")
        definitions.get_repository_def().load_all_definitions()


def asked(home: Path, sensor: str, instance: dg.DagsterInstance, now: datetime = LATER, more: str = "") -> Any:
    """What a sensor answers: the run it asks for, or why it asks for none."""
    return tick(home, sensor, instance, now, more)[0]


def tick(
    home: Path, sensor: str, instance: dg.DagsterInstance, now: datetime, more: str = "", cursor: str | None = None
) -> tuple[Any, str | None]:
    """What a sensor answers, and what it remembers until its next look."""
    loaded = build_defs(
        settings=quick_settings(home, more), ticks=TickSource(lambda: now, instance)
    ).get_repository_def()
    found = loaded.get_sensor_def(sensor).evaluate_tick(
        dg.build_sensor_context(instance=instance, repository_def=loaded, cursor=cursor)
    )
    return found.run_requests[0] if found.run_requests else found.skip_message, found.cursor


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_where_everything_is_up_to_date_no_sensor_asks_for_anything(
    filled_shop: FilledShop, instance: dg.DagsterInstance
) -> None:
    assert asked(filled_shop.home, "landing", instance).startswith("no whole file waits in ")
    assert (
        asked(filled_shop.home, "stale_partitions", instance) == "everything is up to date, snapshots up to 2024-04-01"
    )
    assert asked(filled_shop.home, "retrain_on_drift", instance).startswith(
        "2024-04-01: WAIT, the newest drift report says"
    )


def test_an_export_is_asked_for_until_every_promoted_model_is_in_the_repository(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    repository = tmp_path / "models"
    more = f'[versions]\ndvc = true\nrepository = "{repository}"\n'
    request = asked(shop_home, "exporting", instance, more=more)
    assert (request.job_name, request.partition_key) == ("export_models", None)
    (_, model) = open_quick(shop_home).champions.promotions[0]
    write_state(shop_home / "exported_models.json", {"places": {f"{repository}": [model]}})
    assert asked(shop_home, "exporting", instance, more=more).job_name == "export_models"
    repository.mkdir()
    git(repository, "init", "-q")
    named = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    git(repository, *named, "commit", "-q", "--allow-empty", "-m", "Begin")
    git(repository, "tag", f"model/{model}")
    assert asked(shop_home, "exporting", instance, more=more) == f"every promoted model is in {repository}"
    # Another repository has none of them.
    other = more.replace("models", "others")
    assert asked(shop_home, "exporting", instance, more=other).job_name == "export_models"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_defs(settings=quick_settings(shop_home, more)).get_repository_def().load_all_definitions()
    assert not build_defs(settings=quick_settings(shop_home)).get_repository_def().has_sensor_def("exporting")


def test_a_file_that_lands_is_asked_for_once_it_is_whole(shop_home: Path, instance: dg.DagsterInstance) -> None:
    landing = shop_home / "landing"
    landing.mkdir()
    write_log(shop_log(5).tail(50), landing / "may.csv")
    assert "no whole file" in asked(shop_home, "landing", instance, more="[landing]\nsettle_seconds = 60\n")
    request = asked(shop_home, "landing", instance, more="[landing]\nsettle_seconds = 0\n")
    assert (request.job_name, request.partition_key) == ("take_in", None)


def test_the_snapshot_of_a_period_that_is_not_over_is_of_its_last_day_and_made_again_once_a_day(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    remembered = None

    def asked_at(now: datetime) -> Any:
        nonlocal remembered
        answer, remembered = tick(shop_home, "stale_partitions", instance, now, cursor=remembered)
        return answer

    def arrives(day: datetime, at: datetime) -> None:
        log_up_to(day, shop_home, tmp_path)
        assert (asked_at(at).job_name, asked_at(at).partition_key) == ("ingest", "2024-05-01")
        custseg_job(shop_home, "ingest", "2024-05-01")

    arrives(datetime(2024, 5, 20), datetime(2024, 5, 20, 7))
    for _ in range(2):  # once asked for, it is asked for until it is there
        first = asked_at(datetime(2024, 5, 20, 7))
        assert (first.job_name, first.partition_key) == ("snapshot", "2024-05-01")
    custseg_job(shop_home, "snapshot", "2024-05-01")
    home = open_quick(shop_home)
    assert home.calendar.window("2024-05-01").as_of == datetime(2024, 5, 20)
    assert asked_at(datetime(2024, 5, 20, 8)) == (
        "everything is up to date, snapshots up to 2024-05-01 so far, as of 2024-05-20"
    )
    arrives(datetime(2024, 5, 21), datetime(2024, 5, 21, 6, 59))
    waits = "the present snapshot, 2024-05-01, is made again from 2024-05-21 07:00 UTC on"
    assert asked_at(datetime(2024, 5, 21, 6, 59)) == waits
    again = asked_at(datetime(2024, 5, 21, 7))
    assert (again.job_name, again.partition_key) == ("snapshot", "2024-05-01")


def test_the_present_snapshot_does_not_wait_where_more_than_its_own_data_changed(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    now = datetime(2024, 5, 20, 7)
    log_up_to(datetime(2024, 5, 20), shop_home, tmp_path)
    custseg_job(shop_home, "ingest", "2024-05-01")
    asked_for, cursor = tick(shop_home, "stale_partitions", instance, now)
    assert asked_for.partition_key == "2024-05-01"
    custseg_job(shop_home, "snapshot", "2024-05-01")
    late = shop_log(5).filter(pl.col("invoiced_at") < datetime(2024, 5, 20), pl.col("customer_id") != "A003")
    taken_in(shop_home, write_log(late, tmp_path / "longer.csv"))
    for key in open_quick(shop_home).calendar.period_keys:
        custseg_job(shop_home, "ingest", key)
    asked_for, _ = tick(shop_home, "stale_partitions", instance, now, cursor=cursor)
    assert asked_for.tags["custseg/periods"].endswith(" … 2024-05-01")


def test_data_of_the_next_period_close_a_period_whatever_the_clock_says(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    log = shop_log(6).filter(~pl.col("invoiced_at").is_between(datetime(2024, 5, 28), datetime(2024, 6, 2)))
    log_up_to(datetime(2024, 6, 3), shop_home, tmp_path, log)
    for key in ("2024-05-01", "2024-06-01"):
        custseg_job(shop_home, "ingest", key)
    request = asked(shop_home, "stale_partitions", instance, datetime(2024, 1, 1))
    assert request.tags["custseg/periods"] == "2024-05-01 … 2024-06-01"
    calendar = open_quick(shop_home).calendar
    assert calendar.window("2024-05-01").as_of == datetime(2024, 6, 1)
    assert calendar.open_key == "2024-06-01"


def test_the_clock_closes_a_period_whose_last_days_have_no_data(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    log_up_to(datetime(2024, 5, 30), shop_home, tmp_path)
    custseg_job(shop_home, "ingest", "2024-05-01")
    before_it_closes = asked(shop_home, "stale_partitions", instance, datetime(2024, 6, 1, 5, 59))
    assert before_it_closes == "the period 2024-05-01 is over and is closed at 2024-06-01 06:00 UTC"
    assert open_quick(shop_home).calendar.open_key == "2024-05-01"
    closed = asked(shop_home, "stale_partitions", instance, datetime(2024, 6, 1, 6))
    assert (closed.job_name, closed.partition_key) == ("snapshot", "2024-05-01")
    assert open_quick(shop_home).calendar.window("2024-05-01").as_of == datetime(2024, 6, 1)


def test_a_short_snapshot_goes_when_the_clock_closes_the_first_full_window(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """As in a home that is filled at once."""
    at = pl.col("invoiced_at")
    home = fill_shop(tmp_path, shop_log(2).filter(at < datetime(2024, 2, 27))).home
    opened = open_quick(home)
    assert opened.calendar.snapshot_keys == ("2024-01-01", "2024-02-01")
    assert set(opened.tables.sizes(CUSTOMER_FEATURES)) == {"2024-01-01", "2024-02-01"}
    # The partitions have changed, so the definitions are loaded again first.
    assert "reload" in asked(home, "stale_partitions", instance, datetime(2024, 3, 1, 6))
    request = asked(home, "stale_partitions", instance, datetime(2024, 3, 1, 6))
    assert (request.job_name, request.partition_key) == ("features", "2024-02-01")
    opened = open_quick(home)
    assert opened.calendar.snapshot_keys == ("2024-02-01",)
    assert set(opened.tables.sizes(CUSTOMER_FEATURES)) == {"2024-02-01"}


def test_the_clock_does_not_close_a_period_whose_data_stop_early(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Everybody would look older than they are, because of data that are not there."""
    log_up_to(datetime(2024, 5, 20), shop_home, tmp_path)
    custseg_job(shop_home, "ingest", "2024-05-01")
    request = asked(shop_home, "stale_partitions", instance, datetime(2026, 1, 1))
    assert (request.job_name, request.partition_key) == ("snapshot", "2024-05-01")
    custseg_job(shop_home, "snapshot", "2024-05-01")
    said = asked(shop_home, "stale_partitions", instance, datetime(2026, 1, 1))
    assert said == "everything is up to date, snapshots up to 2024-05-01 so far, as of 2024-05-20"
    assert asked(shop_home, "retrain_on_drift", instance, datetime(2026, 1, 1)).startswith("2024-04-01: WAIT")


def test_the_schedule_closes_a_period_whose_last_days_have_no_data(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    log_up_to(datetime(2024, 5, 30), shop_home, tmp_path)
    custseg_job(shop_home, "ingest", "2024-05-01")

    def ticked(at: datetime) -> Any:
        ticks = TickSource(lambda: at, instance)
        loaded = build_defs(settings=quick_settings(shop_home), ticks=ticks).get_repository_def()
        context = dg.build_schedule_context(scheduled_execution_time=at.replace(tzinfo=UTC), repository_def=loaded)
        return loaded.get_schedule_def("close_period").evaluate_tick(context)

    [request] = ticked(datetime(2024, 6, 1, 6)).run_requests
    assert (request.job_name, request.partition_key) == ("snapshot", "2024-05-01")
    assert open_quick(shop_home).calendar.open_key is None
    custseg_job(shop_home, "snapshot", "2024-05-01")
    assert ticked(datetime(2024, 7, 1, 6)).skip_message == "everything is up to date, snapshots up to 2024-05-01"


@pytest.mark.parametrize(
    ("end", "more", "is_closed"),
    [
        (datetime(2024, 5, 25), "", True),  # seven days are missing
        (datetime(2024, 5, 24), "", False),
        (datetime(2024, 5, 29), "[drift]\nmax_unobserved_share = 0.05\n", False),  # three of 31
        (datetime(2024, 5, 29), "[drift]\nmax_unobserved_share = 0.1\n", True),
    ],
)
def test_the_clock_closes_a_period_of_which_a_week_and_a_share_are_missing_at_most(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance, end: datetime, more: str, is_closed: bool
) -> None:
    log_up_to(end, shop_home, tmp_path)
    custseg_job(shop_home, "ingest", "2024-05-01")
    asked(shop_home, "stale_partitions", instance, datetime(2024, 6, 1, 6), more)
    assert (open_quick(shop_home, more).calendar.open_key is None) == is_closed


def test_a_home_in_use_is_not_closed(shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    log_up_to(datetime(2024, 5, 30), shop_home, tmp_path)
    custseg_job(shop_home, "ingest", "2024-05-01")
    with open_quick(shop_home).paths.locked():
        said = asked(shop_home, "stale_partitions", instance, datetime(2024, 6, 1, 6))
    assert re.fullmatch(rf"home {shop_home} is in use by process \d+ \(.+\)", said)
    assert open_quick(shop_home).calendar.open_key == "2024-05-01"


def test_what_failed_twice_on_the_same_data_waits_for_a_person(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    taken_in(shop_home, write_log(shop_log(5), tmp_path / "longer.csv"))
    first = asked(shop_home, "stale_partitions", instance)
    for _ in range(2):
        assert asked(shop_home, "stale_partitions", instance).tags == first.tags
        run = instance.create_run_for_job(failing_job(), tags=dict(first.tags))
        instance.report_run_failed(run, "it broke")
    said = asked(shop_home, "stale_partitions", instance)
    assert said.startswith("ingest 2024-05-01 failed 2 times, last in run ")
    assert said.endswith("launch the job ingest by hand.")


def test_what_was_killed_however_often_is_asked_for_again(
    shop_home: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    taken_in(shop_home, write_log(shop_log(5), tmp_path / "longer.csv"))
    first = asked(shop_home, "stale_partitions", instance)
    keys = [first.run_key]
    for _ in range(3):
        run = instance.create_run_for_job(
            failing_job(), status=dg.DagsterRunStatus.STARTED, tags={**first.tags, "dagster/run_key": keys[-1]}
        )
        close_abandoned(instance, [run])
        keys.append(asked(shop_home, "stale_partitions", instance).run_key)
    assert len({*keys}) == 4  # Dagster starts nothing twice under one key


def test_a_home_in_use_is_left_alone(shop_home: Path, instance: dg.DagsterInstance) -> None:
    with open_quick(shop_home).paths.locked():
        said = asked(shop_home, "stale_partitions", instance)
    assert said.startswith(f"home {shop_home} is in use by process ")
    assert asked(shop_home, "stale_partitions", instance).startswith("everything is up to date")


def test_a_run_that_is_going_on_is_waited_for(shop_home: Path, instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(failing_job(), status=dg.DagsterRunStatus.STARTED)
    assert asked(shop_home, "stale_partitions", instance) == f"run {run.run_id} of ingest is not over yet"


def test_a_failed_run_leaves_an_alert_that_says_where_to_look(shop_home: Path, instance: dg.DagsterInstance) -> None:
    definitions = build_defs(settings=quick_settings(shop_home))
    sensor = definitions.get_repository_def().get_sensor_def("alert_on_failure")
    result = failing_job().execute_in_process(instance=instance, raise_on_error=False)
    failure = next(event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_on_failure", dagster_event=failure, dagster_instance=instance, dagster_run=result.dagster_run
    ).for_run_failure()
    sensor(context)
    [line] = AlertLog(shop_home / "alerts.log").newest(5)
    assert f"run {result.run_id} of ingest" in line
    assert "breaks: ValueError: it broke" in line


def taken_in(home: Path, source: Path) -> Calendar:
    """Another source for a home, with nothing made of it yet."""
    settings = quick_settings(home).model_copy(
        update={"source": load_settings(source=str(source), environment={}).source}
    )
    take_in(settings)
    return open_quick(home).calendar


def log_up_to(end: datetime, home: Path, folder: Path, log: pl.DataFrame | None = None) -> None:
    """The shop's log up to an instant as the source of its home, with nothing made of it yet."""
    lines = shop_log(5) if log is None else log
    taken_in(home, write_log(lines.filter(pl.col("invoiced_at") < end), folder / "longer.csv"))


def custseg_job(home: Path, job: str, key: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        made = build_defs(settings=quick_settings(home)).resolve_job_def(job)
        assert made.execute_in_process(instance=instance, partition_key=key).success


def failing_job() -> dg.JobDefinition:
    @dg.op
    def breaks() -> None:
        raise ValueError("it broke")

    @dg.job(name="ingest")
    def ingest() -> None:
        breaks()

    return ingest
