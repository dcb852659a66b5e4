"""Digests of lines: equal lines have equal digests, in any files, formats and order."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from custseg_assets.domain.schemas import MAPPED_NAMES
from custseg_assets.stores.exclusion import EXCLUDED_BY
from custseg_assets.stores.unreadable import UNREADABLE

CONTENT = (*MAPPED_NAMES, UNREADABLE)
"""The columns that make up a line."""

UNDATED = ""
"""Stands for the day of lines without a date."""

_HASH_SEEDS = (20101201, 20111209)
N_SUMS = len(_HASH_SEEDS)
"""Sums of row hashes that a digest stands for."""

_HASH_MODULUS = 1 << 64


def digests_by_day(lines: pl.LazyFrame) -> dict[str, tuple[int, str]]:
    """Each day's number of lines and their digest, a sum of row hashes that does not depend on the order of rows."""
    first, second = _HASH_SEEDS
    content = pl.struct(CONTENT).hash(first)
    # A line that is left out is another line; those that count have the digests that they always had.
    is_left_out = pl.col(EXCLUDED_BY).is_not_null()
    content = pl.when(is_left_out).then(pl.struct(content, EXCLUDED_BY).hash(first)).otherwise(content)
    totals = (
        lines.select(pl.col("invoiced_at").dt.date().alias("day"), content.alias(f"{first}"))
        # Not the row again: hashing eleven columns twice would be half the cost of a digest.
        .with_columns(pl.col(f"{first}").hash(second).alias(f"{second}"))
        .group_by("day")
        # Halves cannot overflow a sum; the whole would.
        .agg(pl.len().alias("n"), *(half for seed in _HASH_SEEDS for half in _half_sums(str(seed))))
        .sort("day")
        .collect(engine="streaming")
    )
    return {
        row["day"].isoformat() if row["day"] else UNDATED: (
            row["n"],
            digest_of_sums([(row[f"{seed} high"] << 32) + row[f"{seed} low"] for seed in _HASH_SEEDS]),
        )
        for row in totals.iter_rows(named=True)
    }


def _half_sums(name: str) -> tuple[pl.Expr, pl.Expr]:
    return (
        (pl.col(name) // (1 << 32)).sum().alias(f"{name} high"),
        (pl.col(name) % (1 << 32)).sum().alias(f"{name} low"),
    )


def digest_of_sums(sums: Sequence[int]) -> str:
    """The digest that stands for sums of row hashes, one for each seed."""
    return "".join(f"{total % _HASH_MODULUS:016x}" for total in sums)


def sums_of_digest(digest: str) -> list[int]:
    """The sums that a digest stands for; those of several days may be added."""
    return [int(digest[at : at + 16], 16) for at in range(0, len(digest), 16)]
