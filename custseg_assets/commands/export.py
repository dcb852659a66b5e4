"""``custseg export``: a table of the home as a file."""

from __future__ import annotations

from pathlib import Path

from custseg_assets.domain.schemas import Table, tables
from custseg_assets.errors import BadInputError
from custseg_assets.home.open import OpenHome
from custseg_assets.stores.files import replacement_for

_SUFFIXES = (".parquet", ".csv")


def export_table(home: OpenHome, name: str, key: str | None, out: Path) -> int:
    """Write a table, or one partition of it, to a file; the file is whole or not there.

    Args:
        home: with the table.
        name: the table.
        key: a partition; all without it.
        out: where to; its suffix says the format.

    Returns:
        How many rows were written.

    Raises:
        BadInputError: there is no such table or partition, or the file cannot be written.
    """
    store, table = home.tables, _find_table(home, name)
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


def _find_table(home: OpenHome, name: str) -> Table:
    every = tables(home.settings.model.features)
    if name not in every:
        raise BadInputError(f"table {name!r}", f"one of {', '.join(every)}", "Name one of those.")
    if home.tables.version_of(name) is None:
        raise BadInputError(
            f"table {name} has not been made in home {home.paths.root}",
            "a home that a run has filled",
            "Do 'custseg run' first, or set CUSTSEG_HOME to the home you mean.",
        )
    return every[name]
