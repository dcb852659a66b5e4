"""Great Expectations' verdicts as Dagster asset checks, one check per group of expectations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import polars as pl

from custseg_assets.domain.schemas import CLEAN_TRANSACTIONS, CUSTOMER_FEATURES, REJECTED_TRANSACTIONS, Table
from custseg_assets.domain.segments.clustering import kmeans_columns
from custseg_assets.domain.segments.model import ScalingReference
from custseg_assets.domain.segments.training_tables import measure_off_reference, measure_snapshot
from custseg_assets.domain.transactions.quality import reject_share_outliers
from custseg_assets.expectations.suites import EXAMPLE_KEYS, ExpectationGroup, Rule, groups_for
from custseg_assets.expectations.validation import GroupResult, combined, together, validate
from custseg_assets.home.evidence import reject_shares_of
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import Settings

SCALED_FEATURES = "scaled_features"
REJECT_SHARE = "reject_share_as_usual"
_SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}


def check_specs(table: Table, settings: Settings) -> list[dg.AssetCheckSpec]:
    """The checks of a table's asset; none where the table has no suite."""
    if table.name not in EXAMPLE_KEYS:
        return []
    return [
        dg.AssetCheckSpec(group.name, asset=table.name, description=group.description, blocking=group.is_blocking)
        for group in groups_for(table.name, settings)
    ]


@dataclass(frozen=True)
class MoreCheck:
    """A check of a table besides those of its suite.

    Attributes:
        spec: how it presents itself.
        evaluate: its verdict about the table as it is stored.
    """

    spec: dg.AssetCheckSpec
    evaluate: Callable[[OpenHome], dg.AssetCheckResult]


def reject_share_check() -> MoreCheck:
    """The check of how much of each period is rejected."""
    spec = dg.AssetCheckSpec(
        REJECT_SHARE,
        asset=REJECTED_TRANSACTIONS.name,
        description="The share of rejected lines is near the other periods'; one far from it was exported differently.",
    )
    return MoreCheck(spec, lambda home: _reject_share_result(reject_shares_of(home)))


def _reject_share_result(shares: Mapping[str, float]) -> dg.AssetCheckResult:
    """The warning about periods with an unusual share of rejected lines.

    Args:
        shares: rejected share of every period so far.
    """
    found = reject_share_outliers(shares)
    return dg.AssetCheckResult(
        asset_key=REJECTED_TRANSACTIONS.name,
        check_name=REJECT_SHARE,
        passed=not found.outliers,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "summary": found.summary,
            "outliers": dg.MetadataValue.json(dict(found.outliers)),
            "shares": dg.MetadataValue.json(dict(shares)),
        },
    )


def doubts_check() -> MoreCheck:
    """The check over all files together that warns where the log may mean something else than what was read."""
    spec = dg.AssetCheckSpec(
        "across_columns",
        asset=CLEAN_TRANSACTIONS.name,
        description="Customers, orders and amounts fit together over the whole log. Where they do not, such as one "
        "customer with a fifth of all orders, figures may be wrong although every line is right.",
    )
    return MoreCheck(spec, _doubts_result)


def _doubts_result(home: OpenHome) -> dg.AssetCheckResult:
    """What is doubtful about the log as a whole."""
    current = home.deliveries.current()
    doubts = list(current.doubts) if current else []
    return dg.AssetCheckResult(
        asset_key=CLEAN_TRANSACTIONS.name,
        check_name="across_columns",
        passed=not doubts,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"summary": "; ".join(doubts) or "holds", "doubts": dg.MetadataValue.json(doubts)},
    )


def key_of(result: dg.AssetCheckResult) -> dg.AssetCheckKey:
    """Which check a result is of."""
    if result.asset_key is None or result.check_name is None:
        raise ValueError(f"a result of a check that does not say of which: {result}")
    return dg.AssetCheckKey(result.asset_key, result.check_name)


@dataclass
class SuiteRun:
    """A table's suite, run on one batch of partitions after the other.

    Attributes:
        table: what is checked.
        home: for the settings and the rules in force.
    """

    table: Table
    home: OpenHome
    _results: list[Sequence[GroupResult]] = field(default_factory=list)
    _references: dict[str, ScalingReference] = field(default_factory=dict)

    def check(self, parts: Iterable[pl.DataFrame], *, has_page: bool = True) -> bool:
        """Check some partitions; whether nothing may be made from them.

        Args:
            parts: their rows, at least one frame, one at a time in memory.
            has_page: whether Data Docs get a page; there is none about parts of a partition.
        """
        if self.table.name not in EXAMPLE_KEYS:
            return False
        of_parts = [self._validate(part, has_page=has_page) for part in parts]
        results = [together(same) for same in zip(*of_parts, strict=True)] if len(of_parts) > 1 else of_parts[0]
        self._results.append(results)
        return _is_blocking(results)

    def check_slices(self, slices: Iterable[pl.DataFrame], keep: Callable[[pl.DataFrame], None]) -> bool:
        """Check a partition slice by slice; whether nothing may be made from it.

        Rules about all rows together are checked at the end, on the few columns that they read.

        Args:
            slices: of customers, ascending by id.
            keep: gets each slice once it was checked.

        Raises:
            ValueError: a slice does not follow the one before it: a customer might be in both.
        """
        about_whole = [rule for group in self._groups() for rule in group.rules if rule.is_about_whole]
        names = list(dict.fromkeys(name for rule in about_whole for name in rule.columns))
        of_all, last, has_page, n_before = [], None, True, len(self._results)
        for rows in slices:
            if rows.height:
                first = str(rows["customer_id"][0])
                if last is not None and first <= last:
                    raise ValueError(f"{self.table.name}: a slice begins with {first}, the one before ends with {last}")
                last = str(rows["customer_id"][-1])
            # The page of a slice in which a rule is broken is not replaced by that of a later one.
            has_page &= not self._check(rows, lambda rule: not rule.is_about_whole, is_slice=True, has_page=has_page)
            of_all.append(rows.select(names))
            keep(rows)
        if names and of_all:
            self._check(pl.concat(of_all), lambda rule: rule.is_about_whole and bool(rule.columns), has_page=False)
            self._results[-1] = [replace(result, n_rows=0) for result in self._results[-1]]
        return any(_is_blocking(results) for results in self._results[n_before:])

    def _groups(self) -> Sequence[ExpectationGroup]:
        if self.table.name not in EXAMPLE_KEYS:
            return ()
        return groups_for(self.table.name, self.home.settings, self.home.cleaning_rules)

    def _check(
        self, frame: pl.DataFrame, wanted: Callable[[Rule], bool], *, is_slice: bool = False, has_page: bool = True
    ) -> bool:
        if self.table.name not in EXAMPLE_KEYS:
            return False
        results = self._validate(frame, wanted, is_slice=is_slice, has_page=has_page)
        self._results.append(results)
        return _is_blocking(results)

    def _validate(
        self,
        frame: pl.DataFrame,
        wanted: Callable[[Rule], bool] = lambda _: True,
        *,
        is_slice: bool = False,
        has_page: bool = True,
    ) -> Sequence[GroupResult]:
        return validate(
            frame,
            self.table.name,
            self.home.settings,
            rules=self.home.cleaning_rules,
            measured=self._measure(frame, is_slice=is_slice) if "customer_id" in frame.columns else None,
            data_docs_dir=self.home.paths.data_docs if self.home.has_viewers and has_page else None,
            wanted=wanted,
        )

    def _measure(self, frame: pl.DataFrame, *, is_slice: bool) -> pl.DataFrame | None:
        """What rules read besides the table: of scaled features, how far they are from the reference in force."""
        if self.table.name != SCALED_FEATURES:
            return None
        names, keys = self.home.settings.model.features, frame["period"].unique().sort().to_list()
        for key in keys:
            if key not in self._references:
                self._references[key] = self.home.champions.reference_before(key) or self._measure_own(key)
        ids = frame["customer_id"]
        features = self.home.tables.scan(CUSTOMER_FEATURES, keys)
        if is_slice and len(ids):
            features = features.filter(pl.col("customer_id").is_between(pl.lit(ids[0]), pl.lit(ids[-1])))
        there = features.select("period", "customer_id", *names).collect()
        return measure_off_reference(frame, there, self._references, names)

    def _measure_own(self, key: str) -> ScalingReference:
        """The reference of a snapshot before the first model."""
        names = self.home.settings.model.features
        return measure_snapshot(self.home.tables.read(CUSTOMER_FEATURES, [key], kmeans_columns(names)), names)

    def results(self) -> list[dg.AssetCheckResult]:
        """What Dagster is told, over all batches."""
        return [asset_check_result(combined(batches)) for batches in zip(*self._results, strict=True)]


def _is_blocking(results: Sequence[GroupResult]) -> bool:
    return any(not result.success and result.group.is_blocking for result in results)


def asset_check_result(result: GroupResult) -> dg.AssetCheckResult:
    """What Dagster is told of a group of rules: verdict, counts, and example rows in a form it can store."""
    broken = "; ".join(rule.words for rule in result.rules if not rule.success)
    summary = f"not so in {result.n_unexpected:,} of {result.n_rows:,} rows: {broken}" if broken else "holds"
    return dg.AssetCheckResult(
        asset_key=result.group.table,
        check_name=result.group.name,
        passed=result.success,
        severity=_SEVERITY[result.group.severity],
        metadata={
            "summary": summary,
            "n_rows": result.n_rows,
            "n_unexpected": result.n_unexpected,
            **({"examples": _as_json(result.examples)} if result.examples else {}),
            "rules": dg.MetadataValue.md(result.markdown()),
        },
    )


def _as_json(rows: Sequence[Mapping[str, Any]]) -> dg.JsonMetadataValue:
    """Rows as they can be stored: instants, and numbers that are none, as text."""
    return dg.MetadataValue.json([{name: _plain(value) for name, value in row.items()} for row in rows])


def _plain(value: Any) -> Any:
    is_storable = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_storable else str(value)
