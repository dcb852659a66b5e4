"""What the customers of a segment buy more than the shop's: by how many buyers, not by units or money.

What to offer to one customer belongs in ``recommendations``, whose counts of buyers these are.
"""

from __future__ import annotations

import polars as pl

from custseg_assets.domain.schemas import SEGMENT_PRODUCTS

N_PRODUCTS = 5
"""Most products that are told of a segment."""
PRIOR_BUYERS = 5.0
"""Buyers of a product that are added both to those found in a segment and to those expected there: the shape of the
prior of a lift, whose mean is 1 and whose standard deviation 0.45."""
DOUBT = 0.001
"""Probability that the lift is below ``lift_low``. A shop has thousands of products, so 0.05 would find some of them in
any group of customers."""
MIN_LIFT = 1.25
"""The least ``lift_low`` that is told: in a large shop a lift of 1.01 is certain, and of no use."""


def products_of_segments(in_segments: pl.DataFrame, in_shop: pl.DataFrame, descriptions: pl.DataFrame) -> pl.DataFrame:
    """The products that stand out in each segment, those that are most surely so first.

    The lift compares what share of all that a segment's customers buy, each product once per customer, is the product,
    with the share that it is of what the shop's customers buy. So who buys much of everything does not stand out by
    everything. Buyers found are taken for a Poisson number, and their ratio to the expected ones has a gamma prior
    (DuMouchel 1999, *Bayesian Data Mining in Large Frequency Tables*, with one gamma instead of two): few buyers prove
    little.

    Args:
        in_segments: ``segment_id``, ``product_id`` and ``n_buyers`` of the segment.
        in_shop: ``product_id`` and ``n_buyers`` of all customers, also of those without a segment.
        descriptions: ``product_id`` and ``description``.

    Returns:
        The columns of ``segment_products`` that say nothing of the snapshot, sorted by segment and rank; up to
        ``N_PRODUCTS`` rows of a segment, none where nothing stands out.
    """
    from scipy.special import gammaincinv

    counted = in_segments.join(in_shop.select("product_id", in_shop="n_buyers"), on="product_id")
    counted = counted.with_columns(
        share_of_segment=pl.col("n_buyers") / pl.col("n_buyers").sum().over("segment_id"),
        share_of_shop=pl.col("in_shop") / in_shop["n_buyers"].sum(),
        expected=pl.col("n_buyers").sum().over("segment_id") * pl.col("in_shop") / in_shop["n_buyers"].sum(),
    )
    shape = (counted["n_buyers"] + PRIOR_BUYERS).to_numpy()
    rate = (counted["expected"] + PRIOR_BUYERS).to_numpy()
    found = counted.with_columns(lift=shape / rate, lift_low=gammaincinv(shape, DOUBT) / rate)
    best = (
        found.filter(pl.col("lift_low") >= MIN_LIFT)
        .sort("segment_id", "lift_low", "product_id", descending=[False, True, False])
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("segment_id"))
        .filter(pl.col("rank") <= N_PRODUCTS)
    )
    return (
        best.join(descriptions.cast({"product_id": pl.String}), on="product_id", how="left")
        .select(pl.col(column.name).cast(column.dtype) for column in SEGMENT_PRODUCTS.content)
        .sort("segment_id", "rank")
    )
