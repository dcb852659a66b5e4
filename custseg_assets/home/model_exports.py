"""Promoted models outside their home: written to a repository, compared with it, and made a home of again.

Which files of the tables are a model's is in ``kept_models``; what an export looks like, in ``stores.exported_model``;
how git and DVC keep it, in ``stores.model_repository``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from custseg_assets.command_line import with_users_rights
from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import SEGMENTATION_MODEL, Table, tables
from custseg_assets.domain.segments.model import SegmentationModel, model_from_json
from custseg_assets.errors import BadInputError, DamagedHomeError, did_you_mean
from custseg_assets.home.fixed_settings import fix_settings
from custseg_assets.home.inputs import add_weeks
from custseg_assets.home.kept_models import LINES, MADE, MADE_FROM, KeptModel, keep_models, kept_models, write_models
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.own_settings import keep_settings
from custseg_assets.home.restored import Restored, mark_restored
from custseg_assets.settings import HOME_VARIABLE, ModelSettings, Settings, VersionSettings
from custseg_assets.stores.exported_model import (
    CARD,
    CHAMPION,
    MANIFEST,
    MODEL,
    REFERENCE,
    ExportWriter,
    Manifest,
    ModelFacts,
    flaws_of,
    in_one_order,
    read_manifest,
    read_rows,
)
from custseg_assets.stores.files import make_durable, read_state, write_state
from custseg_assets.stores.home import Home
from custseg_assets.stores.model_repository import FOLDER, Exported, ModelRepository
from custseg_assets.stores.sources import Progress
from custseg_assets.stores.staged import StagedWriter
from custseg_assets.stores.table_files import TableFiles
from custseg_assets.training.steps import fit_snapshot, settings_of_training, weeks_seen


@dataclass(frozen=True)
class Difference:
    """How a part of an export is in the home.

    Attributes:
        part: table and partition, or file.
        how: it differs, in words; ``None`` where it does not.
    """

    part: str
    how: str | None


def repository_of(versions: VersionSettings, folder: Path | None = None, remote: str | None = None) -> ModelRepository:
    """The repository that models are exported to.

    Args:
        versions: the settings.
        folder: instead of the configured one.
        remote: instead of the configured one.
    """
    chosen = folder or versions.repository or Path()
    return ModelRepository(chosen, remote or versions.remote, versions.executable)


def due_exports(home: OpenHome) -> list[str]:
    """Promoted models that this home has not put into the configured repository, or that are gone, oldest first."""
    if not home.settings.versions.dvc:
        return []
    known = {*_noted(home.paths).get(_place(home.settings.versions), ())}
    if known:
        # Somebody may have put an empty repository in its place.
        known &= repository_of(home.settings.versions).tagged()
    complete = {version for version, model in kept_models(home).items() if model.is_complete}
    return [version for _, version in home.champions.promotions if version in complete and version not in known]


def export_model(home: LockedHome, model_version: str, repository: ModelRepository) -> Exported:
    """Write a model to a repository, unless it is there already; DVC's remote has its data before its tag is made.

    Args:
        home: with the model.
        model_version: of the model.
        repository: where to.

    Raises:
        BadInputError: there is no such promoted model, or the repository cannot be used; nothing was changed.
        MachineFaultError: git or DVC failed; the repository is as it was before.
    """
    model = _find_kept(keep_models(home), model_version)
    if repository.folder.resolve().is_relative_to(home.paths.root.resolve()):
        raise BadInputError(
            f"repository {repository.folder} inside the home {home.paths.root}",
            "one elsewhere, which is still there when the home is lost",
            "Name another with --repo, or under [versions] repository.",
        )
    with with_users_rights():
        repository.require_usable(model_version)
        repository.require_apart(home.paths.root)
        if facts := repository.find(model_version):
            _require_same_facts(repository, facts, model.facts)
            if repository.has_data(model_version):
                repository.send(model_version)
            else:
                repository.require_sent(model_version)
            exported = repository.exported(model_version)
        else:
            with repository.staging(model_version) as staged:
                write_export(home, model, staged)
                exported = repository.add(staged, model_version, f"Model {model_version} of custseg")
    versions = home.settings.versions
    if (repository.folder, repository.remote) == (versions.repository, versions.remote):
        _note(home, model_version)
    return exported


def write_export(home: OpenHome, model: KeptModel, folder: Path) -> Manifest:
    """Write a model, with what it was made from and made, into a new folder."""
    writer, declared = ExportWriter(folder), tables(home.settings.model.features)
    for name in model.files:
        files = model.files_of(home, declared[name])
        for key in files.sizes:
            with home.tables.explained():
                writer.write_rows(declared[name], key, files.of([key]).scan().collect())
    for name, text in _texts_of(home, model).items():
        writer.write_text(name, text)
    return writer.finish(model.facts)


def compare_export(home: OpenHome, model_version: str, folder: Path) -> Iterator[Difference]:
    """Compare each part of an export with the home's own.

    Args:
        home: with the model.
        model_version: of the model.
        folder: of the export.

    Raises:
        BadInputError: there is no such model in the home, or the export is not whole.
    """
    manifest, model = read_whole(folder), _find_kept(kept_models(home), model_version)
    declared = tables(home.settings.model.features)
    yield Difference("facts", None if manifest.facts == model.facts else "the home has others in its record")
    texts = _texts_of(home, model)
    for name in sorted({*texts, *(one for one in (MODEL, CHAMPION, CARD, REFERENCE) if one in manifest.files)}):
        path = folder / name
        there = path.read_text(encoding="utf-8") if name in manifest.files else None
        yield Difference(name, None if there == texts.get(name) else "the home has another")
    for name in model.files:
        try:
            files = model.files_of(home, declared[name])
        except DamagedHomeError as error:
            yield Difference(name, error.why)
            continue
        exported = manifest.rows_of(name)
        for key in sorted({*files.sizes, *exported}):
            yield Difference(f"{name} of {key}", _difference(declared[name], key, files, folder, exported.get(key)))


def refit_export(folder: Path, progress: Progress) -> SegmentationModel | None:
    """Train an exported model again, from the customers, settings and champion that it was trained with.

    Args:
        folder: of the export.
        progress: takes a line for each number of clusters.

    Raises:
        BadInputError: the export is not whole.
    """
    manifest = read_whole(folder)
    facts, champion = manifest.facts, folder / CHAMPION
    before = model_from_json(champion.read_text(encoding="utf-8")) if champion.exists() else None
    settings = settings_of_training(ModelSettings.model_validate(facts.settings["model"]), before)
    declared = tables(settings.features)
    customers = declared["customer_features"]
    features = read_rows(folder, customers, manifest.rows_of(customers.name)[facts.trained_on])
    if n_weeks := weeks_seen(settings, before):
        paths = manifest.rows_of(LINES).values()
        lines = pl.concat(
            [declared[LINES].schema.to_frame(), *(read_rows(folder, declared[LINES], one) for one in paths)]
        )
        start, as_of = datetime.fromisoformat(facts.window_start), datetime.fromisoformat(facts.as_of)
        window = Window(facts.trained_on, facts.periods, start, as_of, period_end=as_of, span_keys=())
        features = add_weeks(features, lines.lazy(), window, n_weeks)
    return fit_snapshot(features, settings, progress, before).model


def restore_model(repository: ModelRepository, model_version: str, paths: Home) -> Restored:
    """Make a home of an export: its tables, settings and model, and nothing that a run could go on from.

    It is made beside the home's place and moved there when it is whole.

    Args:
        repository: with the export, checked out and pulled.
        model_version: of the model.
        paths: of the new home.

    Raises:
        BadInputError: there is no such export, it is not whole, or there is a home already.
    """
    folder = require_exported(repository, model_version)
    repository.require_apart(paths.root)
    manifest = read_whole(folder)
    if paths.root.exists() and (not paths.root.is_dir() or any(paths.root.iterdir())):
        raise BadInputError(
            f"home {paths.root}, which is there already",
            "a folder that is not there, or is empty",
            f"Name another with {HOME_VARIABLE}.",
        )
    making = Home(paths.root.with_name(f".{paths.root.name}.restoring"))
    if making.is_locked():
        raise BadInputError(
            f"home {paths.root}, which another process is restoring", "one at a time", "Wait for that one to end."
        )
    if making.root.exists():
        shutil.rmtree(making.root)
    facts = manifest.facts
    settings = _settings_of(facts, making.root)
    restored = Restored(facts.model_version, facts.trained_on, facts.as_of[:10], str(folder))
    try:
        with OpenHome(settings).locked() as home:
            fix_settings(settings)
            keep_settings(settings, None)
            files = {name: _restore_table(home, folder, manifest, table) for name, table in _tables_of(settings, facts)}
            champion = (folder / CHAMPION).read_text(encoding="utf-8") if CHAMPION in manifest.files else None
            write_models(home, [KeptModel(facts, champion, files)])
            mark_restored(making, restored)
        making.root.rename(paths.root)
    except BaseException:
        shutil.rmtree(making.root, ignore_errors=True)
        raise
    make_durable(paths.root.parent)
    return restored


def require_exported(repository: ModelRepository, model_version: str) -> Path:
    """The folder of the export of a model.

    Raises:
        BadInputError: there is none as the repository is checked out now.
    """
    there = repository.model_versions()
    if model_version not in there:
        raise BadInputError(
            f"model {model_version} in {repository.folder / FOLDER}",
            f"one of those that are exported there: {', '.join(there) or 'there is none'}",
            did_you_mean(model_version, there) or "Name one of those, or another folder with --repo.",
        )
    return repository.folder_of(model_version)


def read_whole(folder: Path) -> Manifest:
    """The manifest of an export that is all there, as it was written.

    Raises:
        BadInputError: one is not.
    """
    manifest = read_manifest(folder)
    if flaw := next(flaws_of(folder, manifest), None):
        name, why = flaw
        raise BadInputError(
            f"{folder / name}: {why}",
            "every file as it was exported",
            f"Remove it, and do 'dvc pull {FOLDER}/{folder.name}/data.dvc' in the repository for data, or "
            "'git restore' for other files.",
        )
    facts = manifest.facts
    try:
        declared = tables(_settings_of(facts, folder).model.features)
    except (ValueError, KeyError, TypeError) as error:
        raise _not_usable(folder, " ".join(str(error).split())) from None
    wanted = {LINES, *MADE_FROM, *MADE}
    lacks = [name for name in declared if name in wanted and name not in facts.fingerprints]
    others = sorted(facts.fingerprints.keys() - wanted)
    if lacks or others or facts.model_version != folder.name:
        raise _not_usable(folder, f"it is of {facts.model_version}, lacks {lacks} and has {others}")
    return manifest


def _not_usable(folder: Path, why: str) -> BadInputError:
    return BadInputError(
        f"{folder / MANIFEST}: {why}",
        "what an export of this version of custseg has",
        "Export the model again, or upgrade custseg.",
    )


def _find_kept(kept: Mapping[str, KeptModel], model_version: str) -> KeptModel:
    accepted = [version for version, model in kept.items() if model.is_complete]
    if model_version not in accepted:
        raise BadInputError(
            f"model {model_version}",
            f"a model that was promoted in this home: {', '.join(sorted(accepted)) or 'there is none'}",
            did_you_mean(model_version, accepted) or "'custseg status' says which is in force.",
        )
    return kept[model_version]


def _require_same_facts(repository: ModelRepository, there: ModelFacts, here: ModelFacts) -> None:
    if there != here:
        names = ", ".join(name for name, value in vars(here).items() if vars(there)[name] != value)
        raise BadInputError(
            f"tag model/{here.model_version} in {repository.folder}, whose export has other {names} than the home",
            "no such tag, or one of the same export",
            f"Export to another repository, or remove it with 'git tag -d model/{here.model_version}' where nobody"
            " needs it.",
        )


def _texts_of(home: OpenHome, model: KeptModel) -> dict[str, str]:
    """The files of an export that are no rows."""
    row = model.files_of(home, SEGMENTATION_MODEL).scan().collect().row(0, named=True)
    texts = {MODEL: row["model_json"], CARD: row["model_card"], REFERENCE: row["drift_reference"]}
    return texts | ({CHAMPION: model.champion} if model.champion else {})


def _difference(table: Table, key: str, files: TableFiles, folder: Path, exported: str | None) -> str | None:
    if exported is None:
        return "it is not in the export"
    here, there = files.of([key]).scan().collect(), read_rows(folder, table, exported)
    if here.height != there.height:
        return f"the home has {here.height:,} rows, the export {there.height:,}"
    return None if in_one_order(table, here).equals(in_one_order(table, there)) else "it has other values in the home"


def _settings_of(facts: ModelFacts, home: Path) -> Settings:
    """The settings that a restored home has: an export may come from somebody else, so no others are taken over."""
    currency = facts.settings["source"]["currency"]
    sections = {name: facts.settings[name] for name in ("snapshots", "model")}
    source = {"currency": currency} if currency else {}
    return Settings.model_validate({**sections, "source": source, "home": home})


def _tables_of(settings: Settings, facts: ModelFacts) -> list[tuple[str, Table]]:
    declared = tables(settings.model.features)
    return [(name, declared[name]) for name in facts.fingerprints]


def _restore_table(
    home: LockedHome, folder: Path, manifest: Manifest, table: Table
) -> tuple[tuple[str, str, int, int], ...]:
    """Write the rows of an export to a table; returns the table's files."""
    fingerprints = {key: int(text, 16) for key, text in manifest.facts.fingerprints[table.name].items()}
    paths = manifest.rows_of(table.name)
    if table.name == LINES:
        with home.staging() as staging:
            writer = StagedWriter(table, staging / table.name)
            for path in paths.values():
                writer.write(read_rows(folder, table, path))
            home.tables.write(table, writer.rows, fingerprints)
    else:
        rows = pl.concat([table.schema.to_frame(), *(read_rows(folder, table, path) for path in paths.values())])
        home.tables.write(table, rows, fingerprints)
    return tuple(sorted(home.tables.files(table.name).iter_rows()))


def _place(versions: VersionSettings) -> str:
    return f"{versions.repository} {versions.remote or ''}".strip()


def _noted(paths: Home) -> dict[str, list[str]]:
    found: dict[str, list[str]] = (read_state(paths.exported_models, "places") or {"places": {}})["places"]
    return found


def _note(home: LockedHome, model_version: str) -> None:
    """Record that a model is in the configured repository."""
    noted, place = _noted(home.paths), _place(home.settings.versions)
    models = sorted({*noted.get(place, ()), model_version})
    write_state(home.paths.exported_models, {"places": {**noted, place: models}})
