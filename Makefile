# Every target does its own set-up; a second call finds it done.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
INSTALLED := .venv/installed
COMPILED := build/compiled
BOTH_WAYS := tests/core tests/protocol tests/simulation tests/test_instructions.py tests/durable/test_sums.py
# Tests that compute, without sockets and real time: a busy machine changes nothing about them.
RULES := tests/core tests/protocol tests/simulation tests/messages tests/test_instructions.py tests/test_header_layout.py tests/test_typing.py
NODE_PEERS := tests/peers/node
BENCH := build/bench/venv
NODE_READY := $(NODE_PEERS)/node_modules/.package-lock.json
PYRIGHT := tests/typing
ASYNCAPI := tests/contracts/node
ASYNCAPI_READY := $(ASYNCAPI)/node_modules/.package-lock.json
PYRIGHT_READY := $(PYRIGHT)/node_modules/.package-lock.json

.PHONY: series setup demo test check lint types unit unit-rules unit-others compiled instructions fuzz outcomes contracts durable-proof sanitize mutations chaos simulate bench audit wheel clean

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

# The parser of AsyncAPI checks the documents of contracts; without npm its test skips, and says so.
$(ASYNCAPI_READY): $(ASYNCAPI)/package.json $(ASYNCAPI)/package-lock.json
	@if command -v npm >/dev/null; then cd $(ASYNCAPI) && npm ci --ignore-scripts --silent --no-audit --no-fund && touch node_modules/.package-lock.json; \
	else echo "npm is not here: the test with the AsyncAPI parser will skip"; fi

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

unit: $(READY) $(NODE_READY) $(PYRIGHT_READY) $(ASYNCAPI_READY) compiled
	$(MAKE) --jobs 2 unit-rules unit-others

# These compute, the others wait most of the time. At a low priority they delay no test that measures real time.
# What they print comes at their end, not between the lines of the others.
unit-rules:
	@nice $(BIN)/python -m pytest -p no:cacheprovider $(RULES) > build/rules.log 2>&1 || { cat build/rules.log; exit 1; }
	@PYTHONPATH=$(COMPILED) nice $(BIN)/python -m pytest -p no:cacheprovider $(BOTH_WAYS) >> build/rules.log 2>&1 || { cat build/rules.log; exit 1; }
	@cat build/rules.log

unit-others:
	$(BIN)/python -m pytest $(addprefix --ignore=,$(RULES))

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

# What durable requests promise, in its long form: power cuts, also during a recovery, each call to the disk failing, kill -9 of real brokers and workers.
durable-proof: $(READY)
	$(BIN)/python -m tests.durable.power --cuts 1000000 --recoveries 100000
	$(BIN)/python -m tests.durable.calls --cuts 10000 --recoveries 10000
	$(BIN)/python -m tests.durable.faults
	$(BIN)/python -m tests.durable.kill --rounds 1000
	$(BIN)/python -m tests.durable.flips --flips 100000
	$(BIN)/python -m tests.simulation.durable --runs 50000

# 20,000 calls whose handlers, hooks and callers do whatever hypothesis makes up; it prints how many there were of each combination.
outcomes: $(READY)
	ANY_OUTCOME=full $(BIN)/python -m pytest tests/net/any_outcome --timeout 7200 --capture no

# 1,000 signatures of handlers: contract, stub, call, the same value back; 10,000 mutated contracts through the parser.
contracts: $(READY)
	CONTRACTS=full $(BIN)/python -m pytest tests/contracts --timeout 1200 --capture no

# What honest callers notice while 10,000 connections say nothing, and how soon a message without an end is cut off.
# Then 1,000,000 calls while brokers and workers are killed, stopped and restarted: one outcome each, by two ledgers.
# Then fifteen floods, one after the other and together: the memory that the broker holds, and the latencies of honest calls.
# Then 10,000 half-open handshakes of CURVE, and a million garbage ones: docs/proof/handshakes.md.
chaos: compiled
	$(BIN)/python -m benchmarks.siege
	$(BIN)/python -m benchmarks.floods
	$(BIN)/python -m benchmarks.handshakes
	PYTHONPATH=$(COMPILED) $(BIN)/python -m benchmarks.ledger --calls 1000000 --seed 13

# Mutated peers of our own ZMTP, which is built with AddressSanitizer and UBSan for it (gcc's libasan and libubsan): docs/proof/sanitize.md.
# Two million connections take a core some 20 minutes: `make sanitize ARGS="--connections 100000"`.
sanitize: $(READY)
	$(BIN)/python -m tests.net.zmtp.sanitize $(ARGS)

# 150 seeded random mutations of net/ and middleware/, each against the tests of its module: docs/proof/mutations.md.
# It takes an hour on a quiet core; started again, it goes on where it was. mutmut is installed for it alone.
mutations: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	test -e build/mutations/sample.json || $(BIN)/python -m benchmarks.mutations draw
	$(BIN)/python -m benchmarks.mutations run
	$(BIN)/python -m benchmarks.mutations run --again
	$(BIN)/python -m benchmarks.mutations report

simulate: $(READY)
	$(BIN)/python -m tests.simulation.simulate --seconds 600 --seed 1
	$(BIN)/python -m tests.simulation.strategies
	$(BIN)/python -m tests.simulation.durable --runs 5000

# All figures of docs/performance.md, in some 15 minutes on a quiet machine. The peers that are not on it
# (nats-server, gearmand, redis-server, rabbitmq-server, strace, libzmq3-dev, valgrind, perf) are left out, and it says so.
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

# The exporter's number of series, with a million names of services.
series: $(READY)
	SERIES_SNAPSHOTS=50 $(BIN)/python -m pytest tests/observe/test_exporter.py -k names_without_end --capture no

clean:
	rm -rf .venv build dist src/*.egg-info $(NODE_PEERS)/node_modules $(PYRIGHT)/node_modules $(ASYNCAPI)/node_modules
