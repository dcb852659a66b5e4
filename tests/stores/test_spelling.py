"""Spelling: settings name columns in the case of one file, and another file may write them in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from custseg_assets.domain.transactions.presets import FirstOf, RowFilter
from custseg_assets.errors import BadInputError
from custseg_assets.home.intake import take_in_source
from custseg_assets.settings import Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.spelling import drop_absent, spell_as_in

SETTINGS = SourceSettings(
    columns={"customer_id": FirstOf(("Customer", "E-Mail")), "invoiced_at": ("Day", "Time"), "line_amount": "Sum"},
    filter={"Status": RowFilter(only=("paid",))},
    refunds={"Kind": ("return",)},
    invoice_key=("Day", "No"),
    line_key=("No", "Line"),
)


def test_a_name_is_spelled_as_the_only_header_that_is_alike() -> None:
    header = ["customer", "e-mail", "DAY", "time", "sum", "status", "kind", "no", "line"]
    spelled = spell_as_in(SETTINGS, header)
    assert spelled.columns == {
        "customer_id": FirstOf(("customer", "e-mail")),
        "invoiced_at": ("DAY", "time"),
        "line_amount": "sum",
    }
    assert (list(spelled.filter), list(spelled.refunds)) == (["status"], ["kind"])
    assert (spelled.invoice_key, spelled.line_key) == (("DAY", "no"), ("no", "line"))


@pytest.mark.parametrize("header", [["Sum", "sum"], ["sum", "SUM"], ["sum", "sum"], ["sum_"], []])
def test_a_name_that_is_there_or_that_several_are_like_stays(header: list[str]) -> None:
    assert spell_as_in(SETTINGS, header).columns["line_amount"] == "Sum"


def test_what_names_absent_columns_is_dropped_and_said() -> None:
    left, dropped = drop_absent(SETTINGS, ["customer", "day", "time", "sum", "no", "kind"])
    assert left.columns == {"invoiced_at": ("Day", "Time"), "line_amount": "Sum"}
    assert (left.filter, list(left.refunds), left.invoice_key, left.line_key) == ({}, ["Kind"], ("Day", "No"), ())
    assert dropped == (
        'customer_id = ["Customer", "E-Mail"]',
        '[source.filter] "Status"',
        'line_key = ["No", "Line"]',
    )


def _write_months(folder: Path, *headers: str) -> Path:
    (folder / "log").mkdir()
    for month, header in enumerate(headers, 1):
        rows = [f"C{i % 7},2024-{month:02}-{i + 1:02},{i}.50,{i % 3 + 1},R{month}{i}" for i in range(20)]
        (folder / "log" / f"{month}.csv").write_text("\n".join([header, *rows, ""]))
    return folder / "log"


COLUMNS = {
    "customer_id": "Customer",
    "invoiced_at": "Day",
    "unit_price": "Price",
    "quantity": "Qty",
    "invoice_id": "No",
}


def test_files_of_a_folder_may_write_a_header_in_another_case(tmp_path: Path) -> None:
    log = _write_months(
        tmp_path, "Customer,Day,Price,Qty,No", "customer,day,price,QTY , no", "Customer,Day,Price,qty,No"
    )
    store = DeliveryStore(tmp_path / "home" / "deliveries")
    taken = take_in_source(store, str(log), Settings(source=SourceSettings(columns=COLUMNS)), print)
    lines = store.scan(taken).collect()
    assert lines.height == 60
    assert lines["customer_id"].null_count() == lines["invoice_id"].null_count() == 0
    assert (lines["quantity"] * lines["unit_price"]).sum() == 3 * sum((i + 0.5) * (i % 3 + 1) for i in range(20))


def test_a_header_that_two_are_like_is_still_refused(tmp_path: Path) -> None:
    log = _write_months(tmp_path, "Customer,Day,Price,Qty,No", "Customer,Day,Price,qty,QTY")
    store = DeliveryStore(tmp_path / "home" / "deliveries")
    settings = Settings(source=SourceSettings(columns=COLUMNS))
    with pytest.raises(BadInputError, match=r"2\.csv has no column 'Qty'"):
        take_in_source(store, str(log), settings, print)
