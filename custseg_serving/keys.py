"""The file of API keys: the command creates and revokes keys, the service reads them. Access control is in ``access``.

The file contains digests, never a secret. A secret has 256 random bits, which nobody can guess, so one round of
SHA-256 is enough.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from custseg_assets.errors import BadInputError
from custseg_assets.stores.files import lock_file, replacement_for

Scope = Literal["lookup", "score", "admin"]
SCOPES: tuple[Scope, ...] = ("lookup", "score", "admin")
MAX_KEYS = 1_024
TOKEN_PREFIX = "csk"  # noqa: S105 - makes a leaked key recognisable; no password
_NO_DIGEST = "0" * 64


class ApiKey(BaseModel):
    """A stored API key.

    Attributes:
        slot: its position in the file, which its requests are counted by; never reused.
        scopes: what it is good for; those of a later version give nothing.
        per_second: limit of requests in one second; one for many customers counts as so many.
        secret_sha256: digest of the secret.
    """

    # Fields of a later version are kept: a file with them is read, or a revocation in it would not count.
    model_config = ConfigDict(frozen=True, extra="allow")

    key_id: str
    slot: int
    name: str
    scopes: tuple[str, ...]
    per_second: int
    secret_sha256: str
    created_at: datetime
    revoked_at: datetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


class KeyFile:
    """The file of API keys.

    Args:
        path: of the file; created with the first key.
        is_named: whether somebody named the file, so that it has to be there.
    """

    def __init__(self, path: Path, *, is_named: bool = False) -> None:
        self.path, self._is_named = path, is_named
        # Made before the first key, and never removed: where it is, there were keys.
        self._lock_path = path.with_suffix(".lock")

    def read(self) -> tuple[ApiKey, ...]:
        """All keys, including revoked ones; none where no key was ever created.

        Raises:
            BadInputError: the file cannot be read as a file of keys, or is missing although it was named or had keys.
        """
        if not self.path.exists() and (self._is_named or self._lock_path.exists()):
            reason = "there is no such file" if self._is_named else "the file is gone, but keys were created"
            raise BadInputError(
                f"keys {self.path}: {reason}",
                "the file that `custseg-serving keys create` writes",
                "Correct CUSTSEG_KEYS, restore the file from a backup, or create the keys anew.",
            )
        return self._read().keys

    def revoked_ids(self) -> frozenset[str]:
        """Ids of the keys that the file calls revoked, even where the rest of it cannot be read."""
        try:
            found = json.loads(self.path.read_bytes())["keys"]
            return frozenset(str(key["key_id"]) for key in found if _is_revoked(key))
        except (OSError, ValueError, LookupError, TypeError):
            return frozenset()

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return _File()
        except (OSError, ValidationError) as error:
            reason = "not of the expected form" if isinstance(error, ValidationError) else error
            raise BadInputError(
                f"keys {self.path}: {reason}",
                "the file that `custseg-serving keys create` writes",
                "Restore it from a backup, or remove it and create the keys anew.",
            ) from None

    def create(self, name: str, scopes: Sequence[Scope], per_second: int) -> str:
        """Create a key and return its token, which is not stored and cannot be shown again."""
        with self._lock():
            file = self._read()
            if len(file.keys) >= MAX_KEYS:
                raise BadInputError(
                    f"{len(file.keys)} keys", f"at most {MAX_KEYS}", "Remove the file and create keys anew."
                )
            key, token = make_key(name, scopes, per_second, slot=len(file.keys))
            self._write(file, (*file.keys, key))
        return token

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key; running services reload the file by themselves.

        Raises:
            BadInputError: there is no such key.
        """
        if all(key.key_id != key_id for key in self.read()):
            raise BadInputError(f"key {key_id!r}", "the id of a key", "`custseg-serving keys list` shows them.")
        with self._lock():
            file = self._read()
            revoked = next(key for key in file.keys if key.key_id == key_id)
            if revoked.revoked_at is None:
                revoked = revoked.model_copy(update={"revoked_at": datetime.now(UTC)})
                self._write(file, tuple(revoked if key.key_id == key_id else key for key in file.keys))
        return revoked

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock the file, so that two commands at the same time do not lose each other's keys."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_path.open("a") as lock:
            lock_file(lock)
            yield

    def _write(self, file: _File, keys: tuple[ApiKey, ...]) -> None:
        content = json.dumps(file.model_copy(update={"keys": keys}).model_dump(mode="json"), indent=1) + "\n"
        with replacement_for(self.path, is_durable=True) as unfinished:
            unfinished.touch(0o600)
            unfinished.write_text(content, encoding="utf-8")


def make_key(name: str, scopes: Sequence[Scope], per_second: int, *, slot: int) -> tuple[ApiKey, str]:
    """A new key, which is in no file yet, and its token, which cannot be shown again."""
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        key_id=secrets.token_hex(6),
        slot=slot,
        name=name,
        scopes=tuple(scopes),
        per_second=per_second,
        secret_sha256=digest_of(secret),
        created_at=datetime.now(UTC),
    )
    return key, f"{TOKEN_PREFIX}_{key.key_id}_{secret}"


def _is_revoked(key: Any) -> bool:
    return key.get("revoked_at") is not None if isinstance(key, dict) else False


def digest_of(secret: str) -> str:
    """SHA-256 of a key's secret, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def matching_key(token: str, keys: dict[str, ApiKey]) -> ApiKey | None:
    """The key that a token belongs to, unless it is revoked.

    The comparison takes the same time however much of a secret is right, and for unknown ids.

    Args:
        token: as the client sent it.
        keys: by id.
    """
    _, _, rest = token.partition(f"{TOKEN_PREFIX}_")
    key_id, _, secret = rest.partition("_")
    key = keys.get(key_id)
    is_right = hmac.compare_digest(digest_of(secret), key.secret_sha256 if key else _NO_DIGEST)
    return key if key is not None and is_right and key.revoked_at is None else None
