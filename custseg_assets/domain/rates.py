"""How sure a rate is that was seen in a number of tries."""

from __future__ import annotations

from math import sqrt

_COVERAGE = 0.95


def wilson_interval(n_hits: int, n_tries: int) -> tuple[float, float]:
    """The 95 % interval of a rate after Wilson (1927), in the form of Newcombe (1998, method 3).

    The same to the last digit as SciPy's ``binomtest(n_hits, n_tries).proportion_ci(method="wilson")``, without the
    import of ``scipy.stats``, which costs a run more than all else that it does with offers.

    Args:
        n_hits: tries that hit.
        n_tries: all of them, at least one.

    Returns:
        The lower and the upper end, as shares.
    """
    from scipy.special import ndtri

    z, rate = float(ndtri(0.5 + 0.5 * _COVERAGE)), n_hits / n_tries
    scale = 2 * (n_tries + z**2)
    middle = (2 * n_tries * rate + z**2) / scale
    half_width = z / scale * sqrt(4 * n_tries * rate * (1 - rate) + z**2)
    return middle - half_width, middle + half_width
