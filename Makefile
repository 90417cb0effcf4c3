# `make` alone lists the commands. Each installs what it needs into .venv, in the versions and with
# the hashes of requirements.txt, and removes nothing that another has installed.
.DEFAULT_GOAL := help
.PHONY: help repro verify metrics-diff serve check test test-all bench docs lint audit licences lock
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Any shell but the default one: with that, make 3.81 of macOS starts simple commands itself and
# does not look for them in the PATH set here.
SHELL := /bin/bash

# uv does not read pip's variables; give it the same index, or folder of wheels.
UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_DEFAULT_INDEX UV_FIND_LINKS
NO_INDEX := $(if $(PIP_NO_INDEX),--no-index)

# uv leaves it to the first import to compile a package; do not forbid that to keep the result.
unexport PYTHONDONTWRITEBYTECODE

# A stamp file shows what is installed: its name ends in extras of pyproject.toml, joined by "+".
INSTALLED := .venv/.installed-
SERVICE := service
PIPELINE := pipeline+cpu
ALL := $(PIPELINE)+service+bulk+cluster+test

# What GitHub and pre-commit read, checked without a network.
SCHEMA := check-jsonschema --builtin-schema

# The commit that `make metrics-diff` compares with.
BASE ?= HEAD

# One test process for each core.
PYTEST := pytest --numprocesses=logical --dist=worksteal

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: $(INSTALLED)$(PIPELINE) ## Make the model: download, train, evaluate, export (dvc repro)
	dvc repro

verify: $(INSTALLED)$(PIPELINE) ## Hash every file that dvc.lock names (DVC itself trusts times and sizes)
	python -m stages.commands.verify

metrics-diff: $(INSTALLED)$(PIPELINE) ## Compare metrics with those of the commit BASE (default HEAD), in Markdown
	@dvc metrics diff --md $(BASE)

serve: data/model $(INSTALLED)$(SERVICE) ## Serve the model that dvc.lock pins, on http://127.0.0.1:8080
	python -m service

check: lint ## Check style and types, and run the tests that need no run of the pipeline
	$(PYTEST) -m "not pipeline and not server and not slow"

test: $(INSTALLED)$(ALL) ## Run the tests that are not slow
	$(PYTEST) -m "not slow"

test-all: test ## Run these, then the slow ones
	$(PYTEST) -m slow

bench: $(INSTALLED)$(ALL) ## Measure the service beside others (needs wrk)
	python -m tests.benchmarks.serving

docs: $(INSTALLED)$(ALL) ## Write the generated parts of the documents afresh
	python -m tests.docs

lint: $(INSTALLED)$(ALL) ## Check style, spelling, types, and the files in .github
	ruff check
	ruff format --check
	codespell
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) custom.github-workflows-require-timeout .github/workflows/*.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	pre-commit validate-config
	mypy

audit: $(INSTALLED)$(ALL) ## Look for known vulnerabilities in what requirements.txt locks
	python -m tests.audit

licences: $(INSTALLED)$(ALL) ## List the licences of what is locked; fail on one that is not allowed
	pip-licenses --with-system --packages $$(sed -n 's/^\([^ =]*\)==.*/\1/p' requirements.txt)

lock: $(INSTALLED)uv ## Compile requirements.txt afresh from pyproject.toml
	uv pip compile pyproject.toml --extra $(subst +, --extra ,$(ALL)) --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-header --quiet --output-file requirements.txt

# Compile at once for what cannot write to .venv: the service under systemd, commands in the tests.
$(INSTALLED)$(SERVICE) $(INSTALLED)$(ALL): export UV_COMPILE_BYTECODE := 1

data/model:
	$(error $@ is missing; run `make repro` to make it, or `dvc pull $@` to fetch it)

$(INSTALLED)%: pyproject.toml requirements.txt | $(INSTALLED)uv
	uv pip install $(NO_INDEX) --python .venv --require-hashes --constraints requirements.txt \
		--build-constraints requirements.txt --requirements pyproject.toml --extra $(subst +, --extra ,$*)
	touch $@

$(INSTALLED)uv: requirements.txt
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' $< | $(BIN)/pip install --quiet --require-hashes --requirement /dev/stdin
	touch $@
