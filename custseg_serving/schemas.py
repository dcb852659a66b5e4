"""Pydantic models of requests and answers. Requests are validated by them.

Class names, docstrings and descriptions are part of ``/openapi.json``, which is generated from these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Days = Annotated[float, Field(strict=True, ge=0, le=100_000, allow_inf_nan=False)]
Money = Annotated[float, Field(strict=True, ge=-1e12, le=1e12, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
CustomerId = Annotated[str, Field(strict=True, min_length=1, max_length=2_000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FeatureRow(_Request):
    """Raw features of one customer, in business units: never scaled values or components."""

    customer_id: Annotated[
        CustomerId | None,
        Field(description="Passed on; and the row of a customer whom the release holds in a segment is held alike."),
    ] = None
    recency_days: Annotated[
        Days | None, Field(description="Whole days from the last order line to as_of; null without an order.")
    ] = None
    frequency_orders: Count | None = Field(None, description="Distinct orders in the window.")
    monetary_gross: Money | None = Field(None, description="Sum of line amounts of orders, in currency.")
    monetary_net: Annotated[
        Money | None, Field(description="Sum of line amounts of orders and cancellations, in currency.")
    ] = None
    avg_order_value: Annotated[Money | None, Field(description="monetary_gross / frequency_orders, in currency.")] = (
        None
    )
    n_products: Count | None = Field(None, description="Distinct products ordered.")
    n_units: Count | None = Field(None, description="Units ordered.")
    n_cancelled_orders: Count | None = Field(None, description="Distinct cancellations.")
    cancellation_rate: Annotated[Share | None, Field(description="Cancellations among orders and cancellations.")] = (
        None
    )
    tenure_days: Days | None = Field(None, description="Whole days from the first order line to as_of.")
    days_between_orders: Days | None = Field(None, description="Mean days between distinct order dates.")
    monthly_spend_mean: Money | None = Field(None, description="Mean net spend per period, in currency.")
    monthly_spend_std: Money | None = Field(None, description="Sample standard deviation of it.")


class ScoreRequest(_Request):
    """Customers that are not in the release; ``GET /v1/model`` names the features that every row must have."""

    customers: Annotated[list[FeatureRow], Field(min_length=1)]


class LookupRequest(_Request):
    """Customers to look up."""

    customer_ids: Annotated[list[CustomerId], Field(min_length=1)]


class PredictRequest(_Request):
    """What Vertex AI sends: one feature row per instance."""

    instances: Annotated[list[FeatureRow], Field(min_length=1)]
    parameters: Any = None


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
]
Cause = Literal["behaviour", "border", "model change"]
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


class _Page(BaseModel):
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


class _File(BaseModel):
    """A list as a file."""

    bom: Annotated[
        Answer, Field(description="Whether to begin with a byte order mark, by which Excel knows UTF-8.")
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
        Answer | None, Field(description="Only who is in another segment than at the snapshot before, or only others.")
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


class SegmentPage(_Page, SegmentParameters):
    """A page of one segment."""


class CustomersPage(_Page, CustomersParameters):
    """A page of all customers."""


class MovesPage(_Page, MovesParameters):
    """A page of who moved."""


class SegmentFile(_File, SegmentParameters):
    """One segment as CSV."""


class CustomersFile(_File, CustomersParameters):
    """All customers as CSV."""


class MovesFile(_File, MovesParameters):
    """Who moved, as CSV."""


class Reason(BaseModel):
    """Why the customer is in this segment and not in the runner-up."""

    feature: Annotated[str, Field(description="What it is about: a feature, or margin.")]
    text: Annotated[str, Field(examples=["62 days since the last order; Champions: 14"])]


class Staleness(BaseModel):
    """How old the snapshot is; stale when two of its periods have passed since."""

    age_days: int
    is_stale: bool


class ReleaseInfo(BaseModel):
    """Model, snapshot and release that an answer comes from."""

    model_version: str
    period: Annotated[str, Field(description="Key of the snapshot.")]
    as_of: Annotated[str, Field(description="First instant the snapshot does not observe.")]
    is_open: Annotated[bool, Field(description="Whether its period is not over: it is as of the last day with data.")]
    release_id: str
    staleness: Staleness


class Scored(BaseModel):
    """The segment of a customer, and why."""

    customer_id: str | None
    segment_id: str
    segment_name: str
    is_rule_segment: Annotated[bool, Field(description="Whether a rule, not K-means, decided.")]
    margin: Annotated[
        float | None, Field(description="0 at the border to the runner-up, 1 on the centroid; negative where is_held.")
    ]
    is_held: Annotated[
        bool, Field(description="Whether the customer is kept in the segment though the runner-up is nearer.")
    ]
    runner_up_segment_id: str | None
    reasons: list[Reason]
    rfm: dict[str, float | None]
    other_features: Annotated[dict[str, float | None], Field(description="The model's features beyond RFM.")]


class Previous(BaseModel):
    """The segment before this one."""

    segment_id: str
    segment_name: str


class Recommendation(BaseModel):
    """A product to offer."""

    product_id: str
    description: str | None


class Standing(Scored):
    """Where a customer of the release stands."""

    since: Annotated[str, Field(description="First snapshot of the unbroken stay in the segment.")]
    previous: Previous | None
    recommendations: list[Recommendation]


class LookupAnswer(Standing, ReleaseInfo):
    """One customer."""


class Listed(BaseModel):
    """A customer in a list; what is not known is null."""

    customer_id: str
    segment_id: str
    segment_name: str
    since: Annotated[str, Field(description="First snapshot of the unbroken stay in the segment.")]
    previous: Annotated[Previous | None, Field(description="The segment before this one, at whatever snapshot.")]
    moved_from: Annotated[
        Previous | None,
        Field(description="The segment at the snapshot before; null for who did not move, or was not known then."),
    ]
    cause: Annotated[Cause | None, Field(description="Of the move.")]
    recency_days: Annotated[int | None, Field(description="Days since the last order; null without one in the window.")]
    frequency_orders: Annotated[int | None, Field(description="Orders; null with nothing in the window.")]
    monetary_net: Annotated[
        float | None, Field(description="Net spend in the window, in currency; null with nothing in it.")
    ]
    spend_change: Annotated[
        float | None,
        Field(description="Net spend in the window less that at the snapshot before; null for who was not known then."),
    ]
    value_at_stake: Annotated[
        float, Field(description="The larger of the net spend now and at the snapshot before, never below 0.")
    ]
    is_at_risk: Annotated[
        bool,
        Field(
            description="Whether something is at stake and the customer is in a segment that is going quiet, or moved "
            "by behaviour to one of lower value."
        ),
    ]
    advice: Annotated[str | None, Field(description="What to do with customers of the segment.")]
    recommendations: list[Recommendation]


class ListAnswer(ReleaseInfo):
    """A page of a list."""

    customers: list[Listed]
    n_customers: Annotated[int, Field(description="All that fit, on whatever page.")]
    value_at_stake: Annotated[float, Field(description="Of all that fit, in currency.")]
    next: Annotated[str | None, Field(description="Cursor of the next page; null on the last.")]


class AtSnapshot(BaseModel):
    """A customer at one snapshot."""

    period: Annotated[str, Field(description="Key of the snapshot.")]
    as_of: Annotated[str, Field(description="First instant the snapshot does not observe.")]
    is_open: Annotated[bool, Field(description="Whether its period is not over: it is as of the last day with data.")]
    segment_id: str
    segment_name: Annotated[str, Field(description="The name it had there.")]
    recency_days: int | None
    frequency_orders: int | None
    monetary_net: float | None


class HistoryAnswer(ReleaseInfo):
    """A customer over time."""

    customer_id: str
    snapshots: Annotated[
        list[AtSnapshot],
        Field(description="That knew the customer, the newest first: up to 12 closed ones and the present."),
    ]


class TooNew(BaseModel):
    """A customer first seen after the snapshot; can be scored."""

    customer_id: str
    first_seen_at: str


class LookupsAnswer(ReleaseInfo):
    """Many customers; each id asked for is in exactly one of the lists."""

    customers: list[Standing]
    unknown: list[str]
    too_new: list[TooNew]


class ScoreAnswer(ReleaseInfo):
    """One answer per row, in the order of the rows."""

    customers: list[Scored]


class PredictAnswer(BaseModel):
    """One prediction per instance, in their order."""

    predictions: list[Scored]


class SegmentsAnswer(ReleaseInfo):
    """Every segment's profile."""

    segments: list[dict[str, Any]]


class SegmentAnswer(ReleaseInfo):
    """One segment's profile."""

    segment: dict[str, Any]


class ModelAnswer(ReleaseInfo):
    """The model that answers."""

    trained_on: str
    features: list[str]
    required_features: Annotated[list[str], Field(description="What every row of a score request must have.")]
    k: int
    metrics: dict[str, float | None]
    git_revision: str | None
    data_versions: dict[str, int | str | None]
    n_customers: int
    currency: Annotated[str | None, Field(description="Of all amounts, where it is known.")]
    model_card: Annotated[str, Field(description="Markdown.")]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether customers can be looked up, and whether anything needs attention."""

    status: Literal["ready", "degraded"]
    release_id: str
    refused: dict[str, str] | None
    n_predictions_dropped: int


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str
    message: str
    details: dict[str, Any]


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorBody
