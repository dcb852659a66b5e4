"""Made-up files of a shop, each odd in one way, and what the shop was made of: the examples of ``docs/data.md``.

Each function writes its file into the working folder and returns the right figures: customers, orders and money, from
the sales and never from a reader.
"""

from __future__ import annotations

import csv
import random
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import xlsxwriter  # type: ignore[import-untyped]  # it publishes no types

Figures = tuple[int, int, float]
FIRST = 1000
"""Number of the first order."""


@dataclass(frozen=True)
class Line:
    """One line of an order; money is in cents."""

    customer: str
    at: datetime
    order: str
    product: str
    units: int
    price: int

    @property
    def cents(self) -> int:
        """What it comes to."""
        return self.units * self.price

    @property
    def number(self) -> int:
        """Which order it is of, from 0."""
        return int(self.order[1:]) - FIRST

    @property
    def amount(self) -> str:
        """The same as text."""
        return money(self.cents)


def money(cents: int) -> str:
    """Money with a decimal point."""
    return f"{cents / 100:.2f}"


def make_lines(n_orders: int = 200, seed: int = 31) -> list[Line]:
    """Orders of 25 customers, of one to three products."""
    rng, lines = random.Random(seed), []
    at = datetime(2024, 1, 1, 8, 0, 10)
    for number in range(n_orders):
        at += timedelta(hours=7, minutes=rng.randrange(90))
        customer = f"C{rng.randrange(25):02}"
        for product in rng.sample(range(20), rng.randint(1, 3)):
            price = rng.randrange(150, 9900)
            lines.append(Line(customer, at, f"R{FIRST + number}", f"P{product:02}", rng.randint(1, 3), price))
    return lines


def figures(lines: Iterable[Line]) -> Figures:
    """Customers, orders and money of lines."""
    kept = list(lines)
    return len({one.customer for one in kept}), len({one.order for one in kept}), sum(one.cents for one in kept) / 100


def write(
    name: str,
    header: Sequence[str] | None,
    rows: Iterable[Sequence[object]],
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> None:
    """Write a text file."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([*([header] if header else []), *rows])


def plain_rows(lines: Iterable[Line]) -> list[list[str]]:
    """Customer, instant, order and amount of each line."""
    return [[one.customer, str(one.at), one.order, one.amount] for one in lines]


def with_rows(lines: Sequence[Line]) -> Iterable[tuple[Line, list[str]]]:
    """Each line with its row."""
    return zip(lines, plain_rows(lines), strict=True)


PLAIN = ["Customer ID", "Order Date", "Order ID", "Sales"]


def own_columns() -> Figures:
    lines = make_lines()
    write("orders.csv", PLAIN, plain_rows(lines))
    return figures(lines)


def quantity_and_price() -> Figures:
    lines = make_lines()
    rows = [[one.customer, one.at, one.order, one.product, one.units, money(one.price)] for one in lines]
    write("orders.csv", ["Customer ID", "Order Date", "Order ID", "Item", "Qty", "Price"], rows)
    return figures(lines)


def date_and_time() -> Figures:
    lines = make_lines()
    rows = [[one.customer, f"{one.at:%d.%m.%Y}", f"{one.at:%H:%M}", one.order, one.amount] for one in lines]
    write("till.csv", ["Card", "Date", "Time", "Receipt", "Amount"], rows)
    return figures(lines)


def report() -> Figures:
    lines = make_lines()
    total = ["Total", "", "", money(sum(one.cents for one in lines))]
    write("report.csv", ["Sales by customer"], [["January to March"], [], PLAIN, *plain_rows(lines), total])
    return figures(lines)


def header_below_filters() -> Figures:
    lines = make_lines()
    write("report.csv", ["Period", "2024-01-01", "2024-03-31", "all"], [PLAIN, *plain_rows(lines)])
    return figures(lines)


def no_header() -> Figures:
    lines = make_lines()
    write("log.csv", None, plain_rows(lines))
    return figures(lines)


def thousands() -> Figures:
    """Whole thousands only: nothing says whether 1.250 is a little more than one or than a thousand."""
    lines = [replace(one, units=1, price=one.price // 100 * 100000) for one in make_lines()]
    rows = [[*row[:3], f"{one.cents // 100:,}".replace(",", ".")] for one, row in with_rows(lines)]
    write("orders.csv", PLAIN, rows, delimiter=";")
    return figures(lines)


def short_dates() -> Figures:
    """The first twelve days of the first twelve months of 2001 to 2012: every order of day, month and year fits."""
    lines = [
        replace(one, at=datetime(2001 + i % 12, 1 + i // 3 % 12, 1 + i // 7 % 12)) for i, one in enumerate(make_lines())
    ]
    days = {(one.at, one.order): one for one in lines}
    lines = [replace(one, order=f"{one.order} {one.at:%y%m%d}") for one in days.values()]
    write("orders.csv", PLAIN, [[one.customer, f"{one.at:%y/%m/%d}", one.order, one.amount] for one in lines])
    return figures(lines)


def instants_in_utc() -> Figures:
    """Orders around midnight of Berlin, without numbers, so that a day too early is another order."""
    lines = [
        replace(one, at=datetime(2024, 1, 1) + timedelta(days=i // 4, hours=-1 if i % 2 else 20))
        for i, one in enumerate(make_lines())
    ]
    lines = [replace(one, order=f"{one.customer} {one.at + timedelta(hours=1):%Y-%m-%d}") for one in lines]
    write(
        "orders.csv",
        ["user", "at", "amount"],
        [[one.customer, f"{one.at:%Y-%m-%dT%H:%M:%S}Z", one.amount] for one in lines],
    )
    return figures(lines)


def windows_text() -> Figures:
    lines = make_lines()
    write("kasse.csv", ["Käufer", "Datum", "Beleg", "Betrag"], plain_rows(lines), delimiter="~", encoding="cp1252")
    return figures(lines)


def sheets() -> Figures:
    """Two sheets of years and a third that has the same columns and is no part of it."""
    lines = make_lines()
    with xlsxwriter.Workbook("orders.xlsx") as book:
        parts = {"2023": lines[:100], "2024": lines[100:], "Forecast": lines[:7]}
        for name, part in parts.items():
            sheet = book.add_worksheet(name)
            rows = (
                plain_rows(replace(one, customer="nobody yet") for one in part)
                if name == "Forecast"
                else plain_rows(part)
            )
            for i, row in enumerate([PLAIN, *rows]):
                sheet.write_row(i, 0, row)
    return figures(lines)


def zipped_months() -> Figures:
    lines = make_lines()
    with zipfile.ZipFile("orders.zip", "w") as archive:
        for month in sorted({one.at.month for one in lines}):
            write("month.csv", PLAIN, plain_rows(one for one in lines if one.at.month == month))
            archive.write("month.csv", f"2024-{month:02}.csv")
    return figures(lines)


def folders_of_shops() -> Figures:
    """Both shops number their receipts from 1 on."""
    lines = make_lines()
    orders = {order: i for i, order in enumerate(dict.fromkeys(one.order for one in lines))}
    for shop in (0, 1):
        rows = [
            [one.customer, one.at, 1 + orders[one.order] // 2, one.amount]
            for one in lines
            if orders[one.order] % 2 == shop
        ]
        write(f"log/shop={'north' if shop else 'south'}/receipts.csv", ["card", "at", "receipt", "amount"], rows)
    return figures(lines)


def states() -> Figures:
    """Every fifth order is void."""
    lines = make_lines()
    kinds = {one.order: "void" if one.number % 5 == 0 else "paid" for one in lines}
    write("payments.csv", [*PLAIN, "State"], [[*row, kinds[row[2]]] for row in plain_rows(lines)])
    return figures(one for one in lines if kinds[one.order] == "paid")


def events() -> Figures:
    lines = make_lines()
    rows = [
        [one.customer, one.at, event, one.product, money(one.price)]
        for one in lines
        for event in ("view", "view", "purchase")
    ]
    write("events.csv", ["user_id", "event_time", "event_type", "product_id", "price"], rows)
    return figures(replace(one, units=1, order=f"{one.customer} {one.at:%Y-%m-%d}") for one in lines)


def refunds() -> Figures:
    """Every fourth line was paid back in part."""
    lines = make_lines()
    rows = [[*row, money(one.cents // 2) if i % 4 == 0 else ""] for i, (one, row) in enumerate(with_rows(lines))]
    write("orders.csv", [*PLAIN, "Refunded"], rows)
    n_customers, n_orders, _ = figures(lines)
    return (
        n_customers,
        n_orders,
        sum(one.cents - (one.cents // 2 if i % 4 == 0 else 0) for i, one in enumerate(lines)) / 100,
    )


def order_totals() -> Figures:
    lines = make_lines()
    totals = {one.order: sum(other.cents for other in lines if other.order == one.order) for one in lines}
    write("orders.csv", [*PLAIN[:3], "Order Total"], [[*row[:3], money(totals[row[2]])] for row in plain_rows(lines)])
    return figures(lines)


def _in_yen(lines: list[Line]) -> None:
    """Customers with an odd number pay in yen, 160 for a euro."""
    rows = [
        [*row, "JPY"] if int(one.customer[1:]) % 2 else [*row[:3], one.amount, "EUR"] for one, row in with_rows(lines)
    ]
    write("orders.csv", [*PLAIN, "Currency"], rows)


def two_currencies() -> Figures:
    lines = make_lines()
    _in_yen(lines)
    return figures(one for one in lines if int(one.customer[1:]) % 2 == 0)


def two_currencies_with_rates() -> Figures:
    lines = [replace(one, price=one.price * 200) if int(one.customer[1:]) % 2 else one for one in make_lines()]
    _in_yen(lines)
    write("rates.csv", ["date", "currency", "rate"], [["2024-01-01", "JPY", "0.005"]])
    return figures(make_lines())


def guests() -> Figures:
    lines = make_lines()
    rows = [["House", *row[1:]] if one.number % 3 == 0 else row for one, row in with_rows(lines)]
    write("orders.csv", PLAIN, rows)
    return figures(one for one in lines if one.number % 3)


def mail_or_phone() -> Figures:
    """The mail where there is one, else the telephone; mails in either case."""
    lines = make_lines()

    def contact(one: Line) -> list[str]:
        number = int(one.customer[1:])
        mail = f"{one.customer}@shop.example"
        return ["", f"+49 30 {number:05}"] if number % 5 == 0 else [mail.lower() if number % 2 else mail, ""]

    write(
        "orders.csv",
        ["E-mail", "Phone", *PLAIN[1:]],
        [[*contact(one), *row[1:]] for one, row in with_rows(lines)],
    )
    return figures(lines)


def two_cases() -> Figures:
    lines = make_lines()
    rows = [[row[0].lower() if one.number % 2 else row[0], *row[1:]] for one, row in with_rows(lines)]
    write("orders.csv", PLAIN, rows)
    return figures(lines)


def lost_zeros() -> Figures:
    lines = [one for one in make_lines() if one.customer != "C00"]
    ids = [f"{int(one.customer[1:])}" if one.number % 2 else f"0{one.customer[1:]}" for one in lines]
    write("orders.csv", PLAIN, [[id_, *row[1:]] for id_, row in zip(ids, plain_rows(lines), strict=True)])
    return figures(lines)


def numbers_start_again() -> Figures:
    """Receipts are numbered from 1 on, every day and at each of two tills."""
    lines = [replace(one, at=one.at.replace(day=1 + one.number // 16, month=1)) for one in make_lines()]
    rows = [[one.customer, one.at, f"T{one.number % 2}", 1 + one.number % 16 // 2, one.amount] for one in lines]
    write("till.csv", ["Card", "Date", "Till", "Receipt", "Amount"], rows)
    return figures(lines)


def a_row_for_each_unit() -> Figures:
    lines = make_lines()
    rows = [
        [one.customer, one.at, one.order, one.product, 1, money(one.price)] for one in lines for _ in range(one.units)
    ]
    write("till.csv", ["customer_id", "invoiced_at", "invoice_id", "product_id", "quantity", "unit_price"], rows)
    return figures(lines)


def joined_tables() -> Figures:
    """Orders joined with items and with two payments each."""
    lines = make_lines()
    rows = [[*row, one.product, payment] for one, row in with_rows(lines) for payment in ("card", "voucher")]
    write("joined.csv", [*PLAIN, "Item", "Payment"], rows)
    return figures(lines)


def one_giant_line() -> Figures:
    """A slip of the keyboard has more money than the whole year."""
    lines = make_lines()
    slip = replace(lines[5], order="R9999", units=999999)
    write("orders.csv", PLAIN, plain_rows([*lines, slip]))
    return figures(lines)


def slow_start() -> Figures:
    """A first order three months before all others, and rightly so."""
    lines = make_lines()
    first = replace(lines[0], at=datetime(2023, 9, 1, 12), order="R1")
    write("orders.csv", PLAIN, plain_rows([first, *lines]))
    return figures([first, *lines])


def receipts_of_many() -> Figures:
    """What looks like an order's number is the day's, for all customers, and is meant to be one order."""
    lines = make_lines()
    rows = [[one.customer, one.at, f"Day {one.at:%j}", one.amount] for one in lines]
    write("orders.csv", PLAIN, rows)
    return figures(replace(one, order=f"Day {one.at:%j}") for one in lines)


def colours() -> Figures:
    """A column that looks like a state and is the name of a colour."""
    lines = make_lines()
    write(
        "orders.csv",
        [*PLAIN, "Colour"],
        [[*row, "draft" if i % 4 else "void"] for i, row in enumerate(plain_rows(lines))],
    )
    return figures(lines)


def another_shop() -> Figures:
    """The columns of Online Retail, and products whose codes are words."""
    lines = make_lines()
    words = ("MUG", "FERN", "LAMP", "FRAME")
    rows = [
        [
            one.order,
            words[int(one.product[1:]) % 4],
            one.product,
            one.units,
            one.at,
            money(one.price),
            one.customer,
            "FR",
        ]
        for one in lines
    ]
    header = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
    write("orders.csv", header, rows)
    return figures(lines)


def postage_and_credit_notes() -> Figures:
    """Postage is a line of its own, and a credit note's number begins with CN."""
    lines = make_lines()
    rows = [[one.customer, one.at, one.order, one.product, "Thing", one.amount] for one in lines]
    rows += [[one.customer, one.at, one.order, "X", "Postage", "4.90"] for one in lines[::6]]
    back = lines[3]
    rows.append([back.customer, back.at + timedelta(days=1), "CN1", back.product, "Thing", f"-{back.amount}"])
    write("orders.csv", [*PLAIN[:3], "SKU", "Name", "Sales"], rows)
    n_customers, n_orders, net = figures(lines)
    return n_customers, n_orders, round(net - back.cents / 100, 2)


ODD_FILES: dict[str, Callable[[], Figures]] = {
    make.__name__: make
    for make in (
        own_columns, quantity_and_price, date_and_time, report, header_below_filters, no_header, thousands, short_dates,
        instants_in_utc, windows_text, sheets, zipped_months, folders_of_shops, states, events, refunds, order_totals,
        two_currencies, two_currencies_with_rates, guests, mail_or_phone, two_cases, lost_zeros, numbers_start_again,
        a_row_for_each_unit, joined_tables, one_giant_line, slow_start, receipts_of_many, colours, another_shop,
        postage_and_credit_notes,
    )
}  # fmt: skip
