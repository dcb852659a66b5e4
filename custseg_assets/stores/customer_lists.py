"""Lists of a release's customers: filtered, sorted, searched and read a page at a time, without Polars.

A list is in columns of its own, NumPy files with one value per customer in the order of the ids. They are read in
slices and never mapped, so a query costs a bounded amount of memory however many customers there are
(docs/adr/0036). ``list_writer`` writes them; what the columns mean is said in ``domain.segments.customer_lists``.
"""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from custseg_assets.domain.spreadsheets import PREDICTED

INDEX = "lists.json"
IDS, ID_STARTS, SNAPSHOTS = "lists_ids.npy", "lists_id_starts.npy", "lists_snapshots.npy"
COLUMN_TYPES: Mapping[str, str] = {
    "segment": "<u2",
    "previous": "<u2",
    "moved_from": "<u2",
    "cause": "|u1",
    "since": "<u2",
    "is_at_risk": "|b1",
    "recency_days": "<i4",
    "frequency_orders": "<i4",
    "monetary_net": "<f8",
    "spend_change": "<f8",
    "value_at_stake": "<f8",
    **dict.fromkeys(PREDICTED, "<f8"),
}
"""Columns by the type they are stored in. What is missing is NaN, −1 in a column of whole numbers, and in a column of
codes the number after the last code. In ``moved_from`` the number after that is for who was not known before."""
NOT_KNOWN = "none"
"""Stands among the segments of ``ListQuery.moved_from`` for no segment: not known at the snapshot before."""
SNAPSHOT_TYPE = np.dtype(
    [("segment", "<u2"), ("recency_days", "<i4"), ("frequency_orders", "<i4"), ("monetary_net", "<f8")]
)
"""A customer at one snapshot; the table has a row per customer and a column per snapshot, the newest first."""
SORTABLE = (
    "value_at_stake",
    "monetary_net",
    "spend_change",
    "frequency_orders",
    "recency_days",
    "since",
    *PREDICTED,
)
"""Columns with an order of their own; the order of ``customer_id`` is that of the rows."""
BY_ID = "customer_id"
SEPARATOR = b"\xff"
"""Stands after each id; no UTF-8 text has this byte."""
CHUNK_ROWS = 1 << 15

Rows = NDArray[np.integer]
Mask = NDArray[np.bool_]


def column_file(name: str) -> str:
    """Name of the file with a column."""
    return f"lists_{name}.npy"


def order_file(name: str) -> str:
    """Name of the file with the rows in ascending order of a column, those with nothing in it at the end."""
    return f"lists_by_{name}.npy"


HELD_OUT = "lists_held_out.npy"
"""Rows of the customers whom a running campaign holds out, ascending; no list has them. Missing where nobody is."""
PREDICTION_FILES = frozenset((*map(column_file, PREDICTED), *map(order_file, PREDICTED)))
"""The files of these columns: a release with lists has all of them, or, where it was made before there were, none."""
_COLUMN_FILES = frozenset((*map(column_file, COLUMN_TYPES), *map(order_file, SORTABLE)))
LIST_FILES = frozenset((INDEX, IDS, ID_STARTS, SNAPSHOTS, *_COLUMN_FILES)) - PREDICTION_FILES
"""The other files of the lists: a release has all of them, or, where it was made before there were lists, none."""


@dataclass(frozen=True)
class ListQuery:
    """Which customers are wanted, and in which order; what is not given does not count.

    Attributes:
        segment: ids of segments that the customer is in one of.
        previous: ids of segments that it was in one of before its present stay.
        moved_from: ids of segments that it was in one of at the snapshot before, and is no longer; or ``NOT_KNOWN``.
        has_moved: whether it is in another segment than at the snapshot before, or in the same; neither is who was not
            known then.
        causes: of the move.
        is_at_risk: see ``domain.segments.customer_lists.is_at_risk``.
        contains: part of the id, where A to Z are as a to z.
        bounds: column → least and greatest value, both included; who has no value is left out.
        sort: a sortable column, or ``customer_id``; equal ones are in the order of their ids.
        is_descending: whether the order is turned round; who has no value stays at the end.
    """

    segment: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    moved_from: tuple[str, ...] = ()
    has_moved: bool | None = None
    causes: tuple[str, ...] = ()
    is_at_risk: bool | None = None
    contains: str | None = None
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    sort: str = "value_at_stake"
    is_descending: bool = True


@dataclass(frozen=True)
class Selection:
    """The customers that fit a query.

    Attributes:
        mask: whether each row fits, in the order of the ids.
        n_customers: how many do.
        value_at_stake: of all of them, in currency.
        n_held_out: further ones that would fit, but are held out of a running campaign.
    """

    mask: Mask
    n_customers: int
    value_at_stake: float
    n_held_out: int = 0


class _Column:
    """A one- or two-dimensional NumPy file that is read in slices of rows."""

    def __init__(self, path: Path) -> None:
        # Mapped for its header only: NumPy checks that, and that the file has the length that it says.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not mapped.flags.c_contiguous:
            raise ValueError(f"{path.name} is not of the expected form")
        self.shape, self.dtype, self._offset = mapped.shape, mapped.dtype, mapped.offset
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from ``start`` up to ``stop``."""
        n_bytes = (stop - start) * self._row_bytes
        content = os.pread(self._descriptor, n_bytes, self._offset + start * self._row_bytes)
        if len(content) != n_bytes:
            raise OSError("a file of lists is shorter than it was")
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def at(self, row: int) -> Any:
        """The value of one row."""
        return self.read(row, row + 1)[0]


class CustomerLists:
    """The lists of one release, open for reading; safe to share between threads, not across a fork.

    Args:
        directory: the release's.
        has_held_out: whether the release has a file of customers who are in no list.
        has_predictions: whether it has the files of what customers will probably do.

    Attributes:
        has_predictions: whether lists can be in the order of these; where not, they say null.
        before: key of the snapshot that moves are counted since; ``None`` where there is none.
        segments: every segment that a customer is or was in, id and name, by its code.
        causes: of moves, by their code.
    """

    def __init__(self, directory: Path, *, has_held_out: bool = False, has_predictions: bool = True) -> None:
        self.has_predictions = has_predictions
        left_out = () if has_predictions else PREDICTED
        self._types = {name: np.dtype(kind) for name, kind in COLUMN_TYPES.items() if name not in left_out}
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        self.before: str | None = index["before"]
        self.segments: list[dict[str, str]] = index["segments"]
        self.causes: list[str] = index["causes"]
        self._periods: list[str] = index["periods"]
        self._snapshots: list[dict[str, Any]] = index["snapshots"]
        self._n_with_value: dict[str, int] = index["n_with_value"]
        self._columns = {name: _Column(directory / column_file(name)) for name in self._types}
        self._orders = {name: _Column(directory / order_file(name)) for name in SORTABLE if name not in left_out}
        self._ids, self._starts = _Column(directory / IDS), _Column(directory / ID_STARTS)
        self._history = _Column(directory / SNAPSHOTS)
        self._held_out = _read_held_out(directory / HELD_OUT) if has_held_out else np.zeros(0, np.int64)
        self._check()

    def _check(self) -> None:
        n_rows = len(self)
        lengths = {len(column) for column in (*self._columns.values(), *self._orders.values(), self._history)}
        types = {name: column.dtype for name, column in self._columns.items()}
        if lengths != {n_rows} or types != self._types:
            raise ValueError("the files of lists do not belong together")
        if len(self._held_out) and self._held_out[-1] >= n_rows:
            raise ValueError(f"{HELD_OUT} names a customer that there is not")
        if self._history.dtype != SNAPSHOT_TYPE or self._history.shape[1] != len(self._snapshots):
            raise ValueError(f"{SNAPSHOTS} is not of the expected form")

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def segment_names(self) -> dict[str, str]:
        """Name of every segment that a customer is or was in, by id."""
        return {segment["segment_id"]: segment["segment_name"] for segment in self.segments}

    def select(self, query: ListQuery) -> Selection:
        """Find the customers that fit a query."""
        # Of its own pages, which the system gets back at once: of a thread's heap, each thread would keep as much.
        mask = np.frombuffer(mmap.mmap(-1, len(self)), np.bool_)
        mask[:] = True
        value, n_held_out = 0.0, 0
        for start in range(0, len(self), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, len(self))
            part = mask[start:stop]
            for fits in self._conditions(query, start, stop):
                part &= fits
                if not part.any():
                    break
            else:
                held_out = self._held_out_within(start, stop)
                n_held_out += int(np.count_nonzero(part[held_out]))
                part[held_out] = False
                value += float((self._columns["value_at_stake"].read(start, stop) * part).sum())
        return Selection(mask, int(np.count_nonzero(mask)), value, n_held_out)

    def _held_out_within(self, start: int, stop: int) -> Rows:
        """Places of the customers held out in a slice of rows."""
        first, last = np.searchsorted(self._held_out, (start, stop))
        return self._held_out[first:last] - start

    def _conditions(self, query: ListQuery, start: int, stop: int) -> Iterator[Mask]:
        """What a slice of rows has to fulfil, one condition after the other."""
        for name, is_wanted in self._wanted_codes(query):
            codes, wanted = self._columns[name].read(start, stop), np.flatnonzero(is_wanted)
            # Comparing is several times faster than looking each up.
            yield codes == wanted[0] if len(wanted) == 1 else is_wanted[codes]
        if query.is_at_risk is not None:
            yield self._columns["is_at_risk"].read(start, stop) == query.is_at_risk
        for name, (least, greatest) in query.bounds.items():
            values = self._columns[name].read(start, stop)
            yield ~is_missing(values)
            if least is not None:
                yield values >= least
            if greatest is not None:
                yield values <= greatest
        if query.contains is not None:
            yield self._ids_contain(query.contains.encode("utf-8", "surrogatepass"), start, stop)

    def _wanted_codes(self, query: ListQuery) -> Iterator[tuple[str, Mask]]:
        """Columns of codes that a query is about, and whether each code is wanted."""
        for name in ("segment", "previous", "moved_from"):
            if wanted := getattr(query, name):
                of_segments = [segment["segment_id"] in wanted for segment in self.segments]
                yield name, np.array([*of_segments, False, NOT_KNOWN in wanted])
        if query.has_moved is not None:
            of_segments = [query.has_moved for _ in self.segments]
            yield "moved_from", np.array([*of_segments, not query.has_moved, False])
        if query.causes:
            yield "cause", np.array([*(cause in query.causes for cause in self.causes), False])

    def _ids_contain(self, part: bytes, start: int, stop: int) -> Mask:
        starts = self._starts.read(start, stop + 1).astype(np.int64)
        text = self._ids.read(int(starts[0]), int(starts[-1]))
        contains = np.zeros(stop - start, np.bool_)
        contains[np.searchsorted(starts - starts[0], find_bytes(text, part), "right") - 1] = True
        return contains

    def walk(self, query: ListQuery, selection: Selection, position: int = 0) -> Iterator[tuple[int, int]]:
        """The selected rows in the query's order.

        Args:
            query: as it was selected by.
            selection: of the query.
            position: in the order of all customers, from where to go on.

        Yields:
            the position to go on from after the row, and the row.
        """
        for start in range(position, len(self), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, len(self))
            rows = self._in_order(query, start, stop)
            for offset in np.flatnonzero(selection.mask[rows]).tolist():
                yield start + offset + 1, int(rows[offset])

    def _in_order(self, query: ListQuery, start: int, stop: int) -> Rows:
        """The rows at some positions of the query's order."""
        is_by_id = query.sort == BY_ID
        n_with_value = len(self) if is_by_id else self._n_with_value[query.sort]

        def read(first: int, last: int) -> Rows:
            return np.arange(first, last) if is_by_id else self._orders[query.sort].read(first, last)

        if not query.is_descending:
            return read(start, stop)
        turned, split = [], min(max(start, n_with_value), stop)
        if start < split:
            turned.append(read(n_with_value - split, n_with_value - start)[::-1])
        return np.concatenate([*turned, read(split, stop)])

    def id_of(self, row: int) -> str:
        """The customer's id."""
        start, stop = (int(one) for one in self._starts.read(row, row + 2))
        return self._ids.read(start, stop - len(SEPARATOR)).tobytes().decode("utf-8")

    def describe(self, row: int) -> dict[str, Any]:
        """What a list says of a customer: the columns of ``domain.segments.customer_lists.list_customers``."""
        values = {name: column.at(row).item() for name, column in self._columns.items()}
        segment = self._segment(values["segment"])
        return {
            "customer_id": self.id_of(row),
            **(segment or {}),
            "since": self._periods[values["since"]],
            "previous": self._segment(values["previous"]),
            "moved_from": self._segment(values["moved_from"]),
            "cause": self.causes[values["cause"]] if values["cause"] < len(self.causes) else None,
            "recency_days": _or_none(values["recency_days"]),
            "frequency_orders": _or_none(values["frequency_orders"]),
            "monetary_net": _or_none(values["monetary_net"]),
            "spend_change": _or_none(values["spend_change"]),
            "value_at_stake": values["value_at_stake"],
            "is_at_risk": values["is_at_risk"],
            **{name: _or_none(values[name]) if name in values else None for name in PREDICTED},
        }

    def history_of(self, customer_id: str) -> list[dict[str, Any]] | None:
        """A customer at the snapshots that knew it, the newest first; ``None`` where the id is not known."""
        row = self._find(customer_id.encode("utf-8", "surrogatepass"))
        if row is None:
            return None
        return [
            {
                **snapshot,
                **segment,
                "recency_days": _or_none(values["recency_days"].item()),
                "frequency_orders": _or_none(values["frequency_orders"].item()),
                "monetary_net": _or_none(values["monetary_net"].item()),
            }
            for snapshot, values in zip(self._snapshots, self._history.at(row), strict=True)
            if (segment := self._segment(values["segment"].item()))
        ]

    def _find(self, wanted: bytes) -> int | None:
        """The row of an id: a binary search, since the ids are sorted by their bytes."""
        first, last = 0, len(self)
        while first < last:
            middle = (first + last) // 2
            start, stop = (int(one) for one in self._starts.read(middle, middle + 2))
            found = self._ids.read(start, stop - len(SEPARATOR)).tobytes()
            if found == wanted:
                return middle
            first, last = (middle + 1, last) if found < wanted else (first, middle)
        return None

    def _segment(self, code: int) -> dict[str, str] | None:
        return self.segments[code] if code < len(self.segments) else None


def _read_held_out(path: Path) -> Rows:
    """Rows of customers, ascending."""
    rows = np.load(path, allow_pickle=False)
    if rows.ndim != 1 or rows.dtype != np.dtype("<i8") or np.any(np.diff(rows) <= 0) or np.any(rows < 0):
        raise ValueError(f"{path.name} is not of the expected form")
    found: Rows = rows
    return found


def find_bytes(text: NDArray[np.uint8], part: bytes) -> Rows:
    """Where a part begins in a text; A to Z are as a to z.

    Args:
        text: bytes of UTF-8.
        part: at least one byte.

    >>> find_bytes(np.frombuffer(b"xAbab", np.uint8), b"ab").tolist()
    [1, 3]
    """
    n_places = len(text) - len(part) + 1
    if n_places < 1:
        return np.empty(0, np.int64)
    places: Rows | None = None
    fits = np.ones(n_places, np.bool_)
    # From the end, because ids differ there: few places are left after two signs, and only those are looked at.
    for offset in reversed(range(len(part))):
        byte = part[offset : offset + 1].lower()[0]
        if places is not None:
            places = places[_is_byte(text[places + offset], byte)]
            continue
        fits &= _is_byte(text[offset : offset + n_places], byte)
        if np.count_nonzero(fits) * _FEW < n_places:
            places = np.flatnonzero(fits)
    return np.flatnonzero(fits) if places is None else places


_FEW = 16


def _is_byte(text: NDArray[np.uint8], byte: int) -> Mask:
    is_equal: Mask = text == byte
    if ord("a") <= byte <= ord("z"):
        is_equal |= text == byte - 32
    return is_equal


def is_missing(values: NDArray[Any]) -> Mask:
    """Whether there is no value, in a column of numbers as it is stored."""
    return np.isnan(values) if values.dtype.kind == "f" else values < 0


def _or_none(value: float) -> Any:
    """A value, or ``None`` where what is stored stands for a missing one."""
    return None if value != value or (isinstance(value, int) and value < 0) else value  # noqa: PLR0124
