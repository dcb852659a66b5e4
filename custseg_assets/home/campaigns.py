"""Campaigns of a home: who of a segment can be in one, what it could see, who is held out now, and what came of it.

Data decide what day it is, as everywhere: a campaign is running until the log reaches the end of its last day, or until
a person ends it. What a figure means belongs in ``domain.campaigns``; records on disk, in ``stores.campaigns``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from custseg_assets.domain import schemas
from custseg_assets.domain.campaigns.assignment import assign_holdout, draws_seed
from custseg_assets.domain.campaigns.covariates import (
    FEATURES,
    PREDICTION,
    Covariates,
    Weights,
    covariates_of,
    weigh_features,
)
from custseg_assets.domain.campaigns.outcomes import OUTCOMES, RETURN, SPEND, cap_of, cap_spend, count_outcomes
from custseg_assets.domain.campaigns.power import Prospect, Spread, foresee, measure_spread, pool_spreads
from custseg_assets.domain.campaigns.report import ALL, Progress, report_figures
from custseg_assets.domain.campaigns.split import SplitCheck, check_split
from custseg_assets.domain.periods import midnight
from custseg_assets.domain.transactions.quality import count_of
from custseg_assets.errors import BadInputError, did_you_mean
from custseg_assets.home.open import OpenHome
from custseg_assets.stores import releases
from custseg_assets.stores.campaigns import Campaign, CampaignStore
from custseg_assets.stores.home import Home
from custseg_assets.stores.tables import fingerprint

N_PAST = 3
"""Earlier snapshots that customers' differences are measured on, the newest whose days after are all in the log."""
HOLDOUTS = "holdouts"
"""Among the data versions of a release: which holdouts its lists leave out; missing where none is running."""
_VALUES = "customer_value"
_SEGMENT_MEAN = "segment_mean"
"""A prediction that is the same for all of a segment, and so takes nothing out of a comparison within it."""
_GROUP_COLUMNS = ("customer_id", "segment_id", "segment_name")


def store_of(home: OpenHome) -> CampaignStore:
    """The records of a home's campaigns."""
    return CampaignStore(home.paths.campaigns)


def data_end(home: OpenHome) -> datetime | None:
    """The first instant that the tables' lines do not have; ``None`` where there are none.

    What was delivered and is in no table yet does not count: nobody's orders in it would be seen.
    """
    lines = schemas.CLEAN_TRANSACTIONS.name
    made = (key for key in reversed(home.calendar.period_keys) if home.tables.fingerprint_of(lines, key) is not None)
    last = next(made, None)
    return home.calendar.observed_until(last) if last else None


def end_of(store: CampaignStore, campaign: Campaign) -> datetime:
    """The first instant that does not count in a campaign any more: of its last day, or where a person ended it."""
    ending = store.ending(campaign)
    return min(campaign.end, midnight(date.fromisoformat(ending.ends))) if ending else campaign.end


def is_running(home: OpenHome, campaign: Campaign) -> bool:
    """Whether a campaign has been started and is not over: its holdout has to be left alone."""
    store, until = store_of(home), data_end(home)
    return store.ending(campaign) is None and (until is None or until < campaign.end)


def running(home: OpenHome) -> tuple[Campaign, ...]:
    """The campaigns that are running, in the order of their starts."""
    return tuple(one for one in store_of(home).all() if is_running(home, one))


def held_out_ids(home: OpenHome) -> pl.Series:
    """Ids of all customers who are held out of a running campaign, sorted, each once."""
    found = [store_of(home).holdout_ids(one) for one in running(home)]
    return pl.concat(found).unique().sort() if found else pl.Series("customer_id", [], pl.String)


def holdouts_digest(home: OpenHome) -> str | None:
    """What stands for the holdouts that are running; ``None`` where none is."""
    found = [(one.name, one.groups_sha256) for one in running(home)]
    return f"{fingerprint(found):x}" if found else None


def holdouts_to_publish(home: OpenHome) -> dict[str, int]:
    """Key of the newest snapshot and what stands for the holdouts that are running; empty where none is."""
    digest, keys = holdouts_digest(home), home.calendar.snapshot_keys
    return {keys[-1]: int(digest, 16)} if digest and keys else {}


@dataclass(frozen=True)
class Plan:
    """A campaign before it is started: all that it will be, and what it could see.

    Attributes:
        campaign: the record, without who starts it and when.
        groups: its customers, in the order of their ids.
        prospects: outcome → segment, or ``all``, → what can be seen.
        segment_names: of its segments, by id.
        n_past: earlier snapshots that this is known from.
        left_out: running campaign → customers of the segments who are in its audience, and in its holdout.
    """

    campaign: Campaign
    groups: pl.DataFrame
    prospects: Mapping[str, Mapping[str, Prospect]]
    segment_names: Mapping[str, str]
    n_past: int
    left_out: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Wish:
    """What a person asks for.

    Attributes:
        name: of the campaign.
        segments: ids or names.
        share: of the customers to hold out.
        days: how long it lasts.
        starts: its first day; the day after the last observed one without it.
        salt: of its hash.
    """

    name: str
    segments: Sequence[str]
    share: float
    days: int
    salt: str
    starts: date | None = None


def plan_campaign(home: OpenHome, wish: Wish) -> Plan:
    """Work out a campaign on the released snapshot; nothing is written.

    Raises:
        BadInputError: there is no release, it is not of the tables as they are, a segment does not exist, the day lies
            before the snapshot, or nobody is left.
        DamagedReleaseError: the release cannot be read.
    """
    released = _released(home)
    wanted = _require_segments(home, released.period, wish.segments)
    assigned = home.tables.scan(schemas.SEGMENT_ASSIGNMENTS, [released.period]).select("as_of", *_GROUP_COLUMNS)
    found = assigned.filter(pl.col("segment_id").is_in(list(wanted))).sort("customer_id").collect()
    if found["as_of"].n_unique() != 1 or found["as_of"][0] != released.as_of:
        raise BadInputError(
            f"release {released.release_id}, as of {released.as_of:%Y-%m-%d}, and other segments in the tables",
            "a release of the present segments",
            "Do 'custseg run', which makes it; nothing was changed.",
        )
    starts = _require_day(wish.starts, released.as_of)
    present, left_out = _leave_out(home, found.select(_GROUP_COLUMNS))
    if present.is_empty():
        everybody = count_of(found.height, "customer")
        raise BadInputError(
            f"segments {', '.join(wanted)}, of whose {everybody} all are in a running campaign",
            "customers who are in none",
            "Wait for it to end, or name other segments; 'custseg campaign list' shows what is running.",
        )
    past = Past(home, wish.days, released.as_of)
    covariates, covariate = past.covariates_at(released.period, present["customer_id"])
    segments = present["segment_id"].to_list()
    is_held = assign_holdout(present["customer_id"].to_list(), segments, wish.salt, wish.share)
    groups = present.with_columns(
        is_holdout=pl.Series(is_held, dtype=pl.Boolean),
        **{f"{name}_covariate": pl.Series(values, dtype=pl.Float64) for name, values in covariates.items()},
    )
    sizes = {
        segment: (n - n_held, n_held)
        for segment, n, n_held in groups.group_by("segment_id")
        .agg(pl.len(), pl.col("is_holdout").sum())
        .sort("segment_id")
        .iter_rows()
    }
    _require_groups(wish, sizes)
    prospects = {}
    for name in OUTCOMES:
        overall, single = foresee(sizes, past.spreads[name])
        prospects[name] = {ALL: overall, **single}
    campaign = Campaign(
        name=wish.name,
        segments=tuple(wanted),
        share=wish.share,
        salt=wish.salt,
        starts=starts,
        days=wish.days,
        cap=past.cap,
        covariate=covariate,
        period=released.period,
        as_of=released.as_of,
        model_version=released.model_version,
        release_id=released.release_id,
        started_by="",
        started_at=released.as_of,
        prospects={
            name: {
                segment: {"uplift": one.uplift, "mean": one.mean, "relative_uplift": one.relative_uplift}
                for segment, one in of_segment.items()
            }
            for name, of_segment in prospects.items()
        },
        n_left_out=found.height - present.height,
    )
    return Plan(campaign, groups, prospects, wanted, len(past.keys), left_out)


def require_all_taken_in(home: OpenHome) -> None:
    """Refuse to start on days that were delivered already, though the tables do not have them.

    Raises:
        BadInputError: files wait in the landing folder, or lines that were taken in are in no table.
    """
    waiting = home.landing_zone.waiting(time.time(), home.settings.landing.settle_seconds)
    names = [*(file.name for file in waiting.files), *waiting.settling, *waiting.unfinished]
    if names:
        raise BadInputError(
            f"{count_of(len(names), 'file')} in the landing folder that {'waits' if len(names) == 1 else 'wait'} to be "
            f"taken in, such as {names[0]}",
            "a home that has taken in what was delivered: a campaign starts after its last day",
            "Do 'custseg run' first; nothing was changed.",
        )
    if keys := home.fingerprints.stale([schemas.CLEAN_TRANSACTIONS.name], home.calendar.period_keys):
        raise BadInputError(
            f"lines of {keys[-1]} that were delivered and are not in the tables",
            "a home that has taken in what was delivered: a campaign starts after its last day",
            "Do 'custseg run' first; nothing was changed.",
        )


def _released(home: OpenHome) -> releases.ReleaseManifest:
    current = releases.current(home.paths.releases)
    if current is None:
        raise BadInputError(
            f"home {home.paths.root} has no release yet",
            "a home whose segments are released",
            "Do 'custseg run' first; 'custseg status' says what is missing.",
        )
    return releases.read_manifest(home.paths.releases, current)


def _require_segments(home: OpenHome, key: str, wanted: Sequence[str]) -> dict[str, str]:
    """Name of each segment that is wanted, by id.

    Raises:
        BadInputError: there is no such segment in the snapshot.
    """
    profiles = home.tables.scan(schemas.SEGMENT_PROFILES, [key]).select("segment_id", "segment_name").collect()
    names = dict(profiles.sort("segment_id").iter_rows())
    by_word = {word.lower(): one for one, name in names.items() for word in (one, name, f"{one} {name}")}
    for word in wanted:
        if word.lower() not in by_word:
            raise BadInputError(
                f"--segment {word!r}",
                f"one of {', '.join(f'{one} {name}' for one, name in names.items())}",
                did_you_mean(word, names.values()) or "Name one of those, or its id.",
            )
    ids = sorted({by_word[word.lower()] for word in wanted})
    return {one: names[one] for one in ids}


def _require_day(starts: date | None, as_of: datetime) -> date:
    """The first day of a campaign.

    Raises:
        BadInputError: the log has that day already: what customers did then is known, and not because of the campaign.
    """
    if starts is None:
        return as_of.date()
    if starts < as_of.date():
        raise BadInputError(
            f"--starts {starts}",
            f"a day from {as_of:%Y-%m-%d} on, the first that the log does not have",
            "What customers did before is known already, and no campaign has changed it.",
        )
    if starts > as_of.date() + timedelta(days=366):
        raise BadInputError(
            f"--starts {starts}",
            f"a day within a year after {as_of:%Y-%m-%d}, which the segments are as of",
            "Start it nearer to its day: groups are made of the segments as they are now.",
        )
    return starts


def _leave_out(home: OpenHome, customers: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, tuple[int, int]]]:
    """Customers who are in no running campaign, and how many are in which, written to and held out.

    Who is written to by one campaign and not by the other would make the second one's holdout part of the first one's
    effect, so a customer is in one at a time.
    """
    left_out = {}
    for campaign in running(home):
        groups = store_of(home).groups(campaign).select("customer_id", "is_holdout")
        both = customers.join(groups, on="customer_id", how="inner")
        if both.height:
            n_held = int(both["is_holdout"].sum())
            left_out[campaign.name] = (both.height - n_held, n_held)
            customers = customers.join(groups, on="customer_id", how="anti", maintain_order="left")
    return customers, left_out


def _require_groups(wish: Wish, sizes: Mapping[str, tuple[int, int]]) -> None:
    n_audience, n_holdout = (sum(size[group] for size in sizes.values()) for group in (0, 1))
    if min(n_audience, n_holdout) == 0:
        raise BadInputError(
            f"--holdout {wish.share:g} of {count_of(n_audience + n_holdout, 'customer')}, which leaves "
            f"{n_holdout:,} held out and {n_audience:,} to write to",
            "somebody in both groups",
            "Name a share nearer to a half, or more segments.",
        )


@dataclass
class Past:
    """What customers did after earlier snapshots, in as many days as a campaign has.

    Attributes:
        home: whose customers they are.
        days: of the campaign.
        as_of: of the snapshot that the campaign is about.
    """

    home: OpenHome
    days: int
    as_of: datetime
    _covariates: dict[str, tuple[Covariates, str]] = field(default_factory=dict)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The snapshots, oldest first."""
        until = self._end_of_data
        made = [
            (key, at)
            for key in self.home.calendar.closed_keys
            if (at := self._as_of(key)) is not None and at + timedelta(days=self.days) <= until
        ]
        return tuple(key for key, _ in made[-N_PAST:])

    @property
    def _end_of_data(self) -> datetime:
        return min(self.as_of, data_end(self.home) or self.as_of)

    def _as_of(self, key: str) -> datetime | None:
        made = self.home.tables.scan(schemas.SEGMENT_ASSIGNMENTS, [key]).select("as_of").head(1).collect()
        return made.item() if made.height else None

    @cached_property
    def _outcomes(self) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
        """Key → customers with their segments, and what they did, uncapped."""
        found = {}
        for key in self.keys:
            assigned = self.home.tables.scan(schemas.SEGMENT_ASSIGNMENTS, [key]).select("as_of", *_GROUP_COLUMNS)
            customers = assigned.sort("customer_id").collect()
            start = customers["as_of"][0]
            found[key] = (
                customers,
                outcomes_of(self.home, customers["customer_id"], start, start + timedelta(days=self.days)),
            )
        return found

    @cached_property
    def cap(self) -> float | None:
        """What one customer's spend counts at most."""
        spend = [outcomes[SPEND].to_numpy() for _, outcomes in self._outcomes.values()]
        return cap_of(np.concatenate(spend)) if spend else None

    @cached_property
    def _weights(self) -> Weights | None:
        return weigh_features(
            [
                (customers["customer_id"], self._features(key), self._counted(outcomes))
                for key, (customers, outcomes) in self._outcomes.items()
            ]
        )

    def _counted(self, outcomes: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
        return {RETURN: outcomes[RETURN].to_numpy(), SPEND: cap_spend(outcomes[SPEND].to_numpy(), self.cap)}

    def _features(self, key: str) -> pl.DataFrame:
        return self.home.tables.read(schemas.CUSTOMER_FEATURES, [key])

    def covariates_at(self, key: str, ids: pl.Series) -> tuple[Covariates, str]:
        """Covariates of customers at a snapshot, and what they are: predictions, or else what the features say."""
        values = _predictions_at(self.home, key)
        found = covariates_of(
            ids, self._features(key), values, self._weights if values is None else None, self.days, self.cap
        )
        return found, FEATURES if values is None else PREDICTION

    @cached_property
    def spreads(self) -> Mapping[str, Mapping[str, Spread]]:
        """Outcome → segment → how customers of it differ."""
        several: dict[str, list[Mapping[str, Spread]]] = {name: [] for name in OUTCOMES}
        for key, (customers, outcomes) in self._outcomes.items():
            covariates, counted = self.covariates_at(key, customers["customer_id"])[0], self._counted(outcomes)
            for name in OUTCOMES:
                segments = customers["segment_id"].to_list()
                several[name].append(measure_spread(counted[name], covariates[name], segments))
        return {name: pool_spreads(found) for name, found in several.items()}


def _predictions_at(home: OpenHome, key: str) -> pl.DataFrame | None:
    """``customer_value`` of a snapshot; ``None`` where it is not there, or says the same of all of a segment."""
    table = schemas.tables(home.settings.model.features).get(_VALUES)
    if table is None or not home.tables.sizes(table).get(key):
        return None
    values = home.tables.read(table, [key])
    return None if (values["method"] == _SEGMENT_MEAN).all() else values


def outcomes_of(home: OpenHome, ids: pl.Series, start: datetime, end: datetime) -> pl.DataFrame:
    """What customers did in some days of the log; see ``domain.campaigns.outcomes.count_outcomes``."""
    # Periods end where the next begins, so those wanted lie between the last that begins before the days and their end.
    keys = [key for key in home.calendar.period_keys if midnight(date.fromisoformat(key)) < end]
    before = [key for key in keys if midnight(date.fromisoformat(key)) <= start]
    wanted = keys[max(len(before) - 1, 0) :]
    lines = home.tables.scan(schemas.CLEAN_TRANSACTIONS, wanted).select(
        "customer_id", "invoiced_at", "is_cancellation", "line_amount"
    )
    return count_outcomes(lines, ids, start, end)


@dataclass(frozen=True)
class Found:
    """What a campaign's report is made of.

    Attributes:
        campaign: that it is of.
        rows: of ``campaign_report``.
        split: the check of the split.
        progress: how far the data reach.
    """

    campaign: Campaign
    rows: pl.DataFrame
    split: SplitCheck
    progress: Progress


def report_campaign(home: OpenHome, campaign: Campaign, groups: pl.DataFrame | None = None) -> Found:
    """What came of a campaign, as the home's data say it now.

    Args:
        home: whose campaign it is.
        campaign: that is reported about.
        groups: its rows of ``campaign_groups``; its record's without them.

    Raises:
        DamagedHomeError: its groups are not as they were written.
    """
    store = store_of(home)
    groups, until = store.groups(campaign) if groups is None else groups, data_end(home) or campaign.start
    end = end_of(store, campaign)
    days = max((end - campaign.start).days, 0)
    progress = Progress(days, min(max((until - campaign.start).days, 0), days))
    newest = list(home.tables.sizes(schemas.SEGMENT_ASSIGNMENTS))[-1:]
    known = home.tables.scan(schemas.SEGMENT_ASSIGNMENTS, newest).select("customer_id").collect()["customer_id"]
    split = check_split(groups, campaign.salt, campaign.share, known)
    rows = report_figures(
        groups,
        outcomes_of(home, groups["customer_id"], campaign.start, min(end, max(until, campaign.start))),
        split,
        progress,
        cap=campaign.cap,
        smallest={
            name: {segment: one.get("uplift") for segment, one in of_segment.items()}
            for name, of_segment in campaign.prospects.items()
        },
        seed=draws_seed(campaign.salt),
    )
    same = {
        "period": campaign.starts.isoformat(),
        "campaign": campaign.name,
        "started_by": campaign.started_by,
        "started_at": campaign.started_at,
    }
    table = pl.DataFrame([{**same, **row} for row in rows], schema=schemas.CAMPAIGN_REPORT.schema)
    return Found(campaign, table.sort("campaign", "figure", "segment_id"), split, progress)


def count_moved(home: OpenHome, campaign: Campaign) -> int:
    """How many customers of a campaign its snapshot has in another segment by now, because late lines changed it."""
    assigned = home.tables.scan(schemas.SEGMENT_ASSIGNMENTS, [campaign.period]).select("customer_id", "segment_id")
    same = store_of(home).groups(campaign).lazy().join(assigned, on=("customer_id", "segment_id"), how="anti")
    return int(same.select(pl.len()).collect().item())


def is_out_of_date(home: OpenHome, campaign: Campaign) -> bool:
    """Whether lines of a campaign's days were delivered that the tables do not have."""
    keys = [key for key in home.calendar.period_keys if midnight(date.fromisoformat(key)) < campaign.end]
    return bool(home.fingerprints.stale([schemas.CLEAN_TRANSACTIONS.name], keys))


def groups_table(home: OpenHome, campaign: Campaign) -> pl.DataFrame:
    """A campaign's rows of ``campaign_groups``."""
    stamped = (
        store_of(home)
        .groups(campaign)
        .with_columns(period=pl.lit(campaign.starts.isoformat()), campaign=pl.lit(campaign.name))
    )
    return stamped.select(schemas.CAMPAIGN_GROUPS.schema.names())


def made_from(home: OpenHome) -> dict[str, dict[str, int]]:
    """What the tables of campaigns would be made from now: table → first day → fingerprint."""
    wanted: dict[str, dict[str, int]] = {schemas.CAMPAIGN_GROUPS.name: {}, schemas.CAMPAIGN_REPORT.name: {}}
    store, until = store_of(home), data_end(home)
    for day, campaigns in by_day(home).items():
        records = [(one.name, one.groups_sha256) for one in campaigns]
        groups = schemas.CAMPAIGN_GROUPS
        wanted[groups.name][day] = fingerprint(groups.name, groups.code_version, records)
        report = schemas.CAMPAIGN_REPORT
        ends = [str(end_of(store, one)) for one in campaigns]
        last = max(end_of(store, one) for one in campaigns)
        lines = [
            home.tables.fingerprint_of(schemas.CLEAN_TRANSACTIONS.name, key)
            for key in home.calendar.period_keys
            if midnight(date.fromisoformat(key)) < last
        ]
        newest = list(home.tables.sizes(schemas.SEGMENT_ASSIGNMENTS))[-1:]
        known = [home.tables.fingerprint_of(schemas.SEGMENT_ASSIGNMENTS.name, key) for key in newest]
        wanted[report.name][day] = fingerprint(
            report.name, report.code_version, records, ends, str(min(until or last, last)), lines, known
        )
    return wanted


def stale_days(home: OpenHome) -> dict[str, list[str]]:
    """Of the tables of campaigns, the first days whose partitions would be made from something else now."""
    return {
        name: [day for day, expected in days.items() if home.tables.fingerprint_of(name, day) != expected]
        for name, days in made_from(home).items()
    }


def lost_names(home: OpenHome) -> tuple[str, ...]:
    """Names in ``campaign_groups`` of campaigns that have no record, as their folders would be called, sorted.

    Raises:
        DamagedHomeError: the table cannot be read.
    """
    table = schemas.CAMPAIGN_GROUPS
    if home.tables.version_of(table.name) is None:
        return ()
    named = home.tables.scan(table).select(pl.col("campaign").str.to_lowercase().unique()).collect()["campaign"]
    return tuple(sorted(set(named) - set(store_of(home).names())))


def unexplained_names(home: OpenHome) -> tuple[str, ...]:
    """Those of ``lost_names`` of which nothing says that they were set aside."""
    return tuple(name for name in lost_names(home) if not reason_of_loss(home.paths, name).exists())


def reason_of_loss(paths: Home, name: str) -> Path:
    """The file that says why a campaign has no record any more."""
    return paths.damaged / paths.campaigns.name / f"{name}.reason.txt"


def has_due_campaigns(home: OpenHome) -> bool:
    """Whether a table of campaigns is out of date."""
    return any(stale_days(home).values())


def by_day(home: OpenHome) -> dict[str, list[Campaign]]:
    """The campaigns by their first day, the first day first."""
    found: dict[str, list[Campaign]] = {}
    for campaign in store_of(home).all():
        found.setdefault(campaign.starts.isoformat(), []).append(campaign)
    return found


def without_holdouts(home: OpenHome, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Rows of customers without those who are held out of a running campaign, and how many customers that leaves out.

    Args:
        home: whose campaigns they are.
        frame: with ``customer_id``.
    """
    held_out = held_out_ids(home)
    if held_out.is_empty():
        return frame, 0
    is_held = frame["customer_id"].is_in(held_out.implode())
    return frame.filter(~is_held), frame.filter(is_held)["customer_id"].n_unique()
