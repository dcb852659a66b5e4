"""A git repository in which DVC keeps the large files of exported models, worked on by the commands git and dvc.

Nothing of either is imported: both are processes, which take the user's own configuration and credentials, report
nothing to anybody, and are never asked a question they could wait for. What is in an export is in ``exported_model``.

An export is there when its tag is. Until then everything is either in a staging folder that DVC ignores, or in a folder
that the next export of the same model replaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from custseg_assets.errors import BadInputError, MachineFaultError
from custseg_assets.stores.exported_model import CARD, CHAMPION, DATA, MANIFEST, MODEL, ModelFacts, manifest_from
from custseg_assets.stores.files import lock_file

FOLDER = "models"
"""The folder of the exports; each is in one of its own, named by its model's version."""
_SILENT = {
    "DVC_NO_ANALYTICS": "1",
    # Nor does it look for a newer version of itself, which it would do in a process of its own.
    "DVC_DAEMON": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "true",
}
_OF_ANOTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")
"""What git tells its hooks; a hook may start a command of custseg on another repository."""
_ATTRIBUTES = {".gitattributes": "* -text\n", ".gitignore": f"/{DATA}\n"}
"""Files of every export: git changes no line end in it, and leaves its data to DVC."""
_POINTER = f"{DATA}.dvc"
_LONGEST = 300


@dataclass(frozen=True)
class Exported:
    """An export that is in the repository.

    Attributes:
        tag: that names it.
        commit: that the tag points to.
        is_new: whether it has just been made.
    """

    tag: str
    commit: str
    is_new: bool


class ModelRepository:
    """One repository.

    Args:
        folder: in it, below which ``models`` is.
        remote: of DVC; its default one without it.
        executable: the command ``dvc``; the one on the ``PATH`` without it.
    """

    def __init__(self, folder: Path, remote: str | None = None, executable: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.remote = remote
        self._dvc = str(executable) if executable else "dvc"

    def folder_of(self, model_version: str) -> Path:
        """Where the export of a model is."""
        return self.folder / FOLDER / model_version

    def model_versions(self) -> list[str]:
        """The models that have an export in the folder as it is checked out now."""
        return sorted(path.parent.name for path in (self.folder / FOLDER).glob(f"*/{MANIFEST}"))

    def require_usable(self, model_version: str) -> None:
        """Refuse a repository to which a model cannot be exported now; nothing is changed.

        Raises:
            BadInputError: it is none, has no DVC or not the remote, no name to commit with, is not on a branch, or has
                changes that are not committed.
        """
        self._require_commands()
        self._require_repository()
        self._require_branch()
        self._require_name()
        self._require_remote()
        self._require_no_changes(model_version)

    def find(self, model_version: str) -> ModelFacts | None:
        """The facts of the export that the tag of a model points to; ``None`` where there is no such tag.

        Raises:
            BadInputError: the tag points to something else.
        """
        tag = _tag_of(model_version)
        if not self._is_tagged(model_version):
            if self._git("rev-parse", "-q", "--verify", "refs/tags/model").returncode == 0:
                raise BadInputError(
                    f"tag model in {self.folder}, beside which there can be no tag {tag}",
                    "no such tag",
                    "Give it another name: 'git tag other model' and 'git tag -d model'.",
                )
            return None
        shown = self._git("show", f"refs/tags/{tag}:./{FOLDER}/{model_version}/{MANIFEST}")
        try:
            if shown.returncode:
                raise ValueError
            return manifest_from(shown.stdout).facts
        except ValueError:
            raise BadInputError(
                f"tag {tag} in {self.folder}, which points to a commit without {FOLDER}/{model_version}",
                "no such tag, or the one of that export",
                f"See 'git show {tag}', and remove it with 'git tag -d {tag}' where nobody needs it.",
            ) from None

    @contextlib.contextmanager
    def staging(self, model_version: str) -> Iterator[Path]:
        """A path for a new export, on the repository's disk; gone at the end, and so is what a killed process left.

        Raises:
            BadInputError: another process is exporting to the repository.
        """
        scratch = self._dvc_folder() / "tmp"
        scratch.mkdir(exist_ok=True)
        with (scratch / "custseg.lock").open("a") as lock:
            if not lock_file(lock, 0):
                raise BadInputError(
                    f"repository {self.folder}, to which another process is exporting a model",
                    "one export at a time",
                    "Wait for that one to end.",
                )
            folder = scratch / "custseg"
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
            try:
                yield folder / model_version
            finally:
                shutil.rmtree(folder)

    def add(self, staged: Path, model_version: str, message: str) -> Exported:
        """Put an export into the repository: send its data to the remote, commit the rest, and tag the commit.

        Args:
            staged: the export, in the staging folder.
            model_version: of the model.
            message: of the commit and the tag.

        Raises:
            MachineFaultError: DVC or git could not do it; the repository is as it was before.
        """
        target, before = self.folder_of(model_version), self._head()
        there = self._is_committed(model_version)
        for name, text in _ATTRIBUTES.items():
            (staged / name).write_text(text, encoding="utf-8")
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
        tag = _tag_of(model_version)
        try:
            self._call_dvc("add", str(target / DATA))
            _require_all_files(target)
            self.send(model_version)
            self._commit(model_version, message)
            commit = self._commit_of(model_version)
            self._call_git("tag", "-a", "-m", message, tag, commit)
        except BaseException:
            self._take_back(model_version, before, is_committed=there)
            raise
        return Exported(tag, commit, is_new=True)

    def exported(self, model_version: str) -> Exported:
        """The export that the tag of a model points to."""
        tag = _tag_of(model_version)
        return Exported(tag, self._call_git("rev-parse", f"refs/tags/{tag}^{{commit}}").strip(), is_new=False)

    def has_data(self, model_version: str) -> bool:
        """Whether the work tree has an export, with its data, as it is checked out now."""
        folder = self.folder_of(model_version)
        return (folder / MANIFEST).exists() and (folder / DATA).is_dir()

    def send(self, model_version: str) -> None:
        """Have the remote have the data of an export that is in the work tree.

        Raises:
            MachineFaultError: it cannot be reached or written to.
        """
        self._call_dvc("push", *self._of_remote(), self._pointer_of(model_version))

    def require_sent(self, model_version: str) -> None:
        """Refuse an export whose data are neither in the work tree nor on the remote.

        Raises:
            BadInputError: they are nowhere.
            MachineFaultError: the remote cannot be reached.
        """
        found = json.loads(
            self._call_dvc("status", "--cloud", "--json", *self._of_remote(), self._pointer_of(model_version))
        )
        # What is on the remote only would be deleted there to make it as it is here; what is missing is nowhere.
        if {*found.values()} - {"deleted"}:
            where = f"remote {self.remote}" if self.remote else "default remote"
            raise BadInputError(
                f"model {model_version} in {self.folder}, whose data are neither there nor on DVC's {where}",
                "data in the work tree, to be sent",
                f"Do 'dvc pull {FOLDER}/{model_version}/{_POINTER}' from a remote that has them, then the same again.",
            )

    def require_apart(self, home: Path) -> None:
        """Refuse a home in the work tree that git does not ignore: its customers would be added with everything else.

        Raises:
            BadInputError: it is one.
        """
        shown = self._git("rev-parse", "--show-toplevel")
        top = Path(shown.stdout.rstrip("\n"))
        is_inside = shown.returncode == 0 and home.resolve().is_relative_to(top.resolve())
        if is_inside and self._git("check-ignore", "-q", "--", str(home.resolve())).returncode:
            raise BadInputError(
                f"home {home} in the git repository {top}, which does not ignore it",
                "one elsewhere, so that no customer gets into git",
                "Name another with CUSTSEG_HOME, or add this one to .gitignore.",
            )

    def tagged(self) -> set[str]:
        """The models that have a tag; none where there is no repository."""
        if not self.folder.is_dir() or shutil.which("git") is None:
            return set()
        listed = self._git("tag", "--list", _tag_of("*")).stdout.splitlines()
        return {tag.removeprefix(_tag_of("")) for tag in listed}

    def _of_remote(self) -> list[str]:
        return ["--remote", self.remote] if self.remote else []

    def _pointer_of(self, model_version: str) -> str:
        return str(self.folder_of(model_version) / _POINTER)

    # What is looked at before anything is done.

    def _require_commands(self) -> None:
        for command, todo in (
            ("git", "Install git."),
            (
                self._dvc,
                "Install DVC 3, in an environment of its own, and name the command under [versions] executable.",
            ),
        ):
            if shutil.which(command) is None:
                raise BadInputError(f"the command {command}, which is not here", "git and DVC", todo)
        if not self.folder.is_dir():
            raise BadInputError(
                f"repository {self.folder}, which is no folder",
                "a folder of a git repository",
                "Name one with --repo, or under [versions] repository.",
            )

    def _require_repository(self) -> None:
        inside = self._git("rev-parse", "--is-inside-work-tree")
        if inside.returncode or inside.stdout.strip() != "true":
            cause = _cause_in(inside.stderr)
            said = f" ({cause})" if cause and "not a git repository" not in cause else ""
            raise BadInputError(
                f"{self.folder}, which is not in the work tree of a git repository{said}",
                "a folder of a git repository",
                "Name one with --repo, or make it one with 'git init' and 'dvc init'.",
            )
        dvc_folder = self._find_dvc_folder()
        if dvc_folder and self._git("ls-files", "--error-unmatch", "--", str(dvc_folder / "config")).returncode:
            raise BadInputError(
                f"git repository {self.folder}, which does not have {dvc_folder / 'config'}",
                "DVC's configuration in git, so that whoever clones it has it",
                "Do 'git add .dvc .dvcignore' where it is, and commit that.",
            )
        if dvc_folder is None:
            raise BadInputError(
                f"git repository {self.folder} without DVC",
                "one that DVC keeps large files in",
                "Do 'dvc init' and 'dvc remote add --default NAME ADDRESS' in it, and commit what they made.",
            )

    def _require_branch(self) -> None:
        if self._git("symbolic-ref", "-q", "HEAD").returncode:
            raise BadInputError(
                f"git repository {self.folder} with a detached HEAD",
                "a branch, which the commit of an export is added to",
                "Do 'git switch BRANCH' first.",
            )
        for name, words in (("MERGE_HEAD", "merge"), ("CHERRY_PICK_HEAD", "cherry-pick"), ("REVERT_HEAD", "revert")):
            if not self._git("rev-parse", "-q", "--verify", name).returncode:
                raise BadInputError(
                    f"git repository {self.folder} in the middle of a {words}",
                    "none that is not finished",
                    f"Finish it, or do 'git {words} --abort'.",
                )

    def _require_name(self) -> None:
        for name in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
            if self._git("var", name).returncode:
                raise BadInputError(
                    f"git repository {self.folder}, for which git knows no name and e-mail address of yours",
                    "both, for the commit of an export",
                    "Set them with 'git config user.name NAME' and 'git config user.email ADDRESS'.",
                )

    def _require_remote(self) -> None:
        listed = dict(line.partition("=")[::2] for line in self._call_dvc("config", "--list").splitlines())
        named = (re.fullmatch(r"remote\.(.+)\.url", key) for key in listed)
        names = sorted({found[1] for found in named if found})
        if self.remote is None and listed.get("core.remote") not in names:
            has = f"; there are {', '.join(names)}" if names else ""
            raise BadInputError(
                f"DVC in {self.folder} has no default remote{has}",
                "a remote that the data of an export are sent to",
                "Add one with 'dvc remote add --default NAME ADDRESS' and commit that, or name one with --remote.",
            )
        if self.remote is not None and self.remote not in names:
            raise BadInputError(
                f"--remote {self.remote}",
                f"one of DVC's remotes in {self.folder}: {', '.join(names) or 'there is none'}",
                "Name one of those, or add it with 'dvc remote add NAME ADDRESS' and commit that.",
            )

    def _require_no_changes(self, model_version: str) -> None:
        own = f"{FOLDER}/{model_version}"
        names = [f"{own}/{name}" for name in (MANIFEST, MODEL, CHAMPION, CARD, _POINTER, *_ATTRIBUTES)]
        if ignored := self._git("check-ignore", "--no-index", "--", *names).stdout.splitlines():
            raise BadInputError(
                f"git ignores {ignored[0]} in {self.folder}",
                f"a repository that takes what is in {FOLDER}",
                "See 'git check-ignore -v' for the rule, and take it back.",
            )
        top = Path(self._call_git("rev-parse", "--show-toplevel").rstrip("\n"))
        below = (self.folder.resolve() / FOLDER).relative_to(top.resolve()).as_posix()
        # What an export that was killed has left: its own folder, and files that were added and never committed.
        replaced = () if self._is_tagged(model_version) else (f"{below}/{model_version}/",)
        listed = self._call_git("status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
        changed = [
            line[3:]
            for line in listed.split("\0")
            if line
            and not line[3:].startswith(replaced)
            and not (line[3:].startswith(f"{below}/") and line[:2] in ("A ", "AM", "AD"))
        ]
        if changed:
            more = f" and {len(changed) - 1:,} more" if changed[1:] else ""
            raise BadInputError(
                f"git repository {self.folder} with changes that are not committed: {changed[0]}{more}",
                "a clean work tree",
                "Commit them, or put them away with 'git stash'.",
            )

    # How it is done.

    def _commit(self, model_version: str, message: str) -> None:
        """Commit the export and nothing else; where git has it already as it is, nothing is done."""
        own = f"{FOLDER}/{model_version}"
        self._call_git("add", "--", own)
        if self._git("diff", "--cached", "--quiet", "--", own).returncode:
            self._call_git("commit", "--quiet", "--only", "-m", message, "--", own)

    def _commit_of(self, model_version: str) -> str:
        return self._call_git("log", "-1", "--format=%H", "--", f"{FOLDER}/{model_version}").strip()

    def _is_tagged(self, model_version: str) -> bool:
        return self._git("rev-parse", "-q", "--verify", f"refs/tags/{_tag_of(model_version)}").returncode == 0

    def _is_committed(self, model_version: str) -> bool:
        return self._git("cat-file", "-e", f"HEAD:./{FOLDER}/{model_version}").returncode == 0

    def _head(self) -> str | None:
        """The commit that the branch is at; ``None`` before the first one."""
        return self._git("rev-parse", "-q", "--verify", "HEAD").stdout.strip() or None

    def _take_back(self, model_version: str, before: str | None, *, is_committed: bool) -> None:
        """Leave the repository as it was before an export that failed, with the branch at the commit before."""
        own, now = f"{FOLDER}/{model_version}", self._head()
        if now != before and now:
            self._git("update-ref", *(["HEAD", before, now] if before else ["-d", "HEAD", now]))
        self._git("rm", "-r", "-q", "--cached", "--ignore-unmatch", "--", own)
        shutil.rmtree(self.folder / own, ignore_errors=True)
        if is_committed:
            self._git("checkout", "-q", "HEAD", "--", own)
        with contextlib.suppress(OSError):
            (self.folder / FOLDER).rmdir()

    def _dvc_folder(self) -> Path:
        if (found := self._find_dvc_folder()) is None:
            raise RuntimeError(f"{self.folder} has no DVC")
        return found

    def _find_dvc_folder(self) -> Path | None:
        """DVC's own folder of the repository, which is where it was initialised."""
        top = Path(self._call_git("rev-parse", "--show-toplevel").rstrip("\n")).resolve()
        here = self.folder.resolve()
        above = (one for one in (here, *here.parents) if one.is_relative_to(top))
        return next((one / ".dvc" for one in above if (one / ".dvc" / "config").is_file()), None)

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["git", *arguments])

    def _call_git(self, *arguments: str) -> str:
        return self._checked(["git", *arguments])

    def _call_dvc(self, *arguments: str) -> str:
        return self._checked([self._dvc, *arguments])

    def _checked(self, command: Sequence[str]) -> str:
        ended = self._run(command)
        if ended.returncode:
            raise MachineFaultError(
                f"'{Path(command[0]).name} {command[1]}' in {self.folder} ended with {ended.returncode}: "
                f"{_cause_in(ended.stderr) or _cause_in(ended.stdout) or 'it says nothing'}",
                "Mend what it names, then do the same again.",
            )
        return ended.stdout

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
        return subprocess.run(  # noqa: S603  (the user's own commands; no shell)
            command,
            cwd=self.folder,
            env={**environment, **_SILENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


def _require_all_files(folder: Path) -> None:
    """Refuse data that DVC took only a part of.

    Raises:
        MachineFaultError: it did.
    """
    n_files = sum(path.is_file() for path in (folder / DATA).rglob("*"))
    found = re.search(r"^ *-? *nfiles: (\d+)$", (folder / _POINTER).read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None or int(found[1]) != n_files:
        raise MachineFaultError(
            f"DVC took {found[1] if found else 'none'} of the {n_files} files in {folder / DATA}",
            "Take back what .dvcignore says of them, then do the same again.",
        )


def _tag_of(model_version: str) -> str:
    return f"model/{model_version}"


def _cause_in(text: str) -> str:
    """What a command says is wrong, in one line: its first error, or else its last words."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return (errors[:1] or lines[-1:] or [""])[0][:_LONGEST]
