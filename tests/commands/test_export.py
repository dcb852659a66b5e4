"""Export: a table of the home as a file that is whole or not there."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS
from custseg_assets.stores.tables import TableStore
from tests.support.lines import clean_rows
from tests.support.shops import Outcome, custseg


@pytest.fixture
def rows(home: Path) -> pl.DataFrame:
    """Lines of two periods, which the home has; of a third it knows that there are none."""
    frame = clean_rows(
        {"invoiced_at": "2011-05-02 09:00", "customer_id": "12347"},
        {"invoiced_at": "2011-05-03 10:30", "customer_id": "12348", "description": 'A "B", C'},
        {"invoiced_at": "2011-06-04 11:00", "customer_id": "00012", "country": None},
    ).with_columns(period=pl.col("invoiced_at").dt.truncate("1mo").dt.date().cast(pl.String))
    TableStore(home / "tables").write(CLEAN_TRANSACTIONS, frame, {"2011-05-01": 1, "2011-06-01": 2, "2011-07-01": 3})
    return frame


def export(home: Path, out: Path, *more: str) -> Outcome:
    return custseg(home, "export", "clean_transactions", "--out", out, *more)


def test_without_a_partition_all_are_exported_each_row_with_its_period(
    home: Path, rows: pl.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "clean.parquet"
    assert export(home, out) == Outcome(0, f"{out}: 3 rows of clean_transactions\n", "")
    assert_frame_equal(pl.read_parquet(out), rows, check_row_order=False)


def test_a_partition_is_exported_alone(home: Path, rows: pl.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "june.parquet"
    assert export(home, out, "--partition", "2011-06-01").out == f"{out}: 1 row of clean_transactions\n"
    assert_frame_equal(pl.read_parquet(out), rows.tail(1))
    assert export(home, out, "--partition", "2011-07-01").out == f"{out}: 0 rows of clean_transactions\n"
    assert_frame_equal(pl.read_parquet(out), rows.clear())


@pytest.mark.usefixtures("rows")
def test_csv_keeps_ids_as_they_are_and_quotes_what_needs_it(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.csv"
    assert export(home, out).status == 0
    with out.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["customer_id"] for line in lines] == ["12347", "12348", "00012"]
    assert lines[1]["description"] == 'A "B", C'
    assert lines[2]["country"] == ""


@pytest.fixture
def formulas(home: Path) -> list[str]:
    """Texts that a spreadsheet would compute, in the order of the lines that have them, and one that it would not."""
    texts = ["=1+1", "+441234", "-2 for 1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "a=b", "'x"]
    lines = ({"description": text, "product_id": f"{number}"} for number, text in enumerate(texts))
    TableStore(home / "tables").write(CLEAN_TRANSACTIONS, clean_rows(*lines), {"2011-05-01": 1})
    return texts


def test_a_csv_has_nothing_that_a_spreadsheet_computes(home: Path, formulas: list[str], tmp_path: Path) -> None:
    out = tmp_path / "clean.csv"
    assert export(home, out) == Outcome(
        0,
        f"{out}: 9 rows of clean_transactions\n"
        "  7 texts a spreadsheet would compute: ' was put before; --raw leaves it out\n",
        "",
    )
    with out.open(encoding="utf-8", newline="") as file:
        written = {line["product_id"]: line["description"] for line in csv.DictReader(file)}
    assert [written[str(number)] for number in range(9)] == [*(f"'{text}" for text in formulas[:7]), *formulas[7:]]


@pytest.mark.parametrize(("name", "more"), [("clean.csv", ["--raw"]), ("clean.parquet", [])])
def test_raw_csv_and_parquet_have_the_texts_as_they_are(
    name: str, more: list[str], home: Path, formulas: list[str], tmp_path: Path
) -> None:
    out = tmp_path / name
    assert export(home, out, *more).out == f"{out}: 9 rows of clean_transactions\n"
    written = pl.read_csv(out, infer_schema=False) if out.suffix == ".csv" else pl.read_parquet(out)
    assert written.sort("product_id")["description"].to_list() == formulas


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("clean.txt", [], "--out {folder}/clean.txt; expected a name that ends in .parquet or .csv."),
        ("no/clean.csv", [], "--out {folder}/no/clean.csv: No such file or directory"),
        (
            "clean.csv",
            ["--partition", "2011-08-01"],
            "partition 2011-08-01 of clean_transactions; expected one of 2011-05-01, 2011-06-01.",
        ),
    ],
)
@pytest.mark.usefixtures("rows")
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    out: str, more: list[str], message: str, home: Path, tmp_path: Path
) -> None:
    outcome = export(home, tmp_path / out, *more)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("custseg: " + message.format(folder=tmp_path))
    assert outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.usefixtures("rows")
def test_a_file_that_was_there_stays_when_writing_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "clean.csv"
    out.write_text("before")

    def write_half(_: pl.DataFrame, path: Path, **__: object) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", write_half)
    outcome = export(home, out)
    assert outcome.status == 2
    assert "No space left on device" in outcome.err
    assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"home", "clean.csv"}
