"""Deliveries: the typed content of each source file, kept once and unchanged, and which of them are the source now.

A delivery is ``<id>.parquet`` with its manifest ``<id>.json``; it exists when its manifest does. The id is made from
the file's bytes and the settings that say how to read them, so a file that comes again costs only its digest.
Only one process may write: the one that has the home's lock. Reading a file's lines is in ``sources``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.domain.periods import Cadence, key_of, period_start, shift, start_of
from custseg_assets.domain.schemas import MAPPED_NAMES, RAW_TRANSACTIONS
from custseg_assets.domain.transactions.quality import StrayDays, stray_days
from custseg_assets.errors import BadInputError
from custseg_assets.settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.exclusion import EXCLUDED_BY
from custseg_assets.stores.files import UNFINISHED, make_durable, replace_text, replacement_for
from custseg_assets.stores.raw_table import SOURCE_ROW
from custseg_assets.stores.sources import SCRATCH_PREFIX, Progress, SourceFile, Stamp, digest_of, open_source, stamp_of
from custseg_assets.stores.unreadable import UNREADABLE

NO_STRAY_DAYS = "few lines to be near the others, because the log's first and last day decide what is made"
KEEP_STRAY_DAYS = "where they are right, write keep_stray_days = true under [source] in custseg.toml"
"""What errors about stray days expect, and the way out."""

_READER = 4
"""Version of how files are read; a change makes every file a new delivery."""

_CONTENT = (*MAPPED_NAMES, UNREADABLE)
_STORED = RAW_TRANSACTIONS.schema.names()[1:]
_UNDATED = ""
_CURRENT = "current.json"
_FILE = "file"
_WRITING_PREFIX = ".writing-"
"""How the names of folders begin that earlier versions left when they were killed."""

_ROWS_PER_GROUP = 1 << 17
_HASH_SEEDS = (20101201, 20111209)
_HASH_MODULUS = 1 << 64
_TRUNCATION: Mapping[Cadence, str] = {"daily": "1d", "weekly": "1w", "monthly": "1mo"}


class StillWrittenError(BadInputError):
    """A file changed while it was read."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} changed while it was read", "a file that is whole", "Wait until it is written.")


@dataclass(frozen=True)
class Delivery:
    """The lines of one source file, as its manifest describes them.

    Attributes:
        id: made from the file's bytes and how they were read.
        name: of the file.
        first_date: day of the earliest line; lines without a readable date are filed under it.
        last_date: day of the latest line.
        n_rows: lines.
        days: ISO day → number of its lines and a digest of them in any order; ``""`` for undated lines.
        columns: mapped column → the file's own name for it.
        preset: name of the known export that the file is, if any.
        notes: what was decided about its lines when it was read, in sentences.
        counts_units: whether a line may be several units, so that two equal lines are not two of them.
        cursor: how far an increment of a table goes, and how to go on from there; ``None`` for what was read whole.
    """

    id: str
    name: str
    first_date: date
    last_date: date
    n_rows: int
    days: Mapping[str, tuple[int, str]]
    columns: Mapping[str, str]
    preset: str | None
    notes: tuple[str, ...] = ()
    counts_units: bool = True
    cursor: Mapping[str, Any] | None = None

    def day_of(self, day: str) -> date:
        """The date that a key of ``days`` stands for; for undated lines the file's first."""
        return date.fromisoformat(day) if day != _UNDATED else self.first_date

    @property
    def dated_lines(self) -> dict[date, int]:
        """Number of lines by day, without undated ones."""
        return {date.fromisoformat(day): n_rows for day, (n_rows, _) in self.days.items() if day != _UNDATED}

    def to_json(self) -> str:
        """The manifest as text of its file."""
        return json.dumps(asdict(self), default=date.isoformat, sort_keys=True, ensure_ascii=False, indent=1)


@dataclass(frozen=True)
class LandedFile:
    """The last file of its name that came through the landing zone.

    Attributes:
        delivery: its content.
        n_bytes: its size when it was read.
        replaces: ids of the source's deliveries of this name that it replaces.
    """

    delivery: Delivery
    n_bytes: int
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurrentSource:
    """What the pipeline reads now: the last file of every name, and of files with the same lines only one.

    Attributes:
        source: the source's files when it was last read.
        landed: files that came through the landing zone, one for each name.
        description: the source as the user named it; ``None`` for a home that has only its landing zone.
        doubts: what is doubtful about all of it together, in sentences.
        reading: how files are read, as ``reading_of`` says it; ``None`` where an earlier version read them.
    """

    source: tuple[Delivery, ...] = ()
    landed: tuple[LandedFile, ...] = ()
    description: str | None = None
    doubts: tuple[str, ...] = ()
    reading: str | None = None

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The deliveries that are read, in the order of names; of several with the same lines only one."""
        once = {_content_of(one): one for one in reversed(self.in_force)}
        return _in_order(once.values())

    def named(self, name: str) -> Delivery | None:
        """The last delivery of a file's name, if any."""
        return next((one for one in self.in_force if one.name == name), None)

    def with_landed(self, delivery: Delivery, n_bytes: int) -> CurrentSource:
        """The source after a file came through the landing zone and replaced those of its name."""
        others = [one for one in self.landed if one.delivery.name != delivery.name]
        replaced = tuple(one.id for one in self.source if one.name == delivery.name)
        landed = sorted([*others, LandedFile(delivery, n_bytes, replaced)], key=lambda one: one.delivery.name)
        return replace(self, landed=tuple(landed))

    def with_source(self, deliveries: Iterable[Delivery], description: str | None) -> CurrentSource:
        """The source after it was read again: a file that changed there replaces the landed one of its name."""
        source = _in_order(deliveries)
        newer = {(one.name, one.id) for one in source}
        newer -= {(one.delivery.name, id_) for one in self.landed for id_ in (one.delivery.id, *one.replaces)}
        names = {name for name, _ in newer}
        landed = tuple(one for one in self.landed if one.delivery.name not in names)
        return replace(self, source=source, landed=landed, description=description)

    @property
    def in_force(self) -> list[Delivery]:
        """The last delivery of every name, also where several have the same lines."""
        replaced = {(one.delivery.name, id_) for one in self.landed for id_ in one.replaces}
        return [
            *(one.delivery for one in self.landed),
            *(one for one in self.source if (one.name, one.id) not in replaced),
        ]


class DeliveryStore:
    """The deliveries in one folder.

    Args:
        root: the folder; it is made with the first delivery.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._manifests: dict[str, Delivery] = {}

    def accept(
        self,
        path: Path,
        settings: SourceSettings,
        progress: Progress,
        *,
        name: str | None = None,
        keys: Mapping[str, str | None] | None = None,
    ) -> Delivery:
        """Read a file into the store, unless its content is there already, under any name.

        Args:
            path: the file.
            settings: how to read it.
            progress: is called with what was recognised.
            name: instead of the file's own.
            keys: columns that have one value in all rows, from the names of the file's folders.

        Raises:
            StillWrittenError: the file changed while it was read; the store is as before.
            BadInputError: the file cannot be used; the store is as before.
        """
        digest, stamp = digest_of(path)
        delivery_id = _id_of("file", digest, identity_of(settings), *([keys] if keys else []))
        if known := self._find(delivery_id):
            return replace(known, name=name or path.name)
        reading = open_source(path, settings, progress=progress, scratch_in=self.root, keys=keys)
        with self._prepare_folder(), reading as source:
            # The file has been read completely; the id is right only if the same bytes were digested.
            if _has_changed(path, stamp):
                raise StillWrittenError(path.name)
            return self._write_delivery(delivery_id, name or source.name, source)

    def accept_frame(
        self, name: str, identity: str, make: Callable[[], pl.DataFrame], preset: str | None = None
    ) -> Delivery:
        """Put generated lines into the store, unless they are there already.

        Args:
            name: used as the file's name.
            identity: everything that decides what ``make`` returns.
            make: returns the lines, as in ``SourceFile.lines``.
            preset: name of the known export that they are like, if any.
        """
        delivery_id = _id_of("frame", name, identity, preset)
        if known := self._find(delivery_id):
            return known
        with self._prepare_folder():
            mapping = ColumnMapping({column: (column,) for column in MAPPED_NAMES}, preset)
            return self._write_delivery(delivery_id, name, SourceFile(name, mapping, "", make().lazy()))

    def accept_lines(self, name: str, identity: str, read: Callable[[Path], SourceFile]) -> Delivery:
        """Put lines that do not come from a file into the store, unless they are there already.

        Args:
            name: used as the file's name.
            identity: everything that decides what ``read`` returns.
            read: reads the source; it may use the folder it is given until the lines are in the store.

        Raises:
            BadInputError: the source cannot be used; the store is as before.
        """
        if known := self._find(_id_of("lines", name, identity)):
            return known
        with self.scratch_folder() as folder:
            return self.accept_read(identity, replace(read(folder), name=name))

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A folder for reading a source; it is removed at the end, or by the next writer after a kill."""
        with self._prepare_folder(), tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=self.root) as folder:
            yield Path(folder)

    def accept_read(self, identity: str, source: SourceFile, cursor: Mapping[str, Any] | None = None) -> Delivery:
        """Put lines that were read in a ``scratch_folder``, which is still there, into the store, as ``accept_lines``.

        Args:
            identity: everything that decides what the lines are.
            source: what was read.
            cursor: how to go on from there, for an increment.
        """
        delivery_id = _id_of("lines", source.name, identity)
        return self._find(delivery_id) or self._write_delivery(delivery_id, source.name, source, cursor)

    def set_current(self, current: CurrentSource) -> None:
        """Set what the pipeline reads.

        Raises:
            KeyError: a delivery is not in the store.
        """
        fields = {
            "description": current.description,
            "doubts": current.doubts,
            "reading": current.reading,
            "source": [{"id": self.get(one.id).id, "name": one.name} for one in current.source],
            "landed": [
                {"id": self.get(file.id).id, "name": file.name, "n_bytes": one.n_bytes, "replaces": one.replaces}
                for one in current.landed
                for file in [one.delivery]
            ],
        }
        with self._prepare_folder():
            replace_text(self.root / _CURRENT, json.dumps(fields, ensure_ascii=False, indent=1), is_durable=True)

    def current(self) -> CurrentSource | None:
        """What the pipeline reads now; ``None`` before the first ``set_current``."""
        fields = self._current_fields()
        if fields is None:
            return None
        return CurrentSource(
            tuple(replace(self.get(one["id"]), name=one["name"]) for one in fields["source"]),
            tuple(
                LandedFile(replace(self.get(one["id"]), name=one["name"]), one["n_bytes"], tuple(one["replaces"]))
                for one in fields["landed"]
            ),
            fields["description"],
            tuple(fields.get("doubts", ())),
            fields.get("reading"),
        )

    def current_state(self) -> tuple[int, ...] | None:
        """Differs after every ``set_current``, of whichever process; costs no reading."""
        try:
            found = (self.root / _CURRENT).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def landed_sizes(self) -> dict[tuple[str, str], int]:
        """Id and name of every landed file → its size in bytes, without reading a manifest."""
        fields = self._current_fields() or {"landed": []}
        return {(one["id"], one["name"]): one["n_bytes"] for one in fields["landed"]}

    def _current_fields(self) -> dict[str, Any] | None:
        try:
            text = (self.root / _CURRENT).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        fields: dict[str, Any] = json.loads(text)
        return fields

    @contextlib.contextmanager
    def unchanged_if_refused(self) -> Iterator[None]:
        """Remove what the block put into the store if it ends with a ``BadInputError``."""
        before = set(self.root.glob("*"))
        try:
            yield
        except BadInputError:
            # A delivery exists when its .json does, so that goes first.
            for path in sorted(set(self.root.glob("*")) - before):
                path.unlink()
                self._manifests.pop(path.stem, None)
            if not before and self.root.exists():
                self.root.rmdir()
            raise

    def get(self, delivery_id: str) -> Delivery:
        """A delivery by its id.

        Raises:
            KeyError: it is not in the store.
        """
        if delivery := self._find(delivery_id):
            return delivery
        raise KeyError(delivery_id)

    def scan(self, deliveries: Iterable[Delivery]) -> pl.LazyFrame:
        """All lines: the columns of ``raw_transactions`` but ``period``, in the order of file name and row."""
        empty = RAW_TRANSACTIONS.schema.to_frame(eager=False).select(_STORED)
        return pl.concat([empty, *(self._lines_of(delivery) for delivery in _in_order(deliveries))])

    def scan_periods(self, deliveries: Iterable[Delivery], keys: Iterable[str], cadence: Cadence) -> pl.LazyFrame:
        """The lines of some periods: the columns of ``raw_transactions``, in the order of file name and row.

        Only row groups that may hold such lines are read.

        Args:
            deliveries: where to look.
            keys: of the periods.
            cadence: how long a period is.
        """
        wanted = frozenset(keys)
        chosen = [one for one in _in_order(deliveries) if wanted & _keys_of(one, cadence)]
        names = RAW_TRANSACTIONS.schema.names()
        if not chosen:
            return RAW_TRANSACTIONS.schema.to_frame(eager=False)
        # One scan of all files: a plan with hundreds of scans costs more than the reading.
        paths = [str(self.root / f"{one.id}.parquet") for one in chosen]
        filed_under = [key_of(period_start(one.first_date, cadence)) for one in chosen]
        files = pl.LazyFrame({_FILE: paths, "source_file": [one.name for one in chosen], "filed_under": filed_under})
        has_undated = any(_UNDATED in one.days for one in chosen)
        lines = _scan(paths, include_file_paths=_FILE).filter(_within(wanted, cadence, has_undated))
        period = pl.col("invoiced_at").dt.truncate(_TRUNCATION[cadence]).dt.date().cast(pl.String)
        lines = lines.join(files, on=_FILE, how="left", maintain_order="left")
        lines = lines.with_columns(period=period.fill_null(pl.col("filed_under")))
        return lines.filter(pl.col("period").is_in(sorted(wanted))).select(names)

    def _lines_of(self, delivery: Delivery) -> pl.LazyFrame:
        lines = _scan(self.root / f"{delivery.id}.parquet")
        return lines.with_columns(pl.lit(delivery.name).alias("source_file")).select(_STORED)

    def _find(self, delivery_id: str) -> Delivery | None:
        # A manifest never changes, and hundreds of them are read many times in a run.
        if delivery_id in self._manifests:
            return self._manifests[delivery_id]
        path = self.root / f"{delivery_id}.json"
        if not path.exists():
            return None
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["notes"] = tuple(fields.get("notes", ()))
        fields.setdefault("counts_units", "quantity" in fields["columns"])
        fields["days"] = {day: (n_rows, digest) for day, (n_rows, digest) in fields["days"].items()}
        for name in ("first_date", "last_date"):
            fields[name] = date.fromisoformat(fields[name])
        self._manifests[delivery_id] = Delivery(**fields)
        return self._manifests[delivery_id]

    @contextlib.contextmanager
    def _prepare_folder(self) -> Iterator[None]:
        """Make the folder and remove what killed writers left; at the end remove it if it is empty."""
        self.root.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in self.root.iterdir()}
        for name in names:
            if name.startswith((SCRATCH_PREFIX, _WRITING_PREFIX)):
                shutil.rmtree(self.root / name)
            elif name.endswith(UNFINISHED) or (
                name.endswith(".parquet") and f"{name.removesuffix('.parquet')}.json" not in names
            ):
                (self.root / name).unlink()
        try:
            yield
        finally:
            if not any(self.root.iterdir()):
                self.root.rmdir()

    def _write_delivery(
        self, delivery_id: str, name: str, source: SourceFile, cursor: Mapping[str, Any] | None = None
    ) -> Delivery:
        mapping = source.mapping
        with replacement_for(self.root / f"{delivery_id}.parquet") as path:
            source.lines.select(*_CONTENT, EXCLUDED_BY, SOURCE_ROW).sink_parquet(
                path, compression="zstd", compression_level=1, statistics=True, row_group_size=_ROWS_PER_GROUP
            )
            days = _days_of(pl.scan_parquet(path))
            dates = [date.fromisoformat(day) for day in days if day != _UNDATED]
            if not dates:
                raise ValueError(f"{name}: no line has a date")
            counts_units = pl.scan_parquet(path).select((pl.col("quantity").abs() != 1).any()).collect().item()
            delivery = Delivery(
                delivery_id,
                name,
                min(dates),
                max(dates),
                sum(n for n, _ in days.values()),
                days,
                mapping.columns,
                mapping.preset,
                source.notes,
                counts_units,
                cursor,
            )
            # The folder's entry is made durable with the manifest's.
            make_durable(path)
        # The manifest makes the delivery visible, so it comes last.
        replace_text(self.root / f"{delivery_id}.json", delivery.to_json(), is_durable=True)
        return delivery


def _scan(paths: Any, **how: Any) -> pl.LazyFrame:
    """Delivered lines; files of earlier versions say nothing of what is left out."""
    stored = {name: dtype for name, dtype in RAW_TRANSACTIONS.schema.items() if name not in ("period", "source_file")}
    return pl.scan_parquet(paths, schema=stored, missing_columns="insert", **how)


def identity_of(settings: SourceSettings) -> dict[str, Any]:
    """Everything besides the bytes of a source that decides what its lines are.

    Raises:
        BadInputError: the file of the rates cannot be read.
    """
    rates = {"rates": digest_of(settings.rates)[0]} if settings.rates else {}
    return settings.how_read() | rates


def reading_of(settings: SourceSettings) -> str:
    """A text that changes when the same file would be read otherwise.

    Raises:
        BadInputError: the file of the rates cannot be read.
    """
    return _id_of("reading", identity_of(settings))


def _has_changed(path: Path, stamp: Stamp) -> bool:
    try:
        return stamp_of(path.stat()) != stamp
    except FileNotFoundError:
        return True


def new_stray_days(before: Iterable[Delivery], after: Iterable[Delivery]) -> tuple[StrayDays, ...]:
    """Days that come in at either end, far apart from the rest of the log; only manifests are read.

    Args:
        before: what was read so far; its days are not judged again.
        after: what is to be read now.
    """
    n_lines: Counter[date] = Counter()
    for one in after:
        n_lines.update(one.dated_lines)
    return stray_days(n_lines, known={day for one in before for day in one.dated_lines})


def period_content(deliveries: Iterable[Delivery], cadence: Cadence) -> dict[str, tuple[int, str]]:
    """Number of lines of each period and their digest, by period key, oldest first; only manifests are read.

    Equal lines give equal digests, in any files, formats and order.
    """
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * len(_HASH_SEEDS))
    for delivery in deliveries:
        for day, (n_rows, digest) in delivery.days.items():
            key = key_of(period_start(delivery.day_of(day), cadence))
            counts[key] += n_rows
            sums[key] = [total + part for total, part in zip(sums[key], _parts(digest), strict=True)]
    return {key: (counts[key], _digest(sums[key])) for key in sorted(counts)}


def _days_of(lines: pl.LazyFrame) -> dict[str, tuple[int, str]]:
    """Each day's number of lines and their digest, a sum of row hashes that does not depend on the order of rows."""
    first, second = _HASH_SEEDS
    content = pl.struct(_CONTENT).hash(first)
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
        row["day"].isoformat() if row["day"] else _UNDATED: (
            row["n"],
            _digest([(row[f"{seed} high"] << 32) + row[f"{seed} low"] for seed in _HASH_SEEDS]),
        )
        for row in totals.iter_rows(named=True)
    }


def _half_sums(name: str) -> tuple[pl.Expr, pl.Expr]:
    return (
        (pl.col(name) // (1 << 32)).sum().alias(f"{name} high"),
        (pl.col(name) % (1 << 32)).sum().alias(f"{name} low"),
    )


def _digest(sums: Sequence[int]) -> str:
    return "".join(f"{total % _HASH_MODULUS:016x}" for total in sums)


def _parts(digest: str) -> list[int]:
    return [int(digest[at : at + 16], 16) for at in range(0, len(digest), 16)]


def _keys_of(delivery: Delivery, cadence: Cadence) -> set[str]:
    return {key_of(period_start(delivery.day_of(day), cadence)) for day in delivery.days}


def _within(keys: Iterable[str], cadence: Cadence, has_undated: bool) -> pl.Expr:
    """Whether a line may be of one of the periods; adjacent periods become one range, for row-group statistics."""
    ranges: list[tuple[date, date]] = []
    for start in sorted(start_of(key) for key in keys):
        follows = bool(ranges) and ranges[-1][1] == start
        ranges.append((ranges.pop()[0] if follows else start, shift(start, 1, cadence)))
    at = pl.col("invoiced_at")
    within = [(at >= pl.lit(start, pl.Datetime("us"))) & (at < pl.lit(end, pl.Datetime("us"))) for start, end in ranges]
    return pl.any_horizontal(*within, *([at.is_null()] if has_undated else []))


def _content_of(delivery: Delivery) -> object:
    """A value that is equal for deliveries with the same lines, from any file and format.

    An increment is equal to none: the same line may come a second time because it happened a second time.
    """
    return frozenset(delivery.days.items()) if delivery.cursor is None else delivery.id


def _in_order(deliveries: Iterable[Delivery]) -> tuple[Delivery, ...]:
    return tuple(sorted(deliveries, key=lambda delivery: (delivery.name, delivery.id)))


def _id_of(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([_READER, *parts], sort_keys=True).encode()).hexdigest()[:16]
