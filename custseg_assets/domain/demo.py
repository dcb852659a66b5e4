"""The demo shop: a seeded transaction log with the dirt of real logs and a planted change.

The recipe, so that tests can compare what the pipeline finds with the truth (``planted_truth`` gives it for a seed):

* **Customers** are of seven archetypes (``ARCHETYPES``) that differ in how often they order, how much, when in the
  week and what they like. They join and leave at a steady rate, so without the change months differ by the season only:
  November and December are busy.
* **Products**: 300 in ten families. A few sell always and most seldom; each taste has families that it prefers, and a
  third of the products is in fashion with one taste for four to seven weeks.
* **Dirt**, each kind on its own lines, so that every count is the count of a reject reason: lines without customer
  (over the counter), repeated lines, service codes, service descriptions, free items, values that cannot be read.
* **Cancellations** of earlier orders, some of them in full; a few **whales** who buy by the pallet.
* **The change**: on the first day of the third last month every price rises by a quarter, and 85 % of the customers
  of that day, except the whales, stop ordering for good. New customers still join, and in that month subscribers come
  for the first time: small orders, every week. Against the snapshot of the sixth month the recency of customers has
  then drifted (PSI of deciles over 0.25 in the last month, over a window of six); in the months before the change every
  feature stays under 0.1. The first model does not know subscribers, so a model trained after the change is really
  better: the last two drift reports are breaches, and the challenger that is then trained is promoted.

The conventions are those of the ``online_retail`` preset: numbers as invoice ids, ``C`` before that of a cancellation,
service codes with fewer than two digits. Shops for single tests are made in ``tests/support``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain.periods import shift
from custseg_assets.domain.schemas import MAPPED_NAMES, RAW_TRANSACTIONS

DEFAULT_SEED = 20240101
DEMO_CURRENCY = "GBP"
FIRST_CUSTOMER = 12_346
FIRST_INVOICE = 536_365
CHANGE_MONTHS = 3
MIN_MONTHS = CHANGE_MONTHS + 1
SHARE_LEAVING = 0.85
PRICE_RISE = 1.25

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Taste:
    """What a kind of customer likes, and when it orders.

    Attributes:
        price_tilt: exponent of a product's price in its appeal; negative prefers cheap products.
        weekdays: weight of each day, Monday first.
        hours: first and last hour of ordering.
    """

    price_tilt: float
    weekdays: tuple[float, ...]
    hours: tuple[int, int]


TASTES = {
    "trade": Taste(-0.5, (1.2, 1.2, 1.1, 1.3, 0.9, 0.0, 0.1), (7, 16)),
    "home": Taste(0.0, (0.9, 0.9, 1.0, 1.1, 1.0, 0.6, 1.3), (10, 20)),
    "gift": Taste(0.3, (0.7, 0.8, 0.9, 1.2, 1.4, 1.0, 1.2), (12, 21)),
}


@dataclass(frozen=True)
class Archetype:
    """A kind of customer.

    Attributes:
        share: of all customers.
        taste: name of its taste.
        orders_per_month: while it is a customer; with 0 it orders once.
        stay_months: from joining to leaving.
        lines_per_order: mean.
        pack: mean units of a product in an order line.
        comes_with_change: whether such customers join in the month of the change only.
    """

    share: float
    taste: str
    orders_per_month: float
    stay_months: float
    lines_per_order: float
    pack: float
    comes_with_change: bool = False


ARCHETYPES = {
    "wholesale": Archetype(0.03, "trade", 2.8, 24, 13.0, 16.0),
    "champion": Archetype(0.09, "trade", 1.7, 24, 8.0, 5.0),
    "regular": Archetype(0.25, "home", 0.6, 24, 6.0, 3.0),
    "occasional": Archetype(0.25, "gift", 0.2, 24, 4.5, 2.0),
    "one_time": Archetype(0.16, "gift", 0.0, 0, 3.5, 1.8),
    "churner": Archetype(0.14, "home", 0.8, 5, 5.0, 2.5),
    "subscriber": Archetype(0.08, "home", 4.3, 24, 3.0, 1.5, comes_with_change=True),
}
WALK_IN = Archetype(0.0, "gift", 0.0, 0, 7.0, 1.8)
"""Buys over the counter and gives no name: the lines without a customer."""
_KINDS = (*ARCHETYPES.values(), WALK_IN)
_TASTE_OF_KIND = np.array([list(TASTES).index(kind.taste) for kind in _KINDS])

_SEASON = (0.95, 0.95, 1.0, 0.95, 1.0, 1.0, 0.95, 0.95, 1.0, 1.05, 1.4, 1.2)
_DAYS_A_MONTH = 30.44
_MINUTES_A_DAY = 1440
_SHARE_WALK_IN = 0.22
_CUSTOMERS_PER_WHALE, _WHALE_PACK = 800, 6
_SHARE_CANCELLED, _SHARE_OF_THOSE_IN_FULL, _SHARE_OF_LINES_CANCELLED = 0.04, 0.3, 0.35
_MAX_DAYS_TO_CANCEL = 20
_FASHION_SHARE = 0.03
"""What a product in fashion adds to its appeal, as a share of the whole catalogue's: that of a best-seller."""
_DIRT = {
    "unreadable": 0.0001,
    "duplicate": 0.01,
    "service_code": 0.006,
    "service_description": 0.0005,
    "non_positive_price": 0.0004,
}
"""Share of the lines by reject reason; at least three lines each."""

_HOME_COUNTRY = "United Kingdom"
_COUNTRIES = {
    _HOME_COUNTRY: 0.82, "Germany": 0.045, "France": 0.04, "EIRE": 0.025, "Netherlands": 0.015, "Spain": 0.015,
    "Belgium": 0.012, "Switzerland": 0.01, "Portugal": 0.01, "Norway": 0.008,
}  # fmt: skip

_FAMILIES = {
    "TEA TABLE": ("TEAPOT", "CAKE STAND", "MILK JUG", "MUG", "SET OF 6 TEASPOONS"),
    "CANDLELIGHT": ("T-LIGHT HOLDER", "STORM LANTERN", "DINNER CANDLES", "CANDLE PLATE", "WAX MELTS"),
    "POTTING SHED": ("WATERING CAN", "SEED TIN", "PLANT LABELS", "TWINE IN A TIN", "HERB POT"),
    "TOY BOX": ("SKIPPING ROPE", "SPINNING TOP", "PAPER CHAIN KIT", "JIGSAW PUZZLE", "MARCHING DRUM"),
    "BAKE DAY": ("MIXING BOWL", "ROLLING PIN", "BISCUIT CUTTERS", "CAKE CASES", "OVEN GLOVE"),
    "LETTERS": ("WRITING SET", "GIFT WRAP", "BIRTHDAY CARD", "STICKER SHEET", "NOTEBOOK"),
    "FIRESIDE": ("HOT WATER BOTTLE", "WOOL THROW", "CUSHION COVER", "DOORSTOP", "SLIPPERS"),
    "ON THE ROAD": ("LUNCH BAG", "PICNIC BLANKET", "JUMBO BAG", "WATER FLASK", "LUGGAGE TAG"),
    "WALLS": ("WALL CLOCK", "PHOTO FRAME", "BUNTING", "COAT HOOKS", "METAL SIGN"),
    "POWDER ROOM": ("SOAP DISH", "WASH BAG", "HAND CREAM", "POCKET MIRROR", "HAIR CLIPS"),
}
_MOTIFS = ("STRAWBERRY", "FOX AND FERN", "RED RETROSPOT", "SLEEPY BADGER", "VINTAGE ROSE", "MIDNIGHT MOTH")
_SERVICE_CODES = {
    "POST": ("POSTAGE", 18.0), "M": ("Manual", 12.5), "BANK CHARGES": ("Bank Charges", 15.0),
    "DOT": ("DOTCOM POSTAGE", 24.0), "C2": ("CARRIAGE", 50.0),
}  # fmt: skip
_SERVICE_TEXTS = {"23444": ("Next Day Carriage", 15.0), "23702": ("High Resolution Image", 5.0)}
_UNREADABLE = (("invoiced_at", "31/02/2024 25:10"), ("quantity", "a dozen"), ("unit_price", "£3,9O"))


@dataclass(frozen=True)
class PlantedTruth:
    """What the generator put into the log.

    Attributes:
        n_lines: lines of the log.
        rejected: lines per reject reason, under the rules of the ``online_retail`` preset.
        n_cancellation_lines: lines that cancel a line of an order.
        change_months: first days of the months from the change on.
        archetypes: customer → name of its archetype.
        leavers: customers who stopped ordering at the change, sorted.
        whales: customers who buy by the pallet, sorted.
        in_fashion: product, taste, and first and last day, by product.
    """

    n_lines: int
    rejected: dict[str, int]
    n_cancellation_lines: int
    change_months: tuple[date, ...]
    archetypes: dict[str, str]
    leavers: tuple[str, ...]
    whales: tuple[str, ...]
    in_fashion: tuple[tuple[str, str, date, date], ...]


def generate_demo(
    seed: int = DEFAULT_SEED, n_customers: int = 5_000, n_months: int = 13, first_month: date = date(2024, 1, 1)
) -> pl.DataFrame:
    """The demo shop's log, with the columns and types of a source file that was read.

    Args:
        seed: equal seeds give equal logs, byte for byte.
        n_customers: customers with an id; each orders at least once.
        n_months: length of the log; the change is in the last three.
        first_month: first day of the log.

    Returns:
        The columns of ``raw_transactions`` without ``period`` and ``source_file``, in the order of time; about 35
        lines per customer.

    Raises:
        ValueError: there is no customer, or no month before the change.
    """
    return _generate(seed, n_customers, n_months, first_month)[0]


def planted_truth(
    seed: int = DEFAULT_SEED, n_customers: int = 5_000, n_months: int = 13, first_month: date = date(2024, 1, 1)
) -> PlantedTruth:
    """What ``generate_demo`` plants for the same arguments."""
    return _generate(seed, n_customers, n_months, first_month)[1]


@dataclass(frozen=True)
class _Calendar:
    """Days are counted from 0, the first day of the log."""

    first_day: date
    n_days: int
    change_day: int
    change_months: tuple[date, ...]

    def intensity(self) -> Floats:
        """The relative number of orders on each day for each taste, with a mean of about 1; shape (tastes, days)."""
        days = np.datetime64(self.first_day) + np.arange(self.n_days)
        month = days.astype("datetime64[M]").astype(np.int64) % 12
        weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
        weights = np.array([taste.weekdays for taste in TASTES.values()])
        weights = weights / weights.mean(axis=1, keepdims=True)
        busy: Floats = weights[:, weekday] * np.array(_SEASON)[month]
        return busy


@dataclass(frozen=True)
class _Catalogue:
    """The products, one entry each, and when each is in fashion with which taste; days from 0, the end exclusive."""

    ids: list[str]
    names: list[str]
    price: Floats
    fashion_taste: Whole
    fashion_from: Whole
    fashion_to: Whole
    appeal: Floats


@dataclass(frozen=True)
class _People:
    """The customers, one entry each; days from 0."""

    kind: Whole
    joins: Floats
    leaves: Floats
    pack: Floats
    country: Whole
    is_leaver: Flags
    is_whale: Flags


@dataclass(frozen=True)
class _Orders:
    """The orders, one entry each, in the order of time; minutes from the start of the first day."""

    customer: Whole
    kind: Whole
    minute: Whole


def _generate(seed: int, n_customers: int, n_months: int, first_month: date) -> tuple[pl.DataFrame, PlantedTruth]:
    if n_customers < 1 or n_months < MIN_MONTHS:
        raise ValueError(f"{n_customers} customers and {n_months} months; at least 1 and {MIN_MONTHS} are needed")
    random = np.random.default_rng(seed)
    calendar = _make_calendar(first_month, n_months)
    catalogue = _make_catalogue(random, calendar)
    people = _draw_people(random, calendar, n_customers)
    orders = _draw_orders(random, calendar, people)
    lines = _add_dirt(random, _draw_lines(random, calendar, catalogue, people, orders))
    ids = [str(FIRST_CUSTOMER + number) for number in range(n_customers)]
    n_rejected = {reason: int((lines["dirt"] == reason).sum()) for reason in _DIRT}
    truth = PlantedTruth(
        n_lines=len(lines),
        rejected={**n_rejected, "missing_customer": lines["customer"].null_count()},
        n_cancellation_lines=int(lines["is_cancellation"].sum()),
        change_months=calendar.change_months,
        archetypes=dict(zip(ids, np.array(list(ARCHETYPES))[people.kind].tolist(), strict=True)),
        leavers=tuple(np.array(ids)[people.is_leaver].tolist()),
        whales=tuple(np.array(ids)[people.is_whale].tolist()),
        in_fashion=_fashions(catalogue, calendar),
    )
    return _write_log(lines, calendar, ids, people), truth


def _make_calendar(first_month: date, n_months: int) -> _Calendar:
    months = [shift(first_month, by, "monthly") for by in range(n_months + 1)]
    return _Calendar(
        first_day=months[0],
        n_days=(months[-1] - months[0]).days,
        change_day=(months[-1 - CHANGE_MONTHS] - months[0]).days,
        change_months=tuple(months[-1 - CHANGE_MONTHS : -1]),
    )


def _make_catalogue(random: np.random.Generator, calendar: _Calendar) -> _Catalogue:
    things = [thing for family in _FAMILIES.values() for thing in family]
    family = np.repeat(np.arange(len(_FAMILIES)), [len(family) * len(_MOTIFS) for family in _FAMILIES.values()])
    n = len(family)
    price = np.repeat(np.round(np.exp(random.uniform(-0.5, 2.5, len(things))) * 20) / 20, len(_MOTIFS))
    lasting = np.arange(1, n + 1) ** -0.7
    random.shuffle(lasting)
    likes = np.exp(random.normal(0, 0.8, (len(TASTES), len(_FAMILIES))))
    tilt = np.array([taste.price_tilt for taste in TASTES.values()])
    begins = random.integers(0, calendar.n_days - 28, n)
    lasts = random.integers(28, 50, n) * (random.random(n) < 1 / 3)
    return _Catalogue(
        ids=[f"{21000 + 37 * thing}{'ABCDEF'[motif]}" for thing in range(len(things)) for motif in range(len(_MOTIFS))],
        names=[f"{motif} {thing}" for thing in things for motif in _MOTIFS],
        price=price,
        fashion_taste=random.integers(0, len(TASTES), n),
        fashion_from=begins,
        fashion_to=np.minimum(begins + lasts, calendar.n_days),
        appeal=lasting * likes[:, family] * price ** tilt[:, None],
    )


def _cumulative_appeal(catalogue: _Catalogue, calendar: _Calendar) -> Floats:
    """Cumulative appeal of the products by taste and week, each row ending at 1; shape (tastes, weeks, products)."""
    mid_week = np.arange(3, calendar.n_days + 3, 7)[:, None]
    is_on = (mid_week >= catalogue.fashion_from) & (mid_week < catalogue.fashion_to)
    is_taste = catalogue.fashion_taste == np.arange(len(TASTES))[:, None]
    share = catalogue.appeal / catalogue.appeal.sum(axis=1, keepdims=True)
    appeal = share[:, None, :] + _FASHION_SHARE * (is_taste[:, None, :] & is_on[None, :, :])
    total = appeal.cumsum(axis=2)
    cumulative: Floats = total / total[:, :, -1:]
    return cumulative


def _fashions(catalogue: _Catalogue, calendar: _Calendar) -> tuple[tuple[str, str, date, date], ...]:
    day = (np.datetime64(calendar.first_day) + np.arange(calendar.n_days)).tolist()
    return tuple(
        (product, list(TASTES)[taste], day[start], day[end - 1])
        for product, taste, start, end in zip(
            catalogue.ids, catalogue.fashion_taste, catalogue.fashion_from, catalogue.fashion_to, strict=True
        )
        if start < end
    )


def _draw_people(random: np.random.Generator, calendar: _Calendar, n_customers: int) -> _People:
    kind = random.choice(len(ARCHETYPES), n_customers, p=[archetype.share for archetype in ARCHETYPES.values()])
    stay = np.array([archetype.stay_months * _DAYS_A_MONTH for archetype in ARCHETYPES.values()])[kind]
    # Joining evenly from one stay before the log on keeps the number of customers who are there level.
    joins = np.where(stay > 0, random.uniform(-stay, calendar.n_days), 0)
    first_month = random.uniform(calendar.change_day, calendar.change_day + _DAYS_A_MONTH, n_customers)
    joins = np.where(np.array([one.comes_with_change for one in ARCHETYPES.values()])[kind], first_month, joins)
    leaves = np.where(stay > 0, joins + stay, calendar.n_days)
    is_there = (stay > 0) & (joins < calendar.change_day) & (leaves > calendar.change_day)
    is_whale = np.zeros(n_customers, dtype=bool)
    # A whale needs time to spend: the wholesalers who were there first.
    is_whale[np.flatnonzero((kind == 0) & is_there & (joins < 0))[: n_customers // _CUSTOMERS_PER_WHALE]] = True
    is_leaver = is_there & ~is_whale & (random.random(n_customers) < SHARE_LEAVING)
    return _People(
        kind=kind,
        joins=np.maximum(joins, 0.0),
        leaves=np.minimum(leaves, np.where(is_leaver, calendar.change_day, calendar.n_days)),
        pack=np.where(is_whale, _WHALE_PACK, 1) * random.lognormal(0, 0.35, n_customers),
        country=random.choice(len(_COUNTRIES), n_customers, p=list(_COUNTRIES.values())),
        is_leaver=is_leaver,
        is_whale=is_whale,
    )


def _draw_orders(random: np.random.Generator, calendar: _Calendar, people: _People) -> _Orders:
    """The orders of all customers: a Poisson process in time that a busy day has more of than a quiet one."""
    busy = np.pad(calendar.intensity().cumsum(axis=1), ((0, 0), (1, 0)))
    day = np.arange(calendar.n_days + 1)
    taste = _TASTE_OF_KIND[people.kind]
    start, end = (_interpolate_by_taste(taste, moment, day, busy) for moment in (people.joins, people.leaves))
    per_day = np.array([kind.orders_per_month for kind in _KINDS])[people.kind] / _DAYS_A_MONTH
    n_orders = np.maximum(1, random.poisson(per_day * random.gamma(6, 1 / 6, len(start)) * (end - start)))
    named = np.repeat(np.arange(len(start)), n_orders)

    lines_per_order = np.array([kind.lines_per_order for kind in _KINDS])
    n_named_lines = (n_orders * lines_per_order[people.kind]).sum()
    n_walk_ins = round(n_named_lines * _SHARE_WALK_IN / (1 - _SHARE_WALK_IN) / WALK_IN.lines_per_order)
    customer = np.concatenate([named, np.full(n_walk_ins, -1)])
    kind = np.concatenate([people.kind[named], np.full(n_walk_ins, len(ARCHETYPES))])
    taste = _TASTE_OF_KIND[kind]
    moment = _interpolate_by_taste(taste[: len(named)], random.uniform(start[named], end[named]), busy, day)
    on = np.minimum(moment, calendar.n_days - 1).astype(np.int64)
    # Orders over the counter follow those of known customers, also after the change.
    lines = lines_per_order[people.kind[named]]
    on = np.concatenate([on, random.choice(on, n_walk_ins, p=lines / lines.sum())])
    opens, closes = np.array([taste.hours for taste in TASTES.values()]).T
    minute = on * _MINUTES_A_DAY + random.integers(opens[taste] * 60, (closes[taste] + 1) * 60)
    by_time = np.argsort(minute, kind="stable")
    return _Orders(customer[by_time], kind[by_time], minute[by_time])


def _interpolate_by_taste(taste: Whole, x: Floats, xs: NDArray[Any], ys: NDArray[Any]) -> Floats:
    """Linear interpolation of x with the points of its taste; xs or ys has a row for each taste."""
    y = np.empty(len(x))
    for row in range(len(TASTES)):
        mine = taste == row
        y[mine] = np.interp(x[mine], xs[row] if xs.ndim == 2 else xs, ys[row] if ys.ndim == 2 else ys)
    return y


def _draw_lines(
    random: np.random.Generator, calendar: _Calendar, catalogue: _Catalogue, people: _People, orders: _Orders
) -> pl.DataFrame:
    """The lines of each order, each product once, and of the cancellations."""
    kind = orders.kind
    mean_lines = np.array([kind.lines_per_order for kind in _KINDS])[kind]
    n_lines = 1 + random.poisson((mean_lines - 1) * random.gamma(3, 1 / 3, len(kind)))
    order = np.repeat(np.arange(len(kind)), n_lines)
    n_products = len(catalogue.ids)
    cumulative = _cumulative_appeal(catalogue, calendar)
    row = (_TASTE_OF_KIND[kind] * cumulative.shape[1] + orders.minute // _MINUTES_A_DAY // 7)[order]
    staggered = (cumulative.reshape(-1, n_products) + np.arange(cumulative[:, :, 0].size)[:, None]).ravel()
    drawn = np.searchsorted(staggered, row + random.random(len(order)), side="right") - row * n_products
    order, product = np.divmod(np.unique(order * n_products + np.minimum(drawn, n_products - 1)), n_products)

    kind, customer, minute = kind[order], orders.customer[order], orders.minute[order]
    mean_pack = np.array([kind.pack for kind in _KINDS])[kind] * np.where(customer < 0, 1.0, people.pack[customer])
    units = np.maximum(1, np.rint(mean_pack * random.gamma(2, 1 / 2, len(order))))
    price = catalogue.price[product] * np.where(minute >= calendar.change_day * _MINUTES_A_DAY, PRICE_RISE, 1)
    lines = pl.DataFrame(
        {
            "order": order,
            "minute": minute,
            "customer": pl.Series(customer).replace(-1, None),
            "product_id": pl.Series(catalogue.ids)[product],
            "description": pl.Series(catalogue.names)[product],
            # By the half dozen from ten on, as wholesalers buy.
            "quantity": np.where(units >= 10, np.rint(units / 6) * 6, units),
            "unit_price": np.round(price, 2),
            "is_cancellation": np.zeros(len(order), dtype=bool),
            "dirt": pl.Series([None] * len(order), dtype=pl.String),
        }
    )
    return pl.concat([lines, _draw_cancellations(random, calendar, lines, len(orders.minute))])


def _draw_cancellations(
    random: np.random.Generator, calendar: _Calendar, lines: pl.DataFrame, n_orders: int
) -> pl.DataFrame:
    """The lines that cancel orders, in part or in full, within three weeks and within the log."""
    fate = random.random(n_orders)
    days_later = random.integers(1, _MAX_DAYS_TO_CANCEL + 1, n_orders)
    order = lines["order"].to_numpy()
    in_full = fate < _SHARE_CANCELLED * _SHARE_OF_THOSE_IN_FULL
    in_part = (fate < _SHARE_CANCELLED) & ~in_full
    is_cancelled = in_full[order] | (in_part[order] & (random.random(len(order)) < _SHARE_OF_LINES_CANCELLED))
    return (
        lines.with_columns(pl.col("minute") + days_later[order] * _MINUTES_A_DAY, is_cancelled=is_cancelled)
        .filter("is_cancelled", pl.col("customer").is_not_null(), pl.col("minute") < calendar.n_days * _MINUTES_A_DAY)
        .with_columns(-pl.col("quantity"), is_cancellation=pl.lit(True))
        .drop("is_cancelled")
    )


def _add_dirt(random: np.random.Generator, lines: pl.DataFrame) -> pl.DataFrame:
    """The lines with dirt of every kind added, each kind on its own lines."""
    is_order_of_customer = (~lines["is_cancellation"] & lines["customer"].is_not_null()).to_numpy()
    some = random.permutation(np.flatnonzero(is_order_of_customer))
    n_of = {reason: max(3, round(share * len(lines))) for reason, share in _DIRT.items()}
    chosen = dict(zip(n_of, np.split(some, np.cumsum(list(n_of.values())))[:-1], strict=True))
    copies = {reason: lines[rows] for reason, rows in chosen.items()}
    is_unreadable = np.isin(np.arange(len(lines)), chosen["unreadable"])
    added = {
        "duplicate": copies["duplicate"],
        "service_code": _draw_services(random, copies["service_code"], _SERVICE_CODES),
        "service_description": _draw_services(random, copies["service_description"], _SERVICE_TEXTS),
        "non_positive_price": copies["non_positive_price"].with_columns(unit_price=pl.lit(0.0)),
    }
    lines = lines.with_columns(dirt=pl.when(pl.Series(is_unreadable)).then(pl.lit("unreadable")))
    return pl.concat([lines, *(part.with_columns(dirt=pl.lit(reason)) for reason, part in added.items())])


def _draw_services(
    random: np.random.Generator, lines: pl.DataFrame, services: dict[str, tuple[str, float]]
) -> pl.DataFrame:
    """A service on the invoice of each line, each service once per invoice."""
    which = random.integers(0, len(services), len(lines))
    names, prices = zip(*services.values(), strict=True)
    return lines.with_columns(
        product_id=pl.Series(list(services))[which],
        description=pl.Series(names)[which],
        quantity=pl.lit(1.0),
        unit_price=pl.Series(prices)[which],
    ).unique(("order", "product_id"), keep="first", maintain_order=True)


def _write_log(lines: pl.DataFrame, calendar: _Calendar, ids: list[str], people: _People) -> pl.DataFrame:
    """The log with its final columns: invoices numbered in the order of time, values that cannot be read as null."""
    midnight = datetime.combine(calendar.first_day, datetime.min.time())
    prefix = pl.when("is_cancellation").then(pl.lit("C")).otherwise(pl.lit(""))
    number = FIRST_INVOICE + pl.struct("minute", "order", "is_cancellation").rle_id()
    of_customer = {"customer_id": pl.Series(ids), "country": pl.Series(list(_COUNTRIES))[people.country]}
    return (
        lines.sort("minute", "order", "is_cancellation", maintain_order=True)
        .with_columns(
            *(
                pl.col("customer").replace_strict(range(len(ids)), values, return_dtype=pl.String).alias(name)
                for name, values in of_customer.items()
            ),
            invoice_id=prefix + number.cast(pl.String),
            invoiced_at=pl.lit(midnight) + pl.duration(minutes="minute"),
            line_amount=pl.lit(None),
            excluded_by=pl.lit(None, pl.String),
            source_row=pl.int_range(1, pl.len() + 1),
        )
        .with_columns(pl.col("country").fill_null(_HOME_COUNTRY))
        .pipe(_spoil_values)
        .select(*MAPPED_NAMES, "unreadable_values", "excluded_by", "source_row")
        .cast({name: RAW_TRANSACTIONS.schema[name] for name in (*MAPPED_NAMES, "source_row")})
    )


def _spoil_values(lines: pl.DataFrame) -> pl.DataFrame:
    """In each line marked unreadable one value, of each column in turn, becomes null, and its text is kept."""
    is_unreadable = pl.col("dirt").eq_missing(pl.lit("unreadable"))
    lines = lines.with_columns(turn=pl.when(is_unreadable).then(is_unreadable.cum_sum() % len(_UNREADABLE)))
    texts = [json.dumps({name: text}, ensure_ascii=False) for name, text in _UNREADABLE]
    return lines.with_columns(
        *(
            pl.when(pl.col("turn").eq_missing(turn)).then(None).otherwise(pl.col(name)).alias(name)
            for turn, (name, _) in enumerate(_UNREADABLE)
        ),
        unreadable_values=pl.col("turn").replace_strict(range(len(texts)), texts, return_dtype=pl.String),
    )
