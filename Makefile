# Every target makes what it needs first: the virtual environment here, the toolchain in the user's cache.
# Settings: TOOLCHAIN=auto|build|upstream|<folder>, MIRROR=<url>, CLUSTER=<name>, KEEP=1, V=1 (tracebacks); of load:
# USERS=<number>, DURATION=<seconds>; of journey: TENANTS=<number>, LOAD=0, USERS=<number>; of gc: RUN=<id>, DELETE=1;
# of e2e: RESUME=<run>; of bench: MOST=<number>; of torture: KILLS, SEED, JOURNEYS=<number>; of conformance:
# AGAINST=<kubeconfig>, AUDIT_LOG=<file>.

PYTHON ?= python3
BIN := .venv/bin

export VIRTFLOW_TOOLCHAIN := $(or $(TOOLCHAIN),auto)
export VIRTFLOW_MIRROR := $(or $(MIRROR),$(VIRTFLOW_MIRROR))
export VIRTFLOW_CLUSTER := $(or $(CLUSTER),local)
export VIRTFLOW_KEEP := $(or $(KEEP),0)
export VIRTFLOW_VERBOSE := $(or $(V),0)

.PHONY: e2e test explore attack exits conformance up down status runs logs histories load journey gc bench torture doctor lint format

e2e: .venv/ready
	@$(BIN)/python -m virtflow e2e $(if $(RESUME),--resume $(RESUME))

test: lint
	@$(BIN)/python -m pytest

# Property tests with other examples each time, and many more of them.
explore: .venv/ready
	@$(BIN)/python -m pytest --hypothesis-profile=explore tests/unit

attack: .venv/ready
	@$(BIN)/python -m pytest tests/attack --hypothesis-profile=attack

# A crash at the end of a process is rare: so many exits show whether there is one.
exits: .venv/ready
	@$(BIN)/python -m pytest -s tests/integration/test_exits.py --exits=200

conformance: .venv/ready
	@$(BIN)/python -m pytest tests/conformance/test_situations.py $(if $(AGAINST),--kubeconfig $(AGAINST)) \
		$(if $(AUDIT_LOG),--audit-log $(AUDIT_LOG))

up down status runs: .venv/ready
	@$(BIN)/python -m virtflow $@

logs: .venv/ready
	@$(BIN)/python -m virtflow logs $(COMPONENT)

# What the replay tests replay, from real runs, on a cluster of their own.
histories: export VIRTFLOW_CLUSTER := histories
histories: .venv/ready
	@$(BIN)/python -m virtflow e2e --keep
	@$(BIN)/python -m tests.workflows.record
	@$(BIN)/python -m virtflow down

load: .venv/ready
	@$(BIN)/python -m virtflow load --users $(or $(USERS),28) --duration $(or $(DURATION),120)

journey: .venv/ready
	@$(BIN)/python -m virtflow journey --tenants $(or $(TENANTS),1) --users $(or $(USERS),28) \
		$(if $(filter 0,$(LOAD)),--no-load)

gc: .venv/ready
	@$(BIN)/python -m virtflow gc $(if $(RUN),--run $(RUN)) $(if $(filter 1,$(DELETE)),--delete)

bench: .venv/ready
	@$(BIN)/python -m virtflow bench --most $(or $(MOST),1000)

torture: .venv/ready
	@$(BIN)/python -m virtflow torture --kills $(or $(KILLS),50) $(if $(SEED),--seed $(SEED)) \
		--journeys $(or $(JOURNEYS),4)

# Before the virtual environment, too: what is missing may be what makes it.
doctor:
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m virtflow.doctor

lint: .venv/ready
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

format: .venv/ready
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

.venv/ready: pyproject.toml constraints.txt
	@echo "Making the virtual environment"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
