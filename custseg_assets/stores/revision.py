"""The revision of the code that is running."""

from __future__ import annotations

import functools
import subprocess
from importlib import metadata
from pathlib import Path


@functools.cache
def code_revision() -> str:
    """The git revision of the checkout this package runs from, or the installed version outside one.

    A checkout with uncommitted changes is marked ``+changes``, as its revision alone does not identify the code.
    """
    folder = Path(__file__).resolve().parents[2]
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if described.returncode == 0 and (folder / ".git").exists():
        return described.stdout.strip()
    try:
        return f"custseg {metadata.version('custseg')}"
    except metadata.PackageNotFoundError:
        return "unknown"
