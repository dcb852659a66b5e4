"""Lists of customers: pages with a cursor, and CSV. Parameters are in ``list_parameters``, HTTP is in ``api``."""

from __future__ import annotations

import base64
import binascii
import csv
import difflib
import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from custseg_assets.domain.spreadsheets import CUSTOMER_COLUMNS, FORMULA, PREDICTED
from custseg_assets.stores.customer_lists import NOT_KNOWN, ListQuery, Selection
from custseg_serving.answers import Answers
from custseg_serving.errors import ApiError

CSV_ROWS = 500
"""Rows that are rendered at a time."""
_FORMULA = re.compile(FORMULA)
BYTE_ORDER_MARK = "\ufeff"


class _Cursor(NamedTuple):
    """Where a page ended: valid for one release and one query."""

    release_id: str
    query: str
    position: int

    def encode(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode().rstrip("=")


def _read_cursor(text: str, release_id: str, query: str, n_positions: int) -> int:
    """The position that a cursor stands for.

    Raises:
        ApiError: 400 where it is none of this query, 409 where it is of another release.
    """
    try:
        content = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        cursor = _Cursor(*content)
        is_sound = isinstance(cursor.position, int) and 0 <= cursor.position <= n_positions
    except (binascii.Error, ValueError, TypeError, RecursionError):
        is_sound = False
    if is_sound and cursor.release_id != release_id:
        raise ApiError(
            409,
            "release_changed",
            f"The cursor is of another release than {release_id}, which is served now and whose list may be another. "
            "Begin again without cursor.",
            {"release_id": release_id},
        )
    if not is_sound or cursor.query != query:
        raise ApiError(
            400,
            "invalid_cursor",
            "The cursor is none that this list gave; send `next` of the page before, and leave all other parameters as "
            "they were.",
        )
    return cursor.position


class CsvFile(NamedTuple):
    """A list as CSV.

    Attributes:
        n_held_out: customers that fit and are not in it, because a running campaign holds them out.
        lines: its text, in parts.
    """

    n_held_out: int
    lines: Iterator[str]


class Lists:
    """Lists from one release, as plain values.

    Args:
        answers: of the release.

    Raises:
        ApiError: 503 where the release was made before there were lists.
    """

    def __init__(self, answers: Answers) -> None:
        if answers.release.lists is None:
            raise ApiError(
                503,
                "no_lists",
                f"Release {answers.release.release_id} was made by a version of custseg that made no lists; "
                "run `custseg run` and a release with lists takes its place.",
                {"release_id": answers.release.release_id},
            )
        self._answers, self._lists = answers, answers.release.lists
        self._advice = {row["segment_id"]: row["advice"] for row in answers.release.profiles}

    def _check_query(self, query: ListQuery) -> None:
        """Refuse segments that nobody is or was in, and an order that the release does not have.

        Raises:
            ApiError: 404, with the nearest; 503 where the release was made before anything was predicted.
        """
        if query.sort in PREDICTED and not self._lists.has_predictions:
            raise ApiError(
                503,
                "no_predictions",
                f"Release {self._answers.release.release_id} was made by a version of custseg that predicted nothing; "
                "run `custseg run` and a release with predictions takes its place.",
                {"release_id": self._answers.release.release_id},
            )
        names = segment_names(self._answers)
        for segment_id in (*query.segment, *query.previous, *query.moved_from):
            is_left_out = segment_id == NOT_KNOWN and segment_id in query.moved_from and not query.has_moved
            if segment_id not in names and not is_left_out:
                raise unknown_segment(segment_id, names)

    def page(self, query: ListQuery, limit: int, cursor: str | None) -> dict[str, Any]:
        """A page of a list, with its sums over all that fit and the cursor of the next page.

        Raises:
            ApiError: 400 or 409 where the cursor does not fit; 404 for an unknown segment.
        """
        self._check_query(query)
        release_id, digest = self._answers.release.release_id, _digest(query)
        position = 0 if cursor is None else _read_cursor(cursor, release_id, digest, len(self._lists))
        selection = self._lists.select(query)
        walk = self._lists.walk(query, selection, position)
        found = list(itertools.islice(walk, limit + 1))
        page, more = found[:limit], found[limit:]
        return {
            "customers": [self._describe(row) for _, row in page],
            "n_customers": selection.n_customers,
            "n_held_out": selection.n_held_out,
            "value_at_stake": selection.value_at_stake,
            "next": _Cursor(release_id, digest, page[-1][0]).encode() if more else None,
        }

    def csv(self, query: ListQuery, *, has_mark: bool, has_decimal_comma: bool = False) -> CsvFile:
        """All customers of a list as CSV, in parts, without those held out of a running campaign.

        Args:
            query: which customers, in which order.
            has_mark: whether to begin with a byte order mark.
            has_decimal_comma: whether numbers are written like 1,5, with semicolons between cells.

        Raises:
            ApiError: 404 for an unknown segment, before anything is rendered.
        """
        self._check_query(query)
        selection = self._lists.select(query)
        form = _Form(";", ",") if has_decimal_comma else _Form()
        return CsvFile(selection.n_held_out, self._render(query, selection, BYTE_ORDER_MARK * has_mark, form))

    def _render(self, query: ListQuery, selection: Selection, mark: str, form: _Form) -> Iterator[str]:
        walk = self._lists.walk(query, selection)
        rows = (_cells(self._describe(row)) for _, row in walk)
        yield mark + form.render([CUSTOMER_COLUMNS])
        while batch := list(itertools.islice(rows, CSV_ROWS)):
            yield form.render(batch)

    def history(self, customer_id: str) -> list[dict[str, Any]] | None:
        """A customer at the snapshots that knew it, the newest first; ``None`` where it is not in the lists."""
        return self._lists.history_of(customer_id)

    def _describe(self, row: int) -> dict[str, Any]:
        described = self._lists.describe(row)
        record = self._answers.release.record_of(described["customer_id"]) or {}
        products = self._answers.release.products
        return {
            **described,
            "advice": self._advice[described["segment_id"]],
            "recommendations": [
                {"product_id": product, "description": products[product]} for product in record.get("products", [])
            ],
        }


def _digest(query: ListQuery) -> str:
    """What stands for a query in its cursors."""
    return hashlib.sha256(json.dumps(asdict(query), sort_keys=True).encode()).hexdigest()[:16]


def segment_names(answers: Answers) -> dict[str, str]:
    """Name of every segment that a customer of the release is, was or can be in, by id."""
    lists = answers.release.lists
    profiles = {row["segment_id"]: row["segment_name"] for row in answers.release.profiles}
    return {**(lists.segment_names if lists else {}), **answers.segment_names, **profiles}


def unknown_segment(segment_id: str, names: Mapping[str, str]) -> ApiError:
    """Error for a segment that there is not, with the one that was probably meant.

    Args:
        segment_id: as it was given.
        names: of the segments there are, by id.
    """
    by_word = {name.casefold(): known for known, name in names.items()} | {known.casefold(): known for known in names}
    nearest = difflib.get_close_matches(segment_id[:100].casefold(), list(by_word), n=1)
    hint = f"Did you mean {by_word[nearest[0]]} ({names[by_word[nearest[0]]]})? " if nearest else ""
    known = ", ".join(f"{known} ({name})" for known, name in sorted(names.items()))
    return ApiError(
        404,
        "segment_unknown",
        f"There is no segment {segment_id[:100]!r}. {hint}There are {known}.",
        {"segment_ids": sorted(names), "nearest": by_word[nearest[0]] if nearest else None},
    )


def file_name(answers: Answers, what: str, segments: Sequence[str] = ()) -> str:
    """Name of a CSV file: what is listed, segments by id and name, and the day the snapshot is as of."""
    names = segment_names(answers)
    parts = [
        what,
        *(f"{one}-{names.get(one, '')}" for one in segments),
        answers.release.manifest.as_of.date().isoformat(),
    ]
    return "_".join(re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-") for part in parts) + ".csv"


def safe_text(text: str) -> str:
    """Text that a spreadsheet does not take for a formula; it shows the apostrophe that is put in front.

    >>> safe_text("=HYPERLINK(1)"), safe_text("Champions")
    ("'=HYPERLINK(1)", 'Champions')
    """
    return f"'{text}" if _FORMULA.search(text) else text


def _cells(customer: Mapping[str, Any]) -> list[Any]:
    """A row of CSV: text that is safe, amounts to the cent, nothing for null."""
    offers = (" ".join(filter(None, (one["product_id"], one["description"]))) for one in customer["recommendations"])
    of_column = {
        **customer,
        "segment": customer["segment_name"],
        "previous": (customer["previous"] or {}).get("segment_name"),
        "moved_from": (customer["moved_from"] or {}).get("segment_name"),
        "recency": customer["recency_days"],
        "orders": customer["frequency_orders"] or 0,
        "spend": customer["monetary_net"] or 0.0,
        "change": customer["spend_change"],
        "at_stake": customer["value_at_stake"],
        "at_risk": "true" if customer["is_at_risk"] else "false",
        "expected_spend": customer["expected_spend_90d"],
        "offers": "; ".join(offers),
    }
    return [of_column[name] for name in CUSTOMER_COLUMNS]


@dataclass(frozen=True)
class _Form:
    """How a csv file is written.

    Attributes:
        separator: between cells.
        decimal: between the whole and the parts of a number.
    """

    separator: str = ","
    decimal: str = "."

    def render(self, rows: Iterable[Sequence[Any]]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator).writerows([self._cell(value) for value in row] for row in rows)
        return text.getvalue()

    def _cell(self, value: Any) -> Any:
        if isinstance(value, float):
            # Sums of cents: what is behind the second place is the binary number's, not the shop's.
            return str(round(value, 2)).replace(".", self.decimal)
        return safe_text(value) if isinstance(value, str) else value
