"""Lists of a release: every filter and order against the same done with Polars, and files that are not as they were."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custseg_assets.domain import schemas
from custseg_assets.domain.segments.migrations import CAUSES
from custseg_assets.stores import customer_lists, release_writer
from custseg_assets.stores.customer_lists import (
    COLUMN_TYPES,
    HELD_OUT,
    LIST_FILES,
    PREDICTION_FILES,
    SORTABLE,
    CustomerLists,
    ListQuery,
    column_file,
    find_bytes,
)
from custseg_assets.stores.release_writer import ReleaseContent, write_release
from custseg_assets.stores.releases import DamagedReleaseError, open_release, verify
from tests.support.releases import (
    CUSTOMERS,
    FEATURES,
    PERIODS,
    damage,
    make_content,
    make_release,
    make_values,
    rewrite_files,
    rows_of,
)

SEGMENTS = {"S1": "Champions", "S2": "Promising", "S3": "At risk", "R1": "Refunded", "R2": "Lapsed"}
N_CUSTOMERS = 400


def make_shop(seed: int = 0) -> ReleaseContent:
    """Content with customers at random: some without anything in a window, many alike, some new, some gone quiet."""
    rng = np.random.default_rng(seed)
    ids = [f"{'AbC'[n % 3]}-{n:04}" for n in range(N_CUSTOMERS)]
    frames, features = [], []
    for period, known in zip(PERIODS, (ids[: N_CUSTOMERS - 40], ids), strict=True):
        segments = rng.choice(list(SEGMENTS), len(known))
        frames.append(
            rows_of(
                schemas.SEGMENT_ASSIGNMENTS,
                {
                    "period": [period] * len(known),
                    "customer_id": known,
                    "segment_id": segments,
                    "segment_name": [SEGMENTS[one] for one in segments],
                    "is_rule_segment": [one.startswith("R") for one in segments],
                    "is_held": [False] * len(known),
                },
            )
        )
        there = [one for one in known if rng.random() < 0.8]
        features.append(
            rows_of(
                schemas.CUSTOMER_FEATURES,
                {
                    "period": [period] * len(there),
                    "customer_id": there,
                    "recency_days": [None if rng.random() < 0.1 else int(rng.integers(0, 20)) for _ in there],
                    "frequency_orders": rng.integers(0, 5, len(there)),
                    "monetary_net": rng.integers(-50, 300, len(there)) / 4,
                },
            )
        )
    moved = frames[1].join(frames[0], on="customer_id").filter(pl.col("segment_id") != pl.col("segment_id_right"))
    causes = rng.choice(CAUSES, moved.height)
    content = make_content()
    return replace(
        content,
        assignments=pl.concat(frames).lazy(),
        customer_features=features[1],
        earlier_features=features[0].lazy(),
        customer_value=make_values(rng.permutation(frames[1]["customer_id"].to_numpy())[5:].tolist()).lazy(),
        segment_migrations=rows_of(
            schemas.SEGMENT_MIGRATIONS,
            {"period": [PERIODS[1]] * moved.height, "customer_id": moved["customer_id"], "cause": causes},
        ),
    )


def expected_rows(content: ReleaseContent) -> pl.DataFrame:
    """What the lists should say, from the tables and otherwise than the writer does it."""
    assignments = content.assignments.collect()
    now, before = (assignments.filter(period=period).to_dicts() for period in reversed(PERIODS))
    assert content.earlier_features is not None
    assert content.segment_migrations is not None
    features = {row["customer_id"]: row for row in content.customer_features.to_dicts()}
    assert content.customer_value is not None
    predicted = content.customer_value.with_columns(
        pl.col("p_order_30d").round(6), pl.col("expected_spend_90d").round(4)
    )
    values = {row["customer_id"]: row for row in predicted.collect().to_dicts()}
    net_before = {row["customer_id"]: row["monetary_net"] for row in content.earlier_features.collect().to_dicts()}
    earlier = {row["customer_id"]: row["segment_id"] for row in before}
    causes = dict(content.segment_migrations.select("customer_id", "cause").iter_rows())
    rows = []
    for row in now:
        customer, segment = row["customer_id"], row["segment_id"]
        own, was = features.get(customer, {}), earlier.get(customer)
        net = own.get("monetary_net")
        then = None if was is None else net_before.get(customer, 0.0)
        rows.append(
            {
                "customer_id": customer,
                "segment_id": segment,
                "moved_from": was if was not in (None, segment) else None,
                "is_new": was is None,
                "cause": causes.get(customer),
                "since": PERIODS[0] if was == segment else PERIODS[1],
                **{name: own.get(name) for name in FEATURES},
                "spend_change": None if then is None else (net or 0.0) - then,
                "value_at_stake": max(net or 0.0, then or 0.0, 0.0),
                **{name: values.get(customer, {}).get(name) for name in ("p_order_30d", "expected_spend_90d")},
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.fixture(scope="module")
def shop() -> ReleaseContent:
    return make_shop()


@pytest.fixture(scope="module")
def expected(shop: ReleaseContent) -> pl.DataFrame:
    return expected_rows(shop)


@pytest.fixture(scope="module")
def lists(shop: ReleaseContent, tmp_path_factory: pytest.TempPathFactory) -> CustomerLists:
    root = tmp_path_factory.mktemp("releases")
    found = open_release(root, make_release(root, shop)).lists
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customer_lists, "CHUNK_ROWS", 64)


def rows_of_query(lists: CustomerLists, query: ListQuery) -> list[dict[str, Any]]:
    return [lists.describe(row) for _, row in lists.walk(query, lists.select(query))]


def ids_of(lists: CustomerLists, query: ListQuery) -> list[str]:
    return [row["customer_id"] for row in rows_of_query(lists, query)]


def test_every_customer_is_described_as_the_tables_have_it(lists: CustomerLists, expected: pl.DataFrame) -> None:
    found = rows_of_query(lists, ListQuery(sort="customer_id", is_descending=False))
    assert len(found) == N_CUSTOMERS
    for row, right in zip(found, expected.sort("customer_id").iter_rows(named=True), strict=True):
        assert row["segment_name"] == SEGMENTS[row["segment_id"]]
        assert (row["moved_from"] or {}).get("segment_id") == right["moved_from"]
        same = right.keys() - {"moved_from", "is_new"}
        assert {name: row[name] for name in same} == {name: right[name] for name in same}


@pytest.mark.parametrize(("column", "is_descending"), [*product((*SORTABLE, "customer_id"), (False, True))])
def test_every_order_has_equal_ones_by_id_and_those_without_a_value_at_the_end(
    lists: CustomerLists, expected: pl.DataFrame, column: str, is_descending: bool
) -> None:
    has_value = pl.col(column).is_not_null()
    with_value, without = expected.filter(has_value), expected.filter(~has_value)
    right = [
        *with_value.sort(column, "customer_id", descending=is_descending)["customer_id"],
        *without.sort("customer_id")["customer_id"],
    ]
    assert ids_of(lists, ListQuery(sort=column, is_descending=is_descending)) == right


FILTERS: list[tuple[dict[str, Any], pl.Expr]] = [
    *(({"segment": (one,)}, pl.col("segment_id") == one) for one in SEGMENTS),
    ({"segment": ("S1", "R2")}, pl.col("segment_id").is_in(["S1", "R2"])),
    *(({"moved_from": (one,)}, pl.col("moved_from") == one) for one in SEGMENTS),
    ({"moved_from": ("none",)}, pl.col("is_new")),
    ({"moved_from": ("none", "S2")}, pl.col("is_new") | (pl.col("moved_from") == "S2")),
    ({"has_moved": True}, pl.col("moved_from").is_not_null()),
    ({"has_moved": False}, pl.col("moved_from").is_null() & ~pl.col("is_new")),
    *(({"causes": (one,)}, pl.col("cause") == one) for one in CAUSES),
    ({"contains": "1"}, pl.col("customer_id").str.contains("1", literal=True)),
    ({"contains": "c-00"}, pl.col("customer_id").str.contains("C-00", literal=True)),
    ({"contains": "B-"}, pl.col("customer_id").str.contains("b-", literal=True)),
    ({"contains": "0A"}, pl.lit(value=False)),
    ({"bounds": {"monetary_net": (10.0, None)}}, pl.col("monetary_net") >= 10),
    ({"bounds": {"monetary_net": (None, 0.0)}}, pl.col("monetary_net") <= 0),
    ({"bounds": {"frequency_orders": (1, 3)}}, pl.col("frequency_orders").is_between(1, 3)),
    ({"bounds": {"recency_days": (None, 5)}}, pl.col("recency_days") <= 5),
    (
        {"bounds": {"recency_days": (0, None), "monetary_net": (None, 40.0)}, "segment": ("S3",), "has_moved": True},
        (pl.col("recency_days") >= 0)
        & (pl.col("monetary_net") <= 40)
        & (pl.col("segment_id") == "S3")
        & pl.col("moved_from").is_not_null(),
    ),
]


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_every_filter_finds_those_and_their_money(lists: CustomerLists, expected: pl.DataFrame, number: int) -> None:
    wanted, condition = FILTERS[number]
    right = expected.filter(condition)
    query = ListQuery(**wanted, sort="customer_id", is_descending=False)
    selection = lists.select(query)
    assert ids_of(lists, query) == sorted(right["customer_id"])
    assert selection.n_customers == right.height
    assert selection.value_at_stake == pytest.approx(right["value_at_stake"].sum(), abs=1e-9)


def test_a_walk_goes_on_from_any_row_of_it(lists: CustomerLists) -> None:
    query = ListQuery(has_moved=True, sort="recency_days")
    selection = lists.select(query)
    whole = list(lists.walk(query, selection))
    for number, (position, _) in enumerate(whole):
        assert list(lists.walk(query, selection, position)) == whole[number + 1 :]


def test_history_is_every_snapshot_that_knew_the_customer_the_newest_first(
    lists: CustomerLists, shop: ReleaseContent
) -> None:
    assignments = {(row["period"], row["customer_id"]): row for row in shop.assignments.collect().to_dicts()}
    assert shop.earlier_features is not None
    both = pl.concat([shop.customer_features, shop.earlier_features.collect()])
    features = {(row["period"], row["customer_id"]): row for row in both.to_dicts()}
    for customer in {one for _, one in assignments}:
        right = [
            {
                "period": period,
                "segment_id": assignments[period, customer]["segment_id"],
                **{name: features.get((period, customer), {}).get(name) for name in FEATURES},
            }
            for period in reversed(PERIODS)
            if (period, customer) in assignments
        ]
        found = lists.history_of(customer)
        assert found is not None
        assert [{name: one[name] for name in right[0]} for one in found] == right
    assert lists.history_of("A-0000x") is None
    assert lists.history_of("") is None


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=4))
def test_bytes_are_found_wherever_they_are(text: bytes, part: bytes) -> None:
    found = find_bytes(np.frombuffer(text, np.uint8), part)
    right = [place for place in range(len(text)) if text[place : place + len(part)].lower() == part.lower()]
    assert found.tolist() == right


def test_ids_of_every_kind_are_listed_as_they_are(tmp_path: Path) -> None:
    found = open_release(tmp_path, make_release(tmp_path)).lists
    assert found is not None
    assert {found.id_of(row) for row in range(len(found))} >= {name for name, *_ in CUSTOMERS}
    for name, *_ in CUSTOMERS:
        assert found.history_of(name), name
    assert ids_of(found, ListQuery(contains="ü")) == ['C/ü "x"']


def test_lists_are_equal_byte_for_byte_whatever_the_order_and_the_chunks(
    shop: ReleaseContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_release(tmp_path / "a", shop)
    monkeypatch.setattr(release_writer, "CHUNK_CUSTOMERS", 37)
    assert shop.earlier_features is not None
    shuffled = replace(
        shop,
        assignments=shop.assignments.collect().sample(fraction=1, shuffle=True, seed=3).lazy(),
        customer_features=shop.customer_features.reverse(),
        earlier_features=shop.earlier_features.reverse(),
    )
    second = write_release(tmp_path / "b", shuffled)
    assert {name: first.files[name] for name in LIST_FILES} == {name: second.files[name] for name in LIST_FILES}


@pytest.mark.parametrize("name", ["../CURRENT", "/etc/passwd", "a/b", "..", "", "lists_more.npy", "manifest.json"])
def test_a_manifest_names_no_file_that_a_release_has_not(tmp_path: Path, name: str) -> None:
    release_id = rewrite_files(tmp_path, make_release(tmp_path), {name: {"sha256": "0" * 64, "n_bytes": 1}})
    with pytest.raises(DamagedReleaseError, match="names files that no release has"):
        verify(tmp_path, release_id)


def test_a_release_without_lists_is_as_good_as_before(tmp_path: Path) -> None:
    release_id = rewrite_files(tmp_path, make_release(tmp_path), dict.fromkeys(LIST_FILES | PREDICTION_FILES))
    release = open_release(tmp_path, release_id)
    assert release.lists is None
    assert release.record_of("12347") is not None


@pytest.mark.parametrize("name", sorted(LIST_FILES | PREDICTION_FILES))
def test_a_release_with_some_of_the_lists_is_refused(tmp_path: Path, name: str) -> None:
    release_id = rewrite_files(tmp_path, make_release(tmp_path), {name: None})
    with pytest.raises(DamagedReleaseError, match=name):
        verify(tmp_path, release_id)


@pytest.mark.parametrize("name", sorted(LIST_FILES | PREDICTION_FILES))
def test_one_changed_byte_in_a_file_of_the_lists_is_noticed(tmp_path: Path, name: str) -> None:
    release_id = make_release(tmp_path)
    damage(tmp_path / release_id / name)
    with pytest.raises(DamagedReleaseError, match=name):
        verify(tmp_path, release_id)


@pytest.mark.parametrize("name", sorted(COLUMN_TYPES))
def test_columns_that_do_not_belong_together_are_no_lists(tmp_path: Path, name: str) -> None:
    folder = tmp_path / make_release(tmp_path)
    np.save(folder / column_file(name), np.load(folder / column_file(name))[:-1])
    with pytest.raises(ValueError, match="do not belong together"):
        CustomerLists(folder)


def test_who_is_held_out_is_in_no_list_and_is_counted(tmp_path: Path) -> None:
    content = make_shop(3)
    ids = content.assignments.filter(pl.col("period") == PERIODS[1]).collect()["customer_id"].sort()
    held = set(ids.gather_every(5))
    everybody = open_release(tmp_path, make_release(tmp_path, content))
    some = open_release(tmp_path, make_release(tmp_path, replace(content, held_out=pl.Series([*held, "stranger"]))))
    assert HELD_OUT not in everybody.manifest.files
    assert (everybody.lists, some.lists) != (None, None)
    for query in (ListQuery(), ListQuery(segment=("S1",)), ListQuery(is_at_risk=True), ListQuery(contains="a-0")):
        of_all, left = (
            [one.lists.id_of(row) for _, row in one.lists.walk(query, one.lists.select(query))]
            for one in (everybody, some)
            if one.lists
        )
        assert left == [one for one in of_all if one not in held]
        assert some.lists is not None
        assert some.lists.select(query).n_held_out == len(of_all) - len(left)
    # What is known of a single one of them stays.
    assert some.lists.history_of(min(held)) is not None
    # Without them the release is the one it always was, byte for byte.
    assert make_release(tmp_path, replace(content, held_out=pl.Series([], dtype=pl.String))) == everybody.release_id


@pytest.mark.parametrize(
    "rows", [np.array([3, 3]), np.array([5, 2]), np.array([-1]), np.array([N_CUSTOMERS]), np.array([1.5]), np.eye(2)]
)
def test_customers_held_out_that_there_are_not_are_no_lists(tmp_path: Path, rows: Any) -> None:
    folder = tmp_path / make_release(tmp_path, make_shop())
    np.save(folder / HELD_OUT, rows)
    with pytest.raises(ValueError, match=HELD_OUT):
        CustomerLists(folder, has_held_out=True)
    # A file that the manifest does not name is not read.
    assert len(CustomerLists(folder)) == N_CUSTOMERS
