# Everything here needs only make and python3 (3.11 or newer); `make test-kafka` also Java 17, Maven and redis-server.
PYTHON ?= python3
BIN := .venv/bin
# Many tests wait for timeouts and elections: three at a time fill two cores. JOBS=0 runs one after the other.
JOBS ?= 3
# The tests start hundreds of processes: each reads what the first has compiled to bytecode.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
STAMP := .venv/.made-from-lock

.PHONY: env run test test-kafka compiled test-compiled faults accounts overload soak fuzz check bench examples secrets lock clean
.DELETE_ON_ERROR:

env: $(STAMP)

# Made anew only when the lock or the project's own description changed.
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer wanted, got " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: env
	$(BIN)/opportune dev --demo

test: env
	$(PYTEST) tests

# The same suites on Apache Kafka and Redis proper: what stands on a broker or a store of them.
test-kafka: env
	$(PYTEST) --real tests/parts $(wildcard tests/contracts tests/integration tests/deploy tests/faults)
	$(PYTEST) --real -m kafka tests/connectors

# The core as machine code (docs/decisions/0173), and the core's tests on it. Wants a C compiler.
COMPILED := .cache/compiled
compiled: env
	$(BIN)/python deploy/compiled.py $(COMPILED)

test-compiled: compiled
	PYTHONPATH=$(COMPILED):. $(BIN)/python -P -m pytest --import-mode=append -n $(JOBS) tests/profiles tests/rules tests/laws tests/scenarios tests/stream

# Fault runs with real processes at their full size, a line each; FAULTS="F1 F3" and SEED=7 choose.
SEED ?= 42
faults: env
	$(BIN)/python -m tests.faults.command $(FAULTS) --seed $(SEED)

# The identity of decisions in 100,000 random events of each of three seeds instead of 5,000.
accounts: env
	ACCOUNTED_EVENTS=300000 $(BIN)/python -m pytest -q tests/laws/test_accounts.py

# F15: more requests than the collector may take, 5 times so many; CAPACITY a second, for MINUTES.
CAPACITY ?= 250
MINUTES ?= 10
overload: env
	$(BIN)/python -m tests.faults.overload --seed $(SEED) --capacity $(CAPACITY) --minutes $(MINUTES)

# F16: a live shop under one fault after another, for HOURS; what grows meanwhile.
HOURS ?= 8
soak: env
	$(BIN)/python -m tests.faults.soak --seed $(SEED) --minutes $$(($(HOURS) * 60))

# Readers of hostile bytes under atheris, SECONDS each; what breaks one is kept in tests/data/fuzz. Linux only.
SECONDS ?= 60
TARGETS ?= event command blob rules token body webhook inflated
fuzz: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/fuzz/requirements.txt
	for target in $(TARGETS); do $(BIN)/python -m tests.fuzz.run $$target --seconds $(SECONDS) || exit 1; done

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/base/*.yaml))

# What docker-compose.yml wants: .env with a secret, write keys and passwords of your own.
secrets:
	@$(PYTHON) deploy/env_file.py

bench: env
	$(BIN)/opportune bench

# The shop pack over the public histories: figures and charts.
examples: env
	$(BIN)/python docs/examples/make.py

# Newest versions that agree, for Linux and macOS on both processors, Python 3.11 to 3.13. No addresses: where packages
# come from is the machine's business.
UV_COMPILE = env -u PIP_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links

lock: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV_COMPILE) --extra embedded --extra dev pyproject.toml -o requirements-dev.lock
	$(UV_COMPILE) -c requirements-dev.lock pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
