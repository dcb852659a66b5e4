"""What a segment buys more than the shop: surely, and not by chance or by buying much."""

import numpy as np
import polars as pl

from custseg_assets.domain.segments.products import MIN_LIFT, N_PRODUCTS, products_of_segments


def counts(of_segments: dict[str, dict[str, int]]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Buyers by segment and product, of the whole shop, and texts."""
    rows = [(segment, product, n) for segment, bought in of_segments.items() for product, n in bought.items()]
    in_segments = pl.DataFrame(rows, schema=["segment_id", "product_id", "n_buyers"], orient="row")
    in_shop = in_segments.group_by("product_id").agg(pl.col("n_buyers").sum())
    return in_segments, in_shop, in_shop.select("product_id", description="text of " + pl.col("product_id"))


def test_a_product_that_a_segment_buys_more_stands_out_with_its_parts_and_a_lift_shrunk_towards_1() -> None:
    found = products_of_segments(*counts({"S1": {"tea": 3000, "cup": 1000}, "S2": {"tea": 1000, "cup": 3000}}))

    row = found.row(0, named=True)
    assert found.select("segment_id", "rank", "product_id").rows() == [("S1", 1, "tea"), ("S2", 1, "cup")]
    assert (row["n_buyers"], row["share_of_segment"], row["share_of_shop"]) == (3000, 0.75, 0.5)
    assert row["description"] == "text of tea"
    # By hand: buyers found and expected, and 5 more of both.
    assert abs(row["lift"] - 3005 / 2005) < 1e-12
    assert MIN_LIFT <= row["lift_low"] < row["lift"] < 1.5


def test_who_buys_more_of_everything_does_not_stand_out() -> None:
    catalogue = {f"P{number}": 10 + number for number in range(200)}
    twice = {product: 9 * n for product, n in catalogue.items()}

    assert products_of_segments(*counts({"S1": twice, "S2": catalogue})).is_empty()


def test_few_buyers_prove_nothing() -> None:
    found = products_of_segments(*counts({"S1": {"rare": 3, "tea": 500}, "S2": {"tea": 500}}))

    assert found.is_empty()


def test_customers_by_chance_have_next_to_nothing_that_stands_out() -> None:
    random = np.random.default_rng(7)
    n_buyers = random.zipf(1.4, 3_000).clip(max=2_000)
    n_found = 0
    for _ in range(20):
        parts = [random.binomial(n_buyers, 0.25), random.binomial(n_buyers, 0.02)]
        bought = {f"S{i}": {f"P{j}": int(n) for j, n in enumerate(part) if n} for i, part in enumerate(parts)}
        n_found += products_of_segments(*counts(bought)).height

    assert n_found <= 2


def test_no_more_than_some_are_told_those_surest_first_and_equal_ones_by_their_ids() -> None:
    own = {f"own {letter}": 400 for letter in "gfedcba"}
    found = products_of_segments(*counts({"S1": own | {"tea": 900}, "S2": {"tea": 9_000}}))

    assert found["product_id"].to_list() == [f"own {letter}" for letter in "abcdefg"[:N_PRODUCTS]]
    assert found["rank"].to_list() == [1, 2, 3, 4, 5]


def test_a_shop_that_sold_nothing_has_no_rows() -> None:
    nothing = counts({"S1": {"tea": 1}})

    assert products_of_segments(*(frame.clear() for frame in nothing)).is_empty()
