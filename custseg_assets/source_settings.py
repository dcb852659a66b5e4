"""How a transaction log is read: the section ``[source]`` of the settings, which are slow to import as a whole.

The process that reads files imports no more; see ``settings`` for where values come from.
"""

from __future__ import annotations

import codecs
import difflib
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from custseg_assets.domain.bounds import Share
from custseg_assets.domain.schemas import MAPPED_NAMES, READ_NAMES
from custseg_assets.domain.transactions.limits import MAX_AMOUNT
from custseg_assets.domain.transactions.log_facts import Code
from custseg_assets.domain.transactions.presets import FirstOf, RowFilter

ALL_SHEETS = "*"
_NO_ENCODINGS = frozenset({"idna", "punycode", "undefined", "unicode-escape", "unicode_escape", "raw-unicode-escape"})
"""What Python takes for encodings of text, and no file is written in."""
_NO_DELIMITERS = frozenset("\"'\r\n\0.-+ ")


class Section(BaseModel):
    """A section of ``custseg.toml``: each of its keys is known, and has a value that can be."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceSettings(Section):
    """Where the transaction log is and how it is read.

    Attributes:
        path: file or folder to read, ``bq://project.dataset.table``, address of a database, such as
            ``postgresql://user@host/database``, or ``demo`` for the demo shop.
        table: table or view to read, such as ``shop.orders``, where the path is the address of a database.
        query: SQL query to read instead of a table; where the path is a file, folder or zip, each table in it is one
            of the query's.
        cursor: column of the table or query that only grows, such as ``updated_at`` or an id: each run then reads only
            the rows that are new.
        preset: known export whose column names, filters and cleaning rules apply; recognised from the header without
            it. With ``none`` nothing is.
        columns: the header that each column, such as ``customer_id``, has in the log; several headers where its values
            are to be joined, such as a date's and a time's, and ``{ first_of = […] }`` where each line's first header
            counts that is not empty.
        filter: header → the values of the lines that count, or ``{ exclude = […] }`` with those of lines that do not.
            Upper and lower case make no difference, and ``""`` stands for an empty cell.
        refunds: header → the values of lines for what was paid back. Their amounts and quantities are negative,
            whatever their sign in the log.
        ignored_columns: headers of columns that say nothing about what a line is worth, although they look like it.
        no_customer: further texts in the customer's column that mean that there is none, in upper or lower case,
            besides ``0``, ``-``, ``?``, ``null``, ``none``, ``nan``, ``n/a``, ``guest``, ``unknown`` and their like.
        customer_id_case: whether ids that differ only in upper and lower case are one customer (``lower``) or not
            (``keep``); without it e-mail addresses are, and others are refused where there are any.
        customer_id_form: whether ids are numbers, without leading zeros and ``.0``, or text, exactly as they are
            written, ``0`` and ``null`` included; without it ``17850.0`` beside ``17850`` is that number, and lost
            zeros are refused.
        invoice_key: headers that make up an order's id together, where invoice numbers start again, each day or in
            each shop. The header of ``invoiced_at`` stands for the day.
        line_key: headers that make up a line's identity together, such as an order's id and the line's number in it,
            where a line may come again because tables were joined; each counts once.
        currency: currency of the shop's amounts, shown with them; with ``rates``, what amounts are converted to.
        rates: csv file with the columns ``date``, ``currency`` and ``rate``: what one unit is worth in ``currency``,
            from that day on.
        date_format: format of ``invoiced_at``, such as ``%d/%m/%Y %H:%M``, or what its numbers count: ``seconds``,
            ``milliseconds``, ``microseconds``, ``nanoseconds`` since 1970, ``excel`` or ``excel-1904``; recognised
            without it.
        time_zone: zone of the shop, such as ``Europe/Berlin``, which instants with a zone or since 1970 are converted
            to; without it their own clock is kept, which is UTC's for instants since 1970.
        encoding: text encoding of csv files.
        delimiter: character between the values of csv files; recognised without it.
        decimal: decimal point or comma of the numbers; recognised without it, from all values of a column.
        sheet: sheet of a workbook to read, or a list of sheets to read as one table; ``*`` means all. Without it the
            sheet that has the required columns, or all that have the same columns.
        header_row: number of the line, or of a sheet's row, that has the column names; 0 where there is none, and
            columns are then named ``column_1``, ``column_2``, … Without it the first that names the required columns.
        accepted_doubts: doubts about the log as a whole that are looked into, and no reason to refuse it.
        keep_stray_days: whether a few lines far apart in time from the rest of the log are taken in, not refused.
        max_unreadable_share: largest share of a file's lines with a customer, and of their money, with values that
            cannot be read; a file with more is refused.
        max_line_amount: largest amount of a line, of either sign; larger ones are set aside as unreadable. Without it
            barcodes are, and a line that alone has most of the money is refused.
    """

    path: str | None = None
    table: Annotated[str, Field(min_length=1)] | None = None
    query: Annotated[str, Field(min_length=1)] | None = None
    cursor: Annotated[str, Field(min_length=1)] | None = None
    preset: (
        Literal["none", "magento", "olist", "online_retail", "shopify", "square", "stripe", "woocommerce"] | None
    ) = None
    columns: dict[str, str | tuple[str, ...] | FirstOf] = Field(default_factory=dict)
    filter: dict[str, RowFilter] = Field(default_factory=dict)
    refunds: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    no_customer: tuple[str, ...] = ()
    customer_id_case: Literal["keep", "lower"] | None = None
    customer_id_form: Literal["text", "number"] | None = None
    invoice_key: tuple[str, ...] = ()
    line_key: tuple[str, ...] = ()
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    rates: Path | None = None
    date_format: Annotated[str, Field(min_length=1)] | None = None
    time_zone: str | None = None
    encoding: str = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] | None = None
    sheet: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    header_row: Annotated[int, Field(ge=0)] | None = None
    accepted_doubts: tuple[Code, ...] = ()
    keep_stray_days: bool = False
    max_unreadable_share: Share = 0.01
    max_line_amount: Annotated[float, Field(gt=0, le=MAX_AMOUNT)] | None = None

    @field_validator("columns")
    @classmethod
    def _check_columns(
        cls, columns: dict[str, str | tuple[str, ...] | FirstOf]
    ) -> dict[str, str | tuple[str, ...] | FirstOf]:
        accepted = (*MAPPED_NAMES, *READ_NAMES)
        unknown = sorted(set(columns) - set(accepted))
        if unknown:
            raise ValueError(f"no such column: {', '.join(unknown)}; accepted are {', '.join(accepted)}")
        return columns

    @field_validator("filter", mode="before")
    @classmethod
    def _read_filters(cls, filters: Any) -> Any:
        """A value or a list of values stands for ``only``."""
        if not isinstance(filters, dict):
            return filters
        return {header: _read_filter(header, rule) for header, rule in filters.items()}

    @field_validator("refunds", mode="before")
    @classmethod
    def _read_refunds(cls, refunds: Any) -> Any:
        """A single value stands for a list of it."""
        if not isinstance(refunds, dict):
            return refunds
        return {
            header: [_as_text(one) for one in (values if isinstance(values, list | tuple) else [values])]
            for header, values in refunds.items()
        }

    @model_validator(mode="after")
    def _check_rates(self) -> SourceSettings:
        if self.rates is not None and self.currency is None:
            raise ValueError("rates need a currency, the one that amounts are converted to")
        return self

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str) -> str:
        try:
            # Refuses what turns text into text, or bytes into bytes, too.
            "a".encode(encoding)
            is_known = codecs.lookup(encoding).name not in _NO_ENCODINGS
        except (LookupError, ValueError):
            is_known = False
        if not is_known:
            raise ValueError('must be the name of a text encoding, such as "utf-8", "latin-1" or "cp1252"')
        return encoding

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, delimiter: str | None) -> str | None:
        if delimiter and (not delimiter.isascii() or delimiter.isalnum() or delimiter in _NO_DELIMITERS):
            raise ValueError('must be one character such as ",", ";", "|" or "\\t"')
        return delimiter

    @field_validator("rates")
    @classmethod
    def _make_absolute(cls, rates: Path | None) -> Path | None:
        return rates and rates.expanduser().absolute()

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, time_zone: str | None) -> str | None:
        if time_zone is not None and time_zone not in zoneinfo.available_timezones():
            near = difflib.get_close_matches(time_zone, zoneinfo.available_timezones(), 1, cutoff=0.5)
            nearest = f"; nearest is {near[0]}" if near else ""
            raise ValueError(f"no such time zone: {time_zone}; accepted are names such as Europe/Berlin{nearest}")
        return time_zone

    def to_fields(self) -> dict[str, Any]:
        """The same as JSON values, of which ``model_validate`` makes it again.

        Raises:
            ValueError: it is of a preset, whose filters cannot be configured.
        """
        filters = {
            header: {kind: values for kind, values in (("only", rule.only), ("exclude", rule.exclude)) if values}
            for header, rule in self.filter.items()
        }
        fields = {**self.model_dump(mode="json"), "filter": filters}
        if SourceSettings.model_validate(fields) != self:
            raise ValueError(f"{fields} are not all there is of the settings of a source")
        return fields

    def how_read(self) -> dict[str, Any]:
        """The keys that decide what the lines of a file are."""
        # What a database or several tables are asked for stands in the identity of what they answer.
        elsewhere = {"path", "table", "query", "cursor"}
        return self.model_dump(
            mode="json", exclude={*elsewhere, "accepted_doubts", "keep_stray_days", "max_unreadable_share"}
        )


def _read_filter(header: str, rule: Any) -> Any:
    if isinstance(rule, RowFilter):
        return rule
    one = rule if isinstance(rule, dict) else {"only": rule}
    values = {kind: value if isinstance(value, list | tuple) else [value] for kind, value in one.items()}
    plain = all(isinstance(value, str | bool | int | float) for each in values.values() for value in each)
    if len(values) != 1 or not set(values) <= {"only", "exclude"} or not plain or not all(values.values()):
        raise ValueError(
            f'{header!r}: must be the values of lines that count, such as ["paid", "shipped"], or of those that do'
            ' not, such as { exclude = ["voided"] }'
        )
    return {kind: tuple(_as_text(value) for value in each) for kind, each in values.items()}


def _as_text(value: str | bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
