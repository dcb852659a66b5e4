"""What every asset does alike: declare its table, check it, write it, and tell Dagster about it.

What a single asset makes belongs in ``assets``; how values look on Dagster's pages, in ``metadata``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import polars as pl
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from custseg_assets.defs.checks import MoreCheck, SuiteRun, check_specs, key_of
from custseg_assets.defs.descriptions import ASSETS
from custseg_assets.defs.metadata import facts
from custseg_assets.defs.partitions import Layout
from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import Table, tables
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.settings import Settings
from custseg_assets.stores.files import scratch_folder
from custseg_assets.stores.staged import MAX_ROWS_AT_ONCE, Rows, StagedRows, StagedWriter, key_batches
from custseg_assets.stores.tables import fingerprint

OWNERS = ["team:customer-analytics"]
Batch = tuple[Sequence[str], Rows | Iterator[pl.DataFrame]]
"""Partition keys with their rows; one key with slices of customers, where its rows are too many for memory."""
if TYPE_CHECKING:
    Materialization = dg.MaterializeResult[Any]
else:
    # Dagster looks for its own class in the annotation, without parameters.
    Materialization = dg.MaterializeResult
AssetFactory = Callable[[Layout, Settings], dg.AssetsDefinition]
_SLICES = ".slices-"
_TABLE_TYPES = {pl.String(): "text", pl.Float64(): "float", pl.Int64(): "integer", pl.Boolean(): "boolean"}


def table_asset(
    *names: str,
    group: str,
    kinds: set[str],
    partitions: Literal["periods", "snapshots"] | None = None,
    step: str | None = None,
    more_checks: Sequence[MoreCheck] = (),
) -> Callable[[Callable[..., Any]], AssetFactory]:
    """Make of a function the asset of a table, or of several tables, for the partitions of a home.

    The function is called with a context and resources, ``home`` among them. Where only checks are asked for, it is not
    called, and the tables are checked as they are stored.

    Args:
        names: of the tables that the function writes.
        group: of the asset.
        kinds: what it is made with, for Dagster's pages.
        partitions: the table's; none for one that follows the clock instead of the shop's log.
        step: name of the step, where it is not the first table's.
        more_checks: besides those of the tables' suites.
    """

    def decorate(function: Callable[..., Any]) -> AssetFactory:
        def build(layout: Layout, settings: Settings) -> dg.AssetsDefinition:
            made = [tables(settings.model.features)[name] for name in names]

            @wraps(function)
            def compute(context: dg.AssetExecutionContext, **resources: Any) -> Iterator[Any]:
                if context.selected_asset_keys:
                    yield from _selected(context, function(context, **resources))
                else:
                    wanted = context.selected_asset_check_keys
                    for result in _check_stored(resources["home"], made, more_checks, wanted):
                        yield _evaluation(context, result)

            return dg.multi_asset(
                name=step or names[0],
                specs=[spec_of(table, layout, group=group, kinds=kinds) for table in made],
                check_specs=[
                    *(spec for table in made for spec in check_specs(table, settings)),
                    *(check.spec for check in more_checks),
                ],
                partitions_def=getattr(layout, partitions) if partitions else None,
                backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
                # Without it Dagster's pages could run no check without making its table.
                can_subset=True,
            )(compute)

        return build

    return decorate


def _selected(
    context: dg.AssetExecutionContext, made: Materialization | Iterable[Materialization]
) -> Iterator[Materialization | dg.AssetCheckResult]:
    """Of what was made, the assets and checks that were asked for: Dagster takes no others."""
    assets, checks = context.selected_asset_keys, context.selected_asset_check_keys
    for result in [made] if isinstance(made, dg.MaterializeResult) else made:
        found = [check for check in result.check_results or () if key_of(check) in checks]
        if result.asset_key is None or dg.AssetKey.from_coercible(result.asset_key) in assets:
            yield result._replace(check_results=found)
        else:
            yield from found


def _check_stored(
    home: OpenHome, stored: Iterable[Table], more: Iterable[MoreCheck], wanted: Collection[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckResult]:
    """The checks that are wanted of tables as they are stored; nothing is made."""
    for table in stored:
        if any(key.asset_key == dg.AssetKey(table.name) for key in wanted):
            suite = SuiteRun(table, home)
            for keys in [*key_batches(home.tables.sizes(table))] or [[]]:
                ranges = home.tables.id_ranges(table, keys[0]) if _has_customers(table) and len(keys) == 1 else ()
                if len(ranges) > 1:
                    suite.check_slices((home.tables.read(table, keys, within=one) for one in ranges), lambda _: None)
                else:
                    suite.check([home.tables.read(table, keys)])
            yield from (result for result in suite.results() if key_of(result) in wanted)
    yield from (check.evaluate(home) for check in more if check.spec.key in wanted)


def _has_customers(table: Table) -> bool:
    """Whether a partition of a table has the rows of a snapshot's customers, in the order of their ids."""
    return table.sort_by[:1] == ("customer_id",)


def _evaluation(context: dg.AssetExecutionContext, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """The verdict about a table as it is stored, with the materialisation that made it.

    Dagster would look for that itself, but fails where a table reads its own earlier partitions and the run has none.
    """
    key = key_of(result)
    spec = context.assets_def.get_spec_for_check_key(key)
    made = [
        AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for record in context.instance.fetch_materializations(key.asset_key, limit=1).records
    ]
    return dg.AssetCheckEvaluation(
        key.asset_key,
        key.name,
        result.passed,
        result.metadata,
        made[0] if made else None,
        result.severity,
        blocking=bool(spec and spec.blocking),
    )


period_asset = partial(table_asset, partitions="periods")
snapshot_asset = partial(table_asset, partitions="snapshots")


def spec_of(table: Table, layout: Layout, *, group: str, kinds: set[str]) -> dg.AssetSpec:
    """How an asset presents itself: description, owner, kinds, code version, what it reads, and columns."""
    columns = [
        dg.TableColumn(
            column.name,
            _TABLE_TYPES.get(column.dtype, "timestamp"),
            column.description,
            dg.TableColumnConstraints(nullable=column.is_nullable),
        )
        for column in table.columns
    ]
    return dg.AssetSpec(
        table.name,
        description=ASSETS[table.name],
        group_name=group,
        owners=OWNERS,
        kinds=kinds,
        code_version=table.code_version,
        deps=layout.dependencies(table.reads),
        metadata={"dagster/column_schema": dg.TableSchema(columns=columns)},
    )


def materialise(
    context: dg.AssetExecutionContext,
    home: LockedHome,
    table: Table,
    batches: Iterable[Batch],
    *,
    unchanged: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    show: Callable[[], Mapping[str, Any]] = dict,
) -> Materialization:
    """Check a table's new partitions, write them, and report both.

    What people look for comes first on Dagster's pages: notes, decisions, pictures; then facts and lineage.

    Rows that fail a blocking check are written too, for people to look at, but not as up to date: nothing is computed
    from them, and the next run makes them again.

    Args:
        context: of the step.
        home: where to write.
        table: what is written.
        batches: partition keys with all their rows, one batch at a time in memory, or one slice of it.
        unchanged: partitions that were asked for and stay as they are, with the reason in words; they are reported all
            the same, so that nothing that can be clicked on Dagster's pages fails.
        metadata: more to show with the materialisation.
        show: makes what else people look at, pictures above all, from the table as it then stands; not called where
            nobody will look.
    """
    unchanged = unchanged or {}
    counts = dict[str, int]()
    before = {key: home.tables.fingerprint_of(table.name, key) for key in context.partition_keys}
    versions: dict[str, int] = {}

    def fingerprint_of(name: str, key: str) -> int | None:
        # A table may read its own earlier partitions, which are in this very batch and not in the table yet.
        is_here = name == table.name and key in versions
        return versions[key] if is_here else home.tables.fingerprint_of(name, key)

    suite, fingerprints = SuiteRun(table, home), home.fingerprints

    def made_from(keys: Sequence[str], *, is_blocked: bool) -> dict[str, int]:
        for key in sorted(keys):
            versions[key] = 0 if is_blocked else fingerprints.compute(table.name, key, fingerprint_of)
        return {key: versions[key] for key in keys}

    for keys, rows in batches:
        if isinstance(rows, pl.DataFrame | StagedRows):
            is_blocked = suite.check(_parts(rows), has_page=isinstance(rows, pl.DataFrame))
            sizes = _sizes(rows)
            home.tables.write(table, rows, made_from(keys, is_blocked=is_blocked))
        else:
            with scratch_folder(home.paths.root, _SLICES) as folder:
                # Until all slices are checked, and can be written with one verdict.
                kept = StagedWriter(table, folder)
                is_blocked = suite.check_slices(rows, kept.write)
                sizes = kept.rows.files.sizes
                home.tables.write(table, kept.rows, made_from(keys, is_blocked=is_blocked))
        counts.update({key: sizes.get(key, 0) for key in keys})
        context.log.info("%s: %s rows in %s partitions", table.name, f"{sum(sizes.values()):,}", len(keys))
    if unchanged:
        sizes = home.tables.sizes(table)
        counts.update({key: sizes.get(key, 0) for key in unchanged})
        versions.update({key: before[key] or 0 for key in unchanged})
        context.log.warning("%s: %s", table.name, _in_words(unchanged))
    for key, n_rows in counts.items():
        context.add_asset_metadata(
            {"dagster/partition_row_count": n_rows, "made_from": f"{versions[key]:x}"},
            asset_key=table.name,
            partition_key=key,
        )
    return dg.MaterializeResult(
        asset_key=table.name,
        metadata={
            **({"unchanged": _in_words(unchanged)} if unchanged else {}),
            **(metadata or {}),
            **(show() if home.has_viewers else {}),
            **facts(home, table),
        },
        data_version=_data_version(context, table.name, before, versions),
        check_results=suite.results(),
    )


def _parts(rows: Rows) -> Iterable[pl.DataFrame]:
    """The rows in frames that memory allows, at least one."""
    if isinstance(rows, pl.DataFrame):
        return [rows]
    return rows.slices() if rows.files.files else [rows.table.schema.to_frame()]


def _sizes(rows: Rows) -> dict[str, int]:
    """How many rows each partition has."""
    return dict(rows.group_by("period").len().iter_rows()) if isinstance(rows, pl.DataFrame) else rows.files.sizes


def _in_words(unchanged: Mapping[str, str]) -> str:
    """Why partitions stay as they are, those with the same reason together."""
    keys: dict[str, list[str]] = {}
    for key, reason in unchanged.items():
        keys.setdefault(reason, []).append(key)
    return " ".join(f"{', '.join(same)} stays as it is: {reason}." for reason, same in keys.items())


def _data_version(
    context: dg.AssetExecutionContext, name: str, before: Mapping[str, int | None], now: Mapping[str, int]
) -> dg.DataVersion:
    """What Dagster compares to tell whether a partition's dependents are out of date.

    A run has one data version for all its partitions. Where none of them changed it is the one they had; a new one
    would mark all that was made from them.
    """
    known = [key for key in sorted(now) if before[key] is not None]
    if known and all(before[key] == now[key] for key in known):
        wanted = dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=known[:1])
        for record in context.instance.fetch_materializations(wanted, limit=1).records:
            if record.asset_materialization and record.asset_materialization.tags:
                return dg.DataVersion(record.asset_materialization.tags["dagster/data_version"])
    return dg.DataVersion(f"{fingerprint(sorted(now.items())):x}")


def with_model(context: dg.AssetExecutionContext, home: OpenHome) -> tuple[Sequence[str], dict[str, str]]:
    """The snapshots asked for at which a model is in force; and the others, with why nothing is made of them.

    Raises:
        RunFailedError: there is no model at any of them.
    """
    keys = home.champions.segmented(context.partition_keys)
    if not keys:
        home.champions.model_at(context.partition_keys[-1])
    return keys, dict.fromkeys((key for key in context.partition_keys if key not in keys), "no model is in force yet")


def of_snapshot(table: Table, window: Window, frame: pl.DataFrame) -> pl.DataFrame:
    """A snapshot's rows, with the columns that say which snapshot they are of, in the table's order."""
    stamped = frame.with_columns(
        period=pl.lit(window.key), as_of=pl.lit(window.as_of, pl.Datetime("us")), is_open=pl.lit(window.is_open)
    )
    return stamped.select(table.schema.names())


def in_batches(frames: Iterable[tuple[str, pl.DataFrame | Iterator[pl.DataFrame]]]) -> Iterator[Batch]:
    """Gather the frames of single partitions into as few batches as memory allows; slices are a batch of their own."""
    keys: list[str] = []
    gathered: list[pl.DataFrame] = []
    for key, frame in frames:
        if not isinstance(frame, pl.DataFrame):
            if gathered:
                yield keys, pl.concat(gathered)
                keys, gathered = [], []
            yield [key], frame
            continue
        if gathered and sum(part.height for part in gathered) + frame.height > MAX_ROWS_AT_ONCE:
            yield keys, pl.concat(gathered)
            keys, gathered = [], []
        keys.append(key)
        gathered.append(frame)
    if gathered:
        yield keys, pl.concat(gathered)
