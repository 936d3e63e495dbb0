# Every command that people and CI run. `make help` lists them.

PYTHON ?= python3
# Goals are made one after the other, also with -j: `make -j2 down up` stops before it starts.
.NOTPARALLEL:
# Python, and what it runs, is what is here, whatever the caller's Python is told.
unexport $(filter PYTHON%,$(.VARIABLES))
# Names of files are UTF-8, also where the locale says something else.
export PYTHONUTF8 := 1
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALLER := local_cluster/virtual_environment.py
# Three tests at a time suit two cores, since most of them wait; more cores take more.
TEST_WORKERS ?= 3
MINUTES ?= 60
ifneq ($(filter soak,$(MAKECMDGOALS)),)
ifneq ($(shell awk 'BEGIN { print ("$(MINUTES)" + 0 > 0) }'),1)
$(error MINUTES=$(MINUTES) must be a number greater than 0)
endif
endif
# Which cluster demo and verify are about: the one of this machine's processes, or docker compose's. And on
# which servers the integration tests run: those that they start, or testcontainers.
CLUSTER ?= local
IN_CONTAINERS := $(if $(filter compose,$(CLUSTER)),--compose)
ifeq ($(filter local compose testcontainers,$(CLUSTER)),)
$(error CLUSTER=$(CLUSTER) must be local, compose or testcontainers)
endif
BEGAN := $(shell date +%s)
PYTEST := $(RUN) pytest -n $(TEST_WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help demo up down status logs ops verify clean test pythons test-unit test-contract \
        test-integration test-e2e test-compose guides faults faults-ci soak prove check bench bench-full format lock \
        contracts docs sbom vulnerabilities

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- run it -----------------------------------------------------------------------------------

demo: $(VENV)/product ## start everything, sign someone up and show the event's journey (CLUSTER=compose: in containers)
	@$(RUN) local_cluster demo $(IN_CONTAINERS)

up: $(VENV)/product ## start Kafka, PostgreSQL and the services (WITHOUT=accounts: but for that one)
	@$(RUN) local_cluster up $(if $(WITHOUT),--without "$(WITHOUT)")

down: $(VENV)/product ## stop them; the data stays
	@$(RUN) local_cluster down

status: $(VENV)/product ## show each process, its troubles, each consumer's lag, each outbox's depth
	@$(RUN) local_cluster status

logs: $(VENV)/product ## show the logs, merged (PROCESS="users accounts": of those; FOLLOW=1; JSON=1)
	@$(RUN) local_cluster logs $(if $(FOLLOW),--follow) $(if $(JSON),--json) $(PROCESS)

ops: $(VENV)/product ## run an operators' command of a service (make ops ARGS="accounts parked list")
	@$(RUN) local_cluster ops $(ARGS)

verify: $(VENV)/product ## check in the databases and on the topics that nothing is lost (CLUSTER=compose: there)
	@$(RUN) local_cluster verify $(IN_CONTAINERS)

clean: $(VENV)/product ## stop everything and remove its data
	@$(RUN) local_cluster clean

# --- test it ----------------------------------------------------------------------------------

# The longest first, so that no worker is left alone with them at the end.
ifneq ($(filter test,$(MAKECMDGOALS)),)
TOOK := $(shell cat $(VENV)/tests-took 2>/dev/null)
$(info make test $(if $(TOOK),took $(TOOK) minutes here,takes about 12 minutes on two idle cores))
endif
test: $(VENV)/development check ## run every check and every test, from e2e to unit
	$(PYTEST) tests/e2e tests/integration tests/contract tests/unit
	@echo $$(( ($$(date +%s) - $(BEGAN)) / 60 + 1 )) > $(VENV)/tests-took

pythons: ## run unit and contract tests on each Python from 3.11 to 3.14 that is here
	@set -e; for each in 3.11 3.12 3.13 3.14; do \
	    if python$$each -c '' 2>/dev/null; then \
	        $(MAKE) PYTHON=python$$each VENV=.venv-$$each test-unit test-contract; \
	    else echo "no python$$each here"; fi; \
	done

test-unit: $(VENV)/development ## run the tests that need no database and no Kafka: seconds
	$(PYTEST) tests/unit

test-contract: $(VENV)/development ## check schemas, examples and compatibility: seconds
	$(PYTEST) tests/contract

test-integration: $(VENV)/development ## run the tests on real PostgreSQL and Kafka (CLUSTER=testcontainers: in containers)
	$(PYTEST) tests/integration

test-e2e: $(VENV)/development ## run the tests on all processes together
	$(PYTEST) tests/e2e

guides: $(VENV)/development ## follow docs/extending.md and docs/copying.md on copies of the repository: five minutes
	$(PYTEST) tests/guides

test-compose: $(VENV)/development ## run the system in containers of its own, kill and cut off parts: eight minutes
	$(RUN) pytest tests/compose

faults: $(VENV)/development ## run every fault and check that nothing is lost: half an hour
	FAULTS_OUTAGE_S=120 $(RUN) pytest tests/faults

faults-ci: $(VENV)/development ## kill at every failpoint, then random faults for three minutes: ten minutes
	$(RUN) pytest tests/faults/test_crash_matrix.py tests/faults/test_random.py

soak: $(VENV)/development ## run random faults, with a report (make soak MINUTES=60 SEED=1)
	$(RUN) tests.faults.random_run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

prove: $(VENV)/development ## remove each guard in turn and check that its tests fail: forty minutes (GUARD=... for one)
	$(RUN) tests.prove $(if $(GUARD),--only $(GUARD))

check: $(VENV)/development ## lint, types, import rules, generated files
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(VENV)/bin/python $(VENV)/bin/lint-imports --no-cache
	$(RUN) mypy
	$(RUN) contracts check

# --- measure it -------------------------------------------------------------------------------

bench: $(VENV)/development ## measure the speed beside bare programs: ten minutes (ONLY=... for one)
	@$(RUN) benchmarks $(if $(ONLY),--only $(ONLY))

bench-full: $(VENV)/development ## measure more, beside peers too, and draw docs/benchmarks.md: an hour and three quarters
	@$(RUN) benchmarks --full $(if $(ONLY),--only $(ONLY))

# --- keep it ----------------------------------------------------------------------------------

format: $(VENV)/development ## format the code, also where lint finds more
	$(RUN) ruff check --fix --exit-zero
	$(RUN) ruff format

contracts: $(VENV)/development ## write schemas, examples and the AsyncAPI document
	$(RUN) contracts generate

docs: $(VENV)/development ## write docs/settings.md, and what is made from observability/metrics.toml
	$(RUN) docs.settings_table
	$(RUN) docs.metrics

lock: $(VENV)/development ## pin the whole environment again, after a change of pyproject.toml
	$(RUN) pip install --quiet uv
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --extra cluster --output-file requirements.txt
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --constraint requirements.txt --output-file requirements-image.txt
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --all-extras --output-file requirements-dev.txt

sbom: $(VENV)/development ## write .local/sbom.cdx.json, what the product runs on (CycloneDX); the image contains its own
	@mkdir -p .local
	$(RUN) cyclonedx_py requirements requirements.txt --pyproject pyproject.toml --output-reproducible \
	    --output-file .local/sbom.cdx.json

vulnerabilities: $(VENV)/development ## ask the registry whether one is known of a version in the lock (needs a network)
	@$(RUN) tests.known_vulnerabilities

# --- the environment --------------------------------------------------------------------------

# Written last: without it a virtual environment is half of one, as after an attempt that failed.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is %d.%d; name another with make PYTHON=..." % sys.version_info[:2])'
	@$(PYTHON) -P $(INSTALLER) make $(VENV)

$(VENV)/product: requirements.txt | $(VENV)/bin/pip
	@echo "installing what it runs on (once)"
	@$(VENV)/bin/python -P $(INSTALLER) install requirements.txt
	@touch $@

$(VENV)/development: requirements-dev.txt | $(VENV)/bin/pip
	@echo "installing what its tests need (once)"
	@$(VENV)/bin/python -P $(INSTALLER) install requirements-dev.txt
	@touch $@ $(VENV)/product
