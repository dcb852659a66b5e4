"""Write ``lookml/`` from the table declarations and the BigQuery views; ``make docs`` runs this.

What a column means, its type and its unit come from ``domain/schemas.py``. What is written here is only what no
declaration says: computed columns of the views, measures, joins, tiles and data tests. A column, measure or tile that
names something which is not there is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lkml
import polars as pl
import sqlglot
import yaml
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify

from custseg_assets import gcp
from custseg_assets.domain.schemas import PREDICTION_TRAFFIC, Column, Table, tables
from custseg_assets.stores.publications import HELD_OUT

FOLDER = Path(__file__).with_name("lookml")
_SQL = Path(gcp.__file__).with_name("views")
_HEADER = "# Made by `make docs` from custseg_assets/domain/schemas.py and custseg_assets/gcp/views; do not edit.\n"
_EXPLORE = "custseg"
_BASE = "days"
# The same as ``bigquery_publish.ANNOUNCEMENTS``, which cannot be imported without Google's libraries.
_ANNOUNCEMENTS = Table(
    "published_snapshots",
    "One row per snapshot of which everything is published.",
    (Column("period", pl.String(), "Partition key: first day of the snapshot's last period."),),
)

_LATENCY = ("kind", "model_version", "n_requests", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
_TEXT, _REAL, _WHOLE, _DAY = pl.String(), pl.Float64(), pl.Int64(), pl.Date()


@dataclass(frozen=True)
class Measure:
    """A measure of a view.

    Attributes:
        name: in LookML.
        kind: LookML's type.
        sql: what it is computed from; columns as ``${TABLE}.column``, measures as ``${measure}``.
        description: what a value means, with its unit.
        value_format: as in spreadsheets.
        is_hidden: whether only other measures and data tests use it.
    """

    name: str
    kind: str
    sql: str
    description: str
    value_format: str = "#,##0"
    is_hidden: bool = False


@dataclass(frozen=True)
class View:
    """A BigQuery view as LookML has it.

    Attributes:
        name: of the view.
        label: what people see.
        day: the column that it is joined to the days by.
        key: the columns that tell its rows apart.
        computed: its columns that are no column of a table.
        measures: what is counted and summed up.
    """

    name: str
    label: str
    day: str
    key: tuple[str, ...]
    computed: tuple[Column, ...] = ()
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One tile of a dashboard.

    Attributes:
        title: above it.
        kind: LookML's type.
        view: that its fields are of.
        fields: without the view's name.
        pivots: the fields among them that make columns or lines.
        sorts: fields, with ``desc`` where the largest come first.
        limit: of rows.
    """

    title: str
    kind: str
    view: str
    fields: tuple[str, ...]
    pivots: tuple[str, ...] = ()
    sorts: tuple[str, ...] = ()
    limit: int = 500


_ROWS = Measure("n_rows", "count", "", "Rows.", is_hidden=True)
_KEYS = Measure("n_keys", "count_distinct", "${key}", "Different keys.", is_hidden=True)
_SNAPSHOTS = Measure("n_snapshots", "count_distinct", "${TABLE}.period", "Snapshots.")


def _per_snapshot(name: str, column: str, description: str) -> tuple[Measure, Measure]:
    """A stock: what is there at each snapshot must not be added over several of them."""
    total = Measure(f"sum_{column}", "sum", f"${{TABLE}}.{column}", f"{description} Added over snapshots.", "0.0", True)
    mean = f"SAFE_DIVIDE(${{sum_{column}}}, ${{n_snapshots}})"
    return total, Measure(name, "number", mean, f"{description} The mean where several snapshots are shown.")


VIEWS = (
    View(
        "days",
        "Days",
        "day",
        ("day",),
        (Column("day", _DAY, "First day of a snapshot's last period, or UTC day of the service's requests."),),
    ),
    View(
        "segments_over_time",
        "Segments",
        "period",
        ("period", "segment_id"),
        measures=(
            _ROWS,
            _KEYS,
            _SNAPSHOTS,
            *_per_snapshot("customers", "n_customers", "Customers."),
            *_per_snapshot("revenue", "revenue_net", "Net spend in the window, in currency."),
            Measure("total_share", "sum", "${TABLE}.share_customers", "Shares of customers, added up.", "0.0%", True),
        ),
    ),
    View(
        "customer_segments",
        "Customers",
        "period",
        ("period", "customer_id"),
        measures=(
            Measure("customers", "count", "", "Customers at the newest snapshot."),
            Measure("mean_margin", "average", "${TABLE}.margin", "Mean margin: 0 at the border.", "0.00"),
            Measure("expected_spend", "sum", "${TABLE}.expected_spend_90d", "Net spend to expect within 90 days."),
        ),
    ),
    View(
        "expected_by_segment",
        "What to expect",
        "period",
        ("period", "segment_id"),
        (
            Column("n_customers", _WHOLE, "Customers of whom something is expected."),
            Column("expected_orders_90d", _REAL, "Orders to expect of them within 90 days."),
            Column("expected_spend_90d", _REAL, "Net spend to expect of them within 90 days, in currency."),
        ),
        (
            _ROWS,
            _KEYS,
            _SNAPSHOTS,
            *_per_snapshot("orders", "expected_orders_90d", "Orders to expect within 90 days."),
            *_per_snapshot("spend", "expected_spend_90d", "Net spend to expect within 90 days, in currency."),
        ),
    ),
    View(
        "products_by_segment",
        "What segments buy",
        "period",
        ("period", "segment_id", "rank"),
        measures=(Measure("products", "count", "", "Products that a segment buys more than the shop does."),),
    ),
    View(
        "segment_moves",
        "Moves",
        "period",
        ("period", "from_segment_name", "to_segment_name", "cause"),
        (
            Column("n_customers", _WHOLE, "Customers who moved so."),
            Column("revenue_change", _REAL, "Change of their net spend since the snapshot before, in currency."),
        ),
        (
            Measure("customers", "sum", "${TABLE}.n_customers", "Moves of customers."),
            Measure("change", "sum", "${TABLE}.revenue_change", "Change of their net spend, in currency."),
        ),
    ),
    View(
        "drift_over_time",
        "Drift",
        "period",
        ("period", "score_name", "subject"),
        (Column("score_by_threshold", _REAL, "The score divided by its threshold: an alert from 1 on.", True),),
        (
            Measure("scores", "count", "", "Scores."),
            Measure("alerts", "sum", "CASE WHEN ${TABLE}.is_alert THEN 1 ELSE 0 END", "Scores that alert."),
            Measure(
                "highest_score_by_threshold",
                "max",
                "${TABLE}.score_by_threshold",
                "Highest score divided by its threshold: an alert from 1 on.",
                "0.00",
            ),
            Measure(
                "n_contradictions",
                "sum",
                "CASE WHEN ${TABLE}.is_alert = (${TABLE}.score < ${TABLE}.threshold) THEN 1 ELSE 0 END",
                "Alerts below their threshold, and scores over it without one.",
                is_hidden=True,
            ),
        ),
    ),
    View(
        "decisions",
        "Decisions",
        "period",
        ("period", "question"),
        (
            Column("question", _TEXT, "retrain: whether to train a challenger; promotion: whether to put it in force."),
            Column("decision", _TEXT, "RETRAIN or WAIT; PROMOTE, HOLD, REJECT or ROLLBACK."),
            Column("reasons", _TEXT, "JSON list of reasons in words."),
            Column("model_version", _TEXT, "Model in force, or the challenger; null where none was trained.", True),
            Column("decided_by", _TEXT, "rules, gate, or the name of the person who decided."),
        ),
        (
            Measure("decisions", "count", "", "Decisions."),
            Measure(
                "n_unknown",
                "sum",
                "CASE WHEN ${TABLE}.decision IN ('RETRAIN', 'WAIT', 'PROMOTE', 'HOLD', 'REJECT', 'ROLLBACK') "
                "THEN 0 ELSE 1 END",
                "Decisions in other words.",
                is_hidden=True,
            ),
        ),
    ),
    View(
        "service_requests",
        "Answers",
        "day",
        ("day", "kind", "outcome", "segment_id", "model_version"),
        (
            Column("n_requests", _WHOLE, "Records: answers about customers, and reports of lost records."),
            Column("mean_latency_ms", _REAL, "Mean time to answer, in milliseconds.", True),
            Column("n_dropped", _WHOLE, "Records that the service lost.", True),
        ),
        (
            Measure("answers", "sum", "${TABLE}.n_requests", "Answers about customers, and reports of lost records."),
            Measure("lost", "sum", "COALESCE(${TABLE}.n_dropped, 0)", "Records that the service lost."),
        ),
    ),
    View(
        "service_latency",
        "Latency",
        "day",
        ("day", "kind", "model_version"),
        (
            Column("day", _DAY, "UTC day of the requests."),
            *map(PREDICTION_TRAFFIC.__getitem__, _LATENCY),
        ),
        (
            Measure("requests", "sum", "${TABLE}.n_requests", "Requests."),
            *(
                Measure(
                    f"highest_p{percent}_ms",
                    "max",
                    f"${{TABLE}}.latency_p{percent}_ms",
                    f"Time within which {percent} % of a day's requests were answered, in milliseconds, "
                    "approximately; the highest where several days, kinds or models are shown.",
                    "0.00",
                )
                for percent in (50, 95, 99)
            ),
        ),
    ),
)

DASHBOARDS: Mapping[str, tuple[str, Sequence[Tile]]] = {
    "segments": (
        "Segments and moves over time",
        (
            Tile(
                "Customers by segment",
                "looker_area",
                "segments_over_time",
                ("period_date", "segment_name", "customers"),
                ("segment_name",),
                ("period_date",),
            ),
            Tile(
                "Net spend by segment",
                "looker_line",
                "segments_over_time",
                ("period_date", "segment_name", "revenue"),
                ("segment_name",),
                ("period_date",),
            ),
            Tile(
                "What segments are like, newest first",
                "looker_grid",
                "segments_over_time",
                (
                    "period_date",
                    "segment_name",
                    "n_customers",
                    "share_customers",
                    "share_revenue",
                    "median_recency_days",
                    "median_frequency_orders",
                    "median_monetary_net",
                    "description",
                    "advice",
                ),
                sorts=("period_date desc", "share_revenue desc"),
            ),
            Tile(
                "Customers now, and how far from a border",
                "looker_column",
                "customer_segments",
                ("segment_name", "customers", "mean_margin"),
                sorts=("customers desc",),
            ),
            Tile(
                "Net spend to expect in 90 days, by segment",
                "looker_line",
                "expected_by_segment",
                ("period_date", "segment_name", "spend"),
                ("segment_name",),
                ("period_date",),
            ),
            Tile(
                "What segments buy more than the shop does, newest first",
                "looker_grid",
                "products_by_segment",
                ("period_date", "segment_id", "rank", "product_id", "description", "n_buyers", "lift"),
                sorts=("period_date desc", "segment_id", "rank"),
            ),
            Tile(
                "Moves by cause",
                "looker_column",
                "segment_moves",
                ("period_date", "cause", "customers"),
                ("cause",),
                ("period_date",),
            ),
            Tile(
                "Who went where",
                "looker_grid",
                "segment_moves",
                ("period_date", "from_segment_name", "to_segment_name", "cause", "customers", "change"),
                sorts=("period_date desc", "customers desc"),
            ),
        ),
    ),
    "operations": (
        "Drift, decisions and service",
        (
            Tile(
                "Highest score by threshold",
                "looker_line",
                "drift_over_time",
                ("period_date", "score_name", "highest_score_by_threshold"),
                ("score_name",),
                ("period_date",),
            ),
            Tile(
                "Verdicts",
                "looker_grid",
                "drift_over_time",
                ("period_date", "verdict", "scores", "alerts"),
                sorts=("period_date desc",),
            ),
            Tile(
                "Decisions",
                "looker_grid",
                "decisions",
                ("period_date", "question", "decision", "decided_by", "model_version", "reasons"),
                sorts=("period_date desc", "question"),
            ),
            Tile(
                "Latency in milliseconds",
                "looker_line",
                "service_latency",
                ("day_date", "highest_p50_ms", "highest_p95_ms", "highest_p99_ms"),
                sorts=("day_date",),
            ),
            Tile(
                "Requests by model",
                "looker_column",
                "service_latency",
                ("day_date", "model_version", "requests"),
                ("model_version",),
                ("day_date",),
            ),
            Tile(
                "Answers by outcome",
                "looker_column",
                "service_requests",
                ("day_date", "outcome", "answers", "lost"),
                ("outcome",),
                ("day_date",),
            ),
        ),
    ),
}

# Name → view, its fields, and what must be true of each row.
TESTS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "segments_are_there_once": (
        "segments_over_time",
        ("n_rows", "n_keys"),
        "${segments_over_time.n_rows} = ${segments_over_time.n_keys}",
    ),
    "shares_of_a_snapshot_add_up": (
        "segments_over_time",
        ("period_date", "total_share"),
        "abs(${segments_over_time.total_share} - 1) < 0.000001",
    ),
    "alerts_are_at_their_threshold": (
        "drift_over_time",
        ("n_contradictions",),
        "${drift_over_time.n_contradictions} = 0",
    ),
    "decisions_are_known": ("decisions", ("n_unknown",), "${decisions.n_unknown} = 0"),
    "latency_rises_with_the_percentile": (
        "service_latency",
        ("day_date", "highest_p50_ms", "highest_p99_ms"),
        "${service_latency.highest_p50_ms} <= ${service_latency.highest_p99_ms}",
    ),
}


def make_files() -> dict[str, str]:
    """The files of the LookML project: path below its folder → text.

    Raises:
        LookupError: a view, tile or data test names a column, measure or field that there is not.
    """
    views = {view.name: _make_view(view, columns_of(view)) for view in VIEWS}
    _check_uses(views)
    files = {
        "manifest.lkml": {
            "constants": [
                {"name": "CONNECTION", "value": "bigquery", "export": "override_optional"},
                {"name": "DATASET", "value": "project.customer_segments", "export": "override_optional"},
            ],
        },
        "custseg.model.lkml": _make_model(),
        "custseg.test.lkml": {"tests": [_make_test(name, *test) for name, test in TESTS.items()]},
        **{f"views/{name}.view.lkml": {"views": [view]} for name, view in views.items()},
    }
    texts = {path: f"{_HEADER}{lkml.dump(content)}\n" for path, content in files.items()}
    return texts | {
        f"dashboards/{name}.dashboard.lookml": _HEADER
        + yaml.safe_dump([_make_dashboard(name, title, tiles)], sort_keys=False, width=118, allow_unicode=True)
        for name, (title, tiles) in DASHBOARDS.items()
    }


def columns_of(view: View) -> list[Column]:
    """The columns of a BigQuery view, in its order, each as it is declared.

    Raises:
        LookupError: its query names a column that there is not, or has one that nothing describes.
    """
    declared = {table.name: table for table in (*tables(()).values(), _ANNOUNCEMENTS, HELD_OUT)}
    schema: dict[str, object] = {
        table.name: {column.name: "STRING" for column in table.columns} for table in declared.values()
    }
    query = sqlglot.parse_one(
        (_SQL / f"{view.name}.sql").read_text(encoding="utf-8").replace("{dataset}.", ""), read="bigquery"
    )
    try:
        query = qualify(query, schema=schema, dialect="bigquery")
    except sqlglot.errors.SqlglotError as error:
        raise LookupError(f"{view.name}.sql: {error}") from None
    computed = {column.name: column for column in view.computed}
    columns = [
        computed.pop(one.alias) if one.alias in computed else _declared(view, one, declared)
        for one in _first_select(query).selects
    ]
    if computed:
        raise LookupError(f"{view.name}.sql has no {', '.join(computed)}")
    return columns


def _first_select(query: exp.Expr) -> exp.Select:
    """The query itself, or the first of those that it is a union of: it names the columns."""
    first = query if isinstance(query, exp.Select) else query.find(exp.Select)
    if first is None:
        raise LookupError("a view without a SELECT")
    return first


def _declared(view: View, one: exp.Expr, declared: Mapping[str, Table]) -> Column:
    """The column of a table that a view passes on, under the view's name for it."""
    column = one.unalias()
    query = one.parent_select
    if isinstance(column, exp.Column) and query is not None:
        sources = {table.alias_or_name: table.name for table in query.find_all(exp.Table)}
        table = declared.get(sources.get(column.table, ""))
        if table is not None:
            found = table[column.name]
            dtype = _DAY if found.name == "period" else found.dtype
            return Column(one.alias, dtype, found.description, found.is_nullable)
    raise LookupError(f"{view.name}.sql computes {one.alias}, which nothing describes")


def _make_view(view: View, columns: Iterable[Column]) -> dict[str, Any]:
    groups = [column for column in columns if column.dtype in (_DAY, pl.Datetime("us"))]
    # Null on days without a row of the view, which a join brings, so that counts leave them out.
    key = ", ".join(
        [f"CAST(${{TABLE}}.{view.day} AS STRING)"]
        + [f"'|', COALESCE(CAST(${{TABLE}}.{name} AS STRING), '')" for name in view.key if name != view.day]
    )
    names = {column.name for column in columns}
    if missing := {view.day, *view.key} - names:
        raise LookupError(f"{view.name}.sql has no {', '.join(sorted(missing))}")
    return {
        "name": view.name,
        "label": view.label,
        "sql_table_name": f"`@{{DATASET}}.{view.name}`",
        "dimensions": [
            {"name": "key", "primary_key": "yes", "hidden": "yes", "type": "string", "sql": f"CONCAT({key})"},
            *(_make_dimension(column) for column in columns if column not in groups),
        ],
        "dimension_groups": [_make_dimension_group(column) for column in groups],
        "measures": [_make_measure(view, measure, names) for measure in view.measures],
    }


def _make_dimension(column: Column) -> dict[str, Any]:
    kind = "yesno" if column.dtype == pl.Boolean() else "number" if column.dtype.is_numeric() else "string"
    shown = {"value_format": _format(column)} if kind == "number" else {}
    return {
        "name": column.name,
        "label": _label(column.name),
        "description": _quoted(column.description),
        "type": kind,
        **shown,
        "sql": f"${{TABLE}}.{column.name}",
    }


def _make_dimension_group(column: Column) -> dict[str, Any]:
    is_day = column.dtype == _DAY
    return {
        "name": column.name,
        "label": _label(column.name),
        "description": _quoted(column.description),
        "type": "time",
        "timeframes": ["raw", *([] if is_day else ["time"]), "date", "week", "month", "quarter", "year"],
        "convert_tz": "no",
        "datatype": "date" if is_day else "datetime",
        "sql": f"${{TABLE}}.{column.name}",
    }


def _make_measure(view: View, measure: Measure, columns: set[str]) -> dict[str, Any]:
    used = sqlglot.parse_one(measure.sql.replace("${TABLE}.", "t.").replace("${", "m.").replace("}", "") or "1")
    known = {"t": columns, "m": {"key", *(one.name for one in view.measures)}}
    for one in used.find_all(exp.Column):
        if one.name not in known[one.table]:
            raise LookupError(f"{view.name}.{measure.name} is computed from {one.name}, which there is not")
    return {
        "name": measure.name,
        "label": _label(measure.name),
        "description": _quoted(measure.description),
        "type": measure.kind,
        "value_format": measure.value_format,
        **({"hidden": "yes"} if measure.is_hidden else {}),
        **({"sql": measure.sql} if measure.sql else {}),
    }


def _make_model() -> dict[str, Any]:
    def join(view: View) -> dict[str, Any]:
        return {
            "name": view.name,
            "type": "left_outer",
            "relationship": "one_to_many",
            "sql_on": f"${{{_BASE}.day_raw}} = ${{{view.name}.{view.day}_raw}}",
        }

    return {
        "connection": "@{CONNECTION}",
        "label": "Customer segments",
        "includes": ["/views/*.view.lkml", "/dashboards/*.dashboard.lookml", "/custseg.test.lkml"],
        "explores": [
            {
                "name": _EXPLORE,
                "view_name": _BASE,
                "label": "Customer segments",
                "description": "Segments, moves, drift, decisions and the service's answers, by day.",
                "joins": [join(view) for view in VIEWS if view.name != _BASE],
            }
        ],
    }


def _make_test(name: str, view: str, fields: Sequence[str], expression: str) -> dict[str, Any]:
    return {
        "name": name,
        "explore_source": {
            "name": _EXPLORE,
            "columns": [{"name": field, "field": f"{view}.{field}"} for field in fields],
            "filters__all": [[{_present(view): _THERE}]],
        },
        "asserts": [{"name": name, "expression": expression}],
    }


_THERE = "-NULL"


def _present(view: str) -> str:
    """The field that is null on days that a view has no row for."""
    return f"{view}.key"


def _make_dashboard(name: str, title: str, tiles: Sequence[Tile]) -> dict[str, Any]:
    return {
        "dashboard": name,
        "title": title,
        "layout": "newspaper",
        "preferred_viewer": "dashboards-next",
        "elements": [_make_tile(number, tile) for number, tile in enumerate(tiles)],
    }


def _make_tile(number: int, tile: Tile) -> dict[str, Any]:
    def named(fields: Iterable[str]) -> list[str]:
        return [f"{tile.view}.{field}" for field in fields]

    return {
        "name": tile.title,
        "title": tile.title,
        "model": "custseg",
        "explore": _EXPLORE,
        "type": tile.kind,
        "fields": named(tile.fields),
        **({"pivots": named(tile.pivots)} if tile.pivots else {}),
        "filters": {_present(tile.view): _THERE},
        "sorts": named(tile.sorts),
        "limit": tile.limit,
        "row": number // 2 * 8,
        "col": number % 2 * 12,
        "width": 12,
        "height": 8,
    }


def fields_of(view: Mapping[str, Any]) -> set[str]:
    """The names of a view's fields as tiles use them."""
    groups = {f"{one['name']}_{frame}" for one in view["dimension_groups"] for frame in one["timeframes"]}
    return groups | {one["name"] for kind in ("dimensions", "measures") for one in view[kind]}


def _check_uses(views: Mapping[str, Mapping[str, Any]]) -> None:
    tiles = [tile for _, every in DASHBOARDS.values() for tile in every]
    used = [(tile.title, tile.view, field.split(" ")[0]) for tile in tiles for field in (*tile.fields, *tile.pivots)]
    used += [(tile.title, tile.view, field.split(" ")[0]) for tile in tiles for field in tile.sorts]
    used += [(name, view, field) for name, (view, fields, _) in TESTS.items() for field in fields]
    for where, view, field in used:
        if field not in fields_of(views[view]):
            raise LookupError(f"{where!r} shows {view}.{field}, which there is not")


_SHORT = {"n": "number of", "avg": "mean", "ms": "(ms)", "days": "(days)", "id": "id", "p50": "median"}
_CURRENCY = ("revenue", "monetary", "order_value", "spend")


def _label(name: str) -> str:
    """A name in words, with its unit: ``median_recency_days`` is Median recency (days)."""
    words = " ".join(_SHORT.get(word, word) for word in name.split("_"))
    unit = " (currency)" if _is_money(name) else ""
    return f"{words[0].upper()}{words[1:]}{unit}"


def _is_money(name: str) -> bool:
    return any(word in name for word in _CURRENCY) and not name.startswith("share_")


def _format(column: Column) -> str:
    if column.name.startswith("share_") or column.name.endswith("_rate"):
        return "0.0%"
    if column.dtype == _WHOLE:
        return "#,##0"
    return "#,##0.00" if _is_money(column.name) else "0.00"


def _quoted(text: str) -> str:
    return text.replace('"', "'")


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    for file, content in make_files().items():
        target = FOLDER / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
