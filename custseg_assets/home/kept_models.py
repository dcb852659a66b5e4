"""What each model was made from and made, as files of the tables, and the clean-up that never removes one of these.

A table that is written again leaves the files of the partition before. Nobody needs them after a week, except where a
promoted model was made from them: their names are kept in the home, so Delta's log need not reach back that far. What
is written of a model somewhere else is in ``model_exports``.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from pydantic import TypeAdapter, ValidationError

from custseg_assets.domain.schemas import SEGMENTATION_MODEL, Table, tables
from custseg_assets.domain.segments.model import SegmentationModel, model_from_json
from custseg_assets.errors import DamagedHomeError
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.stores.exported_model import ModelFacts
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home
from custseg_assets.stores.table_files import TableFiles
from custseg_assets.stores.tables import REPLACED_KEPT_HOURS

LINES = "clean_transactions"
"""What a model was made from in every period of its window; everything else is of its snapshot."""
MADE_FROM = ("customer_features", "scaled_features", "model_candidates", "segmentation_model")
MADE = ("promotion_decision", "segment_assignments", "segment_profiles")
_Files = Mapping[str, tuple[tuple[str, str, int, int], ...]]


@dataclass(frozen=True)
class KeptModel:
    """A model with the files of the tables that it was made from and that it made.

    Attributes:
        facts: what identifies it.
        champion: the model before, as JSON, as the training was given it; ``None`` for a first model.
        files: table → rows of ``TableReader.files``, as they were then.
    """

    facts: ModelFacts
    champion: str | None
    files: _Files

    @property
    def is_complete(self) -> bool:
        """Whether it was promoted, and what it made is there as well."""
        return {*MADE} <= self.files.keys()

    def files_of(self, home: OpenHome, table: Table) -> TableFiles:
        """Its files of a table.

        Raises:
            DamagedHomeError: one is not as it was written.
        """
        return home.tables.files_named(table, self.files[table.name])


@dataclass(frozen=True)
class DiskUse:
    """How many bytes a home takes.

    Attributes:
        now: files of the tables as they stand.
        of_models: other files of tables, that promoted models were made from.
        replaced: further files of tables, which the next releases remove once they are a week old.
        others: deliveries, releases, histories and everything else.
    """

    now: int
    of_models: int
    replaced: int
    others: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.now + self.of_models + self.replaced + self.others


def kept_models(home: OpenHome) -> dict[str, KeptModel]:
    """Every model whose files are kept, by its version: the promoted ones, and challengers that may be promoted yet.

    What is on record counts. Of a model that is not, because an earlier version trained it or a process was killed, the
    files are those that the tables have now.
    """
    recorded, promoted = _recorded(home), {version: key for key, version in home.champions.promotions}
    newest = max(promoted.values(), default="")
    kept = {version: model for version, model in recorded.items() if model.is_complete}
    for row in home.tables.whole(SEGMENTATION_MODEL).select("period", "model_version").iter_rows(named=True):
        key, version = row["period"], row["model_version"]
        if version not in kept and (version in promoted or key > newest):
            model = recorded.get(version) or _found(home, key, version, _predecessor(home, key))
            is_made = version in promoted and not any(home.fingerprints.is_stale(name, key) for name in MADE)
            kept |= {version: _with_made(home, model) if is_made else model} if model else {}
    return kept


def keep_models(home: LockedHome) -> dict[str, KeptModel]:
    """Record which files each model was made from and made, so far as that is known now; returns all of them."""
    kept = kept_models(home)
    if kept != _recorded(home):
        write_models(home, kept.values())
    return kept


def keep_trained(home: LockedHome, followed: Mapping[str, SegmentationModel | None]) -> None:
    """Record which files the models that were just trained were made from.

    Args:
        home: with the models.
        followed: key of each one's snapshot → the model that it followed, as its training was given it; where no k was
            eligible, there is no model.
    """
    models = home.tables.whole(SEGMENTATION_MODEL).filter(pl.col("period").is_in([*followed]))
    recorded = _recorded(home)
    trained = [
        _found(home, key, version, followed[key])
        for key, version in models.select("period", "model_version").iter_rows()
        if version not in recorded
    ]
    if new := [model for model in trained if model]:
        write_models(home, [*recorded.values(), *new])


def read_models(paths: Home) -> list[KeptModel]:
    """The models on record.

    Raises:
        DamagedHomeError: the record is not as it was written.
    """
    fields = read_state(paths.kept_models, "models") or {"models": []}
    try:
        return TypeAdapter(list[KeptModel]).validate_python(fields["models"])
    except ValidationError as error:
        raise DamagedHomeError(paths.kept_models, f"it is no record of models: {error.errors()[0]['msg']}") from None


def write_models(home: LockedHome, models: Iterable[KeptModel]) -> None:
    """Record models, and no others."""
    write_state(home.paths.kept_models, {"models": [asdict(model) for model in models]})


def clean_up(home: LockedHome, retention_hours: int = REPLACED_KEPT_HOURS) -> int:
    """Remove files of tables that were replaced, except those that a promoted model was made from.

    Tables in a bucket are left alone.

    Args:
        home: whose tables they are.
        retention_hours: how long ago they were replaced.

    Returns:
        How many bytes that freed.
    """
    kept = _paths_of(keep_models(home).values())
    if not home.has_local_tables:
        return 0
    return sum(home.tables.remove_replaced(name, kept.get(name, ()), retention_hours) for name in _names(home))


def disk_use(home: OpenHome) -> DiskUse:
    """How much disk a home takes, and what for."""
    root, kept = home.paths.root, _paths_of(kept_models(home).values())
    sizes = dict(_sizes_below(root))
    now, of_models = set[Path](), set[Path]()
    if home.has_local_tables:
        for name in _names(home):
            folder = home.paths.tables / name
            now |= {folder / unquote(path) for path in home.tables.files(name)["path"]}
            of_models |= {folder / unquote(path) for path in kept.get(name, ())}
    rows = {path for path in sizes if path.suffix == ".parquet" and path.is_relative_to(home.paths.tables)}
    sums = [
        sum(sizes[path] for path in some & sizes.keys())
        for some in (now, of_models - now, rows - now - of_models, sizes.keys() - rows)
    ]
    return DiskUse(*sums)


def _sizes_below(root: Path) -> Iterator[tuple[Path, int]]:
    """Every file below a folder with its size; a run may remove some meanwhile."""
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                yield path, found.st_size


def _names(home: OpenHome) -> list[str]:
    return list(tables(home.settings.model.features))


def _paths_of(models: Iterable[KeptModel]) -> dict[str, set[str]]:
    paths: dict[str, set[str]] = {}
    for model in models:
        for name, files in model.files.items():
            paths.setdefault(name, set()).update(path for _, path, *_ in files)
    return paths


def _recorded(home: OpenHome) -> dict[str, KeptModel]:
    return {model.facts.model_version: model for model in read_models(home.paths)}


def _found(home: OpenHome, key: str, version: str, champion: SegmentationModel | None) -> KeptModel | None:
    """A model as the tables have it now; ``None`` where its snapshot is none any more."""
    if key not in home.calendar.snapshot_keys:
        return None
    window, settings = home.calendar.window(key), home.settings
    facts = ModelFacts(
        version,
        key,
        champion.model_version if champion else None,
        window.keys,
        f"{window.start}",
        f"{window.as_of}",
        {
            "snapshots": settings.snapshots.model_dump(mode="json"),
            "model": settings.model.model_dump(mode="json"),
            "source": {"currency": home.currency},
        },
        {},
    )
    model = KeptModel(facts, champion.to_json() if champion else None, {})
    return _with_files(home, model, {LINES: window.keys, **dict.fromkeys(MADE_FROM, (key,))})


def _predecessor(home: OpenHome, key: str) -> SegmentationModel | None:
    """The model that one of an earlier version's trainings followed, as far as can be told: models come in order."""
    before = home.champions.champion_before(key)
    models = home.tables.whole(SEGMENTATION_MODEL).filter(pl.col("period") < key)
    if before is None or models.is_empty():
        return None
    numbers = (model_from_json(text).n_segment_ids for text in models["model_json"])
    return replace(home.champions.model_before(key), n_segment_ids=max(numbers))


def _with_made(home: OpenHome, model: KeptModel) -> KeptModel:
    """The same, with what it made."""
    return _with_files(home, model, dict.fromkeys(MADE, (model.facts.trained_on,)))


def _with_files(home: OpenHome, model: KeptModel, wanted: Mapping[str, Iterable[str]]) -> KeptModel:
    files, fingerprints = dict(model.files), dict(model.facts.fingerprints)
    for name, keys in wanted.items():
        found = home.tables.files(name).filter(pl.col("period").is_in([*keys]))
        files[name] = tuple(sorted(found.iter_rows()))
        fingerprints[name] = {key: f"{home.tables.fingerprint_of(name, key) or 0:x}" for key in keys}
    return replace(model, facts=replace(model.facts, fingerprints=fingerprints), files=files)
