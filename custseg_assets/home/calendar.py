"""The periods and snapshots that a home has, as its deliveries decide them, and which of the snapshots is open.

When a snapshot is taken and how far it looks back belongs in ``domain.periods``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cached_property

from custseg_assets.domain.periods import Window, keys_between, midnight, snapshot_keys, window_of
from custseg_assets.settings import SnapshotSettings
from custseg_assets.stores.delivery import Delivery, period_content


class Calendar:
    """Periods, snapshots and observation windows; a value, made anew when the deliveries change.

    Args:
        settings: length of a period, and how far a snapshot looks back.
        deliveries: that make up the source.
        closed_through: key of the last period that was closed although the data do not reach its end.
    """

    def __init__(
        self, settings: SnapshotSettings, deliveries: tuple[Delivery, ...], closed_through: str | None = None
    ) -> None:
        self._settings, self.deliveries, self._closed_through = settings, deliveries, closed_through
        days = [day for delivery in deliveries for day in (delivery.first_date, delivery.last_date)]
        self.period_keys = keys_between(min(days), max(days), settings.cadence) if days else ()
        """Every period from the source's first row to its last, also those without rows."""
        is_open = any(self.window(key).is_open for key in self.period_keys[-1:])
        self.open_key = self.period_keys[-1] if is_open else None
        """Key of the period that is not over, and of its snapshot; ``None`` where the last one is."""
        self.snapshot_keys = snapshot_keys(self.period_keys, settings.lookback, is_open=is_open) if days else ()
        """The periods that have a snapshot: at their end or, where the last one is not over, as of its last day."""

    @cached_property
    def contents(self) -> dict[str, tuple[int, str]]:
        """Period key → how many raw lines the period has, and a digest of them."""
        return period_content(self.deliveries, self._settings.cadence)

    def rows_of(self, keys: Iterable[str]) -> dict[str, int]:
        """How many raw lines each period has."""
        return {key: self.contents.get(key, (0, ""))[0] for key in keys}

    def window(self, key: str, until: datetime | None = None) -> Window:
        """The observation window of the snapshot ``key``.

        Args:
            key: of the snapshot.
            until: how far the data reached; without it, how far they reach now.
        """
        is_closed = self._closed_through is not None and key <= self._closed_through
        until = until or (None if is_closed else self._data_end)
        return window_of(key, self.period_keys[0], self._settings.lookback, self._settings.cadence, until)

    @cached_property
    def _data_end(self) -> datetime:
        return midnight(max(delivery.last_date for delivery in self.deliveries) + timedelta(days=1))

    @property
    def closed_keys(self) -> tuple[str, ...]:
        """The closed snapshots, which the shop's own history is made of."""
        return tuple(key for key in self.snapshot_keys if key != self.open_key)

    def observed_until(self, key: str) -> datetime:
        """How far the data reach into a snapshot's period: its end, or the end of the source's last day before that."""
        return min(self.window(key).period_end, self._data_end)

    def is_complete(self, key: str) -> bool:
        """Whether the data reach to the end of a snapshot's period."""
        return self.observed_until(key) == self.window(key).period_end

    def periods_until(self, key: str) -> tuple[str, ...]:
        """Every period up to and with ``key``."""
        return tuple(period for period in self.period_keys if period <= key)
