# Commands for people and scripts. `make setup` is done by the others when it is needed.
# A fresh machine needs Python 3.11 or newer; Java + Maven (or Docker) let the tests use Apache Kafka.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
UV ?= uv
BIN := .venv/bin
STAMP := .venv/.installed
LOCK := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --quiet --custom-compile-command "make lock"

.PHONY: screenshots setup quality test test-core demo check kafka lock faults faults-guards bench
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install one, or make PYTHON=/path/to/it"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

test: setup
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

# Everything that needs no server.
test-core: setup
	$(BIN)/python -m pytest -q stream_app/core tests/core tests/test_architecture.py $(PYTEST_ARGS)

# DEMO_SECONDS=60 DEMO_FILE=events.csv (your own events) reach it through the environment, as make
# passes on what is set there or on its command line.
demo: setup
	$(BIN)/python -m stream_app.demo

# Kills, zombies, roll-backs, restarts and broken connections under load; SEED, ROUNDS, RATE, KINDS,
# FAULTS and MINUTES (at most) and GUARD (a guard the workers run without) reach it so.
faults: setup
	$(BIN)/python -m faults $(FAULTS_ARGS)

# Each guard taken out in turn: the suite must fail every time.
faults-guards: setup
	$(BIN)/python -m faults.guards

# SCENARIO="pipeline freshness" (default: all but soak), RUNS=3, BENCH_SCALE=0.1 (to try), SOAK_SECONDS.
# `make bench SCENARIO=report` renews the tables of docs/performance.md from the last results: those of
# full scale and a committed tree, REPORT_TRIALS=1 shows all.
bench: setup
	@RUNS="$(RUNS)" BENCH_SCALE="$(BENCH_SCALE)" SOAK_SECONDS="$(SOAK_SECONDS)" \
		$(BIN)/python -m bench $(SCENARIO)

# Accuracy on recorded events (QUALITY_DATA names their directory); rewrites docs/quality.md.
quality: setup
	$(BIN)/python -m bench.quality

check: setup
	$(BIN)/ruff format --check stream_app tests faults bench
	$(BIN)/ruff check stream_app tests faults bench
	$(BIN)/mypy --strict stream_app tests faults bench
	$(BIN)/python -m stream_app.contracts --check
	$(BIN)/python -m pytest -q tests/test_architecture.py

# The pictures in docs, from the tests in Chromium.
screenshots: setup
	WRITE_SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/operations/test_console.py tests/operations/test_storefront.py

# Apache Kafka's jars for the tests, into .cache/ (the tests do it themselves when needed).
kafka: setup
	$(BIN)/python -m tests.servers

# After a change of dependencies; needs uv. The image serves customer service and sends traces, so
# what they need is in its lock; IMAGE_EXTRAS="support otel embedding" has more in it.
IMAGE_EXTRAS ?= support otel

lock:
	$(LOCK) --extra dev --output-file requirements-dev.lock
	$(LOCK) $(addprefix --extra ,$(IMAGE_EXTRAS)) --constraint requirements-dev.lock \
		--output-file requirements.lock
	echo "flit_core>=3.12,<4" | $(UV) pip compile - --generate-hashes --no-emit-index-url --no-annotate \
		--quiet --constraint requirements-dev.lock --custom-compile-command "make lock" \
		--output-file deploy/requirements-build.lock
