"""``docs/data.md``: every configuration on it reads a made-up file of its shape to what the shop was made of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from custseg_assets.errors import BadInputError
from tests.support.exports import EXPORTS, FOLDER
from tests.support.files import REPOSITORY
from tests.support.odd_files import ODD_FILES
from tests.support.readings import read_as_configured

PAGE = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:^<!-- run on: (?P<name>\w+) -->\n)?^```toml\n(?P<toml>.*?)^```$", flags=re.MULTILINE | re.DOTALL
)
NAMED = {block["name"]: block["toml"] for block in BLOCK.finditer(PAGE)}
PLATFORMS = {make.__name__: make for make in EXPORTS if make.__name__ in NAMED}
BLOCKS = {name: toml for name, toml in NAMED.items() if name not in PLATFORMS}

TOLD = {
    "header_below_filters": "header_row = 2",
    "no_header": "header_row = 0",
    "windows_text": "encoding =",
    "sheets": r"sheet 'Forecast'",
    "folders_of_shops": r"invoice_key = \[",
    "thousands": r"\[source\] decimal|decimal =",
    "one_giant_line": "max_line_amount",
    "short_dates": "date_format",
    "instants_in_utc": "time_zone",
    "slow_start": "keep_stray_days = true",
    "states": r"\"State\" = \{ exclude = \[\"void\"\] \}",
    "events": r"\"event_type\" = \{ exclude = \[\"view\"\] \}",
    "refunds": 'refunded_amount = "Refunded"',
    "order_totals": 'order_amount = "Order Total"',
    "two_currencies": '"Currency" = ',
    "two_currencies_with_rates": "rates = ",
    "guests": r"no_customer = \[\"House\"\]",
    "two_cases": 'customer_id_case = "lower"',
    "lost_zeros": 'customer_id_form = "number"',
    "numbers_start_again": r"invoice_key = \[\"Card\", \"Date\", \"Receipt\"\] .* the column of the shop or the till",
    "joined_tables": r"line_key|duplicates",
    "receipts_of_many": r"accepted_doubts = \[\"invoice_numbers\"\]",
    "colours": r"ignored_columns = \[\"Colour\"\]",
    "another_shop": 'preset = "none"',
}
"""What is said where the line that a block is about is left out."""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_block_is_run() -> None:
    assert None not in NAMED
    assert len(NAMED) == PAGE.count("```toml")
    assert BLOCKS.keys() == ODD_FILES.keys()
    assert len(PLATFORMS) == 4


@pytest.mark.parametrize("name", PLATFORMS)
def test_what_the_page_says_to_write_for_a_platform_reads_its_export(name: str) -> None:
    export = PLATFORMS[name]()
    reading = read_as_configured(NAMED[name], FOLDER / export.file)
    assert len(export.rows) / 3 < reading.raw["reason"].null_count() < len(export.rows)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_reads_its_file_right(name: str) -> None:
    expected = ODD_FILES[name]()
    assert read_as_configured(BLOCKS[name]).figures == pytest.approx(expected)


@pytest.mark.parametrize("name", TOLD)
def test_without_the_line_that_a_block_is_about_it_is_asked_for(name: str) -> None:
    ODD_FILES[name]()
    try:
        reading = read_as_configured(without_what_it_is_about(BLOCKS[name]))
    except BadInputError as refused:
        told = str(refused)
    else:
        # Nothing is refused that may be right; it is said, though.
        assert name in {"instants_in_utc", "guests", "sheets"}
        told = "\n".join(reading.said)
    assert re.search(TOLD[name], told), told


@pytest.mark.parametrize("duplicates", ["drop", "keep", None])
def test_equal_lines_keep_their_share_of_an_orders_total(duplicates: str | None) -> None:
    lines = [
        f"C{i % 9},2024-01-{1 + i % 28:02},R{i},P1,{1 + (i > 50)},90.00" for i in range(60) for _ in range(1 + i % 3)
    ]
    Path("orders.csv").write_text("\n".join(["customer_id,invoiced_at,invoice_id,product_id,quantity,total", *lines]))
    toml = '[source]\npath = "orders.csv"\n[source.columns]\norder_amount = "total"\n'
    toml += f'[cleaning]\nduplicates = "{duplicates}"\n' if duplicates else ""
    assert read_as_configured(toml).figures == (9, 60, pytest.approx(60 * 90))


def without_what_it_is_about(toml: str) -> str:
    """A block with nothing but the path and plain columns, as somebody first writes it."""
    keys = ("path", "customer_id", "invoiced_at", "line_amount", "invoice_id", "product_id", "quantity", "unit_price")
    fields = tomllib.loads(toml)["source"]
    columns = fields.get("columns", {})
    if "order_amount" in columns:
        columns["line_amount"] = columns["order_amount"]
    if "invoice_key" in fields:
        columns["invoice_id"] = fields["invoice_key"][-1]
    if fields.get("preset") == "none" or fields.get("header_row") == 0:
        columns = {}
    plain = [f'{name} = "{columns[name]}"' for name in keys if isinstance(columns.get(name), str)]
    return "\n".join(["[source]", f'path = "{fields["path"]}"', "[source.columns]", *plain])
