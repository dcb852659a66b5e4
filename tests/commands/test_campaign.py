"""``custseg campaign`` on a whole home: started, left alone everywhere, killed, ended, and reported about."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.commands.campaign import FileForm, Starter, start
from custseg_assets.commands.run import Runner
from custseg_assets.definitions import build_defs
from custseg_assets.defs.automation import TickSource
from custseg_assets.domain import schemas
from custseg_assets.errors import BadInputError
from custseg_assets.home.campaigns import Wish, held_out_ids, plan_campaign, stale_days
from custseg_assets.settings import load_settings
from custseg_assets.stores.campaigns import CampaignStore
from custseg_assets.stores.releases import current, open_release
from custseg_serving.settings import ServingSettings
from tests.support.files import REPOSITORY
from tests.support.homes import locked_by_another_process, open_quick, quick_settings, take_in
from tests.support.killed_runs import environment_of
from tests.support.monthly_files import drop_file
from tests.support.server import open_app
from tests.support.shops import QUICK, FilledShop, Outcome, custseg, quiet, shop_log, write_log

SALT = ("--salt", "salt")


def begin(home: Path, name: str, *more: object) -> Outcome:
    out = home.with_name(f"{name}.csv")
    return custseg(home, "campaign", "start", name, *more, "--yes", "--out", out, config=QUICK)


def ids_in(path: Path) -> list[str]:
    return pl.read_csv(path, schema_overrides={"customer_id": pl.String})["customer_id"].to_list()


def holdout(home: Path, name: str) -> set[str]:
    store = CampaignStore(home / "campaigns")
    return set(store.holdout_ids(store.get(name)))


@pytest.fixture(scope="module")
def started(filled_shop: FilledShop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a campaign over two segments, which nobody changes."""
    home = shutil.copytree(filled_shop.home, tmp_path_factory.mktemp("campaign") / "home")
    outcome = begin(home, "May", "--segment", "S1", "--segment", "s2", "--holdout", "0.5", *SALT)
    assert outcome.status == 0, outcome.err
    home.with_name("said.txt").write_text(outcome.err + outcome.out)
    return home


def test_what_could_be_seen_is_said_and_the_audience_lacks_the_holdout(started: Path) -> None:
    said = started.with_name("said.txt").read_text()
    groups = open_quick(started).tables.read(schemas.CAMPAIGN_GROUPS)
    assert groups["campaign"].unique().to_list() == ["May"]
    held = groups.filter("is_holdout")["customer_id"].to_list()
    written = ids_in(started.with_name("May.csv"))
    assert sorted([*written, *held]) == groups["customer_id"].to_list()
    assert f"{len(written):,} customers to write to, {len(held):,} held out until 2024-05-30" in said
    # First what it could see, and only then the first stage that writes anything.
    assert said.index("smallest uplift") < said.index("headline will be return over all") < said.index("segment 2024")
    assert "2024-05-01 to 2024-05-30, 30 days" in said
    for segment, n, n_held in groups.group_by("segment_id").agg(pl.len(), pl.col("is_holdout").sum()).iter_rows():
        assert n_held == int(0.5 * n + 0.5), segment


def test_it_is_recorded_with_who_when_and_of_what(started: Path) -> None:
    record = json.loads((started / "campaigns" / "may" / "campaign.json").read_text())
    assert (record["name"], record["segments"], record["salt"]) == ("May", ["S1", "S2"], "salt")
    assert record["started_by"]
    assert datetime.fromisoformat(record["started_at"]) > datetime(2024, 5, 1)
    before = open_quick(started).champions.promotions[-1][1]
    assert (record["period"], record["as_of"], record["model_version"]) == ("2024-04-01", "2024-05-01T00:00:00", before)
    assert re.fullmatch(r"r-2024-04-01-[0-9a-f]{8}", record["release_id"])
    status = custseg(started, "status", config=QUICK).out
    assert "campaign    May is running until 2024-05-30; its holdout is in no list" in status
    listed = custseg(started, "campaign", "list", config=QUICK).out
    assert listed.startswith("May: running, no data yet; S1, S2; 2024-05-01 to 2024-05-30; ")


def test_equal_salt_and_customers_give_equal_groups(filled_shop: FilledShop, started: Path) -> None:
    home = open_quick(filled_shop.home)
    same, other = (
        plan_campaign(home, Wish("other", ["S2", "S1"], 0.5, 30, salt)).groups.filter("is_holdout")["customer_id"]
        for salt in ("salt", "pepper")
    )
    assert set(same) == holdout(started, "May") != set(other)


def test_every_export_of_customers_leaves_the_holdout_out(started: Path, tmp_path: Path) -> None:
    held = holdout(started, "May")
    home = open_quick(started)
    # Lines of the log, answers and the groups themselves are no lists of a segment.
    others = ("raw_transactions", "clean_transactions", "rejected_transactions", "prediction_log", "campaign_groups")
    every = schemas.tables(home.settings.model.features).items()
    lists = [name for name, table in every if "customer_id" in table.schema and name not in others]
    for name in ["customers", *lists]:
        out = tmp_path / f"{name}.csv"
        said = custseg(started, "export", name, "--out", out, config=QUICK)
        assert said.status == 0, said.err
        there = set(ids_in(out))
        assert there, name
        assert there.isdisjoint(held), name
        if name in ("customers", "segment_assignments"):
            assert f"{len(held)} customers of a running campaign's holdout left out" in said.out
        full = custseg(started, "export", name, "--with-holdout", "--out", out, config=QUICK)
        assert "left out" not in full.out
        if name in ("customers", "segment_assignments"):
            assert held <= set(ids_in(out))
    for more in (["--segment", "S1"], ["--partition", "2024-03-01"], ["--segment", "S2", "--decimal-comma"]):
        out = tmp_path / "some.parquet"
        assert custseg(started, "export", "customers", *more, "--out", out, config=QUICK).status == 0
        assert held.isdisjoint(pl.read_parquet(out)["customer_id"])


def test_the_service_lists_nobody_who_is_held_out_and_says_how_many(started: Path) -> None:
    held = holdout(started, "May")
    assigned = open_quick(started).tables.read(schemas.SEGMENT_ASSIGNMENTS, ["2024-04-01"])
    with open_app(ServingSettings(started, log_predictions=False, is_open=True)) as application:
        client = application.test_client()
        for path in ("/v1/customers?", "/v1/segments/S1/customers?", "/v1/moves?"):
            answer = client.get(f"{path}limit=500").get_json()
            listed = {one["customer_id"] for one in answer["customers"]}
            assert listed.isdisjoint(held)
            assert len(listed) == answer["n_customers"]
            if "S1" in path:
                of_segment = set(assigned.filter(segment_id="S1")["customer_id"])
                assert (listed, answer["n_held_out"]) == (of_segment - held, len(of_segment & held))
        for path in ("/v1/customers.csv", "/v1/segments/S1/customers.csv", "/v1/moves.csv"):
            answer = client.get(path)
            listed = {row["customer_id"] for row in csv.DictReader(io.StringIO(answer.get_data(as_text=True)))}
            assert listed.isdisjoint(held)
            assert int(answer.headers["X-Held-Out"]) <= len(held)
        one = min(held)
        assert client.get(f"/v1/customers?contains={one}").get_json()["n_held_out"] == 1
        # A single customer is looked up as ever.
        assert client.get(f"/v1/customers/{one}/segment").status_code == 200


def test_a_second_campaign_takes_nobody_of_the_first(started: Path, tmp_path: Path) -> None:
    home = shutil.copytree(started, tmp_path / "home")
    outcome = begin(home, "second", "--segment", "S2", "--segment", "S3", "--holdout", "0.4")
    assert outcome.status == 0, outcome.err
    store = CampaignStore(home / "campaigns")
    first, second = (store.groups(store.get(name)) for name in ("May", "second"))
    assert set(first["customer_id"]).isdisjoint(second["customer_id"])
    of_s2 = first.filter(segment_id="S2")
    n_held = int(of_s2["is_holdout"].sum())
    in_both = f"{of_s2.height - n_held} of its audience and {n_held} of its holdout"
    assert f"in campaign May, which is running: {in_both}" in outcome.err
    assert store.get("second").n_left_out == of_s2.height
    assert set(held_out_ids(open_quick(home))) == holdout(home, "May") | holdout(home, "second")
    nobody = begin(home, "third", "--segment", "S2")
    assert (nobody.status, store.has("third")) == (2, False)
    assert "in a running campaign" in nobody.err


@pytest.fixture(scope="module")
def later(started: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home ten days into the campaign, in a folder of its own; beside it, its log."""
    folder: Path = tmp_path_factory.mktemp("later")
    home = shutil.copytree(started, folder / "home")
    lines = shop_log(5).filter(pl.col("invoiced_at") < datetime(2024, 5, 11))
    outcome = custseg(home, "run", "--source", write_log(lines, folder / "log.csv"), "--reconfigure", config=QUICK)
    assert outcome.status == 0, outcome.err
    return home


def asked_of_the_sensor(home: Path) -> str:
    """The job that the sensor asks for, or why it asks for none."""
    with dg.DagsterInstance.ephemeral() as instance, quiet():
        settings = quick_settings(home)
        loaded = build_defs(settings=settings, ticks=TickSource(instance=instance)).get_repository_def()
        context = dg.build_sensor_context(instance=instance, repository_def=loaded)
        found = loaded.get_sensor_def("campaigns").evaluate_tick(context)
    return str(found.run_requests[0].job_name if found.run_requests else found.skip_message)


def test_so_far_nothing_is_told_and_the_holdout_stays_out(later: Path, tmp_path: Path) -> None:
    said = custseg(later, "campaign", "report", "may", config=QUICK).out
    assert "May: running; S1, S2" in said
    assert "10 of 30 days observed, the log ends 2024-05-10" in said
    assert "headline  return so far " in said
    assert asked_of_the_sensor(later) == "the tables of campaigns are up to date, or there is no campaign"
    report = open_quick(later).tables.read(schemas.CAMPAIGN_REPORT)
    assert set(report["verdict"]) <= {"so far", "cannot tell"}
    assert report["days_observed"].unique().to_list() == [10]
    out = tmp_path / "list.csv"
    custseg(later, "export", "customers", "--out", out, config=QUICK)
    assert holdout(later, "May").isdisjoint(ids_in(out))


def test_once_it_is_over_there_is_a_verdict_and_nobody_is_held_out(later: Path, tmp_path: Path) -> None:
    home = shutil.copytree(later, tmp_path / "home")
    lines = shop_log(5)
    store = CampaignStore(home / "campaigns")
    groups = store.groups(store.get("May"))
    audience = groups.filter(~pl.col("is_holdout"))["customer_id"]
    # Everybody who was written to orders; of the holdout nobody does.
    orders = lines.filter(
        pl.col("customer_id").is_in(audience.implode()) | pl.col("invoiced_at").lt(datetime(2024, 5, 1))
    )
    extra = pl.DataFrame(
        {"customer_id": audience, "invoice_id": [f"8{n:06}" for n in range(len(audience))]}
    ).with_columns(
        product_id=pl.lit("10001"),
        description=pl.lit("THING 10001"),
        quantity=pl.lit(2, pl.Int64),
        unit_price=pl.lit(2.5),
        invoiced_at=pl.lit(datetime(2024, 5, 30, 23, 59)),
        country=pl.lit("United Kingdom"),
    )
    last_day = orders.head(1).with_columns(invoiced_at=datetime(2024, 5, 31, 12), invoice_id=pl.lit("9999999"))
    log = write_log(pl.concat([orders, extra, last_day], how="diagonal_relaxed"), tmp_path / "log.csv")
    outcome = custseg(home, "run", "--source", log, "--reconfigure", config=QUICK)
    assert outcome.status == 0, outcome.err
    said = custseg(home, "campaign", "report", "May", config=QUICK).out
    assert "May: over; S1, S2" in said
    assert re.search(r"headline  return more: \+\d", said), said
    report = open_quick(home).tables.read(schemas.CAMPAIGN_REPORT)
    row = report.filter("is_headline").row(0, named=True)
    assert (row["verdict"], row["days_observed"]) == ("more", 30)
    assert row["effect"] == pytest.approx(1.0)
    assert stale_days(open_quick(home)) == {"campaign_groups": [], "campaign_report": []}
    out = tmp_path / "list.csv"
    listed = custseg(home, "export", "customers", "--out", out, config=QUICK)
    assert "left out" not in listed.out
    assert holdout(home, "May") <= set(ids_in(out))
    release = current(home / "releases")
    assert release is not None
    assert "lists_held_out.npy" not in open_release(home / "releases", release).manifest.files


def test_an_ended_campaign_counts_what_was_and_holds_nobody_out(later: Path, tmp_path: Path) -> None:
    home = shutil.copytree(later, tmp_path / "home")
    ended = custseg(home, "campaign", "end", "may", "--why", "sold out", "--by", "Bob", config=QUICK)
    assert ended.status == 0, ended.err
    assert "what customers did before 2024-05-11 counts" in ended.out
    assert "ended by Bob before 2024-05-11: sold out" in custseg(home, "campaign", "list", config=QUICK).out
    report = open_quick(home).tables.read(schemas.CAMPAIGN_REPORT)
    assert report["days"].unique().to_list() == [10]
    assert "so far" not in set(report["verdict"])
    assert held_out_ids(open_quick(home)).is_empty()
    again = custseg(home, "campaign", "end", "may", "--why", "once more", config=QUICK)
    assert again.status == 2
    assert "There is nothing to end" in again.err


@pytest.mark.parametrize("is_ended", [True, False])
def test_the_audience_of_a_campaign_leaves_out_whom_another_one_holds_out(
    later: Path, tmp_path: Path, *, is_ended: bool
) -> None:
    """The one is ended, so that the other may hold out whom it wrote to; or both are running, as a copy may have it."""
    home = shutil.copytree(later, tmp_path / "home")
    ending = home / "campaigns" / "may" / "ended.json"
    assert custseg(home, "campaign", "end", "may", "--why", "sold out", config=QUICK).status == 0
    outcome = begin(home, "second", "--segment", "S1", "--segment", "S2", "--holdout", "0.5", "--salt", "pepper")
    assert outcome.status == 0, outcome.err
    if not is_ended:
        ending.unlink()
    store, out = CampaignStore(home / "campaigns"), tmp_path / "again.csv"
    audience = set(store.groups(store.get("May")).filter(~pl.col("is_holdout"))["customer_id"])
    said = custseg(home, "campaign", "audience", "May", "--out", out, config=QUICK)
    assert said.status == 0, said.err
    elsewhere = audience & holdout(home, "second")
    assert elsewhere
    assert set(ids_in(out)) == audience - elsewhere
    assert f"{len(elsewhere)} customers of another running campaign's holdout left out" in said.out


def test_customers_who_vanish_are_said(later: Path, tmp_path: Path) -> None:
    """Their lines were corrected: they are under another id now."""
    home = shutil.copytree(later, tmp_path / "home")
    gone = pl.read_csv(later.with_name("log.csv"), infer_schema=False)
    gone = gone.with_columns(pl.col("CustomerID").str.replace("^B00", "X00"))
    gone.write_csv(tmp_path / "log.csv")
    assert custseg(home, "run", "--source", tmp_path / "log.csv", "--reconfigure", config=QUICK).status == 0
    said = custseg(home, "campaign", "report", "May", config=QUICK).out
    groups = open_quick(home).tables.read(schemas.CAMPAIGN_GROUPS)
    n_gone = groups.filter(pl.col("customer_id").str.starts_with("B00")).height
    assert n_gone
    assert f"{n_gone} customers are in the log no more" in said
    assert "or they have other ids now" in said
    # Who is in which group stays what it was at the start.
    assert_frame_equal(groups, open_quick(later).tables.read(schemas.CAMPAIGN_GROUPS))


_KILLED = """
import os, sys
from custseg_assets import cli
from custseg_assets.commands import campaign, run
from custseg_assets.instance import execute

def die(*_, **__):
    os.kill(os.getpid(), 9)

place, arguments = sys.argv[1], sys.argv[2:]
if place == "before the file has its name":
    from custseg_assets.stores.campaigns import CampaignStore
    write = CampaignStore.write
    CampaignStore.write = lambda *given: (write(*given), die())
elif place == "before the release":
    campaign.make_what_follows = die
elif place == "before the tables":
    campaign.has_due_campaigns = die
else:
    from custseg_assets.stores.tables import TableStore
    write = TableStore.write
    def write_once(store, table, *given):
        write(store, table, *given)
        if table.name == "campaign_groups":
            die()
    TableStore.write = write_once
sys.exit(cli.main(arguments))
"""


@pytest.mark.parametrize(
    "place", ["before the file has its name", "before the release", "before the tables", "between the tables"]
)
def test_a_kill_after_the_record_loses_nothing(
    started: Path, filled_shop: FilledShop, tmp_path: Path, place: str
) -> None:
    home, out = shutil.copytree(filled_shop.home, tmp_path / "home"), tmp_path / "May.csv"
    (tmp_path / "home.toml").write_text(QUICK)
    arguments = ["campaign", "start", "May", "--segment", "S1", "--segment", "S2", "--holdout", "0.5"]
    arguments += [*SALT, "--yes", "--out", str(out)]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, place, *arguments],
        cwd=REPOSITORY,
        env={**environment_of(home), "CUSTSEG_CONFIG": str(tmp_path / "home.toml")},
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert out.exists() == (place != "before the file has its name")
    # Nobody is written to who is held out, from the first moment on.
    custseg(home, "export", "customers", "--out", tmp_path / "list.csv", config=QUICK)
    assert holdout(home, "May") == holdout(started, "May")
    assert holdout(home, "May").isdisjoint(ids_in(tmp_path / "list.csv"))
    twice = begin(home, "may", "--segment", "S1")
    assert (twice.status, "there is already" in twice.err) == (2, True)
    assert asked_of_the_sensor(home) == "campaigns"
    assert custseg(home, "run", config=QUICK).status == 0
    assert custseg(home, "campaign", "audience", "May", "--out", out, config=QUICK).status == 0
    assert out.read_text() == started.with_name("May.csv").read_text()
    for table in (schemas.CAMPAIGN_GROUPS, schemas.CAMPAIGN_REPORT):
        there, wanted = (open_quick(one).tables.read(table) for one in (home, started))
        assert_frame_equal(there.drop("started_at", strict=False), wanted.drop("started_at", strict=False))
    released = current(home / "releases")
    assert released is not None
    lists = open_release(home / "releases", released).manifest
    assert "lists_held_out.npy" in lists.files
    assert custseg(home, "verify", config=QUICK).status == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["", "--segment", "S1"], "campaign ''; expected 1 to 40 letters"),
        (["../up", "--segment", "S1"], "campaign '../up'"),
        (["x" * 400, "--segment", "S1"], "expected 1 to 40 letters"),
        (["one", "--segment", "S9"], "--segment 'S9'; expected one of "),
        (["one", "--segment", "S1", "--holdout", "0"], "--holdout 0; expected a share between 0 and 1"),
        (["one", "--segment", "S1", "--holdout", "1"], "--holdout 1; expected a share between 0 and 1"),
        (["one", "--segment", "S1", "--holdout", "nan"], "--holdout nan; expected a share"),
        (["one", "--segment", "S1", "--holdout", "a fifth"], "'a fifth' is no share"),
        (["one", "--segment", "S1", "--holdout", "0.001"], "which leaves 0 held out"),
        (["one", "--segment", "S1", "--holdout", "0.999"], "and 0 to write to"),
        (["one", "--segment", "S1", "--days", "0"], "--days 0; expected 1 to 366 days"),
        (["one", "--segment", "S1", "--starts", "2024-04-30"], "a day from 2024-05-01 on"),
        (["one", "--segment", "S1", "--starts", "2034-04-30"], "a day within a year after 2024-05-01"),
        (["one", "--segment", "S1", "--starts", "soon"], "'soon' is no date"),
        (["one"], "required: --segment"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    filled_shop: FilledShop, arguments: list[str], why: str, tmp_path: Path
) -> None:
    out = tmp_path / "audience.csv"
    refused = custseg(filled_shop.home, "campaign", "start", *arguments, "--yes", "--out", out, config=QUICK)
    assert refused.status == 2
    assert why in refused.err
    assert refused.err.count("custseg: ") + refused.err.count("custseg campaign start: ") == 1
    assert not out.exists()
    assert not (filled_shop.home / "campaigns").exists()


def test_nobody_starts_it_by_accident(filled_shop: FilledShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal and without --yes it is described and refused, and so is a file that is there already."""
    monkeypatch.chdir(tmp_path)
    asked = custseg(filled_shop.home, "campaign", "start", "one", "--segment", "S1", config=QUICK)
    assert (asked.status, "smallest uplift" in asked.err, "Give --yes to start it" in asked.err) == (2, True, True)
    (tmp_path / "one.csv").write_text("mine")
    there = custseg(filled_shop.home, "campaign", "start", "one", "--segment", "S1", "--yes", config=QUICK)
    assert (there.status, "one.csv, which there is already" in there.err) == (2, True)
    out = ("--out", tmp_path / "no" / "one.csv")
    folder = custseg(filled_shop.home, "campaign", "start", "one", "--segment", "S1", "--yes", *out, config=QUICK)
    assert folder.status == 2
    assert [one.name for one in tmp_path.iterdir()] == ["one.csv"]
    assert not (filled_shop.home / "campaigns").exists()


def test_a_no_at_the_terminal_is_a_no(filled_shop: FilledShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        out = ("--out", tmp_path / "one.csv")
        refused = custseg(filled_shop.home, "campaign", "start", "one", "--segment", "S1", *out, config=QUICK)
        assert (refused.status, "Start campaign one? [y/N]" in refused.err) == (2, True)
    assert not (filled_shop.home / "campaigns").exists()


def test_a_home_without_a_release_or_in_use_is_refused(shop_home: Path, tmp_path: Path) -> None:
    with locked_by_another_process(shop_home):
        busy = begin(shop_home, "one", "--segment", "S1")
        assert (busy.status, "in use" in busy.err) == (2, True)
    assert not (shop_home / "campaigns").exists()
    (shop_home / "releases" / "CURRENT").unlink()
    refused = begin(shop_home, "one", "--segment", "S1")
    assert (refused.status, "has no release yet" in refused.err) == (2, True)
    empty = begin(tmp_path / "empty", "one", "--segment", "S1")
    assert (empty.status, "has no release yet" in empty.err) == (2, True)
    assert custseg(tmp_path / "empty", "campaign", "list", config=QUICK).out.startswith("no campaign has been started")


def test_two_starts_at_one_moment_are_one_and_a_refusal(shop_home: Path, tmp_path: Path) -> None:
    """Both have described the same customers when the first gets the lock."""
    wish = Wish("late", ["S1"], 0.2, 30, "pepper")
    begun: list[Outcome] = []

    def say(_: str) -> None:
        if not begun:
            begun.append(begin(shop_home, "early", "--segment", "S1"))

    late = Runner(open_quick(shop_home), say)
    with pytest.raises(BadInputError, match=r"in a running campaign|has changed since"):
        start(late, wish, FileForm(tmp_path / "late.csv"), Starter("Ada", datetime(2024, 5, 2)), is_wanted=True)
    assert begun[0].status == 0, begun[0].err
    assert [one.name for one in CampaignStore(shop_home / "campaigns").all()] == ["early"]
    assert not (tmp_path / "late.csv").exists()


def test_a_damaged_record_is_one_sentence_and_is_mended_by_setting_it_aside(started: Path, tmp_path: Path) -> None:
    home = shutil.copytree(started, tmp_path / "home")
    groups = home / "campaigns" / "may" / "groups.parquet"
    groups.write_bytes(groups.read_bytes()[:-1])
    refused = custseg(home, "export", "customers", "--out", tmp_path / "list.csv", config=QUICK)
    assert refused.status == 1
    assert "groups.parquet is damaged: it is not as it was written" in refused.err
    assert not (tmp_path / "list.csv").exists()
    looked = custseg(home, "verify", config=QUICK)
    assert (looked.status, "campaigns/may" in looked.out) == (1, True)
    custseg(home, "verify", "--mend", config=QUICK)
    assert (home / "damaged" / "campaigns" / "may" / "campaign.json").exists()
    assert custseg(home, "run", config=QUICK).status == 0
    assert custseg(home, "verify", config=QUICK).status == 0


def test_a_lost_record_is_noticed_and_its_name_not_given_again(started: Path, tmp_path: Path) -> None:
    """Its holdout is in lists again, and only the table of groups still knows of it."""
    home = shutil.copytree(started, tmp_path / "home")
    groups = open_quick(home).tables.read(schemas.CAMPAIGN_GROUPS)
    shutil.rmtree(home / "campaigns" / "may")
    looked = custseg(home, "verify", config=QUICK)
    assert looked.status == 1
    assert "campaigns/may" in looked.out
    assert "it is gone, though table campaign_groups has its customers" in looked.out
    refused = begin(home, "MAY", "--segment", "S1")
    assert (refused.status, "campaign 'MAY', whose record is gone" in refused.err) == (2, True)
    assert "! campaign may has no record any more" in custseg(home, "run", config=QUICK).err
    # Another campaign of the same day does not take its rows' place.
    assert begin(home, "other", "--segment", "S3").status == 0
    there = open_quick(home).tables.read(schemas.CAMPAIGN_GROUPS)
    assert set(there["campaign"]) == {"May", "other"}
    assert_frame_equal(there.filter(campaign="May"), groups)
    assert "written down in damaged/campaigns/may.reason.txt" in custseg(home, "verify", "--mend", config=QUICK).out
    assert custseg(home, "verify", config=QUICK).status == 0
    assert "no record" not in custseg(home, "run", config=QUICK).err
    assert begin(home, "may", "--segment", "S1").status == 2


def test_lines_that_are_in_no_table_yet_are_no_days_without_orders(shop_home: Path, tmp_path: Path) -> None:
    """A file has been taken in, and the run was killed before its lines were in a table."""
    assert begin(shop_home, "May", "--segment", "S1").status == 0
    config = f'{QUICK}\n[source]\npath = "{write_log(shop_log(5), tmp_path / "log.csv")}"\n'
    (tmp_path / "shop.toml").write_text(config)
    take_in(load_settings(tmp_path / "shop.toml", home=shop_home, environment={}))
    said = custseg(shop_home, "campaign", "report", "May", config=config).out
    assert "0 of 30 days observed, the log ends 2024-04-30" in said
    assert "! out of date" in said
    assert "headline  return no data yet" in said
    # Nor is the campaign over.
    assert not held_out_ids(open_quick(shop_home)).is_empty()
    # And nothing starts on days that were delivered.
    out = ("--out", tmp_path / "late.csv")
    late = custseg(shop_home, "campaign", "start", "late", "--segment", "S2", "--yes", *out, config=config)
    assert (late.status, "lines of 2024-05-01 that were delivered and are not in the tables" in late.err) == (2, True)
    assert [one.name for one in CampaignStore(shop_home / "campaigns").all()] == ["May"]


def test_nothing_starts_while_files_wait_in_the_landing_folder(shop_home: Path) -> None:
    """They may have the campaign's first days; ``status`` knows of the same files."""
    drop_file(shop_log(5), shop_home / "landing", "may")
    (shop_home / "landing" / "june.csv.part").write_text("InvoiceNo")
    refused = begin(shop_home, "late", "--segment", "S1")
    assert refused.status == 2
    assert "2 files in the landing folder that wait to be taken in, such as may.csv" in refused.err
    assert "Do 'custseg run' first" in refused.err
    assert not (shop_home / "campaigns").exists()
    assert not shop_home.with_name("late.csv").exists()


def test_a_campaign_may_start_later_than_the_log_ends(shop_home: Path) -> None:
    outcome = begin(shop_home, "June", "--segment", "S1", "--starts", "2024-06-10", "--days", "14")
    assert outcome.status == 0, outcome.err
    assert "held out until 2024-06-23" in outcome.out
    store = CampaignStore(shop_home / "campaigns")
    assert store.get("june").start - timedelta(days=40) == datetime(2024, 5, 1)
    for why in ("", " "):
        blank = custseg(shop_home, "campaign", "end", "June", "--why", why, config=QUICK)
        assert (blank.status, "expected why it is ended" in blank.err) == (2, True)
    ended = custseg(shop_home, "campaign", "end", "June", "--why", "no stock", config=QUICK)
    assert "has ended before its first day: it never took place" in ended.out
    said = custseg(shop_home, "campaign", "report", "June", config=QUICK).out
    assert "headline  return no data: it was ended before its first day, and never took place" in said
    assert "0 of 0 days" not in said


@pytest.mark.parametrize("table", ["campaign_groups", "campaign_report"])
def test_without_a_campaign_an_export_says_how_to_start_one(
    filled_shop: FilledShop, table: str, tmp_path: Path
) -> None:
    refused = custseg(filled_shop.home, "export", table, "--out", tmp_path / "no.csv", config=QUICK)
    assert refused.status == 2
    assert "no campaign has been started" in refused.err
    assert "'custseg campaign start NAME --segment SEGMENT' starts one" in refused.err


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sits before the tests."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
