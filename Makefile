# Every target makes the virtual environment when it is missing and works from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint wheel-test bench clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hpcburst needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || { echo "Making the virtual environment in $(VENV) (once, about two minutes)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)      ## run the demo: Mauna Loa CO2 as a Prefect flow, then as a Snakemake workflow
	@$(BIN)/hpcburst demo $(DEMO)

test: $(STAMP)      ## unit, conformance and integration tests on the local queue
	@$(BIN)/python -m pytest $(PYTEST)

lint: $(STAMP)      ## style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

wheel-test: $(STAMP)   ## build the wheel and test it from a clean environment, sources out of sight
	@$(BIN)/python tests/support/wheel.py

clean:              ## remove the virtual environment and what the demo and the tests left here
	rm -rf $(VENV) .demo .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
