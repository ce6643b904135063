# make quickstart   install, train a small sweep, probe it, compare: about five minutes on two cores
# make test         install, lint, type check, all tests: nine minutes on two cores
# make test-fast    the checks for daily work: lint and the quick tests, a minute on two cores
# make kills        kill a small run at every write of its folder, and prove that nothing is lost (the suite takes a sample)
# make fuzz         10,000 odd inputs for every reader of files (the suite tries 200); FUZZ=tests/fuzz/test_X.py for one
# make calibrate    how often the probes' p-values and intervals are wrong, by simulation: some minutes
# The environment is kept in .venv while requirements.lock is unchanged.

PYTHON ?= python3
BIN := .venv/bin
ENV := .venv/installed
# runs of the quickstart live where `moe` looks by default
REPORT := runs/quickstart.html
FUZZ ?= tests/fuzz
# one or two processes more than cores, as tests wait, slow ones above all; how tests are dealt to them: tests/conftest.py
CORES := $(shell getconf _NPROCESSORS_ONLN)
PARALLEL := -n $(shell expr $(CORES) + 2) --dist worksteal
# some images set it: every process of the tests would compile our modules anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-fast kills fuzz calibrate check format lock clean

$(ENV): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

quickstart: $(ENV)
	$(BIN)/moe sweep launch quickstart.yaml --agents 2
	$(BIN)/moe probe --sweep quickstart
	$(BIN)/moe report quickstart --html $(REPORT)
	@echo
	@echo "Open $(REPORT) in a browser: the comparison, training curves and every probe's figures."
	@echo "More: $(BIN)/moe runs list; $(BIN)/moe --help; docs/guide.md"

check: $(ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest $(PARALLEL) --durations=15 -rf

test-fast: $(ENV)
	$(BIN)/ruff check .
	$(BIN)/pytest -n $(shell expr $(CORES) + 1) --dist worksteal -m "not slow"

fuzz: $(ENV)
	MOE_FUZZ=long $(BIN)/pytest $(PARALLEL) -rf $(FUZZ)

kills: $(ENV)
	folder=$$(mktemp -d) && $(BIN)/python -m tests.sweeps.training.kills "$$folder" --again && rm -r "$$folder"

calibrate: $(ENV)
	$(BIN)/python -m benchmarks.calibrate

format: $(ENV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the exact set that the tests ran with; no index is named, hashes are checked at install
lock:
	uv pip compile pyproject.toml --all-extras --universal --generate-hashes --python-version 3.11 \
	  --no-header --no-annotate --quiet --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist
