"""Records of campaigns: one folder for each, which appears whole in one step and is never changed.

All that hangs on a campaign, its tables, the files of its audience and the release, is made of the record again, so
nothing has to be done together with it. What a campaign is split by belongs in ``domain.campaigns``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from custseg_assets.domain.periods import midnight
from custseg_assets.errors import BadInputError, DamagedHomeError
from custseg_assets.stores.files import make_durable, read_state, write_state

RECORD, GROUPS, ENDED = "campaign.json", "groups.parquet", "ended.json"
MAX_NAME = 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
_WRITING = ".writing-"
_GROUP_TYPES = {
    "customer_id": pl.String(),
    "segment_id": pl.String(),
    "segment_name": pl.String(),
    "is_holdout": pl.Boolean(),
    "return_covariate": pl.Float64(),
    "spend_covariate": pl.Float64(),
}


@dataclass(frozen=True)
class Campaign:
    """What was fixed when a campaign was started.

    Attributes:
        name: of the campaign.
        segments: ids of the segments it is about.
        share: of the customers that is held out.
        salt: of the hash that the groups were made by.
        starts: its first day.
        days: how many it has.
        cap: of one customer's spend, in currency; ``None`` where no past says one, and spend has no figure.
        covariate: what customers are compared by, prediction or features.
        period: key of the snapshot whose segments it is about.
        as_of: of that snapshot.
        model_version: of the model in force.
        release_id: of the release that had the snapshot.
        started_by: who started it.
        started_at: when, in UTC.
        prospects: the smallest uplift that could be seen: outcome → segment, or ``all`` → unit and share.
        n_left_out: customers of the segments who were in a campaign that was running, in its audience or its holdout.
        groups_sha256: digest of the file of groups.
    """

    name: str
    segments: tuple[str, ...]
    share: float
    salt: str
    starts: date
    days: int
    cap: float | None
    covariate: str
    period: str
    as_of: datetime
    model_version: str
    release_id: str
    started_by: str
    started_at: datetime
    prospects: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    n_left_out: int
    groups_sha256: str = ""

    @property
    def start(self) -> datetime:
        """First instant that counts."""
        return midnight(self.starts)

    @property
    def end(self) -> datetime:
        """First instant that does not count any more."""
        return midnight(self.starts + timedelta(days=self.days))

    def to_json(self) -> dict[str, Any]:
        """The record as it is written."""
        return {
            **asdict(self),
            "starts": self.starts.isoformat(),
            "as_of": self.as_of.isoformat(),
            "started_at": self.started_at.isoformat(),
        }


@dataclass(frozen=True)
class Ending:
    """That a person ended a campaign before its time.

    Attributes:
        ended_by: who did.
        ended_at: when, in UTC.
        why: in a sentence.
        ends: first day that does not count any more.
    """

    ended_by: str
    ended_at: str
    why: str
    ends: str


def require_name(name: str) -> str:
    """A campaign's name, unless it cannot be one: it is a folder's, and a key of tables.

    Raises:
        BadInputError: it is empty, too long, or has other signs.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
        raise BadInputError(
            f"campaign {shown!r}",
            f"1 to {MAX_NAME} letters from a to z, digits, - and _, the first a letter or a digit",
            "Give it another name, such as autumn-2011.",
        )
    return name


class CampaignStore:
    """The campaigns of a home.

    Args:
        folder: of their records; made with the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _folder_of(self, name: str) -> Path:
        # Some file systems do not tell Autumn from autumn.
        return self.folder / require_name(name).lower()

    def has(self, name: str) -> bool:
        """Whether there is a campaign of that name, in large or small letters."""
        return self._folder_of(name).exists()

    def require_new(self, name: str) -> None:
        """Refuse a name that a campaign has had, in large or small letters.

        Raises:
            BadInputError: there is one of that name.
        """
        if self.has(name):
            raise BadInputError(
                f"campaign {name!r}, which there is already",
                "a name that no campaign of this home has had",
                "Give it another name; 'custseg campaign list' shows all.",
            )

    def write(self, campaign: Campaign, groups: pl.DataFrame) -> Campaign:
        """Record a campaign, completely or not at all; from then on it has started.

        Only one process may write: in a home, the one that has its lock.

        Args:
            campaign: what was fixed, without a digest.
            groups: its customers, in the order of their ids: see ``groups``.

        Returns:
            the campaign with the digest.

        Raises:
            BadInputError: there is one of that name.
        """
        self.require_new(campaign.name)
        final = self._folder_of(campaign.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"{_WRITING}*"):
            shutil.rmtree(left)
        writing = self.folder / f"{_WRITING}{final.name}-{secrets.token_hex(4)}"
        writing.mkdir()
        try:
            groups.select(pl.col(name).cast(dtype) for name, dtype in _GROUP_TYPES.items()).write_parquet(
                writing / GROUPS
            )
            make_durable(writing / GROUPS)
            recorded = Campaign(**{**vars(campaign), "groups_sha256": _digest(writing / GROUPS)})
            write_state(writing / RECORD, recorded.to_json())
            make_durable(writing)
            writing.rename(final)
        except BaseException:
            shutil.rmtree(writing, ignore_errors=True)
            raise
        make_durable(self.folder)
        make_durable(self.folder.parent)
        return recorded

    def end(self, campaign: Campaign, ending: Ending) -> None:
        """Record that a person ended a campaign."""
        write_state(self._folder_of(campaign.name) / ENDED, asdict(ending))

    def ending(self, campaign: Campaign) -> Ending | None:
        """How a campaign was ended before its time; ``None`` where it was not.

        Raises:
            DamagedHomeError: the record cannot be read.
        """
        names = [one.name for one in fields(Ending)]
        found = read_state(self._folder_of(campaign.name) / ENDED, *names)
        return Ending(**{name: str(found[name]) for name in names}) if found else None

    def names(self) -> tuple[str, ...]:
        """The names of the campaigns' folders, sorted."""
        if not self.folder.is_dir():
            return ()
        return tuple(sorted(one.name for one in self.folder.iterdir() if one.is_dir() and not one.name.startswith(".")))

    def require_whole(self, name: str) -> None:
        """Look at everything that is recorded of a campaign.

        Raises:
            DamagedHomeError: something is not as it was written.
        """
        campaign = _read_campaign(self.folder / name / RECORD)
        self.groups(campaign)
        self.ending(campaign)

    def all(self) -> tuple[Campaign, ...]:
        """Every campaign, in the order of their starts.

        Raises:
            DamagedHomeError: a record cannot be read.
        """
        found = (_read_campaign(self.folder / name / RECORD) for name in self.names())
        return tuple(sorted(found, key=lambda one: (one.starts, one.started_at, one.name)))

    def get(self, name: str) -> Campaign:
        """A campaign, by its name in large or small letters.

        Raises:
            BadInputError: there is none of that name.
            DamagedHomeError: its record cannot be read.
        """
        if not self.has(name):
            there = ", ".join(one.name for one in self.all()) or "there is none yet"
            raise BadInputError(f"campaign {name!r}", f"one of this home: {there}", "Name one of those, or start it.")
        return _read_campaign(self._folder_of(name) / RECORD)

    def groups(self, campaign: Campaign) -> pl.DataFrame:
        """The customers of a campaign, in the order of their ids.

        Returns:
            ``customer_id``, ``segment_id``, ``segment_name``, ``is_holdout``, ``return_covariate`` and
            ``spend_covariate``.

        Raises:
            DamagedHomeError: the file is not as it was written.
        """
        path = self._folder_of(campaign.name) / GROUPS
        if why := self.find_altered(campaign):
            raise DamagedHomeError(path, why, "Restore it from a backup: nothing else says who is in which group.")
        return pl.read_parquet(path, glob=False, hive_partitioning=False)

    def holdout_ids(self, campaign: Campaign) -> pl.Series:
        """Ids of the customers that are held out, sorted."""
        return self.groups(campaign).filter("is_holdout")["customer_id"].sort()

    def find_altered(self, campaign: Campaign) -> str | None:
        """Why the file of groups is not as it was written, in words; ``None`` where it is."""
        try:
            found = _digest(self._folder_of(campaign.name) / GROUPS)
        except OSError as error:
            return str(error.strerror)
        return None if found == campaign.groups_sha256 else "it is not as it was written"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_campaign(path: Path) -> Campaign:
    names = [one.name for one in fields(Campaign)]
    found = read_state(path, *names)
    if found is None:
        raise DamagedHomeError(path, "it is gone")
    try:
        return Campaign(
            **{
                **{name: found[name] for name in names},
                "segments": tuple(found["segments"]),
                "starts": date.fromisoformat(found["starts"]),
                "as_of": datetime.fromisoformat(found["as_of"]),
                "started_at": datetime.fromisoformat(found["started_at"]),
            }
        )
    except (TypeError, ValueError) as error:
        raise DamagedHomeError(path, f"it is no record of a campaign: {error}") from None
