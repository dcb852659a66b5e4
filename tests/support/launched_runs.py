"""Runs that are launched as the daemon launches them, and say what their process is or wait."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.launcher import LaunchRunContext

_OF_RUNS = ("great_expectations", "matplotlib.figure", "mlflow.sklearn", "scipy.optimize", "sklearn.cluster")
IMPORTED = (*_OF_RUNS, "custseg_assets.definitions")


@dg.op
def tell(context: dg.OpExecutionContext) -> None:
    """Say what this process is."""
    threads = [task.read_text().strip() for task in Path(f"/proc/{os.getppid()}/task").glob("*/comm")]
    imported = [name for name in IMPORTED if name in sys.modules]
    context.log.info(json.dumps({"imported": imported, "threads_of_parent": threads}))


@dg.op
def wait_for_a_file(context: dg.OpExecutionContext) -> None:
    """Say which process this is, and end when somebody makes a file."""
    folder = Path(context.instance.root_directory)
    unfinished = folder / "unfinished"
    unfinished.write_text(f"{os.getpid()} {os.getppid()}", encoding="utf-8")
    unfinished.rename(folder / "waits")
    while not (folder / "go").exists():
        time.sleep(0.05)


@dg.job(executor_def=dg.in_process_executor)
def telling() -> None:
    """A run that says what its process is."""
    tell()


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    """A run that ends when it may."""
    wait_for_a_file()


def launch(instance: dg.DagsterInstance, job: Any) -> str:
    """Have a run executed as the daemon does; its id."""
    pointer = dg.reconstructable(job)
    run = instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTING, job_code_origin=pointer.get_python_origin()
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run.run_id
