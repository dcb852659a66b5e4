"""The interval of a rate against SciPy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from custseg_assets.domain.rates import wilson_interval


@pytest.mark.parametrize("n_tries", [1, 2, 7, 100, 4_338, 20_000_000])
def test_the_interval_of_a_rate_is_scipys_to_the_last_digit(n_tries: int) -> None:
    for n_hits in {0, 1, n_tries // 3, n_tries - 1, n_tries, int(np.random.default_rng(1).integers(n_tries + 1))}:
        expected = binomtest(n_hits, n_tries).proportion_ci(method="wilson")
        assert wilson_interval(n_hits, n_tries) == (expected.low, expected.high)
