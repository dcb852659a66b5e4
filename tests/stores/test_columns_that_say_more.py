"""What a line is worth and whose it is, as further columns say: filters, totals, refunds, currencies, customers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.settings import load_settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.sources import open_source


def read(tmp_path: Path, text: str, told: list[str] | None = None, **settings: Any) -> pl.DataFrame:
    path = tmp_path / "log.csv"
    path.write_text(text, encoding="utf-8")
    progress = (told if told is not None else []).append
    with open_source(path, SourceSettings(**settings), progress=progress) as source:
        return source.lines.collect()


def refusal(tmp_path: Path, text: str, **settings: Any) -> str:
    with pytest.raises(BadInputError) as refused:
        read(tmp_path, text, **settings)
    return str(refused.value)


HEADER = "customer_id,invoiced_at,invoice_id,line_amount"
STATUS = f"""{HEADER},Status
a,2024-01-01,1,10,Paid
b,2024-01-02,2,20,VOIDED
c,2024-01-03,3,30,partially_refunded
d,2024-01-04,4,40,
"""


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        ("paid", ["Status = VOIDED", "Status = partially_refunded", 'Status = ""']),
        (["Paid", "Partially refunded", ""], ["Status = VOIDED"]),
        ({"only": ["paid", "PARTIALLY-REFUNDED"]}, ["Status = VOIDED", 'Status = ""']),
        ({"exclude": [" voided "]}, ["Status = VOIDED"]),
        ({"exclude": ["voided", ""]}, ["Status = VOIDED", 'Status = ""']),
    ],
)
def test_a_filter_leaves_lines_out_and_keeps_them_with_the_reason(
    tmp_path: Path, rule: Any, left_out: list[str]
) -> None:
    lines = read(tmp_path, STATUS, filter={"Status": rule})
    assert lines["excluded_by"].drop_nulls().to_list() == left_out
    assert lines.height == 4


def test_numbers_and_booleans_of_a_filter_are_compared_as_people_write_them(tmp_path: Path) -> None:
    text = f"{HEADER},Live,Kind\na,2024-01-01,1,10,TRUE,1.0\nb,2024-01-02,2,20,False,1\nc,2024-01-03,3,30,true,2\n"
    assert read(tmp_path, text, filter={"Live": True, "Kind": 1})["excluded_by"].to_list() == [
        None,
        "Live = False",
        "Kind = 2",
    ]


def test_empty_cells_that_are_left_out_are_each_lines_own(tmp_path: Path) -> None:
    text = f"{HEADER},Item\na,2024-01-01,1,10,\na,2024-01-01,1,10,Cup\n"
    lines = read(tmp_path, text, filter={"Item": {"exclude": [""]}})
    assert lines["excluded_by"].to_list() == ['Item = ""', None]


def test_an_order_has_the_status_of_its_first_line_on_all_of_them(tmp_path: Path) -> None:
    text = f"{HEADER},Status\na,2024-01-01,1,10,paid\na,2024-01-01,1,5,\nb,2024-01-02,2,20,void\nb,2024-01-02,2,7,\n"
    lines = read(tmp_path, text, filter={"Status": "paid"})
    assert lines["excluded_by"].is_null().to_list() == [True, True, False, False]


def test_a_filter_says_what_counts_and_what_does_not(tmp_path: Path) -> None:
    told: list[str] = []
    read(tmp_path, STATUS, told, filter={"Status": {"exclude": ["voided"]}})
    assert told[1] == '  Status: counts "" (1), Paid (1), partially_refunded (1); left out VOIDED (1)'


def test_a_filter_that_leaves_nothing_is_refused_with_the_values_there_are(tmp_path: Path) -> None:
    assert "leave none of 4 lines; 'Status' has \"\" (1), Paid (1)" in refusal(
        tmp_path, STATUS, filter={"Status": "settled"}
    )


@pytest.mark.parametrize("rule", ["[]", "{ only = [], exclude = [] }", "{ except = ['a'] }", "[['a']]", "{}"])
def test_a_filter_that_says_nothing_is_refused(tmp_path: Path, rule: str) -> None:
    config = tmp_path / "custseg.toml"
    config.write_text(f"[source.filter]\nStatus = {rule}\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="must be the values of lines that count"):
        load_settings(config, environment={})


def test_a_filter_of_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no column 'State', which [source.filter] names" in refusal(tmp_path, STATUS, filter={"State": "paid"})


ORDERS = "customer_id,invoiced_at,invoice_id,quantity,unit_price,Total,Refund\n"


def test_the_total_of_an_order_is_shared_out_by_what_its_goods_cost(tmp_path: Path) -> None:
    on_first = ORDERS + "a,2024-01-01,1,1,10,24,\na,2024-01-01,1,2,10,,\nb,2024-01-02,2,1,5,4,1\n"
    columns = {"order_amount": "Total", "refunded_amount": "Refund"}
    assert read(tmp_path, on_first, columns=columns)["line_amount"].to_list() == [8.0, 16.0, 3.0]
    on_each = on_first.replace("10,,", "10,24,")
    assert read(tmp_path, on_each, columns=columns)["line_amount"].to_list() == [8.0, 16.0, 3.0]


def test_without_prices_an_order_is_shared_out_equally(tmp_path: Path) -> None:
    text = "customer_id,invoiced_at,Total\na,2024-01-01,9\na,2024-01-01,9\na,2024-01-01,\na,2024-01-02,5\n"
    assert read(tmp_path, text, columns={"order_amount": "Total"})["line_amount"].to_list() == [3.0, 3.0, 3.0, 5.0]


def test_a_gift_without_amount_does_not_change_the_total_of_its_order(tmp_path: Path) -> None:
    text = f"{HEADER}\na,2024-01-01,1,0\na,2024-01-01,1,20\na,2024-01-01,1,20\nb,2024-01-01,2,0\n"
    assert read(tmp_path, text.replace(",line_amount", ",Total"), columns={"order_amount": "Total"})[
        "line_amount"
    ].to_list() == pytest.approx([20 / 3] * 3 + [0])


def test_an_order_with_two_totals_is_refused(tmp_path: Path) -> None:
    text = ORDERS + "a,2024-01-01,1,1,10,24,\na,2024-01-01,1,2,10,20,\n"
    assert "1 orders have several totals, such as 1 with 20 and 24" in refusal(
        tmp_path, text, columns={"order_amount": "Total"}
    )


def test_an_amount_on_one_line_of_each_order_is_refused_as_the_amount_of_a_line(tmp_path: Path) -> None:
    text = ORDERS + "a,2024-01-01,1,1,10,30,\na,2024-01-01,1,2,10,,\nb,2024-01-02,2,1,5,5,\n"
    message = refusal(tmp_path, text, columns={"line_amount": "Total"}, ignored_columns=["Refund"])
    assert 'order_amount = "Total" instead of line_amount' in message


def test_what_was_given_back_of_a_line_is_taken_off_whatever_its_sign(tmp_path: Path) -> None:
    text = ORDERS.replace("Total,", "") + "a,2024-01-01,1,2,10,5\na,2024-01-01,1,1,10,\nb,2024-01-02,2,1,7,-7\n"
    told: list[str] = []
    lines = read(tmp_path, text, told, columns={"refunded_amount": "Refund"})
    assert lines["line_amount"].to_list() == [15.0, 10.0, 0.0]
    assert "log.csv: 12.00 of 'Refund' are taken off" in told[-1]


def test_a_refund_on_every_line_of_an_order_is_refused(tmp_path: Path) -> None:
    text = ORDERS.replace("Total,", "") + "a,2024-01-01,1,2,10,5\na,2024-01-01,1,1,10,5\n"
    assert "'Refund' is equal on every line of 1 of the 1 orders" in refusal(
        tmp_path, text, columns={"refunded_amount": "Refund"}
    )


CURRENCIES = f"{HEADER},Currency\na,2024-01-01,1,10,EUR\nb,2024-01-09,2,1000,jpy\nc,2024-02-03,3,1000,JPY\n"
CURRENCIES = CURRENCIES.replace("jpy", "JPY")
RATES = "date,currency,rate\n2024-01-02,JPY,0.006\n2024-02-01,JPY,0.007\n"


def test_amounts_in_several_currencies_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    message = refusal(tmp_path, CURRENCIES)
    assert "several currencies: JPY (2), EUR (1)" in message
    assert '"Currency" = "JPY" under [source.filter]' in message
    assert 'currency = "JPY" and rates = "rates.csv"' in message


def test_a_filter_may_leave_one_currency(tmp_path: Path) -> None:
    lines = read(tmp_path, CURRENCIES, filter={"Currency": "JPY"})
    assert lines["excluded_by"].null_count() == 2


def test_amounts_are_converted_by_the_rate_of_their_day(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    lines = read(tmp_path, CURRENCIES, currency="EUR", rates=tmp_path / "rates.csv")
    assert lines["line_amount"].to_list() == pytest.approx([10.0, 6.0, 7.0])
    assert lines["source_row"].to_list() == [1, 2, 3]


def test_a_day_without_a_rate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES.replace("2024-01-02", "2024-01-20"))
    message = refusal(tmp_path, CURRENCIES, currency="EUR", rates=tmp_path / "rates.csv")
    assert "has no rate for JPY on 2024-01-09, nor before it; 1 lines need one" in message


def test_two_rates_for_a_day_are_refused(tmp_path: Path) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("date,currency,rate\n2024-01-01,USD,0.9\n2024-01-01,USD,9\n")
    columns = {"currency": "Cur"}
    text = f"{HEADER},Cur\na,2024-01-01,1,10,USD\n"
    assert "several rates for USD on 2024-01-01" in refusal(
        tmp_path, text, columns=columns, currency="EUR", rates=rates
    )


def test_a_currency_without_rates_names_that_of_the_amounts(tmp_path: Path) -> None:
    one = CURRENCIES.replace("EUR", "JPY")
    assert read(tmp_path, one, currency="JPY")["line_amount"].to_list() == [10.0, 1000.0, 1000.0]
    message = refusal(tmp_path, one, currency="EUR")
    assert "has amounts in JPY" in message
    assert 'amounts in EUR, as [source] currency = "EUR" says' in message
    assert "several currencies: JPY (2), EUR (1)" in refusal(tmp_path, CURRENCIES, currency="EUR")


def test_other_rates_make_another_delivery(tmp_path: Path) -> None:
    rates, log = tmp_path / "rates.csv", tmp_path / "log.csv"
    log.write_text(CURRENCIES)
    store, ids = DeliveryStore(tmp_path / "deliveries"), set()
    for text in (RATES, RATES, RATES.replace("0.007", "0.008")):
        rates.write_text(text)
        ids.add(store.accept(log, SourceSettings(currency="EUR", rates=rates), print).id)
    assert len(ids) == 2


def ids_of(tmp_path: Path, *ids: str, told: list[str] | None = None, **settings: Any) -> list[str | None]:
    rows = "".join(f'"{one}",2024-01-0{i},{i},5\n' for i, one in enumerate(ids, start=1))
    return read(tmp_path, f"{HEADER}\n{rows}", told, **settings)["customer_id"].to_list()


def test_what_exports_write_for_nobody_is_nobody_and_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    assert ids_of(tmp_path, "a", "NULL", "\\N", "n/a", "0", "-", "Guest", told=told) == ["a", *[None] * 6]
    assert "no customer where it says '-' (1), '0' (1), 'Guest' (1)" in told[1]
    assert ids_of(tmp_path, "a", "Till 1", "null", no_customer=["till 1"]) == ["a", None, None]
    assert ids_of(tmp_path, "a", "Walk-in customer", "(not set)", "...", "Laufkundschaft") == ["a", *[None] * 4]
    assert ids_of(tmp_path, "Cash & Carry", "00000", "anonymous-7") == ["Cash & Carry", "00000", "anonymous-7"]
    assert ids_of(tmp_path, "a", "NULL", "0", customer_id_form="text") == ["a", "NULL", "0"]


def test_numbers_with_a_point_and_nought_are_the_same_customers(tmp_path: Path) -> None:
    told: list[str] = []
    assert ids_of(tmp_path, "17850.0", "17850", "00123", told=told) == ["17850", "17850", "00123"]
    assert "('17850.0' is '17850')" in told[0]
    assert ids_of(tmp_path, "17850.0", "A1") == ["17850.0", "A1"]
    assert ids_of(tmp_path, "17850.0", "0017850", "000", customer_id_form="number") == ["17850", "17850", "0"]
    assert ids_of(tmp_path, "17850.0", "17850", customer_id_form="text") == ["17850.0", "17850"]


def test_addresses_are_the_same_in_any_case_and_other_ids_are_not(tmp_path: Path) -> None:
    assert ids_of(tmp_path, "Ann@Shop.example", "ann@shop.example") == ["ann@shop.example"] * 2
    assert ids_of(tmp_path, "Ann@Shop.example", "b@x.example", customer_id_case="keep")[0] == "Ann@Shop.example"
    assert ids_of(tmp_path, "Ann", "ann") == ["Ann", "ann"]
    assert ids_of(tmp_path, "Ann", "ann", customer_id_case="lower") == ["ann", "ann"]


def test_what_nobody_sees_makes_no_difference_between_ids(tmp_path: Path) -> None:
    told: list[str] = []
    assert ids_of(tmp_path, "M\u00fcller  1", "Mu\u0308ller 1\u200b", told=told) == ["M\u00fcller 1"] * 2
    assert "spaces and signs without width make no difference" in told[0]


def test_a_customer_on_the_first_line_of_each_order_holds_for_its_others(tmp_path: Path) -> None:
    orders = [f"c{i},2024-01-01,{i},5\n,2024-01-01,{i},7" for i in range(10)]
    told: list[str] = []
    lines = read(tmp_path, "\n".join([HEADER, *orders]), told)
    assert lines["customer_id"].to_list() == [f"c{i // 2}" for i in range(20)]
    assert any("'customer_id' stands on the first line of an order" in line for line in told)
    guests = [
        f"c{i},2024-01-01,{i},5\n,2024-01-01,{i},7" if i < 8 else f"a,2024-01-01,{i},1\nb,2024-01-01,{i},1"
        for i in range(10)
    ]
    assert read(tmp_path, "\n".join([HEADER, *guests]))["customer_id"].null_count() == 8


def test_amounts_of_products_that_are_equal_for_any_quantity_are_prices(tmp_path: Path) -> None:
    rows = "".join(f"a,2024-01-0{i % 2 + 1},{i},{i // 2}.5,P{i // 2},{i % 2 + 1}\n" for i in range(20))
    text = f"{HEADER},product_id,Qty\n{rows}"
    assert 'write quantity = "Qty" and unit_price' in refusal(tmp_path, text)
    assert read(tmp_path, text, ignored_columns=["Qty"]).height == 20
    # With fewer products it is asked all the same, for amounts that do not grow with the quantity.
    assert "amounts do not grow with it" in refusal(tmp_path, text.replace("P", "Q", 7))


@pytest.mark.parametrize("name", ["qty", "Menge", "Stück", "Anzahl", "pcs"])
def test_prices_beside_a_quantity_that_nobody_mapped_are_asked_about_with_both_sums(tmp_path: Path, name: str) -> None:
    quantities = [1 + i % 4 for i in range(80)]
    rows = "".join(f"c{i % 9},2024-01-0{i % 7 + 1},{i},{2 + i % 5}.5,{n}\n" for i, n in enumerate(quantities))
    message = refusal(tmp_path, f"{HEADER},{name}\n{rows}")
    amounts = [2.5 + i % 5 for i in range(80)]
    times = sum(one * n for one, n in zip(amounts, quantities, strict=True))
    assert f"they come to {sum(amounts):,.2f} as they are, and to {times:,.2f} times '{name}'" in message
    assert f'write quantity = "{name}" and unit_price, not line_amount' in message
    assert read(tmp_path, f"{HEADER},{name}\n{rows}", ignored_columns=[name]).height == 80
    # Amounts of lines grow with the quantity: nothing is asked.
    rows = "".join(f"c{i % 9},2024-01-0{i % 7 + 1},{i},{n * (2.5 + i % 5)},{n}\n" for i, n in enumerate(quantities))
    assert read(tmp_path, f"{HEADER},{name}\n{rows}").height == 80


def test_ids_that_lost_their_last_digits_are_nobody_or_refused(tmp_path: Path) -> None:
    text = HEADER + "\n" + "".join(f"{i},2024-01-01,{i},5\n" for i in range(1, 200)) + "6.1E+12,2024-01-02,x,5\n"
    lines = read(tmp_path, text)
    assert lines["customer_id"].null_count() == 1
    assert lines["unreadable_values"][-1] == '{"customer_id": "6.1E+12"}'
    message = refusal(tmp_path, text.replace("\n1,", "\n6.1E+12,").replace("\n2,", "\n6.1E+12,"))
    assert "3 of 200 ids like '6.1E+12', whose last digits a spreadsheet cut off" in message


def test_an_order_may_be_made_of_several_columns(tmp_path: Path) -> None:
    rows = ["a,2024-01-01 09:00,1,7,5", "b,2024-01-01 10:00,2,7,5", "c,2024-01-02 09:00,,7,5"]
    text = "\n".join(["customer_id,When,Till,No,line_amount", *rows])
    lines = read(tmp_path, text, columns={"invoiced_at": "When"}, invoice_key=["Till", "When", "No"])
    assert lines["invoice_id"].to_list() == ["7 2024-01-01 1", "7 2024-01-01 2", "7 2024-01-02 "]


def test_a_date_and_a_time_in_two_columns_are_one_instant(tmp_path: Path) -> None:
    text = "customer_id,Date,Time,line_amount\na,2024-01-01,09:30,5\nb,2024-01-02,,5\n"
    lines = read(tmp_path, text, columns={"invoiced_at": ["Date", "Time"]})
    assert [f"{one:%Y-%m-%d %H:%M}" for one in lines["invoiced_at"]] == ["2024-01-01 09:30", "2024-01-02 00:00"]


@pytest.mark.parametrize(
    ("header", "values", "line"),
    [
        ("status", ["paid", "failed", "paid"], '"status" = { exclude = ["failed"] }'),
        ("Order State", ["complete", "Canceled", "VOIDED"], '"Order State" = { exclude = ["Canceled", "VOIDED"] }'),
        ("event_type", ["purchase", "view", "add_to_cart"], '"event_type" = { exclude = ["add_to_cart", "view"] }'),
        ("Status", ["Bezahlt", "auto-cancelled", "Betald"], '"Status" = { exclude = ["auto-cancelled"] }'),
        ("Statut", ["Payée", "Remboursée (CB)", "Payée"], '"Statut" = ["Remboursée (CB)"] under [source.refunds]'),
        ("status", ["paid", "Limbo", "paid"], "nobody said whether 'status' \"Limbo\""),
        ("state", ["paid", "paid", "Limbo"], '"state" = { exclude = ["Limbo"] }'),
        ("D/C", ["C", "D", "C"], '"D/C" = { exclude = ["C", "D"] }'),
        ("is_paid", ["1", "0", "1"], '"is_paid" = { exclude = ["0"] }'),
        ("Cancel reason", ["", "Too late", ""], '"Cancel reason" = ""'),
        ("is_test", ["false", "true", "false"], '"is_test" = { exclude = ["true"] }'),
        ("cancelled_at", ["", "2024-01-05 10:00", ""], '"cancelled_at" = ""'),
        ("Amount Refunded", ["0.00", "3.50", "0.00"], 'refunded_amount = "Amount Refunded"'),
        ("Cur", ["EUR", "EUR", "USD"], '"Cur" = "EUR" under [source.filter]'),
    ],
)
def test_a_column_that_would_change_the_figures_is_not_passed_over(
    tmp_path: Path, header: str, values: list[str], line: str
) -> None:
    rows = "".join(f"c{i},2024-01-0{i},{i},{i}0,{value}\n" for i, value in enumerate(values, start=1))
    text = f"{HEADER},{header}\n{rows}"
    message = refusal(tmp_path, text)
    assert line in message
    assert f'ignored_columns = ["{header}"]' in message
    assert read(tmp_path, text, ignored_columns=[header]).height == 3


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("status", ["paid", "shipped", "complete"]),
        ("Category", ["Void fillers", "View cameras", "Test kits"]),
        ("Refund Policy", ["30 days", "none", "30 days"]),
        ("returned", ["no", "no", "no"]),
        ("State", ["CA", "NY", "CA"]),
        ("Customer Status", ["gold", "silver", "gold"]),
        ("status", ["Limbo", "Limbo", "Limbo"]),
        ("Payment", ["not refunded", "no returns", "card"]),
        ("paid", ["yes", "yes", "yes"]),
        ("Amount Refunded", ["0", "0.00", ""]),
        ("Currency code", ["EUR", "EUR", "EUR"]),
        ("Refund reason", ["", "", ""]),
    ],
)
def test_a_column_that_changes_nothing_is_passed_over(tmp_path: Path, header: str, values: list[str]) -> None:
    rows = "".join(f"c{i},2024-01-0{i},{i},{i}0,{value}\n" for i, value in enumerate(values, start=1))
    assert read(tmp_path, f"{HEADER},{header}\n{rows}").height == 3


def test_a_misspelt_value_that_is_to_be_left_out_is_noticed(tmp_path: Path) -> None:
    assert '"Status" = { exclude = ["VOIDED"] }' in refusal(tmp_path, STATUS, filter={"Status": {"exclude": ["viod"]}})
    assert read(tmp_path, STATUS, filter={"Status": {"exclude": ["void", "voided", "partially refunded"]}}).height == 4


def test_a_status_of_customers_says_nothing_of_sales(tmp_path: Path) -> None:
    rows = "".join(f"c{i % 3},2024-01-0{i},{i},{i}0,{'tier ' + str(i % 3)}\n" for i in range(1, 7))
    assert read(tmp_path, f"{HEADER},Status\n{rows}").height == 6
    assert "nobody said" in refusal(tmp_path, f"{HEADER},Status\n{rows}c0,2024-01-08,8,80,tier 1\n")


def test_lines_for_what_was_paid_back_are_negative_whatever_their_sign(tmp_path: Path) -> None:
    told: list[str] = []
    text = (
        f"{HEADER},Type\na,2024-01-01,1,10,Sale\na,2024-01-02,1,10,Payment REFUND\nb,2024-01-02,2,-5,payment refund\n"
    )
    lines = read(tmp_path, text, told, refunds={"Type": ["Payment refund"]})
    assert lines["line_amount"].to_list() == [10.0, -10.0, -5.0]
    assert "  Type: refunds Payment REFUND (1), payment refund (1); counts Sale (1)" in told
    priced = "customer_id,invoiced_at,quantity,unit_price,Type\na,2024-01-01,2,3,Sale\n"
    priced += "a,2024-01-02,2,3,R\na,2024-01-03,-2,-3,R\n"
    lines = read(tmp_path, priced, refunds={"Type": ["r"]})
    assert lines["quantity"].to_list() == [2.0, -2.0, -2.0]
    assert lines["unit_price"].to_list() == [3.0, 3.0, 3.0]


def test_a_discount_that_prices_may_not_know_of_is_not_passed_over(tmp_path: Path) -> None:
    text = "customer_id,invoiced_at,quantity,unit_price,Discount\na,2024-01-01,2,30,10\nb,2024-01-02,1,5,0\n"
    assert 'refunded_amount = "Discount"' in refusal(tmp_path, text)
    assert read(tmp_path, text, ignored_columns=["Discount"]).height == 2
    assert read(tmp_path, text.replace(",10\n", ",0\n")).height == 2
    assert "refunded_amount" not in refusal(tmp_path, text.replace(",10\n", ",10%\n"))


def test_a_refund_on_one_line_in_ten_is_not_taken_for_a_flag(tmp_path: Path) -> None:
    rows = "".join(f"c{i},2024-01-01,{i},10,{3.5 if i == 7 else 0}\n" for i in range(1, 21))
    assert 'refunded_amount = "Refunded"' in refusal(tmp_path, f"{HEADER},Refunded\n{rows}")


@pytest.mark.parametrize("header", ["Refunded", "Erstattet", "Remboursé", "Reembolso", "Rimborso", "Devolução"])
def test_a_refund_of_1_that_may_be_a_yes_is_not_passed_over(tmp_path: Path, header: str) -> None:
    rows = "".join(f"c{i},2024-01-01,{i},10,{int(i == 7)}\n" for i in range(1, 21))
    message = refusal(tmp_path, f"{HEADER},{header}\n{rows}")
    assert f'{header!r} is "1" on 1 of 20 lines' in message
    assert f'refunded_amount = "{header}"' in message


def test_lines_with_negative_amounts_may_be_called_returned(tmp_path: Path) -> None:
    text = f"{HEADER},kind\na,2024-01-01,1,10,sale\na,2024-01-02,2,-10,return\n"
    assert read(tmp_path, text)["line_amount"].to_list() == [10.0, -10.0]


def test_a_total_that_is_not_quantity_times_price_is_not_passed_over(tmp_path: Path) -> None:
    text = ORDERS.replace(",Refund", "") + "a,2024-01-01,1,1,10,27,\na,2024-01-01,1,2,10,,\nb,2024-01-02,2,1,5,5,\n"
    text = text.replace(",\n", "\n")
    message = refusal(tmp_path, text)
    assert "quantity times price comes to 35.00, but 'Total', which is not read, to 32.00" in message
    assert 'order_amount = "Total"' in message
    assert read(tmp_path, text.replace("27", "30")).height == 3
    assert read(tmp_path, text, ignored_columns=["Total"]).height == 3


@pytest.mark.parametrize("refund", ["kr 12,50", "12,50 kr", "EUR 12.50", "CHF 1'012.50", "1.012,50"])
def test_a_refund_with_a_currency_or_a_comma_is_not_passed_over(tmp_path: Path, refund: str) -> None:
    rows = [f'c{i},2024-01-0{i},{i},2000,"{value}"' for i, value in enumerate((refund, "", refund), start=1)]
    message = refusal(tmp_path, f"{HEADER},Refund\n" + "\n".join(rows) + "\n")
    refunded = 2025.0 if "012" in refund else 25.0
    assert f"nothing is read from 'Refund', which has {refunded:,.2f} on 2 of 3 lines" in message


def test_a_label_below_a_report_hides_no_refund_and_no_currency(tmp_path: Path) -> None:
    rows = "".join(f"{value},c{i},2024-01-0{i},{i},10\n" for i, value in enumerate(("", "2.00", ""), start=1))
    message = refusal(tmp_path, f"Refund,{HEADER}\n{rows}End of the report,,,,\n")
    assert "nothing is read from 'Refund', which has 2.00 on 1 of 3 lines" in message
    rows = "".join(f"{value},c{i},2024-01-0{i},{i},10\n" for i, value in enumerate(("EUR", "USD", "EUR"), start=1))
    assert "'Paid in': EUR (2), USD (1)" in refusal(tmp_path, f"Paid in,{HEADER}\n{rows}3 records,,,,\n")


def test_a_currency_that_only_returns_have_is_not_passed_over(tmp_path: Path) -> None:
    text = f"{HEADER},Paid in\na,2024-01-01,1,10,EUR\na,2024-01-02,2,20,EUR\nb,2024-01-03,3,-5,USD\n"
    assert "'Paid in': EUR (2), USD (1)" in refusal(tmp_path, text)


def test_a_total_with_a_decimal_comma_is_compared_as_what_it_is(tmp_path: Path) -> None:
    header = "customer_id,invoiced_at,invoice_id,quantity,unit_price,Total\n"
    rows = '"a","2024-01-01","1","2","1.000,25","{}"\n"b","2024-01-02","2","1","5,50","5,50"\n'
    assert read(tmp_path, header + rows.format("2.000,50")).height == 2
    message = refusal(tmp_path, header + rows.format("1.500,50"))
    assert "quantity times price comes to 2,006.00, but 'Total', which is not read, to 1,506.00" in message


def test_what_stands_below_a_report_does_not_decide_what_ids_are_like(tmp_path: Path) -> None:
    text = "customer_id,invoice_id,invoiced_at,line_amount\n17850.0,1001.0,2024-01-01,5\n17851.0,1002.0,2024-01-02,6\n"
    for last in ("2 records,,,\n", ",2 records,,\n", "Total,Total,,11\n"):
        lines = read(tmp_path, text + last).filter(pl.col("invoiced_at").is_not_null())
        assert lines["customer_id"].to_list() == ["17850", "17851"]
        assert lines["invoice_id"].to_list() == ["1001", "1002"]


def test_further_columns_are_looked_at_where_the_quotes_are_right(tmp_path: Path) -> None:
    """Quotes that a backslash escapes shift the columns behind them for a reader that does not know it."""
    rows = [rf'"Frame \"{i}\", oak",c{i},2024-01-0{i},{i},10,{i == 2}' for i in range(1, 4)]
    message = refusal(tmp_path, f"Text,{HEADER},is_test\n" + "\n".join(rows) + "\n")
    assert "'is_test' is \"True\" on 1 of 3 lines that would count as sales" in message


def test_quotes_inside_values_do_not_stop_the_look_at_further_columns(tmp_path: Path) -> None:
    texts = ('6" plate, 8" bowl', 'Frame 10"', 'Say "hi"', "Mug") * 20
    rows = [f"{text.replace(',', ' ')},c{i % 9},2024-01-05,{i},1{i},paid" for i, text in enumerate(texts)]
    assert read(tmp_path, f"Text,{HEADER},status\n" + "\r".join(rows).replace("\r", "\n") + "\n").height == 80


@pytest.mark.parametrize(
    "columns",
    [
        {"refunded_amount": "Back"},
        {"order_amount": "Total", "refunded_amount": "Back"},
        {"order_amount": "Spoilt"},
        {"line_amount": "Spoilt"},
    ],
    ids=repr,
)
def test_nothing_stands_for_an_amount_that_cannot_be_read(tmp_path: Path, columns: dict[str, str]) -> None:
    """Neither quantity times price nor nought: the line, or the order whose total it is, is unreadable."""
    header = "customer_id,invoiced_at,invoice_id,quantity,unit_price,Total,Back,Spoilt\n"
    text = header + "a,2024-01-01,1,1,10,20,1?107,2?0\na,2024-01-01,1,1,10,20,1?107,2?0\nb,2024-01-02,2,1,6,6,1,6\n"
    text += "b,2024-01-03,3,1,5,5,1,5\n"
    told: dict[str, Any] = {"columns": columns, "ignored_columns": ["Total"]}
    assert "values that cannot be read" in refusal(tmp_path, text, **told)
    lines = read(tmp_path, text, **told, max_unreadable_share=1)
    worth = pl.coalesce("line_amount", pl.col("quantity") * pl.col("unit_price"))
    expected = [6.0, 5.0] if len(columns) == 1 and "refunded_amount" not in columns else [5.0, 4.0]
    assert lines.select(worth).to_series().to_list() == [None, None, *expected]


def test_a_refund_that_is_null_or_nan_is_none(tmp_path: Path) -> None:
    rows = "".join(f"a,2024-01-0{i},{i},10,{refund}\n" for i, refund in enumerate(("NULL", "2", "", "nan"), start=1))
    lines = read(tmp_path, f"{HEADER},Refund\n{rows}", columns={"refunded_amount": "Refund"}, max_unreadable_share=1)
    assert lines["line_amount"].to_list() == [10.0, 8.0, 10.0, 10.0]
    refunds = pl.Series("Refund", [None, 2.0, float("nan"), 0.0])
    lines.drop("unreadable_values").with_columns(refunds, line_amount=10.0).write_parquet(tmp_path / "log.parquet")
    settings = SourceSettings(columns={"refunded_amount": "Refund"}, max_unreadable_share=1)
    with open_source(tmp_path / "log.parquet", settings, progress=print) as source:
        assert source.lines.collect()["line_amount"].to_list() == [10.0, 8.0, 10.0, 10.0]


def test_a_quantity_that_nobody_mapped_and_is_negative_is_asked_about(tmp_path: Path) -> None:
    text = f"{HEADER},Qty\na,2024-01-01,1,10,1\nb,2024-01-02,2,20,-2\n"
    message = refusal(tmp_path, text)
    assert (
        "nothing is read from 'Qty', which is negative on 1 of 2 lines that would count as sales, with 20.00" in message
    )
    assert 'quantity = "Qty"' in message


def test_the_first_of_several_columns_that_is_somebody_counts(tmp_path: Path) -> None:
    rows = "".join(f"{who},2024-01-01,5\n" for who in ("n/a,1", "HOUSE,2", "a,3", "-,-"))
    text = f"Mail,Phone,invoiced_at,line_amount\n{rows}"
    columns = {"customer_id": {"first_of": ["Mail", "Phone"]}}
    lines = read(tmp_path, text, columns=columns, no_customer=["house"])
    assert lines["customer_id"].to_list() == ["1", "2", "a", None]


def test_a_line_that_is_left_out_has_no_day_far_from_those_that_count(tmp_path: Path) -> None:
    text = f"{HEADER},Status\na,2024-01-01,1,10,paid\nb,2024-01-20,2,20,void\nc,2033-01-03,3,30,void\n"
    lines = read(tmp_path, text, filter={"Status": "paid"})
    assert lines["invoiced_at"].is_null().to_list() == [False, False, True]
    assert lines["unreadable_values"].to_list() == [None, None, '{"invoiced_at": "2033-01-03 00:00:00.000000"}']
    assert lines["excluded_by"][2] == "Status = void"


def test_a_currency_on_the_first_line_of_an_order_holds_for_the_others(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    text = CURRENCIES.replace("c,2024-02-03,3,1000,JPY\n", "c,2024-02-03,3,1000,JPY\nc,2024-02-03,3,500,\n")
    lines = read(tmp_path, text, currency="EUR", rates=tmp_path / "rates.csv")
    assert lines["line_amount"].to_list() == pytest.approx([10.0, 6.0, 7.0, 3.5])
