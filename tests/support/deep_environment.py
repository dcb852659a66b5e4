"""The environment that networks are trained in: ``make test-deep`` sets it up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY


def deep_python() -> str:
    """The interpreter of the environment; the test is skipped where there is none."""
    path = Path(os.environ.get("DEEP_PYTHON", REPOSITORY / ".venv-deep" / "bin" / "python"))
    if not path.exists():
        pytest.skip("TensorFlow is not installed in .venv-deep; `make test-deep` runs this")
    return str(path)
