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
    orders_by_week: Annotated[
        list[Count] | None,
        Field(max_length=99, description="Orders in each week before as_of, the newest first; for deep models."),
    ] = None


class CustomersRequest(_Request):
    """A request about several customers."""

    @property
    def n_customers(self) -> int:
        """Number of the customers."""
        raise NotImplementedError


class ScoreRequest(CustomersRequest):
    """Customers that are not in the release; ``GET /v1/model`` names the features that every row must have."""

    customers: Annotated[list[FeatureRow], Field(min_length=1)]

    @property
    def n_customers(self) -> int:
        """Number of the customers."""
        return len(self.customers)


class LookupRequest(CustomersRequest):
    """Customers to look up."""

    customer_ids: Annotated[list[CustomerId], Field(min_length=1)]

    @property
    def n_customers(self) -> int:
        """Number of the customers."""
        return len(self.customer_ids)


class PredictRequest(CustomersRequest):
    """What Vertex AI sends: one feature row per instance."""

    instances: Annotated[list[FeatureRow], Field(min_length=1)]
    parameters: Any = None

    @property
    def n_customers(self) -> int:
        """Number of the customers."""
        return len(self.instances)


Cause = Literal["behaviour", "border", "model change"]


class Reason(BaseModel):
    """Why the customer is in this segment and not in the runner-up."""

    feature: Annotated[str, Field(description="What it is about: a feature, or margin, density or orders_by_week.")]
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
    p_order_30d: Annotated[float | None, Field(description="Probability of an order within 30 days after as_of.")]
    p_order_90d: Annotated[float | None, Field(description="The same within 90 days.")]
    expected_orders_90d: Annotated[float | None, Field(description="Orders to expect within 90 days.")]
    expected_spend_90d: Annotated[
        float | None,
        Field(description="Net spend to expect within 90 days, in currency."),
    ]
    intervals: Annotated[
        dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] | None,
        Field(description="Lower and upper end of each of these; docs/value.md says what they mean."),
    ]
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
    p_order_30d: Annotated[float | None, Field(description="Probability of an order within 30 days after as_of.")]
    expected_spend_90d: Annotated[float | None, Field(description="Net spend to expect within 90 days, in currency.")]
    advice: Annotated[str | None, Field(description="What to do with customers of the segment.")]
    recommendations: list[Recommendation]


class ListAnswer(ReleaseInfo):
    """A page of a list."""

    customers: list[Listed]
    n_customers: Annotated[int, Field(description="All that fit, on whatever page.")]
    n_held_out: Annotated[
        int,
        Field(description="Further ones who are left out of every list, because a running campaign holds them out."),
    ]
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
    is_demo: Annotated[bool, Field(description="Whether it is of the demo shop, in which nobody's customers are.")]
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
    prediction_log: str | None


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str
    message: str
    details: dict[str, Any]


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorBody
