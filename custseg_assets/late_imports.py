"""Libraries that other libraries import at once and that a run hardly ever needs, executed when they are first used."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_HARDLY_EVER_NEEDED = ("altair", "numpy.f2py", "scipy.stats")
"""What is imported for something else each time: Altair and SciPy's statistics by Great Expectations, for the pages and
the figures of one expectation each; NumPy's compiler of Fortran by SciPy."""


def put_off_imports() -> None:
    """Put off what is hardly ever needed, in this process and where it is not imported yet."""
    for name in _HARDLY_EVER_NEEDED:
        put_off_import(name)


def put_off_import(name: str) -> None:
    """Have a module executed when something of it is first used, instead of when it is imported.

    ``import name`` then costs nothing; ``from name import something`` executes it, as ever. With Python's own
    ``importlib.util.LazyLoader`` the plain import executes it, too (seen in 3.11).

    Args:
        name: of a module; one that is imported already, or is not there, stays as it is.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.names.add(name)


class _PuttingOff(MetaPathFinder):
    """Finds the modules of some names as Python does, with a loader that executes them later."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self.names:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    """The loader of a module that is not executed yet."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None  # noqa: S101  # Python's import has just made it
        module.__spec__.loader = module.__loader__ = self._loader
        module.__getattr__ = _Execution(module, self._loader)  # type: ignore[method-assign]


class _Execution:
    """The ``__getattr__`` of a module that is not executed yet: executes it, then gives the attribute."""

    def __init__(self, module: ModuleType, loader: Loader) -> None:
        self._module, self._loader, self._is_begun = module, loader, False
        self._lock = threading.RLock()

    def __call__(self, attribute: str) -> Any:
        with self._lock:
            if not self._is_begun:
                self._is_begun = True
                self._loader.exec_module(self._module)
                # A module may have a function of that name itself.
                if vars(self._module).get("__getattr__") is self:
                    del self._module.__getattr__
        if vars(self._module).get("__getattr__") is self:
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {attribute!r}")
        return getattr(self._module, attribute)


_FINDER = _PuttingOff()
