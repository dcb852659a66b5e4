"""The exports that custseg knows, from what their platforms publish about them; how one is described is in ``presets``.

Which lines count is what the shop would say: money that was taken or is owed. Orders that failed, were cancelled before
anybody paid, or are tests are left out. Orders that were paid back stay, less what was paid back: the customer did buy.
A status that a platform does not publish is refused, because only the shop knows whether it is a sale.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from custseg_assets.domain.transactions.presets import FirstOf, Layout, Preset, RowFilter, Way, either

ONLINE_RETAIL = Preset(
    name="online_retail",
    title="Online Retail",
    layouts=(
        Layout(
            columns=MappingProxyType(
                {
                    "customer_id": either("CustomerID", "Customer ID"),
                    "invoiced_at": either("InvoiceDate"),
                    "invoice_id": either("InvoiceNo", "Invoice"),
                    "product_id": either("StockCode"),
                    "description": either("Description"),
                    "quantity": either("Quantity"),
                    "unit_price": either("UnitPrice", "Price"),
                    "country": either("Country"),
                }
            ),
            identifying=(
                ("CustomerID", "Customer ID"),
                ("InvoiceDate",),
                ("InvoiceNo", "Invoice"),
                ("StockCode",),
                ("Quantity",),
                ("UnitPrice", "Price"),
            ),
        ),
    ),
    service_code_max_digits=1,
    service_descriptions=("Next Day Carriage", "High Resolution Image"),
    cancellation_prefix="C",
    keeps_negative_prices=False,
    keeps_equal_lines=False,
)
"""Online Retail and Online Retail II of the UCI Machine Learning Repository, as they are downloaded."""

SHOPIFY = Preset(
    name="shopify",
    title="Shopify orders",
    layouts=(
        Layout(
            columns=MappingProxyType(
                {
                    "customer_id": (FirstOf(("Email", "Phone")), *either("Email")),
                    "invoiced_at": either("Created at"),
                    "invoice_id": either("Name"),
                    "product_id": either("Lineitem sku"),
                    "description": either("Lineitem name"),
                    "quantity": either("Lineitem quantity"),
                    "unit_price": either("Lineitem price"),
                    "country": either("Billing Country"),
                    "order_amount": either("Total"),
                    "refunded_amount": either("Refunded Amount"),
                    "currency": either("Currency"),
                }
            ),
            identifying=(
                ("Name",),
                ("Email",),
                ("Financial Status",),
                ("Created at",),
                ("Lineitem quantity",),
                ("Lineitem price",),
                ("Total",),
                ("Refunded Amount",),
            ),
            filters=MappingProxyType(
                {
                    "Financial Status": RowFilter(
                        only=("paid", "partially_paid", "pending", "authorized", "partially_refunded", "refunded"),
                        exclude=("voided", "expired"),
                        refuses_others=True,
                    ),
                    "Payment Method": RowFilter(exclude=("bogus",)),
                }
            ),
        ),
    ),
)
"""Shopify's export of orders: an order's total, refund, status and phone stand on its first line only.

Help Center, "Exporting orders" and "Understanding your order statuses" (help.shopify.com). An order that is cancelled
before its payment is captured becomes *voided*, one that is cancelled later *refunded*. A customer of a till or of a
text message may have a phone number instead of an address. ``bogus`` is the gateway for test orders.
"""

_WOOCOMMERCE_STATUS = RowFilter(
    only=("processing", "completed", "on-hold", "refunded"),
    exclude=("pending", "pending payment", "failed", "cancelled", "draft", "checkout-draft", "trash"),
    refuses_others=True,
)

WOOCOMMERCE = Preset(
    name="woocommerce",
    title="WooCommerce orders",
    layouts=(
        Layout(
            columns=MappingProxyType(
                {
                    "customer_id": either("Email (Billing)"),
                    "invoiced_at": either("Order Date"),
                    "invoice_id": either("Order Number", "Order ID"),
                    "product_id": either("SKU"),
                    "description": either("Item Name", "Product Name"),
                    "quantity": either("Quantity (- Refund)", "Quantity"),
                    "unit_price": either("Item Cost"),
                    "country": either("Country Code (Billing)"),
                    "order_amount": either("Order Total Amount"),
                    "refunded_amount": either("Order Refund Amount"),
                    "currency": either("Currency"),
                }
            ),
            identifying=(
                ("Order Number", "Order ID"),
                ("Order Status",),
                ("Order Date",),
                ("Email (Billing)",),
                ("Order Total Amount",),
                ("Order Refund Amount",),
            ),
            filters=MappingProxyType({"Order Status": _WOOCOMMERCE_STATUS}),
        ),
        Layout(
            columns=MappingProxyType(
                {
                    "customer_id": either("billing_email"),
                    "invoiced_at": either("order_date"),
                    "invoice_id": either("order_id"),
                    "country": either("billing_country"),
                    "order_amount": either("order_total"),
                    "currency": either("order_currency"),
                }
            ),
            identifying=(
                ("order_id",),
                ("order_date",),
                ("status",),
                ("order_total",),
                ("order_currency",),
                ("customer_user",),
                ("billing_email",),
                ("refund_items",),
            ),
            filters=MappingProxyType(
                {
                    "status": RowFilter(
                        only=tuple(value for value in _WOOCOMMERCE_STATUS.only if value != "refunded"),
                        exclude=(*_WOOCOMMERCE_STATUS.exclude, "refunded"),
                        refuses_others=True,
                    ),
                    "refund_items": RowFilter(only=("",), refuses_others=True),
                }
            ),
        ),
    ),
)
"""Two order exports of WooCommerce; its own, under Analytics, has no customer but a name, and is none of them.

The first is *Advanced Order Export For WooCommerce*, with its own labels (wordpress.org/plugins/woo-order-export-lite):
one line an order or an item, with the order's total and refund on the first or on each. The second is *Import Export
Suite for WooCommerce* (woocommerce.com/document/import-and-export-of-woocommerce-orders): one line an order, with
refunds as words only, so that orders that were paid back are left out, and those that were in part are refused.

WooCommerce's guide to order statuses: *on hold* has reserved the goods and awaits a transfer; *pending* was never paid.
Guests have an address as well.
"""

_STRIPE_FILTERS = MappingProxyType(
    {
        "Status": RowFilter(
            only=("paid", "succeeded", "refunded"),
            exclude=(
                "failed",
                "canceled",
                "pending",
                "processing",
                "requires_payment_method",
                "requires_confirmation",
                "requires_action",
                "requires_capture",
            ),
            refuses_others=True,
        ),
        "Captured": RowFilter(exclude=("false",)),
        "Mode": RowFilter(exclude=("test",)),
        "Dispute Status": RowFilter(exclude=("lost",)),
    }
)
_STRIPE_COLUMNS: Mapping[str, tuple[Way, ...]] = {
    "customer_id": (FirstOf(("Customer Email", "Customer ID")), *either("Customer Email", "Customer ID")),
    "invoiced_at": either("Created date (UTC)", "Created (UTC)"),
    "invoice_id": either("id"),
    "description": either("Description"),
}
_STRIPE_IDENTIFYING = (
    ("id",),
    ("Created date (UTC)", "Created (UTC)"),
    ("Amount",),
    ("Amount Refunded",),
    ("Currency",),
    ("Status",),
    ("Captured",),
    ("Customer Email", "Customer ID"),
)

STRIPE = Preset(
    name="stripe",
    title="Stripe payments",
    layouts=(
        Layout(
            columns=MappingProxyType(
                {
                    **_STRIPE_COLUMNS,
                    "line_amount": either("Converted Amount"),
                    "refunded_amount": either("Converted Amount Refunded"),
                    "currency": either("Converted Currency"),
                }
            ),
            identifying=(
                *_STRIPE_IDENTIFYING,
                ("Converted Amount",),
                ("Converted Amount Refunded",),
                ("Converted Currency",),
            ),
            filters=_STRIPE_FILTERS,
        ),
        Layout(
            columns=MappingProxyType(
                {
                    **_STRIPE_COLUMNS,
                    "line_amount": either("Amount"),
                    "refunded_amount": either("Amount Refunded"),
                    "currency": either("Currency"),
                }
            ),
            identifying=_STRIPE_IDENTIFYING,
            filters=_STRIPE_FILTERS,
        ),
    ),
)
"""Stripe's export of payments, with its default columns or all of them: one line a payment, in UTC.

Amounts are those that reached the shop's balance, in its currency, where the export has them. A customer is an e-mail
address, and where there is none the customer's id: a checkout makes a new id for a guest who comes again, and all
payments of an id have its address or none has. The statuses are the export's *Paid*, *Refunded* and *Failed* and those
of a PaymentIntent (docs.stripe.com/payments/paymentintents/lifecycle). A payment that was not captured took no money,
and a dispute that was lost took it back.
"""

SQUARE = Preset(
    name="square",
    title="Square item sales",
    layouts=(
        Layout(
            columns=MappingProxyType(
                {
                    "customer_id": either("Customer ID"),
                    "invoiced_at": (("Date", "Time"),),
                    "invoice_id": either("Transaction ID"),
                    "product_id": either("SKU"),
                    "description": either("Item"),
                    "quantity": either("Qty"),
                    "line_amount": either("Net Sales"),
                }
            ),
            identifying=(
                ("Date",),
                ("Time",),
                ("Time Zone",),
                ("Item",),
                ("Qty",),
                ("Gross Sales",),
                ("Net Sales",),
                ("Transaction ID",),
                ("Event Type",),
                ("Customer ID",),
            ),
            filters=MappingProxyType({"Event Type": RowFilter(only=("payment", "refund"), refuses_others=True)}),
        ),
    ),
)
"""Square's *Items Detail CSV*: one line an item, as of the clock of its location, and refunds as negative lines.

Sales are net of discounts and without tax, as Square's own sales summary counts them. Most buyers at a till are nobody.
"""

MAGENTO = Preset(
    name="magento",
    title="Magento orders",
    layouts=(
        Layout(
            columns=MappingProxyType(
                {
                    "customer_id": either("Customer Email"),
                    "invoiced_at": either("Purchase Date"),
                    "invoice_id": either("ID"),
                    "order_amount": either("Grand Total (Purchased)"),
                    "refunded_amount": either("Total Refunded"),
                }
            ),
            identifying=(
                ("ID",),
                ("Purchase Point",),
                ("Purchase Date",),
                ("Grand Total (Base)",),
                ("Grand Total (Purchased)",),
                ("Status",),
                ("Customer Email",),
                ("Total Refunded",),
            ),
            filters=MappingProxyType(
                {
                    "Status": RowFilter(
                        only=("pending", "processing", "complete", "closed", "on hold", "holded"),
                        exclude=("canceled", "pending payment", "payment review", "suspected fraud", "fraud"),
                        refuses_others=True,
                    )
                }
            ),
            equal_amounts=("Grand Total (Base)", "Grand Total (Purchased)"),
            date_format="%b %d, %Y %I:%M:%S %p",
        ),
    ),
)
"""The grid of orders of Magento Open Source and Adobe Commerce, exported as csv: one line an order.

The headers are the grid's labels, and the statuses those of a new shop, in the source of Magento 2
(``sales_order_grid.xml``, ``InstallOrderStatusesAndInitialSalesConfig.php``). *Closed* was paid back in full. What was
refunded is in the currency that was paid, so it cannot be set off against totals in another one.
"""

_OLIST_COLUMNS: Mapping[str, tuple[Way, ...]] = {
    "customer_id": either("customer_unique_id"),
    "invoiced_at": either("order_purchase_timestamp"),
    "invoice_id": either("order_id"),
}
_OLIST_IDENTIFYING = (("customer_unique_id",), ("order_id",), ("order_status",), ("order_purchase_timestamp",))
_OLIST_FILTERS = MappingProxyType(
    {
        "order_status": RowFilter(
            only=("delivered", "shipped", "invoiced", "processing", "approved"),
            exclude=("canceled", "unavailable", "created"),
            refuses_others=True,
        )
    }
)

OLIST = Preset(
    name="olist",
    title="Olist",
    layouts=(
        Layout(
            columns=MappingProxyType(
                {**_OLIST_COLUMNS, "product_id": either("product_id"), "line_amount": either("price")}
            ),
            identifying=(*_OLIST_IDENTIFYING, ("order_item_id",), ("price",)),
            filters=_OLIST_FILTERS,
            line_key=("order_id", "order_item_id"),
        ),
        Layout(
            columns=MappingProxyType({**_OLIST_COLUMNS, "line_amount": either("payment_value")}),
            identifying=(*_OLIST_IDENTIFYING, ("payment_sequential",), ("payment_value",)),
            filters=_OLIST_FILTERS,
            line_key=("order_id", "payment_sequential"),
        ),
    ),
)
"""The Brazilian E-Commerce Public Dataset by Olist, its tables joined: orders with customers, and items or payments.

``customer_id`` is new with every order; ``customer_unique_id`` is the customer. Joined with items *and* payments or
reviews, an item comes once for each of those, and counts once. Amounts are the goods' prices, without freight, and the
payments where there are no items.
"""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.name: preset for preset in (ONLINE_RETAIL, SHOPIFY, WOOCOMMERCE, STRIPE, SQUARE, MAGENTO, OLIST)}
)
