"""Writing releases: from the pipeline's tables to the directory that ``releases`` reads.

Which release is served, and the format of its parts, is in ``releases``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import polars as pl

from custseg_assets.domain.periods import Window
from custseg_assets.domain.schemas import SEGMENT_PRODUCTS
from custseg_assets.domain.segments.customer_history import count_moves, describe_customers
from custseg_assets.domain.segments.customer_lists import list_customers, value_segments
from custseg_assets.domain.segments.migrations import CAUSES, MoveCounts, count_movers
from custseg_assets.domain.segments.model import RFM, SegmentationModel
from custseg_assets.stores import releases
from custseg_assets.stores.list_writer import ListWriter
from custseg_assets.stores.releases import FileEntry, ReleaseManifest, canonical_json, customer_key, is_digest

CHUNK_CUSTOMERS = 200_000
"""Customers written at a time; bounds the memory of a write for a shop of any size."""
CUSTOMERS_READ = 400_000
"""Customers read at a time, with a row of each for every snapshot so far."""

_FIRST_MAP_BYTES = 1 << 20
_LISTS_AS_TEXT = ("reasons", "distinguishing")
_ENDS = ("", "_low", "_high")
_WITH_ENDS = tuple(
    pl.col(f"{name}{end}").round(6 if name.startswith("p_") else 4) for name in releases.VALUES for end in _ENDS
)
"""The predictions of a record: probabilities to a millionth, orders and amounts to a hundredth of a cent."""
_OF_SEGMENT = ("expected_orders_90d", "expected_spend_90d")
_PARTS = 10_000
_OF_EXPECTED = ("target", "method", "reason", "level", "level_low", "level_high", "last_seen", "calibration_error")
_OF_PRODUCTS = tuple(column.name for column in SEGMENT_PRODUCTS.content)


@dataclass(frozen=True)
class ReleaseContent:
    """What a release is made from; the frames have the columns of ``domain.schemas``.

    Attributes:
        model: the champion.
        window: of the snapshot that is released.
        assignments: ``segment_assignments`` of every snapshot up to and with the released one.
        customer_features: of the snapshot.
        segment_profiles: of the snapshot.
        product_recommendations: of the snapshot.
        segment_products: of the snapshot, where they are known.
        customer_value: of the snapshot, where something is predicted.
        value_model: of the snapshot, with that.
        drift_reports: of every snapshot so far.
        model_candidates: of the snapshot the champion was trained on.
        promotion_decisions: of every snapshot so far.
        model_card: Markdown.
        metrics: the champion's, by name.
        git_revision: of the code; ``None`` outside a checkout.
        data_versions: table → version it was read at.
        drift_reference: the champion's, as JSON values, where there is one.
        margin_rule: what the assignments were made with; see ``domain.segments.model.apply_margin_rule``.
        is_demo: whether the customers are the demo shop's.
        segment_migrations: of the snapshot, where the causes of moves are to be written.
        later_customers: ``customer_id`` and ``first_seen_at`` of customers first seen at or after ``as_of``.
        earlier_windows: of the closed snapshots before that customers are also shown at, oldest first, the last of
            them the one that moves are counted since.
        earlier_features: ``customer_features`` of these snapshots; needed where there are any.
        currency: of all amounts, where it is known.
        held_out: ids of the customers who are held out of a running campaign; no list has them.
    """

    model: SegmentationModel
    window: Window
    assignments: pl.LazyFrame
    customer_features: pl.DataFrame | pl.LazyFrame
    segment_profiles: pl.DataFrame
    product_recommendations: pl.DataFrame | pl.LazyFrame
    drift_reports: pl.DataFrame
    model_candidates: pl.DataFrame
    promotion_decisions: pl.DataFrame
    model_card: str
    metrics: Mapping[str, float | None]
    git_revision: str | None
    data_versions: Mapping[str, int | str | None]
    margin_rule: float
    drift_reference: Mapping[str, Any] | None = None
    is_demo: bool = False
    segment_migrations: pl.DataFrame | pl.LazyFrame | None = None
    segment_products: pl.DataFrame | None = None
    customer_value: pl.LazyFrame | None = None
    value_model: pl.DataFrame | None = None
    later_customers: pl.DataFrame | None = None
    earlier_windows: tuple[Window, ...] = ()
    earlier_features: pl.LazyFrame | None = None
    currency: str | None = None
    held_out: pl.Series | None = None


def write_release(root: Path, content: ReleaseContent) -> ReleaseManifest:
    """Write a release, completely or not at all; it is not served before ``point_to`` selects it.

    Equal content gives an equal release, byte for byte, and writing it again changes nothing.

    Args:
        root: folder of all releases; made where it is missing.
        content: what goes in.

    Returns:
        the manifest, with the release's id.

    Raises:
        ValueError: no customer is assigned at the snapshot, or customers have segments the profiles do not name.
    """
    directory = releases.make_writing_directory(root)
    try:
        manifest = _write_files(directory, content)
        releases.place(root, directory, manifest)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return manifest


def _write_files(directory: Path, content: ReleaseContent) -> ReleaseManifest:
    ids = _sorted_ids(content)
    for name, value in _documents(content, ids).items():
        (directory / name).write_text(canonical_json(value), encoding="utf-8")
    (directory / releases.MODEL).write_text(content.model.to_json(), encoding="utf-8")
    (directory / releases.MODEL_CARD).write_text(content.model_card, encoding="utf-8")
    expected = _ExpectedBySegment()
    chunks = expected.add(_write_lists(directory, content, ids, _chunks(content, ids)))
    records = (chunk.described.select("customer_id", pl.col("record").struct.json_encode()) for chunk in chunks)
    n_customers, n_later = _write_customers(
        directory / releases.CUSTOMERS, records, _later_records(content.later_customers)
    )
    if n_customers < 1:
        raise ValueError(f"no customer is assigned at {content.window.key}")
    (directory / releases.PROFILES).write_text(canonical_json(_profiles(content, expected.sums)), encoding="utf-8")
    fields: dict[str, Any] = {
        "format": releases.RELEASE_FORMAT,
        "period": content.window.key,
        "as_of": content.window.as_of.isoformat(),
        "period_end": content.window.period_end.isoformat() if content.window.is_open else None,
        "currency": content.currency,
        "is_demo": content.is_demo,
        "window_start": content.window.start.isoformat(),
        "model_version": content.model.model_version,
        "trained_on": content.model.trained_on,
        "features": content.model.features,
        "n_customers": n_customers,
        "n_later_customers": n_later,
        "metrics": dict(content.metrics),
        "git_revision": content.git_revision,
        "data_versions": dict(content.data_versions),
        "files": {
            file.name: FileEntry(sha256=releases.sha256_of(file), n_bytes=file.stat().st_size).model_dump()
            for file in sorted(directory.iterdir())
        },
    }
    as_written = ReleaseManifest(release_id="", **fields).model_dump(mode="json")
    manifest = ReleaseManifest(**{**as_written, "release_id": releases.release_id_of(as_written)})
    (directory / releases.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _documents(content: ReleaseContent, ids: pl.Series) -> dict[str, Any]:
    """Content of the JSON files, by file name."""
    assigned = content.assignments.filter(pl.col("period") == content.window.key).select("segment_id").unique()
    unnamed = set(assigned.collect(engine="streaming")["segment_id"]) - set(content.segment_profiles["segment_id"])
    if unnamed:
        raise ValueError(f"segments {sorted(unnamed)} have customers but no profile")
    # A product has the same text wherever it is offered.
    offers = content.product_recommendations.lazy().select("product_id", "description")
    offered = offers.unique("product_id").collect(engine="streaming")
    return {
        releases.PRODUCTS: dict(offered.sort("product_id").iter_rows()),
        releases.MIGRATIONS: _migrations(content, ids),
        releases.DRIFT: {
            "reports": _rows(content.drift_reports.sort("period", "score_name", "subject")),
            "reference": content.drift_reference,
        },
        releases.HISTORY: {
            "decisions": _rows(content.promotion_decisions.sort("period")),
            "candidates": _rows(content.model_candidates.sort("k")),
            **_expected(content.value_model),
        },
    }


def _expected(value_model: pl.DataFrame | None) -> dict[str, Any]:
    """What is expected of the whole shop, and by which methods, where something is predicted."""
    if value_model is None:
        return {}
    chosen = value_model.filter("is_chosen").sort("target")
    return {"expected": _rows(chosen.select(_OF_EXPECTED))}


def _profiles(content: ReleaseContent, expected: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each segment's profile, with what is known besides.

    Args:
        content: of the release; ``products`` are those that the segment buys more than the shop does.
        expected: segment id → orders and spend that are expected of its customers.
    """
    profiles = _rows(content.segment_profiles.sort("segment_id"))
    if content.customer_value is not None:
        nothing = dict.fromkeys(_OF_SEGMENT, 0.0)
        profiles = [{**row, **expected.get(row["segment_id"], nothing)} for row in profiles]
    if content.segment_products is not None:
        stand_out: dict[str, list[dict[str, Any]]] = {row["segment_id"]: [] for row in profiles}
        for row in _rows(content.segment_products.select(_OF_PRODUCTS).sort("segment_id", "rank")):
            stand_out[row.pop("segment_id")].append(row)
        profiles = [{**row, "products": stand_out[row["segment_id"]]} for row in profiles]
    return profiles


class _ExpectedBySegment:
    """Adds up what is expected of the customers of each segment, in hundredths of a cent, so that no order matters."""

    def __init__(self) -> None:
        self._sums = pl.DataFrame(schema={"segment_id": pl.String, **dict.fromkeys(_OF_SEGMENT, pl.Int64)})

    def add(self, chunks: Iterable[_Chunk]) -> Iterator[_Chunk]:
        """Add chunks up, and pass each on."""
        for chunk in chunks:
            record = chunk.described.get_column("record").struct
            if "value" in record.fields:
                values = record.field("value").list
                found = {
                    name: (values.get(len(_ENDS) * releases.VALUES.index(name)) * _PARTS).round().cast(pl.Int64)
                    for name in _OF_SEGMENT
                }
                rows = pl.DataFrame({"segment_id": record.field("segment_id"), **found})
                self._sums = pl.concat([self._sums, rows]).group_by("segment_id").agg(pl.all().sum())
            yield chunk

    @property
    def sums(self) -> dict[str, dict[str, float]]:
        """The sums by segment id."""
        rows = self._sums.with_columns(pl.col(_OF_SEGMENT) / _PARTS).iter_rows(named=True)
        return {row.pop("segment_id"): row for row in rows}


def _migrations(content: ReleaseContent, ids: pl.Series) -> dict[str, Any]:
    """Moves since the previous snapshot, ``before``, their number by cause, their rates, and the margin rule.

    ``before`` is null at the first snapshot.
    """
    key = content.window.key
    earlier = content.assignments.filter(pl.col("period") < key).select(pl.col("period").unique()).collect()["period"]
    keys = [key, *earlier.sort(descending=True)][:3]
    before = keys[1] if len(keys) > 1 else None
    columns = ("period", "customer_id", "segment_id", "is_rule_segment")
    recent = content.assignments.filter(pl.col("period").is_in(keys)).select(columns)
    moves, counts = [], MoveCounts()
    for start in range(0, max(len(ids), 1), CUSTOMERS_READ):
        history = recent.filter(_is_one_of(ids[start : start + CUSTOMERS_READ])).collect()
        moves.append(count_moves(history, before=before, period=key))
        counts += count_movers(*(history.filter(period=one) for one in keys))
    pair = ("from_segment_id", "to_segment_id")
    return {
        "before": before,
        "moves": pl.concat(moves).group_by(pair).agg(pl.col("n_customers").sum()).sort(pair).to_dicts(),
        "causes": _count_causes(content.segment_migrations),
        **asdict(counts.rates()),
        "margin_rule": content.margin_rule,
    }


def _count_causes(migrations: pl.DataFrame | pl.LazyFrame | None) -> dict[str, int]:
    """Number of moves by cause; nothing where nobody moved or causes are not known."""
    if migrations is None:
        return {}
    counted = migrations.lazy().group_by("cause").agg(pl.len()).collect(engine="streaming")
    n_moves = dict(counted.iter_rows())
    return {cause: n_moves.get(cause, 0) for cause in CAUSES} if n_moves else {}


def _is_one_of(ids: pl.Series) -> pl.Expr:
    """Whether a row is of one of some customers, who are adjacent in the order of their ids."""
    if ids.is_empty():
        return pl.lit(value=False)
    return pl.col("customer_id").is_between(pl.lit(ids[0]), pl.lit(ids[-1]))


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON values: lists that a table has as text become lists, and NaN and infinite numbers become null."""
    readable = frame.with_columns(
        pl.col(pl.Float32, pl.Float64).map_batches(_finite_or_null),
        pl.col(pl.Date, pl.Datetime).dt.to_string("iso:strict"),
    )
    opened = [name for name in _LISTS_AS_TEXT if name in readable.columns]
    return [{**row, **{name: json.loads(row[name] or "[]") for name in opened}} for row in readable.to_dicts()]


def _finite_or_null(column: pl.Series) -> pl.Series:
    return column.set(~column.is_finite(), None)


class _Customers(NamedTuple):
    """What the tables say of some customers, adjacent in the order of their ids.

    Attributes:
        assigned: ``segment_assignments``, at every snapshot so far.
        in_window: ``customer_features`` of the snapshot.
        earlier: RFM at the snapshots before.
        offered: ``product_recommendations``.
        migrations: ``segment_migrations``, where there are any.
        values: predictions of ``customer_value`` with their ends, where there are any.
    """

    assigned: pl.DataFrame
    in_window: pl.DataFrame
    earlier: pl.DataFrame
    offered: pl.DataFrame
    migrations: pl.DataFrame | None
    values: pl.DataFrame | None

    def filter(self, is_wanted: pl.Expr) -> _Customers:
        """The rows of fewer customers."""
        assigned, in_window, earlier, offered = (one.filter(is_wanted) for one in self[:4])
        moves, values = (None if one is None else one.filter(is_wanted) for one in self[4:])
        return _Customers(assigned, in_window, earlier, offered, moves, values)


class _Chunk(NamedTuple):
    """Some customers, adjacent in the order of their ids.

    Attributes:
        read: what the tables say of them.
        described: id and record of each, sorted by id.
    """

    read: _Customers
    described: pl.DataFrame


def _chunks(content: ReleaseContent, ids: pl.Series) -> Iterator[_Chunk]:
    """Every customer of the snapshot, in the order of the ids, a chunk at a time."""
    features = tuple(dict.fromkeys((*RFM, *content.model.features)))
    for first in range(0, len(ids), CUSTOMERS_READ):
        # Several chunks are read at once: to read few rows of a file takes as long as to read a million.
        several = ids[first : first + CUSTOMERS_READ]
        several_read = _read_customers(content, _is_one_of(several), features)
        for start in range(0, len(several), CHUNK_CUSTOMERS):
            read = several_read.filter(_is_one_of(several[start : start + CHUNK_CUSTOMERS]))
            described = describe_customers(
                read.assigned, read.in_window, read.offered, read.values, period=content.window.key, features=features
            )
            yield _Chunk(read, described)


def _read_customers(content: ReleaseContent, is_wanted: pl.Expr, features: Sequence[str]) -> _Customers:
    """What the tables say of some customers."""
    history = content.assignments.filter(pl.col("period") <= content.window.key, is_wanted)
    wanted = ["period", "customer_id", "segment_id", "segment_name", "margin", "is_held", "runner_up_segment_id"]
    offered = content.product_recommendations.lazy().filter(is_wanted).select("customer_id", "rank", "product_id")
    moves, values = content.segment_migrations, content.customer_value
    return _Customers(
        history.select(wanted).collect(),
        content.customer_features.lazy().filter(is_wanted).select("customer_id", *features).collect(),
        _earlier_features(content, is_wanted),
        offered.collect(),
        None if moves is None else moves.lazy().filter(is_wanted).select("customer_id", "cause").collect(),
        None if values is None else values.filter(is_wanted).select("customer_id", *_WITH_ENDS).collect(),
    )


def _sorted_ids(content: ReleaseContent) -> pl.Series:
    now = content.assignments.filter(pl.col("period") == content.window.key)
    return now.select("customer_id").collect()["customer_id"].sort()


def _write_lists(
    directory: Path, content: ReleaseContent, ids: pl.Series, chunks: Iterable[_Chunk]
) -> Iterator[_Chunk]:
    """Write the lists from chunks, and pass each chunk on; the files are complete at the end of the last."""
    key = content.window.key
    places = content.assignments.select("period", "segment_id", "segment_name").unique().collect(engine="streaming")
    places = places.filter(pl.col("period") <= key)
    keys_before = places["period"].unique().sort().to_list()[:-1]
    before = keys_before[-1] if keys_before else None
    windows = {window.key: window for window in (content.window, *reversed(content.earlier_windows))}
    lists = ListWriter(directory, ids, places, list(windows.values()))
    if content.held_out is not None:
        lists.leave_out(ids, content.held_out)
    values = value_segments(content.segment_profiles)
    days = (content.window.as_of - windows[before].as_of).days if before in windows else None
    for read, described in chunks:
        earlier = read.earlier
        listed = list_customers(
            described,
            read.assigned.filter(period=key),
            read.assigned.filter(pl.col("period") == pl.lit(before, pl.String)),
            earlier.filter(period=before) if before in windows else None,
            read.migrations,
            values,
            days,
            read.values,
        )
        in_window = read.in_window.with_columns(period=pl.lit(key)).select(earlier.columns)
        lists.add(listed, read.assigned, pl.concat([in_window, earlier], how="vertical_relaxed"))
        yield _Chunk(read, described)
    lists.finish(before)


def _earlier_features(content: ReleaseContent, is_wanted: pl.Expr) -> pl.DataFrame:
    """RFM of some customers at the snapshots before."""
    columns = ("period", "customer_id", *RFM)
    if content.earlier_features is None:
        return content.customer_features.lazy().select(columns).clear().collect()
    keys = [window.key for window in content.earlier_windows]
    return content.earlier_features.filter(pl.col("period").is_in(keys), is_wanted).select(columns).collect()


def _later_records(later_customers: pl.DataFrame | None) -> pl.DataFrame:
    if later_customers is None:
        return pl.DataFrame(schema={"customer_id": pl.String, "record": pl.String})
    later = later_customers.sort("customer_id").with_columns(pl.col("first_seen_at").dt.to_string("iso:strict"))
    return later.select("customer_id", record=pl.struct("first_seen_at").struct.json_encode())


def _write_customers(path: Path, chunks: Iterator[pl.DataFrame], later: pl.DataFrame) -> tuple[int, int]:
    """Write the customers' file; returns how many have a segment and how many are known by id only."""
    environment = lmdb.open(str(path), map_size=_FIRST_MAP_BYTES, subdir=False, lock=False, sync=False, create=True)
    with environment:
        long_ids: list[tuple[bytes, bytes]] = []
        for chunk in chunks:
            ids, records = chunk["customer_id"], chunk["record"].cast(pl.Binary)
            items = [(customer_key(id_), record) for id_, record in zip(ids.to_list(), records.to_list(), strict=True)]
            # Appending needs ascending keys; it fills pages completely and is several times faster than inserting.
            _put(environment, [item for item in items if not is_digest(item[0])], append=True)
            long_ids += [item for item in items if is_digest(item[0])]
        _put(environment, sorted(long_ids), append=True)
        n_customers = environment.stat()["entries"]
        _put(environment, [(customer_key(id_), record.encode()) for id_, record in later.iter_rows()], append=False)
        return n_customers, environment.stat()["entries"] - n_customers


def _put(environment: lmdb.Environment, items: list[tuple[bytes, bytes]], *, append: bool) -> None:
    """Write items in one transaction, in a larger map where they do not fit; existing keys keep their values."""
    while True:
        try:
            with environment.begin(write=True) as writing:
                writing.cursor().putmulti(items, overwrite=False, append=append)
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
        else:
            return
