"""Publish tables to BigQuery: one load job replaces one partition, and publishing again changes nothing.

A load job with ``WRITE_TRUNCATE`` on a partition's decorator replaces that partition as a whole or not at all. Its id
is made from what it loads and from the state of the table before, so a retry after a lost answer finds the job
instead of starting a second one. A table that is not as this home left it was written to by another home or a person:
then all of it is published again, and partitions that this home does not have are removed, so the table is that of
the last publisher. A label on the table names that home; it is changed only if nobody changed the table meanwhile, and
looked at after every load, so a home notices that another one publishes at the same time. A snapshot is announced in
``published_snapshots`` when all its tables have been loaded; the views show announced snapshots only. Which tables are
published does not belong here but in ``home.plan``.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast
from urllib.parse import urlencode

import polars as pl
from google.api_core import exceptions
from google.cloud import bigquery

from custseg_assets.domain.schemas import Column, Table
from custseg_assets.gcp.bigquery import BUSY, BigQuery, BigQueryError, explain_errors, waits_when_busy
from custseg_assets.stores.publications import UNKNOWN, Part, Publications
from custseg_assets.stores.sources import Progress

ANNOUNCEMENTS = Table(
    "published_snapshots",
    "One row per snapshot of which everything is published.",
    (
        Column("period", pl.String(), "Partition key: first day of the snapshot's last period."),
        Column("data_version", pl.String(), "Digest of everything that was published of it."),
    ),
)
MAX_ATTEMPTS = 5
"""How often a load with the same content is refused before a person has to look."""

_TYPES: Mapping[pl.DataType, str] = {
    pl.String(): "STRING",
    pl.Float64(): "FLOAT64",
    pl.Int64(): "INT64",
    pl.Boolean(): "BOOL",
    pl.Datetime("us"): "DATETIME",
    pl.Date(): "DATE",
}
_ALIASES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
_BEFORE_ALL_PERIODS = "0001-01-01"
_CLUSTERED_BY = ("segment_id", "customer_id")
_REPORTED = (
    "current_segments",
    "customer_segments",
    "drift_over_time",
    "segment_moves",
    "segments_over_time",
    "service_requests",
)
"""The views that a template report of Looker Studio has data sources of; one more would break templates that exist."""
_HOME = "custseg-home"
"""Label that names the home whose table it is."""


class Publisher:
    """Publishes tables to the configured dataset.

    Args:
        connection: with a dataset configured.
        publications: the record of what was published before.
        progress: takes a line for each partition that was loaded or removed.
        sleep: waits; for tests.
    """

    def __init__(
        self,
        connection: BigQuery,
        publications: Publications,
        progress: Progress,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bq, self._publications, self._progress, self._sleep = connection, publications, progress, sleep
        self._dataset = f"{connection.project}.{connection.settings.bigquery.dataset}"

    def publish(self, parts: Sequence[Part], *, tables: Sequence[Table] = (), announce: bool = True) -> int:
        """Bring partitions up to date and announce each snapshot when all of it is there.

        Args:
            parts: all partitions of the snapshots concerned, also those that have not changed.
            tables: published, too, where no part is of them.
            announce: whether the parts belong to snapshots, which are announced.

        Returns:
            How many partitions were loaded or removed; 0 if all were up to date.

        Raises:
            BigQueryError: a request was refused or BigQuery cannot be reached. A snapshot with missing parts is not
                announced; publishing again goes on where it stopped.
        """
        every = {table.name: table for table in (*tables, *(part.table for part in parts))}
        every |= {ANNOUNCEMENTS.name: ANNOUNCEMENTS} if announce else {}
        there = {name: self._take_over_if_changed(self._prepare_table(table)) for name, table in every.items()}
        whole = [*parts, *self._leftovers(parts, every)]
        n_published = 0
        # One snapshot after the other, so that no table has many changes in a row: BigQuery limits them.
        for key in sorted({part.key for part in whole}):
            of_key = [part for part in whole if part.key == key]
            due = [part for part in of_key if self._is_due(part)]
            announced = [_announcement(key, of_key)] if announce else []
            for part in (*due, *(part for part in announced if self._is_due(part))):
                there[part.table.name] = self._publish_part(part, there[part.table.name])
            n_published += sum(part.table is not ANNOUNCEMENTS for part in due)
        return n_published

    def _take_over_if_changed(self, table: bigquery.Table) -> bigquery.Table:
        """Make a table this home's that is not as it left it; returns it as it is then.

        What was published of it is forgotten, and what partitions it has is recorded.

        Raises:
            BigQueryError: somebody changed the table since it was read.
        """
        if self._publications.state(table.table_id) == _state_of(table) and self._is_mine(table):
            return table
        keys: list[str] = []
        if table.num_rows:
            sql = f"SELECT DISTINCT period FROM `{self._dataset}.{table.table_id}` WHERE period IS NOT NULL"  # noqa: S608
            with explain_errors(f"looking what {self._dataset}.{table.table_id} has"):
                found = self._bq.client.query(sql, retry=self._bq.retry).result(retry=self._bq.retry)
                keys = sorted(row["period"].isoformat() for row in found)
            self._progress(
                f"BigQuery: {self._dataset}.{table.table_id} is not as this home left it; all of it is published again"
            )
        mine = table if self._is_mine(table) else self._claim(table)
        self._publications.take_over(table.table_id, keys, _state_of(mine))
        return mine

    def _claim(self, table: bigquery.Table) -> bigquery.Table:
        table.labels = {**table.labels, _HOME: self._publications.home}
        with explain_errors(f"taking {self._dataset}.{table.table_id} over"):
            try:
                # With the etag that was read: what another home has loaded since is not taken for what was there.
                return self._bq.client.update_table(table, ["labels"], retry=self._bq.retry)
            except exceptions.PreconditionFailed:
                # The request had arrived although its answer was lost, or somebody has changed the table.
                found = self._bq.client.get_table(table.reference, retry=self._bq.retry)
        self._require_mine(found)
        return found

    def _is_mine(self, table: bigquery.Table) -> bool:
        home: str | None = table.labels.get(_HOME)
        return home == self._publications.home

    def _require_mine(self, table: bigquery.Table) -> None:
        if not self._is_mine(table):
            raise BigQueryError(
                f"{self._dataset}.{table.table_id} is being published to by another home at the same time; expected "
                "one home. Stop one of them, then run this again: it publishes all of its own."
            )

    def _leftovers(self, parts: Sequence[Part], tables: Mapping[str, Table]) -> list[Part]:
        """Partitions that somebody else published and that are to be removed, because no part is of them."""
        mine = {(part.table.name, part.key) for part in parts} | {(ANNOUNCEMENTS.name, part.key) for part in parts}
        return [
            Part(table, key, None, pl.DataFrame)
            for name, table in tables.items()
            for key, known in self._publications.of(name).items()
            if known == UNKNOWN and (name, key) not in mine
        ]

    def make_views(self, tables: Iterable[Table], newest: str | None) -> tuple[str, ...]:
        """Create the views for the dashboard, or update their queries.

        Args:
            tables: all tables that are ever published; a view on other tables is not created.
            newest: key of the newest announced snapshot.

        Returns:
            The views' names.
        """
        known = {table.name for table in (*tables, ANNOUNCEMENTS)}
        for table in (*tables, ANNOUNCEMENTS):
            self._prepare_table(table)
        names = []
        for name, sql in view_queries(self._dataset, newest).items():
            if not {read for _, read in re.findall(r"`([\w.-]+)\.(\w+)`", sql)} <= known:
                continue
            wanted = bigquery.Table(f"{self._dataset}.{name}")
            wanted.view_query = sql
            with explain_errors(f"making the view {self._dataset}.{name}"):
                try:
                    found = self._bq.client.get_table(wanted.reference, retry=self._bq.retry)
                except exceptions.NotFound:
                    self._bq.client.create_table(wanted, exists_ok=True, retry=self._bq.retry)
                else:
                    self._change_view(found, sql)
            names.append(name)
        return tuple(names)

    def _change_view(self, view: bigquery.Table, sql: str) -> None:
        if view.view_query == sql:
            return
        view.view_query = sql
        try:
            self._bq.client.update_table(view, ["view_query"], retry=self._bq.retry)
        except exceptions.PreconditionFailed:
            # The request had arrived although its answer was lost.
            if self._bq.client.get_table(view.reference, retry=self._bq.retry).view_query != sql:
                raise

    def _prepare_table(self, table: Table) -> bigquery.Table:
        """The table in BigQuery, created if it is missing.

        Raises:
            BigQueryError: the existing table has a column of another type, or is not partitioned by period.
        """
        wanted = bigquery.Table(f"{self._dataset}.{table.name}", schema=[_field(column) for column in table.columns])
        wanted.time_partitioning = bigquery.TimePartitioning(field="period")
        wanted.clustering_fields = [name for name in _CLUSTERED_BY if name in table.schema] or None
        wanted.description = table.description
        wanted.labels = {_HOME: self._publications.home}
        with explain_errors(f"preparing {self._dataset}.{table.name}"):
            found = self._bq.client.create_table(wanted, exists_ok=True, retry=self._bq.retry)
        types = {field.name: _ALIASES.get(field.field_type, field.field_type) for field in found.schema}
        for field in wanted.schema:
            before = types.get(field.name, field.field_type)
            if before != field.field_type:
                raise BigQueryError(
                    f"{self._dataset}.{table.name} has {field.name} as {before}; expected {field.field_type}. Rename "
                    "or delete that table, or name another [gcp.bigquery] dataset; nothing was changed."
                )
        if found.time_partitioning is None or found.time_partitioning.field != "period":
            raise BigQueryError(
                f"{self._dataset}.{table.name} is not partitioned by period. Rename or delete that table, or name "
                "another [gcp.bigquery] dataset; nothing was changed."
            )
        return found

    def _is_due(self, part: Part) -> bool:
        return self._publications.of(part.table.name).get(part.key) != part.fingerprint

    def _publish_part(self, part: Part, there: bigquery.Table) -> bigquery.Table:
        """Load or remove a partition; returns the table as it is then."""
        target = f"{self._dataset}.{part.table.name}${part.key.replace('-', '')}"
        if part.fingerprint is None:
            with explain_errors(f"removing {target}"):
                self._bq.client.delete_table(target, not_found_ok=True, retry=self._bq.retry)
        else:
            self._load_part(part, there, target)
        with explain_errors(f"looking at {self._dataset}.{part.table.name}"):
            changed = self._bq.client.get_table(there.reference, retry=self._bq.retry)
        if _HOME in changed.labels:
            self._require_mine(changed)
        self._publications.note(part.table.name, part.key, part.fingerprint, _state_of(changed))
        self._progress(f"BigQuery: {target}")
        return changed

    def _load_part(self, part: Part, there: bigquery.Table, target: str) -> None:
        rows = part.read().with_columns(pl.col("period").str.to_date())
        content = io.BytesIO()
        rows.write_parquet(content)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=_with_new_columns(there, part.table),
            schema_update_options=[bigquery.SchemaUpdateOption.ALLOW_FIELD_ADDITION],
            labels={"app": "custseg"},
        )
        n_refused, waits = 0, waits_when_busy()
        for attempt in itertools.count():
            job_id = _job_id(part, there, attempt)
            with explain_errors(f"loading {target}"):
                job = self._find_job(job_id, there.location)
                is_new = job is None
                job = self._wait_for(job or self._start_job(content, target, config, job_id, there.location))
            error = job.error_result
            if error is None:
                return
            is_busy = error.get("reason") in BUSY
            wait = next(waits, None) if is_busy and is_new else 0.0
            n_refused += not is_busy
            if (is_new and not is_busy) or wait is None:
                raise BigQueryError(
                    f"loading {target}: {error['message']} The partition is as it was and its snapshot is not "
                    f"announced; the errors are in job {job_id}. Run it again when their cause is gone."
                )
            if n_refused == MAX_ATTEMPTS:
                raise BigQueryError(
                    f"loading {target} has failed {MAX_ATTEMPTS} times, last in job {job_id}; see its errors."
                )
            self._sleep(wait)

    def _find_job(self, job_id: str, location: str) -> bigquery.LoadJob | None:
        try:
            return self._get_job(job_id, location)
        except exceptions.NotFound:
            return None

    def _start_job(
        self, content: io.BytesIO, target: str, config: bigquery.LoadJobConfig, job_id: str, location: str
    ) -> bigquery.LoadJob:
        size = content.getbuffer().nbytes
        try:
            return self._bq.client.load_table_from_file(
                content, target, rewind=True, size=size, job_config=config, job_id=job_id, location=location
            )
        except exceptions.Conflict:
            # The request had arrived although its answer was lost.
            return self._get_job(job_id, location)

    def _get_job(self, job_id: str, location: str) -> bigquery.LoadJob:
        return cast("bigquery.LoadJob", self._bq.client.get_job(job_id, location=location, retry=self._bq.retry))

    def _wait_for(self, job: bigquery.LoadJob) -> bigquery.LoadJob:
        try:
            job.result(retry=self._bq.retry)
        except exceptions.GoogleAPICallError:
            if job.error_result is None:
                raise
        return job


def _state_of(table: bigquery.Table) -> str:
    """When a table was made and when it was last changed: whatever is done to its rows by anybody changes this."""
    return f"{table.created} {table.modified}"


def _job_id(part: Part, there: bigquery.Table, attempt: int) -> str:
    """A job id that is equal for a retry, and new where the table has been changed in between."""
    digest = hashlib.sha256(repr([_state_of(there), attempt]).encode()).hexdigest()[:16]
    return f"custseg-{part.table.name}-{part.key}-{part.fingerprint:x}-{digest}"


def _announcement(key: str, parts: Sequence[Part]) -> Part:
    published = sorted((part.table.name, part.fingerprint) for part in parts if part.fingerprint is not None)
    digest = int.from_bytes(hashlib.sha256(repr(published).encode()).digest()[:7], "big")
    rows = pl.DataFrame({"period": [key], "data_version": [f"{digest:x}"]}, schema=ANNOUNCEMENTS.schema)
    return Part(ANNOUNCEMENTS, key, digest if published else None, lambda: rows)


def _field(column: Column) -> bigquery.SchemaField:
    kind = "DATE" if column.name == "period" else _TYPES[column.dtype]
    # Never REQUIRED: a column of that mode can neither be added to a table nor be missing from a file.
    return bigquery.SchemaField(column.name, kind, "NULLABLE", description=column.description)


def _with_new_columns(there: bigquery.Table, table: Table) -> list[bigquery.SchemaField]:
    known = {field.name for field in there.schema}
    return [*there.schema, *(_field(column) for column in table.columns if column.name not in known)]


def view_queries(dataset: str, newest: str | None = None) -> dict[str, str]:
    """SQL queries of the views, by name.

    Args:
        dataset: ``project.dataset``.
        newest: key of the newest announced snapshot; without one, views of the newest snapshot are empty.
    """
    folder = importlib.resources.files("custseg_assets.gcp").joinpath("views")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        .replace("{dataset}", dataset)
        .replace("{newest}", newest or _BEFORE_ALL_PERIODS)
        for file in files
    }


def looker_url(project: str, dataset: str, report: str | None) -> str:
    """A link that opens a Looker Studio report on the published views.

    Without a template report, the link creates a report with one data source, the segments over time. A template has a
    data source with the alias of each of six views (``docs/gcp.md``); the link points all of them to this dataset.

    Source: https://developers.google.com/looker-studio/integrate/linking-api
    """
    sources = {name: name for name in _REPORTED} if report else {"ds0": "segments_over_time"}
    parameters = {"c.reportId": report, "c.mode": "view"} if report else {"c.mode": "edit"}
    parameters["r.reportName"] = "Customer segments"
    for alias, view in sources.items():
        parameters |= {
            f"ds.{alias}.connector": "bigQuery",
            f"ds.{alias}.datasourceName": view,
            f"ds.{alias}.type": "TABLE",
            f"ds.{alias}.projectId": project,
            f"ds.{alias}.datasetId": dataset,
            f"ds.{alias}.tableId": view,
        }
    return f"https://lookerstudio.google.com/reporting/create?{urlencode(parameters)}"
