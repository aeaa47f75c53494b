# Every target makes the virtual environment when it is missing and works from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
# Most tests wait for other processes: two at a time are done in little more than half the time.
WORKERS ?= 2

.PHONY: demo test test-oldest test-schedulers test-security test-browser bench lint wheel-test clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hpcburst needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || { echo "Making the virtual environment in $(VENV) (once, about two minutes)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)      ## run the demo: Mauna Loa CO2 as a Prefect flow, then as a Snakemake workflow
	@$(BIN)/hpcburst demo $(DEMO)

test: $(STAMP)      ## unit, conformance and integration tests on the local queue
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(if $(LONG),,-m 'not long') $(PYTEST)

test-schedulers: $(STAMP)   ## bursts on a real Slurm and a real Grid Engine of this machine's own
	@$(BIN)/python -m pytest tests/schedulers $(if $(LONG),,-m 'not long') $(PYTEST)

test-security: $(STAMP)   ## attacks by another user of the machine, hostile input, fuzzing (LONG=1: with planted holes)
	@LONG=$(LONG) $(BIN)/python -m pytest tests/security $(if $(LONG),,-m 'not long') $(PYTEST)

test-browser: $(STAMP)  ## the pages that people see, in a headless Chromium
	@command -v chromedriver >/dev/null || { test "$$(id -u)" = 0 && apt-get install --quiet --yes chromium chromium-driver; } || { echo "no browser here: apt-get install chromium chromium-driver"; exit 1; }
	@$(BIN)/python -m pytest tests/browser $(PYTEST)

bench: $(STAMP)     ## what it costs beside its peers: one JSON line a figure (QUICK=1: under a minute)
	@$(BIN)/python bench/envs.py $(if $(QUICK),--quick)
	@$(BIN)/python bench/elastic.py $(if $(QUICK),--quick)

lint: $(STAMP)      ## style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test-oldest:        ## the front ends and pools with the oldest versions that pyproject.toml lets in
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/support/oldest.txt --editable '.[prefect,snakemake]' pytest pytest-timeout hypothesis numpy
	@$(OLDEST)/bin/python -m pytest tests/unit/prefect tests/unit/snakemake_plugin tests/conformance/test_zygote.py tests/conformance/test_snakemake_suite.py tests/integration/test_cluster.py tests/integration/test_prefect_calls.py tests/integration/test_prefect_caching.py tests/integration/test_snakemake_executor.py tests/integration/test_snakemake_envs.py -m 'not channel' $(PYTEST)

wheel-test: $(STAMP)   ## build the wheel and test it from a clean environment, sources out of sight
	@$(BIN)/python tests/support/wheel.py

clean:              ## remove the virtual environment and what the demo and the tests left here
	rm -rf $(VENV) $(OLDEST) .demo .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
