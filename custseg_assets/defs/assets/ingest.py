"""raw, clean and rejected transactions, by period."""

from collections.abc import Iterator

import dagster as dg
import narwhals as nw
import polars as pl

from custseg_assets.defs.checks import check_specs, reject_share_result, reject_share_spec
from custseg_assets.defs.materialise import OWNERS, Batch, key_batches, picture, publish, spec_of, table_preview
from custseg_assets.defs.partitions import Layout
from custseg_assets.defs.resources import Stores
from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS, REJECTED_TRANSACTIONS
from custseg_assets.domain.transactions import cleaning
from custseg_assets.domain.transactions.quality import reject_share_outliers
from custseg_assets.home.intake import Intake
from custseg_assets.home.soundness import reject_shares_of
from custseg_assets.pictures.monitoring import rejections
from custseg_assets.settings import Settings
from custseg_assets.stores.landing_zone import TakenIn

_FILES_SHOWN = 1000


def ingest_assets(layout: Layout, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of the groups ``ingest`` and ``clean``."""

    @dg.asset(group_name="ingest", owners=OWNERS, kinds={"file"}, code_version="1")
    def landed_files(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        """Files dropped into the landing folder: taken in once, by content, or moved aside with the reason."""
        taken = Intake(settings, context.log.info).take_in_landed()
        return dg.MaterializeResult(
            metadata={
                "summary": str(taken),
                "files": table_preview(_arrivals(taken), n_rows=_FILES_SHOWN),
                "unreadable": dg.MetadataValue.json(taken.unreadable),
                "periods": dg.MetadataValue.json(taken.touched(settings.snapshots.cadence)),
                "n_rows": taken.n_rows,
                "folder": dg.MetadataValue.path(str(stores.landing_zone.folder)),
            },
            # What a file touches is known by period, from its lines; a new version here would mark every period.
            data_version=dg.DataVersion("landed"),
        )

    @dg.multi_asset(
        specs=[
            spec_of(RAW_TRANSACTIONS, group="ingest", deps=[dg.AssetDep("landed_files")], kinds={"polars", "deltalake"})
        ],
        check_specs=check_specs(RAW_TRANSACTIONS, settings),
        partitions_def=layout.periods,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def raw_transactions(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:
        provenance = stores.provenance

        def batches() -> Iterator[Batch]:
            for keys in key_batches(provenance.rows_of(context.partition_keys)):
                lines = stores.deliveries.scan_periods(provenance.current, keys, settings.snapshots.cadence)
                yield keys, lines.collect()

        files = [delivery.name for delivery in provenance.current]
        return publish(context, stores, RAW_TRANSACTIONS, batches(), metadata={"source_files": files})

    @dg.multi_asset(
        name="clean_transactions",
        specs=[
            spec_of(table, group="clean", deps=[dg.AssetDep("raw_transactions")], kinds={"polars", "deltalake"})
            for table in (CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS)
        ],
        check_specs=[
            *check_specs(CLEAN_TRANSACTIONS, settings),
            *check_specs(REJECTED_TRANSACTIONS, settings),
            reject_share_spec(),
        ],
        partitions_def=layout.periods,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def clean_transactions(
        context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]
    ) -> Iterator[dg.MaterializeResult]:
        rules, rejected = stores.provenance.cleaning_rules, []

        def kept() -> Iterator[Batch]:
            for keys in key_batches(stores.provenance.rows_of(context.partition_keys)):
                # Cleaning promises no order; the tables are the same every time only if their rows have one.
                raw = nw.from_native(stores.tables.scan(RAW_TRANSACTIONS, keys).with_row_index("line"))
                classified = cleaning.classify(raw, rules).collect().sort("line").lazy()
                rejected.append((keys, _native(cleaning.rejected_lines(classified))))
                yield keys, _native(cleaning.clean_lines(classified, rules))

        yield publish(
            context, stores, CLEAN_TRANSACTIONS, kept(), metadata={"rules": dg.MetadataValue.json(vars(rules))}
        )
        result = publish(context, stores, REJECTED_TRANSACTIONS, rejected)
        counts, kept_counts = _counts(stores)
        shares = reject_shares_of(stores)
        found = reject_share_outliers(shares)
        shown = picture("rejected lines by period", rejections(counts, kept_counts, found.outliers.keys()))
        yield result._replace(
            metadata={**result.metadata, "by_reason": shown},
            check_results=[*result.check_results, reject_share_result(found, shares)],
        )

    return [landed_files, raw_transactions, clean_transactions]


def _arrivals(taken: TakenIn) -> pl.DataFrame:
    rows = [(one.file.name, one.outcome, one.delivery and one.delivery.n_rows, one.note) for one in taken.arrivals]
    schema = {"file": pl.String, "outcome": pl.String, "n_rows": pl.Int64, "note": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _native(lines: cleaning.Lines) -> pl.DataFrame:
    frame: pl.DataFrame = lines.collect("polars").to_native()
    return frame


def _counts(stores: Stores) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rejected lines by period and reason, and kept lines by period."""
    rejected = stores.tables.scan(REJECTED_TRANSACTIONS).group_by("period", "reason").agg(pl.len().alias("n_rows"))
    kept = list(stores.tables.sizes(CLEAN_TRANSACTIONS).items())
    sizes = pl.DataFrame(kept, schema={"period": pl.String, "n_rows": pl.UInt32}, orient="row")
    return rejected.collect().sort("period", "reason"), sizes
