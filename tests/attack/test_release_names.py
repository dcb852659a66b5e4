"""No name in a release's manifest, nor in ``CURRENT``, becomes a path out of the folder of the releases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from custseg_assets.gcp.bucket import Bucket
from custseg_assets.stores import releases
from custseg_assets.stores.releases import DamagedReleaseError, canonical_json, release_id_of
from tests.support.fakes.gcs import FakeGcs
from tests.support.places import URI
from tests.support.releases import make_other_content, make_release

BUCKET = "shop-data"
ODD_NAMES = [
    "/etc/evil",
    "../evil",
    "../../evil",
    "a/../../evil",
    "sub/model.json",
    "..",
    ".",
    "",
    "a\\b",
    "x\0y",
]


def with_files(root: Path, release_id: str, more: Mapping[str, Any], text: str | None = None) -> tuple[str, str]:
    """A manifest like a release's with more files, and the id that is right for it."""
    fields = json.loads((root / release_id / "manifest.json").read_text())
    fields["files"] |= more
    fields["release_id"] = release_id_of(fields)
    return fields["release_id"], text or canonical_json(fields)


def entry(content: bytes = b"evil") -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "n_bytes": len(content)}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_local_manifest_that_names_another_file_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "releases"
    first = make_release(root)
    (tmp_path / "evil").write_bytes(b"evil")
    forged, text = with_files(root, first, {name: entry()})
    (root / first).rename(root / forged)
    (root / forged / "manifest.json").write_text(text)
    for read in (releases.read_manifest, releases.verify, releases.open_release):
        with pytest.raises(DamagedReleaseError, match="files that no release has"):
            read(root, forged)


def test_a_name_twice_in_a_manifest_is_refused(tmp_path: Path) -> None:
    release_id = make_release(tmp_path)
    path = tmp_path / release_id / "manifest.json"
    text = path.read_text()
    assert '"model.json": {' in text
    path.write_text(text.replace('"model.json": {', '"model.json": {"sha256": "0", "n_bytes": 1},\n"model.json": {', 1))
    with pytest.raises(DamagedReleaseError, match="twice"):
        releases.verify(tmp_path, release_id)


@pytest.mark.parametrize("content", [b" " * (2 << 20), b"[" * 500_000, b'{"files": 1' + b"0" * 6_000 + b"}"])
def test_a_manifest_that_is_no_manifest_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    release_id = make_release(tmp_path)
    (tmp_path / release_id / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedReleaseError) as refused:
        releases.read_manifest(tmp_path, release_id)
    assert len(str(refused.value)) < 500


def test_a_file_of_another_size_is_refused_before_it_is_hashed(tmp_path: Path) -> None:
    release_id = make_release(tmp_path)
    hashed: list[str] = []

    def digest(path: Path) -> str:
        hashed.append(path.name)
        return releases.sha256_of(path)

    with (tmp_path / release_id / "customers.lmdb").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedReleaseError, match=r"customers\.lmdb is not as it was written"):
        releases.verify(tmp_path, release_id, digest)
    assert "customers.lmdb" not in hashed


@pytest.mark.parametrize("text", ["../../evil", "/etc", "r-2011-11-01-00000000/..", "x" * 5_000, "\0", ".."])
def test_current_that_names_no_release_is_refused(tmp_path: Path, text: str) -> None:
    make_release(tmp_path)
    (tmp_path / "CURRENT").write_text(text)
    with pytest.raises(DamagedReleaseError, match="is no release id") as refused:
        releases.current(tmp_path)
    assert len(str(refused.value)) < 300


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    with FakeGcs(BUCKET) as fake:
        yield fake


@pytest.fixture
def bucket(gcs: FakeGcs) -> Bucket:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client("shop", AnonymousCredentials(), client_options={"api_endpoint": gcs.url})
    return Bucket(client, URI, patience_seconds=2)


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.gcp
@pytest.mark.parametrize("text", ["../../evil", "../evil", "/etc/evil", "..", "x" * 5_000])
def test_current_in_the_bucket_makes_no_folder(gcs: FakeGcs, bucket: Bucket, tmp_path: Path, text: str) -> None:
    here, there = tmp_path / "here", tmp_path / "a" / "b" / "there"
    first = make_release(here)
    bucket.push_release(here, first)
    bucket.pull_release(there)
    before = names_below(tmp_path)
    gcs.put(BUCKET, "home/releases/CURRENT", text.encode())
    for name in ("manifest.json", "model.json"):
        gcs.put(BUCKET, f"home/releases/{text}/{name}", (here / first / name).read_bytes())
    with pytest.raises(DamagedReleaseError):
        bucket.pull_release(there)
    assert names_below(tmp_path) == before
    assert releases.current(there) == first


@pytest.mark.gcp
@pytest.mark.parametrize("name", [*ODD_NAMES, "{outside}"])
def test_a_manifest_in_the_bucket_writes_nothing_outside(
    gcs: FakeGcs, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first = make_release(here)
    bucket.push_release(here, first)
    name = name.replace("{outside}", str(tmp_path / "outside"))
    forged, text = with_files(here, first, {name: entry()})
    for path in (here / first).iterdir():
        gcs.put(BUCKET, f"home/releases/{forged}/{path.name}", path.read_bytes())
    gcs.put(BUCKET, f"home/releases/{forged}/manifest.json", text.encode())
    gcs.put(BUCKET, f"home/releases/{forged}/{name}", b"evil")
    gcs.put(BUCKET, "home/releases/CURRENT", forged.encode())
    with pytest.raises(DamagedReleaseError, match="files that no release has"):
        bucket.pull_release(there)
    assert names_below(there) == set()
    assert not (tmp_path / "outside").exists()


@pytest.mark.gcp
def test_a_file_in_the_bucket_of_another_size_is_not_fetched(gcs: FakeGcs, bucket: Bucket, tmp_path: Path) -> None:
    first = make_release(tmp_path / "here", make_other_content())
    bucket.push_release(tmp_path / "here", first)
    gcs.put(BUCKET, f"home/releases/{first}/drift.json", b" " * (4 << 20))
    with pytest.raises(DamagedReleaseError, match=r"drift\.json is not as it was written: 4194304 bytes"):
        bucket.pull_release(tmp_path / "there")
    gcs.put(BUCKET, f"home/releases/{first}/manifest.json", b" " * (4 << 20))
    with pytest.raises(DamagedReleaseError, match="at most"):
        bucket.pull_release(tmp_path / "there")
    assert names_below(tmp_path / "there") == set()


@pytest.mark.gcp
def test_a_release_larger_than_the_disk_is_not_fetched(
    gcs: FakeGcs, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_release(tmp_path / "here")
    bucket.push_release(tmp_path / "here", first)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(DamagedReleaseError, match="100 are free"):
        bucket.pull_release(tmp_path / "there")
    assert gcs.names(BUCKET, "home/releases/r-")
