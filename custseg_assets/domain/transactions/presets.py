"""Presets: exports that custseg knows, with the names of their columns and their product-specific rules.

Matching a file's header to columns, also without a preset, belongs in ``stores.columns``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Preset:
    """A known export.

    Attributes:
        name: as in ``[source] preset``.
        columns: mapped column → the headers it may have, the usual one first.
        identifying: mapped columns that a header must have to be recognised as this export.
        service_code_max_digits: a product code with at most so many digits is a service.
        service_descriptions: descriptions that name a service.
        cancellation_prefix: the start of the id of a cancelling invoice.
    """

    name: str
    columns: Mapping[str, tuple[str, ...]]
    identifying: tuple[str, ...]
    service_code_max_digits: int | None = None
    service_descriptions: tuple[str, ...] = ()
    cancellation_prefix: str | None = None

    def find(self, header: Collection[str]) -> dict[str, str]:
        """Mapped column → header, for those of the export's columns that the header has.

        >>> ONLINE_RETAIL.find(["Invoice", "Price", "Colour"])
        {'invoice_id': 'Invoice', 'unit_price': 'Price'}
        """
        present = {column: [name for name in names if name in header] for column, names in self.columns.items()}
        return {column: names[0] for column, names in present.items() if names}

    def is_export(self, header: Collection[str]) -> bool:
        """Whether a file with this header is recognised as this export."""
        return set(self.identifying) <= self.find(header).keys()


ONLINE_RETAIL = Preset(
    name="online_retail",
    columns=MappingProxyType(
        {
            "customer_id": ("CustomerID", "Customer ID"),
            "invoiced_at": ("InvoiceDate",),
            "invoice_id": ("InvoiceNo", "Invoice"),
            "product_id": ("StockCode",),
            "description": ("Description",),
            "quantity": ("Quantity",),
            "unit_price": ("UnitPrice", "Price"),
            "country": ("Country",),
        }
    ),
    identifying=("customer_id", "invoiced_at", "invoice_id", "product_id", "quantity", "unit_price"),
    service_code_max_digits=1,
    service_descriptions=("Next Day Carriage", "High Resolution Image"),
    cancellation_prefix="C",
)
"""Online Retail and Online Retail II of the UCI Machine Learning Repository, as they are downloaded."""

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in (ONLINE_RETAIL,)})
