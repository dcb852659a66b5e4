"""What a configuration makes of a source: read, cleaned and looked into as by ``custseg run``, but without a home."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import narwhals as nw
import polars as pl

from custseg_assets.domain.transactions.cleaning import classify, clean_lines
from custseg_assets.home.intake import refuse_stray_days, take_in_source
from custseg_assets.home.log_doubts import require_no_doubt, rules_for
from custseg_assets.settings import load_settings
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource


@dataclass(frozen=True)
class Reading:
    """What came out.

    Attributes:
        raw: every line, with the reason why it does not count or null.
        kept: the lines that count.
        said: what was said about it, each in a sentence.
    """

    raw: pl.DataFrame
    kept: pl.DataFrame
    said: tuple[str, ...]

    @property
    def customers(self) -> int:
        """Different customers among the lines that count."""
        return self.kept["customer_id"].n_unique()

    @property
    def orders(self) -> int:
        """Different orders, without what was only taken back."""
        return self.kept.filter(~pl.col("is_cancellation"))["invoice_id"].n_unique()

    @property
    def net(self) -> float:
        """What the lines that count are worth together."""
        return float(self.kept["line_amount"].sum())

    @property
    def figures(self) -> tuple[int, int, float]:
        """Customers, orders and money."""
        return self.customers, self.orders, round(self.net, 2)


def read_as_configured(toml: str, source: str | Path | None = None) -> Reading:
    """Read the source that a configuration names, or another one.

    Args:
        toml: text of a ``custseg.toml``; relative paths in it are those of the working folder.
        source: instead of its own.

    Raises:
        BadInputError: a run would refuse it.
    """
    said: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "custseg.toml").write_text(toml, encoding="utf-8")
        settings = load_settings(folder / "custseg.toml", source=str(source) if source else None)
        store = DeliveryStore(folder / "deliveries")
        path = settings.source.path or ""
        deliveries = take_in_source(store, path, settings, said.append)
        refuse_stray_days(store, path, CurrentSource(), CurrentSource(tuple(deliveries)), settings)
        said += require_no_doubt(store, deliveries, settings)
        rules = rules_for(deliveries, settings)
        lines = nw.from_native(store.scan(deliveries).with_columns(pl.lit("").alias("period")))
        classified = classify(lines, rules)
        raw = nw.to_native(classified).sort("source_file", "source_row").collect()
        kept = nw.to_native(clean_lines(classified, rules)).collect()
    return Reading(raw, kept.sort(kept.columns), tuple(said))
