# One command each; every target does the set-up it needs. See README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.test-ready
PRODUCTION_READY := $(VENV)/.production-ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Tests of the registry that `make test-all` runs over SQLite, and over PostgreSQL too.
REGISTRY_TESTS := $(foreach name,promotion moves reconcile registry tracking lost_answers,\
  tests/pipelines/registry/test_$(name).py)

# hidden from every child: analytics, colour codes in logs, thread pools that fight each other
export GX_ANALYTICS_ENABLED := false

.PHONY: retrain test quick-tests test-all ui lint repeats bench bench-gpu bench-faults images try-stack pictures clean setup

retrain: $(READY)  ## ingest the sample, run two cycles in a real Airflow, show the verdicts
	$(BIN)/homefeed local retrain

ui: $(READY)  ## keep the Airflow and MLflow pages up until Ctrl-C
	$(BIN)/homefeed local ui

# Lint and types run beside the tests: together they keep two cores busy.
test: $(TEST_READY)  ## lint, types, and every test that needs no server, with one smoke cycle
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint quick-tests

quick-tests: $(TEST_READY)
	folder=$$($(BIN)/python tests/support/folder_of_tests.py) && OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	  --numprocesses=2 --no-loadscope-reorder --durations=15 --basetemp="$$folder" \
	  --smoke-cycles=1 -m "smoke or not (services or browser or slow or production)" && rm -r "$$folder"

# Four processes for two cores: a fifth of the tests' time is spent on waiting for servers. What
# takes longest comes first (tests/conftest.py), and the files' own order must then be kept. What
# needs a server that cannot be installed here is named and left out.
test-all: $(PRODUCTION_READY) lint  ## everything: services, browsers, kills, and what belongs to a production
	HOMEFEED_SKIP_MISSING=1 $(BIN)/python tests/support/find_servers.py --install
	folder=$$($(BIN)/python tests/support/folder_of_tests.py) && \
	  export OMP_NUM_THREADS=1 HOMEFEED_SKIP_MISSING=1 && \
	  $(BIN)/python -m pytest --numprocesses=4 --no-loadscope-reorder --durations=25 \
	    --basetemp="$$folder" -m "not exhaustive" tests && \
	  $(BIN)/python -m pytest --numprocesses=4 --no-loadscope-reorder --durations=15 \
	    --basetemp="$$folder" -m "not exhaustive" --mlflow-database=postgresql \
	    tests/production $(REGISTRY_TESTS) && rm -r "$$folder"

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipelines training validation dags
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/support/structure.py

repeats: $(TEST_READY)  ## list every run of six lines that stands twice outside tests
	$(BIN)/symilar --duplicates 6 --ignore-imports --ignore-comments --ignore-docstrings \
	  --ignore-signatures $(shell git ls-files 'pipelines/*.py' 'training/*.py' 'validation/*.py')

bench: $(TEST_READY)  ## measure, write tests/benchmarks/results.json and docs/benchmarks.md
	$(BIN)/python -m pytest tests/benchmarks/test_render.py -q
	$(BIN)/python tests/benchmarks/run.py

bench-gpu: $(TEST_READY)  ## count what the encoder costs a device, and time it where a GPU is
	$(BIN)/python tests/benchmarks/run.py device

bench-faults: $(TEST_READY)  ## kill moves and stages, spoil MLflow's answers, write docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/faults.py

images:  ## build the images of Airflow, MLflow and the stages with docker or podman
	docker/build.sh

try-stack: $(TEST_READY)  ## bring the compose stack up from built images, run two cycles, kill its containers
	$(BIN)/python tests/benchmarks/try_stack.py $(TRY_STACK)

pictures: $(TEST_READY)  ## make the documentation's pictures from a real run, for somebody to look at
	HOMEFEED_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/pipelines/local/test_real_browser.py

clean:  ## remove the virtual environment and the local workspace
	rm -rf $(VENV) .homefeed

setup: $(READY)

$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, found {sys.version.split()[0]}; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "venv is missing; install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "installing requirements (about a minute and 2.5 GB the first time) ..."
	$(PIP) install --quiet --requirement requirements.txt --constraint constraints.txt
	$(PIP) install --quiet --no-deps --editable .
	@rm -rf homefeed_retrain.egg-info  # beside the installed one, Airflow finds its plugin twice
	@touch $@

$(TEST_READY): $(READY) tests/requirements.txt
	$(PIP) install --quiet --requirement tests/requirements.txt --constraint constraints.txt
	@touch $@

# PySpark is large, and `make test` does without it.
$(PRODUCTION_READY): $(TEST_READY) tests/production/requirements.txt
	$(PIP) install --quiet --requirement tests/production/requirements.txt --constraint constraints.txt
	@touch $@
