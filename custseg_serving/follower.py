"""Following releases in a bucket: one worker of a server keeps the home's releases as the bucket has them.

What it brings has been verified, and is taken over by every worker as any other release of the home is. Finished files
of the prediction log go the other way. A bucket that fails stops nobody: what is served stays.
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
from custseg_assets.stores.releases import prune
from custseg_serving.metrics import Metrics
from custseg_serving.settings import ServingSettings

log = logging.getLogger(__name__)

RELEASES_KEPT = 2
"""On the service's own disk: the one that is served and the one before, to go back to at once."""


class FollowedBucket(Protocol):
    """What is asked of a bucket; ``custseg_assets.gcp.bucket.Bucket`` is one."""

    def fetch_artifact(self, root: Path) -> str:
        """Bring the release that lies in the folder itself."""

    def pull_release(self, root: Path) -> str | None:
        """Bring the release to serve."""

    def send_predictions(self, folder: Path) -> tuple[str, ...]:
        """Take finished files away."""


class Follower:
    """Follows a bucket while this worker is the one that does.

    Args:
        settings: of the server.
        metrics: where a failing bucket shows.
        connect: opens the bucket; called by the worker that follows, when it begins to.
    """

    def __init__(self, settings: ServingSettings, metrics: Metrics, connect: Callable[[str], FollowedBucket]) -> None:
        self._settings, self._metrics, self._connect = settings, metrics, connect
        self._bucket: FollowedBucket | None = None
        self._trouble: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bucket-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow, where a bucket is configured."""
        if self._settings.follow:
            self._thread.start()

    def stop(self) -> None:
        """Stop following and send what the prediction log has finished; call it after that has stopped."""
        if self._settings.follow:
            self._stopping.set()
            self._thread.join()
            self._step(self._send)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._elected() as is_elected:
                while is_elected and not self._stopping.is_set():
                    self._step(self._follow)
                    self._stopping.wait(self._settings.follow_seconds)
            self._stopping.wait(self._settings.follow_seconds)

    @contextlib.contextmanager
    def _elected(self) -> Iterator[bool]:
        """Whether this worker is to follow; the system lets go of the lock of a worker that dies."""
        self._settings.home.mkdir(parents=True, exist_ok=True)
        with (self._settings.home / ".follower.lock").open("a") as lock:
            yield lock_file(lock, patience_seconds=0.0)

    def _follow(self, bucket: FollowedBucket) -> None:
        if release_id := bucket.pull_release(self._settings.releases):
            log.info("release %s came from %s", release_id, self._settings.follow)
            prune(self._settings.releases, RELEASES_KEPT - 1)
        self._send(bucket)

    def _send(self, bucket: FollowedBucket) -> None:
        if self._settings.log_predictions:
            bucket.send_predictions(self._settings.prediction_log)

    def _step(self, work: Callable[[FollowedBucket], None]) -> None:
        try:
            if self._bucket is None:
                self._bucket = self._connect(str(self._settings.follow))
            work(self._bucket)
        except CustsegError as error:
            self._report(str(error))
        except Exception:
            # A follower that died would leave the service on an old release for ever, and silently.
            log.exception("cannot follow %s", self._settings.follow)
            self._report(f"cannot follow {self._settings.follow}")
        else:
            self._report(None)

    def _report(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._metrics.set_bucket_failing(is_failing=trouble is not None)
            if trouble:
                log.error("bucket: %s", trouble)


def connect(uri: str) -> FollowedBucket:
    """The bucket, with the credentials of the environment."""
    from custseg_assets.gcp.bucket import bucket_from_environment

    return bucket_from_environment(uri)
