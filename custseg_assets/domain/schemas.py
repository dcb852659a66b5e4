"""Every table, declared once: its columns with type, unit and meaning, and what it reads.

Dagster's column schema, its dependencies and column lineage, the fingerprints, the export and the docs come from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Literal

import polars as pl

Partitions = Literal["same", "window", "until", "before", "before and same", "trained", "newest", "all"]
"""Which partitions of another table a partition of this one is made from.

same: of its own key. window: the periods that its snapshot observes. until: every one up to its own. before: the
snapshot before it that has segments. trained: of its own key, where a model is trained on it. newest, all: of a table
without partitions.
"""


@dataclass(frozen=True)
class Read:
    """What a table is made from.

    Attributes:
        table: name of the table that is read; a table may read its own earlier partitions.
        partitions: which of its partitions.
        hashed: which of them count in the fingerprint; ``None`` where settings or another table stand for them.
        is_circular: whether Dagster cannot draw it as a dependency, because it would lead back to the reader: the model
            in force is made from earlier partitions of what it is applied to.
    """

    table: str
    partitions: Partitions = "same"
    hashed: Partitions | None = "same"
    is_circular: bool = False


def _unhashed(table: str, partitions: Partitions = "same", *, is_circular: bool = False) -> Read:
    return Read(table, partitions, None, is_circular)


def _hashed(table: str, partitions: Partitions = "same") -> Read:
    return Read(table, partitions, partitions)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: as it stands in the table.
        dtype: its Polars type.
        description: what a value means, with its unit.
        is_nullable: whether a value may be missing.
        lineage: ``table.column`` of everything it is computed from; ``table.*`` is all of that table's, and
            ``table.<features>`` the configured segmentation features.
    """

    name: str
    dtype: pl.DataType
    description: str
    is_nullable: bool = False
    lineage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of the pipeline; its first column is the partition key, ``period``.

    Attributes:
        name: the table's, and its asset's, name.
        description: what one row is.
        columns: in the order they are stored in.
        sort_by: the columns that put its rows in their one order.
        reads: everything it is made from, in the order in which fingerprints hash it.
        code_version: raised when the meaning changes: its partitions, and all that is made from them, are made again.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    sort_by: tuple[str, ...] = field(default=())
    reads: tuple[Read, ...] = field(default=())
    code_version: str = "1"

    def __post_init__(self) -> None:
        """Refuse a column that is computed from a table which is not read."""
        sources = {source.partition(".")[0] for column in self.columns for source in column.lineage}
        if unread := sources - {read.table for read in self.reads}:
            raise ValueError(
                f"{self.name}: columns are computed from {sorted(unread)}, which it is not declared to read"
            )

    @cached_property
    def content(self) -> tuple[Column, ...]:
        """The columns besides those that say which partition a row is of."""
        return tuple(column for column in self.columns if column.name not in ("period", "as_of", "is_open"))

    @cached_property
    def schema(self) -> pl.Schema:
        """Column names and types in order; not to be changed."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def _period(meaning: str) -> Column:
    return Column("period", pl.String(), f"Partition key: first day of the {meaning}.")


TEXT, REAL, WHOLE, FLAG, INSTANT = pl.String(), pl.Float64(), pl.Int64(), pl.Boolean(), pl.Datetime("us")

_SNAPSHOT = (
    _period("snapshot's last period"),
    Column("as_of", INSTANT, "First instant that the snapshot does not observe."),
    Column("is_open", FLAG, "Whether the period is not over: the snapshot is as of the last day with data, so far."),
)

MAPPED = (
    Column("customer_id", TEXT, "Customer, exactly as the shop writes it.", True),
    Column("invoiced_at", INSTANT, "When the line was invoiced, on the shop's own clock.", True),
    Column("invoice_id", TEXT, "Invoice the line belongs to.", True),
    Column("product_id", TEXT, "Product code.", True),
    Column("description", TEXT, "Product text.", True),
    Column("quantity", REAL, "Units; negative on a cancellation.", True),
    Column("unit_price", REAL, "Price of one unit, in the shop's currency.", True),
    Column("country", TEXT, "Country of the customer.", True),
    Column(
        "line_amount",
        REAL,
        "Line total, less refunds, in the shop's currency; null where the source gives quantity and price.",
        True,
    ),
)
"""The columns a source may be mapped to, in their stored order."""

MAPPED_NAMES = tuple(column.name for column in MAPPED)

READ_NAMES = ("order_amount", "refunded_amount", "currency")
"""Further columns that a source may be mapped to: what a line's amount is computed from. The total of the whole order,
on its first line or on each; what was given back of the line or, on an order's first line, of the order; and the
currency of all of them."""

_MODEL_IN_FORCE = tuple(_unhashed(name, "until") for name in ("segmentation_model", "promotion_decision"))
"""Settings of the reader's fingerprint name the model, so the rows that it is in are not hashed."""
_EARLIER_MODELS = tuple(replace(read, is_circular=True) for read in _MODEL_IN_FORCE)

RAW_TRANSACTIONS = Table(
    "raw_transactions",
    "One row per line of the source, typed, nothing dropped.",
    (
        _period("period the line belongs to"),
        *MAPPED,
        Column("unreadable_values", TEXT, "JSON of column → raw text for values that could not be read.", True),
        Column("excluded_by", TEXT, "Column and value for which the source's filter leaves the line out.", True),
        Column("source_file", TEXT, "File the line came from."),
        Column("source_row", WHOLE, "Data row in that file, from 1."),
    ),
    ("source_file", "source_row"),
    reads=(_unhashed("landed_files", "all"),),
)


def _from(table: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{table}.{name}" for name in names)


def _passed_on(column: Column, table: str, is_nullable: bool) -> Column:
    return Column(column.name, column.dtype, column.description, is_nullable, _from(table, column.name))


CLEAN_TRANSACTIONS = Table(
    "clean_transactions",
    "One row per line that counts.",
    (
        _period("period the line belongs to"),
        *(
            _passed_on(column, "raw_transactions", column.name not in ("customer_id", "invoiced_at"))
            for column in MAPPED
            if column.name not in ("line_amount", "invoice_id")
        ),
        Column(
            "invoice_id",
            TEXT,
            "Invoice; where the shop has none, customer and day.",
            lineage=_from("raw_transactions", "invoice_id", "customer_id", "invoiced_at"),
        ),
        Column(
            "line_amount",
            REAL,
            "Line total in the shop's currency; negative on a cancellation.",
            lineage=_from("raw_transactions", "line_amount", "quantity", "unit_price"),
        ),
        Column(
            "is_cancellation",
            FLAG,
            "Whether the line takes an order back.",
            lineage=_from("raw_transactions", "invoice_id", "quantity", "line_amount", "unit_price"),
        ),
    ),
    reads=(_hashed("raw_transactions"),),
)

REJECTED_TRANSACTIONS = Table(
    "rejected_transactions",
    "One row per line that does not count, with the reason.",
    (
        *RAW_TRANSACTIONS.columns[:1],
        Column("reason", TEXT, "Why the line was rejected.", lineage=_from("raw_transactions", *MAPPED_NAMES)),
        *(_passed_on(column, "raw_transactions", column.is_nullable) for column in RAW_TRANSACTIONS.content),
    ),
    reads=(_hashed("raw_transactions"),),
)

_CLEAN = "clean_transactions"


def _feature(name: str, dtype: pl.DataType, description: str, *sources: str) -> Column:
    return Column(name, dtype, description, lineage=_from(_CLEAN, "customer_id", *sources))


def _optional(name: str, dtype: pl.DataType, description: str, *sources: str) -> Column:
    return replace(_feature(name, dtype, description, *sources), is_nullable=True)


_ORDER = ("invoice_id", "invoiced_at", "is_cancellation")
_MONEY = ("line_amount", "invoiced_at", "is_cancellation")

CUSTOMER_FEATURES = Table(
    "customer_features",
    "One row per customer seen in the observation window.",
    (
        _period("snapshot's last period"),
        _feature("customer_id", TEXT, "Customer, exactly as the shop writes it."),
        _optional("recency_days", WHOLE, "Whole days from the last order line to as_of.", *_ORDER[1:]),
        _feature("frequency_orders", WHOLE, "Distinct orders in the window.", *_ORDER),
        _feature("monetary_gross", REAL, "Sum of line amounts of orders, in currency.", *_MONEY),
        _feature("monetary_net", REAL, "Sum of line amounts of orders and cancellations, in currency.", *_MONEY),
        _optional("avg_order_value", REAL, "monetary_gross / frequency_orders, in currency.", *_MONEY, "invoice_id"),
        _optional("n_products", WHOLE, "Distinct products ordered.", "product_id", *_ORDER[1:]),
        _optional("n_units", REAL, "Units ordered.", "quantity", *_ORDER[1:]),
        _feature("n_cancelled_orders", WHOLE, "Distinct cancellations.", *_ORDER),
        _feature("cancellation_rate", REAL, "Cancellations among orders and cancellations, a share.", *_ORDER),
        _optional("tenure_days", WHOLE, "Whole days from the first order line to as_of.", *_ORDER[1:]),
        _optional("days_between_orders", REAL, "Mean days between distinct order dates.", *_ORDER),
        _optional("favourite_weekday", WHOLE, "Weekday of most orders; Monday is 0.", *_ORDER),
        _optional("favourite_hour", WHOLE, "Hour of day of most orders.", *_ORDER),
        _optional("main_country", TEXT, "Country of most orders; ties go to the most recent.", "country", *_ORDER),
        _feature("monthly_spend_mean", REAL, "Mean net spend per period since the first, in currency.", *_MONEY),
        _optional("monthly_spend_std", REAL, "Sample standard deviation of it; null with one period.", *_MONEY),
        _optional("monthly_spend_slope", REAL, "Least-squares slope of it per period; null with one period.", *_MONEY),
    ),
    ("customer_id",),
    reads=(_hashed("clean_transactions", "window"),),
)

_F = "customer_features"
_USED = f"{_F}.<features>"
"""The segmentation features, whichever are configured."""

_SCALED, _MODEL_JSON = ("scaled_features.*",), ("segmentation_model.model_json",)
_FITTED = ("model_candidates.centroids", _USED)
_PLACED = (_USED, *_MODEL_JSON)
"""What says where a customer is among the centroids."""

SEGMENT_ASSIGNMENTS = Table(
    "segment_assignments",
    "One row per customer known at the snapshot.",
    (
        *_SNAPSHOT,
        Column("customer_id", TEXT, "Customer, exactly as the shop writes it.", lineage=_from(_CLEAN, "customer_id")),
        Column(
            "segment_id",
            TEXT,
            "Stable id of the business group.",
            lineage=(_USED, "segmentation_model.model_json", f"{_F}.monetary_net", f"{_F}.frequency_orders"),
        ),
        Column("segment_name", TEXT, "Name of the group.", lineage=_MODEL_JSON),
        Column("is_rule_segment", FLAG, "Whether a rule, not K-means, decided.", lineage=_from(_F, "monetary_net")),
        Column("cluster", WHOLE, "K-means' number; null in a rule segment.", True, _MODEL_JSON),
        Column("distance", REAL, "Distance to the own segment's centroid, in standard deviations.", True, _PLACED),
        Column(
            "runner_up_segment_id",
            TEXT,
            "Segment of the second nearest centroid; where is_held, of the nearest.",
            True,
            _MODEL_JSON,
        ),
        Column(
            "margin",
            REAL,
            "(second nearest − nearest) / second nearest distance: 0 at the border, 1 at a centroid; "
            "where is_held, −(own − nearest) / own distance.",
            True,
            _PLACED,
        ),
        Column(
            "is_held",
            FLAG,
            "Whether the margin rule keeps the customer in its earlier segment, with another nearer.",
            lineage=_PLACED,
        ),
        Column("model_version", TEXT, "Model that was in force.", lineage=("segmentation_model.model_version",)),
    ),
    ("customer_id",),
    reads=(
        _hashed("segment_assignments", "before"),
        _hashed("customer_features"),
        _hashed("clean_transactions", "until"),
        *_MODEL_IN_FORCE,
    ),
    code_version="3",
)

_A = "segment_assignments"
_SPEND = (f"{_A}.segment_id", f"{_F}.monetary_net")

SEGMENT_PROFILES = Table(
    "segment_profiles",
    "One row per segment of the snapshot.",
    (
        *_SNAPSHOT,
        Column("segment_id", TEXT, "Stable id of the business group.", lineage=_from(_A, "segment_id")),
        Column("segment_name", TEXT, "Name of the group.", lineage=_from(_A, "segment_name")),
        Column("is_rule_segment", FLAG, "Whether a rule, not K-means, decided.", lineage=_from(_A, "is_rule_segment")),
        Column("naming_rule", TEXT, "The rule that gave the name.", lineage=_MODEL_JSON),
        Column("n_customers", WHOLE, "Customers in the segment.", lineage=_from(_A, "customer_id", "segment_id")),
        Column(
            "share_customers", REAL, "Share of all known customers.", lineage=_from(_A, "customer_id", "segment_id")
        ),
        Column("revenue_net", REAL, "Net spend in the window, in currency.", lineage=_SPEND),
        Column("share_revenue", REAL, "Share of the net spend of all customers.", True, _SPEND),
        *(
            Column(f"median_{name}", REAL, f"Median of {name}.", True, (f"{_A}.segment_id", f"{_F}.{name}"))
            for name in (
                "recency_days",
                "frequency_orders",
                "monetary_net",
                "avg_order_value",
                "n_products",
                "tenure_days",
                "days_between_orders",
                "cancellation_rate",
            )
        ),
        Column(
            "distinguishing",
            TEXT,
            "JSON list of what sets the segment apart: feature, median, median of all, ratio, text.",
            lineage=(f"{_A}.segment_id", f"{_F}.*"),
        ),
        Column("description", TEXT, "One sentence: who they are.", lineage=(f"{_F}.*",)),
        Column("advice", TEXT, "One sentence: what to do.", lineage=_MODEL_JSON),
        Column("model_version", TEXT, "Model that was in force.", lineage=_from(_A, "model_version")),
    ),
    ("segment_id",),
    reads=(_hashed("segment_assignments"), _unhashed("customer_features"), *_MODEL_IN_FORCE),
    code_version="2",
)

_MOVED = ("recency_days", "frequency_orders", "monetary_net")
_WHEN = {"before": "at the earlier snapshot", "now": "at this one"}

SEGMENT_MIGRATIONS = Table(
    "segment_migrations",
    "One row per customer whose segment changed since the snapshot before.",
    (
        *_SNAPSHOT,
        Column("customer_id", TEXT, "Customer, exactly as the shop writes it.", lineage=_from(_A, "customer_id")),
        Column("from_segment_id", TEXT, "Segment at the earlier snapshot.", lineage=_from(_A, "segment_id")),
        Column("from_segment_name", TEXT, "Its name there.", lineage=_from(_A, "segment_name")),
        Column("to_segment_id", TEXT, "Segment at this snapshot.", lineage=_from(_A, "segment_id")),
        Column("to_segment_name", TEXT, "Its name here.", lineage=_from(_A, "segment_name")),
        Column(
            "cause",
            TEXT,
            "behaviour, border (too near to one to be sure) or model change (the model moved, not the customer).",
            lineage=(f"{_A}.segment_id", f"{_A}.margin", "segmentation_model.model_json", f"{_F}.*"),
        ),
        Column("margin", REAL, "How far from the border, see segment_assignments.", True, _from(_A, "margin")),
        Column("revenue_net", REAL, "Net spend in the window, in currency.", lineage=_from(_F, "monetary_net")),
        Column(
            "revenue_change", REAL, "The same less that at the earlier snapshot.", lineage=_from(_F, "monetary_net")
        ),
        *(
            Column(
                f"{name}_{when}",
                CUSTOMER_FEATURES[name].dtype,
                f"{name} {words}; null with nothing in the window.",
                True,
                _from(_F, name),
            )
            for name in _MOVED
            for when, words in _WHEN.items()
        ),
        Column(
            "earlier_model_version",
            TEXT,
            "Model that was in force at the earlier snapshot.",
            lineage=_from(_A, "model_version"),
        ),
        Column("model_version", TEXT, "Model that was in force at this one.", lineage=_from(_A, "model_version")),
    ),
    ("customer_id",),
    reads=(
        # Rows come from two snapshots; how many of them take a move back is shown of three.
        Read("segment_assignments", "until", hashed="before and same"),
        _hashed("customer_features", "before and same"),
        *_MODEL_IN_FORCE,
    ),
    code_version="2",
)

PRODUCT_RECOMMENDATIONS = Table(
    "product_recommendations",
    "One row per customer and rank.",
    (
        _period("snapshot's last period"),
        Column("customer_id", TEXT, "Customer, exactly as the shop writes it.", lineage=_from(_A, "customer_id")),
        Column("rank", WHOLE, "1 is the first to offer."),
        Column(
            "product_id",
            TEXT,
            "Product the customer has not bought.",
            lineage=_from(_CLEAN, "product_id", "customer_id"),
        ),
        Column("description", TEXT, "The product's most recent text.", True, _from(_CLEAN, "description")),
        Column(
            "score",
            REAL,
            "Popularity or taste in the method's own unit; of personal offers beyond tastes, segment_recent's.",
            lineage=(f"{_CLEAN}.product_id", f"{_A}.segment_id"),
        ),
        Column("method", TEXT, "The method that won the evaluation."),
    ),
    ("customer_id", "rank"),
    reads=(
        _hashed("segment_assignments", "before and same"),
        _hashed("clean_transactions", "window"),
        _unhashed("promotion_decision", "until"),
    ),
    code_version="2",
)

_BOUGHT = (f"{_CLEAN}.product_id", f"{_CLEAN}.customer_id", f"{_A}.segment_id")

SEGMENT_PRODUCTS = Table(
    "segment_products",
    "One row per segment and product that its customers buy more than the shop's.",
    (
        *_SNAPSHOT,
        Column("segment_id", TEXT, "Segment.", lineage=_from(_A, "segment_id")),
        Column("rank", WHOLE, "1 stands out most surely.", lineage=_BOUGHT),
        Column("product_id", TEXT, "Product.", lineage=_from(_CLEAN, "product_id")),
        Column("description", TEXT, "The product's most recent text.", True, _from(_CLEAN, "description")),
        Column("n_buyers", WHOLE, "Customers of the segment who bought it in the window.", lineage=_BOUGHT),
        Column(
            "share_of_segment",
            REAL,
            "Part that it is of what the segment buys, each product once per customer.",
            lineage=_BOUGHT,
        ),
        Column("share_of_shop", REAL, "Part that it is of what the whole shop's customers buy.", lineage=_BOUGHT),
        Column("lift", REAL, "The first of these parts by the second, shrunk towards 1.", lineage=_BOUGHT),
        Column("lift_low", REAL, "What the lift is above with a probability of 99.9 %.", lineage=_BOUGHT),
    ),
    ("segment_id", "rank"),
    reads=(
        _hashed("segment_assignments"),
        _hashed("clean_transactions", "window"),
        _unhashed("promotion_decision", "until"),
    ),
)

_VALUED = (f"{_A}.customer_id", f"{_A}.segment_id", *_from(_CLEAN, *_MONEY, "invoice_id", "customer_id"))

VALUE_MODEL = Table(
    "value_model",
    "One row per prediction and method that was tried: what it learnt from, how it did in the replay, who was chosen.",
    (
        *_SNAPSHOT,
        Column("target", TEXT, "What is predicted: order_30d, order_60d, order_90d, orders_90d or spend_90d."),
        Column("method", TEXT, "Method that was tried: segment_mean, bg_nbd or logistic."),
        Column("is_chosen", FLAG, "Whether customer_value is made by it."),
        Column("reason", TEXT, "Why a method was chosen, or that there is too little history, in a sentence."),
        Column("taught_until", TEXT, "Last day whose outcomes it learnt from; null where it learnt from none.", True),
        Column("n_taught", WHOLE, "Customers that it learnt from, each counted at every day it is looked at."),
        Column("n_replays", WHOLE, "Earlier days that it was tried on."),
        Column("n_replayed", WHOLE, "Customers that it was tried on, each counted at every such day."),
        Column("log_loss", REAL, "Mean log loss in the replays, in nats; of probabilities only.", True),
        Column("auc", REAL, "Mean area under the ROC curve in the replays; of probabilities only.", True),
        Column("calibration_error", REAL, "Mean expected calibration error, by deciles; probabilities only.", True),
        Column("gini", REAL, "Mean Gini of the ranking by prediction, 1 the best there is; of orders and spend.", True),
        Column(
            "level", REAL, "Predicted for the shop: share of customers, mean orders, or total spend.", True, _VALUED
        ),
        Column("level_low", REAL, "Lower end of its interval, from the misses of the replays.", True, _VALUED),
        Column("level_high", REAL, "Upper end of that interval.", True, _VALUED),
        Column("last_seen", REAL, "The same as it was seen last, of the newest day whose outcomes are known.", True),
        Column("parameters", TEXT, "JSON of what was fitted.", True, _VALUED),
        Column("calibration", TEXT, "JSON list by day replayed and decile: customers, predicted, seen.", True, _VALUED),
    ),
    ("target", "method"),
    reads=(
        # Assignments are made from those before them, and all from the lines, so the newest stand for them.
        Read("segment_assignments", "until", hashed="same"),
        _unhashed("clean_transactions", "until"),
        _unhashed("promotion_decision", "until"),
    ),
)


def _predicted(name: str, unit: str, words: str) -> tuple[Column, ...]:
    """A predicted figure with the ends of its interval."""
    lineage = (*_VALUED, "value_model.parameters")
    return (
        Column(name, REAL, f"{words}, {unit}.", lineage=lineage),
        Column(f"{name}_low", REAL, f"Lower end of the interval of {name}, {unit}.", lineage=lineage),
        Column(f"{name}_high", REAL, f"Upper end of the interval of {name}, {unit}.", lineage=lineage),
    )


CUSTOMER_VALUE = Table(
    "customer_value",
    "One row per customer known at the snapshot: what it will probably do.",
    (
        *_SNAPSHOT,
        Column("customer_id", TEXT, "Customer, exactly as the shop writes it.", lineage=_from(_A, "customer_id")),
        *_predicted("p_order_30d", "0 to 1", "Probability of an order within 30 days after as_of"),
        *_predicted("p_order_60d", "0 to 1", "Probability of an order within 60 days after as_of"),
        *_predicted("p_order_90d", "0 to 1", "Probability of an order within 90 days after as_of"),
        *_predicted("expected_orders_90d", "a count", "Expected orders within 90 days after as_of"),
        *_predicted("expected_spend_90d", "in currency", "Expected net spend within 90 days after as_of"),
        Column(
            "method",
            TEXT,
            "Method that predicted: segment_mean, bg_nbd or logistic.",
            lineage=_from("value_model", "method"),
        ),
    ),
    ("customer_id",),
    reads=(
        _hashed("value_model"),
        Read("segment_assignments", "until", hashed="same"),
        _unhashed("clean_transactions", "until"),
        _unhashed("promotion_decision", "until"),
    ),
)

MODEL_CANDIDATES = Table(
    "model_candidates",
    "One row per number of clusters tried.",
    (
        _period("snapshot's last period"),
        Column("k", WHOLE, "Number of clusters."),
        Column("silhouette", REAL, "Mean silhouette, −1 to 1.", True, _SCALED),
        Column("davies_bouldin", REAL, "Davies-Bouldin index; lower is better.", True, _SCALED),
        Column("calinski_harabasz", REAL, "Calinski-Harabasz index; higher is better.", True, _SCALED),
        Column("inertia", REAL, "Within-cluster sum of squares.", True, _SCALED),
        Column("bootstrap_ari", REAL, "Mean adjusted Rand index against bootstrap refits.", True, _SCALED),
        Column("worst_jaccard", REAL, "Mean Jaccard of the least stable cluster over the refits.", True, _SCALED),
        Column("smallest_cluster", WHOLE, "Customers in the smallest cluster.", True, _SCALED),
        Column("smallest_share", REAL, "Their share.", True, _SCALED),
        Column("is_eligible", FLAG, "Whether every limit is kept."),
        Column("is_chosen", FLAG, "Whether the rule chose it."),
        Column("reason", TEXT, "Why it is, or is not, eligible or chosen."),
        Column("choice", TEXT, "JSON list of sentences: why one of them, or none, was chosen."),
        Column("centroids", TEXT, "JSON of the clusters' centroids, on the model's scale.", True, _SCALED),
    ),
    ("k",),
    reads=(
        _unhashed("scaled_features"),
        Read("customer_features", "same", hashed="trained"),
        *_EARLIER_MODELS,
        _unhashed("segment_assignments", "until", is_circular=True),
    ),
)

SEGMENTATION_MODEL = Table(
    "segmentation_model",
    "One row: the model trained on the snapshot, the challenger.",
    (
        _period("snapshot's last period"),
        Column("model_version", TEXT, "Name of the model, made from its content."),
        Column("k", WHOLE, "Number of clusters.", lineage=("model_candidates.k",)),
        Column("choice", TEXT, "Why this k.", lineage=("model_candidates.reason",)),
        Column("model_json", TEXT, "The whole model: features, reference, centroids, segments.", lineage=_FITTED),
        Column("drift_reference", TEXT, "JSON of what drift is measured against.", lineage=_FITTED),
        Column("model_card", TEXT, "Markdown: what it is, from what, how good, how chosen."),
    ),
    reads=(_hashed("model_candidates"), _unhashed("customer_features"), *_EARLIER_MODELS),
)

PROMOTION_DECISION = Table(
    "promotion_decision",
    "One row: what was decided about the snapshot's challenger.",
    (
        _period("snapshot's last period"),
        Column(
            "model_version",
            TEXT,
            "The challenger; null where none could be trained.",
            True,
            ("segmentation_model.model_version",),
        ),
        Column("decision", TEXT, "PROMOTE, HOLD or REJECT; ROLLBACK where a person went back to the champion before."),
        Column("reasons", TEXT, "JSON list of reasons in words."),
        Column("champion_before", TEXT, "Model that was in force.", True),
        Column("decided_by", TEXT, "gate, or the name of the person who decided."),
        Column(
            "comparison",
            TEXT,
            "JSON of the figures of champion and challenger on the same data; null where nothing was compared.",
            True,
            (
                "segmentation_model.model_json",
                "model_candidates.inertia",
                f"{_F}.*",
                *_from(_CLEAN, *_MONEY, "customer_id"),
            ),
        ),
    ),
    reads=(
        Read("segmentation_model", "until", hashed="same"),
        _unhashed("model_candidates"),
        *(_unhashed(name, "until") for name in ("customer_features", "clean_transactions", "rejected_transactions")),
        _unhashed("promotion_decision", "before", is_circular=True),
    ),
)

DRIFT_REPORT = Table(
    "drift_report",
    "One row per score of the snapshot.",
    (
        *_SNAPSHOT,
        Column("score_name", TEXT, "What was measured: psi, share_shift, …"),
        Column("subject", TEXT, "The feature or segment it was measured on."),
        Column(
            "score",
            REAL,
            "The drift score.",
            True,
            ("scaled_features.*", f"{_F}.customer_id", f"{_F}.recency_days", "segmentation_model.drift_reference"),
        ),
        Column("threshold", REAL, "The score from which on it alerts: the largest of the next three.", True),
        Column("chance_threshold", REAL, "What chance reaches at the false-alarm rate.", True),
        Column("min_effect", REAL, "The smallest score worth knowing.", True),
        Column("own_threshold", REAL, "What this shop does anyway; null until that is known.", True),
        Column("large_effect", REAL, "The score from which on an alert is a breach.", True),
        Column(
            "smallest_lapse",
            REAL,
            "Power: smallest share of active customers whose lapse it would catch 9 times in 10; null: none.",
            True,
        ),
        Column("is_alert", FLAG, "Whether the score is at or over the threshold."),
        Column("verdict", TEXT, "Of the whole report: stable, watch, breach or not enough data."),
        Column("reasons", TEXT, "JSON list of the verdict's reasons in words."),
        Column("reference_period", TEXT, "Snapshot the model was trained on."),
        Column("model_version", TEXT, "Model in force when the snapshot came."),
        Column("n_customers", WHOLE, "Customers measured."),
    ),
    ("score_name", "subject"),
    reads=(
        _hashed("drift_report", "before"),
        _hashed("scaled_features"),
        # Also of the snapshot that the model was trained on; the reports before this one stand for that.
        Read("customer_features", "until", hashed="same"),
        *_MODEL_IN_FORCE,
    ),
    code_version="2",
)

RETRAIN_DECISION = Table(
    "retrain_decision",
    "One row: whether a challenger should be trained on the snapshot, also when it should not.",
    (
        _period("snapshot's last period"),
        Column("decision", TEXT, "RETRAIN or WAIT."),
        Column("reasons", TEXT, "JSON list of reasons in words.", lineage=("drift_report.reasons",)),
        Column("verdict", TEXT, "Of the snapshot's drift report.", lineage=("drift_report.verdict",)),
        Column(
            "n_breaches",
            WHOLE,
            "Breaches among the last snapshots since the model in force was trained.",
            lineage=("drift_report.verdict",),
        ),
        Column("n_judged", WHOLE, "How many of those the drift report could judge.", lineage=("drift_report.verdict",)),
        Column(
            "model_version", TEXT, "Model in force when the snapshot came.", lineage=("drift_report.model_version",)
        ),
        Column(
            "is_data_sound",
            FLAG,
            "Whether every period of the window rejects a usual share of its lines.",
            lineage=("rejected_transactions.reason",),
        ),
    ),
    reads=(
        # A report is made from the one before it, so the newest stands for them all.
        Read("drift_report", "until", hashed="same"),
        _hashed("rejected_transactions", "until"),
        _unhashed("clean_transactions", "until"),
        *_MODEL_IN_FORCE,
    ),
)

PREDICTION_LOG = Table(
    "prediction_log",
    "One row per answer the service gave about a customer, and one where it says that it lost records.",
    (
        Column("period", TEXT, "Partition key: UTC day of the request."),
        Column("source_file", TEXT, "File of the service that the record came in."),
        Column("source_line", WHOLE, "Line in that file, from 1."),
        Column("at", INSTANT, "When it was answered, UTC."),
        Column("kind", TEXT, "lookup, score, or dropped: the service lost records here."),
        Column("request_id", TEXT, "Request it was part of; several records share one in a batch.", True),
        Column("key_id", TEXT, "Key that asked; null without keys.", True),
        Column("latency_ms", REAL, "Time to answer the request, in milliseconds.", True),
        Column("release_id", TEXT, "Release it was answered from.", True),
        Column("model_version", TEXT, "Model it was answered by.", True),
        Column("outcome", TEXT, "found, unknown or too_new; why they were lost, where kind is dropped."),
        Column("customer_id", TEXT, "Who was asked for; null in a score without an id.", True),
        Column("segment_id", TEXT, "Segment that was answered; null unless found.", True),
        Column("is_rule_segment", FLAG, "Whether a rule, not K-means, decided; null unless found.", True),
        Column("margin", REAL, "Margin that was answered.", True),
        Column("recency_days", REAL, "Days since the last order that the answer rests on.", True),
        Column("frequency_orders", REAL, "Orders that it rests on.", True),
        Column("monetary_net", REAL, "Net spend that it rests on, in currency.", True),
        Column("other_features", TEXT, "JSON of the model's features beyond those.", True),
        Column("answer", TEXT, "JSON of the whole answer about the customer; null unless found.", True),
        Column("n_dropped", WHOLE, "Records lost; null unless kind is dropped.", True),
    ),
    ("source_file", "source_line"),
    # Lines that are there already are not taken in again.
    reads=(_unhashed("prediction_log", "all", is_circular=True),),
)

REJECTED_PREDICTIONS = Table(
    "rejected_predictions",
    "One row per line of the service's prediction log that is no record, with the reason.",
    (
        Column("period", TEXT, "Partition key: UTC day the file was finished."),
        Column("source_file", TEXT, "File of the service that the line came in."),
        Column("source_line", WHOLE, "Line in that file, from 1."),
        Column("reason", TEXT, "Why the line is no record."),
        Column("content", TEXT, "The line; bytes that are no UTF-8 as backslash escapes."),
    ),
    ("source_file", "source_line"),
    # Lines that are there already are not taken in again.
    reads=(_unhashed("rejected_predictions", "all", is_circular=True),),
)

_P = "prediction_log"

PREDICTION_TRAFFIC = Table(
    "prediction_traffic",
    "One row per day, kind of question and model: how much was asked, what came of it, how long it took.",
    (
        Column("period", TEXT, "Partition key: UTC day of the requests."),
        Column("kind", TEXT, "lookup, score or dropped.", lineage=_from(_P, "kind")),
        Column(
            "model_version",
            TEXT,
            "Model that answered; null where records were lost.",
            True,
            _from(_P, "model_version"),
        ),
        Column("n_requests", WHOLE, "Requests.", lineage=_from(_P, "request_id")),
        *(
            Column(f"n_{outcome}", WHOLE, f"Answers about customers: {outcome}.", lineage=_from(_P, "outcome"))
            for outcome in ("found", "unknown", "too_new")
        ),
        Column("n_dropped", WHOLE, "Records that the service lost.", lineage=_from(_P, "n_dropped")),
        *(
            Column(
                f"latency_p{percent}_ms",
                REAL,
                f"Time within which {percent} % of the requests were answered, in milliseconds.",
                True,
                _from(_P, "latency_ms", "request_id"),
            )
            for percent in (50, 95, 99)
        ),
    ),
    ("kind", "model_version"),
    reads=(_unhashed("prediction_log", "all"),),
)

_ASKED = _from(_P, "customer_id", "recency_days", "frequency_orders", "monetary_net", "other_features", "segment_id")

PREDICTION_DRIFT = Table(
    "prediction_drift",
    "One row per score: the customers asked about in a week against those the answering model was trained on.",
    (
        Column("period", TEXT, "Partition key: Monday of the week of the requests, UTC."),
        *(
            replace(column, description="Customers asked about whom K-means sees, each counted once.", lineage=_ASKED)
            if column.name == "n_customers"
            else replace(column, description="Model that answered.", lineage=_from(_P, "model_version"))
            if column.name == "model_version"
            else replace(column, lineage=_ASKED if column.name == "score" else ())
            for column in DRIFT_REPORT.content
        ),
    ),
    ("model_version", "score_name", "subject"),
    reads=(
        _unhashed("prediction_log", "all"),
        _unhashed("segmentation_model", "all"),
        _unhashed("prediction_drift", "all", is_circular=True),
    ),
)


CAMPAIGN_GROUPS = Table(
    "campaign_groups",
    "One row per customer of a campaign: whether it is written to or held out, fixed before the start.",
    (
        Column("period", TEXT, "Partition key: first day of the campaign."),
        Column("campaign", TEXT, "Name of the campaign."),
        Column("customer_id", TEXT, "Customer, exactly as the shop writes it.", lineage=_from(_A, "customer_id")),
        Column("segment_id", TEXT, "Segment at the start.", lineage=_from(_A, "segment_id")),
        Column("segment_name", TEXT, "Its name there.", lineage=_from(_A, "segment_name")),
        Column("is_holdout", FLAG, "Whether the customer is held out.", lineage=_from(_A, "customer_id", "segment_id")),
        Column(
            "return_covariate",
            REAL,
            "What was known before of whether the customer orders: the prediction, or what the features said.",
        ),
        Column("spend_covariate", REAL, "The same of what the customer spends, in currency."),
    ),
    ("campaign", "customer_id"),
    # A start is an act of a person, recorded once: nothing of it is made again of other segments.
    reads=(_unhashed("segment_assignments", "all"),),
)

_G = "campaign_groups"
_MEASURED = (*_from(_G, "customer_id", "is_holdout"), *_from(_CLEAN, "customer_id", *_MONEY))
_COMPARED = (*_MEASURED, *_from(_G, "return_covariate", "spend_covariate", "segment_id"))

CAMPAIGN_REPORT = Table(
    "campaign_report",
    "One row per figure of a campaign, over all its segments and in each: audience against holdout.",
    (
        Column("period", TEXT, "Partition key: first day of the campaign."),
        Column("campaign", TEXT, "Name of the campaign.", lineage=_from(_G, "campaign")),
        Column("figure", TEXT, "return (share who ordered) or spend (net spend per customer, capped, in currency)."),
        Column("segment_id", TEXT, "Segment at the start; all over all segments.", lineage=_from(_G, "segment_id")),
        Column("segment_name", TEXT, "Its name there.", True, _from(_G, "segment_name")),
        Column("is_headline", FLAG, "Whether it is the one figure that was named before the start."),
        Column("verdict", TEXT, "more, less, cannot tell, so far, or no data yet."),
        Column("reason", TEXT, "The verdict in a sentence."),
        Column("n_audience", WHOLE, "Customers who were written to.", lineage=_from(_G, "customer_id", "is_holdout")),
        Column("n_holdout", WHOLE, "Customers held out.", lineage=_from(_G, "customer_id", "is_holdout")),
        Column("audience_mean", REAL, "Mean of the former, adjusted by the covariate.", True, _COMPARED),
        Column("holdout_mean", REAL, "Mean of the latter, adjusted by the covariate.", True, _COMPARED),
        Column("effect", REAL, "The difference.", True, _COMPARED),
        Column("effect_low", REAL, "Low end of its 95 % interval.", True, _COMPARED),
        Column("effect_high", REAL, "High end of it.", True, _COMPARED),
        Column("relative_effect", REAL, "The difference by the mean of the holdout, a share.", True, _COMPARED),
        Column("p_value", REAL, "Share of splits that differ as much by chance.", True, _COMPARED),
        Column("smallest_uplift", REAL, "The smallest that was to be seen 8 times in 10, said before the start.", True),
        Column("days", WHOLE, "Days of the campaign, unless it was ended before."),
        Column("days_observed", WHOLE, "How many of them the data have.", lineage=_from(_CLEAN, "invoiced_at")),
        Column("is_split_as_planned", FLAG, "Whether the groups are those of salt and share, and stayed so."),
        Column(
            "n_vanished",
            WHOLE,
            "Customers of both groups who are in the log no more: corrected, or under another id.",
            lineage=_from(_A, "customer_id"),
        ),
        Column("started_by", TEXT, "Who started the campaign."),
        Column("started_at", INSTANT, "When, UTC."),
    ),
    ("campaign", "figure", "segment_id"),
    reads=(
        _unhashed("campaign_groups", "all"),
        _unhashed("clean_transactions", "all"),
        _unhashed("segment_assignments", "all"),
    ),
)


@cache
def scaled_features_table(features: tuple[str, ...]) -> Table:
    """The matrix K-means sees; its columns follow the configured features.

    Args:
        features: names of the segmentation features, in the model's order.
    """
    return Table(
        "scaled_features",
        "One row per customer that K-means sees.",
        (
            _period("snapshot's last period"),
            Column("customer_id", TEXT, "Customer, exactly as the shop writes it.", lineage=_from(_F, "customer_id")),
            *(
                Column(name, REAL, f"log1p of {name}, standardised by the model's reference.", lineage=_from(_F, name))
                for name in features
            ),
        ),
        ("customer_id",),
        reads=(_hashed("customer_features"), *_EARLIER_MODELS),
    )


RELEASE_READS = (
    *(
        _unhashed(name, "newest")
        for name in (
            "segment_assignments",
            "segment_profiles",
            "segment_migrations",
            "product_recommendations",
            "segment_products",
            "value_model",
            "customer_value",
            "drift_report",
            "customer_features",
        )
    ),
    *(_unhashed(name, "all") for name in ("promotion_decision", "segmentation_model", "model_candidates")),
)
"""What a release is made from; it is no table."""

SCALABLE_FEATURES = tuple(
    column.name
    for column in CUSTOMER_FEATURES.columns
    if column.dtype.is_numeric()
    and column.name
    not in ("favourite_weekday", "favourite_hour", "days_between_orders", "monthly_spend_std", "monthly_spend_slope")
)
"""Features that every customer with an order has, and that a log1p of a non-negative value makes sense for."""


def tables(features: tuple[str, ...]) -> dict[str, Table]:
    """Every table by its name, for the configured segmentation features."""
    every = (
        RAW_TRANSACTIONS,
        CLEAN_TRANSACTIONS,
        REJECTED_TRANSACTIONS,
        CUSTOMER_FEATURES,
        scaled_features_table(features),
        MODEL_CANDIDATES,
        SEGMENTATION_MODEL,
        PROMOTION_DECISION,
        SEGMENT_ASSIGNMENTS,
        SEGMENT_PROFILES,
        SEGMENT_MIGRATIONS,
        PRODUCT_RECOMMENDATIONS,
        SEGMENT_PRODUCTS,
        VALUE_MODEL,
        CUSTOMER_VALUE,
        DRIFT_REPORT,
        RETRAIN_DECISION,
        PREDICTION_LOG,
        REJECTED_PREDICTIONS,
        PREDICTION_TRAFFIC,
        PREDICTION_DRIFT,
        CAMPAIGN_GROUPS,
        CAMPAIGN_REPORT,
    )
    return {table.name: table for table in every}


def column_sources(column: Column, features: tuple[str, ...]) -> list[tuple[str, str]]:
    """Table and column of everything a column is computed from, each once.

    Args:
        column: of any table.
        features: names of the segmentation features.
    """
    sources = list[tuple[str, str]]()
    for source in column.lineage:
        name, _, field_name = source.partition(".")
        if field_name == "*":
            sources += ((name, other.name) for other in tables(features)[name].content)
        else:
            sources += ((name, one) for one in (features if field_name == "<features>" else (field_name,)))
    return list(dict.fromkeys(sources))
