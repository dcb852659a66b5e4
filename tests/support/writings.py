"""Ways in which shops write down one log: the text's, the numbers' and the dates' conventions, each by itself.

What the log is made of is in ``made_logs``. No reader is asked for anything here.
"""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from tests.support.made_logs import Line

_BERLIN = ZoneInfo("Europe/Berlin")
_EPOCH = datetime(1970, 1, 1)
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
_MONTHS += ("November", "December")


def _in(form: str, at: datetime) -> str:
    return at.strftime(form)


def _unpadded(form: str, at: datetime) -> str:
    return form.format(d=at.day, m=at.month, Y=at.year, y=at.year % 100, H=at.hour, M=at.minute)


def _utc(form: str, at: datetime) -> str:
    return at.replace(tzinfo=_BERLIN).astimezone(UTC).strftime(form)


def _berlin(at: datetime) -> str:
    return at.replace(tzinfo=_BERLIN).isoformat(sep=" ")


def _count(per_second: int, at: datetime) -> str:
    return str(int((at - _EPOCH).total_seconds()) * per_second)


def _excel(at: datetime) -> str:
    return repr((at - datetime(1899, 12, 30)) / timedelta(days=1))


@dataclass(frozen=True)
class DateStyle:
    """A way to write instants.

    Attributes:
        write: an instant as text.
        line: what a person who knows it sets ``date_format`` to.
        step: what is lost of an instant, in seconds: nothing, those of a minute, or those of a day.
        is_in_doubt: whether it leaves day and month, or also the year, in doubt where days are small.
        is_short: whether years have two digits.
        time_zone: what a person sets ``time_zone`` to.
    """

    write: Callable[[datetime], str]
    line: str
    step: int = 86_400
    is_in_doubt: bool = False
    is_short: bool = False
    time_zone: str | None = None


def _plain(form: str, step: int = 86_400, *, in_doubt: bool = False, short: bool = False) -> DateStyle:
    return DateStyle(partial(_in, form), form, step, in_doubt, short)


DATES: Mapping[str, DateStyle] = {
    "iso": _plain("%Y-%m-%d"),
    "iso with time": _plain("%Y-%m-%d %H:%M:%S", 1),
    "iso with T": _plain("%Y-%m-%dT%H:%M:%S", 1),
    "iso with Z": _plain("%Y-%m-%dT%H:%M:%SZ", 1),
    "iso with fraction and zone": DateStyle(partial(_in, "%Y-%m-%d %H:%M:%S.000+00"), "%Y-%m-%d %H:%M:%S%.f%#z", 1),
    "the shop's zone": DateStyle(_berlin, "%Y-%m-%d %H:%M:%S%:z", 1),
    "UTC of a shop elsewhere": DateStyle(
        partial(_utc, "%Y-%m-%dT%H:%M:%SZ"), "%Y-%m-%dT%H:%M:%SZ", 1, time_zone="Europe/Berlin"
    ),
    "slashed year first": _plain("%Y/%m/%d %H:%M", 60),
    "dotted year first": _plain("%Y.%m.%d"),
    "dotted": _plain("%d.%m.%Y", in_doubt=True),
    "dotted with time": _plain("%d.%m.%Y %H:%M", 60, in_doubt=True),
    "dotted, two digits": _plain("%d.%m.%y", in_doubt=True, short=True),
    "spaced dots": _plain("%d. %m. %Y", in_doubt=True),
    "British": _plain("%d/%m/%Y", in_doubt=True),
    "British, two digits": _plain("%d/%m/%y %H:%M", 60, in_doubt=True, short=True),
    "dashed day first": _plain("%d-%m-%Y", in_doubt=True),
    "American": _plain("%m/%d/%Y", in_doubt=True),
    "American with AM": _plain("%m/%d/%Y %I:%M %p", 60, in_doubt=True),
    "American, two digits": _plain("%m/%d/%y", in_doubt=True, short=True),
    "American, unpadded": DateStyle(partial(_unpadded, "{m}/{d}/{Y} {H}:{M:02}"), "%m/%d/%Y %H:%M", 60, True),
    "unpadded dots": DateStyle(partial(_unpadded, "{d}.{m}.{Y}"), "%d.%m.%Y", 86_400, True),
    "year first, two digits": _plain("%y-%m-%d", in_doubt=True, short=True),
    "slashed year first, two digits": _plain("%y/%m/%d", in_doubt=True, short=True),
    "month by name": _plain("%d-%b-%Y"),
    "month by name, two digits": _plain("%d-%b-%y", in_doubt=True, short=True),
    "month by name first": _plain("%b %d, %Y"),
    "month in full": _plain("%d %B %Y %H:%M", 60),
    "weekday": _plain("%a, %d %b %Y %H:%M:%S", 1),
    "compact": _plain("%Y%m%d"),
    "compact with time": _plain("%Y%m%d%H%M%S", 1),
    "compact with T": _plain("%Y%m%dT%H%M%S", 1),
    "compact day first": _plain("%d%m%Y", in_doubt=True),
    "compact, two digits": _plain("%y%m%d", in_doubt=True, short=True),
    "seconds": DateStyle(partial(_count, 1), "seconds", 1),
    "milliseconds": DateStyle(partial(_count, 1000), "milliseconds", 1),
    "Excel's days": DateStyle(_excel, "excel", 1),
}

DELIMITERS = (",", ";", "\t", "|")
QUOTING = ("minimal", "all", "text", "none", "backslash", "backslash before quotes")
DECIMALS = (".", ",")
THOUSANDS = ("", "other", " ", "'", "\u00a0", "\u202f", "\u2019")
NEGATIVES = ("-1", "(1)", "1-", "\u22121", "- 1")
CURRENCIES = ("", "€1", "1 €", "EUR 1", "1 EUR", "$1", "£1", "kr 1", "1,00 kr", "CHF 1")
DIGITS = ("full", "short")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "cp1252 unsaid")
LINE_ENDS = ("\n", "\r\n", "\r")
PREAMBLES = ("", "sep", "title", "title and gap", "wide title", "quoted title")
FOOTERS = ("", "total", "total of a customer", "words", "blank", "wide blank", "number of records")
PACKINGS = ("plain", "gz", "zip")
FORMATS = ("text", "xlsx", "xlsx typed", "parquet", "parquet typed")
AMOUNTS = ("totals", "priced", "both")
NOBODY = ("", "0", "NULL", "-", "guest", "nan", "\\N")
ID_STYLES = ("plain", "float", "any case")
STATUSES = ("none", "filter", "exclude", "unsaid")
EXTRAS = ("none", "harmless", "repeated", "unnamed", "ours by name")
HEADERS = ("english", "german", "ours", "spaced")
QUANTITIES = ("plain", "float", "three decimals")

_NAMES = {
    "english": "Client,Order,Date,Item,Text,Qty,Price,Amount,Status,Refunded,Paid in",
    "german": "Käufer,Beleg,Datum,Artikel,Bezeichnung,Menge,Preis,Betrag,Zustand,Erstattet,Währung",
    "ours": "customer_id,invoice_id,invoiced_at,product_id,description,quantity,unit_price,line_amount,status,"
    "refunded_amount,currency",
    "spaced": " Customer No. ,Receipt no,Booking date,SKU,Long text, Quantity sold,Net price , Line total,Order status,"
    "Refund,Cur",
}
_COLUMNS = (
    *("customer_id", "invoice_id", "invoiced_at", "product_id", "description", "quantity", "unit_price"),
    *("line_amount", "status", "refunded_amount", "currency"),
)


@dataclass(frozen=True)
class Writing:
    """How a log is written down, and how much of it a person says in ``custseg.toml``; the defaults are plain."""

    delimiter: str = ","
    quoting: str = "minimal"
    decimal: str = "."
    thousands: str = ""
    negative: str = "-1"
    currency: str = ""
    digits: str = "full"
    dates: str = "iso"
    encoding: str = "utf-8"
    line_end: str = "\n"
    preamble: str = ""
    footer: str = ""
    packing: str = "plain"
    format: str = "text"
    amounts: str = "totals"
    nobody: str = ""
    ids: str = "plain"
    status: str = "none"
    refunds: str = "none"
    foreign: str = "none"
    extras: str = "none"
    headers: str = "english"
    quantities: str = "plain"
    order: int = 0
    has_orders: bool = True
    has_gaps: bool = False
    is_sparse: bool = False
    is_padded: bool = False
    says_dates: bool = False
    says_decimal: bool = False

    @property
    def date_style(self) -> DateStyle:
        """How instants are written."""
        return DATES[self.dates]

    @property
    def is_text(self) -> bool:
        """Whether dates and numbers are written as texts."""
        return not self.format.endswith("typed")

    def columns(self) -> dict[str, str]:
        """What is written → its header."""
        names = dict(zip(_COLUMNS, _NAMES[self.headers].split(","), strict=True))
        left_out = {
            "invoice_id": not self.has_orders,
            "quantity": self.amounts == "totals",
            "unit_price": self.amounts == "totals",
            "line_amount": self.amounts == "priced",
            "status": self.status == "none",
            "refunded_amount": self.refunds == "none",
            "currency": self.foreign == "none",
        }
        return {name: header for name, header in names.items() if not left_out.get(name)}

    def settings(self) -> dict[str, Any]:
        """``[source]`` as a person writes it who looks at the file's header, and what else is drawn."""
        headers = {name: header.strip() for name, header in self.columns().items()}
        filters: dict[str, Any] = {}
        for name, said, counts, others in (
            ("status", self.status, "paid", "voided"),
            ("currency", self.foreign, "EUR", "USD"),
        ):
            if said == "filter":
                filters[headers[name]] = [counts]
            elif said == "exclude":
                filters[headers[name]] = {"exclude": [others]}
        unread = {"status", "currency", *(["refunded_amount"] if self.refunds == "unsaid" else [])}
        settings: dict[str, Any] = {
            "columns": {name: header for name, header in headers.items() if name not in unread},
            "filter": filters,
        }
        if self.encoding in ("utf-16-le", "cp1252"):
            settings["encoding"] = self.encoding
        if self.says_dates and self.is_text:
            settings["date_format"] = self.date_style.line
        if self.says_decimal and self.is_text:
            settings["decimal"] = self.decimal
        if self.date_style.time_zone and self.is_text:
            settings["time_zone"] = self.date_style.time_zone
        return settings

    def instant(self, at: datetime) -> datetime:
        """What is left of an instant in writing."""
        step = self.date_style.step if self.is_text else 1
        seconds = (at - datetime(at.year, at.month, at.day)).seconds
        return datetime(at.year, at.month, at.day) + timedelta(seconds=seconds // step * step)

    @property
    def file_name(self) -> str:
        """Of a file in this format."""
        if self.format != "text":
            return f"log.{self.format.split()[0]}"
        name = "log.tsv" if self.delimiter == "\t" else "log.csv"
        return {"gz": f"{name}.gz", "zip": "log.zip"}.get(self.packing, name)

    def write(self, lines: Sequence[Line]) -> bytes:
        """The file."""
        rng = random.Random(self.order)
        headers, records = self._table(lines, rng)
        if self.format.startswith("parquet"):
            return _parquet(headers, records)
        rows = [*self._before(headers), headers, *self._with_gaps(records, rng), *self._after(headers, lines)]
        return _workbook(rows) if self.format.startswith("xlsx") else self._pack(self._text(rows))

    def _table(self, lines: Sequence[Line], rng: random.Random) -> tuple[list[str], list[list[Any]]]:
        columns = list(self.columns().items())
        cells: list[dict[str, Any]] = [self._cells(line, rng) for line in lines]
        if self.is_sparse and self.has_orders:
            # What is the order's stands on its first line only.
            orders = [line.order for line in lines]
            for i, cell in enumerate(cells):
                if orders[i] in orders[:i]:
                    cell |= {"status": "", "currency": ""}
        extra = {
            "harmless": [("extra 1", "Store"), ("extra 2", "Weight"), ("extra 3", "Remark")],
            "repeated": [("extra 1", "Remark"), ("extra 2", "Remark")],
            "unnamed": [("extra 4", "")],
            "ours by name": [("extra 1", "country")],
        }.get(self.extras, [])
        if self.format.startswith("parquet") and self.extras == "repeated":
            extra = extra[:1]
        for cell in cells:
            cell |= {"extra 1": rng.choice(("Main St", "Online")), "extra 2": "1.5", "extra 3": "", "extra 4": ""}
        columns += extra
        if self.order:
            rng.shuffle(columns)
        return [header for _, header in columns], [[cell[name] for name, _ in columns] for cell in cells]

    def _cells(self, line: Line, rng: random.Random) -> dict[str, Any]:
        cells: dict[str, Any] = {
            "customer_id": self._customer(line.customer, rng),
            "invoice_id": f"{line.order}.0" if self.ids == "float" else str(line.order),
            "invoiced_at": self.date_style.write(line.at),
            "product_id": line.product,
            "description": self._description(line.description),
            "quantity": self._quantity(line.quantity),
            "unit_price": self.money(line.price),
            "line_amount": self.money(line.amount),
            "status": rng.choice(("voided", "Voided")) if line.is_void else rng.choice(("paid", "Paid")),
            "refunded_amount": self.money(line.refund) if line.refund or self.order % 2 else "",
            "currency": line.currency,
        }
        if not self.is_text:
            cells |= {
                "invoiced_at": line.at,
                "quantity": float(line.quantity),
                "unit_price": line.price / 1000,
                "line_amount": line.amount / 1000,
                "refunded_amount": line.refund / 1000,
            }
        return cells

    def _customer(self, customer: str | None, rng: random.Random) -> str:
        if customer is None:
            return self.nobody
        if self.ids == "float" and customer.isdecimal() and not customer.startswith("0"):
            return f"{customer}.0"
        if self.ids == "any case" and "@" in customer:
            return rng.choice((customer, customer.upper(), customer.capitalize()))
        return customer

    def _description(self, description: str) -> str:
        if self.quoting != "none":
            return description
        return "".join(" " if mark in (self.delimiter, "\n", "\r") else mark for mark in description)

    def _quantity(self, quantity: int) -> str:
        if self.quantities == "plain":
            return str(quantity)
        return f"{quantity:.{1 if self.quantities == 'float' else 3}f}".replace(".", self.decimal)

    def money(self, thousandths: int) -> str:
        """An amount as text."""
        whole, part = divmod(abs(thousandths), 1000)
        other = "," if self.decimal == "." else "."
        mark = other if self.thousands == "other" else self.thousands
        digits = f"{part:03}"
        digits = digits.rstrip("0") if self.digits == "short" else digits if part % 10 else digits[:2]
        number = f"{whole:,}".replace(",", mark) + (f"{self.decimal}{digits}" if digits else "")
        mark_of = self.currency.replace("1,00", "1")
        if thousandths >= 0:
            return mark_of.replace("1", number) if mark_of else number
        signed = self.negative.replace("1", number)
        if self.order % 2 or not mark_of:
            return mark_of.replace("1", signed) if mark_of else signed
        return self.negative.replace("1", mark_of.replace("1", number))

    def _before(self, headers: Sequence[str]) -> list[list[str]]:
        empty = [""] * (len(headers) - 1)
        return {
            "": [],
            "sep": [[f"sep={self.delimiter}"]] if self.format == "text" else [],
            "title": [["Sales report"]],
            "title and gap": [["Sales report 2024"], [f"From {self.money(1234500)} on"], []],
            "wide title": [["Sales report", *empty], ["", *empty]],
            "quoted title": [["Report, of sales; all|of them", *empty[:1]], ["Made:", "2024-01-31"]],
        }[self.preamble]

    def _after(self, headers: Sequence[str], lines: Sequence[Line]) -> list[list[Any]]:
        empty = [""] * len(headers)
        columns = self.columns()
        amount = headers.index(columns["line_amount"]) if "line_amount" in columns else None
        customer = headers.index(columns["customer_id"])
        rows: list[list[Any]] = []
        if self.footer.startswith("total"):
            row: list[Any] = list(empty)
            at = customer if self.footer == "total of a customer" else 0
            if amount is not None:
                total = sum(line.amount for line in lines)
                row[amount] = self.money(total) if self.is_text else total / 1000
            if at != amount:
                row[at] = "Total"
            rows = [row]
        elif self.footer == "words":
            rows = [["End of the report"]]
        elif self.footer == "number of records":
            rows = [[], [f"{len(lines)} records"]]
        elif self.footer == "blank":
            rows = [[], [], []]
        elif self.footer == "wide blank":
            rows = [empty, empty]
        return rows

    def _with_gaps(self, records: Sequence[list[Any]], rng: random.Random) -> list[list[Any]]:
        if not self.has_gaps:
            return list(records)
        rows = []
        for record in records:
            rows.append(record)
            if rng.random() < 0.1:
                rows.append(rng.choice(([], [""] * len(record))))
        return rows

    def _text(self, rows: Sequence[Sequence[str]]) -> str:
        texts = []
        for row in rows:
            is_sep = len(row) == 1 and row[0].startswith("sep=")
            texts.append(row[0] if is_sep else self.delimiter.join(self._field(value) for value in row))
        return self.line_end.join(texts) + ("" if self.order % 3 == 1 else self.line_end)

    def _field(self, value: str) -> str:
        is_special = any(mark in value for mark in (self.delimiter, '"', "\n", "\r"))
        is_number = value.lstrip("-").replace(".", "", 1).isdecimal()
        if self.quoting == "none":
            return f'"{value}"' if self.delimiter in value else self._pad(value)
        if self.quoting == "backslash":
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if self.quoting == "backslash before quotes":
            return '"' + value.replace('"', '\\"') + '"' if is_special else self._pad(value)
        if is_special or self.quoting == "all" or (self.quoting == "text" and not is_number):
            return '"' + value.replace('"', '""') + '"'
        return self._pad(value)

    def _pad(self, value: str) -> str:
        return f" {value} " if self.is_padded and value else value

    def _pack(self, text: str) -> bytes:
        content = text.encode(self.encoding.split()[0], errors="replace")
        if self.packing == "gz":
            return gzip.compress(content, 1)
        if self.packing == "zip":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr("log.csv", content)
            return packed.getvalue()
        return content


def _workbook(rows: Sequence[Sequence[Any]]) -> bytes:
    import xlsxwriter

    packed = io.BytesIO()
    with xlsxwriter.Workbook(packed, {"in_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"}) as workbook:
        sheet = workbook.add_worksheet("Sales")
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                if isinstance(value, datetime):
                    sheet.write_datetime(i, j, value)
                elif isinstance(value, float):
                    sheet.write_number(i, j, value)
                elif value:
                    sheet.write_string(i, j, value)
    return packed.getvalue()


def _parquet(headers: Sequence[str], records: Sequence[Sequence[Any]]) -> bytes:
    import polars as pl

    packed = io.BytesIO()
    columns = {header: [record[i] for record in records] for i, header in enumerate(headers)}
    pl.DataFrame(columns).write_parquet(packed)
    return packed.getvalue()
