"""What customers did in the days after a campaign's start: whether they ordered, and what they spent, up to a cap."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

CAP_QUANTILE = 0.95
"""Of what those who spent anything have spent, from which on more does not count: a few large orders would decide."""
RETURN, SPEND = "return", "spend"
OUTCOMES = (RETURN, SPEND)
"""The figures of a campaign: the share of the customers who order, and the mean of what they spend, capped."""


def count_outcomes(lines: pl.LazyFrame, ids: Sequence[str] | pl.Series, start: datetime, end: datetime) -> pl.DataFrame:
    """What customers did in some days.

    Args:
        lines: clean ones.
        ids: of the customers.
        start: of the first day.
        end: first instant that does not count any more.

    Returns:
        ``customer_id``, in the order of ``ids``; ``return`` (1 with any order, cancelled later or not, otherwise 0);
        and ``spend`` (net, in currency; 0 without any line).
    """
    at = pl.col("invoiced_at")
    done = (
        lines.filter((at >= pl.lit(start, pl.Datetime("us"))) & (at < pl.lit(end, pl.Datetime("us"))))
        .group_by("customer_id")
        .agg(
            (~pl.col("is_cancellation")).any().cast(pl.Float64).alias(RETURN), pl.col("line_amount").sum().alias(SPEND)
        )
        .collect(engine="streaming")
    )
    wanted = pl.DataFrame({"customer_id": pl.Series(ids, dtype=pl.String)})
    return wanted.join(done, on="customer_id", how="left", maintain_order="left").with_columns(
        pl.col(RETURN, SPEND).fill_null(0.0)
    )


def cap_of(spend: NDArray[np.float64]) -> float | None:
    """The spend of one customer from which on more does not count; ``None`` where nobody has spent anything.

    Args:
        spend: net, of customers in as many days as the campaign has.
    """
    spent = spend[spend > 0]
    return round(float(np.quantile(spent, CAP_QUANTILE)), 2) if len(spent) else None


def cap_spend(spend: NDArray[np.float64], cap: float | None) -> NDArray[np.float64]:
    """Net spend as it counts: no more than the cap, nor less than the cap given back.

    >>> cap_spend(np.array([-900.0, 20.0, 900.0]), 100.0).tolist()
    [-100.0, 20.0, 100.0]
    """
    return spend if cap is None else np.clip(spend, -cap, cap)
