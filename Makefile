# Set-up, run, test, check. Each target sets up what it needs, on a fresh Debian or Ubuntu with python3, make and git.
SHELL := /bin/bash
PYTHON ?= python3
PROCESSOR ?= $(shell uname -m)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEV_STAMP := $(VENV)/.ready-dev

# How many tests run at once. They mostly wait, so more than there are cores.
JOBS ?= 4
# File by file, the long ones first (tests/conftest.py sorts them).
# The same generated examples each time; plain `python -m pytest` draws new ones.
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --hypothesis-profile=ci
# Without bytecode every start of the command, and there are hundreds, compiles all of it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-fast check format setup perf accuracy error-rates test-gpu images wheel bundle clean

run: $(STAMP) tools ## measure this machine and judge it
	$(BIN)/bench run --exit-zero $(ARGS)
	@command -v bench >/dev/null || echo "to have bench on the path: source $(BIN)/activate" >&2

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

test: $(DEV_STAMP) tools test-tools ## every test; one file: make test ARGS=tests/judge/test_gate.py
	$(PYTEST) -n $(JOBS) $(ARGS)

test-fast: $(DEV_STAMP) ## the quick tests, in about a minute: no host, no fio, no browser, no waiting
	$(PYTEST) -n logical --maxprocesses 8 -m 'not slow' $(ARGS)

test-gpu: $(DEV_STAMP) tools ## the tests that need a real GPU
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(DEV_STAMP) ## style, types, who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_STAMP) ## mend style, as far as a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

accuracy: $(DEV_STAMP) tools test-tools ## injected faults against known truth: a table a claim
	$(BIN)/python -m tests.accuracy $(ARGS)
ifdef PEERS
	$(BIN)/python -m tests.accuracy peers_dlio peers_aiperf data_judges bundle_debian
endif

perf: $(DEV_STAMP) tools ## speed claims, as ratios measured side by side
	$(BIN)/python -m tests.perf $(ARGS)

error-rates: $(DEV_STAMP) ## wrong decisions of absolute gates, false alarms and power of the nightly gate, simulated
	$(BIN)/python -m tests.accuracy.absolute_rates $(ABSOLUTE)
	$(BIN)/python -m tests.accuracy.error_rates $(ARGS)

images: $(DEV_STAMP) test-tools ## the pictures in docs/images, from committed runs
	$(BIN)/python -m tests.show.images

wheel: $(DEV_STAMP) ## what pip installs, in dist/
	$(BIN)/python -m build --wheel

bundle: $(DEV_STAMP) tools ## one file for nodes that reach no registry: make bundle PYTHON=3.12 PROCESSOR=x86_64
	@tools/bundle $(BIN)/pip $(if $(filter 3.%,$(PYTHON)),$(PYTHON),$(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')) $(PROCESSOR) dist

setup: $(STAMP) tools ## all that make run needs, and no more

.PHONY: tools test-tools
tools:
	@tools/install-tools fio iperf3

test-tools:
	@tools/install-tools --tests

$(STAMP): pyproject.toml constraints.txt
	@tools/make-venv $(if $(filter 3.%,$(PYTHON)),python3,$(PYTHON)) $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[torch,endpoint]'
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[torch,loaders,data,fleet,ray,endpoint,test,check]'
	@touch $@

clean: ## remove all that was set up or built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
