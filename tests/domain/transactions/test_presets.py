"""Presets: which exports are known, and when one is taken for granted."""

from custseg_assets.domain.schemas import MAPPED_NAMES
from custseg_assets.domain.transactions.presets import ONLINE_RETAIL, PRESETS

UCI = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
UCI_II = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country"]


def test_both_editions_of_online_retail_are_recognised_and_mapped() -> None:
    assert ONLINE_RETAIL.is_export(UCI)
    assert ONLINE_RETAIL.is_export(UCI_II)
    assert ONLINE_RETAIL.find(UCI)["customer_id"] == "CustomerID"
    assert ONLINE_RETAIL.find(UCI_II) == {
        "customer_id": "Customer ID",
        "invoiced_at": "InvoiceDate",
        "invoice_id": "Invoice",
        "product_id": "StockCode",
        "description": "Description",
        "quantity": "Quantity",
        "unit_price": "Price",
        "country": "Country",
    }


def test_an_export_without_country_is_still_recognised_but_one_without_stock_code_is_not() -> None:
    assert ONLINE_RETAIL.is_export([name for name in UCI if name != "Country"])
    assert not ONLINE_RETAIL.is_export([name for name in UCI if name != "StockCode"])
    assert not ONLINE_RETAIL.is_export([])


def test_presets_map_only_columns_that_exist() -> None:
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert set(preset.columns) <= set(MAPPED_NAMES)
        assert set(preset.identifying) <= set(preset.columns)
