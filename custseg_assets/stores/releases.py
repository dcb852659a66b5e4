"""Releases: the only thing that passes from the pipeline to the service.

A release is a directory named by its id, written once and never changed; ``CURRENT`` names the one to serve. Here is
what a reader needs, without Polars. Writing a release's content is in ``release_writer``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic_core import from_json

from custseg_assets.domain.segments.model import SegmentationModel, model_from_json
from custseg_assets.errors import BadInputError, CustsegError
from custseg_assets.stores.customer_lists import HELD_OUT, LIST_FILES, PREDICTION_FILES, CustomerLists
from custseg_assets.stores.files import REMOVING, make_durable, remove_folder, replace_text

RELEASE_FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
"""Of the manifest, in releases that somebody signed; see ``signatures``."""
CURRENT = "CURRENT"
MODEL = "model.json"
PROFILES = "profiles.json"
PRODUCTS = "products.json"
CUSTOMERS = "customers.lmdb"
DRIFT = "drift.json"
HISTORY = "history.json"
MIGRATIONS = "migrations.json"
MODEL_CARD = "model_card.md"
VALUES = ("p_order_30d", "p_order_90d", "expected_orders_90d", "expected_spend_90d")
"""Predictions that a release has of its customers; a record's ``value`` has each with its ends, in this order."""
REQUIRED_FILES = frozenset({MODEL, PROFILES, PRODUCTS, CUSTOMERS, DRIFT, HISTORY, MIGRATIONS, MODEL_CARD})

_RELEASE_ID = re.compile(r"r-\d{4}-\d{2}-\d{2}-[0-9a-f]{8}")
_WRITING = ".writing-"
MAX_MANIFEST_BYTES = 1 << 20
"""Hundreds of times what a manifest has; a larger one is not read."""
MAX_SIGNATURE_BYTES = 1_000
LONGEST_KEY = 511
_SAMPLED_FROM = (b"", b"1", b"3", b"5", b"7", b"9", b"A", b"a", b"k", b"\xc3")
"""A sample of the customers has the first at or after each of these."""
# No UTF-8 text begins with this byte, so a digest is never taken for a customer's id, and sorts after all of them.
_DIGEST_MARK = b"\xff"


ManifestCheck = Callable[[Path, bytes], None]
"""Looks at a release's directory and the bytes of its manifest before they are used; raises ``DamagedReleaseError``."""


class DamagedReleaseError(CustsegError):
    """A release that must not be served: a part of it is missing, changed, or of an unknown format."""


class FileEntry(BaseModel):
    """A file of a release: SHA-256 of its bytes, in hexadecimal, and its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    n_bytes: int


_USUAL = (("period_end", None), ("is_demo", False), ("currency", None))
"""Fields that a manifest does not have while they are so."""


class ReleaseManifest(BaseModel):
    """What a release is made of and where it comes from.

    Attributes:
        format: of the directory; a reader refuses any other than its own.
        release_id: made from the snapshot and a digest of all other fields.
        period: key of the snapshot.
        as_of: first instant the snapshot does not observe.
        period_end: first instant after the snapshot's period, where that is not over; missing in all other manifests.
        currency: of all amounts, such as ``GBP``, where it is known; missing in all other manifests.
        is_demo: whether it is of the demo shop, which nobody's customers are in; missing in all other manifests.
        window_start: first instant it observes.
        trained_on: key of the snapshot the model was trained on.
        features: the model's features, in the matrix' order.
        n_customers: customers with a segment.
        n_later_customers: customers first seen after the snapshot, known by id only.
        data_versions: table → version it was read at.
        files: every other file of the directory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    release_id: str
    period: str
    as_of: datetime
    period_end: datetime | None = None
    currency: str | None = None
    is_demo: bool = False
    window_start: datetime
    model_version: str
    trained_on: str
    features: tuple[str, ...]
    n_customers: int
    n_later_customers: int
    metrics: Mapping[str, float | None]
    git_revision: str | None
    data_versions: Mapping[str, int | str | None]
    files: Mapping[str, FileEntry]

    @property
    def period_days(self) -> int:
        """Days in the snapshot's period."""
        return ((self.period_end or self.as_of).date() - date.fromisoformat(self.period)).days

    @property
    def is_open(self) -> bool:
        """Whether the snapshot's period is not over: it is as of the last day with data."""
        return self.period_end is not None

    @property
    def has_lists(self) -> bool:
        """Whether it has lists of the customers; releases that earlier versions made have none."""
        return self.files.keys() >= LIST_FILES

    @property
    def has_predictions(self) -> bool:
        """Whether its lists say what customers will probably do; those that earlier versions made do not."""
        return self.files.keys() >= LIST_FILES | PREDICTION_FILES

    @model_serializer(mode="wrap")
    def _without_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if (name, value) not in _USUAL}

    def to_json(self) -> str:
        """The manifest as text of its file."""
        return canonical_json(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """JSON that is equal for equal values, one key per line so that people can compare two releases."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def release_id_of(fields: Mapping[str, Any]) -> str:
    """The id of the release whose manifest has these fields, with or without an id among them."""
    content = canonical_json({name: value for name, value in fields.items() if name != "release_id"})
    return f"r-{fields['period']}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def customer_key(customer_id: str) -> bytes:
    """A customer's key in the file: the id's UTF-8, or a digest of it where that is too long for LMDB."""
    # A lone surrogate, which JSON can carry, is no customer's id but must not be an error either.
    key = customer_id.encode("utf-8", "surrogatepass")
    return key if 0 < len(key) <= LONGEST_KEY else _DIGEST_MARK + hashlib.sha256(key).digest()


def is_digest(key: bytes) -> bool:
    """Whether a key stands for an id that is too long, or empty, to be a key itself."""
    return key.startswith(_DIGEST_MARK)


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _CustomersFile:
    """An open file of customers; it closes when the last release that reads it is released from memory."""

    def __init__(self, path: Path) -> None:
        # Random reads over a file larger than memory: read-ahead would only push out pages that are wanted.
        self.environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, create=False)


# LMDB refuses to open a file twice in a process, which a rollback does while the last request to the earlier release
# is still being answered.
_open_files: WeakValueDictionary[tuple[int, int], _CustomersFile] = WeakValueDictionary()
_opening = threading.Lock()


def _open_customers(path: Path) -> _CustomersFile:
    with _opening:
        found = path.stat()
        identity = found.st_dev, found.st_ino
        file = _open_files.get(identity)
        if file is None:
            file = _open_files[identity] = _CustomersFile(path)
        return file


class Release:
    """A verified release, open for reading; safe to share between threads, not across a fork.

    Args:
        directory: the release's.
        manifest: its manifest.
        model: its model.

    Attributes:
        profiles: rows of ``segment_profiles``.
        products: product id → its text.
        drift: ``reports`` over time and the model's drift ``reference``.
        history: promotion ``decisions`` and the champion's ``candidates``.
        migrations: ``moves`` between segments since the snapshot ``before``, their number by cause, ``causes``, their
            rates ``moved`` and ``to_and_fro``, and the ``margin_rule`` they were made with; releases of earlier
            versions lack the last three.
        model_card: Markdown.
        lists: of the customers; ``None`` where the release was made before there were lists.
    """

    def __init__(self, directory: Path, manifest: ReleaseManifest, model: SegmentationModel) -> None:
        self.manifest, self.model = manifest, model
        self.profiles: list[dict[str, Any]] = _read_json(directory / PROFILES)
        self.products: dict[str, str | None] = _read_json(directory / PRODUCTS)
        self.drift: dict[str, Any] = _read_json(directory / DRIFT)
        self.history: dict[str, Any] = _read_json(directory / HISTORY)
        self.migrations: dict[str, Any] = _read_json(directory / MIGRATIONS)
        self.model_card = (directory / MODEL_CARD).read_text(encoding="utf-8")
        self.lists: CustomerLists | None = None
        if manifest.has_lists:
            self.lists = CustomerLists(
                directory, has_held_out=HELD_OUT in manifest.files, has_predictions=manifest.has_predictions
            )
        self._customers = _open_customers(directory / CUSTOMERS)
        self._sample = self._read_sample()

    @property
    def release_id(self) -> str:
        """The release's id."""
        return self.manifest.release_id

    @property
    def n_records(self) -> int:
        """Number of customers with a record."""
        return self._customers.environment.stat()["entries"]

    def is_intact(self) -> bool:
        """Whether a sample of the customers can be looked up as when the release was opened; takes microseconds."""
        try:
            return self._read_sample() == self._sample
        except lmdb.Error:
            return False

    def _read_sample(self) -> dict[bytes, bytes]:
        with self._customers.environment.begin() as reading, reading.cursor() as cursor:
            return dict(cursor.item() for start in _SAMPLED_FROM if cursor.set_range(start))

    def record_of(self, customer_id: str) -> dict[str, Any] | None:
        """A customer's record; ``None`` where the id is not known.

        An e-mail address that is not there as it is written is looked for in lower case, as logs are read.

        Returns:
            the ``record`` that ``customer_history.describe_customers`` makes, or ``{"first_seen_at": …}`` for a
            customer who came after the snapshot.
        """
        with self._customers.environment.begin() as reading:
            content = reading.get(customer_key(customer_id))
        if content is None:
            lower = customer_id.lower()
            return self.record_of(lower) if "@" in customer_id and lower != customer_id else None
        record: dict[str, Any] = from_json(bytes(content))
        return record


def accept_manifest(directory: Path, manifest: bytes) -> None:
    """Demand nothing more of a manifest."""


def read_manifest(root: Path, release_id: str, check: ManifestCheck = accept_manifest) -> ReleaseManifest:
    """The manifest of a release, checked against the id but not against the files.

    Raises:
        DamagedReleaseError: there is no such release, or its manifest is damaged or of another format.
    """
    check_release_id(release_id)
    try:
        content = _read_manifest_file(root / release_id / MANIFEST)
        check(root / release_id, content)
        fields = _parse_manifest(content)
        found = fields.get("format")
        if found != RELEASE_FORMAT:
            raise DamagedReleaseError(f"release {release_id}: format {found!r}; this version reads {RELEASE_FORMAT}")
        manifest = ReleaseManifest.model_validate(fields)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = "not of the expected form" if isinstance(error, ValidationError) else error
        raise DamagedReleaseError(f"release {release_id}: manifest cannot be read: {reason}") from None
    if release_id_of(fields) != release_id or manifest.release_id != release_id:
        raise DamagedReleaseError(f"release {release_id}: manifest is not the one the id was made from")
    # A closed set, so that no name in a manifest leads out of the directory.
    if unknown := manifest.files.keys() - REQUIRED_FILES - LIST_FILES - PREDICTION_FILES - {HELD_OUT}:
        names = ", ".join(repr(name[:100]) for name in sorted(unknown)[:10])
        raise DamagedReleaseError(f"release {release_id}: the manifest names files that no release has: {names}")
    return manifest


def check_release_id(release_id: str) -> str:
    """A release's id, unless it is none; check it before it becomes part of a path.

    Raises:
        DamagedReleaseError: it is not of the form that ids have.
    """
    if not _RELEASE_ID.fullmatch(release_id):
        raise DamagedReleaseError(f"{release_id[:100]!r} is no release id; expected r-YYYY-MM-DD-xxxxxxxx")
    return release_id


def id_of(directory: Path) -> str:
    """The id of the release in a directory of any name; nothing else of it is checked.

    Raises:
        DamagedReleaseError: its manifest cannot be read, or names no release.
    """
    try:
        release_id = _parse_manifest(_read_manifest_file(directory / MANIFEST))["release_id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedReleaseError(f"{directory.name}: manifest cannot be read: {error}") from None
    return check_release_id(str(release_id))


def verify(
    root: Path,
    release_id: str,
    digest: Callable[[Path], str] = sha256_of,
    check: ManifestCheck = accept_manifest,
) -> ReleaseManifest:
    """Check a release completely: its format, every file's digest, and that model and manifest belong together.

    Args:
        root: folder of the releases.
        release_id: of the release.
        digest: gives a file's SHA-256.
        check: of the manifest, such as ``signatures.RequiredSignature``.

    Raises:
        DamagedReleaseError: something is not as it was written; the message says what.
    """
    return _verify(root, release_id, digest, check)[0]


def open_release(
    root: Path,
    release_id: str,
    digest: Callable[[Path], str] = sha256_of,
    check: ManifestCheck = accept_manifest,
) -> Release:
    """Verify a release and open it.

    Args:
        root: folder of the releases.
        release_id: of the release.
        digest: gives a file's SHA-256; workers can share this work.
        check: of the manifest, such as ``signatures.RequiredSignature``.

    Raises:
        DamagedReleaseError: it does not verify.
    """
    manifest, model = _verify(root, release_id, digest, check)
    try:
        release = Release(root / release_id, manifest, model)
    except (OSError, ValueError, KeyError, lmdb.Error) as error:
        raise DamagedReleaseError(f"release {release_id}: cannot be opened: {error}") from None
    on_file, expected = release.n_records, manifest.n_customers + manifest.n_later_customers
    if on_file != expected:
        raise DamagedReleaseError(f"release {release_id}: {on_file} customers on file; the manifest says {expected}")
    if release.lists is not None and len(release.lists) != manifest.n_customers:
        raise DamagedReleaseError(
            f"release {release_id}: {len(release.lists)} customers in lists; the manifest says {manifest.n_customers}"
        )
    unnamed = {row["segment_id"] for row in release.profiles if not row.get("segment_name")}
    if unnamed:
        raise DamagedReleaseError(f"release {release_id}: segments without a name: {', '.join(sorted(unnamed))}")
    return release


def _verify(
    root: Path, release_id: str, digest: Callable[[Path], str], check: ManifestCheck
) -> tuple[ReleaseManifest, SegmentationModel]:
    manifest = read_manifest(root, release_id, check)
    missing = REQUIRED_FILES - manifest.files.keys()
    if missing:
        raise DamagedReleaseError(f"release {release_id}: the manifest lacks {', '.join(sorted(missing))}")
    there, wanted = manifest.files.keys(), LIST_FILES
    if PREDICTION_FILES & there:
        wanted |= PREDICTION_FILES
    if wanted & there and wanted - there:
        lacking = ", ".join(sorted(wanted - there))
        raise DamagedReleaseError(
            f"release {release_id}: the manifest names only some files of the lists, not {lacking}"
        )
    for name, entry in sorted(manifest.files.items()):
        path = root / release_id / name
        try:
            # The size first: nobody hashes more than was written.
            is_as_written = path.stat().st_size == entry.n_bytes and digest(path) == entry.sha256
        except OSError as error:
            raise DamagedReleaseError(f"release {release_id}: {name}: {error.strerror}") from None
        if not is_as_written:
            raise DamagedReleaseError(f"release {release_id}: {name} is not as it was written")
    try:
        model = model_from_json((root / release_id / MODEL).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedReleaseError(f"release {release_id}: {MODEL}: {error}") from None
    if (model.features, model.model_version) != (manifest.features, manifest.model_version):
        raise DamagedReleaseError(
            f"release {release_id}: model {model.model_version} with features {', '.join(model.features)}; "
            f"the manifest says {manifest.model_version} with {', '.join(manifest.features)}"
        )
    return manifest, model


def releases(root: Path) -> tuple[str, ...]:
    """Ids of all complete releases, in the order they were written."""
    if not root.is_dir():
        return ()
    written = [
        ((entry / MANIFEST).stat().st_mtime_ns, entry.name)
        for entry in root.iterdir()
        if _RELEASE_ID.fullmatch(entry.name) and (entry / MANIFEST).is_file()
    ]
    return tuple(name for _, name in sorted(written))


def current(root: Path) -> str | None:
    """Id of the release to serve; ``None`` before the first.

    Raises:
        DamagedReleaseError: ``CURRENT`` names no release.
    """
    try:
        with (root / CURRENT).open("rb") as file:
            text = file.read(1_000).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    return check_release_id(text) if text else None


def point_to(root: Path, release_id: str) -> None:
    """Make a release, which may be an earlier one, the one to serve; running services notice it.

    Raises:
        BadInputError: there is no such release, or it does not verify.
    """
    try:
        verify(root, release_id)
    except DamagedReleaseError as error:
        names = ", ".join(releases(root)) or "none"
        raise BadInputError(str(error), f"a release that verifies ({names})", "Nothing was changed.") from None
    replace_text(root / CURRENT, release_id + "\n", is_durable=True)


def place(root: Path, written: Path, manifest: ReleaseManifest) -> None:
    """Give a directory that was written completely its name; from here on it is a release.

    Idempotent: where the release is there already and verifies, the new copy is removed.
    """
    for entry in written.iterdir():
        make_durable(entry)
    make_durable(written)
    final = root / manifest.release_id
    if final.exists():
        try:
            verify(root, manifest.release_id)
        except DamagedReleaseError:
            remove_folder(final)
        else:
            shutil.rmtree(written)
            return
    written.rename(final)
    make_durable(root)


def make_writing_directory(root: Path) -> Path:
    """Make a directory to write a release in, and remove what killed writers left.

    Only one process may write: in a home, the one that has its lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    for entry in root.iterdir():
        if entry.name.startswith((_WRITING, REMOVING)):
            shutil.rmtree(entry)
    directory = root / f"{_WRITING}{os.getpid()}"
    directory.mkdir()
    return directory


def prune(root: Path, keep: int) -> tuple[str, ...]:
    """Remove all but the newest releases, the one to serve and, to go back to, the newest of another model.

    A service that has a removed release open goes on answering from it: the files exist as long as they are mapped.

    Returns:
        The ids of the removed ones.
    """
    serving = current(root)
    candidates = [release_id for release_id in releases(root) if release_id != serving]
    # The present snapshot is released day by day: without this, the model before would soon have no release left.
    spared = _newest_of_another_model(root, candidates, serving) if serving else None
    gone = [release_id for release_id in candidates[: max(0, len(candidates) - keep)] if release_id != spared]
    for release_id in gone:
        remove_folder(root / release_id)
    return tuple(gone)


def _newest_of_another_model(root: Path, candidates: Sequence[str], serving: str) -> str | None:
    with contextlib.suppress(DamagedReleaseError):
        model = read_manifest(root, serving).model_version
        return next((one for one in reversed(candidates) if read_manifest(root, one).model_version != model), None)
    return None


def _read_manifest_file(path: Path) -> bytes:
    n_bytes = path.stat().st_size
    if n_bytes > MAX_MANIFEST_BYTES:
        raise ValueError(f"{n_bytes} bytes; at most {MAX_MANIFEST_BYTES} are read")
    return path.read_bytes()


def _parse_manifest(content: bytes) -> Any:
    return json.loads(content.decode("utf-8"), object_pairs_hook=_without_repeats)


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name is there twice")
    return fields


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
