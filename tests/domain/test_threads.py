"""One thread for what is loaded, found again when more is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy
from threadpoolctl import threadpool_info
from custseg_assets.domain.threads import one_thread
threads = lambda: sorted({pool["num_threads"] for pool in threadpool_info()})
print(threads(), len(threadpool_info()))
with one_thread():
    print(threads())
import sklearn.cluster
print(threads(), len(threadpool_info()))
with one_thread():
    print(threads())
print(threads())
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: there is one thread anyway")
def test_libraries_that_come_later_have_one_thread_too_and_get_theirs_back() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    before, within, later, within_later, after = ended.stdout.splitlines()
    assert within == within_later == "[1]"
    assert before == "[2] 1"
    assert later > "[2] 1"
    assert after == "[2]"
