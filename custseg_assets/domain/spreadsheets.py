"""Lists of customers, as release, service and export have them: columns, and texts that are safe in spreadsheets."""

FORMULA = "^\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]"
"""How a text begins that a spreadsheet would compute instead of showing it; wide signs count in Japanese ones.

A regular expression for Python and for Polars. Where it fits, an apostrophe is put in front of the text.
"""

PREDICTED = ("p_order_30d", "expected_spend_90d")
"""What a list of customers says of what each will probably do; columns of ``customer_value``."""

CUSTOMER_COLUMNS = (
    "customer_id",
    "segment_id",
    "segment",
    "since",
    "previous",
    "moved_from",
    "cause",
    "recency",
    "orders",
    "spend",
    "change",
    "at_stake",
    "at_risk",
    "p_order_30d",
    "expected_spend",
    "advice",
    "offers",
)
"""A list of customers, one row each; ``segments.customer_table.tabulate_customers`` says what they mean."""
