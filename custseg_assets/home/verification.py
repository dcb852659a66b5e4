"""Whether everything in a home is as it was written, part by part, and how what is not is mended.

A mended home has nothing that cannot be read: what is damaged lies in ``damaged``, beside the reason. What partitions
are made from is known, so the next run makes again what is missing; that is not done here. Nothing is removed that
cannot be made again, and what is lost is said.
"""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from custseg_assets.domain import schemas
from custseg_assets.domain.schemas import Table
from custseg_assets.domain.segments.model import model_from_json
from custseg_assets.errors import BadInputError, CustsegError, DamagedHomeError
from custseg_assets.home.campaigns import reason_of_loss, unexplained_names
from custseg_assets.home.failure import last_failure
from custseg_assets.home.fingerprints import TRAINED
from custseg_assets.home.fixed_settings import ON_DISK, PLACE, fix_settings, read_fixed_settings, require_same_settings
from custseg_assets.home.intake import take_in_source
from custseg_assets.home.kept_models import kept_models, read_models, write_models
from custseg_assets.home.open import INGESTED, LockedHome, OpenHome, closed_through
from custseg_assets.home.own_settings import own_settings, settings_before
from custseg_assets.home.plan import TABLES_OF_JOB, why_not_released
from custseg_assets.home.restored import read_restored
from custseg_assets.home.staleness import stale_partitions
from custseg_assets.home.unfinished import unfinished_stage
from custseg_assets.settings import DEMO
from custseg_assets.stores import releases
from custseg_assets.stores.campaigns import CampaignStore
from custseg_assets.stores.deliveries import CURRENT
from custseg_assets.stores.delivery import CurrentSource, Delivery, LandedFile, in_order
from custseg_assets.stores.files import read_state, replace_text, write_state
from custseg_assets.stores.home import Home
from custseg_assets.stores.home_format import read_format, require_whole_settings, write_format
from custseg_assets.stores.tables import TableStore, why_not_whole

RECORDED = ("prediction_log", "rejected_predictions")
"""Tables of what the service was asked: their rows come from nothing else and are made a second time by nobody."""
_LONGEST_REASON = 200
_ANYTHING = (Exception, pl.exceptions.PanicException)
"""What damage does to a reader cannot be foreseen, and is what is looked for; a panic of Polars is no ``Exception``."""
_TIMES = 3
"""How often a part is looked at while it is mended: one damage may hide behind another."""


@dataclass(frozen=True)
class Damage:
    """Something of a home that is not as it was written.

    Attributes:
        what: the file or the part, below the home's folder.
        why: what is wrong with it.
        remedy: what can be made anew of it, and what cannot.
        mend: does what can be done at once and returns what it did; ``None`` where that is nothing.
    """

    what: str
    why: str
    remedy: str
    mend: Callable[[], str] | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found of one part of a home.

    Attributes:
        part: its name.
        found: what it consists of, in words.
        damages: what is wrong with it; nothing where it is sound.
    """

    part: str
    found: str
    damages: tuple[Damage, ...] = ()


Opener = Callable[[], OpenHome]
"""Opens the home; what it raises is the settings' fault where they are not damaged."""
Found = tuple[str, list[Damage]]


def verify_home(paths: Home, open_home: Opener) -> list[Verdict]:
    """What is sound of a home and what is damaged; nothing is changed.

    Args:
        paths: of the home.
        open_home: opens it; called for each part, so that nothing is remembered of another.

    Raises:
        BadInputError: it cannot be opened, and that is no damage.
    """
    verdicts: list[Verdict] = []
    for part in _PARTS:
        verdicts.append(_look_at(part, paths, open_home, verdicts))
    return verdicts


def mend_home(paths: Home, open_home: Callable[[], LockedHome]) -> Iterator[str]:
    """Mend what can be mended, so that the next run makes the rest; yields what was done, a line each.

    Args:
        paths: of the home.
        open_home: opens it; called for each part.
    """
    for part in _PARTS:
        done: set[tuple[str, str]] = set()
        for _ in range(_TIMES):
            verdict = _look_at(part, paths, open_home, [])
            todo = [one for one in verdict.damages if one.mend and (one.what, one.why) not in done]
            for damage in todo:
                done.add((damage.what, damage.why))
                if damage.mend:
                    yield f"{damage.what}: {damage.why}; {damage.mend()}"
            if not todo:
                break


def _look_at(part: str, paths: Home, open_home: Opener, before: Iterable[Verdict]) -> Verdict:
    look = _PARTS[part]
    if part in _OF_RUNS and _try(lambda: read_restored(paths)) is None and read_restored(paths):
        return Verdict(part, "none, because the home was restored from an export and nothing is made in it")
    if part in _STANDING_ON_OTHERS and any(verdict.damages for verdict in before):
        return Verdict(part, "", (Damage(part, "not looked at", "What is named before it has to be mended first."),))
    try:
        home = open_home() if part in _OF_OPEN_HOME else None
        if home:
            require_same_settings(home.settings)
    except CustsegError as error:
        if isinstance(error, BadInputError) and not any(verdict.damages for verdict in before):
            raise
        return Verdict(part, "not looked at", (Damage(part, f"not looked at: {_in_words(error)}", "Mend that first."),))
    try:
        found, damages = look(paths, home)
    except _ANYTHING as error:
        remedy = "Mend what is named before it." if any(one.damages for one in before) else "Restore it from a backup."
        return Verdict(part, "cannot be read", (Damage(part, _in_words(error), remedy),))
    return Verdict(part, found, tuple(damages))


def _in_words(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, CustsegError) else f"{type(error).__name__}: {text[:_LONGEST_REASON]}"


def _try(read: Callable[[], object]) -> str | None:
    """Why something cannot be read; ``None`` where it can."""
    try:
        read()
    except DamagedHomeError as error:
        return error.why
    except _ANYTHING as error:
        return _in_words(error)
    return None


# The files of state.


def _look_at_format(paths: Home, _: None) -> Found:
    def mend() -> str:
        moved = _set_aside(paths, paths.format, why or "")
        if read_format(paths) > 0:
            write_format(paths)
        return f"{moved}; it is written anew from what the home looks like"

    if why := _try(lambda: read_format(paths)):
        return "", [Damage("home.json", why, "it is written anew", mend)]
    return f"format {read_format(paths)}", []


def _look_at_settings(paths: Home, _: None) -> Found:
    damages = []

    def mend_own() -> str:
        return (
            f"{_set_aside(paths, paths.settings, why or '')}. Lost are the home's own settings: give them to the next "
            "run with 'custseg run --config FILE'"
        )

    if why := _try(lambda: require_whole_settings(paths)):
        remedy = "it cannot be made anew: after --mend, give your settings to the next run with --config FILE"
        damages.append(Damage("custseg.toml", why, remedy, mend_own))
    elif why_not := _try(lambda: own_settings(paths)):
        damages.append(Damage("custseg.toml", why_not, "Correct it, or move it away and give --config FILE."))
    if why_before := _try(lambda: settings_before(paths)):
        remedy = "it is set aside; it only tells why tables are out of date"
        mend = _mend_by_setting_aside(paths, paths.settings_before, why_before, remedy)
        damages.append(Damage("custseg.before.toml", why_before, remedy, mend))
    if why_fixed := _try(lambda: _require_fixed_settings(paths)):
        damages.append(_damage_of_fixed_settings(paths, why_fixed))
    return "the home's own and the fixed ones" if paths.settings.exists() else "none kept yet", damages


def _require_fixed_settings(paths: Home) -> None:
    if not read_fixed_settings(paths) and not (paths.deliveries / CURRENT).exists():
        return
    if not paths.fixed_settings.exists():
        raise DamagedHomeError(paths.fixed_settings, "it is gone")


def _damage_of_fixed_settings(paths: Home, why: str) -> Damage:
    what = paths.fixed_settings.name
    is_lost = _try(partial(require_whole_settings, paths)) or _try(partial(own_settings, paths))
    own = None if is_lost else own_settings(paths)
    if own is None:
        return Damage(what, why, "it cannot be made anew without the home's own settings: restore it from a backup")

    def mend() -> str:
        moved = _set_aside(paths, paths.fixed_settings, why)
        fix_settings(own)
        return f"{moved}; it is written anew from the home's own settings"

    return Damage(what, why, "it is written anew from the home's own settings", mend)


def _look_at_state(paths: Home, _: None) -> Found:
    marks = {
        paths.unfinished_stage: (
            lambda: unfinished_stage(paths),
            "what a command was in the middle of is found by what each partition was made from",
        ),
        paths.failure: (lambda: last_failure(paths), "why the last run failed is not known any more"),
        paths.published: (
            lambda: read_state(paths.published, "destination", "tables"),
            "with the next run everything is published again",
        ),
        paths.kept_models: (
            lambda: read_models(paths),
            "the next release records the files of models anew, as the tables then have them",
        ),
        paths.exported_models: (
            lambda: read_state(paths.exported_models, "places"),
            "every export is looked up again in the repository",
        ),
    }
    damages = [
        Damage(path.name, why, after, _mend_by_setting_aside(paths, path, why, after))
        for path, (read, after) in marks.items()
        if (why := _try(read))
    ]
    if why := _try(lambda: read_restored(paths)):
        remedy = "nothing of it is lost: do 'custseg dvc restore' again, into a folder that is not there"
        damages.append(Damage(paths.restored.name, why, remedy))
    if why := _try(lambda: read_state(paths.keys, "keys")):
        remedy = "keys cannot be made anew: restore the file, or move it away and create new ones"
        damages.append(Damage(paths.keys.name, why, f"{remedy} with 'custseg-serving keys create'"))
    return "marks, records and keys", damages


def _look_at_campaigns(paths: Home, home: OpenHome) -> Found:
    store = CampaignStore(paths.campaigns)
    damages, after = [], "its holdout is in lists again, and nothing says any more what came of it"
    for name in (names := store.names()):
        if why := _try(partial(store.require_whole, name)):
            folder = paths.campaigns / name
            remedy = f"restore campaigns/{name} from a backup; set aside, {after}"
            mend = _mend_by_setting_aside(paths, folder, why, after)
            damages.append(Damage(f"campaigns/{name}", why, remedy, mend))
    try:
        lost = unexplained_names(home)
    except _ANYTHING:
        # What the table says is not known; that it cannot be read is said of the tables.
        lost = ()
    for name in lost:
        why = "it is gone, though table campaign_groups has its customers"
        remedy = f"restore campaigns/{name} from a backup; without it, {after}"
        mend = _mend_by_writing_down(paths, name, why, after)
        damages.append(Damage(f"campaigns/{name}", why, remedy, mend))
    return f"{len(names):,} that were started", damages


def _mend_by_writing_down(paths: Home, name: str, why: str, after: str) -> Callable[[], str]:
    def mend() -> str:
        reason = reason_of_loss(paths, name)
        reason.parent.mkdir(parents=True, exist_ok=True)
        replace_text(reason, f"{why}\n", is_durable=True)
        return f"written down in {reason.relative_to(paths.root)}; {after}"

    return mend


def _mend_by_setting_aside(paths: Home, path: Path, why: str, after: str) -> Callable[[], str]:
    return lambda: f"{_set_aside(paths, path, why)}; {after}"


def _set_aside(paths: Home, path: Path, why: str) -> str:
    if not path.exists():
        return "nothing was there to be set aside"
    return f"set aside as {paths.set_aside(path, why).relative_to(paths.root)}"


def _look_at_rights(paths: Home, _: None) -> Found:
    others = stat.S_IMODE(paths.root.stat().st_mode) & 0o077
    if not others:
        return "for its owner alone", []
    who = "everybody on this machine" if others & 0o007 else "its group"
    return f"for {who} as well; 'chmod -R go= {paths.root}' leaves it to its owner alone", []


# Deliveries.


def _look_at_deliveries(paths: Home, home: OpenHome) -> Found:
    store, damages = home.deliveries, []
    if why := _try(store.current_fields) or _why_not_recorded(paths):
        mend = _mend_record(home, why)
        return "", [Damage(f"deliveries/{CURRENT}", why, "it is written anew from the deliveries", mend)]
    fields = store.current_fields()
    if fields is None:
        return "none yet", []
    wanted = {one["id"]: one["name"] for one in (*fields["source"], *fields["landed"])}
    n_rows = 0
    for delivery_id in dict.fromkeys([*wanted, *(path.stem for path in store.manifests())]):
        delivery: Delivery | None = None
        try:
            delivery = store.get(delivery_id)
            why = store.find_altered(delivery)
        except KeyError:
            why = "its manifest is gone"
        except _ANYTHING as error:
            why = _in_words(error)
        if why:
            damages.append(_damage_of_delivery(home, delivery_id, wanted.get(delivery_id), delivery, why))
        n_rows += delivery.n_rows if delivery and delivery_id in wanted else 0
    return f"{len(wanted):,} that are read, with {n_rows:,} lines", damages


def _why_not_recorded(paths: Home) -> str | None:
    is_gone = not (paths.deliveries / CURRENT).exists()
    return "it is gone, although there are tables" if is_gone and (paths.tables / INGESTED[0]).exists() else None


def _damage_of_delivery(
    home: OpenHome, delivery_id: str, name: str | None, delivery: Delivery | None, why: str
) -> Damage:
    paths, store = home.paths, home.deliveries
    files = [paths.deliveries / f"{delivery_id}.parquet"]
    if delivery is None:
        files.append(paths.deliveries / f"{delivery_id}.json")
    called = name or (delivery.name if delivery else delivery_id)

    def mend() -> str:
        moved = [_set_aside(paths, path, why) for path in files if path.exists()]
        lost = f"{'; '.join(moved) or 'nothing was left of it'}"
        if name is None:
            return f"{lost}; it is an earlier state of {called}, which is not read any more"
        reread = _try(lambda: _read_again(home, delivery_id, name))
        if reread is None and store.find_altered(store.get(delivery_id)) is None:
            return f"{lost}; read again from {called}"
        return (
            f"{lost}; {called} could not be read again ({reread or 'it has other lines now'}): put it back, unchanged, "
            "where it was, and do 'custseg verify --mend' again"
        )

    remedy = (
        f"it is read again where {called} is still where it came from; nothing else has its lines"
        if name
        else f"it is an earlier state of {called}, which is not read any more"
    )
    return Damage(f"deliveries/{delivery_id}", why, remedy, mend)


def _read_again(home: OpenHome, delivery_id: str, name: str) -> None:
    """Read the file of a delivery again, from where landed files were moved to or from the home's source."""
    store, settings = home.deliveries, home.settings
    landed = home.landing_zone.folder / "taken_in" / delivery_id / name
    if landed.exists():
        store.accept(landed, settings.source, lambda _: None, name=name)
        return
    description = (store.current_fields() or {}).get("description") or settings.source.path
    if description is None:
        raise DamagedHomeError(name, "it is not in the landing folder any more")
    take_in_source(store, description, settings, lambda _: None)
    store.get(delivery_id)


def _mend_record(home: OpenHome, why: str) -> Callable[[], str]:
    def mend() -> str:
        moved = _set_aside(home.paths, home.paths.deliveries / CURRENT, why)
        home.deliveries.set_current(_recorded_anew(home))
        return (
            f"{moved}; it is written anew: of every name the delivery that came last counts, and the next run reads "
            "the source and what landed again"
        )

    return mend


def _recorded_anew(home: OpenHome) -> CurrentSource:
    """What a home reads, from its deliveries: of every name the one that came last, landed or of the source."""
    store, taken_in = home.deliveries, home.landing_zone.folder / "taken_in"
    last: dict[tuple[bool, str], Delivery] = {}
    for path in sorted(store.manifests(), key=lambda path: path.stat().st_mtime_ns):
        delivery = store.get(path.stem)
        landed = next((one for one in (taken_in / delivery.id).rglob("*") if one.is_file()), None)
        last[landed is not None, delivery.name] = delivery
    source = in_order(one for (is_landed, _), one in last.items() if not is_landed)
    is_demo = any(one.name == DEMO for one in source)
    landed_files = tuple(
        LandedFile(one, (taken_in / one.id / name).stat().st_size, tuple(old.id for old in source if old.name == name))
        for (is_landed, name), one in sorted(last.items())
        if is_landed
    )
    own = own_settings(home.paths) or home.settings
    return CurrentSource(source, landed_files, DEMO if is_demo else own.source.path)


# Tables.


def _look_at_tables(paths: Home, home: OpenHome) -> Found:
    damages: list[Damage] = []
    n_tables = n_files = 0
    is_here = read_fixed_settings(paths).get(PLACE, ON_DISK) == ON_DISK
    for name, table in schemas.tables(home.settings.model.features).items():
        found = list(_damages_of_log(home, table)) if is_here else []
        if not found:
            found = list(_damages_of_rows(home, table, is_here=is_here))
            n_files += home.tables.files(name).height
            n_tables += home.tables.version_of(name) is not None
        damages += found
    return f"{n_tables:,}, of {n_files:,} files", damages


def _damages_of_log(home: OpenHome, table: Table) -> Iterator[Damage]:
    """What is wrong with the log of a table on disk: with its commits, or with what is kept to read it faster."""
    name, paths, folder = table.name, home.paths, home.paths.tables / table.name
    if not folder.exists():
        return
    commits = sorted(path for path in (folder / "_delta_log").glob("*.json") if path.stem.isdigit())
    bad = next(((path, why) for path in commits if (why := _why_no_commit(path))), None)
    if bad:
        path, why = bad
        later = commits[commits.index(path) :]
        what = f"tables/{name}/_delta_log/{path.name}"
        if path == commits[0]:
            yield _damage_of_table(home, table, f"{path.name}: {why}")
            return
        remedy = f"the table goes back to the version before; {_after_loss(name)}"

        def mend() -> str:
            moved = [_set_aside(paths, one, why) for one in later]
            return f"{moved[0]}{f' and {len(moved) - 1} later ones' if moved[1:] else ''}; {remedy}"

        yield Damage(what, why, remedy, mend)
    elif why_not := _try(lambda: home.tables.files(name) if commits else _raise_no_commit()):
        yield _damage_of_table(home, table, why_not)


def _raise_no_commit() -> None:
    raise DamagedHomeError("its log", "it has no commit")


def _why_no_commit(path: Path) -> str | None:
    """Why a file of a table's log is no whole commit; ``None`` where it is one."""
    try:
        actions = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
        if not actions:
            return "it is empty"
        n_added = sum("add" in action for action in actions)
        info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        expected = info.get("operationMetrics", {}).get("num_added_files", n_added)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"it is no commit: {' '.join(str(error).split())}"
    return None if n_added == int(expected) else f"it names {n_added} of {expected} files, so it was cut"


def _damage_of_table(home: OpenHome, table: Table, why: str) -> Damage:
    name = table.name

    def mend() -> str:
        moved = _set_aside(home.paths, home.paths.tables / name, why)
        if isinstance(home, LockedHome):
            home.forget_tables()
        _tables_to_write(home).write(table, table.schema.to_frame(), {})
        return f"{moved}; {_after_loss(name)}"

    return Damage(f"tables/{name}", why, f"it is set aside; {_after_loss(name)}", mend)


def _after_loss(name: str) -> str:
    """What becomes of rows of a table that are lost."""
    if name in RECORDED:
        return "what the service was asked is recorded nowhere else: lost, unless a backup has it"
    if name in TRAINED:
        return (
            "'custseg run' trains a first model anew, the same from the same data; challengers and what was decided "
            "about them are lost, unless a backup has them: 'custseg retrain' and 'custseg promote' make others"
        )
    if name.startswith("prediction_"):
        return "days that are in prediction_log are counted again when more is taken in"
    return "'custseg run' makes it again"


def _damages_of_rows(home: OpenHome, table: Table, *, is_here: bool) -> Iterator[Damage]:
    name, declared = table.name, dict(table.schema)
    others = {
        column: f"{dtype} instead of {declared[column]}"
        for column, dtype in home.tables.stored_columns(name).items()
        if column in declared and dtype != declared[column]
    }
    if others:
        column, words = next(iter(others.items()))
        yield _damage_of_table(home, table, f"its column {column} is {words}")
        return
    files = home.tables.files(name)
    if is_here:
        bad: dict[str, list[tuple[Path, str]]] = {}
        for key, path, size, n_rows in files.iter_rows():
            file = home.paths.tables / name / unquote(path)
            if why := _why_no_file(file, size, n_rows):
                bad.setdefault(key, []).append((file, why))
        yield from (_damage_of_partition(home, table, key, files) for key, files in bad.items())
        return
    for key, n_rows in home.tables.sizes(table).items():
        if home.tables.scan(table, [key]).select(pl.len()).collect().item() != n_rows:
            yield Damage(f"{name} of {key}", f"it has not the {n_rows:,} rows of its log", "restore the bucket")


def _why_no_file(path: Path, n_bytes: int, n_rows: int) -> str | None:
    """Why a file is not the one that a table's log names; ``None`` where it is."""
    if why := why_not_whole(path, n_bytes):
        return why
    try:
        found = pl.read_parquet(path, hive_partitioning=False, glob=False).height
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return f"it cannot be read: {' '.join(str(error).split())[:_LONGEST_REASON]}"
    return None if found == n_rows else f"it has {found:,} rows instead of {n_rows:,}"


def _damage_of_partition(home: OpenHome, table: Table, key: str, bad: list[tuple[Path, str]]) -> Damage:
    name, (first, why) = table.name, bad[0]

    def mend() -> str:
        kept = table.schema.to_frame()
        if name in RECORDED:
            folder, lost = home.paths.tables / name, {path for path, _ in bad}
            sound = [folder / unquote(path) for of, path, *_ in home.tables.files(name).iter_rows() if of == key]
            frames = [pl.read_parquet(path, hive_partitioning=False, glob=False) for path in sound if path not in lost]
            kept = pl.concat([kept, *(_as_stored(one, table, key) for one in frames)])
        moved = [_set_aside(home.paths, path, reason) for path, reason in bad if path.exists()]
        _tables_to_write(home).write(table, kept, {key: 0})
        return f"{'; '.join(moved) or 'nothing was left of it'}; {_after_loss(name)}"

    return Damage(f"tables/{name}/{first.relative_to(home.paths.tables / name)}", why, _after_loss(name), mend)


def _as_stored(rows: pl.DataFrame, table: Table, key: str) -> pl.DataFrame:
    """The rows of one file of a table, with all its columns."""
    there = rows.with_columns(period=pl.lit(key))
    return there.select(
        column.name if column.name in there.columns else pl.lit(None, column.dtype).alias(column.name)
        for column in table.columns
    )


def _tables_to_write(home: OpenHome) -> TableStore:
    if not isinstance(home, LockedHome):
        raise TypeError("only a locked home is mended")
    return home.tables


# What belongs together in tables.


def _look_at_calendar(paths: Home, home: OpenHome) -> Found:
    def mend() -> str:
        moved = _set_aside(paths, paths.closed, why or "")
        features = (
            home.tables.scan(schemas.SEGMENT_ASSIGNMENTS).filter(~pl.col("is_open")).select(pl.col("period").max())
        )
        key = features.collect().item()
        if key is None:
            return moved
        write_state(paths.closed, {"closed_through": key})
        return f"{moved}; {key} is the last period that tables have as closed"

    if why := _try(lambda: closed_through(paths)):
        remedy = "it is written anew from the snapshots that were closed"
        return "", [Damage(paths.closed.name, why, remedy, mend)]
    key = closed_through(paths)
    return f"closed by the clock through {key}" if key else "no period was closed by the clock", []


def _look_at_fingerprints(_: Home, home: OpenHome) -> Found:
    tables, calendar = schemas.tables(home.settings.model.features), home.calendar
    damages: list[Damage] = []
    stale, there = stale_partitions(home), _tables_released_from(home.paths)
    for name in dict.fromkeys((*INGESTED, *(name for names in TABLES_OF_JOB.values() for name in names))):
        keys = calendar.period_keys if name in INGESTED else calendar.snapshot_keys
        others = sorted(home.tables.sizes(tables[name]).keys() - set(keys))
        damages += [_damage_of_orphan(home, tables[name], key) for key in others]
        if home.tables.version_of(name) is None and name in stale and name in there:
            damages.append(_damage_of_table(home, tables[name], "it is gone"))
    damages += _damages_of_sums(home, tables, stale)
    n_stale = sum(map(len, stale.values()))
    note = f"; {n_stale:,} partitions are to be made by 'custseg run'" if n_stale else ""
    return f"of {len(calendar.period_keys):,} periods and {len(calendar.snapshot_keys):,} snapshots{note}", damages


def _tables_released_from(paths: Home) -> set[str]:
    """The tables that must be there, because the served release was made from them; an earlier version had fewer."""
    every = {name for names in TABLES_OF_JOB.values() for name in names} | {*INGESTED}
    if not (paths.releases / releases.CURRENT).exists():
        return set()
    named = {read.table for read in schemas.RELEASE_READS if read.partitions == "newest"}
    try:
        manifest = releases.read_manifest(paths.releases, releases.current(paths.releases) or "")
    except releases.DamagedReleaseError:
        return every
    return (every - named) | (every & manifest.data_versions.keys())


def _damage_of_orphan(home: OpenHome, table: Table, key: str) -> Damage:
    def mend() -> str:
        _tables_to_write(home).write(table, table.schema.to_frame(), {key: 0})
        return "emptied"

    return Damage(f"{table.name} of {key}", "its source has no such period", "it is emptied", mend)


def _damages_of_sums(
    home: OpenHome, tables: Mapping[str, Table], stale: Mapping[str, Iterable[str]]
) -> Iterator[Damage]:
    """Periods that count as up to date and have not as many lines as were delivered, or lose some in cleaning."""
    raw, clean, rejected = (home.tables.sizes(tables[name]) for name in INGESTED)
    out_of_date = {key for name in INGESTED for key in stale.get(name, ())}
    for key, (n_lines, _) in home.calendar.contents.items():
        sums = raw.get(key, 0), clean.get(key, 0) + rejected.get(key, 0)
        if key not in out_of_date and sums != (n_lines, n_lines):

            def mend(key: str = key) -> str:
                for name in INGESTED:
                    _tables_to_write(home).mark_stale(tables[name], [key])
                return "'custseg run' makes it again"

            why = f"{n_lines:,} lines were delivered, {sums[0]:,} are raw, {sums[1]:,} clean or rejected"
            yield Damage(f"lines of {key}", why, "'custseg run' makes it again", mend)


def _look_at_models(paths: Home, home: OpenHome) -> Found:
    decisions = home.tables.read(schemas.PROMOTION_DECISION)
    models = {row["period"]: row for row in home.tables.read(schemas.SEGMENTATION_MODEL).iter_rows(named=True)}
    candidates = set(home.tables.read(schemas.MODEL_CANDIDATES)["period"])
    damages = []
    decided = dict(
        decisions.filter(pl.col("model_version").is_not_null()).select("period", "model_version").iter_rows()
    )
    for key, version in decided.items():
        model = models.get(key)
        why = "it is gone" if model is None else _try(partial(model_from_json, model["model_json"]))
        if why is None and key not in candidates:
            why = "its candidates are gone"
        if why:
            damages.append(_damage_of_model(home, key, version, why))
    damages += _damages_of_kept(home)
    damages += _look_at_database(paths, paths.mlflow / "mlflow.db", "MLflow's record of runs and models begins anew")
    return f"{len(decided):,} that were decided about, and MLflow's record", damages


def _damages_of_kept(home: OpenHome) -> Iterator[Damage]:
    """Models with files in the record that are not as they were, so that they cannot be exported any more."""
    kept = kept_models(home)
    for version, model in kept.items():
        declared = schemas.tables(home.settings.model.features)
        whys = (_try(partial(model.files_of, home, declared[name])) for name in model.files)
        if why := next((one for one in whys if one), None):

            def mend(version: str = version) -> str:
                if not isinstance(home, LockedHome):
                    raise TypeError("only a locked home is mended")
                write_models(home, [one for name, one in kept_models(home).items() if name != version])
                return "it is out of the record; what the tables have of it now counts"

            remedy = "it can be exported no more, unless the tables still have what it was made from"
            yield Damage(f"what {version} was made from", why, remedy, mend)


def _damage_of_model(home: OpenHome, key: str, version: str, why: str) -> Damage:
    remedy = f"the training on {key} is withdrawn, with what was decided about it; {_after_loss(TRAINED[0])}"

    def mend() -> str:
        kept = []
        for name in TRAINED:
            table = schemas.tables(home.settings.model.features)[name]
            rows = home.tables.read(table, [key])
            file = home.paths.damaged / f"{name} of {key}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(file)
            kept.append(file.name)
            _tables_to_write(home).write(table, table.schema.to_frame(), {key: 0})
        return f"what is left of it is in damaged: {', '.join(kept)}; {remedy}"

    return Damage(f"model {version}", why, remedy, mend)


# The release and the databases.


def _look_at_release(paths: Home, home: OpenHome) -> Found:
    root = paths.releases
    names = sorted(one.name for one in root.iterdir() if one.is_dir() and one.name[0] != ".") if root.is_dir() else []
    why = _try(partial(releases.current, root))
    current = None if why else releases.current(root)
    damages = [
        _damage_of_release(paths, root / name, reason, is_served=name == current)
        for name in names
        if (reason := _try(partial(releases.open_release, root, name)))
    ]
    pointer = root / releases.CURRENT
    if why:
        damages.append(_damage_of_release(paths, pointer, why, is_served=True))
    elif current not in names and _has_been_released(home):
        reason = f"it names {current}, which is gone" if current else "it is gone"
        damages.append(_damage_of_release(paths, pointer, reason, is_served=True))
    due = why_not_released(home) if home.champions.promotions and not damages else None
    again = f"; to be made again by 'custseg run': {due}" if due else ""
    return f"{current or 'none'}, of {len(names):,} that are kept{again}", damages


def _has_been_released(home: OpenHome) -> bool:
    """Whether a release was made once: segments are there, and no command has ended in the middle of making any."""
    has_segments = bool(home.tables.sizes(schemas.SEGMENT_ASSIGNMENTS))
    return has_segments and home.paths.is_released() and unfinished_stage(home.paths) is None


def _damage_of_release(paths: Home, path: Path, why: str, *, is_served: bool) -> Damage:
    after = "'custseg run' makes the release again" if is_served else "one can go back to it no more"

    def mend() -> str:
        moved = _set_aside(paths, path, why)
        if is_served:
            paths.ask_for_release()
        return f"{moved}; {after}"

    return Damage(str(path.relative_to(paths.root)), why, after, mend)


def _look_at_history(paths: Home, _: None) -> Found:
    after = "Dagster's history of runs begins anew in it; no table is made from it"
    databases = sorted(paths.dagster.rglob("*.db"))
    damages = [damage for path in databases for damage in _look_at_database(paths, path, after)]
    configuration = paths.dagster / "dagster.yaml"
    if paths.dagster.exists() and not configuration.exists():
        damages.append(
            Damage("dagster/dagster.yaml", "it is gone", after, _mend_by_setting_aside(paths, paths.dagster, "", after))
        )
    return f"{len(databases):,} databases of Dagster", damages


def _look_at_database(paths: Home, path: Path, after: str) -> list[Damage]:
    if not path.exists() or (why := _why_no_database(path)) is None:
        return []

    def mend() -> str:
        # A journal belongs to its database, and would be taken for one of the new one.
        parts = [path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm", "-journal"))]
        moved = [_set_aside(paths, part, why) for part in parts if part.exists()]
        return f"{moved[0]}; {after}"

    return [Damage(str(path.relative_to(paths.root)), why, after, mend)]


def _why_no_database(path: Path) -> str | None:
    if not path.stat().st_size:
        return "it is empty"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        # Who writes to it at this moment has it; that says nothing of it.
        return None if "locked" in str(error) else str(error)
    return None if found == "ok" else str(found)


_PARTS: dict[str, Callable[[Home, Any], Found]] = {
    "rights": _look_at_rights,
    "format": _look_at_format,
    "settings": _look_at_settings,
    "state": _look_at_state,
    "campaigns": _look_at_campaigns,
    "deliveries": _look_at_deliveries,
    "tables": _look_at_tables,
    "calendar": _look_at_calendar,
    "fingerprints": _look_at_fingerprints,
    "models": _look_at_models,
    "release": _look_at_release,
    "history": _look_at_history,
}
"""Every part of a home, in the order in which one stands on another."""
_OF_RUNS = {"fingerprints", "release"}
"""What a restored home has not."""
_STANDING_ON_OTHERS = {"fingerprints", "models"}
_OF_OPEN_HOME = {"campaigns", "deliveries", "tables", "calendar", "fingerprints", "models", "release"}
