"""Small made-up logs with the right values: what the shop was made of. How one is written down is in ``writings``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

PRODUCTS = (
    "Mug",
    'Frame 10"',
    '6" plate, 8" bowl',
    '"Best" kettle',
    "Fern, dry; green|tall",
    "Two\nlines",
    'One "and\r\n"two',
    "Käse für Ämter",
    "C:\\shelf\\",
    'Say \\"hi\\"',
    "Tab\there",
    "Apostrophe's",
    "",
    "=1+1",
    "1,234.50",
    "2024-01-05",
)
"""Descriptions, most of which make trouble in some text."""

IdKind = Literal["numbers", "padded numbers", "codes", "e-mails"]
Grain = Literal["cents", "whole", "mills"]
Returns = Literal["none", "quantity", "price"]

_STEP: dict[Grain, int] = {"cents": 10, "whole": 1000, "mills": 1}


@dataclass(frozen=True)
class Line:
    """A line of an order, before anybody writes it down; money is in thousandths.

    Attributes:
        customer: the id, ``None`` for nobody.
        order: number of the order.
        at: when, to the second.
        product: code of the product, one for each line of an order.
        description: of the product.
        quantity: negative where a return is written so.
        price: of a unit, negative where a return is written so.
        refund: what was given back of it later.
        is_void: whether it is no sale, by its status.
        currency: that it was paid in.
    """

    customer: str | None
    order: int
    at: datetime
    product: str
    description: str
    quantity: int
    price: int
    refund: int
    is_void: bool
    currency: str

    @property
    def amount(self) -> int:
        """What the line says, without what was given back later."""
        return self.quantity * self.price

    @property
    def net(self) -> int:
        """What is left of it."""
        return self.amount - self.refund


@dataclass(frozen=True)
class Shop:
    """What a log is made of.

    Attributes:
        seed: of everything that is not said here.
        n_lines: how many lines there are, or a few more.
        ids: what customers' ids are like.
        grain: what prices are multiples of.
        first: the first day.
        n_days: how many days there are orders on, at most.
        is_early: whether all orders are before the 13th of their month.
        returns: how returns are written.
        share_void: of the orders.
        share_refunded: of the lines.
        share_nobody: of the orders.
        share_foreign: of the orders, in another currency.
    """

    seed: int = 0
    n_lines: int = 60
    ids: IdKind = "numbers"
    grain: Grain = "cents"
    first: date = date(2024, 1, 5)
    n_days: int = 300
    is_early: bool = False
    returns: Returns = "none"
    share_void: float = 0.0
    share_refunded: float = 0.0
    share_nobody: float = 0.0
    share_foreign: float = 0.0

    def lines(self) -> list[Line]:
        """The lines, order by order."""
        rng = random.Random(self.seed)
        customers = [self._id(number) for number in rng.sample(range(1, 90_000), max(self.n_lines // 8, 3))]
        made: list[Line] = []
        number = rng.choice((1, 1001, 536_365))
        while len(made) < self.n_lines:
            number += 1
            made += self._order(rng, customers, number)
        return sorted(made, key=lambda line: line.at)

    def _id(self, number: int) -> str:
        return {
            "numbers": f"{number + 10_000}",
            "padded numbers": f"{number:06}",
            "codes": f"K-{number:05}/a",
            "e-mails": f"buyer{number}@shop.example",
        }[self.ids]

    def _order(self, rng: random.Random, customers: Sequence[str], number: int) -> list[Line]:
        day = self.first + timedelta(days=rng.randrange(self.n_days))
        if self.is_early and day.day > 12:
            day = day.replace(day=1 + day.day % 12)
        at = datetime(day.year, day.month, day.day, rng.randrange(8, 21), rng.randrange(60), rng.randrange(60))
        customer = None if rng.random() < self.share_nobody else rng.choice(customers)
        is_void = rng.random() < self.share_void
        currency = "USD" if rng.random() < self.share_foreign else "EUR"
        # Money that was given back and voided may be meant either way.
        is_return = self.returns != "none" and rng.random() < 0.15 and not is_void
        products = rng.sample(range(len(PRODUCTS)), rng.randint(1, 4))
        lines = []
        for product in products:
            quantity = rng.choice((1, 1, 1, 2, 3, 6, 12, 144, 1200 if rng.random() < 0.05 else 5))
            step = _STEP[self.grain]
            price = max(int(min(rng.lognormvariate(3, 1.4), 5000 / max(quantity, 4)) * 4000) // step * step, step)
            refund = quantity * price // step // rng.randint(2, 5) * step if rng.random() < self.share_refunded else 0
            if is_return:
                refund = 0
                quantity, price = (-quantity, price) if self.returns == "quantity" else (quantity, -price)
            code = f"P{product:02}-{rng.randrange(10)}"
            lines.append(
                Line(customer, number, at, code, PRODUCTS[product], quantity, price, refund, is_void, currency)
            )
        return lines
