"""What a person clicks on Dagster's pages of a filled home: nothing fails, and nothing changes that was decided.

In a browser: the whole graph, jobs over ranges and with the open snapshot, a retrain, checks, and runs of the command
that failed, executed again. ``tests/defs/test_again.py`` does the same with every job and every check, without pages.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from custseg_assets.commands.run import Runner
from custseg_assets.domain import schemas
from custseg_assets.errors import RunFailedError
from custseg_assets.home.fingerprints import TRAINED
from custseg_assets.home.plan import Stage
from custseg_assets.stores import releases
from tests.support.browser import open_page
from tests.support.comparison import differing_partitions
from tests.support.dagster_pages import PATIENCE_SECONDS, Pages, serve_pages
from tests.support.homes import open_quick
from tests.support.live import UNFINISHED
from tests.support.shops import QUICK, custseg, fill_shop, shop_log

DECIDED, OPEN = "2024-03-01", "2024-04-01"
LOCATION = "custseg_assets.definitions"
_TRIES = 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a first model, a challenger that was decided about, a snapshot still open, and a run that failed."""
    log = shop_log(4).filter(pl.col("invoiced_at") < datetime(2024, 4, 20))
    home = fill_shop(tmp_path_factory.mktemp("clicks"), log).home
    outcome = custseg(home, "retrain", config=QUICK)
    assert outcome.status == 0, outcome.err
    opened = open_quick(home)
    assert opened.champions.is_retrained(DECIDED)
    assert opened.calendar.open_key == OPEN
    _fail_to_release(home)
    return home


def _fail_to_release(home: Path) -> None:
    """Have a run of the command fail in its last step, for a reason that is gone afterwards."""
    releases, elsewhere = home / "releases", home / "elsewhere"
    releases.rename(elsewhere)
    releases.write_text("This is no folder.", encoding="utf-8")
    runner = Runner(open_quick(home), lambda _: None)
    with runner.home.locked() as locked, pytest.raises(RunFailedError, match="serving_release"):
        runner.jobs.execute(Stage("segment", OPEN, OPEN), locked)
    releases.unlink()
    elsewhere.rename(releases)


@pytest.fixture(scope="module")
def before(home: Path) -> Path:
    """The home as it was before anything was clicked."""
    return shutil.copytree(home, home.with_name("before"))


@pytest.fixture(scope="module")
def pages(home: Path, before: Path) -> Iterator[Pages]:
    config = before.with_name("pages.toml")
    config.write_text(QUICK + "[automation]\nenabled = false\n", encoding="utf-8")
    with serve_pages(home, config) as pages:
        yield pages


@pytest.fixture(scope="module")
def clicked(pages: Pages) -> list[str]:
    """Everything clicked, one after the other; the errors that the pages reported meanwhile."""
    with open_page() as (page, errors):
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        person = Person(page, pages)
        [failed] = pages.live.runs(dg.DagsterRunStatus.FAILURE)
        person.materialise_graph()
        person.execute_checks("clean_transactions")
        person.execute_again(failed.run_id, "Re-execute all")
        person.execute_again(failed.run_id, "From failure")
        person.materialise_job("prediction_log")
        person.materialise_job("snapshot", "All")
        person.materialise_job("retrain", "Latest")
        person.launch_job("retrain", DECIDED)
        assert pages.live.wait(lambda: _is_over(pages), 10 * PATIENCE_SECONDS), pages.live.log.read_text()[-2000:]
    return errors


class Person:
    """Somebody with a browser.

    Args:
        page: the browser's.
        pages: Dagster's.
    """

    def __init__(self, page: Any, pages: Pages) -> None:
        self._page, self._pages = page, pages

    def _open(self, path: str) -> None:
        self._page.goto(self._pages.live.address(path))

    def _click(self, name: str) -> None:
        self._page.get_by_role("button", name=name).last.click()

    def _see_launched(self, words: str) -> None:
        self._page.get_by_text(words).first.wait_for()

    def materialise_graph(self) -> None:
        """Materialise every asset, over all periods and snapshots."""
        self._open("/asset-groups")
        self._page.get_by_text("monitoring").first.wait_for()
        self._click("Materialize all")
        self._click("Launch backfill")
        self._see_launched("Created backfill")

    def materialise_job(self, job: str, partitions: str | None = None) -> None:
        """Start a job from its own page, over the partitions that a button of the dialog chooses."""
        self._open(f"/locations/{LOCATION}/jobs/{job}")
        self._click("Materialize all")
        if partitions:
            self._page.get_by_role("button", name=partitions, exact=True).click()
            self._click("Launch")
        self._page.get_by_text("Launched run").or_(self._page.get_by_text("Created backfill")).first.wait_for()

    def launch_job(self, job: str, partition: str) -> None:
        """Start a job from the launchpad, with the configuration that it shows."""
        self._open(f"/locations/{LOCATION}/jobs/{job}/playground")
        box, choice = self._page.get_by_placeholder("Partition"), self._page.get_by_text(partition, exact=True)
        self._page.locator(".CodeMirror-line", has_text="resources").wait_for()
        # The page is drawn once more when it knows the configuration, and what was typed before is gone.
        for _ in range(_TRIES):
            box.fill(partition)
            with contextlib.suppress(PlaywrightTimeoutError):
                choice.click(timeout=3_000)
                break
        self._page.locator(".CodeMirror-line", has_text="retrain: true").wait_for()
        self._click("Launch Run")
        self._page.wait_for_url("**/runs/*")

    def execute_checks(self, asset: str) -> None:
        """Execute all checks of an asset."""
        self._open(f"/assets/{asset}?view=checks")
        self._click("Execute all")
        self._see_launched("Launched run")

    def execute_again(self, run_id: str, how: str) -> None:
        """Execute a run again from its own page."""
        self._open(f"/runs/{run_id}")
        everything = self._page.get_by_role("button", name="Re-execute all")
        everything.wait_for()
        # Dagster warns there where the run's job is not the one that the pages have.
        assert everything.get_by_role("img", name="warning").count() == 0
        if how == "Re-execute all":
            everything.click()
        else:
            self._page.locator("button:right-of(:text('Re-execute all'))").first.click()
            self._page.get_by_text(how, exact=True).click()
        self._page.wait_for_url(lambda url: run_id not in url)


def _is_over(pages: Pages) -> bool:
    with dg.DagsterInstance.from_config(str(pages.live.home / "dagster")) as instance:
        going_on = [one for one in instance.get_backfills() if not one.status.value.startswith("COMPLETED")]
    return not going_on and not pages.live.runs(*UNFINISHED)


def test_the_pages_report_no_error(clicked: list[str]) -> None:
    assert clicked == []


def test_everything_that_was_started_succeeded(clicked: list[str], pages: Pages) -> None:
    del clicked
    runs = pages.live.runs()
    ended = [(run.job_name, run.status.value) for run in runs if run.status != dg.DagsterRunStatus.SUCCESS]
    assert ended == [("segment", "FAILURE")]  # the one that was executed again
    again = [run for run in runs if run.parent_run_id]
    assert [len(run.step_keys_to_execute or ()) for run in again] == [0, 1]
    asked = {run.job_name for run in runs if "custseg/command" not in run.tags}
    assert {"prediction_log", "snapshot", "retrain"} <= asked


def test_nothing_is_red(clicked: list[str], pages: Pages) -> None:
    del clicked
    nodes = pages.ask("""{ assetNodes { assetKey { path } partitionStats { numPartitions numMaterialized numFailed }
        assetChecksOrError { ... on AssetChecks { checks { name canExecuteIndividually
        executionForLatestMaterialization { status } } } } } }""")["assetNodes"]
    stats = [node["partitionStats"] for node in nodes if node["partitionStats"]]
    assert {(one["numFailed"], one["numPartitions"] - one["numMaterialized"]) for one in stats} == {(0, 0)}
    checks = [check for node in nodes for check in node["assetChecksOrError"].get("checks", [])]
    assert {check["canExecuteIndividually"] for check in checks} == {"CAN_EXECUTE"}
    assert {check["executionForLatestMaterialization"]["status"] for check in checks} == {"SUCCEEDED"}


def test_no_table_has_changed(clicked: list[str], home: Path, before: Path) -> None:
    del clicked
    was, now = open_quick(before), open_quick(home)
    tables = [name for name in schemas.tables(now.settings.model.features) if was.tables.version_of(name) is not None]
    assert len(tables) > 10
    assert differing_partitions(home, before, tables) == []
    for name in tables:
        # What the retrain wrote is equal to what it was, but counts as made anew.
        keys = [key for key in was.calendar.period_keys if name not in TRAINED or key != DECIDED]
        made_from, then = ({key: one.tables.fingerprint_of(name, key) for key in keys} for one in (now, was))
        assert made_from == then, name
    released = [releases.verify(one / "releases", str(releases.current(one / "releases"))) for one in (before, home)]
    told = [(one.period, one.as_of, one.model_version, one.n_customers) for one in released]
    assert told[0] == told[1]


def test_a_decided_partition_says_why_it_stays(clicked: list[str], pages: Pages) -> None:
    del clicked
    with dg.DagsterInstance.from_config(str(pages.live.home / "dagster")) as instance:
        wanted = dg.AssetRecordsFilter(dg.AssetKey("promotion_decision"), asset_partitions=[DECIDED])
        newest = instance.fetch_materializations(wanted, limit=9).records
    notes = [one.asset_materialization.metadata.get("unchanged") for one in newest if one.asset_materialization]
    told = next(note.value for note in notes if note)
    assert f"{DECIDED} stays as it is: a challenger was trained on it, and what was decided about it stays." in told


def test_a_retrain_from_the_launchpad_trains_and_one_of_the_open_snapshot_says_which_to_choose(
    clicked: list[str], pages: Pages
) -> None:
    del clicked
    of_open, of_decided = [run for run in pages.live.runs() if run.job_name == "retrain"][-2:]
    with dg.DagsterInstance.from_config(str(pages.live.home / "dagster")) as instance:
        told, trained = (
            [entry.user_message for entry in instance.all_logs(run.run_id)] for run in (of_open, of_decided)
        )
    assert any(f"expected the newest closed snapshot with segments, {DECIDED}" in line for line in told)
    assert any("k = 3" in line for line in trained)


def test_the_overview_lists_the_commands_runs_by_job(pages: Pages) -> None:
    with open_page() as (page, errors):
        page.goto(pages.live.address("/overview/activity/timeline"))
        for job in ("ingest", "features", "train", "segment"):
            page.get_by_role("link", name=re.compile(rf"^{job}\b")).first.wait_for(timeout=PATIENCE_SECONDS * 1000)
        assert errors == []
