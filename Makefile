# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the others.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?=
BIN := .venv/bin
STACK := $(BIN)/python infra/local/stack.py
export PYTHON

.PHONY: help setup demo up down clean test unit conformance bench chaos lint lock

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## virtual environment with pinned packages, the hot path compiled (the others call it)
	@$(BIN)/python scripts/build_native.py

.venv/.ready: requirements-dev.lock pyproject.toml sdk/python/pyproject.toml
	@if [ -L .venv ]; then \
		echo "audit-trail: .venv is a link, and making it anew would empty what it points to:" \
			"run make setup there, or remove the link" >&2; exit 1; fi
	@python=$$(infra/local/require.sh) || exit 1; \
	echo "audit-trail: making .venv (about 120 MB of Python packages the first time)" >&2; \
	$$python scripts/build_native.py & compiling=$$!; \
	$$python -m venv --clear .venv && \
	$(BIN)/pip install --disable-pip-version-check --no-compile --require-hashes -r requirements-dev.lock && \
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e . -e sdk/python; \
	status=$$?; wait $$compiling; exit $$status
	@touch $@

demo: setup ## real vendor records through the whole pipeline, and a table of what is where
	@$(BIN)/python scripts/demo.py

up: setup ## the stack, a worker, a signer and a keeper, until `make down`
	@$(BIN)/python scripts/demo.py --no-import

down: setup ## stop all of it; data stay
	@$(STACK) down

clean: setup ## stop everything and forget the data
	@$(STACK) clean
	@rm -rf build

test: setup ## every test, real servers included
	@$(BIN)/python scripts/run_tests.py

unit: setup ## the tests that need no server
	@$(BIN)/python -m pytest -q -n logical tests/unit tests/contract sdk/python/tests -m "not integration"

conformance: setup ## the SDKs: the same bytes and the same refusals in each language
	@$(BIN)/python scripts/run_tests.py --conformance

bench: setup ## throughput, latency, memory; prints a table and writes build/bench.json
	@$(BIN)/python scripts/bench.py

chaos: setup ## properties and fault tests in their full form (about an hour)
	@$(BIN)/python scripts/run_tests.py --chaos

lint: setup ## mypy, ruff, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p pipeline -p agents -p sinks -p avro_schemas -p audit_sdk
	@MYPYPATH=infra/local $(BIN)/mypy infra/local/stack.py infra/local/lock.py infra/local/audit_stack
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python scripts/build_native.py --lint
	@$(BIN)/python scripts/validate_event_schema.py schemas
	@$(BIN)/python scripts/run_tests.py --vet

# The SDK is this repository's own and has no hash: it is installed from its folder.
LOCK := uv pip compile -q pyproject.toml --generate-hashes --no-header --no-annotate --universal --python-version 3.11 --no-emit-package audit-sdk

lock: setup ## pin every dependency with hashes again
	@$(BIN)/$(LOCK) --extra api -o requirements.lock
	@$(BIN)/$(LOCK) --all-extras -o requirements-dev.lock
