"""Previews: the header and the first rows of a file's tables, also of one that cannot be read as a log."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import find_columns, find_missing
from custseg_assets.stores.formats import open_tables
from custseg_assets.stores.headers import Header
from custseg_assets.stores.proposals import N_SAMPLED, Proposal, may_be_times, propose_columns, propose_ids
from custseg_assets.stores.raw_table import SOURCE_ROW, RawTable
from custseg_assets.stores.spelling import spell_as_in

_N_TABLES = 8
"""Tables of a file that are looked at."""


@dataclass(frozen=True)
class Preview:
    """The beginning of a table.

    Attributes:
        where: the file, and its sheet or member.
        form: in what form it is stored, and where the header is.
        header: its column names.
        sample: its first rows as text, a column for each of the header, with ``source_row``.
    """

    where: str
    form: str
    header: Header
    sample: pl.DataFrame

    @property
    def examples(self) -> dict[str, str | None]:
        """Header → its first value that is not empty, in the order of the table; unnamed columns are left out."""
        names = [name for name in dict.fromkeys(self.header.names) if name]
        return {name: self._first_value(self.header.names.index(name)) for name in names}

    def _first_value(self, i: int) -> str | None:
        texts = self.sample.to_series(i).str.strip_chars()
        return next(iter(texts.filter(texts.fill_null("") != "")), None)

    def propose(self, settings: SourceSettings) -> dict[str, Proposal]:
        """A column for each that is required and missing; quantity and price instead of an amount, or the reverse."""
        missing, others = find_missing(self.header.names, settings)
        found = self._propose(missing, others)
        amounts = [name for name in missing if name in ("line_amount", "quantity", "unit_price")]
        if amounts and not any(found[name].header for name in amounts):
            left = [name for name in others if name not in {one.header for one in found.values()}]
            instead = self._propose(["quantity", "unit_price"] if amounts == ["line_amount"] else ["line_amount"], left)
            if all(one.header for one in instead.values()):
                found = {name: one for name, one in found.items() if name not in amounts} | instead
        return found

    def _propose(self, columns: Sequence[str], others: Sequence[str]) -> dict[str, Proposal]:
        return propose_columns(columns, self.header.names, others, self.sample)

    def propose_price(self, settings: SourceSettings) -> str | None:
        """A price that may be the amount of each line, where there is neither an amount nor a quantity."""
        _, others = find_missing(self.header.names, settings)
        found = self._propose(["quantity", "unit_price"], others)
        return None if found["quantity"].header else found["unit_price"].header

    def propose_ids(self, settings: SourceSettings, *, is_certain: bool = False) -> dict[str, str]:
        """Columns that may be the ids of orders, and the ids and names of products, where nothing is read as that."""
        found, names = find_columns(self.header.names, settings), self.header.names
        filters = spell_as_in(settings, names).filter
        used = {header for headers in found.values() for header in headers} | filters.keys()
        sample = {name: self.sample.to_series(names.index(name)) for name in names if name and name not in used}
        wanted = [name for name in ("invoice_id", "product_id", "description") if name not in found]
        return propose_ids(wanted, sample, is_certain=is_certain)

    def propose_time(self, settings: SourceSettings) -> dict[str, list[str]]:
        """The date with the time of day, where that has a column of its own which nothing is read from."""
        names, found = self.header.names, find_columns(self.header.names, settings)
        dates = found.get("invoiced_at", ())
        _, others = find_missing(names, settings)
        times = [name for name in others if name and may_be_times(self.sample.to_series(names.index(name)))]
        return {"invoiced_at": [*dates, *times]} if len(dates) == len(times) == 1 else {}

    @property
    def header_row(self) -> int | None:
        """What ``[source] header_row`` may be, where the header is in doubt."""
        return {"none": 0, "late": self.header.row}.get(self.header.doubt or "")


def preview_tables(path: Path, settings: SourceSettings, keys: Mapping[str, str | None]) -> list[Preview]:
    """The beginnings of a file's tables, as many as can be opened.

    Args:
        path: the file.
        settings: how to read it.
        keys: columns that have one value in all rows, from the names of the file's folders.
    """
    previews: list[Preview] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.suppress(BadInputError, OSError, pl.exceptions.PolarsError),
    ):
        for name, table in itertools.islice(open_tables(path, settings, Path(folder)), _N_TABLES):
            where = f"{path.name}, {name}" if name else path.name
            previews.append(_preview(table.with_constants(keys), where))
    return previews


def _preview(table: RawTable, where: str) -> Preview:
    names = [str(i) for i in range(len(table.header.names))]
    schema = table.lines.collect_schema()
    texts = [
        pl.lit(None, pl.String).alias(name)
        if schema[name].is_nested() or schema[name] == pl.Binary
        else pl.col(name).cast(pl.String)
        for name in names
    ]
    header = table.header
    at = header.describe(table.unit) or (f"header on {table.unit} {header.row}" if table.form != "parquet" else "")
    sample = table.lines.select(*texts, SOURCE_ROW).head(N_SAMPLED).collect()
    return Preview(where, ", ".join(filter(None, [table.form, at])), header, sample)
