"""Following ``CURRENT``: a release is verified before it is served, and a damaged one never is."""

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
from custseg_serving.metrics import Metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""A refused release is hashed again this often, in case it was the disk and not the release."""


@dataclass(frozen=True)
class Refusal:
    """A release that ``CURRENT`` names and that was not taken over."""

    release_id: str
    reason: str
    # Changes when the release is written again, so that a mended one is looked at again at once.
    seen: tuple[int, int] | None
    at: float = field(compare=False)


class ActiveRelease:
    """The release that is served now.

    ``answers`` is replaced as a whole; who has read it once answers from one release to the end.

    Args:
        root: folder of the releases.
        poll_seconds: how often to look.
        metrics: where takeovers and refusals are counted.
        digest: gives a file's SHA-256.
        hashes_ahead: whether new releases are hashed before ``CURRENT`` names them; only where ``digest`` remembers.
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
        self._known = frozenset[str]()

    def start(self) -> None:
        """Take over what ``CURRENT`` names, then keep following it."""
        self._known = frozenset(releases(self._root))
        self.refresh()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop following; what is served stays."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def refresh(self) -> None:
        """Take over what ``CURRENT`` names, if it is another release and verifies."""
        try:
            wanted = current(self._root)
        except (OSError, UnicodeDecodeError) as error:
            self._refuse(Refusal("unknown", f"CURRENT cannot be read: {error}", None, time.monotonic()))
            return
        if wanted is None:
            return
        if self.answers is not None and wanted == self.answers.release.release_id:
            self._accept()
            return
        seen = self._state_of(wanted)
        if self._was_just_refused(wanted, seen):
            return
        try:
            release = open_release(self._root, wanted, self._digest)
        except DamagedReleaseError as error:
            self._refuse(Refusal(wanted, str(error), seen, time.monotonic()))
            return
        self.answers = Answers(release)
        self._metrics.count_swap()
        self._accept()
        log.info("serving release %s", release.release_id)

    def _accept(self) -> None:
        if self.refusal is not None:
            self.refusal = None
            self._metrics.set_refused(is_refused=False)

    def _was_just_refused(self, wanted: str, seen: tuple[int, int] | None) -> bool:
        refusal = self.refusal
        if refusal is None or (refusal.release_id, refusal.seen) != (wanted, seen):
            return False
        return time.monotonic() - refusal.at < RETRY_SECONDS

    def _refuse(self, refusal: Refusal) -> None:
        is_news, self.refusal = refusal != self.refusal, refusal
        if is_news:
            self._metrics.set_refused(is_refused=True)
            log.error("refused: %s", refusal.reason)

    def _state_of(self, release_id: str) -> tuple[int, int] | None:
        try:
            found = (self._root / release_id / MANIFEST).stat()
        except (OSError, ValueError):
            return None
        return found.st_ino, found.st_mtime_ns

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.refresh()
            except Exception:
                # A watcher that died would leave the service on an old release for ever, and silently.
                log.exception("cannot follow %s", self._root)

    def _hash_ahead(self) -> None:
        """Hash releases when they appear, a second or more before the pipeline points to them.

        Taking one over then only asks whether the files are still in the state that was hashed, and is done within a
        poll, however many customers there are. What is damaged is refused, and said, when it is pointed to.
        """
        while not self._stopping.wait(self._poll_seconds):
            try:
                written = releases(self._root)
                for release_id in written:
                    if release_id not in self._known:
                        with contextlib.suppress(DamagedReleaseError):
                            verify(self._root, release_id, self._digest)
                self._known = frozenset(written)
            except OSError as error:
                # One was removed meanwhile; whatever is left is looked at next time.
                log.debug("cannot hash ahead: %s", error)
