"""Publishing tables to BigQuery: one load job replaces one partition, and doing it again changes nothing.

A load job with ``WRITE_TRUNCATE`` on a partition's decorator replaces that partition as a whole or not at all. Its id
is made from what it loads, so a retry after a crash or a cut connection finds the job instead of starting a second
one. A snapshot is announced in ``published_snapshots`` after everything of it has been loaded; the views show announced
ones only.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import polars as pl
from google.api_core import exceptions
from google.cloud import bigquery

from custseg_assets.domain.schemas import Column, Table
from custseg_assets.gcp.bigquery import BigQuery, BigQueryError, explained
from custseg_assets.stores.publications import Publications

Say = Callable[[str], None]

ANNOUNCEMENTS = Table(
    "published_snapshots",
    "One row per snapshot of which everything is published.",
    (
        Column("period", pl.String(), "Partition key: first day of the snapshot's last period."),
        Column("data_version", pl.String(), "Digest of everything that was published of it."),
    ),
)
MAX_ATTEMPTS = 5
"""How often a load with the same content is tried before somebody has to look."""

_TYPES: Mapping[pl.DataType, str] = {
    pl.String(): "STRING",
    pl.Float64(): "FLOAT64",
    pl.Int64(): "INT64",
    pl.Boolean(): "BOOL",
    pl.Datetime("us"): "DATETIME",
    pl.Date(): "DATE",
}
_SAME = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
_NEVER = "0001-01-01"
_CLUSTERED_BY = ("segment_id", "customer_id")


@dataclass(frozen=True)
class Part:
    """A partition to publish.

    Attributes:
        table: the table's declaration.
        key: the partition's.
        fingerprint: of what it was made from; ``None`` where it is gone and has to go there, too.
        read: gives its rows.
    """

    table: Table
    key: str
    fingerprint: int | None
    read: Callable[[], pl.DataFrame]


class Publisher:
    """Publishes to the configured dataset.

    Args:
        connection: with a dataset configured.
        record: what was published before.
        say: takes each line of progress.
    """

    def __init__(self, connection: BigQuery, record: Publications, say: Say) -> None:
        self._bq, self._record, self._say = connection, record, say
        self._dataset = f"{connection.project}.{connection.settings.bigquery.dataset}"

    def publish(self, parts: Sequence[Part], *, announce: bool = True) -> int:
        """Bring partitions up to date and announce their snapshots.

        Args:
            parts: everything of the snapshots concerned, also what has not changed.
            announce: whether they are snapshots.

        Returns:
            How many partitions were loaded or removed; 0 where everything was there.

        Raises:
            BigQueryError: something was refused or cannot be reached; no snapshot is announced whose parts are not all
                there, and running it again goes on where it stopped.
        """
        there = {table.name: self._prepared(table) for table in _tables_of(parts)}
        due = [part for part in parts if self._is_due(part, there[part.table.name])]
        for part in due:
            self._bring(part, there[part.table.name])
        if announce:
            snapshots = [_announcement(key, [part for part in parts if part.key == key]) for key in _keys_of(parts)]
            self.publish(snapshots, announce=False)
        return len(due)

    def make_views(self, tables: Iterable[Table], newest: str | None) -> tuple[str, ...]:
        """Make the views for the dashboard, or bring their queries up to date.

        Args:
            tables: every table that is published, now or later; a view on others is not made.
            newest: key of the newest snapshot that is announced.

        Returns:
            The views' names.
        """
        known = {table.name for table in (*tables, ANNOUNCEMENTS)}
        for table in (*tables, ANNOUNCEMENTS):
            self._prepared(table)
        names = []
        for name, sql in view_queries(self._dataset, newest).items():
            if not {read for _, read in re.findall(r"`([\w.-]+)\.(\w+)`", sql)} <= known:
                continue
            wanted = bigquery.Table(f"{self._dataset}.{name}")
            wanted.view_query = sql
            with explained(f"making the view {self._dataset}.{name}"):
                try:
                    found = self._bq.client.get_table(wanted.reference, retry=self._bq.retry)
                except exceptions.NotFound:
                    self._bq.client.create_table(wanted, exists_ok=True, retry=self._bq.retry)
                else:
                    if found.view_query != sql:
                        found.view_query = sql
                        self._bq.client.update_table(found, ["view_query"], retry=self._bq.retry)
            names.append(name)
        return tuple(names)

    def _prepared(self, table: Table) -> bigquery.Table:
        """The table as it is there, made where it is missing.

        Raises:
            BigQueryError: a column has another type there.
        """
        wanted = bigquery.Table(f"{self._dataset}.{table.name}", schema=[_field(column) for column in table.columns])
        wanted.time_partitioning = bigquery.TimePartitioning(field="period")
        wanted.clustering_fields = [name for name in _CLUSTERED_BY if name in table.schema] or None
        wanted.description = table.description
        with explained(f"preparing {self._dataset}.{table.name}"):
            found = self._bq.client.create_table(wanted, exists_ok=True, retry=self._bq.retry)
        types = {field.name: _SAME.get(field.field_type, field.field_type) for field in found.schema}
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

    def _is_due(self, part: Part, there: bigquery.Table) -> bool:
        name = part.table.name
        is_same_table = self._record.created(name) == str(there.created)
        known = self._record.of(name).get(part.key) if is_same_table else None
        return known != part.fingerprint

    def _bring(self, part: Part, there: bigquery.Table) -> None:
        target = f"{self._dataset}.{part.table.name}${part.key.replace('-', '')}"
        if part.fingerprint is None:
            with explained(f"removing {target}"):
                self._bq.client.delete_table(target, not_found_ok=True, retry=self._bq.retry)
        else:
            self._load(part, there, target)
        self._record.note(part.table.name, part.key, part.fingerprint, str(there.created))
        self._say(f"BigQuery: {target}")

    def _load(self, part: Part, there: bigquery.Table, target: str) -> None:
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
        for attempt in range(MAX_ATTEMPTS):
            job_id = self._job_id(part, there, attempt)
            with explained(f"loading {target}"):
                job = self._found(job_id, there.location)
                is_new = job is None
                job = self._ended(job or self._started(content, target, config, job_id, there.location))
            if job.error_result is None:
                return
            if is_new:
                raise BigQueryError(
                    f"loading {target}: {job.error_result['message']} The partition is as it was and its snapshot is "
                    f"not announced; the errors are in job {job_id}. Run it again when their cause is gone."
                )
        raise BigQueryError(f"loading {target} has failed {MAX_ATTEMPTS} times, last in job {job_id}; see its errors.")

    def _found(self, job_id: str, location: str) -> bigquery.LoadJob | None:
        try:
            return self._bq.client.get_job(job_id, location=location, retry=self._bq.retry)
        except exceptions.NotFound:
            return None

    def _started(
        self, content: io.BytesIO, target: str, config: bigquery.LoadJobConfig, job_id: str, location: str
    ) -> bigquery.LoadJob:
        size = content.getbuffer().nbytes
        try:
            return self._bq.client.load_table_from_file(
                content, target, rewind=True, size=size, job_config=config, job_id=job_id, location=location
            )
        except exceptions.Conflict:
            # The request had arrived although its answer was lost.
            return self._bq.client.get_job(job_id, location=location, retry=self._bq.retry)

    def _ended(self, job: bigquery.LoadJob) -> bigquery.LoadJob:
        try:
            job.result(retry=self._bq.retry)
        except exceptions.GoogleAPICallError:
            if job.error_result is None:
                raise
        return job

    def _job_id(self, part: Part, there: bigquery.Table, attempt: int) -> str:
        """Equal for a retry, another after something else was published in between or the table was made anew."""
        name = part.table.name
        state = [str(there.created), self._record.n_before(name), attempt]
        digest = hashlib.sha256(repr(state).encode()).hexdigest()[:8]
        return f"custseg-{name}-{part.key}-{part.fingerprint:x}-{digest}"


def _tables_of(parts: Iterable[Part]) -> list[Table]:
    return list({part.table.name: part.table for part in parts}.values())


def _keys_of(parts: Iterable[Part]) -> list[str]:
    return sorted({part.key for part in parts})


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
    """The views' names and queries.

    Args:
        dataset: ``project.dataset``.
        newest: key of the newest snapshot that is announced; the views of the newest are empty without one.
    """
    folder = importlib.resources.files("custseg_assets.gcp").joinpath("views")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        .replace("{dataset}", dataset)
        .replace("{newest}", newest or _NEVER)
        for file in files
    }


def looker_url(project: str, dataset: str, report: str | None) -> str:
    """A link that opens a Looker Studio report on the published views.

    Without a template the link makes a report with one source, the segments over time, for Looker's own start page. A
    template has a data source with the alias of each view (``docs/gcp.md``); the link points them all at this dataset.

    Source: https://developers.google.com/looker-studio/integrate/linking-api
    """
    views = list(view_queries(f"{project}.{dataset}"))
    sources = {name: name for name in views} if report else {"ds0": "segments_over_time"}
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
