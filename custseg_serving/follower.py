"""Follow a bucket: one worker of a server downloads its releases and uploads finished files of the prediction log.

In a prediction container of Vertex AI it downloads the one release of the model, while the server already listens:
the platform restarts a container that does not listen for some ten seconds, however large its release is. A
downloaded release is verified; every worker then serves it like any other release of the home (see ``swap``). While
the bucket fails, the service keeps its release.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from custseg_assets.errors import CustsegError
from custseg_assets.stores.files import lock_file
from custseg_assets.stores.releases import ManifestCheck, current, prune
from custseg_serving.metrics import Metrics
from custseg_serving.settings import ServingSettings

log = logging.getLogger(__name__)

RELEASES_KEPT = 2
"""Releases kept on the service's disk: the one that is served and the one before, for a rollback."""


class FollowedBucket(Protocol):
    """What the follower needs of a bucket; implemented by ``custseg_assets.gcp.bucket.Bucket``."""

    def fetch_artifact(self, root: Path) -> str:
        """Download the release whose files are directly in the followed folder; return its id."""

    def pull_release(self, root: Path) -> str | None:
        """Download the release that the bucket's ``CURRENT`` names; return its id if it is new."""

    def send_predictions(self, folder: Path) -> tuple[str, ...]:
        """Upload finished files of the prediction log and remove them here."""


class Follower:
    """Thread that follows a bucket if no other worker of the server does.

    Args:
        settings: of the server.
        metrics: for a failing bucket.
        connect: opens the bucket; called by the worker that follows only.
    """

    def __init__(self, settings: ServingSettings, metrics: Metrics, connect: Callable[[str], FollowedBucket]) -> None:
        self._settings, self._metrics, self._connect = settings, metrics, connect
        self._uri = settings.artifact or settings.follow
        self._bucket: FollowedBucket | None = None
        self._problem: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bucket-follower", daemon=True)

    def start(self) -> None:
        """Start following if a bucket is configured."""
        if self._uri:
            self._thread.start()

    def stop(self) -> None:
        """Stop following and upload the finished files of the prediction log; stop the prediction log before."""
        if self._uri:
            self._stopping.set()
            self._thread.join()
            self._step(self._send)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._try_lock() as is_locked:
                while is_locked and not self._stopping.is_set():
                    self._step(self._follow)
                    self._stopping.wait(self._settings.follow_seconds)
            self._stopping.wait(self._settings.follow_seconds)

    @contextlib.contextmanager
    def _try_lock(self) -> Iterator[bool]:
        """Try to take the lock of the one worker that follows; the system releases it when a worker dies."""
        self._settings.home.mkdir(parents=True, exist_ok=True)
        with (self._settings.home / ".follower.lock").open("a") as lock:
            yield lock_file(lock, patience_seconds=0.0)

    def _follow(self, bucket: FollowedBucket) -> None:
        if self._settings.artifact:
            self._fetch_artifact(bucket)
            return
        if release_id := bucket.pull_release(self._settings.releases):
            log.info("release %s came from %s", release_id, self._uri)
            prune(self._settings.releases, RELEASES_KEPT - 1)
        self._send(bucket)

    def _fetch_artifact(self, bucket: FollowedBucket) -> None:
        """Download the release of the model, once; it never changes."""
        if current(self._settings.releases) is None:
            log.info("release %s came from %s", bucket.fetch_artifact(self._settings.releases), self._uri)

    def _send(self, bucket: FollowedBucket) -> None:
        if self._settings.log_predictions:
            bucket.send_predictions(self._settings.prediction_log)

    def _step(self, work: Callable[[FollowedBucket], None]) -> None:
        try:
            if self._bucket is None:
                self._bucket = self._connect(str(self._uri))
            work(self._bucket)
        except CustsegError as error:
            self._report(str(error))
        except Exception:
            # An error must not end the thread, or the service would silently stay on an old release.
            log.exception("cannot follow %s", self._uri)
            self._report(f"cannot follow {self._uri}")
        else:
            self._report(None)

    def _report(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._metrics.set_bucket_failing(is_failing=problem is not None)
            if problem:
                log.error("bucket: %s", problem)


def connect(uri: str, check: ManifestCheck) -> FollowedBucket:
    """Open the bucket with the credentials of the environment; it fetches releases whose manifests pass the check."""
    from custseg_assets.gcp.bucket import bucket_from_environment

    return bucket_from_environment(uri, check)
