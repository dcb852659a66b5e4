"""Campaigns: who is held out, and what came of it. What is here is made of records that ``custseg campaign`` keeps.

A campaign is started and ended by a person, in ``commands.campaign``; nothing here starts one.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import SuiteRun
from custseg_assets.defs.materialise import Materialization, table_asset
from custseg_assets.defs.metadata import facts, picture, table_preview
from custseg_assets.domain.schemas import CAMPAIGN_GROUPS, CAMPAIGN_REPORT, Table
from custseg_assets.home.campaigns import (
    by_day,
    count_moved,
    groups_table,
    lost_names,
    made_from,
    report_campaign,
    stale_days,
)
from custseg_assets.home.open import LockedHome
from custseg_assets.pictures.campaigns import effects_with_intervals
from custseg_assets.stores.campaigns import Campaign

_SHOWN = ("campaign", "figure", "segment_id", "reason", "n_audience", "n_holdout")


@table_asset(CAMPAIGN_GROUPS.name, group="campaigns", kinds={"polars", "deltalake"})
def campaign_groups(_: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Write down who of a campaign is held out, as its record says it."""
    results = _write(home, CAMPAIGN_GROUPS, lambda campaign: groups_table(home, campaign))
    campaigns = [campaign for same_day in by_day(home).values() for campaign in same_day]
    records = [campaign.to_json() for campaign in campaigns]
    return dg.MaterializeResult(
        asset_key=CAMPAIGN_GROUPS.name,
        metadata={
            "campaigns": table_preview(_facts_of(records)),
            "records": dg.MetadataValue.json(records),
            "n_in_another_segment_by_now": sum(count_moved(home, campaign) for campaign in campaigns),
            **facts(home, CAMPAIGN_GROUPS),
        },
        check_results=results,
    )


@table_asset(CAMPAIGN_REPORT.name, group="campaigns", kinds={"numpy", "deltalake"})
def campaign_report(_: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Compare each campaign's audience with its holdout, as far as the data reach."""

    def compare(campaign: Campaign) -> pl.DataFrame:
        groups = home.tables.read(CAMPAIGN_GROUPS, [campaign.starts.isoformat()])
        return report_campaign(home, campaign, groups.filter(campaign=campaign.name)).rows

    results = _write(home, CAMPAIGN_REPORT, compare)
    report = home.tables.read(CAMPAIGN_REPORT).sort("period", "campaign", descending=[True, False])
    newest = report.filter(pl.col("campaign").is_in(report["campaign"].head(1).implode()))
    has_picture = home.has_viewers and newest["effect"].count() > 0
    shown = (
        {"effects": picture("what the newest campaign changed", effects_with_intervals(newest))} if has_picture else {}
    )
    return dg.MaterializeResult(
        asset_key=CAMPAIGN_REPORT.name,
        metadata={
            "headlines": table_preview(report.filter("is_headline").select(_SHOWN)),
            **shown,
            **facts(home, CAMPAIGN_REPORT),
        },
        check_results=results,
    )


def _write(home: LockedHome, table: Table, make: Callable[[Campaign], pl.DataFrame]) -> Sequence[dg.AssetCheckResult]:
    """Make the partitions of a table that are out of date, each with the campaigns that begin on its day."""
    suite, expected, campaigns = SuiteRun(table, home), made_from(home)[table.name], by_day(home)
    # Without a campaign, too, the checks have a verdict.
    suite.check([table.schema.to_frame()], has_page=False)
    lost = lost_names(home)
    for day in stale_days(home)[table.name]:
        # Of a campaign whose record is gone nothing can be made again, so what was made of it stays.
        gone = home.tables.read(table, [day]).filter(pl.col("campaign").str.to_lowercase().is_in(lost))
        rows = pl.concat([*(make(campaign) for campaign in campaigns[day]), gone]).sort(table.sort_by)
        is_blocked = suite.check([rows])
        home.tables.write(table, rows, {day: 0 if is_blocked else expected[day]})
    return suite.results()


def _facts_of(records: Sequence[dict[str, Any]]) -> pl.DataFrame:
    names = ("name", "starts", "days", "share", "started_by", "started_at", "period", "model_version", "release_id")
    rows = [
        {name: str(record[name]) for name in names} | {"segments": json.dumps(record["segments"])} for record in records
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys((*names, "segments"), pl.String))


ASSETS = (campaign_groups, campaign_report)
