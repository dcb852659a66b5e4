"""Quotes: read a text whose quotes are not those of RFC 4180, if one known convention explains every record."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from custseg_assets.errors import BadInputError
from custseg_assets.stores.columns import shorten
from custseg_assets.stores.raw_table import RawTable, scan_text
from custseg_assets.stores.records import RecordCounter

_CHUNK = 1 << 20
_ESCAPED = re.compile(rb'\\(["\\])')


class _UncertainRecordError(Exception):
    """Where a record ends cannot be told; the argument is its line after the header, from 1."""


@dataclass(frozen=True)
class UnusualText:
    """A text file, with a header of numbers, whose quotes are not all as RFC 4180 has them.

    Attributes:
        path: the file.
        names: of its columns.
        delimiter: what separates fields.
        n_fields: of its own header.
        n_before: lines of the original up to the end of its header.
        fault_line: line after the header, from 1, at which the first record begins whose end is not certain.
        where: the original, for the messages.
    """

    path: Path
    names: Sequence[str]
    delimiter: str
    n_fields: int
    n_before: int
    fault_line: int
    where: str

    def repair(self, table: RawTable) -> RawTable:
        """The table by the first known convention that leaves no record uncertain.

        Raises:
            BadInputError: there is none.
        """
        target = self.path.with_name("repaired.csv")
        last_fault = self.fault_line
        conventions = {
            "quotes escaped by a backslash": self._unescape_quotes,
            "quotes inside values that have none around them": self._quote_whole_values,
        }
        for convention, rewrite in conventions.items():
            try:
                with self.path.open("rb") as file, target.open("wb") as repaired:
                    repaired.write(next(file))
                    repaired.writelines(rewrite(file))
                n_records = self._count(target)
            except _UncertainRecordError as error:
                last_fault = max(last_fault, error.args[0])
                continue
            lines = scan_text(target, self.names, self.delimiter)
            said = "; ".join(filter(None, [table.convention, convention]))
            return replace(table, lines=lines, n_records=n_records, convention=said, repair=None)
        raise BadInputError(
            f"{self.where}, line {self.n_before + last_fault:,}: quotes and line ends do not tell where the record ends"
            f" ({self._text_at(last_fault)})",
            "one kind of line end, and quotes only around whole values and doubled inside them (RFC 4180)",
            "Correct this line and those like it, or export again, for example as xlsx or parquet.",
        )

    def _count(self, path: Path) -> int:
        counter = RecordCounter(self.delimiter, self.n_fields)
        with path.open("rb") as file:
            next(file)
            for piece in iter(lambda: file.read(_CHUNK), b""):
                counter.feed(piece)
        counter.finish()
        if counter.fault_line is not None:
            raise _UncertainRecordError(counter.fault_line)
        return counter.n_records

    def _text_at(self, line: int) -> str:
        with self.path.open("rb") as file:
            text = next(itertools.islice(file, line, None), b"").decode().strip()
        return repr(shorten(text))

    def _unescape_quotes(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Double the quotes that a backslash escapes; other backslashes are text, but for those that escape one."""
        for line in lines:
            yield _ESCAPED.sub(lambda found: b'""' if found[1] == b'"' else b"\\", line)

    def _quote_whole_values(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Write ``6" plate`` without quotes around it as ``"6"" plate"``."""
        reader = csv.reader((line.decode() for line in lines), delimiter=self.delimiter, strict=True)
        line = 0
        try:
            for record in reader:
                # Over several lines and of another length than the header, it is more likely several records.
                if reader.line_num > line + 1 and len(record) != self.n_fields:
                    break
                row = io.StringIO()
                csv.writer(row, delimiter=self.delimiter, lineterminator="\n").writerow(record)
                yield row.getvalue().encode()
                line = reader.line_num
            else:
                return
        except csv.Error:
            pass
        raise _UncertainRecordError(line + 1)
