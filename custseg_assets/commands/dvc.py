"""``custseg dvc``: promoted models in a git repository whose large files DVC keeps.

What is said about an export; how one is made, compared and restored is in ``home.model_exports``.
"""

from __future__ import annotations

from pathlib import Path

from custseg_assets.home.model_exports import (
    compare_export,
    export_model,
    refit_export,
    repository_of,
    require_exported,
    restore_model,
)
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import VersionSettings
from custseg_assets.stores.home import Home
from custseg_assets.stores.sources import Progress


def export(home: OpenHome, model_version: str, folder: Path | None, remote: str | None) -> str:
    """Export a model; returns what was done, in lines for people.

    Args:
        home: with the model.
        model_version: of the model.
        folder: of the repository, instead of the configured one.
        remote: of DVC, instead of the configured one.

    Raises:
        BadInputError: there is no such promoted model, or the repository cannot be used; nothing was changed.
        MachineFaultError: git or DVC failed; the repository is as it was before.
    """
    repository = repository_of(home.settings.versions, folder, remote)
    with home.locked() as locked:
        exported = export_model(locked, model_version, repository)
    where = f"tag {exported.tag}, commit {exported.commit[:12]}"
    if not exported.is_new:
        return f"{model_version} is in {repository.folder} already: {where}"
    return (
        f"{model_version} is in {repository.folder_of(model_version)}: {where}\n"
        "  DVC's remote has its data; 'git push --follow-tags' shares the rest"
    )


def restore(paths: Home, versions: VersionSettings, model_version: str, folder: Path | None) -> str:
    """Make a home of an export; returns what was done, in lines for people.

    Args:
        paths: of the new home.
        versions: the settings.
        model_version: of the model.
        folder: of the repository, instead of the configured one.

    Raises:
        BadInputError: there is no such export, it is not whole, or there is a home already.
    """
    restored = restore_model(repository_of(versions, folder), model_version, paths)
    return (
        f"{paths.root}: {model_version} of {restored.trained_on}, to be looked at\n"
        f"  'custseg status' says what it is like, 'custseg export TABLE' writes a table, "
        f"'custseg dvc verify {model_version} --refit' trains it again"
    )


def verify(
    home: OpenHome, model_version: str, folder: Path | None, say: Progress, *, refits: bool
) -> tuple[list[str], bool]:
    """Compare an export with the home, and with what a training on its data gives now.

    Args:
        home: with the model.
        model_version: of the model.
        folder: of the repository, instead of the configured one.
        say: takes each line of progress.
        refits: whether it is trained again.

    Returns:
        What was found, a line for each part, and whether nothing differs.

    Raises:
        BadInputError: there is no such model or export, or the export is not whole.
    """
    exported = require_exported(repository_of(home.settings.versions, folder), model_version)
    differences = list(compare_export(home, model_version, exported))
    lines = [f"{one.part:<42}{f'! {one.how}' if one.how else 'as exported'}" for one in differences]
    is_equal = not any(one.how for one in differences)
    if refits:
        model = refit_export(exported, say)
        found = model.model_version if model else "no model"
        is_same = found == model_version
        lines.append(f"{'trained again':<42}{found if is_same else f'! {found}'}")
        is_equal = is_equal and is_same
    return lines, is_equal
