"""The repository's pages."""

from __future__ import annotations

from pathlib import Path

from tests.support.files import REPOSITORY

NOT_OURS = {"build", "dist", "site"}
"""Folders of the repository that other programs fill, besides hidden ones."""


def pages(root: Path) -> list[Path]:
    """Every page of the repository, hidden folders left out."""
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in NOT_OURS]
    return sorted([*root.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


PAGES = pages(REPOSITORY)
PRESENT = [page for page in PAGES if page.parent.name != "adr" and page.name != "CHANGELOG.md"]
"""Pages about the code as it is: records of decisions and of changes name it as it was."""
