"""What Looker does with the files of a LookML project: the SQL of a tile, in BigQuery's words.

Only what ``deploy/lookml`` uses is known, and anything else is refused. Aggregates are right where all measures are of
one joined view, as Looker has them then; a query with measures of two is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lkml
import yaml

_AGGREGATES = {"sum": "SUM({})", "max": "MAX({})", "average": "AVG({})", "count_distinct": "COUNT(DISTINCT {})"}


class Project:
    """A parsed LookML project.

    Args:
        folder: its files.
        dataset: the value of the constant ``DATASET``.
    """

    def __init__(self, folder: Path, dataset: str) -> None:
        self._folder, self._dataset = folder, dataset
        parsed = [lkml.load(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.lkml"))]
        self.views = {view["name"]: view for one in parsed for view in one.get("views", [])}
        self.tests = {test["name"]: test for one in parsed for test in one.get("tests", [])}
        self.explores = {explore["name"]: explore for one in parsed for explore in one.get("explores", [])}
        self.dashboards = {
            path.name: yaml.safe_load(path.read_text(encoding="utf-8"))[0]
            for path in sorted(folder.rglob("*.dashboard.lookml"))
        }

    def columns(self) -> dict[str, set[str]]:
        """View → the columns that the SQL of its dimensions and measures names."""
        return {
            name: set(re.findall(r"\$\{TABLE\}\.(\w+)", " ".join(one.get("sql", "") for one in _fields(view))))
            for name, view in self.views.items()
        }

    def tiles(self) -> dict[str, dict[str, Any]]:
        """Every tile of every dashboard by its name."""
        return {tile["name"]: tile for board in self.dashboards.values() for tile in board["elements"]}

    def tile_sql(self, tile: Mapping[str, Any]) -> str:
        """The query of a tile."""
        assert set(tile.get("pivots", [])) <= set(tile["fields"])
        return self.sql(tile["explore"], tile["fields"], tile["filters"], tile["sorts"], tile["limit"])

    def test_sql(self, test: Mapping[str, Any]) -> str:
        """The query of a data test."""
        source = test["explore_source"]
        (filters,) = source["filters__all"]
        fields = [column["field"] for column in source["columns"]]
        return self.sql(source["name"], fields, {name: value for one in filters for name, value in one.items()})

    def sql(
        self, explore: str, fields: Sequence[str], filters: Mapping[str, str], sorts: Sequence[str] = (), limit: int = 0
    ) -> str:
        """A query on an explore, whose columns have the fields' names with ``__`` for the dot."""
        measures = {field.split(".")[0] for field in fields if self._is_measure(field)}
        assert len(measures) <= 1, f"measures of several views: {measures}"
        assert set(filters.values()) == {"-NULL"}, filters
        selected = ", ".join(f"{self._field(field)} AS {_alias(field)}" for field in fields)
        where = " AND ".join(f"{self._field(field)} IS NOT NULL" for field in filters)
        by = ", ".join(self._field(field) for field in fields if not self._is_measure(field))
        order = ", ".join(_alias(field) + (" DESC" if rest else "") for field, _, rest in map(_sort, sorts))
        return (
            f"SELECT {selected} FROM {self._joined(explore, [*fields, *filters])} WHERE {where}"  # noqa: S608
            + (f" GROUP BY {by}" if by else "")
            + (f" ORDER BY {order}" if order else "")
            + (f" LIMIT {limit}" if limit else "")
        )

    def _joined(self, explore: str, fields: Iterable[str]) -> str:
        found = self.explores[explore]
        text, used = self._table(found["view_name"]), {field.split(".")[0] for field in fields}
        for join in found["joins"]:
            if join["name"] in used:
                assert (join["type"], join["relationship"]) == ("left_outer", "one_to_many")
                on = re.sub(r"\$\{(\w+\.\w+)\}", lambda field: self._field(field[1]), join["sql_on"])
                text += f" LEFT JOIN {self._table(join['name'])} ON {on}"
        assert used <= {found["view_name"], *(join["name"] for join in found["joins"])}, used
        return text

    def _table(self, view: str) -> str:
        return f"{self.views[view]['sql_table_name'].replace('@{DATASET}', self._dataset)} AS {view}"

    def _is_measure(self, field: str) -> bool:
        view, name = field.split(".")
        return any(one["name"] == name for one in self.views[view].get("measures", []))

    def _field(self, field: str) -> str:
        """The SQL of a field.

        Raises:
            LookupError: there is no such field.
        """
        view, name = field.split(".")
        for one in self.views[view].get("dimensions", []):
            if one["name"] == name:
                return self._with_table(view, one["sql"])
        for one in self.views[view].get("dimension_groups", []):
            for frame in one["timeframes"]:
                if name == f"{one['name']}_{frame}":
                    assert frame in ("raw", "date"), frame
                    return self._with_table(view, one["sql"])
        for one in self.views[view].get("measures", []):
            if one["name"] == name:
                return self._measure(view, one)
        raise LookupError(f"there is no field {field}")

    def _measure(self, view: str, measure: Mapping[str, Any]) -> str:
        if measure["type"] == "count":
            return f"COUNT({self._field(f'{view}.key')})"
        inner = re.sub(r"\$\{(?!TABLE)(\w+)\}", lambda other: self._field(f"{view}.{other[1]}"), measure["sql"])
        inner = self._with_table(view, inner)
        return inner if measure["type"] == "number" else _AGGREGATES[measure["type"]].format(inner)

    @staticmethod
    def _with_table(view: str, sql: str) -> str:
        return sql.replace("${TABLE}", view)


def is_true(expression: str, row: Mapping[str, Any]) -> bool:
    """Whether a data test's expression holds for a row: arithmetic, one comparison and ``abs`` only."""
    text = re.sub(r"\$\{([\w.]+)\}", lambda field: repr(row[_alias(field[1])]), expression)
    text = re.sub(r"(?<![<>=])=(?!=)", "==", text)
    return bool(eval(text, {"__builtins__": {}, "abs": abs}))  # noqa: S307


def _alias(field: str) -> str:
    return field.replace(".", "__")


def _sort(text: str) -> tuple[str, str, str]:
    return text.partition(" ")


def _fields(view: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for kind in ("dimensions", "dimension_groups", "measures") for one in view.get(kind, [])]
