# Every target makes what it needs first: the virtual environment here, the toolchain in the user's cache.
# Settings: TOOLCHAIN=build|<folder>, CLUSTER=<name>, KEEP=1, V=1 (tracebacks); of load: USERS=<number>, DURATION=<seconds>.

PYTHON ?= python3
BIN := .venv/bin

export VIRTFLOW_TOOLCHAIN := $(or $(TOOLCHAIN),build)
export VIRTFLOW_CLUSTER := $(or $(CLUSTER),local)
export VIRTFLOW_KEEP := $(or $(KEEP),0)
export VIRTFLOW_VERBOSE := $(or $(V),0)

.PHONY: e2e test up down status logs load lint format

e2e: .venv/ready
	@$(BIN)/python -m virtflow e2e

test: lint
	@$(BIN)/python -m pytest

up down status: .venv/ready
	@$(BIN)/python -m virtflow $@

logs: .venv/ready
	@$(BIN)/python -m virtflow logs $(COMPONENT)

load: .venv/ready
	@$(BIN)/python -m virtflow load --users $(or $(USERS),28) --duration $(or $(DURATION),120)

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
