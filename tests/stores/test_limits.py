"""Limits at the door: what is set aside, what is refused, and the way out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.sources import open_source

BARCODE = "4006381333931"
Line = tuple[str | None, str, str]
Read = Callable[..., tuple[pl.DataFrame, list[str]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads lines of customer, quantity and price after 200 usual ones: 2 of something at 5.00."""

    def read_lines(lines: Sequence[Line], n_usual: int = 200, **settings: Any) -> tuple[pl.DataFrame, list[str]]:
        rows = [(f"c{i % 40}", "2", "5.00") for i in range(n_usual)] + list(lines)
        path, told = tmp_path / "log.csv", list[str]()
        written = (
            f"{customer or ''},2024-05-{i % 28 + 1:02},{q},{price}" for i, (customer, q, price) in enumerate(rows)
        )
        path.write_text("customer_id,invoiced_at,quantity,unit_price\n" + "\n".join(written) + "\n")
        with open_source(path, SourceSettings(**settings), progress=told.append) as source:
            return source.lines.collect(), told

    return read_lines


def set_aside(lines: pl.DataFrame) -> dict[int, dict[str, str]]:
    bad = lines.filter(pl.col("unreadable_values").is_not_null())
    return {row: json.loads(text) for row, text in bad.select("source_row", "unreadable_values").iter_rows()}


def test_a_barcode_among_quantities_is_set_aside_with_its_text_and_said(read: Read) -> None:
    lines, told = read([("c1", BARCODE, "5.00"), ("c2", "3", "5.00")])
    assert set_aside(lines) == {201: {"quantity": BARCODE}}
    assert lines["quantity"].to_list()[-2:] == [None, 3.0]
    assert told[-1] == (
        "  log.csv: 1 line has numbers that are set aside (more than 1,000,000,000,000, or barcodes among much smaller "
        "numbers): row 201, 'quantity' 4006381333931"
    )


def test_a_price_that_is_a_barcode_is_set_aside_too(read: Read) -> None:
    lines, _ = read([("c1", "1", "96385074")])
    assert set_aside(lines) == {201: {"unit_price": "96385074"}}


def test_large_quantities_of_a_shop_that_sells_by_the_million_stay(read: Read) -> None:
    # 96385074 has the right check digit, and the others are not a thousand times smaller.
    lines, told = read([("c1", "1200000", "0.01"), ("c2", "96385074", "0.0001")], n_usual=0)
    assert set_aside(lines) == {}
    assert len(told) == 1


def test_a_large_quantity_without_the_check_digit_is_for_the_owner_to_say(read: Read) -> None:
    with pytest.raises(BadInputError, match=r"row 201 alone has 100\.0% of the money of 201 lines, 481,925,375\.00;"):
        read([("c1", "96385075", "5.00")])


@pytest.mark.parametrize(("quantity", "price"), [("1e300", "5.00"), ("2000000", "1e12"), ("1e200", "1e200")])
def test_amounts_beyond_every_business_are_set_aside(read: Read, quantity: str, price: str) -> None:
    lines, _ = read([("c1", quantity, price)])
    assert lines.select((pl.col("quantity") * pl.col("unit_price")).max()).item() == 10.0
    assert "quantity" in set_aside(lines)[201]


def test_a_line_with_most_of_the_money_is_refused_and_both_ways_out_work(read: Read) -> None:
    giant = ("c1", "1000", "15.00")
    with pytest.raises(BadInputError) as refused:
        read([giant])
    assert str(refused.value) == (
        "log.csv: row 201 alone has 88.2% of the money of 201 lines, 15,000.00; the next largest has 10.00; expected "
        "no line with more than 50% of the money and 10 times every other. If it is a slip, correct it, or have larger "
        "lines set aside: write max_line_amount = 10 under [source] in custseg.toml; if it is right, write "
        "max_line_amount = 15000 there."
    )
    kept, told = read([giant], max_line_amount=15000)
    assert (set_aside(kept), len(told)) == ({}, 1)
    lost, told = read([giant], max_line_amount=10)
    assert set_aside(lost) == {201: {"quantity": "1000", "unit_price": "15.00"}}
    assert "(more than [source] max_line_amount = 10): row 201, 'quantity' 1000, 'unit_price' 15" in told[-1]


@pytest.mark.parametrize(
    "lines",
    [
        # Half of the money is not more than half.
        [("c1", "100", "20.00")],
        # Another order is a tenth of it.
        [("c1", "1000", "15.00"), ("c2", "100", "15.01")],
        # An order taken back, as the largest of the real log was.
        [("c1", "1000", "15.00"), ("c1", "-1000", "15.00")],
        # Nobody's line is rejected anyway.
        [(None, "1000", "15.00")],
    ],
)
def test_a_large_line_that_can_be_right_is_taken_in(read: Read, lines: list[Line]) -> None:
    assert set_aside(read(lines)[0]) == {}


def test_of_fewer_than_a_hundred_lines_one_may_have_most_of_the_money(read: Read) -> None:
    assert set_aside(read([("c1", "1000", "15.00")], n_usual=98)[0]) == {}


def test_a_column_of_barcodes_is_refused_with_the_cause(read: Read) -> None:
    with pytest.raises(BadInputError, match=r"4 of 204 lines .*\(2\.0%\).*a barcode was scanned into another column"):
        read([("c1", BARCODE, "5.00")] * 4)


def test_numbers_that_are_not_plain_have_limits_too(read: Read) -> None:
    lines, _ = read([("c1", BARCODE, "5.00"), ("c2", "1", '"1,005.00"')])
    assert set_aside(lines) == {201: {"quantity": BARCODE}}
    assert lines["unit_price"].to_list()[-1] == 1005.0


def test_a_barcode_beside_a_right_amount_takes_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    usual = "".join(f"c{i},2024-05-01,2,10.00\n" for i in range(200))
    path.write_text(f"customer_id,invoiced_at,quantity,line_amount\n{usual}c9,2024-05-02,{BARCODE},12.00\n")
    with open_source(path, SourceSettings(), progress=lambda _: None) as source:
        last = source.lines.collect().row(-1, named=True)
    assert (last["quantity"], last["line_amount"], last["unreadable_values"]) == (
        None,
        12.0,
        f'{{"quantity": "{BARCODE}"}}',
    )
