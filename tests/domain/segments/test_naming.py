"""Names: the right ones for clear cases, never the same twice, and with the rule that gave them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from custseg_assets.domain.segments import naming
from custseg_assets.domain.segments.model import Segment
from custseg_assets.domain.segments.naming import VOCABULARY, name_segments, rfm_scores

# Recency in days, orders, net spend.
CUSTOMERS = np.array(
    [[2, 9, 900], [3, 8, 800], [40, 3, 300], [50, 3, 250], [6, 1, 90], [7, 1, 80], [200, 1, 30], [220, 1, 20]], float
)
PAIRS = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def test_scores_by_hand() -> None:
    # 1 + 4 × (worse + half of the equal) / 8. Recency 2: seven are worse, one is equal; one order: four are equal.
    scores = rfm_scores(CUSTOMERS, np.array([[2.0, 1.0, 85.0]]))
    assert scores.tolist() == [[1 + 4 * 7.5 / 8, 1 + 4 * 2 / 8, 1 + 4 * 3 / 8]]


def test_customers_who_are_all_alike_score_three() -> None:
    assert rfm_scores(np.ones((5, 3)), np.ones((1, 3))).tolist() == [[3, 3, 3]]


def test_scores_that_are_typical_of_a_name_give_that_name() -> None:
    for entry in VOCABULARY:
        assert naming._assign_names(np.array([entry.typical]), ()) == [(entry.name, entry)]


def test_the_groups_of_a_small_shop_get_customary_names() -> None:
    segments = name_segments(CUSTOMERS, PAIRS, 4)
    assert [segment.name for segment in segments] == ["Champions", "Needs attention", "Occasional", "Lost"]


def test_ids_follow_median_net_spend_not_the_clusters_numbers() -> None:
    segments = name_segments(CUSTOMERS, np.array([3, 3, 1, 1, 0, 0, 2, 2]), 4)
    assert [segment.segment_id for segment in segments] == ["S3", "S2", "S4", "S1"]
    assert [segment.cluster for segment in segments] == [0, 1, 2, 3]
    assert segments[3].name == "Champions"


def test_the_rule_says_the_medians_the_scores_and_what_the_name_stands_for() -> None:
    rule = name_segments(CUSTOMERS, PAIRS, 4)[0].naming_rule
    # Recency 2.5 days: six are worse; 8.5 orders: seven are; 850 spent: seven are.
    assert rule == (
        "RFM scores R4.5 F4.5 M4.5 (medians: recency 2 days, orders 8.5, net spend 850) are nearest to R4.5 F4.8 M4.8: "
        "customers who ordered lately, most often and for the most"
    )


def test_the_order_of_customers_does_not_change_the_names() -> None:
    assert name_segments(CUSTOMERS[::-1], PAIRS[::-1], 4) == name_segments(CUSTOMERS, PAIRS, 4)


@pytest.mark.parametrize("k", [1, 8, len(VOCABULARY), len(VOCABULARY) + 1, 30])
def test_names_are_unique_and_numbered_only_when_the_vocabulary_is_used_up(k: int) -> None:
    rfm = np.random.default_rng(k).lognormal(3, 1, (k * 20, 3))
    names = [segment.name for segment in name_segments(rfm, np.arange(k * 20) % k, k)]
    assert len(set(names)) == k
    numbered = [name for name in names if name.endswith(" 2")]
    assert len(numbered) == max(0, k - len(VOCABULARY))


def test_two_segments_of_the_same_kind_get_different_names_of_that_kind() -> None:
    rfm = np.vstack([CUSTOMERS, CUSTOMERS[:2] * 0.9])
    names = [segment.name for segment in name_segments(rfm, np.append(PAIRS, [4, 4]), 5)]
    assert {names[0], names[4]} == {"Champions", "Potential loyalists"}


def test_every_name_has_scores_in_range_and_one_sentence_of_advice() -> None:
    for entry in VOCABULARY:
        assert all(1 <= score <= 5 for score in entry.typical)
        assert entry.advice.endswith(".")
        assert ". " not in entry.advice


def test_a_cluster_without_customers_cannot_be_named() -> None:
    with pytest.raises(ValueError, match=r"clusters \[1\] have no customer"):
        name_segments(CUSTOMERS[:1], np.array([0]), 2)


def test_a_kept_segment_keeps_id_and_name_and_the_others_share_the_ids_and_names_that_are_free() -> None:
    loyal = Segment("S2", "Champions", "as it was found", "Keep them.", cluster=7)
    segments = name_segments(CUSTOMERS, PAIRS, 4, kept={2: loyal}, n_segment_ids=6)
    assert replace(segments[2], naming_rule="") == Segment("S2", "Champions", "", "Keep them.", cluster=2)
    # What its customers are is told of those of now, and not of those that the name was once given for.
    assert segments[2].naming_rule == (
        "RFM scores R3.5 F2.0 M2.5 (medians: recency 6 days, orders 1, net spend 85); the segment goes on from the "
        "model before and keeps its name, which was given there for customers who ordered lately, most often and for "
        "the most"
    )
    assert [segment.segment_id for segment in segments] == ["S7", "S8", "S2", "S9"]
    # The best cluster would be called Champions, were the name free.
    assert [segment.name for segment in segments] == ["Loyal", "Needs attention", "Champions", "Lost"]


def test_with_every_name_taken_a_new_segment_gets_a_number() -> None:
    kept = {n: Segment(f"S{n + 1}", entry.name, "", "", n) for n, entry in enumerate(VOCABULARY)}
    rfm = np.vstack([CUSTOMERS] * 3)[: len(VOCABULARY) + 1]
    segments = name_segments(rfm, np.arange(len(rfm)), len(rfm), kept, len(kept))
    assert segments[-1].segment_id == f"S{len(VOCABULARY) + 1}"
    assert segments[-1].name.endswith(" 2")
