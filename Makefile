# `make` alone says what there is.
.DEFAULT_GOAL := help
.PHONY: help repro verify serve check quick test test-all bench lint audit licences lock
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

repro: $(BIN)/locked ## Make the model: download, train, evaluate, export (dvc repro)
	dvc repro

verify: $(BIN)/locked ## Hash every file that dvc.lock names (DVC itself trusts times and sizes)
	python -m stages.verify

serve: $(BIN)/locked ## Serve the model that dvc.lock pins, on http://127.0.0.1:8080
	python -m service

check: $(BIN)/locked ## Check style and types, and run the tests that need no run of the pipeline
	$(MAKE) --jobs --output-sync lint quick

quick: $(BIN)/locked
	pytest -m "not pipeline and not slow"

test: $(BIN)/locked ## Run the tests, but not those that kill, flood, fill disks or wait for time limits
	pytest --numprocesses=logical --dist=worksteal -m "not slow"

test-all: $(BIN)/locked ## Run all tests
	pytest --numprocesses=logical --dist=worksteal

bench: $(BIN)/locked ## Measure the service beside others (needs wrk)
	python -m tests.benchmarks.serving

lint: $(BIN)/locked ## Check style and types
	ruff check
	ruff format --check
	mypy

audit: $(BIN)/locked ## Look for known vulnerabilities in what requirements.txt locks
	python -m tests.audit

licences: $(BIN)/locked ## List the licences of what is locked; fail on one that is not allowed
	pip-licenses --with-system --packages $$(sed -n 's/^\([^ =]*\)==.*/\1/p' requirements.txt)

lock: $(BIN)/locked ## Compile requirements.txt afresh from pyproject.toml
	uv pip compile pyproject.toml --universal --generate-hashes --no-header --quiet --upgrade \
		--extra pipeline --extra service --extra bulk --extra cpu --extra test --output-file requirements.txt

$(BIN)/locked: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.txt
	touch $@
