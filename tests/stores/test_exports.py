"""Exports of the platforms that custseg knows: read without any settings, to what the shop was made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl
import pytest

from custseg_assets.domain.transactions.cleaning import CleaningRules, classify
from custseg_assets.domain.transactions.platforms import PRESETS
from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.sources import SourceFile, open_source
from tests.support import exports
from tests.support.exports import EXPORTS, FOLDER, Export

all_exports = pytest.mark.parametrize("make", EXPORTS, ids=lambda make: make.__name__)


def read(path: Path, **settings: Any) -> tuple[pl.DataFrame, SourceFile]:
    """The classified lines of a file."""
    with open_source(path, SourceSettings(**settings), progress=print) as source:
        lines = source.lines.with_columns(source_file=pl.lit(source.name)).collect()
    preset = PRESETS.get(source.mapping.preset or "")
    rules = CleaningRules(keeps_equal_lines=bool(preset and preset.keeps_equal_lines), keeps_negative_prices=True)
    return nw.to_native(classify(nw.from_native(lines.lazy()), rules)).collect().sort("source_row"), source


def read_changed(tmp_path: Path, export: Export, old: str, new: str, **settings: Any) -> pl.DataFrame:
    """The classified lines of an export after a replacement in its text."""
    assert old in export.text
    path = tmp_path / export.file
    path.write_text(export.text.replace(old, new))
    return read(path, **settings)[0]


def assert_is_worth(lines: pl.DataFrame, export: Export) -> None:
    """Assert that the lines that are kept are worth what the counted sales are."""
    net = lines.filter(pl.col("reason").is_null())["line_amount"].sum()
    assert net == pytest.approx(sum(sale.net for sale in export.counted) / 100)


@all_exports
def test_the_files_are_those_that_the_shop_makes(make: Callable[[], Export]) -> None:
    export = make()
    assert (FOLDER / export.file).read_text(encoding="utf-8") == export.text
    assert 20 < len(export.rows) < 120


@all_exports
def test_an_export_is_read_to_what_the_shop_was_made_of(make: Callable[[], Export]) -> None:
    export = make()
    lines, source = read(FOLDER / export.file)
    assert source.mapping.preset == export.name
    assert len(lines) == len(export.rows)
    kept = lines.filter(pl.col("reason").is_null())
    reasons = dict(lines.drop_nulls("reason").group_by("reason").len().iter_rows())
    expected = {"excluded": export.n_excluded, "missing_customer": export.n_of_nobody}
    assert reasons == {reason: n for reason, n in expected.items() if n}
    assert set(kept["customer_id"]) == {sale.customer for sale in export.counted}
    assert set(kept["invoice_id"]) == {sale.order_id for sale in export.counted}
    net = {sale.order_id: sale.net / 100 for sale in export.counted}
    found = dict(kept.group_by("invoice_id").agg(pl.col("line_amount").sum()).iter_rows())
    assert found == pytest.approx(net)


@all_exports
def test_an_export_is_accepted_as_a_delivery(make: Callable[[], Export], tmp_path: Path) -> None:
    export = make()
    delivery = DeliveryStore(tmp_path).accept(FOLDER / export.file, SourceSettings(), print)
    assert (delivery.preset, delivery.n_rows) == (export.name, len(export.rows))


def test_every_preset_has_a_test_file() -> None:
    assert {make().name for make in EXPORTS} == PRESETS.keys() - {"online_retail"}


@all_exports
def test_nothing_is_taken_for_granted_with_the_preset_none(make: Callable[[], Export]) -> None:
    export = make()
    with pytest.raises(BadInputError, match="no column for"):
        read(FOLDER / export.file, preset="none")


@all_exports
def test_an_export_without_one_of_its_headers_is_none(make: Callable[[], Export]) -> None:
    export = make()
    layouts = PRESETS[export.name].layouts
    layout = next(one for one in layouts if one.is_in(export.header))
    for names in layout.identifying:
        header = [name for name in export.header if name not in names]
        assert not layout.is_in(header)


SIMILAR = {
    "another shop's orders": ["Name", "Email", "Created at", "Total", "Status"],
    "a list of payments": ["id", "Amount", "Currency", "Status", "Customer ID", "Created"],
    "another till": ["Date", "Time", "Item", "Qty", "Net Sales", "Customer ID"],
    "another shop's grid": ["ID", "Purchase Date", "Status", "Customer Email", "Grand Total"],
    "a log with an order's status": ["order_id", "order_status", "order_date", "customer_id", "price"],
    "another plugin": ["Order Number", "Order Status", "Order Date", "Email (Billing)", "Order Total"],
}


@pytest.mark.parametrize("header", SIMILAR.values(), ids=SIMILAR)
def test_a_similar_file_of_another_shop_is_no_known_export(header: list[str]) -> None:
    assert not [preset.name for preset in PRESETS.values() if preset.is_export(header)]


def test_columns_and_filters_in_the_settings_win_over_those_of_the_preset() -> None:
    path = FOLDER / "shopify.csv"
    lines, source = read(path, columns={"product_id": "Vendor", "customer_id": "Name"}, filter={"Name": ["#1001"]})
    assert source.mapping.columns["product_id"] == "Vendor"
    assert set(lines.filter(pl.col("reason").is_null())["customer_id"]) == {"#1001"}
    only_voided, _ = read(path, filter={"Financial Status": "voided"})
    # Every ninth order is voided, from the fourth on.
    voided = only_voided.filter(pl.col("reason").is_null())["invoice_id"].unique(maintain_order=True)
    assert voided.to_list() == ["#1004", "#1013", "#1022"]


def test_an_order_is_worth_its_total_unless_the_settings_name_other_columns_than_the_preset_knows() -> None:
    goods = {"quantity": "Lineitem quantity", "unit_price": "Lineitem price"}
    first = exports.make_orders()[0]
    assert first.total != sum(item.total for item in first.items)
    for columns, worth in (
        (goods, first.total),
        ({"line_amount": "Total"}, first.total),
        ({**goods, "unit_price": "Lineitem discount"}, None),
        ({"line_amount": "Lineitem price"}, first.items[0].price),
    ):
        lines, _ = read(FOLDER / "shopify.csv", columns=columns)
        of_first = lines.filter(invoice_id="#1001")["line_amount"].drop_nulls().to_list()
        assert of_first == ([] if worth is None else [pytest.approx(worth / 100)])


def test_a_status_that_the_platform_does_not_publish_is_refused_with_both_lines_to_write(tmp_path: Path) -> None:
    export = exports.woocommerce()
    with pytest.raises(BadInputError) as refused:
        read_changed(tmp_path, export, "Completed", "Shipped")
    message = str(refused.value)
    assert "column 'Order Status' has values that the preset does not know: Shipped (" in message
    assert '"Order Status" = { exclude = ["pending", "pending payment", "failed", "cancelled"' in message
    statuses = ["shipped", "processing", "on-hold", "refunded"]
    lines = read_changed(tmp_path, export, "Completed", "Shipped", filter={"Order Status": statuses})
    assert_is_worth(lines, export)


def test_a_preset_that_is_set_needs_the_columns_that_say_what_counts(tmp_path: Path) -> None:
    export = exports.shopify()
    with pytest.raises(BadInputError, match="has no column 'Refunded Amount', which Shopify orders have"):
        read_changed(tmp_path, export, "Refunded Amount", "Back", preset="shopify")
    columns = {"refunded_amount": "Back"}
    lines = read_changed(tmp_path, export, "Refunded Amount", "Back", preset="shopify", columns=columns)
    assert_is_worth(lines, export)
    with pytest.raises(BadInputError, match=r"has no column 'Financial Status', which Shopify orders have"):
        read_changed(tmp_path, export, "Financial Status", "State", preset="shopify")


def test_refunds_that_only_words_tell_of_are_refused(tmp_path: Path) -> None:
    export = exports.woocommerce_suite()
    with pytest.raises(BadInputError, match=r"'refund_items' has values .*amount:1.00"):
        read_changed(tmp_path, export, ",,name:Mug", ",amount:1.00,name:Mug")


def test_totals_in_another_currency_than_their_refunds_are_refused(tmp_path: Path) -> None:
    export = exports.magento()
    total = export.rows[0][5]
    with pytest.raises(BadInputError, match=r"'Grand Total \(Base\)' and .* differ in 1 lines, such as 1\.00 and "):
        read_changed(tmp_path, export, f"{total},{total}", f"1.00,{total}")
    # A total that does not count may be anything.
    canceled = next(row for row in export.rows if row[7] == "Canceled")
    assert len(read_changed(tmp_path, export, f",{canceled[5]},{canceled[6]},", f",1.00,{canceled[6]},"))


def test_payments_that_reached_the_balance_in_two_currencies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"amounts in several currencies: EUR .*, USD"):
        read_changed(tmp_path, exports.stripe(), "0.00,eur,,Subscription", "0.00,usd,,Subscription")


def test_refunds_and_currencies_are_those_of_the_amounts_that_the_settings_name() -> None:
    export, columns = exports.stripe(), {"line_amount": "Amount"}
    with pytest.raises(BadInputError, match=r"amounts in several currencies: USD \(6\), EUR \(5\)"):
        read(FOLDER / export.file, columns=columns)
    lines, source = read(FOLDER / export.file, columns=columns, filter={"Currency": "EUR"})
    assert source.mapping.columns["refunded_amount"] == "Amount Refunded"
    in_euros = [sale.net for sale in export.counted if int(sale.order_id[-3:]) % 2 == 0]
    kept = lines.filter(pl.col("reason").is_null())
    assert kept["line_amount"].sum() == pytest.approx(sum(in_euros) / 100)


def test_payments_in_two_currencies_are_converted_though_the_platform_writes_them_small(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text("date,currency,rate\n2024-01-01,usd,0.5\n")
    settings = {"currency": "EUR", "rates": tmp_path / "rates.csv", "columns": {"line_amount": "Amount"}}
    assert_is_worth(read(FOLDER / "stripe.csv", **settings)[0], exports.stripe())


def test_without_columns_of_the_balance_the_amounts_are_those_that_were_paid(tmp_path: Path) -> None:
    export = exports.stripe()
    text = export.text.replace("Converted ", "Other ").replace(",usd,", ",eur,")
    (tmp_path / "stripe.csv").write_text(text)
    lines, source = read(tmp_path / "stripe.csv")
    assert source.mapping.columns["refunded_amount"] == "Amount Refunded"
    in_dollars = {sale.order_id: sale for sale in export.counted if int(sale.order_id[-3:]) % 2}
    found = lines.filter(pl.col("reason").is_null() & pl.col("invoice_id").is_in(list(in_dollars)))
    assert found["line_amount"].sum() == pytest.approx(sum(sale.net for sale in in_dollars.values()) / 50)


def test_earlier_headers_and_signs_are_read_as_well(tmp_path: Path) -> None:
    stripe, square = exports.stripe(), exports.square()
    lines = read_changed(tmp_path, stripe, "Created date (UTC)", "Created (UTC)")
    assert_is_worth(lines, stripe)
    path = tmp_path / square.file
    path.write_text(re.sub(r"-(\$[\d.]+)", r"(\1)", square.text))
    assert_is_worth(read(path)[0], square)


def test_an_order_of_free_things_is_worth_its_shipping(tmp_path: Path) -> None:
    export = exports.woocommerce()
    first = dict(zip(export.header, export.rows[0], strict=True)) | {"Item Cost": "0.00"}
    row = Export("woocommerce", "free.csv", export.header, [list(first.values())], ())
    (tmp_path / "free.csv").write_text(row.text)
    lines, _ = read(tmp_path / "free.csv")
    assert lines.select("line_amount", "reason").row(0) == (float(first["Order Total Amount"]), None)


def test_olist_without_items_counts_each_payment_once(tmp_path: Path) -> None:
    export = exports.olist()
    header = [name for name in export.header if name not in {"order_item_id", "price", "product_id", "freight_value"}]
    rows = [[value for name, value in zip(export.header, row, strict=True) if name in header] for row in export.rows]
    joined = Export("olist", "olist.csv", header, rows, ())
    (tmp_path / "olist.csv").write_text(joined.text)
    lines, _ = read(tmp_path / "olist.csv")
    paid = {order.number: order.total // (2 if order.number % 5 == 0 else 1) for order in exports.make_orders()}
    first = lines.filter(pl.col("reason").is_null() & pl.col("invoice_id").str.ends_with("10"))
    assert first["line_amount"].to_list() == pytest.approx([paid[10] / 100] * 2)


def test_the_first_header_that_is_not_empty_counts_and_a_line_that_comes_again_does_not(tmp_path: Path) -> None:
    rows = ["a@x.example,7,2024-01-01,5,1", ",8,2024-01-02,6,2", ",8,2024-01-02,6,2", ",,2024-01-03,7,3"]
    (tmp_path / "log.csv").write_text("\n".join(["mail,card,day,worth,line", *rows]))
    columns = {"customer_id": {"first_of": ["mail", "card"]}, "invoiced_at": "day", "line_amount": "worth"}
    lines, source = read(tmp_path / "log.csv", columns=columns, line_key=["day", "line"])
    assert lines["customer_id"].to_list() == ["a@x.example", "8", "8", None]
    assert lines["reason"].to_list() == [None, None, "excluded", "missing_customer"]
    assert lines["excluded_by"].to_list()[2] == "day + line comes again"
    assert source.mapping.columns["customer_id"] == "mail or card"
    assert source.notes == ("1 lines left out: day + line comes again",)


def test_a_line_that_comes_again_takes_no_share_of_its_order(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,o1,1,10,30", "a,2024-01-01,o1,1,10,30", "a,2024-01-01,o1,2,20,30"]
    (tmp_path / "log.csv").write_text("\n".join(["customer_id,invoiced_at,invoice_id,line,price,total", *rows]))
    lines, _ = read(tmp_path / "log.csv", columns={"order_amount": "total"}, line_key=["invoice_id", "line"])
    assert lines["line_amount"].to_list() == [15, 0, 15]


def test_what_is_the_orders_on_its_first_line_is_of_all_its_lines(tmp_path: Path) -> None:
    rows = ["o1,a,2024-01-01,30,1,10", "o1,,,,2,10", "o2,,2024-01-02,7,1,7", "o2,,,,1,7"]
    (tmp_path / "log.csv").write_text(
        "\n".join(["invoice_id,customer_id,invoiced_at,total,quantity,unit_price", *rows])
    )
    lines, _ = read(tmp_path / "log.csv", columns={"order_amount": "total"})
    assert lines["customer_id"].to_list() == ["a", "a", None, None]
    assert lines["line_amount"].to_list() == [10, 20, 3.5, 3.5]
