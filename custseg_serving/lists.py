"""Lists of customers: parameters, pages with a cursor, and CSV. HTTP is in ``api``; what is stored, in the release."""

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
from dataclasses import asdict, replace
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from werkzeug.datastructures import MultiDict

from custseg_assets.stores.customer_lists import NOT_KNOWN, ListQuery
from custseg_serving.answers import Answers
from custseg_serving.errors import ApiError
from custseg_serving.schemas import CustomersParameters, ListParameters, MovesParameters, SegmentParameters

CSV_ROWS = 500
"""Rows that are rendered at a time."""
CSV_COLUMNS = (
    "customer_id",
    "segment_id",
    "segment_name",
    "since",
    "previous_segment_id",
    "previous_segment_name",
    "moved_from_segment_id",
    "moved_from_segment_name",
    "cause",
    "recency_days",
    "frequency_orders",
    "monetary_net",
    "spend_change",
    "value_at_stake",
    "is_at_risk",
    "advice",
    "offers",
)
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
BYTE_ORDER_MARK = "\ufeff"

Parameters = TypeVar("Parameters", bound=ListParameters)


def parse_parameters(model: type[Parameters], given: MultiDict[str, str]) -> Parameters:
    """Read the parameters of a list from a request's query.

    Args:
        model: with the parameters that the operation has.
        given: as they were sent.

    Raises:
        ApiError: 400 for an unknown parameter or a value that does not fit.
    """
    accepted = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for name in given:
        if name not in accepted:
            hint = _did_you_mean(name, accepted)
            raise ApiError(
                400,
                "unknown_parameter",
                f"There is no parameter {name[:100]!r}{hint} Accepted are {', '.join(accepted)}.",
                {"parameter": name[:100], "accepted": list(accepted)},
            )
    repeatable = model.repeatable()
    for name, found in given.lists():
        if len(found) > 1 and name not in repeatable:
            raise _invalid(name, f"was given {len(found)} times; expected once")
    values = {name: found if name in repeatable else found[0] for name, found in given.lists()}
    try:
        parameters = model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        got = repr(first["input"])[:100]
        raise _invalid(str(first["loc"][0]), f"got {got}; {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    for what, (least, greatest) in parameters.ranges().items():
        if least is not None and greatest is not None and least > greatest:
            raise _invalid(f"min_{what}", f"is {least:g}, more than max_{what}, which is {greatest:g}")
    return parameters


def _invalid(name: str, problem: str) -> ApiError:
    return ApiError(400, "invalid_parameter", f"{name}: {problem}.", {"parameter": name})


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else "."


def customers_query(parameters: CustomersParameters) -> ListQuery:
    """What is asked for of all customers."""
    return replace(_moved_query(parameters), segment=tuple(parameters.segment))


def segment_query(parameters: SegmentParameters, segment_id: str) -> ListQuery:
    """What is asked for of one segment."""
    return replace(_moved_query(parameters), segment=(segment_id,))


def moves_query(parameters: MovesParameters) -> ListQuery:
    """What is asked for of those who moved."""
    came_from, went_to = tuple(parameters.from_), tuple(parameters.to)
    return replace(_query(parameters), segment=went_to, moved_from=came_from, has_moved=True)


def _moved_query(parameters: SegmentParameters) -> ListQuery:
    return replace(_query(parameters), moved_from=tuple(parameters.moved_from), has_moved=_flag(parameters.moved))


def _query(parameters: ListParameters) -> ListQuery:
    columns = {"spend": "monetary_net", "orders": "frequency_orders", "recency_days": "recency_days"}
    return ListQuery(
        previous=tuple(parameters.previous),
        causes=tuple(parameters.cause),
        is_at_risk=_flag(parameters.at_risk),
        contains=parameters.contains,
        bounds={columns[what]: span for what, span in parameters.ranges().items() if span != (None, None)},
        sort=parameters.sort.removeprefix("-"),
        is_descending=parameters.sort.startswith("-"),
    )


def _flag(answer: str | None) -> bool | None:
    return None if answer is None else answer == "true"


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
            f"The cursor is of release {str(cursor.release_id)[:100]}; now {release_id} is served, whose list may be "
            "another. Begin again without cursor.",
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

    def _check_segments(self, query: ListQuery) -> None:
        """Refuse segments that nobody is or was in.

        Raises:
            ApiError: 404, with the nearest.
        """
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
        self._check_segments(query)
        release_id, digest = self._answers.release.release_id, _digest(query)
        position = 0 if cursor is None else _read_cursor(cursor, release_id, digest, len(self._lists))
        selection = self._lists.select(query)
        walk = self._lists.walk(query, selection, position)
        found = list(itertools.islice(walk, limit + 1))
        page, more = found[:limit], found[limit:]
        return {
            "customers": [self._describe(row) for _, row in page],
            "n_customers": selection.n_customers,
            "value_at_stake": selection.value_at_stake,
            "next": _Cursor(release_id, digest, page[-1][0]).encode() if more else None,
        }

    def csv(self, query: ListQuery, *, has_mark: bool) -> Iterator[str]:
        """All customers of a list as CSV, in parts.

        Args:
            query: which customers, in which order.
            has_mark: whether to begin with a byte order mark.

        Raises:
            ApiError: 404 for an unknown segment, before anything is rendered.
        """
        self._check_segments(query)
        return self._render(query, has_mark=has_mark)

    def _render(self, query: ListQuery, *, has_mark: bool) -> Iterator[str]:
        walk = self._lists.walk(query, self._lists.select(query))
        rows = (_cells(self._describe(row)) for _, row in walk)
        yield (BYTE_ORDER_MARK if has_mark else "") + _csv_of([CSV_COLUMNS])
        while batch := list(itertools.islice(rows, CSV_ROWS)):
            yield _csv_of(batch)

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
    nearest = difflib.get_close_matches(segment_id.casefold(), list(by_word), n=1)
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
    return f"'{text}" if text.startswith(_FORMULA_SIGNS) else text


def _cells(customer: Mapping[str, Any]) -> list[Any]:
    """A row of CSV: text that is safe, numbers as they are, nothing for null."""
    flat = dict(customer)
    for name in ("previous", "moved_from"):
        for part in ("segment_id", "segment_name"):
            flat[f"{name}_{part}"] = (customer[name] or {}).get(part)
    flat["is_at_risk"] = "true" if customer["is_at_risk"] else "false"
    flat["offers"] = "; ".join(
        " ".join(filter(None, (one["product_id"], one["description"]))) for one in customer["recommendations"]
    )
    return [safe_text(value) if isinstance(value := flat[name], str) else value for name in CSV_COLUMNS]


def _csv_of(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
