"""``make bench``: it measures what it says, on logs that are what it says. No figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from benchmarks import bench, floor, workloads
from benchmarks.bench import Measurement, Steps, Whole, cpu_ratio, measure, render

LOG = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE LANTERN,6,2010-12-01 08:26:00,2.55,17850,United Kingdom
536366,71053,"LANTERN, OLD",2,2010-12-02 08:28:00,3.39,,United Kingdom
536367,84406B,CREAM HANGER,8,2011-01-04 10:00:00,2.75,13047,France
C536368,84406B,CREAM HANGER,-8,2011-01-05 11:00:00,2.75,13047,France
536369,POST,POSTAGE,1,2011-01-06 12:00:00,18.00,13047,France
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def measured(cpu_s: float = 1.0, said: object = None) -> Measurement:
    return Measurement(cpu_s, 2.0, 300.0, 0.5, json.dumps(said))


def steps_of(scale: int, cpu_s: dict[str, float]) -> Steps:
    said = {"n_rows": scale * 100, "n_batches": 1, "n_customers": scale, "cpu_s": cpu_s}
    return Steps(f"{scale}×", measured(said=said), scale)


def row(text: str, name: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_quick_bench_measures_each_step_of_a_log(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "RESULTS.md"
    assert bench.main(["--quick", "--source", str(log), "--out", str(out)]) == 0
    text = out.read_text()
    assert row(text, "")[:3] == ["", "log.csv", "1×"]
    assert row(text, "lines")[1:3] == ["5", "5"]
    # One line has no customer and one is postage; the other three are of two customers.
    assert row(text, "customers, last snapshot")[1:3] == ["2", "2"]
    for name in ("taking in", "reading back", "cleaning", "orders and products", "features, last snapshot"):
        assert all(float(cell) >= 0 for cell in row(text, f"{name}, CPU s")[1:3])
    assert str(tmp_path) not in text


def test_a_source_that_cannot_be_used_ends_the_bench_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="exit code 1"):
        bench.main(["--quick", "--source", str(tmp_path / "none.csv"), "--out", str(tmp_path / "RESULTS.md")])
    assert "does not exist; expected" in capfd.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()


def test_a_larger_log_has_other_customers_and_invoices_and_the_same_trade(log: Path, tmp_path: Path) -> None:
    workloads.take_in(str(log), str(tmp_path))
    workloads.multiply(str(tmp_path), "3")
    lines = pl.read_csv(tmp_path / "3x.csv", infer_schema=False)
    assert lines.height == 15
    assert lines["customer_id"].drop_nulls().n_unique() == 6
    assert lines["customer_id"].null_count() == 3
    assert lines["invoice_id"].n_unique() == 15
    assert lines.filter(pl.col("invoice_id").str.starts_with("C")).height == 3
    assert lines["invoiced_at"].is_sorted()
    assert lines["description"].to_list().count("LANTERN, OLD") == 3


def test_a_process_is_measured_with_its_own_memory_and_its_answer() -> None:
    # From a process of its own, as `make bench` is: pytest's memory would count towards what it starts.
    asked = """
from benchmarks.bench import measure
small = measure(["-c", "print('progress'); print([1])"])
large = measure(["-c", "held = bytearray(300 << 20)"])
print(small.said == [1], small.cpu_s > 0, small.peak_mib, large.peak_mib)
"""
    answer = subprocess.run([sys.executable, "-c", asked], cwd=bench.REPOSITORY, capture_output=True, check=True).stdout
    is_right, is_measured, small, large = answer.split()
    assert is_right == is_measured == b"True"
    assert float(small) < 30
    assert float(large) > 300


def test_a_process_that_fails_ends_the_bench() -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        measure(["-c", "raise SystemExit(3)"])


def test_scales_are_compared_with_the_log_itself() -> None:
    once, often = steps_of(1, {"cleaning": 0.5, "taking in": 1.0}), steps_of(20, {"cleaning": 12.0, "taking in": 21.0})
    # 33 / 1.5
    assert cpu_ratio([once, often]) == pytest.approx({"1×": 1.0, "20×": 22.0})
    assert cpu_ratio([often]) == {}


def test_results_show_targets_and_earlier_figures_beside_the_measured_ones() -> None:
    run = Whole("`custseg run`, log.csv", measured(cpu_s=24.0), "≤ 30 CPU s", "42.6 CPU s")
    history = [{"job": "ingest", "step": "raw_transactions", "wall_s": 1.25}]
    steps = [steps_of(scale, {"cleaning": 1.0 * scale, bench.OTHER_SNAPSHOTS: 0.5 * scale}) for scale in (1, 5)]
    text = render("log.csv", [run], steps, history)
    assert row(text, "`custseg run`, log.csv")[1:] == ["24.0", "2.0", "300", "0.50", "≤ 30 CPU s", "42.6 CPU s"]
    assert row(text, "**with the last snapshot, CPU s**")[1:4] == ["1.00", "5.00", "≤ 1.5 at 1×"]
    assert row(text, "**with all snapshots, CPU s**")[1:3] == ["1.50", "7.50"]
    assert row(text, "with all snapshots, over 1×")[1:4] == ["1.0", "5.0", "≤ 22 at 20×"]
    assert row(text, "ingest")[1:] == ["raw_transactions", "1.2"]
    assert bench.OTHER_SNAPSHOTS == workloads.OTHER_SNAPSHOTS


def test_two_homes_are_compared_by_every_value_and_fingerprint(tmp_path: Path) -> None:
    rows = pl.DataFrame({"period": ["2011-06-01", "2011-06-01"], "value": [0.1, None]})

    def write(home: str, frame: pl.DataFrame, made_from: int) -> Path:
        recorded = CommitProperties(app_transactions=[Transaction("2011-06-01", made_from)])
        folder = str(tmp_path / home / "tables" / "customer_features")
        write_deltalake(folder, frame, partition_by=["period"], commit_properties=recorded)
        return tmp_path / home

    before = write("before", rows, 7)
    # The order of rows is no part of a table.
    assert floor.compare_homes(before, write("same", rows.reverse(), 7)) == []
    # The next number that a float can be.
    nearly = rows.with_columns(value=pl.Series([0.1 + 2**-56, None]))
    about = "table customer_features"
    assert floor.compare_homes(before, write("nearly", nearly, 7)) == [f"{about}: rows of 2011-06-01 differ"]
    assert floor.compare_homes(before, write("other", rows, 8)) == [f"{about}: fingerprint of 2011-06-01 differs"]
    later = rows.with_columns(period=pl.lit("2011-07-01"))
    assert floor.compare_homes(before, write("later", later, 7)) == [
        f"{about}: partition 2011-06-01 is not in both",
        f"{about}: partition 2011-07-01 is not in both",
    ]


def test_the_revision_of_the_code_is_no_difference_between_homes(tmp_path: Path) -> None:
    for name, card in (
        ("one", "k = 4\n\nCode: abc\n"),
        ("two", "k = 4\n\nCode: def\n"),
        ("three", "k = 5\n\nCode: abc\n"),
    ):
        rows = pl.DataFrame({"period": ["2011-06-01"], "model_card": [card]})
        write_deltalake(str(tmp_path / name / "tables" / "segmentation_model"), rows, partition_by=["period"])
    assert floor.compare_homes(tmp_path / "one", tmp_path / "two") == []
    assert floor.compare_homes(tmp_path / "one", tmp_path / "three") == [
        "table segmentation_model: rows of 2011-06-01 differ"
    ]
