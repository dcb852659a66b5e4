"""``custseg campaign``: start a campaign with a holdout, write its audience, end it, and say what came of it.

A start is one record, written in one step. The file of the audience, the release without the holdout and the tables
come after it, and each can be made again of it: a command that was killed in between loses nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from custseg_assets.commands.export import audience_list, require_suffix, without_formulas, write_list
from custseg_assets.domain.campaigns.outcomes import CAP_QUANTILE, OUTCOMES, RETURN
from custseg_assets.domain.campaigns.power import MAX_UPLIFT, POWER, Prospect
from custseg_assets.domain.campaigns.report import ALL, in_unit, sort_rows
from custseg_assets.domain.transactions.quality import count_of
from custseg_assets.errors import BadInputError
from custseg_assets.home.campaigns import (
    Found,
    Plan,
    Wish,
    data_end,
    end_of,
    has_due_campaigns,
    held_out_ids,
    is_out_of_date,
    is_running,
    lost_names,
    plan_campaign,
    report_campaign,
    require_all_taken_in,
    store_of,
)
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.home.plan import CAMPAIGNS, Stage
from custseg_assets.stores.campaigns import Campaign, Ending

if TYPE_CHECKING:
    from custseg_assets.commands.run import Runner

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Starter:
    """Who acts, and when.

    Attributes:
        by: a person's name.
        at: by the clock, in UTC.
    """

    by: str
    at: datetime


@dataclass(frozen=True)
class FileForm:
    """Where an audience is written to, and how.

    Attributes:
        out: the file; a csv or a parquet.
        is_raw: whether texts that a spreadsheet would take for formulas stay as they are.
        has_decimal_comma: whether a csv has numbers like 1,5, and semicolons between cells.
    """

    out: Path
    is_raw: bool = False
    has_decimal_comma: bool = False


def check_wish(home: OpenHome, wish: Wish) -> None:
    """Refuse a campaign that cannot be, before anything is read.

    Raises:
        BadInputError: of its name, share or days, or because there is something to take in first.
    """
    store_of(home).require_new(wish.name)
    if wish.name.lower() in lost_names(home):
        raise BadInputError(
            f"campaign {wish.name!r}, whose record is gone from {home.paths.campaigns}, though table campaign_groups "
            "has its customers",
            "a name that no campaign of this home has had",
            "Restore its record from a backup, or give this one another name.",
        )
    if not 0 < wish.share < 1:
        raise BadInputError(
            f"--holdout {wish.share:g}", "a share between 0 and 1, such as 0.2", "Name the share to hold out."
        )
    if not 1 <= wish.days <= 366:
        raise BadInputError(
            f"--days {wish.days}", "1 to 366 days", "Name how long after its start customers are watched."
        )
    require_all_taken_in(home)


def start(runner: Runner, wish: Wish, form: FileForm, starter: Starter, *, is_wanted: bool) -> str:
    """Start a campaign: say what it could see, ask, record it, and write its audience without the holdout.

    Args:
        runner: of the home.
        wish: what is asked for.
        form: of the audience's file.
        starter: who starts it.
        is_wanted: whether nobody has to be asked.

    Returns:
        What was done, in lines.

    Raises:
        BadInputError: it cannot be, nobody wants it, or nobody could be asked.
    """
    home, say = runner.home, runner.say
    check_wish(home, wish)
    require_suffix(form.out)
    plan = plan_campaign(home, wish)
    for line in describe_plan(plan, home.currency):
        say(line)
    if not is_wanted and not (sys.stdin.isatty() and _ask(wish.name)):
        raise BadInputError(
            f"campaign {wish.name!r}, which nobody has said yes to",
            "--yes, or a y at a terminal",
            "Give --yes to start it as it is described; nothing was changed.",
        )
    with home.locked() as locked:
        _require_unchanged(locked, wish, plan)
        runner.begin(locked)
        campaign = replace(plan.campaign, started_by=starter.by, started_at=starter.at)
        audience = plan.groups.filter(~pl.col("is_holdout"))["customer_id"]
        listed, n_changed = _audience(locked, campaign, audience, form)
        # The file is whole before the campaign has started, and takes its name after that.
        with write_list(listed, form.out, has_decimal_comma=form.has_decimal_comma):
            store_of(locked).write(campaign, plan.groups)
        make_what_follows(runner, locked)
    return "\n".join(
        [
            (
                f"campaign {campaign.name} has started: {count_of(len(audience), 'customer')} to write to, "
                f"{plan.groups.height - len(audience):,} held out until {_last_day(campaign.end)}"
            ),
            f"{form.out}: its audience, {count_of(len(audience), 'row')}",
            *_said_of_formulas(n_changed),
            f"'custseg campaign report {campaign.name}' says what came of it",
        ]
    )


def make_what_follows(runner: Runner, home: LockedHome) -> None:
    """Make of the records what hangs on them: a release whose lists leave out who is held out, and the tables.

    Raises:
        RunFailedError: a step or a blocking check failed; the records stand, and 'custseg run' makes it again.
    """
    runner.follow(home, home.newest_snapshot())
    if has_due_campaigns(home):
        runner.execute(Stage(CAMPAIGNS), home)


def _require_unchanged(home: LockedHome, wish: Wish, plan: Plan) -> None:
    """Refuse to start what nobody has seen: another command may have changed the home while this one asked."""
    check_wish(home, wish)
    now = plan_campaign(home, wish)
    if not now.groups.equals(plan.groups) or now.campaign != plan.campaign:
        raise BadInputError(
            f"home {home.paths.root}, which has changed since the campaign was described",
            "the customers and figures that were shown",
            "Do it again and look at what it says now; nothing was changed.",
        )


def _ask(name: str) -> bool:
    sys.stderr.write(f"Start campaign {name}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def write_audience(home: OpenHome, name: str, form: FileForm) -> list[str]:
    """Write the audience of a campaign to a file again, without its holdout.

    Returns:
        What was written, in lines.

    Raises:
        BadInputError: there is no such campaign, or the file cannot be written.
    """
    require_suffix(form.out)
    campaign = store_of(home).get(name)
    groups = store_of(home).groups(campaign)
    everybody = groups.filter(~pl.col("is_holdout"))["customer_id"]
    # Another campaign that has started since may hold out whom this one has written to.
    audience = everybody.filter(~everybody.is_in(held_out_ids(home).implode()))
    with home.tables.explained():
        listed, n_changed = _audience(home, campaign, audience, form)
    with write_list(listed, form.out, has_decimal_comma=form.has_decimal_comma):
        pass
    said = [
        f"{form.out}: the audience of {campaign.name}, {count_of(listed.height, 'row')}",
        f"  {count_of(_held(groups), 'customer')} of its holdout left out",
    ]
    if n_elsewhere := len(everybody) - len(audience):
        said.append(f"  {count_of(n_elsewhere, 'customer')} of another running campaign's holdout left out")
    if n_gone := len(audience) - listed.height:
        said.append(
            f"  {count_of(n_gone, 'customer')} {'is' if n_gone == 1 else 'are'} in the log no more, and not in the file"
        )
    return [*said, *_said_of_formulas(n_changed)]


def _audience(home: OpenHome, campaign: Campaign, ids: pl.Series, form: FileForm) -> tuple[pl.DataFrame, int]:
    """The list of an audience as it is written, and how many texts were changed for spreadsheets."""
    listed = audience_list(home, campaign.period, ids)
    return without_formulas(listed) if form.out.suffix == ".csv" and not form.is_raw else (listed, 0)


def _said_of_formulas(n_changed: int) -> list[str]:
    if not n_changed:
        return []
    return [f"  {n_changed:,} texts a spreadsheet would compute: ' was put before; --raw leaves it out"]


def _held(groups: pl.DataFrame) -> int:
    return int(groups["is_holdout"].sum())


def describe_plan(plan: Plan, currency: str | None) -> Iterator[str]:
    """What a campaign will be and could see, line by line.

    Args:
        plan: of the campaign.
        currency: of spend, where it is known.
    """
    campaign, money = plan.campaign, f" {currency}" if currency else ""
    yield (
        f"campaign {campaign.name}: {', '.join(f'{one} {name}' for one, name in plan.segment_names.items())}; "
        f"{campaign.starts} to {_last_day(campaign.end)}, {count_of(campaign.days, 'day')}"
    )
    yield (
        f"  snapshot {campaign.period} as of {campaign.as_of:%Y-%m-%d}, release {campaign.release_id}, "
        f"model {campaign.model_version}"
    )
    for name, (n_audience, n_held) in plan.left_out.items():
        yield (
            f"  left out, because they are in campaign {name}, which is running: {n_audience:,} of its audience and "
            f"{n_held:,} of its holdout"
        )
    if plan.n_past:
        yield (
            f"  the smallest uplift that it would see {POWER:.0%} of the times, from what customers did after "
            f"{plan.n_past} earlier snapshot{'' if plan.n_past == 1 else 's'}; covariate: {campaign.covariate}"
        )
    else:
        yield (
            f"  no earlier snapshot has {count_of(campaign.days, 'day')} after it in the log: what uplift it would see "
            "cannot be said, and spend will have no figure"
        )
    yield (
        f"  {'segment':<26}{'to write to':>12}{'held out':>10}{'orders':>9}{'uplift':>22}{f'spend{money}':>12}"
        f"{'uplift':>22}"
    )
    for segment in (ALL, *plan.segment_names):
        prospects = {name: plan.prospects[name].get(segment) for name in OUTCOMES}
        one = prospects[RETURN]
        if one is None:
            yield f"  {_segment_words(segment, plan.segment_names):<26}{0:>12}{0:>10}  nobody is left"
            continue
        yield "".join(
            (
                f"  {_segment_words(segment, plan.segment_names):<26}{one.n_audience:>12,}{one.n_holdout:>10,}",
                *(
                    f"{_mean(name, found):>{9 if name == RETURN else 12}}{_uplift(name, found):>22}"
                    for name, found in prospects.items()
                ),
            )
        )
    yield from _warn_of_small(plan)
    yield "  the headline will be return over all segments; every other figure stands beside it and decides nothing"
    if campaign.cap:
        yield (
            f"  spend is net and counts up to {campaign.cap:,.2f}{money} of one customer; {CAP_QUANTILE:.0%} of those "
            "who spent stayed below that"
        )


def _warn_of_small(plan: Plan) -> Iterator[str]:
    for segment in plan.segment_names:
        one = plan.prospects[RETURN].get(segment)
        if one is not None and one.is_too_small:
            why = "it would have to more than double orders" if one.has_figures else "too few customers in a group"
            yield f"  ! {_segment_words(segment, plan.segment_names)} is too small to tell anything of it alone: {why}"
    overall = plan.prospects[RETURN][ALL]
    if overall.is_too_small:
        yield (
            f"  ! all segments together are too small: {overall.n_audience:,} and {overall.n_holdout:,} customers; the "
            "report will not be able to tell"
        )


def _segment_words(segment: str, names: Mapping[str, str]) -> str:
    return "all segments" if segment == ALL else f"{segment} {names.get(segment, '')}"[:25]


def _mean(name: str, one: Prospect | None) -> str:
    if one is None or one.mean is None:
        return "–"
    return f"{one.mean:.1%}" if name == RETURN else f"{one.mean:,.2f}"


def _uplift(name: str, one: Prospect | None) -> str:
    if one is None or one.uplift is None:
        return "cannot be said"
    relative = one.relative_uplift
    if relative is not None and relative > MAX_UPLIFT:
        return "too small"
    return f"{in_unit(name, one.uplift)}{f' ({relative:+.0%})' if relative is not None else ''}"


def _last_day(end: datetime) -> date:
    return (end - _SECOND).date()


def list_campaigns(home: OpenHome) -> Iterator[str]:
    """Every campaign with its state, line by line."""
    store, campaigns = store_of(home), store_of(home).all()
    if not campaigns:
        yield "no campaign has been started; 'custseg campaign start NAME --segment SEGMENT' starts one"
    for campaign in campaigns:
        groups = store.groups(campaign)
        yield (
            f"{campaign.name}: {state_of(home, campaign)}; {', '.join(campaign.segments)}; {campaign.starts} to "
            f"{_last_day(campaign.end)}; {groups.height - _held(groups):,} to write to, {_held(groups):,} held out; "
            f"started by {campaign.started_by} on {campaign.started_at:%Y-%m-%d %H:%M} UTC"
        )


def state_of(home: OpenHome, campaign: Campaign) -> str:
    """Whether a campaign is running, over or ended, in words."""
    if ending := store_of(home).ending(campaign):
        return f"ended by {ending.ended_by} before {ending.ends}: {ending.why}"
    if not is_running(home, campaign):
        return "over"
    until = data_end(home)
    return "running" if until and until > campaign.start else "running, no data yet"


def end_campaign(runner: Runner, name: str, starter: Starter, why: str) -> str:
    """End a campaign before its time: from now on its holdout is in lists again.

    Args:
        runner: of the home.
        name: of the campaign.
        starter: who ends it.
        why: in a sentence.

    Returns:
        What was done, in a sentence.

    Raises:
        BadInputError: there is no such campaign, it is over, or no reason is given.
    """
    if not why.strip():
        raise BadInputError(
            f"--why {why!r}", "why it is ended, in a sentence", "It is kept with the campaign; say why."
        )
    with runner.home.locked() as home:
        campaign, until = store_of(home).get(name), data_end(home)
        if not is_running(home, campaign):
            raise BadInputError(
                f"campaign {campaign.name}, which is {state_of(home, campaign)}",
                "one that is running",
                "There is nothing to end; 'custseg campaign list' shows all.",
            )
        runner.begin(home)
        ends = min(max(until or campaign.start, campaign.start), campaign.end).date().isoformat()
        store_of(home).end(campaign, Ending(starter.by, starter.at.isoformat(), why, ends))
        make_what_follows(runner, home)
    if ends == campaign.starts.isoformat():
        return f"campaign {campaign.name} has ended before its first day: it never took place, and nobody is held out"
    return (
        f"campaign {campaign.name} has ended: what customers did before {ends} counts, and nobody of it is held out "
        "any more"
    )


def report(home: OpenHome, name: str) -> Iterator[str]:
    """What came of a campaign, line by line, as the home's data say it now.

    Raises:
        BadInputError: there is no such campaign.
    """
    campaign = store_of(home).get(name)
    with home.tables.explained():
        found = report_campaign(home, campaign)
    end = end_of(store_of(home), campaign)
    yield f"campaign {campaign.name}: {state_of(home, campaign)}; {', '.join(campaign.segments)}"
    yield f"  {campaign.starts} to {_last_day(max(end, campaign.start + _SECOND))}, {_observed(home, found)}"
    yield (
        f"  started by {campaign.started_by} on {campaign.started_at:%Y-%m-%d %H:%M} UTC; snapshot {campaign.period}, "
        f"release {campaign.release_id}, model {campaign.model_version}; covariate: {campaign.covariate}"
    )
    if is_out_of_date(home, campaign):
        yield "  ! out of date: newer lines are there than in the tables; 'custseg run' takes them in"
    yield f"  split     {found.split.words}"
    rows = sort_rows(found.rows.to_dicts())
    headline = next(row for row in rows if row["is_headline"])
    yield f"  headline  return {headline['reason']}"
    yield (
        f"  beside it {len(rows) - 1} other figures: of such, one in twenty says more or less where a campaign changes "
        "nothing"
    )
    yield f"  {'':<28}{'written to':>12}{'held out':>12}{'difference':>16}  95 % interval, and what it says"
    for row in rows:
        yield _row_words(row)
    cap = f" at most {campaign.cap:,.2f} of one customer," if campaign.cap else ""
    yield f"  spend is net,{cap} in {home.currency or 'the currency of the shop'}; points are of the share who ordered"


def _observed(home: OpenHome, found: Found) -> str:
    until, progress = data_end(home), found.progress
    if progress.days == 0:
        return "it never took place: it was ended before its first day"
    last = f"the log ends {_last_day(until)}" if until else "there is no log"
    return f"{progress.days_observed} of {count_of(progress.days, 'day')} observed, {last}"


def _row_words(row: Mapping[str, Any]) -> str:
    scope = "all segments" if row["segment_id"] == ALL else f"{row['segment_id']} {row['segment_name'] or ''}"
    label = f"{row['figure']:<7} {scope}"[:27]
    if row["effect"] is None:
        return f"  {label:<28}{'–':>12}{'–':>12}{'–':>16}  {row['reason']}"
    means = [
        f"{row[name]:.1%}" if row["figure"] == RETURN else f"{row[name]:,.2f}"
        for name in ("audience_mean", "holdout_mean")
    ]
    return f"  {label:<28}{means[0]:>12}{means[1]:>12}{in_unit(row['figure'], row['effect']):>16}  {row['reason']}"


def default_file(name: str) -> Path:
    """The file of an audience where none was named; a file that is there already has to be named.

    Raises:
        BadInputError: there is one of that name.
    """
    out = Path(f"{name}.csv")
    if out.exists():
        raise BadInputError(
            f"{out}, which there is already", "a file to write the audience to", f"Name one with --out, also {out}."
        )
    return out
