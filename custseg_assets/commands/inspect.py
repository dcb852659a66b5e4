"""``custseg inspect``: what custseg would read of a source, before anything is stored, and a configuration to save.

What is written is a whole ``custseg.toml``: the facts are its comments.
"""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl

from custseg_assets.commands.configuration import write_configuration
from custseg_assets.commands.status import unreadable_examples
from custseg_assets.domain.transactions.cleaning import classify, clean_lines
from custseg_assets.domain.transactions.platforms import PRESETS
from custseg_assets.errors import BadInputError
from custseg_assets.home.intake import refuse_stray_days, take_in_source
from custseg_assets.home.log_doubts import require_no_doubt, rules_for
from custseg_assets.settings import DEMO, FROM_ENVIRONMENT, Settings
from custseg_assets.source_settings import SourceSettings
from custseg_assets.stores.columns import MissingColumnsError, find_columns
from custseg_assets.stores.deliveries import DeliveryStore
from custseg_assets.stores.delivery import CurrentSource, Delivery
from custseg_assets.stores.preview import Preview, preview_tables
from custseg_assets.stores.reading import BrokenFileError
from custseg_assets.stores.sources import keys_of, list_source_files
from custseg_assets.stores.spelling import drop_absent, spell_as_in

_N_EXAMPLES = 3
_WIDTH = 116
_LONGEST = 32
"""Characters of a header or value in the table of columns."""
_NOT_WRITTEN = {"source", "cleaning", *FROM_ENVIRONMENT}
_UTF_8, _OTHER_ENCODING = "utf-8", "cp1252"
"""The encoding without a setting, and the one that most files have which are not in it."""


def inspect(source: str, settings: Settings, write: Callable[[str], None], *, is_kept: bool = False) -> None:
    """Write what would be read of a source: facts as comments, and the configuration that reads it in just this way.

    Args:
        source: path of a file or folder, or another source that ``[source] path`` may name.
        settings: how it is read.
        write: takes each line.
        is_kept: whether the draft is kept, so that only what it leaves open is refused.

    Raises:
        BadInputError: it would be refused; what can be known, and a draft of a configuration, were written before.
    """
    with tempfile.TemporaryDirectory(prefix="custseg-inspect-") as folder:
        reading = _read(Path(folder), source, settings)
        if isinstance(reading.refusal, BrokenFileError):
            raise reading.refusal
        # Here and not before: this process opens only what another has opened and survived.
        previews, n_more = _preview(source, settings)
        draft, still_refused = _Draft(settings, previews), reading.refusal
        if reading.refusal and not reading.deliveries:
            kept, dropped = _drop_absent(settings, previews)
            draft = _propose(previews, kept, source)
            if draft.settings != settings:
                proposed = _read(Path(folder), source, draft.settings)
                still_refused = proposed.refusal
                facts = (*dropped, *_in_case(proposed), *proposed.facts)
                reading = _Reading(proposed.deliveries, facts, reading.refusal)
        for part in ([*_describe_tables(draft, reading.deliveries, n_more)], reading.facts):
            for line in [*part, ""] if part else []:
                write(_as_comment(line))
    write("# custseg.toml" + _title(reading.refusal, still_refused, is_kept=is_kept))
    comments = _lines_to_write(still_refused) if still_refused else {}
    for line in write_configuration(
        draft.settings, source, reading.deliveries, draft.proposed, draft.perhaps(), comments
    ):
        write(line)
    if others := settings.model_dump(exclude=_NOT_WRITTEN, exclude_defaults=True):
        write(f"# Not about reading, so not repeated here: [{'], ['.join(others)}]")
    if refusal := still_refused if is_kept else reading.refusal:
        raise refusal


@dataclass(frozen=True)
class _Draft:
    """Settings that may read a source, the beginning of its tables with them, and what in them is only proposed."""

    settings: Settings
    previews: Sequence[Preview]
    proposed: frozenset[str] = frozenset()

    def perhaps(self) -> dict[str, str | list[str]]:
        """Columns that somebody may want to add, and those that are required and that nothing fits."""
        if not self.previews:
            return {}
        source = self.settings.source
        first = _most_likely(self.previews, source)
        missing: dict[str, str | list[str]] = dict.fromkeys(first.propose(source), "…")
        if "line_amount" in missing and (price := first.propose_price(source)):
            missing["line_amount"] = price
        return missing | first.propose_time(source) | first.propose_ids(source)


@dataclass(frozen=True)
class _Reading:
    """What was read of a source, what there is to say about it, and why it would be refused."""

    deliveries: Sequence[Delivery] = ()
    facts: Sequence[str] = ()
    refusal: BadInputError | None = None


def _as_comment(line: str) -> str:
    """A line as a comment of TOML, which may not hold characters that control a terminal."""
    return "# {}".format("".join(one if one.isprintable() else " " for one in line)).rstrip()


def _title(refusal: BadInputError | None, still_refused: BadInputError | None, *, is_kept: bool) -> str:
    """What the configuration is good for."""
    if still_refused:
        return ", a draft to complete: with these lines the source is still refused"
    then = "" if is_kept else ", then save it"
    return f", a draft that reads the source as above: check what is proposed{then}" if refusal else ""


def _lines_to_write(refusal: BadInputError) -> dict[str, list[str]]:
    """Section → the lines that a refusal asks for, as comments below what was found."""
    return {
        section: [*map(_as_comment, _wrap(f"{refusal.got}. If so, take the # away:")), *map(_as_comment, lines)]
        for section, lines in refusal.lines.items()
        if lines
    }


def _drop_absent(settings: Settings, previews: Sequence[Preview]) -> tuple[Settings, list[str]]:
    """Settings without what names columns that no table has, as those of another file do, and a line that says so."""
    if not previews:
        return settings, []
    header = [name for preview in previews for name in dict.fromkeys(preview.header.names)]
    source, dropped = drop_absent(settings.source, header)
    if not dropped:
        return settings, []
    said = f"! Left out of the draft, since there is no such column: {'; '.join(dropped)}"
    return settings.model_copy(update={"source": source}), _wrap(said)


def _in_case(proposed: _Reading) -> list[str]:
    if isinstance(proposed.refusal, MissingColumnsError):
        return []
    if proposed.refusal:
        return _wrap(f"! With the proposed lines it is refused as well: {proposed.refusal}")
    return ["With the proposed lines it would be read like this:"]


def _preview(source: str, settings: Settings) -> tuple[list[Preview], int]:
    """The tables of a source's first file, and how many other files there are."""
    if source == DEMO or "://" in source or settings.source.query is not None:
        return [], 0
    path = Path(source)
    files = list_source_files(path, lambda _: None)
    return preview_tables(files[0], settings.source, keys_of(files[0], path)), len(files) - 1


def _propose(previews: Sequence[Preview], settings: Settings, source: str) -> _Draft:
    """Settings with a proposal for what keeps a source from being read, as far as there is one, step by step."""
    proposed = _proposed_by(_most_likely(previews, settings.source), settings.source) if previews else {}
    if not previews and settings.source.encoding == _UTF_8:
        proposed = {"encoding": _OTHER_ENCODING}
    if not proposed:
        return _Draft(settings, previews)
    changed = _with_source(settings, **proposed)
    there, _ = _preview(source, changed)
    if not there:
        return _Draft(settings, previews)
    draft = _propose(there, changed, source)
    before = settings.source.columns
    new = {name for name, one in proposed.get("columns", proposed).items() if before.get(name) != one}
    return replace(draft, proposed=draft.proposed | new)


def _most_likely(previews: Sequence[Preview], source: SourceSettings) -> Preview:
    """The table that may be the log: the first of those with the fewest columns that nothing fits."""
    return min(previews, key=lambda one: sum(found.header is None for found in one.propose(source).values()))


def _proposed_by(preview: Preview, source: SourceSettings) -> dict[str, Any]:
    """Keys of ``[source]`` that the beginning of a table is a reason for."""
    if preview.header_row is not None and source.header_row is None:
        return {"header_row": preview.header_row}
    found = {name: one.header for name, one in preview.propose(source).items() if one.header}
    # Then the ids of orders, without which their restarting or repeated totals are not seen.
    found = found or preview.propose_ids(source, is_certain=True)
    return {"columns": {**source.columns, **found}} if found else {}


def _with_source(settings: Settings, **changed: Any) -> Settings:
    return settings.model_copy(update={"source": settings.source.model_copy(update=changed)})


def _read(folder: Path, source: str, settings: Settings) -> _Reading:
    """Read a source as a run would."""
    said: list[str] = []
    store = DeliveryStore(folder / "deliveries", settings.reading)
    try:
        deliveries = take_in_source(store, source, settings, said.append)
    except BadInputError as error:
        return _Reading((), said, error)
    facts = [part for line in said for part in _wrap(line)]
    facts += ["", *_describe_lines(store, deliveries, settings)]
    refusal = None
    doubts: tuple[str, ...] = ()
    try:
        refuse_stray_days(store, source, CurrentSource(), CurrentSource(tuple(deliveries)), settings)
        doubts = require_no_doubt(store, deliveries, settings)
    except BadInputError as error:
        refusal = error
    return _Reading(deliveries, [*facts, *(part for doubt in doubts for part in _wrap(f"! {doubt}"))], refusal)


def _wrap(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, _WIDTH, subsequent_indent=f"{indent}    ", break_on_hyphens=False)


def _describe_lines(store: DeliveryStore, deliveries: Sequence[Delivery], settings: Settings) -> Iterator[str]:
    """How many lines there are and what they are worth, before and after cleaning."""
    rules = rules_for(deliveries, settings)
    raw = store.scan(deliveries)
    classified = classify(nw.from_native(raw.with_columns(pl.lit("").alias("period"))), rules)
    classified = classified.sort("source_file", "source_row")
    reasons = _native(classified).select("reason", "line_amount").collect()
    kept = _native(clean_lines(classified, rules)).collect()
    yield _count("records", reasons.height, reasons["line_amount"].sum())
    counted = reasons.drop_nulls("reason").group_by("reason").agg(pl.len().alias("n"), pl.col("line_amount").sum())
    for reason, n, amount in counted.sort("n", "reason", descending=[True, False]).iter_rows():
        yield _count(f"  {reason}", n, amount)
        if reason == "unreadable":
            yield from (f"    {example}" for example in unreadable_examples(_native(classified)))
    yield _count("kept", kept.height, kept["line_amount"].sum())
    orders, cancelled = (kept.filter(pl.col("is_cancellation") == flag) for flag in (False, True))
    yield _count("customers", kept["customer_id"].n_unique())
    yield _count("orders", orders["invoice_id"].n_unique(), orders["line_amount"].sum())
    if cancelled.height:
        yield _count("taken back (orders)", cancelled["invoice_id"].n_unique(), cancelled["line_amount"].sum())
    days = [day for one in deliveries for day in (one.first_date, one.last_date)]
    yield f"days        {min(days)} to {max(days)}"
    names = ["customer_id", "invoiced_at", "invoice_id", "product_id", "quantity", "line_amount"]
    shown = [name for name in names if kept[name].null_count() < kept.height]
    for row in kept.select(shown).head(_N_EXAMPLES).iter_rows(named=True):
        yield from _wrap("  e.g. " + ", ".join(f"{name} {_plain(value)}" for name, value in row.items()))


def _plain(value: Any) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _count(name: str, n: int, amount: Any = None) -> str:
    return f"{name:<22} {n:>10,}" + ("" if amount is None else f" {amount:>18,.2f}")


def _native(lines: Any) -> pl.LazyFrame:
    frame: pl.LazyFrame = lines.to_native()
    return frame


def _describe_tables(draft: _Draft, deliveries: Sequence[Delivery], n_more: int) -> Iterator[str]:
    """The columns of a source's tables, each with a value, and what is read from it."""
    shown: set[tuple[str, ...]] = set()
    for preview in draft.previews:
        yield f"{preview.where}: {preview.form}"
        if preview.header.names not in shown:
            uses = _uses_of(preview, deliveries, draft)
            for header, example in preview.examples.items():
                value = repr(_cut(example, _LONGEST - 2)) if example else "(empty)"
                yield f"  {_cut(header):<{_LONGEST}}  {value:<{_LONGEST}}  {', '.join(uses[header])}"
        shown.add(preview.header.names)
    if n_more:
        yield f"and {n_more:,} more file{'' if n_more == 1 else 's'}"


def _cut(text: str, length: int = _LONGEST) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _uses_of(preview: Preview, deliveries: Sequence[Delivery], draft: _Draft) -> dict[str, list[str]]:
    """Header → what is read from it, and why."""
    source = draft.settings.source
    uses: dict[str, list[str]] = {header: [] for header in preview.examples}
    preset = deliveries[0].preset if deliveries else None
    for name, headers in find_columns(preview.header.names, source).items():
        for header in headers:
            uses[header].append(f"{name} ({_why(name, preset, draft)})")
    for header in spell_as_in(source, preview.header.names).filter.keys() & uses.keys():
        uses[header].append("decides which lines count")
    return uses


def _why(name: str, preset: str | None, draft: _Draft) -> str:
    if name in draft.proposed:
        return "proposed"
    if name in draft.settings.source.columns:
        return "as configured"
    if name == "invoice_id" and draft.settings.source.invoice_key:
        return "as configured"
    return f"as in {PRESETS[preset].title}" if preset else "of the same name"
