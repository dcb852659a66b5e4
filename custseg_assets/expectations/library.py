"""Great Expectations, imported without the libraries that it imports at once and that no suite needs.

Whoever imports it calls ``prepare_import`` before.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from custseg_assets import no_telemetry

_HARDLY_EVER_NEEDED = ("altair",)
"""Altair draws the histograms of one expectation, on pages of results; its import costs half a second."""
_LOADING = threading.RLock()


def prepare_import() -> None:
    """Switch Great Expectations' telemetry off, and put off the import of what it hardly ever needs."""
    no_telemetry.switch_off()
    for name in _HARDLY_EVER_NEEDED:
        put_off_import(name)


def put_off_import(name: str) -> None:
    """Have a module executed when something of it is first used, instead of when it is imported.

    ``import name`` then costs nothing; ``from name import something`` executes it, as ever. With Python's own
    ``importlib.util.LazyLoader`` the plain import executes it, too (seen in 3.11).

    Args:
        name: of a module; one that is imported already, or is not there, stays as it is.
    """
    if name not in sys.modules and (spec := importlib.util.find_spec(name)):
        module = importlib.util.module_from_spec(spec)
        module.__getattr__ = _Execution(module, spec)  # type: ignore[method-assign]
        sys.modules[name] = module


class _Execution:
    """The ``__getattr__`` of a module that is not executed yet: executes it, then gives the attribute."""

    def __init__(self, module: ModuleType, spec: ModuleSpec) -> None:
        self._module, self._spec, self._is_begun = module, spec, False

    def __call__(self, attribute: str) -> Any:
        with _LOADING:
            if not self._is_begun and self._spec.loader:
                self._is_begun = True
                self._spec.loader.exec_module(self._module)
                # A module may have a function of that name itself.
                if vars(self._module).get("__getattr__") is self:
                    del self._module.__getattr__
        if vars(self._module).get("__getattr__") is self:
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {attribute!r}")
        return getattr(self._module, attribute)
