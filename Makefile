# Every target does its own set-up; a second call finds it done.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
INSTALLED := .venv/installed
COMPILED := build/compiled
BOTH_WAYS := tests/core tests/protocol tests/simulation tests/test_instructions.py
NODE_PEERS := tests/peers/node
BENCH := build/bench/venv
NODE_READY := $(NODE_PEERS)/node_modules/.package-lock.json
PYRIGHT := tests/typing
PYRIGHT_READY := $(PYRIGHT)/node_modules/.package-lock.json

.PHONY: setup demo test check lint types unit compiled instructions fuzz outcomes simulate bench audit wheel clean

setup: $(READY)

# majordomus with its wires, and what it needs to run: enough for `make demo`.
$(INSTALLED): pyproject.toml setup.py $(shell find src -name "*.pyx")
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "majordomus needs Python 3.11 or newer: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# The tools that `make test` needs besides. Installed by name: the extra would build the wires again.
$(READY): $(INSTALLED)
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["dev"], sep="\n")' > .venv/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/dev.txt
	@touch $@

# The Node peers are other people's ZeroMQ; without npm their tests skip, and say so.
$(NODE_READY): $(NODE_PEERS)/package.json $(NODE_PEERS)/package-lock.json
	@if command -v npm >/dev/null; then cd $(NODE_PEERS) && npm ci --silent --no-audit --no-fund && touch node_modules/.package-lock.json; \
	else echo "npm is not here: the tests with Node peers will skip"; fi

# Pyright checks the programs of the pages and the examples; without npm its test skips, and says so.
$(PYRIGHT_READY): $(PYRIGHT)/package.json $(PYRIGHT)/package-lock.json
	@if command -v npm >/dev/null; then cd $(PYRIGHT) && npm ci --silent --no-audit --no-fund && touch node_modules/.package-lock.json; \
	else echo "npm is not here: the test with pyright will skip"; fi

demo: $(INSTALLED)
	@$(BIN)/majordomus demo

test: check

check: lint types unit
	$(MAKE) wheel WHEEL_CHECK="--most-seconds 60"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --quiet --offline .github/workflows

# Also as Windows and macOS see it: a name that one of them lacks is only used in majordomus.system.
types: $(READY)
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin

unit: $(READY) $(NODE_READY) $(PYRIGHT_READY) compiled
	$(BIN)/python -m pytest
	PYTHONPATH=$(COMPILED) $(BIN)/python -m pytest $(BOTH_WAYS)

# The rules as a wheel has them; an editable install never compiles them (docs/adr/0008-compiled-rules.md).
compiled: $(READY)
	$(BIN)/python packaging/prune_build.py $(COMPILED)
	$(BIN)/python setup.py -q build --build-lib $(COMPILED)

# The long forms of what `make test` does in short.
fuzz: $(READY)
	FUZZ=full $(BIN)/python -m pytest tests/protocol/test_totality.py --timeout 600
	$(BIN)/python -m tests.protocol.mutator --messages 1000000
	$(BIN)/python -m tests.core.fuzz --messages 1000000
	$(BIN)/python -m tests.core.forgery --messages 1000000

# 20,000 calls whose handlers, hooks and callers do whatever hypothesis makes up; it prints how many there were of each combination.
outcomes: $(READY)
	ANY_OUTCOME=full $(BIN)/python -m pytest tests/net/any_outcome --timeout 7200 --capture no

# What honest callers notice while 10,000 connections say nothing, and how soon a message without an end is cut off.
chaos: $(READY)
	$(BIN)/python -m benchmarks.siege

simulate: $(READY)
	$(BIN)/python -m tests.simulation.simulate --seconds 600 --seed 1
	$(BIN)/python -m tests.simulation.strategies

# All figures of docs/performance.md, in some 15 minutes on a quiet machine. The peers that are not on it
# (nats-server, gearmand, libzmq3-dev, valgrind, perf) are left out, and it says so.
# `make bench ARGS='--only routing,python --rounds 9 --seconds 3'`, or ARGS=--quick.
bench: $(BENCH)/ready
	$(BENCH)/bin/python -m benchmarks.run $(ARGS)

# majordomus as a wheel has it, the rules compiled; and beside it, in a folder, the rules in plain Python.
$(BENCH)/ready: benchmarks/requirements.txt pyproject.toml setup.py $(shell find src -name '*.p[yx]*' -not -name '*.pyc')
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	rm -rf build/lib.* build/bench/plain
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation .
	MAJORDOMUS_RULES=python $(BENCH)/bin/python setup.py -q build --build-lib build/bench/plain
	@touch $@

# A wheel of this machine's CPython with compiled rules in dist/, installed and tried where there is no compiler.
# It packs what `compiled` has built. A machine that runs other things meanwhile may take longer than 10 s to install it.
wheel: compiled
	rm -rf dist/majordomus-*.whl build/bdist.*
	$(BIN)/python -W ignore setup.py -q build --build-lib $(COMPILED) bdist_wheel --dist-dir dist
	$(BIN)/python packaging/check_wheel.py dist/majordomus-*.whl $(WHEEL_CHECK)

# Known holes in what we depend on; it asks a public data base.
audit: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --skip-editable

# What one request costs the rules, and one call a Python client and worker, counted by valgrind, both ways.
instructions: compiled
	$(BIN)/python -m benchmarks.instructions
	PYTHONPATH=$(COMPILED) $(BIN)/python -m benchmarks.instructions
	$(BIN)/python -m benchmarks.shell_instructions
	PYTHONPATH=$(COMPILED) $(BIN)/python -m benchmarks.shell_instructions

clean:
	rm -rf .venv build dist src/*.egg-info $(NODE_PEERS)/node_modules $(PYRIGHT)/node_modules
