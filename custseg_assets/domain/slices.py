"""Slices of customers: ranges of ids, for work that is done on some customers at a time.

What is computed of a customer must not depend on who else is in its slice. Reading and writing slices of tables belongs
in ``stores.tables``.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

CUSTOMERS_AT_ONCE = 1_000_000
"""Customers in a slice: some 200 MB of each table that has a row for each of them."""
SLICED_FROM = 2_000_000
"""Up to so many customers a snapshot is worked on as a whole."""


_IDS_OF_A_SLICE = 1_000


@dataclass(frozen=True)
class IdRange:
    """The customers whose ids, compared byte by byte, lie in a range.

    Attributes:
        start: the first id that may be in it; ``None`` for no lower end.
        stop: the first id after it; ``None`` for no upper end.
    """

    start: str | None = None
    stop: str | None = None

    @property
    def is_everybody(self) -> bool:
        """Whether the range has no ends."""
        return self.start is None and self.stop is None

    @property
    def condition(self) -> pl.Expr:
        """Whether a row's ``customer_id`` is in the range."""
        customer_id, is_in = pl.col("customer_id"), pl.lit(value=True)
        if self.start is not None:
            is_in = customer_id >= pl.lit(self.start)
        if self.stop is not None:
            is_before = customer_id < pl.lit(self.stop)
            is_in = is_before if self.start is None else is_in & is_before
        return is_in


EVERYBODY = IdRange()


def cut_ranges(ids: pl.Series, n_ranges: int) -> tuple[IdRange, ...]:
    """Ranges that cover every id there can be, each once, in ascending order.

    Args:
        ids: of the customers or of an even sample of them, in any order.
        n_ranges: how many ranges to cut; there are fewer where there are not so many different ids.

    >>> [(one.start, one.stop) for one in cut_ranges(pl.Series(["b", "d", "a", "c"]), 2)]
    [(None, 'c'), ('c', None)]
    """
    ordered = ids.sort()
    cuts = [ordered[number * len(ordered) // n_ranges] for number in range(1, n_ranges)] if len(ordered) else []
    starts = [None, *dict.fromkeys(cut for cut in cuts if cut != ordered[0])]
    return tuple(IdRange(start, stop) for start, stop in zip(starts, [*starts[1:], None], strict=True))


def ids_apart(n_customers: int, n_slices: int) -> int:
    """Every so manieth id tells where to cut as well as all of them do."""
    return max(1, n_customers // (n_slices * _IDS_OF_A_SLICE))


def count_slices(n_customers: int) -> int:
    """In how many slices so many customers are worked on."""
    return 1 if n_customers <= SLICED_FROM else -(-n_customers // CUSTOMERS_AT_ONCE)
