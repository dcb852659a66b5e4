"""What was fitted at earlier days, kept for later runs by what it was fitted on.

The days that methods are tried on are first days of months, so from one day to the next hardly any of them is new. What
is found again is equal to what would be fitted, bit for bit: it is looked up by a digest of every figure that fitting
reads, and of the versions of what fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from custseg_assets.domain.schemas import VALUE_MODEL
from custseg_assets.domain.value.days import Known, Seen
from custseg_assets.domain.value.methods import FITTED, Fitted, Lessons, Method

Fits = Mapping[Method, Fitted | None]
"""Every method as it was fitted; ``None`` where there was nothing to fit it on."""


class KeptFits:
    """Fits by digest.

    Args:
        kept: of an earlier run, from ``used``; what is no longer asked for is forgotten.

    Attributes:
        used: what was asked for, as JSON can have it.
    """

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self._kept = kept
        self._digests: dict[int, tuple[object, bytes]] = {}
        self.used: dict[str, Any] = {}

    def fit(self, lessons: Lessons, newest: Known | None, fit: Callable[[], Fits]) -> Fits:
        """Find what was fitted on the same before, or fit it.

        Args:
            lessons: that methods learn from.
            newest: what is known at the newest day, which the method without outcomes learns from.
            fit: what fits them.
        """
        digest = self._digest(lessons, newest)
        found = self._kept.get(digest)
        if found is None:
            fits = fit()
            self.used[digest] = {method: one and one.parameters() for method, one in fits.items()}
            return fits
        self.used[digest] = found
        return {method: parameters and FITTED[method].of(parameters) for method, parameters in found.items()}

    def _digest(self, lessons: Lessons, newest: Known | None) -> str:
        """A digest of all that is learnt from."""
        whole = hashlib.blake2b(_versions(), digest_size=20)
        for horizon, of_one in lessons.items():
            for one in of_one:
                segments = "\0".join(map(str, one.segments)).encode()
                whole.update(f"{horizon} {one.weight!r} {len(segments)} ".encode() + segments)
                whole.update(self._digest_of(one.known) + self._digest_of(one.seen))
        if newest is not None:
            whole.update(self._digest_of(newest))
        return whole.hexdigest()

    def _digest_of(self, figures: Known | Seen) -> bytes:
        """A digest of the figures of one day, worked out once however many days learn from it."""
        if id(figures) not in self._digests:
            one = hashlib.blake2b(digest_size=20)
            for name, values in sorted(vars(figures).items()):
                # Numbers of customers say which row is whose, and nothing is learnt from that.
                if name != "customers":
                    one.update(f"{name} {np.shape(values)} ".encode() + np.ascontiguousarray(values).tobytes())
            # With the figures, so that no others can get their id.
            self._digests[id(figures)] = figures, one.digest()
        return self._digests[id(figures)][1]


def _versions() -> bytes:
    import scipy

    return json.dumps([VALUE_MODEL.code_version, np.__version__, scipy.__version__]).encode()
