"""Made-up exports of the platforms that custseg knows, with the right values: what the shop was made of.

``python -m tests.support.exports`` writes them to ``tests/data/exports``. No reader is asked for anything.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle, islice

from tests.support.files import DATA

FOLDER = DATA / "exports"
N_ORDERS = 24
_SEED = 13

COUNTS, IN_PART, IN_FULL, LEFT_OUT = "counts", "paid back in part", "paid back in full", "left out"

Statuses = Sequence[tuple[str, str]]
"""Statuses as the platform writes them, and what becomes of an order that has one."""


@dataclass(frozen=True)
class Item:
    """A product in an order; money is in cents."""

    sku: str
    name: str
    quantity: int
    price: int

    @property
    def total(self) -> int:
        """What its units cost together."""
        return self.quantity * self.price


@dataclass(frozen=True)
class Order:
    """An order, before any platform writes it down."""

    number: int
    person: int
    at: datetime
    items: tuple[Item, ...]
    shipping: int
    discount: int

    @property
    def total(self) -> int:
        """What the buyer pays."""
        return sum(item.total for item in self.items) + self.shipping - self.discount

    def refund(self, fate: str) -> int:
        """What is paid back."""
        return {IN_PART: self.total // 3, IN_FULL: self.total}.get(fate, 0)


@dataclass(frozen=True)
class Sale:
    """What is true of an order: whose it is, what is left of it, and how many lines it has in the export."""

    order_id: str
    customer: str | None
    net: int
    n_lines: int
    is_left_out: bool = False
    n_again: int = 0


@dataclass(frozen=True)
class Export:
    """An export, and what it says.

    Attributes:
        name: of the preset.
        file: name of the file.
        header: of the file.
        rows: of the file.
        sales: the truth about them.
    """

    name: str
    file: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    sales: Sequence[Sale]

    @property
    def text(self) -> str:
        """The file's content."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.header, *self.rows])
        return out.getvalue()

    @property
    def counted(self) -> list[Sale]:
        """The sales that count: of a customer, and not left out."""
        return [sale for sale in self.sales if sale.customer and not sale.is_left_out]

    @property
    def n_excluded(self) -> int:
        """Lines that do not count for what the platform says about them."""
        return sum(sale.n_lines if sale.is_left_out else sale.n_again for sale in self.sales)

    @property
    def n_of_nobody(self) -> int:
        """Further lines that do not count, because they have no customer."""
        return sum(sale.n_lines - sale.n_again for sale in self.sales if not (sale.customer or sale.is_left_out))


def make_orders(seed: int = _SEED) -> list[Order]:
    """Orders of seven people; the third has one product in two equal lines."""
    rng = random.Random(seed)
    goods = [
        (f"SKU-{i:02}", name, rng.randrange(300, 9900)) for i, name in enumerate(("Mug", 'Frame 10"', "Fern, dry"))
    ]
    at, orders = datetime(2024, 1, 5, 9, 15, 30), []
    for number in range(N_ORDERS):
        at += timedelta(days=rng.randrange(1, 5), minutes=rng.randrange(400))
        chosen = rng.sample(goods, k=rng.randint(1, 3))
        items = tuple(Item(sku, name, rng.randint(1, 3), price) for sku, name, price in chosen)
        items = (items[0], items[0]) if number == 2 else items
        discount = rng.choice((0, 0, 150))
        orders.append(Order(number, number % 7, at, items, rng.choice((0, 490)), discount))
    return orders


def _money(cents: int) -> str:
    return f"{cents / 100:.2f}"


def _dollars(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}${abs(cents) / 100:,.2f}"


def _address(order: Order) -> str:
    """The buyer's address, in two spellings for one of them."""
    address = f"buyer{order.person}@shop.example"
    return address.upper() if order.person == 3 and order.number % 2 else address


def _known(order: Order) -> str:
    return _address(order).lower()


def _with_fates(statuses: Statuses) -> Iterable[tuple[Order, str, str]]:
    for order, (status, fate) in zip(make_orders(), islice(cycle(statuses), N_ORDERS), strict=True):
        yield order, status, fate


def _names(header: str) -> list[str]:
    return header.split(",")


def _rows(header: Sequence[str], records: Iterable[Mapping[str, object]]) -> list[list[str]]:
    return [[str(record.get(name, "")) for name in header] for record in records]


SHOPIFY: Statuses = (
    ("paid", COUNTS),
    ("partially_refunded", IN_PART),
    ("paid", COUNTS),
    ("voided", LEFT_OUT),
    ("pending", COUNTS),
    ("refunded", IN_FULL),
    ("authorized", COUNTS),
    ("partially_paid", COUNTS),
    ("expired", LEFT_OUT),
)


def shopify() -> Export:
    """Person 5 has a phone only, person 6 nothing; order 10 is a test; what is the order's stands on its first line."""
    header = _names(
        "Name,Email,Financial Status,Paid at,Fulfillment Status,Fulfilled at,Accepts Marketing,Currency,Subtotal,"
        "Shipping,Taxes,Total,Discount Code,Discount Amount,Shipping Method,Created at,Lineitem quantity,Lineitem name,"
        "Lineitem price,Lineitem compare at price,Lineitem sku,Lineitem requires shipping,Lineitem taxable,"
        "Lineitem fulfillment status,Billing Name,Billing Country,Notes,Cancelled at,Payment Method,Payment Reference,"
        "Refunded Amount,Vendor,Outstanding Balance,Id,Tags,Risk Level,Source,Lineitem discount,Phone"
    )
    records: list[dict[str, object]] = []
    sales = []
    for order, status, fate in _with_fates(SHOPIFY):
        email = "" if order.person > 4 else _address(order)
        phone = f"+49301234{order.person}" if order.person == 5 else ""
        is_test = order.number == 10
        first = {
            "Financial Status": status,
            "Currency": "EUR",
            "Shipping": _money(order.shipping),
            "Total": _money(order.total),
            "Discount Amount": _money(order.discount),
            "Created at": f"{order.at} +0100",
            "Billing Country": "DE",
            "Payment Method": "bogus" if is_test else "Card",
            "Refunded Amount": _money(order.refund(fate)),
            "Id": 5550000000 + order.number,
            "Phone": phone,
        }
        for i, item in enumerate(order.items):
            of_line = {
                "Name": f"#{1001 + order.number}",
                "Email": email,
                "Lineitem quantity": item.quantity,
                "Lineitem name": item.name,
                "Lineitem price": _money(item.price),
                "Lineitem sku": item.sku,
            }
            records.append({**(first if i == 0 else {}), **of_line})
        customer = (email.lower() or phone) or None
        left_out = is_test or fate == LEFT_OUT
        sales.append(
            Sale(f"#{1001 + order.number}", customer, order.total - order.refund(fate), len(order.items), left_out)
        )
    return Export("shopify", "shopify.csv", header, _rows(header, records), sales)


WOOCOMMERCE: Statuses = (
    ("Completed", COUNTS),
    ("Processing", IN_PART),
    ("On hold", COUNTS),
    ("Cancelled", LEFT_OUT),
    ("Refunded", IN_FULL),
    ("Pending payment", LEFT_OUT),
    ("Completed", IN_PART),
    ("Failed", LEFT_OUT),
    ("Draft", LEFT_OUT),
)


def woocommerce() -> Export:
    """The order's total and refund stand on each of its lines; guests have an address."""
    header = _names(
        "Order Number,Order Status,Order Date,Customer Note,First Name (Billing),Country Code (Billing),"
        "Email (Billing),Payment Method Title,Cart Discount Amount,Order Subtotal Amount,Shipping Method Title,"
        "Order Shipping Amount,Order Refund Amount,Order Total Amount,Order Total Tax Amount,SKU,Item #,Item Name,"
        "Quantity (- Refund),Item Cost,Coupon Code,Discount Amount,Discount Amount Tax"
    )
    records, sales = [], []
    for order, status, fate in _with_fates(WOOCOMMERCE):
        for i, item in enumerate(order.items, 1):
            records.append(
                {
                    "Order Number": 300 + order.number,
                    "Order Status": status,
                    "Order Date": f"{order.at:%Y-%m-%d %H:%M}",
                    "Country Code (Billing)": "FR",
                    "Email (Billing)": _address(order),
                    "Cart Discount Amount": _money(order.discount),
                    "Order Shipping Amount": _money(order.shipping),
                    "Order Refund Amount": _money(order.refund(fate)),
                    "Order Total Amount": _money(order.total),
                    "SKU": item.sku,
                    "Item #": i,
                    "Item Name": item.name,
                    "Quantity (- Refund)": 0 if fate == IN_FULL else item.quantity,
                    "Item Cost": _money(item.price),
                }
            )
        net = order.total - order.refund(fate)
        sales.append(Sale(str(300 + order.number), _known(order), net, len(order.items), fate == LEFT_OUT))
    return Export("woocommerce", "woocommerce.csv", header, _rows(header, records), sales)


WOOCOMMERCE_SUITE: Statuses = (
    ("completed", COUNTS),
    ("processing", COUNTS),
    ("on-hold", COUNTS),
    ("cancelled", LEFT_OUT),
    ("refunded", LEFT_OUT),
    ("pending", LEFT_OUT),
    ("failed", LEFT_OUT),
    ("checkout-draft", LEFT_OUT),
)


def woocommerce_suite() -> Export:
    """One line an order; customer 0 is a guest, who has an address. Only orders that do not count were paid back."""
    header = _names(
        "order_id,order_number,order_date,paid_date,status,shipping_total,discount_total,order_total,order_currency,"
        "payment_method,customer_id,customer_user,customer_email,billing_email,billing_country,refund_items,line_item_1"
    )
    records, sales = [], []
    for order, status, fate in _with_fates(WOOCOMMERCE_SUITE):
        is_guest = order.person == 6
        records.append(
            {
                "order_id": 700 + order.number,
                "order_number": 700 + order.number,
                "order_date": order.at,
                "status": status,
                "order_total": _money(order.total),
                "order_currency": "GBP",
                "customer_id": 0 if is_guest else order.person + 1,
                "customer_user": 0 if is_guest else order.person + 1,
                "customer_email": "" if is_guest else _address(order),
                "billing_email": _address(order),
                "billing_country": "GB",
                "refund_items": f"amount:{_money(order.total)}" if status == "refunded" else "",
                "line_item_1": f"name:{order.items[0].name}",
            }
        )
        sales.append(Sale(str(700 + order.number), _known(order), order.total, 1, fate == LEFT_OUT))
    return Export("woocommerce", "woocommerce_suite.csv", header, _rows(header, records), sales)


STRIPE: Statuses = (
    ("Paid", COUNTS),
    ("Paid", IN_PART),
    ("Failed", LEFT_OUT),
    ("Refunded", IN_FULL),
    ("Paid", COUNTS),
    ("requires_payment_method", LEFT_OUT),
    ("canceled", LEFT_OUT),
    ("Pending", LEFT_OUT),
    ("Paid", COUNTS),
)


def stripe() -> Export:
    """Person 5 has an id only, person 6 nothing, person 0 a new id each time; half pay in dollars of half a euro."""
    header = _names(
        "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,"
        "Converted Currency,Decline Reason,Description,Fee,Refunded date (UTC),Statement Descriptor,Status,"
        "Seller Message,Taxes On Fee,Card ID,Customer ID,Customer Description,Customer Email,Invoice ID,Transfer,Mode,"
        "Dispute Status"
    )
    records, sales = [], []
    for order, status, fate in _with_fates(STRIPE):
        in_dollars = order.number % 2 == 1
        refund = order.refund(fate)
        moved = fate != LEFT_OUT
        email = "" if order.person > 4 else _address(order)
        own_id = {5: "cus_5", 6: "", 0: f"cus_0{order.number}"}.get(order.person, f"cus_{order.person}")
        is_uncaptured, is_test, is_lost = order.number == 4, order.number == 8, order.number == 9
        records.append(
            {
                "id": f"ch_{order.number:03}",
                "Created date (UTC)": order.at,
                # One euro is two dollars.
                "Amount": _money(order.total * (2 if in_dollars else 1)),
                "Amount Refunded": _money(refund * (2 if in_dollars else 1)),
                "Currency": "usd" if in_dollars else "eur",
                "Captured": str(moved and not is_uncaptured).lower(),
                "Converted Amount": _money(order.total) if moved else "",
                "Converted Amount Refunded": _money(refund) if moved else "",
                "Converted Currency": "eur" if moved else "",
                "Description": "Subscription update",
                "Status": status,
                "Customer ID": own_id,
                "Customer Email": email,
                "Mode": "Test" if is_test else "Live",
                "Dispute Status": "lost" if is_lost else "",
            }
        )
        left_out = not moved or is_uncaptured or is_test or is_lost
        customer = (email.lower() or own_id) or None
        sales.append(Sale(f"ch_{order.number:03}", customer, order.total - refund, 1, left_out))
    return Export("stripe", "stripe.csv", header, _rows(header, records), sales)


SQUARE: Statuses = (("", COUNTS), ("", IN_FULL), ("", COUNTS), ("", IN_PART))


def square() -> Export:
    """A refund is a sale of less than nothing, two days later; half of the buyers are nobody."""
    header = _names(
        "Date,Time,Time Zone,Category,Item,Qty,Price Point Name,SKU,Modifiers Applied,Gross Sales,Discounts,Net Sales,"
        "Tax,Transaction ID,Payment ID,Device Name,Notes,Details,Event Type,Location,Dining Option,Customer ID,"
        "Customer Name,Customer Reference ID,Unit,Count,Itemization Type"
    )
    records, sales = [], []
    for order, _, fate in _with_fates(SQUARE):
        customer = f"C{order.person}X" if order.person % 2 else ""
        returned = {IN_FULL: order.items, IN_PART: order.items[:1]}.get(fate, ())
        events = [(order.at, "Payment", 1, order.items), (order.at + timedelta(days=2), "Refund", -1, returned)]
        for at, event, sign, items in events:
            for i, item in enumerate(items):
                # The whole discount is on the first item.
                discount = order.discount if i == 0 else 0
                records.append(
                    {
                        "Date": at.date(),
                        "Time": at.time(),
                        "Time Zone": "Eastern Time (US & Canada)",
                        "Category": "Gifts",
                        "Item": item.name,
                        "Qty": f"{sign * item.quantity}.0",
                        "SKU": item.sku,
                        "Gross Sales": _dollars(sign * item.total),
                        "Discounts": _dollars(-sign * discount),
                        "Net Sales": _dollars(sign * (item.total - discount)),
                        "Tax": _dollars(sign * item.total // 10),
                        "Transaction ID": f"T{order.number:03}",
                        "Payment ID": f"P{order.number:03}{event[0]}",
                        "Event Type": event,
                        "Location": "Main",
                        "Customer ID": customer,
                    }
                )
        goods = sum(item.total for item in order.items) - order.discount
        back = sum(item.total for item in returned) - (order.discount if returned else 0)
        sales.append(Sale(f"T{order.number:03}", customer or None, goods - back, len(order.items) + len(returned)))
    return Export("square", "square.csv", header, _rows(header, records), sales)


MAGENTO: Statuses = (
    ("Complete", COUNTS),
    ("Processing", IN_PART),
    ("Closed", IN_FULL),
    ("Pending", COUNTS),
    ("Canceled", LEFT_OUT),
    ("On Hold", COUNTS),
    ("Pending Payment", LEFT_OUT),
    ("Payment Review", LEFT_OUT),
    ("Suspected Fraud", LEFT_OUT),
)


def magento() -> Export:
    """One line an order, with four decimals and English names of months."""
    header = _names(
        "ID,Purchase Point,Purchase Date,Bill-to Name,Ship-to Name,Grand Total (Base),Grand Total (Purchased),Status,"
        "Billing Address,Shipping Address,Shipping Information,Customer Email,Customer Group,Subtotal,"
        "Shipping and Handling,Customer Name,Payment Method,Total Refunded"
    )
    records, sales = [], []
    for order, status, fate in _with_fates(MAGENTO):
        refund = order.refund(fate)
        records.append(
            {
                "ID": f"{order.number + 1:09}",
                "Purchase Point": "Main Website",
                "Purchase Date": f"{order.at:%b} {order.at.day}, {order.at:%Y %I:%M:%S %p}",
                "Bill-to Name": f"Buyer {order.person}",
                "Grand Total (Base)": f"{_money(order.total)}00",
                "Grand Total (Purchased)": f"{_money(order.total)}00",
                "Status": status,
                "Customer Email": _address(order),
                "Customer Group": "NOT LOGGED IN" if order.person == 6 else "General",
                "Total Refunded": f"{_money(refund)}00" if refund else "",
            }
        )
        sales.append(Sale(f"{order.number + 1:09}", _known(order), order.total - refund, 1, fate == LEFT_OUT))
    return Export("magento", "magento.csv", header, _rows(header, records), sales)


OLIST: Statuses = (
    ("delivered", COUNTS),
    ("shipped", COUNTS),
    ("delivered", COUNTS),
    ("canceled", LEFT_OUT),
    ("invoiced", COUNTS),
    ("unavailable", LEFT_OUT),
    ("processing", COUNTS),
    ("approved", COUNTS),
    ("created", LEFT_OUT),
)


def olist() -> Export:
    """Joined with payments: an order that was paid in two ways has each unit of its goods twice."""
    header = _names(
        "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,order_item_id,product_id,"
        "seller_id,price,freight_value,payment_sequential,payment_type,payment_installments,payment_value,"
        "customer_unique_id,customer_zip_code_prefix,customer_city,customer_state"
    )
    records, sales = [], []
    for order, status, fate in _with_fates(OLIST):
        units = [item for item in order.items for _ in range(item.quantity)]
        n_payments = 2 if order.number % 5 == 0 else 1
        for payment in range(1, n_payments + 1):
            for i, unit in enumerate(units, 1):
                records.append(
                    {
                        "order_id": f"o{order.number:031}",
                        "customer_id": f"c{order.number:031}",
                        "order_status": status,
                        "order_purchase_timestamp": order.at,
                        "order_item_id": i,
                        "product_id": unit.sku,
                        "price": _money(unit.price),
                        "freight_value": "12.50",
                        "payment_sequential": payment,
                        "payment_type": ("credit_card", "voucher")[payment - 1],
                        "payment_value": _money(order.total // n_payments),
                        "customer_unique_id": f"u{order.person:031}",
                        "customer_state": "SP",
                    }
                )
        n_lines, customer = len(units) * n_payments, f"u{order.person:031}"
        net = sum(unit.price for unit in units)
        is_left_out, n_again = fate == LEFT_OUT, n_lines - len(units)
        sales.append(Sale(f"o{order.number:031}", customer, net, n_lines, is_left_out, n_again))
    return Export("olist", "olist.csv", header, _rows(header, records), sales)


EXPORTS: tuple[Callable[[], Export], ...] = (
    shopify,
    woocommerce,
    woocommerce_suite,
    stripe,
    square,
    magento,
    olist,
)


def write_exports() -> None:
    """Write all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for make in EXPORTS:
        export = make()
        (FOLDER / export.file).write_text(export.text, encoding="utf-8")


if __name__ == "__main__":
    write_exports()
