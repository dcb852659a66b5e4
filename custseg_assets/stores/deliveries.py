"""The store of deliveries: the typed content of each source file, kept once and unchanged.

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.domain.periods import Cadence, key_of, period_start, shift, start_of
from custseg_assets.domain.schemas import MAPPED_NAMES, RAW_TRANSACTIONS
from custseg_assets.errors import BadInputError, DamagedHomeError
from custseg_assets.settings import ReadingSettings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import ColumnMapping
from custseg_assets.stores.delivery import CurrentSource, Delivery, LandedFile, in_order, keys_of
from custseg_assets.stores.delivery_file import DeliveredLines, write_lines
from custseg_assets.stores.files import UNFINISHED, make_durable, read_state, replace_text, write_state
from custseg_assets.stores.line_digests import UNDATED, digests_by_day
from custseg_assets.stores.reading import LINES, FileToRead, Reader
from custseg_assets.stores.sources import SCRATCH_PREFIX, Progress, SourceFile, Stamp, digest_of, stamp_of

_READER = 4
"""Version of how files are read; a change makes every file a new delivery."""

_IN_MANIFEST = ("id", "name", "first_date", "last_date", "n_rows", "days", "columns", "preset")
_STORED = RAW_TRANSACTIONS.schema.names()[1:]
CURRENT = "current.json"
"""The file that says which deliveries are read now."""
_FILE = "file"
_WRITING_PREFIX = ".writing-"
"""How the names of folders begin that earlier versions left when they were killed."""

_TRUNCATION: Mapping[Cadence, str] = {"daily": "1d", "weekly": "1w", "monthly": "1mo"}


class StillWrittenError(BadInputError):
    """A file changed while it was read."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} changed while it was read", "a file that is whole", "Wait until it is written.")


_LARGE_BYTES = 50_000_000
"""From this size on a file takes so long to read that it is announced."""


class DeliveryStore:
    """The deliveries in one folder.

    Args:
        root: the folder; it is made with the first delivery.
        limits: what reading one file may take.
    """

    def __init__(self, root: Path, limits: ReadingSettings | None = None) -> None:
        self.root = root
        self._limits = limits or ReadingSettings()
        self._reader: Reader | None = None
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
            MachineFaultError: this machine could not read it, whatever is in it; the store is as before.
        """
        digest, stamp = digest_of(path)
        delivery_id = _id_of("file", digest, identity_of(settings), *([keys] if keys else []))
        if known := self._find_whole(delivery_id):
            return replace(known, name=name or path.name)
        if (n_bytes := path.stat().st_size) >= _LARGE_BYTES:
            progress(f"reading {name or path.name}, {n_bytes / 1e6:,.0f} MB")
        with self.scratch_folder() as scratch, self.reading() as reader:
            read = reader.read(FileToRead(path.absolute(), name or path.name, settings, keys or {}, scratch), progress)
            # The file has been read completely; the id is right only if the same bytes were digested.
            if _has_changed(path, stamp):
                raise StillWrittenError(path.name)
            return self._keep(delivery_id, name or path.name, read, scratch / LINES)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """One process for all files that are read within; without, each file has its own."""
        if self._reader:
            yield self._reader
            return
        self._reader = Reader(self._limits)
        try:
            yield self._reader
        finally:
            self._reader.close()
            self._reader = None

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
        if known := self._find_whole(delivery_id):
            return known
        with self._prepare_folder():
            mapping = ColumnMapping({column: (column,) for column in MAPPED_NAMES}, preset)
            return self._write(delivery_id, SourceFile(name, mapping, "", make().lazy()))

    def accept_lines(self, name: str, identity: str, read: Callable[[Path], SourceFile]) -> Delivery:
        """Put lines that do not come from a file into the store, unless they are there already.

        Args:
            name: used as the file's name.
            identity: everything that decides what ``read`` returns.
            read: reads the source; it may use the folder it is given until the lines are in the store.

        Raises:
            BadInputError: the source cannot be used; the store is as before.
        """
        if known := self._find_whole(_id_of("lines", name, identity)):
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
        return self._find_whole(delivery_id) or self._write(delivery_id, source, cursor)

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
            write_state(self.root / CURRENT, fields)

    def current(self) -> CurrentSource | None:
        """What the pipeline reads now; ``None`` before the first ``set_current``.

        Raises:
            DamagedHomeError: that is not recorded as it was written, or a delivery of it is gone.
        """
        fields = self.current_fields()
        if fields is None:
            return None
        return CurrentSource(
            tuple(self._recorded(one) for one in fields["source"]),
            tuple(LandedFile(self._recorded(one), one["n_bytes"], tuple(one["replaces"])) for one in fields["landed"]),
            fields["description"],
            tuple(fields.get("doubts", ())),
            fields.get("reading"),
        )

    def current_state(self) -> tuple[int, ...] | None:
        """Differs after every ``set_current``, of whichever process; costs no reading."""
        try:
            found = (self.root / CURRENT).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def landed_sizes(self) -> dict[tuple[str, str], int]:
        """Id and name of every landed file → its size in bytes, without reading a manifest."""
        fields = self.current_fields() or {"landed": []}
        return {(one["id"], one["name"]): one["n_bytes"] for one in fields["landed"]}

    def current_fields(self) -> dict[str, Any] | None:
        """What ``set_current`` recorded, without reading a manifest.

        Raises:
            DamagedHomeError: it is not as it was written.
        """
        return read_state(self.root / CURRENT, "source", "landed", "description")

    def _recorded(self, one: Mapping[str, Any]) -> Delivery:
        """The delivery of a record of ``set_current``, under the name that it has there."""
        if found := self._find(one["id"]):
            return replace(found, name=one["name"])
        raise DamagedHomeError(self.root / f"{one['id']}.json", f"it is gone, and {one['name']} is read by it")

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
        chosen = [*in_order(deliveries)]
        if not chosen:
            return RAW_TRANSACTIONS.schema.to_frame(eager=False).select(_STORED)
        # One scan of all files: a plan with hundreds of scans costs more than the reading.
        paths = [str(self.path_of_lines(one)) for one in chosen]
        name = pl.col(_FILE).replace_strict(paths, [one.name for one in chosen], return_dtype=pl.String)
        return _scan(paths, include_file_paths=_FILE).with_columns(name.alias("source_file")).select(_STORED)

    def scan_periods(self, deliveries: Iterable[Delivery], keys: Iterable[str], cadence: Cadence) -> pl.LazyFrame:
        """The lines of some periods: the columns of ``raw_transactions``, in the order of file name and row.

        Only row groups that may hold such lines are read.

        Args:
            deliveries: where to look.
            keys: of the periods.
            cadence: how long a period is.
        """
        wanted = frozenset(keys)
        chosen = [one for one in in_order(deliveries) if wanted & keys_of(one, cadence)]
        names = RAW_TRANSACTIONS.schema.names()
        if not chosen:
            return RAW_TRANSACTIONS.schema.to_frame(eager=False)
        paths = [str(self.path_of_lines(one)) for one in chosen]
        filed_under = [key_of(period_start(one.first_date, cadence)) for one in chosen]
        files = pl.LazyFrame({_FILE: paths, "source_file": [one.name for one in chosen], "filed_under": filed_under})
        has_undated = any(UNDATED in one.days for one in chosen)
        lines = _scan(paths, include_file_paths=_FILE).filter(_within(wanted, cadence, has_undated))
        period = pl.col("invoiced_at").dt.truncate(_TRUNCATION[cadence]).dt.date().cast(pl.String)
        lines = lines.join(files, on=_FILE, how="left", maintain_order="left")
        lines = lines.with_columns(period=period.fill_null(pl.col("filed_under")))
        return lines.filter(pl.col("period").is_in(sorted(wanted))).select(names)

    def path_of_lines(self, delivery: Delivery) -> Path:
        """The file of a delivery's lines.

        Raises:
            DamagedHomeError: it is gone.
        """
        path = self.root / f"{delivery.id}.parquet"
        if not path.exists():
            raise DamagedHomeError(path, f"it is gone, with the {delivery.n_rows:,} lines of {delivery.name}")
        return path

    def find_altered(self, delivery: Delivery) -> str | None:
        """How the lines of a delivery differ from what its manifest says of them; ``None`` where they do not."""
        try:
            found = digests_by_day(_scan(self.path_of_lines(delivery)))
        except DamagedHomeError as error:
            return error.why
        except (OSError, pl.exceptions.PolarsError) as error:
            return f"it cannot be read: {' '.join(str(error).split())[:200]}"
        n_other = sum(found.get(day) != delivery.days.get(day) for day in {*found, *delivery.days})
        return (
            f"the lines of {n_other:,} of {len(delivery.days):,} days are not those that were delivered"
            if n_other
            else None
        )

    def manifests(self) -> Iterator[Path]:
        """The files of all manifests, also of deliveries that are not read any more."""
        return (path for path in sorted(self.root.glob("*.json")) if path.name != CURRENT)

    def _find_whole(self, delivery_id: str) -> Delivery | None:
        """A delivery that has its lines: one that lost them is read again when its file comes again."""
        return self._find(delivery_id) if (self.root / f"{delivery_id}.parquet").exists() else None

    def _find(self, delivery_id: str) -> Delivery | None:
        # A manifest never changes, and hundreds of them are read many times in a run.
        if delivery_id in self._manifests:
            return self._manifests[delivery_id]
        path = self.root / f"{delivery_id}.json"
        fields = read_state(path, *_IN_MANIFEST)
        if fields is None:
            return None
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

    def _write(self, delivery_id: str, source: SourceFile, cursor: Mapping[str, Any] | None = None) -> Delivery:
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=self.root) as folder:
            path = Path(folder) / LINES
            return self._keep(delivery_id, source.name, write_lines(source, path), path, cursor)

    def _keep(
        self,
        delivery_id: str,
        name: str,
        lines: DeliveredLines,
        written: Path,
        cursor: Mapping[str, Any] | None = None,
    ) -> Delivery:
        """Make a delivery of a file of lines, which is moved into the store."""
        first, last = min(lines.dates), max(lines.dates)
        delivery = Delivery(delivery_id, name, first, last, lines.n_rows, cursor=cursor, **vars(lines))
        # The folder's entry is made durable with the manifest's.
        make_durable(written)
        written.replace(self.root / f"{delivery_id}.parquet")
        # The manifest makes the delivery visible, so it comes last.
        replace_text(self.root / f"{delivery_id}.json", delivery.to_json(), is_durable=True)
        return delivery


def _scan(paths: Any, **how: Any) -> pl.LazyFrame:
    """Delivered lines; files of earlier versions say nothing of what is left out."""
    stored = {name: dtype for name, dtype in RAW_TRANSACTIONS.schema.items() if name not in ("period", "source_file")}
    return pl.scan_parquet(paths, schema=stored, missing_columns="insert", glob=False, **how)


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


def _within(keys: Iterable[str], cadence: Cadence, has_undated: bool) -> pl.Expr:
    """Whether a line may be of one of the periods; adjacent periods become one range, for row-group statistics."""
    ranges: list[tuple[date, date]] = []
    for start in sorted(start_of(key) for key in keys):
        follows = bool(ranges) and ranges[-1][1] == start
        ranges.append((ranges.pop()[0] if follows else start, shift(start, 1, cadence)))
    at = pl.col("invoiced_at")
    within = [(at >= pl.lit(start, pl.Datetime("us"))) & (at < pl.lit(end, pl.Datetime("us"))) for start, end in ranges]
    return pl.any_horizontal(*within, *([at.is_null()] if has_undated else []))


def _id_of(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([_READER, *parts], sort_keys=True).encode()).hexdigest()[:16]
