"""Values as Dagster's pages show them: pictures, lists, small tables, facts and column lineage of a table.

Every Markdown that an asset or a check shows is made here; what others have written is in it as text.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.domain.markdown import as_text
from custseg_assets.domain.schemas import Table, column_sources, tables
from custseg_assets.home.open import OpenHome


def picture(name: str, png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that the UI shows as a picture."""
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")


def bullets(sentences: Sequence[str]) -> dg.MarkdownMetadataValue:
    """Sentences as a list."""
    return dg.MetadataValue.md("\n".join(f"- {as_text(sentence)}" for sentence in sentences))


def table_preview(frame: pl.DataFrame, n_rows: int = 12) -> dg.MarkdownMetadataValue:
    """The first rows of a small table as Markdown."""
    shown = frame.head(n_rows)
    lines = [" | ".join(map(as_text, shown.columns)), " | ".join("---" for _ in shown.columns)]
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
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else as_text(value)


def facts(home: OpenHome, table: Table) -> dict[str, Any]:
    """What is shown of every table as it stands: rows, version, and which columns its columns are computed from.

    The last is left out where nobody will look.
    """
    return {
        "dagster/row_count": sum(home.tables.sizes(table).values()),
        "delta_version": home.tables.version_of(table.name),
        **(_lineage_of(table, home.settings.model.features) if home.has_viewers else {}),
    }


def _lineage_of(table: Table, features: tuple[str, ...]) -> dict[str, Any]:
    lineage = column_lineage(table, features)
    words = {"column_lineage": lineage_in_words(table, features)} if lineage.deps_by_column else {}
    return {"dagster/column_lineage": lineage, **words}


def column_lineage(table: Table, features: tuple[str, ...]) -> dg.TableColumnLineage:
    """Which columns each column is computed from."""
    return dg.TableColumnLineage(
        {
            column.name: [
                dg.TableColumnDep(dg.AssetKey(name), field) for name, field in column_sources(column, features)
            ]
            for column in table.columns
            if column.lineage
        }
    )


def lineage_in_words(table: Table, features: tuple[str, ...]) -> dg.MarkdownMetadataValue:
    """Column lineage as a table for people, with where each column comes from in the end.

    Dagster stores column lineage everywhere, but its open-source pages do not draw it.
    """
    lines = ["| column | computed from | and so, in the end, from |", "| --- | --- | --- |"]
    for column in table.columns:
        if column.lineage:
            sources = column_sources(column, features)
            origins = dict.fromkeys(origin for source in sources for origin in _origins(*source, features))
            lines.append(f"| {as_text(column.name)} | {_by_table(sources)} | {_by_table(origins)} |")
    return dg.MetadataValue.md("\n".join(lines))


@cache
def _origins(name: str, field: str, features: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The columns a column goes back to that are not computed from others."""
    column = tables(features)[name][field]
    if not column.lineage:
        return ((name, field),)
    origins = (origin for source in column_sources(column, features) for origin in _origins(*source, features))
    return tuple(dict.fromkeys(origins))


def _by_table(columns: Iterable[tuple[str, str]]) -> str:
    fields: dict[str, list[str]] = {}
    for name, field in columns:
        fields.setdefault(name, []).append(field)
    return as_text("; ".join(f"{name}: {', '.join(names)}" for name, names in fields.items()))
