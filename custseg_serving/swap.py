"""Follow ``CURRENT``: verify the release it names, then serve it instead of the one before. Refuse damaged releases."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from custseg_assets.stores.releases import (
    MANIFEST,
    DamagedReleaseError,
    current,
    open_release,
    releases,
    sha256_of,
    verify,
)
from custseg_serving.answers import Answers
from custseg_serving.digests import file_state
from custseg_serving.metrics import Metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""A refused release is verified again this often, because the disk and not the release may have failed."""


@dataclass(frozen=True)
class Refusal:
    """A release that ``CURRENT`` names and that the service refused."""

    release_id: str
    reason: str
    # Changes when the release is written again, so that a repaired one is verified at once.
    manifest_state: tuple[int, int] | None
    at: float = field(compare=False)


class ActiveRelease:
    """The release that is served, and the threads that follow ``CURRENT``.

    ``answers`` is replaced as a whole: a request that reads it once gets one release throughout.

    Args:
        root: folder of the releases.
        poll_seconds: how often ``CURRENT`` is read.
        metrics: for the numbers of swaps and refusals.
        digest: computes a file's SHA-256.
        hashes_ahead: whether new releases are hashed before ``CURRENT`` names them; needs a ``digest`` that caches.
    """

    def __init__(
        self,
        root: Path,
        poll_seconds: float,
        metrics: Metrics,
        digest: Callable[[Path], str] = sha256_of,
        *,
        hashes_ahead: bool = False,
    ) -> None:
        self.answers: Answers | None = None
        self.refusal: Refusal | None = None
        self._root, self._poll_seconds, self._metrics = root, poll_seconds, metrics
        self._digest = digest
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._watch, name="release-watcher", daemon=True)]
        if hashes_ahead:
            self._threads.append(threading.Thread(target=self._hash_ahead, name="release-hasher", daemon=True))
        self._known_releases = frozenset[str]()

    def start(self) -> None:
        """Serve the release that ``CURRENT`` names, then follow ``CURRENT``."""
        self._known_releases = frozenset(releases(self._root))
        self.refresh()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop following ``CURRENT``; the served release stays."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def refresh(self) -> None:
        """Serve the release that ``CURRENT`` names if it is another one and verifies."""
        try:
            release_id = current(self._root)
        except (OSError, DamagedReleaseError) as error:
            self._refuse(Refusal("unknown", f"CURRENT cannot be read: {error}", None, time.monotonic()))
            return
        if release_id is None:
            return
        if self.answers is not None and release_id == self.answers.release.release_id:
            self._accept()
            return
        state = file_state(self._root / release_id / MANIFEST)
        if self._was_just_refused(release_id, state):
            return
        try:
            release = open_release(self._root, release_id, self._digest)
        except DamagedReleaseError as error:
            self._refuse(Refusal(release_id, str(error), state, time.monotonic()))
            return
        self.answers = Answers(release)
        self._metrics.count_swap()
        self._accept()
        log.info("serving release %s", release.release_id)

    def _accept(self) -> None:
        if self.refusal is not None:
            self.refusal = None
            self._metrics.set_refused(is_refused=False)

    def _was_just_refused(self, release_id: str, state: tuple[int, int] | None) -> bool:
        refusal = self.refusal
        if refusal is None or (refusal.release_id, refusal.manifest_state) != (release_id, state):
            return False
        return time.monotonic() - refusal.at < RETRY_SECONDS

    def _refuse(self, refusal: Refusal) -> None:
        is_new, self.refusal = refusal != self.refusal, refusal
        if is_new:
            self._metrics.set_refused(is_refused=True)
            log.error("refused: %s", refusal.reason)

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.refresh()
            except Exception:
                # An error must not end the thread, or the service would silently stay on an old release.
                log.exception("cannot follow %s", self._root)

    def _hash_ahead(self) -> None:
        """Hash releases when they appear, a second or more before the pipeline points to them.

        A swap then only checks that the files are still in the state that was hashed, which takes less than a poll,
        however many customers there are. A damaged release is refused and logged when ``CURRENT`` names it.
        """
        while not self._stopping.wait(self._poll_seconds):
            try:
                written = releases(self._root)
                for release_id in written:
                    if release_id not in self._known_releases:
                        with contextlib.suppress(DamagedReleaseError):
                            verify(self._root, release_id, self._digest)
                self._known_releases = frozenset(written)
            except OSError as error:
                # A release was removed meanwhile; the others are hashed at the next poll.
                log.debug("cannot hash ahead: %s", error)
