"""What the tables say about the soundness of the data, for the assets that decide something."""

from __future__ import annotations

from collections.abc import Mapping

from custseg_assets.defs.resources import Stores
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS
from custseg_assets.domain.transactions.quality import reject_shares, unusual_periods


def reject_shares_of(stores: Stores) -> dict[str, float]:
    """Rejected lines / raw lines of every period taken in so far."""
    return reject_shares(stores.tables.sizes(REJECTED_TRANSACTIONS), stores.tables.sizes(CLEAN_TRANSACTIONS))


def unsound_in_window(stores: Stores, key: str) -> Mapping[str, str]:
    """What speaks against training on a snapshot's window, by period; see ``unusual_periods``.

    A blocking check that fails ends the run before anything is decided, so what is left to look at is the share of
    rejected lines, which only warns.
    """
    return unusual_periods(reject_shares_of(stores), stores.provenance.window(key).keys)
