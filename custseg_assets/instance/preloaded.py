"""Imports what runs need, and nothing else, in the process that runs are forks of.

Nothing is called here that does more than import: a fork has none of the threads that a library has started before, and
waits for them for ever.
"""

# ruff: noqa: E402, F401, I001
from __future__ import annotations

from custseg_assets import no_telemetry as telemetry

telemetry.switch_off()

import gc

from custseg_assets.late_imports import put_off_imports

put_off_imports()

import great_expectations
import matplotlib.figure
import mlflow.sklearn
import sklearn.cluster
import dagster._core.definitions.antlr_asset_selection.antlr_asset_selection
import dagster._core.instance.factory
import dagster._core.storage.local_compute_log_manager
import dagster._core.storage.sqlite_storage
import upath.implementations.local
import custseg_assets.definitions
import custseg_assets.instance.run_process
from custseg_assets.defs.assets import groups

groups()

# What all forks share is theirs alone as soon as something is written beside it, and looking for garbage writes.
gc.freeze()
