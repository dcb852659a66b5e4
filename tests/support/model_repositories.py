"""Git repositories in which DVC keeps exported models, for tests; DVC is the one of ``make .venv-dvc/dvc.stamp``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY
from tests.support.shops import QUICK, Outcome, custseg

_OWN = REPOSITORY / ".venv-dvc" / "bin" / "dvc"
DVC = _OWN if _OWN.exists() else Path(shutil.which("dvc") or _OWN)
"""The command; it need not be there."""
REMOTE = "../../remote"
"""Address of the remote, as DVC has it: beside the repository, wherever both are copied to."""


def isolated(folder: Path) -> dict[str, str]:
    """Variables that keep git and DVC from the settings, caches and names of who runs the tests."""
    return {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(folder / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(folder / "dvc-cache"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_DAEMON": "1",
    }


NAMES = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL")
"""Variables by which git knows who runs the tests."""


def isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have this process, and what it starts, see no settings but the repository's own."""
    for name, value in isolated(folder).items():
        patch.setenv(name, value)
    for name in NAMES:
        patch.delenv(name, raising=False)


def make_repository(folder: Path) -> Path:
    """A repository with DVC, a default remote beside it, and a first commit.

    Args:
        folder: of it; it is made.
    """
    folder.mkdir(parents=True)
    (folder.parent / "remote").mkdir(exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "Ada")
    git(folder, "config", "user.email", "ada@example.org")
    call(DVC, folder, "init", "-q")
    with (folder / ".dvc" / "config").open("a") as config:
        config.write(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {REMOTE}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """What git answers in a repository."""
    return call("git", folder, *arguments)


def call(command: str | Path, folder: Path, *arguments: str, more: Mapping[str, str] | None = None) -> str:
    """What a command answers in a folder.

    Raises:
        AssertionError: it failed.
    """
    ended = subprocess.run(
        [str(command), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (more or {}),
    )
    assert ended.returncode == 0, f"{command} {arguments}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def state_of(repository: Path) -> tuple[str, ...]:
    """Everything that an export that is refused, or fails, must leave as it was."""
    paths = (
        path for path in repository.rglob("*") if not {".git", "tmp", "cache"} & {*path.relative_to(repository).parts}
    )
    return (
        git(repository, "log", "--all", "--format=%H"),
        git(repository, "for-each-ref"),
        git(repository, "status", "--porcelain", "--untracked-files=all"),
        *sorted(str(path) for path in paths),
    )


def bytes_of(remote: Path) -> dict[str, int]:
    """File → size, of all that a remote has."""
    return {str(path.relative_to(remote)): path.stat().st_size for path in remote.rglob("*") if path.is_file()}


def dvc_config(executable: Path = DVC, more: str = "") -> str:
    """Settings of a small shop, with the command of DVC."""
    return f'{QUICK}[versions]\nexecutable = "{executable}"\n{more}'


def export(home: Path, model: str, repository: Path, *more: str, executable: Path = DVC) -> Outcome:
    """Run ``custseg dvc export`` in this process."""
    return custseg(home, "dvc", "export", model, "--repo", repository, *more, config=dvc_config(executable))
