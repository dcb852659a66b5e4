"""What of a home may be elsewhere: its tables, its bucket, its trainer; ``gcp`` is imported only where configured."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from custseg_assets.home.fixed_settings import ON_DISK, PLACE, require_same_shape, shape_of
from custseg_assets.settings import Settings
from custseg_assets.stores.home import Home
from custseg_assets.stores.tables import TableStore

if TYPE_CHECKING:
    from custseg_assets.domain.promotion.retraining import TrainingCost
    from custseg_assets.gcp.bucket import Bucket


def tables_of(settings: Settings) -> TableStore:
    """The home's tables, wherever they are; everybody asks here, so that no two look in different places.

    Raises:
        BadInputError: the home's tables are in another place than the configured one.
    """
    require_same_shape(settings, PLACE)
    home, place = Home(settings.home), shape_of(settings)[PLACE]
    if place == ON_DISK:
        return TableStore(home.tables)
    return _tables_in_bucket(place, settings.gcp.endpoints.storage, home.notes)


@lru_cache
def _tables_in_bucket(uri: str, endpoint: str | None, notes: Path) -> TableStore:
    """One for the process: to open every table again costs hundreds of requests."""
    from custseg_assets.stores.bucket_tables import TablesInBucket

    return TablesInBucket(uri, endpoint, notes)


def bucket_of(settings: Settings) -> Bucket | None:
    """The configured bucket; ``None`` without one.

    Raises:
        BadInputError: there are no credentials.
    """
    return bucket_at(settings, settings.gcp.storage.uri) if settings.gcp.storage.uri else None


def bucket_at(settings: Settings, uri: str) -> Bucket:
    """A bucket with the configured credentials.

    Raises:
        BadInputError: there are no credentials.
    """
    from custseg_assets.gcp.bucket import Bucket
    from custseg_assets.gcp.clients import storage_client

    return Bucket(storage_client(settings.gcp), uri)


def training_cost(settings: Settings) -> TrainingCost | None:
    """What the retrain decision reckons with; ``None`` where nothing is trained on Vertex AI."""
    if settings.gcp.training.image is None:
        return None
    from custseg_assets.gcp.costs import training_cost

    return training_cost(settings.gcp.training)
