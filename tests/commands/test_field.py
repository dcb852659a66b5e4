"""Exports as shops have them: read to what the shop was made of, or refused; never read to anything else."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from custseg_assets.errors import BadInputError
from tests.support.readings import Reading, read_as_configured
from tests.support.shops import custseg


@dataclass(frozen=True)
class Case:
    """An export, and what becomes of it.

    Attributes:
        folder: of the case.
        toml: what a reasonable person writes first.
        refused: what is said where that is not enough.
        mend: replacements that the refusal asks for, in the configuration or, where it is one line's, in the file.
        in_file: whether they are made in the file.
        truth: right figures that ``expected.json`` calls by another name.
    """

    folder: str
    toml: str = "custseg.toml"
    refused: str | None = None
    mend: dict[str, str] = field(default_factory=dict)
    in_file: bool = False
    truth: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.folder}/{self.toml}"


_COLUMNS_OF_29 = (
    'path = "words.csv"\npreset = "none"\n[source.columns]\ncustomer_id = "CustomerID"\ninvoiced_at = "InvoiceDate"\n'
    'invoice_id = "InvoiceNo"\nproduct_id = "StockCode"\nquantity = "Quantity"\nunit_price = "UnitPrice"'
)
_PURCHASES = '\n[source.filter]\n"event_type" = { exclude = ["view", "cart"] }'
_STRAY = "1 line of {}-.* days {} the rest of the log .* such as row 2,204 of .*; .* keep_stray_days = true"
_EVENTS = r"'event_type' is \"view\", \"cart\" on 3,781 of 4,846 lines .* Write \"event_type\" = { exclude = \["
SHOPIFY = {"orders": "orders_paid", "records": "rows"}
CASES = [
    Case("01-shopify-orders", truth=SHOPIFY),
    Case("01-shopify-orders", "total.toml", truth=SHOPIFY),
    Case("05-thousands-separators", truth={"records": "rows", "kept": "rows"}),
    Case("05-thousands-separators", "few.toml", truth={"kept": "rows"}),
    Case("07-report-with-title-and-totals", truth={"kept": "rows"}),
    Case("10-two-digit-year-first", truth={"kept": "rows"}),
    Case(
        "11-one-stray-date",
        "typo.toml",
        refused=_STRAY.format(2033, "after"),
        mend={r"\n[^\n]*2033-[^\n]*": ""},
        in_file=True,
        truth={"net": "net_without_the_stray"},
    ),
    Case(
        "11-one-stray-date",
        "epoch.toml",
        refused=_STRAY.format(1970, "before"),
        mend={r"\n[^\n]*1970-[^\n]*": ""},
        in_file=True,
        truth={"net": "net_without_the_stray"},
    ),
    Case("13-text-for-nothing", truth={"records": "rows"}),
    Case("14-one-time-buyers", "default.toml", truth={"kept": "rows"}),
    Case("16-seasonal-shop", truth={"kept": "rows"}),
    Case("18-ids-spoilt-by-excel", "mixed.toml", truth={"kept": "rows"}),
    Case(
        "18-ids-spoilt-by-excel",
        "zeros.toml",
        refused="228 customers have several ids that differ in zeros .*'00001' and '1'.* customer_id_form = .number.",
        mend={r"\[source\]": '[source]\ncustomer_id_form = "number"'},
        truth={"kept": "rows"},
    ),
    Case(
        "21-receipt-numbers-restart",
        refused=r"53 of 54 values of 'Receipt' are several orders' .* invoice_key = \[\"Date\", \"Receipt\"\] under",
        mend={r"\[source\]": '[source]\ninvoice_key = ["Date", "Receipt"]'},
        truth={"orders": "visits", "kept": "rows"},
    ),
    Case("23-event-log", refused=_EVENTS, mend={r"$": _PURCHASES}, truth={"kept": "purchase_rows"}),
    Case("23-event-log", "withformat.toml", refused=_EVENTS, mend={r"$": _PURCHASES}, truth={"kept": "purchase_rows"}),
    Case("28-barcode-in-quantity", truth={"net": "net_without_the_line", "records": "rows"}),
    Case(
        "29-same-headers-other-shop",
        refused='4,773 of 4,773 lines would be taken for services, .* preset = "none" .* customer_id = "CustomerID"',
        mend={r"path = .*": _COLUMNS_OF_29},
        truth={"kept": "rows"},
    ),
    Case("29-same-headers-other-shop", "off.toml", truth={"kept": "rows"}),
    Case("30-export-in-mid-month", truth={"kept": "rows"}),
    Case(
        "31-mixed-currencies",
        refused=r"several currencies: EUR \(4,243\), JPY \(499\).* currency = \"EUR\" and rates = \"rates.csv\"",
        mend={r"\[source\]": '[source]\ncurrency = "EUR"\nrates = "rates.csv"'},
        truth={"net": "net_in_eur", "kept": "rows"},
    ),
    Case("32-backslash-before-quote", "php.toml", truth={"kept": "rows"}),
    Case("34-cr-line-ends", truth={"kept": "rows"}),
]
RATES = "date,currency,rate\n2023-01-01,JPY,0.00625\n"

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture
def field_folder(shared: Path) -> Path:
    folder = shared / "field"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def expected_of(folder: Path, case: Case) -> dict[str, float]:
    """What the shop was made of: customers, orders, net, and how many lines are there or count."""
    own = folder / f"expected_{case.toml.removesuffix('.toml')}.json"
    fields: dict[str, Any] = json.loads((own if own.exists() else folder / "expected.json").read_text("utf-8"))
    names = {name: name for name in ("customers", "orders", "net")} | case.truth
    return {name: float(fields[of]) for name, of in names.items() if of in fields}


def assert_is_right(reading: Reading, expected: dict[str, float]) -> None:
    found = {
        "customers": reading.customers,
        "orders": reading.orders,
        "net": reading.net,
        "records": reading.raw.height,
        "kept": reading.kept.height,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.005)
    assert {"customers", "net"} <= expected.keys()


@every_case
def test_an_export_is_right_or_refused_as_somebody_first_writes_it(
    case: Case, field_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = field_folder / case.folder
    monkeypatch.chdir(folder)
    toml = (folder / case.toml).read_text("utf-8")
    if case.refused:
        with pytest.raises(BadInputError, match=case.refused):
            read_as_configured(toml)
    else:
        assert_is_right(read_as_configured(toml), expected_of(folder, case))


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=lambda case: case.name)
def test_what_the_refusal_asks_for_makes_it_right(
    case: Case, field_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = field_folder / case.folder
    monkeypatch.chdir(tmp_path)
    texts = {path.name: path.read_text("utf-8") for path in folder.glob("*.csv")} | {"rates.csv": RATES}
    toml = (folder / case.toml).read_text("utf-8")
    for old, new in case.mend.items():
        if case.in_file:
            texts = {name: re.sub(old, new, text) for name, text in texts.items()}
        else:
            toml = re.sub(old, new, toml, count=1)
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert_is_right(read_as_configured(toml), expected_of(folder, case))


@every_case
def test_inspect_never_shows_other_figures_without_refusing(case: Case, field_folder: Path, tmp_path: Path) -> None:
    """With nothing but the path, and then with what it proposed."""
    folder = field_folder / case.folder
    (name,) = re.findall('path = "(.*)"', (folder / case.toml).read_text("utf-8"))
    outcome = custseg(tmp_path / "home", "inspect", folder / name)
    assert not (tmp_path / "home").exists()
    expected = expected_of(folder, case)
    # Orders of a file are by customer and day until somebody says which column has their numbers.
    with_orders = re.sub(r"^# (invoice_id = )", r"\1", outcome.out, flags=re.MULTILINE)
    for toml, names in ((with_orders, expected.keys()), (outcome.out, expected.keys() - {"orders"})):
        reading = None
        with contextlib.suppress(BadInputError):
            reading = read_as_configured(toml)
        if reading:
            assert_is_right(reading, {name: expected[name] for name in names})
        assert outcome.status == (0 if reading and "proposed" not in outcome.out else 2)
