"""What the service can be told when it starts. Only the command reads the command line and the environment."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True)
class VertexRoutes:
    """Where Vertex AI, as the platform around a prediction container, asks; see its container contract."""

    health: str
    predict: str


@dataclass(frozen=True)
class ServingSettings:
    """Settings of one server; its workers share them.

    Attributes:
        home: folder the pipeline writes to; releases, keys and the prediction log are below it.
        host: address to listen on.
        poll_seconds: how often ``CURRENT`` and the keys are looked at.
        max_batch: customers in one request.
        max_body_bytes: size of one request's body.
        log_predictions: whether answers go to the prediction log.
        max_queued_predictions: answers waiting to be written before new ones are dropped and counted.
        rotate_bytes: size at which a file of the prediction log is finished.
        rotate_seconds: age at which it is.
        follow: ``gs://bucket/prefix`` whose releases are brought here, and where the prediction log goes.
        follow_seconds: how often it is looked at.
        keys_file: where the API keys are, when not in the home.
        vertex: set inside a Vertex AI prediction container.
        artifact: folder on Cloud Storage with the files of the one release that such a container serves.
        session_secret: signs the dashboard's cookies; a restart ends the sessions.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 2
    threads: int = 4
    poll_seconds: float = 0.25
    max_batch: int = 1_000
    max_body_bytes: int = 2 << 20
    log_predictions: bool = True
    max_queued_predictions: int = 50_000
    rotate_bytes: int = 64 << 20
    rotate_seconds: float = 60.0
    follow: str | None = None
    follow_seconds: float = 5.0
    keys_file: Path | None = None
    vertex: VertexRoutes | None = None
    artifact: str | None = None
    session_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def releases(self) -> Path:
        """Folder of the releases."""
        return self.home / "releases"

    @property
    def prediction_log(self) -> Path:
        """Folder of the prediction log."""
        return self.home / "prediction_log"

    @property
    def keys(self) -> Path:
        """The file of API keys."""
        return self.keys_file or self.home / "keys.json"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


@lru_cache(maxsize=1_024)
def is_loopback(host: str) -> bool:
    """Whether an address, or ``localhost``, can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
