"""Follow ``CURRENT``: verify the release it names, then serve it instead of the one before. Refuse damaged releases."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from custseg_assets.stores.customer_lists import LIST_FILES, PREDICTION_FILES
from custseg_assets.stores.releases import (
    CUSTOMERS,
    MANIFEST,
    DamagedReleaseError,
    ManifestCheck,
    accept_manifest,
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


class _FileState(NamedTuple):
    device: int
    inode: int
    n_bytes: int
    modified_ns: int
    changed_ns: int


class ActiveRelease:
    """The release that is served, and the threads that follow ``CURRENT``.

    Where ``CURRENT`` names none that verifies and none is served, it is the newest that verifies. ``answers`` is
    replaced as a whole: a request that reads it once gets one release throughout.

    Args:
        root: folder of the releases.
        poll_seconds: how often ``CURRENT`` is read.
        metrics: for the numbers of swaps and refusals.
        digest: computes a file's SHA-256.
        hashes_ahead: whether new releases are hashed before ``CURRENT`` names them; needs a ``digest`` that caches.
        check: of manifests, such as ``signatures.RequiredSignature``.
    """

    def __init__(
        self,
        root: Path,
        poll_seconds: float,
        metrics: Metrics,
        digest: Callable[[Path], str] = sha256_of,
        *,
        hashes_ahead: bool = False,
        check: ManifestCheck = accept_manifest,
    ) -> None:
        self.answers: Answers | None = None
        self.refusal: Refusal | None = None
        self._root, self._poll_seconds, self._metrics = root, poll_seconds, metrics
        self._digest, self._check = digest, check
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._watch, name="release-watcher", daemon=True)]
        if hashes_ahead:
            self._threads.append(threading.Thread(target=self._hash_ahead, name="release-hasher", daemon=True))
        self._known_releases = frozenset[str]()
        self._opened_states: dict[Path, _FileState] = {}

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
        """Serve the release that ``CURRENT`` names if it is another one and verifies; stop serving a damaged one."""
        self._drop_damaged()
        try:
            release_id = current(self._root)
        except (OSError, DamagedReleaseError) as error:
            if not self._was_just_refused("unknown", None):
                self._refuse(Refusal("unknown", f"CURRENT cannot be read: {error}", None, time.monotonic()))
                self._serve_newest()
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
            self._serve(release_id)
        except DamagedReleaseError as error:
            self._refuse(Refusal(release_id, str(error), state, time.monotonic()))
            self._serve_newest()
            return
        self._accept()

    def _serve(self, release_id: str) -> None:
        # Before the files are verified, so that a change in between is noticed.
        states = self._states_of(release_id)
        release = open_release(self._root, release_id, self._digest, self._check)
        self.answers, self._opened_states = Answers(release), states
        self._metrics.count_swap()
        log.info("serving release %s", release.release_id)

    def _serve_newest(self) -> None:
        """Serve the newest release that verifies, where none is served."""
        if self.answers is not None:
            return
        for release_id in reversed(releases(self._root)):
            with contextlib.suppress(DamagedReleaseError):
                self._serve(release_id)
                log.warning("serving release %s, because CURRENT names none that verifies", release_id)
                return

    def _drop_damaged(self) -> None:
        """Stop serving a release whose files were overwritten; those of a removed or replaced one stay open."""
        answers = self.answers
        if answers is None:
            return
        release_id = answers.release.release_id
        states = self._states_of(release_id)
        overwritten = [
            path for path, opened in self._opened_states.items() if path in states and _is_other(opened, states[path])
        ]
        if not overwritten:
            return
        has_size = all(states[path].n_bytes == self._opened_states[path].n_bytes for path in overwritten)
        try:
            # Reading beyond the end of a file that is mapped would kill the worker.
            if not (has_size and answers.release.is_intact()):
                raise DamagedReleaseError(f"release {release_id}: customers cannot be looked up any more")
            verify(self._root, release_id, self._digest, self._check)
        except DamagedReleaseError as error:
            log.error("no longer served: %s", error)
            self.answers = self.refusal = None
        else:
            self._opened_states = states

    def _states_of(self, release_id: str) -> dict[Path, _FileState]:
        """States of the files that lookups and lists read while the release is served."""
        states = {}
        for name in (CUSTOMERS, *LIST_FILES, *PREDICTION_FILES):
            with contextlib.suppress(OSError):
                path = self._root / release_id / name
                one = path.stat()
                states[path] = _FileState(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
        return states

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


def _is_other(opened: _FileState, found: _FileState) -> bool:
    """Whether the file that was opened has been changed; not another file in its place."""
    return opened != found and opened[:2] == found[:2]
