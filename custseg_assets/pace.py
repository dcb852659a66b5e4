"""How long work will still take, from how long the work that is done has taken."""

from __future__ import annotations

import time
from collections.abc import Callable

_MIN_SECONDS = 2.0
"""After less of it nothing is said of the rest."""
_MIN_SHARE = 0.02


class Pace:
    """The pace of one piece of work, from the moment that this is made.

    Args:
        to_do: how much there is to do, in any unit.
        clock: seconds that only grow.
    """

    def __init__(self, to_do: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._to_do, self._clock, self._began = to_do, clock, clock()

    def left(self, done: float) -> str:
        """``, about 40 s to go``; empty where too little is done to tell, or next to nothing is left.

        Args:
            done: how much of it is done.
        """
        seconds = self._clock() - self._began
        if seconds < _MIN_SECONDS or done < _MIN_SHARE * self._to_do:
            return ""
        return to_go(seconds * (self._to_do - done) / done)


def to_go(seconds: float) -> str:
    """``, about 40 s to go``, no more exact than an estimate is; empty for less than two seconds.

    >>> to_go(38), to_go(130), to_go(5000), to_go(1)
    (', about 40 s to go', ', about 2 min to go', ', about 1 h 25 min to go', '')
    """
    if seconds < 2:
        return ""
    if seconds < 10:
        words = f"{seconds:.0f} s"
    elif seconds < 90:
        words = f"{5 * round(seconds / 5)} s"
    elif seconds < 3600:
        words = f"{round(seconds / 60)} min"
    else:
        hours, minutes = divmod(5 * round(seconds / 300), 60)
        words = f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f", about {words} to go"
