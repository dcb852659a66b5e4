"""Random sequences of what a user does with a home: whatever they are, the status works, and a run finishes the home.

``CUSTSEG_SEQUENCES`` says how many; without it they are few, and the same every time.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from custseg_assets.commands import ui
from custseg_assets.definitions import build_defs
from custseg_assets.domain.periods import shift
from custseg_assets.domain.schemas import SEGMENTATION_MODEL
from custseg_assets.errors import CustsegError
from custseg_assets.home.open import OpenHome
from custseg_assets.instance.execute import JobRunner
from custseg_assets.settings import load_settings
from tests.support.files import REPOSITORY
from tests.support.homes import forget_databases
from tests.support.killed_runs import kill_run
from tests.support.ports import free_port
from tests.support.shops import (
    HEADERS,
    OTHERS,
    QUICK,
    FilledShop,
    Outcome,
    custseg,
    quiet,
    shop_log,
    use_small_demo,
    write_log,
)

N_SEQUENCES = int(os.environ.get("CUSTSEG_SEQUENCES", "2"))
IS_USUAL = "CUSTSEG_SEQUENCES" not in os.environ
N_STEPS = 6 if IS_USUAL else 10
SHORT = QUICK + "[landing]\nsettle_seconds = 0\n"
CONFIGURATIONS = (
    SHORT,
    SHORT.replace("[landing]", "margin_rule = 0.4\n[landing]"),
    SHORT.replace("k_range = [3, 4]", "k_range = [3, 3]"),
    SHORT.replace("k_range = [3, 4]", "k_range = [3, 3]\nmin_bootstrap_ari = 1.0").replace(
        "min_bootstrap_ari = 0.7\n", ""
    ),
    SHORT + "[recommendations]\nn_items = 5\n",
    SHORT + "[automation]\nmax_attempts = 1\n",
)
"""What is configured: other segments, other models, no model, other recommendations, and what no table shows."""
KILLED_AT = ("raw_transactions", "customer_features", "model_candidates", "segmentation_model", "segment_assignments",
             "product_recommendations", "serving_release")  # fmt: skip


class PagesStarted(Exception):  # noqa: N818
    """Where ``custseg ui`` would become Dagster."""


class Shop(RuleBasedStateMachine):
    """A home, and what a user does with it, as commands in this process; what is killed is a process of its own."""

    filled: FilledShop

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="custseg-sequence-"))
        self.home, self.n_landed = self.folder / "home", 0
        self.steps: list[str] = []

    @initialize(is_filled=st.sampled_from([True, True, False]))
    def begin(self, is_filled: bool) -> None:
        """Most homes have been filled; some are empty."""
        if is_filled:
            shutil.copytree(self.filled.home, self.home)

    @rule()
    def run(self) -> None:
        """``custseg run``."""
        self.do("run")

    @rule(
        config=st.sampled_from(CONFIGURATIONS), reconfigures=st.booleans(), command=st.sampled_from(["run", "retrain"])
    )
    def run_with_other_settings(self, config: str, reconfigures: bool, command: str) -> None:
        """A run, or a training, with a configuration of its own."""
        self.do(command, *(["--reconfigure"] if reconfigures else []), config=config)

    @rule(is_correction=st.booleans())
    def land(self, is_correction: bool) -> None:
        """A file for the next month is dropped, or the last one again, corrected."""
        self.n_landed += 0 if is_correction and self.n_landed else 1
        month = shift(date(2024, 4, 1), self.n_landed, "monthly")
        lines = shop_log(1, month)
        if is_correction:
            lines = lines.head(lines.height - 9)
        landing = self.home / "landing"
        landing.mkdir(parents=True, exist_ok=True)
        write_log(lines, landing / f"{month}.csv.part", HEADERS).rename(landing / f"{month}.csv")

    @rule()
    def retrain(self) -> None:
        """``custseg retrain``."""
        self.do("retrain")

    @rule(number=st.integers(0, 3))
    def promote(self, number: int) -> None:
        """``custseg promote`` of some model there is, or of none."""
        tables = OpenHome(load_settings(home=self.home, environment={})).tables
        models = [*tables.read(SEGMENTATION_MODEL)["model_version"], "m-none"]
        self.do("promote", models[-1 - number % len(models)], "--why", "I want it")

    @rule()
    def roll_back(self) -> None:
        """``custseg rollback``."""
        self.do("rollback", "--why", "worse after all")

    @rule(replaces=st.booleans())
    def take_the_demo(self, replaces: bool) -> None:
        """``custseg run --source demo``."""
        self.do("run", "--source", "demo", *(["--replace"] if replaces else []))

    @rule(replaces=st.booleans(), kind=st.sampled_from(["own", "longer", "other", "missing"]))
    def take_a_source(self, kind: str, replaces: bool) -> None:
        """``custseg run --source``: the first log, a longer export of it, another shop's, one that is not there."""
        path = self.folder / f"{kind}.csv"
        if kind != "missing":
            write_log(shop_log(4, kinds=OTHERS) if kind == "other" else shop_log(5 if kind == "longer" else 4), path)
        self.do("run", "--source", path, *(["--replace"] if replaces else []))

    @rule(config=st.sampled_from([None, *CONFIGURATIONS]))
    def open_the_pages(self, config: str | None) -> None:
        """``custseg ui``, and what its sensors then begin, once each."""

        def become_dagster(*_: Any) -> None:
            raise PagesStarted

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ui.os, "execve", become_dagster)
            try:
                self.do("ui", "--port", free_port(), config=config)
            except PagesStarted:
                self.steps.append("  pages started")
        if not (self.home / "custseg.toml").exists():
            return
        for name in ("landing", "stale_partitions", "retrain_on_drift"):
            self.tick(name)

    def tick(self, name: str) -> None:
        """What a sensor asks for now, done as its daemon does it; a run that fails leaves an alert, and no more."""
        home = OpenHome(load_settings(self.home / "custseg.toml", home=self.home, environment={}))
        with quiet():
            jobs = JobRunner(home, lambda _: None)
            definitions = build_defs(home=home, settings=home.settings)
            loaded = definitions.get_repository_def()
            context = dg.build_sensor_context(instance=jobs.instance, repository_def=loaded)
            for request in loaded.get_sensor_def(name).evaluate_tick(context).run_requests or ():
                self.steps.append(f"  {name}: {request.job_name} {request.partition_key or ''}")
                try:
                    jobs.launch(definitions, request, str(request.job_name))
                except CustsegError as error:
                    self.steps.append(f"  {error}")

    # What Hypothesis tries first is the simplest, over and over again.
    @precondition(lambda self: not any(step.startswith("export") for step in self.steps[-2:]))
    @rule()
    def export(self) -> None:
        """``custseg export``."""
        self.do("export", "customer_features", "--out", self.folder / "out.csv")

    @precondition(lambda self: self.has_own_data())
    @rule(
        until=st.sampled_from(KILLED_AT),
        command=st.sampled_from(["run", "run", "retrain"]),
        config=st.sampled_from(CONFIGURATIONS),
    )
    def kill(self, until: str, command: str, config: str) -> None:
        """A command with other settings is killed when it has made a table."""
        path = self.folder / "killed.toml"
        path.write_text(config, encoding="utf-8")
        words = [sys.executable, "-m", "custseg_assets.cli", command, "--config", str(path), "--reconfigure"]
        self.steps.append(f"{command} killed at {until}, {CONFIGURATIONS.index(config)}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(REPOSITORY))
            self.steps.append(f"  {kill_run(words, self.home, 300, until)}")

    @invariant()
    def the_status_says_that_it_is_sound_or_the_way_out(self) -> None:
        """The status works in every state, and names whatever is left to be done."""
        if not self.steps:
            return
        said = custseg(self.home, "status")
        assert said.status == 0, self.told(said)
        state = json.loads(custseg(self.home, "status", "--json").out)
        assert ("  because   " in said.out) == bool(state["stale"]), self.told(said)
        assert ("unfinished  " in said.out) == (self.home / "stage.json").exists(), self.told(said)

    def teardown(self) -> None:
        """A run finishes the home, whatever was done to it, and the next one has nothing to do."""
        try:
            if self.steps:
                self.finish()
        finally:
            forget_databases()
            shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self) -> None:
        """Bring the home up to date."""
        outcome = custseg(self.home, "run")
        assert outcome.status == 0, self.told(outcome)
        state = json.loads(custseg(self.home, "status", "--json").out)
        assert (state["stale"], state["unfinished"], state["last_failure"]) == ({}, None, None), self.told(outcome)
        assert not (self.home / "custseg.before.toml").exists()
        again = custseg(self.home, "run")
        assert again.out.startswith("\nNothing has changed"), self.told(again)

    def has_own_data(self) -> bool:
        """Whether the home holds anything but the demo, whose large original a process of its own would take in."""
        home = OpenHome(load_settings(home=self.home, environment={}))
        return home.deliveries.current() is not None and not home.is_demo

    def do(self, *words: object, config: str | None = None) -> Outcome:
        """A command, which succeeds or is refused in words that say what to do, and never just fails."""
        self.steps.append(f"{' '.join(map(str, words))} {'' if config is None else CONFIGURATIONS.index(config)}")
        outcome = custseg(self.home, *words, config=config)
        self.steps.append(f"  {outcome.status} {outcome.err.splitlines()[-1:]}")
        forget_databases()
        assert "Traceback" not in outcome.err, self.told(outcome)
        if outcome.status == 2:
            assert "; expected " in outcome.err.splitlines()[-1], self.told(outcome)
        is_premature = words[0] in ("promote", "rollback") and "run 'custseg run' first" in outcome.err
        assert outcome.status in (0, 2) or is_premature, self.told(outcome)
        return outcome

    def told(self, outcome: Outcome) -> str:
        """The sequence so far, and how its last command ended."""
        return "\n".join([*self.steps, str(outcome.status), outcome.out[-2000:], outcome.err[-3000:]])


def test_no_sequence_of_commands_leaves_a_home_that_a_run_cannot_finish(
    filled_shop: FilledShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_demo(monkeypatch)
    Shop.filled = filled_shop
    run_state_machine_as_test(
        Shop,
        settings=settings(
            # A tenth of them, and the first, are as short as can be, and do not count.
            max_examples=N_SEQUENCES + N_SEQUENCES // 10 + 1,
            stateful_step_count=N_STEPS,
            deadline=None,
            database=None,
            derandomize=IS_USUAL,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
