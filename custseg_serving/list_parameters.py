"""Parameters of lists: their models, which ``/openapi.json`` is made from as well, and what they ask of a release."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.datastructures import MultiDict

from custseg_assets.stores.customer_lists import ListQuery
from custseg_serving.errors import ApiError
from custseg_serving.schemas import Cause

SortOrder = Literal[
    "value_at_stake",
    "-value_at_stake",
    "monetary_net",
    "-monetary_net",
    "spend_change",
    "-spend_change",
    "frequency_orders",
    "-frequency_orders",
    "recency_days",
    "-recency_days",
    "customer_id",
    "-customer_id",
    "since",
    "-since",
    "p_order_30d",
    "-p_order_30d",
    "expected_spend_90d",
    "-expected_spend_90d",
]
Answer = Literal["true", "false"]
SegmentId = Annotated[str, Field(min_length=1, max_length=100)]
Amount = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0, le=1_000_000_000)]


class ListParameters(BaseModel):
    """What every list can be narrowed and sorted by."""

    model_config = ConfigDict(extra="forbid")

    previous: Annotated[
        list[SegmentId], Field(description="Only who was in this segment before; may be repeated.")
    ] = []
    cause: Annotated[
        list[Cause],
        Field(
            description="Only moves with this cause: behaviour, border (too near to one to be sure), model change (the "
            "model moved, not the customer); may be repeated.",
        ),
    ] = []
    at_risk: Annotated[Answer | None, Field(description="Only who is at risk, or only who is not.")] = None
    contains: Annotated[
        str | None, Field(min_length=1, max_length=200, description="Part of the id; A to Z are as a to z.")
    ] = None
    min_spend: Annotated[Amount | None, Field(description="Least net spend in the window, in currency.")] = None
    max_spend: Annotated[Amount | None, Field(description="Greatest net spend in the window, in currency.")] = None
    min_orders: Annotated[Number | None, Field(description="Least number of orders in the window.")] = None
    max_orders: Annotated[Number | None, Field(description="Greatest number of orders in the window.")] = None
    min_recency_days: Annotated[Number | None, Field(description="Least number of days since the last order.")] = None
    max_recency_days: Annotated[Number | None, Field(description="Greatest number of days since the last order.")] = (
        None
    )
    sort: Annotated[
        SortOrder,
        Field(
            description="Order of the list; a leading - turns it round. Equal ones are in the order of their ids, and "
            "those without a value come last."
        ),
    ] = "-value_at_stake"

    @classmethod
    def repeatable(cls) -> frozenset[str]:
        """Names of the parameters that may be given more than once."""
        named = ((field.alias or name, field.default) for name, field in cls.model_fields.items())
        return frozenset(name for name, default in named if default == [])

    def ranges(self) -> dict[str, tuple[float | None, float | None]]:
        """Least and greatest value of each quantity."""
        return {
            "spend": (self.min_spend, self.max_spend),
            "orders": (self.min_orders, self.max_orders),
            "recency_days": (self.min_recency_days, self.max_recency_days),
        }


class Page(BaseModel):
    """A part of a list."""

    limit: Annotated[int, Field(ge=1, le=500, description="Customers in a page.")] = 50
    cursor: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1_000,
            description="`next` of the page before; all other parameters must be those of that page.",
        ),
    ] = None


class File(BaseModel):
    """A list as a file."""

    bom: Annotated[
        Answer, Field(description="Whether to begin with a byte order mark, by which Excel knows UTF-8.")
    ] = "false"
    decimal_comma: Annotated[
        Answer,
        Field(
            description="Whether numbers are written like 1,5 and semicolons stand between cells, as spreadsheets in "
            "many languages expect it."
        ),
    ] = "false"


class SegmentParameters(ListParameters):
    """A list of one segment."""

    moved_from: Annotated[
        list[SegmentId],
        Field(
            description="Only who was in this segment at the snapshot before, and is no longer; `none`: who was not "
            "known then. May be repeated.",
        ),
    ] = []
    moved: Annotated[
        Answer | None,
        Field(
            description="Only who is in another segment than at the snapshot before, or only who is in the same; "
            "neither is who was not known then."
        ),
    ] = None


class CustomersParameters(SegmentParameters):
    """A list of all customers."""

    segment: Annotated[list[SegmentId], Field(description="Only customers of this segment; may be repeated.")] = []


class MovesParameters(ListParameters):
    """A list of who moved since the snapshot before."""

    from_: Annotated[
        list[SegmentId],
        Field(alias="from", description="Only who was in this segment; may be repeated."),
    ] = []
    to: Annotated[list[SegmentId], Field(description="Only who is in this segment now; may be repeated.")] = []


class SegmentPage(Page, SegmentParameters):
    """A page of one segment."""


class CustomersPage(Page, CustomersParameters):
    """A page of all customers."""


class MovesPage(Page, MovesParameters):
    """A page of who moved."""


class SegmentFile(File, SegmentParameters):
    """One segment as CSV."""


class CustomersFile(File, CustomersParameters):
    """All customers as CSV."""


class MovesFile(File, MovesParameters):
    """Who moved, as CSV."""


Parameters = TypeVar("Parameters", bound=ListParameters)


def parse_parameters(model: type[Parameters], given: MultiDict[str, str]) -> Parameters:
    """Read the parameters of a list from a request's query.

    Args:
        model: with the parameters that the operation has.
        given: as they were sent.

    Raises:
        ApiError: 400 for an unknown parameter or a value that does not fit.
    """
    accepted = [field.alias or name for name, field in model.model_fields.items()]
    for name in given:
        if name not in accepted:
            raise _unknown(name[:100], accepted)
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


def _unknown(name: str, accepted: Sequence[str]) -> ApiError:
    nearest = difflib.get_close_matches(name, accepted, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return ApiError(
        400,
        "unknown_parameter",
        f"There is no parameter {name!r}{hint} Accepted are {', '.join(accepted)}.",
        {"parameter": name, "accepted": list(accepted)},
    )


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
