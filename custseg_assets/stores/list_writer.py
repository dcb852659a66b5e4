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
from custseg_assets.domain.spreadsheets import PREDICTED
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
        self._starts.append(np.zeros(1))
        self._history = self._create(stored.SNAPSHOTS, stored.SNAPSHOT_TYPE, len(ids), len(snapshots))
        self._n_bytes_written = 0

    def _create(self, name: str, kind: Any, *shape: int) -> _ArrayFile:
        return _ArrayFile(self._directory / name, np.dtype(kind), shape)

    def add(self, rows: pl.DataFrame, history: pl.DataFrame, features: pl.DataFrame) -> None:
        """Write the next customers, in the order of their ids.

        Args:
            rows: what ``domain.segments.customer_lists.list_customers`` gives.
            history: ``segment_assignments`` of these customers.
            features: ``period``, ``customer_id`` and RFM of these customers at the snapshots.
        """
        self._add_ids(rows["customer_id"])
        for name, values in self._encode(rows).items():
            self._columns[name].append(values)
        self._add_history(rows.select("customer_id"), history, features)
        self._n_written += rows.height

    def _add_ids(self, ids: pl.Series) -> None:
        text = b"".join(one.encode() + stored.SEPARATOR for one in ids.to_list())
        self._ids.append(np.frombuffer(text, np.uint8))
        ends = (ids.str.len_bytes().cast(pl.UInt64) + len(stored.SEPARATOR)).cum_sum().to_numpy()
        self._starts.append(self._n_bytes_written + ends)
        self._n_bytes_written += len(text)

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
            **{
                name: _numbers(rows[name], self._columns[name].dtype)
                for name in (*RFM, "spend_change", "value_at_stake", *PREDICTED)
            },
        }

    def _codes(self, places: pl.DataFrame) -> NDArray[Any]:
        """Code of each row's segment; the number of segments where it is null."""
        joined = places.join(self._segments, on=["segment_id", "segment_name"], how="left", maintain_order="left")
        return joined["code"].fill_null(self._segments.height).to_numpy()

    def _add_history(self, ids: pl.DataFrame, history: pl.DataFrame, features: pl.DataFrame) -> None:
        chunk = np.empty((ids.height, len(self._snapshots)), stored.SNAPSHOT_TYPE)
        for column, snapshot in enumerate(self._snapshots):
            at = pl.col("period") == snapshot.key
            assigned = history.filter(at).select("customer_id", "segment_id", "segment_name")
            joined = ids.join(assigned, on="customer_id", how="left", maintain_order="left").join(
                features.filter(at).select("customer_id", *RFM), on="customer_id", how="left", maintain_order="left"
            )
            chunk["segment"][:, column] = self._codes(joined.select("segment_id", "segment_name"))
            for name in RFM:
                chunk[name][:, column] = _numbers(joined[name], stored.SNAPSHOT_TYPE[name])
        self._history.append(chunk)

    def leave_out(self, ids: pl.Series, held_out: pl.Series) -> None:
        """Record who is in no list, because they are held out of a running campaign.

        Args:
            ids: of all customers, sorted.
            held_out: ids of those held out; without any of the former no file is written.
        """
        rows = ids.is_in(held_out.implode()).arg_true().cast(pl.Int64).to_numpy()
        if len(rows):
            np.save(self._directory / stored.HELD_OUT, rows.astype("<i8"), allow_pickle=False)

    def finish(self, before: str | None) -> None:
        """Write the orders and the index, and close the files.

        Args:
            before: key of the snapshot before the released one.
        """
        n_with_value = {}
        for file in (self._ids, self._starts, self._history, *self._columns.values()):
            file.close()
        for name in stored.SORTABLE:
            values = np.load(self._directory / stored.column_file(name), allow_pickle=False)
            rows, n_with_value[name] = sort_rows(values)
            order = self._create(stored.order_file(name), "<u4", self._n_written)
            order.append(rows)
            order.close()
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


class _ArrayFile:
    """A file in NumPy's format that rows are appended to, so that none of them stays in memory.

    Args:
        path: of the file.
        dtype: of the array.
        shape: that it has in the end.

    Attributes:
        dtype: of the array.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.dtype, self._name, self._n_missing = dtype, path.name, shape[0]
        self._file = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: NDArray[Any]) -> None:
        """Write the next rows."""
        np.ascontiguousarray(rows, self.dtype).tofile(self._file)
        self._n_missing -= len(rows)

    def close(self) -> None:
        """Close the file.

        Raises:
            ValueError: there were more or fewer rows than the shape says.
        """
        self._file.close()
        if self._n_missing:
            raise ValueError(f"{self._name}: {self._n_missing} rows are missing")


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


def _numbers(values: pl.Series, kind: np.dtype[Any]) -> NDArray[Any]:
    """Values as they are stored in a column: whole numbers without a value are −1, others are NaN."""
    if kind.kind == "i":
        return values.cast(pl.Int64).fill_null(-1).to_numpy()
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
