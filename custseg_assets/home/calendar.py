"""The periods and snapshots that a home has, as its deliveries decide them.

When a snapshot is taken and how far it looks back belongs in ``domain.periods``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cached_property

from custseg_assets.domain.periods import Window, keys_between, snapshot_keys, window_of
from custseg_assets.settings import SnapshotSettings
from custseg_assets.stores.deliveries import Delivery, period_content


class Calendar:
    """Periods, snapshots and observation windows; a value, made anew when the deliveries change.

    Args:
        settings: length of a period, and how far a snapshot looks back.
        deliveries: that make up the source.
    """

    def __init__(self, settings: SnapshotSettings, deliveries: tuple[Delivery, ...]) -> None:
        self._settings, self.deliveries = settings, deliveries
        days = [day for delivery in deliveries for day in (delivery.first_date, delivery.last_date)]
        self.period_keys = keys_between(min(days), max(days), settings.cadence) if days else ()
        """Every period from the source's first row to its last, also those without rows."""
        self.snapshot_keys = snapshot_keys(self.period_keys, settings.lookback) if days else ()
        """The periods at whose end a snapshot is taken."""

    @cached_property
    def contents(self) -> dict[str, tuple[int, str]]:
        """Period key → how many raw lines the period has, and a digest of them."""
        return period_content(self.deliveries, self._settings.cadence)

    def rows_of(self, keys: Iterable[str]) -> dict[str, int]:
        """How many raw lines each period has."""
        return {key: self.contents.get(key, (0, ""))[0] for key in keys}

    def window(self, key: str) -> Window:
        """The observation window of the snapshot ``key``."""
        return window_of(key, self.period_keys[0], self._settings.lookback, self._settings.cadence)

    def observed_until(self, key: str) -> datetime:
        """How far the data reach into a snapshot: its ``as_of``, or the end of the source's last day before that."""
        last = max(delivery.last_date for delivery in self.deliveries)
        return min(self.window(key).as_of, datetime.combine(last + timedelta(days=1), datetime.min.time()))

    def is_complete(self, key: str) -> bool:
        """Whether the data reach to the end of a snapshot."""
        return self.observed_until(key) == self.window(key).as_of

    def periods_until(self, key: str) -> tuple[str, ...]:
        """Every period up to and with ``key``."""
        return tuple(period for period in self.period_keys if period <= key)
