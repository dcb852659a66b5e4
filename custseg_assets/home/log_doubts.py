"""How a home's log is cleaned, and what is doubtful about it as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.domain.transactions.doubts import find_doubts
from custseg_assets.domain.transactions.log_facts import Doubt, LogFacts
from custseg_assets.domain.transactions.platforms import PRESETS
from custseg_assets.errors import BadInputError
from custseg_assets.settings import Settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import Delivery

_READ_ONCE = 1_000_000
"""Lines up to which a log is in memory while it is looked at, some 200 bytes each; of more, each doubt reads it."""


def rules_for(deliveries: Sequence[Delivery], settings: Settings) -> CleaningRules:
    """The shop's rules: what is configured, else what the preset of its files says."""
    own = settings.cleaning
    named = {delivery.preset for delivery in deliveries if delivery.preset}
    preset = PRESETS[min(named)] if named else None
    configured = own.model_dump(exclude_none=True, exclude={"duplicates", "negative_prices"})
    if own.service_code_max_digits == 0:
        configured["service_code_max_digits"] = None
    of_preset = {name: getattr(preset, name) for name in _OF_PRESETS} if preset else {}
    return CleaningRules(
        **{**of_preset, **configured},
        # Where every line is one unit, two equal lines are two of them. Some platforms write no line twice, where lines
        # have keys, those that come again are left out already, and no share of an order's total may be lost.
        keeps_equal_lines=own.duplicates == "keep"
        if own.duplicates and not _shares_totals(deliveries)
        else (preset is not None and preset.keeps_equal_lines)
        or _counts_each_line(deliveries, settings)
        or (bool(deliveries) and not any(delivery.counts_units for delivery in deliveries)),
        keeps_negative_prices=own.negative_prices == "keep"
        if own.negative_prices
        else preset is None or preset.keeps_negative_prices,
    )


def _counts_each_line(deliveries: Sequence[Delivery], settings: Settings) -> bool:
    """Whether no line is there twice, or it does not matter.

    Where lines have keys, those that come again are left out already; where an order's total is shared out to its
    lines, each is needed for the total.
    """
    if _shares_totals(deliveries):
        return True
    named = {delivery.preset for delivery in deliveries}
    has_key = {name: all(layout.line_key for layout in preset.layouts) for name, preset in PRESETS.items()}
    return bool(settings.source.line_key or (named and all(has_key.get(name or "") for name in named)))


def _shares_totals(deliveries: Sequence[Delivery]) -> bool:
    """Whether lines have shares of their orders' totals, which are the same however often a line is there."""
    return any("order_amount" in delivery.columns for delivery in deliveries)


_OF_PRESETS = ("service_code_max_digits", "service_descriptions", "cancellation_prefix")


def require_no_doubt(store: DeliveryStore, deliveries: Sequence[Delivery], settings: Settings) -> tuple[str, ...]:
    """What is doubtful about a log but no reason to stop, in sentences.

    Args:
        store: with the deliveries.
        deliveries: that make up the log.
        settings: how it is read and cleaned, and which doubts somebody has looked into.

    Raises:
        BadInputError: it must not be read before somebody has said what it means.
    """
    doubts = find_log_doubts(store, deliveries, settings)
    refused = [doubt for doubt in doubts if doubt.is_refused and doubt.code not in settings.source.accepted_doubts]
    if refused:
        first = refused[0]
        raise BadInputError(
            f"the log is doubtful: {first.words}",
            "a log whose figures can be trusted",
            f'{first.advice} If all is right, accepted_doubts = ["{first.code}"] under [source] says so.',
            {"source": [first.line]} if first.line else None,
        )
    return tuple(str(doubt) for doubt in doubts)


def find_log_doubts(store: DeliveryStore, deliveries: Sequence[Delivery], settings: Settings) -> tuple[Doubt, ...]:
    """What is doubtful about a log.

    Args:
        store: with the deliveries.
        deliveries: that make up the log.
        settings: how it is read and cleaned.
    """
    source = settings.source
    facts = LogFacts(
        headers=deliveries[0].columns,
        rules=rules_for(deliveries, settings),
        configured=frozenset(settings.cleaning.model_dump(exclude_none=True))
        | ({"duplicates"} if _counts_each_line(deliveries, settings) else set()),
        says_case=source.customer_id_case is not None,
        says_form=source.customer_id_form is not None,
        says_key=bool(source.invoice_key),
    )
    lines = store.scan(deliveries)
    if sum(one.n_rows for one in deliveries) <= _READ_ONCE:
        lines = lines.collect(engine="streaming").lazy()
    return find_doubts(lines, facts)
