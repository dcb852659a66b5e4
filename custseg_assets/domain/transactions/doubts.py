"""Doubts about a whole log: figures that only make sense if it means something else than what was read.

Each is one look across columns, at all files together. What a single file or value says belongs in ``stores``, what is
rejected line by line in ``cleaning``, and days apart from the rest in ``quality``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from custseg_assets.domain.schemas import MAPPED_NAMES
from custseg_assets.domain.transactions.amount_doubts import amount_doubts, total_names
from custseg_assets.domain.transactions.log_facts import MIN_CASES, Doubt, LogFacts
from custseg_assets.domain.transactions.quality import count_of

MAX_SHARED_NUMBERS = 0.01
"""Share of the orders that may go by another's number, of another customer or day, by mistakes at the till."""

MIN_EQUAL_AMOUNTS = 0.9
"""Share of the orders with several lines whose lines are all equal in amount, from which it is the order's total."""

MIN_DIFFERENT_AMOUNTS = 5
"""Different amounts that such orders have at least: in a shop with one price all lines are equal."""

MIN_DIFFERENT_SHARE = 0.1
"""Different amounts for each of these orders, where orders are days: totals nearly all differ, prices are few."""

MAX_ALIKE_IDS = 0.001
"""Share of the lines whose customer may be another one's in a different writing, by typing errors."""

MAX_SERVICE_SHARE = 0.2
"""Share of the lines that a known export's rule may take for services; of Online Retail's it is 0.5 %."""

MAX_DROPPED_EQUAL = 0.05
"""Share of the lines that may be dropped because they are equal to another; of Online Retail's it is 1.3 %."""

MAX_KEPT_EQUAL = 0.5
"""Share of the lines that may be equal to another where all count: a file exported twice over has all of them."""

MAX_TWICE = 0.01
"""Share of the money that may count twice because an order changed between two exports."""

MAX_REPEATED_ORDERS = 0.5
"""Share of the orders with lines that come again which may repeat all of them equally often, by chance."""

MAX_ORDERS_OF_ONE = 0.2
"""Share of the orders that one customer may have."""

MAX_ORDERS_OF_OUTLIER, MIN_OUTLIER_RATIO = 0.05, 4
"""Share of the orders that a customer may have who has so many times as many as every other."""

MIN_ORDERS = 100
"""Orders that a log has at least before anything is said of its customers."""

_OF_LINE_AMOUNTS = {
    False: (),
    True: (
        pl.col("amount").filter(pl.col("amount") != 0).min().alias("low_but_0"),
        pl.col("product_id").n_unique().alias("n_products"),
    ),
}
"""What only ``_order_totals`` looks at; counting products costs as much as all the rest."""

MAX_LINES_AT_ONCE = 4_000_000
"""Lines that are compared with each other at a time, where a month has not more."""
_WHOLE = r"^0*(\d*?)(?:\.0+)?$"

_AMOUNT = pl.coalesce("line_amount", pl.col("quantity") * pl.col("unit_price"))
_DAY = pl.col("invoiced_at").dt.date().alias("day")


def find_doubts(lines: pl.LazyFrame, facts: LogFacts) -> tuple[Doubt, ...]:
    """What is doubtful about a log.

    Args:
        lines: of all files, with the columns of ``raw_transactions`` but ``period``.
        facts: how they were read and are cleaned.
    """
    known = lines.filter(
        pl.col("excluded_by").is_null() & pl.col("customer_id").is_not_null() & pl.col("invoiced_at").is_not_null()
    ).with_columns(_AMOUNT.alias("amount"), _DAY)
    orders = (
        known.group_by("invoice_id", "customer_id", "day")
        .agg(
            pl.len().alias("n"),
            pl.col("amount").min().alias("low"),
            pl.col("amount").max().alias("high"),
            pl.col("amount").sum().alias("total"),
            *_OF_LINE_AMOUNTS["line_amount" in facts.headers],
            pl.col("source_file").min().alias("first_file"),
            pl.col("source_file").max().alias("last_file"),
        )
        .collect(engine="streaming")
    )
    if orders.is_empty():
        return ()
    found = [
        *total_names(orders, facts),
        *_invoice_numbers(orders, facts),
        *_order_totals(orders, facts),
        *_customer_ids(orders, facts),
        *_rules_of_known_export(known, facts),
        *_equal_lines(known, facts),
        *_one_customer(orders),
        *_single_orders(orders, facts),
        *_changed_orders(known, orders),
        *amount_doubts(lines, known, orders, facts),
    ]
    return tuple(found)


def _invoice_numbers(orders: pl.DataFrame, facts: LogFacts) -> Iterator[Doubt]:
    """Numbers that start again, every day or at every till, make one order of many."""
    if "invoice_id" not in facts.headers or facts.says_key:
        return
    numbers = (
        orders.drop_nulls("invoice_id")
        .group_by("invoice_id")
        .agg(
            pl.len().alias("n_orders"),
            pl.col("customer_id").n_unique().alias("n_customers"),
            pl.col("day").n_unique().alias("n_days"),
        )
    )
    shared = numbers.filter((pl.col("n_customers") > 1) | (pl.col("n_days") > 2))
    n_merged, n_orders = int(shared["n_orders"].sum()) - shared.height, int(numbers["n_orders"].sum())
    if n_merged < MIN_CASES or n_merged <= MAX_SHARED_NUMBERS * n_orders:
        return
    worst = shared.sort("n_customers", "n_days", "invoice_id", descending=[True, True, False]).row(0, named=True)
    of_day = (
        orders.drop_nulls("invoice_id").group_by("invoice_id", "day").agg(pl.col("customer_id").n_unique().alias("n"))
    )
    # Of a date and a time in two columns, one stands for the day.
    day, number = facts.headers["invoiced_at"].split(" + ")[0], facts.headers["invoice_id"]
    is_enough = of_day.filter(pl.col("n") > 1).height <= MAX_SHARED_NUMBERS * of_day.height
    parts = [day, number] if is_enough else [facts.headers["customer_id"], day, number]
    line = f"invoice_key = {_toml(parts)}"
    yield Doubt(
        "invoice_numbers",
        f"{shared.height:,} of {numbers.height:,} values of {number!r} are several orders' ({worst['invoice_id']!r} is"
        f" {count_of(worst['n_customers'], 'customer')}' on {count_of(worst['n_days'], 'day')}), so they start again",
        f"Write {line} under [source], with the column of the shop or the till where there is"
        f" one; if each is one order all the same, invoice_key = {_toml([number])}.",
        is_refused=True,
        line=line,
    )


def _order_totals(orders: pl.DataFrame, facts: LogFacts) -> Iterator[Doubt]:
    """The total of an order on each of its lines would count as often as the order has lines."""
    if "line_amount" not in facts.headers:
        return
    # Lines of one product may be units of it, and an order in two files is another doubt.
    is_of_units = pl.col("n_products") == 1 if "product_id" in facts.headers else pl.lit(False)
    several = orders.filter((pl.col("n") > 1) & (pl.col("high") != 0) & (pl.col("first_file") == pl.col("last_file")))
    several = several.filter(~is_of_units)
    equal = several.filter(pl.col("low_but_0") == pl.col("high"))
    share = 0 if "invoice_id" in facts.headers else MIN_DIFFERENT_SHARE
    if (
        equal.height < MIN_CASES
        or equal.height < MIN_EQUAL_AMOUNTS * several.height
        or equal["high"].n_unique() < max(MIN_DIFFERENT_AMOUNTS, share * equal.height)
    ):
        return
    worst = equal.sort("n", "invoice_id", descending=[True, False]).row(0, named=True)
    header = facts.headers["line_amount"]
    yield Doubt(
        "order_totals",
        f"{header!r} is equal on every line of {equal.height:,} of the {several.height:,} orders with several lines"
        f" ({worst['invoice_id'] or worst['customer_id']!r} has {worst['high']:g} on {worst['n']:,} lines), so it is"
        " the order's total",
        f"Write order_amount = {header!r} instead of line_amount under [source.columns].".replace("'", '"'),
        is_refused=True,
    )


def _customer_ids(orders: pl.DataFrame, facts: LogFacts) -> Iterator[Doubt]:
    """Ids of one customer in two writings, such as ``00140`` beside ``140`` and ``Anna`` beside ``anna``."""
    customers = orders.group_by("customer_id").agg(pl.col("n").sum())
    text = pl.col("customer_id")
    ways: list[tuple[pl.Expr, str, str, str]] = []
    if not facts.says_form:
        digits = pl.when(text.str.contains(_WHOLE)).then(text.str.replace(_WHOLE, "$1"))
        ways.append(
            (
                digits,
                "zeros at their beginning or after a point",
                'customer_id_form = "number"',
                'customer_id_form = "text"',
            )
        )
    if not facts.says_case:
        ways.append(
            (text.str.to_lowercase(), "upper and lower case", 'customer_id_case = "lower"', 'customer_id_case = "keep"')
        )
    ways = [(form, words, f"{one} under [source]", several) for form, words, one, several in ways]
    same = "the ids in one way in all files, with another program than a spreadsheet,"
    ways.append((_bare_id(text), "signs and spaces", same, 'accepted_doubts = ["customer_ids"] under [source]'))
    for form, words, one, several in ways:
        alike = (
            customers.with_columns(form.alias("form"))
            .drop_nulls("form")
            .group_by("form")
            .agg(text.sort().alias("ids"), pl.col("n").sum() - pl.col("n").max())
            .filter(pl.col("ids").list.len() > 1)
        )
        if alike.is_empty():
            continue
        n_lines, of = int(alike["n"].sum()), int(customers["n"].sum())
        pair = " and ".join(map(repr, alike.sort("form")["ids"][0][:2]))
        yield Doubt(
            "customer_ids",
            f"{alike.height:,} customers have several ids that differ in {words} only, such as {pair}"
            f" ({n_lines:,} of {of:,} lines)",
            f"Write {one} if they are the same customers, {several} if they are not.",
            is_refused=alike.height >= MIN_CASES and n_lines > MAX_ALIKE_IDS * of,
        )


def _bare_id(text: pl.Expr) -> pl.Expr:
    """An id as one may mean it: the address among other words, or letters and digits only, without ``.0``."""
    address = text.str.extract(r"([^\s<>()]+@[^\s<>()]+)")
    letters = text.str.replace(r"^(\d+)\.0+$", "$1").str.replace_all(r"[^\p{L}\p{N}@]", "")
    return pl.when(letters != "").then(pl.coalesce(address, letters))


def _rules_of_known_export(known: pl.LazyFrame, facts: LogFacts) -> Iterator[Doubt]:
    """A file with the columns of a known export may be another shop's, for which its rules are wrong."""
    rules = facts.rules
    product, invoice = pl.col("product_id"), pl.col("invoice_id")
    off = 'write preset = "none" under [source], and the columns under [source.columns]'
    if rules.service_code_max_digits is not None and "service_code_max_digits" not in facts.configured:
        n_digits = product.str.count_matches(r"\d")
        services = known.filter(n_digits <= rules.service_code_max_digits)
        n, n_services = (one.select(pl.len()).collect(engine="streaming").item() for one in (known, services))
        if n_services >= MIN_CASES and n_services > MAX_SERVICE_SHARE * n:
            code = services.select(product.min()).collect(engine="streaming").item()
            yield Doubt(
                "service_codes",
                f"{n_services:,} of {n:,} lines would be taken for services, because the known export's products"
                f" have codes with digits, unlike {code!r}",
                f"If this is another shop's export, {off}: {_columns(facts)}.",
                is_refused=True,
            )
    if rules.cancellation_prefix is not None and "cancellation_prefix" not in facts.configured:
        marked = known.filter(invoice.str.starts_with(rules.cancellation_prefix)).select(
            pl.len().alias("n"), (pl.col("amount") > 0).sum().alias("positive"), invoice.min().alias("example")
        )
        n, n_positive, example = marked.collect(engine="streaming").row(0)
        if n_positive >= MIN_CASES and n_positive * 2 > n:
            yield Doubt(
                "cancellation_prefix",
                f"{n:,} lines would be cancellations, because their invoice starts with {rules.cancellation_prefix!r},"
                f" as {example!r} does, but {n_positive:,} of them have positive amounts",
                f"If this is another shop's export, {off}: {_columns(facts)}.",
                is_refused=True,
            )


def _equal_lines(known: pl.LazyFrame, facts: LogFacts) -> Iterator[Doubt]:
    """Equal lines of one file: units sold one by one, or an export that has them twice."""
    if "duplicates" in facts.configured:
        return
    months = known.group_by(pl.col("invoiced_at").dt.truncate("1mo").alias("month")).len("n").sort("month")
    sizes = months.collect(engine="streaming")
    n, n_extra, n_alike = int(sizes["n"].sum()), 0, 0
    for since, until in _spans(sizes):
        # Equal lines have one instant, so each span has all of them.
        counted = _count_equal(known.filter(pl.col("invoiced_at").is_between(since, until, closed="left")))
        n_extra, n_alike = n_extra + counted[0], n_alike + counted[1]
    keeps = facts.rules.keeps_equal_lines
    if n_extra < MIN_CASES:
        return
    n_told, n_repeated = _orders_repeated_as_a_whole(known) if keeps else (0, 0)
    if n_told >= MIN_CASES:
        too_many = n_repeated > MAX_REPEATED_ORDERS * n_told
    else:
        too_many = n_alike > MAX_KEPT_EQUAL * n if keeps else n_extra > MAX_DROPPED_EQUAL * n
    if too_many:
        done = "would all count" if keeps else "would be dropped"
        unread = [name for name in ("invoice_id", "product_id") if name not in facts.headers]
        first = (
            f"If a column tells them apart, write it as {' or '.join(unread)} under [source.columns]. Otherwise write"
            if unread
            else "Write"
        )
        yield Doubt(
            "equal_lines",
            f"{n_extra:,} of {n:,} lines are equal to another line of their file, and {done}",
            f'{first} duplicates = "keep" under [cleaning] if each is something sold, duplicates = "drop" if the export'
            " repeats them.",
            is_refused=True,
        )


def _spans(months: pl.DataFrame) -> Iterator[tuple[datetime, datetime]]:
    """Spans of whole months with as many lines as memory allows: first instant, and first instant after."""
    first, n_lines = None, 0
    for month, n in months.iter_rows():
        if first is not None and n_lines + n > MAX_LINES_AT_ONCE:
            yield first, month
            first, n_lines = None, 0
        first, n_lines = first or month, n_lines + n
    if first is not None:
        yield first, datetime.max  # noqa: DTZ901  (the log has its own clock, without a zone)


def _count_equal(known: pl.LazyFrame) -> tuple[int, int]:
    """Lines that are equal to an earlier one of their file, and lines that are equal to any other of it.

    Comparing a digest of a few columns first leaves few lines whose many columns have to be compared.
    """
    digest = pl.struct("customer_id", "invoiced_at", "product_id", "source_file").hash()
    digests = known.select(digest).collect(engine="streaming").to_series()
    shared = digests.filter(digests.is_duplicated()).unique()
    suspects = known.filter(digest.is_in(shared.implode()))
    groups = suspects.group_by(*MAPPED_NAMES, "source_file").len("n").filter(pl.col("n") > 1)
    counted = groups.select((pl.col("n") - 1).sum().alias("extra"), pl.col("n").sum().alias("in_groups"))
    n_extra, n_alike = counted.collect(engine="streaming").row(0)
    return n_extra, n_alike


def _orders_repeated_as_a_whole(known: pl.LazyFrame) -> tuple[int, int]:
    """Orders with several different lines of which some come again, and how many of them repeat all equally often.

    Units that are sold one by one are of different numbers; an export, or a join, repeats whole orders.
    """
    lines = known.group_by(*MAPPED_NAMES, "source_file").len("n")
    orders = lines.group_by("invoice_id", "customer_id", pl.col("invoiced_at").dt.date(), "source_file").agg(
        pl.len().alias("lines"), pl.col("n").min().alias("fewest"), pl.col("n").max().alias("most")
    )
    several = orders.filter((pl.col("lines") > 1) & (pl.col("most") > 1))
    is_whole = pl.col("fewest") == pl.col("most")
    n, n_whole = several.select(pl.len(), is_whole.sum()).collect(engine="streaming").row(0)
    return n, n_whole


def _one_customer(orders: pl.DataFrame) -> Iterator[Doubt]:
    """A customer with very many orders is often the till's, or what a shop writes for nobody."""
    counted = orders.group_by("customer_id").len("n").sort("n", "customer_id", descending=[True, False])
    customer, n = counted.row(0)
    next_n = counted["n"][1] if counted.height > 1 else 0
    is_far = n > MAX_ORDERS_OF_OUTLIER * orders.height and n > MIN_OUTLIER_RATIO * next_n
    is_much = is_far or n > MAX_ORDERS_OF_ONE * orders.height
    if orders.height >= MIN_ORDERS and counted.height >= MIN_CASES and is_much:
        yield Doubt(
            "one_customer",
            f"customer {customer!r} has {n:,} of {orders.height:,} orders",
            f'If it stands for nobody, write no_customer = ["{customer}"] under [source].',
            is_refused=False,
        )


def _single_orders(orders: pl.DataFrame, facts: LogFacts) -> Iterator[Doubt]:
    """An id that is new with every order is not a customer's."""
    n_customers = orders["customer_id"].n_unique()
    if orders.height == n_customers >= MIN_ORDERS:
        yield Doubt(
            "single_orders",
            f"each of {n_customers:,} customers has exactly one order",
            f"If {facts.headers['customer_id']!r} is new with every order, map customer_id to a column that stays the"
            " same when somebody comes again.",
            is_refused=False,
        )


def _changed_orders(known: pl.LazyFrame, orders: pl.DataFrame) -> Iterator[Doubt]:
    """An order in two overlapping exports counts twice with what is not the same in both.

    Lines that are equal in all columns count once (see ``cleaning``); here is looked for orders of which more lines
    are left than the largest of their files has.
    """
    shared = orders.filter((pl.col("first_file") != pl.col("last_file")) & pl.col("invoice_id").is_not_null())
    if shared.is_empty():
        return
    key = ("invoice_id", "customer_id", "day")
    nth = pl.int_range(pl.len()).over(*MAPPED_NAMES, "source_file").alias("nth")
    lines = known.join(shared.lazy().select(key), on=key, how="semi").with_columns(nth)
    per_file = lines.group_by(*key, "source_file").agg(pl.len().alias("n"), pl.col("amount").sum())
    largest = per_file.group_by(key).agg(
        pl.col("n").max().alias("n_most"), pl.col("amount").min(), pl.col("source_file").sort().alias("files")
    )
    left = lines.unique([*MAPPED_NAMES, "nth"]).group_by(key).agg(pl.len().alias("n_left"), pl.col("amount").sum())
    changed = (
        left.join(largest, on=key, suffix="_of_file")
        .filter(pl.col("n_left") > pl.col("n_most"))
        .sort("invoice_id")
        .collect(engine="streaming")
    )
    if changed.is_empty():
        return
    first = changed.row(0, named=True)
    twice = float((changed["amount"] - changed["amount_of_file"]).sum())
    total = float(orders["total"].sum())
    yield Doubt(
        "changed_orders",
        f"{count_of(changed.height, 'order')} in several files with other lines, such as {first['invoice_id']!r} in"
        f" {' and '.join(first['files'][:2])}; what differs counts twice, up to {twice:,.2f} of {total:,.2f}",
        "Take the older export out, or give both the same name, so that the newer one corrects the older.",
        is_refused=changed.height >= MIN_CASES and abs(twice) > MAX_TWICE * abs(total),
    )


def _columns(facts: LogFacts) -> str:
    return ", ".join(f'{name} = "{header}"' for name, header in facts.headers.items())


def _toml(values: list[str]) -> str:
    return "[{}]".format(", ".join(f'"{value}"' for value in values))
