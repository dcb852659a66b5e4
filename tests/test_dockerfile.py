"""Each image's dependency set is enough for what the image starts; no container engine is needed to see that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

# What the entry point imports only when it gets to work.
WORKS_WITH = {
    "pipeline": "custseg_assets.definitions",
    "pipeline-gcp": "custseg_assets.gcp.bigquery_publish, custseg_assets.gcp.bucket, google.cloud.storage",
    "serving": "custseg_serving.app",
    "serving-gcp": "custseg_serving.app, custseg_assets.gcp.bucket, google.cloud.storage",
    "trainer": "custseg_assets.trainer",
    "trainer-deep": "custseg_assets.trainer, custseg_assets.training.networks, google.cloud.storage, keras, tensorflow",
    "dataproc": "custseg_assets.gcp.classify_job, custseg_assets.gcp.folders, google.cloud.storage",
}
UNREACHABLE = ("error sending request", "dns error", "Failed to fetch", "Network connectivity is disabled")


def stages() -> dict[str, list[str]]:
    """The Dockerfile's instructions by stage, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (REPOSITORY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("FROM "):
            name = line.split()[-1]
            found[name] = []
        if found:  # arguments may come before
            found[name].append(line)
    return found


def argument_of(instruction: str, stage: list[str]) -> str:
    return next(line.removeprefix(f"{instruction} ") for line in stage if line.startswith(f"{instruction} "))


def lock_of(stage: list[str]) -> Path:
    (lock,) = re.findall(r"^COPY (requirements/\S+\.txt) ", "\n".join(stage), flags=re.MULTILINE)
    return REPOSITORY / lock


def started_module(stage: list[str]) -> str:
    """The module that the image's entry point runs, found as pip and Python would find it."""
    command = json.loads(argument_of("ENTRYPOINT", stage))
    if command[:2] == ["python", "-m"]:
        return str(command[2])
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    return str(scripts[command[0]]).partition(":")[0]


def test_there_is_one_target_for_each_job() -> None:
    assert set(stages()) - {"base", "wheel"} == set(WORKS_WITH)


@pytest.mark.parametrize("target", WORKS_WITH)
def test_an_image_runs_as_nobody_special_on_a_lock_with_hashes(target: str) -> None:
    stage = stages()[target]
    # As a number: a platform that lets nobody be root cannot know what a name stands for.
    assert argument_of("USER", stage) == "10001:10001"
    assert any(line.startswith("RUN pip install --require-hashes -r ") for line in stage)
    last_change = max(number for number, line in enumerate(stage) if line.startswith("RUN "))
    assert stage.index("USER 10001:10001") > last_change


def test_the_wheel_is_built_by_a_backend_with_hashes_that_is_the_projects_own() -> None:
    stage = "\n".join(stages()["wheel"])
    assert "RUN pip install --require-hashes -r /tmp/build.txt" in stage
    assert "pip wheel --no-deps --no-build-isolation" in stage
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["build-system"]["requires"] == project["dependency-groups"]["build"]


def test_the_service_is_watched_where_it_listens() -> None:
    stage = stages()["serving"]
    port = json.loads(argument_of("CMD", stage))[-1]
    assert f"127.0.0.1:{port}/healthz" in argument_of("HEALTHCHECK", stage)
    assert argument_of("EXPOSE", stage) == port


@pytest.mark.parametrize("target", WORKS_WITH)
def test_a_clean_environment_with_the_lock_imports_the_entry_point(target: str, tmp_path: Path) -> None:
    stage = stages()[target]
    python = install(lock_of(stage), tmp_path / target)
    program = f"import {started_module(stage)}, {WORKS_WITH[target]}"
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUSTSEG_HOME": str(tmp_path / "home"),
    }
    subprocess.run([python, "-c", program], env=environment, cwd=tmp_path, check=True)


def test_the_serving_image_has_no_dagster() -> None:
    packages = re.findall(r"^([a-z0-9-]+)==", lock_of(stages()["serving"]).read_text(), flags=re.MULTILINE)
    assert "flask" in packages
    assert not {"dagster", "mlflow", "great-expectations", "pandas", "scikit-learn"} & set(packages)


def install(lock: Path, folder: Path) -> Path:
    """A clean environment with a lock's packages, and nothing of ours; its Python."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed; `make test` installs it")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    installed = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", folder, "--require-hashes", "-r", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode and any(sign in installed.stderr for sign in UNREACHABLE):
        pytest.skip(f"the package index cannot be reached: {installed.stderr.splitlines()[0]}")
    assert installed.returncode == 0, installed.stderr
    subprocess.run([uv, "pip", "check", "--quiet", "--python", folder], check=True)
    return folder / "bin" / "python"
