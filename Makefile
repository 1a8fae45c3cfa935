# One command is enough on a machine with Python 3.11 or later and make: each target makes its own .venv.
# `make test PYTHON=/path/to/python3.13` tests on that one, in a .venv-3.13 beside it.
ifneq ($(origin PYTHON),undefined)
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Most tests wait for leases to end: more of them at a time than there are cores. Each process has servers of its own.
AT_A_TIME ?= 4
# Tests start Python again and again: each would compile lockbeat anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test busy check lint types layers collected checked cover explore bench chaos site clean

help:
	@echo 'make demo    three instances, one killed, one frozen: who fires what (half a minute)'
	@echo 'make test    the test suite, on every server that is here (PYTHON=python3.13: on that one)'
	@echo 'make busy    the same beside two busy loops, stopped for a moment again and again'
	@echo 'make check   what CI runs: lint, types, layers, tests'
	@echo 'make cover   which lines no test runs'
	@echo 'make explore the tests of properties with other examples each time'
	@echo 'make chaos   the long chaos tier: every mode for a minute'
	@echo 'make bench   the benchmarks against the peers'
	@echo 'make site    the pages of docs/ with a reference, into site/'

$(VENV)/.dev: pyproject.toml
	@test -n '$(PYTHON)' || { echo 'lockbeat needs Python 3.11 or later; name one: make PYTHON=/path/to/python' >&2; exit 2; }
	@echo 'installing into $(VENV) (once) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

demo: $(VENV)/.dev
	@$(BIN)/lockbeat demo

test: $(VENV)/.dev
	@$(PYTEST) -q -m 'not chaos' -n $(AT_A_TIME) --dist worksteal

busy: $(VENV)/.dev
	@$(BIN)/python -m tests.busy -q -m 'not chaos' -n $(AT_A_TIME) --dist worksteal

check: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j2 lint types layers checked

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

# Beside mypy. Without it each process of the tests would rewrite all of them at the same time.
collected: $(VENV)/.dev
	@mkdir -p build
	@$(PYTEST) -q --collect-only >build/collected 2>&1 || { tail -n 100 build/collected; exit 1; }

checked: collected
	$(PYTEST) -q -m 'not chaos' -n $(AT_A_TIME) --dist worksteal --max-worker-restart=4 --durations=10

cover: $(VENV)/.dev
	@$(PYTEST) -q -m 'not chaos' -n $(AT_A_TIME) --dist worksteal --cov --cov-report=term:skip-covered

explore: $(VENV)/.dev
	@$(PYTEST) -q -m 'hypothesis and not chaos' -n $(AT_A_TIME) --hypothesis-profile=explore

chaos: $(VENV)/.dev
	@$(PYTEST) -q -m chaos tests/chaos -s

bench: $(VENV)/.bench
	@$(BIN)/python benchmarks/run.py all

# The browser tests take the pictures of the page anew; without Chromium the site has none.
SHOTS := $(if $(shell command -v chromium),$(CURDIR)/build/pictures)

site: $(VENV)/.dev
ifneq ($(SHOTS),)
	@rm -rf $(SHOTS) && mkdir -p $(SHOTS)
	@LOCKBEAT_TEST_BACKENDS=valkey LOCKBEAT_SHOTS=$(SHOTS) $(PYTEST) -q tests/web/browser/test_looked_at.py -k test_each_page_is_sound
endif
	@LOCKBEAT_SHOTS=$(SHOTS) NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'open site/index.html'

clean:
	rm -rf build site .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .coverage
