"""Classifying lines as a Spark program of its own: what a batch of Dataproc Serverless runs.

``main`` reads what it is to do from one JSON file, writes clean and rejected lines as staged rows, and says when both
are complete. Files are read and written by Spark only, so they may be wherever Spark finds them. Who starts it is in
``classify_batches``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, RAW_TRANSACTIONS, REJECTED_TRANSACTIONS
from custseg_assets.domain.transactions.cleaning import CleaningRules
from custseg_assets.engines.spark_engine import SparkEngine
from custseg_assets.engines.spark_session import SEMANTICS
from custseg_assets.stores.table_files import TableFile, TableFiles

DONE = "done"
"""Folder of the output that is there, with a file ``_SUCCESS``, when everything else is complete."""


def describe_job(raw: TableFiles, rules: CleaningRules) -> str:
    """What is to be done, as ``main`` reads it.

    Args:
        raw: files of ``raw_transactions``.
        rules: of the shop.
    """
    files = [[file.period, file.path, file.n_rows] for file in raw.files]
    return json.dumps({"files": files, "stored": sorted(raw.stored), "rules": vars(rules)})


def main(argv: Sequence[str] | None = None) -> None:
    """Classify lines.

    Raises:
        RuntimeError: fewer or more lines came out than went in.
    """
    parser = argparse.ArgumentParser(prog="custseg_assets.gcp.classify_job", description=__doc__)
    parser.add_argument("--job", required=True, metavar="ADDRESS", help="what is to be done, as describe_job writes it")
    parser.add_argument("--out", required=True, metavar="ADDRESS", help="folder for the result")
    arguments, _ = parser.parse_known_args(argv)
    from pyspark.sql import SparkSession

    session = SparkSession.builder.appName("custseg").getOrCreate()
    for name, value in SEMANTICS.items():
        session.conf.set(name, value)
    with _open_channel() as progress:
        raw, rules = _read_job(session, arguments.job)
        progress(f"{raw.n_rows:,} lines in {len(raw.files):,} files, with Spark {session.version}")
        n_clean, n_rejected = _classify(session, raw, rules, arguments.out)
        progress(f"{n_clean:,} lines are clean, {n_rejected:,} are rejected")
    session.stop()


def _read_job(session: Any, address: str) -> tuple[TableFiles, CleaningRules]:
    job = json.loads(session.read.text(address, wholetext=True).head()[0])
    rules = job["rules"] | {"service_descriptions": tuple(job["rules"]["service_descriptions"])}
    files = tuple(TableFile(*file) for file in job["files"])
    return TableFiles(RAW_TRANSACTIONS, files, stored=frozenset(job["stored"])), CleaningRules(**rules)


def _classify(session: Any, raw: TableFiles, rules: CleaningRules, out: str) -> tuple[int, int]:
    engine = SparkEngine(session)
    engine.set_partitions(raw.n_rows)
    with engine.classified(raw, rules) as lines:
        counts = [
            _write(engine, session, rows, f"{out}/{table.name}")
            for rows, table in zip(lines, (CLEAN_TRANSACTIONS, REJECTED_TRANSACTIONS), strict=True)
        ]
    if sum(counts) != raw.n_rows:
        raise RuntimeError(f"{raw.n_rows:,} lines were given, and {sum(counts):,} were written")
    counted = json.dumps(dict(zip((CLEAN_TRANSACTIONS.name, REJECTED_TRANSACTIONS.name), counts, strict=True)))
    session.createDataFrame([(counted,)], "value string").write.mode("overwrite").text(f"{out}/{DONE}")
    return counts[0], counts[1]


def _write(engine: SparkEngine, session: Any, rows: Any, folder: str) -> int:
    engine.write(rows, folder)
    n_rows: int = session.read.schema("source_row bigint").parquet(folder).count()
    return n_rows


@contextlib.contextmanager
def _open_channel() -> Iterator[Callable[[str], None]]:
    """Where lines of progress go: into the Dagster run that started this program, or to standard output."""
    from dagster_pipes import PipesCliArgsParamsLoader, open_dagster_pipes

    loader = PipesCliArgsParamsLoader()
    if not loader.is_dagster_pipes_process():
        yield lambda line: print(line, flush=True)  # noqa: T201
        return
    from custseg_assets.gcp.folders import pipes_channels

    with open_dagster_pipes(params_loader=loader, **pipes_channels()) as pipes:
        yield pipes.log.info


if __name__ == "__main__":
    main()
