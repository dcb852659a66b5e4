"""The pipeline's tables: one Delta table each, partitioned by ``period``.

A write replaces whole partitions in one commit, so a reader sees all of it or nothing, and doing it again changes
nothing but the table's version. The same commit records, as Delta application transactions, the fingerprint of what
each partition was made from: after a crash, data and fingerprint are both there or both not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from custseg_assets.domain.schemas import Table
from custseg_assets.domain.slices import EVERYBODY, IdRange, count_slices, cut_ranges, ids_apart
from custseg_assets.errors import DamagedHomeError

if TYPE_CHECKING:
    import pyarrow as pa

_FINGERPRINT_BITS = 62
_ROWS_OF_A_BATCH = 100_000


def fingerprint(*parts: object) -> int:
    """A number that stands for what a partition was made from.

    Args:
        parts: anything ``json`` can write; equal parts give equal numbers.

    >>> fingerprint("a", [1]) == fingerprint("a", [1]), fingerprint("a") == fingerprint("b")
    (True, False)
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _FINGERPRINT_BITS)


class TableReader:
    """Delta tables below one folder, to be read: all that a home offers to who has not its lock.

    Args:
        root: the folder; made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened: dict[str, DeltaTable] = {}
        self._whole: dict[str, tuple[tuple[DeltaTable | None, int | None], pl.DataFrame]] = {}
        self._fingerprints: dict[str, tuple[int, dict[str, int | None]]] = {}
        self._whole_files: set[str] = set()

    # What differs where the tables are somewhere else.

    def _open(self, name: str) -> DeltaTable | None:
        """The table as it stands now; only commits made since the last look are read."""
        if opened := self._opened.get(name):
            # Commits are numbered files; to look for the next one costs a hundredth of what asking for news does.
            if (self.root / name / "_delta_log" / f"{opened.version() + 1:020}.json").exists():
                opened.update_incremental()
        elif DeltaTable.is_deltatable(str(self.root / name)):
            self._opened[name] = DeltaTable(str(self.root / name))
        return self._opened.get(name)

    def _rows(self, opened: DeltaTable) -> pl.LazyFrame:
        rows = pl.scan_delta(opened)
        paths = opened.file_uris()
        if paths == (named := [unquote(path) for path in paths]):
            return rows
        # Delta quotes a space or an umlaut in the folder's path as addresses do, and Polars takes that for the path.
        # The period in it stays as it is.
        columns = rows.collect_schema()
        return pl.scan_parquet(
            named,
            glob=False,
            schema={name: dtype for name, dtype in columns.items() if name != "period"},
            hive_schema={"period": columns["period"]},
            hive_partitioning=True,
            missing_columns="insert",
            extra_columns="ignore",
        ).select(columns.names())

    def _require_files(self, name: str, keys: Iterable[str] | None) -> None:
        """Refuse to read partitions that have not the files that the log names: Polars would panic over a cut one."""
        wanted = None if keys is None else {*keys}
        for key, path, n_bytes, _ in self.files(name).iter_rows():
            # A file has a name of its own and is never changed: each is looked at once.
            if (wanted is None or key in wanted) and path not in self._whole_files:
                if why := why_not_whole(self.root / name / unquote(path), n_bytes):
                    raise DamagedHomeError(f"table {name} of {key}", f"{unquote(path)}: {why}")
                self._whole_files.add(path)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Around everything that reads rows: what goes wrong then is told in words that help."""
        yield

    # The same everywhere.

    def sizes(self, table: Table) -> dict[str, int]:
        """How many rows each partition that has rows has, oldest first; from Delta's log alone, no data are read."""
        opened = self._open(table.name)
        if opened is None:
            return {}
        counted = _files_of(opened).group_by("period").agg(pl.col("num_records").sum()).sort("period")
        return {key: n_rows for key, n_rows in counted.iter_rows() if n_rows}

    def files(self, name: str) -> pl.DataFrame:
        """The files of a table as it stands: ``period``, ``path`` below its folder, ``size_bytes``, ``num_records``."""
        opened = self._open(name)
        return pl.DataFrame(schema=_FILES) if opened is None else _files_of(opened)

    def stored_columns(self, name: str) -> dict[str, pl.DataType]:
        """The columns of a table as its log has them; none where there is no table."""
        opened = self._open(name)
        return {} if opened is None else dict(pl.scan_delta(opened).collect_schema())

    def scan(self, table: Table, keys: Iterable[str] | None = None) -> pl.LazyFrame:
        """The rows of some partitions, all by default; none where nothing has been written yet.

        A column that was declared after the rows were written is null in them.
        """
        opened = self._open(table.name)
        if opened is None:
            return pl.LazyFrame(schema=table.schema)
        keys = None if keys is None else list(keys)
        self._require_files(table.name, keys)
        rows = self._rows(opened)
        wanted = rows if keys is None else rows.filter(pl.col("period").is_in(keys))
        there = {column.name for column in opened.schema().fields}
        return wanted.select(
            column.name if column.name in there else pl.lit(None, column.dtype).alias(column.name)
            for column in table.columns
        )

    def read(
        self,
        table: Table,
        keys: Iterable[str] | None = None,
        columns: Iterable[str] | None = None,
        within: IdRange = EVERYBODY,
    ) -> pl.DataFrame:
        """Read the rows of some partitions, all by default, into memory, in the table's one order.

        Args:
            table: the table's declaration.
            keys: of the partitions.
            columns: names of those to read, all by default; rows are ordered by those of them that order the table.
            within: the customers to read the rows of.
        """
        names = table.schema.names() if columns is None else list(dict.fromkeys(columns))
        order = [name for name in ("period", *table.sort_by) if name in names]
        with self.explained():
            rows = self.scan(table, keys)
            rows = rows if within.is_everybody else rows.filter(within.condition)
            found = rows.select(names).collect()
            return found.sort(order, maintain_order=True) if order else found

    def id_ranges(self, table: Table, key: str) -> tuple[IdRange, ...]:
        """Ranges of ids that a partition with a row per customer is worked on by; one for all of a small one."""
        n_customers = self.sizes(table).get(key, 0)
        n_slices = count_slices(n_customers)
        if n_slices == 1:
            return (EVERYBODY,)
        some = pl.col("customer_id").gather_every(ids_apart(n_customers, n_slices))
        with self.explained():
            return cut_ranges(self.scan(table, [key]).select(some).collect().to_series(), n_slices)

    def whole(self, table: Table) -> pl.DataFrame:
        """All rows of a small table in its one order, read again only when the table has changed."""
        opened = self._open(table.name)
        state = (opened, opened.version() if opened else None)
        if table.name not in self._whole or self._whole[table.name][0] != state:
            self._whole[table.name] = state, self.read(table)
        return self._whole[table.name][1]

    def fingerprint_of(self, name: str, key: str) -> int | None:
        """What a partition was made from; ``None`` where it has not been written."""
        opened = self._open(name)
        if opened is None:
            return None
        version, known = self._fingerprints.get(name, (-1, {}))
        if version != opened.version():
            # Asked for hundreds of times between two commits, and each time looked for among all of them.
            known = {}
            self._fingerprints[name] = opened.version(), known
        if key not in known:
            known[key] = opened.transaction_version(key) or None
        return known[key]

    def version_of(self, name: str) -> int | None:
        """The table's Delta version, which counts its commits; ``None`` where there is no table."""
        opened = self._open(name)
        return opened.version() if opened else None


class TableStore(TableReader):
    """Delta tables below one folder, to be read and written; a home offers it only to who has its lock."""

    def _create(
        self, name: str, rows: pl.DataFrame | pa.RecordBatchReader, commit_properties: CommitProperties, **how: Any
    ) -> None:
        """The first commit of a table."""
        write_deltalake(str(self.root / name), rows, commit_properties=commit_properties, **how)

    def _describe_commit(self, **more: Any) -> CommitProperties:
        """What is recorded with a commit; every commit has it."""
        return CommitProperties(**more)

    @contextlib.contextmanager
    def _committing(self, _: str, __: Mapping[str, int]) -> Iterator[None]:
        """Around everything that commits to a table, with the fingerprints that it records."""
        self.root.mkdir(parents=True, exist_ok=True)
        yield

    def write(self, table: Table, frame: pl.DataFrame, fingerprints: Mapping[str, int]) -> None:
        """Replace partitions.

        Args:
            table: the table's declaration.
            frame: the new rows of these partitions, all columns of the table.
            fingerprints: partition key → what it was made from; a key without rows becomes an empty partition.

        Raises:
            ValueError: the frame's columns or types are not the table's, or it has rows of other partitions.
        """
        _require_columns(table, frame)
        _require_partitions(table, frame, fingerprints)
        self._replace(table, frame.sort("period", maintain_order=True), fingerprints)

    def write_slices(self, table: Table, slices: Iterable[pl.DataFrame], fingerprints: Mapping[str, int]) -> None:
        """Replace partitions that are too large for memory, in one commit all the same.

        Nothing of them can be seen before the last slice is written; where a slice cannot be made, nothing changes.

        Args:
            table: the table's declaration.
            slices: the new rows of these partitions, in the order they are to be stored in, some at a time.
            fingerprints: as in ``write``.

        Raises:
            ValueError: a slice's columns or types are not the table's, or it has rows of other partitions.
        """
        import pyarrow as pa

        failures: list[Exception] = []

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for rows in slices:
                    _require_columns(table, rows)
                    _require_partitions(table, rows, fingerprints)
                    yield from rows.to_arrow().to_batches(max_chunksize=_ROWS_OF_A_BATCH)
            except Exception as error:
                failures.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(table.schema.to_frame().to_arrow().schema, batches())
        try:
            self._replace(table, reader, fingerprints)
        except Exception:
            # Delta's client would tell of an error in its own words only.
            if failures:
                raise failures[0] from None
            raise

    def _replace(
        self, table: Table, rows: pl.DataFrame | pa.RecordBatchReader, fingerprints: Mapping[str, int]
    ) -> None:
        version, known = self._fingerprints.get(table.name, (-1, {}))
        with self._committing(table.name, fingerprints):
            self._put(
                table,
                rows,
                mode="overwrite",
                changing={"schema_mode": "merge", "predicate": _is_one_of(fingerprints)},
                commit_properties=self._describe_commit(
                    app_transactions=[Transaction(key, made_from) for key, made_from in sorted(fingerprints.items())]
                ),
            )
        # If another process committed meanwhile, the table's version is a later one, and this is not looked at.
        recorded = {key: made_from or None for key, made_from in fingerprints.items()}
        self._fingerprints[table.name] = version + 1, known | recorded

    def _put(
        self, table: Table, rows: pl.DataFrame | pa.RecordBatchReader, changing: Mapping[str, Any], **how: Any
    ) -> None:
        """Commit rows; ``changing`` is for a table that is there already."""
        if opened := self._open(table.name):
            write_deltalake(opened, rows, partition_by=["period"], **changing, **how)
        else:
            self._create(table.name, rows, partition_by=["period"], description=table.description, **how)

    def append(self, table: Table, frame: pl.DataFrame) -> None:
        """Add rows next to those that are there, in one commit.

        Raises:
            ValueError: the frame's columns or types are not the table's.
        """
        _require_columns(table, frame)
        with self._committing(table.name, {}):
            self._put(table, frame, mode="append", changing={}, commit_properties=self._describe_commit())

    def remove_before(self, table: Table, key: str) -> list[str]:
        """Remove the partitions of a table that is appended to whose keys are smaller; returns those keys."""
        gone = [old for old in self.sizes(table) if old < key]
        if gone:
            with self._committing(table.name, {}):
                if opened := self._open(table.name):
                    opened.delete(_is_one_of(gone), commit_properties=self._describe_commit())
        return gone

    def tidy(self, table: Table, keys: Iterable[str]) -> None:
        """Make one file of the many that appending left in some partitions, and free what is no longer read.

        Files of earlier versions stay for Delta's usual week, for who reads them now or wants to go back.
        """
        opened = self._open(table.name)
        if opened is None:
            return
        n_files = Counter(_files_of(opened)["period"])
        crowded = [key for key in keys if n_files[key] > 1]
        with self._committing(table.name, {}):
            if crowded:
                opened.optimize.compact(
                    partition_filters=[("period", "in", crowded)], commit_properties=self._describe_commit()
                )
            opened.vacuum(dry_run=False, commit_properties=self._describe_commit())

    def mark_stale(self, table: Table, keys: Iterable[str]) -> None:
        """Have partitions made again: their rows stay until then, but count as made from nothing that is known."""
        unknown = dict.fromkeys((key for key in keys if self.fingerprint_of(table.name, key) is not None), 0)
        if unknown:
            version, known = self._fingerprints.get(table.name, (-1, {}))
            recorded = CommitProperties(app_transactions=[Transaction(key, 0) for key in sorted(unknown)])
            with self._committing(table.name, unknown):
                self._put(table, table.schema.to_frame(), changing={}, mode="append", commit_properties=recorded)
            self._fingerprints[table.name] = version + 1, known | dict.fromkeys(unknown)

    def forget(self, table: Table, keys: Iterable[str]) -> None:
        """Empty partitions that the source no longer has, and what they were made from."""
        gone = [key for key in keys if self.fingerprint_of(table.name, key) is not None]
        if gone:
            self.write(table, pl.DataFrame(schema=table.schema), dict.fromkeys(gone, 0))


_FILES = {"period": pl.String, "path": pl.String, "size_bytes": pl.Int64, "num_records": pl.Int64}


def _files_of(opened: DeltaTable) -> pl.DataFrame:
    files = pl.DataFrame(opened.get_add_actions(flatten=True)).rename({"partition.period": "period"})
    return files.select(pl.col(name).cast(dtype) for name, dtype in _FILES.items())


def why_not_whole(path: Path, n_bytes: int) -> str | None:
    """Why a file is not as long as the log says, in words; ``None`` where it is."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "it is gone"
    return None if found == n_bytes else f"it has {found:,} bytes instead of {n_bytes:,}"


def _require_columns(table: Table, frame: pl.DataFrame) -> None:
    if frame.schema != table.schema:
        raise ValueError(f"{table.name}: got columns {dict(frame.schema)}, expected {dict(table.schema)}")


def _require_partitions(table: Table, frame: pl.DataFrame, keys: Collection[str]) -> None:
    others = set(frame["period"].unique()) - set(keys)
    if others:
        raise ValueError(f"{table.name}: rows of {sorted(others)}, expected only {sorted(keys)}")


def _is_one_of(keys: Iterable[str]) -> str:
    return "period IN ({})".format(", ".join(f"'{key}'" for key in sorted(keys)))
