"""An exported model: a folder with what it was made from and what it made, the same bytes whenever it is written.

Rows are parquet files, one for each partition; everything else is JSON or Markdown. ``manifest.json`` is written last
and has the digest of every other file. Which rows belong to a model is in ``home.model_exports``; how git and DVC keep
the folder, in ``model_repository``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field, TypeAdapter

from custseg_assets.domain.schemas import Table
from custseg_assets.errors import BadInputError
from custseg_assets.stores.files import make_durable

FORMAT = 1
"""What this version reads and writes."""
DATA = "data"
"""The folder below an export that DVC keeps; everything beside it is in git."""
MANIFEST, MODEL, CHAMPION, CARD = "manifest.json", "model.json", "champion.json", "model_card.md"
REFERENCE = f"{DATA}/drift_reference.json"
_Path = Annotated[str, Field(pattern=r"^[a-z_]+\.(json|md)$|^data/[a-z_]+(/[0-9-]+\.parquet|\.json)$")]
"""Nothing but a file that is written here: an export may come from somebody else."""
_Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{1,15}$|^[0-3][0-9a-f]{15}$")]
_Key = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
_ROWS_PER_GROUP = 1 << 17


@dataclass(frozen=True)
class ModelFacts:
    """What identifies a model and what it was made from, as JSON values; two exports with the same facts are equal.

    Attributes:
        model_version: of the model.
        trained_on: key of its snapshot.
        replaces: version of the model in force before; ``None`` for a first one.
        periods: keys of the periods that its window touches.
        window_start: first instant that is observed.
        as_of: first instant that is not.
        settings: sections that the tables depend on.
        fingerprints: table → partition key → what the partition was made from, in hexadecimal.
    """

    model_version: str
    trained_on: _Key
    replaces: str | None
    periods: tuple[_Key, ...]
    window_start: str
    as_of: str
    settings: Mapping[str, Mapping[str, Any]]
    fingerprints: Mapping[str, Mapping[_Key, _Fingerprint]]


@dataclass(frozen=True)
class Manifest:
    """The manifest of an export.

    Attributes:
        facts: about the model.
        writer: what wrote the parquet files; another version may write the same rows as other bytes.
        files: path below the folder → SHA-256 of the file.
    """

    facts: ModelFacts
    writer: str
    files: Mapping[_Path, str]

    def to_json(self) -> str:
        """The manifest as text of its file."""
        return as_json({"format": FORMAT, **asdict(self)})

    def rows_of(self, table: str) -> dict[str, str]:
        """Partition key → path of the file with its rows."""
        prefix = f"{DATA}/{table}/"
        return {Path(path).stem: path for path in sorted(self.files) if path.startswith(prefix)}


class ExportWriter:
    """Writes an export into a new folder.

    Args:
        folder: it is made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, str] = {}
        folder.mkdir(parents=True)

    def write_text(self, name: str, text: str) -> None:
        """Add a file of text.

        Args:
            name: path below the folder.
            text: of it.
        """
        self._put(name).write_text(text, encoding="utf-8", newline="\n")
        self._note(name)

    def write_rows(self, table: Table, key: str, rows: pl.DataFrame) -> None:
        """Add the rows of a partition, in an order that depends on nothing but the rows."""
        name = f"{DATA}/{table.name}/{key}.parquet"
        write_rows(in_one_order(table, rows), self._put(name))
        self._note(name)

    def finish(self, facts: ModelFacts) -> Manifest:
        """Write the manifest, after which the export is whole, and make everything durable."""
        manifest = Manifest(facts, writer_of_rows(), dict(sorted(self._files.items())))
        self._put(MANIFEST).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
        for path in sorted(self._folder.rglob("*")):
            make_durable(path)
        return manifest

    def _put(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _note(self, name: str) -> None:
        self._files[name] = digest_of_file(self._folder / name)


def in_one_order(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in the table's order, or where it has none, by all columns: equal rows are equal in any order."""
    return rows.select(table.schema.names()).sort(table.sort_by or table.schema.names(), maintain_order=True)


def write_rows(rows: pl.DataFrame, path: Path) -> None:
    """Write a parquet file whose bytes depend on the rows, their order, and the version of pyarrow only.

    Polars writes columns in threads of its own choice, and a dictionary has the order in which its values were met.
    """
    import pyarrow.parquet as pq

    pq.write_table(
        rows.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks(),
        path,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        row_group_size=_ROWS_PER_GROUP,
        use_dictionary=False,
        write_statistics=True,
        store_schema=False,
    )


def writer_of_rows() -> str:
    """What writes parquet files here, with its version."""
    import pyarrow as pa

    return f"pyarrow {pa.__version__}"


def read_rows(folder: Path, table: Table, path: str) -> pl.DataFrame:
    """The rows of a file of an export, with the table's columns; one that was declared later is null.

    Raises:
        BadInputError: the file is not one of such rows.
    """
    try:
        found = pl.read_parquet(folder / path, glob=False, hive_partitioning=False)
        return found.select(
            pl.col(name).cast(dtype) if name in found.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in table.schema.items()
        )
    except pl.exceptions.PolarsError as error:
        raise BadInputError(
            f"{folder / path}: {' '.join(str(error).split())[:200]}",
            f"rows of {table.name}",
            "Export the model again with the version of custseg that made it.",
        ) from None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export.

    Raises:
        BadInputError: there is none, or it is not one that this version reads.
    """
    path = folder / MANIFEST
    try:
        return manifest_from(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{path}: {' '.join(str(error).split())}",
            f"the manifest of an exported model, of format {FORMAT}",
            "Put back what git has of it, with 'git restore', or export the model again.",
        ) from None


def manifest_from(text: str) -> Manifest:
    """A manifest from its text.

    Raises:
        ValueError: it is none, or one of another format.
    """
    fields: Any = json.loads(text)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        found = fields.get("format") if isinstance(fields, dict) else None
        raise ValueError(f"its format is {found!r}")
    return TypeAdapter(Manifest).validate_python({name: fields[name] for name in fields if name != "format"})


def flaws_of(folder: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The files of an export that are not as they were written, each with what is wrong with it."""
    for name, digest in manifest.files.items():
        try:
            if digest_of_file(folder / name) != digest:
                yield name, "it has other content than its manifest says"
        except FileNotFoundError:
            yield name, "it is not here"


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(fields: Mapping[str, Any]) -> str:
    """JSON whose bytes depend on the fields only."""
    return json.dumps(fields, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
