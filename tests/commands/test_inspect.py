"""``custseg inspect``: shows what would be read, stores nothing, and writes a configuration that reads just that."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from custseg_assets.errors import BadInputError
from custseg_assets.settings import load_settings
from tests.support.exports import EXPORTS
from tests.support.exports import FOLDER as PLATFORMS
from tests.support.readings import read_as_configured
from tests.support.shops import QUICK, FilledShop, Outcome, custseg, shop_log

ROWS = [f"C{i % 9},2024-01-{1 + i % 28:02},{10 + i}.50,R{i}" for i in range(60)]


def write(path: Path, header: str | None, rows: list[str] = ROWS, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([*([header] if header else []), *rows, ""]).encode(encoding))
    return path


def inspect(source: Path | str | None, config: str | None = None) -> Outcome:
    """The command, in a home that it does not make."""
    home = Path("never made")
    outcome = custseg(home, "inspect", *([source] if source else []), config=config)
    assert not home.exists()
    return outcome


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shown(outcome: Outcome, name: str) -> list[str]:
    """The figures after a name."""
    (line,) = (line for line in outcome.out.splitlines() if line.split()[1:2] == [name])
    return line.replace(",", "").split()[2:]


def assert_reads_the_same(outcome: Outcome, toml: str, source: Path) -> None:
    """Assert that what was written reads every line as the settings did, and that the figures are those shown."""
    before, after = read_as_configured(toml, source), read_as_configured(outcome.out)
    assert after.raw.equals(before.raw)
    assert after.kept.equals(before.kept)
    assert int(shown(outcome, "records")[0]) == after.raw.height
    assert shown(outcome, "kept") == [str(after.kept.height), f"{after.net:.2f}"]
    assert int(shown(outcome, "customers")[0]) == after.customers
    assert int(shown(outcome, "orders")[0]) == after.orders


OWN = """
[source.columns]
customer_id = "client"
invoiced_at = "day"
line_amount = "sum"
"""
NUMBERED = OWN.replace("client", "column_1").replace("day", "column_2").replace("sum", "column_3")
EVERYTHING = """
[source]
date_format = "%Y-%m-%d"
decimal = "."
delimiter = ","
header_row = 1
customer_id_case = "lower"
no_customer = ["C3"]
invoice_key = ["day", "no"]
max_unreadable_share = 0.5
accepted_doubts = ["equal_lines"]
keep_stray_days = true
max_line_amount = 60.5
[source.columns]
customer_id = { first_of = ["client", "no"] }
invoiced_at = ["day"]
line_amount = "sum"
[source.filter]
no = ["R1", "R2", "R3", "R40", "R50"]
[cleaning]
duplicates = "drop"
service_descriptions = ["a", "b"]
"""
SHAPES: dict[str, tuple[str | None, str]] = {
    "names of custseg": ("customer_id,invoiced_at,line_amount,invoice_id", ""),
    "names in another case": ("Customer ID,Invoiced At,Line_Amount,x", ""),
    "own names": ("client,day,sum,no", OWN + 'invoice_id = "no"\n'),
    "odd names": (
        '"cli ""ent"" \\",day,sum,nö.1',
        OWN.replace('"client"', "'cli \"ent\" \\'") + '[source.filter]\n"nö.1" = { exclude = ["R3", ""] }\n',
    ),
    "everything": ("client,day,sum,no", EVERYTHING),
    "no header": (None, "[source]\nheader_row = 0\n" + NUMBERED),
    "preset none": ("CustomerID,invoiced_at,line_amount,x", '[source]\npreset = "none"\n'),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_written_reads_the_same_once_it_is_saved(shape: str, tmp_path: Path) -> None:
    header, toml = SHAPES[shape]
    path = write(tmp_path / "log.csv", header)
    outcome = inspect(path, toml)
    assert (outcome.status, outcome.err) == (0, "")
    assert_reads_the_same(outcome, toml, path)


@pytest.mark.parametrize("make", EXPORTS, ids=lambda make: make.__name__)
def test_what_is_written_reads_an_export_of_a_platform_the_same(make: Any) -> None:
    path = PLATFORMS / make().file
    outcome = inspect(path)
    assert outcome.status == 0
    assert_reads_the_same(outcome, "", path)
    assert tomllib.loads(outcome.out)["source"] == {"path": str(path), "preset": make().name}


def test_files_of_a_folder_and_of_folders_named_after_keys(tmp_path: Path) -> None:
    header = "customer_id,invoiced_at,line_amount,Invoice ID"
    write(tmp_path / "log" / "shop=north" / "a.csv", header, ROWS[:30])
    # The second calls its order in another way, which no line can say of both.
    write(tmp_path / "log" / "shop=south" / "b.csv", header.replace("Invoice ID", "invoice_id"), ROWS[30:])
    toml = '[source]\ninvoice_key = ["shop", "invoiced_at"]\n'
    outcome = inspect(tmp_path / "log", toml)
    assert "# and 1 more file" in outcome.out
    assert_reads_the_same(outcome, toml, tmp_path / "log")
    assert_reads_the_same(inspect(tmp_path / "log"), "", tmp_path / "log")


def test_a_run_with_it_counts_the_same(filled_shop: FilledShop, shop_home: Path) -> None:
    outcome = inspect(filled_shop.source)
    run = custseg(shop_home, "run", "--reconfigure", config=f"{outcome.out}\n{QUICK}")
    assert run.status == 0, run.err
    rows = {words[0]: words[-1].replace(",", "") for line in run.out.splitlines() if (words := line.split())}
    assert [rows["rows"], rows["kept"]] == [shown(outcome, "records")[0], shown(outcome, "kept")[0]]


def test_it_says_how_the_file_is_written_and_what_is_read_from_each_column(tmp_path: Path) -> None:
    rows = [row.replace(",", ";").replace(".", ",") for row in ROWS]
    path = write(
        tmp_path / "log.csv", "Customer ID;day;sum;no", ["Sales of January", "", "Customer ID;day;sum;no", *rows]
    )
    path = write(tmp_path / "log.csv", "Sales of January", ["", "Customer ID;day;sum;no", *rows])
    outcome = inspect(path, '[source.columns]\ninvoiced_at = "day"\nline_amount = "sum"\n')
    assert outcome.status == 0, outcome.err
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert lines[:5] == [
        "# log.csv: text in utf-8, semicolons between values, header on line 3, after 'Sales of January'",
        "# Customer ID 'C0' customer_id (of the same name)",
        "# day '2024-01-01' invoiced_at (as configured)",
        "# sum '10,50' line_amount (as configured)",
        "# no 'R0'",
    ]
    assert "(decimal comma: '10,50' is 10.5)" in " ".join(outcome.out.replace("#", "").split())
    assert "# e.g. customer_id C0, invoiced_at 2024-01-01 00:00:00, invoice_id C0 2024-01-01, line_amount 10.5" in lines


def test_money_is_shown_before_and_after_cleaning_with_what_is_left_out(tmp_path: Path) -> None:
    rows = [*ROWS, *ROWS, *ROWS, ",2024-01-05,1000.25,R900", "C1,2024-01-05,?,R901"]
    path = write(tmp_path / "log.csv", "customer_id,invoiced_at,line_amount,x", rows)
    outcome = inspect(path, '[cleaning]\nduplicates = "keep"\n')
    total = 3 * sum(10.5 + i for i in range(60))
    assert shown(outcome, "records") == ["182", f"{total + 1000.25:.2f}"]
    assert shown(outcome, "kept") == ["180", f"{total:.2f}"]
    assert shown(outcome, "missing_customer") == ["1", "1000.25"]
    assert "#     row 182 of log.csv: line_amount '?'" in outcome.out.splitlines()


def draft_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status == 2
    assert "# custseg.toml, a draft" in outcome.out
    return tomllib.loads(outcome.out)


def test_columns_are_proposed_where_they_are_missing_and_the_figures_they_lead_to_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "Client,Date,Amount,Receipt")
    outcome = inspect(path)
    source = draft_of(outcome)["source"]
    columns = {"customer_id": "Client", "invoiced_at": "Date", "line_amount": "Amount", "invoice_id": "Receipt"}
    assert source == {"path": str(path), "columns": columns}
    assert "# With the proposed lines it would be read like this:" in outcome.out
    assert 'customer_id = "Client"  # proposed: is it right?' in outcome.out
    assert 'invoice_id = "Receipt"  # proposed: is it right?' in outcome.out.splitlines()
    assert "invoice_id (proposed)" in outcome.out
    assert "# custseg.toml, a draft that reads the source as above: check what is proposed" in outcome.out
    assert outcome.err.startswith("custseg: log.csv has no column for customer_id, invoiced_at, line_amount")
    assert int(shown(outcome, "customers")[0]) == read_as_configured(outcome.out).customers == 9


@pytest.mark.parametrize(
    ("header", "rows", "encoding", "expected"),
    [
        (None, ROWS, "utf-8", {"header_row": 0}),
        (
            "Shop;from;to;x",
            ["Client;Date;Amount;no", *(row.replace(",", ";") for row in ROWS)],
            "utf-8",
            {"header_row": 2},
        ),
        ("Käufer,Datum,Betrag,Beleg", ROWS, "cp1252", {"encoding": "cp1252"}),
    ],
)
def test_header_and_encoding_are_proposed_with_the_columns(
    header: str | None, rows: list[str], encoding: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    outcome = inspect(write(tmp_path / "log.csv", header, rows, encoding))
    source = draft_of(outcome)["source"]
    assert expected.items() <= source.items()
    assert source["columns"].keys() - {"invoice_id"} == {"customer_id", "invoiced_at", "line_amount"}
    reading = read_as_configured(outcome.out)
    assert shown(outcome, "kept") == [str(len(ROWS)), f"{reading.net:.2f}"]


def columns_of(header: str, rows: list[str]) -> tuple[dict[str, Any], Outcome]:
    outcome = inspect(write(Path("log.csv").absolute(), header, rows))
    return draft_of(outcome)["source"].get("columns", {}), outcome


@pytest.mark.parametrize(
    "name",
    [
        "Order number",
        "Order ID",
        "Order #",
        "Invoice",
        "Receipt",
        "Bon",
        "Transaction ID",
        "Beleg",
        "Bon-Nr.",
        "N° commande",
    ],
)
@pytest.mark.parametrize("value", ["{}", "R-{}", "202400{:02}"])
def test_the_id_of_an_order_is_proposed_where_its_name_says_so(name: str, value: str) -> None:
    rows = [f"C{i % 9},2024-01-{1 + i % 28:02},{10 + i}.50,{value.format(30 + i // 2)}" for i in range(60)]
    assert columns_of(f"Client,Date,Amount,{name}", rows)[0].get("invoice_id") == name


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Order", ["web", "shop", "phone"]),
        ("Invoice", ["2024-01-01", "2024-01-02", "2024-01-05"]),
        ("Receipt", ["10.25", "11.50", "9.99"]),
        ("Beleg", [f"R{i}" if i % 4 == 0 else "" for i in range(600)]),
        ("Order status", ["R1", "R2", "R3"]),
        ("Bonus", ["1", "2", "3"]),
    ],
)
def test_kinds_dates_amounts_and_rare_values_are_no_ids_of_orders(name: str, values: list[str]) -> None:
    rows = [f"C{i % 9},2024-01-{1 + i % 28:02},{10 + i}.50,{values[i % len(values)]}" for i in range(600)]
    assert "invoice_id" not in columns_of(f"Client,Date,Amount,{name}", rows)[0]


def test_receipts_that_start_again_each_day_are_proposed_and_then_doubted() -> None:
    rows = [f"C{i // 4 % 9},2024-01-{1 + i // 40:02},{10 + i}.50,{i % 40 // 4}" for i in range(800)]
    columns, outcome = columns_of("Client,Date,Amount,Receipt", rows)
    assert columns["invoice_id"] == "Receipt"
    said = " ".join(outcome.out.replace("#", "").split())
    assert "! With the proposed lines it is refused as well:" in said
    assert 'invoice_key = ["Date", "Receipt"]' in said
    assert "a draft to complete: with these lines the source is still refused" in said


def test_quantity_and_price_are_proposed_where_there_is_no_amount_and_products_with_them() -> None:
    rows = [f"C{i % 9},2024-01-{1 + i % 28:02},{1 + i % 3},{10 + i}.50,S{i % 7},{i // 2}" for i in range(60)]
    columns, outcome = columns_of("Client,Date,Qty,Price,SKU,Order no", rows)
    found = {"quantity": "Qty", "unit_price": "Price", "product_id": "SKU", "invoice_id": "Order no"}
    assert columns == {"customer_id": "Client", "invoiced_at": "Date", **found}
    assert all(f"{name} (proposed)" in outcome.out for name in columns)
    assert float(shown(outcome, "records")[1]) == sum((1 + i % 3) * (10.5 + i) for i in range(60))
    # A quantity that is mapped beside an amount would still the question whether amounts are prices.
    assert "quantity" not in columns_of("Client,Date,Qty,Amount,SKU,Order no", rows)[0]


def test_who_pays_is_proposed_before_who_is_always_paid_and_what_was_paid_before_the_fee_off() -> None:
    rows = [
        f"2024-01-{1 + i % 28:02},{'us@shop' if i % 10 else f'c{i}@x'},c{i % 13}@x,{i + 9}.13,-0.87,{i + 10}"
        for i in range(60)
    ]
    columns, _ = columns_of("Date,To Email Address,From Email Address,Net,Fee,Gross", rows)
    assert (columns["customer_id"], columns["line_amount"]) == ("From Email Address", "Gross")
    columns, _ = columns_of(
        "Date,To Email Address,From Email Address,Net,Fee,Gross,Quantity", [f"{row},1" for row in rows]
    )
    assert columns["line_amount"] == "Gross"
    columns, _ = columns_of("Date,Customer,From Email Address,Net,Fee,Gross", rows)
    assert columns["customer_id"] == "From Email Address"
    columns, _ = columns_of("Date,Customer,x,Net,Tax,Gross", rows)
    assert (columns["customer_id"], columns["line_amount"]) == ("Customer", "Net")


def test_settings_for_another_file_are_no_part_of_the_draft(tmp_path: Path) -> None:
    toml = OWN + 'invoice_id = "Order ID"\n[source.filter]\nStatus = ["paid"]\nREGION = ["north"]\n'
    rows = [f"{row},north" for row in ROWS]
    outcome = inspect(write(tmp_path / "log.csv", "Buyer,Date,Amount,no,region", rows), toml)
    source = draft_of(outcome)["source"]
    assert source["columns"] == {"customer_id": "Buyer", "invoiced_at": "Date", "line_amount": "Amount"}
    assert source["filter"] == {"REGION": ["north"]}
    assert "(as configured)" not in outcome.out
    assert outcome.out.count("(proposed)") == outcome.out.count("# proposed: is it right?") == 3
    said = " ".join(outcome.out.replace("#", "").split())
    assert 'no such column: customer_id = "client"; invoiced_at = "day"; line_amount = "sum"; invoice_id = "Or' in said
    assert '[source.filter] "Status"' in said


def test_a_path_is_written_without_steps_back(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", "customer_id,invoiced_at,line_amount,x")
    (tmp_path / "other").mkdir()
    outcome = inspect("other/../log.csv")
    assert tomllib.loads(outcome.out)["source"]["path"] == str((tmp_path / "log.csv").resolve())


def test_what_was_taken_back_is_counted_in_orders(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "customer_id,invoiced_at,line_amount,x", [*ROWS, "C1,2024-02-05,-10.50,R1"])
    assert "# taken back (orders) 1 -10.50" in " ".join(inspect(path).out.split())


def test_a_column_that_nothing_fits_is_left_to_be_filled_in(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "Client,Date,no", [f"C{i % 9},2024-01-{1 + i % 28:02},R{i}" for i in range(60)])
    outcome = inspect(path)
    assert draft_of(outcome)["source"]["columns"] == {"customer_id": "Client", "invoiced_at": "Date"}
    assert '# line_amount = "…"  # the amount of each line; or quantity and unit_price' in outcome.out
    assert "With the proposed lines" not in outcome.out


def test_a_price_alone_is_perhaps_the_amount(tmp_path: Path) -> None:
    outcome = inspect(write(tmp_path / "log.csv", "Client,Date,Price,no"))
    assert '# line_amount = "Price"  # the amount of each line; or quantity and unit_price' in outcome.out


def test_seconds_since_1970_are_proposed_by_their_name_too(tmp_path: Path) -> None:
    rows = [f"C{i % 9},{1704067200 + i * 3000},{10 + i}.50,{1704067200 + i * 70}" for i in range(60)]
    outcome = inspect(write(tmp_path / "log.csv", "customer_id,created,line_amount,card", rows))
    assert draft_of(outcome)["source"]["columns"]["invoiced_at"] == "created"
    outcome = inspect(write(tmp_path / "log.csv", "customer_id,x,line_amount,card", rows))
    assert "invoiced_at" not in draft_of(outcome)["source"].get("columns", {})
    assert '# invoiced_at = "…"' in outcome.out.splitlines()


def test_a_time_of_its_own_is_proposed_beside_the_date(tmp_path: Path) -> None:
    rows = [f"C{i % 9},2024-01-{1 + i % 28:02},{i % 24}:30,{10 + i}.50" for i in range(60)]
    outcome = inspect(write(tmp_path / "log.csv", "customer_id,invoiced_at,Clock,line_amount", rows))
    assert outcome.status == 0
    assert '# invoiced_at = ["invoiced_at", "Clock"]  # perhaps: the date with the time' in outcome.out
    assert "with the time, instead of the line for invoiced_at above" in outcome.out


def test_what_a_run_would_refuse_is_refused_after_its_figures(tmp_path: Path) -> None:
    stray = write(
        tmp_path / "stray.csv", "customer_id,invoiced_at,line_amount,x", [*ROWS, *ROWS, "C1,2033-01-01,5,R99"]
    )
    outcome = inspect(stray, '[cleaning]\nduplicates = "keep"\n')
    assert draft_of(outcome)
    assert "1 line of 2033-01-01" in outcome.err
    assert shown(outcome, "records")[0] == "121"
    till = write(
        tmp_path / "till.csv",
        "customer_id,invoiced_at,line_amount,invoice_id",
        [f"C{i % 9},2024-01-{1 + i // 10:02},{10 + i}.50,{i % 10}" for i in range(200)],
    )
    outcome = inspect(till)
    assert draft_of(outcome)
    assert 'invoice_key = ["invoiced_at", "invoice_id"]' in outcome.err
    with pytest.raises(BadInputError, match="start again"):
        read_as_configured(outcome.out)
    line = '# invoice_key = ["invoiced_at", "invoice_id"]'
    section = outcome.out.partition("[source]\n")[2].partition("[source.columns]")[0]
    assert "10 of 10 values of 'invoice_id' are several orders'" in " ".join(section.split())
    assert line in section.splitlines()
    assert read_as_configured(outcome.out.replace(line, line.removeprefix("# "))).orders == 200


def test_a_proposal_that_would_be_refused_itself_says_so(tmp_path: Path) -> None:
    rows = [f"{row},{'paid' if i % 5 else 'voided'}" for i, row in enumerate(ROWS)]
    outcome = inspect(write(tmp_path / "log.csv", "Client,Date,Amount,Receipt,Status", rows))
    assert draft_of(outcome)
    assert "# ! With the proposed lines it is refused as well:" in outcome.out
    assert '"Status" = { exclude = ["voided"] }' in " ".join(outcome.out.replace("#", "").split())
    line = '# "Status" = { exclude = ["voided"] }'
    section = outcome.out.partition("[source.filter]\n")[2]
    assert "'Status' is \"voided\" on 12 of 60 lines" in section.partition(line)[0]
    assert line in outcome.out.splitlines()
    reading = read_as_configured(outcome.out.replace(line, line.removeprefix("# ")))
    assert reading.kept.height == 48


def test_the_table_that_may_be_the_log_is_proposed_of_several(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("1 notes.csv", "Topic,Text\nHow to,read\nthis,file\n")
        archive.writestr("2 sales.csv", "\n".join(["Client,Date,Amount,no", *ROWS]))
    outcome = inspect(tmp_path / "log.zip")
    columns = {"customer_id": "Client", "invoiced_at": "Date", "line_amount": "Amount"}
    assert draft_of(outcome)["source"]["columns"] == columns
    assert "log.zip, 1 notes.csv: text in utf-8" in outcome.out


def test_headers_and_values_with_line_breaks_stay_in_their_comment(tmp_path: Path) -> None:
    rows = [f'"C\n{i % 9}",2024-01-{1 + i % 28:02},{10 + i}.50,\x1b[31mR{i}' for i in range(60)]
    path = write(tmp_path / "log.csv", 'customer_id,invoiced_at,line_amount,"no\nte"', rows)
    outcome = inspect(path)
    assert outcome.status == 0
    assert "\x1b" not in outcome.out
    assert_reads_the_same(outcome, "", path)


def test_sections_that_are_not_about_reading_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "customer_id,invoiced_at,line_amount,x")
    outcome = inspect(path, "[snapshots]\nlookback = 2\n[model]\nk_range = [3, 5]\n")
    assert outcome.out.endswith("# Not about reading, so not repeated here: [snapshots], [model]\n")
    assert "Not about reading" not in inspect(path).out


@pytest.mark.parametrize("text", ["", '{"a": 1}\n', "\x00\x01\x02"])
def test_a_file_that_is_no_table_is_refused_without_figures(text: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    outcome = inspect(path)
    source = draft_of(outcome)["source"]
    assert (source.pop("path"), source.pop("columns", {}), source) == (str(path), {}, {})
    assert "records" not in outcome.out


def test_a_source_that_is_not_there_has_no_draft() -> None:
    outcome = inspect("missing.csv")
    assert (outcome.status, outcome.out) == (2, "")
    assert "missing.csv does not exist" in outcome.err


def test_without_a_path_it_inspects_the_configured_source_or_the_demo(tmp_path: Path, monkeypatch: Any) -> None:
    from custseg_assets.domain.demo import generate_demo
    from custseg_assets.home import intake

    path = write(tmp_path / "log.csv", "customer_id,invoiced_at,line_amount,x")
    outcome = inspect(None, f'[source]\npath = "{path}"\n')
    assert shown(outcome, "records")[0] == "60"
    monkeypatch.setattr(intake, "generate_demo", lambda: generate_demo(n_customers=40, n_months=4))
    outcome = inspect(None)
    assert outcome.status == 0
    assert tomllib.loads(outcome.out)["source"]["path"] == "demo"


def test_parquet_and_its_types(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    log = shop_log(2).with_columns(line_amount=pl.col("quantity") * pl.col("unit_price")).drop("description")
    log.write_parquet(path)
    outcome = inspect(path)
    assert outcome.out.startswith("# log.parquet: parquet\n")
    assert_reads_the_same(outcome, "", path)
    (tmp_path / "saved.toml").write_text(outcome.out)
    assert load_settings(tmp_path / "saved.toml").source.columns["line_amount"] == "line_amount"


def test_a_price_beside_a_quantity_is_proposed_as_one_and_not_as_an_amount(tmp_path: Path) -> None:
    rows = [f"K{i % 40},2024-0{1 + i % 6}-11,P{i % 17},{10 * (1 + i % 5)},{1 + i % 7}.35" for i in range(300)]
    outcome = inspect(write(tmp_path / "ledger.csv", "account,posted,part,qty,net_price", rows))
    draft = tomllib.loads(outcome.out)["source"]["columns"]
    assert (draft["quantity"], draft["unit_price"]) == ("qty", "net_price")
    assert "line_amount" not in draft


READ_WITH_IT = "the source can be read with it, once you have looked at it"


def out_of(source: Path, *more: str) -> Outcome:
    return custseg(Path("never made"), "inspect", source, "--out", "custseg.toml", *more)


def test_the_configuration_is_written_to_a_file_that_nobody_has_changed(tmp_path: Path) -> None:
    path, saved = write(tmp_path / "log.csv", "customer_id,invoiced_at,line_amount,x"), tmp_path / "custseg.toml"
    outcome = out_of(path)
    assert (outcome.status, outcome.err) == (0, f"written to custseg.toml: {READ_WITH_IT}\n")
    assert saved.read_text().startswith(outcome.out)
    assert read_as_configured(saved.read_text()).kept.height == 60
    # It is read, and then replaced, as long as it is as it was written.
    assert out_of(path).status == 0
    changed = f"{saved.read_text()}[model]\nk_range = [3, 4]\n"
    for own in (changed, changed.replace("[source]", "[source]\nkeep_stray_days = true"), "\xff", ""):
        saved.write_text(own, encoding="latin-1")
        refused = custseg(Path("never made"), "inspect", path, "--out", saved, "--config", write(tmp_path / "o", ""))
        assert refused.status == 2
        assert f"--out {saved}, which is there and not just as 'custseg inspect' wrote it" in refused.err
        assert saved.read_text(encoding="latin-1") == own
    assert out_of(path, "--force").status == 0
    assert saved.read_text().startswith("# log.csv: text in utf-8")


def test_a_draft_is_written_to_the_file_and_no_file_without_one(tmp_path: Path) -> None:
    assert out_of(tmp_path / "missing.csv").status == 2
    assert not (tmp_path / "custseg.toml").exists()
    outcome = out_of(write(tmp_path / "other.csv", "Client,a,Amount,Receipt", ["C1,never,1.50,R1"] * 60))
    assert outcome.status == 2
    assert outcome.err.startswith("written to custseg.toml: to be completed\ncustseg: other.csv has no column for")
    # What the draft answers is no refusal any more.
    outcome = out_of(write(tmp_path / "log.csv", "Client,Date,Amount,Receipt"))
    assert (outcome.status, outcome.err) == (0, f"written to custseg.toml: {READ_WITH_IT}\n")
    assert "a draft" in (tmp_path / "custseg.toml").read_text()
    refused = custseg(Path("never made"), "inspect", tmp_path / "log.csv", "--out", "no/custseg.toml")
    assert "--out no/custseg.toml: No such file or directory" in refused.err
