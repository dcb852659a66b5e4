"""Presets: what custseg knows of an export whatever shop it comes from. Which exports it knows is in ``platforms``.

Matching a file's header to columns, also without a preset, belongs in ``stores.columns``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

Headers = tuple[str, ...]
"""The headers that make up one column: one, or several whose values are joined, such as a date's and a time's."""


@dataclass(frozen=True)
class FirstOf:
    """Headers of which each line's first that is not empty counts.

    Attributes:
        first_of: the headers, the one that is to be preferred first.
    """

    first_of: Headers


Way = Headers | FirstOf
"""How a column may be made of headers."""


@dataclass(frozen=True)
class RowFilter:
    """Which lines count, by the values of one column.

    Upper and lower case, spaces, ``_`` and ``-`` make no difference, and ``""`` stands for an empty cell.

    Attributes:
        only: the values of lines that count; without any, those that are not excluded do.
        exclude: the values of lines that do not.
        refuses_others: whether a value that is in neither is an error, because nobody said what it means.
    """

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    refuses_others: bool = False


@dataclass(frozen=True)
class Layout:
    """One form of a platform's export. Columns that belong together, such as a total and its refund, are of one layout.

    Attributes:
        columns: mapped column → what it may be made of, the usual first.
        identifying: headers that a file must have to be recognised as this layout, of each group at least one.
        filters: header → which lines count; columns that a file does not have are left out.
        line_key: headers that make up a line's identity, where a line may come again because tables were joined.
        equal_amounts: two headers whose amounts differ only where there are several currencies.
        date_format: format of its dates, where that is not recognised from the dates themselves.
    """

    columns: Mapping[str, tuple[Way, ...]]
    identifying: tuple[Headers, ...]
    filters: Mapping[str, RowFilter] = field(default_factory=dict)
    line_key: Headers = ()
    equal_amounts: Headers = ()
    date_format: str | None = None

    def find(self, header: Collection[str]) -> dict[str, Way]:
        """Mapped column → what it is made of, for those of the layout's columns that the header has."""
        present = {column: [_present(way, header) for way in ways] for column, ways in self.columns.items()}
        found = {column: next((way for way in ways if way), None) for column, ways in present.items()}
        return {column: way for column, way in found.items() if way}

    def filters_of(self, header: Collection[str]) -> dict[str, RowFilter]:
        """Header → which lines count, for the columns that the header has."""
        return {name: rule for name, rule in self.filters.items() if name in header}

    def is_in(self, header: Collection[str]) -> bool:
        """Whether a file with this header is recognised as this layout."""
        return all(set(names) & set(header) for names in self.identifying)


@dataclass(frozen=True)
class Preset:
    """A known export.

    Attributes:
        name: as in ``[source] preset``.
        title: what people call it.
        layouts: the forms it comes in, tried in this order.
        service_code_max_digits: a product code with at most so many digits is a service.
        service_descriptions: descriptions that name a service.
        cancellation_prefix: the start of the id of a cancelling invoice.
        keeps_negative_prices: whether a negative price is money given back, not an entry of the bookkeeping.
        keeps_equal_lines: whether equal lines of one file all count, because the platform writes no line twice.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    service_code_max_digits: int | None = None
    service_descriptions: tuple[str, ...] = ()
    cancellation_prefix: str | None = None
    keeps_negative_prices: bool = True
    keeps_equal_lines: bool = True

    def layout_of(self, header: Collection[str], configured: Mapping[str, Way] | None = None) -> Layout:
        """The layout that a file with this header has, the usual one where it is not recognised.

        Args:
            header: the file's.
            configured: columns that are mapped already; of several layouts the one that maps most of them so is it.
        """
        fitting = [layout for layout in self.layouts if layout.is_in(header)] or [self.layouts[0]]
        own = (configured or {}).items()
        return max(fitting, key=lambda layout: len(own & layout.find(header).items()))

    def is_export(self, header: Collection[str]) -> bool:
        """Whether a file with this header is recognised as this export."""
        return any(layout.is_in(header) for layout in self.layouts)


def either(*names: str) -> tuple[Headers, ...]:
    """The headers that one column may have, the usual one first."""
    return tuple((name,) for name in names)


def _present(way: Way, header: Collection[str]) -> Way | None:
    if isinstance(way, FirstOf):
        names = tuple(name for name in way.first_of if name in header)
        return FirstOf(names) if len(names) > 1 else names or None
    return way if set(way) <= set(header) else None
