"""A BigQuery table as a source: its mapped columns, read by one query into the store of deliveries.

The query names the mapped columns only, skips lines before ``[gcp.bigquery] since``, and may bill no more than is
configured; how much it would read is reported before it runs. A table that has not changed is not read again. Writing
to BigQuery belongs in ``bigquery_publish``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import uuid
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from google.cloud import bigquery

from custseg_assets.errors import BadInputError
from custseg_assets.gcp.bigquery import (
    GIB,
    PAGE_ROWS,
    BigQuery,
    TableName,
    explain_errors,
    format_size,
    table_name,
)
from custseg_assets.gcp.bigquery_results import fetch_batches
from custseg_assets.settings import GcpBigQuerySettings, Settings
from custseg_assets.stores.columns import ColumnMapping, map_columns
from custseg_assets.stores.deliveries import DeliveryStore, identity_of
from custseg_assets.stores.delivery import Delivery
from custseg_assets.stores.raw_table import SOURCE_ROW
from custseg_assets.stores.sources import Progress, SourceFile, describe_mapping
from custseg_assets.stores.values import plain_columns, type_lines

_READER = 1
"""Version of this reader; another version makes every table a new delivery."""

_NUMBERS = ("quantity", "unit_price", "line_amount")
_DECIMALS = ("NUMERIC", "BIGNUMERIC")
_INSTANTS = ("DATE", "DATETIME", "TIMESTAMP")
_PLAIN = ("STRING", "INTEGER", "INT64", "FLOAT", "FLOAT64", "BOOLEAN", "BOOL", *_DECIMALS, *_INSTANTS)


def accept_table(
    deliveries: DeliveryStore, source: str, settings: Settings, progress: Progress, connection: BigQuery | None = None
) -> Delivery:
    """Read a table into the store of deliveries, unless its present version is there already.

    Args:
        deliveries: the store.
        source: ``bq://project.dataset.table``.
        settings: how the table is read, and how much may be billed.
        progress: takes lines about the mapping and the size of the query.
        connection: a connection to use; a new one without it.

    Raises:
        BadInputError: the table has no such columns, or reading it would cost more than is allowed.
        BigQueryError: the table cannot be reached or read.
    """
    name = table_name(source)
    with_project = settings.gcp if settings.gcp.project else settings.gcp.model_copy(update={"project": name.project})
    bq = connection or BigQuery(with_project)
    with explain_errors(f"reading {name}"):
        table = bq.client.get_table(str(name), retry=bq.retry)
    mapping = map_columns([field.name for field in table.schema], settings.source, str(name))
    sql = query_of(name, table.schema, mapping, settings)

    def read(scratch: Path) -> SourceFile:
        _download_rows(bq, sql, name, scratch / "rows.parquet", progress)
        raw = pl.scan_parquet(scratch / "rows.parquet", glob=False).with_row_index(SOURCE_ROW, offset=1)
        plain = plain_columns(raw.collect_schema(), {column: [column] for column in mapping.sources}, str(name))
        typed = type_lines(raw.select(plain), mapping, settings.source, str(name))
        progress(describe_mapping(str(name), mapping, typed.conventions))
        for note in typed.notes:
            progress(f"  {note}")
        return SourceFile(str(name), mapping, "", typed.lines, typed.notes)

    reading = json.dumps(identity_of(settings.source), separators=(",", ":"), ensure_ascii=False)
    return deliveries.accept_lines(str(name), f"{_READER} {sql} {reading} {_version_of(table)}", read)


def _version_of(table: bigquery.Table) -> str:
    """A text that changes when the rows of the table change."""
    if table.table_type != "TABLE":
        # BigQuery does not say when the tables behind a view change. Reading it again changes nothing: equal lines
        # have equal digests.
        return uuid.uuid4().hex
    waiting = table.streaming_buffer.estimated_rows if table.streaming_buffer else 0
    return f"{table.etag} {table.modified} {table.num_rows} {waiting}"


def query_of(name: TableName, schema: list[bigquery.SchemaField], mapping: ColumnMapping, settings: Settings) -> str:
    """The SQL query for the mapped columns, each under its mapped name.

    Raises:
        BadInputError: a column does not have single values, or ``since`` is set and the column has no dates.
    """
    types = {field.name: field.field_type if field.mode != "REPEATED" else "ARRAY" for field in schema}
    bigquery_settings = settings.gcp.bigquery
    time_zone = settings.source.time_zone or bigquery_settings.time_zone
    several = next((headers for headers in mapping.sources.values() if len(headers) > 1), None)
    if several:
        raise BadInputError(
            f"{name}: {', '.join(several)} for one column", "one column of the table", "Make a view that joins them."
        )
    sources = {column: header for column, (header,) in mapping.sources.items()}
    for column, header in sources.items():
        if types[header] not in _PLAIN:
            raise BadInputError(
                f"{name}: column {header!r} for {column} is {types[header]}",
                "single values",
                "Map another column, or make a view that has it as text.",
            )
    columns = [
        f"{_expression(column, header, types[header], time_zone)} AS `{column}`" for column, header in sources.items()
    ]
    since = ""
    if bigquery_settings.since:
        header = mapping.columns["invoiced_at"]
        if types[header] not in _INSTANTS:
            raise BadInputError(
                f"[gcp.bigquery] since, but {name} has {header!r} as {types[header]}",
                f"a column of type {', '.join(_INSTANTS)}",
                "Leave since out, or make a view with the column as DATETIME.",
            )
        # BigQuery skips partitions of the table only if the bare column stands on the left.
        since = f" WHERE `{header}` >= {_first_instant(types[header], bigquery_settings, time_zone)}"
    return f"SELECT {', '.join(columns)} FROM `{name}`{since}"  # noqa: S608  (names of a schema, checked settings)


def _first_instant(kind: str, settings: GcpBigQuerySettings, time_zone: str) -> str:
    """The first instant of ``since``, as a SQL value of the column's type."""
    if kind == "TIMESTAMP":
        return f"TIMESTAMP('{settings.since}', '{time_zone}')"
    return f"{kind} '{settings.since}'"


def _expression(column: str, header: str, kind: str, time_zone: str) -> str:
    if kind in _DECIMALS:
        return f"CAST(`{header}` AS {'FLOAT64' if column in _NUMBERS else 'STRING'})"
    if kind == "TIMESTAMP" and column == "invoiced_at":
        # A timestamp is in UTC; the day that counts is the shop's.
        return f"DATETIME(`{header}`, '{time_zone}')"
    return f"`{header}`"


def _download_rows(bq: BigQuery, sql: str, name: TableName, path: Path, progress: Progress) -> None:
    """Run the query and write its rows to a Parquet file, about a page at a time."""
    limit = int(bq.settings.bigquery.maximum_gib_billed * GIB)
    with explain_errors(f"reading {name}"):
        estimate = bq.client.query(
            sql, bigquery.QueryJobConfig(dry_run=True, use_query_cache=False), retry=bq.retry
        ).total_bytes_processed
        progress(f"{name}: the query reads {format_size(estimate)}; {format_size(limit)} may be billed")
        if estimate > limit:
            raise BadInputError(
                f"reading {name} would bill {format_size(estimate)}",
                f"at most {format_size(limit)}, as [gcp.bigquery] maximum_gib_billed says",
                "Raise it, or read less with [gcp.bigquery] since.",
            )
        job = bq.client.query(
            sql, bigquery.QueryJobConfig(maximum_bytes_billed=limit, labels={"app": "custseg"}), retry=bq.retry
        )
        rows = job.result(page_size=PAGE_ROWS, retry=bq.retry)
        if not rows.total_rows:
            raise BadInputError(f"{name} has no rows to read", "data rows", "Correct --source or [gcp.bigquery] since.")
        with contextlib.closing(fetch_batches(bq, job, rows, progress)) as batches:
            first = next(batches)
            with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
                for batch in itertools.chain([first], batches):
                    writer.write_batch(batch)
