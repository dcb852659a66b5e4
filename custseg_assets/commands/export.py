"""``custseg export``: a table of the home, or the list of its customers, as a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl

from custseg_assets.command_line import with_users_rights
from custseg_assets.domain import schemas
from custseg_assets.domain.schemas import Table, tables
from custseg_assets.domain.segments.customer_history import describe_customers
from custseg_assets.domain.segments.customer_lists import list_customers, value_segments
from custseg_assets.domain.segments.customer_table import tabulate_customers
from custseg_assets.domain.segments.model import RFM
from custseg_assets.domain.spreadsheets import FORMULA
from custseg_assets.errors import BadInputError, did_you_mean
from custseg_assets.home.campaigns import store_of, without_holdouts
from custseg_assets.home.kept_models import LINES, MADE, MADE_FROM
from custseg_assets.home.open import OpenHome
from custseg_assets.home.plan import SEGMENTED, TABLES_OF_JOB
from custseg_assets.home.restored import read_restored
from custseg_assets.home.staleness import stale_partitions, window_made
from custseg_assets.stores.files import replacement_for

CUSTOMERS = "customers"
"""Not a table but made of several: one row per customer of a snapshot."""

_SUFFIXES = (".parquet", ".csv")
_BY_SNAPSHOT = frozenset(TABLES_OF_JOB["snapshot"])
_OF_TRAININGS = ("model_candidates", "segmentation_model")
"""Tables of snapshots that have no rows where nothing was trained."""
_OF_CAMPAIGNS = (schemas.CAMPAIGN_GROUPS.name, schemas.CAMPAIGN_REPORT.name)
_OF_THE_SERVICE = (schemas.PREDICTION_LOG.name, schemas.REJECTED_PREDICTIONS.name)
"""Tables that are made of what the service recorded."""

_TABLES_OF_A_LIST = (
    "customer_features",
    "segment_assignments",
    "segment_migrations",
    "segment_profiles",
    "product_recommendations",
    "customer_value",
)
_N_LISTED = 12
_CHUNK_CUSTOMERS = 200_000
"""Customers whose history is looked through at a time; bounds the memory of an export for a shop of any size."""


@dataclass(frozen=True)
class Selection:
    """Which rows are exported.

    Attributes:
        key: of one partition; the newest snapshot without it, or all periods of a table of periods.
        has_all: whether all partitions are exported.
        segments: names or ids of the segments that the customers are in.
        moved_from: of those that they left since the snapshot before.
        moved_to: of those that they came to since then.
    """

    key: str | None = None
    has_all: bool = False
    segments: Sequence[str] = ()
    moved_from: Sequence[str] = ()
    moved_to: Sequence[str] = ()

    @property
    def has_customers(self) -> bool:
        """Whether only some customers are wanted."""
        return bool(self.segments or self.moved_from or self.moved_to)


def export_table(
    home: OpenHome,
    name: str,
    selection: Selection,
    out: Path,
    *,
    is_raw: bool = False,
    has_decimal_comma: bool = False,
    has_held_out: bool = False,
) -> list[str]:
    """Write a table, some partitions of it, or the list of customers to a file; the file is whole or not there.

    Args:
        home: with the table.
        name: the table, or ``customers``.
        selection: which rows.
        out: where to; its suffix says the format.
        is_raw: whether texts that a spreadsheet would take for formulas are written to a csv as they are.
        has_decimal_comma: whether a csv has numbers like 1,5, and semicolons between cells.
        has_held_out: whether customers of a running holdout are in it, too: for figures, not to write to.

    Returns:
        What was written, in lines for people.

    Raises:
        BadInputError: there is no such table, partition or segment, the table cannot be selected from in this way, or
            the file cannot be written.
    """
    require_suffix(out)
    _require_in_export(home, name, selection)
    table = _find_table(home, name)
    keys, others = _choose_keys(home, name, table, selection)
    with home.tables.explained():
        wanted = _select_customers(home, name, table, keys, selection) if selection.has_customers else None
        if name == CUSTOMERS:
            frame = _make_list(home, keys[-1], wanted)
        else:
            frame = home.tables.read(table, keys)
            frame = frame if wanted is None else frame.join(wanted, on=("period", "customer_id"), how="semi")
    frame, n_held_out = _leave_out_held(home, name, frame) if not has_held_out else (frame, 0)
    said = [f"{out}: {_count(frame.height, 'row')} of {name}{_of_snapshot(home, name, keys, selection)}"]
    if n_held_out:
        said.append(
            f"  {_count(n_held_out, 'customer')} of a running campaign's holdout left out; 'custseg campaign list' "
            "says of which"
        )
    if others:
        more = "" if name == CUSTOMERS else ", --all for all"
        said.append(f"  {_count(others, 'other snapshot')}: --partition KEY for another{more}")
    made_of = (name,) if name != CUSTOMERS else _TABLES_OF_A_LIST
    if any(not set(keys).isdisjoint(stale) for one, stale in stale_partitions(home).items() if one in made_of):
        said.append("  out of date: there are newer data or other settings; 'custseg run' makes it anew")
    if out.suffix == ".csv" and not is_raw:
        frame, n_changed = without_formulas(frame)
        if n_changed:
            said.append(
                f"  {_count(n_changed, 'text')} a spreadsheet would compute: ' was put before; --raw leaves it out"
            )
    with write_list(frame, out, has_decimal_comma=has_decimal_comma):
        pass
    return said


def require_suffix(out: Path) -> None:
    """Refuse a file of another format than those that are written.

    Raises:
        BadInputError: it is one.
    """
    if out.suffix not in _SUFFIXES:
        raise BadInputError(
            f"--out {out}", f"a name that ends in {' or '.join(_SUFFIXES)}", "Choose one of the formats."
        )


def audience_list(home: OpenHome, key: str, ids: pl.Series) -> pl.DataFrame:
    """The list of some customers of a snapshot, whoever is held out."""
    return _make_list(home, key, pl.DataFrame({"customer_id": ids}))


def _leave_out_held(home: OpenHome, name: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Rows without the customers of running holdouts, and how many these are; lines of the log are no list of them."""
    is_of_customers = name == CUSTOMERS or (name in _BY_SNAPSHOT and "customer_id" in frame.columns)
    return without_holdouts(home, frame) if is_of_customers else (frame, 0)


def _require_in_export(home: OpenHome, name: str, selection: Selection) -> None:
    """Refuse of a restored home what an export has not: lists tell of earlier snapshots, too, which are not there."""
    restored, there = read_restored(home.paths), (LINES, *MADE_FROM, *MADE)
    if restored and (name not in there or selection.moved_from or selection.moved_to):
        raise BadInputError(
            f"{name} of home {home.paths.root}, which was restored from model {restored.model_version}"
            + (", by moves" if name in there else ""),
            f"a table that its export has: {', '.join(there)}",
            "Name one of those, without moves.",
        )


def _find_table(home: OpenHome, name: str) -> Table:
    """The table that an export reads its partitions from."""
    every = tables(home.settings.model.features)
    if name not in (CUSTOMERS, *every):
        accepted = (CUSTOMERS, *every)
        raise BadInputError(
            f"table {name!r}", f"one of {', '.join(accepted)}", did_you_mean(name, accepted) or "Name one of those."
        )
    table = every.get(name, schemas.SEGMENT_ASSIGNMENTS)
    if home.tables.version_of(table.name) is None:
        if name in _OF_THE_SERVICE and home.tables.version_of(schemas.RAW_TRANSACTIONS.name) is not None:
            raise BadInputError(
                f"table {name} is empty: no service has recorded predictions in home {home.paths.root} yet",
                "a home whose service has answered requests",
                "Start 'custseg-serving' on this home, ask it for segments, and do 'custseg run' again.",
            )
        if name in _OF_CAMPAIGNS and not store_of(home).names():
            raise BadInputError(
                f"table {name} is empty: no campaign has been started in home {home.paths.root}",
                "a home with a campaign",
                "'custseg campaign start NAME --segment SEGMENT' starts one.",
            )
        has_been_trained = home.tables.version_of(schemas.PROMOTION_DECISION.name) is not None
        if table.name in SEGMENTED and has_been_trained and not home.champions.segmented(home.calendar.snapshot_keys):
            raise BadInputError(
                f"table {name}: home {home.paths.root} has no segments, because no model is in force",
                "a home with segments",
                "'custseg status' says why there are none, and what to write.",
            )
        raise BadInputError(
            f"table {name} has not been made in home {home.paths.root}",
            "a home that a run has filled",
            "Do 'custseg run' first, or set CUSTSEG_HOME to the home you mean.",
        )
    return table


def _choose_keys(home: OpenHome, name: str, table: Table, selection: Selection) -> tuple[list[str], int]:
    """The partitions to export, and how many other snapshots there are that nobody may have thought of.

    Without a choice it is the newest snapshot; a table of periods is one long log, and all of it is exported.
    """
    store, with_rows = home.tables, list(home.tables.sizes(table))
    is_by_snapshot = table.name in _BY_SNAPSHOT
    keys = with_rows
    if is_by_snapshot and table.name not in _OF_TRAININGS and name != CUSTOMERS:
        written = (key for key in home.calendar.snapshot_keys if store.fingerprint_of(table.name, key) is not None)
        keys = sorted({*with_rows, *written})
    if selection.key is not None:
        if selection.key not in keys and (name == CUSTOMERS or store.fingerprint_of(table.name, selection.key) is None):
            raise BadInputError(
                f"partition {selection.key} of {name}",
                f"one of {_listed(keys)}",
                did_you_mean(selection.key, keys) or "Name one of those, or leave it out.",
            )
        return [selection.key], 0
    if name == CUSTOMERS and selection.has_all:
        raise BadInputError(
            f"--all for {CUSTOMERS}, which is the list of one snapshot",
            "--partition KEY, or nothing for the newest",
            "All snapshots are in segment_assignments, segment_migrations and customer_features.",
        )
    if selection.has_all or not is_by_snapshot or not keys:
        return keys, 0
    return keys[-1:], len(keys) - 1


def _select_customers(
    home: OpenHome, name: str, table: Table, keys: Sequence[str], selection: Selection
) -> pl.DataFrame:
    """``period`` and ``customer_id`` of the customers that are wanted.

    Raises:
        BadInputError: the table has no customers of a snapshot, or there is no such segment.
    """
    if table.name not in _BY_SNAPSHOT or "customer_id" not in table.schema:
        with_customers = (
            CUSTOMERS,
            *(one.name for one in tables(()).values() if one.name in _BY_SNAPSHOT and "customer_id" in one.schema),
        )
        raise BadInputError(
            f"--segment, --moved-from or --moved-to for {name}, which does not have one row per customer of a snapshot",
            f"one of {', '.join(with_customers)}",
            "Name one of those, or leave the option out.",
        )
    assigned = home.tables.scan(schemas.SEGMENT_ASSIGNMENTS, keys)
    wanted = assigned.select("period", "customer_id", "segment_id", "segment_name")
    if selection.segments:
        _require_segments(home, "--segment", selection.segments, keys)
        wanted = wanted.filter(_is_one_of("segment", selection.segments))
    if selection.moved_from or selection.moved_to:
        moved = home.tables.scan(schemas.SEGMENT_MIGRATIONS, keys)
        for option, column, segments, there in (
            ("--moved-from", "from_segment", selection.moved_from, _with_those_before(home, keys)),
            ("--moved-to", "to_segment", selection.moved_to, keys),
        ):
            if segments:
                _require_segments(home, option, segments, there)
                moved = moved.filter(_is_one_of(column, segments))
        wanted = wanted.join(moved, on=("period", "customer_id"), how="semi")
    return wanted.select("period", "customer_id").collect()


def _is_one_of(column: str, segments: Sequence[str]) -> pl.Expr:
    id_, name = pl.col(f"{column}_id"), pl.col(f"{column}_name")
    lowered = [segment.lower() for segment in segments]
    return pl.any_horizontal(text.str.to_lowercase().is_in(lowered) for text in (id_, name, id_ + " " + name))


def _with_those_before(home: OpenHome, keys: Sequence[str]) -> list[str]:
    """Snapshots and those before them, where a segment may have been that is no more."""
    segmented = list(home.tables.sizes(schemas.SEGMENT_ASSIGNMENTS))
    before = (earlier for earlier, later in pairwise(segmented) if later in keys)
    return [*before, *keys]


def _require_segments(home: OpenHome, option: str, segments: Sequence[str], keys: Sequence[str]) -> None:
    """Refuse the name of a segment that no one of some snapshots has."""
    profiles = home.tables.scan(schemas.SEGMENT_PROFILES, keys).select("segment_id", "segment_name").unique()
    known = profiles.sort("segment_id", "segment_name").collect()
    for segment in segments:
        if known.filter(_is_one_of("segment", [segment])).is_empty():
            raise BadInputError(
                f"{option} {segment!r}",
                f"one of {', '.join(f'{id_} {name}' for id_, name in known.iter_rows())}",
                did_you_mean(segment, known["segment_name"]) or "Name one of those, or its id.",
            )


def _make_list(home: OpenHome, key: str, wanted: pl.DataFrame | None) -> pl.DataFrame:
    """The list of customers of a snapshot, a chunk of them at a time."""
    store, until = home.tables, [one for one in home.tables.sizes(schemas.SEGMENT_ASSIGNMENTS) if one <= key]
    before = until[-2] if until[-2:-1] else None
    history = store.scan(schemas.SEGMENT_ASSIGNMENTS, until)
    features = store.scan(schemas.CUSTOMER_FEATURES, until[-2:])
    moves, products = (
        store.scan(table, [key]) for table in (schemas.SEGMENT_MIGRATIONS, schemas.PRODUCT_RECOMMENDATIONS)
    )
    values = store.scan(schemas.CUSTOMER_VALUE, [key])
    profiles = store.read(schemas.SEGMENT_PROFILES, [key])
    days = (window_made(home, key).as_of - window_made(home, before).as_of).days if before else None
    known = history.filter(pl.col("period") == key).select("customer_id").collect() if wanted is None else wanted
    ids, chunks = known["customer_id"].sort(), []
    for start in range(0, max(len(ids), 1), _CHUNK_CUSTOMERS):
        is_wanted = pl.col("customer_id").is_in(ids[start : start + _CHUNK_CUSTOMERS].implode())
        assigned, seen, moved, offered = (
            frame.filter(is_wanted).collect() for frame in (history, features, moves, products)
        )
        seen_now = seen.filter(period=key)
        listed = list_customers(
            describe_customers(assigned, seen_now, offered, period=key, features=RFM),
            assigned.filter(period=key),
            assigned.filter(pl.col("period") == pl.lit(before, pl.String)),
            seen.filter(period=before) if before else None,
            moved,
            value_segments(profiles),
            days,
            values.filter(is_wanted).collect(),
        )
        chunks.append(tabulate_customers(listed, profiles, offered))
    return pl.concat(chunks)


def without_formulas(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Texts such that no spreadsheet computes them, and how many were changed for it."""
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    is_formula = {name: pl.col(name).str.contains(FORMULA) for name in texts}
    n_changed = sum(frame.select(is_formula[name].sum() for name in texts).row(0)) if texts else 0
    guarded = (pl.when(is_formula[name]).then("'" + pl.col(name)).otherwise(name).alias(name) for name in texts)
    return frame.with_columns(guarded), n_changed


@contextlib.contextmanager
def write_list(frame: pl.DataFrame, out: Path, *, has_decimal_comma: bool) -> Iterator[None]:
    """Write rows to a file, which takes its name at the end of the block, or not at all after an error.

    Args:
        frame: the rows.
        out: where to; its suffix says the format.
        has_decimal_comma: whether a csv has numbers like 1,5, and semicolons between cells.

    Raises:
        BadInputError: the file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with _explained(out), with_users_rights():
            unfinished = stack.enter_context(replacement_for(out))
            if out.suffix == ".csv":
                frame.write_csv(
                    unfinished, separator=";" if has_decimal_comma else ",", decimal_comma=has_decimal_comma
                )
            else:
                frame.write_parquet(unfinished)
        yield
        with _explained(out):
            stack.close()


@contextlib.contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInputError(
            f"--out {out}: {error.strerror or error}", "a file that can be written", "Name another."
        ) from None


def _of_snapshot(home: OpenHome, name: str, keys: Sequence[str], selection: Selection) -> str:
    """Which snapshot was exported, in words; nothing where it was none or all."""
    if len(keys) != 1 or selection.has_all or (name != CUSTOMERS and name not in _BY_SNAPSHOT):
        return ""
    if keys[0] not in home.calendar.snapshot_keys:
        return f", snapshot {keys[0]}"
    window = window_made(home, keys[0])
    return f", snapshot {keys[0]}{' so far' * window.is_open}, as of {window.as_of:%Y-%m-%d}"


def _listed(names: Sequence[str]) -> str:
    """Names one after the other; of many, the first and the last."""
    if len(names) <= _N_LISTED:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, … {', '.join(names[-3:])} ({len(names):,} in all)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
