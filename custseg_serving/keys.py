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
from typing import Literal

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
        per_second: limit of requests in one second.
        secret_sha256: digest of the secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    slot: int
    name: str
    scopes: tuple[Scope, ...]
    per_second: int
    secret_sha256: str
    created_at: datetime
    revoked_at: datetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


class KeyFile:
    """The file of API keys.

    Args:
        path: of the file; created with the first key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[ApiKey, ...]:
        """All keys, including revoked ones.

        Raises:
            BadInputError: the file cannot be read as a file of keys.
        """
        try:
            return _File.model_validate_json(self.path.read_bytes()).keys
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            reason = "not of the expected form" if isinstance(error, ValidationError) else error
            raise BadInputError(
                f"keys {self.path}: {reason}",
                "the file that `custseg-serving keys create` writes",
                "Restore it from a backup, or remove it and create the keys anew.",
            ) from None

    def create(self, name: str, scopes: Sequence[Scope], per_second: int) -> str:
        """Create a key and return its token, which is not stored and cannot be shown again."""
        secret = secrets.token_urlsafe(32)
        with self._lock():
            keys = self.read()
            if len(keys) >= MAX_KEYS:
                raise BadInputError(f"{len(keys)} keys", f"at most {MAX_KEYS}", "Remove the file and create keys anew.")
            key = ApiKey(
                key_id=secrets.token_hex(6),
                slot=len(keys),
                name=name,
                scopes=tuple(scopes),
                per_second=per_second,
                secret_sha256=digest_of(secret),
                created_at=datetime.now(UTC),
            )
            self._write((*keys, key))
        return f"{TOKEN_PREFIX}_{key.key_id}_{secret}"

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key; running services reload the file by themselves.

        Raises:
            BadInputError: there is no such key.
        """
        with self._lock():
            keys = self.read()
            revoked = next((key for key in keys if key.key_id == key_id), None)
            if revoked is None:
                raise BadInputError(f"key {key_id!r}", "the id of a key", "`custseg-serving keys list` shows them.")
            if revoked.revoked_at is None:
                revoked = revoked.model_copy(update={"revoked_at": datetime.now(UTC)})
                self._write(tuple(revoked if key.key_id == key_id else key for key in keys))
        return revoked

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock the file, so that two commands at the same time do not lose each other's keys."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a") as lock:
            lock_file(lock)
            yield

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        content = json.dumps(_File(keys=keys).model_dump(mode="json"), indent=1) + "\n"
        with replacement_for(self.path, is_durable=True) as unfinished:
            unfinished.touch(0o600)
            unfinished.write_text(content, encoding="utf-8")


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
