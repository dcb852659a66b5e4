"""Identity of segments across models: the events of their lineage, and the margin rule for single customers.

Every shop here has one feature, and each customer and centroid a place on its scale: a value is ``expm1(place)``, and
the model's ``log1p`` gives the place again.
"""

from __future__ import annotations

import json
from dataclasses import replace

import narwhals as nw
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polars.testing import assert_frame_equal

from custseg_assets.domain.demo import generate_demo
from custseg_assets.domain.periods import window_of
from custseg_assets.domain.segments import identity
from custseg_assets.domain.segments.clustering import assign_customers, nearest_segment
from custseg_assets.domain.segments.identity import inherit_segments
from custseg_assets.domain.segments.model import (
    LineageEvent,
    Matrix,
    ScalingReference,
    Segment,
    SegmentationModel,
    apply_margin_rule,
    model_from_json,
    nearest,
    version_of,
)
from custseg_assets.domain.transactions.cleaning import CleaningRules, classify, clean_lines
from tests.support.features import measure_features
from tests.support.phantom_moves import HELD, MATCHED, NUMBERS, WARM, phantom_moves
from tests.support.real_tables import RealTables

LINE = ScalingReference(("monetary_net",), (0.0,), (1.0,), 1)
NAMES = ("Champions", "Loyal", "Steady", "New", "Lost")


def model(*places: float, key: str = "2011-05-01") -> SegmentationModel:
    """Centroids at these places, named in this order."""
    centroids = tuple((place,) for place in places)
    segments = tuple(Segment(f"S{n + 1}", NAMES[n], f"rule {n}", f"advice {n}", n) for n in range(len(places)))
    return SegmentationModel(key, LINE, centroids, segments, version_of(key, LINE, centroids))


def crowd(**places: int) -> Matrix:
    """Values of so many customers at each place; ``at_1_5=3`` is three at 1.5."""
    where = [float(name.removeprefix("at_").replace("_", ".")) for name in places]
    return np.expm1(np.repeat(where, list(places.values())))[:, None]


def followed(champion: SegmentationModel, challenger: SegmentationModel, values: Matrix) -> SegmentationModel:
    rfm = np.column_stack([np.full(len(values), 10.0), np.ones(len(values)), values[:, 0]])
    return inherit_segments(challenger, champion, champion.score(values).cluster, challenger.score(values).cluster, rfm)


def events(successor: SegmentationModel) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(event.kind, event.before, event.after) for event in successor.lineage]


def ids(successor: SegmentationModel) -> list[str]:
    return [segment.segment_id for segment in successor.segments]


def test_segments_with_most_of_their_customers_in_common_go_on_with_id_name_and_advice() -> None:
    champion = model(8, 2)
    # Of the 10 customers around 8, 9 stay; the one at 5.5 is nearer to 4 than to 8 now.
    successor = followed(champion, model(4, 8), crowd(at_8=9, at_5_5=1, at_2=5))
    assert ids(successor) == ["S2", "S1"]
    assert [segment.name for segment in successor.segments] == ["Loyal", "Champions"]
    kept, before = successor.segments[1], champion.segments[0]
    assert kept == replace(before, cluster=1, naming_rule=kept.naming_rule)
    # Nine customers at 8 and one at 5.5: the rule is told with those of now.
    assert f"net spend {np.expm1(8):,.0f}" in kept.naming_rule
    assert successor.predecessor == champion.model_version
    assert successor.lineage[0] == LineageEvent(
        "continued", ("S1",), ("S1",), "Champions (S1) goes on: 90% of its customers are still in it."
    )
    assert events(successor)[1] == ("continued", ("S2",), ("S2",))


def test_a_segment_that_makes_up_most_of_two_new_ones_was_split_and_the_larger_keeps_the_id() -> None:
    # The 16 customers of S2 are the 10 at 1 and the 6 at 3.
    successor = followed(model(9, 2), model(9, 3, 1), crowd(at_9=20, at_1=10, at_3=6))
    assert ids(successor) == ["S1", "S3", "S2"]
    assert events(successor) == [("split", ("S2",), ("S2", "S3")), ("continued", ("S1",), ("S1",))]
    new = successor.segments[1].name
    assert new not in ("Champions", "Loyal")
    assert successor.lineage[0].words == (
        f"Loyal (S2) was split: 62% of its customers are now in Loyal (S2), 38% in {new} (S3)."
    )


def test_segments_that_went_mostly_into_one_are_merged_under_the_id_of_the_largest() -> None:
    successor = followed(model(9, 3, 1), model(2, 9), crowd(at_9=20, at_1=10, at_3=6))
    assert ids(successor) == ["S3", "S1"]
    assert events(successor) == [("merged", ("S3", "S2"), ("S3",)), ("continued", ("S1",), ("S1",))]
    assert successor.lineage[0].words == "Steady (S3) and Loyal (S2) are one segment now, Steady (S3)."


def test_a_new_segment_without_most_of_its_customers_from_one_is_born() -> None:
    # Ten customers from either side of the old border at 4: half is not most.
    successor = followed(model(6, 2), model(6, 2, 4), crowd(at_6=30, at_2=30, at_3_9=10, at_4_1=10))
    assert ids(successor) == ["S1", "S2", "S3"]
    assert events(successor) == [
        ("continued", ("S1",), ("S1",)),
        ("continued", ("S2",), ("S2",)),
        ("born", (), ("S3",)),
    ]
    assert successor.lineage[2].words == (
        f"{successor.segments[2].name} (S3) is new: 50% of its customers come from Champions (S1), 50% from Loyal (S2)."
    )


def test_an_old_segment_that_no_new_one_took_most_of_is_retired_and_its_number_never_used_again() -> None:
    first = model(6, 2, 4)
    second = followed(first, model(6, 2), crowd(at_6=30, at_2=30, at_3_9=10, at_4_1=10))
    assert events(second)[2] == ("retired", ("S3",), ())
    assert second.lineage[2].words == (
        "Steady (S3) is no segment of its own any more: "
        "50% of its customers are now in Champions (S1), 50% in Loyal (S2)."
    )
    assert (first.n_segment_ids, second.n_segment_ids) == (3, 3)
    third = followed(second, model(6, 2, 4), crowd(at_6=30, at_2=30, at_3_9=10, at_4_1=10))
    assert ids(third) == ["S1", "S2", "S4"]
    assert third.n_segment_ids == 4


def test_ids_that_models_used_which_were_taken_back_are_not_used_again_either() -> None:
    champion = replace(model(6, 2), n_segment_ids=7)
    successor = followed(champion, model(6, 2, 4), crowd(at_6=30, at_2=30, at_3_9=10, at_4_1=10))
    assert (ids(successor), successor.n_segment_ids) == (["S1", "S2", "S8"], 8)


def test_a_segment_that_nobody_is_in_any_more_is_retired() -> None:
    successor = followed(model(9, 5, 1), model(9, 1), crowd(at_9=5, at_1=5))
    assert successor.lineage[2].words == "Loyal (S2) is no segment of its own any more: nobody was in it any more."


def test_a_split_segment_takes_no_part_in_a_merger() -> None:
    # S1, at 2, is the 12 at 1 and the 10 at 3; S2, at 5, is the 8 at 4, and all of them are nearer to 3 now.
    successor = followed(model(2, 5, 9), model(1, 3.4, 9), crowd(at_1=12, at_3=10, at_4=8, at_9=9))
    assert events(successor) == [
        ("split", ("S1",), ("S1", "S4")),
        ("continued", ("S3",), ("S3",)),
        ("retired", ("S2",), ()),
    ]


def test_from_four_clusters_to_five_and_back_the_other_three_keep_their_ids() -> None:
    values = crowd(at_9=20, at_7=20, at_4_6=12, at_3_2=10, at_1=20)
    four = model(9, 7, 4, 1)
    five = followed(four, model(9, 7, 4.6, 3.2, 1), values)
    assert ids(five) == ["S1", "S2", "S3", "S5", "S4"]
    assert [kind for kind, *_ in events(five)] == ["split", "continued", "continued", "continued"]
    again = followed(five, model(9, 7, 4, 1), values)
    assert ids(again) == ["S1", "S2", "S3", "S4"]
    assert [kind for kind, *_ in events(again)] == ["merged", "continued", "continued", "continued"]
    told = [replace(one, naming_rule="") for one in again.segments]
    assert told == [replace(one, cluster=n, naming_rule="") for n, one in enumerate(four.segments)]
    assert again.n_segment_ids == 5


def test_the_numbers_of_the_clusters_change_nothing() -> None:
    values = crowd(at_9=20, at_7=20, at_4_6=12, at_3_2=10, at_1=20)
    champion, challenger = model(9, 7, 4, 1), model(9, 7, 4.6, 3.2, 1)
    plain = followed(champion, challenger, values)
    mixed = followed(shuffled(champion, [2, 0, 3, 1]), shuffled(challenger, [3, 0, 4, 1, 2]), values)
    assert plain.lineage == mixed.lineage
    assert [mixed.segments[n].segment_id for n in mixed.score(values).cluster] == [
        plain.segments[n].segment_id for n in plain.score(values).cluster
    ]


def shuffled(ordered: SegmentationModel, order: list[int]) -> SegmentationModel:
    """The same model with its clusters in another order."""
    return replace(
        ordered,
        centroids=tuple(ordered.centroids[n] for n in order),
        segments=tuple(replace(ordered.segments[n], cluster=number) for number, n in enumerate(order)),
    )


@pytest.mark.parametrize(
    ("overlaps", "links"),
    [
        # The first went mostly into the first new one, which is the second's, and makes up all of the other two.
        ([[55, 25, 20], [200, 0, 0]], [("split", (0,), (1, 2)), ("continued", (1,), (0,))]),
        # The first went all into a new one that mixes three.
        (
            [[10, 0, 0], [8, 9, 0], [8, 0, 9]],
            [("continued", (1,), (1,)), ("continued", (2,), (2,)), ("retired", (0,), ()), ("born", (), (0,))],
        ),
        # The first makes up all of a new one, but went four ways.
        (
            [[10, 8, 7, 7], [0, 30, 0, 0], [0, 0, 30, 0], [0, 0, 0, 30]],
            [*(("continued", (n,), (n,)) for n in (1, 2, 3)), ("retired", (0,), ()), ("born", (), (0,))],
        ),
    ],
)
def test_what_comes_first_and_what_is_not_most_of_both(overlaps: list[list[int]], links: list[tuple[str, ...]]) -> None:
    found = identity._link_clusters(np.array(overlaps), range(len(overlaps)), range(len(overlaps[0])))
    assert [tuple(link) for link in found] == links


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 9)))
def test_every_segment_of_either_model_is_in_exactly_one_event(overlaps: np.ndarray) -> None:
    links = identity._link_clusters(overlaps, range(len(overlaps)), range(overlaps.shape[1]))
    assert sorted(old for link in links for old in link.old) == list(range(len(overlaps)))
    assert sorted(new for link in links for new in link.new) == list(range(overlaps.shape[1]))


def test_a_model_with_a_predecessor_is_read_back_as_it_was_and_has_a_name_of_its_own() -> None:
    successor = followed(model(9, 2), model(9, 3, 1), crowd(at_9=20, at_1=10, at_3=6))
    assert model_from_json(successor.to_json()) == successor
    assert successor.model_version != model(9, 3, 1).model_version


def test_a_model_written_before_there_were_predecessors_is_read() -> None:
    fields = json.loads(model(9, 2).to_json())
    old = {name: value for name, value in fields.items() if name not in ("predecessor", "lineage", "n_segment_ids")}
    assert old.keys() == {"format", "trained_on", "reference", "centroids", "segments", "model_version"}
    assert model_from_json(json.dumps(old)) == model(9, 2)
    assert model_from_json(json.dumps(old)).n_segment_ids == 2


def test_a_model_of_another_format_is_refused() -> None:
    later = {**json.loads(model(9, 2).to_json()), "format": 3}
    with pytest.raises(ValueError, match="model format 3; this version reads format 1 and 2"):
        model_from_json(json.dumps(later))


# The margin rule, with a share of 0.6. The earlier model has its border at 4. A customer of S2, at 2, is 2.8 from it at
# 4.8, and 1.2 from 6: nearer by 1.6 / 2.8 = 0.571. At 4.9 it is 1.8 / 2.9 = 0.621.
EARLIER = model(6, 2)
# The later one has its border at 3.8: at 3.9 a customer is 2.1 from 1.8 and 1.9 from 5.8, nearer by 0.2 / 2.1.
LATER = replace(model(5.8, 1.8, key="2011-06-01"), predecessor=EARLIER.model_version)
RULE = 0.6


def at(**places: float) -> pl.DataFrame:
    """Features of customers by name; at 0 is who has nothing left of the orders."""
    return pl.DataFrame(
        {
            "customer_id": list(places),
            "frequency_orders": [1] * len(places),
            "monetary_net": np.expm1(list(places.values())),
        },
        schema_overrides={"customer_id": pl.String},
    )


def placed(
    customers: pl.DataFrame,
    now: SegmentationModel,
    before: pl.DataFrame | None = None,
    then: SegmentationModel | None = None,
    rule: float = RULE,
    *,
    observed_share: float = 1.0,
) -> pl.DataFrame:
    return assign_customers(customers, customers["customer_id"], now, before, then, rule, observed_share=observed_share)


def where(assigned: pl.DataFrame) -> dict[str, tuple[str, bool]]:
    rows = assigned.select("customer_id", "segment_id", "is_held").iter_rows()
    return {name: (segment, is_held) for name, segment, is_held in rows}


def test_a_customer_stays_until_a_move_is_clear() -> None:
    before = placed(at(near=3, clear=3), EARLIER)
    now = placed(at(near=4.8, clear=4.9), EARLIER, before, EARLIER)
    assert where(now) == {"clear": ("S1", False), "near": ("S2", True)}
    held = now.filter(customer_id="near").row(0, named=True)
    assert (held["cluster"], held["segment_name"], held["runner_up_segment_id"]) == (1, "Loyal", "S1")
    assert held["distance"] == pytest.approx(2.8)
    assert held["margin"] == pytest.approx(-1.6 / 2.8)
    assert now.filter(customer_id="clear")["margin"][0] == pytest.approx(1.8 / 2.9)


def test_a_move_that_is_not_clear_counts_when_it_lasts() -> None:
    before = placed(at(stays=3, back=3), EARLIER)
    once = placed(at(stays=4.2, back=4.2), EARLIER, before, EARLIER)
    assert where(once) == {"stays": ("S2", True), "back": ("S2", True)}
    twice = placed(at(stays=4.2, back=3.9), EARLIER, once, EARLIER)
    assert where(twice) == {"stays": ("S1", False), "back": ("S2", False)}
    # Over the border again, but not twice in a row; and from the new segment the way back is as long.
    again = placed(at(stays=3.9, back=4.2), EARLIER, twice, EARLIER)
    assert where(again) == {"stays": ("S1", True), "back": ("S2", True)}


def test_nothing_lasts_in_the_first_half_of_a_period_but_a_move_can_be_clear() -> None:
    """The day after a snapshot everybody is where it was: that is no second time."""
    once = placed(at(a=4.2, b=3), EARLIER, placed(at(a=3, b=3), EARLIER), EARLIER)
    a_day_later = placed(at(a=4.2, b=4.9), EARLIER, once, EARLIER, observed_share=0.49)
    assert where(a_day_later) == {"a": ("S2", True), "b": ("S1", False)}
    assert where(placed(at(a=4.2, b=4.9), LATER, once, EARLIER, observed_share=0.49))["a"] == ("S2", True)
    lasting = {"a": ("S1", False), "b": ("S1", False)}
    assert where(placed(at(a=4.2, b=4.9), EARLIER, once, EARLIER, observed_share=0.5)) == lasting
    assert where(placed(at(a=4.2, b=4.9), EARLIER, once, EARLIER)) == lasting


def test_only_the_same_segment_twice_in_a_row_lasts() -> None:
    three = model(2, 4, 0)
    before = placed(at(a=2), three)
    right = placed(at(a=3.2), three, before, three)
    left = placed(at(a=0.9), three, right, three)
    assert right["runner_up_segment_id"].to_list() == ["S2"]
    assert left["runner_up_segment_id"].to_list() == ["S3"]
    assert where(right) == where(left) == {"a": ("S1", True)}
    assert where(placed(at(a=0.9), three, left, three)) == {"a": ("S3", False)}


def test_who_has_two_others_nearer_stays_too_while_neither_is_clear() -> None:
    # At 2.9 the own centroid is 0.9 away, the others 0.5 and 0.7: nearer by 0.4 / 0.9 = 0.444.
    three = model(2, 3.4, 3.6)
    now = placed(at(a=2.9), three, placed(at(a=2), three), three)
    assert where(now) == {"a": ("S1", True)}
    assert now["runner_up_segment_id"].to_list() == ["S2"]
    assert now["margin"][0] == pytest.approx(-0.4 / 0.9)


def test_who_comes_from_a_rule_segment_and_who_is_new_is_in_the_nearest() -> None:
    before = pl.concat([placed(at(refunded=0), EARLIER), placed(at(), EARLIER).clear()])
    for now in (EARLIER, LATER):
        assert where(placed(at(refunded=3.9, new=3.9), now, before, EARLIER)) == where(
            placed(at(refunded=3.9, new=3.9), now)
        )
    lapsed = assign_customers(at(), pl.Series("customer_id", ["a"]), EARLIER)
    assert where(placed(at(a=4.1), EARLIER, lapsed, EARLIER)) == {"a": ("S1", False)}
    # And who goes into a rule segment is kept nowhere.
    assert where(placed(at(a=0), EARLIER, placed(at(a=3), EARLIER), EARLIER)) == {"a": ("R1", False)}


def test_the_rule_by_hand() -> None:
    matrix, centroids = np.array([[3.0], [3.0], [3.0], [4.0], [0.0]]), np.array([[0.0], [4.0]])
    fresh = nearest(matrix, centroids)
    assert fresh.cluster.tolist() == [1, 1, 1, 1, 0]
    own, nearest_before = np.array([0, 0, -1, 0, 0]), np.array([0, 1, -1, 0, 0])
    # 3 from the own, 1 from the nearest: nearer by 2/3.
    for rule, held in ((0.5, [False] * 5), (0.7, [True, False, False, False, False])):
        found = apply_margin_rule(fresh, matrix, centroids, own, nearest_before, rule)
        assert found.is_held.tolist() == held
    assert (found.cluster.tolist(), found.runner_up.tolist()) == ([0, 1, 1, 1, 0], [1, 0, 0, 0, 1])
    assert (found.distance[0], found.runner_up_distance[0], found.margin[0]) == (3.0, 1.0, pytest.approx(-2 / 3))
    assert found.margin[1:].tolist() == fresh.margin[1:].tolist()
    at_the_limit = apply_margin_rule(fresh, matrix, centroids, own, nearest_before, float(-found.margin[0]))
    assert not at_the_limit.is_held.any()


def test_a_new_model_alone_moves_only_whom_it_clearly_places_in_another_segment() -> None:
    customers = at(near=3.9, far=1.0, refunded=0)
    before = placed(customers, EARLIER)
    assert where(before)["near"] == ("S2", False)
    now = placed(customers, LATER, before, EARLIER)
    assert where(now) == {"near": ("S2", True), "far": ("S2", False), "refunded": ("R1", False)}
    assert now.filter(customer_id="near")["margin"][0] == pytest.approx(-0.2 / 2.1)
    other = replace(model(3.5, 1.8, key="2011-06-01"), predecessor=EARLIER.model_version)
    # 1.9 from 1.8 and 0.2 from 3.5 at 3.7: nearer by 1.7 / 1.9.
    assert where(placed(at(near=3.7), other, placed(at(near=3.7), EARLIER), EARLIER)) == {"near": ("S1", False)}


def test_whom_a_new_model_alone_would_move_is_moved_a_snapshot_later_if_it_is_still_there() -> None:
    held = placed(at(near=3.9), LATER, placed(at(near=3.9), EARLIER), EARLIER)
    assert where(held) == {"near": ("S2", True)}
    assert where(placed(at(near=3.9), LATER, held, LATER)) == {"near": ("S1", False)}


def test_the_earlier_segment_is_what_the_earlier_model_says_of_the_customer_as_it_is_now() -> None:
    # In the earlier snapshot at 9, well in S1; now at 3.5, which the earlier model has clearly in S2. The later one has
    # it nearest to S3, by 0.2 / 2.5.
    earlier, later = model(9, 2, 6), model(9, 1, 5.8, key="2011-06-01")
    before = placed(at(a=9), earlier)
    assert where(placed(at(a=3.5), earlier, before, earlier)) == {"a": ("S2", False)}
    assert where(placed(at(a=3.5), later)) == {"a": ("S3", False)}
    assert where(placed(at(a=3.5), later, before, earlier)) == {"a": ("S2", True)}


def test_who_stays_where_it_was_under_a_new_model_has_not_moved_though_the_earlier_one_would_have_moved_it() -> None:
    later = replace(model(4.5, 1.2, key="2011-06-01"), predecessor=EARLIER.model_version)
    before = placed(at(a=6), EARLIER)
    assert where(placed(at(a=3), EARLIER, before, EARLIER)) == {"a": ("S2", False)}
    assert where(placed(at(a=3), later, before, EARLIER)) == {"a": ("S1", False)}


def test_a_move_lasts_across_models() -> None:
    once = placed(at(a=4.2), EARLIER, placed(at(a=3), EARLIER), EARLIER)
    # At 3.9 the earlier model has S2 nearest again, the later one S1, as it was at the snapshot before.
    assert where(placed(at(a=3.9), LATER, once, EARLIER)) == {"a": ("S1", False)}
    assert where(placed(at(a=3.9), LATER, placed(at(a=3), EARLIER), EARLIER)) == {"a": ("S2", True)}


def test_nobody_is_held_in_a_segment_that_is_gone() -> None:
    gone = replace(LATER, segments=(LATER.segments[0], replace(LATER.segments[1], segment_id="S3")))
    assert where(placed(at(near=3.9), gone, placed(at(near=3.9), EARLIER), EARLIER)) == {"near": ("S1", False)}


HISTORIES = st.lists(st.lists(st.floats(0.5, 8), min_size=3, max_size=3), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(HISTORIES)
def test_with_a_margin_rule_of_0_everybody_is_in_the_nearest_segment(history: list[list[float]]) -> None:
    before = None
    for places in history:
        customers = at(**dict(zip("abc", places, strict=True)))
        now = placed(customers, LATER, before, LATER, rule=0.0)
        assert_frame_equal(now, placed(customers, LATER))
        before = now


@settings(max_examples=50, deadline=None)
@given(HISTORIES)
def test_every_row_shows_its_nearest_segment_and_follows_from_the_row_before(history: list[list[float]]) -> None:
    before, earlier = None, EARLIER
    for number, places in enumerate(history):
        current = LATER if number > 2 else EARLIER
        customers = at(**dict(zip("abc", places, strict=True)))
        now = placed(customers, current, before, earlier)
        fresh = placed(customers, current)
        assert now.select(nearest_segment())["segment_id"].to_list() == fresh["segment_id"].to_list()
        held = now.filter("is_held")
        assert held["margin"].is_between(-RULE, 0).all()
        assert_frame_equal(now.filter(~pl.col("is_held")), fresh.join(held, on="customer_id", how="anti"))
        # Made again from the same row before, in whatever order, it is the same.
        again = placed(customers.reverse(), current, None if before is None else before.reverse(), earlier)
        assert_frame_equal(again, now)
        if before is not None:
            last = before.select("customer_id", was=nearest_segment())
            assert not held.join(last, on="customer_id").filter(pl.col("runner_up_segment_id") == pl.col("was")).height
        before, earlier = now, current


def first_snapshot(clean: pl.DataFrame, key: str) -> pl.DataFrame:
    """``customer_features`` of six months."""
    return measure_features(clean, window_of(key, str(clean["period"].min()), 6, "monthly"))


def assert_hardly_anybody_moves(features: pl.DataFrame) -> None:
    moves = phantom_moves(features, k=4, n_refits=4)
    assert moves[HELD].mean() <= 0.01
    assert moves[HELD].max() <= 0.03
    assert moves[NUMBERS].mean() > 0.2
    assert moves[HELD].mean() < moves[WARM].mean() < moves[MATCHED].mean()


def test_refits_on_unchanged_customers_of_the_demo_move_hardly_anybody() -> None:
    lines = generate_demo().with_columns(
        pl.col("invoiced_at").dt.strftime("%Y-%m-01").alias("period"), pl.lit("demo").alias("source_file")
    )
    rules = CleaningRules(1, (), "C")
    clean = clean_lines(classify(nw.from_native(lines.lazy()), rules), rules).collect("polars").to_native()
    assert_hardly_anybody_moves(first_snapshot(clean, "2024-06-01"))


def test_refits_on_unchanged_customers_of_the_real_shop_move_hardly_anybody(real_tables: RealTables) -> None:
    assert_hardly_anybody_moves(first_snapshot(real_tables.clean, "2011-06-01"))
