"""Writing, reading, verifying and pruning releases; a killed writer leaves no visible release."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from custseg_assets.domain.periods import window_of
from custseg_assets.domain.segments.customer_history import describe_customers
from custseg_assets.errors import BadInputError
from custseg_assets.stores import release_writer
from custseg_assets.stores.release_writer import write_release
from custseg_assets.stores.releases import (
    DamagedReleaseError,
    current,
    open_release,
    point_to,
    prune,
    read_manifest,
    releases,
    verify,
)
from tests.support.files import REPOSITORY
from tests.support.releases import (
    CUSTOMERS,
    LAPSED_CUSTOMER,
    damage,
    make_content,
    make_model,
    make_other_content,
    make_release,
)


def test_a_customer_is_found_with_everything_the_snapshot_says(tmp_path: Path) -> None:
    release = open_release(tmp_path, make_release(tmp_path))
    found = release.record_of("12348")
    assert found is not None
    assert found["segment_id"] == "S2"
    assert found["since"] == "2011-11-01"
    assert found["previous"] == {"segment_id": "S1", "segment_name": "Champions"}
    assert found["features"] == {"recency_days": 62, "frequency_orders": 3, "monetary_net": 512.3}
    assert found["products"] == ["22423", "85123A"]


def test_an_address_is_found_in_any_case_and_other_ids_as_they_are_written(tmp_path: Path) -> None:
    came = {"first_seen_at": datetime(2011, 12, 5)}
    later = pl.DataFrame([{"customer_id": one, **came} for one in ("ann@shop.example", "a17")])
    release = open_release(tmp_path, make_release(tmp_path, replace(make_content(), later_customers=later)))
    assert release.record_of("Ann@Shop.example") == release.record_of("ann@shop.example") is not None
    assert release.record_of("A17") is None


def test_every_kind_of_customer_is_on_file(tmp_path: Path) -> None:
    release = open_release(tmp_path, make_release(tmp_path))
    for name, *_ in CUSTOMERS:
        assert release.record_of(name) is not None, name
    lapsed = release.record_of(LAPSED_CUSTOMER)
    assert lapsed is not None
    assert (lapsed["features"], lapsed["products"]) == (None, [])
    assert release.record_of("19999") == {"first_seen_at": "2011-12-05T09:30:00.000000"}
    assert release.record_of("nobody") is None
    assert release.record_of("") is None
    assert release.record_of("\ud800") is None


def test_a_release_can_be_opened_again_while_it_is_open(tmp_path: Path) -> None:
    release_id = make_release(tmp_path)
    first, second = open_release(tmp_path, release_id), open_release(tmp_path, release_id)
    del first
    assert second.record_of("12347") is not None


def test_since_is_the_first_snapshot_of_the_unbroken_stay() -> None:
    history = pl.DataFrame(
        [
            (f"2011-0{number}-01", "a", segment, segment.lower(), 0.5, False, "X")
            for number, segment in enumerate("ABAA", 1)
        ],
        schema=["period", "customer_id", "segment_id", "segment_name", "margin", "is_held", "runner_up_segment_id"],
        orient="row",
    )
    features = pl.DataFrame({"customer_id": ["a"], "recency_days": [1]})
    offered = pl.DataFrame(schema={"customer_id": pl.String, "rank": pl.Int64, "product_id": pl.String})
    described = describe_customers(history, features, offered, period="2011-04-01", features=["recency_days"])
    found = described["record"][0]
    assert (found["since"], found["previous"]["segment_id"]) == ("2011-03-01", "B")


def test_since_of_who_never_moved_is_the_first_snapshot_there_is(tmp_path: Path) -> None:
    record = open_release(tmp_path, make_release(tmp_path)).record_of("12347")
    assert record is not None
    assert (record["since"], record["previous"]) == ("2011-10-01", None)


def test_moves_count_those_who_stayed_changed_and_came(tmp_path: Path) -> None:
    found = open_release(tmp_path, make_release(tmp_path)).migrations
    assert found["before"] == "2011-10-01"
    counts = {(one["from_segment_id"], one["to_segment_id"]): one["n_customers"] for one in found["moves"]}
    assert counts[None, "R1"] == 1
    assert counts["S1", "S2"] == 1
    assert sum(counts.values()) == len(CUSTOMERS) + 1


def test_the_first_snapshot_has_no_moves(tmp_path: Path) -> None:
    content = make_content()
    now = content.assignments.filter(period=content.window.key)
    first = replace(content, assignments=now, segment_migrations=None)
    assert open_release(tmp_path, make_release(tmp_path, first)).migrations == {
        "before": None,
        "moves": [],
        "causes": {},
        "moved": None,
        "to_and_fro": None,
        "margin_rule": 0.6,
    }


def test_a_release_says_how_much_moved_and_by_which_margin_rule(tmp_path: Path) -> None:
    content = make_content()
    found = open_release(tmp_path, make_release(tmp_path, content)).migrations
    # 12348 left Champions; four others whom K-means saw before stayed.
    assert (found["moved"], found["to_and_fro"], found["margin_rule"]) == (1 / 5, None, 0.6)
    first = content.assignments.filter(period="2011-11-01").with_columns(period=pl.lit("2011-09-01"))
    later = content.assignments.filter(period="2011-11-01").with_columns(period=pl.lit("2011-12-01"), segment_id=None)
    three = replace(content, assignments=pl.concat([first, content.assignments, later]), margin_rule=0.0)
    found = open_release(tmp_path, make_release(tmp_path, three)).migrations
    assert (found["moved"], found["to_and_fro"], found["margin_rule"]) == (1 / 5, 1 / 5, 0.0)


def test_causes_of_moves_are_counted_also_those_of_nobody(tmp_path: Path) -> None:
    caused = pl.DataFrame({"customer_id": list("abc"), "cause": ["behaviour", "border", "behaviour"]})
    found = open_release(tmp_path, make_release(tmp_path, replace(make_content(), segment_migrations=caused)))
    assert found.migrations["causes"] == {"behaviour": 2, "border": 1, "model change": 0}


def test_equal_content_gives_equal_bytes_whatever_the_order_and_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = make_content()
    first = write_release(tmp_path / "a", content)
    shuffled = replace(
        content,
        assignments=content.assignments.collect().sample(fraction=1, shuffle=True, seed=3).lazy(),
        customer_features=content.customer_features.reverse(),
        product_recommendations=content.product_recommendations.reverse(),
    )
    assert write_release(tmp_path / "b", shuffled) == first
    monkeypatch.setattr(release_writer, "CHUNK_CUSTOMERS", 2)
    release = open_release(tmp_path / "c", write_release(tmp_path / "c", content).release_id)
    assert [release.record_of(name) for name, *_ in CUSTOMERS] == [
        open_release(tmp_path / "a", first.release_id).record_of(name) for name, *_ in CUSTOMERS
    ]


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    release_id = make_release(tmp_path)
    before = (tmp_path / release_id / "manifest.json").stat().st_mtime_ns
    assert make_release(tmp_path) == release_id
    assert (tmp_path / release_id / "manifest.json").stat().st_mtime_ns == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["CURRENT", release_id]


def test_other_content_is_another_release_and_the_first_can_be_served_again(tmp_path: Path) -> None:
    first, second = make_release(tmp_path), make_release(tmp_path, make_other_content())
    assert (releases(tmp_path), current(tmp_path)) == ((first, second), second)
    point_to(tmp_path, first)
    assert current(tmp_path) == first


FILES = [
    "customers.lmdb",
    "drift.json",
    "history.json",
    "model.json",
    "model_card.md",
    "products.json",
    "profiles.json",
]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_one_changed_byte_in_any_file_is_noticed(tmp_path: Path, name: str) -> None:
    release_id = make_release(tmp_path)
    assert verify(tmp_path, release_id).release_id == release_id
    damage(tmp_path / release_id / name)
    with pytest.raises(DamagedReleaseError, match=release_id):
        verify(tmp_path, release_id)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_noticed(tmp_path: Path, name: str) -> None:
    release_id = make_release(tmp_path)
    (tmp_path / release_id / name).unlink()
    with pytest.raises(DamagedReleaseError, match=name.removesuffix(".json")):
        verify(tmp_path, release_id)


def test_a_release_of_another_format_is_refused(tmp_path: Path) -> None:
    release_id = make_release(tmp_path)
    manifest = tmp_path / release_id / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(DamagedReleaseError, match="format 2; this version reads 1"):
        verify(tmp_path, release_id)


@pytest.mark.parametrize("release_id", ["", "..", "../x", "r-2011-11-01-6aaba178/..", "r-2011-11-01-00000000", "\0"])
def test_only_a_release_that_verifies_can_be_pointed_to(tmp_path: Path, release_id: str) -> None:
    existing = make_release(tmp_path)
    with pytest.raises(BadInputError, match=existing):
        point_to(tmp_path, release_id)
    assert current(tmp_path) == existing


def test_a_damaged_release_is_mended_by_writing_it_again(tmp_path: Path) -> None:
    release_id = make_release(tmp_path)
    (tmp_path / release_id / "model.json").write_text("{}")
    assert make_release(tmp_path) == release_id
    assert verify(tmp_path, release_id)


def test_pruning_keeps_the_newest_and_the_served_one(tmp_path: Path) -> None:
    ids = [
        write_release(tmp_path, replace(make_content(), model_card=f"# {number}\n")).release_id for number in range(4)
    ]
    point_to(tmp_path, ids[0])
    assert prune(tmp_path, keep=1) == tuple(ids[1:3])
    assert set(releases(tmp_path)) == {ids[0], ids[3]}


def test_only_the_manifest_of_an_open_snapshot_has_the_end_of_its_period(tmp_path: Path) -> None:
    """Closed ones keep the bytes they had before there were open snapshots."""
    content = make_content()
    closed = write_release(tmp_path, content)
    assert (closed.is_open, closed.period_days, "period_end" in closed.to_json()) == (False, 30, False)
    window = window_of(content.window.key, "2011-06-01", 6, "monthly", datetime(2011, 11, 10))
    opened = read_manifest(tmp_path, write_release(tmp_path, replace(content, window=window)).release_id)
    assert (opened.is_open, opened.as_of, opened.period_days) == (True, datetime(2011, 11, 10), 30)
    assert opened.period_end == datetime(2011, 12, 1)


def test_only_the_manifest_of_a_shop_whose_currency_is_known_has_it(tmp_path: Path) -> None:
    content = make_content()
    assert '"currency"' not in write_release(tmp_path, content).to_json()
    known = write_release(tmp_path, replace(content, currency="GBP"))
    assert read_manifest(tmp_path, known.release_id).currency == "GBP"


def test_pruning_keeps_the_newest_of_the_model_before_to_go_back_to(tmp_path: Path) -> None:
    """A model in force for long has many releases, one for each day that the present snapshot was made again."""
    earlier = [write_release(tmp_path, replace(make_content(), model_card=f"# {n}\n")).release_id for n in range(2)]
    later = replace(make_model(), model_version="m-2011-11-01-00000000")
    ids = [write_release(tmp_path, replace(make_content(later), model_card=f"# {n}\n")).release_id for n in range(4)]
    point_to(tmp_path, ids[-1])
    assert prune(tmp_path, keep=1) == (earlier[0], *ids[:2])
    assert set(releases(tmp_path)) == {earlier[1], *ids[2:]}


def test_a_snapshot_without_customers_is_no_release(tmp_path: Path) -> None:
    content = make_content()
    with pytest.raises(ValueError, match="no customer is assigned"):
        write_release(tmp_path, replace(content, assignments=content.assignments.head(0)))
    assert list(tmp_path.iterdir()) == []


def test_a_segment_with_customers_and_no_profile_is_refused(tmp_path: Path) -> None:
    content = make_content()
    with pytest.raises(ValueError, match="R2"):
        write_release(tmp_path, replace(content, segment_profiles=content.segment_profiles.filter(segment_id="S1")))


def test_a_killed_writer_leaves_nothing_that_looks_like_a_release(tmp_path: Path) -> None:
    program = (
        "import sys, dataclasses; from pathlib import Path; from tests.support.releases import *\n"
        "print('ready', flush=True)\n"
        "for number in range(1000):\n"
        "    make_release(Path(sys.argv[1]), dataclasses.replace(make_content(), model_card=str(number)))\n"
    )
    for moment in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.017 * moment)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for release_id in releases(tmp_path):
            assert verify(tmp_path, release_id)
        if release_id_now := current(tmp_path):
            assert verify(tmp_path, release_id_now)
    make_release(tmp_path)
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".writing")]
