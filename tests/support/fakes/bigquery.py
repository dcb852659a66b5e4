"""A fake of the BigQuery REST API, version 2, on loopback.

It speaks what the real client asks for: tables, jobs (query, dry run, load by multipart and resumable upload), query
results and table data with paging. SQL is parsed as BigQuery's by sqlglot and run by DuckDB. What the real service
refuses it refuses, with its error bodies; a job whose data are refused changes nothing.
"""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import duckdb
import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType

from tests.support.fakes.clock import now, pass_time
from tests.support.fakes.service import Answer, FakeService, Refused, Request, answer_json

_STATUS = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ALREADY_EXISTS"}
_STATUS |= {412: "FAILED_PRECONDITION", 503: "UNAVAILABLE"}
_NAME = re.compile(r"[A-Za-z0-9_]{1,1024}")
_PARTITION = re.compile(r"(?P<table>[A-Za-z0-9_]+)(\$(?P<day>\d{8}))?")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,1024}")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TYPES: Mapping[str, pl.DataType] = {
    "STRING": pl.String(),
    "INTEGER": pl.Int64(),
    "FLOAT": pl.Float64(),
    "BOOLEAN": pl.Boolean(),
    "DATE": pl.Date(),
    "DATETIME": pl.Datetime("us"),
    "TIMESTAMP": pl.Datetime("us", "UTC"),
    "NUMERIC": pl.Decimal(38, 9),
}
_ALIASES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_LEAST_BILLED = 10 << 20
_MOST_UPDATES, _UPDATE_SECONDS = 5, 10.0
_LOAD_SECONDS = 1.0
_FAILS_EVERY = 7
_RESULTS = "_results"
"""The dataset of results, which nobody but the services sees."""
_FOR_NO_FAULT = ("backendError", "internalError", "rateLimitExceeded")


@dataclass
class _Table:
    resource: dict[str, Any]
    rows: pl.DataFrame

    @property
    def fields(self) -> list[dict[str, Any]]:
        return self.resource["schema"]["fields"]


@dataclass
class _Job:
    resource: dict[str, Any]
    rows: pl.DataFrame | None = None
    content: bytes | None = None
    is_waiting: bool = True
    polls_left: int = 0


@dataclass
class _Upload:
    resource: dict[str, Any]
    content: bytearray = field(default_factory=bytearray)
    answer: Answer | None = None


class FakeBigQuery(FakeService):
    """The service; ``with FakeBigQuery("shop") as fake`` starts and stops it.

    Args:
        project: the project whose data it holds; others cannot be reached.
        location: of its datasets.

    Attributes:
        reject_loads_of: tables whose next load is refused as a whole because of one bad row.
        fail_loads: reasons with which the next loads fail for no fault of theirs, such as ``backendError``.
        fails_every: every how manieth load fails so in any case; 0 for none.
        polls_until_done: how often a job says RUNNING first.
        runs_jobs: whether jobs that are not dry runs get anything done; those that wait are run when it is true again.
        billed: bytes billed of every query that ran.
    """

    discovery = "bigquery.v2"

    def __init__(self, project: str, location: str = "EU") -> None:
        super().__init__()
        self.project, self.location = project, location
        self.datasets: dict[str, dict[str, _Table]] = {}
        self.jobs: dict[str, _Job] = {}
        self.reject_loads_of: set[str] = set()
        self.fail_loads: list[str] = []
        self.fails_every = _FAILS_EVERY
        self._n_runs = 0
        self._updates: dict[str, list[float]] = {}
        self.polls_until_done = 0
        self.runs_jobs = True
        self.page_rows = 1_000
        self.billed: list[int] = []
        self._uploads: dict[str, _Upload] = {}
        self._counter = itertools.count(1)

    # What a test puts in and looks at.

    def add_dataset(self, name: str) -> None:
        self.datasets[name] = {}

    def add_table(self, name: str, frame: pl.DataFrame, types: Mapping[str, str] | None = None, **more: Any) -> None:
        """Put a table there as if it had been loaded: ``dataset.table``, its rows, BigQuery types that differ."""
        dataset, table = name.split(".")
        self.datasets.setdefault(dataset, {})
        of = {dtype: kind for kind, dtype in _TYPES.items()}
        kinds = {column: of[dtype] for column, dtype in frame.schema.items()} | dict(types or {})
        fields = [{"name": column, "type": kind, "mode": "NULLABLE"} for column, kind in kinds.items()]
        self._insert_table(dataset, {"tableReference": {"tableId": table}, "schema": {"fields": fields}, **more})
        self._replace_rows(self.datasets[dataset][table], frame.cast({c: _TYPES[k] for c, k in kinds.items()}))

    def rows(self, name: str) -> pl.DataFrame:
        dataset, table = name.split(".")
        return self.datasets[dataset][table].rows

    def fields(self, name: str) -> dict[str, str]:
        dataset, table = name.split(".")
        return {column["name"]: column["type"] for column in self.datasets[dataset][table].fields}

    def stored_rows(self, project: str, dataset: str, table: str) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
        """Rows and columns of a table, or of the one that a query's result is kept in, for another of its services.

        Raises:
            Refused: there is none, or the caller may not read it.
        """
        self._own_project(project)
        if dataset == _RESULTS:
            job = self._job(table.removeprefix("anon"))
            assert job.rows is not None
            return job.rows, _fields_of(job.rows)
        self._allow("bigquery.tables.getData")
        found = self._table(dataset, table)
        return found.rows, found.fields

    def query(self, sql: str) -> pl.DataFrame:
        """What a person who writes this query sees."""
        return self._run_sql(sql)[0]

    def loads(self) -> list[str]:
        """Tables or partitions of the loads, but for those that failed for no fault of theirs."""
        return [
            job.resource["configuration"]["load"]["destinationTable"]["tableId"]
            for job in self.jobs.values()
            if "load" in job.resource["configuration"]
            and job.resource["status"].get("errorResult", {}).get("reason") not in _FOR_NO_FAULT
        ]

    def n_loads(self) -> int:
        return len(self.loads())

    # The service.

    def answer(self, request: Request) -> Answer:
        """See ``FakeService``."""
        path = unquote(request.path)
        upload = re.fullmatch(r"/upload/bigquery/v2/projects/([^/]+)/jobs", path)
        if upload:
            self._own_project(upload[1])
            return self._upload(request)
        found = re.fullmatch(r"/bigquery/v2/projects/([^/]+)/(.+)", path)
        if not found:
            raise Refused(404, "notFound", f"Not found: {path}")
        self._own_project(found[1])
        sent = json.loads(request.body) if request.body else {}
        for pattern, by_method in self._routes().items():
            matched = re.fullmatch(pattern, found[2])
            if matched and request.method in by_method:
                permission, answer = by_method[request.method]
                self._allow(permission)
                return answer_json(answer(*matched.groups(), sent, request.query, request.headers))
        raise Refused(404, "notFound", f"Not found: {request.method} {path}")

    def error_body(self, refusal: Refused, _: Request) -> Answer:
        """A refusal with BigQuery's reason, which is older than Google's canonical errors."""
        reason = {503: "backendError", 429: "rateLimitExceeded"}.get(refusal.code, refusal.status)
        error = {"message": refusal.message, "domain": "global", "reason": reason}
        status = _STATUS.get(refusal.code, "UNKNOWN")
        body = {"code": refusal.code, "message": refusal.message, "errors": [error], "status": status}
        return answer_json({"error": body}, refusal.code)

    def _routes(self) -> dict[str, dict[str, tuple[str, Callable[..., Any]]]]:
        return {
            r"datasets": {"POST": ("bigquery.datasets.create", self._make_dataset)},
            r"datasets/([^/]+)": {
                "GET": ("bigquery.datasets.get", self._get_dataset),
                "DELETE": ("bigquery.datasets.delete", self._delete_dataset),
            },
            r"datasets/([^/]+)/tables": {
                "GET": ("bigquery.tables.list", self._list_tables),
                "POST": ("bigquery.tables.create", lambda dataset, sent, *_: self._insert_table(dataset, sent)),
            },
            r"datasets/([^/]+)/tables/([^/]+)": {
                "GET": ("bigquery.tables.get", self._get_table),
                "PATCH": ("bigquery.tables.update", self._patch_table),
                "DELETE": ("bigquery.tables.delete", self._delete_table),
            },
            r"datasets/([^/]+)/tables/([^/]+)/data": {"GET": ("bigquery.tables.getData", self._list_data)},
            r"jobs": {"POST": ("bigquery.jobs.create", lambda sent, *_: self._insert_job(sent, None))},
            r"jobs/([^/]+)": {"GET": ("bigquery.jobs.get", self._get_job)},
            r"queries/([^/]+)": {"GET": ("bigquery.jobs.get", self._get_results)},
        }

    def _own_project(self, project: str) -> None:
        if project != self.project:
            raise Refused(403, "accessDenied", f"Access Denied: Project {project}: User does not have permission.")

    def _allow(self, permission: str) -> None:
        if self.is_denied(permission):
            message = f"Access Denied: Project {self.project}: Permission {permission} denied (or it may not exist)."
            raise Refused(403, "accessDenied", message)

    # Datasets and tables.

    def _dataset(self, name: str) -> dict[str, _Table]:
        if name not in self.datasets:
            raise Refused(404, "notFound", f"Not found: Dataset {self.project}:{name}")
        return self.datasets[name]

    def _table(self, dataset: str, name: str) -> _Table:
        tables = self._dataset(dataset)
        if name not in tables:
            message = f"Not found: Table {self.project}:{dataset}.{name} was not found in location {self.location}"
            raise Refused(404, "notFound", message)
        return tables[name]

    def _get_dataset(self, name: str, *_: Any) -> Any:
        self._dataset(name)
        reference = {"projectId": self.project, "datasetId": name}
        return {"kind": "bigquery#dataset", "datasetReference": reference, "location": self.location}

    def _make_dataset(self, sent: dict[str, Any], *_: Any) -> Any:
        name = sent["datasetReference"]["datasetId"]
        if name in self.datasets:
            raise Refused(409, "duplicate", f"Already Exists: Dataset {self.project}:{name}")
        self.add_dataset(name)
        return self._get_dataset(name)

    def _delete_dataset(self, name: str, _sent: Any, query: Mapping[str, str], *_: Any) -> Any:
        if self._dataset(name) and query.get("deleteContents") != "true":
            raise Refused(400, "resourceInUse", f"Dataset {self.project}:{name} is still in use")
        del self.datasets[name]
        return {}

    def _list_tables(self, dataset: str, _sent: Any, query: Mapping[str, str], _headers: Any) -> Any:
        names = sorted(self._dataset(dataset))
        at, size = int(query.get("pageToken", "0")), int(query.get("maxResults", "50"))
        page = [self.datasets[dataset][name].resource for name in names[at : at + size]]
        token = {"nextPageToken": str(at + size)} if at + size < len(names) else {}
        return {"kind": "bigquery#tableList", "tables": page, "totalItems": len(names), **token}

    def _insert_table(self, dataset: str, sent: dict[str, Any]) -> Any:
        tables, name = self._dataset(dataset), sent["tableReference"]["tableId"]
        if not _NAME.fullmatch(name):
            raise Refused(400, "invalid", f'Invalid table ID "{name}".')
        if name in tables:
            raise Refused(409, "duplicate", f"Already Exists: Table {self.project}:{dataset}.{name}")
        for key, value in sent.get("labels", {}).items():
            if not _LABEL.fullmatch(key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
                raise Refused(400, "invalid", f"Invalid label {key}={value}")
        resource = {
            "kind": "bigquery#table",
            **sent,
            "tableReference": {"projectId": self.project, "datasetId": dataset, "tableId": name},
            "type": "VIEW" if "view" in sent else sent.get("type", "TABLE"),
            "location": self.location,
            "creationTime": str(1_700_000_000_000 + next(self._counter)),
        }
        if "view" in sent:
            rows, fields = self._run_sql(sent["view"]["query"])[0], None
            fields = _fields_of(rows)
        else:
            fields = [_canonical_field(one) for one in sent.get("schema", {}).get("fields", [])]
            rows = pl.DataFrame(schema={one["name"]: _TYPES[one["type"]] for one in fields})
        partitioning = sent.get("timePartitioning")
        if partitioning and partitioning.get("field") not in {one["name"] for one in fields if one["type"] == "DATE"}:
            raise Refused(400, "invalid", "The field specified for partitioning cannot be found in the schema")
        tables[name] = _Table({**resource, "schema": {"fields": fields}}, rows)
        self._touch(tables[name])
        return tables[name].resource

    def _touch(self, table: _Table) -> None:
        number = next(self._counter)
        table.resource |= {
            "etag": f"etag{number}==",
            "lastModifiedTime": str(1_700_000_000_000 + number),
            "numRows": str(table.rows.height),
            "numBytes": str(_n_bytes(table.rows)),
        }

    def _replace_rows(self, table: _Table, rows: pl.DataFrame) -> None:
        table.rows = rows
        self._touch(table)

    def _get_table(self, dataset: str, name: str, *_: Any) -> Any:
        return self._table(dataset, name).resource

    def _patch_table(self, dataset: str, name: str, sent: Any, _query: Any, headers: Mapping[str, str]) -> Any:
        table = self._table(dataset, name)
        wanted = headers.get("if-match")
        if wanted and wanted != table.resource["etag"]:
            raise Refused(412, "conditionNotMet", "Precondition Failed")
        if "view" in sent:
            self._run_sql(sent["view"]["query"])
        self._require_calm(name)
        table.resource |= sent
        self._touch(table)
        return table.resource

    def _delete_table(self, dataset: str, name: str, *_: Any) -> Any:
        base, day = _split_partition(name)
        table = self._table(dataset, base)
        if day is None:
            del self.datasets[dataset][base]
        else:
            key = _partition_field(table)
            self._replace_rows(table, table.rows.filter(pl.col(key) != day))
        return {}

    def _list_data(self, dataset: str, name: str, _sent: Any, query: Mapping[str, str], _headers: Any) -> Any:
        table = self._table(dataset, name)
        return {"kind": "bigquery#tableDataList", **self._page(table.rows, table.fields, query, 0)}

    # Jobs.

    def _insert_job(self, sent: dict[str, Any], content: bytes | None) -> Any:
        configuration = sent["configuration"]
        reference = sent.get("jobReference", {})
        job_id = reference.get("jobId") or f"job_{next(self._counter)}"
        if not _JOB_ID.fullmatch(job_id):
            raise Refused(400, "invalid", f'Invalid job ID "{job_id}".')
        if job_id in self.jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {self.project}:{self.location}.{job_id}")
        resource = {
            "kind": "bigquery#job",
            "id": f"{self.project}:{self.location}.{job_id}",
            "jobReference": {"projectId": self.project, "jobId": job_id, "location": self.location},
            "configuration": configuration,
            "status": {"state": "DONE"},
            "statistics": {"creationTime": "1700000000000"},
        }
        if "query" in configuration and "destinationTable" not in configuration["query"]:
            kept = {"projectId": self.project, "datasetId": _RESULTS, "tableId": f"anon{job_id}"}
            resource["configuration"] = {**configuration, "query": {**configuration["query"], "destinationTable": kept}}
        job = _Job(resource, content=content, polls_left=self.polls_until_done)
        if configuration.get("dryRun"):
            return self._dry_run(job)
        self.jobs[job_id] = job
        return self._job_resource(job)

    def _run_job(self, job: _Job) -> None:
        job.is_waiting = False
        try:
            self._execute(job, job.resource["configuration"], job.content)
        except Refused as refused:
            error = {"reason": refused.status, "message": refused.message}
            job.resource["status"] |= {"errorResult": error, "errors": [error]}

    def _job_resource(self, job: _Job) -> Any:
        if job.is_waiting and not self.runs_jobs:
            return {**job.resource, "status": {"state": "RUNNING"}}
        if job.is_waiting:
            self._run_job(job)
        if job.polls_left:
            job.polls_left -= 1
            return {**job.resource, "status": {"state": "RUNNING"}}
        return job.resource

    def _dry_run(self, job: _Job) -> Any:
        rows, n_bytes = self._run_sql(job.resource["configuration"]["query"]["query"])
        statistics = {"totalBytesProcessed": str(n_bytes), "schema": {"fields": _fields_of(rows)}}
        return {**job.resource, "statistics": {"totalBytesProcessed": str(n_bytes), "query": statistics}}

    def _execute(self, job: _Job, configuration: dict[str, Any], content: bytes | None) -> None:
        if "query" in configuration:
            self._execute_query(job, configuration["query"])
        elif "load" in configuration:
            if content is None:
                raise Refused(400, "invalid", "Load configuration must specify at least one source URI")
            self._load(configuration["load"], content)
        else:
            raise Refused(
                400, "invalid", "Job configuration must contain exactly one job-specific configuration object"
            )

    def _execute_query(self, job: _Job, configuration: dict[str, Any]) -> None:
        if configuration.get("useLegacySql", True):
            raise Refused(400, "invalidQuery", "Legacy SQL is not understood here.")
        rows, n_bytes = self._run_sql(configuration["query"])
        target = self._target_of(configuration)
        billed = max(_LEAST_BILLED, n_bytes) if n_bytes else 0
        limit = configuration.get("maximumBytesBilled")
        if limit is not None and billed > int(limit):
            message = f"Query exceeded limit for bytes billed: {limit}. {billed} or higher required."
            raise Refused(400, "bytesBilledLimitExceeded", message)
        self.billed.append(billed)
        if target is not None:
            self._require_calm(target.resource["tableReference"]["tableId"])
            target.resource["schema"] = {"fields": _fields_of(rows)}
            self._replace_rows(target, rows)
        job.rows = rows
        job.resource["statistics"]["query"] = {"totalBytesProcessed": str(n_bytes), "totalBytesBilled": str(billed)}

    def _target_of(self, configuration: dict[str, Any]) -> _Table | None:
        """The table that a query's rows replace, if they are to be kept."""
        target = configuration.get("destinationTable")
        if target is None or target["datasetId"] == _RESULTS:
            return None
        self._own_project(target["projectId"])
        self._allow("bigquery.tables.updateData")
        table = self._table(target["datasetId"], target["tableId"])
        if configuration.get("writeDisposition") != "WRITE_TRUNCATE" and table.rows.height:
            name = f"{self.project}:{target['datasetId']}.{target['tableId']}"
            raise Refused(409, "duplicate", f"Already Exists: Table {name}")
        return table

    def _get_job(self, job_id: str, *_: Any) -> Any:
        return self._job_resource(self._job(job_id))

    def _job(self, job_id: str) -> _Job:
        if job_id not in self.jobs:
            raise Refused(404, "notFound", f"Not found: Job {self.project}:{self.location}.{job_id}")
        return self.jobs[job_id]

    def _get_results(self, job_id: str, _sent: Any, query: Mapping[str, str], _headers: Any) -> Any:
        job = self._job(job_id)
        reference = {"kind": "bigquery#getQueryResultsResponse", "jobReference": job.resource["jobReference"]}
        if job.polls_left:
            job.polls_left -= 1
            return {**reference, "jobComplete": False}
        error = job.resource["status"].get("errorResult")
        if error:
            raise Refused(400, error["reason"], error["message"])
        rows = job.rows if job.rows is not None else pl.DataFrame()
        fields = _fields_of(rows)
        page = self._page(rows, fields, query, self.page_rows)
        return {**reference, "jobComplete": True, "schema": {"fields": fields}, **page}

    def _page(
        self, rows: pl.DataFrame, fields: list[dict[str, Any]], query: Mapping[str, str], most: int
    ) -> dict[str, Any]:
        at = int(query.get("pageToken", query.get("startIndex", "0")))
        asked = int(query.get("maxResults", str(rows.height)))
        size = min(asked, most) if most else asked
        kinds = [one["type"] for one in fields]
        page = [
            {"f": [{"v": _wire(value, kind)} for value, kind in zip(row, kinds, strict=True)]}
            for row in rows.slice(at, size).iter_rows()
        ]
        token = {"pageToken": str(at + size)} if size and at + size < rows.height else {}
        # Without rows there is no list of them, and the client asks for them by another request.
        return {**({"rows": page} if page else {}), "totalRows": str(rows.height), **token}

    # Loading.

    def _upload(self, request: Request) -> Answer:
        query = request.query
        if query["uploadType"] == "multipart":
            self._allow("bigquery.jobs.create")
            resource, content = _multipart(request.headers["content-type"], request.body)
            return answer_json(self._insert_job(resource, content))
        if request.method == "POST":
            self._allow("bigquery.jobs.create")
            upload_id = f"upload{next(self._counter)}"
            self._uploads[upload_id] = _Upload(json.loads(request.body))
            where = f"{self.url}/upload/bigquery/v2/projects/{self.project}/jobs"
            return Answer(headers={"Location": f"{where}?uploadType=resumable&upload_id={upload_id}"})
        upload = self._uploads.get(query["upload_id"])
        if upload is None:
            raise Refused(404, "notFound", "No such upload.")
        sent, _, total = request.headers["content-range"].removeprefix("bytes ").rpartition("/")
        if sent != "*" and int(sent.partition("-")[0]) == len(upload.content):
            upload.content += request.body
        if total == "*" or len(upload.content) < int(total):
            return Answer(308, headers={"Range": f"bytes=0-{len(upload.content) - 1}"})
        # An upload that is whole is answered the same however often its last piece is sent.
        if upload.answer is None:
            upload.answer = answer_json(self._insert_job(upload.resource, bytes(upload.content)))
        return upload.answer

    def _load(self, load: dict[str, Any], content: bytes) -> None:
        target = load["destinationTable"]
        name, day = _split_partition(target["tableId"])
        self._allow("bigquery.tables.updateData")
        is_new = name not in self._dataset(target["datasetId"]) and load.get("createDisposition") != "CREATE_NEVER"
        if is_new and load.get("sourceFormat") == "PARQUET":
            self._allow("bigquery.tables.create")
            self.add_table(f"{target['datasetId']}.{name}", pl.read_parquet(BytesIO(content)))
            return
        table = self._table(target["datasetId"], name)
        self._fail_for_no_fault()
        self._require_calm(name)
        disposition = load.get("writeDisposition", "WRITE_APPEND")
        options = load.get("schemaUpdateOptions", [])
        if options and disposition == "WRITE_TRUNCATE" and day is None:
            message = (
                "Schema update options should only be specified with WRITE_APPEND disposition, or with WRITE_TRUNCATE "
                "disposition on a table partition."
            )
            raise Refused(400, "invalid", message)
        if load.get("sourceFormat") != "PARQUET":
            raise Refused(400, "invalid", f"Unsupported source format {load.get('sourceFormat')}")
        fields = self._merge_fields(table, load.get("schema", {}).get("fields", []), options, target)
        rows = self._parse_rows(content, fields, name)
        if day is not None:
            key = _partition_field(table)
            if rows.filter(pl.col(key).is_null() | (pl.col(key) != day)).height:
                message = "Some rows belong to different partitions rather than destination partition"
                raise Refused(400, "invalid", f"{message} {name}${day:%Y%m%d}")
        table.resource["schema"] = {"fields": fields}
        before = table.rows.with_columns(
            pl.lit(None, _TYPES[one["type"]]).alias(one["name"])
            for one in fields
            if one["name"] not in table.rows.columns
        ).select(rows.columns)
        if disposition == "WRITE_TRUNCATE":
            before = before.clear() if day is None else before.filter(pl.col(_partition_field(table)) != day)
        elif disposition == "WRITE_EMPTY" and before.height:
            raise Refused(409, "duplicate", f"Already Exists: Table {self.project}:{target['datasetId']}.{name}")
        self._replace_rows(table, pl.concat([before, rows]))

    def _fail_for_no_fault(self) -> None:
        """Fail a load because the service is busy. Every load takes a second."""
        pass_time(_LOAD_SECONDS)
        self._n_runs += 1
        reason = self.fail_loads.pop(0) if self.fail_loads else ""
        if not reason and self.fails_every and self._n_runs % self.fails_every == 0:
            reason = _FOR_NO_FAULT[self._n_runs // self.fails_every % len(_FOR_NO_FAULT)]
        if reason:
            raise Refused(503, reason, "Error encountered during execution. Retrying may solve the problem.")

    def _require_calm(self, name: str) -> None:
        """Refuse the sixth change of a table within ten seconds."""
        recent = [at for at in self._updates.get(name, []) if at > now() - _UPDATE_SECONDS]
        if self.has_rate_limits and len(recent) >= _MOST_UPDATES:
            message = "Exceeded rate limits: too many table update operations for this table."
            raise Refused(403, "rateLimitExceeded", message)
        self._updates[name] = [*recent, now()]

    def _merge_fields(
        self, table: _Table, sent: list[dict[str, Any]], options: list[str], target: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        known = {one["name"].lower(): one for one in table.fields}
        added = []
        where = f"{self.project}:{target['datasetId']}.{target['tableId']}"
        for one in map(_canonical_field, sent):
            before = known.get(one["name"].lower())
            if before is None:
                if "ALLOW_FIELD_ADDITION" not in options:
                    message = f"Provided Schema does not match Table {where}. Cannot add fields (field: {one['name']})"
                    raise Refused(400, "invalid", message)
                if one.get("mode") == "REQUIRED":
                    message = f"Provided Schema does not match Table {where}. Cannot add required fields"
                    raise Refused(400, "invalid", f"{message} to an existing schema. (field: {one['name']})")
                added.append(one)
            elif before["type"] != one["type"]:
                message = f"Provided Schema does not match Table {where}. Field {one['name']} has changed type from"
                raise Refused(400, "invalid", f"{message} {before['type']} to {one['type']}")
        return [*table.fields, *added]

    def _parse_rows(self, content: bytes, fields: list[dict[str, Any]], name: str) -> pl.DataFrame:
        try:
            rows = pl.read_parquet(BytesIO(content))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Refused(400, "invalid", f"Error while reading data, error message: {error}") from None
        if name in self.reject_loads_of:
            self.reject_loads_of.discard(name)
            message = "Error while reading data, error message: Parquet column 'score' has value out of range at row 2"
            raise Refused(400, "invalid", message)
        unknown = set(rows.columns) - {one["name"] for one in fields}
        if unknown:
            raise Refused(400, "invalid", f"No such field: {min(unknown)}")
        for one in fields:
            found = rows.schema.get(one["name"])
            wanted = _TYPES[one["type"]]
            if found is not None and found != wanted:
                message = f"Parquet column '{one['name']}' has type {found} which does not match the target cpp_type"
                raise Refused(400, "invalid", f"Error while reading data, error message: {message} {wanted}.")
        absent = [
            pl.lit(None, _TYPES[one["type"]]).alias(one["name"]) for one in fields if one["name"] not in rows.columns
        ]
        return rows.with_columns(absent).select([one["name"] for one in fields])

    # SQL.

    def _run_sql(self, sql: str) -> tuple[pl.DataFrame, int]:
        """Rows of a query, and how many bytes it reads: those of the columns it names."""
        parsed = parse_query(sql)
        names = {column.name.lower() for column in parsed.find_all(exp.Column)}
        has_star = parsed.find(exp.Star) is not None
        n_bytes = 0
        with duckdb.connect() as engine:
            ctes = {cte.alias for cte in parsed.find_all(exp.CTE)}
            for number, reference in enumerate(parsed.find_all(exp.Table)):
                if reference.name in ctes and not reference.db:
                    continue
                rows, is_view = self._rows_of(reference)
                read = rows.columns if has_star else [name for name in rows.columns if name.lower() in names]
                n_bytes += 0 if is_view else _n_bytes(rows.select(read))
                engine.register(f"table_{number}", rows.to_arrow())
                alias = reference.alias or reference.name
                reference.replace(exp.alias_(exp.to_table(f"table_{number}"), alias, table=True))
            try:
                arrow = engine.sql(_transformed(parsed).sql(dialect="duckdb")).to_arrow_table()
            except duckdb.BinderException as error:
                raise Refused(400, "invalidQuery", f"Unrecognized name: {error}") from None
            except duckdb.Error as error:
                raise Refused(400, "invalidQuery", str(error)) from None
        rows = pl.from_arrow(arrow)
        assert isinstance(rows, pl.DataFrame)
        return _with_bigquery_types(rows), n_bytes

    def _rows_of(self, reference: exp.Table) -> tuple[pl.DataFrame, bool]:
        if not reference.db:
            message = f'Table "{reference.name}" must be qualified with a dataset (e.g. dataset.table).'
            raise Refused(400, "invalid", message)
        self._own_project(reference.catalog or self.project)
        self._allow("bigquery.tables.getData")
        table = self._table(reference.db, reference.name)
        if "view" in table.resource:
            return self._run_sql(table.resource["view"]["query"])[0], True
        return table.rows, False


def parse_query(sql: str) -> exp.Expr:
    """A query, refused where BigQuery refuses it and sqlglot, which reads many dialects at once, does not."""
    try:
        kinds = {token.token_type for token in sqlglot.tokenize(sql, read="bigquery")}
        parsed = sqlglot.parse_one(sql, read="bigquery")
    except sqlglot.errors.SqlglotError as error:
        raise Refused(400, "invalidQuery", f"Syntax error: {error}") from None
    for kind, text in _FOREIGN_SIGNS.items():
        if kind in kinds:
            raise Refused(400, "invalidQuery", f'Syntax error: Unexpected "{text}"')
    for node in parsed.walk():
        if reason := _foreign(node):
            raise Refused(400, "invalidQuery", f"{reason}: {node.sql(dialect='bigquery')[:200]}")
    _require_no_float_partitions(parsed)
    return parsed


_FOREIGN_SIGNS = {TokenType.MOD: "%", TokenType.DCOLON: "::", TokenType.SEMI: "SEMI", TokenType.ANTI: "ANTI"}
_OF_BIGQUERY = {"FORMAT", "FORMAT_DATETIME", "ARRAY_TO_STRING"}
_FOREIGN_FUNCTIONS = (exp.ConcatWs, exp.DayOfWeekIso, exp.Contains)


def _foreign(node: exp.Expr) -> str:
    """Why BigQuery does not know a part of a query; nothing where it does."""
    if isinstance(node, exp.Anonymous) and node.name.upper() not in _OF_BIGQUERY:
        return f"Function not found: {node.name}"
    if isinstance(node, _FOREIGN_FUNCTIONS):
        return "Function not found"
    if isinstance(node, exp.Count) and node.this is None:
        return "No matching signature for aggregate function COUNT"
    if isinstance(node, exp.CTE) and node.args.get("materialized") is not None:
        return "Syntax error: Unexpected keyword MATERIALIZED"
    return ""


def _require_no_float_partitions(parsed: exp.Expr) -> None:
    """BigQuery does not partition a window by fractions; the lines' fractions are known by their names."""
    for window in parsed.find_all(exp.Window):
        for key in window.args.get("partition_by") or ():
            if isinstance(key, exp.Column) and key.name in _FRACTIONS:
                message = f"Partitioning by expressions of type FLOAT64 is not allowed: {key.name}"
                raise Refused(400, "invalidQuery", message)


_FRACTIONS = ("quantity", "unit_price", "line_amount")


def _transformed(parsed: exp.Expr) -> exp.Expr:
    for node in list(parsed.walk()):
        replaced = _in_duckdb(node)
        if replaced is not node:
            node.replace(replaced)
    return parsed


def _in_duckdb(node: exp.Expr) -> exp.Expr:
    """What DuckDB calls by another name, or counts in another way, and sqlglot does not translate."""
    if isinstance(node, exp.Extract) and node.this.name.upper() == "DAYOFWEEK":
        # Sunday is 1 on BigQuery and 0 on DuckDB.
        return exp.paren(exp.Add(this=node.copy(), expression=exp.Literal.number(1)))
    if isinstance(node, exp.Format | exp.Anonymous) and node.sql(dialect="bigquery").upper().startswith("FORMAT("):
        template, *values = [node.this, *node.expressions] if isinstance(node, exp.Format) else node.expressions
        return exp.Anonymous(this="printf", expressions=[template, *values])
    return node


def _canonical_field(one: Mapping[str, Any]) -> dict[str, Any]:
    kind = _ALIASES.get(one["type"].upper(), one["type"].upper())
    if kind not in _TYPES:
        raise Refused(400, "invalid", f"Invalid value for type: {one['type']} is not a valid value")
    return {"mode": "NULLABLE", **one, "type": kind}


def _split_partition(table_id: str) -> tuple[str, date | None]:
    found = _PARTITION.fullmatch(table_id)
    if not found:
        raise Refused(400, "invalid", f'Invalid table ID "{table_id}".')
    try:
        return found["table"], found["day"] and datetime.strptime(found["day"], "%Y%m%d").date()  # noqa: DTZ007
    except ValueError:
        raise Refused(400, "invalid", f"Invalid time partition specified: {table_id}") from None


def _partition_field(table: _Table) -> str:
    partitioning = table.resource.get("timePartitioning")
    if not partitioning:
        raise Refused(400, "invalid", "Cannot read or write a partition of a table that is not partitioned")
    return str(partitioning["field"])


def _with_bigquery_types(rows: pl.DataFrame) -> pl.DataFrame:
    wanted: dict[str, pl.DataType] = {}
    for name, dtype in rows.schema.items():
        if dtype.is_integer():
            wanted[name] = pl.Int64()
        elif dtype.is_float():
            wanted[name] = pl.Float64()
        elif dtype.is_decimal():
            # DuckDB sums integers into 38 digits, BigQuery does not.
            wanted[name] = pl.Int64() if getattr(dtype, "scale", 0) == 0 else pl.Decimal(38, 9)
        elif isinstance(dtype, pl.Datetime):
            wanted[name] = pl.Datetime("us", "UTC" if dtype.time_zone else None)
    converted = rows.with_columns(
        pl.col(name).dt.convert_time_zone("UTC") for name, dtype in wanted.items() if dtype == pl.Datetime("us", "UTC")
    )
    return converted.cast(wanted)


def _fields_of(rows: pl.DataFrame) -> list[dict[str, Any]]:
    of = {dtype: kind for kind, dtype in _TYPES.items()}
    return [{"name": name, "type": of[dtype], "mode": "NULLABLE"} for name, dtype in rows.schema.items()]


def _n_bytes(rows: pl.DataFrame) -> int:
    """Logical bytes as BigQuery counts them: 2 and the text's for a string, 1 for a boolean, 8 for other values."""
    total = 0
    for column in rows:
        if column.dtype == pl.String:
            total += 2 * column.count() + (column.str.len_bytes().sum() or 0)
        else:
            total += (1 if column.dtype == pl.Boolean else 8) * column.count()
    return total


def _wire(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "BOOLEAN":
        return str(value).lower()
    if kind == "TIMESTAMP":
        return str(round(value.timestamp() * 1_000_000))
    return value.isoformat() if isinstance(value, date) else str(value)


def _multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    first, _ = list(message.iter_parts())
    boundary = b"--" + content_type.partition("boundary=")[2].strip('"').encode()
    # The parser would take line ends off the content, which is binary.
    content = body.split(boundary)[2].split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
    return json.loads(first.get_content()), content
