"""A log in any conventions is read to what it was made of, or refused; never to anything else."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

import narwhals as nw
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from custseg_assets.domain.transactions.cleaning import classify
from custseg_assets.errors import BadInputError
from custseg_assets.home.log_doubts import require_no_doubt, rules_for
from custseg_assets.settings import Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.deliveries import DeliveryStore
from tests.support import writings
from tests.support.made_logs import IdKind, Line, Returns, Shop
from tests.support.writings import Writing

N_EXAMPLES = int(os.environ.get("CUSTSEG_FUZZ_EXAMPLES", "800"))
"""Enough for every day; ``.ci/run`` asks for 2,000."""

Row = tuple[str, str, Any, int]
"""Customer, order, instant and amount in thousandths of a line that counts."""


def rows_of(lines: Sequence[Line], writing: Writing) -> list[Row]:
    """What the log was made of, as far as it is written down."""
    known = [line for line in lines if line.customer and not (line.is_void and writing.status != "none")]
    currencies = {line.currency for line in known}
    # A log whose customers all pay in one currency is in that one.
    own = currencies if writing.foreign == "none" or (writing.foreign == "unsaid" and len(currencies) == 1) else {"EUR"}
    return sorted(
        (line.customer, order, at, line.net if writing.refunds != "none" else line.amount)
        for line in known
        if line.currency in own
        for at in [writing.instant(line.at)]
        for order in [str(line.order) if writing.has_orders else f"{line.customer} {at:%Y-%m-%d}"]
    )


def read(folder: Path, writing: Writing, content: bytes) -> list[Row]:
    """The lines that count, by the way that ``custseg run`` takes.

    Raises:
        BadInputError: the file is refused.
    """
    settings = Settings(source=SourceSettings(**writing.settings()))
    path = folder / writing.file_name
    path.write_bytes(content)
    try:
        store = DeliveryStore(folder / "deliveries")
        deliveries = [store.accept(path, settings.source, lambda _: None)]
        require_no_doubt(store, deliveries, settings)
        rules = rules_for(deliveries, settings)
        lines = nw.to_native(classify(nw.from_native(store.scan(deliveries)), rules)).filter(pl.col("reason").is_null())
        day_order = pl.concat_str("customer_id", pl.col("invoiced_at").dt.date().cast(pl.String), separator=" ")
        order = pl.coalesce("invoice_id", day_order)
        found = lines.select("customer_id", order, "invoiced_at", "line_amount").collect()
    finally:
        path.unlink()
        shutil.rmtree(folder / "deliveries", ignore_errors=True)
    return sorted((customer, order, at, round(amount * 1000)) for customer, order, at, amount in found.iter_rows())


def has_no_order(lines: Sequence[Line], writing: Writing) -> bool:
    """Whether nobody could tell day and month of the dates from each other."""
    style, days = writing.date_style, [line.at for line in lines]
    is_told = writing.says_dates or not writing.is_text or style.is_short or not style.is_in_doubt
    return not is_told and all(at.day <= 12 for at in days) and any(at.day != at.month for at in days)


def doubt_about(lines: Sequence[Line], shop: Shop, writing: Writing) -> str:
    """What a careful person could not tell from the file either; ``""`` where nothing is left in doubt."""
    style, is_file = writing.date_style, writing.format == "text"
    is_day_shown = style.is_in_doubt and not style.is_short and any(line.at.day > 12 for line in lines)
    is_priced = writing.amounts != "totals"
    doubts = {
        "dates": writing.is_text and style.is_in_doubt and not (writing.says_dates or is_day_shown),
        "numbers": writing.is_text
        and not writing.says_decimal
        and (
            (shop.grain == "mills" or (shop.grain == "whole" and writing.thousands == "other"))
            or (is_priced and writing.quantities == "three decimals")
        ),
        "statuses": "unsaid" in (writing.status, writing.refunds, writing.foreign),
        "encoding": is_file and writing.encoding.startswith("cp1252") and writing.encoding != "cp1252",
        "signs": is_file
        and writing.encoding == "cp1252"
        and bool({writing.thousands, writing.negative} & NOT_IN_CP1252),
        "quotes": is_file and writing.quoting in ("none", "backslash before quotes"),
    }
    return next((name for name, is_it in doubts.items() if is_it), "")


NOT_IN_CP1252 = {"\u202f", "\u22121"}


@dataclass
class Tally:
    """What became of the examples."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: list[tuple[str, Shop, Writing]] = field(default_factory=list)


def check(folder: Path, shop: Shop, writing: Writing, tally: Tally) -> None:
    """Assert that a log is read to what it was made of, or refused, and refused where nobody could read it."""
    lines = shop.lines()
    content = writing.write(lines)
    try:
        found = read(folder, writing, content)
    except BadInputError as error:
        tally.outcomes["refused", doubt_about(lines, shop, writing)] += 1
        tally.refusals.append((str(error), shop, writing))
        return
    assert not has_no_order(lines, writing), f"the order of day and month was guessed\n{shop}\n{writing}"
    expected = rows_of(lines, writing)
    if found != expected:
        pytest.fail(explain(found, expected, shop, writing, content))
    tally.outcomes["read", doubt_about(lines, shop, writing)] += 1


def explain(found: Sequence[Row], expected: Sequence[Row], shop: Shop, writing: Writing, content: bytes) -> str:
    more, less = (
        sorted((Counter(one) - Counter(other)).elements()) for one, other in ((found, expected), (expected, found))
    )
    shown = replace(writing, packing="plain").write(shop.lines()) if writing.format == "text" else content
    return (
        f"{len(found)} lines read, {len(expected)} made; net {sum(row[3] for row in found) / 1000:,.3f}, made"
        f" {sum(row[3] for row in expected) / 1000:,.3f}\nread: {more[:5]}\nmade: {less[:5]}\n{shop}\n{writing}\n"
        f"{writing.settings()}\n{shown[:9000]!r}"
    )


def often(plain: Any, values: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Mostly the plain value, so that one convention is not always hidden by the refusal of another."""
    others = [value for value in values if value != plain]
    return st.sampled_from([plain] * len(others) + others)


SHOPS = st.builds(
    Shop,
    seed=st.integers(0, 1 << 32),
    n_lines=st.integers(20, 200),
    ids=st.sampled_from(get_args(IdKind)),
    grain=st.sampled_from(("cents", "cents", "cents", "whole", "mills")),
    first=st.dates(date(2009, 1, 1), date(2025, 1, 1)),
    n_days=st.sampled_from((300, 30, 5, 90, 700, 1100)),
    is_early=st.sampled_from((False, False, False, False, False, True)),
    returns=st.sampled_from(get_args(Returns)),
    share_void=often(0.0, (0.02, 0.2)),
    share_refunded=often(0.0, (0.02, 0.2)),
    share_nobody=often(0.0, (0.02, 0.3)),
    share_foreign=often(0.0, (0.02, 0.3)),
)

OPTIONS: dict[str, Sequence[Any]] = {
    "delimiter": writings.DELIMITERS,
    "quoting": writings.QUOTING,
    "decimal": writings.DECIMALS,
    "thousands": writings.THOUSANDS,
    "negative": writings.NEGATIVES,
    "currency": writings.CURRENCIES,
    "digits": writings.DIGITS,
    "dates": tuple(writings.DATES),
    "encoding": writings.ENCODINGS,
    "line_end": writings.LINE_ENDS,
    "preamble": writings.PREAMBLES,
    "footer": writings.FOOTERS,
    "packing": writings.PACKINGS,
    "format": writings.FORMATS,
    "amounts": writings.AMOUNTS,
    "nobody": writings.NOBODY,
    "ids": writings.ID_STYLES,
    "status": writings.STATUSES,
    "refunds": ("none", "said", "unsaid"),
    "foreign": writings.STATUSES,
    "extras": writings.EXTRAS,
    "headers": writings.HEADERS,
    "quantities": writings.QUANTITIES,
    "order": (0, 1, 2, 3, 4, 5),
    "has_orders": (True, False),
    "has_gaps": (False, True),
    "is_sparse": (False, True),
    "is_padded": (False, True),
    "says_dates": (False, True),
    "says_decimal": (False, True),
}
PLAIN = Writing()
FREQUENT = ("delimiter", "dates", "amounts", "order", "headers")
WRITINGS = st.builds(
    Writing,
    **{
        name: st.sampled_from(values) if name in FREQUENT else often(getattr(PLAIN, name), values)
        for name, values in OPTIONS.items()
    },
)


def test_a_log_is_read_to_what_it_was_made_of_or_refused(tmp_path: Path) -> None:
    tally = Tally()

    @profile(
        max_examples=N_EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(SHOPS, WRITINGS)
    def run(shop: Shop, writing: Writing) -> None:
        check(tmp_path, shop, writing, tally)

    run()
    n_read, n_refused = (tally.outcomes[outcome, ""] for outcome in ("read", "refused"))
    assert n_read > 0.3 * N_EXAMPLES
    # One that refuses everything would be right as well.
    assert n_read > 0.9 * (n_read + n_refused), tally.refusals


EVERYDAY = Shop(
    seed=13,
    n_lines=120,
    returns="quantity",
    share_void=0.1,
    share_refunded=0.1,
    share_nobody=0.1,
    share_foreign=0.1,
)
DOUBTFUL = {
    *(("dates", name) for name, style in writings.DATES.items() if style.is_short and style.is_in_doubt),
    ("quoting", "none"),
    ("quoting", "backslash before quotes"),
    ("encoding", "cp1252 unsaid"),
    ("status", "unsaid"),
    ("refunds", "unsaid"),
    ("foreign", "unsaid"),
}
"""Conventions that may leave a log in doubt if nothing is said of them."""


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values], ids=repr
)
def test_each_convention_by_itself_is_read_unless_it_leaves_a_doubt(tmp_path: Path, name: str, value: Any) -> None:
    writing = replace(PLAIN, **{name: value})
    if name == "quantities":
        writing = replace(writing, amounts="priced")
    shop = replace(EVERYDAY, ids="e-mails") if value == "any case" else EVERYDAY
    tally = Tally()
    check(tmp_path, shop, writing, tally)
    assert not tally.refusals or (name, value) in DOUBTFUL


@pytest.mark.parametrize("dates", [name for name, style in writings.DATES.items() if style.is_in_doubt])
def test_dates_that_leave_their_order_in_doubt_are_refused(tmp_path: Path, dates: str) -> None:
    shop, tally = replace(EVERYDAY, is_early=True), Tally()
    check(tmp_path, shop, replace(PLAIN, dates=dates), tally)
    assert [message for message, _, _ in tally.refusals if "is ambiguous" in message]
    check(tmp_path, shop, replace(PLAIN, dates=dates, says_dates=True), tally)
    assert tally.outcomes["read", ""] == 1
