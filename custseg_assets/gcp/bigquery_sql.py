"""BigQuery's SQL for what Narwhals has DuckDB do, where both mean the same; anything else is refused.

Narwhals writes SQL for DuckDB. sqlglot parses it and knows every column's type. Each node must be one of those below,
on types for which BigQuery is known to give the same: other nodes, and other types, are an error and not a guess. What
sqlglot itself would turn into something that BigQuery lacks, or takes for something else, is rewritten here. Running
the SQL belongs in ``bigquery_engine``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError, UnsupportedError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify_columns import qualify_columns
from sqlglot.optimizer.qualify_tables import qualify_tables

TYPES: Mapping[str, str] = {
    "VARCHAR": "STRING",
    "DOUBLE": "FLOAT64",
    "BIGINT": "INT64",
    "BOOLEAN": "BOOL",
    "TIMESTAMP": "DATETIME",
}
"""DuckDB's types of the columns that the engines know → BigQuery's."""

_Type = exp.DataType.Type
_TEXT, _FLOAT, _FLAG = {_Type.VARCHAR, _Type.TEXT}, {_Type.DOUBLE}, {_Type.BOOLEAN}
_INSTANT = {_Type.TIMESTAMPNTZ, _Type.TIMESTAMP}
_WHOLE = {_Type.BIGINT, _Type.INT, _Type.INT128, _Type.SMALLINT, _Type.TINYINT}
_FAMILIES = (_TEXT, _INSTANT, _FLAG, _WHOLE | _FLOAT)

PLAIN = (
    exp.Alias,
    exp.And,
    exp.Boolean,
    exp.Column,
    exp.DataType,
    exp.From,
    exp.Identifier,
    exp.If,
    exp.Literal,
    exp.Not,
    exp.Null,
    exp.Or,
    exp.Paren,
    exp.Star,
    exp.TableAlias,
    exp.Where,
    exp.With,
)
"""What means the same on both, whatever is in it."""


class NotTheSameError(Exception):
    """A construct is none that DuckDB and BigQuery are known to agree on; the text says which."""


def to_bigquery(sql: str, columns: Mapping[str, Mapping[str, str]], names: Mapping[str, str]) -> str:
    """The same query in BigQuery's words.

    Args:
        sql: DuckDB's, as Narwhals writes it.
        columns: table → column → DuckDB's type, of all tables that it reads.
        names: table → its full name in BigQuery, ``project.dataset.table``.

    Raises:
        NotTheSameError: something in it may mean another thing on BigQuery, or is not known there.
    """
    try:
        tree = _with_types(sql, columns)
        for node in reversed(list(tree.walk())):
            # What is inside a node is looked at before the node itself.
            replaced = _rewrite(node)
            if replaced is not node:
                node.replace(replaced)
        _rename_tables(tree, names)
        written = tree.sql(dialect="bigquery", unsupported_level=sqlglot.ErrorLevel.RAISE)
        sqlglot.parse_one(written, read="bigquery")
    except (SqlglotError, UnsupportedError) as error:
        raise NotTheSameError(" ".join(str(error).split())) from error
    return written


def _with_types(sql: str, columns: Mapping[str, Mapping[str, str]]) -> exp.Expr:
    """The parsed query: each column with its table, no stars, each value with its type."""
    tree = sqlglot.parse_one(sql, read="duckdb").transform(_name_addition)
    schema: dict[str, object] = {table: dict(types) for table, types in columns.items()}
    tree = qualify_tables(tree, dialect="duckdb")
    # Aliases stay aliases: those of DuckDB's that stand for a value of the same SELECT are refused as unknown columns.
    tree = qualify_columns(tree, schema, expand_alias_refs=False, expand_stars=True)
    for column in tree.find_all(exp.Column):
        if not column.table:
            raise NotTheSameError(f"{column.sql()}, a column of no table")
    return annotate_types(tree, schema, dialect="duckdb")


def _name_addition(node: exp.Expr) -> exp.Expr:
    """DuckDB calls addition by name where Narwhals adds two aggregates."""
    if isinstance(node, exp.Anonymous) and node.name.lower() == "add" and len(node.expressions) == 2:
        return exp.paren(exp.Add(this=node.expressions[0], expression=node.expressions[1]))
    return node


def _rewrite(node: exp.Expr) -> exp.Expr:
    """The node, or what stands for it on BigQuery.

    Raises:
        NotTheSameError: it is none of those known.
    """
    if type(node) in PLAIN:
        return node
    rule = RULES.get(type(node))
    if rule is None:
        raise _refused(node, "a construct that is not known to mean the same")
    replaced = rule(node)
    replaced.type = node.type
    return replaced


def _refused(node: exp.Expr, why: str) -> NotTheSameError:
    return NotTheSameError(f"{node.sql(dialect='duckdb')[:120]}: {why}")


def _require(node: exp.Expr, is_right: bool, why: str) -> None:
    if not is_right:
        raise _refused(node, why)


def _is(node: exp.Expr, types: Collection[Any]) -> bool:
    return node.type is not None and node.type.this in types


def _is_null(node: exp.Expr) -> bool:
    return isinstance(node, exp.Null)


def _select(node: exp.Expr) -> exp.Expr:
    known = {"with_", "with", "expressions", "from_", "from", "joins", "where", "group", "kind", "operation_modifiers"}
    others = {name for name, value in node.args.items() if value} - known
    _require(node, not others, f"{', '.join(sorted(others))} in a SELECT")
    return node


def _common_table(node: exp.Expr) -> exp.Expr:
    # BigQuery decides itself what it keeps.
    node.set("materialized", None)
    return node


def _group(node: exp.Expr) -> exp.Expr:
    _require(node, all(isinstance(one, exp.Column) for one in node.expressions), "groups of what is no column")
    _require(node, not any(_is(one, _FLOAT) for one in node.expressions), "groups of fractions")
    return node


def _join(node: exp.Expr) -> exp.Expr:
    way = {name: value for name, value in node.args.items() if value and name not in ("this", "on")}
    is_known = way in ({"side": "LEFT"}, {"kind": "SEMI"})
    _require(node, is_known and node.args.get("on") is not None, "a join that is neither LEFT nor SEMI")
    return node


def _comparison(node: exp.Expr) -> exp.Expr:
    sides = (node.this, node.expression)
    _require(node, any(all(_is(one, family) for one in sides) for family in _FAMILIES), "values of two kinds")
    return node


def _arithmetic(node: exp.Expr) -> exp.Expr:
    _require(node, all(_is(one, _WHOLE | _FLOAT) for one in (node.this, node.expression)), "no numbers")
    return node


def _division(node: exp.Expr) -> exp.Expr:
    divisor = node.expression
    is_known = isinstance(divisor, exp.Literal) and not divisor.is_string and float(divisor.name) != 0
    _require(node, is_known and _is(node.this, _FLOAT), "a division of whole numbers, or by what may be nought")
    return node


def _remainder(node: exp.Expr) -> exp.Expr:
    _require(node, all(_is(one, _WHOLE) for one in (node.this, node.expression)), "a remainder of fractions")
    return node


def _is_whole(node: exp.Expr) -> bool:
    """Whether a number has no fraction, so that no rounding has a say."""
    if isinstance(node, exp.Floor) or _is(node, _WHOLE):
        return True
    if isinstance(node, exp.Paren):
        return _is_whole(node.this)
    if isinstance(node, exp.Add | exp.Sub | exp.Mul):
        return _is_whole(node.this) and _is_whole(node.expression)
    if isinstance(node, exp.Case):
        branches = [one.args["true"] for one in node.args["ifs"]]
        return all(_is_whole(one) for one in (*branches, node.args.get("default")) if one is not None)
    return False


def _cast(node: exp.Expr) -> exp.Expr:
    to, value = node.args["to"].this, node.this
    is_known = (
        (to in _TEXT and (_is(value, _TEXT) or _is_null(value)))
        or (to in _WHOLE and _is_whole(value))
        or (to in _FLOAT and (_is(value, _FLOAT) or isinstance(value, exp.Literal)))
        or (to in _INSTANT and isinstance(value, exp.Literal) and value.is_string)
    )
    _require(node, is_known, "a conversion in which rounding or spelling may differ")
    if to in _WHOLE:
        node.set("to", exp.DataType.build("BIGINT"))
    return node


def _floor(node: exp.Expr) -> exp.Expr:
    _require(node, _is(node.this, _FLOAT | _WHOLE), "no number")
    return node


def _case(node: exp.Expr) -> exp.Expr:
    _require(node, node.this is None, "CASE of a value")
    return node


def _is_test(node: exp.Expr) -> exp.Expr:
    _require(node, _is_null(node.expression), "a test that is not for NULL")
    return node


def _sum(node: exp.Expr) -> exp.Expr:
    _require(node, _is(node.this, _WHOLE), "a sum of fractions, which depends on their order")
    return node


def _extreme(node: exp.Expr) -> exp.Expr:
    _require(node, _is(node.this, _TEXT | _INSTANT | _WHOLE), "an extreme of what has no such order on both")
    return node


def _count(node: exp.Expr) -> exp.Expr:
    counted = node.this
    if counted is None:
        node.set("this", exp.Star())
    elif isinstance(counted, exp.Distinct):
        _require(node, len(counted.expressions) == 1 and not _is(counted.expressions[0], _FLOAT), "fractions")
    return node


def _distinct(node: exp.Expr) -> exp.Expr:
    _require(node, isinstance(node.parent, exp.Count), "DISTINCT outside of COUNT")
    return node


def _window(node: exp.Expr) -> exp.Expr:
    _require(node, isinstance(node.this, exp.Count | exp.Max | exp.Min | exp.Sum), "a function over a window")
    _require(node, bool(node.args.get("order")) == bool(node.args.get("spec")), "a window's frame that is not said")
    node.set("partition_by", [_partition_key(one) for one in node.args.get("partition_by") or ()])
    return node


def _partition_key(value: exp.Expr) -> exp.Expr:
    """What stands for a value in PARTITION BY, where BigQuery refuses fractions: 17 digits are one number each."""
    if not _is(value, _FLOAT):
        return value
    # Both zeros are one number, and two texts.
    plain = exp.If(
        this=exp.EQ(this=value.copy(), expression=exp.Literal.number("0.0")),
        true=exp.Literal.number("0.0"),
        false=value.copy(),
    )
    return exp.Anonymous(this="FORMAT", expressions=[exp.Literal.string("%.17g"), plain])


def _frame(node: exp.Expr) -> exp.Expr:
    said = {name: str(value).lower() for name, value in node.args.items() if value}
    expected = {"kind": "rows", "start": "unbounded", "start_side": "preceding", "end": "0", "end_side": "following"}
    _require(node, said == expected, "a frame that is not from the first row to this one")
    return exp.WindowSpec(kind="ROWS", start="UNBOUNDED", start_side="PRECEDING", end="CURRENT ROW")


def _order(node: exp.Expr) -> exp.Expr:
    _require(node, isinstance(node.parent, exp.Window), "ORDER BY outside of a window")
    return node


def _ordered(node: exp.Expr) -> exp.Expr:
    # BigQuery has nulls first in what goes up, unless something else is said.
    goes_up = not node.args.get("desc") and bool(node.args.get("nulls_first"))
    _require(node, goes_up and _is(node.this, _TEXT | _INSTANT | _WHOLE), "an order that is not upwards, nulls first")
    return node


def _coalesce(node: exp.Expr) -> exp.Expr:
    values = (node.this, *node.expressions)
    _require(node, any(all(_is(one, family) for one in values) for family in _FAMILIES), "values of several kinds")
    return node


def _pattern(node: exp.Expr) -> exp.Expr:
    # Both libraries are RE2.
    is_plain = isinstance(node.expression, exp.Literal) and not node.args.get("flag")
    _require(node, is_plain and _is(node.this, _TEXT), "a pattern that is no constant, or has options")
    return node


def _starts_with(node: exp.Expr) -> exp.Expr:
    _require(node, _is(node.this, _TEXT) and isinstance(node.expression, exp.Literal), "a start that is no constant")
    return node


def _contains(node: exp.Expr) -> exp.Expr:
    values = node.this
    is_list = isinstance(values, exp.Array) and all(isinstance(one, exp.Literal) for one in values.expressions)
    _require(node, is_list and _is(node.expression, _TEXT), "a list that is none of constants")
    return exp.In(this=node.expression.copy(), expressions=[one.copy() for one in values.expressions])


def _array(node: exp.Expr) -> exp.Expr:
    _require(node, isinstance(node.parent, exp.Contains), "a list")
    return node


def _join_texts(node: exp.Expr) -> exp.Expr:
    """BigQuery has no CONCAT_WS; both this and ARRAY_TO_STRING leave nulls out."""
    separator, *values = node.expressions
    _require(node, isinstance(separator, exp.Literal) and all(_is(one, _TEXT) for one in values), "no texts")
    array = exp.Array(expressions=[one.copy() for one in values])
    return exp.Anonymous(this="ARRAY_TO_STRING", expressions=[array, separator.copy()])


def _written_day(node: exp.Expr) -> exp.Expr:
    is_day = node.args["format"].name == "%Y-%m-%d"
    _require(node, is_day and _is(node.this, _INSTANT), "an instant that is not written as a day")
    return exp.Anonymous(this="FORMAT_DATETIME", expressions=[exp.Literal.string("%Y-%m-%d"), node.this.copy()])


def _start_of_day(node: exp.Expr) -> exp.Expr:
    _require(node, node.args["unit"].name == "DAY" and _is(node.this, _INSTANT), "the start of something but a day")
    return exp.DatetimeTrunc(this=node.this.copy(), unit=exp.var("DAY"))


def _part_of_instant(node: exp.Expr) -> exp.Expr:
    _require(node, _is(node.this, _INSTANT), "no instant")
    return node


def _unit(node: exp.Expr) -> exp.Expr:
    _require(node, isinstance(node.parent, exp.TimestampTrunc), "a word that is not known")
    return node


def _table(node: exp.Expr) -> exp.Expr:
    others = {name for name, value in node.args.items() if value} - {"this", "alias"}
    _require(node, not others, "a table that is read in a way of its own")
    return node


RULES: Mapping[type[exp.Expr], Callable[[exp.Expr], exp.Expr]] = {
    exp.Add: _arithmetic,
    exp.Array: _array,
    exp.Case: _case,
    exp.Cast: _cast,
    exp.Coalesce: _coalesce,
    exp.ConcatWs: _join_texts,
    exp.Contains: _contains,
    exp.Count: _count,
    exp.CTE: _common_table,
    exp.DayOfWeekIso: _part_of_instant,
    exp.Distinct: _distinct,
    exp.Div: _division,
    exp.EQ: _comparison,
    exp.Floor: _floor,
    exp.GT: _comparison,
    exp.GTE: _comparison,
    exp.Group: _group,
    exp.Hour: _part_of_instant,
    exp.Is: _is_test,
    exp.Join: _join,
    exp.LT: _comparison,
    exp.LTE: _comparison,
    exp.Max: _extreme,
    exp.Min: _extreme,
    exp.Mod: _remainder,
    exp.Mul: _arithmetic,
    exp.NEQ: _comparison,
    exp.Order: _order,
    exp.Ordered: _ordered,
    exp.RegexpLike: _pattern,
    exp.Select: _select,
    exp.StartsWith: _starts_with,
    exp.Sub: _arithmetic,
    exp.Sum: _sum,
    exp.Table: _table,
    exp.TimeToStr: _written_day,
    exp.TimestampTrunc: _start_of_day,
    exp.Var: _unit,
    exp.Window: _window,
    exp.WindowSpec: _frame,
}
"""What means the same on some types only, or is written in another way."""


def _rename_tables(tree: exp.Expr, names: Mapping[str, str]) -> None:
    """Give each table its full name; what is defined in the query keeps its own."""
    defined = {one.alias for one in tree.find_all(exp.CTE)}
    for table in list(tree.find_all(exp.Table)):
        if table.name in defined:
            continue
        if table.name not in names:
            raise NotTheSameError(f"{table.name}, a table that is not on BigQuery")
        project, dataset, name = names[table.name].split(".")
        table.replace(exp.table_(name, db=dataset, catalog=project, quoted=True, alias=table.alias or table.name))
