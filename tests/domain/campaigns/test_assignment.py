"""Who is held out: exact numbers of each segment, the same for the same salt, and nobody by name."""

from __future__ import annotations

import numpy as np
import pytest

from custseg_assets.domain.campaigns.assignment import assign_holdout, draws_seed, hash_ids, held_out_of

IDS = [f"c{number}" for number in range(1_000)]
SEGMENTS = ["S1"] * 700 + ["S2"] * 293 + ["S3"] * 7


def test_each_segment_has_its_share_to_the_customer() -> None:
    is_held = assign_holdout(IDS, SEGMENTS, "salt", 0.2)
    assert {name: int(is_held[np.array(SEGMENTS) == name].sum()) for name in ("S1", "S2", "S3")} == {
        "S1": 140,
        "S2": 59,
        "S3": 1,
    }


def test_order_does_not_matter_and_salt_does() -> None:
    is_held = assign_holdout(IDS, SEGMENTS, "salt", 0.2)
    mixed = np.random.default_rng(1).permutation(len(IDS))
    again = assign_holdout([IDS[place] for place in mixed], [SEGMENTS[place] for place in mixed], "salt", 0.2)
    assert again.tolist() == is_held[mixed].tolist()
    other = assign_holdout(IDS, SEGMENTS, "pepper", 0.2)
    # 20 % of 20 % are held out of both, as of two that have nothing to do with each other.
    assert int((is_held & other).sum()) == pytest.approx(40, abs=15)


def test_hashes_stay_what_they_are() -> None:
    """A split of last year has to be checked with next year's libraries: BLAKE2b of 'c0' with the key 'salt'."""
    assert [f"{one:x}" for one in hash_ids(["c0", "ü", ""], "salt")] == [
        "28efc082097ef86c",
        "4abcbc2dee1eebf5",
        "a90b28fee47c03ff",
    ]


def test_neither_everybody_nor_nobody_can_be_split_wrongly() -> None:
    assert assign_holdout([], [], "salt", 0.2).tolist() == []
    assert assign_holdout(["a", "b"], ["S1", "S1"], "salt", 0.999).tolist() == [True, True]
    assert held_out_of(np.array([1, 2, 3, 5]), 0.5).tolist() == [1, 1, 2, 3]


def test_the_seed_of_draws_is_the_salts_own() -> None:
    assert draws_seed("salt") == draws_seed("salt") != draws_seed("pepper")
