"""The pipeline's tables: one Delta table each, partitioned by ``period``.

A write replaces whole partitions in one commit, so a reader sees all of it or nothing, and doing it again changes
nothing but the table's version. The same commit records, as Delta application transactions, the fingerprint of what
each partition was made from: after a crash, data and fingerprint are both there or both not.

Rows that are too many for memory come as staged files. Their files are moved into the table's folder and added by one
commit, as they are; the names of those that were moved before a crash are noted, and the next write removes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.transaction import AddAction, RemoveAction

from custseg_assets.domain.schemas import Table
from custseg_assets.domain.slices import EVERYBODY, IdRange, count_slices, cut_ranges, ids_apart
from custseg_assets.errors import DamagedHomeError
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.staged import Rows, StagedRows
from custseg_assets.stores.table_files import TableFile, TableFiles

_FINGERPRINT_BITS = 62
SHORT_LOG = {"delta.checkpointInterval": "10"}
"""For new tables: whoever opens one, writes to it or asks for a fingerprint reads its log since the last checkpoint.
Delta's own interval is 100 commits."""
REPLACED_KEPT_HOURS = 7 * 24
"""How long files stay that a table has not any more: Delta's usual week."""


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
        self._files: dict[str, tuple[tuple[DeltaTable, int], pl.DataFrame]] = {}
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

    def _require_files(self, name: str, keys: Iterable[str] | None) -> None:
        """Refuse to read partitions that have not the files that the log names: Polars would panic over a cut one."""
        wanted = None if keys is None else {*keys}
        files = (file for file in self.files(name).iter_rows() if wanted is None or file[0] in wanted)
        self._require_whole(name, files)

    def _require_whole(self, name: str, files: Iterable[tuple[Any, ...]]) -> None:
        """Refuse files that are not as long as they were; a row of ``files`` for each."""
        for key, path, n_bytes, _ in files:
            # A file has a name of its own and is never changed: each is looked at once.
            if path not in self._whole_files:
                if why := why_not_whole(self.root / name / unquote(path), n_bytes):
                    raise DamagedHomeError(f"table {name} of {key}", f"{unquote(path)}: {why}")
                self._whole_files.add(path)

    def _path_of(self, name: str, path: str) -> str:
        """Where a file is that a table's log names; the log quotes names as addresses are quoted."""
        return str(self.root.absolute() / name / unquote(path))

    def _polars_options(self) -> Mapping[str, Any]:
        """What Polars needs to read the files."""
        return {}

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Around everything that reads rows: what goes wrong then is told in words that help."""
        yield

    # The same everywhere.

    def table_files(self, table: Table, keys: Iterable[str] | None = None) -> TableFiles:
        """The parquet files of some partitions, all by default, by name.

        Raises:
            DamagedHomeError: a file is not as it was written, or the table has deletion vectors: rows of its files that
                do not count, which only Delta's own readers know of.
        """
        opened = self._open(table.name)
        if opened is None:
            return TableFiles(table, ())
        if "deletionVectors" in (opened.protocol().reader_features or ()):
            raise DamagedHomeError(f"table {table.name}", "it has deletion vectors, which custseg never writes")
        keys = None if keys is None else set(keys)
        self._require_files(table.name, keys)
        files = self.files(table.name)
        if files["num_records"].has_nulls():
            raise DamagedHomeError(f"table {table.name}", "its log does not say how many rows its files have")
        found = [
            TableFile(key, self._path_of(table.name, path), n_rows)
            for key, path, _, n_rows in files.iter_rows()
            if n_rows and (keys is None or key in keys)
        ]
        stored = frozenset(column.name for column in opened.schema().fields)
        return TableFiles(table, tuple(found), self._polars_options(), stored)

    def files_named(self, table: Table, files: Iterable[tuple[str, str, int, int]]) -> TableFiles:
        """Files of a table that may be of an earlier version, with all columns that the table has now.

        Args:
            table: the table's declaration.
            files: rows of ``files``, as they were when the files were the table's.

        Raises:
            DamagedHomeError: one of them is not as it was written.
        """
        named = sorted(files)
        self._require_whole(table.name, named)
        found = [TableFile(key, self._path_of(table.name, path), n_rows) for key, path, _, n_rows in named if n_rows]
        stored = frozenset(self.stored_columns(table.name))
        return TableFiles(table, tuple(found), self._polars_options(), stored)

    def sizes(self, table: Table) -> dict[str, int]:
        """How many rows each partition that has rows has, oldest first; from Delta's log alone, no data are read."""
        counted = Counter[str]()
        for key, _, _, n_rows in self.files(table.name).iter_rows():
            counted[key] += n_rows or 0
        return {key: n_rows for key, n_rows in counted.items() if n_rows}

    def files(self, name: str) -> pl.DataFrame:
        """The files of a table as it stands: ``period``, ``path`` below its folder, ``size_bytes``, ``num_records``.

        They are ordered by the first two.
        """
        opened = self._open(name)
        if opened is None:
            return pl.DataFrame(schema=_FILES)
        state = opened, opened.version()
        if name not in self._files or self._files[name][0] != state:
            # Asked for several times for each partition that is read; the log's own list is made anew every time.
            self._files[name] = state, _files_of(opened)
        return self._files[name][1]

    def stored_columns(self, name: str) -> dict[str, pl.DataType]:
        """The columns of a table as its log has them; none where there is no table."""
        opened = self._open(name)
        return {} if opened is None else dict(pl.scan_delta(opened).collect_schema())

    def scan(self, table: Table, keys: Iterable[str] | None = None) -> pl.LazyFrame:
        """The rows of some partitions, all by default; none where nothing has been written yet.

        A column that was declared after the rows were written is null in them.
        """
        return self.table_files(table, keys).scan()

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

    def id_ranges(self, table: Table, key: str, at_least: int = 1) -> tuple[IdRange, ...]:
        """Ranges of ids that a partition with a row per customer is worked on by; one for all of a small one.

        Args:
            table: the table's declaration.
            key: of the partition.
            at_least: ranges to be made, of no fewer customers.
        """
        n_customers = self.sizes(table).get(key, 0)
        n_slices = min(max(count_slices(n_customers), at_least), max(n_customers, 1))
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

    def _create(self, name: str, data: Any, commit_properties: CommitProperties, **how: Any) -> None:
        """The first commit of a table."""
        path = str(self.root / name)
        write_deltalake(path, data, configuration=SHORT_LOG, commit_properties=commit_properties, **how)

    def _describe_commit(self, **more: Any) -> CommitProperties:
        """What is recorded with a commit; every commit has it."""
        return CommitProperties(**more)

    @contextlib.contextmanager
    def _committing(self, _: str, __: Mapping[str, int]) -> Iterator[None]:
        """Around everything that commits to a table, with the fingerprints that it records."""
        self.root.mkdir(parents=True, exist_ok=True)
        yield

    def write(self, table: Table, rows: Rows, fingerprints: Mapping[str, int]) -> None:
        """Replace partitions.

        Args:
            table: the table's declaration.
            rows: the new rows of these partitions, all columns of the table.
            fingerprints: partition key → what it was made from; a key without rows becomes an empty partition.

        Raises:
            ValueError: the rows' columns or types are not the table's, or there are rows of other partitions.
        """
        if isinstance(rows, pl.DataFrame):
            _require_columns(table, rows.schema)
        keys = rows["period"].unique() if isinstance(rows, pl.DataFrame) else rows.files.sizes
        others = set(keys) - set(fingerprints)
        if others:
            raise ValueError(f"{table.name}: rows of {sorted(others)}, expected only {sorted(fingerprints)}")
        version, known = self._fingerprints.get(table.name, (-1, {}))
        with self._committing(table.name, fingerprints):
            recorded = [Transaction(key, made_from) for key, made_from in sorted(fingerprints.items())]
            commit = self._describe_commit(app_transactions=recorded)
            if isinstance(rows, pl.DataFrame):
                self._replace(table, rows.sort("period", maintain_order=True), fingerprints, commit)
            else:
                self._take_over(table, rows, fingerprints, commit)
        # If another process committed meanwhile, the table's version is a later one, and this is not looked at.
        recorded_now = {key: made_from or None for key, made_from in fingerprints.items()}
        self._fingerprints[table.name] = version + 1, known | recorded_now

    def _replace(self, table: Table, data: Any, keys: Iterable[str], commit: CommitProperties) -> None:
        changing = {"schema_mode": "merge", "predicate": _is_one_of(keys)}
        self._put(table, data, mode="overwrite", changing=changing, commit_properties=commit)

    def _take_over(self, table: Table, rows: StagedRows, keys: Iterable[str], commit: CommitProperties) -> None:
        """Make staged files the partitions' files, in one commit."""
        opened = self._open_with_columns(table)
        folder = self.root / table.name
        self._remove_not_taken_over(table)
        moves = {
            f"period={file.period}/staged-{number:06}-{secrets.token_hex(8)}.parquet": file
            for number, file in enumerate(rows.files.files)
        }
        actions: list[AddAction | RemoveAction] = [_add_action(table, path, file) for path, file in moves.items()]
        write_state(folder / _MOVED, {"files": list(moves)})
        for path, file in moves.items():
            (folder / path).parent.mkdir(exist_ok=True)
            shutil.move(file.path, folder / path)
        opened.create_write_transaction(
            actions,
            mode="overwrite",
            schema=opened.schema(),
            partition_by=["period"],
            partition_filters=[("period", "in", sorted(keys))],
            commit_properties=commit,
        )
        (folder / _MOVED).unlink()

    def _open_with_columns(self, table: Table) -> DeltaTable:
        """The table with all columns that are declared, and as it stands; an empty one where there was none."""
        opened = self._open(table.name)
        if opened is None or {field.name for field in opened.schema().fields} < set(table.schema):
            changing = {"schema_mode": "merge"}
            empty = table.schema.to_frame()
            self._put(table, empty, mode="append", changing=changing, commit_properties=self._describe_commit())
            opened = self._open(table.name)
        if opened is None:
            raise RuntimeError(f"{table.name} was made and is not there")
        return opened

    def _remove_not_taken_over(self, table: Table) -> None:
        """Remove the files that a killed process had moved into the table's folder, and not committed."""
        folder = self.root / table.name
        if left := read_state(folder / _MOVED, "files"):
            there = set(self.files(table.name)["path"])
            for path in left["files"]:
                if path not in there:
                    (folder / path).unlink(missing_ok=True)
            (folder / _MOVED).unlink()

    def _put(self, table: Table, data: Any, changing: Mapping[str, Any], **how: Any) -> None:
        """Commit rows; ``changing`` is for a table that is there already."""
        if opened := self._open(table.name):
            write_deltalake(opened, data, partition_by=["period"], **changing, **how)
        else:
            self._create(table.name, data, partition_by=["period"], description=table.description, **how)

    def append(self, table: Table, frame: pl.DataFrame) -> None:
        """Add rows next to those that are there, in one commit.

        Raises:
            ValueError: the frame's columns or types are not the table's.
        """
        _require_columns(table, frame.schema)
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

    def remove_replaced(self, name: str, kept: Iterable[str], retention_hours: int = REPLACED_KEPT_HOURS) -> int:
        """Remove files that a table has not any more, and that nobody needs; returns how many bytes that freed.

        Files that were replaced a short time ago stay, for who reads them now.

        Args:
            name: of the table.
            kept: paths that stay, as ``files`` has them.
            retention_hours: how long ago the others were replaced.
        """
        opened = self._open(name)
        if opened is None:
            return 0
        replaced = opened.vacuum(
            retention_hours=retention_hours, dry_run=True, enforce_retention_duration=False, full=True
        )
        stay = {unquote(path) for path in kept}
        freed = 0
        for path in (self.root / name / one for one in replaced if one not in stay):
            with contextlib.suppress(FileNotFoundError):
                n_bytes = path.stat().st_size
                path.unlink()
                freed += n_bytes
        return freed

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


_MOVED = "_staged.json"
"""The file in a table's folder that names files which were moved there and may not be committed yet."""

_FILES = {"period": pl.String, "path": pl.String, "size_bytes": pl.Int64, "num_records": pl.Int64}


def _files_of(opened: DeltaTable) -> pl.DataFrame:
    files = pl.DataFrame(opened.get_add_actions(flatten=True)).rename({"partition.period": "period"})
    return files.select(pl.col(name).cast(dtype) for name, dtype in _FILES.items()).sort("period", "path")


def _add_action(table: Table, path: str, file: TableFile) -> AddAction:
    """What the log says of a file: its size, and how many rows it has, with bounds of numbers and instants."""
    found = Path(file.path).stat()
    stats = json.dumps({"numRecords": file.n_rows, **_bounds(table, file)})
    return AddAction(path, found.st_size, {"period": file.period}, int(found.st_mtime * 1000), True, stats)


def _bounds(table: Table, file: TableFile) -> dict[str, dict[str, Any]]:
    """Smallest and largest numbers and instants of a file, from its own statistics.

    Texts have no bounds: some writers cut them.

    Raises:
        ValueError: the file's columns or types are not the table's.
    """
    import pyarrow.parquet as pq

    _require_columns(table, {"period": table["period"].dtype, **pl.read_parquet_schema(file.path)})
    groups = pq.read_metadata(file.path)
    bounds: dict[str, dict[str, Any]] = {"minValues": {}, "maxValues": {}}
    for position in range(groups.num_columns):
        columns = [groups.row_group(number).column(position) for number in range(groups.num_row_groups)]
        name = columns[0].path_in_schema
        known = [column.statistics for column in columns if column.statistics and column.statistics.has_min_max]
        if table[name].dtype in (pl.Float64, pl.Int64, pl.Datetime("us")) and len(known) == len(columns):
            bounds["minValues"][name] = _as_json(min(one.min for one in known))
            bounds["maxValues"][name] = _as_json(max(one.max for one in known))
    return bounds


def _as_json(value: Any) -> Any:
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def why_not_whole(path: Path, n_bytes: int) -> str | None:
    """Why a file is not as long as the log says, in words; ``None`` where it is."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "it is gone"
    return None if found == n_bytes else f"it has {found:,} bytes instead of {n_bytes:,}"


def _require_columns(table: Table, found: Mapping[str, pl.DataType]) -> None:
    if list(found.items()) != list(table.schema.items()):
        raise ValueError(f"{table.name}: got columns {dict(found)}, expected {dict(table.schema)}")


def _is_one_of(keys: Iterable[str]) -> str:
    return "period IN ({})".format(", ".join(f"'{key}'" for key in sorted(keys)))
