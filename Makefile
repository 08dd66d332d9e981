# Set-up, run, test, check. Each target sets up what it needs, on a fresh Debian or Ubuntu with python3, make and git.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEV_STAMP := $(VENV)/.ready-dev

.PHONY: run test check format setup perf accuracy error-rates test-gpu wheel clean

run: $(STAMP) tools ## measure this machine and judge it
	$(BIN)/bench run --exit-zero $(ARGS)

test: $(DEV_STAMP) tools test-tools ## every test
	$(BIN)/python -m pytest $(ARGS)

test-gpu: $(DEV_STAMP) tools ## the tests that need a real GPU
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(DEV_STAMP) ## style, types, who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

accuracy: $(DEV_STAMP) tools test-tools ## injected faults against known truth: a table a claim
	$(BIN)/python -m tests.accuracy $(ARGS)
ifdef PEERS
	$(BIN)/python -m tests.accuracy peers_dlio
endif

perf: $(DEV_STAMP) tools ## speed claims, as ratios measured side by side
	$(BIN)/python -m tests.perf $(ARGS)

error-rates: $(DEV_STAMP) ## false alarms and power of the nightly gate, simulated
	$(BIN)/python -m tests.accuracy.error_rates $(ARGS)

wheel: $(DEV_STAMP)
	$(BIN)/python -m build --wheel

setup: $(STAMP) tools

.PHONY: tools test-tools
tools:
	@tools/install-tools fio iperf3

test-tools:
	@tools/install-tools --tests

$(STAMP): pyproject.toml constraints.txt
	@tools/make-venv $(PYTHON) $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[torch]'
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[torch,loaders,fleet,ray,test,check]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
