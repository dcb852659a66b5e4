"""``custseg export``: a table of the home as a file."""

from __future__ import annotations

from pathlib import Path

from custseg_assets.domain.schemas import Table, tables
from custseg_assets.errors import BadInputError
from custseg_assets.home.open import tables_of
from custseg_assets.settings import Settings
from custseg_assets.stores.files import replacement_for
from custseg_assets.stores.tables import TableStore

_SUFFIXES = (".parquet", ".csv")


def export_table(settings: Settings, name: str, key: str | None, out: Path) -> int:
    """Write a table, or one partition of it, to a file; the file is whole or not there.

    Args:
        settings: whose home it is.
        name: the table.
        key: a partition; all without it.
        out: where to; its suffix says the format.

    Returns:
        How many rows were written.

    Raises:
        BadInputError: there is no such table or partition, or the file cannot be written.
    """
    store = tables_of(settings)
    table = _table(settings, store, name)
    if out.suffix not in _SUFFIXES:
        raise BadInputError(
            f"--out {out}", f"a name that ends in {' or '.join(_SUFFIXES)}", "Choose one of the formats."
        )
    keys = list(store.sizes(table))
    if key is not None and key not in keys and store.fingerprint_of(name, key) is None:
        raise BadInputError(
            f"partition {key} of {name}", f"one of {', '.join(keys)}", "Name one of those, or leave it out for all."
        )
    frame = store.read(table, keys if key is None else [key])
    try:
        with replacement_for(out) as unfinished:
            if out.suffix == ".csv":
                frame.write_csv(unfinished)
            else:
                frame.write_parquet(unfinished)
    except OSError as error:
        raise BadInputError(
            f"--out {out}: {error.strerror or error}", "a file that can be written", "Name another."
        ) from None
    return frame.height


def _table(settings: Settings, store: TableStore, name: str) -> Table:
    every = tables(settings.model.features)
    if name not in every:
        raise BadInputError(f"table {name!r}", f"one of {', '.join(every)}", "Name one of those.")
    if store.version_of(name) is None:
        raise BadInputError(
            f"table {name} has not been made in home {settings.home}",
            "a home that a run has filled",
            "Do 'custseg run' first, or set CUSTSEG_HOME to the home you mean.",
        )
    return every[name]
