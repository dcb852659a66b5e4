"""How sure a share is."""

from __future__ import annotations

import math

_Z_95 = 1.959963984540054


def wilson_interval(n_hits: int, n_trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson, 1927, JASA 22), which stays sensible near 0 and 1.

    >>> tuple(round(end, 3) for end in wilson_interval(5, 10))
    (0.237, 0.763)
    """
    share, z2 = n_hits / n_trials, _Z_95**2
    middle = (share + z2 / (2 * n_trials)) / (1 + z2 / n_trials)
    half = _Z_95 / (1 + z2 / n_trials) * math.sqrt(share * (1 - share) / n_trials + z2 / (4 * n_trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)
