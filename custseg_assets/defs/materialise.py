"""What every asset does alike: describe its table, check it, write it, and tell Dagster about it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import Examination
from custseg_assets.defs.resources import Stores
from custseg_assets.domain import schemas
from custseg_assets.domain.schemas import Table
from custseg_assets.home.fingerprints import CODE_VERSIONS
from custseg_assets.pictures.look import is_seen
from custseg_assets.stores.tables import fingerprint

OWNERS = ["team:customer-analytics"]
MAX_ROWS_AT_ONCE = 2_000_000
"""How many rows of the log are held at a time; a multiple of the largest month of a mid-sized shop."""

Batch = tuple[Sequence[str], pl.DataFrame]
_TABLE_TYPES = {pl.String(): "text", pl.Float64(): "float", pl.Int64(): "integer", pl.Boolean(): "boolean"}


def spec_of(table: Table, *, group: str, deps: Sequence[dg.AssetDep], kinds: set[str]) -> dg.AssetSpec:
    """How an asset presents itself: description, owner, kinds, code version and columns."""
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
        description=table.description,
        group_name=group,
        owners=OWNERS,
        kinds=kinds,
        code_version=CODE_VERSIONS[table.name],
        deps=deps,
        metadata={"dagster/column_schema": dg.TableSchema(columns=columns)},
    )


def column_lineage(table: Table, features: tuple[str, ...]) -> dg.TableColumnLineage:
    """Which columns each column is computed from; ``table.*`` stands for all of that table's."""
    every = schemas.tables(features)
    return dg.TableColumnLineage(
        {
            column.name: [dg.TableColumnDep(dg.AssetKey(name), field) for name, field in _sources(column, every)]
            for column in table.columns
            if column.lineage
        }
    )


def lineage_in_words(table: Table, features: tuple[str, ...]) -> dg.MarkdownMetadataValue:
    """The same to read, with where each column comes from in the end.

    Dagster stores column lineage everywhere, but its open-source pages do not draw it.
    """
    every = schemas.tables(features)
    lines = ["| column | computed from | and so, in the end, from |", "| --- | --- | --- |"]
    for column in table.columns:
        if column.lineage:
            sources = dict.fromkeys(_sources(column, every))
            origins = dict.fromkeys(origin for source in sources for origin in _origins(*source, every))
            lines.append(f"| {column.name} | {_by_table(sources)} | {_by_table(origins)} |")
    return dg.MetadataValue.md("\n".join(lines))


def _sources(column: schemas.Column, every: Mapping[str, Table]) -> Iterator[tuple[str, str]]:
    """Table and column of what a column is computed from."""
    for source in column.lineage:
        name, _, field = source.partition(".")
        fields = [other.name for other in every[name].columns[1:]] if field == "*" else [field]
        yield from ((name, field) for field in fields)


def _origins(name: str, field: str, every: Mapping[str, Table]) -> Iterator[tuple[str, str]]:
    """The columns a column goes back to that are not computed from others."""
    column = every[name][field]
    if not column.lineage:
        yield name, field
    for source in _sources(column, every):
        yield from _origins(*source, every)


def _by_table(columns: Iterable[tuple[str, str]]) -> str:
    fields: dict[str, list[str]] = {}
    for name, field in columns:
        fields.setdefault(name, []).append(field)
    return "; ".join(f"{name}: {', '.join(names)}" for name, names in fields.items())


def publish(
    context: dg.AssetExecutionContext,
    stores: Stores,
    table: Table,
    batches: Iterable[Batch],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> dg.MaterializeResult[Any]:
    """Check a table's new partitions, write them, and report both.

    Rows that fail a blocking check are written too, for people to look at, but not as up to date: nothing is computed
    from them, and the next run makes them again.

    Args:
        context: of the step.
        stores: where to write.
        table: what is written.
        batches: partition keys with all their rows, one batch at a time in memory.
        metadata: more to show with the materialisation.
    """
    provenance, counts = stores.provenance, dict[str, int]()
    before = {key: stores.tables.fingerprint_of(table.name, key) for key in context.partition_keys}
    versions: dict[str, int] = {}

    def made_from(name: str, key: str) -> int | None:
        # A table may read its own earlier partitions, which are in this very batch and not in the table yet.
        is_here = name == table.name and key in versions
        return versions[key] if is_here else stores.tables.fingerprint_of(name, key)

    examination = Examination(table, stores)
    for keys, frame in batches:
        is_blocked = examination.examine(frame)
        for key in sorted(keys):
            versions[key] = 0 if is_blocked else provenance.made_from(table.name, key, made_from)
        fingerprints = {key: versions[key] for key in keys}
        stores.tables.write(table, frame, fingerprints)
        sizes = dict(frame.group_by("period").len().iter_rows())
        counts.update({key: sizes.get(key, 0) for key in keys})
        context.log.info("%s: %s rows in %s partitions", table.name, f"{frame.height:,}", len(keys))
    for key, n_rows in counts.items():
        context.add_asset_metadata(
            {"dagster/partition_row_count": n_rows, "made_from": f"{versions[key]:x}"},
            asset_key=table.name,
            partition_key=key,
        )
    return dg.MaterializeResult(
        asset_key=table.name,
        metadata={**facts(stores, table), **(metadata or {})},
        data_version=_data_version(context, table.name, before, versions),
        check_results=examination.results(),
    )


def facts(stores: Stores, table: Table) -> dict[str, Any]:
    """What is shown of every table as it stands: rows, version, and which columns its columns are computed from.

    The last is left out where nobody will look.
    """
    return {
        "dagster/row_count": sum(stores.tables.sizes(table).values()),
        "delta_version": stores.tables.version_of(table.name),
        **(_lineage_of(table, stores.settings.model.features) if is_seen() else {}),
    }


def _lineage_of(table: Table, features: tuple[str, ...]) -> dict[str, Any]:
    lineage = column_lineage(table, features)
    words = {"column_lineage": lineage_in_words(table, features)} if lineage.deps_by_column else {}
    return {"dagster/column_lineage": lineage, **words}


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


def in_batches(frames: Iterable[tuple[str, pl.DataFrame]]) -> Iterator[Batch]:
    """Gather the frames of single partitions into as few batches as memory allows."""
    keys: list[str] = []
    gathered: list[pl.DataFrame] = []
    for key, frame in frames:
        if gathered and sum(part.height for part in gathered) + frame.height > MAX_ROWS_AT_ONCE:
            yield keys, pl.concat(gathered)
            keys, gathered = [], []
        keys.append(key)
        gathered.append(frame)
    if gathered:
        yield keys, pl.concat(gathered)


def key_batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Gather partition keys, with how many rows each has, into batches that memory allows."""
    keys: list[str] = []
    n_rows = 0
    for key, size in sizes.items():
        if keys and n_rows + size > MAX_ROWS_AT_ONCE:
            yield keys
            keys, n_rows = [], 0
        keys.append(key)
        n_rows += size
    if keys:
        yield keys


def picture(name: str, png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that the UI shows as a picture."""
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")


def bullets(sentences: Sequence[str]) -> dg.MarkdownMetadataValue:
    """Sentences as a list."""
    return dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in sentences))


def table_preview(frame: pl.DataFrame, n_rows: int = 12) -> dg.MarkdownMetadataValue:
    """The first rows of a small table as Markdown."""
    shown = frame.head(n_rows)
    lines = [" | ".join(shown.columns), " | ".join("---" for _ in shown.columns)]
    lines += [" | ".join(_cell(value) for value in row) for row in shown.iter_rows()]
    return dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))


def in_words(sentences: pl.Expr) -> pl.Expr:
    """A column of JSON lists of sentences as text."""
    return sentences.str.json_decode(pl.List(pl.String)).list.join("; ")


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
