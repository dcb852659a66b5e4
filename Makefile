# Everything a person or CI does here; each target does its own set-up from a bare clone.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; \
	then echo "$$python"; break; fi; done)
SOURCE ?=
ARGS ?=

# Nothing reports home, neither what runs here nor what installs it.
export DO_NOT_TRACK := true
export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(VENV)/run.stamp ## set up what `make run` and `make serve` need, and no more

.PHONY: deep
deep: .venv-deep/deep.stamp ## set up the environment that `[model] kind = "deep"` is trained in

.PHONY: run
run: $(VENV)/run.stamp ## run the whole pipeline [SOURCE=path|demo] [ARGS="--through 2011-11-30"]
	$(VENV)/bin/custseg run $(if $(SOURCE),--source "$(SOURCE)") $(ARGS)

.PHONY: ui
ui: $(VENV)/run.stamp ## open Dagster's pages on the home that `make run` filled [ARGS="--port 3000"]
	$(VENV)/bin/custseg ui $(ARGS)

.PHONY: serve
serve: $(VENV)/run.stamp ## serve the last release on loopback with a fresh key [ARGS="--port 8080"]
	$(VENV)/bin/custseg-serving $(ARGS) demo

.PHONY: test
test: $(VENV)/dev.stamp ## run the tests [ARGS="-k drift"]
	$(VENV)/bin/python -m pytest -m "not deep and not spark and not gcp" $(ARGS)

.PHONY: test-spark
test-spark: .venv-spark/spark.stamp ## run the tests that need PySpark and Java, in an environment of their own
	@# One process cannot have both, a driver of its own and a session of Spark Connect.
	@run() { .venv-spark/bin/python -m pytest -m spark "$$@" $(ARGS); }; \
	run tests/engines/test_parity.py -k connect; \
	run tests/engines/test_parity.py -k "not connect"; \
	run tests/engines/test_spark_driver.py; \
	run tests/engines/test_dataproc.py; \
	run tests/engines/test_spark.py

.PHONY: test-gcp
test-gcp: .venv-gcp/gcp.stamp ## run the tests that need Google's libraries, in an environment of their own
	@# Google's client leaves the connection of a download that is refused to the garbage collector, whenever that comes.
	.venv-gcp/bin/python -m pytest -m gcp -W "ignore:unclosed <socket:ResourceWarning" $(ARGS)

.PHONY: test-deep
test-deep: $(VENV)/dev.stamp .venv-gcp/gcp.stamp .venv-deep/deep.stamp ## run the tests that train networks, in an environment of their own
	$(VENV)/bin/python -m pytest -m deep tests/deep $(ARGS)
	.venv-gcp/bin/python -m pytest -m deep tests/gcp/test_deep_training.py $(ARGS)

.PHONY: lint
lint: $(VENV)/dev.stamp ## check style, types and import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

.PHONY: format
format: $(VENV)/dev.stamp ## rewrite the code in the house style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: docs
docs: $(VENV)/dev.stamp ## make docs/settings.md, docs/pictures/rooms.png, deploy/lookml and the script of MLflow's tables anew
	$(VENV)/bin/python docs/make_settings.py
	$(VENV)/bin/python deploy/make_lookml.py
	$(VENV)/bin/python docs/make_rooms_picture.py
	$(VENV)/bin/python docs/make_mlflow_tables.py

.PHONY: pictures
pictures: $(VENV)/dev.stamp ## make the README's closing table and the pictures anew from one demo [ARGS="--only timeline"]
	$(VENV)/bin/python docs/make_pictures.py $(ARGS)

.PHONY: site
site: $(VENV)/dev.stamp ## build the documentation site into site/, strictly
	$(VENV)/bin/python docs/make_site.py

.PHONY: bench
bench: $(VENV)/dev.stamp ## measure CPU, wall and memory at 1x, 5x and 20x the log [SOURCE=path]
	$(VENV)/bin/python benchmarks/bench.py $(if $(SOURCE),--source "$(SOURCE)") $(ARGS)

.PHONY: sbom
# The tool warns that a lock does not say which package needs which.
sbom: export PYTHONWARNINGS := ignore
sbom: .venv-audit/audit.stamp ## write a software bill of materials (CycloneDX) of each lock into sbom/
	@mkdir -p sbom
	@for lock in $(LOCKS) build install; do \
		.venv-audit/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --no-validate \
			--output-file "sbom/$$lock.cdx.json" "requirements/$$lock.txt"; \
		echo "sbom/$$lock.cdx.json"; \
	done

.PHONY: audit
audit: .venv-audit/audit.stamp ## look the locks' packages up in published advisories; fails for a known vulnerability
	.venv-audit/bin/python .ci/audit_locks.py $(filter-out requirements/constraints.txt,$(wildcard requirements/*.txt))

.PHONY: clean
clean: ## remove the environments and caches, never a home
	rm -rf .venv .venv-audit .venv-deep .venv-dvc .venv-gcp .venv-spark .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis dist sbom site
	find custseg_assets custseg_serving tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp is newer than the locks it was made from, so nothing is installed twice.

$(VENV)/run.stamp: requirements/pipeline.txt requirements/serving.txt
$(VENV)/dev.stamp: requirements/dev.txt
.venv-gcp/gcp.stamp: requirements/dev.txt requirements/gcp.txt
.venv-deep/deep.stamp: requirements/deep.txt
.venv-spark/spark.stamp: requirements/spark.txt requirements/gcp.txt
.venv-audit/audit.stamp: requirements/audit.txt
.venv-dvc/dvc.stamp: requirements/dvc.txt

# Bytecode is compiled at once, because imports are the cost floor of every command.
%.stamp: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python from 3.11 to 3.14 found. Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(@D) from $(filter requirements/%,$^)"
	@uv="$$(command -v uv $(VENV)/bin/uv | head -n 1 || true)"; \
	if [[ -z $$uv ]]; then \
		"$(PYTHON)" -m venv $(@D); \
		$(@D)/bin/python -m pip install --quiet --require-hashes -r requirements/install.txt; \
		uv=$(@D)/bin/uv; \
	fi; \
	"$$uv" venv --quiet --allow-existing --no-python-downloads --python "$(PYTHON)" $(@D); \
	for lock in $(filter requirements/%,$^); do \
		"$$uv" pip install --quiet --python $(@D) --compile-bytecode --require-hashes -r "$$lock" || { \
			echo "$$lock was not installed. uv does not read pip's configuration: name another index by UV_DEFAULT_INDEX." >&2; \
			exit 1; }; \
	done; \
	"$$uv" pip install --quiet --python $(@D) --no-deps -e .
	@touch $@

# Locks. One resolution of everything, constraints.txt, bounds each lock, so a package has one version wherever it is
# installed; `fewest` keeps that version the same on every Python.

EXTRAS_pipeline := pipeline,sql
EXTRAS_serving := serving
EXTRAS_serving-gcp := serving,gcs
EXTRAS_trainer := trainer
EXTRAS_deep := deep
EXTRAS_gcp := pipeline,sql,gcp,bigquery
EXTRAS_spark := pipeline,sql,serving,dev,spark,sail
EXTRAS_dev := pipeline,sql,serving,dev,docs
LOCKS := pipeline serving serving-gcp trainer deep gcp spark dev

compile = $(VENV)/bin/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml

.PHONY: lock
lock: $(VENV)/dev.stamp ## make requirements/*.txt anew from pyproject.toml [ARGS=--upgrade]
	$(compile) --all-extras -o requirements/constraints.txt $(ARGS)
	@for lock in $(foreach lock,$(LOCKS),$(lock):$(EXTRAS_$(lock))); do \
		extras="--extra $${lock#*:}"; \
		$(compile) $${extras//,/ --extra } --generate-hashes --no-strip-extras --constraint requirements/constraints.txt \
			-o "requirements/$${lock%%:*}.txt" --upgrade; \
	done
	@for group in build install audit dvc; do \
		$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-emit-index-url \
			--no-emit-find-links --custom-compile-command "make lock" --group "$$group" --generate-hashes \
			--constraint requirements/constraints.txt -o "requirements/$$group.txt" --upgrade; \
	done
