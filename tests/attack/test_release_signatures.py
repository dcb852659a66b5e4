"""Where a service demands signatures, nobody but who has the private key can have a release served."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from custseg_assets import cli as pipeline
from custseg_assets.errors import BadInputError
from custseg_assets.settings import Settings
from custseg_assets.stores.releases import (
    CURRENT,
    MANIFEST,
    SIGNATURE,
    point_to,
    release_id_of,
    releases,
    verify,
)
from custseg_assets.stores.signatures import RequiredSignature, make_key_pair, sign_release
from custseg_serving import cli
from tests.support.releases import make_other_content, make_release
from tests.support.server import LOOKUP, StartApp, is_error, readiness
from tests.support.waiting import wait_until


@pytest.fixture
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; its public one is beside it."""
    path = tmp_path_factory.mktemp("keys") / "signing.pem"
    make_key_pair(path)
    return path


@pytest.fixture
def public_key(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


@pytest.fixture
def signed(served_home: Path, key: Path) -> str:
    """Id of the release that is served, which is signed."""
    release_id = (served_home / "releases" / CURRENT).read_text().strip()
    sign_release(served_home / "releases", release_id, key)
    return release_id


def leave_unsigned(root: Path, release_id: str, signed: str) -> None:
    assert root
    assert release_id != signed


def sign_by_another_key(root: Path, release_id: str, signed: str) -> None:
    assert signed
    other = root.parent / "other.pem"
    make_key_pair(other)
    sign_release(root, release_id, other)


def copy_the_signature(root: Path, release_id: str, signed: str) -> None:
    shutil.copy(root / signed / SIGNATURE, root / release_id / SIGNATURE)


def write_nonsense(root: Path, release_id: str, signed: str) -> None:
    assert signed
    (root / release_id / SIGNATURE).write_bytes(b"\xff" * 10_000)


@pytest.mark.parametrize("forge", [leave_unsigned, sign_by_another_key, copy_the_signature, write_nonsense])
def test_a_release_without_the_right_signature_is_refused_and_the_one_before_answers(
    start_app: StartApp, served_home: Path, public_key: Path, signed: str, forge: object
) -> None:
    client = start_app(public_key=public_key).test_client()
    assert readiness(client)["release_id"] == signed
    root = served_home / "releases"
    other = make_release(root, make_other_content())
    assert callable(forge)
    forge(root, other, signed)
    point_to(root, other)
    wait_until(lambda: readiness(client)["status"] == "degraded")
    refused = readiness(client)["refused"]
    assert refused["release_id"] == other
    assert "sign" in refused["reason"]
    assert client.get(LOOKUP).get_json()["release_id"] == signed


def test_a_starting_service_serves_the_newest_signed_release(
    start_app: StartApp, served_home: Path, public_key: Path, signed: str
) -> None:
    root = served_home / "releases"
    os.utime(root / signed / MANIFEST, (1, 1))
    make_release(root, make_other_content())
    client = start_app(public_key=public_key).test_client()
    assert client.get(LOOKUP).get_json()["release_id"] == signed


def test_without_a_signed_release_nothing_is_served(start_app: StartApp, served_home: Path, public_key: Path) -> None:
    assert served_home
    client = start_app(public_key=public_key).test_client()
    assert is_error(client.get(LOOKUP), 503, "not_ready")


def test_a_manifest_that_was_changed_after_it_was_signed_is_refused(
    start_app: StartApp, served_home: Path, public_key: Path, signed: str
) -> None:
    root = served_home / "releases"
    fields = json.loads((root / signed / MANIFEST).read_text())
    fields["metrics"] = {"silhouette": 0.99}
    forged = release_id_of(fields)
    (root / signed).rename(root / forged)
    (root / forged / MANIFEST).write_text(json.dumps({**fields, "release_id": forged}))
    (root / CURRENT).write_text(forged)
    client = start_app(public_key=public_key).test_client()
    assert is_error(client.get(LOOKUP), 503, "not_ready")


def test_a_release_signed_later_is_served_then(
    start_app: StartApp, served_home: Path, public_key: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custseg_serving.swap.RETRY_SECONDS", 0.0)
    client = start_app(public_key=public_key).test_client()
    assert is_error(client.get(LOOKUP), 503, "not_ready")
    root = served_home / "releases"
    sign_release(root, (root / CURRENT).read_text().strip(), key)
    wait_until(lambda: client.get(LOOKUP).status_code == 200)


def test_without_a_public_key_no_signature_is_needed(start_app: StartApp, served_home: Path) -> None:
    assert served_home
    assert start_app().test_client().get(LOOKUP).status_code == 200


def test_signing_twice_gives_the_same_bytes(served_home: Path, signed: str, key: Path) -> None:
    path = served_home / "releases" / signed / SIGNATURE
    before = path.read_bytes()
    sign_release(served_home / "releases", signed, key)
    assert path.read_bytes() == before


@pytest.mark.parametrize("is_signed", [True, False])
def test_the_pipeline_signs_what_it_releases(
    tmp_path: Path, key: Path, public_key: Path, is_signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from custseg_assets.defs.assets import release

    content = make_other_content()
    monkeypatch.setattr(release, "_gather_content", lambda *_: content)
    monkeypatch.setattr(release, "clean_up", lambda _: 0)
    layout: Any = SimpleNamespace(dependencies=lambda _: [])
    home = SimpleNamespace(
        paths=SimpleNamespace(releases=tmp_path / "releases", mark_unreleased=contextlib.nullcontext),
        settings=Settings(signing_key=key if is_signed else None),
        newest_snapshot=lambda: "2011-11-01",
        open_bucket=lambda: None,
    )
    context = SimpleNamespace(log=logging.getLogger("test"))
    asset: Any = release.serving_release(layout, Settings())
    asset.op.compute_fn.decorated_fn(context, home)
    [release_id] = releases(home.paths.releases)
    assert (home.paths.releases / release_id / SIGNATURE).exists() == is_signed
    if is_signed:
        verify(home.paths.releases, release_id, check=RequiredSignature(public_key))


def test_the_command_makes_keys_and_never_over_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "signing.pem"
    assert pipeline.main(["keygen", str(path)]) == 0
    assert "--require-signature" in capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert pipeline.main(["keygen", str(path)]) == 2
    assert path.read_bytes() == before
    RequiredSignature(tmp_path / "signing.pem.pub")


@pytest.mark.parametrize("which", ["missing", "private", "nonsense"])
def test_the_service_does_not_start_without_the_public_key(
    served_home: Path, key: Path, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nonsense = key.with_name("nonsense")
    nonsense.write_text("no key")
    path = {"missing": key.with_name("missing"), "private": key, "nonsense": nonsense}[which]
    assert cli.main(["--home", str(served_home), "--open", "--require-signature", str(path)]) == 2
    assert "custseg keygen" in capsys.readouterr().err


def test_a_public_key_signs_nothing(served_home: Path, signed: str, public_key: Path) -> None:
    with pytest.raises(BadInputError, match="the private key"):
        sign_release(served_home / "releases", signed, public_key)
