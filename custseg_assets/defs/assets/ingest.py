"""The landing zone, and raw, clean and rejected transactions by period."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from custseg_assets.defs.checks import doubts_check, reject_share_check
from custseg_assets.defs.descriptions import ASSETS as DESCRIPTIONS
from custseg_assets.defs.materialise import OWNERS, Batch, Materialization, materialise, period_asset
from custseg_assets.defs.metadata import picture, table_preview
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS, REJECTED_TRANSACTIONS
from custseg_assets.domain.transactions.quality import reject_share_outliers
from custseg_assets.home.evidence import reject_shares_of
from custseg_assets.home.intake import Intake
from custseg_assets.home.open import LockedHome, OpenHome
from custseg_assets.pictures.monitoring import rejections
from custseg_assets.stores.landing_zone import TakenIn
from custseg_assets.stores.staged import MAX_ROWS_AT_ONCE, ROWS_OF_A_SLICE, key_batches, stage
from custseg_assets.stores.table_files import TableFiles

if TYPE_CHECKING:
    from custseg_assets.gcp.classify_batches import DataprocClassifier

_FILES_SHOWN = 1000


@dg.asset(
    group_name="ingest", owners=OWNERS, kinds={"file"}, code_version="1", description=DESCRIPTIONS["landed_files"]
)
def landed_files(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Files dropped into the landing folder: taken in once, by content, or moved aside with the reason."""
    taken = Intake(home, context.log.info).take_in_landed()
    return dg.MaterializeResult(
        metadata={
            "summary": str(taken),
            "files": table_preview(_arrivals(taken), n_rows=_FILES_SHOWN),
            "unreadable": dg.MetadataValue.json(taken.unreadable),
            "periods": dg.MetadataValue.json(taken.touched(home.settings.snapshots.cadence)),
            "n_rows": taken.n_rows,
            "folder": dg.MetadataValue.path(str(home.landing_zone.folder)),
        },
        # What a file touches is known by period, from its lines; a new version here would mark every period.
        data_version=dg.DataVersion("landed"),
    )


@period_asset("raw_transactions", group="ingest", kinds={"polars", "deltalake"})
def raw_transactions(context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]) -> Materialization:
    """Read the periods' lines from the deliveries that make up the source."""
    deliveries, cadence = home.calendar.deliveries, home.settings.snapshots.cadence

    sizes = home.calendar.rows_of(context.partition_keys)

    def read(staging: Path) -> Iterator[Batch]:
        for number, keys in enumerate(key_batches(sizes)):
            lines = home.deliveries.scan_periods(deliveries, keys, cadence)
            if sum(sizes[key] for key in keys) <= MAX_ROWS_AT_ONCE:
                yield keys, lines.collect()
            else:
                parts = lines.collect_batches(chunk_size=ROWS_OF_A_SLICE, maintain_order=True)
                yield keys, stage(RAW_TRANSACTIONS, parts, staging / f"{number:06}")

    files = [delivery.name for delivery in deliveries]
    with home.staging() as staging:
        return materialise(context, home, RAW_TRANSACTIONS, read(staging), metadata={"source_files": files})


_CHECKS = (reject_share_check(), doubts_check())


@period_asset(
    "clean_transactions",
    "rejected_transactions",
    group="clean",
    kinds={"polars", "deltalake"},
    more_checks=_CHECKS,
)
def clean_transactions(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[LockedHome]
) -> Iterator[Materialization]:
    """Sort every line into those that count and those that are rejected with a reason."""
    rules = home.cleaning_rules
    raw = home.tables.table_files(RAW_TRANSACTIONS, context.partition_keys)
    rejected: list[Batch] = []
    with (
        home.opened_engine(raw.n_rows, context.log.info) as (engine, staging),
        _elsewhere(context, home, raw) as batches,
    ):

        def clean() -> Iterator[Batch]:
            for lines in (batches or engine).classify(raw, rules, staging):
                rejected.append((lines.keys, lines.rejected))
                yield lines.keys, lines.clean
            if without := sorted({*context.partition_keys} - {*raw.sizes}):
                rejected.append((without, REJECTED_TRANSACTIONS.schema.to_frame()))
                yield without, CLEAN_TRANSACTIONS.schema.to_frame()

        shown = {"rules": dg.MetadataValue.json(vars(rules))}
        yield materialise(context, home, CLEAN_TRANSACTIONS, clean(), metadata=shown)
        result = materialise(
            context, home, REJECTED_TRANSACTIONS, rejected, show=lambda: {"by_reason": _draw_rejections(home)}
        )
    more = [check.evaluate(home) for check in _CHECKS]
    yield result._replace(check_results=[*(result.check_results or ()), *more])


@contextlib.contextmanager
def _elsewhere(
    context: dg.AssetExecutionContext, home: LockedHome, raw: TableFiles
) -> "Iterator[DataprocClassifier | None]":
    """What classifies so many lines on Dataproc Serverless; ``None`` where the home's engine does it."""
    gcp = home.settings.gcp
    if gcp.dataproc.image is None or raw.n_rows < gcp.dataproc.min_lines:
        yield None
        return
    from custseg_assets.gcp.classify_batches import DataprocClassifier

    with DataprocClassifier.opened(gcp, context) as batches:
        yield batches


def _arrivals(taken: TakenIn) -> pl.DataFrame:
    rows = [(one.file.name, one.outcome, one.delivery and one.delivery.n_rows, one.note) for one in taken.arrivals]
    schema = {"file": pl.String, "outcome": pl.String, "n_rows": pl.Int64, "note": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _draw_rejections(home: OpenHome) -> dg.MarkdownMetadataValue:
    rejected = home.tables.scan(REJECTED_TRANSACTIONS).group_by("period", "reason").agg(pl.len().alias("n_rows"))
    kept = list(home.tables.sizes(CLEAN_TRANSACTIONS).items())
    sizes = pl.DataFrame(kept, schema={"period": pl.String, "n_rows": pl.UInt32}, orient="row")
    outliers = reject_share_outliers(reject_shares_of(home)).outliers
    drawn = rejections(
        rejected.collect().sort("period", "reason"), sizes, home.settings.snapshots.cadence, outliers.keys()
    )
    return picture("rejected lines by period", drawn)


ASSETS = (raw_transactions, clean_transactions)
