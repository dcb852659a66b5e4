"""The mark of a home that was made from an exported model: a record to look at, in which nothing is made.

How it is made, and compared with the export, is in ``model_exports``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from custseg_assets.errors import BadInputError
from custseg_assets.settings import HOME_VARIABLE
from custseg_assets.stores.files import read_state, write_state
from custseg_assets.stores.home import Home


@dataclass(frozen=True)
class Restored:
    """What a restored home was made from.

    Attributes:
        model_version: of the model.
        trained_on: key of its snapshot.
        as_of: day that the snapshot is as of.
        exported_to: folder of the export.
    """

    model_version: str
    trained_on: str
    as_of: str
    exported_to: str


def read_restored(paths: Home) -> Restored | None:
    """What a home was restored from; ``None`` for every other home.

    Raises:
        DamagedHomeError: the mark cannot be read.
    """
    fields = read_state(paths.restored, *Restored.__dataclass_fields__)
    return Restored(**{name: fields[name] for name in Restored.__dataclass_fields__}) if fields else None


def mark_restored(paths: Home, restored: Restored) -> None:
    """Mark a home as restored."""
    write_state(paths.restored, asdict(restored))


def require_not_restored(paths: Home) -> None:
    """Refuse to make anything in a restored home: it has no deliveries that partitions could be made from.

    Raises:
        BadInputError: it is one.
    """
    if restored := read_restored(paths):
        raise BadInputError(
            f"home {paths.root}, which was restored from model {restored.model_version} and is only to be looked at",
            "a home of your own, which 'custseg run' fills",
            f"Name another folder with {HOME_VARIABLE}; 'custseg status' says what can be done with this one.",
        )
