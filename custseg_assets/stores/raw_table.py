"""A table as a file has it, before anything is known of its columns. Formats are in ``formats`` and ``texts``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from custseg_assets.errors import BadInputError
from custseg_assets.stores.headers import Header

SOURCE_ROW = "source_row"
SURPLUS = "surplus"

LARGE = {"text": 256 << 20, "parquet": 32 << 20}
"""Size in bytes above which a table is kept in a scratch file instead of in memory."""


@dataclass(frozen=True)
class RawTable:
    """A table as the file has it.

    Attributes:
        header: column names without surrounding spaces, an unnamed column is ``""``, and where they stand.
        lines: one column per header, named by its position, with ``source_row`` and, where the format can have them,
            ``surplus``: the fields that a row has beyond the header.
        is_large: whether it is too large for memory.
        n_records: how many rows it must have; ``None`` for formats that say so themselves.
        convention: what is unusual about how the text is written, ``""`` if nothing is.
        form: in what form it is stored, such as a text's encoding and delimiter.
        unit: what its rows are called in messages about its header.
        repair: makes the same table with the usual quotes, where it cannot be read without.
    """

    header: Header
    lines: pl.LazyFrame
    is_large: bool = False
    n_records: int | None = None
    convention: str = ""
    form: str = ""
    unit: str = "line"
    repair: Callable[[RawTable], RawTable] | None = None

    def repaired(self) -> RawTable:
        """The table with quotes that leave no record uncertain.

        Raises:
            BadInputError: where a record ends cannot be told.
        """
        return self if self.repair is None else self.repair(self)

    def with_constants(self, values: Mapping[str, str | None]) -> RawTable:
        """The table with further columns, but for those that it has, each with one value in all rows."""
        names = self.header.names
        added = {name: value for name, value in values.items() if name not in names}
        columns = [pl.lit(value, pl.String).alias(str(i)) for i, value in enumerate(added.values(), len(names))]
        header = replace(self.header, names=(*names, *added))
        return replace(self, header=header, lines=self.lines.with_columns(columns)) if added else self

    def load(self, columns: Sequence[pl.Expr], scratch: Path, where: str) -> pl.LazyFrame:
        """Read the file once, into memory or a scratch file, so that later reads are cheap and cannot fail.

        Args:
            columns: what to keep of ``lines``; text that comes out empty becomes null.
            scratch: folder that exists as long as the result is used.
            where: the file, for the messages.

        Raises:
            BadInputError: the content is damaged, or there is not a row for every record.
        """
        # A separate step: in one with the trimming, Polars would trim everything twice.
        lines = self.lines.select(columns).with_columns(non_empty(pl.col(pl.String)))
        try:
            if self.is_large:
                path = scratch / "settled.parquet"
                lines.sink_parquet(path, compression="lz4")
                loaded = pl.scan_parquet(path, glob=False)
            else:
                loaded = lines.collect().lazy()
        except pl.exceptions.PolarsError as error:
            raise damage_error(where, str(error).splitlines()[0]) from None
        n_rows = loaded.select(pl.len()).collect().item()
        if self.n_records is not None and self.n_records != n_rows:
            raise BadInputError(
                f"{where} has {self.n_records:,} records, but {n_rows:,} rows were read",
                "a row for every record",
                "Export it again in another format, for example as xlsx or parquet.",
            )
        return loaded


def non_empty(text: pl.Expr) -> pl.Expr:
    """The text, null where it is empty."""
    # Not ``replace("", None)``: the streaming engine would need the whole column in memory.
    return pl.when(text != "").then(text)


def damage_error(where: str, reason: str) -> BadInputError:
    """The error about a file whose content cannot be read, and the reason that its reader gives."""
    return BadInputError(f"{where} is damaged or cut off ({reason})", "a whole file", "Fetch or export it again.")


def scan_text(path: Path, names: Sequence[str], delimiter: str) -> pl.LazyFrame:
    """The rows of a text in UTF-8 whose first line has these names, with what they have beyond them."""
    surplus = [name for name in names if name.startswith(SURPLUS)]
    joined = pl.concat_str(surplus, separator=delimiter, ignore_nulls=True).str.strip_chars()
    return pl.scan_csv(
        path,
        glob=False,
        separator=delimiter,
        schema=dict.fromkeys(names, pl.String),
        truncate_ragged_lines=True,
        row_index_name=SOURCE_ROW,
        row_index_offset=1,
    ).with_columns(non_empty(joined).alias(SURPLUS))
