"""Sums whose last digits do not depend on the number of cores."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread(library: str | None = None) -> Iterator[None]:
    """A block in which BLAS and OpenMP have one thread.

    Args:
        library: module whose libraries are limited, too; only what is loaded can be, so it is imported first.
    """
    if library is not None:
        importlib.import_module(library)
    with _controller(len(sys.modules)).limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _controller(n_modules: int) -> ThreadpoolController:  # noqa: ARG001  # modules bring in what there is to find
    """Of the libraries in this process. To look for them takes 4 ms, so it is done when there are other modules."""
    return ThreadpoolController()
