"""How features are put into words: the one table that explanations and profiles take their phrases from.

Plain Python, because the service explains every answer with it. What a feature is, and its unit, belongs in
``domain.schemas``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class FeatureWords(NamedTuple):
    """What sentences say about a feature; the words of a comparison are empty where profiles do not compare it.

    Attributes:
        phrase: one customer's value, ``{}``, in words.
        form: format of that value.
        kind: how a typical value is written.
        more: of a segment that has more of it than all customers.
        less: of a segment that has less of it.
        times: of a segment that has ``{}`` times as much.
    """

    phrase: str
    form: str
    kind: Literal["days", "count", "money", "share"]
    more: str = ""
    less: str = ""
    times: str = ""

    def describe(self, value: float) -> str:
        """A customer's value in words.

        >>> FEATURE_WORDS["recency_days"].describe(62)
        '62 days since the last order'
        """
        return self.phrase.replace("{}", format(value, self.form))


FEATURE_WORDS: Mapping[str, FeatureWords] = {
    "recency_days": FeatureWords(
        "{} days since the last order", ",.0f", "days", "ordered longer ago", "ordered more recently"),
    "frequency_orders": FeatureWords(
        "{} orders", ",.0f", "count", "orders more often", "orders less often", "orders {} times as often"),
    "monetary_gross": FeatureWords("{} spent before cancellations", ",.2f", "money"),
    "monetary_net": FeatureWords("{} spent", ",.2f", "money", "spends more", "spends less", "spends {} times as much"),
    "avg_order_value": FeatureWords(
        "{} an order", ",.2f", "money", "spends more per order", "spends less per order",
        "spends {} times as much per order"),
    "n_products": FeatureWords(
        "{} different products", ",.0f", "count", "buys more products", "buys fewer products",
        "buys {} times as many different products"),
    "n_units": FeatureWords("{} units", ",.0f", "count"),
    "n_cancelled_orders": FeatureWords("{} cancellations", ",.0f", "count"),
    "tenure_days": FeatureWords(
        "{} days since the first order", ",.0f", "days", "was first seen ordering longer ago",
        "was first seen ordering more recently"),
    "days_between_orders": FeatureWords(
        "{} days between orders", ",.1f", "days", "leaves more time between orders", "leaves less time between orders"),
    "cancellation_rate": FeatureWords("{} of orders cancelled", ".1%", "share", "cancels more", "cancels less"),
    "monthly_spend_mean": FeatureWords("{} spent a period", ",.2f", "money"),
    "monthly_spend_std": FeatureWords("{} up or down a period", ",.2f", "money"),
}  # fmt: skip
"""Every feature a model may use. Features that set a segment apart equally strongly are named in this order."""
