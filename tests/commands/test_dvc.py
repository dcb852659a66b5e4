"""``custseg dvc``: promoted models in a git repository, by the real git and dvc, with a remote on this disk."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from custseg_assets.domain.schemas import tables
from custseg_assets.domain.segments.model import model_from_json
from custseg_assets.home.kept_models import KeptModel, clean_up, disk_use, kept_models
from custseg_assets.home.model_exports import due_exports
from custseg_assets.home.open import OpenHome
from custseg_assets.settings import load_settings
from custseg_assets.stores.exported_model import digest_of_file
from custseg_assets.stores.home import Home
from tests.support.files import REPOSITORY
from tests.support.homes import open_quick, take_late_lines
from tests.support.model_repositories import (
    DVC,
    bytes_of,
    call,
    dvc_config,
    export,
    git,
    isolate,
    make_repository,
    state_of,
)
from tests.support.shops import QUICK, FilledShop, Outcome, custseg


@pytest.fixture(autouse=True, scope="module")
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("dvc"))
        yield


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with DVC in a folder with a space, beside its remote; skips without DVC. Nobody changes it."""
    if not DVC.exists():
        pytest.skip(f"{DVC} is not here; `make .venv-dvc/dvc.stamp` installs it")
    return make_repository(tmp_path_factory.mktemp("a begun") / "models of a shop")


@pytest.fixture
def repository(begun: Path, tmp_path: Path) -> Path:
    """A copy of ``begun``, with a remote of its own, to be changed."""
    shutil.copytree(begun.parent, tmp_path / "a place")
    return tmp_path / "a place" / begun.name


@dataclass(frozen=True)
class GrownShop:
    """A home with two promoted models, the second a challenger, exported by themselves; and what was seen on the way.

    Attributes:
        home: its folder.
        repository: that the models are in.
        models: their versions.
        refused: the run that found changes in the repository, and the status after it.
        tags: of the repository after the next run, one that changed nothing, a retrain, and the promotion.
        waiting: the challenger as it was kept before it was promoted.
    """

    home: Path
    repository: Path
    models: tuple[str, str]
    refused: tuple[Outcome, Outcome]
    tags: tuple[list[str], ...]
    waiting: KeptModel


@pytest.fixture(scope="module")
def grown_shop(filled_shop: FilledShop, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> GrownShop:
    """Nobody changes it."""
    folder = tmp_path_factory.mktemp("a grown")
    home = shutil.copytree(filled_shop.home, folder / "home")
    repository = shutil.copytree(begun.parent, folder / "place") / begun.name
    (first,) = models_of(home)
    _with_change(repository)
    config = dvc_config(more=f'dvc = true\nrepository = "{repository}"\n')
    refused = custseg(home, "run", config=config), custseg(home, "status")
    git(repository, "restore", ".")
    tags = []
    for command in ("run", "run", "retrain"):
        assert custseg(home, command).status == 0
        tags.append(git(repository, "tag").split())
    (second,) = kept_models(open_quick(home)).keys() - {first}
    waiting = kept_models(open_quick(home))[second]
    outcome = custseg(home, "promote", second, "--why", "for a test")
    assert outcome.status == 0, outcome.err
    tags.append(git(repository, "tag").split())
    return GrownShop(home, repository, (first, second), refused, tuple(tags), waiting)


@pytest.fixture(scope="module")
def changed_home(grown_shop: GrownShop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the home of ``grown_shop`` after a late file, which changed what the second model was trained on."""
    home = shutil.copytree(grown_shop.home, tmp_path_factory.mktemp("changed") / "home")
    take_late_lines(home, datetime(2024, 4, 20))
    return home


@pytest.fixture(scope="module")
def model(filled_shop: FilledShop) -> str:
    return models_of(filled_shop.home)[0]


def models_of(home: Path) -> list[str]:
    return [version for _, version in open_quick(home).champions.promotions]


def test_promoted_models_are_exported_by_themselves_and_a_repository_that_cannot_take_them_holds_nothing_up(
    grown_shop: GrownShop,
) -> None:
    first, second = grown_shop.models
    ran, said = grown_shop.refused
    assert ran.status == 0, ran.err
    assert "! not exported: export_models: " in ran.err
    assert "with changes that are not committed: .dvcignore" in ran.err
    assert f"! models    {first} is not exported: 'custseg dvc export {first}' does it" in said.out
    one = [f"model/{first}"]
    assert grown_shop.tags == (one, one, one, sorted([*one, f"model/{second}"]))
    assert "is not exported" not in custseg(grown_shop.home, "status").out
    subjects = git(grown_shop.repository, "log", "--format=%s").splitlines()
    assert subjects == [f"Model {second} of custseg", f"Model {first} of custseg", "Begin"]


def test_a_challenger_is_kept_with_the_model_that_it_followed(grown_shop: GrownShop) -> None:
    assert not grown_shop.waiting.is_complete
    assert grown_shop.waiting.facts.replaces == grown_shop.models[0]
    assert model_from_json(grown_shop.waiting.champion or "").model_version == grown_shop.models[0]


def test_models_come_back_byte_for_byte_when_the_home_is_lost(
    grown_shop: GrownShop, changed_home: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(grown_shop.repository.parent, tmp_path / "a place")
    repository = place / grown_shop.repository.name
    exported = {one: written(grown_shop.home, one, tmp_path / "before" / one) for one in grown_shop.models}
    sent, before = bytes_of(place / "remote"), state_of(repository)
    # The tables have other rows of the second model's snapshot by now, and what was replaced is gone.
    home = shutil.copytree(changed_home, tmp_path / "home")
    with open_quick(home).locked() as locked:
        assert clean_up(locked, retention_hours=0) > 0
    for one in grown_shop.models:
        outcome = export(home, one, repository)
        assert outcome.status == 0, outcome.err
        assert outcome.out.startswith(f"{one} is in {repository} already: tag model/{one}, commit ")
        assert written(home, one, tmp_path / "again" / one) == exported[one]
    assert bytes_of(place / "remote") == sent
    assert state_of(repository) == before
    shutil.rmtree(home)
    clone = place / "clone"
    git(place, "clone", "-q", str(repository), str(clone))
    call(DVC, clone, "pull", "-q")
    for one in grown_shop.models:
        restored = tmp_path / f"home of {one}"
        outcome = custseg(restored, "dvc", "restore", one, "--repo", clone)
        assert outcome.status == 0, outcome.err
        assert written(restored, one, tmp_path / "after" / one) == exported[one]
        verified = custseg(restored, "dvc", "verify", one, "--repo", clone, "--refit")
        assert verified.status == 0, verified.out
        assert verified.out.splitlines()[-1].split() == ["trained", "again", one]
        assert "!" not in verified.out
    assert "up to date" in call(DVC, clone, "status")


def test_what_a_promoted_model_was_made_from_stays_when_its_snapshot_is_made_anew(
    grown_shop: GrownShop, changed_home: Path, tmp_path: Path
) -> None:
    home, second = shutil.copytree(changed_home, tmp_path / "home"), grown_shop.models[1]
    kept = kept_models(open_quick(home))[second]
    now = set(open_quick(home).tables.files("customer_features")["path"])
    assert now.isdisjoint(path for _, path, *_ in kept.files["customer_features"])
    before = disk_use(open_quick(home))
    assert min(before.of_models, before.replaced) > 0
    with open_quick(home).locked() as locked:
        freed = clean_up(locked, retention_hours=0)
    after = disk_use(open_quick(home))
    assert (freed, after.of_models, after.replaced) == (before.replaced, before.of_models, 0)
    assert custseg(home, "verify").status == 0
    # It stays because it is on record: without the record the same clean-up takes it.
    (home / "kept_models.json").unlink()
    with open_quick(home).locked() as locked:
        assert clean_up(locked, retention_hours=0) >= before.of_models
    assert disk_use(open_quick(home)).of_models == 0


def test_a_file_of_a_model_that_is_gone_is_said_and_mended(
    grown_shop: GrownShop, changed_home: Path, repository: Path, tmp_path: Path
) -> None:
    home, second = shutil.copytree(changed_home, tmp_path / "home"), grown_shop.models[1]
    path = kept_models(open_quick(home))[second].files["segment_assignments"][0][1]
    (home / "tables" / "segment_assignments" / path).unlink()
    before = state_of(repository)
    found = custseg(home, "verify")
    assert found.status == 1
    assert f"! what {second} was made from: " in found.out
    refused = export(home, second, repository)
    assert refused.status == 1
    assert "it is gone" in refused.err
    assert state_of(repository) == before
    assert custseg(home, "verify", "--mend").status == 0
    assert custseg(home, "verify").status == 0


def test_a_restored_home_is_looked_at_and_nothing_is_made_in_it(
    filled_shop: FilledShop, model: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    exported = beside(filled_shop.home, model, tmp_path)
    assert custseg(home, "dvc", "restore", model, "--repo", exported).status == 0
    said = custseg(home, "status")
    assert said.status == 0
    assert said.out.splitlines()[:3] == [
        f"restored    from {exported / 'models' / model}, to be looked at: nothing is made in this home",
        f"model       {model}",
        "snapshot    2024-02-01, as of 2024-03-01",
    ]
    assert json.loads(custseg(home, "status", "--json").out)["restored"]["model_version"] == model
    for command in ("run", "retrain", "ui", ["promote", model, "--why", "x"], ["rollback", "--why", "x"]):
        refused = custseg(home, *([command] if isinstance(command, str) else command))
        assert refused.status == 2
        assert (
            f"was restored from model {model} and is only to be looked at; expected a home of your own" in refused.err
        )
    assert custseg(home, "verify").status == 0
    out = tmp_path / "out.parquet"
    assert custseg(home, "export", "segment_assignments", "--out", out).out.startswith(f"{out}: 126 rows")
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".restoring")]
    assert stat.S_IMODE(home.stat().st_mode) & 0o077 == 0


def test_a_restored_home_gives_the_tables_of_its_export_and_nothing_that_tells_of_the_past(
    filled_shop: FilledShop, model: str, tmp_path: Path
) -> None:
    exported, home = beside(filled_shop.home, model, tmp_path), tmp_path / "home"
    assert custseg(home, "dvc", "restore", model, "--repo", exported).status == 0
    out = tmp_path / "out.csv"
    for asked in (["customers"], ["product_recommendations"], ["segment_assignments", "--moved-from", "S1"]):
        refused = custseg(home, "export", *asked, "--out", out)
        require_refused(refused, f"which was restored from model {model}")
        assert "expected a table that its export has: clean_transactions, customer_features" in refused.err
    assert not out.exists()
    assert custseg(home, "export", "segment_assignments", "--out", out).status == 0
    for asked in (["fire-drill"], ["replay"]):
        require_refused(custseg(home, *asked), "is only to be looked at")


def test_what_differs_from_the_home_is_named(shop_home: Path, model: str, tmp_path: Path) -> None:
    exported = beside(shop_home, model, tmp_path)
    assert custseg(shop_home, "dvc", "verify", model, "--repo", exported, config=QUICK).status == 0
    home, name = open_quick(shop_home), "segment_assignments"
    with home.locked() as locked:
        table = tables(home.settings.model.features)[name]
        rows = locked.tables.read(table, ["2024-02-01"])
        locked.tables.write(
            table, rows.head(100), {"2024-02-01": locked.tables.fingerprint_of(name, "2024-02-01") or 0}
        )
        record = json.loads((shop_home / "kept_models.json").read_text())
        record["models"][0]["files"][name] = sorted(
            row for row in locked.tables.files(name).iter_rows() if row[0] == "2024-02-01"
        )
    (shop_home / "kept_models.json").write_text(json.dumps(record))
    found = custseg(shop_home, "dvc", "verify", model, "--repo", exported, config=QUICK)
    assert found.status == 1
    assert [line for line in found.out.splitlines() if "!" in line] == [
        "segment_assignments of 2024-02-01         ! the home has 100 rows, the export 126"
    ]


def test_an_export_that_is_not_whole_is_not_restored(filled_shop: FilledShop, model: str, tmp_path: Path) -> None:
    exported, home = beside(filled_shop.home, model, tmp_path), tmp_path / "home"
    features = exported / "models" / model / "data" / "customer_features" / "2024-02-01.parquet"
    features.rename(tmp_path / "elsewhere")
    refused = custseg(home, "dvc", "restore", model, "--repo", exported)
    assert refused.status == 2
    assert refused.err == (
        f"custseg: {features}: it is not here; expected every file as it was exported. "
        f"Remove it, and do 'dvc pull models/{model}/data.dvc' in the repository for data, or 'git restore' for "
        "other files.\n"
    )
    assert not home.exists()
    (tmp_path / "elsewhere").rename(features)
    home.mkdir()
    (home / "mine.txt").touch()
    refused = custseg(home, "dvc", "restore", model, "--repo", exported)
    assert refused.status == 2
    assert "which is there already; expected a folder that is not there, or is empty" in refused.err
    assert [path.name for path in home.iterdir()] == ["mine.txt"]
    unknown = custseg(tmp_path / "other", "dvc", "restore", f"{model}x", "--repo", exported)
    assert unknown.status == 2
    assert unknown.err.endswith(f"expected one of those that are exported there: {model}. Did you mean '{model}'?\n")


def test_an_export_of_somebody_else_brings_nothing_but_its_tables_and_their_settings(
    filled_shop: FilledShop, model: str, tmp_path: Path
) -> None:
    exported = beside(filled_shop.home, model, tmp_path)
    manifest = exported / "models" / model / "manifest.json"
    fields = json.loads(manifest.read_text())

    def restore(name: str, **facts: object) -> Outcome:
        manifest.write_text(json.dumps({**fields, "facts": {**fields["facts"], **facts}}))
        return custseg(tmp_path / name, "dvc", "restore", model, "--repo", exported)

    before = fields["facts"]
    with_others = restore("tables", fingerprints={**before["fingerprints"], "prediction_log": {"2024-02-01": "1"}})
    require_refused(with_others, "has ['prediction_log']; expected what an export of this version of custseg has")
    require_refused(restore("version", model_version="m-other"), f"{manifest}: it is of m-other")
    impossible = {**before["settings"], "model": {**before["settings"]["model"], "k_range": [9, 2]}}
    require_refused(restore("settings", settings=impossible), "k_range [9, 2] must be")
    more = {
        **before["settings"],
        "tracking": {"uri": "https://example.org"},
        "source": {"currency": None, "path": "/x"},
    }
    assert restore("home", settings=more).status == 0
    kept = (tmp_path / "home" / "custseg.toml").read_text()
    assert "example.org" not in kept
    assert "path" not in kept
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["exported", "home"]


def test_a_restore_that_is_killed_leaves_no_home(filled_shop: FilledShop, model: str, tmp_path: Path) -> None:
    exported, home = beside(filled_shop.home, model, tmp_path), tmp_path / "home"
    kills = (
        "import os, sys\nfrom custseg_assets.home import model_exports\nfrom custseg_assets import cli\n"
        "model_exports.mark_restored = lambda *_: os.kill(os.getpid(), 9)\nsys.exit(cli.main(sys.argv[1:]))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", kills, "dvc", "restore", model, "--repo", exported],
        cwd=REPOSITORY,
        env={**os.environ, "CUSTSEG_HOME": str(home)},
        check=False,
    )
    assert killed.returncode == -9
    assert not home.exists()
    assert custseg(home, "dvc", "restore", model, "--repo", exported).status == 0
    assert custseg(home, "dvc", "verify", model, "--repo", exported).status == 0
    assert not Home(home).root.with_name(".home.restoring").exists()


Change = Callable[[Path], object]


def _without_name(repository: Path) -> None:
    git(repository, "config", "--unset", "user.name")
    git(repository, "config", "user.useConfigOnly", "true")


def _in_a_merge(repository: Path) -> None:
    git(repository, "switch", "-q", "-c", "other")
    (repository / "other.txt").touch()
    git(repository, "add", "other.txt")
    git(repository, "commit", "-q", "-m", "Other")
    git(repository, "switch", "-q", "main")
    git(repository, "merge", "--no-commit", "--no-ff", "-q", "other")


def _with_change(repository: Path) -> None:
    (repository / ".dvcignore").write_text("changed\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: None, ""),
        (_with_change, "with changes that are not committed: .dvcignore; expected a clean work tree. Commit them, or"),
        (_without_name, "for which git knows no name and e-mail address of yours; expected both"),
        (lambda one: git(one, "checkout", "-q", "--detach"), "with a detached HEAD; expected a branch"),
        (_in_a_merge, "in the middle of a merge; expected none that is not finished. Finish it, or do 'git merge --ab"),
        (
            lambda one: shutil.rmtree(one / ".git"),
            "which is not in the work tree of a git repository; expected a folder",
        ),
        (
            lambda one: shutil.rmtree(one / ".dvc"),
            "without DVC; expected one that DVC keeps large files in. Do 'dvc in",
        ),
        (shutil.rmtree, "which is no folder; expected a folder of a git repository. Name one with --repo"),
        (
            lambda one: (one / ".dvc" / "config").write_text(""),
            "has no default remote; expected a remote that the data",
        ),
    ],
)
def test_a_repository_that_cannot_take_an_export_is_refused_in_a_sentence(
    filled_shop: FilledShop, model: str, repository: Path, change: Change, words: str
) -> None:
    change(repository)
    if not words:
        words, model = f"model nothing; expected a model that was promoted in this home: {model}.", "nothing"
    before = state_of(repository) if (repository / ".git").exists() else sorted(repository.rglob("*"))
    outcome = export(filled_shop.home, model, repository)
    require_refused(outcome, words)
    assert before == (state_of(repository) if (repository / ".git").exists() else sorted(repository.rglob("*")))
    assert bytes_of(repository.parent / "remote") == {}


def test_a_remote_that_is_not_there_is_refused_with_those_that_are(
    filled_shop: FilledShop, model: str, repository: Path
) -> None:
    require_refused(
        export(filled_shop.home, model, repository, "--remote", "stroe"),
        f"--remote stroe; expected one of DVC's remotes in {repository}: store. Name one of those",
    )


def test_without_the_command_dvc_the_command_is_named(filled_shop: FilledShop, model: str, repository: Path) -> None:
    nowhere = repository / "no dvc"
    require_refused(
        export(filled_shop.home, model, repository, executable=nowhere),
        f"the command {nowhere}, which is not here; expected git and DVC. Install DVC 3, in an environment of its own",
    )


def test_a_repository_inside_the_home_is_refused_and_a_home_inside_the_repository_where_git_would_add_it(
    shop_home: Path, model: str, repository: Path
) -> None:
    inside = shutil.copytree(repository.parent, shop_home / "place") / repository.name
    require_refused(export(shop_home, model, inside), f"repository {inside} inside the home {shop_home}; expected one")
    shutil.rmtree(shop_home / "place")
    home = Path(shutil.move(shop_home, repository / "home"))
    words = f"home {home} in the git repository {repository}, which does not ignore it; expected one elsewhere"
    require_refused(export(home, model, repository), words)
    (repository / ".git" / "info" / "exclude").write_text("home/\n")
    outcome = export(home, model, repository)
    assert outcome.status == 0, outcome.err
    assert git(repository, "status", "--porcelain") == "?? home.toml\n"
    require_refused(custseg(repository / "other", "dvc", "restore", model, "--repo", repository), "does not ignore it")
    assert not (repository / "other").exists()


def test_a_tag_whose_data_are_not_here_sends_nothing_unless_the_remote_has_them(
    filled_shop: FilledShop, model: str, repository: Path
) -> None:
    assert export(filled_shop.home, model, repository).status == 0
    clone = repository.parent / "clone"
    git(repository.parent, "clone", "-q", str(repository), str(clone))
    git(clone, "config", "user.name", "Ada")
    git(clone, "config", "user.email", "ada@example.org")
    outcome = export(filled_shop.home, model, clone)
    assert outcome.status == 0, outcome.err
    assert "already" in outcome.out
    other = repository.parent / "other"
    other.mkdir()
    call(DVC, clone, "remote", "add", "other", str(other))
    git(clone, "commit", "-q", "-a", "-m", "Another remote")
    words = f"model {model} in {clone}, whose data are neither there nor on DVC's remote other; expected data"
    require_refused(export(filled_shop.home, model, clone, "--remote", "other"), words)
    call(DVC, clone, "pull", "-q")
    assert export(filled_shop.home, model, clone, "--remote", "other").status == 0
    assert bytes_of(other)


def test_why_a_remote_takes_nothing_is_said_in_dvcs_words(
    filled_shop: FilledShop, model: str, repository: Path
) -> None:
    call(DVC, repository, "remote", "modify", "store", "url", "/proc/nowhere")
    git(repository, "commit", "-q", "-a", "-m", "Another place")
    before = state_of(repository)
    outcome = export(filled_shop.home, model, repository)
    assert outcome.status == 1
    assert "'dvc push' in " in outcome.err
    assert ": ERROR: " in outcome.err
    assert "/proc/nowhere" in outcome.err
    assert state_of(repository) == before


def test_a_model_whose_repository_was_made_anew_is_exported_again(grown_shop: GrownShop, tmp_path: Path) -> None:
    folder = shutil.copytree(grown_shop.home, tmp_path / "home")
    home = OpenHome(load_settings(folder / "custseg.toml", home=folder))
    assert due_exports(home) == []
    place = shutil.move(grown_shop.repository, tmp_path / "aside")
    try:
        assert due_exports(home) == [*grown_shop.models]
        make_repository(grown_shop.repository)
        assert due_exports(home) == [*grown_shop.models]
    finally:
        shutil.rmtree(grown_shop.repository, ignore_errors=True)
        shutil.move(place, grown_shop.repository)


def test_a_tag_that_points_to_something_else_is_left_alone(
    filled_shop: FilledShop, model: str, repository: Path, tmp_path: Path
) -> None:
    git(repository, "tag", f"model/{model}")
    before = state_of(repository)
    require_refused(
        export(filled_shop.home, model, repository),
        f"tag model/{model} in {repository}, which points to a commit without models/{model}; expected no such tag",
    )
    assert state_of(repository) == before
    # Of a tag with an export of other data under the same name, too.
    git(repository, "tag", "-d", f"model/{model}")
    folder = repository / "models" / model
    beside(filled_shop.home, model, tmp_path)
    folder.mkdir(parents=True)
    manifest = json.loads((tmp_path / "exported" / "models" / model / "manifest.json").read_text())
    manifest["facts"]["fingerprints"]["customer_features"]["2024-02-01"] = "1"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    git(repository, "add", "models")
    git(repository, "commit", "-q", "-m", "Another")
    git(repository, "tag", f"model/{model}")
    require_refused(
        export(filled_shop.home, model, repository),
        f"tag model/{model} in {repository}, whose export has other fingerprints than the home; expected no such tag",
    )


def test_line_ends_names_and_other_files_of_the_repository_make_no_difference(
    filled_shop: FilledShop, model: str, begun: Path, tmp_path: Path
) -> None:
    shutil.copytree(begun.parent, tmp_path / "ü place")
    repository = tmp_path / "ü place" / begun.name
    for name, value in {"core.autocrlf": "true", "core.safecrlf": "true", "status.relativePaths": "false"}.items():
        git(repository, "config", name, value)
    below = repository / "shops" / "the first"
    below.mkdir(parents=True)
    (below / "notes.txt").write_text("not git's\n")
    outcome = export(filled_shop.home, model, below)
    assert outcome.status == 0, outcome.err
    names = git(repository, "show", "--format=", "--name-only", f"model/{model}^{{commit}}").splitlines()
    assert sorted(Path(name).name.strip('"') for name in names) == [
        ".gitattributes",
        ".gitignore",
        "data.dvc",
        "manifest.json",
        "model.json",
        "model_card.md",
    ]
    clone = repository.parent / "clone"
    git(repository.parent, "clone", "-q", "-c", "core.autocrlf=true", str(repository), str(clone))
    call(DVC, clone, "pull", "-q")
    restored = custseg(tmp_path / "home", "dvc", "restore", model, "--repo", clone / "shops" / "the first")
    assert restored.status == 0, restored.err


@pytest.mark.parametrize("hindrance", ["a hook", "signing commits", "signing tags", "a file that DVC ignores"])
def test_an_export_that_git_does_not_take_is_taken_back(
    filled_shop: FilledShop, model: str, repository: Path, hindrance: str
) -> None:
    git(repository, "config", "gpg.program", "/bin/false")
    if hindrance == "a hook":
        hook(repository, "pre-commit", "echo 'error: not on a Friday' >&2; exit 1")
        words = "'git commit' in"
    elif hindrance == "a file that DVC ignores":
        (repository / ".dvcignore").write_text("drift_reference.json\n")
        git(repository, "commit", "-q", "-a", "-m", "Ignore")
        words = "DVC took 9 of the 10 files in"
    else:
        git(repository, "config", "commit.gpgsign" if "commits" in hindrance else "tag.gpgsign", "true")
        words = "gpg failed to sign the data"
    before = state_of(repository)
    outcome = export(filled_shop.home, model, repository)
    assert outcome.status == 1
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert state_of(repository) == before


@pytest.mark.parametrize("moment", ["add", "push", "post-commit"])
def test_an_export_that_is_killed_is_made_whole_by_the_next(
    filled_shop: FilledShop, model: str, repository: Path, moment: str
) -> None:
    killing = repository.parent / "dvc"
    if moment in ("add", "push"):
        script(killing, f'[ "$1" = {moment} ] && {{ kill -9 $PPID; exit 1; }}\nexec "{DVC}" "$@"')
    else:
        script(killing, f'exec "{DVC}" "$@"')
        # A hook's parent is git, and git's is the command.
        hook(repository, moment, "kill -9 $(ps -o ppid= -p $PPID)")
    config = repository.parent / "config.toml"
    config.write_text(dvc_config(killing))
    killed = subprocess.run(
        [sys.executable, "-m", "custseg_assets.cli", "dvc", "export", model, "--repo", repository, "--config", config],
        cwd=REPOSITORY,
        env={**os.environ, "CUSTSEG_HOME": str(filled_shop.home)},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -9
    assert git(repository, "tag") == ""
    (repository / ".git" / "hooks" / moment).unlink(missing_ok=True)
    (repository / ".git" / "index.lock").unlink(missing_ok=True)
    outcome = export(filled_shop.home, model, repository)
    assert outcome.status == 0, outcome.err
    assert git(repository, "log", "--format=%s", "main").splitlines() == [f"Model {model} of custseg", "Begin"]
    assert git(repository, "rev-parse", f"model/{model}^{{commit}}") == git(repository, "rev-parse", "main")
    assert git(repository, "status", "--porcelain", "--untracked-files=all") == ""
    assert "up to date" in call(DVC, repository, "status")
    assert not (repository / ".dvc" / "tmp" / "custseg").exists()


def test_dvc_reports_to_nobody(
    filled_shop: FilledShop, model: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What DVC sends, and its look for a newer version, is the work of processes that write here.
    log = repository.parent / "daemons.log"
    monkeypatch.setenv("DVC_DAEMON_LOGFILE", str(log))
    for name in ("DVC_ANALYTICS_ENDPOINT", "DVC_UPDATER_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    silent = ("DVC_NO_ANALYTICS", "DVC_DAEMON", "CI")
    for name in silent:
        monkeypatch.delenv(name, raising=False)
    assert export(filled_shop.home, model, repository).status == 0
    assert not log.exists()
    # The command switches telemetry off in its own process as well.
    for name in silent:
        monkeypatch.delenv(name, raising=False)
    call(DVC, repository, "remote", "list")
    assert log.exists()


def require_refused(outcome: Outcome, words: str) -> None:
    assert outcome.status == 2, outcome.err
    assert words in outcome.err
    assert outcome.err.startswith("custseg: ")
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


def written(home: Path, model: str, folder: Path) -> dict[str, str]:
    """File → digest, of an export written anew."""
    from custseg_assets.home.model_exports import write_export
    from custseg_assets.home.open import OpenHome
    from custseg_assets.settings import load_settings

    opened = OpenHome(load_settings(home=home, environment={}))
    manifest = write_export(opened, kept_models(opened)[model], folder)
    assert {name: digest_of_file(folder / name) for name in manifest.files} == manifest.files
    return dict(manifest.files)


def beside(home: Path, model: str, folder: Path) -> Path:
    """A folder with an export of a model, without git and DVC."""
    written(home, model, folder / "exported" / "models" / model)
    return folder / "exported"


def hook(repository: Path, name: str, text: str) -> None:
    (repository / ".git" / "hooks").mkdir(exist_ok=True)
    script(repository / ".git" / "hooks" / name, text)


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
