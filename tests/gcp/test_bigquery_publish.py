"""Publishing to BigQuery by the real client, on a fake that speaks BigQuery's protocol."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
from google.cloud.bigquery.retry import DEFAULT_RETRY
from hypothesis import given, settings
from hypothesis import strategies as st

from custseg_assets.defs.assets.bigquery import published_tables
from custseg_assets.domain import schemas
from custseg_assets.domain.schemas import PREDICTION_LOG, Column, Table
from custseg_assets.gcp.bigquery import BigQuery, BigQueryError
from custseg_assets.gcp.bigquery_publish import MAX_ATTEMPTS, Publisher, looker_url, view_queries
from custseg_assets.settings import GcpSettings
from custseg_assets.stores.publications import HELD_OUT, Part, Publications, prediction_parts
from custseg_assets.stores.tables import TableStore
from tests.support.fakes.bigquery import FakeBigQuery
from tests.support.fakes.clock import wait_on_this_clock
from tests.support.fakes.gcs import FakeGcs
from tests.support.fakes.service import Refused, Request
from tests.support.places import URI, cloud_config
from tests.support.shops import HEADERS, custseg, shop_log, write_log

pytestmark = pytest.mark.gcp

SCORES = Table(
    "drift_report",
    "One row per score.",
    (
        Column("period", pl.String(), "Partition key."),
        Column("subject", pl.String(), "What was measured."),
        Column("score", pl.Float64(), "The score.", is_nullable=True),
    ),
)
NAMES = Table("segment_profiles", "One row per segment.", (SCORES.columns[0], SCORES.columns[1]))


@pytest.fixture
def service() -> Iterator[FakeBigQuery]:
    with FakeBigQuery("shop") as fake:
        fake.add_dataset("segments")
        yield fake


class Shop:
    """A publisher whose process can be started again."""

    def __init__(self, fake: FakeBigQuery, folder: Path) -> None:
        self.fake, self.folder = fake, folder

    def publisher(self, patience_seconds: float = 30) -> Publisher:
        gcp = GcpSettings.model_validate(
            {"project": "shop", "bigquery": {"dataset": "segments"}, "endpoints": {"bigquery": self.fake.url}}
        )
        record = Publications(self.folder / "published.json", "shop.segments")
        return Publisher(BigQuery(gcp, patience_seconds), record, lambda _: None)


@pytest.fixture
def shop(service: FakeBigQuery, tmp_path: Path) -> Shop:
    return Shop(service, tmp_path)


def part(key: str, *scores: float, fingerprint: int | None = 1, table: Table = SCORES) -> Part:
    columns = {"period": [key] * len(scores), "subject": [f"s{n}" for n in range(len(scores))], "score": list(scores)}
    rows = pl.DataFrame({name: columns.get(name, [None] * len(scores)) for name in table.schema}, schema=table.schema)
    return Part(table, key, fingerprint, lambda: rows)


def test_a_partition_is_loaded_with_its_types_and_the_snapshot_is_announced(shop: Shop) -> None:
    assert shop.publisher().publish([part("2024-02-01", 0.5, 1.5)]) == 1
    rows = shop.fake.rows("segments.drift_report")
    assert rows.sort("subject").rows() == [(date(2024, 2, 1), "s0", 0.5), (date(2024, 2, 1), "s1", 1.5)]
    assert shop.fake.fields("segments.drift_report") == {"period": "DATE", "subject": "STRING", "score": "FLOAT"}
    assert shop.fake.rows("segments.published_snapshots")["period"].to_list() == [date(2024, 2, 1)]


def test_publishing_again_asks_for_nothing_to_be_loaded(shop: Shop) -> None:
    parts = [part("2024-02-01", 0.5), part("2024-03-01", 0.7)]
    shop.publisher().publish(parts)
    n_loads = shop.fake.n_loads()
    assert shop.publisher().publish(parts) == 0
    assert shop.fake.n_loads() == n_loads == 4


def test_one_partition_is_replaced_and_the_others_stay(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 0.7)])
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 0.8, 0.9, fingerprint=2)])
    assert shop.fake.rows("segments.drift_report").sort("score")["score"].to_list() == [0.5, 0.8, 0.9]
    assert shop.fake.rows("segments.published_snapshots").height == 2


def test_what_was_published_before_the_last_time_is_published_again(shop: Shop) -> None:
    # A, B, A: a job that loaded A exists, but what the table holds is B.
    for fingerprint, score in ((1, 0.1), (2, 0.2), (1, 0.1)):
        shop.publisher().publish([part("2024-02-01", score, fingerprint=fingerprint)])
    assert shop.fake.rows("segments.drift_report")["score"].to_list() == [0.1]


def test_a_partition_that_is_gone_goes_there_too(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 0.7)])
    shop.publisher().publish([part("2024-02-01", fingerprint=None), part("2024-03-01", 0.7)])
    assert shop.fake.rows("segments.drift_report")["score"].to_list() == [0.7]
    assert shop.fake.rows("segments.published_snapshots")["period"].to_list() == [date(2024, 3, 1)]


def test_an_empty_partition_is_published_as_one(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5)])
    shop.publisher().publish([part("2024-02-01", fingerprint=2)])
    assert shop.fake.rows("segments.drift_report").is_empty()
    assert shop.fake.rows("segments.published_snapshots").height == 1


def test_without_its_record_a_home_publishes_everything_again(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5)])
    (shop.folder / "published.json").unlink()
    assert shop.publisher().publish([part("2024-02-01", 0.5)]) == 1
    assert shop.fake.rows("segments.drift_report").height == 1


def test_a_load_whose_process_was_killed_is_followed_and_not_started_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5)])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    shop.fake.runs_jobs = False
    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "_wait_for", die)
        with pytest.raises(KeyboardInterrupt):
            shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 0.7)])
    n_loads = shop.fake.n_loads()
    shop.fake.runs_jobs = True
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 0.7)])
    # The announcement is the only new one.
    assert shop.fake.n_loads() == n_loads + 1


def test_two_homes_that_publish_in_turns_leave_what_the_last_one_has(shop: Shop, tmp_path: Path) -> None:
    def rows() -> list[tuple[object, ...]]:
        return shop.fake.rows("segments.drift_report").sort("period", "score").select("period", "score").rows()

    def announced() -> list[date]:
        return shop.fake.rows("segments.published_snapshots").sort("period")["period"].to_list()

    other = Shop(shop.fake, tmp_path / "other")
    february, march = date(2024, 2, 1), date(2024, 3, 1)
    first = [part("2024-02-01", 0.1), part("2024-03-01", 0.2)]
    changed = [part("2024-02-01", 0.9, fingerprint=2)]
    shop.publisher().publish(first)
    shop.publisher().publish([part("2024-02-01", 0.3, fingerprint=3), first[1]])
    # A fresh home publishes what the other one had at first.
    other.publisher().publish([first[0]])
    assert (rows(), announced()) == ([(february, 0.1)], [february])
    shop.publisher().publish(first)
    assert (rows(), announced()) == ([(february, 0.1), (march, 0.2)], [february, march])
    other.publisher().publish(changed)
    assert (rows(), announced()) == ([(february, 0.9)], [february])
    shop.publisher().publish(first)
    assert (rows(), announced()) == ([(february, 0.1), (march, 0.2)], [february, march])
    n_loads = shop.fake.n_loads()
    assert shop.publisher().publish(first) == 0
    assert shop.fake.n_loads() == n_loads


def content(fake: FakeBigQuery) -> tuple[list[tuple[str, float]], list[str]]:
    """Period and score of the rows there, and the periods that are announced."""
    rows = fake.rows("segments.drift_report").sort("period", "score").select("period", "score").rows()
    announced = fake.rows("segments.published_snapshots")["period"].sort().to_list()
    return [(str(period), score) for period, score in rows], [str(period) for period in announced]


def expected(scores: Mapping[str, float]) -> tuple[list[tuple[str, float]], list[str]]:
    return sorted(scores.items()), sorted(scores)


def parts_of(scores: Mapping[str, float]) -> list[Part]:
    return [part(key, score, fingerprint=round(score * 10)) for key, score in scores.items()]


HOMES = ("one", "two", "three")
SCORES_BY_PERIOD = st.dictionaries(
    st.sampled_from(["2024-02-01", "2024-03-01", "2024-04-01"]), st.integers(1, 3).map(float), min_size=1
)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HOMES), SCORES_BY_PERIOD, st.none() | st.integers(0, 25)), max_size=8))
def test_whoever_publishes_last_has_its_tables_there(turns: list[tuple[str, dict[str, float], int | None]]) -> None:
    """In any order, also after publications that were cut off at any request."""
    with FakeBigQuery("shop") as fake, tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        fake.add_dataset("segments")
        wait_on_this_clock(patch)
        for home, scores, cut_at in turns:
            shop = Shop(fake, Path(folder, home))
            known = Publications(shop.folder / "published.json", "shop.segments").of(SCORES.name)
            parts = [*parts_of(scores), *(part(key, fingerprint=None) for key in known.keys() - scores.keys())]
            fake.on_request = refuse_from(cut_at)
            try:
                shop.publisher().publish(parts)
            except BigQueryError:
                assert cut_at is not None
            else:
                assert content(fake) == expected(scores)


def refuse_from(number: int | None) -> Callable[[Request], None]:
    """Refuses every request from one on."""
    left = itertools.count()

    def on_request(_: Request) -> None:
        if number is not None and next(left) >= number:
            raise Refused(403, "accessDenied", "Access Denied.")

    return on_request


def test_two_homes_at_the_same_time_notice_it_and_the_next_publication_is_whole(tmp_path: Path) -> None:
    """The other home publishes before each of the requests of the first."""
    mine, theirs = {"2024-02-01": 0.1, "2024-03-01": 0.2}, {"2024-02-01": 0.9, "2024-04-01": 0.8}
    noticed: list[str] = []
    n_whole = 0
    for number in itertools.count():
        with FakeBigQuery("shop") as fake:
            fake.add_dataset("segments")
            fake.fails_every = 0
            one, two = Shop(fake, tmp_path / f"{number}-one"), Shop(fake, tmp_path / f"{number}-two")
            left = iter(range(number + 1))

            def publish_theirs(_: Request, left: Iterator[int] = left, two: Shop = two, last: int = number) -> None:
                if next(left, None) == last:
                    two.publisher().publish(parts_of(theirs))

            fake.on_request = publish_theirs
            try:
                one.publisher().publish(parts_of(mine))
            except BigQueryError as error:
                noticed.append(str(error))
            else:
                n_whole += 1
                assert content(fake) == expected(mine)
            if next(left, None) is not None:
                break
            fake.on_request = lambda _: None
            one.publisher().publish(parts_of(mine))
            assert content(fake) == expected(mine)
            two.publisher().publish(parts_of(theirs))
            assert content(fake) == expected(theirs)
    assert (len(noticed) > 10, n_whole >= 2) == (True, True)
    words = "published to by another home at the same time.*it publishes all of its own"
    assert [said for said in noticed if not re.search(words, said)] == []


def test_what_a_person_deleted_in_bigquery_is_published_again_with_the_next_change(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 0.7)])
    gone = shop.fake.datasets["segments"]["drift_report"]
    shop.fake._replace_rows(gone, gone.rows.clear())
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 0.8, fingerprint=2)])
    assert shop.fake.rows("segments.drift_report").sort("score")["score"].to_list() == [0.5, 0.8]


def test_tables_of_another_home_are_emptied_where_this_one_has_nothing(shop: Shop, tmp_path: Path) -> None:
    shop.publisher().publish([part("2024-02-01", table=NAMES, fingerprint=1)], tables=[NAMES])
    other = Shop(shop.fake, tmp_path / "other")
    other.publisher().publish([part("2024-02-01", 0.5)])
    Shop(shop.fake, tmp_path / "third").publisher().publish([], tables=[SCORES], announce=False)
    assert shop.fake.rows("segments.drift_report").is_empty()


@pytest.mark.parametrize("reason", ["backendError", "internalError", "rateLimitExceeded"])
def test_a_load_that_fails_because_bigquery_is_busy_is_started_again_and_not_counted(shop: Shop, reason: str) -> None:
    shop.fake.fail_loads = [reason] * (MAX_ATTEMPTS + 2)
    assert shop.publisher().publish([part("2024-02-01", 0.5)]) == 1
    assert shop.fake.rows("segments.drift_report")["score"].to_list() == [0.5]


@pytest.mark.parametrize("troubles", [(), (503, 503, 429, 429, 0, 0)])
def test_lost_answers_and_a_busy_service_change_nothing(
    shop: Shop, tmp_path: Path, troubles: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custseg_assets.gcp.bigquery.DEFAULT_RETRY", DEFAULT_RETRY.with_delay(0.001, 0.01))
    shop.fake.troubles, shop.fake.loses_answers = troubles, not troubles
    publisher, other = shop.publisher(), Shop(shop.fake, tmp_path / "other").publisher()
    first = [part("2024-02-01", 0.1), part("2024-03-01", 0.2)]
    assert publisher.publish(first) == 2
    assert publisher.publish(first) == 0
    assert other.publish([part("2024-02-01", 0.9, fingerprint=2)]) == 2
    assert publisher.publish(first) == 2
    assert shop.fake.rows("segments.drift_report").sort("score")["score"].to_list() == [0.1, 0.2]
    assert shop.fake.rows("segments.published_snapshots").height == 2
    # Four of scores and four announcements; of the other home one of each.
    assert shop.fake.n_loads() == 10


def test_lost_answers_about_views_are_no_conflict(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("custseg_assets.gcp.bigquery.DEFAULT_RETRY", DEFAULT_RETRY.with_delay(0.001, 0.01))
    tables = [*published_tables(), PREDICTION_LOG, HELD_OUT]
    shop.fake.loses_answers = True
    shop.publisher().make_views(tables, None)
    shop.publisher().make_views(tables, "2024-03-01")
    assert "2024-03-01" in shop.fake.datasets["segments"]["current_segments"].resource["view"]["query"]


def test_bigquery_may_be_busy_for_longer_than_a_run_waits_and_the_next_run_publishes(shop: Shop) -> None:
    shop.fake.fail_loads = ["backendError"] * 100
    with pytest.raises(BigQueryError, match=r"Retrying may solve the problem\. .*Run it again"):
        shop.publisher().publish([part("2024-02-01", 0.5)])
    assert len(shop.fake.fail_loads) < 90
    shop.fake.fail_loads = []
    assert shop.publisher().publish([part("2024-02-01", 0.5)]) == 1


def test_a_long_history_is_published_within_the_limit_of_changes_to_one_table(shop: Shop) -> None:
    shop.fake.fails_every = 0
    keys = [f"{year}-{month:02}-01" for year in (2022, 2023, 2024) for month in range(1, 13)]
    parts = [part(key, 0.5, table=table) for table in (SCORES, NAMES) for key in keys]
    assert shop.publisher().publish(parts) == 72
    assert shop.fake.rows("segments.published_snapshots").height == 36
    # One snapshot after the other, and none of the loads was one too many for its table.
    assert len(shop.fake.jobs) == shop.fake.n_loads() == 108
    assert [name.partition("$")[0] for name in shop.fake.loads()[:3]] == [
        "drift_report",
        "segment_profiles",
        "published_snapshots",
    ]


@pytest.mark.parametrize("is_record_lost", [False, True])
def test_a_table_made_anew_is_filled_anew(shop: Shop, *, is_record_lost: bool) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5)])
    shop.fake.datasets["segments"].clear()
    if is_record_lost:
        (shop.folder / "published.json").unlink()
    assert shop.publisher().publish([part("2024-02-01", 0.5)]) == 1
    assert shop.fake.rows("segments.drift_report").height == 1


def test_a_large_table_is_uploaded_in_pieces(shop: Shop) -> None:
    rows = pl.DataFrame({"period": ["2024-02-01"] * 900_000}).with_columns(
        subject=pl.int_range(pl.len()).hash(1).cast(pl.String), score=pl.lit(1.0)
    )
    shop.publisher().publish([Part(SCORES, "2024-02-01", 1, lambda: rows)])
    assert shop.fake.rows("segments.drift_report").height == 900_000
    assert any(request.startswith("PUT /upload/") for request in shop.fake.requests)


def test_a_load_that_is_refused_leaves_the_partition_and_announces_nothing(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-02-01", table=NAMES)])
    before = shop.fake.rows("segments.published_snapshots")
    shop.fake.reject_loads_of.add("drift_report")
    changed = [part("2024-02-01", 0.9, fingerprint=2), part("2024-03-01", 0.9, fingerprint=2)]
    with pytest.raises(
        BigQueryError, match=r"at row 2.*as it was and its snapshot is not announced; the errors are in"
    ):
        shop.publisher().publish(changed)
    assert shop.fake.rows("segments.drift_report")["score"].to_list() == [0.5]
    assert shop.fake.rows("segments.published_snapshots").equals(before)
    # The cause is gone; the job that failed is in the way of nothing.
    assert shop.publisher().publish(changed) == 2
    assert shop.fake.rows("segments.drift_report")["score"].to_list() == [0.9, 0.9]


def test_a_new_column_is_added_and_old_rows_have_none(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5)])
    wider = replace(SCORES, columns=(*SCORES.columns, Column("is_alert", pl.Boolean(), "Whether it alerts.")))
    shop.publisher().publish([part("2024-02-01", 0.5, table=wider), part("2024-03-01", 0.7, table=wider)])
    assert shop.fake.fields("segments.drift_report")["is_alert"] == "BOOLEAN"
    assert shop.fake.rows("segments.drift_report").sort("score")["score"].to_list() == [0.5, 0.7]


def test_a_column_that_is_there_and_not_here_stays(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5)])
    narrower = replace(SCORES, columns=SCORES.columns[:2])
    shop.publisher().publish([part("2024-02-01", 0.5), part("2024-03-01", 1, table=narrower)])
    assert shop.fake.rows("segments.drift_report").sort("score", nulls_last=True)["score"].to_list() == [0.5, None]


def test_a_column_of_another_type_is_refused_before_anything_is_loaded(shop: Shop) -> None:
    shop.publisher().publish([part("2024-02-01", 0.5)])
    n_loads = shop.fake.n_loads()
    other = replace(SCORES, columns=(*SCORES.columns[:2], Column("score", pl.String(), "In words.")))
    in_words = replace(part("2024-03-01", 0.7), table=other)
    with pytest.raises(BigQueryError, match=r"drift_report has score as FLOAT64; expected STRING.*nothing was changed"):
        shop.publisher().publish([in_words])
    assert shop.fake.n_loads() == n_loads


def test_a_table_of_somebody_elses_is_left_alone(shop: Shop) -> None:
    shop.fake.add_table("segments.drift_report", pl.DataFrame({"period": [date(2024, 2, 1)]}))
    with pytest.raises(BigQueryError, match="is not partitioned by period"):
        shop.publisher().publish([part("2024-02-01", 0.5)])


@pytest.mark.parametrize("permission", ["bigquery.tables.create", "bigquery.jobs.create", "bigquery.tables.updateData"])
def test_a_missing_permission_is_named_and_nothing_is_announced(shop: Shop, permission: str) -> None:
    shop.fake.denied.add(permission)
    with pytest.raises(BigQueryError, match=f"Permission {permission} denied"):
        shop.publisher().publish([part("2024-02-01", 0.5)])
    assert is_nothing_announced(shop)


def is_nothing_announced(shop: Shop) -> bool:
    return "published_snapshots" not in shop.fake.datasets["segments"] or (
        shop.fake.rows("segments.published_snapshots").is_empty()
    )


def test_a_dataset_that_is_not_there_is_named(shop: Shop) -> None:
    del shop.fake.datasets["segments"]
    with pytest.raises(BigQueryError, match="Not found: Dataset shop:segments"):
        shop.publisher().publish([part("2024-02-01", 0.5)])


def test_a_service_that_is_busy_is_asked_again(shop: Shop) -> None:
    shop.fake.n_unavailable = 1
    assert shop.publisher().publish([part("2024-02-01", 0.5)]) == 1


def test_the_views_run_on_the_published_tables_and_show_announced_snapshots_only(shop: Shop) -> None:
    tables = [*published_tables(), PREDICTION_LOG, HELD_OUT]
    publisher = shop.publisher()
    made = publisher.make_views(tables, None)
    assert set(made) == set(view_queries("shop.segments"))
    profile = {name: [None] for name in schemas.SEGMENT_PROFILES.schema}
    for key, n_customers in (("2024-02-01", 10), ("2024-03-01", 20)):
        rows = pl.DataFrame(
            {**profile, "period": [key], "n_customers": [n_customers]}, schema=schemas.SEGMENT_PROFILES.schema
        )
        one = Part(schemas.SEGMENT_PROFILES, key, 1, rows.clone)
        publisher.publish([one], announce=key == "2024-02-01")
    publisher.make_views(tables, "2024-02-01")
    assert shop.fake.query("SELECT n_customers FROM segments.current_segments").rows() == [(10,)]
    assert shop.fake.query("SELECT period FROM segments.segments_over_time").height == 1
    publisher.publish([one])
    publisher.make_views(tables, "2024-03-01")
    assert shop.fake.query("SELECT n_customers FROM segments.current_segments").rows() == [(20,)]
    assert shop.fake.query("SELECT period FROM segments.segments_over_time").height == 2
    for name in made:
        shop.fake.query(f"SELECT * FROM segments.{name}")  # noqa: S608


def test_a_view_whose_query_changed_is_brought_up_to_date(shop: Shop) -> None:
    tables = [*published_tables(), PREDICTION_LOG, HELD_OUT]
    shop.publisher().make_views(tables, None)
    view = shop.fake.datasets["segments"]["current_segments"].resource
    wanted = view["view"]["query"]
    view["view"] = {"query": "SELECT 1 AS one"}
    shop.publisher().make_views(tables, None)
    assert view["view"]["query"] == wanted


def test_days_of_the_prediction_log_are_published_when_records_come_and_removed_when_they_go(
    shop: Shop, tmp_path: Path
) -> None:
    store, record = TableStore(tmp_path / "tables"), Publications(tmp_path / "published.json", "shop.segments")

    def log(day: str, *lines: int) -> pl.DataFrame:
        given = {"period": [day] * len(lines), "source_file": "a.jsonl", "source_line": list(lines)}
        absent = [pl.lit(None, dtype).alias(name) for name, dtype in PREDICTION_LOG.schema.items() if name not in given]
        return pl.DataFrame(given).with_columns(absent).select(PREDICTION_LOG.schema.names())

    def publish() -> int:
        return shop.publisher().publish(prediction_parts(store, record), announce=False)

    store.append(PREDICTION_LOG, pl.concat([log("2024-03-01", 1, 2), log("2024-03-02", 3)]))
    assert publish() == 2
    assert publish() == 0
    store.append(PREDICTION_LOG, log("2024-03-02", 4))
    assert publish() == 1
    assert shop.fake.rows("segments.prediction_log")["source_line"].sort().to_list() == [1, 2, 3, 4]
    store.remove_before(PREDICTION_LOG, "2024-03-02")
    assert publish() == 1
    assert shop.fake.rows("segments.prediction_log")["source_line"].sort().to_list() == [3, 4]
    assert "published_snapshots" not in shop.fake.datasets["segments"]


def test_the_looker_link_names_six_views_for_a_template_and_one_source_without() -> None:
    plain = parse_qs(urlsplit(looker_url("shop", "segments", None)).query)
    assert plain["ds.ds0.tableId"] == ["segments_over_time"]
    assert "c.reportId" not in plain
    template = parse_qs(urlsplit(looker_url("shop", "segments", "abc-1")).query)
    assert template["c.reportId"] == ["abc-1"]
    later = {"days", "decisions", "expected_by_segment", "products_by_segment", "service_latency"}
    for view in view_queries("shop.segments").keys() - later:
        assert template[f"ds.{view}.tableId"] == [view]
        assert template[f"ds.{view}.projectId"] == ["shop"]
    assert not any(f"ds.{view}.tableId" in template for view in later)


def test_a_run_reads_from_bigquery_releases_to_a_bucket_and_publishes_to_bigquery(
    service: FakeBigQuery, gcs: FakeGcs, tmp_path: Path
) -> None:
    log = shop_log(n_months=3)
    service.add_table("sales.orders", log.select([name for name in log.columns if name in HEADERS]))
    config = cloud_config(
        project="shop",
        bigquery={"dataset": "segments"},
        storage={"uri": URI},
        endpoints={"bigquery": service.url, "storage": gcs.url},
    )
    home = tmp_path / "home"
    outcome = custseg(home, "run", "--source", "bq://shop.sales.orders", config=config)
    assert outcome.status == 0, outcome.err
    rows = service.query("SELECT period, COUNT(*) AS n FROM segments.segment_assignments GROUP BY period ORDER BY 1")
    assert rows["period"].to_list() == service.rows("segments.published_snapshots").sort("period")["period"].to_list()
    assert rows.height >= 2
    exported = tmp_path / "assignments.parquet"
    custseg(home, "export", "segment_assignments", "--all", "--out", exported, config=config)
    local = pl.read_parquet(exported).with_columns(pl.col("period").str.to_date())
    published = service.rows("segments.segment_assignments").select(local.columns)
    assert published.sort("period", "customer_id").equals(local.sort("period", "customer_id"))

    released = gcs.buckets["shop-data"]["home/releases/CURRENT"].content.decode().strip()
    assert released == (home / "releases" / "CURRENT").read_text().strip()

    n_loads = service.n_loads()
    again = custseg(home, "run", "--source", "bq://shop.sales.orders", config=config)
    assert (again.status, service.n_loads()) == (0, n_loads), again.err
    assert "Nothing has changed" in again.out

    # What cannot be published holds nothing else up, and is published when it can be.
    wanted = write_log(shop_log(n_months=4), tmp_path / "longer.csv")
    service.denied.add("bigquery.jobs.get")
    failed = custseg(home, "run", "--source", wanted, config=config)
    assert failed.status == 1
    assert "Permission bigquery.jobs.get denied" in failed.err
    assert gcs.buckets["shop-data"]["home/releases/CURRENT"].content.decode().strip() != released
    service.denied.clear()
    assert custseg(home, "run", "--source", wanted, config=config).status == 0
    assert service.rows("segments.published_snapshots").height == rows.height + 1


def test_whom_a_running_campaign_holds_out_is_in_no_list_of_a_segment(service: FakeBigQuery, tmp_path: Path) -> None:
    config = cloud_config(
        project="shop", bigquery={"dataset": "segments"}, endpoints={"bigquery": service.url, "storage": service.url}
    )
    home, out = tmp_path / "home", tmp_path / "audience.csv"

    def listed() -> set[str]:
        published = custseg(home, "run", "--source", source, config=config)
        assert published.status == 0, published.err
        return set(service.query("SELECT customer_id FROM segments.customer_segments")["customer_id"])

    source = write_log(shop_log(n_months=4), tmp_path / "log.csv")
    everybody = listed()
    assert len(everybody) > 100
    start = ("campaign", "start", "Spring", "--segment", "S1", "--segment", "S2", "--holdout", "0.5", "--yes")
    started = custseg(home, *start, "--out", out, config=config)
    assert started.status == 0, started.err

    during = listed()

    held_out = everybody - during
    assert set(service.rows("segments.held_out_customers")["customer_id"]) == held_out
    assert len(held_out) > 10
    assert not held_out & set(pl.read_csv(out, schema_overrides={"customer_id": pl.String})["customer_id"])
    n_loads = service.n_loads()
    assert (listed(), service.n_loads()) == (during, n_loads)
    ended = custseg(home, "campaign", "end", "Spring", "--why", "sold out", config=config)
    assert ended.status == 0, ended.err
    assert listed() == everybody
