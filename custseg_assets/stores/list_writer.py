"""Writing the lists of a release: columns, orders, ids and snapshots that ``customer_lists`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.periods import Window
from custseg_assets.domain.segments.migrations import CAUSES
from custseg_assets.domain.segments.model import RFM
from custseg_assets.stores import customer_lists as stored
from custseg_assets.stores.releases import canonical_json


class ListWriter:
    """Writes the lists of a release, a chunk of customers at a time.

    Args:
        directory: where the files are written.
        ids: of all customers, sorted.
        history: ``period``, ``segment_id`` and ``segment_name`` of everything that was ever assigned, each once.
        snapshots: windows of those that customers are shown at, the newest first.
    """

    def __init__(self, directory: Path, ids: pl.Series, history: pl.DataFrame, snapshots: Sequence[Window]) -> None:
        self._directory, self._snapshots, self._n_written = directory, snapshots, 0
        named = history.select("segment_id", "segment_name").unique().sort("segment_id", "segment_name")
        self._segments = named.with_row_index("code")
        self._periods = history["period"].unique().sort()
        n_bytes = int(ids.str.len_bytes().sum()) + len(stored.SEPARATOR) * len(ids)
        self._columns = {
            name: self._create(stored.column_file(name), kind, len(ids)) for name, kind in stored.COLUMN_TYPES.items()
        }
        self._ids = self._create(stored.IDS, "|u1", n_bytes)
        self._starts = self._create(stored.ID_STARTS, "<u8", len(ids) + 1)
        self._history = self._create(stored.SNAPSHOTS, stored.SNAPSHOT_TYPE, len(ids), len(snapshots))

    def _create(self, name: str, kind: Any, *shape: int) -> NDArray[Any]:
        return np.lib.format.open_memmap(self._directory / name, mode="w+", dtype=np.dtype(kind), shape=shape)

    def add(self, rows: pl.DataFrame, history: pl.DataFrame, features: pl.DataFrame) -> None:
        """Write the next customers, in the order of their ids.

        Args:
            rows: what ``domain.segments.customer_lists.list_customers`` gives.
            history: ``segment_assignments`` of these customers.
            features: ``period``, ``customer_id`` and RFM of these customers at the snapshots.
        """
        first, last = self._n_written, self._n_written + rows.height
        self._add_ids(rows["customer_id"], first)
        for name, values in self._encode(rows).items():
            self._columns[name][first:last] = values
        self._add_history(rows.select("customer_id"), history, features, first)
        self._n_written = last

    def _add_ids(self, ids: pl.Series, first: int) -> None:
        text = b"".join(one.encode() + stored.SEPARATOR for one in ids.to_list())
        start = int(self._starts[first])
        self._ids[start : start + len(text)] = np.frombuffer(text, np.uint8)
        ends = start + (ids.str.len_bytes().cast(pl.UInt64) + len(stored.SEPARATOR)).cum_sum().to_numpy()
        self._starts[first + 1 : first + 1 + len(ids)] = ends

    def _encode(self, rows: pl.DataFrame) -> dict[str, NDArray[Any]]:
        now = pl.struct("segment_id", "segment_name")
        codes = {
            name: self._codes(rows.select(place.alias("place")).unnest("place"))
            for name, place in (
                ("segment", now),
                ("previous", pl.col("previous")),
                ("moved_from", pl.col("moved_from")),
            )
        }
        codes["moved_from"] = np.where(rows["is_new"].to_numpy(), self._segments.height + 1, codes["moved_from"])
        cause = rows["cause"].replace_strict(CAUSES, range(len(CAUSES)), default=None, return_dtype=pl.UInt8)
        return codes | {
            "cause": cause.fill_null(len(CAUSES)).to_numpy(),
            "since": self._periods.search_sorted(rows["since"]).to_numpy(),
            "is_at_risk": rows["is_at_risk"].to_numpy(),
            **{name: _numbers(rows[name]) for name in (*RFM, "spend_change", "value_at_stake")},
        }

    def _codes(self, places: pl.DataFrame) -> NDArray[Any]:
        """Code of each row's segment; the number of segments where it is null."""
        joined = places.join(self._segments, on=["segment_id", "segment_name"], how="left", maintain_order="left")
        return joined["code"].fill_null(self._segments.height).to_numpy()

    def _add_history(self, ids: pl.DataFrame, history: pl.DataFrame, features: pl.DataFrame, first: int) -> None:
        chunk = np.empty((ids.height, len(self._snapshots)), stored.SNAPSHOT_TYPE)
        for column, snapshot in enumerate(self._snapshots):
            at = pl.col("period") == snapshot.key
            assigned = history.filter(at).select("customer_id", "segment_id", "segment_name")
            joined = ids.join(assigned, on="customer_id", how="left", maintain_order="left").join(
                features.filter(at).select("customer_id", *RFM), on="customer_id", how="left", maintain_order="left"
            )
            chunk["segment"][:, column] = self._codes(joined.select("segment_id", "segment_name"))
            for name in RFM:
                chunk[name][:, column] = _numbers(joined[name])
        self._history[first : first + ids.height] = chunk

    def finish(self, before: str | None) -> None:
        """Write the orders and the index, and close the files.

        Args:
            before: key of the snapshot before the released one.
        """
        n_with_value = {}
        for name in stored.SORTABLE:
            order = self._create(stored.order_file(name), "<u4", self._n_written)
            order[:], n_with_value[name] = sort_rows(self._columns[name])
            order.flush()  # type: ignore[attr-defined]
        index = {
            "before": before,
            "causes": CAUSES,
            "n_with_value": n_with_value,
            "periods": self._periods.to_list(),
            "segments": self._segments.drop("code").to_dicts(),
            "snapshots": [
                {"period": one.key, "as_of": one.as_of.isoformat(), "is_open": one.is_open} for one in self._snapshots
            ],
        }
        (self._directory / stored.INDEX).write_text(canonical_json(index), encoding="utf-8")
        self._columns.clear()
        del self._ids, self._starts, self._history


def sort_rows(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Rows in ascending order of a column, equal ones as they are, and how many have a value; the others follow.

    Args:
        values: of a column as it is stored.

    >>> sort_rows(np.array([2.0, np.nan, 1.0, 2.0]))
    (array([2, 0, 3, 1]), 3)
    """
    has_none = stored.is_missing(values)
    with_value, without = np.flatnonzero(~has_none), np.flatnonzero(has_none)
    ascending = with_value[np.argsort(values[with_value], kind="stable")]
    return np.concatenate([ascending, without]), len(with_value)


def _numbers(values: pl.Series) -> NDArray[Any]:
    """Values as they are stored: whole numbers without a value are −1, others are NaN."""
    if values.dtype.is_integer():
        return values.fill_null(-1).to_numpy()
    return values.fill_null(float("nan")).to_numpy()
