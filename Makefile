# Two commands do all set-up on a machine with Python and make:
#   make reproduce   install, run the main study's quick profile, draw its figure and verdict
#   make test        install, run the tests
# TORCH_INDEX=URL takes torch from another index first, for instance
#   make reproduce TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
JOBS ?= 2
OUT ?= results
PROFILE ?= quick
STUDY ?= topk-exact

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_PIN := $(shell grep '^torch==' constraints.txt)
# one thread a process: tests and workers run side by side
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: reproduce install test test-fast lint docs bench clean

reproduce: $(VENV)/.runtime
	$(BIN)/moebius run $(STUDY) --profile $(PROFILE) --out $(OUT) --jobs $(JOBS)
	$(BIN)/moebius figures $(STUDY) --profile $(PROFILE) --out $(OUT)

install: $(VENV)/.dev

test: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS)

test-fast: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html

bench: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m benchmarks run all

clean:
	rm -rf $(VENV)

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH_PIN)
	touch $@

$(VENV)/.runtime: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	touch $@
