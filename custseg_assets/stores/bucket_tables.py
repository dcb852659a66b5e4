"""The pipeline's tables in a bucket of Cloud Storage.

Delta's own client writes and reads them, so nothing of Google's is needed here. A commit is an object that is only
written where there is none of its name, so two writers cannot both have one, and a table is never torn.

To ask a bucket for news costs two requests; a run asks 1,500 times. Who else commits is held off by the home's lock,
which is this machine's, so this machine can keep note of commits: of each table a small file with its version, or with
a question mark while a commit is under way, or was when its process was killed. Only then, and where a note has
changed, the bucket is asked.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from custseg_assets.errors import CustsegError
from custseg_assets.stores.home import replace_text
from custseg_assets.stores.tables import TableStore

_IN_DOUBT = "?"
# Polars wants other words for it, and numbers.
_PATIENCE = {"max_retries": "5", "retry_timeout": "60s"}
_PATIENCE_OF_POLARS = {"max_retries": 5, "retry_timeout_ms": 60_000}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m|↳")


class TablesError(CustsegError):
    """The bucket of the tables did not do what it was asked to; says why and what to do."""


class TablesInBucket(TableStore):
    """Delta tables below ``gs://bucket/prefix``.

    Args:
        uri: where; made at the first write.
        endpoint: where Cloud Storage answers, when not at its own address; asked without credentials then.
        notes: folder on this machine for what is known about commits.
    """

    def __init__(self, uri: str, endpoint: str | None, notes: Path) -> None:
        super().__init__(notes)
        self._uri, self._options = uri, {**_PATIENCE, **_without_credentials(endpoint)}
        self._seen: dict[str, str | None] = {}

    def _open(self, name: str) -> DeltaTable | None:
        note = self._note(name)
        if name in self._seen and self._seen[name] == note != _IN_DOUBT:
            return self._opened.get(name)
        with self.explained():
            opened = self._opened.pop(name, None)
            try:
                if opened and note and (note == _IN_DOUBT or int(note) > opened.version()):
                    opened.update_incremental()
                else:
                    opened = DeltaTable(f"{self._uri}/{name}", storage_options=self._options)
            except TableNotFoundError:
                opened = None
        if opened:
            self._opened[name] = opened
        self._seen[name] = note
        return opened

    def _create(self, name: str, frame: pl.DataFrame, **how: Any) -> None:
        write_deltalake(f"{self._uri}/{name}", frame, storage_options=self._options, **how)

    def _rows(self, opened: DeltaTable) -> pl.LazyFrame:
        return pl.scan_delta(opened, storage_options=_PATIENCE_OF_POLARS)

    @contextlib.contextmanager
    def _committing(self, name: str) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        replace_text(self.root / name, _IN_DOUBT)
        with self.explained():
            yield
        if opened := self._opened.get(name) or self._open(name):
            note = str(opened.version())
            replace_text(self.root / name, note)
            self._seen[name] = note

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


def _without_credentials(endpoint: str | None) -> dict[str, str]:
    if endpoint is None:
        return {}
    # Where only signatures are switched off the client still asks for a token to write; with such a key it does not.
    key = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"google_service_account_key": json.dumps(key), "allow_http": "true"}


def in_words(said: str, uri: str) -> str:
    """What the client of the bucket says about a failure, and what to do about it."""
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
