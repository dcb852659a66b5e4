"""Settings of the service. Only ``cli`` reads the command line and the environment."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from custseg_serving.keys import ApiKey


@dataclass(frozen=True)
class VertexRoutes:
    """Routes that Vertex AI requests of a prediction container; see its container contract."""

    health: str
    predict: str


@dataclass(frozen=True)
class ServingSettings:
    """Settings of one server; its workers share them.

    Attributes:
        home: folder the pipeline writes to; releases, keys and the prediction log are below it.
        host: address to listen on.
        poll_seconds: how often ``CURRENT`` is read.
        max_batch: customers in one request.
        max_body_bytes: size of one request's body.
        log_predictions: whether answers are written to the prediction log.
        prediction_folder: of the prediction log, when not in the home.
        max_queued_predictions: length of the queue; further answers are dropped from the log and counted.
        rotate_bytes: size at which a file of the prediction log is finished.
        rotate_seconds: age at which a file of the prediction log is finished.
        follow: ``gs://bucket/prefix`` that releases are downloaded from and the prediction log is uploaded to.
        follow_seconds: how often the bucket is checked.
        keys_file: the file of API keys, when not in the home; it has to be there.
        is_open: whether this machine is answered without a key, as long as no key was created.
        run_folder: of what the workers share while the server runs; ``.serving`` in the home without it.
        public_key: file of the key that releases have to be signed with; without it none has to be signed.
        own_key: a key in memory only, which ends with the server.
        vertex: set in a Vertex AI prediction container only.
        artifact: folder on Cloud Storage with the one release that a prediction container serves.
        session_secret: signs the dashboard's cookies; random, so a restart ends all sessions.
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
    prediction_folder: Path | None = None
    max_queued_predictions: int = 50_000
    rotate_bytes: int = 64 << 20
    rotate_seconds: float = 60.0
    follow: str | None = None
    follow_seconds: float = 5.0
    keys_file: Path | None = None
    is_open: bool = False
    run_folder: Path | None = None
    public_key: Path | None = None
    own_key: ApiKey | None = field(default=None, repr=False)
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
        return self.prediction_folder or self.home / "prediction_log"

    @property
    def keys(self) -> Path:
        """The file of API keys."""
        return self.keys_file or self.home / "keys.json"

    @property
    def is_loopback(self) -> bool:
        """Whether the server listens on a loopback address."""
        return is_loopback(self.host)


@lru_cache(maxsize=1_024)
def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address or ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
