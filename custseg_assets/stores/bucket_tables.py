"""The pipeline's tables in a bucket of Cloud Storage.

Delta's own client writes and reads them, so nothing of Google's is needed here. A commit is an object that is only
written where there is none of its name, so two writers cannot both have one, and a table is never torn. Where the
answer to such a request is lost, the client sends it again and is told that somebody else has committed; each commit
names the write that it is of, so it can be looked whether that was this one.

Reading a table's version, or the fingerprint of a partition, costs requests, and a run needs 1,500 of them. The
home's lock keeps other writers of this machine out, so notes about commits can be kept on this machine: for each
table a small file with its version and its fingerprints, or with a question mark while a commit is under way, or was
when its process was killed. The bucket is read where there is a question mark or the note has changed. A note about
another version of the table than the present one is ignored.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from custseg_assets.domain.schemas import Table
from custseg_assets.errors import CustsegError
from custseg_assets.stores.files import replace_text
from custseg_assets.stores.staged import StagedRows
from custseg_assets.stores.tables import SHORT_LOG, TableStore

_IN_DOUBT = "?"
_WRITE = "custseg-write"
"""Key under which a commit says which write it is of."""
# Polars wants other words for it, and numbers.
_PATIENCE = {"max_retries": "5", "retry_timeout": "60s"}
_PATIENCE_OF_POLARS = {"max_retries": 5, "retry_timeout_ms": 60_000}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m|↳")


class TablesError(CustsegError):
    """A request to the bucket of the tables failed; the message says why and what to do."""


@dataclass
class _Seen:
    """A table when it was last read: its note, the table or ``None``, and fingerprints of partitions, 0 for none."""

    note: str | None
    opened: DeltaTable | None
    fingerprints: dict[str, int]


class TablesInBucket(TableStore):
    """Delta tables below ``gs://bucket/prefix``.

    Args:
        uri: where; made at the first write.
        endpoint: instead of Cloud Storage's own address; it is used without credentials.
        notes: folder on this machine for notes about commits.
    """

    def __init__(self, uri: str, endpoint: str | None, notes: Path) -> None:
        super().__init__(notes)
        self._uri, self._credentials = uri, _without_credentials(endpoint)
        self._options = {**_PATIENCE, **self._credentials}
        self._seen: dict[str, _Seen] = {}
        self._writing: str | None = None
        self._write_id = ""

    def fingerprint_of(self, name: str, key: str) -> int | None:
        """See ``TableStore``; an unknown fingerprint is read from the log since its last checkpoint."""
        seen = self._look(name)
        if seen.opened and key not in seen.fingerprints:
            with self.explained():
                seen.fingerprints[key] = seen.opened.transaction_version(key) or 0
        return seen.fingerprints.get(key) or None

    def _open(self, name: str) -> DeltaTable | None:
        return self._look(name).opened

    def _look(self, name: str) -> _Seen:
        """The present state of the table."""
        seen, note = self._seen.get(name), self._note(name)
        if seen and (name == self._writing or seen.note == note != _IN_DOUBT):
            return seen
        with self.explained():
            # Anew, because what is only brought up to date does not notice that the table was removed.
            opened = self._newest(name)
        is_as_seen = seen is not None and _identity(seen.opened) == _identity(opened)
        known = seen.fingerprints if seen and is_as_seen else _noted(note, opened)
        self._seen[name] = _Seen(note, opened, known)
        return self._seen[name]

    def _newest(self, name: str) -> DeltaTable | None:
        try:
            return DeltaTable(f"{self._uri}/{name}", storage_options=self._options)
        except TableNotFoundError:
            return None

    def _create(self, name: str, data: Any, commit_properties: CommitProperties, **how: Any) -> None:
        # Delta tries a first commit again as the second of a table that somebody else has made meanwhile: rows double.
        commit_properties.max_commit_retries = 0
        write_deltalake(
            f"{self._uri}/{name}",
            data,
            storage_options=self._options,
            configuration=SHORT_LOG,
            commit_properties=commit_properties,
            **how,
        )

    def _describe_commit(self, **more: Any) -> CommitProperties:
        return CommitProperties(custom_metadata={_WRITE: self._write_id}, **more)

    def _path_of(self, name: str, path: str) -> str:
        return f"{self._uri}/{name}/{unquote(path)}"

    def _polars_options(self) -> Mapping[str, Any]:
        return {**self._credentials, **_PATIENCE_OF_POLARS}

    def _take_over(self, table: Table, rows: StagedRows, keys: Iterable[str], commit: CommitProperties) -> None:
        # A bucket moves no files: Delta's own client writes the rows anew there, a few at a time and in any order.
        import pyarrow as pa

        schema = table.schema.to_frame().to_arrow().schema
        batches = (batch for part in rows.slices() for batch in part.to_arrow().cast(schema).to_batches())
        self._replace(table, pa.RecordBatchReader.from_batches(schema, batches), keys, commit)

    def _require_files(self, _: str, __: Iterable[str] | None) -> None:
        """Nothing: to ask the bucket for each file would take longer than reading them."""

    def _require_whole(self, _: str, __: Iterable[tuple[Any, ...]]) -> None:
        """See ``_require_files``."""

    @contextlib.contextmanager
    def _committing(self, name: str, fingerprints: Mapping[str, int]) -> Iterator[None]:
        self._look(name)
        self.root.mkdir(parents=True, exist_ok=True)
        replace_text(self.root / name, _IN_DOUBT, is_durable=True)
        # Once more, because others on this machine are not the only ones who could have committed.
        before = self._look(name)
        version = before.opened.version() if before.opened else -1
        self._writing, self._write_id = name, uuid.uuid4().hex
        try:
            try:
                with self.explained():
                    yield
                    opened = before.opened or self._newest(name)
            except TablesError:
                opened = self._newest_if_written(name, version)
                if opened is None:
                    raise
        except BaseException:
            # The commit may be there all the same.
            del self._seen[name]
            raise
        finally:
            self._writing = None
        if opened is None:
            return
        # Where somebody else has committed as well, what was known may not hold any more.
        known = {**(before.fingerprints if opened.version() == version + 1 else {}), **fingerprints}
        note = json.dumps({"table": _identity(opened), "fingerprints": known})
        replace_text(self.root / name, note, is_durable=True)
        self._seen[name] = _Seen(note, opened, known)

    def _newest_if_written(self, name: str, version: int) -> DeltaTable | None:
        """The table as it is now, if one of its commits after a version is of the present write."""
        try:
            opened = self._newest(name)
            later = range(version + 1, opened.version() + 1) if opened else ()
            return opened if any(self._is_mine(name, number) for number in later) else None
        except (OSError, DeltaError, pl.exceptions.PolarsError):
            return None

    def _is_mine(self, name: str, version: int) -> bool:
        # DeltaTable.history does not let other threads of this process run meanwhile.
        commit = pl.scan_ndjson(
            f"{self._uri}/{name}/_delta_log/{version:020}.json",
            schema={"commitInfo": pl.Struct({_WRITE: pl.String})},
            storage_options={**self._credentials, **_PATIENCE_OF_POLARS},
        )
        written = commit.select(pl.col("commitInfo").struct.field(_WRITE)).collect()
        return self._write_id in written[_WRITE].to_list()

    def _note(self, name: str) -> str | None:
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """See ``TableStore``.

        Raises:
            TablesError: the bucket cannot be read or written, or somebody else wrote at the same time.
        """
        try:
            yield
        except CommitFailedError as error:
            raise TablesError(
                f"{self._uri}: somebody else changed the same rows at the same time ({_plain(error)}). "
                "See that only one machine works on this home, then run again."
            ) from None
        except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
            raise TablesError(in_words(_plain(error), self._uri)) from None


def _noted(note: str | None, opened: DeltaTable | None) -> dict[str, int]:
    """Fingerprints from a note, if it is about this version of this table."""
    if opened is None or note is None or note == _IN_DOUBT:
        return {}
    try:
        found = json.loads(note)
        return dict(found["fingerprints"]) if found["table"] == _identity(opened) else {}
    except (ValueError, LookupError, TypeError):
        # A note is only remembered, to save requests: what a damaged one said is asked of the bucket again.
        return {}


def _identity(opened: DeltaTable | None) -> list[str | int]:
    """The id of a table and its version."""
    return [opened.metadata().id, opened.version()] if opened else []


def _without_credentials(endpoint: str | None) -> dict[str, str]:
    if endpoint is None:
        return {}
    # Where only signatures are switched off the client still asks for a token to write; with such a key it does not.
    key = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"google_service_account_key": json.dumps(key), "allow_http": "true"}


@contextlib.contextmanager
def forgetting(notes: Path) -> Iterator[None]:
    """Around the removal of all tables: mark every note as in doubt first, and remove the notes at the end."""
    for note in notes.glob("*"):
        replace_text(note, _IN_DOUBT, is_durable=True)
    yield
    shutil.rmtree(notes, ignore_errors=True)


def in_words(said: str, uri: str) -> str:
    """A failure as the bucket's client reports it, with what to do about it."""
    if "NoSuchBucket" in said:
        return f"{uri}: there is no such bucket. Correct [gcp.storage] uri, or make the bucket."
    if "token" in said or "credential" in said.lower():
        todo = "Run as a service account, or log in with `gcloud auth application-default login`."
    elif "403 Forbidden" in said or "401 Unauthorized" in said:
        todo = "Grant the account the role that docs/gcp.md names for this."
    else:
        todo = "Nothing was lost; run it again."
    found = re.search(r"<Message>(.*?)</Message>", said)
    return f"{uri}: {found[1] if found else said[-300:]} {todo}"


def _plain(error: Exception) -> str:
    return " ".join(_ESCAPES.sub(" ", str(error)).split())
