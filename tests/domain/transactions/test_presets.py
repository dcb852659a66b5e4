"""Presets: which exports are known, and when one is taken for granted."""

from typing import get_args

from custseg_assets.domain.schemas import MAPPED_NAMES, READ_NAMES
from custseg_assets.domain.transactions.platforms import ONLINE_RETAIL, PRESETS, SHOPIFY, STRIPE
from custseg_assets.domain.transactions.presets import FirstOf
from custseg_assets.source_settings import SourceSettings

UCI = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
UCI_II = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country"]


def test_both_editions_of_online_retail_are_recognised_and_mapped() -> None:
    assert ONLINE_RETAIL.is_export(UCI)
    assert ONLINE_RETAIL.is_export(UCI_II)
    assert ONLINE_RETAIL.layout_of(UCI).find(UCI)["customer_id"] == ("CustomerID",)
    assert ONLINE_RETAIL.layout_of(UCI_II).find(UCI_II) == {
        "customer_id": ("Customer ID",),
        "invoiced_at": ("InvoiceDate",),
        "invoice_id": ("Invoice",),
        "product_id": ("StockCode",),
        "description": ("Description",),
        "quantity": ("Quantity",),
        "unit_price": ("Price",),
        "country": ("Country",),
    }


def test_an_export_without_country_is_still_recognised_but_one_without_stock_code_is_not() -> None:
    assert ONLINE_RETAIL.is_export([name for name in UCI if name != "Country"])
    assert not ONLINE_RETAIL.is_export([name for name in UCI if name != "StockCode"])
    assert not ONLINE_RETAIL.is_export([])


def test_presets_map_only_columns_that_exist() -> None:
    for name, preset in PRESETS.items():
        assert preset.name == name
        for layout in preset.layouts:
            assert set(layout.columns) <= {*MAPPED_NAMES, *READ_NAMES}
            assert {"customer_id", "invoiced_at"} <= set(layout.columns)
            assert not {"line_amount", "order_amount"} <= set(layout.columns)


def test_what_a_layout_reads_or_filters_by_status_is_in_the_headers_that_identify_it() -> None:
    # Otherwise a file without a refund or a status would count as one without refunds, or without cancelled orders.
    for preset in PRESETS.values():
        for layout in preset.layouts:
            header = [names[0] for names in layout.identifying]
            money = {"line_amount", "order_amount", "refunded_amount", "customer_id"} & set(layout.columns)
            assert money <= set(layout.find(header)), preset.name
            certain = [name for name, rule in layout.filters.items() if rule.refuses_others]
            assert set(certain) <= set(header), preset.name


def test_the_settings_accept_the_names_of_all_presets() -> None:
    accepted = get_args(get_args(SourceSettings.model_fields["preset"].annotation)[0])
    assert list(accepted) == ["none", *sorted(PRESETS)]


def test_of_alternatives_those_count_that_a_file_has() -> None:
    layout = SHOPIFY.layouts[0]
    assert layout.find(["Email", "Phone"])["customer_id"] == FirstOf(("Email", "Phone"))
    assert layout.find(["Email"])["customer_id"] == ("Email",)
    assert layout.find(["Phone"])["customer_id"] == ("Phone",)


def test_an_amount_and_its_refund_and_currency_are_of_one_layout() -> None:
    header = [names[0] for names in STRIPE.layouts[1].identifying] + ["Converted Amount"]
    found = STRIPE.layout_of(header).find(header)
    assert (found["line_amount"], found["refunded_amount"]) == (("Amount",), ("Amount Refunded",))
