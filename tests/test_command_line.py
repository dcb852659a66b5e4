"""Both commands: mistakes answered with the nearest name, exit codes, readers that go, libraries that are missing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from custseg_assets import cli
from custseg_assets.command_line import missing_library, run_command
from custseg_assets.errors import BadInputError, RunFailedError
from custseg_serving import cli as serving_cli
from tests.support.files import REPOSITORY
from tests.support.shops import QUICK, FilledShop


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (cli.main, ["runn"], "custseg: unknown command 'runn'; expected one of run, inspect, "),
        (cli.main, ["runn"], "Did you mean 'run'? See 'custseg --help'.\n"),
        (cli.main, ["run", "--sorce", "x"], "custseg run: unknown option --sorce; expected one of --help, --config, "),
        (cli.main, ["run", "--sorce", "x"], "Did you mean '--source'?"),
        (cli.main, ["export", "customers", "--moved-form=S1"], "Did you mean '--moved-from'?"),
        (cli.main, ["--verson"], "custseg: unknown option --verson; expected one of --help, --version. Did you mean"),
        (cli.main, ["run", "orders.csv"], "custseg run: unexpected argument 'orders.csv'. See 'custseg run --help'."),
        (cli.main, ["run", "--through", "2011"], "'2011' is no date; write it as 2011-11-30"),
        (
            cli.main,
            ["vertex", "canari"],
            "argument verb: 'canari'; expected one of status, canary, full, back. Did you",
        ),
        (cli.main, [], "custseg: the following arguments are required: COMMAND"),
        (serving_cli.main, ["--prot", "8080"], "custseg-serving: unknown option --prot; expected one of --help, "),
        (
            serving_cli.main,
            ["dmeo"],
            "custseg-serving: unknown command 'dmeo'; expected one of demo, keys. Did you mean",
        ),
        (serving_cli.main, ["keys", "creat"], "Did you mean 'create'?"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_nearest_and_ends_with_2(
    main: object, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(main)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(("main", "name"), [(cli.main, "custseg"), (serving_cli.main, "custseg-serving")])
def test_the_version_is_that_of_the_installation(main: object, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main)
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"{name} 0.1.0\n")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BadInputError("x", "y", "Do z."), 2, "custseg: x; expected y. Do z.\n"),
        (RunFailedError("step failed"), 1, "custseg: step failed\n"),
        (KeyboardInterrupt(), 130, "custseg: interrupted; run it again to go on where it stopped\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/home/t"), 1, "custseg: /home/t: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/home/t"), 1, "custseg: /home/t: Permission denied\n"),
        (
            ModuleNotFoundError("", name="duckdb"),
            1,
            "the library 'duckdb' is not installed; it comes with the extra 's",
        ),
        (ModuleNotFoundError("", name="lmdb"), 1, "it comes with the extra 'serving'. Do "),
    ],
)
def test_what_goes_wrong_is_one_line_with_its_exit_code(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert run_command("custseg", fail, extra="serving") == status
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone"), KeyError("x"), ModuleNotFoundError(name="a")]
)
def test_what_is_our_own_mistake_keeps_its_traceback(error: Exception) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(type(error)):
        run_command("custseg", fail, extra="pipeline")


@pytest.mark.parametrize(
    ("module", "extra"),
    [("sklearn.cluster", "pipeline"), ("adbc_driver_manager", "sql"), ("pyspark", "spark"), ("flask", "serving")],
)
def test_a_missing_library_is_told_with_the_extra_that_brings_it(module: str, extra: str) -> None:
    said = missing_library(module, "pipeline")
    assert said is not None
    assert f"the extra '{extra}'" in said
    assert f"-m pip install 'custseg[{extra}]'" in said


def custseg_process(home: Path, *arguments: str, **streams: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "CUSTSEG_HOME": str(home), "CUSTSEG_CONFIG": str(home.with_name("quick.toml"))}
    return subprocess.Popen(
        [sys.executable, "-m", "custseg_assets.cli", *arguments],
        cwd=REPOSITORY,
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        **streams,  # type: ignore[call-overload]
    )


def test_a_reader_that_has_seen_enough_is_no_error(filled_shop: FilledShop) -> None:
    filled_shop.home.with_name("quick.toml").write_text(QUICK, encoding="utf-8")
    reading, writing = os.pipe()
    os.close(reading)
    with custseg_process(filled_shop.home, "status", "--json", stdout=writing) as process:
        os.close(writing)
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait()) == ("", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(filled_shop: FilledShop) -> None:
    filled_shop.home.with_name("quick.toml").write_text(QUICK, encoding="utf-8")
    with Path("/dev/full").open("w") as full, custseg_process(filled_shop.home, "status", stdout=full) as process:
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait()) == ("custseg: No space left on device\n", 1)
