"""Slices: every customer in exactly one range of ids."""

from __future__ import annotations

import polars as pl
import pytest

from custseg_assets.domain import slices
from custseg_assets.domain.slices import EVERYBODY, count_slices, cut_ranges, ids_apart

IDS = ["", "0", "00123", "123", "B", "a", "aa", "b", "z", "ß", "é", "日本", "🛒", "c'd", "x y"]


@pytest.mark.parametrize("n_ranges", [1, 2, 3, 7, 15, 40])
@pytest.mark.parametrize("sampled", [IDS, IDS[::3], IDS[:1], ["b"] * 9, []])
def test_every_id_is_in_exactly_one_range_whatever_the_cuts_were_made_by(n_ranges: int, sampled: list[str]) -> None:
    ranges = cut_ranges(pl.Series(sampled, dtype=pl.String), n_ranges)
    customers = pl.DataFrame({"customer_id": [*IDS, "never seen"]})
    found = [customers.filter(one.condition)["customer_id"].sort().to_list() for one in ranges]
    # One after the other they are all ids in their one order.
    assert [customer_id for ids in found for customer_id in ids] == customers["customer_id"].sort().to_list()


def test_ranges_are_as_many_and_as_large_as_asked_for() -> None:
    customers = pl.DataFrame({"customer_id": [f"{number:05}" for number in range(1_000)]})
    ranges = cut_ranges(customers["customer_id"].gather_every(10), 4)
    assert [customers.filter(one.condition).height for one in ranges] == [250, 250, 250, 250]


def test_small_snapshots_are_not_cut() -> None:
    assert count_slices(slices.SLICED_FROM) == 1
    assert count_slices(slices.SLICED_FROM + 1) == 3
    assert EVERYBODY.is_everybody
    assert ids_apart(7, 3) == 1
    assert ids_apart(20_000_000, 20) == 1_000
