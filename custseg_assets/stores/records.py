"""Records: how many a delimited text has, from its quotes and line ends alone.

Nothing here knows the reader, so that rows it merges or loses are seen. Reading them is in ``formats``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.intp]

_LF, _CR, _QUOTE = b'\n\r"'
_LONGEST = 16 << 20
"""Bytes of one record above which a quote is taken to be left open."""


class RecordCounter:
    r"""Counts records, and finds the first whose end is not certain.

    Quotes are those of RFC 4180: around whole fields, doubled inside them. A quote anywhere else is a *fault*. So is a
    record of several lines if two of them have the delimiters of a whole one: most likely a quote holds rows together.

    Args:
        delimiter: what separates fields.
        n_fields: of the header.

    Attributes:
        n_records: those that are whole so far; an empty line is one.
        fault_line: number of the line, from 1, at which the first uncertain record begins; nothing is counted after it.

    >>> counter = RecordCounter(",", 2)
    >>> counter.feed(b'1,"a\nb"\n')
    >>> counter.feed(b'2,"c""d"')
    >>> counter.finish()
    >>> counter.n_records, counter.fault_line
    (2, None)
    """

    def __init__(self, delimiter: str, n_fields: int) -> None:
        self.n_records = 0
        self.fault_line: int | None = None
        self._delimiter = delimiter.encode()[0]
        self._n_delimiters = max(n_fields - 1, 1)
        self._beside_quotes = np.zeros(256, np.bool_)
        self._beside_quotes[[self._delimiter, _LF, _QUOTE]] = True
        self._line = 1
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Count the records in the next piece of the text."""
        if self.fault_line is not None:
            return
        # It begins with a record, because what follows the last whole one is kept for the next piece.
        text = self._rest + piece
        codes = np.frombuffer(text, np.uint8)
        breaks = np.flatnonzero(codes == _LF)
        # The last byte may belong to what comes; its neighbour decides.
        quotes = np.flatnonzero(codes[:-1] == _QUOTE)
        ends = _outside(breaks, quotes)
        if (misplaced := self._first_misplaced(codes, quotes)) is not None:
            self._set_fault(breaks, ends, misplaced)
            return
        n_whole = int(ends[-1]) + 1 if ends.size else 0
        whole_lines = breaks[: np.searchsorted(breaks, n_whole)]
        if b"\r" in text:
            whole_lines = _with_returns(text, codes[:n_whole], whole_lines)
        merged = self._first_merged(codes[:n_whole], whole_lines, ends) if whole_lines.size > ends.size else None
        if merged is not None:
            self._set_fault(breaks, ends, merged)
            return
        self.n_records += ends.size
        self._line += int(np.searchsorted(breaks, n_whole))
        self._rest = text[n_whole:]
        if len(self._rest) > _LONGEST:
            self.fault_line = self._line

    def finish(self) -> None:
        """Count the last record, which may have no line end."""
        if self._rest:
            self.feed(b"\n")
        if self._rest and self.fault_line is None:
            self.fault_line = self._line

    def _set_fault(self, breaks: Positions, ends: Positions, at: int) -> None:
        before = ends[ends < at]
        self.fault_line = self._line + (int(np.searchsorted(breaks, before[-1])) + 1 if before.size else 0)

    def _first_misplaced(self, codes: npt.NDArray[np.uint8], quotes: Positions) -> int | None:
        """The first quote that neither begins nor ends a field nor is doubled."""
        if not quotes.size:
            return None
        opening, closing = quotes[::2], quotes[1::2]
        is_begin = self._beside_quotes[codes[opening - 1]] | (opening == 0)
        is_end = self._beside_quotes[codes[closing + 1]]
        # A carriage return ends a field only before a line feed, with others between them at most.
        after_next = codes.take(closing + 2, mode="clip")
        is_end |= (codes[closing + 1] == _CR) & ((after_next == _LF) | (after_next == _CR))
        wrong = np.concatenate([opening[~is_begin], closing[~is_end]])
        return int(wrong.min()) if wrong.size else None

    def _first_merged(self, codes: npt.NDArray[np.uint8], breaks: Positions, ends: Positions) -> int | None:
        """The end of the first record with two lines or more that could be records of their own."""
        delimiters = np.flatnonzero(codes == self._delimiter)
        is_row = np.diff(np.searchsorted(delimiters, breaks), prepend=0) >= self._n_delimiters
        first_lines = np.append(0, np.searchsorted(breaks, ends[:-1]) + 1)
        merged = np.flatnonzero(np.add.reduceat(is_row, first_lines, dtype=np.intp) > 1)
        return int(ends[merged[0]]) if merged.size else None


def _outside(breaks: Positions, quotes: Positions) -> Positions:
    """The line ends with an even number of quotes before them."""
    n_before = np.searchsorted(breaks, quotes)
    opened, closed = n_before[::2], n_before[1::2]
    if np.array_equal(opened, closed):
        return breaks
    is_outside: npt.NDArray[np.bool_] = np.searchsorted(quotes, breaks) % 2 == 0
    return breaks[is_outside]


def _with_returns(text: bytes, codes: npt.NDArray[np.uint8], breaks: Positions) -> Positions:
    """The line ends, and the carriage returns that belong to none: an old kind of line end."""
    if text.count(b"\r") == text.count(b"\r\n"):
        return breaks
    returns = np.flatnonzero(codes == _CR)
    alone: Positions = returns[codes[returns + 1] != _LF]
    return np.sort(np.concatenate([breaks, alone]))
