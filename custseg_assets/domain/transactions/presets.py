"""Presets: exports that custseg knows, with the names of their columns and their product-specific rules.

Matching a file's header to columns, also without a preset, belongs in ``stores.columns``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Headers = tuple[str, ...]
"""The headers that make up one column: one, or several whose values are joined, such as a date's and a time's."""


@dataclass(frozen=True)
class RowFilter:
    """Which lines count, by the values of one column; one of the two is empty.

    Upper and lower case, spaces, ``_`` and ``-`` make no difference, and ``""`` stands for an empty cell.

    Attributes:
        only: the values of lines that count.
        exclude: the values of lines that do not.
    """

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A known export.

    Attributes:
        name: as in ``[source] preset``.
        title: what people call it.
        columns: mapped column → the headers it may have, the usual one first.
        identifying: headers that a file must have to be recognised as this export, of each group at least one.
        filters: header → which lines count; columns that a file does not have are left out.
        service_code_max_digits: a product code with at most so many digits is a service.
        service_descriptions: descriptions that name a service.
        cancellation_prefix: the start of the id of a cancelling invoice.
        keeps_negative_prices: whether a negative price is money given back, not an entry of the bookkeeping.
    """

    name: str
    title: str
    columns: Mapping[str, tuple[Headers, ...]]
    identifying: tuple[Headers, ...]
    filters: Mapping[str, RowFilter] = field(default_factory=dict)
    service_code_max_digits: int | None = None
    service_descriptions: tuple[str, ...] = ()
    cancellation_prefix: str | None = None
    keeps_negative_prices: bool = True

    def find(self, header: Collection[str]) -> dict[str, Headers]:
        """Mapped column → its headers, for those of the export's columns that the header has.

        >>> ONLINE_RETAIL.find(["Invoice", "Price", "Colour"])
        {'invoice_id': ('Invoice',), 'unit_price': ('Price',)}
        """
        present = {
            column: [headers for headers in ways if set(headers) <= set(header)]
            for column, ways in self.columns.items()
        }
        return {column: ways[0] for column, ways in present.items() if ways}

    def filters_of(self, header: Collection[str]) -> dict[str, RowFilter]:
        """Header → which lines count, for the columns that the header has."""
        return {name: rule for name, rule in self.filters.items() if name in header}

    def is_export(self, header: Collection[str]) -> bool:
        """Whether a file with this header is recognised as this export."""
        return all(set(ways) & set(header) for ways in self.identifying)


def _either(*names: str) -> tuple[Headers, ...]:
    return tuple((name,) for name in names)


ONLINE_RETAIL = Preset(
    name="online_retail",
    title="Online Retail",
    columns=MappingProxyType(
        {
            "customer_id": _either("CustomerID", "Customer ID"),
            "invoiced_at": _either("InvoiceDate"),
            "invoice_id": _either("InvoiceNo", "Invoice"),
            "product_id": _either("StockCode"),
            "description": _either("Description"),
            "quantity": _either("Quantity"),
            "unit_price": _either("UnitPrice", "Price"),
            "country": _either("Country"),
        }
    ),
    identifying=(
        ("CustomerID", "Customer ID"),
        ("InvoiceDate",),
        ("InvoiceNo", "Invoice"),
        ("StockCode",),
        ("Quantity",),
        ("UnitPrice", "Price"),
    ),
    service_code_max_digits=1,
    service_descriptions=("Next Day Carriage", "High Resolution Image"),
    cancellation_prefix="C",
    keeps_negative_prices=False,
)
"""Online Retail and Online Retail II of the UCI Machine Learning Repository, as they are downloaded."""

SHOPIFY = Preset(
    name="shopify",
    title="Shopify orders",
    columns=MappingProxyType(
        {
            "customer_id": _either("Email"),
            "invoiced_at": _either("Created at"),
            "invoice_id": _either("Name"),
            "product_id": _either("Lineitem sku"),
            "description": _either("Lineitem name"),
            "quantity": _either("Lineitem quantity"),
            "unit_price": _either("Lineitem price"),
            "country": _either("Billing Country"),
            "order_amount": _either("Total"),
            "refunded_amount": _either("Refunded Amount"),
            "currency": _either("Currency"),
        }
    ),
    identifying=(("Name",), ("Email",), ("Financial Status",), ("Created at",), ("Lineitem quantity",), ("Total",)),
    filters=MappingProxyType({"Financial Status": RowFilter(exclude=("voided", "expired"))}),
)
"""Shopify's export of orders: an order's total, refund and status stand on its first line only."""

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in (ONLINE_RETAIL, SHOPIFY)})
